//! The whole and the reduced search of one configuration, compared.

use std::sync::Arc;

use stateright::{Checker, Model};

use super::cluster::{Cluster, Config};
use super::properties::Possible;
use super::reached::{Names, Reached, Way};
use super::{THREADS, run};

/// The search of the same that leaves out steps.
pub(crate) fn without_steps(config: &Config) -> Config {
    Config { refusals: false, reduced: true, ..config.clone() }
}

/// The search of the same that keeps every message.
pub(crate) fn with_all_messages(config: &Config) -> Config {
    Config { pruned: false, ..config.clone() }
}

/// What both searches find, the one with more steps first.
pub(crate) struct Both {
    /// The numbers of states.
    pub(crate) states: [usize; 2],
    /// What is possible.
    pub(crate) possible: [&'static [Possible]; 2],
    /// How much is compared, see [`Reached::sizes`]: a comparison of nothing finds nothing, and passes.
    pub(crate) compared: [usize; 4],
}

/// Searches both, and what the first reaches the second does too.
#[track_caller]
pub(crate) fn lose_nothing(more: Config, less: Config, both: &Both) {
    let names = Arc::new(Names::default());
    let [more, less] = [(more, 0), (less, 1)].map(|(config, which)| {
        let reached = Arc::new(Reached::new(&names));
        run(Cluster::watched(config, &reached), both.states[which], both.possible[which]);
        reached
    });
    println!("issued, chosen, proposed, open: {:?}, with fewer steps {:?}", more.sizes(), less.sizes());
    let differences = less.differences_from(&more);
    let told: String = differences.iter().map(ToString::to_string).collect();
    assert!(differences.is_empty(), "the search with fewer steps differs:\n{told}");
    assert_eq!(more.sizes(), both.compared, "how much is compared");
}

/// A comparison finds just these differences of a search that is wrong on purpose, one of each kind.
#[track_caller]
pub(crate) fn differ(more: Config, less: Config, demanded: &[(&str, Way)]) {
    let names = Arc::new(Names::default());
    let [more, less] = [more, less].map(|config| {
        let reached = Arc::new(Reached::new(&names));
        Cluster::watched(config, &reached).checker().threads(THREADS).spawn_bfs().join();
        reached
    });
    let differences = less.differences_from(&more);
    differences.iter().for_each(|difference| print!("{difference}"));
    let found: Vec<(&str, Way)> = differences.iter().map(|difference| (difference.kind, difference.way)).collect();
    assert_eq!(found, demanded, "what the comparison finds");
}
