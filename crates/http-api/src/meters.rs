//! What is counted of calls: by function and outcome, and how long their callers waited.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{Counter, Histogram};
use protocol::{CommandNumber, Outcome, Tick};

use crate::core::{Answer, Unavailable};
use crate::traces::Followed;

/// The label of functions that are not registered; their names would be labels without bound.
pub(crate) const UNKNOWN_FUNCTION: &str = "unknown";

/// Nobody waits any more for what becomes of the call.
pub(crate) const ABANDONED: &str = "abandoned";

/// There was no room for the call.
pub(crate) const OVERLOADED: &str = "overloaded";

/// Counts calls of one function that came to one outcome.
pub(crate) fn calls(function: String, outcome: &'static str) -> Counter {
    metrics::counter!("quorate_gateway_calls_total", "function" => function, "outcome" => outcome)
}

/// The calls of one gateway.
pub(crate) struct Calls {
    functions: BTreeMap<String, Function>,
    unknown: Function,
}

struct Function {
    name: String,
    took: Histogram,
    outcomes: BTreeMap<&'static str, Counter>,
}

impl Function {
    fn new(name: String) -> Self {
        let took = metrics::histogram!("quorate_gateway_call_seconds", "function" => name.clone());
        Self { name, took, outcomes: BTreeMap::new() }
    }
}

/// A call whose caller waits.
pub(crate) struct Waiting {
    function: String,
    since: Tick,
    pub(crate) followed: Option<Followed>,
}

impl Calls {
    /// Counts these functions by their names, and all others together.
    pub(crate) fn new(functions: impl IntoIterator<Item = String>) -> Self {
        let functions = functions.into_iter().map(|name| (name.clone(), Function::new(name)));
        Self { functions: functions.collect(), unknown: Function::new(UNKNOWN_FUNCTION.to_owned()) }
    }

    pub(crate) fn begin(function: &str, since: Tick, followed: Option<Followed>) -> Waiting {
        Waiting { function: function.to_owned(), since, followed }
    }

    /// Counts a call that ends, under the name that its function has here, which it returns, and says how long it took.
    pub(crate) fn end(&mut self, call: &Waiting, outcome: &'static str, now: Tick) -> (&str, Duration) {
        let function = self.functions.get_mut(&call.function).unwrap_or(&mut self.unknown);
        let took = now.since(call.since);
        function.took.record(took);
        let name = &function.name;
        let counter = function.outcomes.entry(outcome).or_insert_with(|| calls(name.clone(), outcome));
        counter.increment(1);
        (name.as_str(), took)
    }
}

/// The command that a call became, if it changed something.
pub(crate) fn command(answer: &Answer) -> Option<CommandNumber> {
    if let Answer::Outcome { outcome: Outcome::Issued { command, .. }, .. } = answer { Some(*command) } else { None }
}

/// The label of an answer.
pub(crate) fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::Outcome { replayed: true, .. } => "replayed",
        Answer::Outcome { outcome, .. } => match outcome {
            Outcome::Issued { .. } => "issued",
            Outcome::Unchanged { .. } => "unchanged",
            Outcome::Refused { .. } => "refused",
            Outcome::InvalidArguments { .. } => "invalid_arguments",
            Outcome::TooLarge { .. } => "too_large",
            Outcome::UnknownFunction => "unknown_function",
            Outcome::RequestReused => "key_reused",
            Outcome::Failed { .. } => "failed",
            Outcome::Overloaded => OVERLOADED,
            Outcome::DiskFull => "disk_full",
            Outcome::NotLeader | Outcome::LeadershipLost => "unknown",
        },
        Answer::NotExecuted(why) | Answer::NotHere(why) => match why {
            Unavailable::NoLeader => "no_leader",
            Unavailable::NoAnswer => "no_majority",
            Unavailable::TooMany => OVERLOADED,
            Unavailable::Stopping => "stopping",
        },
        Answer::BarrierPassed(_) | Answer::Unknown => "unknown",
    }
}
