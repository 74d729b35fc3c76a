//! `[listen]`: where a node listens, and what of it others are told.

use std::net::SocketAddr;

use protocol::message::Heartbeat;

use super::layers::{ConfigError, Settings};
use super::{Tls, host_name};

/// `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// REST.
    pub(crate) http: SocketAddr,
    /// Metrics, where REST has none.
    pub(crate) metrics: Option<SocketAddr>,
    /// What operators do, where REST has none of it.
    pub(crate) admin: Option<SocketAddr>,
    /// The other nodes.
    pub(crate) peer: SocketAddr,
    /// The REST address that others are told, `host:port`; that of `http` by default; empty for a node that is no gateway.
    pub(crate) advertise: String,
    /// Where the other nodes reach `peer`, `host:port`.
    pub(crate) advertise_peer: String,
}

impl Listen {
    /// An address to listen on: beyond loopback only where that is safe, or an operator says so.
    pub(super) fn address(
        settings: &Settings,
        key: &'static str,
        is_safe: bool,
        lacks: &str,
    ) -> Result<SocketAddr, ConfigError> {
        let address: SocketAddr = settings.text(key)?.parse().map_err(|_| settings.wrong(key))?;
        if !settings.flag("listen.insecure")? && !is_safe && !address.ip().is_loopback() {
            let needs = format!(
                "{lacks}, so it listens on loopback (127.0.0.1 or [::1]) only; on a network that you trust, set \
                 listen.insecure = true"
            );
            return Err(settings.refuse(key, &needs));
        }
        Ok(address)
    }

    /// For metrics, on the same terms as for REST.
    pub(super) fn metrics(
        settings: &Settings,
        http: SocketAddr,
        is_safe: bool,
    ) -> Result<Option<SocketAddr>, ConfigError> {
        const KEY: &str = "listen.metrics";
        if settings.text(KEY)?.is_empty() {
            return Ok(None);
        }
        let lacks = "without what listen.http needs for that (TLS, and tokens) anybody could read";
        let metrics = Self::address(settings, KEY, is_safe, lacks)?;
        if is_same(metrics, http) {
            return Err(settings.refuse(KEY, "must differ from listen.http; leave it out to have both there"));
        }
        Ok(Some(metrics))
    }

    /// For operators, on the same terms.
    fn admin(
        settings: &Settings,
        others: [Option<SocketAddr>; 2],
        is_safe: bool,
        is_gateway: bool,
    ) -> Result<Option<SocketAddr>, ConfigError> {
        const KEY: &str = "listen.admin";
        if settings.text(KEY)?.is_empty() {
            return Ok(None);
        }
        if !is_gateway {
            return Err(
                settings.refuse(KEY, "leave it out: without \"gateway\" in node.roles this node takes no calls")
            );
        }
        let lacks = "without what listen.http needs for that (TLS, and tokens) anybody could operate the cluster";
        let admin = Self::address(settings, KEY, is_safe, lacks)?;
        if others.into_iter().flatten().any(|other| is_same(admin, other)) {
            return Err(settings.refuse(KEY, "must differ from listen.http and listen.metrics"));
        }
        Ok(Some(admin))
    }

    /// Where callers reach this node, as others are told.
    fn advertise(settings: &Settings, http: SocketAddr, is_gateway: bool) -> Result<String, ConfigError> {
        const KEY: &str = "listen.advertise";
        match settings.text(KEY)? {
            text if !is_gateway && text.is_empty() => Ok(text),
            _ if !is_gateway => {
                Err(settings.refuse(KEY, "leave it out: without \"gateway\" in node.roles this node serves no callers"))
            }
            text if text.is_empty() && http.ip().is_unspecified() => Ok(format!("{}:{}", host_name()?, http.port())),
            text if text.is_empty() => Ok(http.to_string()),
            // What the other nodes would refuse in every heartbeat must not start.
            text if protocol::membership::is_address(&text) && text.len() <= Heartbeat::HTTP_BYTES_MAX => Ok(text),
            _ => Err(settings.wrong(KEY)),
        }
    }

    pub(super) fn from_settings(
        settings: &Settings,
        tls: &Tls,
        has_auth: bool,
        is_gateway: bool,
    ) -> Result<Self, ConfigError> {
        let is_safe = tls.http.is_some() && has_auth;
        let http = Self::address(
            settings,
            "listen.http",
            is_safe,
            "without TLS (tls.http_certificate, tls.http_key) and authentication (auth.enabled) anybody could read and call",
        )?;
        let metrics = Self::metrics(settings, http, is_safe)?;
        let admin = Self::admin(settings, [Some(http), metrics], is_safe, is_gateway)?;
        let peer = Self::address(
            settings,
            "listen.peer",
            tls.peer.is_some(),
            "without TLS between the nodes (tls.peer_certificate, tls.peer_key, tls.peer_ca) anybody could take part",
        )?;
        if [Some(http), metrics, admin].into_iter().flatten().any(|other| is_same(other, peer)) {
            let needs = "must differ from listen.http, listen.metrics and listen.admin";
            return Err(settings.refuse("listen.peer", needs));
        }
        let advertise = Self::advertise(settings, http, is_gateway)?;
        let advertise_peer = match settings.text("listen.advertise_peer")? {
            text if text.is_empty() && peer.ip().is_unspecified() => format!("{}:{}", host_name()?, peer.port()),
            text if text.is_empty() => peer.to_string(),
            text if protocol::membership::is_address(&text) => text,
            _ => return Err(settings.wrong("listen.advertise_peer")),
        };
        Ok(Self { http, metrics, admin, peer, advertise, advertise_peer })
    }
}

/// A listener that others than this machine reach, and what it lacks of `guards`: there is one only with `listen.insecure`.
pub(super) fn exposed(key: &str, address: Option<SocketAddr>, guards: &[(bool, &str)]) -> Option<String> {
    let address = address.filter(|address| !address.ip().is_loopback())?;
    let lacks: Vec<&str> = guards.iter().filter(|(is_there, _)| !is_there).map(|(_, guard)| *guard).collect();
    (!lacks.is_empty()).then(|| format!("{key} = {address} without {}", lacks.join(" and ")))
}

/// Port 0 is another one each time.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    one == other && one.port() != 0
}
