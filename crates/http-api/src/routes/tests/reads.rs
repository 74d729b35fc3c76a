//! Reads: what they show and how they say so.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::http::{Method, header};
use bytes::Bytes;
use protocol::{
    Ballot, Command, CommandBody, CommandId, CommandNumber, Effect, Fingerprint, Forget, Key, NodeId, RequestId,
    Timestamp, Verdict,
};
use serde_json::json;

use super::world::{World, not_executed};

fn world() -> World {
    World::new(|_| None)
}

/// Catches a value that changes on its way out, or a read that does not say what it shows.
#[actix_web::test]
async fn a_value_is_returned_as_its_bytes() {
    let world = world();
    world.put("inventory/goods/A", b"400", 12);
    world.put("raw", &[0, 255, 7], 13);
    for uri in ["/v1/state/inventory/goods/A", "/v1/state/inventory%2Fgoods%2FA", "/v1/state/%69nventory/goods%2fA"] {
        let reply = world.get(uri).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "400"), "{uri}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("etag"), Some("\"12\""));
        assert_eq!(reply.header("quorate-command"), Some("41"));
        assert_eq!(reply.header("quorate-time"), Some("1970-01-01T00:00:01.000Z"));
        assert_eq!(reply.header("quorate-consistency"), Some("linearizable"));
    }
    let reply = world.get("/v1/state/raw").await;
    assert_eq!(reply.body, [0, 255, 7].as_slice());
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let absent = world.get("/v1/state/none").await;
    assert_eq!(absent.problem(), not_executed(404, "unknown_key"));
    assert_eq!(absent.header("quorate-command"), Some("41"), "absence too is a fact about a state");
}

/// Catches a time that cannot be written, and one that stops the node.
#[actix_web::test]
async fn a_time_beyond_what_can_be_written_does_no_harm() {
    let world = world();
    world.put("k", b"1", 1);
    world.change(|node| node.time = u64::MAX);
    assert_eq!(world.get("/v1/state/k").await.header("quorate-time"), Some("9999-12-31T23:59:59.999Z"));
}

/// Catches caching that shows an old value for a new one.
#[actix_web::test]
async fn a_caller_who_has_the_version_gets_304() {
    let world = world();
    world.put("k", b"1", 12);
    for (tags, status) in [
        ("\"12\"", 304),
        ("\"1\", \"12\"", 304),
        ("W/\"12\"", 304),
        ("*", 304),
        ("\"13\"", 200),
        ("\"x\"", 200),
        ("\"+12\"", 200),
        ("\"012\"", 200),
    ] {
        let reply = world.with_header(Method::GET, "/v1/state/k", ("If-None-Match", tags)).await;
        assert_eq!(reply.status, status, "{tags}");
        assert_eq!(reply.header("etag"), Some("\"12\""));
        assert_eq!(reply.body.is_empty(), status == 304);
    }
}

/// S-20: catches a linearizable read that does not wait for the leader's number, or that asks
/// nobody, and a local one that needs a leader.
#[actix_web::test]
async fn a_linearizable_read_waits_for_what_was_acknowledged() {
    let world = world();
    world.put("k", b"1", 12);
    world.change(|node| node.barrier = Some(50));
    assert_eq!(world.get("/v1/state/k").await.header("quorate-command"), Some("50"));
    world.change(|node| node.barrier = Some(101));
    assert_eq!(world.get("/v1/state/k").await.problem(), not_executed(504, "not_applied_yet"));
    world.change(|node| node.barrier = None);
    assert_eq!(world.get("/v1/state/k").await.problem(), not_executed(503, "no_majority"));
    let local = world.get("/v1/state/k?consistency=local").await;
    assert_eq!((local.status.as_u16(), local.header("quorate-consistency")), (200, Some("local")));
    let leaderless = World::without_leader(Box::new(|_| None));
    assert_eq!(leaderless.get("/v1/state/k").await.problem(), not_executed(503, "no_leader"));
    assert_eq!(leaderless.get("/v1/state?consistency=local").await.status, 200);
}

/// Catches a read that shows a state older than the caller's own write.
#[actix_web::test]
async fn a_read_waits_for_min_command() {
    let world = world();
    world.put("k", b"1", 12);
    let reply = world.get("/v1/state/k?consistency=local&min_command=60").await;
    assert_eq!(reply.header("quorate-command"), Some("60"));
    let reply = world.get("/v1/state/k?min_command=101").await;
    assert_eq!(reply.problem(), not_executed(504, "not_applied_yet"));
    world.backend.stopping.store(true, Ordering::SeqCst);
    let reply = world.get("/v1/state/k?consistency=local&min_command=101").await;
    assert_eq!(reply.problem(), not_executed(503, "stopping"), "another node has it, or will");
}

/// Catches a read that takes twice its caller's wait, once for the leader's answer and once for
/// this node's own state.
#[actix_web::test]
async fn a_read_has_one_wait_for_all_that_it_waits_for() {
    let world = world();
    let (wait, leader) = (Duration::from_secs(60), Duration::from_millis(50));
    world.put("k", b"1", 12);
    world.change(|node| (node.barrier, node.barrier_takes) = (Some(50), leader));
    for (uri, at_most) in [
        ("/v1/state/k", wait - leader),
        ("/v1/state/k?min_command=60", wait - leader),
        ("/v1/state/k?consistency=local&min_command=70", wait),
    ] {
        assert_eq!(world.with_header(Method::GET, uri, ("Prefer", "wait=60")).await.status, 200, "{uri}");
        let waited = world.waited().expect("it was behind");
        assert!(waited <= at_most && waited > wait / 2, "{uri} waits for {waited:?} more");
    }
}

/// Catches a way to read that is not built yet and is silently taken for another.
#[actix_web::test]
async fn what_is_not_built_yet_is_refused() {
    let world = world();
    for query in ["consistency=speculative", "at=3", "at=2026-01-01T00:00:00Z"] {
        let reply = world.get(&format!("/v1/state/k?{query}")).await;
        assert_eq!(reply.problem(), not_executed(400, "unsupported_consistency"), "{query}");
    }
    for query in ["consistency=strong", "consistency=", "min_command=-1", "min_command=+1", "min_command=x", "typo=1"] {
        let reply = world.get(&format!("/v1/state/k?{query}")).await;
        assert_eq!(reply.problem(), not_executed(400, "invalid_query"), "{query}");
    }
    let follow = world.with_header(Method::GET, "/v1/commands", ("Accept", "text/event-stream")).await;
    assert_eq!(follow.problem(), not_executed(406, "not_acceptable"));
    let either =
        world.with_header(Method::GET, "/v1/commands?from=42", ("Accept", "text/event-stream, */*;q=0.1")).await;
    assert_eq!(either.status, 200);
}

/// Catches pages that skip, repeat or invent entries.
#[actix_web::test]
async fn pages_show_every_entry_once() {
    let world = world();
    for number in 0..40 {
        world.put(&format!("p/{number:02}"), format!("{number}").as_bytes(), number + 1);
    }
    world.put("o", b"1", 1);
    world.put("q", b"\xff", 1);
    for limit in [1, 15, 16, 17, 39, 40, 41, 1_000] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = world.get(&format!("/v1/state?prefix=p%2F&limit={limit}{after}")).await.json();
            let entries = page["entries"].as_array().expect("entries");
            assert!(entries.len() <= limit);
            seen.extend(entries.iter().map(|entry| entry["key"].as_str().expect("a key").to_owned()));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        let all: Vec<_> = (0..40).map(|number| format!("p/{number:02}")).collect();
        assert_eq!(seen, all, "limit {limit}");
    }
    let page = world.get("/v1/state?after=p/39").await;
    assert_eq!(
        page.json(),
        json!({"entries": [{"key": "q", "value": {"base64": "/w=="}, "version": 1}], "next": null})
    );
    assert_eq!(page.header("quorate-command"), Some("41"));
    for bad in ["limit=0", "limit=1001", "limit=x", "prefix=%ff", "prefix=%zz", "after=%", "%c3=%28"] {
        assert_eq!(world.get(&format!("/v1/state?{bad}")).await.problem(), not_executed(400, "invalid_query"));
    }
}

/// Catches a page without a bound on its bytes.
#[actix_web::test]
async fn a_page_of_large_values_ends_early() {
    let world = world();
    for number in 0..8 {
        world.put(&format!("{number}"), &vec![b'1'; 1 << 20], 1);
    }
    let page = world.get("/v1/state").await.json();
    assert!(page["entries"][0]["value"]["base64"].is_string(), "which is a third longer");
    assert_eq!(page["entries"].as_array().map(Vec::len), Some(3));
    assert_eq!(page["next"], "2");
}

/// Catches a page that is made although there is no room for it, and then refused; one that is short while there is room;
/// and a short one that does not say where to go on.
#[actix_web::test]
async fn a_page_for_which_there_is_no_room_is_short() {
    let world = world();
    for number in 0..8 {
        world.put(&format!("{number}"), &vec![b'1'; 10 << 10], 1);
    }
    let taken = world.takes_room();
    let page = world.get("/v1/state").await;
    assert_eq!(page.status, 200);
    let page = page.json();
    assert_eq!(page["entries"].as_array().map(Vec::len), Some(2));
    assert_eq!(page["next"], "1");
    drop(taken);
    assert_eq!(world.get("/v1/state").await.json()["entries"].as_array().map(Vec::len), Some(8));
}

/// Catches pages that are made all at once, however many are asked for, and take every processor from the calls; and who
/// waits for one for ever.
#[actix_web::test]
async fn few_pages_are_made_at_a_time() {
    let world = world();
    let others = world.makes_pages();
    for path in ["/v1/state?consistency=local", "/v1/commands?consistency=local"] {
        let reply = world.with_header(Method::GET, path, ("Prefer", "wait=0")).await;
        assert_eq!(reply.problem(), not_executed(429, "overloaded"));
    }
    assert_eq!(world.get("/v1/state/k?consistency=local").await.problem().0, 404, "one key is no page");
    let release = async {
        actix::clock::sleep(Duration::from_millis(20)).await;
        drop(others);
    };
    let patient = world.with_header(Method::GET, "/v1/state?consistency=local", ("Prefer", "wait=30"));
    let (page, ()) = futures_util::future::join(patient, release).await;
    assert_eq!(page.status, 200, "it has waited for its turn");
}

fn command(number: u64, request: RequestId) -> Command {
    let body = CommandBody {
        time: Timestamp(1_000 * number),
        request,
        fingerprint: Fingerprint::default(),
        function: "kv.put".into(),
        verdict: Verdict::Changed(Bytes::from_static(b"{}")),
        effects: vec![
            Effect::Put { key: Key::new("k").expect("a key"), value: Bytes::from_static(b"{\"a\":1}") },
            Effect::Put { key: Key::new("l").expect("a key"), value: Bytes::from_static(b"\xff") },
            Effect::Delete { key: Key::new("m").expect("a key") },
        ],
        forget: Forget::default(),
    };
    let ballot = Ballot::new(1, NodeId(1));
    let id = CommandId::new(ballot, CommandNumber(number));
    Command { id, precedent: CommandId::new(ballot, CommandNumber(number - 1)), body: body.encode() }
}

/// Catches a feed with holes, and one that is silent about what it no longer has.
#[actix_web::test]
async fn the_commands_are_listed_in_order() {
    let world = world();
    world.change(|node| {
        node.commands = (39..=41).map(|number| command(number, RequestId::Gateway(5))).collect();
        node.commands[2] = command(41, RequestId::caller("my-key").expect("a key"));
    });
    let page = world.get("/v1/commands?from=40&limit=1").await;
    assert_eq!(page.header("quorate-command"), Some("41"));
    assert_eq!(page.json()["next"], 41);
    assert_eq!(page.json()["commands"][0]["number"], 40);
    let page = world.get("/v1/commands?from=41").await.json();
    let effects = json!([{"put": {"key": "k", "value": {"a": 1}}}, {"put": {"key": "l", "value": {"base64": "/w=="}}},
        {"delete": {"key": "m"}}]);
    let last = json!({"number": 41, "kind": "function", "time": "1970-01-01T00:00:41.000Z", "request_id": "my-key",
        "function": "kv.put", "effects": effects});
    assert_eq!(page, json!({"commands": [last], "next": null}));
    assert_eq!(world.get("/v1/commands?from=42").await.json(), json!({"commands": [], "next": null}));
    assert_eq!(world.get("/v1/commands").await.problem(), not_executed(410, "history_truncated"));
    assert_eq!(world.get("/v1/commands?from=0").await.problem(), not_executed(400, "invalid_query"));
    world.change(|node| node.commands[1].body = Bytes::from_static(b"\xff"));
    assert_eq!(world.get("/v1/commands?from=40").await.problem(), not_executed(500, "state_unreadable"));
}

/// Catches a digest that is labelled with another number than its own.
#[actix_web::test]
async fn a_digest_is_of_exactly_one_number() {
    let world = world();
    for uri in ["/v1/digest", "/v1/digest?at=41"] {
        let reply = world.get(uri).await;
        assert_eq!(reply.json(), json!({"command": 41, "digest": "ab".repeat(32), "node": "b"}));
        assert_eq!(reply.header("quorate-command"), Some("41"));
    }
    let gone = world.get("/v1/digest?at=40").await;
    assert_eq!(gone.problem(), not_executed(410, "state_gone"));
    assert!(gone.text().contains("41"), "it says what there is");
    assert_eq!(world.get("/v1/digest?at=42").await.problem(), not_executed(504, "not_applied_yet"));
    assert_eq!(world.get("/v1/digest?at=now").await.problem(), not_executed(400, "invalid_query"));
}

/// Catches a backup without its number, one of which parts are missing, and a second one that slows both down.
#[actix_web::test]
async fn a_backup_is_streamed_to_one_at_a_time() {
    let world = world();
    let reply = world.get("/v1/backup").await;
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"one two"[..]));
    assert_eq!(reply.header("quorate-command"), Some("41"));
    assert_eq!(reply.header("content-type"), Some("application/vnd.quorate.backup"));
    world.change(|node| node.gives_backup = true);
    assert_eq!(world.get("/v1/backup").await.problem(), not_executed(503, "busy"));
    world.change(|node| node.is_full = true);
    assert_eq!(world.get("/v1/backup").await.problem(), not_executed(507, "disk_full"));
    world.change(|node| (node.gives_backup, node.is_full, node.broken) = (false, false, true));
    assert_eq!(world.get("/v1/backup").await.problem(), not_executed(500, "state_unreadable"));
}

/// RELIABILITY 5 class 15: catches a backup of a node that is behind, or cut off, which lacks what was acknowledged before it
/// was asked for, and one that does not say which of the two it is.
#[actix_web::test]
async fn a_backup_has_what_was_acknowledged_before_it() {
    let world = world();
    world.change(|node| node.barrier = Some(50));
    let local = world.get("/v1/backup?consistency=local").await;
    assert_eq!((local.header("quorate-command"), local.header("quorate-consistency")), (Some("41"), Some("local")));
    let reply = world.get("/v1/backup").await;
    assert_eq!((reply.status.as_u16(), reply.header("quorate-command")), (200, Some("50")));
    assert_eq!(reply.header("quorate-consistency"), Some("linearizable"));
    world.change(|node| node.barrier = Some(101));
    assert_eq!(world.get("/v1/backup").await.problem(), not_executed(504, "not_applied_yet"));
    // For room nobody waits.
    world.change(|node| node.is_full = true);
    assert_eq!(world.get("/v1/backup").await.problem(), not_executed(507, "disk_full"));
    world.change(|node| (node.is_full, node.barrier) = (false, None));
    assert_eq!(world.get("/v1/backup").await.problem(), not_executed(503, "no_majority"));
    let leaderless = World::without_leader(Box::new(|_| None));
    let refused = leaderless.get("/v1/backup").await;
    assert_eq!(refused.problem(), not_executed(503, "no_leader"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(leaderless.get("/v1/backup?consistency=local").await.status, 200);
    assert_eq!(world.get("/v1/backup?consistency=strong").await.problem(), not_executed(400, "invalid_query"));
}

/// Catches a broken disk that is reported as an absent key, or that tells callers of its insides.
#[actix_web::test]
async fn a_state_that_cannot_be_read_is_an_error() {
    let world = world();
    world.change(|node| node.broken = true);
    for uri in ["/v1/state/k", "/v1/state", "/v1/calls/k"] {
        let reply = world.get(uri).await;
        assert_eq!(reply.problem(), not_executed(500, "state_unreadable"), "{uri}");
        assert!(!reply.text().contains("fire"));
    }
}

/// Catches a HEAD that is answered unlike the GET.
#[actix_web::test]
async fn head_is_like_get() {
    let world = world();
    world.put("k", b"1", 12);
    let reply = world.with_header(Method::HEAD, "/v1/state/k", (header::ACCEPT.as_str(), "*/*")).await;
    assert_eq!((reply.status.as_u16(), reply.header("etag")), (200, Some("\"12\"")));
}
