//! The conformance suite on both implementations, and both against each other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use protocol::{ClusterId, Command, Effect, Forget, NodeId, RequestId, Timestamp};
use quorate_storage::conformance::{self as suite, Disk, Gap, Opened};
use quorate_storage::memory::{MemoryLog, MemoryState};
use quorate_storage::rocksdb::{Options, open};
use quorate_storage::{Identity, Installation, Retention, StateStore};

fn with_memory<T>(test: impl FnOnce(Disk<'_>) -> T) -> T {
    let (log, state) = (Arc::new(MemoryLog::new()), Arc::new(MemoryState::new()));
    test(&|| {
        log.restart();
        state.restart();
        Opened { log: log.clone(), state: state.clone() }
    })
}

fn with_rocksdb<T>(test: impl FnOnce(Disk<'_>) -> T) -> T {
    let dir = tempfile::tempdir().expect("a temporary directory");
    test(&|| open_rocksdb(dir.path()))
}

fn open_rocksdb(dir: &Path) -> Opened {
    let identity =
        Identity { cluster: ClusterId([1; 16]), cluster_name: "test".into(), node: NodeId(1), node_name: "n1".into() };
    let stores = open(dir, &identity, &Options::default()).expect("the stores open");
    Opened { log: stores.log, state: stores.state }
}

fn on_both(test: impl Fn(Disk<'_>)) {
    with_memory(&test);
    with_rocksdb(&test);
}

fn from_each_to_each(test: impl Fn(Disk<'_>, Disk<'_>)) {
    with_memory(|sender| with_memory(|receiver| test(sender, receiver)));
    with_memory(|sender| with_rocksdb(|receiver| test(sender, receiver)));
    with_rocksdb(|sender| with_memory(|receiver| test(sender, receiver)));
    with_rocksdb(|sender| with_rocksdb(|receiver| test(sender, receiver)));
}

/// A6, S-11.
#[test]
fn the_log_keeps_promises_and_votes() {
    on_both(suite::the_log_keeps_promises_and_votes);
}

/// A6.
#[test]
fn a_later_vote_replaces_an_earlier_one() {
    on_both(suite::a_later_vote_replaces_an_earlier_one);
}

/// A6.
#[test]
fn votes_come_in_order_above_a_number() {
    on_both(suite::votes_come_in_order_above_a_number);
}

/// S-14, A1l.
#[test]
fn applying_changes_everything_at_once() {
    on_both(suite::applying_changes_everything_at_once);
}

/// S-14, S-33.
#[test]
fn many_and_large_entries_are_kept_as_they_are_now() {
    let in_memory = with_memory(suite::many_and_large_entries_are_kept_as_they_are_now);
    assert_eq!(with_rocksdb(suite::many_and_large_entries_are_kept_as_they_are_now), in_memory);
}

/// S-27: limits reached, not exceeded.
#[test]
fn empty_and_largest_values_are_kept() {
    on_both(suite::empty_and_largest_values_are_kept);
}

/// See the suite.
#[test]
fn scans_keep_to_prefix_after_and_limit() {
    on_both(suite::scans_keep_to_prefix_after_and_limit);
}

/// A4.
#[test]
fn commands_are_listed_for_catching_up() {
    on_both(suite::commands_are_listed_for_catching_up);
}

/// S-11, S-14.
#[test]
fn durable_follows_sync() {
    on_both(suite::durable_follows_sync);
}

/// A4: what a snapshot for another node is made from.
#[test]
fn a_snapshot_stays_as_it_was() {
    on_both(suite::a_snapshot_stays_as_it_was);
}

/// S-23.
#[test]
fn outcomes_are_forgotten_by_kind_and_time() {
    on_both(suite::outcomes_are_forgotten_by_kind_and_time);
}

/// S-23.
#[test]
fn forgetting_is_bounded_and_oldest_first() {
    on_both(suite::forgetting_is_bounded_and_oldest_first);
}

/// S-23.
#[test]
fn an_outcome_stored_again_has_its_new_age() {
    on_both(suite::an_outcome_stored_again_has_its_new_age);
}

/// S-15, S-25.
#[test]
fn an_unreadable_body_shuts_the_state() {
    on_both(suite::an_unreadable_body_shuts_the_state);
}

/// Invariant 11, A6.
#[test]
fn votes_are_forgotten_up_to_a_mark() {
    on_both(suite::votes_are_forgotten_up_to_a_mark);
}

/// A14.
#[test]
fn commands_are_forgotten_by_number_weight_and_time() {
    on_both(suite::commands_are_forgotten_by_number_weight_and_time);
}

/// A14.
#[test]
fn all_commands_may_be_forgotten() {
    on_both(suite::all_commands_may_be_forgotten);
}

/// A14: a state that was installed has no command to tell the time.
#[test]
fn the_time_is_that_of_the_last_command() {
    on_both(suite::the_time_is_that_of_the_last_command);
}

/// S-33.
#[test]
fn the_digest_is_kept_with_every_command() {
    on_both(suite::the_digest_is_kept_with_every_command);
}

/// A4, A14.
#[test]
fn a_checkpoint_stays_as_it_was() {
    on_both(suite::a_checkpoint_stays_as_it_was);
}

/// A4, A14, S-18: from each implementation to each.
#[test]
fn an_installed_state_is_the_one_that_was_sent() {
    from_each_to_each(suite::an_installed_state_is_the_one_that_was_sent);
}

/// S-14, S-18: from each implementation to each.
#[test]
fn nothing_of_the_old_state_is_remembered() {
    from_each_to_each(suite::nothing_of_the_old_state_is_remembered);
}

/// A14.
#[test]
fn staging_goes_on_after_a_restart() {
    from_each_to_each(suite::staging_goes_on_after_a_restart);
}

/// A14.
#[test]
fn another_snapshot_replaces_what_is_staged() {
    from_each_to_each(suite::another_snapshot_replaces_what_is_staged);
}

/// S-18, S-33.
#[test]
fn only_the_right_snapshot_is_installed() {
    from_each_to_each(suite::only_the_right_snapshot_is_installed);
}

/// S-18: catches a store that takes a part of a snapshot for the whole.
#[test]
fn a_part_is_never_installed() {
    from_each_to_each(|sender, receiver| {
        let panic = catch_unwind(AssertUnwindSafe(|| suite::a_part_is_never_installed(sender, receiver)));
        let text = *panic.expect_err("it panics").downcast::<&str>().expect("with a text");
        assert!(text.contains("when all of it is there"), "{text}");
    });
}

/// S-13: catches a store that lets a hole into its list of commands.
#[test]
fn a_gap_is_never_applied() {
    for gap in [Gap::Skipped, Gap::SkippedInBatch, Gap::Repeated, Gap::OtherPrecedent] {
        on_both(|disk| {
            let panic = catch_unwind(AssertUnwindSafe(|| suite::a_gap_is_never_applied(disk, gap)));
            let text = *panic.expect_err("it panics").downcast::<String>().expect("with a text");
            assert!(text.contains("applied in order, without gaps"), "{gap:?}: {text}");
        });
    }
}

/// One step of a random history: which keys it writes, under which request id, at which time,
/// and what it forgets. Few different values, so that they meet.
#[derive(Clone, Debug)]
struct Step {
    effects: Vec<(u8, Option<u8>)>,
    request: u8,
    gateway: bool,
    time: u64,
    forget: (u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let effects = prop::collection::vec((0..6u8, prop::option::of(any::<u8>())), 1..4);
    (effects, 0..12u8, any::<bool>(), 0..40u64, (0..40u64, 0..40u64))
        .prop_map(|(effects, request, gateway, time, forget)| Step { effects, request, gateway, time, forget })
}

fn commands(steps: &[Step]) -> Vec<Command> {
    let command = |(number, step): (u64, &Step)| {
        let effect = |(key, value): &(u8, Option<u8>)| -> Effect {
            let key = format!("k{key}");
            value.map_or_else(|| suite::delete(&key), |value| suite::put(&key, vec![value]))
        };
        let mut body = suite::body(number, step.effects.iter().map(effect).collect());
        body.request = match step.gateway {
            true => RequestId::Gateway(step.request.into()),
            false => suite::caller(&format!("c{}", step.request)),
        };
        body.time = Timestamp(step.time);
        body.forget = Forget { callers: Timestamp(step.forget.0), gateways: Timestamp(step.forget.1) };
        suite::command(number, &body)
    };
    (1..).zip(steps).map(command).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariant 7, A1l: catches a state that depends on how commands are cut into batches, on
    /// restarts between them, or on the implementation. Times go back and ids repeat here, which
    /// leaders do not do: the replicas must agree all the same. S-33, A14: and a digest that is kept
    /// wrong, a state that goes on differently after it was copied, or is changed by forgetting commands.
    #[test]
    fn the_state_is_a_function_of_the_commands(
        steps in prop::collection::vec(step(), 1..60),
        cuts in prop::collection::vec(1..20usize, 1..12),
        copied in 0..6usize,
        kept in 0..20u64,
    ) {
        let commands = commands(&steps);
        let expected = with_memory(|memory| {
            with_memory(|other| suite::one_batch_equals_many(memory, other, &commands));
            digest(&*memory().state)
        });
        with_rocksdb(|disk| {
            let mut opened = disk();
            let mut rest = commands.as_slice();
            for (index, cut) in cuts.iter().cycle().enumerate() {
                let (batch, later) = rest.split_at((*cut).min(rest.len()));
                if batch.is_empty() {
                    break;
                }
                opened.state.apply(batch).expect("commands are applied");
                assert_eq!(opened.state.digest().digest, digest(&*opened.state), "the digest is kept wrong");
                rest = later;
                if index == copied {
                    from_there_on(&*opened.state, rest, expected);
                }
                let retention = Retention { commands: kept, bytes: u64::MAX, since: Timestamp(0) };
                opened.state.forget_commands(&retention, opened.state.applied().number).expect("forgotten");
                if index == cuts[0] {
                    drop(opened);
                    opened = disk();
                }
            }
            assert_eq!(digest(&*opened.state), expected, "RocksDB and memory differ");
        });
    }
}

/// Copies a state to both implementations, and applies there what is left.
fn from_there_on(state: &dyn StateStore, rest: &[Command], expected: [u8; 32]) {
    on_both(|disk| {
        let copy = disk().state;
        assert_eq!(suite::copy(state, &*copy, 500), Installation::Done(state.applied()));
        copy.apply(rest).expect("commands are applied");
        assert_eq!((digest(&*copy), copy.digest().digest), (expected, expected), "a copy goes on differently");
    });
}

fn digest(state: &dyn StateStore) -> [u8; 32] {
    state.snapshot().and_then(|snapshot| snapshot.digest()).expect("the state is readable")
}

/// Invariant 7: the same property with RocksDB on both sides, once, with a history long enough
/// for forgetting to meet its bound in the middle of a batch.
#[test]
fn one_batch_of_rocksdb_equals_many() {
    let steps: Vec<Step> = (0..400u64)
        .map(|number| Step {
            effects: vec![((number % 7) as u8, Some(1))],
            request: (number % 251) as u8,
            gateway: number % 3 == 0,
            time: number,
            forget: if number % 97 == 96 { (number, number - 20) } else { (0, 0) },
        })
        .collect();
    with_rocksdb(|one| with_rocksdb(|many| suite::one_batch_equals_many(one, many, &commands(&steps))));
}
