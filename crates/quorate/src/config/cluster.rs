//! What every node of a cluster must work out alike from `[cluster]`: pure. A node with `cluster.join` works nothing out:
//! it is told by the cluster who it is (module `seat`).
//!
//! A member's id is its place, from 1, among the names in order, so that the order of the list
//! does not matter. The id of the cluster covers all that must be the same on every node and
//! must not change under stored data (name, member names, weights or sets): nodes that disagree
//! refuse each other instead of forming majority sets that do not intersect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::majority::MajorityError;
use protocol::{ClusterId, MajoritySets, Membership, NodeId, membership};
use toml::Value;

use super::layers::{ConfigError, Settings, texts};
use super::{Node, NodeRole};

/// `[cluster]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Its name.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: ClusterId,
    /// This node. Nobody (0) until a node that joins is told.
    pub(crate) me: NodeId,
    /// The membership with which this node begins, itself included; what its state says later counts more. That of the
    /// configuration, or the one that a node that joined was told.
    pub(crate) start: Arc<Membership>,
    /// Where a node that is not listed there asks to be taken in.
    pub(crate) join: Vec<String>,
    /// Whether this node leaves the cluster when it is asked to stop.
    pub(crate) leaves_on_stop: bool,
}

/// One node that the configuration lists.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    /// Where the other nodes reach it, `host:port`.
    address: String,
}

impl Cluster {
    /// Reads and checks `[cluster]` for a node that its peers reach at `advertise`.
    pub(super) fn from_settings(settings: &Settings, node: &Node, advertise: &str) -> Result<Self, ConfigError> {
        let name = settings.text("cluster.name")?;
        if !membership::is_name(&name) {
            return Err(settings.wrong("cluster.name"));
        }
        let leaves_on_stop = match settings.text("cluster.leave")?.as_str() {
            "never" => false,
            "on_stop" => true,
            _ => return Err(settings.wrong("cluster.leave")),
        };
        let mut list = settings.texts("cluster.members")?;
        let join = settings.texts("cluster.join")?;
        if !join.is_empty() {
            check_join(settings, &join)?;
            let myself = parse_members(&[format!("{}={}", node.name, advertise)])
                .map_err(|why| settings.refuse("listen.advertise_peer", &why))?;
            let alone = Rule::Weights(myself.keys().map(|id| (*id, 1)).collect());
            let start = alone.genesis(settings, &myself)?;
            return Ok(Self { name, id: ClusterId([0; 16]), me: NodeId(0), start, join, leaves_on_stop });
        }
        if leaves_on_stop {
            return Err(settings.refuse(
                "cluster.leave",
                "a node that is listed in cluster.members comes back; only one with cluster.join can leave when it stops",
            ));
        }
        if list.is_empty() {
            list.push(format!("{}={advertise}", node.name));
        }
        let members = parse_members(&list).map_err(|why| settings.refuse("cluster.members", &why))?;
        let own = members.iter().find(|(_, member)| member.name == node.name);
        let Some((&me, _)) = own else {
            let names: Vec<&str> = members.values().map(|member| member.name.as_str()).collect();
            let needs = format!("must be one of cluster.members: {}", names.join(", "));
            return Err(settings.refuse("node.name", &needs));
        };
        let rule = Rule::from_settings(settings, &members)?;
        let start = rule.genesis(settings, &members)?;
        let accepts = node.roles.contains(&NodeRole::Acceptor);
        if accepts != start.is_acceptor(me) {
            let needs = if accepts {
                "this node has no part in any majority set of [cluster], so leave out \"acceptor\""
            } else {
                "this node counts in the majority sets of [cluster], so it needs \"acceptor\"; or give it weight 0 in \
                 cluster.weights, on every node"
            };
            return Err(settings.refuse("node.roles", needs));
        }
        Ok(Self { id: cluster_id(&name, &members, &rule), name, me, start, join, leaves_on_stop })
    }
}

/// What goes with `cluster.join`, and what does not.
fn check_join(settings: &Settings, join: &[String]) -> Result<(), ConfigError> {
    if let Some(wrong) = join.iter().find(|address| !membership::is_address(address)) {
        let needs = format!("{wrong:?} is not host:port, such as \"10.0.0.1:7080\", the listen.peer of a member");
        return Err(settings.refuse("cluster.join", &needs));
    }
    for (key, is_empty) in [
        ("cluster.members", settings.texts("cluster.members")?.is_empty()),
        ("cluster.weights", settings.value("cluster.weights").as_table().is_some_and(toml::Table::is_empty)),
        ("cluster.majority_sets", settings.value("cluster.majority_sets").as_array().is_some_and(Vec::is_empty)),
    ] {
        if !is_empty {
            let needs = "leave it out: a node with cluster.join is told by the cluster who the members are";
            return Err(settings.refuse(key, needs));
        }
    }
    Ok(())
}

/// How majority sets are told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Weights(BTreeMap<NodeId, u64>),
    Sets(BTreeSet<BTreeSet<NodeId>>),
}

impl Rule {
    fn from_settings(settings: &Settings, members: &BTreeMap<NodeId, Listed>) -> Result<Self, ConfigError> {
        let id_of = |key: &'static str, name: &str| {
            let found = members.iter().find(|(_, member)| member.name == name);
            found.map(|(id, _)| *id).ok_or_else(|| settings.refuse(key, &format!("{name:?} is not in cluster.members")))
        };
        let mut weights: BTreeMap<NodeId, u64> = members.keys().map(|id| (*id, 1)).collect();
        let table = settings.value("cluster.weights").as_table();
        let table = table.ok_or_else(|| settings.wrong("cluster.weights"))?;
        for (name, weight) in table {
            let weight = weight.as_integer().and_then(|weight| u64::try_from(weight).ok());
            let weight = weight.ok_or_else(|| settings.wrong("cluster.weights"))?;
            weights.insert(id_of("cluster.weights", name)?, weight);
        }
        let list = settings.value("cluster.majority_sets").as_array();
        let list: &Vec<Value> = list.ok_or_else(|| settings.wrong("cluster.majority_sets"))?;
        if list.is_empty() {
            return Ok(Self::Weights(weights));
        }
        if !table.is_empty() {
            return Err(settings.refuse("cluster.majority_sets", "give either these or cluster.weights, not both"));
        }
        let mut sets = BTreeSet::new();
        for set in list {
            let names = texts(set).ok_or_else(|| settings.wrong("cluster.majority_sets"))?;
            let ids = names.iter().map(|name| id_of("cluster.majority_sets", name));
            sets.insert(ids.collect::<Result<BTreeSet<NodeId>, ConfigError>>()?);
        }
        Ok(Self::Sets(sets))
    }

    fn majority_sets(
        &self,
        settings: &Settings,
        members: &BTreeMap<NodeId, Listed>,
    ) -> Result<MajoritySets, ConfigError> {
        let (key, made) = match self {
            Self::Weights(weights) => {
                // One that weighs nothing is no acceptor: its votes could only cost.
                let counting = weights.iter().filter(|(_, weight)| **weight > 0).map(|(id, weight)| (*id, *weight));
                ("cluster.weights", MajoritySets::weighted(counting))
            }
            Self::Sets(sets) => ("cluster.majority_sets", MajoritySets::explicit(sets.iter().cloned())),
        };
        made.map_err(|error| match error {
            MajorityError::Disjoint(left, right) => {
                let names = |set: &BTreeSet<NodeId>| -> String {
                    set.iter().map(|id| members[id].name.as_str()).collect::<Vec<_>>().join(", ")
                };
                let needs = format!(
                    "the majority sets {{{}}} and {{{}}} have no node in common; any two must share one",
                    names(&left),
                    names(&right)
                );
                settings.refuse(key, &needs)
            }
            MajorityError::Empty | MajorityError::Weights(_) => settings.refuse(key, &error.to_string()),
        })
    }

    fn genesis(&self, settings: &Settings, members: &BTreeMap<NodeId, Listed>) -> Result<Arc<Membership>, ConfigError> {
        let majority = self.majority_sets(settings, members)?;
        let member = |(id, member): (&NodeId, &Listed)| {
            let (name, address) = (member.name.clone(), member.address.clone());
            // Who may lead is for each node to say by its roles.
            (*id, protocol::Member { name, address, weight: majority.weight(*id), may_lead: true })
        };
        let rule = match self {
            Self::Weights(_) => membership::Rule::Weights,
            Self::Sets(sets) => membership::Rule::Sets(sets.clone()),
        };
        let genesis = Membership::genesis(members.iter().map(member).collect(), rule);
        genesis.map(Arc::new).map_err(|error| settings.refuse("cluster.members", &error.to_string()))
    }

    /// What the id of the cluster covers of the rule; nothing for a simple majority.
    fn identity(&self) -> String {
        match self {
            Self::Weights(weights) if weights.values().all(|weight| *weight == 1) => String::new(),
            Self::Weights(weights) => {
                let pairs: Vec<String> = weights.iter().map(|(id, weight)| format!("{id}={weight}")).collect();
                format!("weights {}", pairs.join(","))
            }
            Self::Sets(sets) => {
                let sets = sets.iter().map(|set| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
                format!("sets {}", sets.collect::<Vec<_>>().join(";"))
            }
        }
    }
}

fn cluster_id(name: &str, members: &BTreeMap<NodeId, Listed>, rule: &Rule) -> ClusterId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"quorate cluster\0");
    hasher.update(name.as_bytes());
    // Names hold no control characters, so that no two clusters give the same bytes.
    for member in members.values() {
        hasher.update(b"\0");
        hasher.update(member.name.as_bytes());
    }
    let identity = rule.identity();
    if !identity.is_empty() {
        hasher.update(b"\0\0");
        hasher.update(identity.as_bytes());
    }
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    ClusterId(id)
}

/// Reads `name=host:port` of each member and gives out the ids.
fn parse_members(list: &[String]) -> Result<BTreeMap<NodeId, Listed>, String> {
    let mut by_name: BTreeMap<&str, &str> = BTreeMap::new();
    let mut addresses = BTreeSet::new();
    for entry in list {
        let parts = entry.split_once('=').map(|(name, address)| (name.trim(), address.trim()));
        let (name, address) = parts
            .filter(|(name, address)| membership::is_name(name) && membership::is_address(address))
            .ok_or_else(|| format!("{entry:?} is not name=host:port, such as \"a=10.0.0.1:7080\""))?;
        if by_name.insert(name, address).is_some() {
            return Err(format!("the name {name:?} is there twice; each member needs one of its own"));
        }
        if !addresses.insert(address) {
            return Err(format!("the address {address:?} is there twice; each member needs one of its own"));
        }
    }
    let members = by_name.into_iter().zip(1..);
    Ok(members
        .map(|((name, address), id)| (NodeId(id), Listed { name: name.to_owned(), address: address.to_owned() }))
        .collect())
}
