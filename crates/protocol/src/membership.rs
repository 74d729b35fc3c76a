//! The membership: which nodes there are, who votes, who may lead (DESIGN 10, ADR 0025).
//!
//! It is an entry of the replicated state like any other, under a [reserved key](key): JSON text that a person can
//! read. So it is in snapshots, digests, backups and the history without anything of its own. The number of the
//! command that wrote it is the *membership number*; a state without the entry has the *genesis* membership, which
//! the configuration lists, with the number 0.
//!
//! A change is a command that writes the entry, and a barrier: it is voted for under the membership before it, and
//! numbers above it are proposed only under the new one, after a ballot of its own. Any two memberships may follow
//! each other. What must hold of each alone (its majority sets intersect, B2) and of each with the one before (ids are
//! never given out twice) is checked here, wherever one is made or read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::body::Effect;
use crate::command::CommandNumber;
use crate::majority::{MajorityError, MajoritySets};
use crate::node::NodeId;
use crate::state::{Entry, Key, StateError, StateView};

/// The most nodes: each sends heartbeats to all others, and every learner is told of every command.
pub const NODES_MAX: usize = 64;
/// The most majority sets that are listed one by one: any two are compared.
pub const SETS_MAX: usize = 256;
/// The longest name of a node, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest address of a node, in bytes: the longest name of a host, a port, and room.
pub const ADDRESS_BYTES_MAX: usize = 300;
/// The form of the stored text. A version that does not know it must not take part.
const FORMAT: u32 = 1;

const KEY: &str = "quorate/membership";

/// The key of the entry.
///
/// # Panics
/// Never: it is short.
#[must_use]
pub fn key() -> Key {
    Key::new(KEY).expect("a short key")
}

/// Whether a command with these effects changes the membership: a barrier.
#[must_use]
pub fn is_changed_by(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| effect.key().as_str() == KEY)
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its name; no two members share one.
    pub name: String,
    /// Where the other nodes reach it, `host:port`.
    pub address: String,
    /// What its vote weighs; 0: it only learns.
    pub weight: u64,
    /// Whether it may lead.
    pub may_lead: bool,
}

/// Which sets of acceptors are majority sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Those that weigh more than half of all.
    #[default]
    Weights,
    /// These, and all that contain one. The weights of acceptors do not count.
    Sets(BTreeSet<BTreeSet<NodeId>>),
}

/// See the module. Whatever is one has passed all checks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    number: CommandNumber,
    nodes: BTreeMap<NodeId, Member>,
    last_id: NodeId,
    rule: Rule,
    majority: MajoritySets,
}

/// Why nodes and a rule are no membership.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// None, or too many.
    #[error("a cluster has 1 to {NODES_MAX} nodes, not {0}")]
    Nodes(usize),
    /// An id that was never given out, or nobody's.
    #[error("node {0} has an id that was not given out: ids go from 1 to {1}")]
    Id(NodeId, NodeId),
    /// A name that is none.
    #[error("{0:?} is no name of a node: 1 to {NAME_BYTES_MAX} letters, digits, '.', '_', '-'")]
    Name(String),
    /// A name twice.
    #[error("there is already a node named {0}")]
    NameTaken(String),
    /// An address that is none.
    #[error("{0:?} is no address of a node: host:port, at most {ADDRESS_BYTES_MAX} bytes")]
    Address(String),
    /// An address twice.
    #[error("there is already a node at {0}")]
    AddressTaken(String),
    /// No acceptor.
    #[error("at least one node must be an acceptor")]
    NoAcceptor,
    /// Weights without a majority.
    #[error("the weights sum to {0}; the sum must lie between 1 and 2^63")]
    Weights(u128),
    /// Two sets without a common node.
    #[error("the majority sets {{{0}}} and {{{1}}} have no node in common; any two must share one")]
    Disjoint(String, String),
    /// Too many sets.
    #[error("there are {0} majority sets; at most {SETS_MAX} can be listed")]
    Sets(usize),
    /// A node of a set that is no acceptor, or an acceptor that is in no set.
    #[error("node {0} is {1}; the acceptors are exactly the nodes of the majority sets")]
    NotInSets(String, &'static str),
    /// Nobody could lead.
    #[error("at least one node must be allowed to lead")]
    NobodyLeads,
    /// An id for another node than before, or a lower last id than before.
    #[error("node {0} was given out before; a node that is new gets an id of its own")]
    Reused(NodeId),
    /// No node of this id.
    #[error("there is no node {0}")]
    Unknown(NodeId),
    /// All ids are given out.
    #[error("there are no ids left")]
    NoIds,
    /// The stored text is none, or of a later version.
    #[error("the membership cannot be read: {0}")]
    Unreadable(String),
}

impl Membership {
    /// The genesis membership: what the configuration lists, ids from 1 without gaps.
    ///
    /// # Errors
    /// [`MembershipError`] when it is none.
    pub fn genesis(nodes: BTreeMap<NodeId, Member>, rule: Rule) -> Result<Self, MembershipError> {
        let last_id = nodes.keys().next_back().copied().unwrap_or_default();
        Self::new(CommandNumber::NULL, nodes, last_id, rule)
    }

    /// Nodes `1..=count` that all vote with weight 1 and may lead: for tests.
    ///
    /// # Panics
    /// When `count` is 0 or above [`NODES_MAX`].
    #[must_use]
    pub fn of_equals(count: u64) -> Arc<Self> {
        let member = |id| Member { name: format!("n{id}"), address: format!("n{id}:7080"), weight: 1, may_lead: true };
        let nodes = (1..=count).map(|id| (NodeId(id), member(id))).collect();
        Arc::new(Self::genesis(nodes, Rule::Weights).expect("some nodes"))
    }

    fn new(
        number: CommandNumber,
        nodes: BTreeMap<NodeId, Member>,
        last_id: NodeId,
        rule: Rule,
    ) -> Result<Self, MembershipError> {
        if !(1..=NODES_MAX).contains(&nodes.len()) {
            return Err(MembershipError::Nodes(nodes.len()));
        }
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for (id, member) in &nodes {
            if !(1..=last_id.0).contains(&id.0) {
                return Err(MembershipError::Id(*id, last_id));
            }
            if !is_name(&member.name) {
                return Err(MembershipError::Name(member.name.clone()));
            }
            if !is_address(&member.address) {
                return Err(MembershipError::Address(member.address.clone()));
            }
            if !names.insert(&member.name) {
                return Err(MembershipError::NameTaken(member.name.clone()));
            }
            if !addresses.insert(&member.address) {
                return Err(MembershipError::AddressTaken(member.address.clone()));
            }
        }
        if !nodes.values().any(|member| member.may_lead) {
            return Err(MembershipError::NobodyLeads);
        }
        let majority = majority_sets(&nodes, &rule)?;
        Ok(Self { number, nodes, last_id, rule, majority })
    }

    /// The number of the command that wrote it; 0 for the genesis membership, and for one that no command has
    /// written yet.
    #[must_use]
    pub fn number(&self) -> CommandNumber {
        self.number
    }

    /// All nodes. Every one of them learns.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeId, Member> {
        &self.nodes
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Member> {
        self.nodes.get(&id)
    }

    /// The node of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().find(|(_, member)| member.name == name).map(|(id, _)| *id)
    }

    /// The ids of all nodes: the learners.
    pub fn learners(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied()
    }

    /// Whether it is an acceptor.
    #[must_use]
    pub fn is_acceptor(&self, node: NodeId) -> bool {
        self.majority.nodes().contains(&node)
    }

    /// Whether it may lead.
    #[must_use]
    pub fn may_lead(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|member| member.may_lead)
    }

    /// The highest id ever given out.
    #[must_use]
    pub fn last_id(&self) -> NodeId {
        self.last_id
    }

    /// How majority sets are told.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The majority sets; their nodes are the acceptors.
    #[must_use]
    pub fn majority(&self) -> &MajoritySets {
        &self.majority
    }

    /// The same with another node, which learns only. Its id is one above all that were ever given out.
    ///
    /// # Errors
    /// [`MembershipError`] when name or address is no good or is taken, or there are too many.
    pub fn joined(&self, name: &str, address: &str) -> Result<(Self, NodeId), MembershipError> {
        let id = NodeId(self.last_id.0.checked_add(1).ok_or(MembershipError::NoIds)?);
        let member = Member { name: name.to_owned(), address: address.to_owned(), weight: 0, may_lead: true };
        let nodes = self.nodes.clone().into_iter().chain([(id, member)]).collect();
        Ok((self.next(nodes, id, self.rule.clone())?, id))
    }

    /// The same, in which the vote of a node weighs this much; 0: it only learns.
    ///
    /// # Errors
    /// [`MembershipError`] without such a node, without a majority, or where listed sets say otherwise.
    pub fn weighing(&self, node: NodeId, weight: u64) -> Result<Self, MembershipError> {
        let mut nodes = self.nodes.clone();
        nodes.get_mut(&node).ok_or(MembershipError::Unknown(node))?.weight = weight;
        self.next(nodes, self.last_id, self.rule.clone())
    }

    /// The same without a node.
    ///
    /// # Errors
    /// [`MembershipError`] without such a node, or where no majority would be left.
    pub fn without(&self, node: NodeId) -> Result<Self, MembershipError> {
        let mut nodes = self.nodes.clone();
        nodes.remove(&node).ok_or(MembershipError::Unknown(node))?;
        self.next(nodes, self.last_id, self.rule.clone())
    }

    /// The same with other majority sets. Where sets are listed, the acceptors are their nodes.
    ///
    /// # Errors
    /// [`MembershipError`] when they are none, two of them named where they are disjoint.
    pub fn ruled(&self, rule: Rule) -> Result<Self, MembershipError> {
        let mut nodes = self.nodes.clone();
        if let Rule::Sets(sets) = &rule {
            let listed: BTreeSet<NodeId> = sets.iter().flatten().copied().collect();
            if let Some(stranger) = listed.iter().find(|id| !nodes.contains_key(id)) {
                return Err(MembershipError::Unknown(*stranger));
            }
            for (id, member) in &mut nodes {
                member.weight = u64::from(listed.contains(id)) * member.weight.max(1);
            }
        }
        self.next(nodes, self.last_id, rule)
    }

    fn next(&self, nodes: BTreeMap<NodeId, Member>, last_id: NodeId, rule: Rule) -> Result<Self, MembershipError> {
        let next = Self::new(CommandNumber::NULL, nodes, last_id, rule)?;
        next.check_follows(self)?;
        Ok(next)
    }

    /// Whether it may follow `earlier`: nobody has an id that another one has had.
    ///
    /// # Errors
    /// [`MembershipError::Reused`] names the id.
    pub fn check_follows(&self, earlier: &Self) -> Result<(), MembershipError> {
        if self.last_id < earlier.last_id {
            return Err(MembershipError::Reused(earlier.last_id));
        }
        let reused = self.nodes.iter().find(|(id, member)| match earlier.nodes.get(id) {
            Some(before) => before.name != member.name,
            None => **id <= earlier.last_id,
        });
        reused.map_or(Ok(()), |(id, _)| Err(MembershipError::Reused(*id)))
    }

    /// The same, as a command with this number leaves it in the state.
    #[must_use]
    pub fn written_by(self, number: CommandNumber) -> Self {
        Self { number, ..self }
    }

    /// What a command writes.
    ///
    /// # Panics
    /// Never: plain data has a text.
    #[must_use]
    pub fn to_value(&self) -> Bytes {
        serde_json::to_vec_pretty(&self.to_text()).expect("plain data").into()
    }

    /// Reads what a command wrote.
    ///
    /// # Errors
    /// [`MembershipError`] when it is no membership of this version.
    pub fn read(entry: &Entry) -> Result<Self, MembershipError> {
        let unreadable = |error: serde_json::Error| MembershipError::Unreadable(error.to_string());
        // The format first: what a later one holds may look like anything.
        let Format { format } = serde_json::from_slice(&entry.value).map_err(unreadable)?;
        if format != FORMAT {
            let text = format!("it has format {format}, and this version knows {FORMAT}; start a later version");
            return Err(MembershipError::Unreadable(text));
        }
        let text: Text = serde_json::from_slice(&entry.value).map_err(unreadable)?;
        let count = text.nodes.len();
        let nodes: BTreeMap<NodeId, Member> = text.nodes.into_iter().map(NodeText::into_member).collect();
        if nodes.len() != count {
            return Err(MembershipError::Unreadable("an id is there twice".to_owned()));
        }
        let rule = text.majority_sets.map_or(Rule::Weights, |sets| {
            Rule::Sets(sets.into_iter().map(|set| set.into_iter().map(NodeId).collect()).collect())
        });
        Self::new(entry.version, nodes, NodeId(text.last_id), rule)
    }

    /// The membership in force in a state, if its number is `from` or a later one.
    ///
    /// # Errors
    /// [`StateError`] when the disk fails, or what is there is no membership of this version.
    pub fn stored_from(
        from: CommandNumber,
        state: &(impl StateView + ?Sized),
    ) -> Result<Option<Arc<Self>>, StateError> {
        let Some(entry) = state.get(&key())?.filter(|entry| entry.version >= from) else { return Ok(None) };
        Self::read(&entry).map(|stored| Some(Arc::new(stored))).map_err(|error| StateError(error.to_string()))
    }

    /// The same, if that is a later one than this.
    ///
    /// # Errors
    /// As [`Membership::stored_from`].
    pub fn later_in(&self, state: &(impl StateView + ?Sized)) -> Result<Option<Arc<Self>>, StateError> {
        Self::stored_from(self.number.next(), state)
    }

    fn to_text(&self) -> Text {
        let nodes = self.nodes.iter().map(|(id, member)| NodeText::of(*id, member)).collect();
        let majority_sets = match &self.rule {
            Rule::Weights => None,
            Rule::Sets(sets) => Some(sets.iter().map(|set| set.iter().map(|id| id.0).collect()).collect()),
        };
        Text { format: FORMAT, last_id: self.last_id.0, nodes, majority_sets }
    }
}

fn majority_sets(nodes: &BTreeMap<NodeId, Member>, rule: &Rule) -> Result<MajoritySets, MembershipError> {
    let acceptors = nodes.iter().filter(|(_, member)| member.weight > 0);
    let made = match rule {
        Rule::Weights => MajoritySets::weighted(acceptors.map(|(id, member)| (*id, member.weight))),
        Rule::Sets(sets) => {
            if sets.len() > SETS_MAX {
                return Err(MembershipError::Sets(sets.len()));
            }
            let listed: BTreeSet<NodeId> = sets.iter().flatten().copied().collect();
            let name = |id: &NodeId| nodes.get(id).map_or_else(|| id.to_string(), |member| member.name.clone());
            let acceptors: BTreeSet<NodeId> = acceptors.map(|(id, _)| *id).collect();
            if let Some(id) = listed.difference(&acceptors).next() {
                return Err(MembershipError::NotInSets(name(id), "in a majority set and no acceptor"));
            }
            if let Some(id) = acceptors.difference(&listed).next() {
                return Err(MembershipError::NotInSets(name(id), "an acceptor and in no majority set"));
            }
            MajoritySets::explicit(sets.iter().cloned())
        }
    };
    made.map_err(|error| match error {
        MajorityError::Empty => MembershipError::NoAcceptor,
        MajorityError::Weights(sum) => MembershipError::Weights(sum),
        MajorityError::Disjoint(left, right) => {
            let names = |set: &BTreeSet<NodeId>| {
                let names = set.iter().filter_map(|id| nodes.get(id)).map(|member| member.name.as_str());
                names.collect::<Vec<_>>().join(", ")
            };
            MembershipError::Disjoint(names(&left), names(&right))
        }
    })
}

/// Whether it may name a node or a cluster.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Whether it is `host:port` with a port above 0; an IPv6 address stands in brackets.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':').filter(|_| text.len() <= ADDRESS_BYTES_MAX) else { return false };
    let host_is_good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        }
    };
    host_is_good && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Of the stored text what every format has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The stored text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u32,
    last_id: u64,
    nodes: Vec<NodeText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    majority_sets: Option<Vec<Vec<u64>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeText {
    id: u64,
    name: String,
    address: String,
    /// 0: it only learns.
    weight: u64,
    may_lead: bool,
}

impl NodeText {
    fn of(id: NodeId, member: &Member) -> Self {
        let Member { name, address, weight, may_lead } = member.clone();
        Self { id: id.0, name, address, weight, may_lead }
    }

    fn into_member(self) -> (NodeId, Member) {
        let Self { id, name, address, weight, may_lead } = self;
        (NodeId(id), Member { name, address, weight, may_lead })
    }
}

#[cfg(test)]
mod tests;
