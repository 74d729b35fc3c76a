use std::sync::{Arc, mpsc};

use proptest::prelude::*;
use protocol::Timestamp;
use serde_json::json;

use super::*;
use crate::context::EFFECTS_MAX;
use crate::function::Placement;
use crate::registry::Registry;
use crate::testing::{Closure, MapState, key, put, refusal};

fn execute(function: &dyn Function, state: &MapState, arguments: &[u8]) -> Execution {
    run(function, ExecutionContext::new(state, Timestamp(1), 1), &Bytes::copy_from_slice(arguments))
}

/// How a function of a test ends.
type End = fn() -> Result<Value, Failure>;

/// Reads `a`, writes `b`, then ends as `end` says.
fn touching(end: End) -> impl Function {
    Closure::inline(move |context, _| {
        context.get(&key("a"))?;
        context.put(key("b"), Bytes::from_static(b"half done"))?;
        context.delete(key("a"))?;
        end()
    })
}

/// Catches a result or effects that get lost on the way out.
#[test]
fn a_result_comes_with_its_effects_and_reads() {
    let state = MapState::new(&[("a", "1")]);
    let execution = execute(&touching(|| Ok(json!({"done": 18_446_744_073_709_551_615_u64}))), &state, b"null");
    assert_eq!(execution.result, Ok(Bytes::from_static(br#"{"done":18446744073709551615}"#)));
    assert_eq!(execution.effects, [Effect::Delete { key: key("a") }, put("b", "half done")]);
    assert!(execution.reads.touched_by(&key("a")) && !execution.reads.touched_by(&key("b")));
}

/// Catches arguments that a node lets through although the leader will refuse them in any state,
/// and those that it refuses although the leader would take them.
#[test]
fn what_can_be_said_of_arguments_beforehand_is_what_the_execution_says() {
    let (registry, state) = (Registry::with_builtins(), MapState::default());
    let inbound = registry.get("inventory.inbound").expect("a built-in").as_ref();
    let long = format!("{{\"warehouse\": \"{}\"}}", "A".repeat(ARGUMENTS_BYTES_MAX));
    let deep = format!("{}{}", "[".repeat(ARGUMENTS_DEPTH_MAX + 1), "]".repeat(ARGUMENTS_DEPTH_MAX + 1));
    for bad in ["", "{", "[]", r#"{"zz": 1}"#, r#"{"warehouse": "A", "amount": "5"}"#, &long, &deep] {
        let said = check(inbound, &Bytes::copy_from_slice(bad.as_bytes())).expect_err(&bad[..bad.len().min(40)]);
        assert_eq!(execute(inbound, &state, bad.as_bytes()).result, Err(said));
    }
    assert_eq!(check(inbound, &Bytes::from_static(br#"{"warehouse": "A", "amount": 5}"#)), Ok(()));
    let untyped = Closure::inline(|_, _| Ok(Value::Null));
    assert_eq!(check(&untyped, &Bytes::from_static(b"[1]")), Ok(()));
}

/// S-09: catches half of a function's writes that stay when it refuses, fails or panics, and a
/// panic that takes the leader with it. What it read is kept: a "not now" waits on it.
#[test]
fn a_function_that_fails_leaves_nothing() {
    let state = MapState::new(&[("a", "1")]);
    let before = state.clone();
    let ends: [(End, Failure); 5] = [
        (|| Err(refusal("no")), refusal("no")),
        (|| Err(Failure::InvalidArguments("late".to_owned())), Failure::InvalidArguments("late".to_owned())),
        (|| panic!("a text"), Failure::Panicked("a text".to_owned())),
        (|| panic!("{} and {}", "format", 1), Failure::Panicked("format and 1".to_owned())),
        (|| std::panic::panic_any(7), Failure::Panicked("no message".to_owned())),
    ];
    for (end, failure) in ends {
        let execution = execute(&touching(end), &state, b"{}");
        assert_eq!(execution.result, Err(failure));
        assert_eq!(execution.effects, Vec::new());
        assert!(execution.reads.touched_by(&key("a")));
        assert_eq!(state, before);
    }
    assert!(execute(&touching(|| Ok(Value::Null)), &state, b"{}").result.is_ok(), "the next call is served");
}

/// S-09: catches a function that goes past a limit, ignores the error, and gets a command out of
/// the half that fitted.
#[test]
fn a_limit_that_the_function_ignores_still_counts() {
    let function = Closure::inline(|context, _| {
        for number in 0..=EFFECTS_MAX {
            drop(context.put(key(&format!("k{number}")), Bytes::new()));
        }
        Ok(Value::Null)
    });
    let execution = execute(&function, &MapState::default(), b"{}");
    assert!(matches!(execution.result, Err(Failure::TooLarge(_))), "{:?}", execution.result);
    assert_eq!(execution.effects, Vec::new());
}

/// S-09: catches a broken disk that is reported as the function's own panic or refusal: the
/// node must stop, whatever the function makes of it.
#[test]
fn a_broken_state_is_reported_before_what_the_function_made_of_it() {
    let state = MapState { broken: true, ..MapState::default() };
    let ends: [End; 3] = [|| Ok(Value::Null), || Err(refusal("no")), || panic!("cannot go on")];
    for end in ends {
        let function = Closure::inline(move |context, _| {
            drop(context.get(&key("a")));
            end()
        });
        let execution = execute(&function, &state, b"{}");
        assert!(matches!(execution.result, Err(Failure::State(_))), "{:?}", execution.result);
    }
}

/// Catches arguments that reach a function although they are not JSON, or bring the node down:
/// deep nesting would overflow the stack.
#[test]
fn arguments_that_are_not_json_never_reach_the_function() {
    let function = Closure::inline(|_, _| panic!("the function ran"));
    let deep = "[".repeat(1_000_000);
    let deep_pairs = format!("{}{}", "[".repeat(ARGUMENTS_DEPTH_MAX + 1), "]".repeat(ARGUMENTS_DEPTH_MAX + 1));
    for arguments in
        [&b""[..], b"{", b"{} {}", b"nothing", b"\xff", b"\"\xc3\"", deep.as_bytes(), deep_pairs.as_bytes()]
    {
        let execution = execute(&function, &MapState::default(), arguments);
        assert!(
            matches!(execution.result, Err(Failure::InvalidArguments(_))),
            "{:?} gave {:?}",
            String::from_utf8_lossy(arguments).chars().take(20).collect::<String>(),
            execution.result
        );
    }
    let long = format!("\"{}\"", "x".repeat(ARGUMENTS_BYTES_MAX));
    let execution = execute(&function, &MapState::default(), long.as_bytes());
    assert!(matches!(execution.result, Err(Failure::TooLarge(_))));
}

/// Catches a depth limit that refuses what the parser takes.
#[test]
fn arguments_at_the_limits_reach_the_function() {
    let echo = Closure::inline(|_, arguments| Ok(arguments));
    let deep = format!("{}{}", "[".repeat(ARGUMENTS_DEPTH_MAX), "]".repeat(ARGUMENTS_DEPTH_MAX));
    assert_eq!(execute(&echo, &MapState::default(), deep.as_bytes()).result, Ok(deep.into()));
    let quoted = format!("\"{}\"", "[{".repeat(1_000));
    assert_eq!(execute(&echo, &MapState::default(), quoted.as_bytes()).result, Ok(quoted.into()));
}

/// Catches results without a bound: every replica would store them.
#[test]
fn results_are_limited() {
    let long = |length: usize| {
        Closure::inline(move |context, _| {
            context.put(key("a"), Bytes::new())?;
            Ok(Value::String("x".repeat(length)))
        })
    };
    let fits = execute(&long(RESULT_BYTES_MAX - 2), &MapState::default(), b"{}");
    assert_eq!(fits.result.map(|text| text.len()), Ok(RESULT_BYTES_MAX));
    let too_long = execute(&long(RESULT_BYTES_MAX - 1), &MapState::default(), b"{}");
    assert!(matches!(too_long.result, Err(Failure::TooLarge(_))));
    assert_eq!(too_long.effects, Vec::new());
}

/// A1l: catches chance or time that does not come from the context, so that a run cannot be
/// replayed, and entropy that makes no difference.
#[test]
fn the_same_entropy_gives_the_same_effects() {
    let lottery = Closure::inline(|context, _| {
        for name in ["first", "second"] {
            let drawn = context.random();
            context.put(key(name), Bytes::from(drawn.to_string()))?;
        }
        context.put(key("time"), Bytes::from(context.now().to_string()))?;
        Ok(json!(context.random()))
    });
    let play = |now: u64, entropy: u64| {
        let state = MapState::default();
        run(&lottery, ExecutionContext::new(&state, Timestamp(now), entropy), &Bytes::from_static(b"{}"))
    };
    assert_eq!(play(5, 42), play(5, 42));
    assert_ne!(play(5, 42).effects, play(5, 43).effects);
    assert_ne!(play(5, 42).effects, play(6, 42).effects);
    let effects = play(5, 42).effects;
    let drawn: Vec<&Effect> = effects.iter().take(2).collect();
    assert!(matches!(drawn[..], [Effect::Put { value: a, .. }, Effect::Put { value: b, .. }] if a != b));
    // A1l: two replicas that apply the effects, not the function, hold equal states.
    let (mut one, mut other) = (MapState::default(), MapState::default());
    one.apply(&effects);
    other.apply(&effects);
    assert_eq!(one, other);
}

/// S-10: catches a lost update between two functions that ran side by side on one state. The
/// slow one really blocks on another thread; what it read has changed when it ends, so it is
/// not certified, and runs again.
#[test]
fn a_slow_function_is_certified_or_runs_again() {
    let (release, released) = mpsc::channel::<()>();
    let (starting, started) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let slow = Closure {
        name: "slow",
        placement: Placement::Pool,
        body: move |context: &mut crate::ExecutionContext<'_>, _| {
            let seen = context.get(&key("n"))?.map_or(0, |entry| entry.value.len());
            starting.send(()).expect("the test listens");
            released.lock().expect("one at a time").recv().expect("the test lets it end");
            context.put(key("n"), Bytes::from(vec![b'x'; seen + 1]))?;
            Ok(json!(seen + 1))
        },
    };
    let mut registry = Registry::with_builtins();
    registry.register(Arc::new(slow)).expect("a new name");
    let slow = registry.get("slow").expect("registered");
    assert_eq!(slow.placement(), Placement::Pool);

    let mut state = MapState::default();
    let snapshot = state.clone();
    let stale = std::thread::scope(|scope| {
        let execution = scope.spawn(|| execute(slow.as_ref(), &snapshot, b"{}"));
        started.recv().expect("it runs");
        state.apply(&[put("n", "x")]);
        release.send(()).expect("it waits");
        execution.join().expect("it ends")
    });
    assert_eq!(stale.result, Ok(Bytes::from_static(b"1")), "it saw the state of its snapshot");
    assert_eq!(stale.reads.still_holds(&snapshot), Ok(true));
    assert_eq!(stale.reads.still_holds(&state), Ok(false));

    release.send(()).expect("it will wait");
    let again = execute(slow.as_ref(), &state, b"{}");
    assert_eq!(again.reads.still_holds(&state), Ok(true));
    assert_eq!(again.effects, [put("n", "xx")]);
}

/// Calls that read and write the same few keys.
fn calls() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let name = || "[AB]";
    let call = prop_oneof![
        (name(), 1..5_u32).prop_map(|(to, n)| ("inventory.inbound", format!(r#"{{"warehouse":"{to}","amount":{n}}}"#))),
        (name(), 1..5_u32)
            .prop_map(|(of, n)| ("inventory.outbound", format!(r#"{{"warehouse":"{of}","amount":{n}}}"#))),
        (name(), name(), 1..5_u32).prop_map(|(from, to, n)| (
            "inventory.transfer",
            format!(r#"{{"from":"{from}","to":"{to}","amount":{n}}}"#)
        )),
        name().prop_map(|key| ("kv.increment", format!(r#"{{"key":"inventory/goods/{key}"}}"#))),
        name().prop_map(|key| ("kv.delete", format!(r#"{{"key":"inventory/goods/{key}"}}"#))),
    ];
    proptest::collection::vec(call, 1..12)
}

proptest! {
    /// S-10: catches certified executions that are equivalent to no serial order. All calls run
    /// first on the same snapshot, as on a pool; each is taken when its reads still hold and
    /// runs again otherwise. Results and state equal those of the calls one after the other.
    #[test]
    fn certified_executions_are_serial(calls in calls()) {
        let snapshot = MapState::new(&[("inventory/goods/A", "5")]);
        let (mut certified, mut serial) = (snapshot.clone(), snapshot.clone());
        let side_by_side: Vec<Execution> =
            calls.iter().map(|(function, arguments)| snapshot.execute(function, arguments)).collect();
        for ((function, arguments), execution) in calls.iter().zip(side_by_side) {
            let execution = match execution.reads.still_holds(&certified) {
                Ok(true) => execution,
                outcome => {
                    prop_assert_eq!(outcome, Ok(false));
                    certified.execute(function, arguments)
                }
            };
            let in_order = serial.execute(function, arguments);
            prop_assert_eq!(&execution.result, &in_order.result);
            certified.apply(&execution.effects);
            serial.apply(&in_order.effects);
            prop_assert_eq!(&certified, &serial);
        }
    }
}
