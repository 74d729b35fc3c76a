//! Partial partitions of five real nodes (RELIABILITY 2): whoever holds a majority set together goes on, soon, and the lead
//! does not wander. `PARTIAL_SECONDS=60` lets each shape last for so long.

use std::time::{Duration, Instant};

use quorate_tests::cluster::{Cluster, Link, Taps};
use serde_json::json;

/// `detector.timeout_max`, as by default.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a shape lasts once calls pass again, in seconds, unless somebody says otherwise.
const LASTS: &str = "8";
/// How often the lead may change once calls pass again.
const CHANGES: f64 = 2.0;
/// How often a flapping link changes.
const FLAP: Duration = Duration::from_millis(200);

/// Which of two nodes hears the other, whoever led before in the place of 0.
type Hears = fn(from: usize, to: usize) -> bool;

/// Two nodes, in whichever order.
fn between(from: usize, to: usize, pairs: &[(usize, usize)]) -> bool {
    pairs.iter().any(|pair| *pair == (from, to) || *pair == (to, from))
}

struct Shape {
    name: &'static str,
    hears: Hears,
    /// Who is called.
    asked: usize,
    /// Whether what is cut comes and goes.
    flaps: bool,
}

const SHAPES: [Shape; 7] = [
    // All reach only 1; the leader lives, without a majority.
    Shape { name: "quorum loss", hears: |from, to| from == 1 || to == 1, asked: 1, flaps: false },
    // Only 1 reaches a majority, and the leader is cut off.
    Shape {
        name: "constrained",
        hears: |from, to| from != 0 && to != 0 && (from == 1 || to == 1),
        asked: 1,
        flaps: false,
    },
    // The ends of a chain do not see each other.
    Shape { name: "chain", hears: |from, to| from.abs_diff(to) == 1, asked: 2, flaps: false },
    // 0, 1 and 2 are meshed; 3 hangs on 1, 4 on 2.
    Shape {
        name: "two that hang on others",
        hears: |from, to| between(from, to, &[(0, 1), (0, 2), (1, 2), (1, 3), (2, 4)]),
        asked: 1,
        flaps: false,
    },
    // The leader is heard, and hears nobody.
    Shape { name: "a leader that hears nobody", hears: |_, to| to != 0, asked: 1, flaps: false },
    // The leader hears all, and nobody hears it.
    Shape { name: "a leader that nobody hears", hears: |from, _| from != 0, asked: 1, flaps: false },
    // Both ways between the leader and two others.
    Shape { name: "flapping links", hears: |from, to| !between(from, to, &[(0, 1), (0, 2)]), asked: 3, flaps: true },
];

fn cut(taps: &Taps, place: impl Fn(usize) -> usize, hears: Hears, cut: Link) {
    for (from, to, tap) in taps.iter() {
        tap.set(if hears(place(from), place(to)) { Link::Open } else { cut });
    }
}

/// S-28: catches a cluster that finds no leader though a majority set is connected, one that needs longer than four
/// election timeouts for it, ends of a chain that depose each other in turn, and a link that flaps and takes the lead
/// along.
#[tokio::test]
async fn whoever_holds_a_majority_set_goes_on_and_the_lead_does_not_wander() {
    let mut cluster = Cluster::new("partial", 5, &[]);
    let taps = Taps::between(&mut cluster).await;
    cluster.boot_all();
    cluster.wait_begun().await;
    let mut calls = 0;
    let lasts = std::env::var("PARTIAL_SECONDS").unwrap_or_else(|_| LASTS.to_owned());
    let lasts = Duration::from_secs(lasts.parse().expect("seconds in PARTIAL_SECONDS"));
    for Shape { name, hears, asked, flaps } in SHAPES {
        // The leader stands in the place of 0.
        let leader = cluster.leader().await;
        let node = |place: usize| (place + leader) % 5;
        let place = |node: usize| (node + 5 - leader) % 5;
        let inbound = async || {
            let reply = cluster.call(node(asked), "inventory.inbound", &json!({"warehouse": "A", "amount": 1})).await;
            assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        };
        cut(&taps, place, hears, Link::Silent);
        let begun = Instant::now();
        inbound().await;
        calls += 1;
        let took = begun.elapsed();
        assert!(took < 4 * TIMEOUT, "{name}: the first call took {took:?}");
        let changes = async || cluster.metric(node(asked), "quorate_detector_leader_changes_total").await;
        let before = changes().await;
        assert!(before >= 1.0, "the metric counts the first leader");
        let (begun, mut is_cut) = (Instant::now(), true);
        while begun.elapsed() < lasts {
            if flaps {
                is_cut = !is_cut;
                cut(&taps, place, hears, if is_cut { Link::Silent } else { Link::Open });
            }
            let call = async {
                inbound().await;
                calls += 1;
            };
            tokio::join!(call, tokio::time::sleep(FLAP));
        }
        // One may still be under way to the node that leads in the end: from none to one.
        let changed = changes().await - before;
        println!("{name}: a call after {took:?}, then {changed} changes of the lead in {lasts:?}");
        assert!(changed <= CHANGES, "{name}: the leader changed {changed} times in {lasts:?}");
        cut(&taps, place, |_, _| true, Link::Open);
        cluster.leader().await;
    }
    assert_eq!(cluster.assert_agreement().await.last(), calls);
}
