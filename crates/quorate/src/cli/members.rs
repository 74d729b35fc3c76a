//! Arguments of the commands about who votes and who leads.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Connection;

/// `quorate acceptor`.
#[derive(Debug, Subcommand)]
pub(crate) enum Acceptor {
    /// Give a node a vote, or change what its vote weighs
    Add(Add),
    /// Take the vote of a node away, so that it only learns; or remove the node
    Remove(Remove),
    /// Give the vote of one node to another, in one change
    Replace(Replace),
}

/// `quorate acceptor add`.
#[derive(Debug, Args)]
#[command(
    after_help = "The node must be a member that has caught up (`quorate status`). A new node joins by itself: start it with\ncluster.join = [\"HOST:PORT\"], the listen.peer of some member.\n\nExamples:\n  quorate acceptor add d\n  quorate acceptor add d --dry-run"
)]
pub(crate) struct Add {
    /// The node, by name or id
    pub(crate) node: String,
    /// What its vote weighs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) weight: u64,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// `quorate acceptor remove`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  quorate acceptor remove d\n      it stays a member and learns\n  quorate acceptor remove d --for-good\n      it is no member any more: for one that is lost, or will not come back"
)]
pub(crate) struct Remove {
    /// The node, by name or id
    pub(crate) node: String,
    /// Remove the node from the cluster
    #[arg(long)]
    pub(crate) for_good: bool,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// `quorate acceptor replace`.
#[derive(Debug, Args)]
#[command(
    after_help = "The new one must be a member that has caught up (`quorate status`), as for `add`.\n\nExamples:\n  quorate acceptor replace c d\n      d votes with the weight of c, which only learns from then on\n  quorate acceptor replace c d --for-good\n      c is no member any more"
)]
pub(crate) struct Replace {
    /// The node that votes now, by name or id
    pub(crate) old: String,
    /// The node that is to vote in its place
    pub(crate) new: String,
    /// What its vote weighs, if not as much as that of the old one
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) weight: Option<u64>,
    /// Remove the old one from the cluster
    #[arg(long)]
    pub(crate) for_good: bool,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// What every change of the membership takes.
#[derive(Debug, Args)]
pub(crate) struct Change {
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait for what is in the way to pass, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

impl Acceptor {
    /// What they all take.
    pub(crate) fn change(&self) -> &Change {
        match self {
            Self::Add(Add { change, .. })
            | Self::Remove(Remove { change, .. })
            | Self::Replace(Replace { change, .. }) => change,
        }
    }
}

/// `quorate majority`.
#[derive(Debug, Subcommand)]
pub(crate) enum Majority {
    /// Say which sets of acceptors are majority sets: a list, those of zones, or whichever weigh more than half
    Set(SetMajority),
}

/// `quorate majority set`.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("rule").required(true).args(["sets", "zones", "weights"]),
    after_help = "Any two sets must share a node; the nodes that are named are the acceptors from then on, and must have caught up.\n\nExamples:\n  quorate majority set a,b b,c a,c\n  quorate majority set --zone east=a,b,c --zone west=d,e,f --zone third=g\n      a majority of the zones, with a majority of the nodes of each: the loss of one zone is survived\n  quorate majority set --weights\n      more than half of the weights, as at first (`quorate acceptor add NODE --weight W`)\n  quorate majority set a,b b,c a,c --dry-run"
)]
pub(crate) struct SetMajority {
    /// The majority sets, each of nodes by name or id with commas between
    #[arg(value_name = "NODE,NODE...", value_delimiter = None, value_parser = nodes)]
    pub(crate) sets: Vec<Nodes>,
    /// Instead: a zone and its nodes; given for each zone
    #[arg(long = "zone", value_name = "ZONE=NODE,NODE...", value_parser = zone)]
    pub(crate) zones: Vec<(String, Nodes)>,
    /// Instead: those that weigh more than half of all
    #[arg(long)]
    pub(crate) weights: bool,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// Some nodes, by name or id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nodes(pub(crate) Vec<String>);

fn nodes(text: &str) -> Result<Nodes, String> {
    let nodes: Vec<String> = text.split(',').map(|node| node.trim().to_owned()).collect();
    if nodes.iter().any(String::is_empty) {
        Err("must be nodes with commas between, such as a,b".to_owned())
    } else {
        Ok(Nodes(nodes))
    }
}

fn zone(text: &str) -> Result<(String, Nodes), String> {
    let wrong = || "must be a zone and its nodes, such as east=a,b,c".to_owned();
    let (zone, members) = text.split_once('=').filter(|(zone, _)| !zone.is_empty()).ok_or_else(wrong)?;
    Ok((zone.to_owned(), nodes(members).map_err(|_| wrong())?))
}

/// `quorate leader`.
#[derive(Debug, Subcommand)]
pub(crate) enum Leader {
    /// Hand the lead over to a node; calls go on, and none fails by it
    Transfer(Transfer),
}

/// `quorate leader transfer`.
#[derive(Debug, Args)]
#[command(
    after_help = "The node must have the role leader and have caught up (`quorate status`). A leader that is asked to\nstop (SIGTERM) hands over by itself.\n\nExamples:\n  quorate leader transfer b\n  quorate leader transfer b --dry-run"
)]
pub(crate) struct Transfer {
    /// The node, by name or id
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) change: Change,
}
