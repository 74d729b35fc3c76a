//! What nobody should send to REST. Each row is refused as the page says, and leaves the node
//! as it was.

use quorate_tests::cluster::{Cluster, DEADLINE, send};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const INBOUND: &str = "/v1/functions/inventory.inbound";

/// A16: catches nonsense that is executed, answered with another status, or that harms the node
/// that reads it: deep nesting must not end its process.
#[tokio::test]
async fn bodies_that_are_refused() {
    let cluster = Cluster::start("bodies", 3, &[]).await;
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    let amount = |text: &str| format!("{{\"warehouse\": \"A\", \"amount\": {text}}}");
    let rows = [
        (String::new(), 400, "invalid_json"),
        ("{".to_owned(), 400, "invalid_json"),
        ("{} {}".to_owned(), 400, "invalid_json"),
        ("{'a': 1}".to_owned(), 400, "invalid_json"),
        ("NaN".to_owned(), 400, "invalid_json"),
        ("\u{feff}{}".to_owned(), 400, "invalid_json"),
        (deep("[", "]"), 400, "invalid_json"),
        (deep("{\"a\":", "}"), 400, "invalid_json"),
        (amount(&deep("[", "]")), 400, "invalid_json"),
        ("null".to_owned(), 400, "invalid_arguments"),
        ("[]".to_owned(), 400, "invalid_arguments"),
        (amount("null"), 400, "invalid_arguments"),
        (amount("true"), 400, "invalid_arguments"),
        (amount("\"1\""), 400, "invalid_arguments"),
        (amount("-0"), 422, "invalid_amount"),
        (amount("-1"), 422, "invalid_amount"),
        (amount("0.5"), 422, "invalid_amount"),
        (amount("9007199254740992"), 422, "invalid_amount"),
        (amount("18446744073709551616"), 422, "invalid_amount"),
        (amount("1e300"), 422, "invalid_amount"),
        (amount("1e400"), 400, "invalid_json"),
        (amount(&"9".repeat(300)), 422, "invalid_amount"),
        (amount(&"9".repeat(10_000)), 400, "invalid_json"),
        (format!("{{\"warehouse\": \"{}\", \"amount\": 1}}", "w".repeat(257)), 400, "invalid_arguments"),
        (format!("{{\"warehouse\": \"{}\", \"amount\": 1}}", "w".repeat(3 << 20)), 413, "body_too_large"),
    ];
    let before = cluster.assert_agreement().await;
    for (node, (body, status, code)) in rows.into_iter().enumerate() {
        let shown: String = body.chars().take(60).collect();
        let request = cluster.client().post(cluster.url(node % 3, INBOUND)).body(body);
        let reply = send(request.header("Content-Type", "application/json")).await;
        let reply = reply.unwrap_or_else(|error| panic!("{shown}: {error:?}"));
        assert_eq!(reply.status, status, "{shown}: {}", reply.text());
        reply.assert_problem(status, code);
    }
    assert_eq!(cluster.assert_agreement().await, before, "nonsense was executed");
    for node in 0..cluster.size() {
        let reply = cluster.call(node, "inventory.inbound", &json!({"warehouse": "A", "amount": 1})).await;
        assert_eq!(reply.status, 200, "node {node} serves as before: {}", reply.text());
    }
}

/// Catches headers that are guessed at instead of refused.
#[tokio::test]
async fn headers_that_are_refused() {
    let cluster = Cluster::start("headers", 3, &[]).await;
    let node = cluster.follower().await;
    let good = json!({"warehouse": "A", "amount": 1});
    let long = "k".repeat(129);
    let headers: &[(&'static str, &[u8], u16, &str)] = &[
        ("Idempotency-Key", b"", 400, "invalid_idempotency_key"),
        ("Idempotency-Key", b"two words", 400, "invalid_idempotency_key"),
        ("Idempotency-Key", b"caf\xc3\xa9", 400, "invalid_idempotency_key"),
        ("Idempotency-Key", b"\xff", 400, "invalid_idempotency_key"),
        ("Idempotency-Key", long.as_bytes(), 400, "invalid_idempotency_key"),
        ("Prefer", b"wait=-1", 400, "invalid_prefer"),
        ("Prefer", b"wait=1.5", 400, "invalid_prefer"),
        ("Prefer", b"wait=soon", 400, "invalid_prefer"),
        ("Prefer", b"wait=999999999999999999999", 400, "invalid_prefer"),
        ("Prefer", b"wait=61", 400, "invalid_prefer"),
        ("Content-Type", b"text/plain", 415, "unsupported_media_type"),
        ("Content-Encoding", b"gzip", 415, "unsupported_media_type"),
    ];
    for (name, value, status, code) in headers {
        let request = cluster.client().post(cluster.url(node, INBOUND)).body(good.to_string());
        let value = HeaderValue::from_bytes(value).expect("HTTP allows it");
        let reply = send(request.header(*name, value)).await.expect("a living node answers");
        assert_eq!(reply.status, *status, "{name}: {}", reply.text());
        reply.assert_problem(*status, code);
    }
    let padding = "x".repeat(33 << 10);
    for (path, name, value, status, code) in [
        ("/v1/commands", "Accept", "text/event-stream", 406, "not_acceptable"),
        ("/v1/state/k", "If-None-Match", "17", 400, "invalid_header"),
        ("/v1/state/k", "If-None-Match", "", 400, "invalid_header"),
        ("/v1/state", "X-Padding", &padding, 431, "headers_too_large"),
    ] {
        let request = cluster.client().get(cluster.url(node, path)).header(name, value);
        send(request).await.expect("a living node answers").assert_problem(status, code);
    }
    assert_eq!(cluster.assert_agreement().await.last(), 0, "something of it was executed");
}

/// Catches paths, queries and methods that are guessed at instead of refused, and sizes whose
/// bound is not kept.
#[tokio::test]
async fn requests_that_are_refused() {
    let cluster = Cluster::start("requests", 3, &[]).await;
    let node = cluster.follower().await;
    let key_too_long = format!("/v1/state/{}", "k".repeat(1025));
    let uri_too_long = format!("/v1/state?prefix={}", "k".repeat(9 << 10));
    for (path, status, code) in [
        (key_too_long.as_str(), 400, "invalid_key"),
        ("/v1/state/%ff", 400, "invalid_path"),
        ("/v1/state/%zz", 400, "invalid_path"),
        ("/v1/state/k?conistency=local", 400, "invalid_query"),
        ("/v1/state/k?min_command=-1", 400, "invalid_query"),
        ("/v1/state?limit=1001", 400, "invalid_query"),
        ("/v1/commands?from=x", 400, "invalid_query"),
        ("/v1/commands?from=18446744073709551616", 400, "invalid_query"),
        ("/v1/state/k?consistency=speculative", 400, "unsupported_consistency"),
        ("/v1/state/k?at=1", 400, "unsupported_consistency"),
        (uri_too_long.as_str(), 414, "uri_too_long"),
        ("/v1/nothing", 404, "unknown_route"),
    ] {
        let reply = cluster.get(node, path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        reply.assert_problem(status, code);
    }
    for (method, path, allowed) in [
        (Method::GET, INBOUND, "POST"),
        (Method::POST, "/v1/commands", "GET, HEAD"),
        (Method::PATCH, "/v1/state/k", "GET, HEAD, PUT, DELETE"),
    ] {
        let reply = send(cluster.client().request(method, cluster.url(node, path))).await;
        let reply = reply.expect("a living node answers");
        reply.assert_problem(405, "method_not_allowed");
        assert_eq!(reply.header("Allow"), allowed, "{path}");
    }
    // The body is within its bound; only the leader sees that the value is not.
    let large = json!({"key": "large", "value": "x".repeat(1 << 20)});
    cluster.call(node, "kv.put", &large).await.assert_problem(413, "too_large");
    let value = vec![b'x'; (1 << 20) + 1];
    let put = cluster.client().put(cluster.url(node, "/v1/state/large")).body(value);
    send(put).await.expect("a living node answers").assert_problem(413, "body_too_large");
    let calls: Vec<_> = (0..1001).map(|_| json!({"function": "kv.increment", "arguments": {"key": "n"}})).collect();
    let batch = cluster.client().post(cluster.url(node, "/v1/calls")).json(&calls);
    send(batch).await.expect("a living node answers").assert_problem(413, "too_many_calls");
    assert_eq!(cluster.assert_agreement().await.last(), 0, "something of it was executed");
}

/// Catches a caller of half a request, or of none, who holds up the others, and bytes that are
/// not HTTP and end more than their own connection.
#[tokio::test]
async fn connections_that_say_nothing_useful() {
    let cluster = Cluster::start("connections", 3, &[]).await;
    let node = cluster.leader().await;
    let connect = async || TcpStream::connect(cluster.http_address(node)).await.expect("it listens");
    let mut idle = Vec::new();
    for start in [&b""[..], b"POST ", b"POST /v1/functions/kv.put HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"] {
        for _ in 0..20 {
            let mut stream = connect().await;
            stream.write_all(start).await.expect("it is read");
            idle.push(stream);
        }
    }
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET / HTTP/9.9\r\n\r\n", &[0; 4096], b"\r\n\r\n"]
    {
        let mut stream = connect().await;
        stream.write_all(garbage).await.expect("it is read");
        stream.shutdown().await.expect("it is open");
        let mut answer = Vec::new();
        // A reset is an end too.
        let end = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        let _ = end.expect("the connection is ended");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    for node in 0..cluster.size() {
        let reply = cluster.call(node, "inventory.inbound", &json!({"warehouse": "A", "amount": 1})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    drop(idle);
    assert_eq!(cluster.assert_agreement().await.last(), 3, "half a request was executed");
}

/// Catches a body that is cut off, or never comes, and is executed, holds its connection for ever,
/// or is refused with another code than documented.
#[tokio::test]
async fn bodies_that_do_not_arrive() {
    let cluster = Cluster::start("arrivals", 3, &[]).await;
    let node = cluster.follower().await;
    let head = format!("POST {INBOUND} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
    for (rest, status, code) in [
        ("Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n", "400", "incomplete_body"),
        ("Content-Length: 100\r\n\r\n{", "408", "slow_body"),
    ] {
        let mut stream = TcpStream::connect(cluster.http_address(node)).await.expect("it listens");
        stream.write_all(format!("{head}{rest}").as_bytes()).await.expect("it is read");
        let mut reply = Vec::new();
        let end = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut reply)).await;
        end.expect("the connection is ended").expect("a whole reply");
        let reply = String::from_utf8(reply).expect("text");
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
        let problem = reply.split_once("\r\n\r\n").expect("a head and a body").1;
        let problem: serde_json::Value = serde_json::from_str(problem).expect("a problem document");
        assert_eq!((&problem["code"], &problem["outcome"]), (&json!(code), &json!("not_executed")), "{problem}");
    }
    assert_eq!(cluster.assert_agreement().await.last(), 0, "half a body was executed");
}
