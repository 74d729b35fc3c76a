//! A read shows the entries that it wants at the number that it names, all of them and no others, whatever its
//! consistency; that number is applied, and not below the one asked for (RELIABILITY 3.7, 3.8).

use protocol::Now;

use super::{History, Invariant, Violation, ensure};
use crate::fact::{Fact, Question, Read, Told};

/// See the module.
pub(super) struct Reads;

impl Invariant for Reads {
    fn name(&self) -> &'static str {
        "reads"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        let Fact::Told { ticket, answer: Told::Shown { at, entries }, .. } = fact else { return Ok(()) };
        let open = history.open(*ticket).map(|open| &open.question);
        let Some(Question::Read(Read { sought, least, .. })) = open else {
            return Err(format!("ticket {ticket} is shown entries, and did not ask for any"));
        };
        ensure(*at <= history.chain.last(), || {
            format!("ticket {ticket} is shown {sought:?} at {at}, which no node has applied")
        })?;
        ensure(at >= least, || format!("ticket {ticket} is shown {sought:?} at {at}, and wanted {least} at least"))?;
        let there = sought.in_state(&history.chain.state_at(*at)).map_err(|error| error.to_string())?;
        ensure(*entries == there, || {
            format!("ticket {ticket} is shown {sought:?} at {at} as {entries:?}, which is {there:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::{CommandNumber, Entry, Key};

    use super::super::testing::*;
    use super::*;
    use crate::fact::{Consistency, Sought};

    fn entry(name: &str, value: &str, version: u64) -> (Key, Entry) {
        (key(name), Entry { value: value.to_owned().into(), version: CommandNumber(version) })
    }

    /// What is said when a read of this is answered so, after `a` became 1, then 2, and `b` 3.
    fn shown(read: (Sought, Consistency, u64), at: u64, entries: Vec<(Key, Entry)>) -> Result<(), String> {
        let bodies = [("a", "1"), ("a", "2"), ("b", "3")];
        let bodies = bodies.map(|(name, value)| body(&format!("r{value}"), vec![put(name, value)]));
        let mut facts: Vec<Fact> = chain_of(&bodies).iter().map(|command| applied(1, command)).collect();
        let (sought, consistency, least) = read;
        facts.push(asked_to_see(1, sought, consistency, CommandNumber(least)));
        facts.push(told(1, Told::Shown { at: CommandNumber(at), entries }));
        run(Reads, &facts)
    }

    /// Catches a read of another value or version than its number says, of a number that is not applied, and of
    /// one below the number asked for.
    #[test]
    fn a_read_shows_the_state_at_its_number() {
        let shows = |consistency, least, at, value, version| {
            shown((Sought::Entry(key("a")), consistency, least), at, vec![entry("a", value, version)])
        };
        let (local, linearizable) = (Consistency::Local, Consistency::Linearizable);
        assert_eq!(shows(local, 0, 1, "1", 1), Ok(()));
        assert_eq!(shows(linearizable, 2, 2, "2", 2), Ok(()));
        assert_fails(shows(local, 0, 1, "2", 2), "is shown Entry(Key(\"a\")) at 1 as");
        assert_fails(shows(linearizable, 0, 2, "2", 1), "at 2 as");
        assert_fails(shows(local, 0, 4, "2", 2), "which no node has applied");
        for consistency in [local, linearizable] {
            assert_fails(shows(consistency, 2, 1, "1", 1), "wanted 2 at least");
        }
    }

    /// Catches a page that lacks an entry, has one too many, or has one of another number.
    #[test]
    fn a_page_shows_all_of_one_number() {
        let page = |prefix: &str, after: Option<&str>, limit| Sought::Page {
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            limit,
        };
        let shows = |sought, at, entries: &[(Key, Entry)]| shown((sought, Consistency::Local, 0), at, entries.to_vec());
        let (old, a, b) = (entry("a", "1", 1), entry("a", "2", 2), entry("b", "3", 3));
        let both = [a.clone(), b.clone()];
        assert_eq!(shows(page("", None, 9), 3, &both), Ok(()));
        assert_eq!(shows(page("", None, 9), 2, &both[..1]), Ok(()));
        assert_eq!(shows(page("", None, 1), 3, &both[..1]), Ok(()));
        assert_eq!(shows(page("", Some("a"), 1), 3, &both[1..]), Ok(()));
        assert_eq!(shows(page("c", None, 1), 3, &[]), Ok(()));
        assert_fails(shows(page("", None, 9), 3, &both[..1]), "at 3 as");
        assert_fails(shows(page("a", None, 9), 3, &both), "at 3 as");
        assert_fails(shows(page("", None, 1), 3, &both), "at 3 as");
        assert_fails(shows(page("", None, 9), 3, &[old, b]), "at 3 as");
    }

    /// Catches entries that are shown to a caller, who did not ask for any.
    #[test]
    fn only_readers_are_shown_entries() {
        let call = call("r1", "kv.put", &serde_json::json!({"key": "a", "value": 1}));
        let nothing = told(1, Told::Shown { at: CommandNumber::NULL, entries: Vec::new() });
        assert_eq!(run(Reads, &[asked_read(1, "a", Consistency::Local), nothing.clone()]), Ok(()));
        assert_fails(run(Reads, &[asked(1, &call), nothing]), "did not ask for any");
    }
}
