//! No answer shows leader state that is not issued: not to a gateway, not to a client
//! (RELIABILITY 3.8; S-08, S-21).

use protocol::message::{BarrierPassed, Executed, ToGateway};
use protocol::{CommandNumber, Message, Now};

use super::{History, Invariant, Violation, ensure, shown_to_client};
use crate::fact::Fact;

/// See the module.
pub(super) struct OutputGate;

impl Invariant for OutputGate {
    fn name(&self) -> &'static str {
        "output gate"
    }

    fn check(&mut self, _: Now, fact: &Fact, history: &History) -> Result<(), Violation> {
        let Some(shown) = shown(fact) else { return Ok(()) };
        let decided = history.disks.last_decided();
        ensure(shown <= decided, || format!("an answer shows command {shown}, and decided is {decided}: {fact:?}"))
    }
}

/// The number that an answer shows.
fn shown(fact: &Fact) -> Option<CommandNumber> {
    match fact {
        Fact::Sent { message: Message::Gateway(ToGateway::Executed(Executed { outcome, .. })), .. } => outcome.at(),
        Fact::Sent { message: Message::Gateway(ToGateway::BarrierPassed(BarrierPassed { at, .. })), .. } => *at,
        Fact::Told { answer, .. } => shown_to_client(answer),
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
        | Fact::Asked { .. }
        | Fact::Fault(_)
        | Fact::Healed { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Outcome, RequestId};
    use serde_json::json;

    use protocol::message::Stored;

    use super::super::testing::*;
    use super::*;
    use crate::fact::{Seen, Told};

    /// S-08: catches results, refusals and reads that show a command which is not decided, on the way to a
    /// gateway and to a client.
    #[test]
    fn an_answer_shows_what_is_decided() {
        let call = call("r1", "kv.put", &json!({"key": "a", "value": 1}));
        let command = &chain_of(&[body_of(&call, vec![put("a", "1")], &json!({}))])[0];
        let refused = Outcome::Refused { at: CommandNumber(1), code: "c".into(), message: "m".into() };
        let (request, fingerprint) = (RequestId::Gateway(1), protocol::Fingerprint::default());
        let executed = Executed { request, copy: None, fingerprint, outcome: refused.clone(), stored: Stored::No };
        let passed = BarrierPassed { id: 1, at: Some(CommandNumber(1)) };
        let value = Told::Shown { at: CommandNumber(1), seen: Seen::Entries(Vec::new()) };
        for answer in [
            sent(1, 2, Message::Gateway(ToGateway::Executed(executed))),
            sent(1, 2, Message::Gateway(ToGateway::BarrierPassed(passed))),
            told_outcome(1, &call, refused, true),
            told(1, value),
        ] {
            let ask = asked(1, &call);
            let decided = [ask.clone(), votes(1, 1, &[command]), votes(2, 1, &[command]), answer.clone()];
            assert_eq!(run(OutputGate, &decided), Ok(()));
            assert_fails(run(OutputGate, &[ask, votes(1, 1, &[command]), answer]), "decided is 0");
        }
    }
}
