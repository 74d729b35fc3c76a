//! S-01: the patent read to the letter loses agreement, and gap-free voting mends it.
//!
//! The schedule of the checklist, on the literal rules (`literal`) and on the shipped cores. That
//! the schedule is found by search, and that the rule leaves none, is shown by `tests/model`.

use protocol::{Ballot, CommandId, Outcome};
use quorate_tests::literal::{Literal, command};
use quorate_tests::world::{P, Q, R, Settings, World};

use crate::support::{goods, id};

/// The schedule of S-01. Returns what A and C consider issued at the end.
fn play(gap_free: bool) -> (Vec<CommandId>, Vec<CommandId>) {
    let (a, b, c) = (P, Q, R);
    let mut world = Literal::new(gap_free);
    let first = Ballot::new(1, a);
    assert_eq!(world.prepare(first, [a, b]), []);
    let b1 = command(1, first, CommandId::NULL);
    let c1 = command(2, first, b1.id);
    world.begin(first, &b1, &[a]);
    world.begin(first, &c1, &[a, b]);

    let second = Ballot::new(2, c);
    assert_eq!(world.prepare(second, [b, c]), [], "nothing at 1, so the history is empty");
    let b2 = command(1, second, CommandId::NULL);
    let c2 = command(2, second, b2.id);
    world.begin(second, &b2, &[c]);
    world.begin(second, &c2, &[b, c]);

    let third = Ballot::new(3, a);
    let history = world.prepare(third, [a, b]);
    assert_eq!(history, [b1.clone(), c1], "A's own votes");
    world.begin(third, &b1, &[a, b]);

    let fourth = Ballot::new(4, c);
    for device in [b, c] {
        assert!(world.learn(device, a), "Success(1, b') arrives");
    }
    assert_eq!(world.prepare(fourth, [b, c]), [], "c depends on b, and b' was issued");
    world.begin(fourth, &command(2, fourth, b1.id), &[b, c]);
    (world.issued(a).to_vec(), world.issued(c).to_vec())
}

/// S-01: without the gap-free rule the old tally for c' fires, and number 2 is issued twice.
/// Catches a schedule that would prove nothing about the rule.
#[test]
fn to_the_letter_two_commands_are_issued_at_number_2() {
    let (a, c) = play(false);
    assert_eq!((a.len(), c.len()), (2, 2));
    assert_eq!(a[0], c[0]);
    assert_eq!(a[1], id(2, 1, P), "A answered its client for c'");
    assert_eq!(c[1], id(2, 4, R), "and x is issued at the same number");
}

/// S-01, rule 5 of DESIGN 5: the one rule added to the same model, in the same schedule. Catches
/// a rule that is not the one that matters.
#[test]
fn with_gap_free_voting_the_same_schedule_issues_one() {
    let (a, c) = play(true);
    assert_eq!(a, [id(1, 1, P)], "B's vote for c' was never cast");
    assert_eq!(c, [id(1, 1, P), id(2, 4, R)]);
}

/// S-01, A1s: the same schedule on the shipped cores, one command a `BeginBallot`. Catches an
/// acceptor that votes past a gap and a leader that counts votes of earlier ballots.
#[test]
fn the_shipped_cores_survive_the_schedule() {
    let (a, b, c) = (P, Q, R);
    let mut world = World::new(Settings { run_bytes: 1, ..Settings::default() });
    // Ballot 1: b' reaches A only, c' reaches A and B.
    world.campaign_in_round(a, 1);
    world.settle();
    for (name, warehouse) in [("b'", "A"), ("c'", "B")] {
        world.call(a, a, name, "inventory.inbound", &goods(warehouse, 1));
        world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    }
    assert_eq!(world.drop_if(|envelope| envelope.begins(1) && envelope.to != a), 2);
    assert_eq!(world.drop_if(|envelope| envelope.begins(2) && envelope.to == c), 1);
    world.settle();
    assert_eq!(world.checks().issued(), 0, "B did not vote past the gap");

    // Ballot 2, with {B, C}: b reaches C only, c reaches B and C.
    world.block(a, b);
    world.block(a, c);
    world.block(b, a);
    world.block(c, a);
    world.campaign_in_round(c, 2);
    world.settle();
    for (name, warehouse) in [("b", "A"), ("c", "B")] {
        world.call(c, c, name, "inventory.inbound", &goods(warehouse, 2));
        world.deliver_if(|envelope| envelope.is("ExecuteFunction"));
    }
    assert_eq!(world.drop_if(|envelope| envelope.begins(1) && envelope.to == b), 1);
    world.settle();
    assert_eq!(world.checks().issued(), 0);

    // Ballot 3, with {A, B}: b' is issued, the ballots on c' are lost.
    world.heal();
    for (from, to) in [(c, a), (c, b), (a, c), (b, c)] {
        world.block(from, to);
    }
    world.step_down(a);
    world.campaign_in_round(a, 3);
    world.settle_if(|envelope| envelope.is("NextBallot") || envelope.is("BallotInfo"));
    assert!(world.drop_if(|envelope| envelope.begins(2)) > 0);
    world.settle();
    assert_eq!(world.chain(a), [id(1, 1, a)], "b' is issued and c' is not");
    assert!(!world.outcomes("c'").iter().any(|outcome| matches!(outcome, Outcome::Issued { .. })));

    // Ballot 4, with {B, C}: x is issued at 2.
    world.heal();
    for (from, to) in [(a, b), (a, c), (b, a), (c, a)] {
        world.block(from, to);
    }
    world.step_down(c);
    world.campaign_in_round(c, 4);
    world.run(3);
    world.call(c, c, "x", "inventory.inbound", &goods("C", 7));
    world.settle();
    assert_eq!(world.chain(c), [id(1, 1, a), id(2, 4, c)]);

    world.heal();
    world.run(5);
    for device in [a, b, c] {
        assert_eq!(world.chain(device), [id(1, 1, a), id(2, 4, c)], "all agree");
    }
}
