//! What the learner asks of and tells the rest of its node.

use protocol::{CommandId, CommandNumber, NodeId, Now, Space};
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

/// What the learner asks of the rest of its node. Each is called on the learner's thread and returns at once.
pub struct LearnerPorts {
    /// Sends a message to another node, or drops it.
    pub send: Box<dyn Fn(NodeId, protocol::Message) + Send>,
    /// Everything up to this command is issued and applied here.
    pub learned: Box<dyn Fn(CommandId) + Send>,
    /// How much room the disk has now.
    pub space: Box<dyn Fn() -> Space + Send>,
    /// The store failed; called once, the learner does nothing more. The node must stop.
    pub failed: Box<dyn Fn(StorageError) + Send>,
    /// Both clocks.
    pub clock: Box<dyn Fn() -> Now + Send>,
}
