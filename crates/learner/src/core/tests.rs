//! Exact effects, input by input.

use std::time::Duration;

use bytes::Bytes;
use protocol::message::{CatchUp, Commands};
use protocol::{CommandBody, Fingerprint, Forget, RequestId, Run, Timestamp, Verdict};
use storage::StateStore;
use storage::memory::MemoryState;

use super::*;

mod durable;
mod fetching;
mod membership;
mod serving;

const ME: NodeId = NodeId(1);

fn ballot(round: u64, node: u64) -> Ballot {
    Ballot::new(round, NodeId(node))
}

fn config(learn_from: LearnFrom) -> Config {
    let membership = Membership::of_equals(3);
    Config { me: ME, membership, learn_from, window: 4, timing: Timing::default() }
}

fn learner(learn_from: LearnFrom) -> Learner {
    Learner::new(config(learn_from), CommandId::NULL)
}

/// `count` commands after `precedent`, first proposed in `ballot`.
fn run_after(precedent: CommandId, ballot: Ballot, count: u64) -> Vec<Command> {
    let mut precedent = precedent;
    let next = |_| {
        let id = CommandId::new(ballot, precedent.number.next());
        let command = Command { id, precedent, body: Bytes::from(id.to_string()) };
        precedent = id;
        command
    };
    (0..count).map(next).collect()
}

/// The chain `1..=count` of ballot 1.2.
fn chain(count: u64) -> Vec<Command> {
    run_after(CommandId::NULL, ballot(1, 2), count)
}

fn at(millis: u64) -> Now {
    Now { tick: Tick::default() + Duration::from_millis(millis), ..Now::default() }
}

fn success(ballot: Ballot, issued: CommandId, commands: &[Command]) -> Input {
    let message = ToLearner::Success(Success { ballot, issued, commands: commands.to_vec() });
    Input::Message { from: ballot.node, message }
}

fn voted(from: u64, ballot: Ballot, last: CommandId) -> Input {
    let run = Some(Run { first: CommandNumber(1), last });
    Input::Message {
        from: NodeId(from),
        message: ToLearner::Voted(Voted { ballot, run, round: 1, membership: CommandNumber::NULL }),
    }
}

fn proposed(ballot: Ballot, commands: &[Command]) -> Input {
    Input::Proposed { ballot, commands: commands.to_vec() }
}

fn answer(from: u64, commands: &[Command], issued: CommandId) -> Input {
    let message = ToLearner::Commands(Commands { commands: commands.to_vec(), issued, kept_from: CommandNumber(1) });
    Input::Message { from: NodeId(from), message }
}

fn question(from: u64, first: u64) -> Input {
    let message = ToLearner::CatchUp(CatchUp { first: CommandNumber(first) });
    Input::Message { from: NodeId(from), message }
}

fn peer_issued(peer: u64, issued: u64) -> Input {
    Input::PeerIssued { peer: NodeId(peer), issued: CommandNumber(issued) }
}

fn asks(to: u64, first: u64) -> Effect {
    Effect::Ask { to: NodeId(to), first: CommandNumber(first) }
}

fn applies(commands: &[Command]) -> Effect {
    Effect::Apply(commands.to_vec())
}

fn ignored(reason: IgnoreReason) -> Vec<Effect> {
    vec![Effect::Ignored(reason)]
}

fn contradiction(from: u64, theirs: CommandId, ours: CommandId) -> IgnoreReason {
    IgnoreReason::Contradiction { from: NodeId(from), theirs, ours }
}

/// A2, A1n, A1o: catches a learner that applies what is only proposed, or `Success` without effect.
#[test]
fn success_issues_what_was_proposed_and_nothing_else() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(4));
    assert_eq!(learner.handle(proposed(b, &c), at(0)), []);
    assert_eq!(learner.handle(success(b, c[1].id, &[]), at(0)), [applies(&c[..2])]);
    assert_eq!(learner.handle(success(b, c[3].id, &[]), at(0)), [applies(&c[2..])]);
    assert_eq!(learner.issued(), c[3].id);
    assert_eq!(learner.handle(success(b, c[3].id, &[]), at(0)), ignored(IgnoreReason::AlreadyIssued));
    assert_eq!(learner.handle(proposed(b, &c), at(0)), ignored(IgnoreReason::AlreadyIssued));
}

/// A2: catches bodies within `Success` that are not used, and a body needed only once arriving
/// both ways.
#[test]
fn success_may_carry_the_bodies() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(3));
    assert_eq!(learner.handle(proposed(b, &c[..1]), at(0)), []);
    assert_eq!(learner.handle(success(b, c[2].id, &c), at(0)), [applies(&c)]);
}

/// S-06: `Success` for 5 without 4. Catches applying across the hole, forgetting what was
/// declared, and a hole that is filled by another command than the one pinned.
#[test]
fn a_declaration_beyond_a_hole_waits_and_pins() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(5));
    learner.handle(proposed(b, &c[..3]), at(0));
    assert_eq!(learner.handle(success(b, c[2].id, &[]), at(0)), [applies(&c[..3])]);
    assert_eq!(learner.handle(success(b, c[4].id, &c[4..]), at(0)), []);
    assert_eq!(learner.issued(), c[2].id);

    // A peer claims another command for 4: 5's precedent says no.
    let other = run_after(c[2].id, ballot(2, 3), 1);
    let reason = contradiction(3, other[0].id, c[3].id);
    assert_eq!(learner.handle(answer(3, &other, other[0].id), at(0)), ignored(reason));
    assert_eq!(learner.handle(proposed(b, &c[3..4]), at(0)), [applies(&c[3..])]);
}

/// S-06, A4: catches a declaration that is forgotten, or waits for another message, when a peer
/// fills the hole below it.
#[test]
fn a_peers_answer_that_fills_the_hole_issues_what_waits_above_it() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(3));
    assert_eq!(learner.handle(success(b, c[2].id, &c[1..]), at(0)), []);
    assert_eq!(learner.handle(Input::Tick, at(50)), [asks(2, 1)]);
    assert_eq!(learner.handle(answer(2, &c[..1], c[2].id), at(51)), [applies(&c[..1]), applies(&c[1..])]);
}

/// S-06, A1n, A1o: catches a chain built by numbers instead of ids.
#[test]
fn a_candidate_of_a_lost_ballot_does_not_slip_into_the_chain() {
    let mut learner = learner(LearnFrom::Leader);
    let lost = run_after(CommandId::NULL, ballot(1, 3), 2);
    let mut c = run_after(CommandId::NULL, ballot(2, 2), 2);
    learner.handle(proposed(ballot(1, 3), &lost), at(0));
    // 2 of ballot 2.2 depends on 1 of 2.2, which is not here; 1 of 1.3 is.
    assert_eq!(learner.handle(success(ballot(2, 2), c[1].id, &c[1..]), at(0)), []);
    assert_eq!(learner.handle(proposed(ballot(1, 3), &lost), at(0)), ignored(IgnoreReason::OlderBallot));
    let first = c.remove(0);
    let all = [first.clone(), c.remove(0)];
    assert_eq!(learner.handle(proposed(ballot(2, 2), &[first]), at(0)), [applies(&all)]);
}

/// A12: catches a body that is refused because it came before, or because part of its run is issued.
#[test]
fn bodies_may_come_again() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(3));
    assert_eq!(learner.handle(proposed(b, &c[1..]), at(0)), []);
    assert_eq!(learner.handle(proposed(b, &c[1..]), at(0)), []);
    assert_eq!(learner.handle(success(b, c[0].id, &c[..1]), at(0)), [applies(&c[..1])]);
    assert_eq!(learner.handle(proposed(b, &c), at(0)), []);
}

/// A1h: catches one ballot's, or one number's, second command taking the place of the first.
#[test]
fn two_commands_at_one_number_above_the_issued_ones_are_a_contradiction() {
    let (mut learner, c) = (learner(LearnFrom::Leader), chain(2));
    let other = run_after(CommandId::NULL, ballot(2, 3), 2);
    assert_eq!(learner.handle(proposed(ballot(3, 2), &c[1..]), at(0)), []);
    let reason = contradiction(2, other[1].id, c[1].id);
    assert_eq!(learner.handle(proposed(ballot(3, 2), &other[1..]), at(0)), ignored(reason));
    assert_eq!(learner.handle(success(ballot(3, 2), c[1].id, &[]), at(0)), []);
    let reason = contradiction(3, other[1].id, c[1].id);
    assert_eq!(learner.handle(success(ballot(4, 3), other[1].id, &[]), at(0)), ignored(reason));
    assert_eq!(learner.handle(proposed(ballot(3, 2), &c[..1]), at(0)), [applies(&c)]);
}

/// DESIGN 5 rule 6: several leaders declare the same command. Catches a declaration that is dropped
/// with a lower ballot although a higher one declared it as well.
#[test]
fn a_declaration_counts_through_the_highest_of_its_ballots() {
    let c = chain(2);
    for ballots in [[ballot(1, 2), ballot(3, 3)], [ballot(3, 3), ballot(1, 2)]] {
        let mut learner = learner(LearnFrom::Leader);
        for ballot in ballots {
            assert_eq!(learner.handle(success(ballot, c[1].id, &c[1..]), at(0)), []);
        }
        let effects = learner.handle(success(ballot(2, 2), c[0].id, &c[..1]), at(0));
        assert_eq!(effects, [applies(&c[..1]), applies(&c[1..])]);
    }
}

/// Catches a lagging local acceptor that keeps the learner from ever issuing: declarations come
/// ahead of the bodies, and each body completes a lower one.
#[test]
fn bodies_that_trail_their_declarations_are_issued_one_by_one() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(3));
    for command in &c {
        assert_eq!(learner.handle(success(b, command.id, &[]), at(0)), []);
    }
    for command in &c {
        let effects = learner.handle(proposed(b, std::slice::from_ref(command)), at(0));
        assert_eq!(effects, [applies(std::slice::from_ref(command))]);
    }
}

/// A3: no `Success` at all. Catches counting less than a majority set, and one vote lost.
#[test]
fn votes_of_a_majority_set_issue_without_success() {
    let (mut learner, b, c) = (learner(LearnFrom::Voters), ballot(1, 2), chain(3));
    learner.handle(proposed(b, &c), at(0));
    assert_eq!(learner.handle(voted(2, b, c[2].id), at(0)), []);
    assert_eq!(learner.handle(voted(2, b, c[2].id), at(0)), ignored(IgnoreReason::NothingNew));
    assert_eq!(learner.handle(voted(3, b, c[1].id), at(0)), [applies(&c[..2])]);
    // 3's vote for the third is lost; 1's own makes a majority with 2's.
    assert_eq!(learner.handle(voted(1, b, c[2].id), at(0)), [applies(&c[2..])]);
    assert_eq!(learner.handle(voted(9, b, c[2].id), at(0)), ignored(IgnoreReason::Stranger));
}

/// A3: a peer's answer came before the votes. Catches votes on what is issued that pass for news or
/// for an error, and a majority set's votes for another command that nobody notices.
#[test]
fn votes_on_what_is_issued_say_nothing_unless_they_contradict() {
    let (mut learner, b, c) = (learner(LearnFrom::Voters), ballot(1, 2), chain(2));
    assert_eq!(learner.handle(answer(3, &c, c[1].id), at(0)), [applies(&c)]);
    for id in [c[0].id, c[1].id] {
        assert_eq!(learner.handle(voted(2, b, id), at(0)), []);
        assert_eq!(learner.handle(voted(3, b, id), at(0)), []);
    }
    let other = run_after(CommandId::NULL, ballot(2, 3), 2)[1].id;
    assert_eq!(learner.handle(voted(2, ballot(2, 3), other), at(0)), []);
    let reason = contradiction(3, other, c[1].id);
    assert_eq!(learner.handle(voted(3, ballot(2, 3), other), at(0)), ignored(reason));
}

/// S-04, A1s: a majority set's votes on 2 say nothing until 1 is here and issued.
#[test]
fn voted_is_not_issued_while_the_precedent_is_missing() {
    let (mut learner, b, c) = (learner(LearnFrom::Voters), ballot(1, 2), chain(2));
    learner.handle(proposed(b, &c[1..]), at(0));
    assert_eq!(learner.handle(voted(2, b, c[1].id), at(0)), []);
    assert_eq!(learner.handle(voted(3, b, c[1].id), at(0)), []);
    assert_eq!(learner.issued(), CommandId::NULL);
    assert_eq!(learner.handle(proposed(b, &c[..1]), at(0)), [applies(&c)]);
}

/// S-01 (learner's part): catches votes of different ballots in one count. 2 votes for c' in
/// ballot 1; 3 votes for it in ballot 2 only: no majority set in either.
#[test]
fn votes_of_two_ballots_are_not_added_up() {
    let (mut learner, c) = (learner(LearnFrom::Voters), chain(1));
    learner.handle(proposed(ballot(1, 2), &c), at(0));
    assert_eq!(learner.handle(voted(2, ballot(1, 2), c[0].id), at(0)), []);
    assert_eq!(learner.handle(voted(3, ballot(2, 3), c[0].id), at(0)), []);
    assert_eq!(learner.handle(voted(1, ballot(1, 2), c[0].id), at(0)), ignored(IgnoreReason::OlderBallot));
    assert_eq!(learner.handle(voted(2, ballot(2, 3), c[0].id), at(0)), [applies(&c)]);
}

/// A1h: catches a second command for a number in one ballot being counted with the first.
#[test]
fn votes_for_two_commands_of_one_ballot_and_number_are_a_contradiction() {
    let (mut learner, b) = (learner(LearnFrom::Voters), ballot(2, 2));
    let (ours, theirs) = (chain(1)[0].id, run_after(CommandId::NULL, b, 1)[0].id);
    learner.handle(voted(2, b, ours), at(0));
    assert_eq!(learner.handle(voted(3, b, theirs), at(0)), ignored(contradiction(3, theirs, ours)));
}

/// A2, A3: `LearnFrom` decides whose word counts.
#[test]
fn votes_do_not_count_when_the_leader_announces() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(1));
    learner.handle(proposed(b, &c), at(0));
    for acceptor in 1..=3 {
        assert_eq!(learner.handle(voted(acceptor, b, c[0].id), at(0)), ignored(IgnoreReason::NotCounting));
    }
}

/// DESIGN 5 rule 6, S-01 fix (c): catches a declaration of a superseded ballot above a command
/// issued through a later one; the command still comes, by asking.
#[test]
fn a_declaration_through_a_lower_ballot_than_the_precedents_is_not_used() {
    let (mut learner, c) = (learner(LearnFrom::Leader), chain(2));
    learner.handle(proposed(ballot(1, 2), &c), at(0));
    assert_eq!(learner.handle(success(ballot(2, 3), c[0].id, &[]), at(0)), [applies(&c[..1])]);
    let late = success(ballot(1, 2), c[1].id, &[]);
    assert_eq!(learner.handle(late, at(0)), ignored(IgnoreReason::OlderBallot));
    assert_eq!(learner.handle(Input::Tick, at(60)), [asks(2, 2)]);
    assert_eq!(learner.handle(answer(2, &c[1..], c[1].id), at(61)), [applies(&c[1..])]);
}

/// S-01 fix (c): the same, when the lower ballot's declaration was waiting already.
#[test]
fn a_waiting_declaration_is_dropped_when_a_higher_ballot_issues_below_it() {
    let (mut learner, c) = (learner(LearnFrom::Leader), chain(2));
    assert_eq!(learner.handle(success(ballot(1, 2), c[1].id, &c[1..]), at(0)), []);
    let effects = learner.handle(success(ballot(2, 3), c[0].id, &c[..1]), at(0));
    assert_eq!(effects, [applies(&c[..1]), Effect::Ignored(IgnoreReason::OlderBallot)]);
}

/// A1h: catches a peer's claim that contradicts what is issued being believed, or a panic.
#[test]
fn a_claim_of_another_command_at_an_issued_number_is_a_contradiction() {
    let (mut learner, c) = (learner(LearnFrom::Leader), chain(2));
    learner.handle(success(ballot(1, 2), c[0].id, &c[..1]), at(0));
    let other = run_after(CommandId::NULL, ballot(2, 3), 2);
    let reason = contradiction(3, other[0].id, c[0].id);
    assert_eq!(learner.handle(success(ballot(2, 3), other[0].id, &other[..1]), at(0)), ignored(reason));
    assert_eq!(learner.handle(answer(3, &other[1..], other[1].id), at(0)), ignored(reason));
    assert_eq!(learner.handle(answer(3, &other, other[1].id), at(0))[0], Effect::Ignored(reason));
    // Two numbers up, the chain that 3 declares does not lead to our command.
    let effects = learner.handle(success(ballot(2, 3), other[1].id, &other), at(0));
    assert_eq!(effects, ignored(reason));
    assert_eq!(learner.issued(), c[0].id);
}

/// A12: catches a panic, or a belief, on what no node of ours sends.
#[test]
fn malformed_messages_change_nothing() {
    let (mut learner, b, c) = (learner(LearnFrom::Voters), ballot(1, 2), chain(3));
    let before = learner.clone();
    let gap = [c[0].clone(), c[2].clone()];
    let end = CommandId::new(b, CommandNumber(u64::MAX));
    let high = CommandId::new(ballot(7, 2), CommandNumber(1));
    let never_begun = CommandId::new(ballot(0, 2), CommandNumber(1));
    let run_from = |first: u64, last: CommandId| {
        let run = Some(Run { first: CommandNumber(first), last });
        Input::Message {
            from: NodeId(2),
            message: ToLearner::Voted(Voted { ballot: b, run, round: 1, membership: CommandNumber::NULL }),
        }
    };
    let malformed = [
        success(b, c[2].id, &gap),
        success(b, c[2].id, &c[..2]),
        success(b, high, &[]),
        success(b, end, &[]),
        success(b, CommandId::new(b, CommandNumber(0)), &[]),
        voted(2, b, high),
        success(b, never_begun, &[]),
        voted(2, b, CommandId::NULL),
        run_from(0, c[1].id),
        run_from(3, c[1].id),
        proposed(b, &gap),
        proposed(ballot(1, 1), &c),
        answer(2, &gap, c[2].id),
        answer(2, &c, c[1].id),
        answer(2, &c, CommandId::new(ballot(2, 3), c[2].number())),
        answer(2, &c[..0], end),
        question(2, 0),
    ];
    for input in malformed {
        assert_eq!(learner.handle(input.clone(), at(0)), ignored(IgnoreReason::Malformed), "{input:?}");
    }
    let message = ToLearner::Success(Success { ballot: b, issued: c[0].id, commands: c[..1].to_vec() });
    let stolen = Input::Message { from: NodeId(3), message };
    assert_eq!(learner.handle(stolen, at(0)), ignored(IgnoreReason::NotTheOwner));
    for stranger in [question(9, 1), answer(9, &c, c[2].id), peer_issued(9, 7), question(1, 1)] {
        assert_eq!(learner.handle(stranger, at(0)), ignored(IgnoreReason::Stranger));
    }
    assert_eq!(learner, before);
}

/// Catches memory that grows with what a leader or a damaged peer sends: nothing is kept two
/// windows above the last issued command.
#[test]
fn what_is_kept_is_bounded_by_two_windows() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(40));
    for command in &c[1..] {
        learner.handle(proposed(b, std::slice::from_ref(command)), at(0));
        learner.handle(success(b, command.id, &[]), at(0));
    }
    assert_eq!(learner.ahead.len(), (7, 7), "numbers 2 to 8");
    learner.handle(proposed(b, &c[..1]), at(0));
    assert_eq!(learner.issued(), c[7].id);
    assert_eq!(learner.ahead.len(), (0, 0));
}

/// A4: catches asking for what is on its way already, never asking, and asking only once.
#[test]
fn a_short_lag_is_given_time_and_then_peers_are_asked_in_turn() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(3));
    assert_eq!(learner.handle(success(b, c[2].id, &[]), at(0)), []);
    assert_eq!(learner.handle(Input::Tick, at(49)), []);
    assert_eq!(learner.handle(Input::Tick, at(50)), [asks(2, 1)], "only the leader is known to know more");
    // The leader is isolated. 3, a follower, is heard to know more.
    assert_eq!(learner.handle(peer_issued(3, 2), at(51)), [], "one question at a time");
    assert_eq!(learner.handle(Input::Tick, at(249)), []);
    assert_eq!(learner.handle(Input::Tick, at(250)), [asks(3, 1)]);
    assert_eq!(learner.handle(answer(3, &c[..2], c[1].id), at(260)), [applies(&c[..2])]);
    // Duplicates are harmless.
    assert_eq!(learner.handle(answer(3, &c[..2], c[1].id), at(261)), ignored(IgnoreReason::AlreadyIssued));
    assert_eq!(learner.handle(Input::Tick, at(310)), [asks(2, 3)]);
    assert_eq!(learner.handle(Input::PeerLost(NodeId(2)), at(311)), [asks(3, 3)], "2 will not answer");
    assert_eq!(learner.handle(answer(2, &c[2..], c[2].id), at(312)), [applies(&c[2..])]);
    assert_eq!(learner.handle(Input::Tick, at(9_999)), []);
}

/// RELIABILITY 5.6: catches a learner that applies what its disk has no room for, keeps it in memory, asks
/// for more, or does not go on by itself when there is room again; and one that serves nobody meanwhile.
#[test]
fn without_room_nothing_is_applied_until_there_is_some() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(4));
    learner.handle(success(b, c[0].id, &c[..1]), at(0));
    learner.handle(proposed(b, &c[1..2]), at(0));
    assert_eq!(learner.handle(Input::Space(Space::Out), at(0)), []);
    assert_eq!(learner.handle(proposed(b, &c[2..]), at(1)), ignored(IgnoreReason::NoRoom));
    assert_eq!(learner.handle(success(b, c[1].id, &[]), at(2)), []);
    assert_eq!(learner.handle(success(b, c[3].id, &c[2..]), at(2)), []);
    assert_eq!(learner.ahead.len(), (1, 2));
    assert_eq!(learner.handle(answer(3, &c[1..], c[3].id), at(3)), ignored(IgnoreReason::NoRoom));
    assert_eq!(learner.handle(Input::Tick, at(500)), [Effect::Reclaim(Space::Out)], "asks for nothing");
    assert_eq!(learner.handle(question(3, 1), at(501)), [Effect::Serve { to: NodeId(3), first: CommandNumber(1) }]);
    assert_eq!(learner.handle(Input::Space(Space::Out), at(502)), [], "still");
    assert_eq!(learner.handle(Input::Space(Space::Low), at(503)), [applies(&c[1..2])], "what was kept before");
    assert_eq!(learner.handle(Input::Tick, at(553)), [asks(2, 3)]);
    assert_eq!(learner.handle(answer(2, &c[2..], c[3].id), at(554)), [applies(&c[2..])]);
}

/// A4: catches a wide lag that is waited out, and a long list that comes one timeout a piece.
#[test]
fn a_wide_lag_is_asked_about_at_once_and_piece_after_piece() {
    let (mut learner, c) = (learner(LearnFrom::Leader), chain(9));
    assert_eq!(learner.handle(peer_issued(3, 9), at(0)), [asks(3, 1)]);
    let effects = learner.handle(answer(3, &c[..4], c[8].id), at(1));
    assert_eq!(effects, [applies(&c[..4]), asks(3, 5)]);
    // Overlapping and empty pieces.
    assert_eq!(learner.handle(answer(3, &[], c[8].id), at(2)), ignored(IgnoreReason::NothingNew));
    assert_eq!(learner.handle(answer(3, &c[5..], c[8].id), at(2)), ignored(IgnoreReason::NotNext));
    assert_eq!(learner.handle(answer(3, &c[2..], c[8].id), at(3)), [applies(&c[4..])]);
}

/// A4: catches a lag that nobody is asked about because no peer is known to be ahead, and a peer that
/// is asked in vain, again and again, because it once said how far it is.
#[test]
fn who_is_known_to_know_more_is_asked_or_else_everybody() {
    let (own, c) = (ballot(1, 1), run_after(CommandId::NULL, ballot(1, 1), 3));
    let mut leads_itself = learner(LearnFrom::Leader);
    assert_eq!(leads_itself.handle(success(own, c[2].id, &[]), at(0)), []);
    assert_eq!(leads_itself.handle(Input::Tick, at(50)), [asks(2, 1)]);
    assert_eq!(leads_itself.handle(Input::Tick, at(250)), [asks(3, 1)]);

    let mut follows = learner(LearnFrom::Leader);
    assert_eq!(follows.handle(peer_issued(3, 0), at(0)), []);
    assert_eq!(follows.handle(peer_issued(2, 3), at(0)), []);
    assert_eq!(follows.handle(Input::Tick, at(50)), [asks(2, 1)]);
    assert_eq!(follows.handle(Input::Tick, at(250)), [asks(2, 1)], "3 knows no more than we do");
}

/// A4: catches an answer that nobody asked for, or that came late, starting a second conversation.
#[test]
fn only_the_peer_that_was_asked_is_asked_on() {
    let (mut learner, c) = (learner(LearnFrom::Leader), chain(4));
    assert_eq!(learner.handle(answer(3, &c[..2], c[3].id), at(0)), [applies(&c[..2])]);
}

/// A4: a learner answers with what it has, from the store, be it nothing.
#[test]
fn questions_are_answered_by_any_learner() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(2));
    learner.handle(success(b, c[1].id, &c), at(0));
    for first in [2, 3] {
        let serve = Effect::Serve { to: NodeId(3), first: CommandNumber(first) };
        assert_eq!(learner.handle(question(3, first), at(0)), [serve]);
    }
}

/// A4, S-14: a reboot in the middle. Catches a learner that begins elsewhere than where its
/// store ends: the unsynced part may be lost, and is asked for again.
#[test]
fn a_learner_that_begins_again_continues_from_what_is_applied() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(4));
    learner.handle(success(b, c[2].id, &c[..3]), at(0));
    learner.handle(proposed(b, &c[3..]), at(0));

    // The store came back with one command of three.
    let mut learner = Learner::new(config(LearnFrom::Leader), c[0].id);
    assert_eq!(learner.handle(success(b, c[3].id, &[]), at(0)), []);
    assert_eq!(learner.handle(Input::Tick, at(50)), [asks(2, 2)]);
    assert_eq!(learner.handle(answer(2, &c[1..3], c[3].id), at(51)), [applies(&c[1..3]), asks(2, 4)]);
    assert_eq!(learner.handle(answer(2, &c[3..], c[3].id), at(52)), [applies(&c[3..])]);
}

/// S-33: catches a digest of another number than the one asked for, and one that is never
/// answered.
#[test]
fn a_digest_is_taken_exactly_at_its_number() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(3));
    let patience = Duration::from_secs(1);
    let want = |waiter, number| Input::DigestAt { waiter: Waiter(waiter), number: CommandNumber(number), patience };
    let take = |waiter| Effect::Digest { waiter: Waiter(waiter) };
    let no = |waiter, reason| Effect::NoDigest { waiter: Waiter(waiter), reason };
    assert_eq!(learner.handle(want(1, 2), at(0)), []);
    assert_eq!(learner.handle(want(2, 1), at(0)), []);
    assert_eq!(learner.handle(want(3, 9), at(0)), []);
    let effects = learner.handle(success(b, c[2].id, &c), at(0));
    assert_eq!(effects, [applies(&c[..1]), take(2), applies(&c[1..2]), take(1), applies(&c[2..])]);
    assert_eq!(learner.handle(want(4, 2), at(0)), [no(4, DigestRefusal::Gone)]);
    assert_eq!(learner.handle(want(5, 3), at(0)), [take(5)]);
    assert_eq!(learner.handle(Input::Tick, at(999)), []);
    assert_eq!(learner.handle(Input::Tick, at(1000)), [no(3, DigestRefusal::NotReached)]);
}

/// S-33: catches a digest that waits for more although its number is the last one issued.
#[test]
fn a_digest_at_the_last_number_is_taken_at_once() {
    let (mut learner, b, c) = (learner(LearnFrom::Leader), ballot(1, 2), chain(2));
    let (waiter, patience) = (Waiter(1), Duration::from_secs(1));
    let want = Input::DigestAt { waiter, number: CommandNumber(2), patience };
    assert_eq!(learner.handle(want, at(0)), []);
    assert_eq!(learner.handle(success(b, c[1].id, &c), at(0)), [applies(&c), Effect::Digest { waiter }]);
}

/// Claim 5: catches a window of nothing, which would keep nothing.
#[test]
#[should_panic(expected = "the window is at least 1")]
fn a_window_of_nothing_is_refused() {
    let _refused = Learner::new(Config { window: 0, ..config(LearnFrom::Leader) }, CommandId::NULL);
}

/// Catches a learner that begins anew in a restart.
#[test]
fn a_learner_begins_with_what_its_store_holds() {
    let body = CommandBody {
        time: Timestamp(1),
        request: RequestId::Gateway(1),
        fingerprint: Fingerprint::default(),
        function: "f".into(),
        verdict: Verdict::Unchanged(Bytes::new()),
        effects: Vec::new(),
        forget: Forget::default(),
    };
    let command = Command { body: body.encode(), ..chain(1).remove(0) };
    let store = MemoryState::new();
    store.apply(std::slice::from_ref(&command)).expect("memory");
    assert_eq!(Stored::of(&store), Stored::from(command.id));
}
