//! Requests and what came back.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// Above every wait that a test asks for, so that it ends only what hangs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(50);

/// A whole reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// `Quorate-Command`.
    #[must_use]
    pub fn command(&self) -> Option<u64> {
        self.header("Quorate-Command").parse().ok()
    }

    /// Whether it is the stored reply of an earlier call.
    #[must_use]
    pub fn replayed(&self) -> bool {
        self.header("Idempotent-Replayed") == "true"
    }

    /// Checks that it is that error, with everything that an error must say, and nothing was
    /// executed.
    pub fn assert_problem(&self, status: u16, code: &str) {
        let problem = self.json();
        let seen = (self.status, problem["code"].as_str(), problem["outcome"].as_str());
        assert_eq!(seen, (status, Some(code), Some("not_executed")), "{self:?}");
        assert_eq!(self.header("Content-Type"), "application/problem+json");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        assert!(!self.header("Quorate-Node").is_empty(), "{self:?}");
        let may_pass = [429, 503, 504, 507].contains(&status);
        assert!(!may_pass || !self.header("Retry-After").is_empty(), "{self:?}");
    }
}

/// A client that keeps its connections and follows nothing.
#[must_use]
pub fn client() -> reqwest::Client {
    client_trusting(b"")
}

/// The same, which trusts the authorities in a text of PEM.
#[must_use]
pub fn client_trusting(ca: &[u8]) -> reqwest::Client {
    transport::tls::install();
    let authorities = reqwest::Certificate::from_pem_bundle(ca).expect("PEM");
    let client = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().tls_certs_only(authorities);
    client.redirect(reqwest::redirect::Policy::none()).build().expect("a client")
}

/// Sends a request and reads the whole reply.
///
/// # Errors
/// When no whole reply came.
pub async fn send(request: reqwest::RequestBuilder) -> Result<Reply, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Reply { status, headers, body: response.bytes().await? })
}
