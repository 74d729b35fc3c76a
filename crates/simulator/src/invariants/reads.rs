//! A read shows the entry of its key at the number that it names, whatever its consistency; that number is
//! applied, and not below the one asked for (RELIABILITY 3.7, 3.8).

use protocol::Now;

use super::{History, Invariant, Violation, ensure};
use crate::fact::{Consistency, Fact, Question, Told};

/// See the module.
pub(super) struct Reads;

impl Invariant for Reads {
    fn name(&self) -> &'static str {
        "reads"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        let Fact::Told { ticket, answer: Told::Value { at, entry }, .. } = fact else { return Ok(()) };
        let open = history.open(*ticket).map(|open| &open.question);
        let Some(Question::Read { key, consistency }) = open else {
            return Err(format!("ticket {ticket} is told a value, and did not ask for one"));
        };
        ensure(*at <= history.chain.last(), || {
            format!("ticket {ticket} shows {key} at {at}, which no node has applied")
        })?;
        if let Consistency::AtLeast(number) = consistency {
            ensure(at >= number, || format!("ticket {ticket} shows {key} at {at}, and wanted {number} at least"))?;
        }
        let there = history.chain.state_at(*at).entry(key);
        ensure(*entry == there, || format!("ticket {ticket} shows {key} at {at} as {entry:?}, which is {there:?}"))
    }
}

#[cfg(test)]
mod tests {
    use protocol::{CommandNumber, Entry};

    use super::super::testing::*;
    use super::*;

    /// Catches a read of another value or version than its number says, of a number that is not applied, and of
    /// one below the number asked for.
    #[test]
    fn a_read_shows_the_state_at_its_number() {
        let commands = chain_of(&[1, 2].map(|n| body(&format!("r{n}"), vec![put("a", &n.to_string())])));
        let shows = |consistency, at: u64, value: &str, version: u64| {
            let mut facts: Vec<Fact> = commands.iter().map(|command| applied(1, command)).collect();
            let entry = Entry { value: value.to_owned().into(), version: CommandNumber(version) };
            facts.push(asked_read(1, "a", consistency));
            facts.push(told(1, Told::Value { at: CommandNumber(at), entry: Some(entry) }));
            run(Reads, &facts)
        };
        let at_least = |number| Consistency::AtLeast(CommandNumber(number));
        assert_eq!(shows(Consistency::Local, 1, "1", 1), Ok(()));
        assert_eq!(shows(at_least(2), 2, "2", 2), Ok(()));
        assert_fails(shows(Consistency::Local, 1, "2", 2), "shows a at 1 as");
        assert_fails(shows(Consistency::Linearizable, 2, "2", 1), "shows a at 2 as");
        assert_fails(shows(Consistency::Local, 3, "2", 2), "which no node has applied");
        assert_fails(shows(at_least(2), 1, "1", 1), "wanted 2 at least");
    }

    /// Catches a value that is told to a caller, who did not ask for any.
    #[test]
    fn only_readers_are_told_values() {
        let call = call("r1", "kv.put", &serde_json::json!({"key": "a", "value": 1}));
        let value = told(1, Told::Value { at: CommandNumber::NULL, entry: None });
        assert_eq!(run(Reads, &[asked_read(1, "a", Consistency::Local), value.clone()]), Ok(()));
        assert_fails(run(Reads, &[asked(1, &call), value]), "did not ask for one");
    }
}
