//! Who is there: the first two frames of every connection.
//!
//! ```text
//!   dialer                                   listener
//!     |  Hello (who, of which cluster, whom,    |
//!     |         which lane, which version)      |
//!     |---------------------------------------->|  judges
//!     |                 Welcome, or Refused     |
//!     |<----------------------------------------|
//!     |  frames of the lane, one direction ...  |
//!     |---------------------------------------->|
//! ```
//!
//! These two frames are the same in every version for ever, so that nodes of different
//! versions can find out whether both speak a common one (module `versions`), or at least tell each other: fields are added, never
//! changed or removed, and recorded frames of both are in the tests. The dialer sends nothing before it is welcome.
//!
//! `Hello` also carries the settings that all nodes must share and that are not in the cluster's
//! id, because they may change under existing data (ADR 0016). Nodes that learn in different ways
//! would wait for messages that nobody sends, so they refuse each other; with different windows
//! they only work less well, so they say so. So they do where one of them asks callers for tokens and the other does not, which
//! is an open door, and how a cluster is while that is being switched on. A node that does not say its settings is taken.
//!
//! And it carries the *disk* of the dialer (module `disk`): the listener's node judges whether that is the disk that it
//! knows of the dialer, and notes it durably before it says `Welcome`. A node that does not say its disk is taken.
//! While one process of a node is connected, another one is refused before its disk is looked at (module `processes`).
//!
//! Where the nodes have TLS (module `tls`) it comes first, and each side is proven to be the node that the other one is
//! told it is. A refusal is a sentence for the operators of both nodes. It proves nothing about who sent it: without TLS,
//! this keeps mistakes out, not attackers. DESIGN 11.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use protocol::{ClusterId, LearnFrom, NodeId};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::disk::Disk;
use crate::join::{Admission, Again, Join};
use crate::lane::Lane;
use crate::stream::Proven;
use crate::tls::{self, Failed, Name};

mod frames;
mod refusal;
mod versions;

pub(crate) use frames::{ReadError, read, read_within, write, write_within};
pub use refusal::Refusal;
pub use versions::Versions;

/// The first field of the first frame.
pub const MAGIC: &[u8] = b"quorate-peer";

/// The largest payload of a handshake frame: names and a sentence. What a stranger can make us
/// allocate.
pub const HANDSHAKE_BYTES_MAX: usize = 4 << 10;

/// How many characters of a name that a stranger gives are repeated in logs and answers.
const NAME_SHOWN: usize = 64;

/// How long the handshake may take on either side. A healthy one takes two round trips.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);

/// What the dialer says.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// [`MAGIC`].
    #[prost(bytes = "bytes", tag = "1")]
    pub magic: Bytes,
    /// [`Versions::newest`] of the dialer.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// The dialer's cluster, 16 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub cluster: Bytes,
    /// Its name, for the refusal's text.
    #[prost(string, tag = "4")]
    pub cluster_name: String,
    /// The dialer.
    #[prost(uint64, tag = "5")]
    pub node: u64,
    /// Its name.
    #[prost(string, tag = "6")]
    pub node_name: String,
    /// Whom it expects to reach.
    #[prost(uint64, tag = "7")]
    pub expects: u64,
    /// [`Lane::number`].
    #[prost(uint32, tag = "8")]
    pub lane: u32,
    /// [`LearnFrom::name`] of the dialer; nothing from a version that does not say it.
    #[prost(string, optional, tag = "9")]
    pub learn_from: Option<String>,
    /// The dialer's window, in commands; nothing from a version that does not say it.
    #[prost(uint64, optional, tag = "10")]
    pub window: Option<u64>,
    /// The dialer's disk; nothing from a version that does not say it.
    #[prost(message, optional, tag = "11")]
    pub disk: Option<Disk>,
    /// The dialer is no node yet, and wants to become one (module `join`); it has no id, cluster, lane or disk.
    #[prost(message, optional, tag = "12")]
    pub join: Option<Join>,
    /// [`Versions::oldest`] of the dialer; nothing from one that speaks a single version.
    #[prost(uint32, optional, tag = "13")]
    pub oldest: Option<u32>,
    /// The name of whom it expects to reach; nothing from a version that does not say it.
    #[prost(string, optional, tag = "14")]
    pub expects_name: Option<String>,
    /// Whether the dialer asks its callers for tokens; nothing from a version that does not say it.
    #[prost(bool, optional, tag = "15")]
    pub auth: Option<bool>,
}

/// What the listener answers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    /// One of the two.
    #[prost(oneof = "Verdict", tags = "1, 2")]
    pub verdict: Option<Verdict>,
    /// Refused for its disk: the dialer must not go on with it.
    #[prost(bool, tag = "3")]
    pub disk_refused: bool,
    /// Refused while another process of the dialer's node is connected: it may try again.
    #[prost(bool, tag = "4")]
    pub connected_already: bool,
    /// What a newcomer is to be; only where one asked.
    #[prost(message, optional, tag = "5")]
    pub admission: Option<Admission>,
    /// Whether a newcomer that is refused may ask again.
    #[prost(enumeration = "Again", tag = "6")]
    pub again: i32,
    /// Refused, since the dialer was a member and was removed; not said by a version that does not say it.
    #[prost(bool, tag = "7")]
    pub removed: bool,
    /// Refused, since one of the two has not heard yet who the members are now; not said by a version that does not say it.
    #[prost(bool, tag = "8")]
    pub passes: bool,
}

/// Whether the dialer is welcome.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Verdict {
    /// Yes: it may send.
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    /// No, and why, in a sentence. The listener closes.
    #[prost(string, tag = "2")]
    Refused(String),
}

/// Who the listener is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Welcome {
    /// [`Versions::newest`] of the listener.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The listener.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// Its name.
    #[prost(string, tag = "3")]
    pub node_name: String,
    /// It has durably noted the dialer's disk for the dialer, and knows no other one.
    #[prost(bool, tag = "4")]
    pub noted: bool,
    /// [`Versions::oldest`] of the listener; nothing from one that speaks a single version.
    #[prost(uint32, optional, tag = "5")]
    pub oldest: Option<u32>,
}

/// Who this node is, as it says in handshakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// This node.
    pub me: NodeId,
    /// Its name.
    pub name: String,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The cluster's name.
    pub cluster_name: String,
    /// How its cluster learns what is issued.
    pub learn_from: LearnFrom,
    /// How many commands its leader may propose beyond the last issued one.
    pub window: u64,
    /// Whether its callers need tokens.
    pub auth: bool,
    /// What it speaks: [`Versions::SPOKEN`], but in tests.
    pub versions: Versions,
}

/// What a node knows of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Another member of now, of this name.
    Member(String),
    /// It was given out, and that node was removed since; and which member has the dialer's name now.
    Removed(Option<NodeId>),
    /// It was not given out, as far as this node knows.
    Unknown,
}

/// A name that somebody gave, cut for logs and answers.
pub(crate) fn shown(name: &str) -> String {
    name.chars().take(NAME_SHOWN).collect()
}

/// Why a dialer is not welcome.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The connection broke, or was closed without an answer.
    #[error("the connection broke during the handshake: {0}")]
    Broken(io::Error),
    /// TLS failed, on this side or on the other.
    #[error("TLS with the peer failed: {0}")]
    Tls(Failed),
    /// The certificate is good, and that of somebody else.
    #[error(
        "the certificate of what answers at this address names {0}: check `cluster.members`, and `tls.peer_certificate` there"
    )]
    OtherCertificate(String),
    /// No answer within [`HANDSHAKE_DEADLINE`].
    #[error("no answer to the handshake within {}s", HANDSHAKE_DEADLINE.as_secs())]
    Silent,
    /// The bytes are no answer.
    #[error("what answers at this address is not a Quorate node")]
    NotAPeer,
    /// The listener's sentence.
    #[error("the peer refused the connection: {0:?}")]
    Refused(String),
    /// The listener's sentence: which mostly is not so any more soon.
    #[error("the peer refused the connection: {0:?}")]
    NotYet(String),
    /// The listener's sentence: this node must not go on with its disk.
    #[error("the peer refused the disk of this node: {0:?}")]
    DiskRefused(String),
    /// The listener's sentence: another process of this node is connected there.
    #[error("the peer refused the connection: {0:?}")]
    ConnectedAlready(String),
    /// The listener's sentence: this node is no member any more.
    #[error("the peer refused the connection: {0:?}")]
    Removed(String),
    /// Welcome, but by a node of another version.
    #[error("{}", versions::differ(*theirs, *ours))]
    Version {
        /// What it speaks.
        theirs: Versions,
        /// What this node speaks.
        ours: Versions,
    },
    /// Welcome, but by somebody else.
    #[error("node {node} ({name:?}) answers at this address: check `cluster.members`")]
    WrongNode {
        /// Who answered.
        node: NodeId,
        /// Its name.
        name: String,
    },
}

impl From<ReadError> for DialError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => error.into(),
            ReadError::Garbage { .. } => Self::NotAPeer,
        }
    }
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Failed::in_io(&error).map_or(Self::Broken(error), Self::Tls)
    }
}

impl DialError {
    /// The label in metrics, and what a warning is limited by.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Broken(_) => "broken",
            Self::Tls(failed) => failed.reason,
            Self::OtherCertificate(_) => "other_certificate",
            Self::Silent => "silent",
            Self::NotAPeer => "not_a_peer",
            Self::Refused(_) | Self::DiskRefused(_) | Self::ConnectedAlready(_) | Self::Removed(_) => "refused_by_peer",
            Self::NotYet(_) => "not_yet",
            Self::Version { .. } => "version",
            Self::WrongNode { .. } => "wrong_node",
        }
    }
}

impl Identity {
    /// What this node says when it dials `expects`.
    #[must_use]
    pub fn hello(&self, expects: NodeId, lane: Lane, disk: Option<Disk>) -> Hello {
        Hello {
            magic: Bytes::from_static(MAGIC),
            version: self.versions.newest,
            cluster: Bytes::copy_from_slice(&self.cluster.0),
            cluster_name: self.cluster_name.clone(),
            node: self.me.0,
            node_name: self.name.clone(),
            expects: expects.0,
            lane: lane.number(),
            learn_from: Some(self.learn_from.name().to_owned()),
            window: Some(self.window),
            disk,
            join: None,
            oldest: self.versions.said_oldest(),
            expects_name: None,
            auth: Some(self.auth),
        }
    }

    /// What this node says to a dialer that it takes, and whose disk it has noted or not.
    #[must_use]
    pub fn welcome(&self, noted: bool) -> Answer {
        let welcome = Welcome {
            version: self.versions.newest,
            node: self.me.0,
            node_name: self.name.clone(),
            noted,
            oldest: self.versions.said_oldest(),
        };
        Answer { verdict: Some(Verdict::Welcome(welcome)), ..Answer::default() }
    }

    /// Judges a dialer. `known` tells what there is to know of an id, for a dialer of that name.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies: version before cluster before ids before settings,
    /// since each is meaningless where the one before it differs.
    pub fn judge(&self, hello: &Hello, known: impl Fn(NodeId, &str) -> Known) -> Result<(NodeId, Lane), Refusal> {
        let (node, expects) = (NodeId(hello.node), NodeId(hello.expects));
        let theirs = || shown(&hello.node_name);
        self.judge_version(hello)?;
        if hello.cluster != self.cluster.0[..] {
            return Err(self.other_cluster(hello));
        }
        if node == self.me {
            return Err(Refusal::OwnId(node));
        }
        let name = match known(node, &hello.node_name) {
            Known::Member(name) => name,
            // One with an empty disk that is listed begins again under the id that its list gives it.
            Known::Removed(Some(now)) if hello.disk.as_ref().is_some_and(Disk::is_new) => {
                return Err(Refusal::LostDisk { node, name: theirs(), now });
            }
            // The dialer counts who says so: a wrong address must not make two of one.
            Known::Removed(_) => {
                return Err(Refusal::Removed { node, name: theirs(), is_expected: expects == self.me });
            }
            Known::Unknown => return Err(Refusal::UnknownNode(node, theirs())),
        };
        if name != hello.node_name {
            return Err(Refusal::OtherName { node, ours: name, theirs: theirs() });
        }
        if expects != self.me {
            let (me, name) = (self.me, self.name.clone());
            return Err(match known(expects, &name) {
                Known::Removed(_) => Refusal::NotAnyMore { expects, me, name },
                Known::Member(_) | Known::Unknown => Refusal::WrongNode { expects, me, name },
            });
        }
        self.judge_learn_from(hello)?;
        let lane = Lane::from_number(hello.lane).ok_or(Refusal::UnknownLane(hello.lane))?;
        Ok((node, lane))
    }

    /// Judges what is proven of a dialer that calls itself `node`, where this node has TLS (`has_tls`).
    pub(crate) fn judge_proof(&self, proven: &Proven, node: &str, has_tls: bool) -> Result<(), Refusal> {
        let says = Name { cluster: self.cluster_name.clone(), node: node.to_owned() };
        match proven {
            Proven::Nothing if has_tls => Err(Refusal::NoTls),
            Proven::Name(name) if *name != Some(says.clone()) => {
                Err(Refusal::OtherCertificate { names: tls::shown(name.as_ref()), needed: shown(&says.to_string()) })
            }
            Proven::Nothing | Proven::Name(_) => Ok(()),
        }
    }

    pub(crate) fn judge_version(&self, hello: &Hello) -> Result<(), Refusal> {
        if hello.magic != MAGIC {
            return Err(Refusal::NotAPeer);
        }
        let (theirs, ours) = (hello.versions(), self.versions);
        ours.common(theirs).map(drop).ok_or(Refusal::Version { theirs, ours })
    }

    pub(crate) fn other_cluster(&self, hello: &Hello) -> Refusal {
        // One that has begun: who lists this node by mistake must not stop it before he has anything to lose.
        let has_begun = hello.disk.as_ref().is_some_and(|disk| !disk.is_new());
        let claims =
            has_begun && hello.cluster_name == self.cluster_name && hello.expects_name.as_ref() == Some(&self.name);
        Refusal::OtherCluster { theirs: shown(&hello.cluster_name), ours: self.cluster_name.clone(), claims }
    }

    pub(crate) fn judge_learn_from(&self, hello: &Hello) -> Result<(), Refusal> {
        let (theirs, ours) = (hello.learn_from.as_deref(), self.learn_from.name());
        match theirs.filter(|theirs| *theirs != ours) {
            Some(theirs) => Err(Refusal::OtherLearnFrom { theirs: shown(theirs), ours }),
            None => Ok(()),
        }
    }

    /// The window of a dialer that has another one than this node.
    #[must_use]
    pub fn other_window(&self, hello: &Hello) -> Option<u64> {
        hello.window.filter(|theirs| *theirs != self.window)
    }

    /// Whether the dialer asks its callers for tokens and this node does not, or the reverse.
    #[must_use]
    pub fn other_auth(&self, hello: &Hello) -> bool {
        hello.auth.is_some_and(|theirs| theirs != self.auth)
    }
}

/// The dialer's side. Cancelled by the caller after [`HANDSHAKE_DEADLINE`]. Says whether the listener has noted the
/// dialer's disk.
///
/// # Errors
/// [`DialError`] unless the node that was expected says welcome.
pub async fn dial<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, hello: &Hello) -> Result<bool, DialError> {
    write(stream, hello).await?;
    let answer = read::<Answer, _>(stream).await?;
    let ours = hello.versions();
    match answer.verdict {
        Some(Verdict::Welcome(welcome)) if ours.common(welcome.versions()).is_none() => {
            Err(DialError::Version { theirs: welcome.versions(), ours })
        }
        Some(Verdict::Welcome(welcome)) if welcome.node != hello.expects => {
            Err(DialError::WrongNode { node: NodeId(welcome.node), name: welcome.node_name })
        }
        Some(Verdict::Welcome(welcome)) => Ok(welcome.noted),
        Some(Verdict::Refused(text)) if answer.disk_refused => Err(DialError::DiskRefused(text)),
        Some(Verdict::Refused(text)) if answer.connected_already => Err(DialError::ConnectedAlready(text)),
        Some(Verdict::Refused(text)) if answer.removed => Err(DialError::Removed(text)),
        Some(Verdict::Refused(text)) if answer.passes => Err(DialError::NotYet(text)),
        Some(Verdict::Refused(text)) => Err(DialError::Refused(text)),
        None => Err(DialError::NotAPeer),
    }
}

#[cfg(test)]
pub(crate) mod tests;
