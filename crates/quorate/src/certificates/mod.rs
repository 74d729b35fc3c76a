//! The certificates of a node: read when it starts, and again whenever their files have changed.
//!
//! A change counts for the connections that are made from then on. What is not usable, as a whole, changes nothing: the
//! node goes on with what it has, says so in its log, and `quorate_tls_reload_failing` is 1. Files are replaced one by
//! one, so a change that is half done when it is looked at is looked at once more before anything is said.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use transport::tls::{self, Credentials, Pair, Unusable};

use crate::clock::since_1970;
use crate::config;
use crate::failure::Failure;

pub(crate) mod create;

/// A certificate that expires sooner is warned of.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often.
const WARNED_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificates of authorities in the file that a key names.
///
/// # Errors
/// Which key names a file that is not usable, and why.
pub(crate) fn authorities(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::Usage(format!("{key} = {file:?}: {why}"));
    let pem = fs::read(file).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    tls::certificates(&pem).map_err(|why| wrong(&why))
}

/// All certificates of a node.
pub(crate) struct Certificates {
    http: Option<Arc<Shown>>,
    peer: Option<tls::Tls>,
    sets: Vec<Set>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// Which key names a file that is not usable, and why.
    pub(crate) fn read(tls: &config::Tls) -> Result<Self, Failure> {
        let mut certificates = Self { http: None, peer: None, sets: Vec::new() };
        if let Some(config::tls::HttpTls { certificate, key }) = &tls.http {
            let files = vec![("tls.http_certificate", certificate.clone()), ("tls.http_key", key.clone())];
            let contents = contents(&files).map_err(Failure::Usage)?;
            let (shown, expiry) = http(&files, &contents).map_err(Failure::Usage)?;
            let shown = Arc::new(Shown(RwLock::new(Arc::new(shown))));
            certificates.http = Some(Arc::clone(&shown));
            certificates.sets.push(Set::new(Use::Http(shown), files, &contents, expiry));
        }
        if let Some(config::tls::PeerTls { certificate, key, authorities }) = &tls.peer {
            let files = vec![
                ("tls.peer_certificate", certificate.clone()),
                ("tls.peer_key", key.clone()),
                ("tls.peer_ca", authorities.clone()),
            ];
            let contents = contents(&files).map_err(Failure::Usage)?;
            let (credentials, expiry) = peer(&files, &contents).map_err(Failure::Usage)?;
            let tls = tls::Tls::new(credentials);
            certificates.peer = Some(tls.clone());
            certificates.sets.push(Set::new(Use::Peer(tls), files, &contents, expiry));
        }
        Ok(certificates)
    }

    /// What this node shows to the others.
    pub(crate) fn peer(&self) -> Option<&tls::Tls> {
        self.peer.as_ref()
    }

    /// Whether what this node shows to the others names it.
    ///
    /// # Errors
    /// A line for the operator: no other node would take it.
    pub(crate) fn check_name(&self, cluster: &str, node: &str) -> Result<(), Failure> {
        let Some(tls) = &self.peer else { return Ok(()) };
        let (named, needed) = (tls.name(), tls::Name { cluster: cluster.to_owned(), node: node.to_owned() });
        if named == needed {
            return Ok(());
        }
        let line = format!("tls.peer_certificate names {named}, and this node is {needed}; give each node its own");
        Err(Failure::Usage(line))
    }

    /// What the HTTP server needs.
    ///
    /// # Errors
    /// Never, with the versions of TLS that there are.
    pub(crate) fn server_config(&self) -> anyhow::Result<Option<ServerConfig>> {
        let Some(shown) = &self.http else { return Ok(None) };
        let builder = ServerConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions()?;
        Ok(Some(builder.with_no_client_auth().with_cert_resolver(Arc::clone(shown) as _)))
    }

    /// Looks at the files for ever. To be called when metrics are installed.
    pub(crate) async fn watch(self, every: Duration) {
        let mut sets = self.sets;
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => return error!("changed certificates need a restart of this node: {error}"),
        };
        if sets.is_empty() {
            while hangups.recv().await.is_some() {
                info!("SIGHUP: this node has no certificates, and reads nothing else again; restart it instead");
            }
            return;
        }
        let mut interval = tokio::time::interval(every);
        sets.iter().for_each(Set::measure);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                _ = hangups.recv() => info!("SIGHUP: looks at the certificates"),
            }
            let looked = tokio::task::spawn_blocking(move || {
                sets.iter_mut().for_each(Set::look);
                sets
            });
            // What stands in the files is read by libraries.
            match looked.await {
                Ok(looked) => sets = looked,
                Err(error) => return error!("changed certificates need a restart of this node: {error}"),
            }
        }
    }
}

/// What certificates are for.
enum Use {
    Http(Arc<Shown>),
    Peer(tls::Tls),
}

/// When certificates expire, in seconds since 1970, and what they are.
type Expiry = Vec<(&'static str, i64)>;
/// The files of a use, each with its key of the configuration.
type Files = Vec<(&'static str, PathBuf)>;

/// Files that are of use together only.
struct Set {
    of: Use,
    files: Files,
    in_force: blake3::Hash,
    /// What was not usable when it was last looked at, and whether that was said.
    failing: Option<(blake3::Hash, bool)>,
    expiry: Expiry,
    warned: Option<SystemTime>,
}

impl Set {
    fn new(of: Use, files: Files, contents: &[Vec<u8>], expiry: Expiry) -> Self {
        Self { of, files, in_force: digest(contents), failing: None, expiry, warned: None }
    }

    fn name(&self) -> &'static str {
        match self.of {
            Use::Http(_) => "http",
            Use::Peer(_) => "peer",
        }
    }

    fn measure(&self) {
        for (name, not_after) in &self.expiry {
            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are small")]
            gauge!("quorate_tls_certificate_expiry_timestamp_seconds", "certificate" => *name).set(*not_after as f64);
        }
        gauge!("quorate_tls_reload_failing", "use" => self.name()).set(f64::from(u8::from(self.failing.is_some())));
    }

    /// Puts into force what has changed, if it is usable.
    fn look(&mut self) {
        let read = contents(&self.files);
        // What cannot be read is known by its error.
        let seen = read.as_ref().map_or_else(|error| blake3::hash(error.as_bytes()), |contents| digest(contents));
        if seen == self.in_force {
            self.failing = None;
        } else {
            match read.and_then(|contents| self.put(&contents)) {
                Ok(expiry) => {
                    (self.in_force, self.failing, self.expiry, self.warned) = (seen, None, expiry, None);
                    counter!("quorate_tls_reloads_total", "use" => self.name(), "outcome" => "done").increment(1);
                    info!(
                        of = self.name(),
                        "new certificates are in force for the connections that are made from now on"
                    );
                }
                Err(why) => self.fail(seen, &why),
            }
        }
        for (certificate, at) in self.expiring(wall_clock()) {
            let at = humantime::format_rfc3339_seconds(at);
            warn!(certificate, "a certificate expires at {at}; replace it: nothing is restarted for that");
        }
        self.measure();
    }

    fn fail(&mut self, seen: blake3::Hash, why: &str) {
        let (before, said) = self.failing.map_or((None, false), |(before, said)| (Some(before), said));
        let again = before == Some(seen);
        if again && !said {
            counter!("quorate_tls_reloads_total", "use" => self.name(), "outcome" => "failed").increment(1);
            error!(of = self.name(), "changed certificates are not usable, those from before stay in force: {why}");
        }
        self.failing = Some((seen, again));
    }

    fn put(&self, contents: &[Vec<u8>]) -> Result<Expiry, String> {
        match &self.of {
            Use::Http(shown) => {
                let (new, expiry) = http(&self.files, contents)?;
                *shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                Ok(expiry)
            }
            Use::Peer(tls) => {
                let (credentials, expiry) = peer(&self.files, contents)?;
                let (named, needed) = (credentials.name(), tls.name());
                if *named != needed {
                    return Err(format!("tls.peer_certificate names {named}, and this node is {needed}"));
                }
                tls.renew(credentials);
                Ok(expiry)
            }
        }
    }

    /// Those to be warned of now, and when they expire.
    fn expiring(&mut self, now: SystemTime) -> Vec<(&'static str, SystemTime)> {
        let warned = self.warned.and_then(|warned| now.duration_since(warned).ok());
        if warned.is_some_and(|since| since < WARNED_EVERY) {
            return Vec::new();
        }
        let at = |not_after: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(not_after).unwrap_or_default());
        let all = self.expiry.iter().map(|(name, not_after)| (*name, at(*not_after)));
        let soon: Vec<_> = all.filter(|(_, at)| *at < now + EXPIRES_SOON).collect();
        if !soon.is_empty() {
            self.warned = Some(now);
        }
        soon
    }
}

/// Certificates are of today.
fn wall_clock() -> SystemTime {
    UNIX_EPOCH + since_1970()
}

/// Tells contents apart without keeping keys.
fn digest(contents: &[Vec<u8>]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for content in contents {
        hasher.update(&(content.len() as u64).to_be_bytes());
        hasher.update(content);
    }
    hasher.finalize()
}

fn contents(files: &Files) -> Result<Vec<Vec<u8>>, String> {
    let read = |(key, file): &(&'static str, PathBuf)| {
        let content = fs::read(file).map_err(|error| wrong(key, file, &format!("cannot be read: {error}")))?;
        if key.ends_with("_key") {
            check_mode(file).map_err(|why| wrong(key, file, &why))?;
        }
        Ok(content)
    };
    files.iter().map(read).collect()
}

/// A secret is for its node. Its group may read it, as volumes of secrets in containers have it.
pub(crate) fn check_mode(file: &Path) -> Result<(), String> {
    let found = fs::metadata(file).map_err(|error| format!("cannot be read: {error}"))?;
    let mode = found.permissions().mode();
    if mode & 0o007 == 0 {
        return Ok(());
    }
    Err(format!("everybody on this machine may read it (mode {:04o}); chmod 600", mode & 0o7777))
}

fn wrong(key: &str, file: &Path, why: &str) -> String {
    format!("{key} = {file:?}: {why}")
}

fn unusable(files: &Files, unusable: &Unusable) -> String {
    let at = match unusable {
        Unusable::Certificate(_) => 0,
        Unusable::Key(_) => 1,
        Unusable::Authorities(_) => 2,
    };
    let (key, file) = &files[at];
    wrong(key, file, &unusable.to_string())
}

fn http(files: &Files, contents: &[Vec<u8>]) -> Result<(CertifiedKey, Expiry), String> {
    let [certificate, key] = contents else { unreachable!("there are two files") };
    let Pair { chain, key, not_after } = Pair::read(certificate, key).map_err(|why| unusable(files, &why))?;
    let certified = CertifiedKey::from_der(chain, key, &tls::provider()).map_err(|error| {
        let why = Unusable::Key(format!("does not go with tls.http_certificate: {error}"));
        unusable(files, &why)
    })?;
    Ok((certified, vec![("http", not_after)]))
}

fn peer(files: &Files, contents: &[Vec<u8>]) -> Result<(Credentials, Expiry), String> {
    let [certificate, key, authorities] = contents else { unreachable!("there are three files") };
    let credentials = Credentials::read(certificate, key, authorities).map_err(|why| unusable(files, &why))?;
    let expiry = vec![("peer", credentials.not_after()), ("peer_ca", credentials.authorities_not_after())];
    Ok((credentials, expiry))
}

/// The certificate that REST shows now.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[cfg(test)]
mod tests;
