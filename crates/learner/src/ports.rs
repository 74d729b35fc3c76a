//! What the learner asks of and tells the rest of its node.

use std::sync::Arc;
use std::time::Duration;

use protocol::{CommandId, CommandNumber, Membership, NodeId, Now, Space, Tracer};
use storage::StorageError;

/// How far this node's learner is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// The last command number known here to be issued.
    pub issued: CommandNumber,
    /// The last command number applied to the state.
    pub applied: CommandNumber,
    /// The last command number in the durable state.
    pub durable: CommandNumber,
}

/// How much of the issued commands is kept, beyond what peers need. What is past one of these may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// For how long, by the clock of this node.
    pub retention: Duration,
    /// How many.
    pub commands: u64,
    /// How many bytes of them.
    pub bytes: u64,
}

/// What the learner asks of the rest of its node. Each is called on the learner's thread and returns at once.
pub struct LearnerPorts {
    /// Sends a message to another node, or drops it.
    pub send: Box<dyn Fn(NodeId, protocol::Message) + Send>,
    /// Everything up to this command is issued and applied here.
    pub learned: Box<dyn Fn(CommandId) + Send>,
    /// The membership has changed: it is applied here, and durable.
    pub membership: Box<dyn Fn(Arc<Membership>) + Send>,
    /// How much room the disk has now.
    pub space: Box<dyn Fn() -> Space + Send>,
    /// The states of a majority of learners, this one included, are durable up to here: votes may be forgotten.
    pub forget: Box<dyn Fn(CommandNumber) + Send>,
    /// The store failed; called once, the learner does nothing more. The node must stop.
    pub failed: Box<dyn Fn(StorageError) + Send>,
    /// Both clocks.
    pub clock: Box<dyn Fn() -> Now + Send>,
    /// Who follows calls, if anybody does.
    pub tracer: Option<Arc<Tracer>>,
}
