//! Model checking: every interleaving of a small cluster, made of the shipped cores.
//!
//! The cores are pure, so the search runs them as they are (`roles`), remembers what each input
//! does to each state of a role (`space`), and walks through everything that a network that
//! loses, doubles and reorders, and a power cut, can do to three nodes (`cluster`). In every
//! state the invariants of DESIGN 14 hold that one state can show: agreement (1), dependency (2,
//! 8, 9), promises (3), votes that are kept (11). What must be possible is asserted too, and the
//! number of states is pinned: a model that does less than before finds nothing, and passes.
//!
//! A pinned number changes when a core sends or remembers something else. Then look at why, and
//! pin the new one.
//!
//! Two searches. The *whole* one leaves no step out, and is small. The *reduced* one leaves out
//! steps that cost nothing to leave out (`prune` says which, and why), and reaches two numbers
//! and three ballots. What is small enough is searched both ways, and what each reaches is compared
//! (`compare`, `reached`; `wrong` shows that this notices a bad reduction). `cargo xtask model` runs the largest, which is ignored here: minutes, and
//! some GiB.
//!
//! That such a search does find what is wrong is shown by planted mistakes, one of them S-01 on the shipped
//! acceptor, and by the patent's literal rules (`literal`): it finds S-01 by itself, and nothing once the one
//! rule is added.

mod cluster;
mod compare;
mod config;
mod counting;
mod literal;
mod properties;
mod prune;
mod reached;
mod reduced;
mod roles;
mod space;
mod wrong;

use std::collections::BTreeSet;

use protocol::LearnFrom;
use quorate_tests::world::{P, Q, R};
use stateright::{Checker, HasDiscoveries, Model};

use cluster::{Change, Cluster, Config, Plant};
use compare::{Both, lose_nothing, with_all_messages, without_steps};
use literal::LiteralRules;
use properties::Possible::{self, BothLead, FirstIssued, IssuedAboveChange, IssuedAgain, LastIssued, Rejoined};

/// Both cores of the machines that this runs on.
const THREADS: usize = 2;

/// No step left out: two leaders, one number, a power cut, refusals.
fn whole() -> Config {
    Config {
        owners: vec![P, Q],
        numbers: 1,
        crashes: 1,
        damages: 0,
        change: None,
        refusals: true,
        pruned: true,
        reduced: false,
        learn_from: LearnFrom::Leader,
        plant: None,
        lacks: None,
    }
}

/// Two numbers, without the steps that cost nothing to leave out.
fn reduced() -> Config {
    Config { numbers: 2, refusals: false, reduced: true, ..whole() }
}

/// What one ballot brings.
const ISSUED: [Possible; 2] = [FirstIssued, LastIssued];
/// What two ballots bring where a leader gives up when no majority set can follow it.
const ONE_AFTER_ANOTHER: [Possible; 3] = [FirstIssued, LastIssued, IssuedAgain];
/// What two ballots bring where it need not.
const TWO_LEAD: [Possible; 4] = [FirstIssued, LastIssued, IssuedAgain, BothLead];
/// What two ballots bring where the first command is a change.
const CHANGED: [Possible; 5] = [FirstIssued, LastIssued, IssuedAgain, BothLead, IssuedAboveChange];
/// The same where an acceptor is damaged.
const REJOINED: [Possible; 5] = [FirstIssued, LastIssued, IssuedAgain, BothLead, Rejoined];

/// Searches everything, and what is possible is just this.
#[track_caller]
fn search(config: Config, states: usize, possible: &[Possible]) {
    run(Cluster::new(config), states, possible);
}

/// The same, of a cluster that is there.
#[track_caller]
fn run(cluster: Cluster, states: usize, possible: &[Possible]) {
    let checker = cluster.checker().threads(THREADS).spawn_bfs().join();
    let (unique, generated, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    let sizes = checker.model().space.look().sizes();
    println!("{unique} states, {generated} steps, depth {depth}; role states, inputs, turns: {sizes:?}");
    let discoveries = checker.discoveries();
    for (name, path) in &discoveries {
        let is_failure = checker.model().property(name).expectation.discovery_is_failure();
        assert!(!is_failure, "{name} is broken:\n{}", told(checker.model(), path.clone().into_actions()));
    }
    let differs = not_as_demanded(possible, discoveries.into_keys());
    assert!(differs.is_empty(), "{differs}");
    assert_eq!(unique, states, "the number of states");
}

/// What is demanded and was not reached, and the other way round, in words.
fn not_as_demanded(demanded: &[Possible], reached: impl Iterator<Item = &'static str>) -> String {
    let demanded: BTreeSet<&str> = demanded.iter().map(|possible| possible.name()).collect();
    let reached: BTreeSet<&str> = reached.collect();
    let missing = demanded.difference(&reached).map(|name| format!("not possible any more: {name}\n"));
    let more = reached.difference(&demanded).map(|name| format!("possible, and not demanded: {name}\n"));
    missing.chain(more).collect()
}

/// A path in words, one step a line.
fn told<M: Model>(model: &M, actions: Vec<M::Action>) -> String
where
    M::Action: std::fmt::Debug,
{
    actions.iter().map(|action| format!("  {}\n", model.format_action(action))).collect()
}

/// A1, invariants 1, 2, 3, 8, 9, 11: catches any order of messages, losses and repetitions of
/// two ballots on one number that breaks an invariant or an assertion of a core; and a step that the
/// reduced search leaves out and that does cost something.
#[test]
fn two_ballots_on_one_number_agree_whatever_arrives() {
    let config = Config { crashes: 0, ..whole() };
    let both = Both { states: [181_350, 2_886], possible: [&TWO_LEAD, &ONE_AFTER_ANOTHER], compared: [3, 4, 3, 616] };
    lose_nothing(config.clone(), without_steps(&config), &both);
}

/// The same, and the power of a node goes at any point.
#[test]
#[ignore = "a minute without optimisation: cargo xtask model"]
fn two_ballots_on_one_number_agree_through_a_power_cut() {
    let both = Both { states: [663_578, 8_397], possible: [&TWO_LEAD, &ONE_AFTER_ANOTHER], compared: [3, 4, 3, 1_071] };
    lose_nothing(whole(), without_steps(&whole()), &both);
}

/// S-04, S-06: catches a number that is issued before the one below it, in any order in which
/// one ballot's messages can arrive; and what the reduced search loses of that.
#[test]
fn two_numbers_are_issued_in_order_whatever_happens() {
    let config = Config { owners: vec![P], numbers: 2, crashes: 0, refusals: false, ..whole() };
    let both = Both { states: [17_595, 729], possible: [&ISSUED, &ISSUED], compared: [3, 3, 1, 239] };
    lose_nothing(config.clone(), without_steps(&config), &both);
}

/// The same, and the power of a node goes at any point, which takes back one applied command or two.
#[test]
fn two_numbers_are_issued_in_order_through_a_power_cut() {
    let config = Config { owners: vec![P], numbers: 2, refusals: false, ..whole() };
    let both = Both { states: [228_364, 2_583], possible: [&ISSUED, &ISSUED], compared: [3, 3, 1, 498] };
    lose_nothing(config.clone(), without_steps(&config), &both);
}

/// Catches a message that is taken out of the network although something could come of it, with one ballot on
/// one number. (With all messages kept, more is too much.)
#[test]
fn messages_that_are_taken_out_cost_nothing() {
    let config = Config { owners: vec![P], crashes: 0, ..whole() };
    let both = Both { states: [6_594, 183], possible: [&ISSUED, &ISSUED], compared: [2, 2, 1, 34] };
    lose_nothing(with_all_messages(&config), config, &both);
}

/// A1, A1r, S-01: catches a history, a vote or a tally that lets two ballots issue different
/// commands at one of two numbers.
#[test]
fn two_ballots_on_two_numbers_agree() {
    search(Config { crashes: 0, ..reduced() }, 93_713, &ONE_AFTER_ANOTHER);
}

/// The largest: three ballots in turn, two numbers, a power cut that loses what was applied.
/// Catches what needs a third ballot to go wrong.
#[test]
#[ignore = "minutes and 4 GiB: cargo xtask model"]
fn three_ballots_on_two_numbers_agree_through_a_power_cut() {
    search(Config { owners: vec![P, Q, P], ..reduced() }, 27_438_920, &ONE_AFTER_ANOTHER);
}

/// A6: catches a search that would not notice. An acceptor that forgets its promise when the
/// power goes lets two commands be issued at one number, and the search shows how.
#[test]
fn a_forgotten_promise_is_found() {
    let config = Config { refusals: false, plant: Some(Plant::ForgottenPromise), ..whole() };
    let broken = HasDiscoveries::AllOf(["agreement"].into());
    let checker = Cluster::new(config).checker().threads(THREADS).finish_when(broken).spawn_bfs().join();
    let path = checker.discovery("agreement").expect("two commands are issued at number 1").into_actions();
    let story = told(checker.model(), path);
    println!("{story}");
    assert!(story.contains("loses power"), "{story}");
    assert!(checker.discovery("promises never go down").is_some());
}

/// The same in the reduced search. Of power cuts it plays those that take back something applied, and looks in each
/// state what any would take back; so it finds the promise that goes, and not what comes of it.
#[test]
fn a_forgotten_promise_is_found_without_what_comes_of_it() {
    let config = Config { plant: Some(Plant::ForgottenPromise), ..without_steps(&whole()) };
    found(config.clone(), "a power cut takes back no promise and no vote");
    found(config, "promises never go down");
}

/// S-01: catches a search that would not notice when the shipped acceptor lost its gap-free rule: two
/// ballots of the shipped leaders then issue different commands at one number.
#[test]
fn votes_with_gaps_are_found() {
    found(Config { crashes: 0, plant: Some(Plant::VotesWithGaps), ..reduced() }, "agreement");
}

/// P decides alone, then Q does: no majority set of before is one of after.
const HANDED_OVER: Change = Change { weights: [1, 0, 0], node: Q };
/// Two of three decide, then R alone does.
const ONE_DECIDES: Change = Change { weights: [1, 1, 1], node: R };

/// Two numbers, the first of which changes the membership.
fn changing(change: Change) -> Config {
    Config { numbers: 2, change: Some(change), refusals: false, ..whole() }
}

/// ADR 0025, ADR 0026: catches two leaders of which one knows of a change and the other does not, and which issue
/// different commands above it, in any order of messages; and what the reduced search loses of that.
#[test]
fn leaders_before_and_after_a_change_agree() {
    let config = Config { crashes: 0, ..changing(HANDED_OVER) };
    let both = Both { states: [35_035, 1_792], possible: [&CHANGED, &CHANGED], compared: [7, 13, 9, 407] };
    lose_nothing(config.clone(), without_steps(&config), &both);
}

/// The same, and the power of a node goes at any point.
#[test]
#[ignore = "half a minute without optimisation: cargo xtask model"]
fn leaders_before_and_after_a_change_agree_through_a_power_cut() {
    let config = changing(HANDED_OVER);
    let both = Both { states: [133_941, 3_841], possible: [&CHANGED, &CHANGED], compared: [7, 13, 9, 662] };
    lose_nothing(config.clone(), without_steps(&config), &both);
}

/// The same where two of three decided before.
#[test]
#[ignore = "minutes without optimisation: cargo xtask model"]
fn leaders_before_and_after_a_change_of_three_agree() {
    search(Config { crashes: 0, ..changing(ONE_DECIDES) }, 2_927_451, &CHANGED);
}

/// ADR 0025: catches a search that would not notice when the shipped leader lost its barrier.
#[test]
fn a_leader_without_the_barrier_is_found() {
    let config = Config { plant: Some(Plant::NoBarrier), ..changing(HANDED_OVER) };
    found(without_steps(&config), "agreement");
    found(config, "agreement");
}

/// S-14, ADR 0023: catches an acceptor that speaks again, after its votes were damaged, before it has what they may have
/// decided; and one that never does; and what the reduced search loses of that.
#[test]
fn a_damaged_acceptor_rejoins() {
    let config = Config { crashes: 0, damages: 1, refusals: false, ..whole() };
    let both =
        Both { states: [128_323, 12_940], possible: [&REJOINED, &ONE_AFTER_ANOTHER], compared: [3, 4, 3, 2_083] };
    lose_nothing(config.clone(), without_steps(&config), &both);
}

/// S-14: catches a search that would not notice when it spoke at once.
#[test]
fn an_acceptor_that_rejoins_at_once_is_found() {
    let plant = Some(Plant::RejoinsAtOnce);
    let config = Config { crashes: 0, damages: 1, refusals: false, plant, ..whole() };
    found(without_steps(&config), "agreement");
    found(config, "agreement");
}

/// Catches a search that lost one of the things that must be possible and gained another, and a failure that does not say
/// which.
#[test]
fn what_is_not_possible_any_more_is_named() {
    let reached = [FirstIssued, LastIssued, BothLead].map(Possible::name);
    let told = not_as_demanded(&ONE_AFTER_ANOTHER, reached.into_iter());
    let missing = "not possible any more: a later ballot issues the command of an earlier one";
    assert_eq!(told, format!("{missing}\npossible, and not demanded: both lead\n"));
    assert_eq!(not_as_demanded(&TWO_LEAD, TWO_LEAD.map(Possible::name).into_iter()), "");
}

/// A planted mistake is found; how it comes about is told.
#[track_caller]
fn found(config: Config, property: &'static str) -> String {
    let broken = HasDiscoveries::AllOf([property].into());
    let checker = Cluster::new(config).checker().threads(THREADS).finish_when(broken).spawn_bfs().join();
    let path = checker.discovery(property).expect("the mistake is found").into_actions();
    let story = told(checker.model(), path);
    println!("{} states\n{story}", checker.unique_state_count());
    story
}

/// S-01: catches a search that could not have found the flaw of the literal patent, which it
/// finds by itself and tells.
#[test]
fn the_literal_patent_loses_agreement() {
    let rules = LiteralRules { gap_free: false };
    let checker = rules.checker().threads(THREADS).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let path = checker.discovery("agreement").expect("two commands are issued at number 2");
    let last = path.last_state().clone();
    println!("{}{last}", told(checker.model(), path.into_actions()));
}

/// S-01, rule 5 of DESIGN 5: catches a rule that is not enough: with gap-free voting alone, the
/// literal tally kept, four ballots of two leaders in turn agree in every interleaving.
#[test]
fn with_gap_free_voting_the_literal_patent_agrees() {
    let checker = LiteralRules { gap_free: true }.checker().threads(THREADS).spawn_bfs().join();
    if let Some(path) = checker.discovery("agreement") {
        panic!("two commands at one number:\n{}", told(checker.model(), path.into_actions()));
    }
    assert!(checker.discovery("the last number is issued").is_some());
    assert_eq!(checker.unique_state_count(), 106_197, "the number of states");
}
