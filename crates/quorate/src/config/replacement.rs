//! `[membership]`: what a cluster does about acceptors that fail (ADR 0034).

use std::time::Duration;

use super::layers::{ConfigError, Settings};
use super::{Cluster, DAY, Node, NodeRole, SECOND};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replacement {
    /// How long an acceptor is not heard until a spare takes its place; nothing: for ever.
    pub(crate) after: Option<Duration>,
    /// Whether this node is a spare.
    pub(crate) spare: bool,
}

impl Replacement {
    pub(super) fn from_settings(settings: &Settings, node: &Node, cluster: &Cluster) -> Result<Self, ConfigError> {
        let key = "membership.replace_after";
        let is_off = settings.text(key)?.is_empty();
        let after = if is_off { None } else { Some(settings.duration(key, SECOND..=366 * DAY)?) };
        let spare = settings.flag("membership.spare")?;
        if spare && cluster.join.is_empty() {
            let needs = "a node that is listed in cluster.members is no spare; only one with cluster.join can stand by";
            return Err(settings.refuse("membership.spare", needs));
        }
        if spare && !node.roles.contains(&NodeRole::Acceptor) {
            let needs = "a spare comes to vote, so it needs \"acceptor\" in node.roles";
            return Err(settings.refuse("membership.spare", needs));
        }
        Ok(Self { after, spare })
    }
}
