//! The durable logs of all nodes, and what the votes on them have decided.
//!
//! A command is *decided* once a majority set has durably voted for it in one ballot, at whatever moments,
//! and its precedent is decided. Because votes are gap-free (DESIGN 5 rule 5), that is when it may be
//! called issued, and for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use leader::core::Note;
use protocol::{
    Ballot, Command, CommandBody, CommandId, CommandNumber, Effect, Entry, Membership, NodeId, Vote, membership,
};
use storage::{LogImage, LogRecord, Standing};

use crate::fact::{Fact, Stop};
use crate::fault::Fault;

/// A decided command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The command.
    pub command: Command,
    /// The ballot whose votes decided it.
    pub ballot: Ballot,
}

/// The durable log of one node.
#[derive(Debug, Default)]
struct Disk {
    last_tried: Ballot,
    next_ballot: Ballot,
    /// The last vote for each number: its ballot, and the command.
    votes: BTreeMap<CommandNumber, (Ballot, CommandId)>,
    /// Those that its last write forgot: the turn that ends with it may still tell them.
    just_forgotten: BTreeMap<CommandNumber, (Ballot, CommandId)>,
    /// The last number in the durable state.
    durable: CommandNumber,
    /// The same, before a state was lost: what others may have heard.
    durable_once: CommandNumber,
    forgotten: CommandNumber,
    standing: Standing,
    voted_under: CommandNumber,
    /// Stored votes are damaged, or the disk is gone: what the next start finds, nobody knows.
    broken: bool,
    /// It began with a state below what its votes are good for, and has written nothing as an acceptor since: it is silent
    /// until a majority of all learners has that durably.
    regains: bool,
}

impl Disk {
    /// Whether its node may promise and vote: otherwise no majority set is formed with it.
    fn speaks(&self) -> bool {
        !self.broken && self.standing == Standing::Sound && self.forgotten.max(self.voted_under) <= self.durable
    }

    /// Whether its node knows which ballots it has begun.
    fn may_lead(&self) -> bool {
        !self.broken && matches!(self.standing, Standing::Sound | Standing::Damaged)
    }

    fn lose_state(&mut self) {
        let durable = std::mem::take(&mut self.durable);
        self.durable_once = self.durable_once.max(durable);
    }

    /// Whether it holds the vote for a decided command, or has it in its durable state.
    fn has(&self, id: CommandId) -> bool {
        self.durable >= id.number || self.votes.get(&id.number).is_some_and(|(_, vote)| *vote == id)
    }
}

/// The votes for a number in one ballot.
#[derive(Debug)]
struct Tally {
    command: Command,
    voters: BTreeSet<NodeId>,
}

/// See the module.
#[derive(Debug)]
pub struct Disks {
    /// In force above the last decided command.
    membership: Arc<Membership>,
    /// Under which the last decided command was decided. What it may depend on is held by its majority sets: those of a
    /// change take over with the first command above it.
    under: Arc<Membership>,
    /// All that there were, in order.
    memberships: Vec<Arc<Membership>>,
    disks: BTreeMap<NodeId, Disk>,
    /// From number 1.
    decided: Vec<Decided>,
    /// Votes above, by number and ballot.
    tallies: BTreeMap<CommandNumber, BTreeMap<Ballot, Tally>>,
    /// Where the last fact took a vote from a node, or decided.
    changed: Vec<CommandNumber>,
    /// Who never leads, whatever a membership says.
    followers: BTreeSet<NodeId>,
    /// Who is there when the faults are over.
    core: Option<BTreeSet<NodeId>>,
    /// The number of the last membership that each node has noted.
    noted: BTreeMap<NodeId, CommandNumber>,
}

impl Disks {
    /// What a majority set may lack: nodes with a disk that nobody knows to be damaged; sound votes (ADR 0023, limit 2); states
    /// as far as their votes are forgotten; enough learners to regain those (limit 3); or one who may lead (ADR 0027, limits).
    pub const WHY_STUCK: [&str; 5] = ["disks", "votes", "states", "learners", "a leader"];

    /// Empty disks.
    #[must_use]
    pub fn new(genesis: &Arc<Membership>) -> Self {
        Self {
            membership: Arc::clone(genesis),
            under: Arc::clone(genesis),
            memberships: vec![Arc::clone(genesis)],
            disks: BTreeMap::new(),
            decided: Vec::new(),
            tallies: BTreeMap::new(),
            changed: Vec::new(),
            followers: BTreeSet::new(),
            core: None,
            noted: BTreeMap::new(),
        }
    }

    /// The membership in force above the last decided command, and how often it has changed.
    #[must_use]
    pub fn membership(&self) -> (&Arc<Membership>, u64) {
        (&self.membership, self.memberships.len() as u64 - 1)
    }

    /// The membership of a state in which all up to this number is applied.
    #[must_use]
    pub fn membership_at(&self, applied: CommandNumber) -> &Arc<Membership> {
        let made = |membership: &&Arc<Membership>| membership.number() <= applied;
        self.memberships.iter().rev().find(made).expect("the first one is made by no command")
    }

    /// Whether a change is decided, and nothing under the membership that it made.
    #[must_use]
    pub fn is_in_change(&self) -> bool {
        self.membership.number() != self.under.number()
    }

    /// Whether this node is a member, or was one before a change that nothing is decided above.
    #[must_use]
    pub fn is_needed(&self, node: NodeId) -> bool {
        [&self.membership, &self.under].iter().any(|membership| membership.node(node).is_some())
    }

    /// The number of the last decided command; [`CommandNumber::NULL`] at first.
    #[must_use]
    pub fn last_decided(&self) -> CommandNumber {
        CommandNumber(self.decided.len() as u64)
    }

    /// The decided command at a number from 1.
    #[must_use]
    pub fn decided_at(&self, number: CommandNumber) -> Option<&Decided> {
        self.decided.get(usize::try_from(number.0.checked_sub(1)?).ok()?)
    }

    /// The ballot that a node began last, as far as it is durable.
    #[must_use]
    pub fn last_tried(&self, node: NodeId) -> Ballot {
        self.disks.get(&node).map_or(Ballot::NONE, |disk| disk.last_tried)
    }

    /// The promise of a node, as far as it is durable.
    #[must_use]
    pub fn next_ballot(&self, node: NodeId) -> Ballot {
        self.disks.get(&node).map_or(Ballot::NONE, |disk| disk.next_ballot)
    }

    /// The durable vote of a node for a number: its ballot and the command.
    #[must_use]
    pub fn vote(&self, node: NodeId, number: CommandNumber) -> Option<(Ballot, CommandId)> {
        self.disks.get(&node)?.votes.get(&number).copied()
    }

    /// The same, or the vote that was durable there until the last write of the node forgot it.
    #[must_use]
    pub fn vote_of_turn(&self, node: NodeId, number: CommandNumber) -> Option<(Ballot, CommandId)> {
        self.vote(node, number).or_else(|| self.disks.get(&node)?.just_forgotten.get(&number).copied())
    }

    /// The durable votes of a node from a number on.
    pub fn votes_from(
        &self,
        node: NodeId,
        first: CommandNumber,
    ) -> impl Iterator<Item = (CommandNumber, Ballot, CommandId)> {
        let votes = self.disks.get(&node).into_iter().flat_map(move |disk| disk.votes.range(first..));
        votes.map(|(number, (ballot, id))| (*number, *ballot, *id))
    }

    /// Whether no majority set can be formed, of nodes that are not silent, in which nobody holds the
    /// vote for this decided command, or has it in its durable state: then no later ballot can miss it. And whether a
    /// majority set has it, the silent ones taken for such: half of four nodes would be enough for the former.
    #[must_use]
    pub fn is_held(&self, id: CommandId) -> bool {
        let lacks = |node| self.disks.get(&node).is_none_or(|disk| disk.speaks() && !disk.has(id));
        let majority = self.under.majority();
        !majority.holds(lacks) && majority.holds(|node| !lacks(node))
    }

    /// Whether these nodes hold a majority set of the membership in force, and of the one before while nothing is decided
    /// above the change: until then only its votes say that there is one.
    #[must_use]
    pub fn hold(&self, present: impl Fn(NodeId) -> bool) -> bool {
        [&self.membership, &self.under].iter().all(|membership| membership.majority().holds(&present))
    }

    pub(super) fn never_leads(&mut self, node: NodeId) {
        self.followers.insert(node);
    }

    /// Whether nodes that are not silent hold a majority set, and a node may lead, of those that are there: all, then the
    /// core. A change may have been decided between
    /// the damage of a disk and the silence of its node: then nothing is decided any more. Nor is it while a node regains its
    /// state of which too many members are gone, or were never there (ADR 0023, limits), nor where all states are lost that
    /// reach as far as the membership which those who may lead have noted (ADR 0027, limits).
    #[must_use]
    pub fn can_decide(&self) -> bool {
        self.could_decide(self.core.as_ref())
    }

    /// The same, were these the core.
    #[must_use]
    pub fn could_decide(&self, core: Option<&BTreeSet<NodeId>>) -> bool {
        let is_there = |node: &NodeId| {
            core.is_none_or(|core| core.contains(node)) && self.disks.get(node).is_some_and(|disk| !disk.broken)
        };
        let there = self.disks.iter().filter(|(node, _)| is_there(node));
        let known = there.map(|(_, disk)| disk.durable).max().unwrap_or(CommandNumber::NULL);
        let may_lead = |node: &NodeId| {
            is_there(node)
                && !self.followers.contains(node)
                && self.membership.may_lead(*node)
                && (self.has_noted(*node) <= known || self.leads_by_its_state(*node, known, is_there))
                && self.disks.get(node).is_some_and(Disk::may_lead)
        };
        let most_learn = self.membership.learners().filter(is_there).count() > self.membership.nodes().len() / 2;
        let speaks = |disk: &Disk| disk.speaks() && (most_learn || !disk.regains);
        self.hold(|node| is_there(&node) && self.disks.get(&node).is_some_and(speaks))
            && self.membership.learners().any(|node| may_lead(&node))
    }

    /// Whether a node that has noted a later membership leads under the one of a state up to this number (ADR 0025). What
    /// lists the first members is in no state; who has left since then is a stranger to the node.
    fn leads_by_its_state(&self, node: NodeId, known: CommandNumber, is_there: impl Fn(&NodeId) -> bool) -> bool {
        let stored = self.membership_at(known);
        let speaks = |node| is_there(&node) && self.membership.node(node).is_some() && self.disks[&node].speaks();
        stored.number() > CommandNumber::NULL && stored.may_lead(node) && stored.majority().holds(speaks)
    }

    /// What the first of these is that a cluster lacks which cannot decide anything, of [`Disks::WHY_STUCK`].
    #[must_use]
    pub fn why_stuck(&self) -> usize {
        let is_there = |node: NodeId| {
            self.core.as_ref().is_none_or(|core| core.contains(&node))
                && self.disks.get(&node).is_some_and(|disk| !disk.broken)
        };
        let hold = |with: fn(&Disk) -> bool| self.hold(|node| is_there(node) && with(&self.disks[&node]));
        let lacks = [
            hold(|_| true),
            hold(|disk| disk.standing == Standing::Sound),
            hold(Disk::speaks),
            hold(|disk| disk.speaks() && !disk.regains),
        ];
        lacks.iter().position(|there| !there).unwrap_or(lacks.len())
    }

    /// The number of the last membership that a node has noted: the one that it heard of, or that took it in.
    fn has_noted(&self, node: NodeId) -> CommandNumber {
        let took_it_in = self.memberships.iter().find(|membership| membership.node(node).is_some());
        let first = took_it_in.map_or(CommandNumber::NULL, |membership| membership.number());
        self.noted.get(&node).copied().unwrap_or_default().max(first)
    }

    /// Whether the disk of a node is damaged, or gone, and nobody has found out yet.
    #[must_use]
    pub fn is_broken(&self, node: NodeId) -> bool {
        self.disks.get(&node).is_some_and(|disk| disk.broken)
    }

    /// Whether a node may promise and vote by what is written on its disk; damage is found by the next start. One that has just
    /// voted under a membership knows it, though its state may not be durable so far: only after a start it would not.
    #[must_use]
    pub fn may_speak(&self, node: NodeId) -> bool {
        self.disks.get(&node).is_none_or(|disk| disk.standing == Standing::Sound && disk.forgotten <= disk.durable)
    }

    /// Whether the state of this node is durable up to here, and those of a majority of all learners are, or were
    /// before they were lost: nobody hears of that at once. All nodes learn; the node may go by an earlier membership.
    #[must_use]
    pub fn is_durable(&self, node: NodeId, number: CommandNumber) -> bool {
        let had =
            |node: &NodeId| self.disks.get(node).is_some_and(|disk| disk.durable.max(disk.durable_once) >= number);
        let most =
            |membership: &Arc<Membership>| membership.learners().filter(had).count() > membership.nodes().len() / 2;
        self.disks.get(&node).is_some_and(|disk| disk.durable >= number) && self.memberships.iter().any(most)
    }

    /// The numbers that the last fact decided, or at which it took a vote from a node or changed it to another
    /// command's; all when a node may be in a majority set again.
    #[must_use]
    pub fn changed(&self) -> &[CommandNumber] {
        &self.changed
    }

    pub(super) fn learn(&mut self, fact: &Fact) {
        self.changed.clear();
        match fact {
            Fact::Written { node, records } => {
                self.disks.entry(*node).or_default().just_forgotten.clear();
                records.iter().for_each(|record| self.written(*node, record));
            }
            Fact::Started { node, log, applied, .. } => self.started(*node, log, applied.number),
            Fact::Synced { node, durable } => self.disks.entry(*node).or_default().durable = *durable,
            Fact::Installed { node, id } => self.disks.entry(*node).or_default().durable = id.at.number,
            Fact::Stopped { node, why: Stop::DiskLost }
            | Fact::Fault(
                Fault::BitRot(node) | Fault::Misdirected(node) | Fault::DiskLost(node) | Fault::GivenUp(node),
            ) => {
                let disk = self.disks.entry(*node).or_default();
                disk.broken = true;
                if !matches!(fact, Fact::Fault(Fault::BitRot(_) | Fault::Misdirected(_))) {
                    disk.lose_state();
                }
                self.changed.extend(disk.votes.keys().copied());
            }
            Fact::Fault(Fault::StateLost(node) | Fault::StateRot(node)) => {
                self.disks.entry(*node).or_default().lose_state();
                self.changed.extend((1..=self.last_decided().0).map(CommandNumber));
            }
            Fact::Noted { node, note: Note::Membership { number, .. } } => drop(self.noted.insert(*node, *number)),
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Applied { .. }
            | Fact::Executed { .. }
            | Fact::Leads { .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Stopped { .. }
            | Fact::Asked { .. }
            | Fact::Told { .. }
            | Fact::Fault(_) => {}
            Fact::Healed { core } => self.core = Some(core.iter().copied().collect()),
        }
    }

    fn written(&mut self, node: NodeId, record: &LogRecord) {
        let disk = self.disks.entry(node).or_default();
        match record {
            LogRecord::Forget(number) => {
                let kept = disk.votes.split_off(&number.next());
                let mut gone = std::mem::replace(&mut disk.votes, kept);
                self.changed.extend(gone.keys());
                disk.just_forgotten.append(&mut gone);
                disk.forgotten = disk.forgotten.max(*number);
            }
            LogRecord::Standing(standing) => {
                disk.standing = *standing;
                // It may be in a majority set again.
                self.changed.extend((1..=self.decided.len() as u64).map(CommandNumber));
            }
            LogRecord::VotedUnder(number) => disk.voted_under = *number,
            LogRecord::LastTried(ballot) => disk.last_tried = *ballot,
            LogRecord::NextBallot(ballot) => {
                disk.next_ballot = *ballot;
                disk.regains = false;
            }
            LogRecord::Vote(vote) => {
                disk.regains = false;
                let (number, id) = (vote.command.number(), vote.command.id);
                let earlier = disk.votes.insert(number, (vote.ballot, id));
                if earlier.is_some_and(|(_, earlier)| earlier != id) {
                    self.changed.push(number);
                }
                self.count(node, vote);
            }
        }
    }

    /// A node is up with this log: it may hold less than was known, and also more, of a write of which
    /// nobody had heard. Opening makes durable what is there of the state.
    fn started(&mut self, node: NodeId, log: &LogImage, durable: CommandNumber) {
        let votes = log.votes.iter().map(|vote| (vote.command.number(), (vote.ballot, vote.command.id))).collect();
        let LogImage { last_tried, next_ballot, forgotten, standing, voted_under, .. } = *log;
        let before = self.disks.remove(&node).unwrap_or_default();
        let durable_once = before.durable_once;
        let disk = Disk {
            last_tried,
            next_ballot,
            votes,
            durable,
            durable_once,
            forgotten,
            standing,
            voted_under,
            regains: forgotten.max(voted_under) > durable,
            ..Disk::default()
        };
        for (number, (_, id)) in before.votes {
            if disk.votes.get(&number).is_none_or(|(_, now)| *now != id) {
                self.changed.push(number);
            }
        }
        self.disks.insert(node, disk);
        for vote in &log.votes {
            self.count(node, vote);
        }
    }

    fn count(&mut self, node: NodeId, vote: &Vote) {
        let number = vote.command.number();
        if number <= self.last_decided() {
            return;
        }
        let fresh = || Tally { command: vote.command.clone(), voters: BTreeSet::new() };
        let tally = self.tallies.entry(number).or_default().entry(vote.ballot).or_insert_with(fresh);
        if tally.command.id == vote.command.id {
            tally.voters.insert(node);
        }
        while let Some(decided) = self.decides_next() {
            self.tallies.remove(&decided.command.number());
            self.changed.push(decided.command.number());
            if self.is_in_change() {
                // From here on the acceptors before the change are not needed.
                self.under = Arc::clone(&self.membership);
                self.changed.extend((1..=self.last_decided().0).map(CommandNumber));
            }
            self.change(&decided.command);
            self.decided.push(decided);
        }
    }

    /// A decided command may change the membership.
    fn change(&mut self, command: &Command) {
        let Ok(body) = CommandBody::decode(&command.body) else { return };
        for effect in body.effects {
            if let Effect::Put { key, value } = effect
                && key == membership::key()
            {
                let entry = Entry { value, version: command.number() };
                let next = Membership::read(&entry).expect("S-16: a change is to a membership");
                assert_eq!(next.check_follows(&self.membership), Ok(()), "S-19: an id is given out twice");
                self.membership = Arc::new(next);
                self.memberships.push(Arc::clone(&self.membership));
            }
        }
    }

    /// The command after the last decided one, if its votes decide it.
    fn decides_next(&self) -> Option<Decided> {
        let last = self.decided.last().map_or(CommandId::NULL, |decided| decided.command.id);
        let tallies = self.tallies.get(&last.number.next())?;
        let decides =
            |tally: &Tally| tally.command.follows(last) && self.membership.majority().is_majority(&tally.voters);
        let (ballot, tally) = tallies.iter().find(|(_, tally)| decides(tally))?;
        Some(Decided { command: tally.command.clone(), ballot: *ballot })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn disks(facts: &[Fact]) -> Disks {
        let mut disks = Disks::new(&three());
        facts.iter().for_each(|fact| disks.learn(fact));
        disks
    }

    /// S-04: catches a command that counts as decided before its precedent is, or on votes of two
    /// ballots, or on half of the nodes.
    #[test]
    fn a_majority_set_and_a_decided_precedent_decide() {
        let commands = chain_of(&[body("r1", vec![put("a", "1")]), body("r2", vec![put("a", "2")])]);
        let (first, second) = (&commands[0], &commands[1]);
        let of_second = [votes(1, 1, &[second]), votes(2, 1, &[second])];
        assert_eq!(disks(&of_second).last_decided(), CommandNumber::NULL);
        let apart = [votes(1, 1, &[first]), votes(2, 2, &[first])];
        assert_eq!(disks(&apart).last_decided(), CommandNumber::NULL);
        let both = [&of_second[..], &[votes(3, 1, &[first]), votes(1, 1, &[first])]].concat();
        let disks = disks(&both);
        assert_eq!(disks.last_decided(), CommandNumber(2));
        assert_eq!(disks.decided_at(CommandNumber(2)).map(|decided| &decided.command), Some(second));
    }

    /// Catches votes that count after their disk is gone, and a disk that is gone which still counts
    /// among those that could miss a command.
    #[test]
    fn a_decided_command_is_held_while_every_majority_set_meets_a_vote() {
        let command = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let two = [votes(1, 1, &[command]), votes(2, 1, &[command])];
        assert!(disks(&two).is_held(command.id));
        assert!(disks(&[&two[..], &[disk_lost(1)]].concat()).is_held(command.id), "2 is in every set that is left");
        let forgot = disks(&[&two[..], &[started(1, 2, &[])]].concat());
        assert_eq!(forgot.changed(), [CommandNumber(1)]);
        assert!(!forgot.is_held(command.id), "1 and 3 would not know it");
    }

    /// DESIGN 14.11: catches a decided command that only half of the nodes have left: every majority set meets them, and
    /// they are none.
    #[test]
    fn half_of_the_nodes_do_not_hold_a_command() {
        let command = &chain_of(&[body("r1", vec![put("a", "1")])])[0];
        let mut disks = Disks::new(&Membership::of_equals(4));
        (1..=4).map(|node| started(node, 1, &[])).for_each(|fact| disks.learn(&fact));
        (1..=3).map(|node| votes(node, 1, &[command])).for_each(|fact| disks.learn(&fact));
        assert!(disks.is_held(command.id));
        disks.learn(&disk_lost(3));
        assert!(disks.is_held(command.id), "it is silent");
        disks.learn(&started(3, 2, &[]));
        assert!(!disks.is_held(command.id));
    }

    /// Catches a world that takes away the disks by which alone a change can be found, before anything is above it.
    #[test]
    fn the_membership_before_a_change_is_needed_until_something_is_above_it() {
        let changed = three().weighing(NodeId(1), 9).expect("it decides alone").to_value();
        let change = body("r1", vec![Effect::Put { key: membership::key(), value: changed }]);
        let commands = chain_of(&[change, body("r2", vec![put("a", "1")])]);
        let change = [votes(1, 1, &[&commands[0]]), votes(2, 1, &[&commands[0]])];
        let one = |node| node == NodeId(1);
        let before = disks(&change);
        assert_eq!(before.membership().1, 1);
        assert!(!before.hold(one), "only its votes say that there is a change");
        assert!(before.is_in_change());
        let after = disks(&[&change[..], &[votes(1, 1, &[&commands[1]])]].concat());
        assert_eq!(after.last_decided(), CommandNumber(2));
        assert!(after.hold(one) && !after.is_in_change());
        assert_eq!(after.changed(), [2, 1].map(CommandNumber), "all is looked at under the new majority sets");
    }

    /// ADR 0025: catches a node whose disk is given up although a change without it may be unknown to all others; one that is
    /// never let go; and votes that count on its disk afterwards.
    #[test]
    fn who_was_removed_is_needed_until_something_is_above_the_change() {
        let left = three().without(NodeId(3)).expect("two are left").to_value();
        let change = body("r1", vec![Effect::Put { key: membership::key(), value: left }]);
        let commands = chain_of(&[change, body("r2", vec![put("a", "1")])]);
        let mut disks = disks(&[votes(2, 1, &[&commands[0]]), votes(3, 1, &[&commands[0]])]);
        assert!(disks.is_needed(NodeId(3)) && !disks.is_needed(NodeId(4)));
        (1..=2).map(|node| votes(node, 1, &[&commands[1]])).for_each(|fact| disks.learn(&fact));
        assert!(!disks.is_needed(NodeId(3)) && disks.is_needed(NodeId(1)));
        assert!(disks.can_decide());
        disks.learn(&Fact::Fault(Fault::GivenUp(NodeId(3))));
        assert!(disks.can_decide());
        disks.learn(&Fact::Fault(Fault::GivenUp(NodeId(2))));
        assert!(!disks.can_decide(), "both of the two are needed");
    }

    /// RELIABILITY 3.11: catches a node that was removed and decides with its vote, however it was cast, above the change that
    /// removed it; and votes that count under the membership before, of which they are a majority.
    #[test]
    fn who_was_removed_decides_nothing() {
        let left = three().without(NodeId(3)).expect("two are left").to_value();
        let change = body("r1", vec![Effect::Put { key: membership::key(), value: left }]);
        let commands = chain_of(&[change, body("r2", vec![put("a", "1")])]);
        let (change, above) = (&commands[0], &commands[1]);
        let mut disks = disks(&[votes(2, 1, &[change]), votes(3, 1, &[change])]);
        for node in [3, 1] {
            disks.learn(&votes(node, 1, &[above]));
            assert_eq!(disks.last_decided(), CommandNumber(1), "of nodes 1 and 2 both are needed");
        }
        disks.learn(&votes(2, 1, &[above]));
        assert_eq!(disks.last_decided(), CommandNumber(2));
    }

    /// ADR 0023, limits: catches an answer that is demanded although a node that a majority set needs cannot speak, and one
    /// that is not although it does.
    #[test]
    fn who_regains_its_state_waits_for_most_learners() {
        let (four, _) = Membership::of_equals(3).joined("d", "d:1").expect("a new node");
        let (five, _) = four.joined("e", "e:1").expect("a new node");
        let mut disks = Disks::new(&Arc::new(five));
        let log = LogImage { forgotten: CommandNumber(5), standing: Standing::Sound, ..LogImage::default() };
        let behind =
            Fact::Started { node: NodeId(3), life: 2, log, applied: CommandId::NULL, digest: digest_after(&[]) };
        for fact in [started(1, 1, &[]), started(2, 1, &[]), behind, synced(3, 5)] {
            disks.learn(&fact);
        }
        assert!(disks.can_decide(), "three of five nodes are there");
        let core = |nodes: &[u64]| Fact::Healed { core: nodes.iter().copied().map(NodeId).collect() };
        disks.learn(&core(&[2, 3]));
        assert!(!disks.can_decide(), "two of five are not most, and 2 and 3 would be the majority set");
        disks.learn(&core(&[1, 2, 3]));
        assert!(disks.can_decide());
        disks.learn(&Fact::Fault(Fault::GivenUp(NodeId(1))));
        assert!(!disks.can_decide(), "2 and 3 would be a majority set");
        disks.learn(&written(3, LogRecord::NextBallot(Ballot::new(9, NodeId(2)))));
        assert!(disks.can_decide(), "it speaks");
    }

    /// ADR 0027, limits: catches an answer that is demanded although nobody has a state that reaches the membership which
    /// those who may lead go by, and one that is not although somebody has.
    #[test]
    fn who_leads_needs_a_state_that_reaches_its_membership() {
        let mut disks = disks(&[started(1, 1, &[]), started(2, 1, &[]), started(3, 1, &[]), synced(1, 2)]);
        let note = Note::Membership { number: CommandNumber(2), nodes: 3, acceptors: 3 };
        for node in 1..=3 {
            disks.learn(&Fact::Noted { node: NodeId(node), note: note.clone() });
        }
        assert!(disks.can_decide(), "the state of 1 reaches it");
        disks.learn(&Fact::Fault(Fault::StateLost(NodeId(1))));
        assert!(!disks.can_decide(), "nobody's does");
        disks.learn(&synced(2, 2));
        assert!(disks.can_decide());
    }

    /// ADR 0025, seed 1796036925686: catches a node that is excused although its state has a membership in which it may lead,
    /// and one that is not although nobody is left of that.
    #[test]
    fn who_has_noted_more_than_its_state_has_leads_by_that() {
        let (larger, _) = three().joined("d", "d:1").expect("a new node");
        let smaller = larger.weighing(NodeId(3), 0).expect("others vote");
        let put = |membership: &Membership| vec![Effect::Put { key: membership::key(), value: membership.to_value() }];
        let commands = chain_of(&[body("r1", put(&larger)), body("r2", put(&smaller))]);
        let all: Vec<&Command> = commands.iter().collect();
        let up = (1..=3).map(|node| started(node, 1, &[]));
        let mut disks = disks(&up.chain([votes(1, 1, &all), votes(2, 1, &all), synced(1, 1)]).collect::<Vec<_>>());
        let note = Note::Membership { number: CommandNumber(2), nodes: 4, acceptors: 2 };
        for node in 1..=3 {
            disks.learn(&Fact::Noted { node: NodeId(node), note: note.clone() });
        }
        assert!(disks.can_decide(), "the state of 1 has the first change");
        disks.learn(&Fact::Fault(Fault::StateLost(NodeId(1))));
        assert!(!disks.can_decide(), "no state has a membership");
    }

    /// DESIGN 8: catches votes that are kept for learners that are gone, or forgotten on the word of too few.
    #[test]
    fn the_learners_of_a_membership_say_what_is_durable() {
        let (larger, _) = three().joined("d", "d:1").expect("a new node");
        let change = body("r1", vec![Effect::Put { key: membership::key(), value: larger.to_value() }]);
        let commands = chain_of(&[change]);
        let change = [votes(1, 1, &[&commands[0]]), votes(2, 1, &[&commands[0]])];
        let durable = |nodes: &[u64]| {
            let facts: Vec<Fact> = nodes.iter().map(|node| synced(*node, 1)).collect();
            disks(&[&change[..], &facts].concat()).is_durable(NodeId(1), CommandNumber(1))
        };
        assert!(!durable(&[1]) && !durable(&[2, 3]));
        assert!(!durable(&[1, 4]), "half of four");
        assert!(durable(&[1, 2]), "node 1 may not know of the fourth");
        assert!(durable(&[1, 3, 4]));
    }
}
