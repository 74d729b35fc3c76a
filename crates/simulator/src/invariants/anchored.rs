//! B3(I,β): a ballot proposes the anchored command of the latest earlier vote in its majority set (DESIGN 14.6,
//! RELIABILITY 3.1).
//!
//! It is looked at from two sides. From the *promises*: when a node begins to lead, there is a majority set of promises
//! that it was told, and above what is issued it proposes what their votes choose ([`choose`], InitHistProc), and
//! nothing but new commands where that ends. From the *votes*: once a command is decided in a ballot, no higher ballot
//! carries another one at its number, whether it is proposed before or after that is known; and no ballot carries two.

use std::collections::{BTreeMap, BTreeSet};

use protocol::message::{BallotInfo, ToAcceptor, ToLeader};
use protocol::{Ballot, Command, CommandId, CommandNumber, Message, NodeId, Now, Vote};

use super::{Chain, History, Invariant, Violation, ensure};
use crate::fact::Fact;

/// See the module.
#[derive(Default)]
pub(super) struct Anchored {
    /// What was proposed at numbers that were not decided then.
    proposed: BTreeMap<CommandNumber, BTreeMap<Ballot, CommandId>>,
    /// Up to where the decided commands have been looked at.
    looked_at: CommandNumber,
    /// The highest ballot of each node.
    prepared: BTreeMap<NodeId, Prepared>,
    /// What each node has applied.
    applied: BTreeMap<NodeId, CommandNumber>,
}

/// What the owner of a ballot was told before it led.
#[derive(Default)]
struct Prepared {
    ballot: Ballot,
    /// What each acceptor answered, again and again: a full mailbox may have refused an answer, and the next one is another.
    promises: BTreeMap<NodeId, Vec<Promise>>,
    /// Since it leads: what it may propose again, by one majority set or another, and has proposed so far.
    choices: Option<Vec<Choice>>,
}

/// A promise, perhaps in parts.
#[derive(Default)]
struct Promise {
    issued: CommandId,
    of: u32,
    parts: BTreeSet<u32>,
    votes: Vec<Vote>,
}

/// The initial history above a number; up to there are issued commands.
struct Choice {
    above: CommandNumber,
    commands: Vec<CommandId>,
}

impl Choice {
    fn allows(&self, ballot: Ballot, id: CommandId, chain: &Chain) -> bool {
        match id.number.0.checked_sub(self.above.next().0).and_then(|index| usize::try_from(index).ok()) {
            Some(index) => self.commands.get(index).map_or(id.ballot == ballot, |chosen| *chosen == id),
            None => chain.id_at(id.number) == Some(id),
        }
    }
}

/// What the votes choose at the number after `precedent`: of those for commands that follow it, the latest.
fn choose(votes: &BTreeMap<CommandNumber, Vec<&Vote>>, precedent: CommandId) -> Option<CommandId> {
    let there = votes.get(&precedent.number.next())?;
    let dependent = there.iter().filter(|vote| vote.command.follows(precedent));
    dependent.max_by_key(|vote| vote.ballot).map(|vote| vote.command.id)
}

impl Prepared {
    fn is_told(&mut self, from: NodeId, info: &BallotInfo) {
        if info.ballot > self.ballot {
            *self = Self { ballot: info.ballot, ..Self::default() };
        }
        if info.ballot < self.ballot || self.choices.is_some() {
            return;
        }
        let promises = self.promises.entry(from).or_default();
        let is_it = |promise: &Promise| (promise.issued, promise.of) == (info.issued, info.parts);
        if promises.iter().any(|promise| promise.is_complete() && is_it(promise)) {
            return;
        }
        if !promises.last().is_some_and(is_it) {
            // Parts of different answers are not mixed.
            promises.retain(Promise::is_complete);
            promises.push(Promise { issued: info.issued, of: info.parts, ..Promise::default() });
        }
        let promise = promises.last_mut().expect("there is one");
        if promise.parts.insert(info.part) {
            promise.votes.extend(info.votes.iter().cloned());
        }
    }

    /// The node leads, and has applied all up to this number: the choices of each majority set.
    fn leads(&mut self, ballot: Ballot, applied: CommandNumber, history: &History) -> Result<(), Violation> {
        if ballot != self.ballot {
            *self = Self { ballot, ..Self::default() };
        }
        let mut sets: Vec<BTreeMap<NodeId, &Promise>> = vec![BTreeMap::new()];
        for (acceptor, promises) in &self.promises {
            let complete = promises.iter().filter(|promise| promise.is_complete());
            let with = |promise| {
                let with = |set: &BTreeMap<_, _>| {
                    set.iter().map(|(id, other)| (*id, *other)).chain([(*acceptor, promise)]).collect()
                };
                sets.iter().map(with).collect::<Vec<_>>()
            };
            let larger: Vec<_> = complete.flat_map(with).collect();
            sets.extend(larger);
        }
        let membership = history.disks.membership_at(applied);
        let is_majority =
            |set: &&BTreeMap<NodeId, _>| membership.majority().is_majority(&set.keys().copied().collect());
        let majorities = sets.iter().filter(is_majority);
        let choices: Vec<Choice> = majorities.flat_map(|set| choices_of(set, applied, &history.chain)).collect();
        ensure(!choices.is_empty(), || format!("ballot {ballot} is led without the promises of a majority set"))?;
        self.choices = Some(choices);
        Ok(())
    }

    fn proposes(&mut self, ballot: Ballot, id: CommandId, history: &History) -> Result<(), Violation> {
        let led = self.choices.as_mut().filter(|_| ballot == self.ballot);
        let choices = led.ok_or_else(|| format!("ballot {ballot} proposes {id}, and is not led"))?;
        choices.retain(|choice| choice.allows(ballot, id, &history.chain));
        ensure(!choices.is_empty(), || {
            format!("ballot {ballot} proposes {id}, and the promises of no majority set choose that")
        })
    }
}

impl Promise {
    fn is_complete(&self) -> bool {
        self.of > 0 && u32::try_from(self.parts.len()) == Ok(self.of)
    }
}

/// What a leader may propose that has these promises. It knows to be issued what they do, or more, up to what its node
/// has applied; where the votes choose what is issued as well, it makes no difference how much more.
fn choices_of(promises: &BTreeMap<NodeId, &Promise>, applied: CommandNumber, chain: &Chain) -> Vec<Choice> {
    let mut votes: BTreeMap<CommandNumber, Vec<&Vote>> = BTreeMap::new();
    for vote in promises.values().flat_map(|promise| &promise.votes) {
        votes.entry(vote.command.number()).or_default().push(vote);
    }
    let from = promises.values().map(|promise| promise.issued.number).max().unwrap_or_default();
    let above = |precedent: CommandId| {
        let next = |id: &CommandId| choose(&votes, *id);
        Choice { above: precedent.number, commands: std::iter::successors(next(&precedent), next).collect() }
    };
    let issued = (from.0..=applied.0).filter_map(|number| chain.id_at(CommandNumber(number)));
    let differs = |id: &CommandId| id.number >= applied || choose(&votes, *id) != chain.id_at(id.number.next());
    issued.filter(differs).map(above).collect()
}

impl Invariant for Anchored {
    fn name(&self) -> &'static str {
        "anchored"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        while self.looked_at < history.disks.last_decided() {
            self.looked_at = self.looked_at.next();
            let proposed = self.proposed.remove(&self.looked_at).unwrap_or_default();
            for (ballot, id) in proposed {
                against_decided(ballot, id, history)?;
            }
        }
        match fact {
            Fact::Sent { from, message: Message::Acceptor(ToAcceptor::BeginBallot(begin)), .. } => {
                begin.commands.iter().try_for_each(|command| self.proposes(*from, begin.ballot, command, history))?;
            }
            Fact::Delivered { from, to, message: Message::Leader(ToLeader::BallotInfo(info)) } => {
                self.prepared.entry(*to).or_default().is_told(*from, info);
            }
            Fact::Leads { node, ballot: Some(ballot) } => {
                let applied = self.applied.get(node).copied().unwrap_or_default();
                self.prepared.entry(*node).or_default().leads(*ballot, applied, history)?;
            }
            Fact::Applied { node, command, .. } => _ = self.applied.insert(*node, command.number()),
            Fact::Installed { node, id } => _ = self.applied.insert(*node, id.at.number),
            Fact::Started { node, applied, .. } => _ = self.applied.insert(*node, applied.number),
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Written { .. }
            | Fact::Synced { .. }
            | Fact::Executed { .. }
            | Fact::Leads { ballot: None, .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Stopped { .. }
            | Fact::Asked { .. }
            | Fact::Told { .. }
            | Fact::Fault(_)
            | Fact::Healed { .. } => {}
        }
        Ok(())
    }
}

impl Anchored {
    fn proposes(
        &mut self,
        node: NodeId,
        ballot: Ballot,
        command: &Command,
        history: &History,
    ) -> Result<(), Violation> {
        if command.number() <= self.looked_at {
            return against_decided(ballot, command.id, history);
        }
        let proposed = self.proposed.entry(command.number()).or_default();
        if let Some(first) = proposed.get(&ballot) {
            return ensure(*first == command.id, || {
                format!("ballot {ballot} proposes {first} and {} at one number", command.id)
            });
        }
        proposed.insert(ballot, command.id);
        self.prepared.entry(node).or_default().proposes(ballot, command.id, history)
    }
}

fn against_decided(ballot: Ballot, id: CommandId, history: &History) -> Result<(), Violation> {
    let decided = history.disks.decided_at(id.number);
    let clash = decided.filter(|decided| ballot >= decided.ballot && decided.command.id != id);
    clash.map_or(Ok(()), |decided| {
        Err(format!("ballot {ballot} proposes {id}, and {} was decided in {}", decided.command.id, decided.ballot))
    })
}

#[cfg(test)]
mod tests {
    use protocol::{Effect, Membership, membership};

    use super::super::testing::*;
    use super::*;

    /// Node 1 leads the ballot of round 9 after these promises, and proposes this.
    fn leads(promises: &[Fact], commands: &[&Command]) -> Result<(), Violation> {
        let leads = Fact::Leads { node: NodeId(1), ballot: Some(ballot(9)) };
        run(Anchored::default(), &[promises, &[leads, begin_ballot(1, 2, 9, commands)]].concat())
    }

    /// Node 1 leads the ballot of this round, and nobody has told of a vote.
    fn leads_anew(round: u64) -> Vec<Fact> {
        let told = [1, 2].map(|node| promise(node, round, CommandId::NULL, &[]));
        told.into_iter().chain([Fact::Leads { node: NodeId(1), ballot: Some(ballot(round)) }]).collect()
    }

    fn first_in(round: u64, number: u64, precedent: CommandId) -> Command {
        let id = CommandId::new(ballot(round), CommandNumber(number));
        Command { id, precedent, body: body("r", vec![]).encode() }
    }

    /// A1r, A8: catches a leader that proposes another command than that of the latest vote of its majority set: a new
    /// one, one of an earlier ballot, one that only others told of, or one that nobody told of; and one that leads
    /// without a majority set's promises, or with a part of one.
    #[test]
    fn a_leader_proposes_what_its_majority_set_tells() {
        let [old, late, new] = [2, 3, 9].map(|round| first_in(round, 1, CommandId::NULL));
        let after = first_in(9, 2, late.id);
        let none = || promise(1, 9, CommandId::NULL, &[]);
        let of_old = || promise(2, 9, CommandId::NULL, &[(2, &old)]);
        let of_late = || promise(3, 9, CommandId::NULL, &[(3, &late)]);
        assert_eq!(leads(&[none(), of_old()], &[&old]), Ok(()));
        assert_eq!(leads(&[none(), promise(3, 9, CommandId::NULL, &[])], &[&new]), Ok(()));
        assert_eq!(leads(&[of_old(), of_late()], &[&late, &after]), Ok(()));
        for set in [vec![none(), of_old(), of_late()], vec![of_late(), none(), of_old()]] {
            assert_eq!(leads(&set, &[&old]), Ok(()), "the third came later");
            assert_eq!(leads(&set, &[&late]), Ok(()));
            assert_fails(leads(&set, &[&new]), "no majority set choose that");
        }
        assert_fails(leads(&[none(), of_old()], &[&late]), "no majority set choose that");
        assert_fails(leads(&[none(), of_old()], &[&new]), "no majority set choose that");
        assert_fails(leads(&[of_old(), of_late()], &[&old]), "no majority set choose that");
        assert_fails(leads(&[none()], &[&new]), "without the promises of a majority set");
        assert_fails(leads(&[of_old(), of_old()], &[&old]), "without the promises of a majority set");
        let mut half = of_old();
        if let Fact::Delivered { message: Message::Leader(ToLeader::BallotInfo(info)), .. } = &mut half {
            info.parts = 2;
        }
        assert_fails(leads(&[none(), half], &[&new]), "without the promises of a majority set");
    }

    /// Seed 110002084: an acceptor answers again, and otherwise. Catches a check that takes one of its answers for the only one,
    /// and one that puts parts of both together.
    #[test]
    fn any_answer_of_an_acceptor_may_be_the_one_that_is_heard() {
        let old = first_in(2, 1, CommandId::NULL);
        let after = first_in(9, 2, old.id);
        let own = || promise(1, 9, CommandId::NULL, &[]);
        let voted = || promise(2, 9, CommandId::NULL, &[(2, &old)]);
        let knows = || promise(2, 9, old.id, &[]);
        let has = applied(1, &old);
        for answers in [[voted(), knows()], [knows(), voted()]] {
            let [one, other] = answers;
            assert_eq!(leads(&[own(), one.clone(), other.clone()], &[&old]), Ok(()));
            assert_eq!(leads(&[has.clone(), own(), one, other], &[&after]), Ok(()));
        }
        assert_fails(leads(&[own(), knows()], &[&old]), "without the promises of a majority set");
        let part = |mut fact: Fact, part| {
            if let Fact::Delivered { message: Message::Leader(ToLeader::BallotInfo(info)), .. } = &mut fact {
                (info.part, info.parts) = (part, 2);
            }
            fact
        };
        assert_eq!(leads(&[own(), part(voted(), 0), part(voted(), 1)], &[&old]), Ok(()));
        assert_fails(leads(&[has, own(), part(voted(), 0), part(knows(), 1)], &[&old]), "without the promises");
    }

    /// ADR 0025: catches a leader that counts promises by another membership than that of its node's state, be it an
    /// earlier or a later one.
    #[test]
    fn promises_count_by_the_membership_of_the_state() {
        let (newcomer, _) = Membership::of_equals(3).joined("d", "d:1").expect("a new node");
        let larger = newcomer.weighing(NodeId(4), 1).expect("it votes").to_value();
        let joined = &chain_of(&[body("r1", vec![Effect::Put { key: membership::key(), value: larger }])])[0];
        let decided = [votes(1, 1, &[joined]), votes(2, 1, &[joined])];
        let told = |nodes: &[u64]| nodes.iter().map(|node| promise(*node, 9, joined.id, &[])).collect::<Vec<_>>();
        let with = |facts: &[Fact], nodes: &[u64]| leads(&[&decided, facts, &told(nodes)].concat(), &[]);
        assert_eq!(with(&[applied(1, joined)], &[1, 2, 4]), Ok(()));
        assert_fails(with(&[applied(1, joined)], &[1, 2]), "without the promises of a majority set");
        assert_fails(with(&[], &[1, 4]), "without the promises of a majority set");
    }

    /// S-02, FIG. 6: catches the latest vote being taken before those are dropped whose precedent was not issued, or was
    /// not chosen; what is issued is as the leader's node has applied it.
    #[test]
    fn votes_without_their_precedents_are_dropped_first() {
        let a = first_in(1, 1, CommandId::NULL);
        let (b, b2) = (first_in(2, 2, a.id), first_in(5, 2, a.id));
        let (c, c2) = (first_in(4, 3, b.id), first_in(6, 3, b2.id));
        let told = [promise(2, 9, b2.id, &[(7, &c)]), promise(3, 9, a.id, &[(5, &b2), (6, &c2)])];
        let issued = [applied(1, &a), applied(1, &b2)];
        let with = |facts: &[Fact], commands: &[&Command]| leads(&[facts, &told].concat(), commands);
        assert_eq!(with(&issued, &[&c2]), Ok(()));
        assert_fails(with(&issued, &[&c]), "no majority set choose that");
        let told = [promise(2, 9, a.id, &[(2, &b), (7, &c)]), promise(3, 9, a.id, &[(5, &b2), (6, &c2)])];
        assert_eq!(leads(&[&issued[..1], &told].concat(), &[&b2, &c2]), Ok(()));
        assert_fails(leads(&[&issued[..1], &told].concat(), &[&b2, &c]), "no majority set choose that");
        assert_eq!(leads(&[&issued[..], &told].concat(), &[&b2, &c2]), Ok(()), "it may not have heard of b2 yet");
    }

    /// Catches a leader that is held to less than its node has, be it applied one by one, taken as a whole or found at its
    /// start: what votes choose above that is what it proposes.
    #[test]
    fn a_leader_begins_above_what_its_node_has() {
        let issued = chain_of(&[1, 2].map(|n| body(&format!("r{n}"), vec![])));
        let third = first_in(2, 3, issued[1].id);
        let of_others: Vec<Fact> = issued.iter().map(|command| applied(2, command)).collect();
        let told = [promise(2, 9, CommandId::NULL, &[(2, &third)]), promise(3, 9, CommandId::NULL, &[])];
        let with = |has: &[Fact]| leads(&[&of_others, has, &told].concat(), &[&third]);
        let one_by_one: Vec<Fact> = issued.iter().map(|command| applied(1, command)).collect();
        assert_eq!(with(&one_by_one), Ok(()));
        assert_eq!(with(&[installed_at(1, &issued)]), Ok(()));
        assert_eq!(with(&[started_at(1, 1, &issued)]), Ok(()));
        assert_fails(with(&[]), "no majority set choose that");
    }

    /// A1r, S-01: catches a leader that proposes another command at a decided number, whether that number was
    /// known to be decided before or only after; a lower ballot may still do so, in vain.
    #[test]
    fn a_higher_ballot_carries_what_is_decided() {
        let decided = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let mut other = decided.clone();
        other.id.ballot = Ballot::new(3, NodeId(1));
        let by_votes = [votes(1, 2, &[decided]), votes(2, 2, &[decided])];
        let with = |facts: &[Fact]| run(Anchored::default(), &[&by_votes, facts].concat());
        assert_eq!(with(&[begin_ballot(1, 2, 3, &[decided]), begin_ballot(1, 2, 1, &[&other])]), Ok(()));
        assert_fails(with(&[begin_ballot(1, 2, 3, &[&other])]), "was decided in 2.1");
        let before = [&leads_anew(3)[..], &[begin_ballot(1, 2, 3, &[&other])], &by_votes].concat();
        assert_fails(run(Anchored::default(), &before), "was decided in 2.1");
    }

    /// Catches two commands at one number of one ballot, and a ballot that proposes before it is led, or after another one was.
    #[test]
    fn a_ballot_carries_one_command_at_a_number() {
        let one = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let mut other = one.clone();
        other.id.ballot = Ballot::new(2, NodeId(1));
        let twice = [begin_ballot(1, 2, 2, &[&other]), begin_ballot(1, 3, 2, &[one])];
        let led = |round, facts: &[Fact]| run(Anchored::default(), &[&leads_anew(round), facts].concat());
        assert_fails(led(2, &twice), "at one number");
        assert_eq!(led(2, &[twice[0].clone(), twice[0].clone()]), Ok(()));
        assert_fails(run(Anchored::default(), &twice[..1]), "is not led");
        assert_fails(led(3, &twice[..1]), "is not led");
    }
}
