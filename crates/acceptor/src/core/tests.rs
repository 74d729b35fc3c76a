//! Exact effects, rule by rule, with reboots in the middle.

mod membership;
mod silence;
mod table;

use bytes::Bytes;
use protocol::Run;
use protocol::message::{MyNextBal, ToLearner, Voted};

use super::*;

const LEADER: NodeId = NodeId(1);
const RIVAL: NodeId = NodeId(3);

fn config() -> Config {
    Config {
        me: NodeId(2),
        window: 4,
        acceptors: MajoritySets::simple((1..=3).map(NodeId)).expect("three nodes").into(),
        learners: vec![NodeId(1), NodeId(2), NodeId(3)],
        learn_from: LearnFrom::Leader,
        part_bytes: 1 << 20,
        nonce: 7,
    }
}

fn fresh() -> Node {
    Node { acceptor: Acceptor::new(config(), LogImage::default(), CommandId::NULL), log: LogImage::default() }
}

/// An acceptor with a disk that keeps what the effects persist.
struct Node {
    acceptor: Acceptor,
    log: LogImage,
}

impl Node {
    fn handle(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.acceptor.handle(input, &mut effects);
        for effect in &effects {
            match effect {
                Effect::Persist(LogRecord::NextBallot(ballot)) => self.log.next_ballot = *ballot,
                Effect::Persist(LogRecord::Vote(vote)) => {
                    self.log.votes.retain(|old| old.command.number() != vote.command.number());
                    self.log.votes.push(vote.clone());
                }
                Effect::Persist(LogRecord::Forget(number)) => {
                    self.log.forgotten = *number;
                    self.log.votes.retain(|vote| vote.command.number() > *number);
                }
                Effect::Persist(LogRecord::Standing(standing)) => self.log.standing = *standing,
                Effect::Persist(LogRecord::VotedUnder(number)) => self.log.voted_under = *number,
                Effect::Persist(LogRecord::LastTried(_)) => panic!("lastTried is the leader's"),
                Effect::Proposed { .. } | Effect::Send { .. } | Effect::Speaks | Effect::Ignored(_) => {}
            }
        }
        effects
    }

    /// kill -9 and start again, with what the learner has applied durably.
    fn reboot(&mut self, issued: CommandId) {
        self.acceptor = Acceptor::new(self.acceptor.config.clone(), self.log.clone(), issued);
    }

    fn next_ballot(&mut self, ballot: Ballot, first: u64) -> Vec<Effect> {
        let message = ToAcceptor::NextBallot(NextBallot { ballot, first: CommandNumber(first) });
        self.handle(Input::Message { from: ballot.node, message })
    }

    fn begin(&mut self, ballot: Ballot, commands: &[Command], round: u64) -> Vec<Effect> {
        let message = ToAcceptor::BeginBallot(BeginBallot {
            ballot,
            commands: commands.to_vec(),
            round,
            membership: CommandNumber::NULL,
        });
        self.handle(Input::Message { from: ballot.node, message })
    }
}

fn ballot(round: u64) -> Ballot {
    Ballot::new(round, LEADER)
}

fn rival(round: u64) -> Ballot {
    Ballot::new(round, RIVAL)
}

fn id(ballot: Ballot, number: u64) -> CommandId {
    CommandId::new(ballot, CommandNumber(number))
}

fn command(ballot: Ballot, number: u64, precedent: CommandId) -> Command {
    Command { id: id(ballot, number), precedent, body: Bytes::from(format!("{number}@{ballot}")) }
}

/// Commands `first..first + count` of one ballot, after `precedent`.
fn chain(ballot: Ballot, precedent: CommandId, count: u64) -> Vec<Command> {
    let mut before = precedent;
    let numbers = precedent.number.0 + 1..=precedent.number.0 + count;
    numbers.map(|number| std::mem::replace(&mut before, id(ballot, number))).fold(Vec::new(), |mut commands, before| {
        commands.push(command(ballot, before.number.0 + 1, before));
        commands
    })
}

fn info(ballot: Ballot, first: u64, issued: CommandId, votes: Vec<Vote>) -> Effect {
    let info = BallotInfo { ballot, first: CommandNumber(first), issued, votes, part: 0, parts: 1 };
    Effect::Send { to: ballot.node, message: Message::Leader(ToLeader::BallotInfo(info)) }
}

fn voted(ballot: Ballot, run: Option<(u64, CommandId)>, round: u64) -> Effect {
    let run = run.map(|(first, last)| Run { first: CommandNumber(first), last });
    Effect::Send {
        to: ballot.node,
        message: Message::Leader(ToLeader::Voted(Voted { ballot, run, round, membership: CommandNumber::NULL })),
    }
}

fn refused(promise: Ballot, refused: Ballot) -> Effect {
    let message = MyNextBal { ballot: promise, refused };
    Effect::Send { to: refused.node, message: Message::Leader(ToLeader::MyNextBal(message)) }
}

fn vote(ballot: Ballot, command: &Command) -> Vote {
    Vote { ballot, command: command.clone() }
}

fn persist_vote(ballot: Ballot, command: &Command) -> Effect {
    Effect::Persist(LogRecord::Vote(vote(ballot, command)))
}

fn proposed(ballot: Ballot, commands: &[Command]) -> Effect {
    Effect::Proposed { ballot, commands: commands.to_vec() }
}

/// A1d, A1e, S-11, A12: catches a promise told before it is durable, one that goes down, an answer
/// that is not repeated, and a restart that forgets the promise (A7).
#[test]
fn a_promise_is_durable_first_and_repeated_and_survives() {
    let mut node = fresh();
    let promise = Effect::Persist(LogRecord::NextBallot(ballot(2)));
    assert_eq!(node.next_ballot(ballot(2), 1), [promise, info(ballot(2), 1, CommandId::NULL, vec![])]);
    assert_eq!(node.next_ballot(ballot(2), 1), [info(ballot(2), 1, CommandId::NULL, vec![])], "same answer again");

    node.reboot(CommandId::NULL);
    assert_eq!(node.next_ballot(rival(1), 1), [refused(ballot(2), rival(1))]);
    assert_eq!(node.begin(rival(1), &[], 1), [refused(ballot(2), rival(1))]);
    assert_eq!(node.next_ballot(ballot(2), 1), [info(ballot(2), 1, CommandId::NULL, vec![])]);
    let promise = Effect::Persist(LogRecord::NextBallot(rival(2)));
    assert_eq!(node.next_ballot(rival(2), 1), [promise, info(rival(2), 1, CommandId::NULL, vec![])]);
}

/// A1d, A1e: catches a `BallotInfo` without the latest vote for each number that is not known to
/// be issued, with votes below n, or without what is known to be issued; also after a reboot.
#[test]
fn a_promise_tells_the_latest_votes_from_n_on_and_what_is_issued() {
    let mut node = fresh();
    let first = chain(ballot(1), CommandId::NULL, 4);
    node.next_ballot(ballot(1), 1);
    node.begin(ballot(1), &first, 1);
    node.handle(Input::Issued(first[0].id));
    node.next_ballot(rival(2), 2);
    node.begin(rival(2), &first[1..2], 1);

    let votes = [vote(rival(2), &first[1]), vote(ballot(1), &first[2]), vote(ballot(1), &first[3])];
    for _ in 0..2 {
        let effects = node.next_ballot(ballot(3), 1);
        assert_eq!(effects.last(), Some(&info(ballot(3), 1, first[0].id, votes.to_vec())));
        let effects = node.next_ballot(ballot(3), 4);
        assert_eq!(effects, [info(ballot(3), 4, first[0].id, votes[2..].to_vec())], "X: it lacks 2 and 3");
        node.reboot(first[0].id);
    }
    // A learner that had applied less durably: the vote that left memory comes back from disk.
    node.reboot(CommandId::NULL);
    let all: Vec<Vote> = std::iter::once(vote(ballot(1), &first[0])).chain(votes).collect();
    assert_eq!(node.next_ballot(ballot(3), 1), [info(ballot(3), 1, CommandId::NULL, all)]);
}

/// Catches a promise with many votes that does not fit a frame, and a part that is lost count of.
#[test]
fn many_votes_are_told_in_parts() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 3);
    node.next_ballot(ballot(1), 1);
    node.begin(ballot(1), &commands, 1);
    node.acceptor.config.part_bytes = 2 * storage::weight(&commands[0]);
    let sizes: Vec<(usize, u32, u32)> = node
        .next_ballot(ballot(1), 1)
        .into_iter()
        .map(|effect| {
            let Effect::Send { message: Message::Leader(ToLeader::BallotInfo(info)), .. } = effect else {
                panic!("{effect:?}");
            };
            (info.votes.len(), info.part, info.parts)
        })
        .collect();
    assert_eq!(sizes, [(2, 0, 2), (1, 1, 2)]);

    node.acceptor.config.part_bytes = 1;
    assert_eq!(node.next_ballot(ballot(1), 1).len(), 3, "a vote that exceeds a part has one of its own");
}

/// Step 4, S-11, A12: catches a vote that is told before it is durable, a body that is kept
/// from the learner, and a repetition that is persisted again or answered otherwise.
#[test]
fn a_run_in_the_promised_ballot_is_voted_for_once_and_answered_always() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 2);
    node.next_ballot(ballot(1), 1);
    let answer = voted(ballot(1), Some((1, commands[1].id)), 1);
    assert_eq!(
        node.begin(ballot(1), &commands, 1),
        [
            proposed(ballot(1), &commands),
            persist_vote(ballot(1), &commands[0]),
            persist_vote(ballot(1), &commands[1]),
            answer.clone()
        ]
    );
    assert_eq!(node.begin(ballot(1), &commands, 1), [proposed(ballot(1), &commands), answer.clone()]);
    node.reboot(CommandId::NULL);
    assert_eq!(node.begin(ballot(1), &commands, 1), [proposed(ballot(1), &commands), answer]);
}

/// DESIGN 5 rule 5, A12: catches a vote with a gap, an early command that is lost, and an early
/// command whose body the learner does not get.
#[test]
fn a_command_that_comes_too_early_waits_for_its_precedent() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 3);
    node.next_ballot(ballot(1), 1);
    assert_eq!(
        node.begin(ballot(1), &commands[1..2], 1),
        [proposed(ballot(1), &commands[1..2]), voted(ballot(1), None, 1)]
    );
    assert_eq!(
        node.begin(ballot(1), &commands[..1], 2),
        [
            proposed(ballot(1), &commands[..1]),
            persist_vote(ballot(1), &commands[0]),
            persist_vote(ballot(1), &commands[1]),
            voted(ballot(1), Some((1, commands[1].id)), 2)
        ]
    );
    let late = node.begin(ballot(1), &commands[2..], 1);
    assert_eq!(late.last(), Some(&voted(ballot(1), Some((1, commands[2].id)), 2)), "rounds do not go down");
}

/// DESIGN 5 rule 5: catches a gap that is not noticed to be closed by what the learner knows,
/// and votes that are not told then.
#[test]
fn a_gap_closes_when_the_precedent_is_issued() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 3);
    node.next_ballot(ballot(1), 1);
    node.begin(ballot(1), &commands[1..], 7);
    assert_eq!(
        node.handle(Input::Issued(commands[0].id)),
        [
            persist_vote(ballot(1), &commands[1]),
            persist_vote(ballot(1), &commands[2]),
            voted(ballot(1), Some((2, commands[2].id)), 7)
        ]
    );
    assert_eq!(node.handle(Input::Issued(commands[0].id)), [], "known already");
    assert_eq!(node.handle(Input::Issued(commands[2].id)), []);
    assert_eq!(node.begin(ballot(1), &commands, 8), [voted(ballot(1), None, 8)], "issued numbers are not voted on");
}

/// RELIABILITY 5.6: catches a vote that is written to a disk without room, a promise, a round or what
/// was voted before that is not told then, and votes that are never cast when there is room again.
#[test]
fn without_room_nothing_is_voted_for() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 4);
    node.next_ballot(ballot(1), 1);
    node.begin(ballot(1), &commands[..1], 1);
    node.begin(ballot(1), &commands[2..3], 2);
    assert_eq!(node.handle(Input::Space(Space::Out)), []);
    let before = voted(ballot(1), Some((1, commands[0].id)), 3);
    assert_eq!(node.begin(ballot(1), &commands[1..], 3), [before], "the round returns, nothing is kept");
    assert_eq!(node.handle(Input::Issued(commands[1].id)), [], "nor is what waited");
    let promise = Effect::Persist(LogRecord::NextBallot(ballot(2)));
    assert_eq!(node.next_ballot(ballot(2), 1), [promise, info(ballot(2), 1, commands[1].id, vec![])]);
    assert_eq!(node.handle(Input::Space(Space::Low)), []);
    let again = node.begin(ballot(2), &commands[2..], 1);
    assert_eq!(again.last(), Some(&voted(ballot(2), Some((3, commands[3].id)), 1)), "{again:?}");
}

/// S-01, the acceptors' part: plays ballots 1 and 2 of the run that loses agreement under the
/// patent's letter, and catches the two votes that make it possible.
#[test]
fn the_literal_patents_votes_are_refused() {
    let (one, two) = (ballot(1), rival(2));
    let (mut a, mut b, mut c) = (fresh(), fresh(), fresh());
    let b1 = command(one, 1, CommandId::NULL);
    let c1 = command(one, 2, b1.id);
    for node in [&mut a, &mut b] {
        node.next_ballot(one, 1);
    }
    // b' reaches A only; c' reaches A and B. B must not vote for c'.
    a.begin(one, std::slice::from_ref(&b1), 1);
    a.begin(one, std::slice::from_ref(&c1), 1);
    let at_b = b.begin(one, std::slice::from_ref(&c1), 1);
    assert_eq!(at_b, [proposed(one, std::slice::from_ref(&c1)), voted(one, None, 1)]);
    // Ballot 2 with B and C: nothing was voted for there. It proposes at 1 and 2; only what is
    // at 2 reaches B, which may not vote for it either.
    for node in [&mut b, &mut c] {
        let effects = node.next_ballot(two, 1);
        assert_eq!(effects.last(), Some(&info(two, 1, CommandId::NULL, vec![])));
    }
    let b2 = command(two, 1, CommandId::NULL);
    let c2 = command(two, 2, b2.id);
    c.begin(two, &[b2, c2.clone()], 1);
    let at_b = b.begin(two, std::slice::from_ref(&c2), 1);
    assert_eq!(at_b, [proposed(two, std::slice::from_ref(&c2)), voted(two, None, 1)]);
    // What waited for ballot 1 does not come alive in ballot 2.
    assert_eq!(b.acceptor.votes().count(), 0);
    b.next_ballot(ballot(3), 1);
    let effects = b.begin(ballot(3), std::slice::from_ref(&b1), 1);
    let b1_alone = voted(ballot(3), Some((1, b1.id)), 1);
    assert_eq!(effects, [proposed(ballot(3), std::slice::from_ref(&b1)), persist_vote(ballot(3), &b1), b1_alone]);
}

/// FIG. 6: catches older votes above a new one that are thrown away (their commands may be
/// anchored), and ones that are told as votes of the new ballot.
#[test]
fn older_votes_above_a_new_one_are_kept_until_voted_again() {
    let mut node = fresh();
    let old = chain(ballot(1), CommandId::NULL, 3);
    node.next_ballot(ballot(1), 1);
    node.begin(ballot(1), &old, 1);
    node.next_ballot(rival(2), 1);
    let new = command(rival(2), 1, CommandId::NULL);
    let effects = node.begin(rival(2), std::slice::from_ref(&new), 1);
    assert_eq!(effects.last(), Some(&voted(rival(2), Some((1, new.id)), 1)));
    node.reboot(CommandId::NULL);
    let votes = vec![vote(rival(2), &new), vote(ballot(1), &old[1]), vote(ballot(1), &old[2])];
    let effects = node.next_ballot(ballot(3), 1);
    assert_eq!(effects.last(), Some(&info(ballot(3), 1, CommandId::NULL, votes)));
}

/// Catches an acceptor that shows its node and its observers something else than what it holds.
#[test]
fn what_an_acceptor_shows_is_what_it_holds() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 3);
    node.next_ballot(ballot(1), 1);
    node.begin(ballot(1), &commands, 1);
    node.handle(Input::Issued(commands[0].id));
    let Node { acceptor, .. } = &node;
    assert_eq!((acceptor.me(), acceptor.next_ballot(), acceptor.issued()), (NodeId(2), ballot(1), commands[0].id));
    let votes: Vec<&Vote> = acceptor.votes().collect();
    assert_eq!(votes, [&vote(ballot(1), &commands[1]), &vote(ballot(1), &commands[2])]);
}

/// Claim 3: catches learners that are not told of votes, and ones told of nothing.
#[test]
fn votes_go_to_every_learner_where_learners_decide() {
    let mut node = fresh();
    node.acceptor.config.learn_from = LearnFrom::Voters;
    let commands = chain(ballot(1), CommandId::NULL, 2);
    node.next_ballot(ballot(1), 1);
    assert_eq!(node.begin(ballot(1), &[], 1), [voted(ballot(1), None, 1)]);
    assert_eq!(node.begin(ballot(1), &commands[1..], 2).len(), 2, "a body for the learner, an answer to the leader");
    let run = Some(Run { first: CommandNumber(1), last: commands[1].id });
    let told = ToLearner::Voted(Voted { ballot: ballot(1), run, round: 3, membership: CommandNumber::NULL });
    let to_learners = [1, 2, 3].map(|to| Effect::Send { to: NodeId(to), message: Message::Learner(told.clone()) });
    for _ in 0..2 {
        let effects = node.begin(ballot(1), &commands[..1], 3);
        assert!(effects.ends_with(&to_learners), "again when the leader asks again: {effects:?}");
    }
}

/// ADR 0025: catches a vote that is told under another membership than its ballot is led, or of the ballot before; and
/// learners that joined and hear of no votes, or left and do.
#[test]
fn a_vote_is_told_with_the_number_of_its_membership_to_the_learners_of_now() {
    let mut node = fresh();
    node.acceptor.config.learn_from = LearnFrom::Voters;
    let change = CommandId::new(rival(0), CommandNumber(17));
    node.handle(Input::Issued(change));
    let commands = chain(ballot(1), change, 1);
    node.next_ballot(ballot(1), 18);
    assert_eq!(node.handle(Input::Learners(vec![NodeId(2), NodeId(4)])), []);
    let begin = |ballot, commands: &[Command], membership| {
        let (commands, membership) = (commands.to_vec(), CommandNumber(membership));
        let message = ToAcceptor::BeginBallot(BeginBallot { ballot, commands, round: 1, membership });
        Input::Message { from: ballot.node, message }
    };
    let effects = node.handle(begin(ballot(1), &commands, 17));
    let run = Some(Run { first: CommandNumber(18), last: commands[0].id });
    let told = Voted { ballot: ballot(1), run, round: 1, membership: CommandNumber(17) };
    let learners =
        [2, 4].map(|to| Effect::Send { to: NodeId(to), message: Message::Learner(ToLearner::Voted(told.clone())) });
    assert!(effects.ends_with(&learners), "{effects:?}");
    assert!(effects.contains(&Effect::Send { to: LEADER, message: Message::Leader(ToLeader::Voted(told.clone())) }));
    node.next_ballot(rival(1), 18);
    assert_eq!(node.handle(begin(rival(1), &[], 0)), [voted(rival(1), None, 1)]);
}

/// A linearizable read's round: catches an acceptor that confirms a ballot it has left, or that
/// counts the rounds of one ballot for another.
#[test]
fn an_empty_run_asks_only_whether_the_promise_stands() {
    let mut node = fresh();
    assert_eq!(node.begin(ballot(1), &[], 1), [Effect::Ignored(IgnoreReason::NotPromised)]);
    node.next_ballot(ballot(1), 1);
    assert_eq!(node.begin(ballot(1), &[], 41), [voted(ballot(1), None, 41)]);
    assert_eq!(node.begin(ballot(1), &[], 40), [voted(ballot(1), None, 41)]);
    node.next_ballot(rival(1), 1);
    assert_eq!(node.begin(ballot(1), &[], 42), [refused(rival(1), ballot(1))]);
    assert_eq!(node.begin(rival(1), &[], 1), [voted(rival(1), None, 1)]);
}

/// Catches a panic on a peer's strange message, any trace that it leaves, and an operator who does
/// not hear of it or hears of what is normal.
#[test]
fn strange_messages_change_nothing() {
    let mut node = fresh();
    let commands = chain(ballot(2), CommandId::NULL, 3);
    node.next_ballot(ballot(2), 1);
    node.begin(ballot(2), &commands[..1], 1);
    let before = node.acceptor.clone();
    let begin = |from, commands: &[Command]| Input::Message {
        from,
        message: ToAcceptor::BeginBallot(BeginBallot {
            ballot: ballot(2),
            commands: commands.to_vec(),
            round: 9,
            membership: CommandNumber::NULL,
        }),
    };
    let not_begun = NextBallot { ballot: Ballot::new(0, LEADER), first: CommandNumber(1) };
    let foreign = NextBallot { ballot: ballot(9), first: CommandNumber(1) };
    let next = |message| Input::Message { from: LEADER, message: ToAcceptor::NextBallot(message) };
    let other = Command { body: Bytes::from_static(b"other"), ..commands[0].clone() };
    let stranger = command(ballot(1), 2, id(ballot(1), 1));
    let cases = [
        (next(not_begun), IgnoreReason::NotTheOwner),
        (Input::Message { from: RIVAL, message: ToAcceptor::NextBallot(foreign) }, IgnoreReason::NotTheOwner),
        (begin(RIVAL, &commands), IgnoreReason::NotTheOwner),
        (begin(LEADER, &[commands[0].clone(), commands[2].clone()]), IgnoreReason::NotARun),
        (begin(LEADER, &[commands[1].clone(), commands[0].clone()]), IgnoreReason::NotARun),
        (begin(LEADER, &[command(ballot(3), 2, commands[0].id)]), IgnoreReason::NotARun),
        (begin(LEADER, &[command(ballot(2), 3, commands[0].id)]), IgnoreReason::NotARun),
        (begin(LEADER, &[command(ballot(1), 1, CommandId::NULL)]), IgnoreReason::TwoCommandsAtOneNumber),
        (begin(LEADER, &[other]), IgnoreReason::TwoCommandsAtOneNumber),
        (begin(LEADER, &[stranger]), IgnoreReason::BrokenChain),
    ];
    for (input, reason) in cases {
        assert_eq!(node.handle(input.clone()), [Effect::Ignored(reason)], "{input:?}");
        assert_eq!(node.acceptor, before, "{input:?}");
        assert!(reason.is_alarming(), "no working node sends {input:?}");
    }
    // What late messages and superseded leaders cause is nothing to look at.
    let normal = [IgnoreReason::NotPromised, IgnoreReason::NotAfterIssued];
    assert!(!normal.into_iter().any(IgnoreReason::is_alarming));
}

/// Catches a vote for a command that can never be issued, and one that waits for ever.
#[test]
fn a_command_after_another_than_the_issued_one_gets_no_vote() {
    let mut node = fresh();
    let stale = chain(ballot(1), CommandId::NULL, 3);
    node.next_ballot(ballot(1), 1);
    node.begin(ballot(1), &stale[2..], 1);
    assert_eq!(node.handle(Input::Issued(id(rival(2), 2))), []);
    assert_eq!(node.begin(ballot(1), &stale[1..], 1), [Effect::Ignored(IgnoreReason::NotAfterIssued)]);
    let right = command(rival(2), 3, id(rival(2), 2));
    node.next_ballot(rival(2), 3);
    let effects = node.begin(rival(2), std::slice::from_ref(&right), 1);
    assert_eq!(effects.last(), Some(&voted(rival(2), Some((3, right.id)), 1)));
}

/// S-06 at the acceptor, DESIGN 13: catches a queue of early commands without a bound, and one
/// that keeps the numbers that are issued already instead of those that matter.
#[test]
fn at_most_a_window_of_commands_waits_and_the_highest_stay() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 9);
    node.next_ballot(ballot(1), 1);
    node.begin(ballot(1), &commands[1..4], 1);
    node.begin(ballot(1), &commands[5..], 1);
    let waiting: Vec<u64> = node.acceptor.waiting.keys().map(|number| number.0).collect();
    assert_eq!(waiting, [6, 7, 8, 9]);
    let effects = node.handle(Input::Issued(commands[4].id));
    assert_eq!(effects.last(), Some(&voted(ballot(1), Some((6, commands[8].id)), 1)));
}

/// DESIGN 13: the learner of this node stands still while the others issue. Catches votes that fill the memory, and one
/// that is not cast when there is room for it again.
#[test]
fn votes_go_no_further_than_twice_a_window_above_what_is_issued() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 12);
    node.next_ballot(ballot(1), 1);
    for begun in commands.chunks(4) {
        node.begin(ballot(1), begun, 1);
    }
    let last = |node: &Node| node.acceptor.votes().last().map(|vote| vote.command.number().0);
    assert_eq!((last(&node), node.acceptor.waiting.len()), (Some(8), 4));
    let effects = node.handle(Input::Issued(commands[2].id));
    assert_eq!(last(&node), Some(11));
    assert_eq!(effects.last(), Some(&voted(ballot(1), Some((4, commands[10].id)), 1)));
}

/// Catches votes told as one run although a number between them was never voted for: a learner
/// told the acceptor that it is issued, and the reboot forgot.
#[test]
fn a_run_ends_where_the_votes_have_a_hole() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 4);
    node.next_ballot(ballot(1), 1);
    node.begin(ballot(1), &commands[..1], 1);
    node.handle(Input::Issued(commands[1].id));
    node.begin(ballot(1), &commands[2..], 2);
    node.reboot(CommandId::NULL);
    assert_eq!(node.begin(ballot(1), &[], 3), [voted(ballot(1), Some((3, commands[3].id)), 3)]);
    let effects = node.begin(ballot(1), &commands[1..2], 4);
    assert_eq!(effects[1..], [persist_vote(ballot(1), &commands[1]), voted(ballot(1), Some((1, commands[3].id)), 4)]);
}

/// Invariant 11: catches votes forgotten that this acceptor does not know to be issued, whatever it is told, a
/// mark that goes down or is written again, and one that a reboot forgets.
#[test]
fn votes_are_forgotten_up_to_what_is_issued_here() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 4);
    let forget = |number| Effect::Persist(LogRecord::Forget(CommandNumber(number)));
    node.next_ballot(ballot(1), 1);
    node.begin(ballot(1), &commands, 1);
    assert_eq!(node.handle(Input::Forget(CommandNumber(2))), [], "nothing is known to be issued");
    node.handle(Input::Issued(commands[2].id));
    assert_eq!(node.handle(Input::Forget(CommandNumber(2))), [forget(2)]);
    assert_eq!(node.handle(Input::Forget(CommandNumber(1))), []);
    node.reboot(commands[2].id);
    assert_eq!(node.handle(Input::Forget(CommandNumber(2))), [], "known since before the reboot");
    assert_eq!(node.handle(Input::Forget(CommandNumber(9))), [forget(3)]);
    assert_eq!(node.log.votes, [vote(ballot(1), &commands[3])]);
}

/// Invariant 3: catches a log that forgot a promise being taken for a good one (S-15).
#[test]
#[should_panic(expected = "above the stored promise")]
fn a_log_with_a_vote_above_its_promise_is_no_log() {
    let stray = vote(ballot(2), &command(ballot(2), 1, CommandId::NULL));
    let image =
        LogImage { last_tried: Ballot::NONE, next_ballot: ballot(1), votes: vec![stray], ..LogImage::default() };
    let _ = Acceptor::new(config(), image, CommandId::NULL);
}

/// Invariant 1: catches a learner of this node that changes its mind.
#[test]
#[should_panic(expected = "two commands issued at one number")]
fn two_commands_issued_at_one_number_stop_the_node() {
    let mut node = fresh();
    node.handle(Input::Issued(id(ballot(1), 5)));
    node.handle(Input::Issued(id(rival(1), 5)));
}
