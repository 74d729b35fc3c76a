//! What every implementation of the traits must do, as a suite of functions that panic when it
//! does not. Each takes a [`Disk`]; the crate's own tests run each of them on memory and on
//! RocksDB, and an implementation elsewhere can do the same.

mod history;
mod snapshots;

use std::sync::Arc;

use bytes::Bytes;
use protocol::{
    Ballot, Command, CommandBody, CommandId, CommandNumber, Effect, Fingerprint, Forget, Key, NodeId, RequestId,
    StateView, StoredOutcome, Timestamp, Verdict, Vote,
};

use crate::{FORGET_MAX, LogImage, LogRecord, LogStore, Standing, StateStore};

pub use history::{
    all_commands_may_be_forgotten, commands_are_forgotten_by_number_weight_and_time,
    the_time_is_that_of_the_last_command, votes_are_forgotten_up_to_a_mark,
};
pub use snapshots::{
    a_checkpoint_stays_as_it_was, a_part_is_never_installed, an_installed_state_is_the_one_that_was_sent,
    another_snapshot_replaces_what_is_staged, copy, eventful, nothing_of_the_old_state_is_remembered,
    only_the_right_snapshot_is_installed, pieces, staging_goes_on_after_a_restart,
    the_digest_is_kept_with_every_command,
};

/// The stores of a node, as one process has opened them.
pub struct Opened {
    /// The log.
    pub log: Arc<dyn LogStore>,
    /// The state.
    pub state: Arc<dyn StateStore>,
}

/// Where the stores of one node lie. Opening again is a new process after `kill -9`: the stores
/// opened before are dropped first, nothing that was written is lost.
pub type Disk<'a> = &'a dyn Fn() -> Opened;

/// A command's body as the suite builds it: request `r<number>` unless told otherwise, time =
/// number. Without effects it is a refusal.
#[must_use]
pub fn body(number: u64, effects: Vec<Effect>) -> CommandBody {
    CommandBody {
        time: Timestamp(number),
        request: caller(&format!("r{number}")),
        fingerprint: Fingerprint([7; 16]),
        function: "suite.call".into(),
        verdict: match effects.len() {
            0 => Verdict::Refused { code: "no".into(), message: format!("refused at {number}") },
            _ => Verdict::Changed(result(number)),
        },
        effects,
        forget: Forget::default(),
    }
}

fn result(number: u64) -> Bytes {
    Bytes::from(format!("{{\"number\":{number}}}"))
}

/// The command for `number` in the ballot 1.1, on the one before it.
#[must_use]
pub fn command(number: u64, body: &CommandBody) -> Command {
    let ballot = Ballot::new(1, NodeId(1));
    let precedent = if number == 1 { CommandId::NULL } else { CommandId::new(ballot, CommandNumber(number - 1)) };
    Command { id: CommandId::new(ballot, CommandNumber(number)), precedent, body: body.encode() }
}

/// An effect.
#[must_use]
pub fn put(key: &str, value: impl Into<Bytes>) -> Effect {
    Effect::Put { key: self::key(key), value: value.into() }
}

/// An effect.
#[must_use]
pub fn delete(key: &str) -> Effect {
    Effect::Delete { key: self::key(key) }
}

/// A key.
#[must_use]
pub fn key(text: &str) -> Key {
    Key::new(text).expect("a valid key")
}

/// A request id of a caller's.
#[must_use]
pub fn caller(text: &str) -> RequestId {
    RequestId::caller(text).expect("a valid request id")
}

/// A vote in ballot `(round, 1)`.
#[must_use]
pub fn vote(round: u64, number: u64, body: &'static str) -> Vote {
    let ballot = Ballot::new(round, NodeId(1));
    let id = CommandId::new(ballot, CommandNumber(number));
    let precedent = CommandId::new(ballot, CommandNumber(number - 1));
    Vote { ballot, command: Command { id, precedent, body: Bytes::from_static(body.as_bytes()) } }
}

/// Commands 1 to `count`: each puts the key `k<number>`.
fn simple(count: u64) -> Vec<Command> {
    (1..=count).map(|number| command(number, &body(number, vec![put(&format!("k{number}"), "v")]))).collect()
}

fn apply(state: &dyn StateStore, commands: &[Command]) {
    state.apply(commands).expect("commands are applied");
}

fn value(state: &dyn StateView, key: &str) -> Option<(Bytes, u64)> {
    let found = state.get(&self::key(key)).expect("the state is readable");
    found.map(|entry| (entry.value, entry.version.0))
}

fn keys(state: &dyn StateView, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let found = state.scan(prefix, after, limit).expect("the state is readable");
    found.into_iter().map(|(key, _)| key.as_str().to_owned()).collect()
}

fn outcome(state: &dyn StateView, request: &RequestId) -> Option<StoredOutcome> {
    state.outcome(request).expect("the state is readable")
}

fn digest(state: &dyn StateStore) -> [u8; 32] {
    state.snapshot().and_then(|snapshot| snapshot.digest()).expect("the state is readable")
}

/// A6, S-11: catches a promise or a vote that is not there after a restart, and anything in an
/// empty log.
pub fn the_log_keeps_promises_and_votes(disk: Disk<'_>) {
    let opened = disk();
    let image = opened.log.load(CommandNumber::NULL).expect("readable");
    assert_eq!(image, LogImage { standing: image.standing, ..LogImage::default() }, "a new log is not empty");
    opened.log.write(&[LogRecord::Standing(Standing::Sound)]).expect("the log is written");
    let (tried, promised) = (Ballot::new(3, NodeId(2)), Ballot::new(4, NodeId(1)));
    let votes = [vote(4, 1, "a"), vote(4, 2, "b")];
    let under = CommandNumber(5);
    let mut records = vec![LogRecord::LastTried(tried), LogRecord::NextBallot(promised), LogRecord::VotedUnder(under)];
    records.extend(votes.iter().cloned().map(LogRecord::Vote));
    opened.log.write(&records).expect("the log is written");
    let expected = LogImage {
        last_tried: tried,
        next_ballot: promised,
        voted_under: under,
        votes: votes.into(),
        ..LogImage::default()
    };
    assert_eq!(opened.log.load(CommandNumber::NULL), Ok(expected.clone()));
    drop(opened);
    assert_eq!(disk().log.load(CommandNumber::NULL), Ok(expected), "after a restart");
}

/// Catches an old vote that survives a later one for its number, within a batch and across
/// batches, and an empty batch that does something.
pub fn a_later_vote_replaces_an_earlier_one(disk: Disk<'_>) {
    let opened = disk();
    let write = |records: &[LogRecord]| opened.log.write(records).expect("the log is written");
    write(&[LogRecord::Vote(vote(1, 1, "old")), LogRecord::Vote(vote(1, 2, "kept"))]);
    write(&[]);
    write(&[LogRecord::Vote(vote(2, 1, "newer")), LogRecord::Vote(vote(3, 1, "newest"))]);
    write(&[LogRecord::NextBallot(Ballot::new(9, NodeId(1))), LogRecord::NextBallot(Ballot::new(10, NodeId(1)))]);
    drop(opened);
    let image = disk().log.load(CommandNumber::NULL).expect("the log is readable");
    assert_eq!(image.votes, [vote(3, 1, "newest"), vote(1, 2, "kept")]);
    assert_eq!(image.next_ballot, Ballot::new(10, NodeId(1)));
}

/// Catches votes out of order (256 sorts before 3 as text) and a wrong lower end of `load`.
pub fn votes_come_in_order_above_a_number(disk: Disk<'_>) {
    let opened = disk();
    for number in [256, 3, 70_000, 1, 255] {
        opened.log.write(&[LogRecord::Vote(vote(1, number, "v"))]).expect("the log is written");
    }
    let numbers = |opened: &Opened, above| -> Vec<u64> {
        let image = opened.log.load(CommandNumber(above)).expect("the log is readable");
        image.votes.iter().map(|vote| vote.command.number().0).collect()
    };
    assert_eq!(numbers(&opened, 0), [1, 3, 255, 256, 70_000]);
    assert_eq!(numbers(&opened, 3), [255, 256, 70_000]);
    assert_eq!(numbers(&opened, 69_999), [70_000]);
    assert_eq!(numbers(&opened, 70_000), [0; 0]);
    assert_eq!(numbers(&opened, u64::MAX), [0; 0]);
    drop(opened);
    assert_eq!(numbers(&disk(), 3), [255, 256, 70_000], "after a restart");
}

/// S-14, A1l: catches an applied number that is not that of the effects, the outcome and the
/// command, before or after a restart.
pub fn applying_changes_everything_at_once(disk: Disk<'_>) {
    let opened = disk();
    assert_eq!(opened.state.applied(), CommandId::NULL);
    let commands = [
        command(1, &body(1, vec![put("a", "1"), put("b", "1")])),
        command(2, &body(2, vec![delete("a"), put("b", "2"), put("c", "2")])),
        command(3, &body(3, vec![put("d", "3"), delete("d"), put("a", "3")])),
    ];
    apply(&*opened.state, &commands[..2]);
    apply(&*opened.state, &[]);
    apply(&*opened.state, &commands[2..]);
    let check = |state: &dyn StateStore| {
        assert_eq!(state.applied(), commands[2].id);
        assert_eq!(value(state, "a"), Some(("3".into(), 3)));
        assert_eq!(value(state, "b"), Some(("2".into(), 2)));
        assert_eq!(value(state, "c"), Some(("2".into(), 2)));
        assert_eq!(value(state, "d"), None);
        assert_eq!(state.commands(CommandNumber(1), 9, usize::MAX), Ok(Some(commands.to_vec())));
        let stored = outcome(state, &caller("r2")).expect("the outcome is stored");
        assert_eq!((stored.command.0, stored.time.0), (2, 2));
        assert_eq!((stored.verdict, stored.fingerprint), (Verdict::Changed(result(2)), Fingerprint([7; 16])));
        assert_eq!(outcome(state, &caller("r4")), None);
    };
    check(&*opened.state);
    drop(opened);
    let again = disk();
    check(&*again.state);
    apply(&*again.state, &[command(4, &body(4, vec![put("d", "4")]))]);
    assert_eq!(again.state.applied().number.0, 4);
}

/// S-14, S-33: catches an entry that is told, or counted in the digest, as it was before: there are more of them than any
/// memory of what changed last keeps, and some are larger than it takes. Returns the digest at the end, the same everywhere.
pub fn many_and_large_entries_are_kept_as_they_are_now(disk: Disk<'_>) -> [u8; 32] {
    const ENTRIES: u64 = 10_000;
    const OF_A_COMMAND: u64 = 500;
    // The lowest are the ones that were not changed for longest. Every seventh is large, another one each time.
    let expected = |number: u64, round: u64| match (number + round) % 7 {
        0 => Some(vec![b'l'; 2_000 + usize::try_from(round).expect("small")]),
        2 if round > 0 => None,
        _ => Some(format!("{number} in {round}").into_bytes()),
    };
    let name = |number: u64| format!("k{number:05}");
    let opened = disk();
    let mut commands = 0;
    for round in 0..3 {
        for first in (0..ENTRIES).step_by(usize::try_from(OF_A_COMMAND).expect("small")) {
            let effect =
                |number| expected(number, round).map_or_else(|| delete(&name(number)), |v| put(&name(number), v));
            commands += 1;
            let effects = (first..first + OF_A_COMMAND).map(effect).collect();
            apply(&*opened.state, &[command(commands, &body(commands, effects))]);
        }
        assert_eq!(opened.state.digest().digest, digest(&*opened.state), "after round {round}");
        for number in (0..ENTRIES).step_by(11) {
            let found = value(&*opened.state, &name(number)).map(|(value, _)| value.to_vec());
            assert_eq!(found, expected(number, round), "{} after round {round}", name(number));
        }
    }
    digest(&*opened.state)
}

/// Catches an empty value that reads as absent, and limits of keys and values that the
/// implementation does not reach.
pub fn empty_and_largest_values_are_kept(disk: Disk<'_>) {
    let long_key = "é".repeat(protocol::state::KEY_BYTES_MAX / 2);
    let large = Bytes::from(vec![0xAB; protocol::state::VALUE_BYTES_MAX]);
    let opened = disk();
    let effects = vec![put("empty", ""), put(&long_key, large.clone()), put("gone", ""), delete("gone")];
    apply(&*opened.state, &[command(1, &body(1, effects))]);
    drop(opened);
    let opened = disk();
    assert_eq!(value(&*opened.state, "empty"), Some((Bytes::new(), 1)));
    assert_eq!(value(&*opened.state, &long_key), Some((large, 1)));
    assert_eq!(value(&*opened.state, "gone"), None);
    assert_eq!(keys(&*opened.state, "", None, 9), ["empty", &long_key]);
}

/// Catches wrong ends of a scan: keys that share a prefix, `after` below, in and above the
/// prefix, limits.
pub fn scans_keep_to_prefix_after_and_limit(disk: Disk<'_>) {
    let opened = disk();
    let all = ["a", "ab", "ab\0", "ab/1", "ab/10", "ab/2", "abc", "ac", "b", "\u{10ffff}", "\u{10ffff}x"];
    let effects = all.iter().map(|key| put(key, "v")).collect();
    apply(&*opened.state, &[command(1, &body(1, effects))]);
    let check = |state: &dyn StateView| {
        assert_eq!(keys(state, "", None, 99), all);
        assert_eq!(keys(state, "ab", None, 99), ["ab", "ab\0", "ab/1", "ab/10", "ab/2", "abc"]);
        assert_eq!(keys(state, "ab/", None, 2), ["ab/1", "ab/10"]);
        assert_eq!(keys(state, "ab/", Some("ab/1"), 99), ["ab/10", "ab/2"]);
        assert_eq!(keys(state, "ab/", Some("ab/10"), 99), ["ab/2"]);
        assert_eq!(keys(state, "ab", Some("ab"), 1), ["ab\0"]);
        assert_eq!(keys(state, "ab/", Some("a"), 99), ["ab/1", "ab/10", "ab/2"], "after lies below the prefix");
        assert_eq!(keys(state, "ab/", Some(""), 1), ["ab/1"]);
        assert_eq!(keys(state, "ab/", Some("b"), 99), [""; 0], "after lies above the prefix");
        assert_eq!(keys(state, "", Some("ac"), 1), ["b"]);
        assert_eq!(keys(state, "\u{10ffff}", None, 99), ["\u{10ffff}", "\u{10ffff}x"]);
        assert_eq!(keys(state, "zz", None, 99), [""; 0]);
        assert_eq!(keys(state, "a", None, 0), [""; 0]);
        assert_eq!(keys(state, "", Some(&"x".repeat(5_000)), 1), ["\u{10ffff}"], "after may be longer than a key");
    };
    check(&*opened.state);
    check(&*opened.state.snapshot().expect("a snapshot"));
}

/// A4: catches a list of issued commands with a wrong first, last or weight, for peers that ask
/// for what they lack.
pub fn commands_are_listed_for_catching_up(disk: Disk<'_>) {
    let opened = disk();
    let commands = simple(300);
    for batch in commands.chunks(7) {
        apply(&*opened.state, batch);
    }
    drop(opened);
    let state = disk().state;
    let list = |first, limit, bytes| -> Vec<Command> {
        state.commands(CommandNumber(first), limit, bytes).expect("commands are readable").expect("commands are kept")
    };
    assert_eq!(list(1, 999, usize::MAX), commands);
    assert_eq!(list(0, 2, usize::MAX), commands[..2], "the null command is not stored");
    assert_eq!(list(255, 3, usize::MAX), commands[254..257]);
    assert_eq!(list(299, 99, usize::MAX), commands[298..]);
    assert_eq!(list(301, 99, usize::MAX), []);
    assert_eq!(list(1, 0, usize::MAX), []);
    assert_eq!(list(10, 99, 0), commands[9..10], "the first one comes whatever it weighs");
    let two = commands[9].body.len() + commands[10].body.len();
    assert_eq!(list(10, 99, two), commands[9..11]);
    assert_eq!(list(10, 99, two - 1), commands[9..10]);
}

/// Catches state that counts as durable before its sync, or does not after it or a restart.
pub fn durable_follows_sync(disk: Disk<'_>) {
    let opened = disk();
    let commands = simple(5);
    assert_eq!(opened.state.durable().0, 0);
    apply(&*opened.state, &commands[..3]);
    assert_eq!(opened.state.durable().0, 0, "nothing was synced");
    opened.state.sync().expect("the state is synced");
    assert_eq!(opened.state.durable().0, 3);
    apply(&*opened.state, &commands[3..]);
    assert_eq!(opened.state.durable().0, 3);
    drop(opened);
    let again = disk();
    assert_eq!((again.state.applied().number.0, again.state.durable().0), (5, 5), "an opening syncs what it finds");
}

/// Catches a snapshot that moves: all of it must be of one number.
pub fn a_snapshot_stays_as_it_was(disk: Disk<'_>) {
    let opened = disk();
    apply(&*opened.state, &[command(1, &body(1, vec![put("a", "1"), put("b", "1")]))]);
    let snapshot = opened.state.snapshot().expect("a snapshot");
    let before = snapshot.digest().expect("the snapshot is readable");
    let mut forgetting = body(2, vec![put("a", "2"), delete("b"), put("c", "2")]);
    forgetting.forget.callers = Timestamp(2);
    apply(&*opened.state, &[command(2, &forgetting)]);
    assert_eq!(snapshot.at().0, 1);
    assert_eq!(value(&*snapshot, "a"), Some(("1".into(), 1)));
    assert_eq!(keys(&*snapshot, "", None, 9), ["a", "b"]);
    assert!(outcome(&*snapshot, &caller("r1")).is_some());
    assert_eq!(outcome(&*snapshot, &caller("r2")), None);
    assert_eq!(snapshot.digest(), Ok(before));
    assert_ne!(digest(&*opened.state), before);
    assert_eq!(outcome(&*opened.state, &caller("r1")), None);
}

/// S-23: catches outcomes kept too long or forgotten too early: the kinds have marks of their
/// own, a mark itself is not before itself, and a command's own outcome always stays.
pub fn outcomes_are_forgotten_by_kind_and_time(disk: Disk<'_>) {
    let opened = disk();
    let gateway = |number: u64| RequestId::Gateway(u128::from(number));
    let mut commands = Vec::new();
    for number in 1..=8 {
        let mut body = body(number, vec![put("k", "v")]);
        if number % 2 == 0 {
            body.request = gateway(number);
        }
        if number == 7 {
            body.forget = Forget { callers: Timestamp(3), gateways: Timestamp(5) };
        }
        if number == 8 {
            body.forget = Forget { callers: Timestamp(2), gateways: Timestamp(99) };
        }
        commands.push(command(number, &body));
    }
    let kept = |state: &dyn StateStore| -> Vec<u64> {
        let request = |number| if number % 2 == 0 { gateway(number) } else { caller(&format!("r{number}")) };
        (1..=8).filter(|&number| outcome(state, &request(number)).is_some()).collect()
    };
    apply(&*opened.state, &commands[..6]);
    assert_eq!(kept(&*opened.state), [1, 2, 3, 4, 5, 6]);
    drop(opened);
    let opened = disk();
    apply(&*opened.state, &commands[6..7]);
    assert_eq!(kept(&*opened.state), [3, 5, 6, 7]);
    apply(&*opened.state, &commands[7..]);
    assert_eq!(kept(&*opened.state), [3, 5, 7, 8], "its own outcome stays, whatever the mark");
}

/// Catches unbounded work, and an order of forgetting that is not by age.
pub fn forgetting_is_bounded_and_oldest_first(disk: Disk<'_>) {
    let opened = disk();
    let many = FORGET_MAX as u64 + 10;
    let mut commands = simple(many);
    for number in many + 1..=many + 2 {
        let mut body = body(number, vec![put("k", "v")]);
        body.forget.callers = Timestamp(many + 1);
        commands.push(command(number, &body));
    }
    let kept = |state: &dyn StateStore| -> Vec<u64> {
        (1..=many).filter(|number| outcome(state, &caller(&format!("r{number}"))).is_some()).collect()
    };
    let last = commands.pop().expect("there are commands");
    // One batch: the last command of it must see what the ones before it stored.
    apply(&*opened.state, &commands);
    assert_eq!(kept(&*opened.state), (FORGET_MAX as u64 + 1..=many).collect::<Vec<_>>());
    apply(&*opened.state, &[last]);
    assert_eq!(kept(&*opened.state), [0; 0]);
}

/// S-23: catches a request id that is used again after it was forgotten, or again at all, and
/// whose outcome then disappears with its old age.
pub fn an_outcome_stored_again_has_its_new_age(disk: Disk<'_>) {
    let opened = disk();
    let mut again = body(2, vec![put("k", "2")]);
    again.request = caller("r1");
    let mut forgetting = body(3, vec![put("k", "3")]);
    forgetting.forget.callers = Timestamp(2);
    apply(&*opened.state, &[command(1, &body(1, vec![put("k", "1")])), command(2, &again), command(3, &forgetting)]);
    drop(opened);
    let state = disk().state;
    assert_eq!(outcome(&*state, &caller("r1")).map(|outcome| outcome.command.0), Some(2));
}

/// Invariant 7: catches a state that depends on how commands are cut into batches.
pub fn one_batch_equals_many(one: Disk<'_>, many: Disk<'_>, commands: &[Command]) {
    let (one, many) = (one(), many());
    apply(&*one.state, commands);
    for command in commands {
        apply(&*many.state, std::slice::from_ref(command));
    }
    assert_eq!(digest(&*one.state), digest(&*many.state), "the batches decide");
    assert_eq!(one.state.applied(), many.state.applied());
}

/// Our own broken state: a gap, a repetition, or a command on another precedent.
///
/// # Panics
/// Always, unless the store fails the test by taking such a command.
pub fn a_gap_is_never_applied(disk: Disk<'_>, what: Gap) {
    let opened = disk();
    let commands = simple(3);
    apply(&*opened.state, &commands[..1]);
    let mut foreign = commands[1].clone();
    foreign.precedent = CommandId::new(Ballot::new(9, NodeId(9)), CommandNumber(1));
    let strange = match what {
        Gap::Skipped => vec![commands[2].clone()],
        Gap::SkippedInBatch => vec![commands[1].clone(), commands[1].clone()],
        Gap::Repeated => vec![commands[0].clone()],
        Gap::OtherPrecedent => vec![foreign],
    };
    let taken = opened.state.apply(&strange);
    // Not a panic with the expected text, so that the test fails.
    assert!(taken.is_err(), "taken: {what:?}");
}

/// For [`a_gap_is_never_applied`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// A number is left out.
    Skipped,
    /// The same, inside a batch.
    SkippedInBatch,
    /// A number comes twice.
    Repeated,
    /// The number is right, the command before is another one.
    OtherPrecedent,
}

/// S-15: catches a body of a newer version that is skipped, or applied in part; the store is
/// shut after it.
pub fn an_unreadable_body_shuts_the_state(disk: Disk<'_>) {
    let opened = disk();
    let good = command(1, &body(1, vec![put("a", "1")]));
    let mut newer = command(2, &body(2, vec![]));
    newer.body = Bytes::from_static(&[0x4a, 0x00]);
    let reason = opened.state.apply(&[good.clone(), newer]).expect_err("a command of a newer version was applied");
    assert!(matches!(reason, crate::StorageError::Corrupt(_)), "{reason}");
    assert_eq!(opened.state.apply(std::slice::from_ref(&good)), Err(reason.clone()), "the store is not shut");
    assert_eq!(opened.state.sync(), Err(reason));
    assert!(opened.state.get(&key("a")).is_err());
    drop(opened);
    let state = disk().state;
    assert_eq!(state.applied(), CommandId::NULL, "a part of the batch was applied");
    assert_eq!(keys(&*state, "", None, 9), [""; 0]);
    apply(&*state, &[good]);
}
