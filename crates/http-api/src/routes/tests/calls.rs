//! Calls: statuses, headers, bodies, problem fields.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::http::Method;
use bytes::Bytes;
use protocol::{CommandNumber, Fingerprint, Outcome, RequestId, StoredOutcome, Timestamp, Verdict};
use serde_json::{Value, json};

use super::world::{World, not_executed};
use crate::actor::EndCalls;
use crate::backend::Backend as _;

/// What a caller is told whose call may have been executed.
fn no_outcome() -> (u16, String, String) {
    (504, "no_outcome".into(), "unknown".into())
}

const INBOUND: &str = "/v1/functions/inventory.inbound";

fn issued(command: u64) -> Outcome {
    Outcome::Issued { command: CommandNumber(command), result: Bytes::from_static(b"{\"stock\": 500}") }
}

fn refused(code: &str) -> Outcome {
    Outcome::Refused { at: CommandNumber(9), code: code.into(), message: "there is too little of it".into() }
}

/// Catches a reply that is not the documented one, and arguments that do not arrive as sent.
#[actix_web::test]
async fn an_issued_call_returns_command_and_result() {
    let world = World::new(|_| Some(issued(17)));
    let reply = world.post(INBOUND, "{\"warehouse\": \"A\",  \"amount\": 500}").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.text(), "{\"command\":17,\"result\":{\"stock\": 500}}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("quorate-command"), Some("17"));
    assert_eq!(reply.header("idempotent-replayed"), None);
    let call = &world.calls()[0];
    assert_eq!(call.function, "inventory.inbound");
    assert_eq!(call.arguments, "{\"warehouse\": \"A\",  \"amount\": 500}");
    assert!(matches!(call.request, RequestId::Gateway(id) if id >> 64 == 7), "{:?}", call.request);
    assert!(call.patience.is_zero());
}

/// Catches a call that changed nothing and is reported with a command.
#[actix_web::test]
async fn an_unchanged_call_has_no_command() {
    let world = World::new(|_| {
        Some(Outcome::Unchanged { at: CommandNumber(9), result: Bytes::from_static(b"{\"deleted\":false}") })
    });
    let reply = world.post("/v1/functions/kv.delete", "{\"key\":\"k\"}").await;
    assert_eq!(reply.text(), "{\"command\":null,\"result\":{\"deleted\":false}}");
    assert_eq!(reply.header("quorate-command"), Some("9"));
}

/// S-08, S-22: catches an outcome with another status, code or `outcome` than documented.
#[actix_web::test]
async fn every_outcome_has_its_status() {
    let failed = Outcome::Failed { message: "it panicked".into() };
    let bad = Outcome::InvalidArguments { message: "amount is missing".into() };
    for (outcome, status, code) in [
        (refused("insufficient_stock"), 422, "insufficient_stock"),
        (refused("version_mismatch"), 422, "version_mismatch"),
        (refused("precondition_failed"), 412, "precondition_failed"),
        (bad, 400, "invalid_arguments"),
        (Outcome::TooLarge { message: "one value is too long".into() }, 413, "too_large"),
        (Outcome::UnknownFunction, 404, "unknown_function"),
        (Outcome::RequestReused, 422, "idempotency_key_reused"),
        (failed, 500, "function_failed"),
        (Outcome::Overloaded, 429, "overloaded"),
        (Outcome::DiskFull, 507, "disk_full"),
    ] {
        let world = World::new(move |_| Some(outcome.clone()));
        let reply = world.post(INBOUND, "{}").await;
        assert_eq!(reply.problem(), not_executed(status, code));
        let at = if [412, 422].contains(&status) && code != "idempotency_key_reused" { Some("9") } else { None };
        assert_eq!(reply.header("quorate-command"), at, "{code}");
        assert_eq!(reply.json().get("instance"), None, "a call without a key cannot be asked for");
    }
}

/// S-22: catches a silent leader reported as "not executed", and a missing one as "unknown".
#[actix_web::test]
async fn no_answer_is_unknown_and_no_leader_is_not_executed() {
    let silent = World::new(|_| None);
    let waits = ("Prefer", "wait=0");
    let reply = silent.with_header(Method::POST, INBOUND, waits).await;
    assert_eq!(reply.problem(), no_outcome());
    let reply = silent.with_header(Method::POST, INBOUND, ("Idempotency-Key", "k/1")).await;
    assert_eq!(reply.status, 504);
    assert_eq!(reply.json()["instance"], "/v1/calls/k%2F1", "where to ask");
    let world = World::without_leader(Box::new(|_| None));
    assert_eq!(world.post(INBOUND, "{}").await.problem(), not_executed(503, "no_leader"));
}

/// Catches callers and readers of a node that ends whose connections are closed unanswered, and
/// a call that was sent and is said not to be executed.
#[actix_web::test]
async fn a_node_that_ends_answers_all_who_wait() {
    let silent = World::new(|_| None);
    silent.change(|node| node.barrier = None);
    let waits = ("Prefer", "wait=60");
    let call = silent.with_header(Method::POST, INBOUND, waits);
    let read = silent.with_header(Method::GET, "/v1/state/k", waits);
    let end = async {
        for look in 0.. {
            if !silent.calls().is_empty() {
                break;
            }
            assert!(look < 1_000, "the call does not reach the leader");
            actix::clock::sleep(Duration::from_millis(5)).await;
        }
        silent.backend.gateway().send(EndCalls).await.expect("it lives");
    };
    let all = async { tokio::join!(call, read, end) };
    let (call, read, ()) = tokio::time::timeout(Duration::from_secs(20), all).await.expect("none waits on");
    assert_eq!(call.problem(), no_outcome());
    assert_eq!(read.problem(), not_executed(503, "stopping"));
}

/// Catches a wait that is longer than the caller's own, and a `wait=0` that hears nothing.
#[actix_web::test]
async fn the_callers_wait_is_all_of_the_wait() {
    let answers = World::new(|_| Some(issued(17)));
    assert_eq!(answers.with_header(Method::POST, INBOUND, ("Prefer", "wait=0")).await.status, 200);
    let silent = World::new(|_| None);
    let started = tokio::time::Instant::now();
    let (short, long) = (("Prefer", "wait=1"), ("Prefer", "wait=30"));
    let reply = tokio::select! {
        reply = silent.with_header(Method::POST, INBOUND, short) => reply,
        _ = silent.with_header(Method::POST, INBOUND, long) => panic!("a longer wait ends first"),
    };
    assert_eq!(reply.problem(), no_outcome());
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

/// Catches a call or read that is taken in, or waits, when the mailbox of the gateway is full, and
/// a call under a key that is said not to be executed although another node may have it.
#[actix_web::test]
async fn a_node_with_too_much_to_do_says_so() {
    let world = World::new(|_| Some(issued(1)));
    world.backend.busy.store(true, Ordering::SeqCst);
    assert_eq!(world.post(INBOUND, "{}").await.problem(), not_executed(503, "busy"));
    assert_eq!(world.get("/v1/state/k").await.problem(), not_executed(503, "busy"));
    let reply = world.with_header(Method::POST, INBOUND, ("Idempotency-Key", "k")).await;
    assert_eq!(reply.problem(), (503, "busy".into(), "unknown".into()));
    assert!(world.calls().is_empty());
}

/// Catches a node without room that asks its gateway about each call, while that has too much to do already; one that says of
/// a call with a key that it never was executed; and one that turns away what may wait, or an operator.
#[actix_web::test]
async fn a_shut_door_turns_calls_away() {
    let world = World::new(|_| Some(issued(17)));
    world.backend.door.shut(true);
    let away = world.post("/v1/functions/f", "{}").await;
    assert_eq!((away.problem(), away.header("retry-after")), (not_executed(429, "overloaded"), Some("1")));
    let keyed = world.with_header(Method::POST, "/v1/functions/f", ("Idempotency-Key", "k")).await;
    assert_eq!(keyed.problem(), (429, "overloaded".to_owned(), "unknown".to_owned()));
    assert!(world.calls().is_empty(), "the gateway was not asked");
    let patient = world.with_header(Method::POST, "/v1/functions/f", ("Prefer", "wait=5")).await;
    assert_eq!(patient.status, 200);
    world.backend.door.shut(true);
    assert_eq!(world.post("/v1/functions/cluster.remove", "{}").await.status, 200);
}

/// Catches a stopping node that still takes calls.
#[actix_web::test]
async fn a_stopping_node_takes_no_calls() {
    let world = World::new(|_| Some(issued(1)));
    world.backend.stopping.store(true, Ordering::SeqCst);
    assert_eq!(world.post(INBOUND, "{}").await.problem(), not_executed(503, "stopping"));
    assert_eq!(world.with_header(Method::POST, INBOUND, ("Prefer", "respond-async")).await.status, 503);
    assert!(world.calls().is_empty());
    assert_eq!(world.get("/readyz").await.status, 503);
    assert_eq!(world.get("/livez").await.status, 200);
}

/// S-23: catches a key that does not reach the leader, a fingerprint that differs between
/// spellings of one body, and a replay that is not marked.
#[actix_web::test]
async fn an_idempotency_key_names_the_call() {
    let world = World::new(|_| Some(issued(5)));
    for (index, body) in ["{\"a\":1,\"b\":2}", "{ \"b\": 2, \"a\": 1 }", "{\"a\":1,\"b\":3}"].into_iter().enumerate() {
        let request = actix_web::test::TestRequest::post().uri(INBOUND).insert_header(("Idempotency-Key", "key-1"));
        let reply = world.ask(request.set_payload(body)).await;
        assert_eq!(reply.header("idempotent-replayed"), (index > 0).then_some("true"));
        assert_eq!(reply.header("quorate-command"), Some("5"));
    }
    let calls = world.calls();
    assert!(calls.iter().all(|call| call.request == RequestId::caller("key-1").expect("a key")));
    assert_eq!(calls[0].fingerprint, calls[1].fingerprint);
    assert_ne!(calls[0].fingerprint, calls[2].fingerprint);
}

/// Catches a wait that does not reach the function, and one that is taken without a bound.
#[actix_web::test]
async fn prefer_says_how_long_to_wait() {
    let world = World::new(|_| Some(issued(1)));
    let reply = world.with_header(Method::POST, INBOUND, ("Prefer", "foo=bar, Wait=\"3\"; x=y, wait=4, wait=x")).await;
    assert_eq!(reply.header("preference-applied"), Some("wait=3"));
    assert_eq!(world.calls()[0].patience.as_millis(), 2_750);
    for bad in ["wait=61", "wait=-1", "wait=+1", "wait=x", "wait", "wait=1.5", "wait=99999999999999999999"] {
        let reply = world.with_header(Method::POST, INBOUND, ("Prefer", bad)).await;
        assert_eq!(reply.problem(), not_executed(400, "invalid_prefer"), "{bad}");
    }
    assert_eq!(world.calls().len(), 1);
}

/// Catches a call that is accepted and cannot be asked for, or is not executed.
#[actix_web::test]
async fn respond_async_says_where_to_ask() {
    let world = World::new(|_| None);
    let reply = world.with_header(Method::POST, INBOUND, ("Prefer", "respond-async")).await;
    assert_eq!(reply.status, 202);
    assert_eq!(reply.header("preference-applied"), Some("respond-async"));
    let location = reply.header("location").expect("where to ask").to_owned();
    let key = reply.json()["idempotency_key"].as_str().expect("a key").to_owned();
    assert_eq!(location, format!("/v1/calls/{key}"));
    let asked = world.get(&location).await;
    assert_eq!(asked.status, 202, "{}", asked.text());
    assert_eq!(asked.json(), json!({"idempotency_key": key, "status": "running"}));
    assert_eq!(world.calls()[0].request, RequestId::caller(key).expect("a caller's key"));
}

/// Catches a key for a caller who gave none that whoever reads commands can tell: they show the ids of calls without a key.
#[actix_web::test]
async fn a_key_that_is_given_is_nobodys_guess() {
    let world = World::new(|_| Some(issued(1)));
    world.post(INBOUND, "{}").await;
    let asked = world.with_header(Method::POST, INBOUND, ("Prefer", "respond-async")).await;
    let RequestId::Gateway(shown) = world.calls()[0].request else { panic!("no key was given") };
    let key = asked.json()["idempotency_key"].as_str().expect("a key").to_owned();
    assert_eq!(key, "01".repeat(16), "all of it is chance");
    assert_ne!(key, crate::api::unforeseen(shown + 1), "what it was made of before");
}

/// Catches a call that was turned away and is reported as accepted.
#[actix_web::test]
async fn respond_async_reports_what_is_refused_at_once() {
    let world = World::new(|_| None);
    let request = |body: &'static str| {
        let request = actix_web::test::TestRequest::post().uri(INBOUND).insert_header(("Idempotency-Key", "k"));
        request.insert_header(("Prefer", "respond-async")).set_payload(body)
    };
    assert_eq!(world.ask(request("{\"a\":1}")).await.status, 202);
    assert_eq!(world.ask(request("{\"a\":1}")).await.status, 202, "the same call again");
    let reply = world.ask(request("{\"a\":2}")).await;
    let (status, code, outcome) = reply.problem();
    assert_eq!(
        (status, &code[..], &outcome[..]),
        (422, "idempotency_key_reused", "unknown"),
        "it may have come before"
    );
    assert_eq!(reply.json()["instance"], "/v1/calls/k");
}

/// Catches a caller who is told to ask for an outcome that will never be stored.
#[actix_web::test]
async fn respond_async_takes_nothing_that_cannot_be_executed() {
    let world = World::new(|_| None);
    for (uri, body, status, code) in
        [("/v1/functions/no.such", "{}", 404, "unknown_function"), (INBOUND, "{\"zz\":1}", 400, "invalid_arguments")]
    {
        let asked = || {
            let request = actix_web::test::TestRequest::post().uri(uri).set_payload(body);
            request.insert_header(("Prefer", "respond-async"))
        };
        assert_eq!(world.ask(asked()).await.problem(), not_executed(status, code));
        // Another node may have had the key.
        let keyed = world.ask(asked().insert_header(("Idempotency-Key", "k"))).await;
        assert_eq!(keyed.problem(), (status, code.to_owned(), "unknown".to_owned()));
        assert_eq!(keyed.json()["instance"], "/v1/calls/k");
    }
    assert!(world.calls().is_empty());
}

/// Catches a stored outcome that is lost or mislabelled, and a 404 that is not one.
#[actix_web::test]
async fn a_stored_outcome_can_be_asked_for() {
    let world = World::new(|_| None);
    let stored = StoredOutcome {
        command: CommandNumber(17),
        fingerprint: Fingerprint::default(),
        verdict: Verdict::Changed(Bytes::from_static(b"{\"stock\":500}")),
        time: Timestamp(1),
    };
    let verdict = Verdict::Refused { code: "insufficient_stock".into(), message: "there is too little".into() };
    let refused = StoredOutcome { verdict, ..stored.clone() };
    world.change(|node| {
        node.outcomes.insert(RequestId::caller("a/b%").expect("a key"), stored);
        node.outcomes.insert(RequestId::caller("refused").expect("a key"), refused);
    });
    for uri in ["/v1/calls/a%2Fb%25", "/v1/calls/a/b%25"] {
        let reply = world.get(uri).await;
        assert_eq!(reply.text(), "{\"command\":17,\"result\":{\"stock\":500}}");
        assert_eq!(reply.header("idempotent-replayed"), Some("true"));
        assert_eq!(reply.header("quorate-command"), Some("41"), "a read says what state it shows");
    }
    let reply = world.get("/v1/calls/refused").await;
    assert_eq!(reply.problem(), not_executed(422, "insufficient_stock"), "what the call itself was told");
    assert_eq!(reply.header("idempotent-replayed"), Some("true"));
    // Another gateway may have it under way, and what was forgotten may have been executed.
    assert_eq!(world.get("/v1/calls/other").await.problem(), (404, "unknown_call".into(), "unknown".into()));
    assert_eq!(world.get("/v1/calls/a%20b").await.problem(), not_executed(400, "invalid_idempotency_key"));
}

/// Catches a batch in which one call spoils others, or whose outcomes are out of order.
#[actix_web::test]
async fn each_call_of_a_batch_stands_alone() {
    let world = World::new(|call| match call.function.as_str() {
        "refuses" => Some(refused("insufficient_stock")),
        "silent" => None,
        "replays" => Some(Outcome::Issued { command: CommandNumber(3), result: Bytes::new() }),
        _ => Some(issued(call.arguments.len() as u64)),
    });
    let before = r#"[{"function":"replays","arguments":{},"idempotency_key":"r"},
        {"function":"refuses","arguments":{},"idempotency_key":"no"}]"#;
    let before = world.post("/v1/calls", before).await.json();
    let reply = world
        .post(
            "/v1/calls",
            r#"[{"function":"f","arguments":{"a": 1}}, {"function":"refuses","arguments":{}},
                {"function":"silent","arguments":{},"idempotency_key":"s"},
                {"function":"replays","arguments":{},"idempotency_key":"r"},
                {"function":"g","arguments":{},"idempotency_key":"not visible"},
                {"function":"g","arguments":[],"idempotency_key":"k"},
                {"function":"refuses","arguments":{},"idempotency_key":"no"}]"#,
        )
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let outcomes = reply.json();
    assert_eq!(outcomes[0], json!({"status": 200, "command": 8, "result": {"stock": 500}}));
    assert_eq!(outcomes[1]["code"], "insufficient_stock");
    assert_eq!(outcomes[1]["status"], 422);
    assert_eq!(outcomes[2]["outcome"], "unknown");
    assert_eq!(outcomes[2]["instance"], "/v1/calls/s");
    assert_eq!(outcomes[3], json!({"status": 200, "replayed": true, "command": 3, "result": null}));
    assert_eq!(outcomes[4]["code"], "invalid_idempotency_key");
    assert_eq!(outcomes[5]["command"], 2);
    let mut replayed = before[1].clone();
    assert_eq!(replayed["replayed"], Value::Null);
    replayed["replayed"] = json!(true);
    assert_eq!(outcomes[6], replayed, "a refusal is replayed too");
    assert_eq!(outcomes.as_array().map(Vec::len), Some(7));
    let described = &world.get("/openapi.json").await.json()["components"]["schemas"]["BatchedOutcome"]["properties"];
    for field in outcomes.as_array().expect("a list").iter().flat_map(|outcome| outcome.as_object().expect("fields")) {
        assert!(described[field.0].is_object(), "{} is not described", field.0);
    }
    assert_eq!(reply.header("quorate-command"), Some("8"));
    let functions: Vec<_> = world.calls().into_iter().map(|call| call.function).collect();
    assert_eq!(functions, ["replays", "refuses", "f", "refuses", "silent", "replays", "g", "refuses"]);
    assert_eq!(world.calls()[2].arguments, "{\"a\": 1}", "arguments are passed on as they came");
}

/// Catches a batch that is executed in part although it is malformed, or has no bound.
#[actix_web::test]
async fn a_malformed_batch_is_refused_whole() {
    let world = World::new(|_| Some(issued(1)));
    for (body, status) in [
        ("{}", 400),
        ("[{\"function\":\"f\"}]", 400),
        ("[{\"function\":\"f\",\"arguments\":{},\"key\":\"k\"}]", 400),
        ("[{\"function\":1,\"arguments\":{}}]", 400),
        ("[1]", 400),
        ("[{\"function\":\"f\",\"arguments\":{}},]", 400),
    ] {
        assert_eq!(world.post("/v1/calls", body).await.status, status, "{body}");
    }
    let reply = world.post("/v1/calls", "[1]").await;
    assert!(reply.text().contains("expected an object with function"), "{}", reply.text());
    let many = |count| format!("[{}]", vec!["{\"function\":\"f\",\"arguments\":1}"; count].join(","));
    assert_eq!(world.post("/v1/calls", many(1_001)).await.problem(), not_executed(413, "too_many_calls"));
    let keyed = world.with_header(Method::POST, "/v1/calls", ("Idempotency-Key", "k")).await;
    assert_eq!(keyed.problem(), not_executed(400, "invalid_idempotency_key"));
    assert!(world.calls().is_empty());
    assert_eq!(world.post("/v1/calls", "[]").await.text(), "[]");
    let reply = world.post("/v1/calls", many(1_000)).await;
    assert_eq!(reply.json().as_array().map(Vec::len), Some(1_000));
}

/// Catches bytes that change on their way into the state, and preconditions that get lost.
#[actix_web::test]
async fn put_and_delete_are_calls_of_kv() {
    let world = World::new(|_| Some(issued(17)));
    let put = actix_web::test::TestRequest::put().uri("/v1/state/a%2Fb/c%25").set_payload(vec![0, 255]);
    let reply = world.ask(put).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("etag"), Some("\"17\""));
    assert_eq!(world.calls()[0].function, "kv.put");
    assert_eq!(world.calls()[0].arguments, r#"{"key":"a/b/c%","base64":"AP8="}"#);
    let reply = world.with_header(Method::DELETE, "/v1/state/k", ("If-Match", "\"3\", \"4\"")).await;
    assert_eq!((reply.status.as_u16(), reply.header("etag")), (200, None));
    assert_eq!(world.calls()[1].function, "kv.delete");
    assert_eq!(world.calls()[1].arguments, r#"{"key":"k","if_match":[3,4]}"#);
    for (header, arguments) in [
        (("If-Match", "*"), r#"{"key":"k","if_match":[]}"#),
        (("If-None-Match", "*"), r#"{"key":"k","if_none_match":[]}"#),
        (("If-None-Match", "\"3\""), r#"{"key":"k","if_none_match":[3]}"#),
        (("If-None-Match", "W/\"3\", \"+4\", \"05\", \"0\""), r#"{"key":"k","if_none_match":[3]}"#),
        (("If-None-Match", "\"of another server\""), r#"{"key":"k"}"#),
        (("If-Match", "\"x\", \"5\", W/\"6\""), r#"{"key":"k","if_match":[5]}"#),
    ] {
        assert_eq!(world.with_header(Method::DELETE, "/v1/state/k", header).await.status, 200, "{header:?}");
        assert_eq!(world.calls().last().expect("a call").arguments, arguments);
    }
    let before = world.calls().len();
    for foreign in ["\"of another server\"", "W/\"3\"", "\"+3\"", "\"003\"", "\"0\"", "\"\""] {
        let reply = world.with_header(Method::PUT, "/v1/state/k", ("If-Match", foreign)).await;
        assert_eq!(reply.problem(), not_executed(412, "precondition_failed"), "{foreign}");
    }
    for bad in ["3", "\"3", "*, \"3\"", ""] {
        let reply = world.with_header(Method::PUT, "/v1/state/k", ("If-Match", bad)).await;
        assert_eq!(reply.problem(), not_executed(400, "invalid_header"), "{bad}");
    }
    assert_eq!(world.calls().len(), before);
}
