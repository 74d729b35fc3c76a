//! Why a connection is refused, and what the dialer is told of it.

use protocol::NodeId;

use super::{Answer, HANDSHAKE_DEADLINE, Verdict, Versions, versions};
use crate::join::{Again, NotAdmitted};
use crate::tls::Failed;

/// Why a listener refuses a connection. The text goes to both nodes' logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no `Hello`.
    #[error("what connected is not a Quorate node")]
    NotAPeer,
    /// An HTTP client on the wrong port.
    #[error("an HTTP request came to the port for nodes; clients use the address of `listen.http`")]
    Http,
    /// It wants TLS, which this node does not have.
    #[error(
        "what connected speaks TLS, and this node has none: if it is a node, give both tls.peer_certificate, tls.peer_key \
         and tls.peer_ca, or neither"
    )]
    SpeaksTls,
    /// It has no TLS.
    #[error(
        "the nodes of this cluster speak TLS with each other, and the peer does not: give it tls.peer_certificate, \
         tls.peer_key and tls.peer_ca"
    )]
    NoTls,
    /// TLS came to nothing.
    #[error("TLS with the peer failed: {0}")]
    Tls(Failed),
    /// A good certificate, of somebody else.
    #[error("the certificate of the peer names {names}, and it would have to name {needed}: give each node its own")]
    OtherCertificate {
        /// What it names.
        names: String,
        /// What it would have to.
        needed: String,
    },
    /// Nothing, or not all of it, within [`HANDSHAKE_DEADLINE`].
    #[error("no handshake came within {}s", HANDSHAKE_DEADLINE.as_secs())]
    Silent,
    /// Too many others are shaking hands.
    #[error("too many connections are in their handshake")]
    TooMany,
    /// Another version.
    #[error("{}", versions::differ(*theirs, *ours))]
    Version {
        /// The dialer's.
        theirs: Versions,
        /// This node's.
        ours: Versions,
    },
    /// Another cluster.
    #[error(
        "the peer belongs to cluster {theirs:?}, this node to {}",
        if theirs == ours {
            "one of the same name and another id: they were restored from different backups, or only one of them was \
             (the file `ORIGIN` in a data directory names its backup), or the names in `cluster.members`, \
             `cluster.weights` or `cluster.majority_sets` differ between them, or one has lost its disk: run `quorate \
             recover --force` on that one".to_owned()
        } else {
            format!("{ours:?}: check the addresses under `cluster.members`")
        }
    )]
    OtherCluster {
        /// The dialer's.
        theirs: String,
        /// This node's.
        ours: String,
        /// The dialer's has begun, has the same name, and counts this node among its members, by its name and address.
        claims: bool,
    },
    /// Somebody uses this node's id, or this node dialed itself.
    #[error(
        "the peer says that it is node {0}, which is this node: two nodes have one id, or an address leads back to this node"
    )]
    OwnId(NodeId),
    /// Not a member, as far as this node knows. (The id of the cluster shows that the lists of members are the same.)
    #[error(
        "node {0} ({1:?}) is not a member of this cluster as this node knows it: one of the two was away while the members \
         changed, and learns of it from the others (`quorate status` shows how far it is). Only if it is node {0} that was removed \
         meanwhile: `quorate recover --force` there, while a majority set of the others is up, and it joins anew"
    )]
    UnknownNode(NodeId, String),
    /// It was a member, and is none any more: that is for good, since ids are never given out twice.
    #[error(
        "node {node} ({name:?}) was removed from this cluster: it can only join anew, under another id (`quorate recover \
         --force` there, where it is listed in `cluster.members`)"
    )]
    Removed {
        /// The dialer's id.
        node: NodeId,
        /// Its name.
        name: String,
        /// It meant this node, so that it may count its word.
        is_expected: bool,
    },
    /// It was removed, and its name is that of a member: it was recovered, and has lost its disk again.
    #[error(
        "node {node} ({name:?}) was removed from this cluster, in which {name:?} is node {now} by now, and comes with a new \
         disk: the one of node {now} was lost, or is not in its place. Put it back, or run `quorate recover` there: it joins \
         anew, under another id"
    )]
    LostDisk {
        /// The dialer's id.
        node: NodeId,
        /// Its name.
        name: String,
        /// Its id before it lost its disk.
        now: NodeId,
    },
    /// The id belongs to another name here.
    #[error("node {node} is {ours:?} here and calls itself {theirs:?}: `cluster.members` differs between the nodes")]
    OtherName {
        /// The dialer's id.
        node: NodeId,
        /// Its name here.
        ours: String,
        /// The name it gives.
        theirs: String,
    },
    /// It wanted another node.
    #[error(
        "the peer expects node {expects} here, and this is node {me} ({name:?}): check its addresses under `cluster.members`"
    )]
    WrongNode {
        /// Whom the dialer wanted.
        expects: NodeId,
        /// This node.
        me: NodeId,
        /// Its name.
        name: String,
    },
    /// It wanted this node under the id that it had before.
    #[error(
        "the peer expects node {expects} here, which was removed: this is node {me} ({name:?}) now. It hears of that from \
         the others when it has learnt from them (`quorate status` shows how far it is); wait for it"
    )]
    NotAnyMore {
        /// Whom the dialer wanted.
        expects: NodeId,
        /// This node.
        me: NodeId,
        /// Its name.
        name: String,
    },
    /// It learns what is issued in another way.
    #[error(
        "the peer has protocol.learn_from = {theirs:?}, this node has {ours:?}, and they would not learn from each other: give all nodes the same value and restart those that had another"
    )]
    OtherLearnFrom {
        /// The dialer's.
        theirs: String,
        /// This node's.
        ours: &'static str,
    },
    /// A lane that this version does not have.
    #[error("the peer asks for a lane with number {0}, which this version does not have")]
    UnknownLane(u32),
    /// The node had another disk.
    #[error(
        "node {0} comes with another disk than the one that this node knows of it: what it promised and voted for is not on \
         it, and it must not vote again as this node. Put the disk that it had back, or run `quorate recover` there: it \
         joins anew, under another id"
    )]
    OtherDisk(NodeId),
    /// The disk is an old copy.
    #[error(
        "node {node} comes with an old copy of its disk ({found}): what it promised and voted for since is not on it, and it \
         must not vote again as this node. Put the disk that it had back, or run `quorate recover` there: it joins anew, \
         under another id"
    )]
    OldDisk {
        /// The dialer.
        node: NodeId,
        /// By what that was seen.
        found: String,
    },
    /// Another process of that node is connected. Says nothing of the disk of this one.
    #[error("node {0} is connected already with another process; stop one of them")]
    ConnectedAlready(NodeId),
    /// The disk of the listener does not take the note.
    #[error("this node cannot note the disk of node {0}, since its own storage failed")]
    NotNoted(NodeId),
    /// The cluster, or this node, does not take a newcomer.
    #[error("{0:?} cannot join: {why}", why = .1.why)]
    NotAdmitted(String, NotAdmitted),
}

impl Refusal {
    /// The label in metrics, and what a warning is limited by.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotAPeer => "not_a_peer",
            Self::Http => "http",
            Self::SpeaksTls => "speaks_tls",
            Self::NoTls => "no_tls",
            Self::Tls(failed) => failed.reason,
            Self::OtherCertificate { .. } => "other_certificate",
            Self::Silent => "silent",
            Self::TooMany => "too_many",
            Self::Version { .. } => "version",
            Self::OtherCluster { .. } => "other_cluster",
            Self::OwnId(_) => "own_id",
            Self::UnknownNode(..) => "unknown_node",
            Self::Removed { .. } => "removed",
            Self::LostDisk { .. } => "lost_disk",
            Self::OtherName { .. } => "other_name",
            Self::WrongNode { .. } => "wrong_node",
            Self::NotAnyMore { .. } => "not_any_more",
            Self::OtherLearnFrom { .. } => "other_learn_from",
            Self::UnknownLane(_) => "unknown_lane",
            Self::OtherDisk(_) => "other_disk",
            Self::OldDisk { .. } => "old_disk",
            Self::ConnectedAlready(_) => "connected_already",
            Self::NotNoted(_) => "not_noted",
            Self::NotAdmitted(..) => "not_admitted",
        }
    }

    /// Whether the dialer is refused for its disk, for good.
    #[must_use]
    pub fn is_for_its_disk(&self) -> bool {
        matches!(self, Self::OtherDisk(_) | Self::OldDisk { .. } | Self::LostDisk { .. })
    }

    /// Whether it mostly passes soon: one of the two has not heard yet who the members are now.
    #[must_use]
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::UnknownNode(..) | Self::NotAnyMore { .. })
    }

    /// What the dialer is told.
    #[must_use]
    pub fn answer(&self) -> Answer {
        Answer {
            verdict: Some(Verdict::Refused(self.to_string())),
            disk_refused: self.is_for_its_disk(),
            connected_already: matches!(self, Self::ConnectedAlready(_)),
            removed: matches!(self, Self::Removed { is_expected: true, .. }),
            passes: self.passes(),
            ..Answer::default()
        }
    }

    /// What a newcomer is told.
    #[must_use]
    pub fn answer_to_newcomer(&self) -> Answer {
        let again = if let Self::NotAdmitted(_, why) = self { why.again } else { Again::Never };
        Answer { again: again.into(), ..self.answer() }
    }
}
