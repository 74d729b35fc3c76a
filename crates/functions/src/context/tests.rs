use proptest::prelude::*;

use super::*;
use crate::testing::{MapState, key, put};

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn context(state: &MapState) -> ExecutionContext<'_> {
    ExecutionContext::new(state, Timestamp(7), 1)
}

fn effects(context: ExecutionContext<'_>) -> Vec<Effect> {
    context.finish().0.expect("no failure")
}

fn failure(context: ExecutionContext<'_>) -> Failure {
    context.finish().0.expect_err("a failure")
}

/// S-10: catches a function that does not see its own writes, writes that reach the state or
/// the read set, and effects out of order.
#[test]
fn a_function_sees_its_own_writes_and_only_the_state_is_read() {
    let state = MapState::new(&[("b", "old")]);
    let mut context = context(&state);
    context.put(key("c"), value("1")).expect("put");
    context.put(key("b"), value("new")).expect("put");
    context.put(key("a"), value("2")).expect("put");
    context.put(key("a"), value("3")).expect("put");
    assert_eq!(context.get(&key("b")), Ok(Some(Entry { value: value("new"), version: CommandNumber(0) })));
    assert_eq!(context.now(), Timestamp(7));
    assert_eq!(context.reads, ReadSet::default());
    assert_eq!(state.text("b"), Some("old"));
    assert_eq!(effects(context), [put("a", "3"), put("b", "new"), put("c", "1")]);
}

/// Catches a put of an equal value that is taken for no change: the caller is owed a command
/// and a new version.
#[test]
fn a_put_of_the_same_value_is_an_effect() {
    let state = MapState::new(&[("a", "1")]);
    let mut context = context(&state);
    context.put(key("a"), value("1")).expect("put");
    assert_eq!(effects(context), [put("a", "1")]);
}

/// Catches deletions of absent keys that become commands, and deletions that are forgotten.
#[test]
fn a_delete_is_an_effect_only_over_a_key_of_the_state() {
    let state = MapState::new(&[("there", "1")]);
    let mut context = context(&state);
    assert_eq!(context.delete(key("absent")), Ok(false));
    context.put(key("own"), value("1")).expect("put");
    assert_eq!(context.delete(key("own")), Ok(true), "an own write was there");
    assert_eq!(context.delete(key("own")), Ok(false));
    context.put(key("there"), value("2")).expect("put");
    assert_eq!(context.delete(key("there")), Ok(true));
    assert_eq!(context.delete(key("there")), Ok(false), "already deleted");
    assert_eq!(context.get(&key("there")), Ok(None));
    assert_eq!(context.bytes, "there".len(), "what was taken back weighs nothing");
    let (outcome, reads) = context.finish();
    assert_eq!(outcome, Ok(vec![Effect::Delete { key: key("there") }]));
    let read: Vec<&str> = reads.keys.keys().map(Key::as_str).collect();
    assert_eq!(read, ["absent", "own", "there"], "whether they were there was read");
}

/// Catches a limit that is off by one, or that counts a key written twice as two.
#[test]
fn effects_are_limited() {
    let state = MapState::default();
    let mut context = context(&state);
    for number in (0..EFFECTS_MAX).chain(0..EFFECTS_MAX) {
        context.put(key(&format!("k{number}")), Bytes::new()).expect("within the limit");
    }
    assert!(matches!(context.put(key("one more"), Bytes::new()), Err(Failure::TooLarge(_))));
    assert!(matches!(failure(context), Failure::TooLarge(_)));
}

/// Catches a limit on bytes that forgets keys, or counts a value that was replaced.
#[test]
fn bytes_are_limited() {
    let state = MapState::default();
    let mut context = context(&state);
    let largest = Bytes::from(vec![0; VALUE_BYTES_MAX]);
    assert_eq!(context.put(key("a"), largest.clone()), Ok(()));
    assert_eq!(context.put(key("a"), largest.clone()), Ok(()));
    assert_eq!(context.put(key("b"), largest.clone()), Ok(()));
    assert_eq!(context.put(key("c"), largest.clone()), Ok(()));
    assert_eq!(context.put(key("d"), largest.slice(..VALUE_BYTES_MAX - 4)), Ok(()), "4 MiB with the keys");
    assert!(matches!(context.put(key("d"), largest.slice(..VALUE_BYTES_MAX - 3)), Err(Failure::TooLarge(_))));

    let mut context = self::context(&state);
    let too_large = Bytes::from(vec![0; VALUE_BYTES_MAX + 1]);
    assert!(matches!(context.put(key("a"), too_large), Err(Failure::TooLarge(_))));
}

/// Catches scans and reads without a bound.
#[test]
fn reads_are_limited() {
    let mut state = MapState::default();
    let everything: Vec<Effect> = (0..SCAN_LIMIT_MAX).map(|number| put(&format!("k{number:05}"), "")).collect();
    state.apply(&everything);
    let mut context = context(&state);
    // Each scan counts for its entries and itself; the tenth goes past the limit.
    for _ in 0..9 {
        assert_eq!(context.scan("", None, SCAN_LIMIT_MAX).map(|found| found.len()), Ok(SCAN_LIMIT_MAX));
    }
    assert!(matches!(context.scan("", None, SCAN_LIMIT_MAX), Err(Failure::TooLarge(_))));

    let mut context = self::context(&state);
    assert!(matches!(context.scan("", None, SCAN_LIMIT_MAX + 1), Err(Failure::TooLarge(_))));
    assert!(matches!(failure(context), Failure::TooLarge(_)));

    let mut context = self::context(&state);
    for number in 0..READS_MAX {
        context.get(&key(&format!("r{number}"))).expect("within the limit");
        context.get(&key("r0")).expect("a key read again counts once");
    }
    assert!(matches!(context.get(&key("one more")), Err(Failure::TooLarge(_))));
}

/// Catches a disk failure that a function swallows and turns into a decision.
#[test]
fn a_state_that_cannot_be_read_latches() {
    let state = MapState { broken: true, ..MapState::default() };
    let broken = Failure::State(StateError("broken".to_owned()));
    let mut reading = context(&state);
    assert_eq!(reading.get(&key("a")), Err(broken.clone()));
    reading.put(key("a"), value("decided blindly")).expect("put");
    assert_eq!(failure(reading), broken);
    let mut scanning = context(&state);
    assert_eq!(scanning.scan("", None, 1), Err(broken.clone()));
    assert_eq!(failure(scanning), broken);
    let mut deleting = context(&state);
    assert_eq!(deleting.delete(key("a")), Err(broken.clone()));
    assert_eq!(failure(deleting), broken);
    assert_eq!(
        ReadSet { keys: BTreeMap::from([(key("a"), None)]), scans: Vec::new() }.still_holds(&state),
        Err(StateError("broken".to_owned())),
        "a failed read certifies nothing"
    );
}

/// Catches a scan of nothing that is remembered, and then woken by everything.
#[test]
fn a_scan_of_no_entries_reads_nothing() {
    let state = MapState::new(&[("a", "1")]);
    let mut context = context(&state);
    assert_eq!(context.scan("", None, 0), Ok(Vec::new()));
    assert_eq!(context.finish().1, ReadSet::default());
}

/// Catches a scan that was cut off by its limit and is woken by keys that it never looked at,
/// or not woken by those that it did.
#[test]
fn a_scan_is_touched_within_the_range_that_it_saw() {
    let state = MapState::new(&[("p/b", ""), ("p/d", ""), ("p/f", "")]);
    let touched = |after: Option<&str>, limit: usize, written: &str| {
        let mut context = context(&state);
        context.scan("p/", after, limit).expect("a scan");
        context.finish().1.touched_by(&key(written))
    };
    for (after, limit, written, expected) in [
        (None, 2, "p/a", true),
        (None, 2, "p/d", true),
        (None, 2, "p/e", false),
        (None, 3, "p/g", false),
        (None, 4, "p/g", true),
        (None, 4, "q", false),
        (None, 4, "p", false),
        (Some("p/b"), 4, "p/b", false),
        (Some("p/b"), 4, "p/c", true),
    ] {
        assert_eq!(touched(after, limit, written), expected, "after {after:?}, {limit} entries, {written} written");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Get(Key),
    Put(Key, u8),
    Delete(Key),
    Scan { prefix: String, after: Option<String>, limit: usize },
}

/// Few and nested keys, so that ranges and writes meet.
fn keys() -> impl Strategy<Value = Key> {
    "[ab]{1,3}".prop_map(|text| key(&text))
}

fn scans() -> impl Strategy<Value = Step> {
    ("[ab]{0,2}", proptest::option::of("[ab]{0,3}"), 0..6_usize).prop_map(|(prefix, after, limit)| Step::Scan {
        prefix,
        after,
        limit,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        keys().prop_map(Step::Get),
        (keys(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        keys().prop_map(Step::Delete),
        scans(),
    ];
    proptest::collection::vec(step, 0..20)
}

fn states() -> impl Strategy<Value = MapState> {
    proptest::collection::btree_set(keys(), 0..10).prop_map(|keys| {
        let mut state = MapState::default();
        for key in keys {
            state.apply(&[Effect::Put { key, value: value("old") }]);
        }
        state
    })
}

/// Plays a function whose steps are data, on a context and on a plain map beside it.
fn play(context: &mut ExecutionContext<'_>, model: &mut MapState, steps: &[Step]) -> Result<(), TestCaseError> {
    for step in steps {
        match step {
            Step::Get(key) => {
                prop_assert_eq!(context.get(key), Ok(model.entries.get(key).cloned()));
            }
            Step::Put(key, byte) => {
                let value = Bytes::from(vec![*byte]);
                prop_assert_eq!(context.put(key.clone(), value.clone()), Ok(()));
                model.entries.insert(key.clone(), own_entry(value));
            }
            Step::Delete(key) => {
                let was_there = model.entries.remove(key).is_some();
                prop_assert_eq!(context.delete(key.clone()), Ok(was_there));
            }
            Step::Scan { prefix, after, limit } => {
                let expected = model.scan(prefix, after.as_deref(), *limit).expect("a map");
                prop_assert_eq!(context.scan(prefix, after.as_deref(), *limit), Ok(expected));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// S-10: catches a merge of own writes and state that differs from a plain map to which the
    /// writes were applied: limits, prefixes, deletions, order. And effects that, applied to the
    /// state, do not give that map.
    #[test]
    fn a_context_equals_a_model(state in states(), steps in steps()) {
        let mut model = state.clone();
        let mut context = context(&state);
        play(&mut context, &mut model, &steps)?;
        prop_assert_eq!(
            context.bytes,
            context.writes.iter().map(|(key, write)| weight(key, write.as_ref())).sum::<usize>()
        );
        let (outcome, reads) = context.finish();
        prop_assert_eq!(reads.still_holds(&state), Ok(true), "nothing has changed");

        let mut applied = state.clone();
        applied.apply(&outcome.expect("no failure"));
        let values = |state: &MapState| -> Vec<(Key, Bytes)> {
            state.entries.iter().map(|(key, entry)| (key.clone(), entry.value.clone())).collect()
        };
        prop_assert_eq!(values(&applied), values(&model));
    }

    /// S-10: catches a certification that passes over a change of what was read, one that fails
    /// for a change of something else, and a waiter that is not woken by what it waits for. A
    /// put touches the reads exactly when they no longer hold.
    #[test]
    fn a_put_touches_exactly_the_reads_that_it_invalidates(state in states(), steps in steps(), written in keys()) {
        let mut context = context(&state);
        play(&mut context, &mut state.clone(), &steps)?;
        let reads = context.finish().1;
        let mut changed = state.clone();
        changed.apply(&[Effect::Put { key: written.clone(), value: value("new") }]);
        prop_assert_eq!(reads.still_holds(&changed), Ok(!reads.touched_by(&written)));
    }

    /// S-10: the same for a deletion, which invalidates reads only where the key existed.
    #[test]
    fn a_delete_touches_the_reads_that_it_invalidates(state in states(), steps in steps(), written in keys()) {
        let mut context = context(&state);
        play(&mut context, &mut state.clone(), &steps)?;
        let reads = context.finish().1;
        let existed = state.entries.contains_key(&written);
        let mut changed = state.clone();
        changed.apply(&[Effect::Delete { key: written.clone() }]);
        prop_assert_eq!(reads.still_holds(&changed), Ok(!(existed && reads.touched_by(&written))));
    }
}
