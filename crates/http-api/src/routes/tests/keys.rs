//! Tokens that are confined to some keys, and every way in which the state is shown or changed (RELIABILITY 6, row 6; ADR 0038).

use actix_web::http::Method;
use actix_web::test::TestRequest;
use protocol::{Key, Rights};
use serde_json::{Value, json};

use super::access::{confined, issue, rights, world};
use super::world::{Reply, World, not_executed};
use crate::backend::Backend as _;

const ALL_OF_KV: &[&str] = &["kv.*", "inventory.*"];

/// A world with keys of `a/` and of others around them, and a token that is for `a/` and `k`.
fn shared() -> (World, String) {
    let world = world();
    for (key, version) in [("a", 1), ("a/", 2), ("a/1", 3), ("a/2", 4), ("a0", 5), ("b/1", 6), ("k", 7)] {
        world.put(key, format!("\"{key}\"").as_bytes(), version);
    }
    let token = issue(&world, 1, confined(&["a/", "k"], rights(true, ALL_OF_KV, false)), None);
    (world, token)
}

async fn ask(world: &World, token: &str, method: Method, uri: &str, body: Option<Value>) -> Reply {
    let request = TestRequest::with_uri(uri).method(method).insert_header(("Authorization", format!("Bearer {token}")));
    let request = request.insert_header(("Content-Type", "application/json"));
    world.ask(body.iter().fold(request, |request, body| request.set_payload(body.to_string()))).await
}

async fn get(world: &World, token: &str, uri: &str) -> Reply {
    ask(world, token, Method::GET, uri, None).await
}

/// Catches a key of others that is shown, or whose absence is: by its value, version, status, or by what a condition says.
#[actix_web::test]
async fn a_key_of_others_is_as_one_that_is_not_there() {
    let (world, token) = shared();
    for (uri, status) in [("a/", 200), ("a%2F1", 200), ("a/1", 200), ("%6b", 200), ("a/none", 404), ("k/none", 404)] {
        assert_eq!(get(&world, &token, &format!("/v1/state/{uri}")).await.status, status, "{uri}");
    }
    // Whoever asks for more than he may waits for nobody.
    world.change(|node| node.barrier = None);
    let mut bodies = Vec::new();
    for key in ["a", "a0", "b/1", "b/none", "b%2F..%2Fa/1", "%00a/1", "A/1", "quorate/token/0000000000000001"] {
        for method in [Method::GET, Method::HEAD] {
            let uri = format!("/v1/state/{key}");
            let request = TestRequest::with_uri(&uri).method(method.clone());
            let request = request.insert_header(("Authorization", format!("Bearer {token}")));
            let reply = world.ask(request.insert_header(("If-None-Match", "*"))).await;
            assert_eq!(reply.status, 403, "{method} {key}");
            for header in ["etag", "quorate-command", "quorate-time", "quorate-consistency"] {
                assert_eq!(reply.header(header), None, "{method} {key}");
            }
            bodies.push(reply.text().to_owned());
        }
    }
    bodies.retain(|body| !body.is_empty());
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    assert!(bodies[0].contains(r#"begin with \"a/\" or \"k\""#), "{}", bodies[0]);
}

/// Catches a list that goes beyond the allowed beginning: from a beginning of it, without any, from a place before or behind
/// it, page by page; and one that leaves out in silence what the caller has asked for.
#[actix_web::test]
async fn a_list_ends_where_the_token_does() {
    let (world, token) = shared();
    let keys = |reply: &Reply| {
        let entries = reply.json()["entries"].as_array().cloned().expect("entries");
        entries.iter().map(|entry| entry["key"].as_str().expect("a key").to_owned()).collect::<Vec<_>>()
    };
    for (query, found, next) in [
        ("prefix=a/", &["a/", "a/1", "a/2"][..], Value::Null),
        ("prefix=a/&limit=2", &["a/", "a/1"], json!("a/1")),
        ("prefix=a/&after=a/1&limit=1", &["a/2"], Value::Null),
        ("prefix=a/&after=A", &["a/", "a/1", "a/2"], Value::Null),
        ("prefix=a/&after=a/2", &[], Value::Null),
        ("prefix=a/&after=b", &[], Value::Null),
        ("prefix=a/1", &["a/1"], Value::Null),
        ("prefix=k&after=a", &["k"], Value::Null),
    ] {
        let reply = get(&world, &token, &format!("/v1/state?{query}")).await;
        assert_eq!((keys(&reply), &reply.json()["next"]), (found.iter().map(ToString::to_string).collect(), &next));
    }
    for query in ["", "?prefix=", "?prefix=a", "?prefix=b/", "?after=a/", "?prefix=a0", "?prefix=quorate/", "?limit=1"]
    {
        let reply = get(&world, &token, &format!("/v1/state{query}")).await;
        assert_eq!(reply.problem(), not_executed(403, "forbidden"), "{query}");
        assert!(reply.text().contains("the prefix of a list must begin so"), "{}", reply.text());
        assert_eq!(reply.header("quorate-command"), None);
    }
}

/// Catches what shows effects of any key to who is confined to some, and what says nothing of the state and is kept from
/// him; and a token without keys that is confined all the same.
#[actix_web::test]
async fn what_shows_all_is_for_who_reaches_all() {
    let (world, token) = shared();
    let whole = issue(&world, 2, rights(true, &[], false), None);
    for uri in ["/v1/commands", "/v1/commands?from=1&limit=1", "/v1/commands?from=0"] {
        for accept in ["application/json", "text/event-stream"] {
            let asked = TestRequest::get().uri(uri).insert_header(("Accept", accept));
            let reply = world.ask(asked.insert_header(("Authorization", format!("Bearer {token}")))).await;
            assert_eq!(reply.problem(), not_executed(403, "forbidden"), "{uri} {accept}");
        }
    }
    for uri in ["/v1/backup", "/v1/tokens"] {
        assert_eq!(get(&world, &token, uri).await.problem(), not_executed(403, "forbidden"), "{uri}");
    }
    for uri in ["/v1/digest", "/v1/cluster", "/v1/functions", "/metrics", "/"] {
        let reply = get(&world, &token, uri).await;
        assert_eq!(reply.status, 200, "{uri}");
        assert!(!reply.text().contains("b/1"), "{}", reply.text());
    }
    for uri in ["/v1/commands?from=42", "/v1/state", "/v1/state?prefix=b", "/v1/state/b/1"] {
        assert_eq!(get(&world, &whole, uri).await.status, 200, "{uri}");
    }
}

/// Catches a write of a key of others: by its path, by an argument, asynchronously, or as one of many calls whose others are
/// allowed; a function that does not say its keys and is opened by a pattern; and arguments that are said to be forbidden
/// where they cannot be read. Nothing of it reaches the leader.
#[actix_web::test]
async fn no_call_names_a_key_of_others() {
    let (world, token) = shared();
    let put = async |method: Method, key: &str| {
        ask(&world, &token, method, &format!("/v1/state/{key}"), Some(json!(1))).await
    };
    for method in [Method::PUT, Method::DELETE] {
        assert_eq!(put(method.clone(), "a/new").await.status, 200);
        for key in ["a", "b/1", "b/none", "quorate/x"] {
            assert_eq!(put(method.clone(), key).await.problem(), not_executed(403, "forbidden"), "{method} {key}");
        }
    }
    let call = async |function: &str, arguments: Value, prefer: &str| {
        let request = TestRequest::post().uri(&format!("/v1/functions/{function}")).set_payload(arguments.to_string());
        let request = request.insert_header(("Authorization", format!("Bearer {token}")));
        world.ask(request.insert_header(("Content-Type", "application/json")).insert_header(("Prefer", prefer))).await
    };
    for (prefer, done) in [("wait=1", 200), ("respond-async", 202)] {
        assert_eq!(call("kv.put", json!({"key": "k", "value": 1}), prefer).await.status, done);
        let refused = call("kv.put", json!({"key": "b/1", "value": {"key": "k"}}), prefer).await;
        assert_eq!(refused.problem(), not_executed(403, "forbidden"), "{prefer}");
        assert_eq!(call("kv.put", json!({"k": "a/"}), prefer).await.problem(), not_executed(400, "invalid_arguments"));
        assert_eq!(call("kv.none", json!({"key": "k"}), prefer).await.problem(), not_executed(404, "unknown_function"));
        // It does not say which keys it touches, and is not named in full.
        let refused = call("inventory.inbound", json!({"key": "a/"}), prefer).await;
        assert_eq!(refused.problem(), not_executed(403, "forbidden"), "{prefer}");
    }
    let batch = json!([
        {"function": "kv.put", "arguments": {"key": "a/1", "value": 1}},
        {"function": "kv.put", "arguments": {"key": "b/1", "value": 1}, "idempotency_key": "once"},
        {"function": "kv.delete", "arguments": {"key": "k"}},
        {"function": "kv.delete", "arguments": {}},
    ]);
    let outcomes = ask(&world, &token, Method::POST, "/v1/calls", Some(batch)).await.json();
    let statuses: Vec<_> = outcomes.as_array().expect("outcomes").iter().map(|one| one["status"].clone()).collect();
    assert_eq!(statuses, [200, 403, 200, 400], "{outcomes}");
    assert_eq!((&outcomes[1]["code"], &outcomes[1]["outcome"]), (&json!("forbidden"), &json!("not_executed")));
    for call in world.calls() {
        let arguments: Value = serde_json::from_slice(&call.arguments).expect("JSON");
        let key = arguments["key"].as_str().expect("a key");
        assert!(key.starts_with("a/") || key.starts_with('k'), "{call:?}");
    }
    assert_eq!(world.calls().len(), 6);
    let named = issue(&world, 3, confined(&["a/"], rights(false, &["inventory.inbound"], false)), None);
    let reply = ask(&world, &named, Method::POST, "/v1/functions/inventory.inbound", Some(json!({"key": "b/1"}))).await;
    assert_eq!(reply.status, 200, "who grants a function grants what it does: {}", reply.text());
    // A token to call is none to read.
    assert_eq!(get(&world, &named, "/v1/state/a/1").await.problem(), not_executed(403, "forbidden"));
}

/// Catches keys that are lost between who asks for a token and what makes it, and said to a leader that does not know them
/// where there are none; and a list of tokens that does not show them.
#[actix_web::test]
async fn keys_are_asked_for_and_listed() {
    let (world, _) = shared();
    let operator = issue(&world, 4, Rights::all(), None);
    for keys in [json!([]), json!(["a/", "b"])] {
        let body = json!({"name": "ci", "read": true, "keys": keys});
        assert_eq!(ask(&world, &operator, Method::POST, "/v1/tokens", Some(body)).await.status, 201);
        let call = world.calls().pop().expect("a call");
        let arguments: Value = serde_json::from_slice(&call.arguments).expect("JSON");
        assert_eq!(arguments.get("keys"), Some(&keys).filter(|keys| **keys != json!([])));
    }
    let listed = get(&world, &operator, "/v1/tokens").await.json();
    assert_eq!((&listed["tokens"][0]["keys"], &listed["tokens"][1]["keys"]), (&json!(["a/", "k"]), &json!([])));
}

/// Catches a token of a later version, with rights that this one does not know, that lets its owner in by those it knows.
#[actix_web::test]
async fn a_token_that_cannot_be_read_opens_nothing() {
    let (world, token) = shared();
    let key = "quorate/token/0000000000000001";
    let text = world.backend.snapshot().expect("a state").view.get(&Key::new(key).expect("a key"));
    let text = String::from_utf8(text.expect("readable").expect("a token").value.to_vec()).expect("text");
    world.put(key, text.replace("\"keys\"", "\"beyond\"").as_bytes(), 8);
    for uri in ["/v1/state/a/1", "/v1/state/b/1", "/v1/functions"] {
        assert_eq!(get(&world, &token, uri).await.problem(), not_executed(500, "state_unreadable"), "{uri}");
    }
}
