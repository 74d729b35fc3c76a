//! How the client commands talk to the cluster.
//!
//! A request is tried on each `--url` in turn until one answers. That is safe: reads may be
//! repeated, and every change carries an idempotency key (the caller's, or one made here), so
//! that a node that did execute it without being heard gives the first answer again.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use crate::cli::{Connection, Secret, Trust};
use crate::failure::{Failure, Refusal};

/// How long one node may take to answer when the caller does not say; above the 10 s that a
/// gateway waits for an outcome.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// What a gateway may need beyond the wait that it was asked for.
const WAIT_MARGIN: Duration = Duration::from_secs(5);

/// How long a connection may take to open before the next node is tried.
pub(crate) const CONNECT_WAIT: Duration = Duration::from_secs(3);

/// One request, to be sent to any node.
pub(crate) struct Request {
    pub(crate) method: Method,
    /// From `/v1` on, with the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<String>,
    /// What the caller is willing to wait.
    pub(crate) wait: Option<Duration>,
}

impl Request {
    /// A request without headers and body.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: None, wait: None }
    }

    /// Adds the idempotency key, made here when the caller gave none.
    pub(crate) fn with_key(mut self, key: Option<&str>) -> Self {
        let key = key.map_or_else(new_key, str::to_owned);
        self.headers.push(("Idempotency-Key", key));
        self
    }
}

/// A 2xx answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).context("the node's answer is not JSON; is it Quorate that serves this URL?")
    }
}

/// Sends a request to the first node that answers.
///
/// # Errors
/// The problem that the server reports, or that no node could be reached.
pub(crate) fn send(connection: &Connection, request: &Request) -> Result<Reply, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(send_to_any(connection, request))
}

async fn send_to_any(connection: &Connection, request: &Request) -> Result<Reply, Failure> {
    let wait = request.wait.map_or(ANSWER_WAIT, |wait| wait + WAIT_MARGIN);
    let client = client(&connection.trust)?.connect_timeout(CONNECT_WAIT).timeout(wait).build();
    let client = client.context("no HTTP client")?;
    let mut unreachable = Vec::new();
    for url in &connection.url {
        let base = base_url(url, &connection.trust)?;
        let mut builder = client.request(request.method.clone(), format!("{base}{}", request.path));
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        match exchange(builder).await {
            Ok((status, headers, body)) if status.is_success() => return Ok(Reply { headers, body }),
            Ok((status, _, body)) => {
                let refusal = Refusal::new(status, &body);
                let is_read = request.method == Method::GET;
                return Err(Failure::Refused(if is_read { refusal.of_read() } else { refusal }));
            }
            Err(error) => unreachable.push(format!("{url}: {}", innermost(&error))),
        }
    }
    Err(no_answer(&unreachable).into())
}

/// Asks one URL once, whatever the status.
///
/// # Errors
/// Why there is no answer.
pub(crate) fn get_once(
    client: reqwest::ClientBuilder,
    url: &str,
    wait: Duration,
) -> Result<(StatusCode, Vec<u8>), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let client = client.timeout(wait).build();
    let (runtime, client) = (runtime.map_err(|error| error.to_string())?, client.map_err(|error| error.to_string())?);
    let asked = runtime.block_on(exchange(client.get(url)));
    asked.map(|(status, _, body)| (status, body)).map_err(|error| innermost(&error))
}

/// An HTTP client that trusts no authority but those it is given.
///
/// # Errors
/// A line for the caller.
pub(crate) fn client(trust: &Trust) -> Result<reqwest::ClientBuilder, Failure> {
    let roots = trust.ca.as_ref().map(|file| certificates(file)).transpose()?.unwrap_or_default();
    let mut headers = HeaderMap::new();
    if let Some(header) = bearer(trust)? {
        let mut header = HeaderValue::from_str(&header).context("--token")?;
        header.set_sensitive(true);
        headers.insert(AUTHORIZATION, header);
    }
    let roots = roots.iter().map(|root| reqwest::Certificate::from_der(root)).collect::<Result<Vec<_>, _>>();
    Ok(reqwest::Client::builder().no_proxy().default_headers(headers).tls_certs_only(roots.context("--ca")?))
}

/// The value of `Authorization`.
///
/// # Errors
/// A line for the caller, without the secret.
pub(crate) fn bearer(trust: &Trust) -> Result<Option<String>, Failure> {
    let Some(Secret(given)) = &trust.token else { return Ok(None) };
    let token = match given.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Failure::Usage(format!("--token @{file}: cannot be read: {error}")))?,
        None => given.clone(),
    };
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::Usage("--token (or QUORATE_TOKEN): must be the token, or @FILE".to_owned()));
    }
    Ok(Some(format!("Bearer {token}")))
}

/// The authorities for URLs that begin with https.
///
/// # Errors
/// A line for the caller.
pub(crate) fn authorities(trust: &Trust) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for root in trust.ca.as_ref().map(|file| certificates(file)).transpose()?.unwrap_or_default() {
        roots.add(root).context("--ca")?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::Usage(format!("--ca {}: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| wrong(&error))?;
    transport::tls::certificates(&pem).map_err(|why| wrong(&why))
}

/// What to say when no node answered; one reason for each.
pub(crate) fn no_answer(reasons: &[String]) -> anyhow::Error {
    anyhow!("no answer from {}; is a node running there? (--url or QUORATE_URL)", reasons.join("; "))
}

async fn exchange(builder: reqwest::RequestBuilder) -> reqwest::Result<(StatusCode, HeaderMap, Vec<u8>)> {
    let response = builder.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    Ok((status, headers, response.bytes().await?.to_vec()))
}

/// Checks a URL of a node and takes off a slash at its end.
///
/// # Errors
/// A line for the caller.
pub(crate) fn base_url<'a>(url: &'a str, trust: &Trust) -> Result<&'a str, Failure> {
    let base = url.trim_end_matches('/');
    let wrong = |needs: &str| Failure::Usage(format!("--url {url}: {needs}"));
    let (host, encrypted) = match (base.strip_prefix("http://"), base.strip_prefix("https://")) {
        (Some(host), _) => (host, false),
        (_, Some(host)) => (host, true),
        (None, None) => ("", false),
    };
    if host.contains('@') {
        // Not repeated.
        let line = "--url (or QUORATE_URL): must have no user and no password; a node takes tokens: --token @FILE";
        return Err(Failure::Usage(line.to_owned()));
    }
    if host.is_empty() || host.contains('/') {
        return Err(wrong("must be http://host:port or https://host:port"));
    }
    if encrypted && trust.ca.is_none() {
        return Err(wrong(
            "needs --ca FILE (or QUORATE_CA): the authorities that sign for the nodes, such as the ca.crt of `quorate \
             certificates create`, or those of the system, often /etc/ssl/certs/ca-certificates.crt",
        ));
    }
    Ok(base)
}

/// The cause at the bottom, which is what an operator can act on: "connection refused".
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The path of a key. A slash is encoded too, or `a/../b` would become another key on the way.
///
/// # Errors
/// For `.` and `..`, which no URL can carry.
pub(crate) fn state_path(key: &str) -> Result<String, Failure> {
    if matches!(key, "" | "." | "..") {
        return Err(Failure::Usage(format!("{key:?} cannot stand in a URL; use another key")));
    }
    Ok(format!("/v1/state/{}", percent_encode(key)))
}

/// Percent-encodes all but unreserved characters.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[expect(clippy::disallowed_methods, reason = "a client may draw a key; the cluster only compares it")]
fn new_key() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Writes to standard output, at once.
///
/// # Errors
/// When nobody reads it any more, or its disk is full; `print!` would panic.
pub(crate) fn show(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_ref()).and_then(|()| out.flush()).context("standard output cannot be written")
}

/// Writes a line to standard error. One that cannot be written is missed by nobody, and changes no exit code;
/// `eprintln!` would panic.
pub(crate) fn say(line: impl std::fmt::Display) {
    _ = writeln!(std::io::stderr(), "{line}");
}

/// An argument, or standard input for `-`.
///
/// # Errors
/// When standard input cannot be read as UTF-8.
pub(crate) fn argument_or_stdin(argument: &str) -> anyhow::Result<String> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let text = std::io::read_to_string(std::io::stdin()).context("standard input cannot be read")?;
    if text.is_empty() {
        bail!("standard input is empty; give the JSON or the value there");
    }
    Ok(text)
}
