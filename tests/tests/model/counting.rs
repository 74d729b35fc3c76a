//! Searches of clusters in which learners count the votes themselves (claim 3).

use protocol::LearnFrom;
use quorate_tests::world::P;

use super::cluster::{Config, Plant};
use super::compare::{Both, lose_nothing, without_steps};
use super::{ISSUED, ONE_AFTER_ANOTHER, TWO_LEAD, found, reduced, search, whole};

/// Two ballots on one number.
fn counting() -> Config {
    Config { learn_from: LearnFrom::Voters, crashes: 0, refusals: false, ..whole() }
}

/// A2, S-01: catches learners of which two count different commands at one of two numbers, or one another command than
/// the leaders, in any order of messages.
#[test]
fn two_ballots_on_two_numbers_agree_where_learners_decide() {
    let config = Config { learn_from: LearnFrom::Voters, crashes: 0, ..reduced() };
    search(config, 107_034, &ONE_AFTER_ANOTHER);
}

/// Catches what the reduced search loses of what learners count.
#[test]
fn one_ballot_is_counted_alike_in_both_searches() {
    let config = Config { owners: vec![P], ..counting() };
    let both = Both { states: [4_625, 59], possible: [&ISSUED, &ISSUED], compared: [2, 2, 1, 34] };
    lose_nothing(config.clone(), without_steps(&config), &both);
}

/// The same of two ballots.
#[test]
#[ignore = "some minutes without optimisation: cargo xtask model"]
fn two_ballots_agree_where_learners_decide() {
    let both = Both { states: [1_249_820, 2_905], possible: [&TWO_LEAD, &ONE_AFTER_ANOTHER], compared: [3, 4, 3, 548] };
    lose_nothing(counting(), without_steps(&counting()), &both);
}

/// S-01: catches a search that would not notice when learners took the vote for a number for one for all numbers below
/// although the acceptor lost its gap-free rule. What leaders are told of such votes is lost here, so that learners find it.
#[test]
fn votes_with_gaps_are_found_where_learners_decide() {
    let plant = Some(Plant::VotesWithGaps);
    let story = found(Config { learn_from: LearnFrom::Voters, crashes: 0, plant, ..reduced() }, "agreement");
    // Of two votes that one learner counts.
    assert!(story.lines().any(|line| line.contains(", and ") && line.contains("Voted")), "{story}");
}
