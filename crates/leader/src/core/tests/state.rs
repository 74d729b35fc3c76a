//! LS(p): an overlay of what is not applied yet, over M(p) (A10).

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::StateView;

use super::super::leader_state::LeaderState;
use super::*;

fn outcome(number: u64) -> protocol::StoredOutcome {
    let (fingerprint, verdict) = (Fingerprint([0; 16]), Verdict::Changed(Bytes::new()));
    protocol::StoredOutcome { command: CommandNumber(number), fingerprint, verdict, time: Timestamp(number) }
}

fn small_key() -> impl Strategy<Value = String> {
    "[ab]{1,3}"
}

fn writes() -> impl Strategy<Value = Vec<(String, Option<u8>)>> {
    proptest::collection::vec((small_key(), proptest::option::weighted(0.6, any::<u8>())), 1..4)
}

/// A model of the state: what a learner that has applied everything would hold.
type Model = BTreeMap<String, (u8, u64)>;

fn expected(model: &Model, prefix: &str, after: Option<&str>, limit: usize) -> Vec<(String, u8, u64)> {
    let in_range = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
    let found = model.iter().filter(|(key, _)| in_range(key)).take(limit);
    found.map(|(key, (value, version))| (key.clone(), *value, *version)).collect()
}

proptest! {
    /// A10, S-07: whatever part of the commands M(p) has applied, and whatever part of that this
    /// leader was told of, LS(p) shows the state after all of them. Catches overlays that forget
    /// too early or too late, scans that miss, repeat or misorder entries, and stale snapshots.
    #[test]
    fn shows_the_state_after_all_commands(
        commands in proptest::collection::vec(writes(), 1..12),
        applied in 0usize..12,
        told in 0usize..12,
        prefix in "[ab]{0,2}",
        after in proptest::option::of(small_key()),
        limit in 0usize..6,
    ) {
        let (applied, told) = (applied.min(commands.len()), told.min(applied).min(commands.len()));
        let (machine, mut state, mut model) = (MemoryState::new(), LeaderState::new(Timestamp(0)), Model::new());
        let mut precedent = CommandId::NULL;
        for (index, writes) in commands.iter().enumerate() {
            let number = index as u64 + 1;
            let effects: Vec<StateEffect> = writes.iter().map(|(text, write)| match write {
                Some(value) => StateEffect::Put { key: key(text), value: vec![*value].into() },
                None => StateEffect::Delete { key: key(text) },
            }).collect();
            let request = RequestId::Gateway(u128::from(number));
            state.execute(&request, outcome(number), &effects);
            for (text, write) in writes {
                match write {
                    Some(value) => _ = model.insert(text.clone(), (*value, number)),
                    None => _ = model.remove(text),
                }
            }
            if index < applied {
                let body = CommandBody {
                    time: Timestamp(number), request, fingerprint: Fingerprint([0; 16]), function: "f".into(),
                    verdict: Verdict::Changed(Bytes::new()), effects, forget: Forget::default(),
                };
                let command = Command { id: id(ballot(1), number), precedent, body: body.encode() };
                precedent = command.id;
                machine.apply(&[command]).expect("memory");
            }
        }
        let early = state.overlay();
        state.applied(number(told as u64));
        prop_assert_eq!(state.unapplied(), commands.len() - told);
        let snapshot = machine.snapshot().expect("memory");
        let on_pool = state.overlay();
        let views: [&dyn StateView; 3] = [
            &state.over(&machine),
            &LeaderView::new(&on_pool, snapshot.as_ref(), snapshot.at()),
            &LeaderView::new(&early, snapshot.as_ref(), snapshot.at()),
        ];
        for view in views {
            for (text, (value, version)) in &model {
                let entry = view.get(&key(text)).expect("memory").expect("there");
                prop_assert_eq!((entry.value.as_ref(), entry.version.0), (&[*value][..], *version));
            }
            let found = view.scan(&prefix, after.as_deref(), limit).expect("memory");
            let found: Vec<_> = found.iter().map(|(key, entry)| (key.as_str().to_owned(), entry.value[0], entry.version.0)).collect();
            prop_assert_eq!(found, expected(&model, &prefix, after.as_deref(), limit));
            for request in 1..=commands.len() as u64 {
                let stored = view.outcome(&RequestId::Gateway(u128::from(request))).expect("memory");
                prop_assert_eq!(stored.map(|stored| stored.command.0), Some(request));
            }
        }
    }
}

/// A snapshot of M(p) that is newer than the whole overlay. Catches old values that hide newer.
#[test]
fn an_overlay_that_is_behind_a_snapshot_is_left_out() {
    let commands = chain(ballot(1), CommandId::NULL, 2);
    let mut state = LeaderState::new(Timestamp(0));
    state.execute(&request("chain-1"), outcome(1), &body(&commands[0]).effects);
    let (overlay, machine) = (state.overlay(), MemoryState::new());
    machine.apply(&commands).expect("memory");
    let snapshot = machine.snapshot().expect("memory");
    let view = LeaderView::new(&overlay, snapshot.as_ref(), snapshot.at());
    assert_eq!(view.get(&key("n")).expect("memory").map(|entry| entry.value), Some(Bytes::from_static(b"2")));
}

/// Catches a scan that reads too little below: the first keys are deleted in LS(p) only, and one
/// key lies over another version of itself.
#[test]
fn a_scan_reads_on_past_what_the_overlay_hides() {
    let put = |text: &str| StateEffect::Put { key: key(text), value: Bytes::from_static(b"1") };
    let delete = |text: &str| StateEffect::Delete { key: key(text) };
    let machine = MemoryState::new();
    let mut commands = chain(ballot(1), CommandId::NULL, 1);
    let effects = ["a", "b", "c", "d", "e"].map(put).to_vec();
    commands[0].body = CommandBody { effects, ..body(&commands[0]) }.encode();
    machine.apply(&commands).expect("memory");
    let mut state = LeaderState::new(Timestamp(0));
    state.execute(&request("two"), outcome(2), &[delete("a"), delete("b"), put("d"), put("f")]);
    let view = state.over(&machine);
    let scan = |after, limit| {
        let found = view.scan("", after, limit).expect("memory");
        found.iter().map(|(key, entry)| format!("{key}{}", entry.version)).collect::<Vec<_>>()
    };
    assert_eq!(scan(None, 2), ["c1", "d2"]);
    assert_eq!(scan(None, 9), ["c1", "d2", "e1", "f2"]);
    assert_eq!(scan(Some("c"), 3), ["d2", "e1", "f2"]);
    assert_eq!(scan(Some("a"), 1), ["c1"]);
    assert_eq!(scan(None, 0), [""; 0]);
}

/// Catches an overlay that keeps what M(p) has applied, with its memory.
#[test]
fn applied_entries_leave() {
    let mut state = LeaderState::new(Timestamp(0));
    let commands = chain(ballot(1), CommandId::NULL, 3);
    for (index, command) in commands.iter().enumerate() {
        let number = index as u64 + 1;
        state.execute(&request(&format!("chain-{number}")), outcome(number), &body(command).effects);
    }
    state.applied(number(2));
    assert_eq!(state.unapplied(), 1);
    assert!(state.outcome(&request("chain-2")).is_none() && state.outcome(&request("chain-3")).is_some());
    let below = MemoryState::new();
    let shown = state.over(&below).get(&key("n")).expect("memory");
    assert_eq!(shown.map(|entry| entry.version), Some(number(3)), "written by 3, still there");
    state.applied(number(3));
    assert_eq!(state.over(&below).get(&key("n")), Ok(None));
}
