//! A read shows what it wants at the number that it names, all of it and nothing else, whatever its consistency; that
//! number is applied, and not below the one asked for (RELIABILITY 3.8 and 5, class 7). Of what is wanted, entries and the
//! outcome of a call are those of that number; commands are the first of those up to it, unless they are not kept.

use protocol::{CommandNumber, Now, StateError};

use super::{History, Invariant, Violation, ensure};
use crate::fact::{Fact, Question, Read, Seen, Sought, Told};

/// See the module.
pub(super) struct Reads;

impl Invariant for Reads {
    fn name(&self) -> &'static str {
        "reads"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        let Fact::Told { ticket, answer: Told::Shown { at, seen }, .. } = fact else { return Ok(()) };
        let open = history.open(*ticket).map(|open| &open.question);
        let Some(Question::Read(Read { sought, least, .. })) = open else {
            return Err(format!("ticket {ticket} is shown something, and did not ask for it"));
        };
        ensure(*at <= history.chain.last(), || {
            format!("ticket {ticket} is shown {sought:?} at {at}, which no node has applied")
        })?;
        ensure(at >= least, || format!("ticket {ticket} is shown {sought:?} at {at}, and wanted {least} at least"))?;
        let commands = |from: CommandNumber, limit| -> Result<_, StateError> {
            let numbers = (from.0..=at.0).take(limit).map(CommandNumber);
            Ok(Some(
                numbers.filter_map(|number| history.chain.at(number)).map(|issued| issued.command.clone()).collect(),
            ))
        };
        let there = sought.look(&history.chain.state_at(*at), commands).map_err(|error| error.to_string())?;
        let is_gone = matches!((sought, seen), (Sought::Commands { from, .. }, Seen::Commands(None)) if from <= at);
        ensure(is_gone || *seen == there, || {
            format!("ticket {ticket} is shown {sought:?} at {at} as {seen:?}, which is {there:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Command, CommandBody, Entry, Key, RequestId, StoredOutcome, Timestamp, Verdict};

    use super::super::testing::*;
    use super::*;
    use crate::fact::Consistency;

    fn entry(name: &str, value: &str, version: u64) -> (Key, Entry) {
        (key(name), Entry { value: value.to_owned().into(), version: CommandNumber(version) })
    }

    /// What is said when a read of this is answered so, after `a` became 1, then 2, and `b` 3.
    fn shown(read: (Sought, Consistency, u64), at: u64, entries: Vec<(Key, Entry)>) -> Result<(), String> {
        sees(&three(), read, at, Seen::Entries(entries))
    }

    fn three() -> Vec<CommandBody> {
        let puts = [("a", "1"), ("a", "2"), ("b", "3")];
        puts.map(|(name, value)| body(&format!("r{value}"), vec![put(name, value)])).to_vec()
    }

    fn sees(bodies: &[CommandBody], read: (Sought, Consistency, u64), at: u64, seen: Seen) -> Result<(), String> {
        let mut facts: Vec<Fact> = chain_of(bodies).iter().map(|command| applied(1, command)).collect();
        let (sought, consistency, least) = read;
        facts.push(asked_to_see(1, sought, consistency, CommandNumber(least)));
        facts.push(told(1, Told::Shown { at: CommandNumber(at), seen }));
        run(Reads, &facts)
    }

    /// Catches an outcome of another call or number, one that is shown before it is there or after it is forgotten, and one
    /// that is there and not shown.
    #[test]
    fn a_call_has_the_outcome_of_its_number() {
        let mut bodies = three();
        for (time, body) in (1..).map(Timestamp).zip(&mut bodies) {
            body.time = time;
        }
        bodies[2].forget.callers = Timestamp(2);
        // Asked again after that, it is a new call.
        bodies.push(CommandBody { time: Timestamp(4), ..bodies[0].clone() });
        let stored = |place: usize| StoredOutcome {
            command: CommandNumber(place as u64 + 1),
            fingerprint: bodies[place].fingerprint,
            verdict: bodies[place].verdict.clone(),
            time: bodies[place].time,
        };
        let shows = |request: &str, at, seen: Option<StoredOutcome>| {
            let call = Sought::Call(RequestId::Caller(request.to_owned()));
            sees(&bodies, (call, Consistency::Local, 0), at, Seen::Call(seen))
        };
        assert_eq!(shows("r1", 1, Some(stored(0))), Ok(()));
        assert_eq!(shows("r1", 2, Some(stored(0))), Ok(()));
        assert_eq!(shows("r1", 3, None), Ok(()), "it is forgotten");
        assert_eq!(shows("r1", 4, Some(stored(3))), Ok(()), "it is there again");
        assert_fails(shows("r1", 4, Some(stored(0))), "at 4 as");
        assert_eq!(shows("r2", 1, None), Ok(()), "it is not there yet");
        assert_eq!(shows("never", 3, None), Ok(()));
        assert_fails(shows("r1", 3, Some(stored(0))), "at 3 as");
        assert_fails(shows("r1", 2, None), "at 2 as");
        assert_fails(shows("r2", 1, Some(stored(1))), "at 1 as");
        assert_fails(shows("r2", 2, Some(stored(0))), "at 2 as");
        let mut other = stored(1);
        other.verdict = Verdict::Unchanged("{}".into());
        assert_fails(shows("r2", 2, Some(other)), "at 2 as");
    }

    /// Catches commands that are not those of the chain, that leave some out, or go beyond the number that is shown.
    #[test]
    fn commands_are_those_up_to_the_number() {
        let commands = chain_of(&three());
        let shows = |from, limit, at, seen: Option<&[Command]>| {
            let sought = Sought::Commands { from: CommandNumber(from), limit };
            sees(&three(), (sought, Consistency::Local, 0), at, Seen::Commands(seen.map(<[Command]>::to_vec)))
        };
        assert_eq!(shows(1, 9, 3, Some(&commands)), Ok(()));
        assert_eq!(shows(2, 1, 3, Some(&commands[1..2])), Ok(()));
        assert_eq!(shows(1, 9, 2, Some(&commands[..2])), Ok(()));
        assert_eq!(shows(4, 9, 3, Some(&[])), Ok(()), "not there yet");
        assert_eq!(shows(1, 9, 3, None), Ok(()), "not kept");
        assert_fails(shows(4, 9, 3, None), "at 3 as");
        assert_fails(shows(1, 9, 2, Some(&commands)), "at 2 as");
        assert_fails(shows(1, 9, 3, Some(&commands[..2])), "at 3 as");
        assert_fails(shows(1, 2, 3, Some(&commands[1..])), "at 3 as");
        let other = chain_of(&[three().remove(1)]);
        assert_fails(shows(1, 1, 3, Some(&other)), "at 3 as");
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

    /// Catches something that is shown to a caller, who did not ask for it.
    #[test]
    fn only_readers_are_shown_entries() {
        let call = call("r1", "kv.put", &serde_json::json!({"key": "a", "value": 1}));
        let nothing = told(1, Told::Shown { at: CommandNumber::NULL, seen: Seen::Entries(Vec::new()) });
        assert_eq!(run(Reads, &[asked_read(1, "a", Consistency::Local), nothing.clone()]), Ok(()));
        assert_fails(run(Reads, &[asked(1, &call), nothing]), "did not ask for it");
    }
}
