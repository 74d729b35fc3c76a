//! Who a node is, proven: mutual TLS between nodes (ADR 0028).
//!
//! A node has a certificate that an authority of its cluster signed and that names the node, by one URI among its
//! alternative names: `quorate://CLUSTER/NODE`. It is looked at in two places:
//!
//! 1. TLS, in which both sides show one: an authority that this node trusts signed it, it is of today, and it is meant
//!    for what it does. TLS 1.3 only, since both sides are ours. No session is resumed: that would let in, without
//!    looking, what has expired or is not trusted any more.
//! 2. Our own handshake: the certificate names the node, of this cluster, that its owner says it is (the listener), or
//!    that was dialed (the dialer), before anything else is said. So no certificate lets its owner play another node, and
//!    an authority may serve several clusters.
//!
//! Names of hosts are not looked at: an address leads to a node, it is not who the node is.
//!
//! [`Tls::renew`] counts for the connections that are made from then on; those that there are go on with what they
//! were made with.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use protocol::membership::is_name;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme, version,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// What the URI of a node begins with.
const SCHEME: &str = "quorate://";

/// The node that a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its cluster.
    pub cluster: String,
    /// The node.
    pub node: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.cluster, self.node)
    }
}

impl Name {
    fn of_uri(uri: &str) -> Option<Self> {
        let (cluster, node) = uri.strip_prefix(SCHEME)?.split_once('/')?;
        (is_name(cluster) && is_name(node)).then(|| Self { cluster: cluster.to_owned(), node: node.to_owned() })
    }

    /// What a certificate names. One that names several nodes names none: it would be each of them.
    fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let mut uris = names.value.general_names.iter().filter_map(|name| {
            let GeneralName::URI(uri) = name else { return None };
            uri.starts_with(SCHEME).then_some(*uri)
        });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => Self::of_uri(uri),
            _ => None,
        }
    }
}

/// What a node needs for TLS is not usable: which part of it, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The certificates.
    #[error("{0}")]
    Certificate(String),
    /// The key.
    #[error("{0}")]
    Key(String),
    /// The authorities.
    #[error("{0}")]
    Authorities(String),
}

/// A certificate with those between it and its authority, and its key.
pub struct Pair {
    /// The certificates, the own one first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first.
    pub key: PrivateKeyDer<'static>,
    /// When the first of them to do so expires, in seconds since 1970.
    pub not_after: i64,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Pair {
    /// Reads PEM.
    ///
    /// # Errors
    /// Which part is not usable.
    pub fn read(certificate: &[u8], key: &[u8]) -> Result<Self, Unusable> {
        let chain = certificates(certificate).map_err(Unusable::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| Unusable::Key("must be a private key as PEM (PKCS#8, SEC1 or PKCS#1)".to_owned()))?;
        let not_after = not_after(&chain).map_err(Unusable::Certificate)?;
        Ok(Self { chain, key, not_after })
    }
}

/// The certificates in a text of PEM; at least one.
///
/// # Errors
/// What would be right.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => {
            Err("must be certificates as PEM, each between BEGIN CERTIFICATE and END CERTIFICATE".to_owned())
        }
    }
}

/// The authorities that a text of PEM holds.
///
/// # Errors
/// What would be right.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("holds a certificate that cannot be read: {error}"))?;
    }
    Ok(roots)
}

/// When the first of some certificates expires, in seconds since 1970.
fn not_after(chain: &[CertificateDer<'_>]) -> Result<i64, String> {
    let of_one = |certificate: &CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(certificate.validity().not_after.timestamp())
    };
    let times: Option<Vec<i64>> = chain.iter().map(of_one).collect();
    times.and_then(|times| times.into_iter().min()).ok_or_else(|| "holds a certificate that cannot be read".to_owned())
}

/// The cryptography of all TLS of Quorate.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Lets the libraries of this process that do TLS by themselves use the same.
pub fn install() {
    // It is installed already.
    let _ = ring::default_provider().install_default();
}

/// All that a node needs for TLS with the others; checked as a whole.
pub struct Credentials {
    name: Name,
    not_after: i64,
    authorities_not_after: i64,
    listens: Arc<ServerConfig>,
    dials: Arc<ClientConfig>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads PEM.
    ///
    /// # Errors
    /// Which part is not usable: others would not take it either.
    pub fn read(certificate: &[u8], key: &[u8], ca: &[u8]) -> Result<Self, Unusable> {
        let Pair { chain, key, not_after: expires } = Pair::read(certificate, key)?;
        let roots = Arc::new(authorities(ca).map_err(Unusable::Authorities)?);
        let authorities_not_after = certificates(ca).and_then(|all| not_after(&all)).map_err(Unusable::Authorities)?;
        let name = Name::of_certificate(&chain[0]).ok_or_else(|| {
            let must = format!("must name its node by one URI among its alternative names, {SCHEME}CLUSTER/NODE");
            Unusable::Certificate(must)
        })?;
        let verifier = Arc::new(Verifier { roots: Arc::clone(&roots), provider: provider() });
        verifier.check(&chain[0], &chain[1..], UnixTime::now()).map_err(|error| {
            Unusable::Certificate(format!("would be refused by the other nodes: {}", Failed::of(&error).text))
        })?;
        let unusable = |error: Error| Unusable::Key(format!("does not go with the certificate: {error}"));
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
        let clients = clients.map_err(|error| Unusable::Authorities(error.to_string()))?;
        // It dials them, too.
        clients.verify_client_cert(&chain[0], &chain[1..], UnixTime::now()).map_err(|error| {
            Unusable::Certificate(format!("would be refused by the other nodes, as that of a node that dials: {error}"))
        })?;
        let mut listens = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        listens.session_storage = Arc::new(NoServerSessionStorage {});
        listens.send_tls13_tickets = 0;
        let mut dials = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain, key)
            .map_err(unusable)?;
        dials.resumption = Resumption::disabled();
        dials.enable_sni = false;
        let (listens, dials) = (Arc::new(listens), Arc::new(dials));
        Ok(Self { name, not_after: expires, authorities_not_after, listens, dials })
    }

    /// The node that the certificate names.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// When the certificate expires, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// When the first of the authorities does.
    #[must_use]
    pub fn authorities_not_after(&self) -> i64 {
        self.authorities_not_after
    }
}

/// The credentials in force. Clones share them.
#[derive(Clone, Debug)]
pub struct Tls {
    current: Arc<RwLock<Arc<Credentials>>>,
}

impl Tls {
    /// These from the start.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self { current: Arc::new(RwLock::new(Arc::new(credentials))) }
    }

    /// These from now on.
    pub fn renew(&self, credentials: Credentials) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(credentials);
    }

    /// The node that they name.
    #[must_use]
    pub fn name(&self) -> Name {
        self.current().name.clone()
    }

    fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current().listens))
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.current().dials))
    }
}

/// What stands for the name of a host, which is not looked at and not sent.
pub(crate) fn no_host() -> ServerName<'static> {
    ServerName::IpAddress(rustls::pki_types::IpAddr::V4(rustls::pki_types::Ipv4Addr::from([0, 0, 0, 0])))
}

/// The node that the certificate of the other side names. TLS has checked the rest of it.
pub(crate) fn named(shown: Option<&[CertificateDer<'_>]>) -> Option<Name> {
    Name::of_certificate(shown?.first()?)
}

/// What a certificate names, for logs and answers.
pub(crate) fn shown(name: Option<&Name>) -> String {
    name.map_or_else(|| "no node".to_owned(), ToString::to_string)
}

/// Takes the certificate of a listener: as TLS does, but for the name of the host.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, between, now, algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why TLS with the other side came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failed {
    /// The label in metrics.
    pub reason: &'static str,
    /// The end of a sentence.
    pub text: String,
}

impl Failed {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "of what the library knows, what operators meet has a name here"
    )]
    fn of(error: &Error) -> Self {
        let (reason, text) = match error {
            Error::NoCertificatesPresented => ("no_certificate", "it shows no certificate".to_owned()),
            Error::InvalidCertificate(why) => of_certificate(why),
            Error::PeerIncompatible(_) => ("tls_version", "it does not speak TLS 1.3".to_owned()),
            Error::InvalidMessage(_) => {
                ("no_tls", "what it says is not TLS; give every node tls.peer_certificate".to_owned())
            }
            Error::AlertReceived(alert) => {
                ("refused_by_peer", format!("it refuses the certificate of this node ({alert:?})"))
            }
            other => ("tls", other.to_string()),
        };
        Self { reason, text }
    }

    /// What TLS found wrong, where it was TLS by which an exchange failed.
    pub(crate) fn in_io(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Error>().map(Self::of)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "as above")]
fn of_certificate(why: &CertificateError) -> (&'static str, String) {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("certificate_expired", "the certificate has expired".to_owned())
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "certificate_not_valid_yet",
            "the certificate is not valid yet; look at the clocks of both nodes".to_owned(),
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            ("unknown_authority", "no authority in tls.peer_ca signed the certificate".to_owned())
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            ("certificate_purpose", "the certificate is not for both a server and a client".to_owned())
        }
        other => ("certificate", format!("the certificate is not usable: {other}")),
    }
}

#[cfg(test)]
mod tests;
