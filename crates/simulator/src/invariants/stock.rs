//! Conservation: at every number the stocks are what came in less what went out by the calls up to it
//! (RELIABILITY 5, rows 7 and 8). Nothing is lost in a transfer, and nothing happens twice.

use std::collections::BTreeMap;

use protocol::{Call, Effect, Key, Now, Verdict};
use serde_json::Value;

use super::{History, Invariant, Violation, ensure};
use crate::fact::Fact;

const PREFIX: &str = "inventory/";

/// See the module.
#[derive(Default)]
pub(super) struct Stock {
    stocks: BTreeMap<Key, i128>,
    /// Their sum.
    there: i128,
    /// What the calls say that it is.
    expected: i128,
}

impl Invariant for Stock {
    fn name(&self) -> &'static str {
        "stock"
    }

    fn check(&mut self, _: Now, _: &Fact, history: &History) -> Result<(), Violation> {
        let Some(issued) = history.chain.fresh() else { return Ok(()) };
        let body = &issued.body;
        if matches!(body.verdict, Verdict::Changed(_)) {
            self.expected += history.call(&body.request, body.fingerprint).map_or(0, comes_in);
        }
        for effect in body.effects.iter().filter(|effect| effect.key().as_str().starts_with(PREFIX)) {
            let stock = match effect {
                Effect::Put { value, .. } => serde_json::from_slice::<u64>(value).ok(),
                Effect::Delete { .. } => Some(0),
            };
            let Some(stock) = stock else {
                return Err(format!("{} puts a stock that is none: {effect:?}", issued.command.id));
            };
            let earlier = self.stocks.insert(effect.key().clone(), i128::from(stock)).unwrap_or_default();
            self.there += i128::from(stock) - earlier;
        }
        ensure(self.there == self.expected, || {
            format!("after {} the stocks are {}, and came in {}", issued.command.id, self.there, self.expected)
        })
    }
}

/// How much more there is after a call; less, when negative.
fn comes_in(call: &Call) -> i128 {
    let sign = match call.function.as_str() {
        "inventory.inbound" => 1,
        "inventory.outbound" => -1,
        _ => return 0,
    };
    let arguments: Value = serde_json::from_slice(&call.arguments).unwrap_or_default();
    sign * i128::from(arguments["amount"].as_u64().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::*;
    use super::*;

    /// A9, S-10: catches goods that are lost or made up in a transfer, or come in twice.
    #[test]
    fn goods_are_conserved() {
        let comes = call("r1", "inventory.inbound", &json!({"warehouse": "A", "amount": 5}));
        let moves = call("r2", "inventory.transfer", &json!({"from": "A", "to": "B", "amount": 2}));
        let goes = call("r3", "inventory.outbound", &json!({"warehouse": "B", "amount": 1}));
        let run = |moved: &str| {
            let stock = |warehouse: &str, stock: &str| put(&format!("{PREFIX}goods/{warehouse}"), stock);
            let commands = chain_of(&[
                body_of(&comes, vec![stock("A", "5")], &json!({})),
                body_of(&moves, vec![stock("A", "3"), stock("B", moved)], &json!({})),
                body_of(&goes, vec![stock("B", "1")], &json!({})),
            ]);
            let asked = [&comes, &moves, &goes].into_iter().zip(1..).map(|(call, ticket)| asked(ticket, call));
            let facts: Vec<Fact> = asked.chain(commands.iter().map(|command| applied(1, command))).collect();
            run(Stock::default(), &facts)
        };
        assert_eq!(run("2"), Ok(()));
        assert_fails(run("3"), "the stocks are 6, and came in 5");
        assert_fails(run("x"), "puts a stock that is none");
    }

    /// A9: catches goods that vanish with their key, and a call that was refused and counts all the same.
    #[test]
    fn goods_do_not_vanish() {
        let comes = call("r1", "inventory.inbound", &json!({"warehouse": "A", "amount": 5}));
        let refused = call("r2", "inventory.outbound", &json!({"warehouse": "A", "amount": 9}));
        let other = call("r3", "kv.delete", &json!({}));
        let name = format!("{PREFIX}goods/A");
        let run = |effect: Effect| {
            let mut nothing = body_of(&refused, vec![], &json!({}));
            nothing.verdict = Verdict::Refused { code: "c".into(), message: "m".into() };
            let last = body_of(&other, vec![effect], &json!({}));
            let commands = chain_of(&[body_of(&comes, vec![put(&name, "5")], &json!({})), nothing, last]);
            let asked = [&comes, &refused, &other].into_iter().zip(1..).map(|(call, ticket)| asked(ticket, call));
            let facts: Vec<Fact> = asked.chain(commands.iter().map(|command| applied(1, command))).collect();
            run(Stock::default(), &facts)
        };
        assert_eq!(run(delete("a")), Ok(()), "no stock");
        assert_fails(run(delete(&name)), "after 3@1.1 the stocks are 0, and came in 5");
    }
}
