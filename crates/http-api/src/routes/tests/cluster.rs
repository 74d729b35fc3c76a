//! Who votes and who leads: requests that become calls of `cluster.*`.

use std::time::Duration;

use actix_web::http::Method;
use protocol::{CommandNumber, NodeId, Outcome};
use serde_json::{Value, json};

use super::world::{World, not_executed};

/// API.md: catches a change of the acceptors that asks for something else, a dry run that is none, and a refusal that
/// tells a program that its words were wrong.
#[actix_web::test]
async fn acceptors_are_changed_by_a_function() {
    let world = World::new(|call| {
        let code =
            if String::from_utf8_lossy(&call.arguments).contains('9') { "unknown_node" } else { "not_caught_up" };
        Some(Outcome::Refused { at: CommandNumber(9), code: code.into(), message: "not now, or never".into() })
    });
    let delete = async |uri: &str| world.with_header(Method::DELETE, uri, ("Accept", "*/*")).await;
    let refused = world.post("/v1/cluster/acceptors", r#"{"node": "d"}"#).await;
    assert_eq!(refused.problem(), not_executed(409, "not_caught_up"));
    let unknown = delete("/v1/cluster/acceptors/9?dry_run=true").await;
    assert_eq!(unknown.problem(), not_executed(404, "unknown_node"));
    let calls = world.calls();
    let asked = |index: usize| serde_json::from_slice::<Value>(&calls[index].arguments).expect("JSON");
    assert!(calls.iter().all(|call| call.function == "cluster.set_acceptor"));
    assert_eq!(asked(0), json!({"node": "d"}));
    assert_eq!(asked(1), json!({"node": 9, "weight": 0, "dry_run": true}));
    for bad in ["[]", "1", "{"] {
        assert_eq!(world.post("/v1/cluster/acceptors", bad).await.status, 400, "{bad}");
    }
    let bad = delete("/v1/cluster/acceptors/1?dry_run=yes").await;
    assert_eq!(bad.problem(), not_executed(400, "invalid_query"));
}

/// Catches majority sets that are changed by another function, or not the ones that were sent; a dry run that is none; and two
/// disjoint sets for which the words of the request are blamed.
#[actix_web::test]
async fn majority_sets_are_changed_by_a_function() {
    let world = World::new(|_| {
        let message = "the majority sets {a} and {b} have no node in common".into();
        Some(Outcome::Refused { at: CommandNumber(9), code: "two_disjoint_sets".into(), message })
    });
    let sets = json!({"majority_sets": [["a"], ["b"]]});
    let refused = world.post("/v1/cluster/majority", sets.to_string()).await;
    assert_eq!(refused.problem(), not_executed(409, "two_disjoint_sets"));
    assert!(refused.text().contains("{a} and {b}"), "{}", refused.text());
    world.post("/v1/cluster/majority?dry_run=true", r#"{"zones": {"x": ["a"]}}"#).await;
    let calls = world.calls();
    let asked = |index: usize| serde_json::from_slice::<Value>(&calls[index].arguments).expect("JSON");
    assert!(calls.iter().all(|call| call.function == "cluster.set_rule"));
    assert_eq!((asked(0), asked(1)), (sets, json!({"zones": {"x": ["a"]}, "dry_run": true})));
    assert_eq!(world.post("/v1/cluster/majority", "[]").await.problem(), not_executed(400, "invalid_arguments"));
}

/// API.md: catches a lead that goes to somebody else, an answer before the node leads or for one that does not, and a dry
/// run that waits for what will not be.
#[actix_web::test]
async fn the_lead_is_handed_over_by_a_function() {
    let world = World::new(|call| {
        let asked = String::from_utf8_lossy(&call.arguments).into_owned();
        let refused = |code: &str| Outcome::Refused {
            at: CommandNumber(9),
            code: code.into(),
            message: "it cannot be done".into(),
        };
        Some(match asked.as_str() {
            asked if asked.contains('9') => refused("unknown_node"),
            asked if asked.contains('8') => refused("not_heard"),
            asked if asked.contains('7') => {
                Outcome::Unchanged { at: CommandNumber(9), result: r#"{"node":7,"name":"g","leads":false}"#.into() }
            }
            _ => Outcome::Unchanged { at: CommandNumber(9), result: r#"{"node":2,"name":"b","leads":false}"#.into() },
        })
    });
    world.backend.node.lock().expect("it is free").led_by = Some(NodeId(2));
    let post = async |uri: &str, body: &'static str| world.post(uri, body).await;
    let (uri, dry) = ("/v1/cluster/leader", "/v1/cluster/leader?dry_run=true");
    let done = post(uri, r#"{"node": "b"}"#).await;
    let leads = |leads: bool| json!({"command": null, "result": {"node": 2, "name": "b", "leads": leads}});
    assert_eq!((done.status.as_u16(), done.json()), (200, leads(true)));
    let waited = world.backend.node.lock().expect("it is free").waited.take();
    assert_eq!(waited, Some(Duration::from_secs(5)));
    assert_eq!(post(dry, r#"{"node": "b"}"#).await.json(), leads(false));
    assert_eq!(world.backend.node.lock().expect("it is free").waited, None, "there is nothing to wait for");
    let late = post(uri, r#"{"node": 7}"#).await;
    assert_eq!(late.problem(), (504, "not_handed_over".to_owned(), "unknown".to_owned()));
    assert_eq!(post(uri, r#"{"node": 8}"#).await.problem(), not_executed(409, "not_heard"));
    assert_eq!(post(uri, r#"{"node": 9}"#).await.problem(), not_executed(404, "unknown_node"));
    assert_eq!(post(uri, "[]").await.problem(), not_executed(400, "invalid_arguments"));
    let calls = world.calls();
    assert!(calls.iter().all(|call| call.function == "cluster.hand_over"));
    let asked = |index: usize| serde_json::from_slice::<Value>(&calls[index].arguments).expect("JSON");
    assert_eq!((asked(0), asked(1)), (json!({"node": "b"}), json!({"node": "b", "dry_run": true})));
}
