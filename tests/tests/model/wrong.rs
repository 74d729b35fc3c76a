//! Comparisons of the whole search with reduced ones that are wrong on purpose: what they must notice.

use quorate_tests::world::P;

use super::cluster::{Config, Lack, Plant};
use super::compare::{differ, without_steps};
use super::reached::Way::{Beyond, Lost};
use super::whole;

/// Catches a comparison that would not notice what a reduction costs: of each of what it compares something goes with the
/// ballots of one leader.
#[test]
fn a_search_without_the_other_leader_loses_of_everything() {
    let config = Config { crashes: 0, refusals: false, ..whole() };
    let less = Config { lacks: Some(Lack::OtherLeader), ..without_steps(&config) };
    differ(config, less, &[("issued", Lost), ("chosen", Lost), ("proposed", Lost), ("open", Lost)]);
}

/// Catches a comparison that goes by what is decided in the end only: it is the same where every answer to `NextBallot` is
/// heard, and what there is on the way is not.
#[test]
fn a_search_in_which_no_answer_is_lost_loses_open_states() {
    let config = Config { crashes: 0, refusals: false, ..whole() };
    let less = Config { lacks: Some(Lack::LostAnswers), ..without_steps(&config) };
    differ(config, less, &[("open", Lost)]);
}

/// The same of what learners know.
#[test]
fn a_search_in_which_learners_hear_less_loses_open_states() {
    let config = Config { owners: vec![P], numbers: 2, crashes: 0, refusals: false, ..whole() };
    for lack in [Lack::CatchUp, Lack::Declarations] {
        let less = Config { lacks: Some(lack), ..without_steps(&config) };
        differ(config.clone(), less, &[("open", Lost)]);
    }
}

/// Catches a comparison that does not notice when the reduced search does what no cluster does: here it votes without the
/// gap-free rule.
#[test]
fn a_search_that_goes_beyond_the_whole_one_is_noticed() {
    let config = Config { owners: vec![P], numbers: 2, crashes: 0, refusals: false, ..whole() };
    let less = Config { plant: Some(Plant::VotesWithGaps), ..without_steps(&config) };
    differ(config, less, &[("chosen", Beyond), ("open", Beyond)]);
}
