//! Changes of the membership (DESIGN 10, ADR 0025): `join`, `set_acceptor`, `remove`, `set_rule` (module `rule`); and of
//! who leads, `hand_over` (module `lead`).
//!
//! They are functions like any other: executed by the leader, once for each request id. What they must know besides
//! the state, which nodes are heard and how far each is, comes through the context like time and chance
//! ([`Cluster`]); only what follows from it, the new membership, is replicated. With `dry_run` they say what they
//! would do.
//!
//! A change is refused when the nodes that are heard would not contain a majority set after it, and while the one
//! before is not in force at a majority set. That is for the sake of progress; agreement needs neither, nor that the
//! majority sets before and after a change meet (ADR 0026).

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::membership::MembershipError;
use protocol::{CommandNumber, Member, Membership, NodeId, StateError, membership};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::context::{ExecutionContext, Heard};
use crate::function::{Failure, Function, Refusal};
use crate::typed::{TypedFunction, present, without_null_defaults};

mod lead;
mod rule;

pub use lead::successor;

/// A node this many commands behind the leader has not caught up: about what a few seconds of load are. It would hold
/// up what needs its vote until it has.
pub const BEHIND_MAX: u64 = 4_096;

/// The functions of this library.
#[must_use]
pub fn functions() -> Vec<Arc<dyn Function>> {
    vec![
        Arc::new(TypedFunction::new(
            "cluster.join",
            "Adds a node, which learns only; perhaps in the place of another. A node that starts with `cluster.join` asks for it by itself.",
            join,
        )),
        Arc::new(TypedFunction::new(
            "cluster.set_acceptor",
            "Makes a node that has caught up an acceptor, changes what its vote weighs, or makes it a learner.",
            set_acceptor,
        )),
        Arc::new(TypedFunction::new("cluster.remove", "Removes a node from the cluster.", remove)),
        Arc::new(TypedFunction::new(
            "cluster.set_rule",
            "Says which sets of acceptors are majority sets: a list, those of zones, or whichever weigh more than half.",
            rule::set_rule,
        )),
        Arc::new(TypedFunction::new(
            "cluster.hand_over",
            "Begins to hand the lead over to a node that could lead; that it does is to be seen in GET /v1/cluster.",
            lead::hand_over,
        )),
    ]
}

/// A node, by id or by name.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum NodeArgument {
    /// Its id.
    Id(u64),
    /// Its name.
    Name(String),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = without_null_defaults)]
struct Join {
    /// The name of the node: letters, digits, `.`, `_`, `-`. No other node has it; but a node of the same name and
    /// address that is not heard is removed.
    name: String,
    /// Where the other nodes reach it, `host:port`. No other node has it, as with the name.
    address: String,
    /// The node, by id or name, that it takes the place of: that one is removed.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "NodeArgument")]
    replaces: Option<NodeArgument>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = without_null_defaults)]
struct SetAcceptor {
    /// The node, by id or name.
    node: NodeArgument,
    /// What its vote weighs; 0: it only learns. If absent: as much as that of the node that it replaces, or 1.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "u64")]
    weight: Option<u64>,
    /// The acceptor, by id or name, that it takes the place of, in the same change: that one only learns.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "NodeArgument")]
    replaces: Option<NodeArgument>,
    /// With `replaces`: that one is removed.
    #[serde(default)]
    for_good: bool,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Remove {
    /// The node, by id or name.
    node: NodeArgument,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Serialize, JsonSchema)]
struct Changed {
    /// The node that this is about, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<u64>,
    /// The membership afterwards.
    membership: Value,
}

fn join(context: &mut ExecutionContext<'_>, arguments: Join) -> Result<Changed, Failure> {
    let now = in_force(context)?;
    let place = match &arguments.replaces {
        Some(replaced) => Some(find(&now, replaced)?),
        // It is gone, or it is this one, which comes back without its disk.
        None => now.nodes().iter().find(|(_, member)| is_same(member, &arguments)).map(|(node, _)| *node),
    };
    if let Some(place) = place.filter(|place| (context.cluster().heard)().contains_key(place)) {
        let text =
            format!("node {} is heard; stop it first, or join under another name and address", name_of(&now, place));
        return Err(refusal("still_heard", text, true));
    }
    let mut left = now.clone();
    if let Some(place) = place {
        left = left.without(place).map_err(refused)?;
    }
    let (next, id) = left.joined(&arguments.name, &arguments.address).map_err(refused)?;
    change(context, &now, &next, Some(id), arguments.dry_run)
}

fn is_same(member: &Member, arguments: &Join) -> bool {
    (&member.name, &member.address) == (&arguments.name, &arguments.address)
}

fn set_acceptor(context: &mut ExecutionContext<'_>, arguments: SetAcceptor) -> Result<Changed, Failure> {
    let now = in_force(context)?;
    let node = find(&now, &arguments.node)?;
    let replaced = arguments.replaces.as_ref().map(|replaced| find(&now, replaced)).transpose()?;
    if let Some(replaced) = replaced.filter(|replaced| *replaced == node || !now.is_acceptor(*replaced)) {
        let text = format!("{} is no other acceptor; GET /v1/cluster lists them", name_of(&now, replaced));
        return Err(refusal("not_an_acceptor", text, false));
    }
    let like = replaced.and_then(|replaced| now.node(replaced)).map_or(1, |replaced| replaced.weight);
    let mut next = now.weighing(node, arguments.weight.unwrap_or(like)).map_err(refused)?;
    if let Some(replaced) = replaced {
        let left = if arguments.for_good { next.without(replaced) } else { next.weighing(replaced, 0) };
        next = left.map_err(refused)?;
    }
    if next.is_acceptor(node) && !now.is_acceptor(node) {
        check_caught_up(context, &now, node)?;
    }
    change(context, &now, &next, Some(node), arguments.dry_run)
}

fn remove(context: &mut ExecutionContext<'_>, arguments: Remove) -> Result<Changed, Failure> {
    let now = in_force(context)?;
    let node = find(&now, &arguments.node)?;
    let next = now.without(node).map_err(refused)?;
    change(context, &now, &next, Some(node), arguments.dry_run)
}

/// The membership that this command would follow.
fn in_force(context: &mut ExecutionContext<'_>) -> Result<Membership, Failure> {
    match context.get(&membership::key())? {
        Some(entry) => Membership::read(&entry).map_err(|error| Failure::State(StateError(error.to_string()))),
        None => Ok(context.cluster().membership.clone()),
    }
}

fn find(membership: &Membership, node: &NodeArgument) -> Result<NodeId, Failure> {
    let found = match node {
        NodeArgument::Id(id) => Some(NodeId(*id)).filter(|id| membership.node(*id).is_some()),
        NodeArgument::Name(name) => membership.named(name),
    };
    found.ok_or_else(|| {
        let asked = match node {
            NodeArgument::Id(id) => id.to_string(),
            NodeArgument::Name(name) => format!("{name:?}"),
        };
        let names: Vec<&str> = membership.nodes().values().map(|member| member.name.as_str()).collect();
        refusal("unknown_node", format!("there is no node {asked}; the nodes are {}", names.join(", ")), false)
    })
}

/// A node that has not caught up would be a vote that is missing.
fn check_caught_up(context: &ExecutionContext<'_>, membership: &Membership, node: NodeId) -> Result<(), Failure> {
    let name = name_of(membership, node);
    let (me, heard) = (context.cluster().me, context.cluster().heard());
    let newest = heard.values().map(|heard| heard.applied).max().unwrap_or_default();
    let Some(Heard { applied, speaks, hears, .. }) = heard.get(&node) else {
        let text = format!("node {name} is not heard; start it, and see that the leader's node can reach it");
        return Err(refusal("not_caught_up", text, true));
    };
    if !speaks {
        let text =
            format!("the acceptor of node {name} is silent; its log and its /readyz say why, and what it waits for");
        return Err(refusal("not_caught_up", text, true));
    }
    // Its own words come over connections that it made. What it must hear comes over those that lead to its address.
    if node != me && !hears.contains(&me) {
        let address = membership.node(node).map_or("", |member| member.address.as_str());
        let text = format!(
            "node {name} is heard, and does not hear the leader's node: see that {address} (its listen.advertise_peer) can be \
             reached from there"
        );
        return Err(refusal("not_connected", text, true));
    }
    let has_nothing = *applied == CommandNumber::NULL && newest > *applied;
    if has_nothing || applied.0.saturating_add(BEHIND_MAX) < newest.0 {
        let text = format!("node {name} has applied {applied} of {newest} commands; wait until it has caught up");
        return Err(refusal("not_caught_up", text, true));
    }
    Ok(())
}

/// Whether those that are heard have applied the change that made this membership, as far as the next one needs it: a majority set
/// that speaks.
#[must_use]
pub fn is_in_force(membership: &Membership, heard: &BTreeMap<NodeId, Heard>) -> bool {
    let number = membership.number();
    let knows = |node: NodeId| heard.get(&node).is_some_and(|heard| heard.speaks && heard.applied >= number);
    number == CommandNumber::NULL || membership.majority().holds(knows)
}

/// Writes the new membership, if it is another one and nothing is in its way.
fn change(
    context: &mut ExecutionContext<'_>,
    now: &Membership,
    next: &Membership,
    node: Option<NodeId>,
    dry_run: bool,
) -> Result<Changed, Failure> {
    let (me, heard) = (context.cluster().me, context.cluster().heard());
    if !is_in_force(now, &heard) {
        let number = now.number();
        let text = format!("the change before this one, command {number}, is not in force everywhere yet; ask again");
        return Err(refusal("another_change", text, true));
    }
    let hears_me = |node: NodeId, heard: &Heard| node == me || heard.hears.contains(&me);
    let votes = |node: NodeId| heard.get(&node).is_some_and(|heard| heard.speaks && hears_me(node, heard));
    if !next.majority().holds(votes) {
        let absent = next.majority().nodes().iter().filter(|node| !votes(**node));
        let absent: Vec<String> = absent.map(|node| name_of(next, *node)).collect();
        let text = format!(
            "the acceptors that speak, and that the leader's node hears and is heard by, would be no majority set any more; \
             bring back {} first",
            absent.join(", ")
        );
        return Err(refusal("would_lose_majority", text, true));
    }
    if !heard.iter().any(|(node, heard)| heard.can_lead && next.may_lead(*node)) {
        let text = "no node that is heard could lead then; give another one the role `leader` (node.roles) first";
        return Err(refusal("nobody_may_lead", text.to_owned(), true));
    }
    let is_other = (next.nodes(), next.rule()) != (now.nodes(), now.rule());
    if is_other && !dry_run {
        context.change_membership(next)?;
    }
    let membership = serde_json::from_slice(&next.to_value()).expect("it is JSON");
    Ok(Changed { node: node.map(|node| node.0), membership })
}

fn name_of(membership: &Membership, node: NodeId) -> String {
    membership.node(node).map_or_else(|| node.to_string(), |member| member.name.clone())
}

fn refused(error: MembershipError) -> Failure {
    let code = match &error {
        MembershipError::Name(_) | MembershipError::Address(_) | MembershipError::Sets(_) => {
            return Failure::InvalidArguments(error.to_string());
        }
        MembershipError::Nodes(0) | MembershipError::NoAcceptor => "last_acceptor",
        MembershipError::Nodes(_) => "too_many_nodes",
        MembershipError::NameTaken(_) => "name_taken",
        MembershipError::AddressTaken(_) => "address_taken",
        MembershipError::Weights(_) => "weights_out_of_range",
        MembershipError::Disjoint(..) => "two_disjoint_sets",
        MembershipError::NotInSets(..) => "not_in_majority_sets",
        MembershipError::NobodyLeads => "nobody_may_lead",
        MembershipError::Unknown(_) => "unknown_node",
        MembershipError::Id(..) | MembershipError::Reused(_) | MembershipError::NoIds => "no_ids",
        MembershipError::Unreadable(_) => return Failure::State(StateError(error.to_string())),
    };
    refusal(code, error.to_string(), false)
}

fn refusal(code: &'static str, message: String, may_pass: bool) -> Failure {
    Failure::Refused(Refusal { code, message, may_pass })
}

#[cfg(test)]
mod tests;
