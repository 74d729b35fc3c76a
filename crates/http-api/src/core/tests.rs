//! Exact effects of the gateway core.

use bytes::Bytes;
use proptest::prelude::*;
use protocol::Fingerprint;
use protocol::message::{BarrierPassed, ReadBarrier};

use super::*;

mod reads;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const SECOND: Tick = Tick(1_000_000);
/// What the node has applied when a caller comes.
const APPLIED: CommandNumber = CommandNumber(5);

fn ms(millis: u64) -> Tick {
    Tick(millis * 1_000)
}

fn call(key: &str) -> Call {
    Call {
        request: RequestId::caller(key).expect("a valid key"),
        fingerprint: Fingerprint([1; 16]),
        function: "f".into(),
        arguments: Bytes::from_static(b"{}"),
        patience: Duration::ZERO,
        copy: 0,
    }
}

fn issued(number: u64) -> Outcome {
    Outcome::Issued { command: CommandNumber(number), result: Bytes::from_static(b"{}") }
}

/// The same for a caller who gave no key: nobody but this gateway can send it.
fn unkeyed() -> Call {
    Call { request: RequestId::Gateway(1), ..call("k") }
}

fn refusal() -> Outcome {
    Outcome::Refused { at: CommandNumber(3), code: "insufficient_stock".into(), message: "too little".into() }
}

/// A gateway and a clock that the test moves.
struct World {
    core: Gateway,
    now: Tick,
}

impl World {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        Self { core: Gateway::new(settings, 100), now: Tick(0) }
    }

    fn led_by(node: NodeId) -> Self {
        let mut world = Self::new();
        assert_eq!(world.handle(Input::LeaderIs(Some(node))), []);
        world
    }

    fn handle(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.handle(input, self.now, &mut effects);
        effects
    }

    fn submit(&mut self, ticket: u64, call: Call) -> Vec<Effect> {
        self.handle(Input::Submit { ticket, call, deadline: SECOND, applied: APPLIED })
    }

    fn barrier(&mut self, ticket: u64) -> Vec<Effect> {
        self.handle(Input::Barrier { ticket, deadline: SECOND })
    }

    fn executed(&mut self, from: NodeId, key: &str, outcome: Outcome) -> Vec<Effect> {
        let stored = if matches!(outcome, Outcome::Issued { .. }) { Stored::Now } else { Stored::No };
        self.hears(from, call(key).request, outcome, stored)
    }

    /// An answer to the copy that was sent last.
    fn hears(&mut self, from: NodeId, request: RequestId, outcome: Outcome, stored: Stored) -> Vec<Effect> {
        let sent = self.core.flights.get(&request).and_then(|flight| flight.copies.keys().map(|sent| sent.1).max());
        self.hears_of(sent, from, request, outcome, stored)
    }

    fn hears_of(
        &mut self,
        copy: Option<u32>,
        from: NodeId,
        request: RequestId,
        outcome: Outcome,
        stored: Stored,
    ) -> Vec<Effect> {
        let fingerprint = Fingerprint([1; 16]);
        let executed = Executed { request, copy, fingerprint, outcome, stored };
        self.handle(Input::FromLeader { from, message: ToGateway::Executed(executed) })
    }

    fn passed(&mut self, from: NodeId, id: u64, at: Option<u64>) -> Vec<Effect> {
        let message = ToGateway::BarrierPassed(BarrierPassed { id, at: at.map(CommandNumber) });
        self.handle(Input::FromLeader { from, message })
    }

    fn tick_at(&mut self, now: Tick) -> Vec<Effect> {
        self.now = now;
        self.handle(Input::Tick)
    }
}

/// The first copy of a call.
fn sent(to: NodeId, call: Call) -> Effect {
    let call = Call { copy: u32::from(is_keyed(&call)), ..call };
    Effect::Send { to, message: Message::Leader(ToLeader::ExecuteFunction(call)) }
}

/// A later copy of a call without a key.
fn sent_again(to: NodeId, call: Call, copy: u32) -> Effect {
    let call = Call { copy, ..call };
    Effect::Send { to, message: Message::Leader(ToLeader::ExecuteFunction(call)) }
}

fn asked(to: NodeId, id: u64) -> Effect {
    Effect::Send { to, message: Message::Leader(ToLeader::ReadBarrier(ReadBarrier { id })) }
}

fn answer(ticket: u64, answer: Answer) -> Effect {
    Effect::Answer { ticket, answer }
}

fn told(ticket: u64, outcome: Outcome, settled: bool) -> Effect {
    answer(ticket, Answer::Outcome { outcome, settled, replayed: false })
}

fn told_again(ticket: u64, outcome: Outcome) -> Effect {
    answer(ticket, Answer::Outcome { outcome, settled: true, replayed: true })
}

fn old() -> [Effect; 1] {
    [Effect::Ignored(IgnoreReason::OldBarrier)]
}

/// Catches a call that is not sent at once, answered wrongly, or remembered for ever.
#[test]
fn a_call_goes_to_the_leader_and_its_outcome_to_the_caller() {
    let mut world = World::led_by(A);
    assert!(world.core.is_idle() && !world.core.is_in_flight(&call("k").request));
    assert_eq!(world.submit(1, call("k")), [sent(A, call("k"))]);
    assert!(!world.core.is_idle() && world.core.is_in_flight(&call("k").request));
    assert_eq!((world.core.calls_in_flight(), world.core.leader()), (1, Some(A)));
    assert_eq!(world.executed(A, "k", issued(7)), [told(1, issued(7), true)]);
    assert!(world.core.is_idle() && world.core.bytes == 0);
    assert_eq!(world.executed(A, "k", issued(7)), [Effect::Ignored(IgnoreReason::NotInFlight)]);
}

/// A11: catches a call that is lost, or answered with an error, when there is no leader for a
/// while, or another one.
#[test]
fn calls_wait_for_a_leader_and_follow_it() {
    let mut world = World::new();
    assert_eq!(world.submit(1, call("k")), []);
    assert_eq!(world.tick_at(ms(900)), [], "without a leader there is nobody to ask");
    assert_eq!(world.handle(Input::LeaderIs(Some(A))), [sent(A, call("k"))]);
    assert_eq!(world.handle(Input::LeaderIs(Some(A))), [Effect::Ignored(IgnoreReason::SameLeader)]);
    assert_eq!(world.handle(Input::LeaderIs(None)), []);
    assert_eq!(world.handle(Input::LeaderIs(Some(B))), [sent(B, call("k"))]);
    assert_eq!(world.executed(B, "k", issued(7)), [told(1, issued(7), true)], "whatever becomes of the first copy");
}

/// Catches a refusal by a node that does not lead being passed on to the caller, and a busy
/// loop with a leader that is not ready.
#[test]
fn a_node_that_does_not_lead_is_asked_again_after_growing_pauses() {
    let mut world = World::led_by(A);
    world.submit(1, call("k"));
    for (at, again) in [(0, 25), (25, 75), (75, 175), (175, 375), (375, 675), (675, 975)] {
        assert_eq!(world.tick_at(ms(at)).len(), usize::from(at > 0), "at {at}");
        assert_eq!(world.executed(A, "k", Outcome::NotLeader), []);
        assert_eq!(world.tick_at(ms(again - 1)), [], "before {again}");
    }
    // Told by a node that is no longer thought to lead: the new leader has the call already.
    assert_eq!(world.handle(Input::LeaderIs(Some(B))), [sent(B, call("k"))]);
    assert_eq!(world.executed(A, "k", Outcome::NotLeader), []);
    assert_eq!(world.tick_at(ms(990)), []);
}

/// Catches an overload that feeds itself: where every call takes longer than `resend`, each would be sent twice.
#[test]
fn where_calls_take_long_they_are_sent_again_later() {
    let mut world = World::led_by(A);
    let takes = |world: &mut World, time: Duration| {
        for _ in 0..40 {
            let begun = world.now;
            world.handle(Input::Submit { ticket: 1, call: call("k"), deadline: begun + time * 2, applied: APPLIED });
            world.now = begun + time;
            assert_eq!(world.executed(A, "k", issued(8)).len(), 1);
        }
    };
    let sent_again_after = |world: &mut World, time: Duration| {
        let begun = world.now;
        world.handle(Input::Submit {
            ticket: 1,
            call: call("k"),
            deadline: begun + Duration::from_secs(9),
            applied: APPLIED,
        });
        assert_eq!(world.tick_at(begun + time - Duration::from_millis(9)), []);
        assert_eq!(world.tick_at(begun + time), [sent(A, call("k"))]);
        world.executed(A, "k", issued(8));
    };
    takes(&mut world, Duration::from_millis(800));
    sent_again_after(&mut world, Duration::from_millis(1_600));
    takes(&mut world, Duration::from_secs(5));
    sent_again_after(&mut world, Duration::from_secs(2));
    takes(&mut world, Duration::from_millis(5));
    sent_again_after(&mut world, Duration::from_millis(300));
}

/// A11, S-21: catches a lost leadership that ends a call: only the next leader knows.
#[test]
fn a_call_whose_leader_lost_the_lead_is_sent_again() {
    let mut world = World::led_by(A);
    world.submit(1, call("k"));
    assert_eq!(world.executed(A, "k", Outcome::LeadershipLost), []);
    assert_eq!(world.tick_at(ms(25)), [sent(A, call("k"))]);
    assert_eq!(world.executed(A, "k", Outcome::LeadershipLost), []);
    assert_eq!(world.handle(Input::LeaderIs(Some(B))), [sent(B, call("k"))]);
    assert_eq!(world.hears(B, call("k").request, issued(7), Stored::Before), [told(1, issued(7), true)]);
}

/// A12: catches a lost message that leaves a caller waiting, and a storm of repetitions.
#[test]
fn silence_is_answered_with_repetition_less_and_less_often() {
    let mut world = World::led_by(A);
    world.handle(Input::Submit { ticket: 1, call: call("k"), deadline: ms(60_000), applied: APPLIED });
    let mut repeated = Vec::new();
    for at in 1..10_000 {
        let effects = world.tick_at(ms(at));
        if !effects.is_empty() {
            assert_eq!(effects, [sent(A, call("k"))]);
            repeated.push(at);
        }
    }
    assert_eq!(repeated, [300, 900, 2_100, 4_100, 6_100, 8_100]);
}

/// S-22: catches a deadline that is taken for an abort, and an *unknown* where nothing ran.
#[test]
fn when_time_is_up_the_caller_is_told_what_is_known() {
    let none = Answer::NotExecuted(Unavailable::NoLeader);
    let declines = |world: &mut World| world.hears(A, unkeyed().request, Outcome::NotLeader, Stored::No);
    let mut world = World::new();
    world.submit(1, unkeyed());
    world.submit(2, call("k"));
    let expected = [answer(2, Answer::NotHere(Unavailable::NoLeader)), answer(1, none.clone())];
    assert_eq!(world.tick_at(SECOND), expected, "another gateway may have been given the key");
    assert!(world.core.is_idle());

    let mut world = World::led_by(A);
    world.submit(1, unkeyed());
    world.handle(Input::LeaderIs(None));
    assert_eq!(world.tick_at(SECOND), [answer(1, Answer::Unknown)]);
    assert_eq!(declines(&mut world), [Effect::Ignored(IgnoreReason::NotInFlight)]);

    let mut world = World::led_by(A);
    world.submit(1, unkeyed());
    declines(&mut world);
    world.handle(Input::LeaderIs(None));
    assert_eq!(world.tick_at(SECOND), [answer(1, none)], "it was declined by all who had it");

    let mut world = World::led_by(A);
    world.submit(1, unkeyed());
    world.tick_at(ms(300));
    declines(&mut world);
    world.handle(Input::LeaderIs(None));
    assert_eq!(world.tick_at(SECOND), [answer(1, Answer::Unknown)], "the other copy may be on its way");
}

/// S-22, A12: an answer that is doubled on its way says nothing of the next copy. Catches a call that is told as not
/// executed, or as settled by the refusal of a third copy, while its second one runs.
#[test]
fn a_doubled_answer_says_nothing_of_a_later_copy() {
    let declines = |world: &mut World, copy| {
        let none = world.hears_of(copy, A, unkeyed().request, Outcome::NotLeader, Stored::No);
        assert_eq!(none, []);
    };
    for copy in [Some(0), None] {
        let mut world = World::led_by(A);
        world.submit(1, unkeyed());
        declines(&mut world, copy);
        assert_eq!(world.tick_at(ms(25)), [sent_again(A, unkeyed(), 1)]);
        declines(&mut world, copy);
        world.handle(Input::LeaderIs(None));
        assert_eq!(world.tick_at(SECOND), [answer(1, Answer::Unknown)], "the second copy may have run");
    }

    let mut world = World::led_by(A);
    world.submit(1, unkeyed());
    declines(&mut world, Some(0));
    world.tick_at(ms(25));
    declines(&mut world, Some(0));
    assert_eq!(world.tick_at(ms(75)), [sent_again(A, unkeyed(), 2)]);
    let full = world.hears_of(Some(2), A, unkeyed().request, Outcome::DiskFull, Stored::No);
    assert_eq!(full, [], "the second copy may still run");
    declines(&mut world, Some(1));
    let full = world.hears_of(Some(2), A, unkeyed().request, Outcome::DiskFull, Stored::No);
    assert_eq!(full, [told(1, Outcome::DiskFull, true)], "all others were declined");
}

/// Catches "not executed" about a call that another caller still waits for.
#[test]
fn a_call_that_goes_on_for_another_caller_may_still_be_executed() {
    let mut world = World::new();
    world.handle(Input::Submit { ticket: 1, call: call("k"), deadline: ms(10), applied: APPLIED });
    world.handle(Input::Submit { ticket: 2, call: call("k"), deadline: ms(20), applied: APPLIED });
    assert_eq!(world.tick_at(ms(10)), [answer(1, Answer::Unknown)]);
    assert_eq!(world.handle(Input::LeaderIs(Some(A))), [sent(A, call("k"))]);
    assert_eq!(world.executed(A, "k", issued(1)), [told_again(2, issued(1))]);
}

/// S-23: catches a repeated key that runs twice, and one with another body that gets the
/// outcome of the first, or is told that it never was executed while only another one is under way; and a caller who came second and is not told so, or a first one who is
/// told of a replay because of him.
#[test]
fn callers_with_one_key_share_one_flight() {
    let mut world = World::led_by(A);
    world.submit(1, call("k"));
    assert_eq!(world.submit(2, call("k")), []);
    let other = Call { fingerprint: Fingerprint([2; 16]), ..call("k") };
    assert_eq!(world.submit(3, other.clone()), [told(3, Outcome::RequestReused, false)], "it may have come before");
    assert_eq!(world.executed(A, "k", issued(1)), [told(1, issued(1), true), told_again(2, issued(1))]);
    world.submit(4, call("k"));
    let before = world.hears(A, call("k").request, issued(1), Stored::Before);
    assert_eq!(before, [told_again(4, issued(1))], "the leader says so");
    for (ticket, stored) in [(5, Stored::No), (6, Stored::Plain)] {
        world.submit(ticket, call("k"));
        let reused = world.hears(A, call("k").request, Outcome::RequestReused, stored);
        let for_good = stored == Stored::Plain;
        assert_eq!(reused, [told(ticket, Outcome::RequestReused, for_good)], "for good if the other one is stored");
    }
}

/// S-23: catches a first caller who is told of a replay because its gateway sent the call twice,
/// or under an id that the gateway made; and one who repeats a call and is not told.
#[test]
fn only_who_repeats_a_call_is_told_of_a_replay() {
    let before = |world: &mut World, from, call: &Call, outcome: &Outcome| {
        world.hears(from, call.request.clone(), outcome.clone(), Stored::Before)
    };
    let mut world = World::led_by(A);
    world.submit(1, call("k"));
    assert_eq!(before(&mut world, A, &call("k"), &issued(6)), [told_again(1, issued(6))], "one copy: the leader knows");
    world.submit(2, call("k"));
    world.executed(A, "k", Outcome::NotLeader);
    world.tick_at(ms(25));
    let told_second = before(&mut world, A, &call("k"), &issued(6));
    assert_eq!(told_second, [told_again(2, issued(6))], "the other copy was declined");

    let refused = |at| Outcome::Refused { at: CommandNumber(at), code: "c".into(), message: "m".into() };
    for outcome in [issued, refused] {
        let (earlier, ours) = (outcome(APPLIED.0), outcome(APPLIED.0 + 1));
        for (outcome, first) in [(&earlier, told_again(1, earlier.clone())), (&ours, told(1, ours.clone(), true))] {
            let mut world = World::led_by(A);
            world.submit(1, call("k"));
            world.executed(A, "k", Outcome::LeadershipLost);
            world.handle(Input::LeaderIs(Some(B)));
            world.submit(2, call("k"));
            assert_eq!(before(&mut world, B, &call("k"), outcome), [first, told_again(2, outcome.clone())]);
        }
    }

    for again in [false, true] {
        let mut world = World::led_by(A);
        world.submit(1, unkeyed());
        if again {
            world.tick_at(ms(300));
        }
        let told_first = before(&mut world, A, &unkeyed(), &issued(1));
        assert_eq!(told_first, [told(1, issued(1), true)], "nobody else can have sent it");
    }
}

/// S-23: a key is used again with another body while the outcome of the first is on its way. Catches
/// the second caller being told what became of the first call.
#[test]
fn an_outcome_of_another_body_is_no_answer() {
    let mut world = World::led_by(A);
    world.submit(1, call("k"));
    world.tick_at(SECOND);
    let other = Call { fingerprint: Fingerprint([2; 16]), ..call("k") };
    world.handle(Input::Submit { ticket: 2, call: other, deadline: ms(9_000), applied: CommandNumber(0) });
    assert_eq!(world.executed(A, "k", issued(1)), [Effect::Ignored(IgnoreReason::OtherBody)]);
    let (request, fingerprint) = (call("k").request, Fingerprint::default());
    let executed = Executed { request, copy: None, fingerprint, outcome: issued(1), stored: Stored::Before };
    let unsaid = world.handle(Input::FromLeader { from: A, message: ToGateway::Executed(executed) });
    assert_eq!(unsaid, [told(2, issued(1), true)], "an older leader says neither which body nor which copy");
}

/// Catches a call that is stopped, or an outcome that goes nowhere, when a caller goes away.
#[test]
fn a_call_goes_on_without_its_caller() {
    let mut world = World::led_by(A);
    world.submit(1, call("k"));
    assert_eq!(world.handle(Input::Abandon { ticket: 1 }), []);
    assert_eq!(world.tick_at(ms(300)), [sent(A, call("k"))]);
    assert_eq!(world.submit(2, call("k")), [], "a caller who comes back finds it under way");
    assert_eq!(world.executed(A, "k", issued(1)), [told_again(2, issued(1))]);
    world.submit(3, call("l"));
    world.handle(Input::Abandon { ticket: 3 });
    assert_eq!(world.tick_at(SECOND), [], "given up at its deadline");
    assert!(world.core.is_idle());
}

/// S-35: catches a leader without time or room reported to a caller whose call may have run elsewhere.
#[test]
fn overload_and_full_disks_are_final_only_when_no_other_copy_may_run() {
    for outcome in [Outcome::Overloaded, Outcome::DiskFull] {
        let mut world = World::led_by(A);
        world.submit(1, unkeyed());
        let only = world.hears(A, unkeyed().request, outcome.clone(), Stored::No);
        assert_eq!(only, [told(1, outcome.clone(), true)]);
        world.submit(1, call("k"));
        let told = told(1, outcome.clone(), false);
        assert_eq!(world.executed(A, "k", outcome.clone()), [told], "another gateway may have been given the key");

        world.submit(2, call("l"));
        world.handle(Input::LeaderIs(Some(B)));
        assert_eq!(world.executed(B, "l", outcome), []);
        assert_eq!(world.tick_at(ms(25)), [sent(B, call("l"))]);
    }
}

/// S-22, ADR 0017: catches a refusal that is called final while another copy of the call may still
/// run, and one that is called unknown although it is recorded for all copies.
#[test]
fn a_refusal_is_settled_when_it_is_recorded_or_no_other_copy_may_run() {
    let mut world = World::led_by(A);
    let refuses = |world: &mut World, stored| world.hears(A, unkeyed().request, refusal(), stored);
    world.submit(1, unkeyed());
    assert_eq!(refuses(&mut world, Stored::No), [told(1, refusal(), true)]);
    world.submit(2, unkeyed());
    world.hears(A, unkeyed().request, Outcome::NotLeader, Stored::No);
    assert_eq!(world.tick_at(ms(25)), [sent_again(A, unkeyed(), 1)], "the first copy was declined");
    assert_eq!(refuses(&mut world, Stored::No), [told(2, refusal(), true)]);

    world.submit(3, unkeyed());
    assert_eq!(world.tick_at(ms(325)), [sent_again(A, unkeyed(), 1)]);
    assert_eq!(refuses(&mut world, Stored::No), [], "one copy's word; the other may come to something else");
    assert_eq!(world.tick_at(ms(350)), [sent_again(A, unkeyed(), 2)]);
    assert_eq!(refuses(&mut world, Stored::Now), [told(3, refusal(), true)]);

    world.submit(4, call("k"));
    assert_eq!(world.hears(A, call("k").request, refusal(), Stored::Before), [told_again(4, refusal())]);
    world.submit(5, call("k"));
    let failed = Outcome::Failed { message: String::new() };
    assert_eq!(world.executed(A, "k", failed.clone()), [told(5, failed.clone(), false)], "failures are not recorded");
    world.submit(6, unkeyed());
    world.handle(Input::LeaderIs(Some(B)));
    let fails = world.hears(B, unkeyed().request, failed.clone(), Stored::No);
    assert_eq!(fails, [told(6, failed, false)], "and are told at once, though the other copy may still run");
    world.submit(7, call("k"));
    world.handle(Input::LeaderIs(Some(A)));
    let large = Outcome::TooLarge { message: String::new() };
    let fails = world.hears(A, call("k").request, large.clone(), Stored::Plain);
    assert_eq!(fails, [told(7, large, true)], "every copy comes to the same");
}

/// Catches a caller's patience that starts anew with each leader.
#[test]
fn the_next_leader_gets_what_is_left_of_the_patience() {
    let mut world = World::led_by(A);
    let patient = |millis| Call { patience: Duration::from_millis(millis), ..call("k") };
    assert_eq!(world.submit(1, patient(400)), [sent(A, patient(400))]);
    world.now = ms(300);
    assert_eq!(world.handle(Input::LeaderIs(Some(B))), [sent(B, patient(100))]);
    assert_eq!(world.executed(B, "k", Outcome::NotLeader), []);
    assert_eq!(world.tick_at(ms(325)), [sent(B, patient(75))]);
    assert_eq!(world.tick_at(ms(999)), [], "until 400 it may be kept, and then comes a pause");
    assert_eq!(world.handle(Input::LeaderIs(Some(A))), [sent(A, patient(0))]);
}

/// A12, ADR 0017: the leader may be keeping a call, or its answer may be lost. Catches a lost answer that is waited for
/// until the patience is over, a second copy of a call that is patient for a short time only, repetitions without a
/// bound, and patience that starts anew with each of them.
#[test]
fn a_patient_call_without_an_answer_is_sent_again_too() {
    let patient = |millis| Call { patience: Duration::from_millis(millis), ..call("k") };
    for (patience, expected) in [
        (1_500, vec![(1_800, 0), (2_400, 0), (3_600, 0), (5_600, 0)]),
        (5_000, vec![(2_000, 3_000), (4_000, 1_000), (6_000, 0)]),
    ] {
        let mut world = World::led_by(A);
        world.handle(Input::Submit { ticket: 1, call: patient(patience), deadline: ms(7_000), applied: APPLIED });
        let mut repeated = Vec::new();
        for at in 1..7_000 {
            let effects = world.tick_at(ms(at));
            if !effects.is_empty() {
                let left = patience.saturating_sub(at);
                assert_eq!(effects, [sent(A, patient(left))]);
                repeated.push((at, left));
            }
        }
        assert_eq!(repeated, expected);
        assert_eq!(world.tick_at(ms(7_000)), [answer(1, Answer::Unknown)]);
    }

    let mut world = World::led_by(A);
    let submit = |ticket, call| Input::Submit { ticket, call, deadline: ms(20_000), applied: APPLIED };
    assert_eq!(world.handle(submit(1, patient(19_750))), [sent(A, patient(19_750))]);
    assert_eq!(world.tick_at(ms(2_000)), [sent(A, patient(17_750))], "executed, and the answer lost");
    let stored = world.hears(A, call("k").request, issued(7), Stored::Before);
    assert_eq!(stored, [told(1, issued(7), true)], "its own outcome is no replay to who called first");
}

/// S-22, ADR 0017: without a key the first copy's refusal is not recorded. Catches one that is told as final while the
/// second copy of the patient call waits on.
#[test]
fn a_refusal_does_not_settle_a_patient_call_that_was_sent_again() {
    let patient = |millis| Call { patience: Duration::from_millis(millis), ..unkeyed() };
    let refused = |world: &mut World, copy, stored| world.hears_of(Some(copy), A, unkeyed().request, refusal(), stored);
    let mut world = World::led_by(A);
    let submit = |ticket| Input::Submit { ticket, call: patient(5_000), deadline: ms(20_000), applied: APPLIED };
    assert_eq!(world.handle(submit(1)), [sent(A, patient(5_000))]);
    assert_eq!(refused(&mut world, 0, Stored::No), [told(1, refusal(), true)], "one copy");
    assert_eq!(world.handle(submit(2)), [sent(A, patient(5_000))]);
    assert_eq!(world.tick_at(ms(2_000)), [sent_again(A, patient(3_000), 1)]);
    assert_eq!(refused(&mut world, 0, Stored::No), []);
    assert_eq!(world.tick_at(ms(2_025)), [sent_again(A, patient(2_975), 2)]);
    assert_eq!(refused(&mut world, 0, Stored::Now), [told(2, refusal(), true)], "for all that attached to it");
}

/// S-22: catches somebody who waits on when the node ends, a call that was sent and is said not
/// to be executed, and one that is taken in after the end.
#[test]
fn at_the_end_everybody_is_told_what_is_known() {
    let stopping = |ticket| answer(ticket, Answer::NotExecuted(Unavailable::Stopping));
    let unknown = |ticket| answer(ticket, Answer::Unknown);
    let mut world = World::new();
    world.submit(1, unkeyed());
    world.barrier(2);
    assert_eq!(world.handle(Input::End), [stopping(1), stopping(2)], "nothing was sent");
    assert!(world.core.is_idle());

    let mut world = World::led_by(A);
    world.submit(1, call("k"));
    world.submit(2, call("k"));
    world.submit(3, unkeyed());
    world.hears(A, unkeyed().request, Outcome::NotLeader, Stored::No);
    world.barrier(4);
    world.barrier(5);
    assert_eq!(world.handle(Input::End), [unknown(1), unknown(2), stopping(3), stopping(4), stopping(5)]);
    assert!(world.core.is_idle());
    assert_eq!((world.core.bytes, world.core.waiting()), (0, 0));
    assert_eq!(world.executed(A, "k", issued(1)), [Effect::Ignored(IgnoreReason::NotInFlight)]);
    let not_here = answer(6, Answer::NotHere(Unavailable::Stopping));
    assert_eq!(world.submit(6, call("k")), [not_here], "the copy sent before may still run");
    assert_eq!(world.submit(7, unkeyed()), [stopping(7)]);
    assert_eq!(world.barrier(8), [stopping(8)]);
    assert_eq!(world.handle(Input::LeaderIs(Some(B))), []);
    assert_eq!(world.handle(Input::End), []);
}

/// Catches a gateway that sends the leader all that comes after it was told that there is no room, at the cost of a call
/// each; one that never sends more again; and a repetition that is refused although its call is under way.
#[test]
fn what_a_leader_without_room_would_refuse_is_refused_here() {
    let mut world = World::with(Settings { in_flight: 80, ..Settings::default() });
    world.handle(Input::LeaderIs(Some(A)));
    for ticket in 0..40 {
        assert_eq!(world.submit(ticket, call(&format!("k{ticket}"))).len(), 1);
    }
    assert!(!world.core.is_full());
    assert_eq!(world.executed(A, "k39", Outcome::Overloaded), [told(39, Outcome::Overloaded, false)]);
    let here = |ticket| [told(ticket, Outcome::Overloaded, false)];
    assert_eq!(world.submit(40, call("k40")), here(40), "39 are under way, and 35 may be");
    assert!(world.core.is_full());
    assert_eq!(world.submit(41, call("k0")), [], "it waits with the first");
    assert_eq!(world.submit(42, Call { patience: Duration::from_secs(1), ..call("k42") }).len(), 1);
    for number in 1..6 {
        world.executed(A, &format!("k{number}"), issued(number));
    }
    assert_eq!(world.submit(43, call("k43")).len(), 1, "34 were under way");
    assert_eq!(world.submit(44, call("k44")), here(44));
}

/// Catches memory without a bound: calls, callers, readers, bytes.
#[test]
fn what_waits_is_bounded() {
    let overloaded = |ticket| [told(ticket, Outcome::Overloaded, false)];
    let settings = Settings { in_flight: 3, bytes: 7, ..Settings::default() };
    let mut world = World::with(settings);
    for (ticket, key) in [(1, "k"), (2, "l"), (3, "m")] {
        assert_eq!(world.submit(ticket, call(key)), []);
    }
    assert_eq!(world.core.calls_in_flight(), 3);
    assert_eq!(world.submit(4, call("n")), overloaded(4));
    assert_eq!(world.submit(5, call("k")), overloaded(5), "callers of one call count too");
    assert_eq!(world.barrier(6), [answer(6, Answer::NotExecuted(Unavailable::TooMany))]);
    world.handle(Input::Abandon { ticket: 3 });
    assert_eq!(world.submit(7, call("n")), overloaded(7), "its call goes on");
    assert_eq!(world.barrier(8), []);
    world.tick_at(SECOND);
    assert!(world.core.is_idle());
    let large = Call { arguments: Bytes::from_static(b"12345678"), ..call("k") };
    assert_eq!(world.submit(9, large), overloaded(9));
    world.handle(Input::LeaderIs(Some(A)));
    assert_eq!(world.submit(10, call("k")), [sent(A, call("k"))], "what has ended counts no more");
    world.tick_at(SECOND);
    world.now = Tick(0);
    let largest = Call { arguments: Bytes::from_static(b"1234567"), ..call("l") };
    assert_eq!(world.submit(11, largest.clone()), [sent(A, largest)], "as many bytes as may be");
    assert!(!world.core.is_full());
    assert_eq!((world.barrier(12).len(), world.barrier(13).len()), (1, 0));
    assert!(world.core.is_full(), "one caller, one reader that has asked, one that has not");
    assert_eq!(world.barrier(14), [answer(14, Answer::NotExecuted(Unavailable::TooMany))]);
}

#[derive(Clone, Debug)]
enum Step {
    Submit(u8, u64),
    Barrier(u64),
    Abandon(u8),
    Leader(Option<u64>),
    Tick(u64),
    Executed(u64, u8, u8, Stored),
    End,
    Passed(u64, u8, Option<u64>),
}

fn stored() -> impl Strategy<Value = Stored> {
    prop_oneof![Just(Stored::No), Just(Stored::Now), Just(Stored::Before), Just(Stored::Plain)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..4_u8, 0..2_000_u64).prop_map(|(key, wait)| Step::Submit(key, wait)),
        20 => (0..2_000_u64).prop_map(Step::Barrier),
        20 => any::<u8>().prop_map(Step::Abandon),
        20 => prop::option::of(1..3_u64).prop_map(Step::Leader),
        20 => (0..500_u64).prop_map(Step::Tick),
        1 => Just(Step::End),
        20 => (1..3_u64, 0..4_u8, 0..6_u8, stored())
            .prop_map(|(from, key, outcome, stored)| Step::Executed(from, key, outcome, stored)),
        20 => (1..3_u64, 0..8_u8, prop::option::of(0..9_u64)).prop_map(|(from, id, at)| Step::Passed(from, id, at)),
    ]
}

proptest! {
    /// A11, S-22, S-23: whatever leaders say and however they change, every caller and reader
    /// who stays is answered exactly once and no later than the tick after its deadline, or the
    /// end of the node; nobody is told of a leader's troubles; and nothing is left over.
    #[test]
    fn everybody_is_answered_exactly_once(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        for step in steps.into_iter().chain([Step::Tick(5_000)]) {
            let mut ticket = || { next += 1; next };
            let (ticked, ended) = (matches!(step, Step::Tick(_)), matches!(step, Step::End));
            let input = match step {
                Step::Submit(key, wait) => {
                    let (ticket, deadline) = (ticket(), world.now + Duration::from_millis(wait));
                    waiting.insert(ticket, deadline);
                    Input::Submit { ticket, call: call(&format!("k{key}")), deadline, applied: APPLIED }
                }
                Step::Barrier(wait) => {
                    let (ticket, deadline) = (ticket(), world.now + Duration::from_millis(wait));
                    waiting.insert(ticket, deadline);
                    Input::Barrier { ticket, deadline }
                }
                Step::Abandon(ticket) => {
                    waiting.remove(&u64::from(ticket));
                    Input::Abandon { ticket: ticket.into() }
                }
                Step::End => Input::End,
                Step::Leader(node) => Input::LeaderIs(node.map(NodeId)),
                Step::Tick(millis) => {
                    world.now = world.now + Duration::from_millis(millis);
                    Input::Tick
                }
                Step::Executed(from, key, outcome, stored) => {
                    let request = call(&format!("k{key}")).request;
                    let outcome = [
                        issued(1), refusal(), Outcome::NotLeader, Outcome::LeadershipLost, Outcome::Overloaded,
                        Outcome::Failed { message: String::new() },
                    ][usize::from(outcome)].clone();
                    let fingerprint = Fingerprint([1; 16]);
                    let message = ToGateway::Executed(Executed { request, copy: Some(1), fingerprint, outcome, stored });
                    Input::FromLeader { from: NodeId(from), message }
                }
                Step::Passed(from, id, at) => {
                    let at = at.map(CommandNumber);
                    let message = ToGateway::BarrierPassed(BarrierPassed { id: 100 + u64::from(id), at });
                    Input::FromLeader { from: NodeId(from), message }
                }
            };
            for effect in world.handle(input) {
                match effect {
                    Effect::Answer { ticket, answer } => {
                        prop_assert!(waiting.remove(&ticket).is_some(), "{ticket} was answered unasked: {answer:?}");
                        let troubles = matches!(
                            answer,
                            Answer::Outcome { outcome: Outcome::NotLeader | Outcome::LeadershipLost, .. }
                        );
                        prop_assert!(!troubles, "a leader's troubles reached the caller {}", ticket);
                    }
                    Effect::Send { to, .. } => prop_assert_eq!(Some(to), world.core.leader()),
                    Effect::Ignored(_) => {}
                }
            }
            if ended {
                prop_assert!(waiting.is_empty(), "{waiting:?} still wait after the end");
            }
            if ticked {
                prop_assert!(waiting.values().all(|deadline| *deadline > world.now), "{waiting:?} at {:?}", world.now);
            }
        }
        prop_assert!(world.core.is_idle(), "{:?}", world.core);
        prop_assert_eq!(world.core.bytes, 0);
        prop_assert!(world.core.callers.is_empty());
    }
}
