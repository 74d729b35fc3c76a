//! Votes under one membership after another (ADR 0026).

use super::*;

/// A `BeginBallot` of a leader under the membership with this number.
fn begin_under(node: &mut Node, membership: u64, ballot: Ballot, commands: &[Command]) -> Vec<Effect> {
    let (commands, membership) = (commands.to_vec(), CommandNumber(membership));
    let message = ToAcceptor::BeginBallot(BeginBallot { ballot, commands, round: 1, membership });
    node.handle(Input::Message { from: ballot.node, message })
}

/// What is made durable, in order.
fn written(effects: &[Effect]) -> Vec<&LogRecord> {
    fn record(effect: &Effect) -> Option<&LogRecord> {
        if let Effect::Persist(record) = effect { Some(record) } else { None }
    }
    effects.iter().filter_map(record).collect()
}

/// Catches votes under a membership that is not durable with the first of them, or written again with each.
#[test]
fn the_membership_of_the_first_vote_under_it_is_durable_with_it() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 4);
    node.next_ballot(ballot(1), 1);
    let first = begin_under(&mut node, 0, ballot(1), &commands[..2]);
    let vote = |ballot, command| LogRecord::Vote(vote(ballot, command));
    assert_eq!(written(&first), [&vote(ballot(1), &commands[0]), &vote(ballot(1), &commands[1])]);
    node.next_ballot(ballot(2), 3);
    assert_eq!(written(&begin_under(&mut node, 2, ballot(2), &[])), [] as [&LogRecord; 0], "no vote");
    let early = begin_under(&mut node, 2, ballot(2), &commands[2..3]);
    assert_eq!(written(&early), [] as [&LogRecord; 0], "the change is not known to be issued here");
    let under = LogRecord::VotedUnder(CommandNumber(2));
    let third = node.handle(Input::Issued(commands[1].id));
    assert_eq!(written(&third), [&under, &vote(ballot(2), &commands[2])]);
    let fourth = begin_under(&mut node, 2, ballot(2), &commands[3..]);
    assert_eq!(written(&fourth), [&vote(ballot(2), &commands[3])]);
    assert_eq!(node.log.voted_under, CommandNumber(2));
}

/// Catches an acceptor that a broken leader binds to a membership that there is not: it would vote for nobody else.
#[test]
fn a_membership_that_is_not_issued_binds_nobody() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 1);
    node.next_ballot(ballot(1), 1);
    assert_eq!(written(&begin_under(&mut node, 9, ballot(1), &commands)), [] as [&LogRecord; 0]);
    node.next_ballot(ballot(2), 1);
    let vote = LogRecord::Vote(vote(ballot(2), &commands[0]));
    assert_eq!(written(&begin_under(&mut node, 0, ballot(2), &commands)), [&vote]);
}

/// This node has voted above a change, and lost the state that knows it. A leader that does not know the change proposes
/// other commands from below it on, in a higher ballot. Catches a vote of that ballot that takes the place of one that
/// may have issued a command under the change; and one of a leader that proposes above a change that it does not know.
#[test]
fn after_a_vote_under_a_change_none_is_cast_under_what_was_before_it() {
    let mut node = fresh();
    let commands = chain(ballot(1), CommandId::NULL, 4);
    node.next_ballot(ballot(1), 1);
    begin_under(&mut node, 0, ballot(1), &commands[..2]);
    node.handle(Input::Issued(commands[1].id));
    node.next_ballot(ballot(2), 3);
    begin_under(&mut node, 2, ballot(2), &commands[2..3]);
    node.reboot(CommandId::NULL);
    assert_eq!(node.acceptor.silence(), Some(Silence::Behind));
    let others = chain(rival(3), CommandId::NULL, 4);
    let silent = Effect::Ignored(IgnoreReason::Silent);
    assert_eq!(node.next_ballot(rival(3), 1), std::slice::from_ref(&silent));
    assert_eq!(begin_under(&mut node, 0, rival(3), &others), [proposed(rival(3), &others), silent]);
    node.handle(Input::Issued(commands[1].id));
    assert_eq!(node.handle(Input::Forget(CommandNumber(1))).len(), 1);
    assert_eq!(node.acceptor.silence(), Some(Silence::Behind), "without the change itself");
    assert!(node.handle(Input::Forget(CommandNumber(2))).contains(&Effect::Speaks));
    node.next_ballot(rival(3), 1);
    let stray = command(rival(3), 3, commands[1].id);
    assert_eq!(begin_under(&mut node, 0, rival(3), &[stray]), [voted(rival(3), None, 1)], "the promise stands");
    // Under the change, and under later ones, it votes on.
    node.next_ballot(ballot(4), 3);
    assert_eq!(written(&begin_under(&mut node, 2, ballot(4), &commands[2..])).len(), 2);
}
