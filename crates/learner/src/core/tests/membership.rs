//! Changes of the membership (ADR 0025), as a learner sees them.

use super::*;

/// What a command with this number has left in the state: acceptors 1 to `count`.
fn written(count: u64, number: u64) -> Arc<Membership> {
    Arc::new((*Membership::of_equals(count)).clone().written_by(CommandNumber(number)))
}

fn changed(count: u64, number: u64) -> Input {
    Input::Membership(written(count, number))
}

fn voted_under(membership: u64, from: u64, ballot: Ballot, last: CommandId) -> Input {
    let run = Some(Run { first: CommandNumber(1), last });
    let voted = Voted { ballot, run, round: 1, membership: CommandNumber(membership) };
    Input::Message { from: NodeId(from), message: ToLearner::Voted(voted) }
}

fn bodies(ballot: Ballot, commands: &[Command]) -> Input {
    Input::Proposed { ballot, commands: commands.to_vec() }
}

/// A1c, claim 3: catches votes of a ballot under one membership that are counted by the majority sets of another: under
/// the old one before the change is applied here, or under the new one for what a lost ballot proposed.
#[test]
fn votes_count_under_their_own_membership() {
    let c = chain(3);
    let (old, new) = (ballot(1, 2), ballot(2, 2));
    let mut learner = learner(LearnFrom::Voters);
    learner.handle(bodies(old, &c), at(0));
    // A leader under the membership that command 1 makes has begun above it.
    for from in 1..=3 {
        assert_eq!(
            learner.handle(voted_under(1, from, new, c[1].id), at(0)),
            ignored(IgnoreReason::OtherMembership),
            "command 1 is not applied here"
        );
    }
    learner.handle(voted_under(0, 1, old, c[0].id), at(0));
    assert_eq!(learner.handle(voted_under(0, 2, old, c[0].id), at(0)), [Effect::Apply(vec![c[0].clone()])]);
    assert_eq!(learner.handle(changed(5, 1), at(0)), []);
    assert_eq!(learner.handle(voted_under(0, 3, old, c[2].id), at(0)), ignored(IgnoreReason::OtherMembership));
    learner.handle(voted_under(1, 1, new, c[1].id), at(0));
    assert_eq!(learner.handle(voted_under(1, 4, new, c[1].id), at(0)), [], "two of five");
    assert_eq!(learner.handle(voted_under(1, 5, new, c[1].id), at(0)), [Effect::Apply(vec![c[1].clone()])]);
    assert_eq!(learner.handle(voted_under(1, 6, new, c[2].id), at(0)), ignored(IgnoreReason::Stranger));
}

/// Catches a count begun under the old membership that is finished by votes under the new one.
#[test]
fn a_change_begins_the_count_anew() {
    let c = chain(2);
    let mut learner = learner(LearnFrom::Voters);
    learner.handle(bodies(ballot(1, 2), &c), at(0));
    learner.handle(voted_under(0, 1, ballot(1, 2), c[1].id), at(0));
    learner.handle(success(ballot(1, 2), c[0].id, &[]), at(0));
    learner.handle(changed(3, 1), at(0));
    assert_eq!(learner.handle(voted_under(1, 2, ballot(1, 2), c[1].id), at(0)), []);
    assert_eq!(learner.issued(), c[0].id);
}

/// Catches a learner that waits for votes it will never count, instead of asking for the change that they are under.
#[test]
fn who_hears_votes_of_a_later_membership_asks_for_it() {
    let mut learner = learner(LearnFrom::Voters);
    assert_eq!(learner.handle(voted_under(3, 2, ballot(1, 2), chain(4)[3].id), at(0)).len(), 1);
    let asks = learner.handle(Input::Tick, at(60));
    assert_eq!(asks, [Effect::Ask { to: NodeId(2), first: CommandNumber(1) }]);
}

/// ADR 0026: the change is learnt through a ballot under the old membership that is above the one in which the new leader
/// goes on. Catches a learner that waits for ever, since it takes the new leader's word for an old one; and one that
/// prefers what the old leader proposed above the change for its ballot.
#[test]
fn the_ballots_of_two_memberships_are_not_compared() {
    let c = chain(3);
    let (old, new) = (ballot(9, 3), ballot(5, 2));
    for learn_from in [LearnFrom::Leader, LearnFrom::Voters] {
        let mut learner = learner(learn_from);
        let lost = run_after(CommandId::NULL, ballot(8, 3), 3);
        learner.handle(bodies(old, &lost[1..]), at(0));
        assert_eq!(learner.handle(success(old, c[0].id, &c[..1]), at(0)), [applies(&c[..1])]);
        learner.handle(changed(3, 1), at(0));
        learner.handle(bodies(new, &c[1..]), at(0));
        let effects = match learn_from {
            LearnFrom::Leader => learner.handle(success(new, c[2].id, &[]), at(0)),
            LearnFrom::Voters => {
                assert_eq!(learner.handle(voted_under(1, 1, new, c[2].id), at(0)), []);
                learner.handle(voted_under(1, 2, new, c[2].id), at(0))
            }
        };
        assert_eq!(effects, [applies(&c[1..])]);
        assert_eq!(learner.handle(success(ballot(4, 2), run_after(c[2].id, new, 1)[0].id, &[]), at(0)).len(), 1);
    }
}

/// The same where this node was told of the change before: it joined after it. Catches a learner that goes by the ballot in which it
/// learnt the change, since the change is none to it.
#[test]
fn who_was_told_of_a_change_goes_by_new_ballots_when_it_is_applied() {
    let c = chain(2);
    let mut learner = Learner::new(Config { membership: written(3, 1), ..config(LearnFrom::Leader) }, CommandId::NULL);
    let (old, new) = (ballot(9, 3), ballot(5, 2));
    learner.handle(success(old, c[0].id, &c[..1]), at(0));
    learner.handle(bodies(new, &c[1..]), at(0));
    assert_eq!(learner.handle(success(new, c[1].id, &[]), at(0)), ignored(IgnoreReason::OlderBallot));
    learner.handle(changed(3, 1), at(0));
    assert_eq!(learner.handle(success(new, c[1].id, &c[1..]), at(0)), [applies(&c[1..])]);
}

/// Catches a change that takes bodies away which the new leader has sent before this node knew of it.
#[test]
fn what_follows_the_change_is_kept() {
    let c = chain(3);
    let mut learner = learner(LearnFrom::Leader);
    learner.handle(bodies(ballot(2, 2), &c[1..]), at(0));
    learner.handle(success(ballot(1, 2), c[0].id, &c[..1]), at(0));
    learner.handle(changed(3, 1), at(0));
    assert_eq!(learner.handle(success(ballot(2, 2), c[2].id, &[]), at(0)), [applies(&c[1..])]);
}

/// Catches a node that has joined and is not asked or answered, and one that has left and is.
#[test]
fn peers_come_and_go() {
    let c = chain(2);
    let mut learner = learner(LearnFrom::Leader);
    learner.handle(success(ballot(1, 2), c[1].id, &c), at(0));
    let asks = |from: u64| {
        let message = ToLearner::CatchUp(CatchUp { first: CommandNumber(1) });
        Input::Message { from: NodeId(from), message }
    };
    assert_eq!(learner.handle(asks(4), at(0)), ignored(IgnoreReason::Stranger));
    learner.handle(changed(4, 1), at(0));
    assert_eq!(learner.handle(asks(4), at(0)), [Effect::Serve { to: NodeId(4), first: CommandNumber(1) }]);
    learner.handle(changed(2, 2), at(0));
    assert_eq!(learner.handle(asks(4), at(0)), ignored(IgnoreReason::Stranger));
    learner.handle(changed(4, 1), at(0));
    assert_eq!(learner.membership().number(), CommandNumber(2), "an older one is no news");
}

/// Invariant 11: catches votes that may go although a majority of the learners of now lacks them, the word of a node
/// that has left, and that of one that stays and is forgotten.
#[test]
fn what_may_go_follows_the_learners_of_now() {
    let mut learner = learner(LearnFrom::Leader);
    let durable = |peer: u64, number: u64| Input::PeerDurable { peer: NodeId(peer), durable: CommandNumber(number) };
    let own = |number: u64| Input::Kept { durable: CommandNumber(number), kept_from: CommandNumber(1) };
    let floor = |learner: &mut Learner, millis: u64| match &learner.handle(Input::Tick, at(millis))[..] {
        [Effect::Forget { durable, .. }] => durable.0,
        other => panic!("{other:?}"),
    };
    learner.handle(own(9), at(0));
    learner.handle(durable(3, 7), at(0));
    assert_eq!(floor(&mut learner, 0), 7);
    learner.handle(changed(5, 8), at(0));
    assert_eq!(learner.handle(Input::Tick, at(1_000)), [], "two of five have anything");
    learner.handle(own(20), at(1_000));
    learner.handle(durable(3, 20), at(1_000));
    assert_eq!(learner.handle(Input::Tick, at(2_000)), [], "two of five");
    learner.handle(durable(5, 12), at(2_000));
    assert_eq!(floor(&mut learner, 3_000), 12);
    learner.handle(own(30), at(3_000));
    learner.handle(durable(5, 30), at(3_000));
    learner.handle(changed(3, 13), at(3_000));
    assert_eq!(floor(&mut learner, 4_000), 20, "the word of 3, which stays, and not that of 5");
}
