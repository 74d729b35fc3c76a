//! The function of every issued command ran on a leader state equal to the state after its precedent: run again
//! on that state it decides the same (DESIGN 14.8, RELIABILITY 3.7). Only `test.dice` may decide otherwise.
//!
//! So no update is lost, however many functions run at a time (S-10), and nothing but the command's own time
//! reaches a function from outside (RELIABILITY 3.10).

use functions::{ExecutionContext, Registry};
use protocol::{CommandNumber, Now};

use super::about_cluster::{AboutCluster, is_about_cluster};
use super::{History, Invariant, Issued, Violation, ensure};
use crate::fact::Fact;
use crate::functions::DICE;

/// See the module.
pub(super) struct SerialExecutions {
    functions: Registry,
}

impl SerialExecutions {
    pub(super) fn new(functions: Registry) -> Self {
        Self { functions }
    }
}

impl Invariant for SerialExecutions {
    fn name(&self) -> &'static str {
        "serial executions"
    }

    fn check(&mut self, _: Now, _: &Fact, history: &History) -> Result<(), Violation> {
        history.chain.fresh().map_or(Ok(()), |issued| self.again(issued, history))
    }
}

impl SerialExecutions {
    fn again(&self, issued: &Issued, history: &History) -> Result<(), Violation> {
        let Issued { command, body } = issued;
        let id = command.id;
        let Some(call) = history.call(&body.request, body.fingerprint) else {
            return Err(format!("{id} is of the request {}, which nobody made", body.request));
        };
        ensure(call.function == body.function, || {
            format!("{id} is of {}, asked for {}", body.function, call.function)
        })?;
        let Some(function) = self.functions.get(&call.function) else {
            return Err(format!("{id} is of {}, which is no function", call.function));
        };
        let before = history.chain.state_at(command.precedent.number);
        if is_about_cluster(&call.function) {
            let genesis = history.disks.membership_at(CommandNumber::NULL);
            let again = AboutCluster { function: function.as_ref(), call, state: &before, genesis };
            // Whoever proposed it first has executed it.
            let decides = again.decides(&body.verdict, |again| again.effects == body.effects, Some(id.ballot.node));
            return ensure(decides, || {
                format!(
                    "{id} decided {:?}; after its precedent {} does not",
                    (&body.verdict, &body.effects),
                    call.function
                )
            });
        }
        let context = ExecutionContext::new(&before, body.time, 0);
        let again = functions::run(function.as_ref(), context, &call.arguments);
        if call.function == DICE {
            let keys =
                again.effects.iter().map(protocol::Effect::key).eq(body.effects.iter().map(protocol::Effect::key));
            return ensure(keys, || format!("{id} writes other keys than its function does"));
        }
        ensure((again.verdict(), &again.effects) == (Ok(body.verdict.clone()), &body.effects), || {
            let there = (&body.verdict, &body.effects);
            format!("{id} decided {there:?}; after its precedent it is {:?}", (&again.result, &again.effects))
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::{CommandBody, Effect, Membership, NodeId, Verdict, membership};
    use serde_json::json;

    use super::super::testing::*;
    use super::*;
    use crate::functions::all;

    fn increment(request: &str, value: u64) -> (protocol::Call, CommandBody) {
        let call = call(request, "kv.increment", &json!({"key": "a"}));
        let body = body_of(&call, vec![put("a", &value.to_string())], &json!({"value": value}));
        (call, body)
    }

    /// A1p, S-10: catches an update that is lost, a result that is not the function's, and a command of a call
    /// that nobody made, that was of another function, or of none.
    #[test]
    fn a_function_decides_the_same_after_its_precedent() {
        let run = |of: &[(protocol::Call, CommandBody)]| {
            let commands = chain_of(&of.iter().map(|(_, body)| body.clone()).collect::<Vec<_>>());
            let asked = of.iter().zip(1..).map(|((call, _), ticket)| asked(ticket, call));
            let facts: Vec<Fact> = asked.chain(commands.iter().map(|command| applied(1, command))).collect();
            run(SerialExecutions::new(all()), &facts)
        };
        assert_eq!(run(&[increment("r1", 1), increment("r2", 2)]), Ok(()));
        assert_fails(run(&[increment("r1", 1), increment("r2", 1)]), "after its precedent it is");
        let (call, mut other) = increment("r1", 1);
        other.verdict = Verdict::Changed("{\"value\":7}".into());
        assert_fails(run(&[(call.clone(), other)]), "after its precedent it is");
        let (_, stray) = increment("r2", 1);
        assert_fails(run(&[(call.clone(), stray)]), "which nobody made");
        let (_, mut other) = increment("r1", 1);
        other.function = "kv.put".to_owned();
        assert_fails(run(&[(call, other)]), "is of kv.put, asked for kv.increment");
        let mut nothing = increment("r1", 1);
        (nothing.0.function, nothing.1.function) = ("no.such".to_owned(), "no.such".to_owned());
        assert_fails(run(&[nothing]), "is no function");
    }

    /// DESIGN 10: catches a change that was made of another membership than the one before it (of two changes at a time one is
    /// lost), that says another thing than it does, or writes more; a refusal for what is not so; and what depends on who is
    /// heard held against a leader.
    #[test]
    fn a_change_follows_the_membership_before_it() {
        let weigh = |request: &str, node: u64, weight: u64| {
            call(request, "cluster.set_acceptor", &json!({"node": node, "weight": weight}))
        };
        let change = |call: &protocol::Call, node: u64, next: &Membership| {
            let value = next.to_value();
            let said: serde_json::Value = serde_json::from_slice(&value).expect("it is JSON");
            let result = json!({"node": node, "membership": said});
            body_of(call, vec![Effect::Put { key: membership::key(), value }], &result)
        };
        let run = |of: &[(&protocol::Call, CommandBody)]| {
            let commands = chain_of(&of.iter().map(|(_, body)| body.clone()).collect::<Vec<_>>());
            let asked = of.iter().zip(1..).map(|((call, _), ticket)| asked(ticket, call));
            let facts: Vec<Fact> = asked.chain(commands.iter().map(|command| applied(1, command))).collect();
            run(SerialExecutions::new(all()), &facts)
        };
        let (one, two) = (weigh("r1", 1, 2), weigh("r2", 2, 2));
        let first = three().weighing(NodeId(1), 2).expect("a member");
        let both = first.weighing(NodeId(2), 2).expect("a member");
        let stale = three().weighing(NodeId(2), 2).expect("a member");
        assert_eq!(run(&[(&one, change(&one, 1, &first)), (&two, change(&two, 2, &both))]), Ok(()));
        let lost = run(&[(&one, change(&one, 1, &first)), (&two, change(&two, 2, &stale))]);
        assert_fails(lost, "2@1.1 decided");
        assert_fails(run(&[(&one, change(&one, 2, &first))]), "1@1.1 decided");
        let mut more = change(&one, 1, &first);
        more.effects.push(put("z", "1"));
        assert_fails(run(&[(&one, more)]), "1@1.1 decided");

        let join = |name: &str| call("r1", "cluster.join", &json!({"name": name, "address": format!("{name}:7080")}));
        let (fourth, id) = three().joined("d", "d:7080").expect("a new node");
        assert_eq!(run(&[(&join("d"), change(&join("d"), id.0, &fourth))]), Ok(()));
        let (again, id) =
            three().without(NodeId(3)).and_then(|left| left.joined("n3", "n3:7080")).expect("its own place");
        assert_eq!(run(&[(&join("n3"), change(&join("n3"), id.0, &again))]), Ok(()));
        assert_fails(run(&[(&join("d"), change(&join("d"), id.0, &again))]), "1@1.1 decided");

        let refused = |code: &str| {
            let mut body = body_of(&one, vec![], &json!({}));
            body.verdict = Verdict::Refused { code: code.to_owned(), message: String::new() };
            run(&[(&one, body)])
        };
        assert_eq!(refused("not_caught_up"), Ok(()));
        assert_fails(refused("unknown_node"), "1@1.1 decided");
    }

    /// Catches the dice held to what it cannot do, and allowed to do more than it does.
    #[test]
    fn the_dice_writes_its_key_only() {
        let call = call("r1", DICE, &json!({}));
        let run = |effects| {
            let command = &chain_of(&[body_of(&call, effects, &json!(5))])[0];
            run(SerialExecutions::new(all()), &[asked(1, &call), applied(1, command)])
        };
        assert_eq!(run(vec![put("dice", "5")]), Ok(()));
        assert_fails(run(vec![put("a", "5")]), "other keys");
    }
}
