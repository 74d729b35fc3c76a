//! What a node says of its disk when it connects, so that the others notice one that it lost, or had restored.
//!
//! The transport only carries this: what is on a disk, and whether a disk may be taken, the node says
//! ([`Disks`]).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use protocol::NodeId;

use crate::handshake::Refusal;

/// The disk of a dialer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Disk {
    /// Which one: 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// How often the node was started on it.
    #[prost(uint64, tag = "2")]
    pub starts: u64,
    /// Drawn at each start.
    #[prost(uint64, tag = "3")]
    pub run: u64,
    /// The round of its promise.
    #[prost(uint64, tag = "4")]
    pub promise_round: u64,
    /// The node of its promise.
    #[prost(uint64, tag = "5")]
    pub promise_node: u64,
    /// A number that none of its votes in the promised ballot is above; nothing where such votes may have been lost.
    #[prost(uint64, optional, tag = "6")]
    pub voted: Option<u64>,
    /// The node has lost a disk and does not vote or lead any more, so that this one need not be the one known.
    #[prost(bool, tag = "7")]
    pub recovering: bool,
    /// The node was told who it is when it joined: its id is not that of a list. Not said by a version that does not say it.
    #[prost(bool, tag = "8")]
    pub told: bool,
}

impl Disk {
    /// Whether nothing was ever promised with it, by a node that has its id from a list: it may be in the place of one that
    /// is lost. (A node that only learns never promises; it was told its id.)
    pub(crate) fn is_new(&self) -> bool {
        (self.promise_round, self.promise_node) == (0, 0) && !self.recovering && !self.told
    }
}

/// What the disk of this node is now. Must not block.
pub type Say = Arc<dyn Fn() -> Option<Disk> + Send + Sync>;
/// Whether the disk of a peer may be taken; `true` when it is durably noted as the only one of that peer. May block.
pub type Judge = Arc<dyn Fn(NodeId, Disk) -> Result<bool, Refusal> + Send + Sync>;

/// What the transport asks its node about disks.
#[derive(Clone)]
pub struct Disks {
    /// See [`Say`].
    pub say: Say,
    /// See [`Judge`].
    pub judge: Judge,
}

impl Disks {
    /// A node that says nothing of its disk and takes all others.
    #[must_use]
    pub fn unknown() -> Self {
        Self { say: Arc::new(|| None), judge: Arc::new(|_, _| Ok(false)) }
    }
}

impl fmt::Debug for Disks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disks").finish_non_exhaustive()
    }
}
