//! A disk that takes no more writes.

use std::fs;
use std::time::Duration;

use quorate_tests::cluster::{Cluster, Load, eventually, send};
use serde_json::json;

/// Room for a start, and for some hundred commands.
const FILE_BYTES: u64 = 192 << 10;

/// A cluster in which one node has a disk that will fail, and which that node `leads`, or not.
async fn with_a_failing_disk(node: usize, leads: bool) -> Cluster {
    let mut cluster = Cluster::new("disk", 3, &[]);
    cluster.boot_on_failing_disk(node, FILE_BYTES);
    cluster.boot_all();
    cluster.wait_begun().await;
    for _ in 0..10 {
        let leader = cluster.leader().await;
        if (leader == node) == leads {
            return cluster;
        }
        cluster.terminate(leader);
        assert_eq!(cluster.ended(leader).await.code(), Some(0));
        cluster.leader().await;
        if leader == node {
            cluster.boot_on_failing_disk(node, FILE_BYTES);
        } else {
            cluster.boot(leader);
        }
        cluster.wait_ready().await;
    }
    panic!("ten hand-overs went to the wrong node");
}

/// The disk fails under load; the others go on; the node comes back when its disk is mended.
async fn fails_and_is_mended(node: usize, leads: bool) {
    let mut cluster = with_a_failing_disk(node, leads).await;
    cluster.give_up(node);
    let load = Load::start(&cluster, "load", 6).await;
    let status = cluster.ended(node).await;
    let log = cluster.log(node);
    assert_eq!(status.code(), Some(1), "{status}");
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("quorate: ")).collect();
    let directory = cluster.data_dir(node);
    let [line] = lines[..] else { panic!("not one last line: {lines:?}") };
    for part in [directory.to_str().expect("a plain path"), "File too large", "Mend the disk"] {
        assert!(line.contains(part), "{part} is missing in: {line}");
    }
    assert!(!log.contains("panicked"), "it is an end with a reason, not a crash");
    load.progress(30).await;
    cluster.boot(node);
    cluster.wait_ready().await;
    load.progress(30).await;
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}

/// A6, S-12: catches a leader that goes on after a failed write, as one that still holds the lead
/// and answers nobody, or acknowledges what it could not keep; one that ends without exit code 1
/// and a line that says why; and data that cannot be opened after it.
#[tokio::test]
async fn a_leader_whose_disk_fails() {
    fails_and_is_mended(0, true).await;
}

/// A6, S-12: the same for a node that does not lead: catches one that votes on without memory.
#[tokio::test]
async fn a_follower_whose_disk_fails() {
    fails_and_is_mended(2, false).await;
}

/// A6, S-15: catches a node that lives on with a store that is shut, because none of its roles has met the error: a
/// reader has, on a node that has nothing else to do.
#[tokio::test]
async fn an_idle_node_ends_when_a_reader_meets_damage() {
    let mut cluster = Cluster::start("rot", 3, &[]).await;
    let value = json!({"key": "k", "value": "v".repeat(10_000)});
    assert_eq!(cluster.call(0, "kv.put", &value).await.status, 200);
    cluster.assert_agreement().await;
    // A start moves what it finds into tables.
    let node = cluster.follower().await;
    cluster.kill9(node);
    cluster.boot(node);
    cluster.wait_ready().await;
    cluster.give_up(node);
    let entries = fs::read_dir(cluster.data_dir(node).join("state")).expect("a directory");
    let tables = entries.map(|entry| entry.expect("an entry").path());
    for table in tables.filter(|path| path.extension().is_some_and(|end| end == "sst")) {
        let mut bytes = fs::read(&table).expect("readable");
        // The blocks of data come first; what a table is found by is read when it is opened.
        let half = bytes.len() / 2;
        bytes[..half].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(&table, bytes).expect("written");
    }
    let url = cluster.url(node, "/v1/state/k?consistency=local");
    eventually("a read that fails", async || match send(cluster.client().get(&url)).await {
        Ok(reply) => (reply.status != 200).then_some(()),
        Err(_) => Some(()),
    })
    .await;
    let status = tokio::time::timeout(Duration::from_secs(2), cluster.ended(node)).await.expect("it ends soon");
    assert_eq!(status.code(), Some(1), "{}", cluster.log(node));
}

/// A6: catches a node that goes on when it could not note who the members are: one that joined, or leaves, would not know
/// at its next start who it is. A directory in its way is a write that fails and does no harm to the stores.
#[tokio::test]
async fn a_node_that_cannot_note_the_members_ends() {
    let mut cluster = Cluster::start("seat", 3, &[]).await;
    let node = cluster.follower().await;
    cluster.kill9(node);
    let in_the_way = cluster.data_dir(node).join("MEMBERSHIP.new");
    fs::create_dir(&in_the_way).expect("made");
    cluster.boot(node);
    cluster.give_up(node);
    assert_eq!(cluster.ended(node).await.code(), Some(1));
    let log = cluster.log(node);
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("quorate: ")).collect();
    let [line] = lines[..] else { panic!("not one last line: {lines:?}") };
    for part in ["who the members are", "MEMBERSHIP.new", "Remove what is in its way"] {
        assert!(line.contains(part), "{part} is missing in: {line}");
    }
    fs::remove_dir(in_the_way).expect("removed");
    cluster.boot(node);
    cluster.wait_ready().await;
    let call = cluster.call(node, "kv.put", &json!({"key": "k", "value": 1})).await;
    assert_eq!(call.status, 200, "{}", call.text());
}
