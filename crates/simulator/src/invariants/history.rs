//! What the facts have amounted to so far; see the module above.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::{Call, Fingerprint, Membership, NodeId, Now, RequestId, Tick};

use super::{Chain, Disks, Violation, ensure};
use crate::fact::{Fact, Question};

/// A question that has no answer yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Who asked.
    pub client: u64,
    /// The node asked.
    pub via: NodeId,
    /// What.
    pub question: Question,
    /// When.
    pub asked: Tick,
}

/// See the module.
#[derive(Debug)]
pub struct History {
    /// The issued commands.
    pub chain: Chain,
    /// The durable logs.
    pub disks: Disks,
    calls: BTreeMap<(RequestId, [u8; 16]), Call>,
    open: BTreeMap<u64, Open>,
    /// How long outcomes are kept, where that is known.
    pub(super) kept: Option<Kept>,
    /// More may be damaged than a cluster stands.
    pub(super) ruinous: bool,
}

/// How long outcomes of calls are kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Those of calls with a key of their caller's.
    pub callers: Duration,
    /// Those of calls that a gateway has named.
    pub gateways: Duration,
    /// The farthest that a clock is wrong.
    pub wrong_max: Duration,
}

impl History {
    pub(super) fn new(genesis: &Arc<Membership>) -> Self {
        Self {
            chain: Chain::default(),
            disks: Disks::new(genesis),
            calls: BTreeMap::new(),
            open: BTreeMap::new(),
            kept: None,
            ruinous: false,
        }
    }

    /// The call that a client made under this id, with this fingerprint.
    #[must_use]
    pub fn call(&self, request: &RequestId, fingerprint: Fingerprint) -> Option<&Call> {
        self.calls.get(&(request.clone(), fingerprint.0))
    }

    /// All calls that were made under this id: one, unless somebody uses a key again with another body.
    pub fn calls_of(&self, request: &RequestId) -> impl Iterator<Item = &Call> {
        let all = (request.clone(), [0; 16])..=(request.clone(), [u8::MAX; 16]);
        self.calls.range(all).map(|(_, call)| call)
    }

    /// The question of a ticket; that of the answer which is being shown is still there.
    #[must_use]
    pub fn open(&self, ticket: u64) -> Option<&Open> {
        self.open.get(&ticket)
    }

    /// Whether nothing can be decided any more, and that is no fault: a change has made the cluster depend on a silent node, or
    /// more is damaged than a cluster stands.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        (self.ruinous || self.disks.membership().1 > 0) && !self.disks.can_decide()
    }

    /// All questions without an answer.
    pub fn all_open(&self) -> impl Iterator<Item = &Open> {
        self.open.values()
    }

    /// Takes in a fact.
    ///
    /// # Errors
    /// It cannot be: a command without a body, an answer without a question.
    pub(super) fn learn(&mut self, now: Now, fact: &Fact) -> Result<(), Violation> {
        self.disks.learn(fact);
        match fact {
            Fact::Applied { command, .. } => return self.chain.applied(command),
            Fact::Asked { client, ticket, via, question } => {
                if let Question::Call(call) = question {
                    let id = (call.request.clone(), call.fingerprint.0);
                    self.calls.entry(id).or_insert_with(|| call.clone());
                }
                let open = Open { client: *client, via: *via, question: question.clone(), asked: now.tick };
                let earlier = self.open.insert(*ticket, open);
                ensure(earlier.is_none(), || format!("ticket {ticket} is used twice"))?;
            }
            Fact::Told { client, ticket, .. } => {
                let open = self.open.get(ticket);
                ensure(open.is_some_and(|open| open.client == *client), || {
                    format!("client {client} is told the answer to {ticket}, which it does not wait for")
                })?;
            }
            Fact::Sent { .. }
            | Fact::Delivered { .. }
            | Fact::Lost { .. }
            | Fact::Written { .. }
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

    /// All have been shown a fact.
    pub(super) fn shown(&mut self, fact: &Fact) {
        self.chain.shown();
        if let Fact::Told { ticket, .. } = fact {
            self.open.remove(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::super::testing::*;
    use super::*;
    use crate::fact::Told;

    fn learns(facts: &[Fact]) -> Result<(), Violation> {
        let mut history = History::new(&three());
        facts.iter().try_for_each(|fact| {
            history.learn(Now::default(), fact)?;
            history.shown(fact);
            Ok(())
        })
    }

    /// Catches a world that uses a ticket twice, or answers what nobody waits for any more, never asked, or somebody else
    /// did; and an issued command that nobody can read.
    #[test]
    fn what_cannot_be_is_found() {
        let call = call("r1", "kv.put", &json!({"key": "a", "value": 1}));
        let (asks, unknown) = (asked(1, &call), told(1, Told::Unknown));
        assert_eq!(learns(&[asks.clone(), unknown.clone(), asked(2, &call)]), Ok(()));
        assert_fails(learns(&[asks.clone(), asks.clone()]), "ticket 1 is used twice");
        assert_fails(learns(std::slice::from_ref(&unknown)), "which it does not wait for");
        assert_fails(learns(&[asks.clone(), unknown.clone(), unknown]), "which it does not wait for");
        let other = Fact::Told { client: 2, ticket: 1, answer: Told::Unknown };
        assert_fails(learns(&[asks, other]), "client 2 is told the answer to 1");
        let mut command = chain_of(&[body("r1", vec![put("a", "1")])]).remove(0);
        assert_eq!(learns(&[applied(1, &command)]), Ok(()));
        command.body = Bytes::from_static(b"x");
        assert_fails(learns(&[applied(1, &command)]), "command 1@1.1: ");
    }
}
