//! Every route, with every kind of token (RELIABILITY 6, rows 5 and 6).

use actix_web::http::Method;
use actix_web::test::TestRequest;
use protocol::{Call, CommandNumber, Key, Outcome, Rights, Timestamp, Token};
use serde_json::{Value, json};

use super::world::{World, not_executed};

const ROOT: &str = "a root token of thirty two letters";
const NOW: u64 = 1_000_000;

/// A token of the state with these rights, and what its owner presents.
pub(super) fn issue(world: &World, number: u64, rights: Rights, expires: Option<u64>) -> String {
    let id = format!("{number:016x}");
    let text = crate::core::access::text_of(&id, &format!("s3cret{number}"));
    let token = Token {
        name: format!("n{number}"),
        hash: *blake3::hash(text.as_bytes()).as_bytes(),
        rights,
        created: Timestamp(0),
        expires: expires.map(Timestamp),
    };
    world.put(&format!("quorate/token/{id}"), &token.to_value(), number);
    text
}

pub(super) fn rights(read: bool, call: &[&str], operate: bool) -> Rights {
    Rights { read, call: call.iter().map(ToString::to_string).collect(), operate, keys: Vec::new() }
}

pub(super) fn confined(keys: &[&str], rights: Rights) -> Rights {
    Rights { keys: keys.iter().map(ToString::to_string).collect(), ..rights }
}

pub(super) fn world() -> World {
    let world = World::with_root(ROOT, |call: &Call| {
        let result = if call.function == "auth.token_create" { "{\"id\":\"\",\"expires\":null}" } else { "{}" };
        Some(Outcome::Issued { command: CommandNumber(42), result: result.into() })
    });
    world.change(|node| (node.wall, node.time) = (NOW, NOW));
    world
}

/// Who may ask an operation of the description: nobody needs a token, or who has these rights. A new operation must be
/// entered here.
fn opens(operation: &str) -> Option<[bool; 4]> {
    // read, call kv.* and inventory.*, operate, the first two with keys that begin with k
    let [read, call, operate] = [[true, false, false, true], [false, true, false, true], [false, false, true, false]];
    Some(match operation {
        "livez" | "readyz" | "healthz" | "openapi" | "docs" => return None,
        "list_functions" => [true; 4],
        "execute_function" | "put_value" | "delete_value" => call,
        // Each call of it stands alone, and is looked at below.
        "execute_calls" | "get_call" => [true; 4],
        "get_value" | "get_cluster" | "get_digest" | "metrics" | "home" => read,
        "list_state" | "list_commands" => [true, false, false, false],
        "set_acceptor" | "remove_acceptor" | "set_majority" | "hand_over" | "get_backup" | "create_token"
        | "list_tokens" | "revoke_token" => operate,
        other => panic!("{other} is new: say here who may ask it"),
    })
}

/// The request that an operation of the description takes.
fn request(method: &str, path: &str) -> TestRequest {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
    let body = match path {
        "/v1/calls" => json!([{"function": "kv.put", "arguments": {}}]),
        "/v1/tokens" => json!({"name": "ci", "read": true}),
        _ => json!({}),
    };
    let uri = path.replace("{name}", "inventory.inbound").replace("{key}", "k").replace("{idempotency_key}", "k");
    let request = TestRequest::with_uri(&uri.replace("{id}", "x")).insert_header(("Content-Type", "application/json"));
    let has_body = method != Method::GET;
    let request = request.method(method);
    if has_body { request.set_payload(body.to_string()) } else { request }
}

/// Every operation of the served description × no, wrong, expired, revoked and insufficient token. Catches a route that
/// lets in who may not, or keeps out who may; and a refusal that does not say how to ask.
#[actix_web::test]
async fn every_route_asks_for_its_token() {
    let world = world();
    let description = world.get("/openapi.json").await.json();
    let tokens = [
        rights(true, &[], false),
        rights(false, &["kv.*", "inventory.*"], false),
        rights(false, &[], true),
        confined(&["k"], rights(true, &["kv.*", "inventory.inbound"], false)),
    ];
    let tokens: Vec<String> =
        tokens.into_iter().zip(1..).map(|(rights, number)| issue(&world, number, rights, Some(NOW + 1))).collect();
    let expired = issue(&world, 7, Rights::all(), Some(NOW));
    let revoked = issue(&world, 8, Rights::all(), None);
    world.change(|node| drop(node.state.remove(&Key::new("quorate/token/0000000000000008").expect("a key"))));
    let bearer = |token: &str| format!("Bearer {token}");
    let denied = [
        (None, "no_token"),
        (Some("Bearer".to_owned()), "invalid_token"),
        (Some("Bearer ".to_owned()), "invalid_token"),
        (Some(format!("Basic {ROOT}")), "invalid_token"),
        (Some(bearer("garbage")), "invalid_token"),
        (Some(bearer(&ROOT[1..])), "invalid_token"),
        (Some(bearer(&format!("{}x", tokens[0]))), "invalid_token"),
        // The secret of one under the id of another.
        (Some(bearer(&tokens[0].replace("0000000000000001", "0000000000000002"))), "invalid_token"),
        (Some(bearer(&expired)), "expired_token"),
        (Some(bearer(&revoked)), "invalid_token"),
    ];
    let mut operations = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let (name, operation) = (format!("{method} {path}"), operation["operationId"].as_str().expect("an id"));
            operations += 1;
            let Some(opens) = opens(operation) else {
                assert!(world.ask(request(method, path)).await.status.as_u16() != 401, "{name}");
                continue;
            };
            for (header, code) in &denied {
                let asked = header.iter().fold(request(method, path), |request, header| {
                    request.insert_header(("Authorization", header.as_str()))
                });
                let reply = world.ask(asked).await;
                assert_eq!(reply.problem(), not_executed(401, code), "{name} {header:?}");
                let challenge = reply.header("www-authenticate").expect("how to ask");
                assert!(challenge.starts_with("Bearer realm=\"quorate\""), "{challenge}");
                assert_eq!(challenge.contains("invalid_token"), header.is_some(), "{challenge}");
                assert!(!reply.text().contains("s3cret"), "{}", reply.text());
            }
            for (token, opens) in tokens.iter().zip(opens) {
                let reply = world.ask(request(method, path).insert_header(("Authorization", bearer(token)))).await;
                if opens {
                    assert!(![401, 403].contains(&reply.status.as_u16()), "{name} {token}: {}", reply.text());
                } else {
                    assert_eq!(reply.problem(), not_executed(403, "forbidden"), "{name} {token}");
                }
            }
            let root = world.ask(request(method, path).insert_header(("Authorization", bearer(ROOT)))).await;
            assert!(![401, 403].contains(&root.status.as_u16()), "{name}: {}", root.text());
        }
    }
    assert!(operations >= 24, "{operations}");
    assert_eq!(world.get("/nowhere").await.problem(), not_executed(404, "unknown_route"));
}

/// RELIABILITY 6, row 16: every operation of the description at the port of callers, where operators have one of their own, with
/// the token that may do everything. Catches anything of operators that is answered there: a route, a function by its
/// name, one of many in a request; anything of callers that is not; and a call that may have been done at the other port, and is
/// said to be undone.
#[actix_web::test]
async fn operators_are_answered_at_their_port_only() {
    let world = world();
    let description = world.get("/openapi.json").await.json();
    let world = world.of_callers_only(ROOT);
    let root = ("Authorization", format!("Bearer {ROOT}"));
    let elsewhere = not_executed(403, "not_at_this_port");
    let mut of_operators = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let reply = world.ask(request(method, path).insert_header(root.clone())).await;
            if opens(operation["operationId"].as_str().expect("an id")) == Some([false, false, true, false]) {
                of_operators += 1;
                assert_eq!(reply.problem(), elsewhere, "{method} {path}");
                assert!(reply.text().contains("listen.admin"), "{}", reply.text());
                let anybody = world.ask(request(method, path)).await;
                assert_eq!(anybody.problem(), elsewhere, "{method} {path}: nobody need show a token for that");
            } else {
                assert!(reply.status != 403, "{method} {path}: {}", reply.text());
            }
        }
    }
    assert!(of_operators >= 8, "{of_operators}");
    let ask = async |uri: &str, body: Value, header: (&str, &str)| {
        let request = TestRequest::post().uri(uri).set_payload(body.to_string()).insert_header(root.clone());
        world.ask(request.insert_header(("Content-Type", "application/json")).insert_header(header)).await
    };
    let (plain, keyed) = (("Accept", "*/*"), ("Idempotency-Key", "k"));
    for function in ["cluster.remove", "cluster.set_rule", "auth.token_create"] {
        let uri = format!("/v1/functions/{function}");
        assert_eq!(ask(&uri, json!({}), plain).await.problem(), elsewhere, "{function}");
        let not_waited_for = ask(&uri, json!({}), ("Prefer", "respond-async")).await;
        assert_eq!(not_waited_for.problem(), elsewhere, "{function}: nobody else knows the key that it was given here");
        let (status, code, outcome) = ask(&uri, json!({}), keyed).await.problem();
        assert_eq!((status, code.as_str(), outcome.as_str()), (403, "not_at_this_port", "unknown"));
    }
    let calls = json!([{"function": "kv.put", "arguments": {}}, {"function": "cluster.remove", "arguments": {}}]);
    let many = ask("/v1/calls", calls, plain).await.json();
    assert_eq!((&many[0]["status"], &many[1]["code"]), (&json!(200), &json!("not_at_this_port")), "{many}");
    assert!(world.calls().iter().all(|call| call.function != "cluster.remove"));
}

/// Catches a node that is cut off, or behind, and lets in by a token that was revoked meanwhile; one that keeps out the root
/// token, by which it is mended, or those who look what is wrong; and a call that is said to have had no effect although
/// another node may have had it before.
#[actix_web::test]
async fn a_node_that_is_behind_takes_no_token_of_the_state() {
    let world = world();
    let token = issue(&world, 1, Rights::all(), None);
    world.backend.behind.store(true, std::sync::atomic::Ordering::SeqCst);
    let description = world.get("/openapi.json").await.json();
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let asked = |token: &str| request(method, path).insert_header(("Authorization", format!("Bearer {token}")));
            let (reply, root) = (world.ask(asked(&token)).await, world.ask(asked(ROOT)).await);
            let operation = operation["operationId"].as_str().expect("an id");
            if opens(operation).is_none() || ["metrics", "get_cluster"].contains(&operation) {
                assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text());
            } else {
                // The keys of a batch are in its body.
                let outcome = if path == "/v1/calls" { "unknown" } else { "not_executed" };
                assert_eq!(reply.problem(), (503, "not_current".to_owned(), outcome.to_owned()), "{method} {path}");
            }
            assert!(![401, 403, 503].contains(&root.status.as_u16()), "{method} {path}: {}", root.text());
        }
    }
    let call = request("post", "/v1/functions/{name}").insert_header(("Authorization", format!("Bearer {token}")));
    let (status, code, outcome) = world.ask(call.insert_header(("Idempotency-Key", "k"))).await.problem();
    assert_eq!((status, code.as_str(), outcome.as_str()), (503, "not_current", "unknown"));
}

/// Catches calls in one request that open what they may not because others of them may, and functions of operators that
/// a caller reaches by their names.
#[actix_web::test]
async fn each_call_is_looked_at_alone() {
    let world = world();
    let caller = issue(&world, 1, rights(true, &["*"], false), None);
    let narrow = issue(&world, 2, rights(false, &["kv.put"], false), None);
    let ask = async |token: &str, uri: &str, body: Value| {
        let request = TestRequest::post().uri(uri).set_payload(body.to_string());
        let request = request.insert_header(("Authorization", format!("Bearer {token}")));
        world.ask(request.insert_header(("Content-Type", "application/json"))).await
    };
    let calls = json!([
        {"function": "kv.put", "arguments": {}}, {"function": "kv.delete", "arguments": {}},
        {"function": "auth.token_create", "arguments": {}},
    ]);
    let reply = ask(&narrow, "/v1/calls", calls).await.json();
    let codes: Vec<_> = reply.as_array().expect("outcomes").iter().map(|outcome| outcome["status"].clone()).collect();
    assert_eq!(codes, [200, 403, 403], "{reply}");
    assert_eq!(reply[1]["outcome"], "not_executed");
    for function in ["cluster.remove", "auth.token_create", "auth.token_revoke"] {
        let reply = ask(&caller, &format!("/v1/functions/{function}"), json!({})).await;
        assert_eq!(reply.problem(), not_executed(403, "forbidden"), "{function}");
    }
    assert_eq!(ask(&caller, "/v1/functions/kv.put", json!({})).await.status, 200);
    assert_eq!(world.calls().iter().map(|call| call.function.as_str()).collect::<Vec<_>>(), ["kv.put", "kv.put"]);
}

/// Catches a secret that is told twice, passed on, or not told at all; and a token that its text does not open.
#[actix_web::test]
async fn a_secret_is_told_once() {
    let world = world();
    let root = ("Authorization", format!("Bearer {ROOT}"));
    let body = json!({"name": "ci", "read": true, "call": ["kv.*"], "expires_in": "1h"}).to_string();
    let asked = || {
        let request = TestRequest::post().uri("/v1/tokens").set_payload(body.clone()).insert_header(root.clone());
        request.insert_header(("Content-Type", "application/json"))
    };
    let made = world.ask(asked()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let text = made.json()["token"].as_str().expect("a text").to_owned();
    let call = world.calls().pop().expect("a call");
    assert_eq!(call.function, "auth.token_create");
    let arguments = String::from_utf8(call.arguments.to_vec()).expect("text");
    let secret = text.rsplit('_').next().expect("it has parts");
    assert!(secret.len() >= 42 && !arguments.contains(secret), "{arguments}");
    let arguments: Value = serde_json::from_str(&arguments).expect("JSON");
    assert_eq!(arguments["hash"], blake3::hash(text.as_bytes()).to_hex().as_str());
    assert_eq!((&arguments["expires_in"], &arguments["read"]), (&json!(3600), &json!(true)));
    assert_eq!(made.json()["id"], arguments["id"]);
    for header in [("Idempotency-Key", "k"), ("Prefer", "respond-async")] {
        let reply = world.ask(asked().insert_header(header)).await;
        assert_eq!(reply.problem(), not_executed(400, "invalid_header"));
    }
    for wrong in [json!({"name": "x", "reads": true}), json!({"name": "x", "expires_in": "soon"}), json!([]), json!({})]
    {
        let reply = world.ask(asked().set_payload(wrong.to_string())).await;
        assert_eq!(reply.problem(), not_executed(400, "invalid_arguments"), "{wrong}");
    }
}

/// Catches what a reader could use: the hash of a token, in the state or in the commands.
#[actix_web::test]
async fn no_hash_is_shown() {
    let world = world();
    let reader = issue(&world, 1, rights(true, &[], false), None);
    let hash = blake3::hash(reader.as_bytes()).to_hex();
    let get = async |uri: &str| {
        let reply =
            world.ask(TestRequest::get().uri(uri).insert_header(("Authorization", format!("Bearer {reader}")))).await;
        assert_eq!(reply.status, 200, "{uri}");
        reply.text().to_owned()
    };
    for uri in ["/v1/state/quorate/token/0000000000000001", "/v1/state?prefix=quorate/"] {
        let text = get(uri).await;
        assert!(text.contains("\"name\":\"n1\"") && !text.contains(hash.as_str()) && !text.contains("hash"), "{text}");
    }
    let operator = issue(&world, 2, rights(false, &[], true), None);
    let request = TestRequest::get().uri("/v1/tokens").insert_header(("Authorization", format!("Bearer {operator}")));
    let reply = world.ask(request).await;
    let listed = reply.json();
    assert_eq!((&listed["tokens"][0]["name"], &listed["tokens"][1]["operate"]), (&json!("n1"), &json!(true)));
    assert!(!reply.text().contains(hash.as_str()), "{listed}");
}

/// Catches a clock of a gateway, behind the cluster, by which an expired token lives on.
#[actix_web::test]
async fn the_later_of_two_clocks_counts() {
    let world = world();
    let token = issue(&world, 1, rights(true, &[], false), Some(NOW + 10));
    let status = async || {
        let request = TestRequest::get().uri("/v1/cluster").insert_header(("Authorization", format!("Bearer {token}")));
        world.ask(request).await.status.as_u16()
    };
    assert_eq!(status().await, 200);
    world.change(|node| node.time = NOW + 10);
    assert_eq!(status().await, 401);
    world.change(|node| (node.time, node.wall) = (NOW, NOW + 10));
    assert_eq!(status().await, 401);
}
