//! What a call that changed nothing is told is what its function says on the state at the number that it is told
//! (RELIABILITY 3.7, 3.8): a refusal is never made up, and nothing was changed. Calls that changed something
//! are looked at in `serial_executions`.
//!
//! That number may be decided and not yet applied anywhere; then the answer waits here for the chain, and at the end of
//! the run for no longer: the decided commands tell the rest of it.
//!
//! Some answers have no number, for no state shows in them: that a function does not exist, does not take the arguments, or
//! would come to too much, or has failed. Those are so in any state.

use std::collections::BTreeMap;

use functions::{ExecutionContext, Failure, Registry};
use protocol::{Call, CommandNumber, Membership, Now, Outcome, Timestamp, Verdict};

use super::about_cluster::{AboutCluster, is_about_cluster};
use super::{Chain, History, Invariant, Violation, ensure};
use crate::fact::{Fact, Question, Told};

/// See the module.
pub(super) struct Replays {
    functions: Registry,
    waiting: BTreeMap<CommandNumber, Vec<(Call, Outcome)>>,
}

impl Replays {
    pub(super) fn new(functions: Registry) -> Self {
        Self { functions, waiting: BTreeMap::new() }
    }

    /// Whether this is what a call is told after a command, when it changes nothing.
    fn says(&self, call: &Call, outcome: &Outcome, chain: &Chain, at: CommandNumber, genesis: &Membership) -> bool {
        let Some(function) = self.functions.get(&call.function) else { return false };
        let state = chain.state_at(at);
        if is_about_cluster(&call.function) {
            let again = AboutCluster { function: function.as_ref(), call, state: &state, genesis };
            let verdict = if let Outcome::Unchanged { result, .. } = outcome {
                Verdict::Unchanged(result.clone())
            } else if let Outcome::Refused { code, message, .. } = outcome {
                Verdict::Refused { code: code.clone(), message: message.clone() }
            } else {
                return false;
            };
            // Who led then, the answer does not say.
            return again.decides(&verdict, |_| true, None);
        }
        let context = ExecutionContext::new(&state, Timestamp(0), 0);
        let again = functions::run(function.as_ref(), context, &call.arguments);
        match (outcome, &again.result) {
            (Outcome::Unchanged { result, .. }, Ok(there)) => result == there && again.effects.is_empty(),
            (Outcome::Refused { code, message, .. }, Err(Failure::Refused(refusal))) => {
                code == refusal.code && *message == refusal.message
            }
            _ => false,
        }
    }

    /// Whether a call may come to this, of what has no number.
    fn may_be(&self, call: &Call, outcome: &Outcome, chain: &Chain) -> bool {
        let function = self.functions.get(&call.function);
        let fails = |with: fn(&Failure) -> bool| {
            let state = chain.state_at(chain.last());
            let context = ExecutionContext::new(&state, Timestamp(0), 0);
            function.is_some_and(|function| {
                functions::run(function.as_ref(), context, &call.arguments).result.is_err_and(|failure| with(&failure))
            })
        };
        match outcome {
            Outcome::UnknownFunction => function.is_none(),
            Outcome::InvalidArguments { .. } => fails(|failure| matches!(failure, Failure::InvalidArguments(_))),
            Outcome::TooLarge { .. } => fails(|failure| matches!(failure, Failure::TooLarge(_))),
            Outcome::Failed { .. } => false,
            Outcome::Issued { .. }
            | Outcome::Unchanged { .. }
            | Outcome::Refused { .. }
            | Outcome::RequestReused
            | Outcome::Overloaded
            | Outcome::DiskFull
            | Outcome::NotLeader
            | Outcome::LeadershipLost => true,
        }
    }

    /// Looks at the answers up to the end of this chain.
    fn look(&mut self, chain: &Chain, history: &History) -> Result<(), Violation> {
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() <= chain.last()) {
            let (at, answers) = first.remove_entry();
            let genesis = history.disks.membership_at(CommandNumber::NULL);
            for (call, outcome) in answers {
                ensure(self.says(&call, &outcome, chain, at, genesis), || {
                    format!("{} is told {outcome:?}, and that is not so at {at}: {call:?}", call.request)
                })?;
            }
        }
        Ok(())
    }
}

impl Invariant for Replays {
    fn name(&self) -> &'static str {
        "replays"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        if let Fact::Told { ticket, answer: Told::Outcome { outcome, .. }, .. } = fact
            && let Some(Question::Call(call)) = history.open(*ticket).map(|open| &open.question)
        {
            if let Outcome::Unchanged { at, .. } | Outcome::Refused { at, .. } = outcome {
                self.waiting.entry(*at).or_default().push((call.clone(), outcome.clone()));
            }
            ensure(self.may_be(call, outcome, &history.chain), || {
                format!("{} is told {outcome:?}, and that is not so in any state: {call:?}", call.request)
            })?;
        }
        self.look(&history.chain, history)
    }

    fn end(&mut self, _: Now, history: &History) -> Result<(), Violation> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut chain = history.chain.clone();
        while let Some(decided) = history.disks.decided_at(chain.last().next()) {
            chain.applied(&decided.command)?;
        }
        self.look(&chain, history)?;
        match self.waiting.first_key_value() {
            Some((at, answers)) => Err(format!("{at} is not decided, and is told of: {answers:?}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::*;
    use super::*;
    use crate::functions::all;

    /// S-08: catches a refusal or a result that is not that of the state at its number, one made up altogether,
    /// and a change that the caller is told did not happen. An answer may come before its command is applied.
    #[test]
    fn a_call_without_effects_says_what_its_function_says() {
        let command = &chain_of(&[body("r1", vec![put("inventory/goods/A", "5")])])[0];
        let out = call("r2", "inventory.outbound", &json!({"warehouse": "A", "amount": 7}));
        let delete = call("r3", "kv.delete", &json!({"key": "inventory/goods/A"}));
        let refused = |at: u64, message: &str| {
            let (code, message) = ("insufficient_stock".into(), message.into());
            told_outcome(1, &out, Outcome::Refused { at: CommandNumber(at), code, message }, true)
        };
        let unchanged = |at: u64| {
            let result = "{\"deleted\":false}".into();
            told_outcome(1, &delete, Outcome::Unchanged { at: CommandNumber(at), result }, true)
        };
        let run = |call: &Call, told: Fact| {
            let late = run(Replays::new(all()), &[asked(1, call), told.clone(), applied(1, command)]);
            assert_eq!(run(Replays::new(all()), &[applied(1, command), asked(1, call), told]), late);
            late
        };
        assert_eq!(run(&out, refused(1, "A has 5, and 7 are wanted")), Ok(()));
        assert_eq!(run(&delete, unchanged(0)), Ok(()));
        assert_fails(run(&out, refused(1, "A has 0, and 7 are wanted")), "not so at 1");
        assert_fails(run(&out, refused(0, "A has 5, and 7 are wanted")), "not so at 0");
        assert_fails(run(&delete, unchanged(1)), "not so at 1");
    }

    /// Catches a call about the cluster that is told a refusal or a result which is not so, by whoever led; what depends on who
    /// is heard is believed.
    #[test]
    fn a_call_about_the_cluster_says_what_its_function_says() {
        let same = call("r1", "cluster.set_acceptor", &json!({"node": 1, "weight": 1}));
        let over = call("r2", "cluster.hand_over", &json!({"node": 2}));
        let said = |call: &Call, outcome: Outcome| {
            run(Replays::new(all()), &[asked(1, call), told_outcome(1, call, outcome, true)])
        };
        let unchanged =
            |result: &serde_json::Value| Outcome::Unchanged { at: CommandNumber(0), result: result.to_string().into() };
        let refused = |code: &str| {
            let (at, message) = (CommandNumber(0), String::new());
            Outcome::Refused { at, code: code.to_owned(), message }
        };
        let unknown = || {
            let (code, message) = ("unknown_node".into(), "there is no node 9; the nodes are n1, n2, n3".into());
            Outcome::Refused { at: CommandNumber(0), code, message }
        };
        let membership = |membership: &Membership| -> serde_json::Value {
            serde_json::from_slice(&membership.to_value()).expect("it is JSON")
        };
        let now = json!({"node": 1, "membership": membership(&three())});
        let other =
            json!({"node": 1, "membership": membership(&three().weighing(protocol::NodeId(1), 5).expect("it votes"))});
        assert_eq!(said(&same, unchanged(&now)), Ok(()));
        assert_fails(said(&same, unchanged(&other)), "not so at 0");
        for leads in [false, true] {
            assert_eq!(said(&over, unchanged(&json!({"node": 2, "name": "n2", "leads": leads}))), Ok(()));
        }
        assert_fails(said(&over, unchanged(&json!({"node": 1, "name": "n1", "leads": true}))), "not so at 0");
        assert_eq!(said(&over, refused("not_connected")), Ok(()));
        // Who is a node stands in the state: it is looked at, and not believed.
        assert_fails(said(&over, unknown()), "not so at 0");
        assert_eq!(said(&call("r3", "cluster.hand_over", &json!({"node": 9})), unknown()), Ok(()));
    }

    /// Catches an answer that nobody looks at because no node has applied its number before the end of the run: one that is
    /// not so, and one at a number that is nothing.
    #[test]
    fn answers_that_wait_are_looked_at_in_the_end() {
        let command = &chain_of(&[body("r1", vec![put("a", "5")])])[0];
        let delete = call("r2", "kv.delete", &json!({"key": "b"}));
        let told = |at: u64, deleted: bool| {
            let result = json!({"deleted": deleted}).to_string().into();
            told_outcome(1, &delete, Outcome::Unchanged { at: CommandNumber(at), result }, true)
        };
        let decided = [votes(1, 1, &[command]), votes(2, 1, &[command]), asked(1, &delete)];
        let run = |told: Fact| run(Replays::new(all()), &[&decided[..], &[told]].concat());
        assert_eq!(run(told(1, false)), Ok(()));
        assert_fails(run(told(1, true)), "not so at 1");
        assert_fails(run(told(2, false)), "2 is not decided");
    }

    /// S-23: catches an answer to a key used again that is the other call's.
    #[test]
    fn a_key_used_again_is_not_told_what_the_other_call_is() {
        let delete = call("r1", "kv.delete", &json!({"key": "a"}));
        let put = call("r1", "kv.put", &json!({"key": "a", "value": 1}));
        let told = |ticket, call: &Call| {
            let outcome = Outcome::Unchanged { at: CommandNumber(0), result: "{\"deleted\":false}".into() };
            run(Replays::new(all()), &[asked(1, &delete), asked(2, &put), told_outcome(ticket, call, outcome, true)])
        };
        assert_eq!(told(1, &delete), Ok(()));
        assert_fails(told(2, &put), "not so at 0");
    }

    /// Catches a good call that is told that its function does not exist, does not take its arguments, or has failed.
    #[test]
    fn a_good_call_is_not_called_a_bad_one() {
        let message = || "m".to_owned();
        let told =
            |call: &Call, outcome| run(Replays::new(all()), &[asked(1, call), told_outcome(1, call, outcome, true)]);
        let good = call("r1", "kv.put", &json!({"key": "a", "value": 1}));
        let [unknown, wrong] = [("no.such", json!({})), ("kv.put", json!({"key": 1}))]
            .map(|(function, arguments)| call("r1", function, &arguments));
        for outcome in [
            Outcome::UnknownFunction,
            Outcome::InvalidArguments { message: message() },
            Outcome::TooLarge { message: message() },
            Outcome::Failed { message: message() },
        ] {
            assert_fails(told(&good, outcome), "not so in any state");
        }
        assert_eq!(told(&unknown, Outcome::UnknownFunction), Ok(()));
        assert_eq!(told(&wrong, Outcome::InvalidArguments { message: message() }), Ok(()));
    }
}
