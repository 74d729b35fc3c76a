//! An acknowledged call is in every later state (DESIGN 14.10, RELIABILITY 3.3): at the moment at which a client
//! is told a command number, a majority set's durable votes have decided the command of just this call there,
//! and all before it. `agreement` says that nothing else is ever applied there, `votes_kept` that no fault takes
//! it.

use protocol::{CommandBody, Now, Outcome, Verdict};

use super::{History, Invariant, Violation, ensure};
use crate::fact::{Fact, Question, Told};

/// See the module.
pub(super) struct Acknowledged;

impl Invariant for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        let Fact::Told { ticket, answer: Told::Outcome { request, outcome, .. }, .. } = fact else { return Ok(()) };
        let asked = history.open(*ticket).map(|open| &open.question);
        let Some(Question::Call(call)) = asked.filter(|asked| is_of(asked, request)) else {
            return Err(format!("ticket {ticket} is told about {request}, for which it did not ask"));
        };
        let Outcome::Issued { command: number, result, .. } = outcome else { return Ok(()) };
        let Some(decided) = history.disks.decided_at(*number) else {
            let last = history.disks.last_decided();
            return Err(format!("{request} is told that it became {number}, and decided is what is up to {last}"));
        };
        let id = decided.command.id;
        let body = CommandBody::decode(&decided.command.body).map_err(|error| format!("command {id}: {error}"))?;
        ensure((&body.request, body.fingerprint) == (request, call.fingerprint), || {
            format!("{request} is told that it became {id}, which is of {} or of another body", body.request)
        })?;
        ensure(body.verdict == Verdict::Changed(result.clone()), || {
            format!("{request} is told {result:?}, and {id} holds {:?}", body.verdict)
        })
    }
}

fn is_of(question: &Question, request: &protocol::RequestId) -> bool {
    matches!(question, Question::Call(call) if call.request == *request)
}

#[cfg(test)]
mod tests {
    use protocol::Command;
    use serde_json::json;

    use super::super::testing::*;
    use super::*;

    /// S-04, S-11: catches an acknowledgement before a majority set has synced ("reply before sync"), before the
    /// precedent is decided, for another call's command, and with another result.
    #[test]
    fn an_acknowledged_call_is_decided() {
        let calls = ["r1", "r2"].map(|request| call(request, "kv.put", &json!({"key": request, "value": 1})));
        let bodies = calls.each_ref().map(|call| body_of(call, vec![put(&key_of(call), "1")], &json!({})));
        let commands = chain_of(&bodies);
        let all: Vec<&Command> = commands.iter().collect();
        let told = |number| told_issued(1, &calls[0], number, "{}");
        let with = |facts: &[Fact]| run(Acknowledged, &[&[asked(1, &calls[0])], facts].concat());
        assert_eq!(with(&[votes(1, 1, &all), votes(2, 1, &all), told(1)]), Ok(()));
        assert_fails(with(&[votes(1, 1, &all), told(1)]), "decided is what is up to 0");
        let second = [votes(1, 1, &all[1..]), votes(2, 1, &all[1..]), told(2)];
        assert_fails(with(&second), "decided is what is up to 0");
        assert_fails(with(&[votes(1, 1, &all), votes(2, 1, &all), told(2)]), "which is of r2");
        let other = told_issued(1, &calls[0], 1, "7");
        assert_fails(with(&[votes(1, 1, &all), votes(2, 1, &all), other]), "is told b\"7\"");
        let stray = told_issued(1, &calls[1], 2, "{}");
        assert_fails(with(&[votes(1, 1, &all), votes(2, 1, &all), stray]), "for which it did not ask");
        let reader = [asked_read(2, "a", crate::fact::Consistency::Local), told_issued(2, &calls[0], 1, "{}")];
        assert_fails(run(Acknowledged, &reader), "for which it did not ask");
        let mut unreadable = commands[0].clone();
        unreadable.body = bytes::Bytes::from_static(b"x");
        let cast = [votes(1, 1, &[&unreadable]), votes(2, 1, &[&unreadable]), told(1)];
        assert_fails(with(&cast), "command 1@1.1: ");
        let mut reused = body_of(&calls[0], vec![put("a", "1")], &json!({}));
        reused.fingerprint = protocol::Fingerprint([9; 16]);
        let other_body = &chain_of(&[reused])[0];
        assert_fails(with(&[votes(1, 1, &[other_body]), votes(2, 1, &[other_body]), told(1)]), "which is of r1");
    }

    fn key_of(call: &protocol::Call) -> String {
        call.request.to_string()
    }
}
