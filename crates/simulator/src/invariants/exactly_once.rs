//! Exactly once, as clients see it (DESIGN 14.9, RELIABILITY 3.7 and 3.9): a call under a key is always told the
//! same decision with the same number, a refusal too, through whichever node (ADR 0017); and a call that is told
//! it was not executed never is, unless its client asks for it again. All this goes for as long as the outcome is stored: what
//! was forgotten is a new call under its key (ADR 0006).
//!
//! *Not executed* is told by [`Told::NotExecuted`] and by any settled outcome without a command. With
//! [`Outcome::RequestReused`] a caller learns that its key is taken: by another call, which must exist, and for good where that
//! is settled.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use protocol::message::{Executed, Stored, ToGateway, ToLeader};
use protocol::{Call, CommandNumber, Message, NodeId, Now, Outcome, RequestId, Verdict};

use super::chain::Issued;
use super::{History, Invariant, Violation, ensure};
use crate::fact::{Fact, Question, Told};

/// A call as its client knows it: the id, and what was asked under it.
type Named = (RequestId, [u8; 16]);

/// A leader says that a key is another call's for good.
#[derive(Clone)]
struct Claim {
    call: Named,
    /// What the leader had applied when the call came to it.
    heard: CommandNumber,
    /// The last command that was decided when it said so.
    decided: CommandNumber,
}

/// See the module.
#[derive(Default)]
pub(super) struct ExactlyOnce {
    /// The decision that was told of a call under a key, which is recorded: the first one, or that of its last command.
    told: BTreeMap<Named, Outcome>,
    /// Calls of which the last word is that they were not executed; who said so, and the command that says it, if any.
    never: BTreeMap<Named, (u64, Option<CommandNumber>)>,
    /// What each node has applied.
    applied: BTreeMap<NodeId, CommandNumber>,
    /// The same, when a call first came to it in this life.
    heard: BTreeMap<(NodeId, Named), CommandNumber>,
    /// What gateways were told by leaders: that the key of this call is another one's for good.
    reused: BTreeSet<(NodeId, Named)>,
    /// Claims about commands that no node has applied yet.
    claims: Vec<Claim>,
    /// How many different calls were asked for under an id.
    bodies: BTreeMap<RequestId, Vec<[u8; 16]>>,
    /// The commands that came of an id, with what was asked.
    commands: BTreeMap<RequestId, Vec<(CommandNumber, [u8; 16])>>,
}

impl Invariant for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly once"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        self.look(fact, history)?;
        if let Fact::Asked { question: Question::Call(call), .. } = fact {
            self.never.remove(&named(call));
            let bodies = self.bodies.entry(call.request.clone()).or_default();
            if !bodies.contains(&call.fingerprint.0) {
                bodies.push(call.fingerprint.0);
            }
        }
        if let Fact::Told { ticket, answer, .. } = fact
            && let Some(open) = history.open(*ticket)
            && let Question::Call(call) = &open.question
        {
            self.is_told((*ticket, open.via), call, answer, history)?;
        }
        let Some(issued) = history.chain.fresh() else { return Ok(()) };
        let command = (issued.command.number(), issued.body.fingerprint.0);
        self.commands.entry(issued.body.request.clone()).or_default().push(command);
        for claim in mem::take(&mut self.claims) {
            self.judge(claim, history)?;
        }
        if !matches!(issued.body.verdict, Verdict::Changed(_)) {
            return Ok(());
        }
        let never = self.never.get(&(issued.body.request.clone(), issued.body.fingerprint.0));
        let never = never.filter(|(_, by)| !by.is_some_and(|by| history.chain.is_forgotten(by)));
        never.map_or(Ok(()), |(ticket, _)| {
            let (request, id) = (&issued.body.request, issued.command.id);
            Err(format!("{request} was told by ticket {ticket} that it was not executed, and becomes {id}"))
        })
    }
}

impl ExactlyOnce {
    fn is_told(
        &mut self,
        (ticket, via): (u64, NodeId),
        call: &Call,
        answer: &Told,
        history: &History,
    ) -> Result<(), Violation> {
        let request = &call.request;
        if let (RequestId::Caller(_), Told::Outcome { outcome: now, settled: true, .. }) = (request, answer)
            && matches!(now, Outcome::Issued { .. } | Outcome::Unchanged { .. } | Outcome::Refused { .. })
        {
            let first = self.told.entry(named(call)).or_insert_with(|| now.clone());
            // Answers may overtake each other.
            let earlier = first.at().min(now.at());
            let anew = first.at() != now.at() && earlier.is_some_and(|at| history.chain.is_forgotten(at));
            ensure(first == now || anew, || format!("{request} was told {first:?}, and is told {now:?}"))?;
            if first.at() < now.at() {
                first.clone_from(now);
            }
        }
        match answer {
            Told::Outcome { outcome: Outcome::Issued { .. }, .. } => Ok(()),
            Told::Outcome { outcome: Outcome::RequestReused, settled, .. } => {
                self.is_told_of_another((ticket, via), call, *settled, history)
            }
            Told::NotExecuted | Told::Outcome { settled: true, .. } => {
                let named = named(call);
                let changed = |issued: &&Issued| matches!(issued.body.verdict, Verdict::Changed(_));
                if let Some(own) = self.kept(&named, history).find(changed) {
                    return Err(format!("{request} is told {answer:?}, and became {}", own.command.id));
                }
                let by = if let Told::Outcome { outcome, .. } = answer { outcome.at() } else { None };
                let own = |at: &CommandNumber| history.chain.at(*at).is_some_and(|at| at.body.request == *request);
                self.never.insert(named, (ticket, by.filter(own)));
                Ok(())
            }
            Told::Outcome { settled: false, .. } | Told::Unknown | Told::Left { .. } | Told::Shown { .. } => Ok(()),
        }
    }

    /// The commands of this very call that count: a new call may come of one that is forgotten, where it has a key of its caller's.
    fn kept<'a>(&'a self, (request, asked): &'a Named, history: &'a History) -> impl Iterator<Item = &'a Issued> {
        let is_of_gateway = matches!(request, RequestId::Gateway(_));
        let own = self.commands.get(request).into_iter().flatten().filter(move |(_, body)| body == asked);
        let counts = own.filter(move |(number, _)| is_of_gateway || !history.chain.is_forgotten(*number));
        counts.filter_map(|(number, _)| history.chain.at(*number))
    }

    /// The key of a call is another one's; where that is settled a leader has said so, and this call is not executed for as long as the
    /// outcome of the other one is stored.
    fn is_told_of_another(
        &mut self,
        (ticket, via): (u64, NodeId),
        call: &Call,
        settled: bool,
        history: &History,
    ) -> Result<(), Violation> {
        let (request, named) = (&call.request, named(call));
        let bodies = self.bodies.get(request).map_or(0, Vec::len);
        ensure(bodies > 1, || format!("{request} is told that its key was used with another body: it was not"))?;
        if !settled {
            return Ok(());
        }
        ensure(self.reused.contains(&(via, named.clone())), || {
            format!("{request} is told that its key is another call's for good, which no leader has said")
        })?;
        let others = self.commands.get(request).into_iter().flatten().filter(|(_, body)| *body != named.1);
        let stored = others.map(|(number, _)| *number).find(|number| !history.chain.is_forgotten(*number));
        if let Some(other) = stored {
            self.never.insert(named, (ticket, Some(other)));
        }
        Ok(())
    }

    /// Follows what leaders hear and say of keys that were used before.
    fn look(&mut self, fact: &Fact, history: &History) -> Result<(), Violation> {
        match fact {
            Fact::Applied { node, command, .. } => _ = self.applied.insert(*node, command.number()),
            Fact::Installed { node, id } => _ = self.applied.insert(*node, id.at.number),
            Fact::Started { node, applied, .. } => {
                self.applied.insert(*node, applied.number);
                self.heard.retain(|(leader, _), _| leader != node);
            }
            Fact::Delivered { to, message: Message::Leader(ToLeader::ExecuteFunction(call)), .. } => {
                let applied = self.applied.get(to).copied().unwrap_or_default();
                self.heard.entry((*to, named(call))).or_insert(applied);
            }
            Fact::Sent { from, message: Message::Gateway(ToGateway::Executed(executed)), .. }
                if says_reused(executed) =>
            {
                let call = (executed.request.clone(), executed.fingerprint.0);
                let heard = self.heard.get(&(*from, call.clone())).copied().unwrap_or_default();
                self.judge(Claim { call, heard, decided: history.disks.last_decided() }, history)?;
            }
            Fact::Delivered { to, message: Message::Gateway(ToGateway::Executed(executed)), .. }
                if says_reused(executed) =>
            {
                self.reused.insert((*to, (executed.request.clone(), executed.fingerprint.0)));
            }
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Written { .. }
            | Fact::Synced { .. }
            | Fact::Executed { .. }
            | Fact::Leads { .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Stopped { .. }
            | Fact::Asked { .. }
            | Fact::Told { .. }
            | Fact::Fault(_)
            | Fact::Healed { .. } => {}
        }
        Ok(())
    }

    /// Whether another call's outcome was stored under that key when this one came to the leader, or since, and none of its own.
    fn judge(&mut self, claim: Claim, history: &History) -> Result<(), Violation> {
        let Claim { call: (request, body), heard, decided } = &claim;
        let of_key = self.commands.get(request).into_iter().flatten();
        let (own, others): (Vec<_>, Vec<_>) = of_key.partition(|(_, other)| other == body);
        let own = own.into_iter().find(|(number, _)| number <= heard && !history.chain.is_forgotten(*number));
        if let Some((number, _)) = own {
            return Err(format!(
                "a leader says that the key {request} is another call's for good, and it became {number}"
            ));
        }
        let was_there = |number| history.chain.forgotten_by(number).is_none_or(|by| by > *heard);
        if others.iter().any(|(number, _)| was_there(*number)) {
            return Ok(());
        }
        ensure(history.chain.last() < *decided, || {
            format!("a leader says that the key {request} is another call's for good, and none is stored")
        })?;
        self.claims.push(claim);
        Ok(())
    }
}

fn says_reused(executed: &Executed) -> bool {
    executed.outcome == Outcome::RequestReused && executed.stored == Stored::Plain
}

fn named(call: &Call) -> Named {
    (call.request.clone(), call.fingerprint.0)
}

#[cfg(test)]
mod tests {
    use protocol::{CommandBody, Forget, Timestamp};
    use serde_json::json;

    use super::super::testing::*;
    use super::*;

    fn put_call(value: u64) -> Call {
        call("r1", "kv.put", &json!({"key": "a", "value": value}))
    }

    fn refused(ticket: u64, settled: bool) -> Fact {
        let outcome = Outcome::Refused { at: CommandNumber(0), code: "c".into(), message: "m".into() };
        told_outcome(ticket, &put_call(1), outcome, settled)
    }

    /// S-23: catches a retry that is told another number or another result.
    #[test]
    fn a_request_is_always_told_the_same() {
        let call = put_call(1);
        let twice = |number, result| {
            let first = [asked(1, &call), told_issued(1, &call, 1, "{}")];
            run(
                ExactlyOnce::default(),
                &[&first[..], &[asked(2, &call), told_issued(2, &call, number, result)]].concat(),
            )
        };
        assert_eq!(twice(1, "{}"), Ok(()));
        assert_fails(twice(2, "{}"), "and is told");
        assert_fails(twice(1, "7"), "and is told");
    }

    /// ADR 0017: catches a recorded refusal, or that nothing changed, which is told otherwise the next time. What is not
    /// settled may be told otherwise, and so may what a call without a key is told, of which nothing is recorded.
    #[test]
    fn what_changes_nothing_is_always_told_the_same_too() {
        let refused =
            |at, code: &str| Outcome::Refused { at: CommandNumber(at), code: code.into(), message: "m".into() };
        let unchanged = |at| Outcome::Unchanged { at: CommandNumber(at), result: "{}".into() };
        let twice_of = |call: &Call, first: Outcome, settled, then: Outcome| {
            let told = [told_outcome(1, call, first, settled), asked(2, call), told_outcome(2, call, then, true)];
            run(ExactlyOnce::default(), &[&[asked(1, call)], &told[..]].concat())
        };
        let twice = |first, then| twice_of(&put_call(1), first, true, then);
        assert_eq!(twice(refused(1, "c"), refused(1, "c")), Ok(()));
        assert_fails(twice(refused(1, "c"), refused(2, "c")), "and is told");
        assert_fails(twice(refused(1, "c"), unchanged(1)), "and is told");
        assert_fails(twice(unchanged(1), unchanged(2)), "and is told");
        assert_eq!(twice_of(&put_call(1), refused(1, "c"), false, unchanged(1)), Ok(()));
        let mut alone = put_call(1);
        alone.request = RequestId::Gateway(1);
        assert_eq!(twice_of(&alone, refused(1, "c"), true, unchanged(2)), Ok(()));
    }

    /// ADR 0006: catches another decision that is told while the first one is stored, and one that is held against the
    /// cluster when it is not any more; also where answers overtake each other, and of refusals.
    #[test]
    fn what_is_forgotten_may_be_decided_anew() {
        let call = put_call(1);
        let decided = |time, forget| CommandBody {
            time: Timestamp(time),
            forget: Forget { callers: Timestamp(forget), ..Forget::default() },
            ..body_of(&call, vec![put("a", "1")], &json!({}))
        };
        let refused = CommandBody {
            verdict: Verdict::Refused { code: "c".into(), message: "m".into() },
            effects: Vec::new(),
            ..decided(1, 0)
        };
        let other = |forget| CommandBody { forget: decided(5, forget).forget, ..body("r2", vec![put("b", "1")]) };
        let told = |first: &CommandBody, forget, order: [u64; 2]| {
            let commands = chain_of(&[first.clone(), other(forget), decided(6, 0)]);
            let answers = order.map(|number| match (number, &first.verdict) {
                (1, Verdict::Refused { code, message }) => {
                    let (at, code, message) = (CommandNumber(1), code.clone(), message.clone());
                    told_outcome(10 + number, &call, Outcome::Refused { at, code, message }, true)
                }
                _ => told_issued(10 + number, &call, number, "{}"),
            });
            let mut facts = vec![asked(11, &call), asked(13, &call), applied(1, &commands[0])];
            let late = order[0] > order[1];
            let [one, two] = answers;
            facts.extend((!late).then(|| one.clone()));
            facts.extend([applied(1, &commands[1]), applied(1, &commands[2])]);
            facts.extend(late.then_some(one));
            facts.push(two);
            run(ExactlyOnce::default(), &facts)
        };
        for order in [[1, 3], [3, 1]] {
            assert_eq!(told(&decided(1, 0), 2, order), Ok(()), "{order:?}");
            assert_fails(told(&decided(1, 0), 1, order), "and is told");
        }
        assert_eq!(told(&refused, 2, [1, 3]), Ok(()));
        assert_fails(told(&refused, 1, [1, 3]), "that it was not executed, and becomes 3@1.1");
    }

    /// S-22: catches a call that is executed although its client was told that it was not and never would be,
    /// before or after it is told so; unsettled answers promise nothing, and asking again is asking.
    #[test]
    fn what_was_not_executed_never_is() {
        let call = put_call(1);
        let becomes = applied(1, &chain_of(&[body_of(&call, vec![put("a", "1")], &json!({}))])[0]);
        let asks = asked(1, &call);
        let run = |facts: &[&Fact]| run(ExactlyOnce::default(), &facts.iter().copied().cloned().collect::<Vec<_>>());
        assert_eq!(run(&[&asks, &refused(1, false), &becomes]), Ok(()));
        assert_eq!(run(&[&asks, &told(1, Told::Unknown), &becomes]), Ok(()));
        assert_eq!(run(&[&asks, &refused(1, true), &asked(2, &call), &becomes]), Ok(()));
        assert_fails(run(&[&asks, &refused(1, true), &becomes]), "and becomes 1@1.1");
        assert_fails(run(&[&asks, &told(1, Told::NotExecuted), &becomes]), "and becomes 1@1.1");
        assert_fails(run(&[&asks, &becomes, &refused(1, true)]), "and became 1@1.1");
    }

    /// Node 1 hears a call as a leader, and says that its key is another one's for good; its own gateway hears that.
    fn says_so(call: &Call) -> [Fact; 3] {
        let (one, request) = (NodeId(1), call.request.clone());
        let (fingerprint, outcome, stored) = (call.fingerprint, Outcome::RequestReused, Stored::Plain);
        let heard = Message::Leader(ToLeader::ExecuteFunction(call.clone()));
        let executed = Executed { request, copy: None, fingerprint, outcome, stored };
        let says = Message::Gateway(ToGateway::Executed(executed));
        [
            Fact::Delivered { from: one, to: one, message: heard },
            Fact::Sent { from: one, to: one, message: says.clone() },
            Fact::Delivered { from: one, to: one, message: says },
        ]
    }

    fn becomes(node: u64, bodies: &[CommandBody]) -> Vec<Fact> {
        chain_of(bodies).iter().map(|command| applied(node, command)).collect()
    }

    /// Catches a key that is called used without having been, a call that is told so for good by a gateway to which no leader has
    /// said it, and one that is executed afterwards.
    #[test]
    fn a_key_is_used_with_one_body() {
        let (call, other) = (put_call(1), put_call(2));
        let bodies = [&other, &call].map(|call| body_of(call, vec![put("a", "1")], &json!({})));
        let (asks, also) = (asked(1, &call), asked(2, &other));
        let told = |settled| told_outcome(1, &call, Outcome::RequestReused, settled);
        let run = |facts: &[&[Fact]]| run(ExactlyOnce::default(), &facts.concat());
        let first = becomes(1, &bodies[..1]);
        let all = [asks.clone(), also.clone()];
        assert_eq!(run(&[&all, &first, &says_so(&call), &[told(true)]]), Ok(()));
        assert_eq!(
            run(&[&all, &[told(false)]]),
            Ok(()),
            "the other call is under way, and this one may have been before"
        );
        assert_fails(run(&[&[asks.clone(), told(false)]]), "it was not");
        assert_fails(run(&[&[also, asks, told(false)][1..]]), "it was not");
        assert_fails(run(&[&all, &first, &[told(true)]]), "which no leader has said");
        let later = applied(1, &chain_of(&bodies)[1]);
        assert_fails(run(&[&all, &first, &says_so(&call), &[told(true), later]]), "and becomes 2@1.1");
        assert_fails(run(&[&all, &[refused(1, true)], &becomes(1, &bodies[1..])]), "and becomes 1@1.1");
    }

    /// Catches a leader that calls a key another call's for good when none is stored, when it is this very call's, or when the
    /// other one's outcome is forgotten; not one that has not applied yet what others have forgotten, that has started again
    /// with less, or whose other call is decided and not applied.
    #[test]
    fn a_leader_calls_a_key_anothers_while_that_is_stored() {
        let (call, other) = (put_call(1), put_call(2));
        let of = |call: &Call| body_of(call, vec![put("a", "1")], &json!({}));
        let forgets = CommandBody {
            forget: Forget { callers: Timestamp(2), ..Forget::default() },
            ..body("r2", vec![put("b", "1")])
        };
        let run = |facts: &[&[Fact]]| run(ExactlyOnce::default(), &facts.concat());
        let says = says_so(&call);
        assert_fails(run(&[&says]), "and none is stored");
        assert_fails(run(&[&becomes(1, &[of(&call)]), &says]), "and it became 1");
        let both = becomes(1, &[of(&other), forgets.clone()]);
        assert_eq!(run(&[&both[..1], &says]), Ok(()));
        assert_fails(run(&[&both, &says]), "and none is stored");
        let anew = becomes(1, &[of(&other), forgets.clone(), of(&call)]);
        assert_fails(run(&[&anew, &says]), "and it became 3");
        let elsewhere = becomes(2, &[of(&other), forgets.clone()]);
        assert_eq!(run(&[&both[..1], &elsewhere, &says]), Ok(()), "this leader has not forgotten it");
        let meanwhile = [&both[..1], &says[..1], &both[1..], &says[1..]].concat();
        assert_eq!(run(&[&meanwhile]), Ok(()), "it was so when the call came");
        let again = [started_at(1, 2, &chain_of(&[of(&other)]))];
        assert_eq!(run(&[&both, &again, &says]), Ok(()), "it has started again with less");
        assert_fails(run(&[&both[..1], &says[..1], &again, &both[1..], &says]), "and none is stored");
        let decided = |body: &CommandBody| {
            let command = &chain_of(std::slice::from_ref(body))[0];
            run(&[&[votes(1, 1, &[command]), votes(2, 1, &[command])], &says, &[applied(1, command)]])
        };
        assert_eq!(decided(&of(&other)), Ok(()));
        assert_fails(decided(&of(&call)), "and none is stored");
    }
}
