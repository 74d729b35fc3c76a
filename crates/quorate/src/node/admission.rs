//! What a node says of a silent acceptor, as long as it is silent: why, for whom it waits, and what to do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use acceptor::core::{Silence, notes_needed};
use failure_detector::core::View;
use protocol::{Membership, NodeId};

use super::Node;
use super::disks::Disks;
use super::members::{REMOVED, what_to_do};
use super::router::Router;
use crate::config::Config;

/// How often the acceptor is told again who has noted its disk: a mailbox may have been full.
const TOLD_AGAIN: Duration = Duration::from_secs(1);
/// After how many of these it is said again, if nothing has changed before.
const SAID_AGAIN: u32 = 30;
/// What is left where nobody can be elected any more.
const RESTORE: &str = "take a backup (`quorate backup --local`) of the node that has applied the most (`quorate status`), \
                       and make a new cluster of it (`quorate restore`)";

/// Until the acceptor speaks.
pub(super) fn watch(node: &Node) -> impl Future<Output = ()> + use<> {
    let (config, view) = (Arc::clone(&node.config), node.view.clone());
    let (router, disks) = (Arc::clone(&node.router), Arc::clone(&node.disks));
    async move {
        let mut interval = tokio::time::interval(TOLD_AGAIN);
        let mut said = String::new();
        for round in 0_u32.. {
            interval.tick().await;
            let Some(silence) = disks.silence() else { return };
            disks.all_noted_by().into_iter().for_each(|peer| router.noted(peer));
            let why = Known::of(&config, &router, &disks, &view.borrow()).explain(silence);
            if round % SAID_AGAIN == 0 || why != said {
                tracing::warn!(reason = silence.name(), "the acceptor of this node is silent: {why}");
                said = why;
            }
            if silence == Silence::Replaced {
                return;
            }
        }
    }
}

/// What this node knows of the acceptors.
pub(super) struct Known {
    me: NodeId,
    membership: Arc<Membership>,
    /// What an operator is told of a node that was removed.
    removed: Option<&'static str>,
    /// Why that of this node is silent.
    silence: Option<Silence>,
    /// Who has noted the disk of this node.
    noted: BTreeSet<NodeId>,
    /// Others that are silent now, by their own words; that of those who are not heard speaks, once they are back.
    silent: BTreeSet<NodeId>,
    /// Others that are silent for ever.
    replaced: BTreeSet<NodeId>,
    /// Others that are not heard.
    away: BTreeSet<NodeId>,
}

impl Known {
    pub(super) fn of(config: &Config, router: &Router, disks: &Disks, view: &View) -> Self {
        let (me, membership) = (router.me(), router.membership());
        let is_member = membership.node(me).is_some() && !router.removal.is_certain();
        let silent =
            view.peers.iter().filter(|(_, peer)| peer.heard && peer.last.as_ref().is_some_and(|last| last.silent));
        let replaced = membership.learners().filter(|node| disks.is_replaced(*node));
        let away = view.peers.iter().filter(|(_, peer)| !peer.heard);
        Self {
            me,
            removed: (!is_member).then(|| what_to_do(config)),
            silence: disks.silence(),
            noted: disks.all_noted_by(),
            silent: silent.map(|(node, _)| *node).collect(),
            replaced: replaced.collect(),
            away: away.map(|(node, _)| *node).collect(),
            membership,
        }
    }

    fn names<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeId>) -> String {
        let name = |id: &NodeId| self.membership.node(*id).map_or_else(|| id.to_string(), |member| member.name.clone());
        nodes.into_iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// The others that are acceptors.
    fn others(&self) -> impl Iterator<Item = &NodeId> {
        self.membership.majority().nodes().iter().filter(|node| **node != self.me)
    }

    /// Whether the other nodes could elect somebody if all of them were there, and those did not vote.
    fn can_elect_without(&self, silent: &BTreeSet<NodeId>) -> bool {
        let is_there = |node| node != self.me && !self.replaced.contains(&node) && !silent.contains(&node);
        self.membership.majority().holds(is_there)
    }

    /// Who is silent, when nobody can be elected as long as that is so.
    pub(super) fn who_is_needed(&self) -> Option<String> {
        let speaks = |node| match self.silence {
            Some(_) if node == self.me => false,
            Some(_) | None => !self.silent.contains(&node) && !self.replaced.contains(&node),
        };
        if self.membership.majority().holds(speaks) {
            return None;
        }
        let own = self.silence.filter(|_| self.membership.is_acceptor(self.me));
        let own = own.map(|silence| format!("this node ({})", silence.name()));
        let others = self.names(self.others().filter(|node| !speaks(**node)));
        Some(own.into_iter().chain((!others.is_empty()).then_some(others)).collect::<Vec<_>>().join(", "))
    }

    /// Which acceptors are not heard, when the others cannot elect anybody.
    pub(super) fn who_is_away(&self) -> Option<String> {
        let votes = |node| match self.silence {
            Some(_) if node == self.me => false,
            Some(_) | None => ![&self.silent, &self.replaced, &self.away].iter().any(|set| set.contains(&node)),
        };
        let away = self.names(self.others().filter(|node| self.away.contains(node)));
        (!away.is_empty() && !self.membership.majority().holds(votes)).then_some(away)
    }

    /// Who can tell the state of this node, and who might if it were there.
    fn who_has_the_state(&self) -> [BTreeSet<NodeId>; 2] {
        let others = self.membership.learners().filter(|node| *node != self.me);
        let (away, here): (BTreeSet<_>, BTreeSet<_>) = others.partition(|node| self.away.contains(node));
        [&here - &self.silent, away]
    }

    /// A sentence.
    pub(super) fn explain(&self, silence: Silence) -> String {
        if let Some(what_to_do) = self.removed {
            return format!("{REMOVED}, and has no vote any more. {what_to_do}");
        }
        match silence {
            Silence::Fresh => format!(
                "its disk is new, and it neither votes nor leads until {} of the other nodes have noted it; start those \
                 that do not run (one that was recovered after a lost disk does not count): {}",
                notes_needed(self.membership.majority(), self.me),
                self.names(self.others().filter(|id| !self.noted.contains(id)))
            ),
            Silence::Replaced => "it has lost a disk and joined again: it learns and serves, and never votes or leads \
                 under this name; as long as that is so, the cluster stands the loss of one node less"
                .to_owned(),
            Silence::Damaged if !self.can_elect_without(&BTreeSet::new()) => format!(
                "its log was damaged, and votes may be lost; the others that vote hold no majority set without it, so it \
                 votes again only if one of them leads already: else nobody can lead any more; {RESTORE}"
            ),
            Silence::Damaged if !self.can_elect_without(&self.silent) => format!(
                "its log was damaged, and votes may be lost; silent, too: {}, and no majority set votes without them. This \
                 ends by itself only if a node leads still, or if the logs of those are whole (their /readyz says why they \
                 are silent): else no majority set can vote any more; {RESTORE}",
                self.names(self.others().filter(|id| self.silent.contains(id)))
            ),
            Silence::Damaged => {
                let how = self.who_is_away().map(|away| format!("; start those that are not heard: {away}"));
                format!(
                    "its log was damaged, and votes may be lost; it votes again when it has learnt from a leader and a \
                     majority what they may have been for{}",
                    how.as_deref().unwrap_or(", by itself")
                )
            }
            Silence::Behind => self.explain_behind(),
        }
    }

    fn explain_behind(&self) -> String {
        let lost = "its state was damaged or lost";
        let [has_it, away] = self.who_has_the_state();
        if !has_it.is_empty() {
            return format!(
                "{lost}, and is learnt again from the other nodes; it votes again when it has what it had, by itself"
            );
        }
        let silent = self.names(&self.silent);
        let silent = if silent.is_empty() { silent } else { format!("silent, too: {silent}; ") };
        if !away.is_empty() {
            return format!(
                "{lost}, and is learnt again from a node that has it; {silent}start those that are not heard: {}",
                self.names(&away)
            );
        }
        format!(
            "{lost}; {silent}it is learnt again, by itself, from one of them whose state is whole (its /readyz says `damaged` or \
             `fresh`). Where all of them are `behind`, nobody has it any more: make a new cluster from a backup (`quorate \
             restore`)"
        )
    }
}

#[cfg(test)]
mod tests {
    use protocol::Member;
    use protocol::membership::Rule;

    use super::*;

    fn known(weights: &[u64], silence: Silence, silent: &[u64]) -> Known {
        let member = |(id, weight): (u64, &u64)| {
            let (name, address) = (format!("n{id}"), format!("n{id}:1"));
            (NodeId(id), Member { name, address, weight: *weight, may_lead: true })
        };
        let members = (1..).zip(weights).map(member).collect();
        Known {
            me: NodeId(1),
            membership: Arc::new(Membership::genesis(members, Rule::Weights).expect("nodes")),
            removed: None,
            silence: Some(silence),
            noted: BTreeSet::new(),
            silent: silent.iter().copied().map(NodeId).collect(),
            replaced: BTreeSet::new(),
            away: BTreeSet::new(),
        }
    }

    fn replaced(known: Known, node: u64) -> Known {
        Known { replaced: BTreeSet::from([NodeId(node)]), ..known }
    }

    /// Catches an operator who is told to wait for what can never come: a damaged node without which nobody can be
    /// elected, be it one of two, the heavy one, one of the two that are left of three, or one of several that are silent;
    /// and one who is told to give up a cluster that heals.
    #[test]
    fn who_is_needed_for_every_majority_set_is_told_so() {
        let damaged = |weights: &[u64], silent: &[u64]| known(weights, Silence::Damaged, silent);
        let heals = |known: &Known| {
            let said = known.explain(Silence::Damaged);
            assert_eq!(said.ends_with("by itself"), !said.contains("quorate backup --local"), "{said}");
            assert_eq!(said.ends_with("by itself"), known.who_is_needed().is_none(), "{said}");
            said.ends_with("by itself")
        };
        assert!(!heals(&damaged(&[1, 1], &[])));
        assert!(heals(&damaged(&[1, 1, 1], &[])));
        assert!(!heals(&replaced(damaged(&[1, 1, 1], &[]), 3)));
        assert!(!heals(&damaged(&[2, 1, 1], &[])));
        assert!(heals(&damaged(&[1, 2, 1], &[])));
        assert!(heals(&damaged(&[0, 1, 1, 1], &[])), "it is no acceptor");
        let two = damaged(&[1, 1, 1], &[3]);
        assert!(!heals(&two));
        assert_eq!(two.who_is_needed().as_deref(), Some("this node (damaged), n3"));
        assert!(two.explain(Silence::Damaged).contains("silent, too: n3, and"), "{}", two.explain(Silence::Damaged));
        assert!(heals(&damaged(&[1, 1, 1, 1, 1], &[3])));
        assert!(!heals(&damaged(&[1, 1, 1, 1, 1], &[3, 4])));
        let speaks = Known { silence: None, ..damaged(&[1, 1, 1], &[2, 3]) };
        assert_eq!(speaks.who_is_needed().as_deref(), Some("n2, n3"), "what the third node says");
    }

    /// Catches an operator who is not told which node to start, where one is down and another one is damaged or has lost its
    /// state; and one who is told so where the others can do without.
    #[test]
    fn who_is_away_and_needed_is_named() {
        let away = |known: Known, away: &[u64]| Known { away: away.iter().copied().map(NodeId).collect(), ..known };
        let three = |silence, silent: &[u64], gone: &[u64]| away(known(&[1, 1, 1], silence, silent), gone);
        let damaged = three(Silence::Damaged, &[], &[3]);
        assert!(damaged.explain(Silence::Damaged).ends_with("start those that are not heard: n3"));
        assert_eq!((damaged.who_is_away().as_deref(), damaged.who_is_needed()), (Some("n3"), None));
        let five = away(known(&[1, 1, 1, 1, 1], Silence::Damaged, &[]), &[3]);
        assert_eq!(five.who_is_away(), None);
        assert!(five.explain(Silence::Damaged).ends_with("by itself"));
        let speaks = Known { silence: None, ..three(Silence::Damaged, &[2], &[3]) };
        assert_eq!(speaks.who_is_away().as_deref(), Some("n3"), "what the third node says");
        assert_eq!(Known { silent: BTreeSet::new(), ..speaks }.who_is_away(), None);

        let behind = |silent: &[u64], away: &[u64]| three(Silence::Behind, silent, away).explain(Silence::Behind);
        assert!(behind(&[2], &[]).ends_with("by itself"), "the third one has it");
        assert!(behind(&[2], &[3]).ends_with("silent, too: n2; start those that are not heard: n3"));
        assert!(behind(&[], &[2, 3]).ends_with("start those that are not heard: n2, n3"));
        let nobody = behind(&[2, 3], &[]);
        assert!(nobody.contains("silent, too: n2, n3; ") && nobody.contains("quorate restore"), "{nobody}");
    }

    /// Catches a node that was removed and is said to vote again by itself.
    #[test]
    fn a_node_that_was_removed_is_not_said_to_heal() {
        for silence in Silence::ALL {
            let removed = Known { removed: Some("Stop it."), ..known(&[1, 1, 1], silence, &[]) };
            assert_eq!(
                removed.explain(silence),
                "this node was removed from the cluster, and has no vote any more. Stop it."
            );
        }
    }
}
