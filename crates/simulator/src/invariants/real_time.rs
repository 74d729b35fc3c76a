//! Linearizability by command numbers (RELIABILITY 3.7 and 5, row 7): what was told before a question was asked
//! comes before it. A call that changes something gets a higher number than any told before its client first
//! asked for it; what a linearizable read or a call that changes nothing shows is no older than that.
//!
//! Together with `serial_executions`, `replays` and `reads`, which say that every answer is that of the state at
//! its number, this is all of it: the numbers are the order in which everything happened.

use std::collections::BTreeMap;

use protocol::{CommandNumber, Now, Outcome, RequestId};

use super::{History, Invariant, Violation, ensure, shown_to_client};
use crate::fact::{Consistency, Fact, Question, Told};

/// See the module.
#[derive(Default)]
pub(super) struct RealTime {
    /// The highest number told to any client.
    told: CommandNumber,
    /// What it was when a call was first asked for.
    calls: BTreeMap<(RequestId, [u8; 16]), CommandNumber>,
    /// What it was when a linearizable read was asked for, by ticket.
    reads: BTreeMap<u64, CommandNumber>,
}

impl Invariant for RealTime {
    fn name(&self) -> &'static str {
        "real time"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        match fact {
            Fact::Asked { ticket, question, .. } => match question {
                Question::Call(call) => {
                    self.calls.entry((call.request.clone(), call.fingerprint.0)).or_insert(self.told);
                }
                Question::Read(read) => match read.consistency {
                    Consistency::Linearizable => _ = self.reads.insert(*ticket, self.told),
                    Consistency::Local => {}
                },
            },
            Fact::Told { ticket, answer, .. } => {
                let read = self.reads.remove(ticket);
                let shown = shown_to_client(answer);
                let open = history.open(*ticket).map(|open| &open.question);
                let before = match open {
                    Some(Question::Call(call)) => self.calls.get(&(call.request.clone(), call.fingerprint.0)).copied(),
                    Some(Question::Read(_)) | None => read,
                };
                if let (Some(shown), Some(before)) = (shown, before) {
                    let changes = matches!(answer, Told::Outcome { outcome: Outcome::Issued { .. }, .. });
                    let least = if changes { before.next() } else { before };
                    ensure(shown >= least, || {
                        format!("ticket {ticket} is told {answer:?}, and {before} had been told before it was asked")
                    })?;
                }
                self.told = self.told.max(shown.unwrap_or_default());
            }
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Written { .. }
            | Fact::Applied { .. }
            | Fact::Installed { .. }
            | Fact::Synced { .. }
            | Fact::Executed { .. }
            | Fact::Leads { .. }
            | Fact::Noted { .. }
            | Fact::Ignored { .. }
            | Fact::Started { .. }
            | Fact::Stopped { .. }
            | Fact::Fault(_)
            | Fact::Healed { .. } => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use protocol::Call;
    use serde_json::json;

    use super::super::testing::*;
    use super::*;
    use crate::fact::Seen;

    fn put_call(request: &str) -> Call {
        call(request, "kv.put", &json!({"key": "a", "value": 1}))
    }

    /// S-20: catches a stale linearizable read or refusal, and a call that is ordered before one that had ended
    /// before it was asked for. A local read may be stale, and a retry may get an older number.
    #[test]
    fn what_was_told_before_comes_before() {
        let [one, two] = ["r1", "r2"].map(put_call);
        let first = [asked(1, &one), told_issued(1, &one, 5, "{}")];
        let value = |at| Told::Shown { at: CommandNumber(at), seen: Seen::Entries(Vec::new()) };
        let after = |facts: &[Fact]| run(RealTime::default(), &[&first, facts].concat());
        let refused = |at| {
            let outcome = Outcome::Refused { at: CommandNumber(at), code: "c".into(), message: "m".into() };
            told_outcome(2, &two, outcome, true)
        };
        let reads = |consistency, at| after(&[asked_read(2, "a", consistency), told(2, value(at))]);
        assert_eq!(reads(Consistency::Linearizable, 5), Ok(()));
        assert_eq!(reads(Consistency::Local, 3), Ok(()));
        assert_eq!(after(&[asked(2, &two), refused(5)]), Ok(()));
        assert_eq!(after(&[asked(2, &one), told_issued(2, &one, 5, "{}")]), Ok(()), "a retry");
        assert_fails(reads(Consistency::Linearizable, 4), "5 had been told before");
        assert_fails(after(&[asked(2, &two), refused(4)]), "5 had been told before");
        assert_fails(after(&[asked(2, &two), told_issued(2, &two, 5, "{}")]), "5 had been told before");
        let overlapping =
            [asked(2, &two), asked(1, &one), told_issued(1, &one, 5, "{}"), told_issued(2, &two, 4, "{}")];
        assert_eq!(run(RealTime::default(), &overlapping), Ok(()));
    }
}
