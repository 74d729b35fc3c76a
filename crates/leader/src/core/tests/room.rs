//! Without room on the disks: calls are refused before they are executed, what is proposed goes on.

use super::*;
use crate::machine::run_on_snapshot;

fn refused(to: u64, key: &str) -> [Effect; 2] {
    [Effect::Ignored(IgnoreReason::DiskFull), executed(to, key, Outcome::DiskFull)]
}

/// S-35: catches a call that is refused and proposed all the same, a command proposed before that is not
/// issued or not answered, a repetition of it that is refused, and calls that are not taken again.
#[test]
fn a_call_without_room_is_refused_before_it_is_proposed() {
    let mut bench = Bench::new();
    bench.lead();
    bench.put("a", 1);
    bench.room = false;
    let put = |key: &str| call(key, "kv.put", json!({"key": "a", "value": 2}));
    assert_eq!(bench.say(2, ToLeader::ExecuteFunction(put("k"))), refused(2, "k"));
    let recorded = Call { copy: 1, ..put("l") };
    assert_eq!(bench.say(2, ToLeader::ExecuteFunction(recorded)), refused(2, "l"), "not even to record it");
    assert_eq!(bench.overlay_value("a"), Some(Bytes::from_static(b"1")));
    assert_eq!(proposed(&bench.end_turn()), []);
    assert_eq!(replies(bench.ack_all()), [issued(2, "put-a-1", 1, "{}", false)]);
    assert_eq!(bench.call("put-a-1", "kv.put", json!({"key": "a", "value": 1})), [issued(2, "put-a-1", 1, "{}", true)]);
    assert_eq!(bench.call("m", "test.nothing", json!({})), [executed(2, "m", Outcome::UnknownFunction)]);
    bench.say(3, ToLeader::ReadBarrier(ReadBarrier { id: 9 }));
    bench.end_turn();
    assert_eq!(replies(bench.ack_all()), [passed(3, 9, Some(1))], "reads go on");
    bench.room = true;
    assert_eq!(bench.say(2, ToLeader::ExecuteFunction(put("k"))), []);
    assert_eq!(proposed(&bench.end_turn()).len(), 1);
}

/// S-35: catches a call that waits for room in the window behind commands that no majority set has room to
/// vote for, a job of the pool that is proposed, and one that waits for "not now" and is then proposed.
#[test]
fn calls_that_are_kept_find_no_room_either() {
    let mut bench = Bench::with(|config| config.window = 1);
    bench.lead();
    let pooled = jobs(&bench.call("pooled", "test.copy_on_pool", json!({}))).remove(0);
    let outbound = call("patient", "inventory.outbound", json!({"warehouse": "A", "amount": 5}));
    assert_eq!(bench.say(2, ToLeader::ExecuteFunction(patient(1, outbound))), []);
    bench.put("a", 1);
    assert_eq!(bench.call("queued", "kv.put", json!({"key": "a", "value": 2})), []);
    assert_eq!(bench.leader.load().kept_calls, 3);
    bench.room = false;
    let tick = Duration::from_millis(10);
    assert_eq!(bench.wait(tick), refused(2, "queued"));
    let function = bench.functions.get(&pooled.function).expect("registered");
    let execution = Box::new(run_on_snapshot(function.as_ref(), &pooled, &bench.machine));
    assert_eq!(bench.feed(Input::PoolDone { job: pooled.job, execution }), refused(2, "pooled"));
    let late = bench.wait(Duration::from_secs(1));
    assert!(refused(2, "patient").iter().all(|effect| late.contains(effect)), "{late:?}");
    assert_eq!((bench.leader.load().kept_calls, bench.leader.load().unissued), (0, 1));
}
