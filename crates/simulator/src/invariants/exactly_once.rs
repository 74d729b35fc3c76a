//! Exactly once, as clients see it (DESIGN 14.9, RELIABILITY 3.7 and 3.9): a call under a key is always told the
//! same decision with the same number, a refusal too, through whichever node (ADR 0017); and a call that is told
//! it was not executed never is, unless its client asks for it again. All this goes for as long as the outcome is stored: what
//! was forgotten is a new call under its key (ADR 0006).
//!
//! *Not executed* is told by [`Told::NotExecuted`] and by any settled outcome without a command. With
//! [`Outcome::RequestReused`] a caller learns that its key is taken: by another call, which must exist, and for good where that
//! is settled.

use std::collections::BTreeMap;
use std::mem;

use protocol::{Call, CommandNumber, NodeId, Now, Outcome, RequestId, Verdict};

use super::chain::Issued;
use super::{History, Invariant, Violation, ensure};
use crate::fact::{Fact, Question, Told};

/// A call as its client knows it: the id, and what was asked under it.
type Named = (RequestId, [u8; 16]);

/// Who was told that its key is another call's for good: by which ticket, what all had applied when that was asked, and the last decided
/// command when it was told.
type Claim = (u64, Named, CommandNumber, CommandNumber);

/// See the module.
#[derive(Default)]
pub(super) struct ExactlyOnce {
    /// The decision that was told of a call under a key, which is recorded: the first one, or that of its last command.
    told: BTreeMap<Named, Outcome>,
    /// Calls of which the last word is that they were not executed; who said so, and the command that says it, if any.
    never: BTreeMap<Named, (u64, Option<CommandNumber>)>,
    /// Those who were told that their key is another call's, of which no node has applied anything yet.
    claims: Vec<Claim>,
    /// What each living node has applied.
    applied: BTreeMap<NodeId, CommandNumber>,
    /// What all living nodes had applied when a call was asked for, by ticket: what they had forgotten by then none of them finds.
    asked: BTreeMap<u64, CommandNumber>,
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
        match fact {
            Fact::Applied { node, command, .. } => _ = self.applied.insert(*node, command.number()),
            Fact::Installed { node, id } => _ = self.applied.insert(*node, id.at.number),
            Fact::Started { node, applied, .. } => _ = self.applied.insert(*node, applied.number),
            Fact::Stopped { node, .. } => _ = self.applied.remove(node),
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Written { .. }
            | Fact::Synced { .. }
            | Fact::Executed { .. }
            | Fact::Leads { .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Asked { .. }
            | Fact::Told { .. }
            | Fact::Fault(_)
            | Fact::Healed { .. } => {}
        }
        if let Fact::Asked { ticket, question: Question::Call(call), .. } = fact {
            self.asked.insert(*ticket, self.applied.values().min().copied().unwrap_or_default());
            self.never.remove(&named(call));
            let bodies = self.bodies.entry(call.request.clone()).or_default();
            if !bodies.contains(&call.fingerprint.0) {
                bodies.push(call.fingerprint.0);
            }
        }
        if let Fact::Told { ticket, answer, .. } = fact
            && let Some(Question::Call(call)) = history.open(*ticket).map(|open| &open.question)
        {
            self.is_told(*ticket, call, answer, history)?;
            self.asked.remove(ticket);
        }
        let Some(issued) = history.chain.fresh() else { return Ok(()) };
        let command = (issued.command.number(), issued.body.fingerprint.0);
        self.commands.entry(issued.body.request.clone()).or_default().push(command);
        for claim in mem::take(&mut self.claims) {
            self.is_another_ones(claim, history)?;
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
    fn is_told(&mut self, ticket: u64, call: &Call, answer: &Told, history: &History) -> Result<(), Violation> {
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
                self.is_told_of_another(ticket, call, *settled, history)
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

    /// The key of a call is another one's; where that is settled, for as long as the outcome of that one is stored.
    fn is_told_of_another(
        &mut self,
        ticket: u64,
        call: &Call,
        settled: bool,
        history: &History,
    ) -> Result<(), Violation> {
        let request = &call.request;
        let bodies = self.bodies.get(request).map_or(0, Vec::len);
        ensure(bodies > 1, || format!("{request} is told that its key was used with another body: it was not"))?;
        if !settled {
            return Ok(());
        }
        let asked = self.asked.get(&ticket).copied().unwrap_or_default();
        self.is_another_ones((ticket, named(call), asked, history.disks.last_decided()), history)
    }

    /// Whether another call's outcome was stored under that key when this was asked for, or since.
    fn is_another_ones(&mut self, claim: Claim, history: &History) -> Result<(), Violation> {
        let (ticket, named, asked, decided) = claim.clone();
        let was_there = |number: CommandNumber| history.chain.forgotten_by(number).is_none_or(|by| by > asked);
        let commands = self.commands.get(&named.0).into_iter().flatten();
        let mut others = commands.filter(|(number, body)| *body != named.1 && was_there(*number));
        let Some((other, _)) = others.next_back().copied() else {
            ensure(history.chain.last() < decided, || {
                format!("{} is told that its key is another call's for good, and none is stored", named.0)
            })?;
            self.claims.push(claim);
            return Ok(());
        };
        if history.chain.is_forgotten(other) {
            return Ok(());
        }
        let own = self.kept(&named, history).next().map(|issued| issued.command.id);
        ensure(own.is_none(), || {
            format!(
                "{} is told that its key is another call's for good, and became {}",
                named.0,
                own.unwrap_or_default()
            )
        })?;
        self.never.insert(named, (ticket, Some(other)));
        Ok(())
    }
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

    /// Catches a key that is called used without having been, a call that is told so for good and was executed, or is
    /// afterwards, and one used with another body that is taken for the same call.
    #[test]
    fn a_key_is_used_with_one_body() {
        let (call, other) = (put_call(1), put_call(2));
        let reused = told_outcome(1, &call, Outcome::RequestReused, true);
        let becomes = applied(1, &chain_of(&[body_of(&other, vec![put("a", "2")], &json!({}))])[0]);
        let both = [asked(1, &call), asked(2, &other), becomes, reused.clone()];
        assert_eq!(run(ExactlyOnce::default(), &both), Ok(()));
        assert_fails(run(ExactlyOnce::default(), &[asked(1, &call), reused.clone()]), "it was not");
        assert_fails(run(ExactlyOnce::default(), &[asked(2, &call), asked(1, &call), reused.clone()]), "it was not");
        let own = applied(1, &chain_of(&[body_of(&call, vec![put("a", "1")], &json!({}))])[0]);
        let asks = [asked(1, &call), asked(2, &other)];
        let run = |facts: &[Fact]| run(ExactlyOnce::default(), &[&asks, facts].concat());
        assert_fails(run(&[refused(1, true), own.clone()]), "and becomes 1@1.1");
        assert_fails(run(&[own.clone(), reused.clone()]), "and none is stored");
        assert_fails(run(std::slice::from_ref(&reused)), "and none is stored");
        let under_way = told_outcome(1, &call, Outcome::RequestReused, false);
        assert_eq!(run(&[own, under_way]), Ok(()), "the other call is under way, and this one may have been before");
        let bodies =
            [body_of(&other, vec![put("a", "2")], &json!({})), body_of(&call, vec![put("a", "1")], &json!({}))];
        let [first, second] = [0, 1].map(|index| applied(1, &chain_of(&bodies)[index]));
        assert_fails(run(&[first, reused.clone(), second]), "and becomes 2@1.1");
        // Decided, and not applied yet.
        let decided = |body: &CommandBody| {
            let command = &chain_of(std::slice::from_ref(body))[0];
            run(&[votes(1, 1, &[command]), votes(2, 1, &[command]), reused.clone(), applied(1, command)])
        };
        assert_eq!(decided(&bodies[0]), Ok(()));
        assert_fails(decided(&bodies[1]), "and none is stored");
        // The other one's outcome is forgotten, and an answer from before comes late.
        let forgets = |callers, asked_late: bool| {
            let forget = Forget { callers: Timestamp(callers), ..Forget::default() };
            let filler = CommandBody { forget, ..body("r2", vec![put("b", "1")]) };
            let [other, own] = bodies.clone();
            let mut facts: Vec<Fact> = chain_of(&[other, filler, own]).iter().map(|next| applied(1, next)).collect();
            facts.extend(asked_late.then(|| asked(3, &call)));
            facts.push(told_outcome(if asked_late { 3 } else { 1 }, &call, Outcome::RequestReused, true));
            run(&facts)
        };
        assert_eq!(forgets(2, false), Ok(()));
        assert_fails(forgets(1, false), "and became 3@1.1");
        assert_fails(forgets(2, true), "and none is stored");
    }
}
