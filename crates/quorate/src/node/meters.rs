//! What `/metrics` shows: every metric with what it means, and those that no role counts, which are looked at every
//! second.
//!
//! A test holds the table against the sources, docs/operations.md, and what deploy/ asks Prometheus for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http_api::Backend as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::backend::NodeBackend;
use super::router::Router;
use storage::rocksdb::Stores;

use crate::config::Config;

/// How often the node looks at itself.
const LOOK: Duration = Duration::from_secs(1);

/// Some ten thousand samples under full load.
const UPKEEP: Duration = Duration::from_secs(5);

/// Looking at sizes asks the file system for each file: at every so many looks.
const SIZES_EVERY: u64 = 10;

/// From a function that only looks something up to a disk that hangs.
const SECONDS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// How many things one write may have.
const SIZES: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Shown as 0 from the start, so that its first step is seen as one.
    Counter,
    /// A counter with labels, which appears when it is first counted.
    Counters,
    Gauge,
    Histogram,
}
use Kind::{Counter, Counters, Gauge, Histogram};

const METRICS: &[(&str, Kind, &str)] = &[
    ("quorate_build_info", Gauge, "1; its label is the version of the binary"),
    ("quorate_ready", Gauge, "1 while /readyz says yes"),
    ("quorate_health_ok", Gauge, "1 while this check of /healthz holds"),
    ("quorate_auth_enabled", Gauge, "auth.enabled: 1 where callers need tokens"),
    ("quorate_window_commands", Gauge, "protocol.window: the most commands that may be proposed and not issued"),
    ("quorate_mailbox_wait_seconds", Histogram, "How long a message to this role waits, tried every second"),
    ("quorate_mailbox_depth", Gauge, "Messages that wait for this role, tried every second"),
    ("quorate_mailbox_refused_total", Counters, "Messages lost because the mailbox of this role was full"),
    ("quorate_store_bytes", Gauge, "What this part of the data directory takes on the disk"),
    ("quorate_store_memory_bytes", Gauge, "What the stores keep in memory: unwritten `tables`, the `cache` of blocks"),
    ("quorate_process_resident_bytes", Gauge, "Memory of the process"),
    ("quorate_process_open_files", Gauge, "Open file descriptors of the process"),
    ("quorate_acceptor_sync_seconds", Histogram, "One write and sync of the log"),
    ("quorate_acceptor_batch_records", Histogram, "Promises and votes in one sync"),
    ("quorate_acceptor_syncs_total", Counter, "Syncs of the acceptor"),
    ("quorate_acceptor_promises_total", Counter, "Promises made"),
    ("quorate_acceptor_votes_total", Counter, "Votes cast"),
    ("quorate_acceptor_promise_round", Gauge, "The round of the promise"),
    ("quorate_acceptor_ignored_total", Counters, "Messages left alone, by reason"),
    ("quorate_acceptor_silent", Gauge, "1 while the acceptor is silent for this reason"),
    ("quorate_acceptor_rejoined_total", Counter, "How often a silent acceptor came to speak again"),
    ("quorate_votes_forgotten_through", Gauge, "Votes are forgotten up to this command"),
    ("quorate_leader_leads", Gauge, "1 while this node leads"),
    ("quorate_leader_ballots_total", Counter, "Ballots for which this node asked for promises"),
    ("quorate_leader_hand_overs_total", Counters, "Leads that this node handed over"),
    ("quorate_leader_elections_won_total", Counter, "How often this node took the lead"),
    ("quorate_leader_step_downs_total", Counter, "How often this node gave up the lead, or trying"),
    (
        "quorate_leader_execute_seconds",
        Histogram,
        "The turn of one call at the leader: the function, and what is kept of it",
    ),
    ("quorate_leader_vote_seconds", Histogram, "From sending a run of commands to the votes of a majority set"),
    ("quorate_leader_unissued_commands", Gauge, "Commands proposed and not issued"),
    ("quorate_leader_oldest_unissued_age_seconds", Gauge, "How long the oldest of them has waited"),
    ("quorate_leader_kept_calls", Gauge, "Calls kept for room, for the pool, for a refusal to pass"),
    ("quorate_leader_held_replies", Gauge, "Replies held by the output gate"),
    ("quorate_leader_syncs_total", Counter, "Syncs of the ballots that this node began"),
    ("quorate_leader_ignored_total", Counters, "Messages left alone, by reason"),
    ("quorate_membership_number", Gauge, "The command that made the membership, as the leader of the node knows it"),
    (
        "quorate_membership_replacements_total",
        Counter,
        "Acceptors that were not heard, and that this node, leading, had replaced by spares",
    ),
    ("quorate_learner_issued", Gauge, "The last command known to be issued"),
    ("quorate_learner_applied", Gauge, "The last command applied"),
    ("quorate_learner_durable", Gauge, "The last command whose state is synced"),
    ("quorate_learner_lag_commands", Gauge, "Commands that this node has not applied, of those it has heard of"),
    ("quorate_learner_apply_seconds", Histogram, "One write of the state"),
    ("quorate_learner_apply_commands", Histogram, "Commands in one write of the state"),
    ("quorate_learner_sync_seconds", Histogram, "Making the state durable, beside the applying"),
    ("quorate_learner_syncs_total", Counter, "Syncs of the state, and of the log for it"),
    ("quorate_learner_sent_total", Counters, "Questions and answers sent, by message"),
    ("quorate_learner_catch_up_served_total", Counter, "Pieces sent to nodes that lacked commands"),
    ("quorate_learner_ignored_total", Counters, "Messages left alone, by reason; contradiction: agreement is broken"),
    ("quorate_history_kept_from", Gauge, "The lowest command that this node still has"),
    ("quorate_durable_majority", Gauge, "How far the states of a majority of learners are durable"),
    ("quorate_snapshot_installed_total", Counter, "Whole states taken over from other nodes"),
    ("quorate_snapshot_mismatches_total", Counter, "Whole states that were not what their sender said"),
    ("quorate_snapshot_sent_bytes_total", Counter, "Bytes of whole states sent"),
    ("quorate_snapshot_received_bytes_total", Counter, "Bytes of whole states received"),
    ("quorate_snapshot_received_percent", Gauge, "How much of the state under way has arrived"),
    ("quorate_snapshot_checkpoints_open", Gauge, "Checkpoints that other nodes read"),
    ("quorate_detector_heard", Gauge, "1 while this node is heard"),
    ("quorate_members", Gauge, "Members of the cluster, as this node knows them"),
    ("quorate_members_unheard", Gauge, "Members of the cluster that this node does not hear"),
    ("quorate_detector_heartbeats_sent_total", Counters, "Heartbeats to this node"),
    ("quorate_detector_heartbeats_received_total", Counters, "Heartbeats from this node"),
    ("quorate_detector_suspicions_total", Counters, "How often this node was suspected"),
    ("quorate_detector_campaigns_total", Counter, "How often this node was told to try to lead"),
    ("quorate_detector_step_downs_total", Counter, "How often this node was told to give up the lead"),
    ("quorate_detector_leader_changes_total", Counter, "How often the working leader changed, to none too"),
    ("quorate_detector_ignored_total", Counters, "Events of nodes that are no members, by reason"),
    ("quorate_gateway_members_ready", Gauge, "Members that are ready, as a node knows them that is only a gateway"),
    ("quorate_gateway_forwarded_total", Counters, "Requests that such a gateway passed on to a member, by outcome"),
    ("quorate_gateway_calls_total", Counters, "Calls that ended here, by function and outcome"),
    ("quorate_gateway_call_seconds", Histogram, "From taking a call to its outcome, by function"),
    ("quorate_gateway_calls_in_flight", Gauge, "Calls without an outcome"),
    ("quorate_gateway_sent_total", Counter, "Messages to leaders, repetitions included"),
    ("quorate_gateway_ignored_total", Counters, "Answers that nobody waits for, by reason"),
    ("quorate_traces_exported_total", Counter, "Spans of calls that the collector has taken"),
    ("quorate_traces_dropped_total", Counters, "Spans of calls that were not sent, or not taken, by reason"),
    ("quorate_disk_free_bytes", Gauge, "What the file system of the data directory has left"),
    ("quorate_disk_below_soft", Gauge, "1 while that is less than storage.soft_free"),
    ("quorate_disk_below_hard", Gauge, "1 while that is less than storage.hard_free"),
    ("quorate_transport_frames_sent_total", Counters, "Frames sent to other nodes, by lane"),
    ("quorate_transport_bytes_sent_total", Counters, "Bytes sent to other nodes, by lane"),
    ("quorate_transport_frames_received_total", Counters, "Frames received from other nodes, by lane"),
    ("quorate_transport_bytes_received_total", Counters, "Bytes received from other nodes, by lane"),
    ("quorate_transport_connections_total", Counters, "Connections made, by lane"),
    ("quorate_transport_dropped_total", Counters, "Messages lost, by lane and cause"),
    ("quorate_transport_refused_total", Counters, "Handshakes refused, by side and reason"),
    ("quorate_transport_other_window_total", Counter, "Connections from nodes with another protocol.window"),
    (
        "quorate_transport_other_auth_total",
        Counter,
        "Connections from nodes of which one asks callers for tokens and one not",
    ),
    ("quorate_transport_broken_frames_total", Counters, "Connections closed for damaged bytes, by lane and reason"),
    ("quorate_transport_no_such_peer_total", Counter, "Messages to a node that is no peer: a mistake of ours"),
    (
        "quorate_tls_certificate_expiry_timestamp_seconds",
        Gauge,
        "When a certificate in force expires, in seconds since 1970: http, peer, peer_ca",
    ),
    ("quorate_tls_reload_failing", Gauge, "1 while changed certificates are not usable, by use"),
    ("quorate_tls_reloads_total", Counters, "Changed certificates that came into force, or were not usable, by use"),
    (
        "quorate_audit_lines_total",
        Counter,
        "Lines of the audit log that this process has written: the number of the last one",
    ),
    ("quorate_http_connections", Gauge, "Connections of callers that are open"),
    ("quorate_http_requests_total", Counters, "Requests, by route and status"),
    ("quorate_http_denied_total", Counters, "Requests and calls turned away for their token, by reason"),
    ("quorate_http_request_duration_seconds", Histogram, "How long requests took, by route"),
];

/// Installs the recorder, and says what there will be.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = builder()?.install_recorder().context("the recorder of metrics cannot be installed")?;
    describe();
    metrics::gauge!("quorate_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Folds what histograms have gathered; without it they grow until somebody asks for metrics.
pub(crate) async fn keep(prometheus: PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP);
    loop {
        interval.tick().await;
        prometheus.run_upkeep();
    }
}

/// Shows settings that alerts are about.
pub(super) fn show(config: &Config) {
    metrics::gauge!("quorate_auth_enabled").set(f64::from(u8::from(config.auth.is_some())));
    #[expect(clippy::cast_precision_loss, reason = "at most 65,536")]
    metrics::gauge!("quorate_window_commands").set(config.window as f64);
}

fn builder() -> anyhow::Result<PrometheusBuilder> {
    let suffix = |suffix: &str| Matcher::Suffix(suffix.to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(suffix("_seconds"), &SECONDS)?;
    let builder = builder.set_buckets_for_metric(suffix("_records"), &SIZES)?;
    Ok(builder.set_buckets_for_metric(Matcher::Full("quorate_learner_apply_commands".to_owned()), &SIZES)?)
}

fn describe() {
    for (name, kind, help) in METRICS {
        match kind {
            Counter => {
                metrics::describe_counter!(*name, *help);
                metrics::counter!(*name).absolute(0);
            }
            Counters => metrics::describe_counter!(*name, *help),
            Gauge => metrics::describe_gauge!(*name, *help),
            Histogram => metrics::describe_histogram!(*name, *help),
        }
    }
}

/// Looks every second, for as long as the node lives.
pub(super) async fn watch(backend: Arc<NodeBackend>, router: Arc<Router>, config: Arc<Config>, stores: Stores) {
    let mut interval = tokio::time::interval(LOOK);
    // Whoever did not come to look for a while need not catch up.
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut trying: Option<tokio::task::JoinHandle<()>> = None;
    for look in 0_u64.. {
        interval.tick().await;
        show_health(&backend);
        if look.is_multiple_of(SIZES_EVERY) {
            let (config, stores) = (Arc::clone(&config), stores.clone());
            // An error is the end of the runtime.
            _ = tokio::task::spawn_blocking(move || show_sizes(&config.node.data_dir, &stores)).await;
        }
        // Beside this: health is looked at all the same while a role hangs.
        if trying.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            let router = Arc::clone(&router);
            trying = Some(actix::spawn(async move { router.measure_mailboxes().await }));
        } else {
            router.show_depths();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
fn show_health(backend: &NodeBackend) {
    let health = backend.health();
    let mut ready = !backend.stopping();
    for check in health.live.iter().chain(&health.ready) {
        ready &= check.ok;
        metrics::gauge!("quorate_health_ok", "check" => check.name).set(f64::from(u8::from(check.ok)));
    }
    metrics::gauge!("quorate_ready").set(f64::from(u8::from(ready)));
    metrics::gauge!("quorate_learner_lag_commands").set(backend.lag() as f64);
    let members = backend.cluster().nodes;
    metrics::gauge!("quorate_members").set(members.len() as f64);
    let unheard = members.iter().filter(|node| !node.reachable).count();
    metrics::gauge!("quorate_members_unheard").set(unheard as f64);
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
fn show_sizes(directory: &Path, stores: &Stores) {
    let memory = stores.memory();
    for (kind, bytes) in [("tables", memory.tables), ("cache", memory.cache)] {
        metrics::gauge!("quorate_store_memory_bytes", "kind" => kind).set(bytes as f64);
    }
    for part in ["log", "state", "checkpoints"] {
        metrics::gauge!("quorate_store_bytes", "store" => part).set(size(&directory.join(part)) as f64);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kib) = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()) {
        metrics::gauge!("quorate_process_resident_bytes").set(kib.parse::<u64>().unwrap_or_default() as f64 * 1_024.0);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!("quorate_process_open_files").set(open.count() as f64);
    }
}

/// Bytes of all files below; one that goes meanwhile is not counted.
fn size(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

#[cfg(test)]
mod tests;
