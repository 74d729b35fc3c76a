//! The server on a real socket: what only shows in bytes.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusBuilder;
use protocol::{CommandNumber, Outcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::world::World;
use crate::server::{Options, listen, server};

/// Far longer than anything here takes.
pub(super) const LONG: Duration = Duration::from_secs(20);

pub(super) struct Served {
    pub(super) world: World,
    pub(super) address: SocketAddr,
    pub(super) handle: ServerHandle,
}

impl Served {
    pub(super) fn start() -> Self {
        Self::with(options())
    }

    pub(super) fn with(options: Options) -> Self {
        let result = Bytes::from_static(b"{}");
        let world = World::new(move |_| Some(Outcome::Issued { command: CommandNumber(17), result: result.clone() }));
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)), LONG).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let server = server(listener, world.backend.clone(), options).expect("it listens");
        let handle = server.handle();
        actix::spawn(server);
        Self { world, address, handle }
    }

    async fn exchange(&self, request: &[u8]) -> String {
        exchange(self.address, request).await
    }
}

/// What a server is told, of which nothing matters here.
pub(super) fn options() -> Options {
    let prometheus = PrometheusBuilder::new().build_recorder().handle();
    Options {
        workers: 1,
        entropy: 1,
        prometheus,
        is_gateway: true,
        metrics_apart: false,
        admin_apart: false,
        auth: None,
        tls: None,
        grace: Duration::from_secs(1),
        tracer: None,
    }
}

/// Sends the bytes and reads until the server closes the connection.
pub(super) async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request).await.expect("it reads");
    let mut reply = Vec::new();
    // A reset after the reply is a way to close, too.
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut reply)).await;
    let reply = String::from_utf8(reply).expect("text");
    let _ = read.unwrap_or_else(|_| panic!("the connection stays open after: {reply}"));
    reply
}

/// Catches limits, headers and errors that only hold inside the application.
#[actix_web::test]
async fn the_server_answers_on_a_socket() {
    let served = Served::start();
    let close = "Host: a\r\nConnection: close\r\n";
    let call = format!("POST /v1/functions/f HTTP/1.1\r\n{close}Content-Length: 2\r\n\r\n{{}}");
    let reply = served.exchange(call.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.contains("\r\nquorate-node: b\r\n") && reply.contains("\r\nquorate-command: 17\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\n{\"command\":17,\"result\":{}}"), "{reply}");
    let whole =
        format!("POST /v1/functions/f HTTP/1.1\r\n{close}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n");
    let reply = served.exchange(whole.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    let head = served.exchange(format!("HEAD /livez HTTP/1.1\r\n{close}\r\n").as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "no body: {head}");
    served.handle.stop(true).await;
    assert!(TcpStream::connect(served.address).await.is_err(), "a stopped server accepts nothing");
}

/// Catches slow and endless bodies that hold a connection.
#[actix_web::test]
async fn hostile_connections_are_ended() {
    let served = Served::start();
    let start = "POST /v1/functions/f HTTP/1.1\r\nHost: a\r\n";
    let slow = served.exchange(format!("{start}Content-Length: 10\r\n\r\n{{").as_bytes()).await;
    assert!(slow.starts_with("HTTP/1.1 408 ") && slow.contains("\"code\":\"slow_body\""), "{slow}");
    let piece = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
    let endless = format!("{start}Transfer-Encoding: chunked\r\n\r\n{}", piece.repeat(2));
    let endless = served.exchange(endless.as_bytes()).await;
    assert!(endless.starts_with("HTTP/1.1 413 ") && endless.contains("body_too_large"), "{endless}");
    // A handler that does not want the body at all, and a body that never ends.
    let unwanted = "POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n";
    let unwanted = served.exchange(unwanted.as_bytes()).await;
    assert!(unwanted.starts_with("HTTP/1.1 404 "), "{unwanted}");
    let slow = served.exchange(format!("{start}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n").as_bytes()).await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    assert!(served.world.calls().is_empty());
    served.handle.stop(false).await;
}

/// RELIABILITY 6, row 10. Catches a head that never ends and holds its connection: of the first request, which the library
/// times, and of a later one, which it does not; and a connection that is ended although its requests come whole.
#[actix_web::test]
async fn heads_that_never_end_are_given_up() {
    let served = Served::start();
    let get = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    let dripped = |before: &'static str| {
        let address = served.address;
        async move {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream.write_all(before.as_bytes()).await.expect("it reads");
            let (mut read, mut write) = stream.into_split();
            let drip = async {
                while write.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                std::future::pending().await
            };
            let mut reply = Vec::new();
            let ended = async { read.read_to_end(&mut reply).await };
            tokio::select! {
                // A reset is an end too.
                _ = tokio::time::timeout(LONG, ended) => {}
                () = drip => {}
            }
            String::from_utf8(reply).expect("text")
        }
    };
    let idle = async {
        let mut stream = TcpStream::connect(served.address).await.expect("it listens");
        for _ in 0..2 {
            stream.write_all(get.as_bytes()).await.expect("it is open");
            let mut reply = [0; 12];
            stream.read_exact(&mut reply).await.expect("a reply");
            assert_eq!(&reply, b"HTTP/1.1 200");
            // Longer than a head may take; what is left of the reply waits to be read.
            tokio::time::sleep(crate::connection::HEAD_WAIT + Duration::from_secs(1)).await;
            while stream.try_read(&mut [0; 1024]).is_ok() {}
        }
    };
    let ended = async {
        let begun = crate::observe::clock();
        let replies = tokio::join!(dripped("GET /livez"), dripped(get));
        (replies, begun.elapsed())
    };
    let (((first, later), took), ()) = tokio::join!(ended, idle);
    assert!(took < LONG, "a connection was open after {took:?}");
    assert!(first.starts_with("HTTP/1.1 408 "), "{first}");
    assert!(later.starts_with("HTTP/1.1 200 ") && later.matches("HTTP/1.1").count() == 1, "{later}");
    served.handle.stop(false).await;
}

/// Catches a request that can be routed and is refused without a problem document, and one with
/// a broken body that reaches the leader.
#[actix_web::test]
async fn what_can_be_routed_is_refused_with_a_problem() {
    let served = Served::start();
    let close = "Host: a\r\nConnection: close\r\n";
    let chunked = format!("POST /v1/functions/f HTTP/1.1\r\n{close}Transfer-Encoding: chunked\r\n\r\n");
    let x = |bytes: usize| "x".repeat(bytes);
    for (request, status, code) in [
        (format!("FOO /livez HTTP/1.1\r\n{close}\r\n"), 405, "method_not_allowed"),
        (format!("TRACE /livez HTTP/1.1\r\n{close}\r\n"), 405, "method_not_allowed"),
        // What a browser asks before it lets a page of another site call.
        (
            format!(
                "OPTIONS /v1/functions/f HTTP/1.1\r\n{close}Origin: https://b\r\nAccess-Control-Request-Method: POST\r\n\r\n"
            ),
            405,
            "method_not_allowed",
        ),
        (format!("CONNECT a:80 HTTP/1.1\r\n{close}\r\n"), 404, "unknown_route"),
        (format!("OPTIONS * HTTP/1.1\r\n{close}\r\n"), 404, "unknown_route"),
        (format!("GET /livez?{} HTTP/1.1\r\n{close}\r\n", x(9 << 10)), 414, "uri_too_long"),
        (format!("GET /livez HTTP/1.1\r\n{close}X: {}\r\n\r\n", x(40 << 10)), 431, "headers_too_large"),
        (format!("{chunked}zz\r\n{{}}\r\n0\r\n\r\n"), 400, "incomplete_body"),
        (format!("{chunked}1\r\n{{\r\nzz\r\n"), 400, "incomplete_body"),
        (format!("{chunked}ffffffffffffffffff\r\n{{}}\r\n"), 400, "incomplete_body"),
    ] {
        let reply = served.exchange(request.as_bytes()).await;
        let start = request.chars().take(80).collect::<String>();
        let (head, body) = reply.split_once("\r\n\r\n").expect("head and body");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{start:?}: {head}");
        assert!(head.contains("\r\ncontent-type: application/problem+json\r\n"), "{start:?}: {head}");
        assert!(head.contains("\r\nquorate-node: b"), "{start:?}: {head}");
        assert!(!head.contains("access-control-"), "{start:?}: pages of other sites are let in: {head}");
        let problem: serde_json::Value = serde_json::from_str(body).expect("one document");
        assert_eq!((problem["code"].as_str(), problem["outcome"].as_str()), (Some(code), Some("not_executed")));
    }
    assert!(served.world.calls().is_empty());
    served.handle.stop(false).await;
}

/// Catches a refusal of what is not HTTP that says other than `docs/api.md`: status alone, no
/// body, then the end of the connection; and one of it that reaches the leader. That the server
/// below the routes writes these replies by itself is why they are no problem documents.
#[actix_web::test]
async fn what_is_not_http_is_refused_by_status_alone() {
    let served = Served::start();
    let start = "POST /v1/functions/f HTTP/1.1\r\nHost: a\r\n";
    let get = "GET /livez HTTP/1.1\r\nHost: a\r\n";
    let headers: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let x = |bytes: usize| "x".repeat(bytes);
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET /livez HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("GET /livez HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("F(O /livez HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        // HTTP/0.9, which has no status, no headers and no end.
        ("GET /\r\n".to_owned(), 400),
        ("GET /livez\r\n\r\n".to_owned(), 400),
        // Null bytes, at which others cut a text short.
        ("GE\0T /livez HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /livez\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /livez HTTP/1.1\0\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /livez HTTP/1.1\r\nHost: a\0b\r\n\r\n".to_owned(), 400),
        (format!("{get}Authorization: Bearer a\0b\r\n\r\n"), 400),
        (format!("{get}X\0: a\r\n\r\n"), 400),
        ("\0GET /livez HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        (format!("{get}ba d: x\r\n\r\n"), 400),
        (format!("{start}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"), 400),
        (format!("{start}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{start}Content-Length: -1\r\n\r\n{{}}"), 400),
        (format!("{start}Transfer-Encoding: gzip\r\n\r\n{{}}"), 400),
        (format!("GET /livez?{} HTTP/1.1\r\nHost: a\r\n\r\n", x(70 << 10)), 400),
        (format!("{get}{headers}\r\n"), 431),
        // Not a byte more than is read: closing with bytes unread could cost the reply.
        (format!("{get}X: {}", x((128 << 10) - get.len() - 3)), 431),
    ] {
        let reply = served.exchange(request.as_bytes()).await;
        let start = request.chars().take(80).collect::<String>();
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{start:?}: {reply}");
        assert!(reply.contains("\r\ncontent-length: 0\r\n") && reply.ends_with("\r\n\r\n"), "{start:?}: {reply}");
    }
    let after_a_call = format!("{start}Content-Length: 2\r\n\r\n{{}}nonsense\r\n\r\n");
    let replies = served.exchange(after_a_call.as_bytes()).await;
    assert!(replies.starts_with("HTTP/1.1 200 ") && replies.contains("HTTP/1.1 400 "), "in order: {replies}");
    assert_eq!(served.world.calls().len(), 1);
    served.handle.stop(false).await;
}
