//! Who gets in where nodes have TLS, and who does not. RELIABILITY 6, rows 2 to 4.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use protocol::{LearnFrom, Message};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme, SupportedProtocolVersion, version,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use transport::handshake::{Answer, Hello, Verdict};
use transport::join::{Again, Application, Join, NoAdmission, NotAdmitted, ask};
use transport::tls::{Credentials, Pair, Tls, Unusable, provider};
use transport::{Lane, TransportConfig};

use crate::messages::{self, numbered};
use crate::support::{A, B, DEADLINE, Node, Raw, config, counted, identity, listener, raw_frame};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const URI_A: &str = "quorate://test/a";
const URI_B: &str = "quorate://test/b";

/// An authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What an authority gives to a node: certificate and key as PEM.
struct Issued {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        Self::named("an authority")
    }

    fn named(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, uris: &[&str]) -> Issued {
        self.issue_with(uris, |_| {})
    }

    fn issue_with(&self, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        let uri = |uri: &&str| SanType::URI((*uri).try_into().expect("ASCII"));
        params.subject_alt_names = uris.iter().map(uri).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed").pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    fn credentials(&self, uri: &str) -> Credentials {
        self.issue(&[uri]).credentials(&self.pem).expect("good ones")
    }
}

impl Issued {
    fn credentials(&self, ca: &str) -> Result<Credentials, Unusable> {
        Credentials::read(self.certificate.as_bytes(), self.key.as_bytes(), ca.as_bytes())
    }

    fn pair(&self) -> Pair {
        Pair::read(self.certificate.as_bytes(), self.key.as_bytes()).expect("PEM")
    }
}

fn expired(params: &mut CertificateParams) {
    params.not_before = (now() - 2 * DAY).into();
    params.not_after = (now() - DAY).into();
}

fn not_yet(params: &mut CertificateParams) {
    params.not_before = (now() + DAY).into();
    params.not_after = (now() + 2 * DAY).into();
}

fn only_a_server(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
}

fn only_a_client(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

#[expect(clippy::disallowed_methods, reason = "certificates are of today")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn with_tls(config: TransportConfig, credentials: Credentials) -> TransportConfig {
    TransportConfig { tls: Some(Tls::new(credentials)), ..config }
}

/// An adversary that takes whatever a listener shows.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Speaks TLS of that version with a listener and shows that certificate.
async fn speak(
    address: SocketAddr,
    shows: Option<&Issued>,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .expect("a version that is there")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let config = match shows.map(Issued::pair) {
        Some(pair) => config.with_client_auth_cert(pair.chain, pair.key).expect("its own key"),
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Says `hello` with that certificate; what the listener answers, or the alert that it sends.
async fn say(address: SocketAddr, shows: Option<&Issued>, hello: &Hello) -> Result<Answer, std::io::Error> {
    let mut stream = speak(address, shows, &version::TLS13).await?;
    // The alert may be there already, and then nothing can be written.
    let mut raw = Raw(&mut stream);
    let said = tokio::io::AsyncWriteExt::write_all(&mut raw.0, &raw_frame(hello)).await;
    match said {
        Ok(()) => match timeout(DEADLINE, raw.0.read_u8()).await.expect("in time") {
            // The first byte of a header, which is always this one: its length is small.
            Ok(0) => {
                let mut rest = vec![0; 7];
                raw.0.read_exact(&mut rest).await?;
                let length = usize::from(rest[2]) + 256 * usize::from(rest[1]);
                let mut payload = vec![0; length];
                raw.0.read_exact(&mut payload).await?;
                Ok(prost::Message::decode(&payload[..]).expect("an answer"))
            }
            Ok(other) => panic!("{other} is no answer"),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Catches TLS under which messages are lost, cut or held back, on any lane: also where the connection has moved to
/// another thread; and connections that are not encrypted though both nodes have certificates.
#[actix::test]
async fn every_message_arrives_through_tls() {
    let authority = Authority::new();
    let ((listen_a, at_a), (listen_b, at_b)) = (listener(), listener());
    let mut a = Node::start(with_tls(config(A, at_b), authority.credentials(URI_A)), listen_a);
    let mut b = Node::start(with_tls(config(B, at_a), authority.credentials(URI_B)), listen_b);
    a.connected(B).await;
    b.connected(A).await;
    let mut expected: BTreeMap<Lane, Vec<Message>> = BTreeMap::new();
    for (name, message) in messages::all() {
        assert!(a.handle.send(B, message.clone()), "{name} was dropped");
        expected.entry(Lane::of(&message)).or_default().push(message);
    }
    let mut arrived: BTreeMap<Lane, Vec<Message>> = BTreeMap::new();
    for _ in messages::all() {
        let (from, message) = timeout(DEADLINE, b.messages.recv()).await.expect("in time").expect("the node runs");
        assert_eq!(from, A);
        arrived.entry(Lane::of(&message)).or_default().push(message);
    }
    assert_eq!(arrived, expected);
}

/// Catches each way in which a certificate can be wrong and is taken; one that is not counted under its name; and a
/// listener that takes nobody afterwards.
#[actix::test]
async fn a_listener_takes_no_certificate_but_the_right_one() {
    let (authority, namesake, other) = (Authority::new(), Authority::new(), Authority::named("another one"));
    let ((listening, address), (_, nobody)) = (listener(), listener());
    let mut node = Node::start(with_tls(config(A, nobody), authority.credentials(URI_A)), listening);
    let hello = identity(B).hello(A, Lane::Protocol, None);

    // Refused within TLS: the adversary reads an alert.
    for (shows, alert, reason) in [
        (None, "CertificateRequired", "no_certificate"),
        (Some(other.issue(&[URI_B])), "UnknownCA", "unknown_authority"),
        (Some(namesake.issue(&[URI_B])), "DecryptError", "unknown_authority"),
        (Some(authority.issue_with(&[URI_B], expired)), "CertificateExpired", "certificate_expired"),
        (Some(authority.issue_with(&[URI_B], not_yet)), "CertificateExpired", "certificate_not_valid_yet"),
        (Some(authority.issue_with(&[URI_B], only_a_server)), "UnsupportedCertificate", "certificate_purpose"),
    ] {
        let error = say(address, shows.as_ref(), &hello).await.expect_err(reason).to_string();
        assert!(error.contains(alert), "{reason}: {error}");
        counted(&format!("refused_total{{side=listener,reason={reason}}}")).await;
    }
    // Refused by what it names: the adversary reads a sentence.
    for (names, what) in [
        (&["quorate://test/c"][..], "quorate://test/c"),
        (&["quorate://other/b"], "quorate://other/b"),
        (&[], "no node"),
        (&[URI_B, "quorate://test/c"], "no node"),
        (&["https://test/b"], "no node"),
        (&["quorate://test/b/c"], "no node"),
        (&["quorate://test/B"], "quorate://test/B"),
    ] {
        let answer = say(address, Some(&authority.issue(names)), &hello).await.expect("an answer");
        let Some(Verdict::Refused(text)) = answer.verdict else { panic!("{names:?} got in") };
        assert!(text.contains(&format!("names {what}, and it would have to name {URI_B}")), "{names:?}: {text}");
    }
    counted("refused_total{side=listener,reason=other_certificate}").await;

    let right = say(address, Some(&authority.issue(&[URI_B])), &hello).await.expect("an answer");
    assert!(matches!(right.verdict, Some(Verdict::Welcome(_))), "{right:?}");
    assert!(node.messages.try_recv().is_err());
}

/// Catches TLS of old, and no TLS at all, that gets in; and a peer without TLS that is not told what it lacks.
#[actix::test]
async fn a_listener_speaks_nothing_but_tls_1_3() {
    let authority = Authority::new();
    let ((listening, address), (_, nobody)) = (listener(), listener());
    let _node = Node::start(with_tls(config(A, nobody), authority.credentials(URI_A)), listening);
    let error = speak(address, Some(&authority.issue(&[URI_B])), &version::TLS12).await.expect_err("TLS 1.2 got in");
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    counted("refused_total{side=listener,reason=tls_version}").await;

    let mut raw = Raw::connect(address).await;
    raw.send(&client_hello_1_1()).await;
    let alert = raw.closed().await;
    // One fatal alert, and nothing else.
    assert_eq!((alert.len(), alert.first(), alert.get(5)), (7, Some(&21), Some(&2)), "{alert:?}");

    let mut raw = Raw::connect(address).await;
    raw.send(&raw_frame(&identity(B).hello(A, Lane::Protocol, None))).await;
    let Some(Verdict::Refused(text)) = raw.handshake::<Answer>().await.verdict else { panic!("it got in without TLS") };
    assert!(text.contains("give it tls.peer_certificate"), "{text}");
    counted("refused_total{side=listener,reason=no_tls}").await;
}

/// What a client of TLS 1.1 says first: one suite, no extensions.
fn client_hello_1_1() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let length = u8::try_from(body.len()).expect("short");
    let mut hello = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    hello.append(&mut body);
    hello
}

/// Catches a peer that wants TLS and is not told that this node has none.
#[actix::test]
async fn a_listener_without_tls_says_so() {
    let ((listening, address), (_, nobody)) = (listener(), listener());
    let _node = Node::start(config(A, nobody), listening);
    let authority = Authority::new();
    speak(address, Some(&authority.issue(&[URI_B])), &version::TLS13).await.expect_err("there is no TLS");
    counted("refused_total{side=listener,reason=speaks_tls}").await;
}

/// Catches a dialer that says who it is, or anything, to somebody else than the node that it dialed.
#[actix::test]
async fn a_dialer_says_nothing_to_an_impostor() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (shows, speaks, reason) in [
        (other.issue(&[URI_B]), &version::TLS13, "unknown_authority"),
        (authority.issue_with(&[URI_B], expired), &version::TLS13, "certificate_expired"),
        (authority.issue_with(&[URI_B], only_a_client), &version::TLS13, "certificate_purpose"),
        (authority.issue(&["quorate://test/c"]), &version::TLS13, "other_certificate"),
        (authority.issue(&["quorate://other/b"]), &version::TLS13, "other_certificate"),
        (authority.issue(&[]), &version::TLS13, "other_certificate"),
        (authority.issue(&[URI_B]), &version::TLS12, "refused_by_peer"),
    ] {
        let impostor = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (listening, _) = listener();
        let address = impostor.local_addr().expect("it is bound");
        let node = Node::start(with_tls(config(A, address), authority.credentials(URI_A)), listening);
        let Pair { chain, key, .. } = shows.pair();
        let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[speaks]).expect("one");
        let config = config.with_no_client_auth().with_single_cert(chain, key).expect("its own key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        // One connection for each lane; all of them are told nothing.
        for _ in Lane::ALL {
            let (stream, _) = impostor.accept().await.expect("it dials");
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut heard = Vec::new();
                // The way in which it closes says nothing.
                let _ = timeout(DEADLINE, stream.read_to_end(&mut heard)).await.expect("it closes");
                assert!(heard.is_empty(), "{reason}: it said {heard:?}");
            }
        }
        counted(&format!("refused_total{{side=dialer,reason={reason}}}")).await;
        drop(node);
    }
}

/// RELIABILITY 6, row 4. Catches certificates and authorities that count only after a restart, and an old authority that
/// counts after it was taken out.
#[actix::test]
async fn credentials_are_renewed_while_the_node_runs() {
    let (old, new) = (Authority::new(), Authority::new());
    let both = format!("{}{}", old.pem, new.pem);
    let ((listening, address), (_, nobody)) = (listener(), listener());
    let tls = Tls::new(old.credentials(URI_A));
    let node_config = TransportConfig { tls: Some(tls.clone()), ..config(A, nobody) };
    let _node = Node::start(node_config, listening);
    let hello = identity(B).hello(A, Lane::Protocol, None);
    let (of_old, of_new) = (old.issue(&[URI_B]), new.issue(&[URI_B]));
    let is_in = async |shows: &Issued| say(address, Some(shows), &hello).await.is_ok_and(|answer| !answer.disk_refused);
    assert_eq!((is_in(&of_old).await, is_in(&of_new).await), (true, false));
    tls.renew(old.issue(&[URI_A]).credentials(&both).expect("both are trusted"));
    assert_eq!((is_in(&of_old).await, is_in(&of_new).await), (true, true));
    tls.renew(new.issue(&[URI_A]).credentials(&both).expect("both are trusted"));
    let mut stream = speak(address, Some(&of_new), &version::TLS13).await.expect("TLS");
    let shown = stream.get_ref().1.peer_certificates().expect("it shows one")[0].clone();
    let trusts_new = new.issue(&[URI_A]).credentials(&new.pem).is_ok();
    assert!(trusts_new && shown != old.issue(&[URI_A]).pair().chain[0]);
    tokio::io::AsyncWriteExt::shutdown(&mut stream).await.expect("it closes");
    tls.renew(new.credentials(URI_A));
    assert_eq!((is_in(&of_old).await, is_in(&of_new).await), (false, true));
}

/// Catches a newcomer that joins under a name that its certificate does not have, and one that asks a stranger.
#[actix::test]
async fn a_newcomer_is_who_its_certificate_says() {
    let authority = Authority::new();
    let ((listening, address), (_, nobody)) = (listener(), listener());
    let node = Node::start(with_tls(config(A, nobody), authority.credentials(URI_A)), listening);
    node.handle.admit_with(Arc::new(|newcomer| {
        let why = format!("{} is judged", newcomer.name);
        Box::pin(async move { Err(NotAdmitted { why, again: Again::Never }) })
    }));
    let application = Application {
        name: "d".into(),
        cluster_name: "test".into(),
        learn_from: LearnFrom::Leader,
        window: 1024,
        join: Join { address: "127.0.0.1:1".into(), key: Bytes::from_static(&[3; 16]) },
    };
    let asked = async |uri: &str, application: &Application| {
        let tls = Tls::new(authority.credentials(uri));
        ask(&address.to_string(), application, Some(&tls)).await.expect_err("nobody gets in here")
    };
    let judged = asked("quorate://test/d", &application).await;
    assert!(matches!(&judged, NoAdmission::Refused(why) if why.contains("d is judged")), "{judged}");
    let impostor = asked("quorate://test/b", &application).await;
    assert!(impostor.to_string().contains("names quorate://test/b"), "{impostor}");
    let elsewhere = Application { cluster_name: "other".into(), ..application.clone() };
    let stranger = asked("quorate://other/d", &elsewhere).await;
    assert!(stranger.to_string().contains("names quorate://test/a"), "{stranger}");
    let without = ask(&address.to_string(), &application, None).await.expect_err("nobody gets in here");
    assert!(without.to_string().contains("tls.peer_certificate"), "{without}");
}

/// Catches a message that is sent on a connection whose other side is not proven.
#[actix::test]
async fn nothing_is_delivered_without_proof() {
    let authority = Authority::new();
    let ((listening, address), (_, nobody)) = (listener(), listener());
    let mut node = Node::start(with_tls(config(A, nobody), authority.credentials(URI_A)), listening);
    let mut raw = Raw::connect(address).await;
    raw.send(&raw_frame(&identity(B).hello(A, Lane::Protocol, None))).await;
    let mut frame = bytes::BytesMut::new();
    let encoded = |buffer: &mut bytes::BytesMut| transport::wire::encode(&numbered(1), buffer);
    transport::frame::append(&mut frame, 1 << 20, encoded).expect("a small frame");
    raw.send(&frame).await;
    raw.closed().await;
    assert!(node.messages.try_recv().is_err());
}
