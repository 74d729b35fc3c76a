//! `[tls]`: which files there are. What is in them is read when the node starts (module `certificates`).

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::layers::{ConfigError, Settings};

/// How often files may be looked at.
const RELOAD: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);

/// `[tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    /// For REST.
    pub(crate) http: Option<HttpTls>,
    /// Between the nodes.
    pub(crate) peer: Option<PeerTls>,
    /// How often the files are looked at.
    pub(crate) reload: Duration,
}

/// What REST shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpTls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What nodes show each other, and whom they believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerTls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) authorities: PathBuf,
}

impl Tls {
    pub(super) fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        let http = together(settings, ["tls.http_certificate", "tls.http_key"])?;
        let peer = together(settings, ["tls.peer_certificate", "tls.peer_key", "tls.peer_ca"])?;
        Ok(Self {
            http: http.map(|[certificate, key]| HttpTls { certificate, key }),
            peer: peer.map(|[certificate, key, authorities]| PeerTls { certificate, key, authorities }),
            reload: settings.duration("tls.reload", RELOAD)?,
        })
    }
}

/// All of these files, or none of them.
fn together<const N: usize>(settings: &Settings, keys: [&'static str; N]) -> Result<Option<[PathBuf; N]>, ConfigError> {
    let mut files = [const { PathBuf::new() }; N];
    for (file, key) in files.iter_mut().zip(keys) {
        *file = settings.text(key)?.into();
    }
    let missing = files.iter().zip(keys).find(|(file, _)| file.as_os_str().is_empty());
    match missing {
        None => Ok(Some(files)),
        Some(_) if files.iter().all(|file| file.as_os_str().is_empty()) => Ok(None),
        Some((_, key)) => Err(settings.refuse(key, &format!("give all of {}, or none", keys.join(", ")))),
    }
}
