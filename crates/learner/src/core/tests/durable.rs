//! What may be forgotten.

use super::*;

fn peer_durable(peer: u64, durable: u64) -> Input {
    Input::PeerDurable { peer: NodeId(peer), durable: CommandNumber(durable) }
}

fn own_durable(durable: u64) -> Input {
    Input::Kept { durable: CommandNumber(durable), kept_from: CommandNumber(1) }
}

fn forgets(durable: u64, in_touch: u64) -> Vec<Effect> {
    vec![Effect::Forget { durable: CommandNumber(durable), in_touch: CommandNumber(in_touch) }]
}

/// A learner in a cluster of so many, which has heard these durable numbers, its own first.
fn among(learners: u64, said: &[u64]) -> Learner {
    let membership = Membership::of_equals(learners);
    let mut learner = Learner::new(Config { membership, ..config(LearnFrom::Leader) }, CommandId::NULL);
    assert_eq!(learner.handle(own_durable(said[0]), at(0)), []);
    for (peer, durable) in (2..).zip(&said[1..]) {
        assert_eq!(learner.handle(peer_durable(peer, *durable), at(0)), []);
    }
    learner
}

/// DESIGN 8, invariant 11: catches a vote that may go although its command is in the durable states of half of the
/// learners only, or not in this node's own.
#[test]
fn votes_may_go_that_a_majority_and_this_node_have_durable() {
    for (learners, said, durable) in [
        (1, &[7][..], 7),
        (2, &[7, 9], 7),
        (2, &[9, 7], 7),
        (3, &[9, 7, 0], 7),
        (3, &[9, 7], 7),
        (3, &[5, 7, 9], 5),
        (4, &[9, 8, 7, 6], 7),
        (5, &[9, 8, 7, 6, 5], 7),
        (5, &[6, 9, 9, 9, 9], 6),
    ] {
        let mut learner = among(learners, said);
        let lowest = said.iter().copied().min().unwrap_or_default().min(durable);
        assert_eq!(learner.handle(Input::Tick, at(0)), forgets(durable, lowest), "{learners} with {said:?}");
    }
    for (learners, said) in [(3, &[9][..]), (3, &[0, 9, 9]), (4, &[9, 9]), (5, &[9, 9])] {
        let mut learner = among(learners, said);
        assert_eq!(learner.handle(Input::Tick, at(0)), [], "{learners} with {said:?}");
    }
}

/// DESIGN 8: catches what was durable becoming less so here or by a peer that is not heard, a peer's old word that counts
/// on after it has lost its state, a floor that is told at every tick, and the word of a stranger.
#[test]
fn what_may_go_is_what_was_said_last_and_is_said_once_a_second() {
    let mut learner = among(3, &[9, 7, 5]);
    assert_eq!(learner.handle(Input::Tick, at(0)), forgets(7, 5));
    learner.handle(own_durable(4), at(1));
    assert_eq!(learner.handle(peer_durable(9, 9), at(1)), ignored(IgnoreReason::Stranger));
    assert_eq!(learner.handle(Input::Tick, at(999)), []);
    assert_eq!(learner.handle(Input::Tick, at(1_000)), forgets(7, 5));
    learner.handle(Input::PeerLost(NodeId(2)), at(1_001));
    assert_eq!(learner.handle(Input::Tick, at(2_000)), forgets(7, 5), "what 2 has durable it has on its disk");
    learner.handle(peer_durable(2, 0), at(2_001));
    assert_eq!(learner.handle(Input::Tick, at(3_000)), forgets(5, 0), "2 begins anew: its commands are kept for it");
}

/// Catches merely old commands that are kept for a peer that is not in touch, or taken from one that is: it would need a
/// whole state for a short absence.
#[test]
fn old_commands_are_kept_for_who_is_in_touch() {
    let mut learner = among(3, &[9, 8, 2]);
    assert_eq!(learner.handle(Input::Tick, at(0)), forgets(8, 2));
    learner.handle(Input::PeerLost(NodeId(3)), at(1));
    assert_eq!(learner.handle(Input::Tick, at(1_000)), forgets(8, 8));
    learner.handle(peer_durable(3, 2), at(1_001));
    assert_eq!(learner.handle(Input::Tick, at(2_000)), forgets(8, 2));
    learner.handle(peer_durable(3, 8), at(2_001));
    assert_eq!(learner.handle(Input::Tick, at(3_000)), forgets(8, 8));
}

/// A13: catches space that is not given back while it is short, or all the time, and a full disk that is told of as one
/// with room.
#[test]
fn space_is_given_back_while_it_is_short_and_not_all_the_time() {
    let mut learner = among(1, &[0]);
    let tick = |learner: &mut Learner, space, milliseconds| {
        assert_eq!(learner.handle(Input::Space(space), at(milliseconds)), []);
        learner.handle(Input::Tick, at(milliseconds))
    };
    assert_eq!(tick(&mut learner, Space::Ample, 0), []);
    assert_eq!(tick(&mut learner, Space::Low, 100), [Effect::Reclaim(Space::Low)]);
    assert_eq!(tick(&mut learner, Space::Ample, 200), []);
    assert_eq!(tick(&mut learner, Space::Out, 10_099), []);
    assert_eq!(tick(&mut learner, Space::Out, 10_100), [Effect::Reclaim(Space::Out)]);
    assert_eq!(tick(&mut learner, Space::Ample, 30_000), []);
}
