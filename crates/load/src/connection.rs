//! A connection that does two things at little cost: post JSON or get a path, and read the answer.
//!
//! The load generator shares the machine with the nodes that it measures, so each microsecond
//! that it takes is one that they lack. A general client costs several times as much a call.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The longest answer taken: far above any outcome.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Headers of an answer.
const HEADERS_MAX: usize = 64;

/// A node, and how it is spoken to.
#[derive(Clone)]
pub struct Target {
    /// `host:port`.
    pub host: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The lines of the head that every request has.
    head: String,
}

impl Target {
    /// A node that speaks plain HTTP.
    #[must_use]
    pub fn plain(host: String) -> Self {
        let head = head(&host);
        Self { host, tls: None, head }
    }

    /// The same, with what this caller presents in each request.
    #[must_use]
    pub fn presenting(mut self, bearer: Option<&str>) -> Self {
        if let Some(bearer) = bearer {
            self.head.push_str(&format!("Authorization: {bearer}\r\n"));
        }
        self
    }

    /// A node that speaks TLS; `config` says whom to trust.
    ///
    /// # Errors
    /// When the host has no name that a certificate could have.
    pub fn encrypted(host: String, config: Arc<ClientConfig>) -> anyhow::Result<Self> {
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())?;
        let tls = Some((TlsConnector::from(config), name));
        let head = head(&host);
        Ok(Self { host, tls, head })
    }
}

fn head(host: &str) -> String {
    format!("Host: {host}\r\n")
}

/// The bytes of a connection.
enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    async fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buffer).await,
            Self::Tls(stream) => stream.read_buf(buffer).await,
        }
    }
}

/// An open connection to one node.
pub struct Connection {
    stream: Wire,
    head: String,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// Whether it says when to come back.
    pub has_retry_after: bool,
    /// All of it.
    pub body: Vec<u8>,
}

/// What the head of an answer says.
struct Head {
    status: u16,
    has_retry_after: bool,
    head_bytes: usize,
    body_bytes: usize,
    closes: bool,
}

impl Connection {
    /// Opens a connection.
    ///
    /// # Errors
    /// What the system says, or what is wrong with the certificate.
    pub async fn open(target: &Target, wait: Duration) -> io::Result<Self> {
        let stream = tokio::time::timeout(wait, async {
            let stream = TcpStream::connect(&target.host).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(match &target.tls {
                None => Wire::Plain(stream),
                Some((connector, name)) => Wire::Tls(Box::new(connector.connect(name.clone(), stream).await?)),
            })
        });
        let stream = stream.await??;
        Ok(Self { stream, head: target.head.clone(), outgoing: Vec::new(), incoming: Vec::with_capacity(4096) })
    }

    /// Posts JSON and waits for the answer. After an error the connection is of no more use.
    /// The flag says whether it can be used again.
    ///
    /// # Errors
    /// A broken connection, or an answer that is not HTTP/1.1 with a length.
    pub async fn post(&mut self, path: &str, key: Option<&str>, body: &str) -> io::Result<(Answer, bool)> {
        self.outgoing.clear();
        for part in ["POST ", path, " HTTP/1.1\r\n", &self.head, "Content-Type: application/json\r\n"] {
            self.outgoing.extend_from_slice(part.as_bytes());
        }
        if let Some(key) = key {
            for part in ["Idempotency-Key: ", key, "\r\n"] {
                self.outgoing.extend_from_slice(part.as_bytes());
            }
        }
        self.outgoing.extend_from_slice(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        self.exchange().await
    }

    /// Gets a path. The flag is that of [`Connection::post`].
    ///
    /// # Errors
    /// As [`Connection::post`].
    pub async fn get(&mut self, path: &str) -> io::Result<(Answer, bool)> {
        self.outgoing.clear();
        for part in ["GET ", path, " HTTP/1.1\r\n", &self.head, "\r\n"] {
            self.outgoing.extend_from_slice(part.as_bytes());
        }
        self.exchange().await
    }

    async fn exchange(&mut self) -> io::Result<(Answer, bool)> {
        self.stream.write(&self.outgoing).await?;
        self.incoming.clear();
        loop {
            if self.stream.read(&mut self.incoming).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the node closed the connection"));
            }
            if self.incoming.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
            }
            let Some(head) = parse_head(&self.incoming)? else { continue };
            let total = head.head_bytes + head.body_bytes;
            if self.incoming.len() >= total {
                let body = self.incoming[head.head_bytes..total].to_vec();
                let answer = Answer { status: head.status, has_retry_after: head.has_retry_after, body };
                return Ok((answer, !head.closes));
            }
        }
    }
}

/// Reads the head of an answer, `None` while it is not all there.
fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the answer is not HTTP: {what}"));
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|error| invalid(&error.to_string()))?;
    let httparse::Status::Complete(head_bytes) = parsed else { return Ok(None) };
    let status = response.code.ok_or_else(|| invalid("no status"))?;
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let length = header("content-length").and_then(|length| length.parse().ok());
    let body_bytes = match length {
        Some(length) if length <= ANSWER_BYTES_MAX => length,
        None if status == 204 => 0,
        Some(_) | None => return Err(invalid("no usable Content-Length")),
    };
    let has_retry_after = header("retry-after").is_some();
    Ok(Some(Head { status, has_retry_after, head_bytes, body_bytes, closes }))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Catches an answer that is cut where the network cut it, and a closing connection that is
    /// used again.
    #[tokio::test]
    async fn an_answer_in_pieces_is_read_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut asked = Vec::new();
            while !asked.ends_with(b"{}") {
                stream.read_buf(&mut asked).await.expect("the request");
            }
            for piece in [
                "HTTP/1.1 429 Too",
                " Many\r\nRetry-After: 1\r\nContent-Length: 4\r\nConnection: close\r\n\r",
                "\n{\"",
                "a}",
            ] {
                stream.write_all(piece.as_bytes()).await.expect("sent");
                stream.flush().await.expect("sent");
                tokio::task::yield_now().await;
            }
            String::from_utf8(asked).expect("text")
        });
        let mut connection = Connection::open(&Target::plain(host), Duration::from_secs(5)).await.expect("connected");
        let (answer, usable) = connection.post("/v1/functions/f", Some("k-1"), "{}").await.expect("an answer");
        assert_eq!(answer, Answer { status: 429, has_retry_after: true, body: b"{\"a}".to_vec() });
        assert!(!usable);
        let asked = server.await.expect("the server ran");
        assert!(asked.starts_with("POST /v1/functions/f HTTP/1.1\r\nHost: 127.0.0.1:"), "{asked}");
        assert!(
            asked.contains("\r\nIdempotency-Key: k-1\r\n") && asked.contains("\r\nContent-Length: 2\r\n"),
            "{asked}"
        );
    }

    /// Catches a lost answer that passes for one.
    #[tokio::test]
    async fn a_connection_closed_early_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            stream.read_u8().await.expect("the request");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.expect("sent");
        });
        let mut connection = Connection::open(&Target::plain(host), Duration::from_secs(5)).await.expect("connected");
        assert!(connection.post("/", None, "").await.is_err());
        server.await.expect("the server ran");
    }
}
