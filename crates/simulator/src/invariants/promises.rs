//! A vote is cast only in a ballot equal to the promise; promises never go down, on the disk, in what is said
//! and across restarts; nothing is said that is not durable, and what was said is there after a restart; and so with
//! the memberships under which it is cast (DESIGN 14.3, RELIABILITY 3.3). Whoever is silent by its own disk says nothing
//! (ADR 0023): `votes_kept` counts on that.

use std::collections::{BTreeMap, BTreeSet};

use protocol::message::{BallotInfo, ToLeader, ToLearner, Voted};
use protocol::{Ballot, CommandId, CommandNumber, Message, NodeId, Now};
use storage::{LogImage, LogRecord, Standing};

use super::{Disks, History, Invariant, Violation, ensure};
use crate::fact::{Fact, Stop};
use crate::fault::Fault;

/// See the module.
#[derive(Default)]
pub(super) struct Promises {
    nodes: BTreeMap<NodeId, Promise>,
}

/// What one acceptor has made durable and said.
#[derive(Default)]
struct Promise {
    durable: Ballot,
    said: Ballot,
    /// The last membership under which it has durably voted.
    voted_under: CommandNumber,
    /// The ballot of the last vote that it told anyone, by number.
    told: BTreeMap<CommandNumber, Ballot>,
    /// The highest of the numbers told in the ballot that it voted in last.
    told_last: (Ballot, CommandNumber),
    /// Stored votes were damaged, so that it may have lost some, if its log says so.
    damaged: bool,
    /// The promise in several parts that it is telling.
    telling: Option<Telling>,
}

/// A promise in several parts, as far as they were sent.
struct Telling {
    /// The same in all of them.
    ballot: Ballot,
    first: CommandNumber,
    issued: CommandId,
    count: u32,
    to: NodeId,
    parts: BTreeSet<u32>,
    votes: BTreeMap<CommandNumber, (Ballot, CommandId)>,
}

impl Telling {
    fn new(to: NodeId, info: &BallotInfo) -> Self {
        let BallotInfo { ballot, first, issued, parts: count, .. } = *info;
        Self { ballot, first, issued, count, to, parts: BTreeSet::new(), votes: BTreeMap::new() }
    }

    /// Whether this is another part of it.
    fn goes_on_with(&self, to: NodeId, info: &BallotInfo) -> bool {
        let is_same = (self.ballot, self.first, self.issued) == (info.ballot, info.first, info.issued);
        is_same && (self.count, self.to) == (info.parts, to) && !self.parts.contains(&info.part)
    }

    fn take(&mut self, info: &BallotInfo) {
        self.parts.insert(info.part);
        self.votes.extend(info.votes.iter().map(|vote| (vote.command.number(), (vote.ballot, vote.command.id))));
    }

    fn is_told(&self) -> bool {
        self.parts.len() as u64 == u64::from(self.count)
    }

    /// A1d: a promise tells every vote of a lower ballot at the numbers asked for that are not known to be issued.
    fn tells_its_votes(&self, node: NodeId, disks: &Disks) -> Result<(), Violation> {
        for (number, ballot, id) in disks.votes_from(node, self.first.max(self.issued.number.next())) {
            // A vote in the promised ballot itself may have been cast after the message was made.
            let tells = self.votes.get(&number) == Some(&(ballot, id));
            ensure(tells || ballot >= self.ballot, || {
                format!("promises {} and does not tell its vote in {ballot} for {id}", self.ballot)
            })?;
        }
        Ok(())
    }
}

impl Invariant for Promises {
    fn name(&self) -> &'static str {
        "promises"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        let violation = match fact {
            Fact::Written { node, records } => {
                let promise = self.nodes.entry(*node).or_default();
                records.iter().try_for_each(|record| promise.written(record)).map_err(|violation| (node, violation))
            }
            Fact::Started { node, log, .. } => {
                self.nodes.entry(*node).or_default().started(log).map_err(|violation| (node, violation))
            }
            Fact::Sent { from, to, message } => {
                let promise = self.nodes.entry(*from).or_default();
                promise.sends(*from, *to, message, &history.disks).map_err(|violation| (from, violation))
            }
            Fact::Fault(Fault::BitRot(node) | Fault::Misdirected(node)) => {
                self.nodes.entry(*node).or_default().damaged = true;
                Ok(())
            }
            // Another disk, with which it says nothing: `lost_disks` looks at that.
            Fact::Stopped { node, why: Stop::DiskLost } => {
                self.nodes.remove(node);
                Ok(())
            }
            Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Applied { .. }
            | Fact::Installed { .. }
            | Fact::Synced { .. }
            | Fact::Executed { .. }
            | Fact::Leads { .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Stopped { .. }
            | Fact::Asked { .. }
            | Fact::Told { .. }
            | Fact::Fault(_)
            | Fact::Healed { .. } => Ok(()),
        };
        violation.map_err(|(node, violation)| format!("node {node} {violation}"))
    }
}

fn may_speak(node: NodeId, disks: &Disks) -> Result<(), Violation> {
    ensure(disks.may_speak(node), || "promises or votes, and is silent by what it has on its disk".to_owned())
}

impl Promise {
    fn written(&mut self, record: &LogRecord) -> Result<(), Violation> {
        match record {
            LogRecord::LastTried(_) | LogRecord::Forget(_) => Ok(()),
            LogRecord::Standing(_) => {
                self.damaged = false;
                Ok(())
            }
            LogRecord::VotedUnder(number) => {
                let earlier = std::mem::replace(&mut self.voted_under, *number);
                ensure(*number > earlier, || format!("votes under membership {number} after {earlier}"))
            }
            LogRecord::NextBallot(ballot) => {
                let earlier = std::mem::replace(&mut self.durable, *ballot);
                ensure(*ballot >= earlier, || format!("promises {ballot} after {earlier}"))
            }
            LogRecord::Vote(vote) => ensure(vote.ballot == self.durable, || {
                format!("votes for {} in {}, and has promised {}", vote.command.id, vote.ballot, self.durable)
            }),
        }
    }

    fn started(&mut self, log: &LogImage) -> Result<(), Violation> {
        self.telling = None;
        let promised = self.durable.max(self.said);
        ensure(log.next_ballot >= promised, || {
            format!("had promised {promised}, and after its start {}", log.next_ballot)
        })?;
        self.durable = log.next_ballot;
        ensure(log.voted_under >= self.voted_under, || {
            format!("had voted under membership {}, and after its start {}", self.voted_under, log.voted_under)
        })?;
        self.voted_under = log.voted_under;
        if log.standing == Standing::Damaged {
            ensure(self.damaged, || "says that its votes are damaged, and they are not".to_owned())?;
            (self.told, self.told_last) = (BTreeMap::new(), Default::default());
        }
        let mut stored = log.votes.iter().peekable();
        for (number, ballot) in self.told.range(log.forgotten.next()..) {
            while stored.next_if(|vote| vote.command.number() < *number).is_some() {}
            let vote = stored.peek().filter(|vote| vote.command.number() == *number);
            ensure(vote.is_some_and(|vote| vote.ballot >= *ballot), || {
                format!("had told its vote at {number} in {ballot}, and has lost it")
            })?;
        }
        let above = log.votes.iter().find(|vote| vote.ballot > log.next_ballot);
        above.map_or(Ok(()), |vote| Err(format!("holds a vote in {} above {}", vote.ballot, log.next_ballot)))
    }

    fn sends(&mut self, node: NodeId, to: NodeId, message: &Message, disks: &Disks) -> Result<(), Violation> {
        match message {
            Message::Leader(ToLeader::BallotInfo(info)) => {
                may_speak(node, disks)?;
                self.says(info.ballot)?;
                tells_no_other(node, info, disks)?;
                self.promises(node, to, info, disks)
            }
            Message::Leader(ToLeader::MyNextBal(next)) => self.says(next.ballot),
            Message::Leader(ToLeader::Voted(voted)) | Message::Learner(ToLearner::Voted(voted)) => {
                may_speak(node, disks)?;
                self.says(voted.ballot)?;
                self.tells(node, voted, disks)
            }
            Message::Acceptor(_)
            | Message::Leader(ToLeader::Rejoin(_) | ToLeader::ExecuteFunction(_) | ToLeader::ReadBarrier(_))
            | Message::Learner(
                ToLearner::Success(_)
                | ToLearner::CatchUp(_)
                | ToLearner::Commands(_)
                | ToLearner::FetchSnapshot(_)
                | ToLearner::Snapshot(_),
            )
            | Message::FailureDetector(_)
            | Message::Gateway(_) => Ok(()),
        }
    }

    /// All parts of a promise, together, tell all votes.
    fn promises(&mut self, node: NodeId, to: NodeId, info: &BallotInfo, disks: &Disks) -> Result<(), Violation> {
        let before = self.telling.take().filter(|telling| telling.goes_on_with(to, info));
        let mut telling = before.unwrap_or_else(|| Telling::new(to, info));
        telling.take(info);
        if telling.is_told() {
            return telling.tells_its_votes(node, disks);
        }
        self.telling = Some(telling);
        Ok(())
    }

    fn says(&mut self, ballot: Ballot) -> Result<(), Violation> {
        let Self { durable, said, .. } = self;
        ensure(ballot <= *durable, || format!("says that it promised {ballot}, and durable is {durable}"))?;
        ensure(ballot >= *said, || format!("says that it promised {ballot}, and has said {said}"))?;
        *said = ballot;
        Ok(())
    }

    /// A vote told is durable, or another one of a higher ballot that took its place.
    fn tells(&mut self, node: NodeId, voted: &Voted, disks: &Disks) -> Result<(), Violation> {
        let Some(run) = voted.run else { return Ok(()) };
        ensure(voted.membership <= self.voted_under, || {
            format!("tells a vote under membership {}, and durable is {}", voted.membership, self.voted_under)
        })?;
        let (ballot, last) = self.told_last;
        let told_before = if ballot == voted.ballot { last } else { CommandNumber::NULL };
        for number in (run.first.0.max(told_before.0 + 1)..=run.last.number.0).map(CommandNumber) {
            let durable = disks.vote_of_turn(node, number);
            let same = |id: CommandId| number != run.last.number || id == run.last;
            let kept = durable.is_some_and(|(at, id)| at > voted.ballot || (at == voted.ballot && same(id)));
            ensure(kept, || format!("tells its vote at {number} in {}, and durable is {durable:?}", voted.ballot))?;
            self.told.insert(number, voted.ballot);
        }
        self.told_last = (voted.ballot, told_before.max(run.last.number));
        Ok(())
    }
}

/// A promise tells no vote that is not durable: of each, that one or one of a higher ballot in its place.
fn tells_no_other(node: NodeId, info: &BallotInfo, disks: &Disks) -> Result<(), Violation> {
    info.votes.iter().try_for_each(|vote| {
        let (number, id) = (vote.command.number(), vote.command.id);
        let durable = disks.vote_of_turn(node, number);
        let kept = durable.is_some_and(|(at, there)| at > vote.ballot || (at == vote.ballot && there == id));
        ensure(kept, || format!("promises, and tells its vote in {} for {id}: durable is {durable:?}", vote.ballot))
    })
}

#[cfg(test)]
mod tests {
    use protocol::message::MyNextBal;
    use protocol::{Command, Run};

    use super::super::testing::*;
    use super::*;

    fn commands() -> Vec<Command> {
        chain_of(&[1, 2].map(|n| body(&format!("r{n}"), vec![put("a", "1")])))
    }

    fn promised(round: u64) -> Fact {
        written(2, LogRecord::NextBallot(ballot(round)))
    }

    fn says(round: u64) -> Fact {
        let message = MyNextBal { ballot: ballot(round), refused: Ballot::NONE };
        sent(2, 1, Message::Leader(ToLeader::MyNextBal(message)))
    }

    fn voted(round: u64, commands: &[&Command]) -> Fact {
        let run = commands.last().map(|last| Run { first: commands[0].number(), last: last.id });
        sent(
            2,
            1,
            Message::Leader(ToLeader::Voted(Voted {
                ballot: ballot(round),
                run,
                round: 1,
                membership: CommandNumber::NULL,
            })),
        )
    }

    fn up(round: u64, votes: &[(u64, &Command)]) -> Fact {
        let mut up = started(2, 2, votes);
        if let Fact::Started { log, .. } = &mut up {
            log.next_ballot = ballot(round);
        }
        up
    }

    /// S-11: catches promises and votes that are told before they are durable, and promises that go down.
    #[test]
    fn what_is_said_is_durable_and_never_less() {
        let all = commands();
        let (one, two) = (&all[0], &all[1]);
        let run = |facts: &[Fact]| run(Promises::default(), facts);
        let cast = written_votes(2, 1, &[one, two]);
        let good = [promised(1), says(1), cast.clone(), voted(1, &[one, two]), voted(1, &[one, two]), promised(2)];
        assert_eq!(run(&[&good[..], &[says(2)]].concat()), Ok(()));
        assert_fails(run(&[says(1)]), "durable is 0.0");
        assert_fails(run(&[&good[..], &[says(2), says(1)]].concat()), "has said 2.1");
        assert_fails(run(&[promised(2), promised(1)]), "after 2.1");
        assert_fails(run(&[promised(2), cast]), "has promised 2.1");
        assert_fails(run(&[promised(1), voted(1, &[one])]), "tells its vote at 1");
        let half = [promised(1), written_votes(2, 1, &[one]), voted(1, &[one, two])];
        assert_fails(run(&half), "tells its vote at 2");
        let mut to_learner = voted(1, &[one]);
        if let Fact::Sent { message, .. } = &mut to_learner
            && let Message::Leader(ToLeader::Voted(voted)) = message
        {
            *message = Message::Learner(ToLearner::Voted(voted.clone()));
        }
        assert_fails(run(&[promised(1), to_learner]), "tells its vote at 1");
    }

    /// Catches votes at forgotten numbers that were never cast, not in that ballot, not for that command, or are told
    /// later than in the turn that forgot them; in that turn they are told, since they were durable when it began, or
    /// would be but for its end.
    #[test]
    fn a_vote_that_is_forgotten_at_once_was_cast() {
        let all = commands();
        let (one, two) = (&all[0], &all[1]);
        let forgets = LogRecord::Forget(CommandNumber(1));
        let forgotten = || written(2, forgets.clone());
        let at_once = |commands: &[&Command]| {
            let mut fact = written_votes(2, 1, commands);
            if let Fact::Written { records, .. } = &mut fact {
                records.push(forgets.clone());
            }
            fact
        };
        let run = |facts: &[Fact]| run(Promises::default(), &[&[synced(2, 2)], facts].concat());
        assert_eq!(run(&[promised(1), at_once(&[one, two]), voted(1, &[one, two])]), Ok(()));
        let cast = written_votes(2, 1, &[one, two]);
        assert_eq!(run(&[promised(1), cast.clone(), forgotten(), voted(1, &[one, two])]), Ok(()));
        assert_fails(run(&[promised(1), at_once(&[one]), voted(1, &[one, two])]), "tells its vote at 2");
        assert_fails(run(&[promised(1), forgotten(), voted(1, &[one])]), "tells its vote at 1");
        assert_fails(run(&[promised(1), at_once(&[two]), voted(1, &[one, two])]), "tells its vote at 1");
        assert_fails(run(&[promised(1), at_once(&[one]), promised(2), voted(2, &[one])]), "tells its vote at 1");
        assert_fails(run(&[promised(1), cast, forgotten(), promised(2), voted(2, &[one])]), "tells its vote at 1");
        let mut other = one.clone();
        other.id.ballot = ballot(0);
        assert_fails(run(&[promised(1), at_once(&[one]), voted(1, &[&other])]), "tells its vote at 1");
    }

    /// A6, S-15: catches a promise or a told vote that is lost in a restart; a vote of a higher ballot takes the
    /// place of one that was told.
    #[test]
    fn what_was_said_is_there_after_a_restart() {
        let all = commands();
        let (one, two) = (&all[0], &all[1]);
        let before = [promised(1), written_votes(2, 1, &[one, two]), voted(1, &[one, two])];
        let with = |facts: &[Fact]| run(Promises::default(), &[&before, facts].concat());
        assert_eq!(with(&[up(2, &[(1, one), (2, two)])]), Ok(()));
        assert_fails(with(&[up(0, &[(1, one), (1, two)])]), "had promised 1.1");
        assert_fails(with(&[up(1, &[(1, one)])]), "at 2 in 1.1, and has lost it");
        assert_fails(with(&[up(1, &[(1, two)])]), "at 1 in 1.1, and has lost it");
        assert_fails(with(&[up(1, &[(1, one), (2, two)])]), "above 1.1");
    }

    /// S-14: catches a node that says that its votes are damaged, and so may lose some, without any fault of the world, or
    /// once more after it has spoken again; a new disk begins anew.
    #[test]
    fn only_what_was_damaged_may_be_lost() {
        let all = commands();
        let before = [promised(1), written_votes(2, 1, &[&all[0]]), voted(1, &[&all[0]])];
        let with = |facts: &[Fact]| run(Promises::default(), &[&before, facts].concat());
        let mut damaged = up(1, &[]);
        if let Fact::Started { log, .. } = &mut damaged {
            log.standing = Standing::Damaged;
        }
        for fault in [Fault::BitRot(NodeId(2)), Fault::Misdirected(NodeId(2))] {
            let rots = Fact::Fault(fault);
            assert_eq!(with(&[rots.clone(), damaged.clone(), damaged.clone()]), Ok(()));
            assert_fails(with(&[rots.clone(), up(1, &[])]), "at 1 in 1.1, and has lost it");
            let sound = written(2, LogRecord::Standing(Standing::Sound));
            assert_fails(with(&[rots, damaged.clone(), sound, damaged.clone()]), "are damaged, and they are not");
        }
        assert_fails(with(&[Fact::Fault(Fault::BitRot(NodeId(1))), damaged.clone()]), "are damaged, and they are not");
        assert_fails(with(&[damaged]), "are damaged, and they are not");
        assert_eq!(with(&[disk_lost(2), up(0, &[])]), Ok(()));
    }

    /// S-14, ADR 0023: catches an acceptor that promises or votes although its log says that its votes are damaged, or its state
    /// lacks what they were forgotten for; damage that nobody has found yet silences nobody.
    #[test]
    fn who_is_silent_says_nothing() {
        let all = commands();
        let mut damaged = up(1, &[]);
        if let Fact::Started { log, .. } = &mut damaged {
            log.standing = Standing::Damaged;
        }
        let rots = Fact::Fault(Fault::BitRot(NodeId(2)));
        let cast = [promised(1), written_votes(2, 1, &[&all[0]]), rots];
        let run = |facts: &[Fact]| run(Promises::default(), &[&cast, facts].concat());
        let promises = || {
            sent(
                2,
                1,
                Message::Leader(ToLeader::BallotInfo(BallotInfo {
                    ballot: ballot(1),
                    first: CommandNumber(2),
                    issued: CommandId::NULL,
                    votes: Vec::new(),
                    part: 0,
                    parts: 1,
                })),
            )
        };
        let speaks = || written(2, LogRecord::Standing(Standing::Sound));
        let votes_again = || written_votes(2, 1, &[&all[0]]);
        assert_eq!(run(&[voted(1, &[&all[0]]), damaged.clone(), speaks(), votes_again(), promises()]), Ok(()));
        assert_fails(run(&[damaged.clone(), votes_again(), voted(1, &[&all[0]])]), "is silent by what");
        assert_fails(run(&[damaged, promises()]), "is silent by what");
        let forgets = || written(2, LogRecord::Forget(CommandNumber(1)));
        assert_fails(run(&[forgets(), promises()]), "is silent by what");
        assert_eq!(run(&[synced(2, 1), forgets(), promises()]), Ok(()));
    }

    /// ADR 0026: catches a vote that is told under a membership that is not durable, to the leader or to a learner, and
    /// memberships that go down, on the disk or in a restart.
    #[test]
    fn the_membership_voted_under_is_durable_and_never_less() {
        let all = commands();
        let under = |number| written(2, LogRecord::VotedUnder(CommandNumber(number)));
        let cast = [promised(1), written_votes(2, 1, &[&all[0]]), synced(2, 4)];
        let run = |facts: &[Fact]| run(Promises::default(), &[&cast, facts].concat());
        let tells = |number| {
            let mut fact = voted(1, &[&all[0]]);
            if let Fact::Sent { message: Message::Leader(ToLeader::Voted(voted)), .. } = &mut fact {
                voted.membership = CommandNumber(number);
            }
            fact
        };
        let to_learner = |number| {
            let Fact::Sent { message: Message::Leader(ToLeader::Voted(voted)), .. } = tells(number) else {
                return tells(0);
            };
            sent(2, 3, Message::Learner(ToLearner::Voted(voted)))
        };
        assert_eq!(run(&[under(4), tells(4), to_learner(4), tells(0)]), Ok(()));
        for told in [tells(4), to_learner(4)] {
            assert_fails(run(&[under(3), told]), "tells a vote under membership 4, and durable is 3");
        }
        assert_fails(run(&[under(4), under(4)]), "votes under membership 4 after 4");
        let starts = |number| {
            let mut fact = up(1, &[(1, &all[0])]);
            if let Fact::Started { log, .. } = &mut fact {
                log.voted_under = CommandNumber(number);
            }
            fact
        };
        assert_eq!(run(&[under(4), starts(4), synced(2, 4), tells(4)]), Ok(()));
        assert_fails(run(&[under(4), starts(3)]), "had voted under membership 4, and after its start 3");
        assert_fails(run(&[starts(2), under(2)]), "votes under membership 2 after 2");
    }

    /// A1d: catches a promise that leaves out a durable vote; those at issued numbers it need not tell.
    #[test]
    fn a_promise_tells_all_votes() {
        let all = commands();
        let (one, two) = (&all[0], &all[1]);
        let info = |told: &[&Command], issued: CommandId| {
            let votes = told.iter().map(|command| vote(1, command)).collect();
            let (first, part, parts) = (CommandNumber(1), 0, 1);
            let info = BallotInfo { ballot: ballot(2), first, issued, votes, part, parts };
            let message = Message::Leader(ToLeader::BallotInfo(info));
            let before = [promised(1), written_votes(2, 1, &[one, two]), promised(2)];
            run(Promises::default(), &[&before[..], &[sent(2, 1, message)]].concat())
        };
        assert_eq!(info(&[one, two], CommandId::NULL), Ok(()));
        assert_eq!(info(&[two], one.id), Ok(()));
        assert_fails(info(&[two], CommandId::NULL), "does not tell its vote in 1.1 for 1@1.1");
        assert_fails(info(&[one], CommandId::NULL), "does not tell its vote in 1.1 for 2@1.1");
        let mut other = two.clone();
        other.id.ballot = ballot(0);
        assert_fails(info(&[one, &other], CommandId::NULL), "promises, and tells its vote in 1.1 for 2@0.0");
    }

    /// A1d: catches a vote that is in none of several parts, wherever it lies, and a part that is said to be the last of
    /// fewer; a promise of which the rest is yet to come has told nothing wrong, nor has one that is told anew.
    #[test]
    fn a_promise_in_parts_tells_all_votes() {
        let all = chain_of(&[1, 2, 3].map(|n| body(&format!("r{n}"), vec![put("a", "1")])));
        let cast: Vec<&Command> = all.iter().collect();
        let part = |part: u32, parts: u32, issued: CommandId, told: &[usize]| {
            let votes = told.iter().map(|number| vote(1, &all[number - 1])).collect();
            let info = BallotInfo { ballot: ballot(2), first: CommandNumber(1), issued, votes, part, parts };
            sent(2, 1, Message::Leader(ToLeader::BallotInfo(info)))
        };
        let told = |parts: &[&[usize]]| -> Vec<Fact> {
            let count = u32::try_from(parts.len()).expect("few");
            (0..).zip(parts).map(|(number, told)| part(number, count, CommandId::NULL, told)).collect()
        };
        let before = [promised(1), written_votes(2, 1, &cast), promised(2)];
        let run = |facts: &[Fact]| run(Promises::default(), &[&before, facts].concat());
        assert_eq!(run(&told(&[&[1], &[2], &[3]])), Ok(()));
        assert_eq!(run(&told(&[&[1, 2], &[3]])), Ok(()));
        for (parts, lost) in
            [([&[2][..], &[3]], "1@1.1"), ([&[1], &[3]], "2@1.1"), ([&[1], &[2]], "3@1.1"), ([&[1, 3], &[]], "2@1.1")]
        {
            assert_fails(run(&told(&parts)), &format!("does not tell its vote in 1.1 for {lost}"));
        }
        let unfinished = &told(&[&[1], &[3]])[..1];
        assert_eq!(run(unfinished), Ok(()));
        assert_eq!(run(&[unfinished, &told(&[&[1], &[2], &[3]])].concat()), Ok(()));
        let mixed = [part(1, 2, all[0].id, &[3]), part(0, 2, all[0].id, &[])];
        assert_fails(run(&[unfinished, &mixed].concat()), "2@1.1");
        let later = [part(0, 2, all[0].id, &[2]), part(1, 2, all[0].id, &[3])];
        assert_eq!(run(&[unfinished, &later].concat()), Ok(()), "command 1 is known to be issued by then");
    }

    /// S-11: catches a promise that tells a vote which is not durable yet.
    #[test]
    fn a_promise_tells_durable_votes_only() {
        let all = commands();
        let (ballot, first, issued) = (ballot(2), CommandNumber(1), CommandId::NULL);
        let info = BallotInfo { ballot, first, issued, votes: vec![vote(1, &all[0])], part: 0, parts: 1 };
        let told = sent(2, 1, Message::Leader(ToLeader::BallotInfo(info)));
        let run = |facts: &[Fact]| run(Promises::default(), facts);
        let cast = written_votes(2, 1, &[&all[0]]);
        assert_eq!(run(&[promised(1), cast, promised(2), told.clone()]), Ok(()));
        let another = [promised(2), written_votes(2, 2, &[&all[0]]), told.clone()];
        assert_eq!(run(&another), Ok(()), "one of a higher ballot has taken its place");
        assert_fails(run(&[promised(2), told]), "promises, and tells its vote in 1.1 for 1@1.1");
    }
}
