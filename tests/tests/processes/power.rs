//! Power cuts. Each node has a small file system of its own, of which a cut loses all that was not synced; where that
//! cannot be, these tests are skipped, and say so.

use quorate_tests::cluster::{Cluster, Load, lying_disks, power_cuts, small_disks};
use quorate_tests::skip::skipped;

use crate::copies::{KEPT, PACE, VALUE, Writers, until_needs_a_state, until_receives_a_state};

/// MiB.
const DISK: u64 = 128;
/// MiB: room for states, the log, and what comes of another state.
const LARGE_DISK: u64 = 1024;
/// Calls that must be acknowledged between two cuts.
const CALLS: u64 = 60;
const MARKS: [&str; 2] = ["storage.soft_free=2MiB", "storage.hard_free=1MiB"];

/// Whether there are disks that lose power here.
fn can_be_cut() -> bool {
    let can = small_disks().and_then(|()| power_cuts());
    if let Err(why) = &can {
        skipped(&format!("root, loop devices, mkfs.ext4 and perl ({why})"));
    }
    can.is_ok()
}

/// RELIABILITY 1, A6, S-11, S-14, A13: catches anything that was acknowledged and not synced: the power of all nodes is
/// cut at once, under load, again and again. Callers whose answer did not come ask on with the same key, so that
/// a call that was executed before the cut must not be executed again.
#[tokio::test]
async fn the_power_of_all_nodes_is_cut_under_load() {
    if !can_be_cut() {
        return;
    }
    let mut cluster = Cluster::new("power", 3, &MARKS);
    boot(&mut cluster);
    cluster.wait_ready().await;
    let load = Load::start(&cluster, "load", 8).await;
    for _ in 0..4 {
        load.progress(CALLS).await;
        cluster.cut_power().await;
        boot(&mut cluster);
        cluster.wait_ready().await;
    }
    load.progress(CALLS).await;
    load.finish().await.assert_kept(&cluster.assert_agreement().await);
}

/// The same while commands and votes are forgotten all the time, and a whole state is on its way to one node. Catches
/// what is forgotten before what takes its place is synced, a half of a truncation, and a part of a state that was not
/// synced and is taken for here.
#[tokio::test]
async fn the_power_of_all_nodes_is_cut_while_a_state_is_copied_and_votes_are_forgotten() {
    if !can_be_cut() {
        return;
    }
    let mut cluster = Cluster::new("power-copies", 3, &[&MARKS[..], &[KEPT, PACE]].concat());
    boot_on(&mut cluster, LARGE_DISK);
    cluster.wait_ready().await;
    let writers = Writers::start(&cluster, 4, VALUE);
    for _ in 0..2 {
        writers.progress(CALLS).await;
        let away = cluster.follower().await;
        let applied = cluster.metric(away, "quorate_learner_applied").await;
        cluster.kill9(away);
        until_needs_a_state(&cluster, applied).await;
        until_receives_a_state(&mut cluster, away, |cluster| cluster.boot_on_small_disk(away, LARGE_DISK)).await;
        cluster.cut_power().await;
        boot_on(&mut cluster, LARGE_DISK);
        cluster.wait_ready().await;
    }
    writers.progress(CALLS).await;
    writers.finish(&cluster).await;
}

fn boot(cluster: &mut Cluster) {
    boot_on(cluster, DISK);
}

fn boot_on(cluster: &mut Cluster, mebibytes: u64) {
    for node in 0..cluster.size() {
        cluster.boot_on_small_disk(node, mebibytes);
    }
}

/// The control of the test above: with syncs that do nothing the same cut loses what was acknowledged. Catches a power
/// cut that is none, with which that test would show nothing.
#[tokio::test]
async fn without_syncs_a_power_cut_loses_what_was_acknowledged() {
    if !can_be_cut() {
        return;
    }
    if let Err(why) = lying_disks() {
        return skipped(&format!("eatmydata ({why})"));
    }
    let mut cluster = Cluster::new("lying", 3, &MARKS);
    for node in 0..cluster.size() {
        cluster.boot_on_lying_disk(node, DISK);
    }
    cluster.wait_ready().await;
    let put = |value: u64| serde_json::json!({"key": "k", "value": value});
    for value in 1..=CALLS {
        let reply = cluster.call(0, "kv.put", &put(value)).await;
        assert_eq!((reply.status, reply.command()), (200, Some(value)), "{}", reply.text());
    }
    cluster.cut_power().await;
    boot(&mut cluster);
    // A node may be refused what is left of its disk, or find a directory as new.
    if cluster.starts_again().await {
        cluster.wait_ready().await;
        assert!(cluster.history(0).await.last() < CALLS, "nothing was lost, so nothing was cut");
    } else {
        let ends: Vec<String> = (0..cluster.size()).map(|node| cluster.log(node)).collect();
        let refused = |log: &String| log.lines().any(|line| line.starts_with("quorate: ") && line.contains("data"));
        assert!(ends.iter().any(refused), "a node ended for something else than what it lost: {ends:?}");
    }
}
