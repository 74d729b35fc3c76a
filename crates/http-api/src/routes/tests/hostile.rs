//! What a broken or hostile client may send (RELIABILITY 6, rows 9-11).

use actix_web::http::Method;
use actix_web::test::TestRequest;
use bytes::Bytes;
use protocol::{CommandNumber, Outcome};

use super::world::{World, not_executed};

const CALL: &str = "/v1/functions/f";

fn world() -> World {
    World::new(|_| Some(Outcome::Issued { command: CommandNumber(1), result: Bytes::new() }))
}

/// Catches a body that is passed on though it is not JSON, or that overflows the stack.
#[actix_web::test]
async fn bodies_that_are_not_json_never_reach_the_leader() {
    let world = world();
    let deep = "[".repeat(60_000);
    for body in ["", "{", "nonsense", "{} {}", "[1,]", "{\"a\":1e999}", "\u{feff}{}", "\"\\ud800\"", &deep] {
        let reply = world.post(CALL, body.to_owned()).await;
        assert_eq!(reply.problem(), not_executed(400, "invalid_json"), "{}", &body[..body.len().min(20)]);
        assert_eq!(world.post("/v1/calls", body.to_owned()).await.status, 400);
    }
    assert_eq!(world.post(CALL, b"\"\xff\"".to_vec()).await.problem(), not_executed(400, "invalid_json"));
    let nested = format!("[{{\"function\":\"f\",\"arguments\":{}1{}}}]", "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(world.post("/v1/calls", nested).await.problem(), not_executed(400, "invalid_json"));
    assert!(world.calls().is_empty());
}

/// Catches a body that is read without a bound, announced or not.
#[actix_web::test]
async fn bodies_are_bounded() {
    let world = world();
    let body = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    assert_eq!(world.post(CALL, body(64 << 10)).await.status, 200);
    let large = not_executed(413, "body_too_large");
    assert_eq!(world.post(CALL, body((64 << 10) + 1)).await.problem(), large);
    let announced = TestRequest::post().uri(CALL).set_payload("{}").insert_header(("Content-Length", "99999999999"));
    assert_eq!(world.ask(announced).await.problem(), large);
    let put = TestRequest::put().uri("/v1/state/k").set_payload(vec![0; (64 << 10) + 1]);
    assert_eq!(world.ask(put).await.problem(), large);
    assert_eq!(world.calls().len(), 1);
}

/// Catches keys outside the documented range, and bytes that are guessed into text.
#[actix_web::test]
async fn keys_are_checked() {
    let world = world();
    let key = |length| format!("/v1/state/{}", "k".repeat(length));
    assert_eq!(world.with_header(Method::PUT, &key(1024), ("Accept", "*/*")).await.status, 200);
    for uri in [&key(1025), "/v1/state/"] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let reply = world.with_header(method, uri, ("Accept", "*/*")).await;
            assert_eq!(reply.problem(), not_executed(400, "invalid_key"));
        }
    }
    for uri in ["/v1/state/%ff", "/v1/state/%", "/v1/state/%zz", "/v1/state/a%2", "/v1/calls/%c3%28"] {
        assert_eq!(world.get(uri).await.problem(), not_executed(400, "invalid_path"), "{uri}");
    }
    assert_eq!(world.get("/v1/state/%252F?consistency=local").await.status, 404, "decoded once");
    assert_eq!(world.calls().len(), 1);
}

/// Catches headers that are taken although they break the rules.
#[actix_web::test]
async fn headers_are_checked() {
    let world = world();
    let long = "k".repeat(129);
    for (name, value, status) in [
        ("Idempotency-Key", "", 400),
        ("Idempotency-Key", "a b", 400),
        ("Idempotency-Key", "é", 400),
        ("Idempotency-Key", &long, 400),
        ("Prefer", "wait=é", 400),
        ("Content-Type", "text/plain", 415),
        ("Content-Type", "application/x-www-form-urlencoded", 415),
        ("Content-Encoding", "gzip", 415),
        ("Content-Type", "Application/JSON; charset=utf-8", 200),
        ("Idempotency-Key", &long[1..], 200),
    ] {
        assert_eq!(world.with_header(Method::POST, CALL, (name, value)).await.status, status, "{name}: {value}");
    }
    let twice = TestRequest::post().uri(CALL).append_header(("Idempotency-Key", "a"));
    let twice = twice.append_header(("Idempotency-Key", "b")).set_payload("{}");
    assert_eq!(world.ask(twice).await.problem(), not_executed(400, "invalid_idempotency_key"));
    let padding = "x".repeat(33 << 10);
    let reply = world.with_header(Method::POST, CALL, ("X-Padding", &padding)).await;
    assert_eq!(reply.problem(), not_executed(431, "headers_too_large"));
    let reply = world.get(&format!("/v1/state?prefix={}", "x".repeat(9 << 10))).await;
    assert_eq!(reply.problem(), not_executed(414, "uri_too_long"));
    assert_eq!(world.calls().len(), 2);
}

/// Catches a query that is silently left aside.
#[actix_web::test]
async fn unknown_and_doubled_parameters_are_refused() {
    let world = world();
    let invalid = not_executed(400, "invalid_query");
    for uri in ["/v1/cluster?a=1", "/v1/state?limit=1&limit=2", "/metrics?x", "/livez?Verbose", "/?x=1"] {
        assert_eq!(world.get(uri).await.problem(), invalid, "{uri}");
    }
    assert_eq!(world.post("/v1/functions/f?wait=3", "{}").await.problem(), invalid);
    assert!(world.calls().is_empty());
}
