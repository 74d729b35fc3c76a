//! Links that fail while all processes live (RELIABILITY 2).

use quorate_tests::cluster::{Cluster, Link, Taps};
use serde_json::json;

async fn tapped(name: &str, nodes: usize) -> (Cluster, Taps) {
    let mut cluster = Cluster::new(name, nodes, &[]);
    let taps = Taps::between(&mut cluster).await;
    cluster.boot_all();
    cluster.wait_begun().await;
    (cluster, taps)
}

fn inbound() -> serde_json::Value {
    json!({"warehouse": "A", "amount": 1})
}

/// A4, S-28, the chain A-B-C: catches a learner that only learns from the leader, and two ends
/// of a chain that depose each other in turn.
#[tokio::test]
async fn a_node_cut_off_from_the_leader_catches_up_through_another() {
    for link in [Link::Closed, Link::Silent] {
        let (cluster, taps) = tapped("chain", 3).await;
        let leader = cluster.leader().await;
        let (middle, end) = ((leader + 1) % 3, (leader + 2) % 3);
        taps.set_both(leader, end, link);
        for _ in 0..200 {
            let reply = cluster.call(middle, "inventory.inbound", &inbound()).await;
            assert_eq!(reply.status, 200, "{link:?}: {}", reply.text());
        }
        let path = "/v1/state/inventory%2Fgoods%2FA?consistency=local&min_command=200";
        let learnt = cluster.get(end, path).await;
        assert_eq!((learnt.status, learnt.text()), (200, "200".to_owned()), "{link:?}: {learnt:?}");
        let view = cluster.get(middle, "/v1/cluster").await.json();
        assert_eq!(view["leader"]["id"], json!(leader + 1), "{link:?}: the end of a chain deposed the leader");
        assert!(taps.link(middle, end).count("Commands") > 0, "{link:?}: the other follower passed them on");
        taps.set_both(leader, end, Link::Open);
        cluster.leader().await;
        let reply = cluster.call(end, "inventory.inbound", &inbound()).await;
        assert_eq!(reply.status, 200, "{link:?}: {}", reply.text());
        assert_eq!(cluster.assert_agreement().await.last(), 201);
    }
}

/// S-20, S-21, S-28: a leader that nobody hears, that hears nobody, or both. Catches one that
/// goes on as if it led, followers that wait for it, and an answer that the others overrule.
#[tokio::test]
async fn a_leader_without_its_majority_is_replaced() {
    for (hears, is_heard) in [(true, false), (false, true), (false, false)] {
        let (cluster, taps) = tapped("deaf", 3).await;
        let leader = cluster.leader().await;
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        for other in others {
            if !is_heard {
                taps.link(leader, other).set(Link::Silent);
            }
            if !hears {
                taps.link(other, leader).set(Link::Silent);
            }
        }
        for node in others {
            let reply = cluster.call(node, "inventory.inbound", &inbound()).await;
            assert_eq!(reply.status, 200, "hears {hears}, is heard {is_heard}: {}", reply.text());
        }
        // The old one: a delay or a clear error, but nothing stale.
        let read = cluster.client().get(cluster.url(leader, "/v1/state/inventory%2Fgoods%2FA"));
        let read = quorate_tests::cluster::send(read.header("Prefer", "wait=1")).await.expect("it lives");
        let right = (read.status, read.text()) == (200, "2".to_owned()) || read.status == 503;
        assert!(right, "hears {hears}, is heard {is_heard}: {read:?}");
        for other in others {
            taps.set_both(leader, other, Link::Open);
        }
        cluster.leader().await;
        for node in 0..cluster.size() {
            assert_eq!(cluster.call(node, "inventory.inbound", &inbound()).await.status, 200);
        }
        assert_eq!(cluster.assert_agreement().await.last(), 5);
    }
}

/// S-28, quorum loss: five nodes, all of which reach only one, which does not lead. Catches a
/// cluster that cannot go on although a majority set is connected through that one.
#[tokio::test]
async fn the_only_node_that_reaches_a_majority_leads() {
    let (cluster, taps) = tapped("star", 5).await;
    let leader = cluster.leader().await;
    let centre = (leader + 1) % 5;
    for (from, to, tap) in taps.iter() {
        if from != centre && to != centre {
            tap.set(Link::Silent);
        }
    }
    for _ in 0..10 {
        let reply = cluster.call(centre, "inventory.inbound", &inbound()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(cluster.leader().await, centre);
    for (.., tap) in taps.iter() {
        tap.set(Link::Open);
    }
    assert_eq!(cluster.assert_agreement().await.last(), 10);
}
