//! Forgetting: votes that are in durable states, and commands that nobody is to be helped with.

use protocol::{Ballot, CommandNumber, NodeId, Timestamp};

use super::{Disk, apply, body, command, digest, put, simple, vote};
use crate::{LogRecord, Retention, StateStore, weight};

/// Keeps everything.
const ALL: Retention = Retention { commands: u64::MAX, bytes: u64::MAX, since: Timestamp(0) };

/// Invariant 11: catches votes that are forgotten too early, that come back, a mark that goes down or is lost, and a
/// batch that is not one: what is voted with the mark counts from it on.
pub fn votes_are_forgotten_up_to_a_mark(disk: Disk<'_>) {
    let opened = disk();
    // Votes are forgotten for what the state holds.
    apply(&*opened.state, &simple(9));
    opened.state.sync().expect("the state is synced");
    let vote = |number| LogRecord::Vote(vote(1, number, "v"));
    let forget = |number| LogRecord::Forget(CommandNumber(number));
    let votes = |log: &dyn crate::LogStore, above| -> (u64, Vec<u64>) {
        let image = log.load(CommandNumber(above)).expect("the log is readable");
        (image.forgotten.0, image.votes.iter().map(|vote| vote.command.number().0).collect())
    };
    let write = |log: &dyn crate::LogStore, records: &[LogRecord]| log.write(records).expect("the log is written");
    assert_eq!(votes(&*opened.log, 0), (0, vec![]));
    write(&*opened.log, &[1, 2, 3, 4, 5, 6].map(vote));
    write(&*opened.log, &[forget(2)]);
    assert_eq!(votes(&*opened.log, 0), (2, vec![3, 4, 5, 6]));
    assert_eq!(votes(&*opened.log, 4), (2, vec![5, 6]));
    write(&*opened.log, &[forget(1)]);
    let promise = LogRecord::NextBallot(Ballot::new(2, NodeId(1)));
    write(&*opened.log, &[promise, vote(7), forget(4), vote(8), forget(3)]);
    assert_eq!(votes(&*opened.log, 0), (4, vec![5, 6, 7, 8]));
    drop(opened);
    let opened = disk();
    assert_eq!(votes(&*opened.log, 0), (4, vec![5, 6, 7, 8]), "after a restart");
    assert_eq!(opened.log.load(CommandNumber(0)).expect("readable").next_ballot.round, 2);
    write(&*opened.log, &[forget(9), forget(9)]);
    assert_eq!(votes(&*opened.log, 0), (9, vec![]));
    write(&*opened.log, &[vote(10)]);
    drop(opened);
    assert_eq!(votes(&*disk().log, 0), (9, vec![10]));
}

/// A14: catches a limit that does not hold, or takes more than it must; `at_most` that is exceeded; commands that are
/// listed with a gap, or not, although they are kept.
pub fn commands_are_forgotten_by_number_weight_and_time(disk: Disk<'_>) {
    let opened = disk();
    let commands = simple(20);
    commands.chunks(3).for_each(|batch| apply(&*opened.state, batch));
    let forget = |state: &dyn StateStore, retention: Retention, at_most: u64| {
        let kept_from = state.forget_commands(&retention, CommandNumber(at_most)).expect("commands are forgotten").0;
        assert_eq!(state.kept_from().0, kept_from);
        let list = |first| state.commands(CommandNumber(first), 99, usize::MAX).expect("commands are readable");
        for gone in 1..kept_from {
            assert_eq!(list(gone), None, "{gone} is below {kept_from}");
        }
        let index = usize::try_from(kept_from - 1).expect("small");
        assert_eq!(list(kept_from), Some(commands[index..].to_vec()));
        kept_from
    };
    assert_eq!(opened.state.kept_from().0, 1);
    assert_eq!(forget(&*opened.state, ALL, 20), 1);
    assert_eq!(forget(&*opened.state, Retention { commands: 17, ..ALL }, 2), 3, "at most");
    assert_eq!(forget(&*opened.state, Retention { commands: 17, ..ALL }, 20), 4);
    assert_eq!(forget(&*opened.state, Retention { since: Timestamp(6), ..ALL }, 20), 6);
    let bytes = |from: usize| commands[from - 1..].iter().map(|command| weight(command) as u64).sum::<u64>();
    assert_eq!(forget(&*opened.state, Retention { bytes: bytes(8), ..ALL }, 20), 8);
    let digest = digest(&*opened.state);
    drop(opened);

    let opened = disk();
    assert_eq!(forget(&*opened.state, ALL, 20), 8, "after a restart");
    assert_eq!(super::digest(&*opened.state), digest, "forgetting commands is no change of state");
    assert_eq!(forget(&*opened.state, Retention { bytes: bytes(9) - 1, ..ALL }, 20), 10, "a byte too many");
    let all = Retention { commands: 11, bytes: bytes(13), since: Timestamp(12) };
    assert_eq!(forget(&*opened.state, all, 20), 13, "the strictest counts");
    assert_eq!(forget(&*opened.state, ALL, 3), 13, "what is gone does not come back");
}

/// A14: catches a state without commands that forgets its number or time, counts the next ones wrong, or takes what is
/// not there yet for something lost.
pub fn all_commands_may_be_forgotten(disk: Disk<'_>) {
    let opened = disk();
    assert_eq!((opened.state.kept_from().0, opened.state.time()), (1, Timestamp(0)));
    let none = Retention { commands: 0, ..ALL };
    assert_eq!(opened.state.forget_commands(&none, CommandNumber(9)).map(|number| number.0), Ok(1));
    let commands = simple(9);
    apply(&*opened.state, &commands[..4]);
    assert_eq!(opened.state.forget_commands(&none, CommandNumber(9)).map(|number| number.0), Ok(5));
    let check = |state: &dyn StateStore| {
        assert_eq!((state.applied(), state.time(), state.kept_from().0), (commands[3].id, Timestamp(4), 5));
        assert_eq!(state.commands(CommandNumber(4), 9, usize::MAX), Ok(None));
        assert_eq!(state.commands(CommandNumber(5), 9, usize::MAX), Ok(Some(vec![])));
    };
    check(&*opened.state);
    drop(opened);
    let opened = disk();
    check(&*opened.state);
    apply(&*opened.state, &commands[4..]);
    let two = Retention { bytes: commands[7..].iter().map(|command| weight(command) as u64).sum(), ..ALL };
    assert_eq!(opened.state.forget_commands(&two, CommandNumber(9)).map(|number| number.0), Ok(8));
    assert_eq!(opened.state.commands(CommandNumber(8), 9, usize::MAX), Ok(Some(commands[7..].to_vec())));
}

/// Catches a time that is not that of the last applied command.
pub fn the_time_is_that_of_the_last_command(disk: Disk<'_>) {
    let opened = disk();
    let mut late = body(2, vec![put("k", "v")]);
    late.time = Timestamp(1_000);
    apply(&*opened.state, &[command(1, &body(1, vec![put("k", "v")])), command(2, &late)]);
    assert_eq!(opened.state.time(), Timestamp(1_000));
    drop(opened);
    assert_eq!(disk().state.time(), Timestamp(1_000));
}
