//! More calls than a cluster takes: each is acknowledged, and then once, or refused in time and not executed; nobody
//! loses the lead over it.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_tests::cluster::{Cluster, Gateway, Reply, send};
use serde_json::json;
use tokio::task::JoinSet;

/// Calls that are sent together, whatever became of those before.
const BURST: u64 = 40;
const BURSTS: u64 = 20;
/// Between two bursts: far less than so many calls take.
const PAUSE: Duration = Duration::from_millis(10);
/// So that nobody is taken for dead whose process had to wait for a busy machine.
const PATIENT: [&str; 2] = ["detector.timeout_min=1s", "detector.timeout_max=10s"];

/// RELIABILITY 5, row 12. Catches, at a gateway and at a leader without room: a call that waits where it should be refused,
/// is lost, or executed although it was refused; a refusal that does not say when to come back, or what became of the call;
/// and a leader that is deposed because it has much to do.
#[tokio::test]
async fn what_is_too_much_is_refused_and_nothing_else_happens() {
    let at_gateways = ["limits.calls_in_flight=4"];
    let at_the_leader = ["limits.waiting_calls=2", "protocol.window=4"];
    for limits in [&at_gateways[..], &at_the_leader] {
        let cluster = Cluster::start("overload", 3, &[limits, &PATIENT].concat()).await;
        let changes = leader_changes(&cluster).await;
        let urls: Vec<String> =
            (0..cluster.size()).map(|node| cluster.url(node, "/v1/functions/kv.increment")).collect();
        let told = told(cluster.client(), &urls).await;
        assert_eq!(leader_changes(&cluster).await, changes, "{limits:?}: the lead changed");
        assert_each_once_or_never(&cluster, &told).await;
        // It takes calls again as before.
        for node in 0..cluster.size() {
            let reply = cluster.call(node, "kv.increment", &json!({"key": "after"})).await;
            assert_eq!(reply.status, 200, "{limits:?}: {}", reply.text());
        }
    }
}

/// The same at a node that is only a gateway: it has a limit of its own, and passes on what members refuse.
#[tokio::test]
async fn a_gateway_without_data_refuses_what_is_too_much() {
    for (own, members) in
        [("limits.calls_in_flight=4", &[][..]), ("limits.calls_in_flight=1000", &["limits.calls_in_flight=4"])]
    {
        let cluster = Cluster::start("overload", 3, &[members, &PATIENT].concat()).await;
        let gateway = Gateway::boot(&cluster, &[0, 1, 2], &[own.to_owned()]);
        gateway.ready().await;
        let told = told(cluster.client(), &[gateway.url("/v1/functions/kv.increment")]).await;
        assert_each_once_or_never(&cluster, &told).await;
    }
}

async fn leader_changes(cluster: &Cluster) -> Vec<f64> {
    let mut changes = Vec::new();
    for node in 0..cluster.size() {
        changes.push(cluster.metric(node, "quorate_detector_leader_changes_total").await);
    }
    changes
}

/// What the caller of each call was told; every third call has a key.
async fn told(client: &reqwest::Client, urls: &[String]) -> BTreeMap<u64, Reply> {
    let mut calls = JoinSet::new();
    for number in 0..BURST * BURSTS {
        let url = &urls[usize::try_from(number).expect("a small number") % urls.len()];
        let mut request = client.post(url).json(&json!({"key": counter(number)}));
        if number.is_multiple_of(3) {
            request = request.header("Idempotency-Key", counter(number));
        }
        calls.spawn(async move { (number, send(request).await.expect("a living node answers")) });
        if number % BURST == BURST - 1 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    calls.join_all().await.into_iter().collect()
}

/// Of each call alone, so that its value says how often it was executed.
fn counter(number: u64) -> String {
    format!("n/{number}")
}

async fn assert_each_once_or_never(cluster: &Cluster, told: &BTreeMap<u64, Reply>) {
    let history = cluster.assert_agreement().await;
    let mut executed: BTreeMap<String, u64> = BTreeMap::new();
    let effects = history.commands().iter().flat_map(|command| command["effects"].as_array().into_iter().flatten());
    for key in effects.filter_map(|effect| effect["put"]["key"].as_str()) {
        *executed.entry(key.to_owned()).or_default() += 1;
    }
    let (mut acknowledged, mut refused) = (0, 0);
    for (&number, reply) in told {
        let times = executed.get(&counter(number)).copied().unwrap_or(0);
        match reply.status {
            200 => {
                acknowledged += 1;
                assert_eq!((times, &reply.json()["result"]["value"]), (1, &json!(1)), "call {number}: {reply:?}");
            }
            429 | 503 => {
                refused += 1;
                assert!(!reply.header("Retry-After").is_empty(), "call {number}: {reply:?}");
                // Of a call with a key another node may have a copy; here none has. A gateway gives a key to each call.
                let outcome = reply.json()["outcome"].clone();
                let has_key = number.is_multiple_of(3);
                assert!(times == 0, "call {number} was refused, and executed {times} times: {reply:?}");
                assert!(outcome == "unknown" || outcome == "not_executed" && !has_key, "call {number}: {reply:?}");
            }
            _ => panic!("call {number}: {reply:?}"),
        }
    }
    assert!(acknowledged > 0 && refused > 0, "{acknowledged} acknowledged, {refused} refused");
}
