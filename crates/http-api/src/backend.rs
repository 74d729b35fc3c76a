//! What the REST layer needs of its node. The binary implements it; tests fake it.

use std::io;
use std::time::Duration;

use actix::Addr;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::LocalBoxStream;
use protocol::{Command, CommandNumber, Key, NodeId, Outcome, StateError, StateView, Timestamp};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::actor::GatewayActor;
use crate::door::Door;

/// One node, as its REST gateway sees it. Called from the HTTP server's threads.
pub trait Backend: Send + Sync + 'static {
    /// This node's id and name.
    fn node(&self) -> (NodeId, &str);

    /// The name of its cluster.
    fn cluster_name(&self) -> &str;

    /// The actor that calls and linearizable reads go through. The same address for all, since a
    /// clone of one has room for a message of its own in a full mailbox.
    fn gateway(&self) -> &Addr<GatewayActor>;

    /// What the gateway shows of its room.
    fn door(&self) -> &Door;

    /// This node's state as of one command number. Taking it and reading one key of it are
    /// microseconds and done in line; scans are done on a thread for blocking work.
    ///
    /// # Errors
    /// [`StateError`] when the disk of this node failed.
    fn snapshot(&self) -> Result<Snapshot<'_>, StateError>;

    /// The number of the last command that this node has applied.
    fn applied(&self) -> CommandNumber;

    /// Waits until this node has applied `number`; false when that took longer than `wait`, or
    /// when the node ends.
    fn wait_applied(&self, number: CommandNumber, wait: Duration) -> LocalBoxFuture<'_, bool>;

    /// The time of the last command that this node has applied.
    fn time_at(&self) -> Timestamp;

    /// Whether this node has applied what was newest some seconds ago, as far as it can know: a token that was revoked
    /// before then does not count here any more.
    fn is_current(&self) -> bool;

    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Bytes that nobody can guess.
    fn chance(&self) -> [u8; 40];

    /// Issued commands from `first` on, in order: at most `limit` and, beyond the first one, at
    /// most `bytes` of bodies. Called on a thread for blocking work.
    ///
    /// # Errors
    /// [`StateError`] when the disk of this node failed.
    fn commands(&self, first: CommandNumber, limit: usize, bytes: usize) -> Result<Vec<Command>, StateError>;

    /// The digest of this node's state, and the number it is of: exactly `at`, waiting for it at
    /// most `wait`, or what is applied now.
    fn digest(
        &self,
        at: Option<CommandNumber>,
        wait: Duration,
    ) -> LocalBoxFuture<'_, Result<(CommandNumber, [u8; 32]), DigestError>>;

    /// Whether the disk of this node has room for a backup: one without cannot catch up either, and must not be waited for.
    fn has_room_for_a_backup(&self) -> bool;

    /// A backup of this node's state as it is when this is called, made while it is read. `consistency` is what the caller
    /// has waited for, and what the backup says of itself.
    ///
    /// # Errors
    /// Why there is none.
    fn backup(&self, consistency: Consistency) -> LocalBoxFuture<'_, Result<Backup, NoBackup>>;

    /// The functions that can be called, by name.
    fn functions(&self) -> Vec<FunctionInfo>;

    /// What the leader would say to a call that it cannot execute in any state, as far as this
    /// node can tell without executing it: the function is unknown, or does not take such
    /// arguments. For a caller who is not there any more when the leader says it.
    fn misfit(&self, function: &str, arguments: &Bytes) -> Option<Outcome>;

    /// The keys that such a call may read or write; `None`: its arguments do not say.
    ///
    /// # Errors
    /// As [`Backend::misfit`].
    fn keys(&self, function: &str, arguments: &Bytes) -> Result<Option<Vec<Key>>, Outcome>;

    /// Who takes part, and how they are.
    fn cluster(&self) -> ClusterView;

    /// Waits until that node leads, as far as this one knows; false when that took longer than `wait`, or when this node
    /// ends.
    fn wait_led_by(&self, node: NodeId, wait: Duration) -> LocalBoxFuture<'_, bool>;

    /// How this node is.
    fn health(&self) -> Health;

    /// What this node refuses.
    fn limits(&self) -> Limits;

    /// Whether this node is to stop: it takes calls, and callers had better go elsewhere.
    fn draining(&self) -> bool;

    /// Whether this node is stopping and takes no more calls.
    fn stopping(&self) -> bool;
}

/// How recent the state must be that a read, or a backup, shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// All that was acknowledged before it was asked for.
    Linearizable,
    /// What this node knows.
    Local,
}

impl Consistency {
    /// As callers write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Local => "local",
        }
    }
}

/// The state at one command number.
pub struct Snapshot<'a> {
    /// The number of the last command whose effects it shows.
    pub at: CommandNumber,
    /// The state.
    pub view: Box<dyn StateView + 'a>,
}

/// Why there is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The state has passed that number.
    #[error("the state at that number is no longer kept; the oldest one that can be digested is {oldest}")]
    Gone {
        /// The oldest number for which there is one.
        oldest: CommandNumber,
    },
    /// The node did not get to that number in time.
    #[error("this node did not reach that number in time; ask again, or ask another node")]
    Timeout,
    /// The node has more to do than it can take in, or is stopping.
    #[error("this node has too much to do for a digest now; ask again, or ask another node")]
    Busy,
}

/// A backup on its way.
pub struct Backup {
    /// The number of the last command in the state.
    pub at: CommandNumber,
    /// The bytes of the file; after an error the file is not whole.
    pub bytes: LocalBoxStream<'static, io::Result<Bytes>>,
}

/// Why there is no backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBackup {
    /// One is being taken: a second one would keep more of the disk and gain nothing.
    #[error("this node is giving a backup to somebody else; ask again, or ask another node")]
    Busy,
    /// The disk of this node is out of space.
    #[error(
        "the disk of this node has no room for what a backup writes and keeps while it is taken; make room, or ask \
         another node: /readyz of each says how much it has"
    )]
    DiskFull,
    /// The disk of this node failed.
    #[error("the state cannot be read: {0}")]
    Failed(String),
}

/// A function, as `GET /v1/functions` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct FunctionInfo {
    /// The name that callers use.
    #[schema(example = "inventory.transfer")]
    pub name: String,
    /// One sentence.
    pub description: String,
    /// JSON Schema of the arguments.
    #[schema(value_type = Object)]
    pub arguments_schema: Value,
    /// JSON Schema of the result.
    #[schema(value_type = Object)]
    pub result_schema: Value,
}

/// Who takes part and who leads, as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ClusterView {
    /// The cluster's name.
    pub name: String,
    /// All nodes, by id.
    pub nodes: Vec<NodeView>,
    /// Who leads, if that is known.
    #[schema(required)]
    pub leader: Option<LeaderView>,
    /// Who votes.
    pub membership: MembershipView,
    /// The majority rule, in words.
    #[schema(example = "2 of 3")]
    pub rule: String,
}

/// One node. What comes from its heartbeats is as old as the last one heard.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct NodeView {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// What it does: `acceptor`, `learner`, `leader`, `gateway`; the last two as far as it has said so.
    pub roles: Vec<String>,
    /// Where it listens.
    pub addresses: Addresses,
    /// Whether the answering node hears from it now.
    pub reachable: bool,
    /// The highest ballot it has seen, as `round.node`.
    #[schema(example = "7.2")]
    pub ballot: String,
    /// The last command number it knows to be issued.
    pub issued: u64,
    /// The last command number it has applied.
    pub applied: u64,
    /// The last command number in its durable state.
    pub durable: u64,
    /// The room on its disk: `ample`, `low` (it takes no calls as a leader) or `out` (it does not vote).
    #[schema(example = "ample")]
    pub space: &'static str,
    /// Why its acceptor is silent: `fresh`, `replaced`, `damaged` or `behind`; null where it speaks. Of nodes other
    /// than the one that answers only `yes`.
    #[schema(required)]
    pub silent: Option<&'static str>,
}

/// Where a node listens; empty where the answering node does not know.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Addresses {
    /// For other nodes.
    #[schema(example = "127.0.0.1:7080")]
    pub peer: String,
    /// For clients; empty also for a node that is no gateway.
    #[schema(example = "127.0.0.1:8080")]
    pub http: String,
}

/// The node that leads.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LeaderView {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
}

/// Who votes, and since when.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct MembershipView {
    /// The number of the command that set it; 0 for the configured one.
    pub number: u64,
    /// The acceptors.
    pub acceptors: Vec<AcceptorView>,
    /// How far the change that set it has come; null where all members have applied it.
    #[schema(required)]
    pub change: Option<ChangeView>,
}

/// A change of the membership that not all members have applied, as far as the answering node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChangeView {
    /// Whether a majority set that is heard has applied it. Until then the next change is refused; a leader may refuse it for
    /// longer, since of these acceptors it counts only those that have promised to it.
    pub in_force: bool,
    /// The members that have not, by what this node has heard since it began: one that it has not heard is among them.
    pub not_applied: Vec<MemberView>,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MemberView {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
}

/// One acceptor.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct AcceptorView {
    /// Its id.
    pub id: u64,
    /// What its vote counts.
    pub weight: u64,
}

/// How a node is: what must hold for it to be alive, and to serve calls now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// `/livez`: when one fails, restart the node.
    pub live: Vec<Check>,
    /// `/readyz`, beside the above: when one fails, send calls elsewhere.
    pub ready: Vec<Check>,
}

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// A word, such as `leader` or `disk`.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// A sentence that says what is so, or what is wrong and what would mend it.
    pub detail: String,
}

/// What the REST layer refuses, and how long it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest body, in bytes: one value of the state in base64 with its call around it is
    /// 1.4 MB, so less makes the largest values unwritable.
    pub body_bytes: usize,
    /// How long a body may take to arrive: slow senders hold a connection and memory.
    pub body_wait: Duration,
    /// The most connections, of all server threads together.
    pub connections: usize,
    /// How long a caller who does not say otherwise waits: longer than a change of leader.
    pub wait: Duration,
    /// The longest that a caller may ask to wait.
    pub wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 2 << 20,
            body_wait: Duration::from_secs(10),
            connections: 16_384,
            wait: Duration::from_secs(10),
            wait_max: Duration::from_secs(60),
        }
    }
}
