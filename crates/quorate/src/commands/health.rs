//! `quorate health`: asks one node how it is, by its exit code. It is what a container without a shell has for a
//! health check.
//!
//! It reads the configuration as the node does, so that beside a node it needs no arguments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::anyhow;
use serde_json::{Value, json};

use crate::cli::{Health, Output};
use crate::client::{base_url, client, get_once, show};
use crate::config::{Settings, Sources};
use crate::failure::Failure;

/// Asks, and shows each check.
///
/// # Errors
/// When a check fails, or nobody answers in time.
pub(crate) fn run(health: &Health) -> Result<(), Failure> {
    let client = client(&health.trust)?;
    let (url, client) = match &health.url {
        Some(url) => (base_url(url, &health.trust)?.to_owned(), client),
        // Of its own machine it asks whoever listens there: it says nothing secret, and a certificate need not name
        // that address.
        None => {
            let sources = Sources::of_this_process(health.given.config.clone(), &health.given.sets);
            (own_url(&sources)?, client.tls_danger_accept_invalid_certs(true))
        }
    };
    let path = if health.live { "/livez" } else { "/readyz" };
    let (status, body) = get_once(client, &format!("{url}{path}?verbose"), health.timeout)
        .map_err(|why| anyhow!("no answer from {url}: {why}; does the node run?"))?;
    let body = String::from_utf8_lossy(&body);
    let checks = checks(&body);
    if checks.is_empty() {
        return Err(
            anyhow!("{url}{path} does not answer as a node (HTTP {status}); is it Quorate that serves it?").into()
        );
    }
    match health.output {
        Output::Json => show(format!("{}\n", document(&url, status.is_success(), &checks)))?,
        Output::Text => show(body.as_bytes())?,
    }
    if status.is_success() {
        return Ok(());
    }
    let failed: Vec<&str> = checks.iter().filter(|check| !check.ok).map(|check| check.name).collect();
    let what = if health.live { "alive" } else { "ready" };
    Err(Failure::Reported(anyhow!("the node at {url} is not {what}: {}", failed.join(", "))))
}

/// Where the node of this configuration serves REST, seen from its own machine.
fn own_url(sources: &Sources) -> Result<String, Failure> {
    let settings = Settings::collect(sources)?;
    let address: SocketAddr = settings.text("listen.http")?.parse().map_err(|_| settings.wrong("listen.http"))?;
    let scheme = if settings.text("tls.http_certificate")?.is_empty() { "http" } else { "https" };
    Ok(format!("{scheme}://{}", on_this_machine(address)))
}

/// Nobody can be called at the address of all interfaces, though on Linux it works.
fn on_this_machine(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        given @ (IpAddr::V4(_) | IpAddr::V6(_)) => given,
    };
    SocketAddr::new(ip, address.port())
}

struct Check<'a> {
    name: &'a str,
    ok: bool,
    detail: &'a str,
}

/// The lines `[+]name ok: detail` and `[-]name failed: detail`.
fn checks(body: &str) -> Vec<Check<'_>> {
    let check = |line: &'_ str| -> Option<(bool, usize, usize)> {
        let ok = match line.get(..3)? {
            "[+]" => true,
            "[-]" => false,
            _ => return None,
        };
        let word = if ok { " ok: " } else { " failed: " };
        let name_ends = line.find(word)?;
        Some((ok, name_ends, name_ends + word.len()))
    };
    let lines = body.lines().filter_map(|line| Some((line, check(line)?)));
    lines
        .map(|(line, (ok, name_ends, detail))| Check { name: &line[3..name_ends], ok, detail: &line[detail..] })
        .collect()
}

fn document(url: &str, ok: bool, checks: &[Check<'_>]) -> Value {
    let check = |check: &Check<'_>| json!({"name": check.name, "ok": check.ok, "detail": check.detail});
    json!({"url": url, "ok": ok, "checks": checks.iter().map(check).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_with(address: &str) -> Result<String, String> {
        let environment = vec![("QUORATE_LISTEN__HTTP".to_owned(), address.to_owned())];
        own_url(&Sources { environment, ..Sources::default() }).map_err(|failure| failure.to_string())
    }

    /// Catches a check that asks another port than the node of the same environment listens on, or the address of all
    /// interfaces.
    #[test]
    fn the_node_of_the_same_environment_is_asked() {
        assert_eq!(own_url(&Sources::default()).expect("a default"), "http://127.0.0.1:8080");
        assert_eq!(url_with("0.0.0.0:9000"), Ok("http://127.0.0.1:9000".to_owned()));
        assert_eq!(url_with("[::]:9000"), Ok("http://[::1]:9000".to_owned()));
        assert_eq!(url_with("10.1.2.3:80"), Ok("http://10.1.2.3:80".to_owned()));
        let sets = vec!["tls.http_certificate=c".to_owned()];
        assert_eq!(own_url(&Sources { sets, ..Sources::default() }).expect("a URL"), "https://127.0.0.1:8080");
        assert!(url_with("everywhere").expect_err("no address").contains("QUORATE_LISTEN__HTTP"));
    }

    /// Catches lines that are read wrongly: a failing check that counts as a good one, details that hold the words.
    #[test]
    fn checks_are_read_from_their_lines() {
        let body = "[+]process ok: it answers\n[-]leader failed: none is ok: wait\nreadyz check failed\n";
        let read: Vec<_> = checks(body).into_iter().map(|check| (check.name, check.ok, check.detail)).collect();
        assert_eq!(read, [("process", true, "it answers"), ("leader", false, "none is ok: wait")]);
        assert!(checks("<html>[+]").is_empty());
    }
}
