//! An acceptor that is not heard for `membership.replace_after` is removed, and a spare gets its vote (ADR 0034).
//!
//! The node that leads asks for it, by the same call as an operator. What would lose the majority, or give the vote to a
//! node that has not caught up, the function refuses. It cannot happen twice: the failed node is unknown after the first time.

use std::sync::Arc;
use std::time::Duration;

use failure_detector::core::View;
use functions::cluster::BEHIND_MAX;
use protocol::membership::Rule;
use protocol::message::Heartbeat;
use protocol::{CommandNumber, Membership, NodeId, Tick};
use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::super::outside;
use super::{Members, NotDone, VOTE_REFUSED, VOTE_WAIT, own_key};

/// How often it is looked: a part of the shortest `membership.replace_after`.
const LOOK: Duration = Duration::from_millis(250);
/// A look that comes so late: this process, or its machine, stood still. What it has not heard meanwhile says nothing.
const SLEPT: Duration = Duration::from_secs(1);

/// Who takes whose place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Replacement {
    failed: NodeId,
    spare: NodeId,
}

/// What a node knows that leads.
struct Scene<'a> {
    me: NodeId,
    /// A spare may lead.
    is_spare: bool,
    after: Duration,
    now: Tick,
    /// Since when it has led and was awake.
    leads_since: Tick,
    applied: CommandNumber,
    membership: &'a Membership,
    view: &'a View,
}

impl Scene<'_> {
    /// The first acceptor that has failed, and the first spare that can take its place, both by their ids.
    fn decide(&self) -> Option<Replacement> {
        // Who is in a listed set cannot be replaced before the rule is changed.
        if *self.membership.rule() != Rule::Weights {
            return None;
        }
        let failed = *self.membership.majority().nodes().iter().find(|node| self.has_failed(**node))?;
        let spare = self.membership.learners().find(|node| self.stands_by(*node))?;
        Some(Replacement { failed, spare })
    }

    fn words(&self) -> impl Iterator<Item = (NodeId, &Heartbeat)> {
        let heard = self.view.peers.iter().filter(|(_, peer)| peer.heard);
        heard.filter_map(|(id, peer)| peer.last.as_ref().map(|word| (*id, word)))
    }

    /// A node that another one hears has not failed: the link between it and this one has.
    fn has_failed(&self, node: NodeId) -> bool {
        let unheard_since = self.view.peers.get(&node).filter(|peer| !peer.heard).map(|peer| peer.since);
        node != self.me
            && unheard_since.is_some_and(|since| self.now.since(since.max(self.leads_since)) >= self.after)
            && !self.words().any(|(_, word)| word.hears.contains(&node))
    }

    fn stands_by(&self, node: NodeId) -> bool {
        let is_ready = |word: &Heartbeat| {
            let has_caught_up = word.applied.0.saturating_add(BEHIND_MAX) >= self.applied.0;
            // Who does not hear this node would be refused, again and again.
            let hears_me = word.hears.contains(&self.me);
            word.spare && !word.silent && hears_me && has_caught_up && word.applied >= self.membership.number()
        };
        let is_it = (node == self.me && self.is_spare) || self.words().any(|(id, word)| id == node && is_ready(word));
        is_it && !self.membership.is_acceptor(node)
    }
}

/// Since when this node has led and was awake.
#[derive(Default)]
struct Watch {
    leads_since: Option<Tick>,
    looked: Tick,
}

impl Watch {
    fn look(&mut self, leads: bool, now: Tick) -> Option<Tick> {
        let has_slept = now.since(self.looked) >= SLEPT;
        self.looked = now;
        self.leads_since = self.leads_since.filter(|_| !has_slept).or(Some(now)).filter(|_| leads);
        self.leads_since
    }
}

impl Members {
    /// Replaces acceptors that fail, while this node leads; one at a time.
    pub(super) async fn replace_failed(self: Arc<Self>) {
        let Some(after) = self.config.replacement.after else { return };
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut watch, mut said) = (Watch::default(), String::new());
        loop {
            looks.tick().await;
            let now = outside::now().tick;
            let Some(leads_since) = watch.look(self.status.is_leading(), now) else { continue };
            let membership = self.router.membership();
            let decided = Scene {
                me: self.me(),
                is_spare: self.config.replacement.spare && self.disks.silence().is_none(),
                after,
                now,
                leads_since,
                applied: self.queries.progress().applied,
                membership: &membership,
                view: &self.view.borrow(),
            }
            .decide();
            let Some(replacement) = decided else { continue };
            if let Err(why) = self.replace(replacement, &membership).await {
                let pause = if why.may_pass() { VOTE_WAIT } else { VOTE_REFUSED };
                let why = why.to_string();
                if why != said {
                    tracing::warn!(why, failed = %replacement.failed, spare = %replacement.spare, "an acceptor that is not heard cannot be replaced yet");
                    said = why;
                }
                tokio::time::sleep(pause).await;
            }
            // It was awake, and looked elsewhere.
            watch.looked = outside::now().tick;
        }
    }

    async fn replace(&self, replacement: Replacement, membership: &Membership) -> Result<(), NotDone> {
        let Replacement { failed, spare } = replacement;
        let arguments = json!({"node": spare.0, "replaces": failed.0, "for_good": true});
        // Of two such calls the second finds nobody to replace. A key that others can guess could be used up by them.
        let (number, _) = self.call("cluster.set_acceptor", &arguments, own_key("replace"), VOTE_WAIT).await?;
        metrics::counter!("quorate_membership_replacements_total").increment(1);
        let name = |node| membership.node(node).map(|member| member.name.clone()).unwrap_or_default();
        tracing::warn!(
            %failed, failed_name = name(failed), %spare, spare_name = name(spare), %number,
            "an acceptor was not heard for membership.replace_after: it is removed, and a spare has its vote"
        );
        // The next decision is one under the new membership.
        _ = tokio::time::timeout(VOTE_WAIT, self.membership_of(number)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use failure_detector::core::PeerView;

    use super::*;

    const ME: NodeId = NodeId(1);
    const AFTER: Duration = Duration::from_secs(10);

    fn seconds(seconds: u64) -> Tick {
        Tick(seconds * 1_000_000)
    }

    /// Three acceptors of five nodes; 4 and 5 are spares.
    fn membership() -> Membership {
        let [four, five] = [4, 5].map(NodeId);
        let learns = Membership::of_equals(5).weighing(four, 0).and_then(|next| next.weighing(five, 0));
        learns.expect("three are left").written_by(CommandNumber(7))
    }

    /// All are heard, and hear each other, as far as they are not among those that are down since second 100.
    fn view(down: &[u64]) -> View {
        let up: Vec<NodeId> = (1..=5).filter(|node| !down.contains(node)).map(NodeId).collect();
        let peer = |id: u64| {
            let heard = !down.contains(&id);
            let word =
                Heartbeat { hears: up.clone(), applied: CommandNumber(20_000), spare: id > 3, ..Heartbeat::default() };
            PeerView { heard, since: seconds(100), heard_at: None, last: Some(word) }
        };
        View { peers: (2..=5).map(|id| (NodeId(id), peer(id))).collect(), ..View::default() }
    }

    fn scene<'a>(now: Tick, leads_since: Tick, membership: &'a Membership, view: &'a View) -> Scene<'a> {
        let applied = CommandNumber(20_000);
        Scene { me: ME, is_spare: false, after: AFTER, now, leads_since, applied, membership, view }
    }

    fn decide(now: Tick, leads_since: Tick, membership: &Membership, view: &View) -> Option<(u64, u64)> {
        scene(now, leads_since, membership, view).decide().map(|Replacement { failed, spare }| (failed.0, spare.0))
    }

    fn edit(view: &mut View, node: u64, edit: impl FnOnce(&mut Heartbeat)) {
        edit(view.peers.get_mut(&NodeId(node)).and_then(|peer| peer.last.as_mut()).expect("a peer"));
    }

    /// Catches a node that is replaced too early, or though it was heard or this node slept meanwhile, or by a node that is
    /// no spare, or has not caught up; and one that is never replaced.
    #[test]
    fn who_is_not_heard_for_long_is_replaced_by_a_spare() {
        let (membership, late, early) = (membership(), seconds(110), seconds(0));
        let all = |view: &View| decide(late, early, &membership, view);
        assert_eq!(all(&view(&[])), None);
        assert_eq!(all(&view(&[3])), Some((3, 4)));
        assert_eq!(all(&view(&[2, 3])), Some((2, 4)), "one after the other");
        assert_eq!(decide(seconds(109), early, &membership, &view(&[3])), None);
        assert_eq!(decide(late, seconds(101), &membership, &view(&[3])), None, "it does not lead for so long");
        assert_eq!(decide(seconds(111), seconds(101), &membership, &view(&[3])), Some((3, 4)));
        assert_eq!(all(&view(&[3, 4])), Some((3, 5)));
        assert_eq!(all(&view(&[3, 4, 5])), None, "nobody stands by");
        assert_eq!(all(&view(&[4])), None, "a spare that is down");

        let mut again = view(&[3]);
        again.peers.get_mut(&NodeId(3)).expect("a peer").since = seconds(101);
        assert_eq!(all(&again), None, "it was heard in between");
        let mut elsewhere = view(&[3]);
        edit(&mut elsewhere, 5, |word| word.hears.push(NodeId(3)));
        assert_eq!(all(&elsewhere), None, "another node hears it");
        let mut unknown = view(&[3]);
        unknown.peers.remove(&NodeId(3));
        assert_eq!(all(&unknown), None);

        let not_ready: [fn(&mut Heartbeat); 5] = [
            |word| word.hears.clear(),
            |word| word.spare = false,
            |word| word.silent = true,
            |word| word.applied = CommandNumber(20_000 - BEHIND_MAX - 1),
            |word| word.applied = CommandNumber(6),
        ];
        for what in not_ready {
            let mut view = view(&[3]);
            edit(&mut view, 4, what);
            assert_eq!(all(&view), Some((3, 5)));
        }
    }

    /// Catches a replacement that the function would always refuse, and one of the leader itself.
    #[test]
    fn listed_sets_and_the_leader_are_left_alone() {
        let sets = [[1, 2], [2, 3], [1, 3]].map(|set| set.map(NodeId).into_iter().collect::<BTreeSet<_>>());
        let listed = membership().ruled(Rule::Sets(sets.into_iter().collect())).expect("any two share one");
        assert_eq!(decide(seconds(110), seconds(0), &listed, &view(&[3])), None);
        let mut own = view(&[]);
        own.peers.insert(ME, PeerView::default());
        assert_eq!(decide(seconds(110), seconds(0), &membership(), &own), None);
    }

    /// Catches a spare that leads and does not help itself, or asks for a second vote.
    #[test]
    fn a_spare_that_leads_may_be_the_one() {
        let (membership, mut view) = (membership(), view(&[3]));
        let mut own = view.peers.remove(&NodeId(4)).expect("a peer");
        own.last = None;
        view.peers.insert(ME, own);
        let scene = Scene { me: NodeId(4), is_spare: true, ..scene(seconds(110), seconds(0), &membership, &view) };
        assert_eq!(scene.decide(), Some(Replacement { failed: NodeId(3), spare: NodeId(4) }));
        let votes = membership.weighing(NodeId(4), 1).expect("a node").written_by(CommandNumber(7));
        let scene = Scene { membership: &votes, ..scene };
        assert_eq!(scene.decide(), Some(Replacement { failed: NodeId(3), spare: NodeId(5) }));
    }

    /// Catches the time before this node led, or while it slept, that counts.
    #[test]
    fn only_time_awake_and_leading_counts() {
        let mut watch = Watch::default();
        let at = |quarters: u64| Tick(quarters * 250_000);
        assert_eq!(watch.look(false, at(100)), None);
        assert_eq!(watch.look(true, at(101)), Some(at(101)));
        assert_eq!(watch.look(true, at(102)), Some(at(101)));
        assert_eq!(watch.look(true, at(106)), Some(at(106)), "it slept");
        assert_eq!(watch.look(true, at(107)), Some(at(106)));
        assert_eq!(watch.look(false, at(108)), None);
        assert_eq!(watch.look(true, at(109)), Some(at(109)));
    }
}
