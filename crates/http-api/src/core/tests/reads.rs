//! Reads: one question for many, asked again, never answered by an earlier one.

use super::*;

/// S-20: catches a read that is answered by a question asked before it arrived, and a question
/// for every read.
#[test]
fn reads_share_the_next_question_but_never_an_earlier_one() {
    let mut world = World::led_by(A);
    assert_eq!(world.barrier(1), [asked(A, 100)]);
    assert!(!world.core.is_idle(), "it may have to be asked again");
    assert_eq!(world.barrier(2), []);
    assert_eq!(world.barrier(3), []);
    let passed = |ticket, at| answer(ticket, Answer::BarrierPassed(CommandNumber(at)));
    assert_eq!(world.passed(A, 100, Some(5)), [passed(1, 5), asked(A, 101)]);
    assert_eq!(world.passed(A, 100, Some(5)), old(), "the same answer, doubled on its way");
    assert_eq!(world.passed(A, 101, Some(6)), [passed(2, 6), passed(3, 6)]);
    assert!(world.core.is_idle());
}

/// S-20, S-21: catches an answer to an earlier question, or of an earlier leader, that is taken
/// for a newer one's.
#[test]
fn a_repeated_question_is_a_new_one() {
    let mut world = World::led_by(A);
    world.barrier(1);
    world.barrier(2);
    assert_eq!(world.tick_at(ms(299)), []);
    assert_eq!(world.tick_at(ms(300)), [asked(A, 101)], "silence");
    assert_eq!(world.passed(A, 100, Some(5)), old());
    assert_eq!(world.handle(Input::LeaderIs(Some(B))), [asked(B, 102)]);
    assert_eq!(world.passed(A, 101, Some(5)), old());
    assert_eq!(world.passed(A, 102, Some(5)), old(), "asked of another node");
    assert_eq!(world.passed(B, 102, None), []);
    assert_eq!(world.tick_at(ms(324)), []);
    assert_eq!(world.tick_at(ms(325)), [asked(B, 103)]);
    assert_eq!(world.passed(B, 102, Some(5)), old());
    let passed = |ticket| answer(ticket, Answer::BarrierPassed(CommandNumber(6)));
    assert_eq!(world.passed(B, 103, Some(6)), [passed(1), passed(2)]);
}

/// A12: catches a question that is repeated without a pause, or in a pause that other questions have made long.
#[test]
fn questions_are_repeated_less_and_less_often_until_one_is_answered() {
    let mut world = World::led_by(A);
    let wait = |world: &mut World| {
        let begun = world.now.0 / 1_000;
        (begun + 1..).find(|at| !world.tick_at(ms(*at)).is_empty()).expect("a repetition") - begun
    };
    let ask = |world: &mut World, ticket| {
        let deadline = world.now + Duration::from_secs(60);
        assert_eq!(world.handle(Input::Barrier { ticket, deadline }).len(), 1);
    };
    ask(&mut world, 1);
    let pauses = [(); 3].map(|()| wait(&mut world));
    assert!(pauses[0] == 300 && (450..=600).contains(&pauses[1]) && pauses[2] > pauses[1], "{pauses:?}");
    assert_eq!(world.passed(A, 103, Some(7)).len(), 1);
    ask(&mut world, 2);
    assert_eq!(wait(&mut world), 300);
}

/// Catches a read that waits for ever, or that stops others when its reader goes away.
#[test]
fn reads_end_at_their_deadlines() {
    let mut world = World::new();
    assert_eq!(world.barrier(1), []);
    assert!(!world.core.is_idle(), "its time will be up");
    assert_eq!(world.tick_at(SECOND), [answer(1, Answer::NotExecuted(Unavailable::NoLeader))]);
    assert!(world.core.is_idle());

    let mut world = World::led_by(A);
    world.barrier(1);
    world.barrier(2);
    world.handle(Input::Abandon { ticket: 2 });
    assert_eq!(world.tick_at(SECOND), [answer(1, Answer::NotExecuted(Unavailable::NoAnswer))]);
    assert!(world.core.is_idle());
    assert_eq!(world.passed(A, 100, Some(1)), old());

    world.now = Tick(0);
    world.barrier(3);
    world.barrier(4);
    world.handle(Input::Abandon { ticket: 3 });
    let passed = answer(4, Answer::BarrierPassed(CommandNumber(9)));
    assert_eq!(world.passed(A, 101, Some(9)), [asked(A, 102)]);
    assert_eq!(world.passed(A, 102, Some(9)), [passed]);
}

/// S-20: catches a read that is shown a state before the number that the leader answered, or before the one that it wants.
#[test]
fn a_state_must_reach_what_the_leader_says_and_the_reader_wants() {
    let reaches = |barrier: Option<u64>, least| must_reach(barrier.map(CommandNumber), CommandNumber(least)).0;
    assert_eq!(reaches(None, 0), 0);
    assert_eq!(reaches(None, 7), 7);
    assert_eq!(reaches(Some(5), 0), 5);
    assert_eq!(reaches(Some(5), 7), 7);
    assert_eq!(reaches(Some(7), 5), 7);
}
