//! Power cuts. Each node has a small file system of its own, of which a cut loses all that was not synced; where that
//! cannot be, these tests are skipped, and say so.

use quorate_tests::cluster::{Cluster, Load, lying_disks, power_cuts, small_disks};
use quorate_tests::skip::skipped;

/// MiB.
const DISK: u64 = 128;
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

fn boot(cluster: &mut Cluster) {
    for node in 0..cluster.size() {
        cluster.boot_on_small_disk(node, DISK);
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
    }
}
