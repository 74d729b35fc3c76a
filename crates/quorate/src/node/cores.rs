//! What each role, and the transport between nodes, is told, from the configuration of the node.

use std::sync::Arc;
use std::time::Duration;

use protocol::Membership;
use transport::TransportConfig;
use transport::handshake::Versions;
use transport::tls::Tls;

use super::router;
use crate::config::{Config, NodeRole};

/// Bytes proposed and not issued at a leader: several of the largest commands, and what one
/// slow acceptor can cost in memory.
const PIPELINE_BYTES: usize = 32 << 20;
/// Bytes in one `BeginBallot` beyond its first command: a quarter of a frame.
const RUN_BYTES: usize = 4 << 20;
/// Bytes of votes in one part of a `BallotInfo`: a small part of a frame.
const PART_BYTES: usize = 1 << 20;
/// Two runs: one on its way while the acceptors sync the other. More only makes runs shorter.
const ROUNDS_IN_FLIGHT: u64 = 2;
/// Well above a round trip and a sync, well below a caller's patience.
const RESEND: Duration = Duration::from_millis(100);
/// Promises come in a round trip; what is missing must be learnt first, in pieces.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);
/// A hand-over takes some round trips, and its messages come with heartbeats: this many of the shortest timeouts are
/// enough, and callers hardly notice one that fails.
const HAND_OVER_TIMEOUTS: u32 = 4;

pub(super) fn acceptor(config: &Config, membership: &Membership, nonce: u64) -> acceptor::core::Config {
    acceptor::core::Config {
        me: config.cluster.me,
        window: usize::try_from(config.window).expect("the window fits into 17 bits"),
        acceptors: membership.majority().clone().into(),
        learners: membership.learners().collect(),
        learn_from: config.learn_from,
        part_bytes: PART_BYTES,
        nonce,
    }
}

pub(super) fn learner(config: &Config, membership: Arc<Membership>) -> learner::Config {
    learner::Config {
        me: config.cluster.me,
        membership,
        learn_from: config.learn_from,
        window: config.window,
        timing: learner::Timing::default(),
    }
}

pub(super) fn leader(config: &Config, membership: Arc<Membership>) -> leader::core::Config {
    leader::core::Config {
        me: config.cluster.me,
        membership,
        learn_from: config.learn_from,
        window: config.window,
        pipeline_bytes: PIPELINE_BYTES,
        run_bytes: RUN_BYTES,
        rounds_in_flight: ROUNDS_IN_FLIGHT,
        kept_calls: config.limits.waiting_calls,
        resend: RESEND,
        prepare_timeout: PREPARE_TIMEOUT,
        hand_over_timeout: config.detector.timeout_min * HAND_OVER_TIMEOUTS,
        caller_retention: config.idempotency_retention,
        // A gateway keeps a call, and sends it again, for at most its caller's wait; twice that
        // and some minutes for clocks that differ.
        gateway_retention: config.limits.wait_max * 2 + Duration::from_secs(300),
    }
}

pub(super) fn detector(config: &Config, membership: Arc<Membership>) -> failure_detector::core::Config {
    failure_detector::core::Config {
        me: config.cluster.me,
        can_lead: config.node.roles.contains(&NodeRole::Leader),
        membership,
        heartbeat: config.detector.heartbeat,
        timeout_min: config.detector.timeout_min,
        timeout_max: config.detector.timeout_max,
        http: config.listen.advertise.clone(),
        spare: config.replacement.spare,
    }
}

pub(super) fn transport(config: &Config, membership: &Membership, tls: Option<Tls>) -> TransportConfig {
    TransportConfig {
        me: config.cluster.me,
        name: config.node.name.clone(),
        cluster: config.cluster.id,
        cluster_name: config.cluster.name.clone(),
        learn_from: config.learn_from,
        window: config.window,
        auth: config.auth.is_some(),
        versions: Versions::SPOKEN,
        peers: router::peers(membership),
        last_id: membership.last_id(),
        limits: transport::Limits { silence: config.detector.timeout_max, ..transport::Limits::default() },
        tls,
    }
}

pub(super) fn gateway(config: &Config) -> http_api::core::Settings {
    http_api::core::Settings { in_flight: config.limits.calls_in_flight, ..http_api::core::Settings::default() }
}
