//! Quorate over REST, as a system that is measured.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::connection::{Answer, Connection, Target};
use crate::template::{Template, Turn};
use crate::{Client, Dice, Done, Refusal, System, costs, now};

/// How long opening a connection may take.
const CONNECT_WAIT: Duration = Duration::from_secs(3);

/// How long one attempt may take when others may follow: a gateway answers within 10 s.
const ATTEMPT_WAIT: Duration = Duration::from_secs(12);

/// With these a node says that it does not take the call now.
const REFUSALS: [u16; 2] = [429, 503];

/// The pause after a failure, doubled up to the second one: a dead node must not be asked in a
/// tight loop, and a new leader is not to be met by all clients at one instant.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(80));

/// Nodes that answer over REST.
pub struct Rest {
    /// Where to post, such as `/v1/functions/inventory.transfer`.
    pub path: String,
    /// The body of a call.
    pub template: Template,
    /// The nodes; clients are spread over them.
    pub targets: Vec<Target>,
    /// Whether to send a call again after a failure, to the next node, with the same idempotency key.
    pub retry: bool,
    /// How long one call may take.
    pub timeout: Duration,
    /// Begins every idempotency key of this run.
    pub run_key: String,
}

impl System for Rc<Rest> {
    type Client = Caller;

    async fn client(&self, number: u32) -> anyhow::Result<Caller> {
        let host = usize::try_from(number).unwrap_or(0);
        Ok(Caller { rest: Self::clone(self), number: number.into(), connection: None, host, body: String::new() })
    }

    async fn syncs(&self) -> BTreeMap<String, u64> {
        let mut syncs = BTreeMap::new();
        for target in &self.targets {
            if let Some(count) = costs::syncs(target, CONNECT_WAIT).await {
                syncs.insert(target.host.clone(), count);
            }
        }
        syncs
    }
}

/// One client's way to the nodes.
pub struct Caller {
    rest: Rc<Rest>,
    number: u64,
    connection: Option<Connection>,
    /// Counts up; modulo the number of nodes, the one to ask.
    host: usize,
    body: String,
}

impl Client for Caller {
    async fn call(&mut self, sequence: u64, dice: &mut Dice) -> Done {
        let rest = Rc::clone(&self.rest);
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        rest.template.render(Turn { client: self.number, sequence }, dice, &mut body);
        let key = rest.retry.then(|| format!("{}-{}-{sequence}", rest.run_key, self.number));
        let deadline = now() + rest.timeout;
        let (mut pause, mut retries) = (PAUSES.0, 0);
        let (error, refusal) = loop {
            let sent = now();
            let (code, refusal, may_pass) = match self.attempt(&rest, key.as_deref(), &body, deadline).await {
                Ok(answer) if (200..300).contains(&answer.status) => break (None, None),
                Ok(answer) => {
                    let refusal = Refusal { after: now() - sent, says_when: answer.has_retry_after };
                    let refusal = REFUSALS.contains(&answer.status).then_some(refusal);
                    (code_of(&answer), refusal, answer.status == 429 || answer.status >= 500)
                }
                Err(error) => (code_of_error(&error).to_owned(), None, true),
            };
            let again = rest.retry && may_pass && now() + pause < deadline;
            // A node that refuses is there: the next call can go to it as well as to another, by the same connection.
            if may_pass && (again || refusal.is_none()) {
                self.host = self.host.wrapping_add(1);
                self.connection = None;
                tokio::time::sleep(pause).await;
                pause = PAUSES.1.min(pause * 2);
            }
            if !again {
                break (Some(code), refusal);
            }
            retries += 1;
        };
        self.body = body;
        Done { error, refusal, retries }
    }
}

impl Caller {
    async fn attempt(
        &mut self,
        rest: &Rest,
        key: Option<&str>,
        body: &str,
        deadline: Instant,
    ) -> std::io::Result<Answer> {
        let left = deadline.saturating_duration_since(now());
        let wait = if rest.retry { left.min(ATTEMPT_WAIT) } else { left };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&rest.targets[self.host % rest.targets.len()], wait.min(CONNECT_WAIT)).await?,
        };
        let (answer, usable) = tokio::time::timeout(wait, connection.post(&rest.path, key, body)).await??;
        self.connection = usable.then_some(connection);
        Ok(answer)
    }
}

/// What an answer that is not 2xx says is wrong.
pub(crate) fn code_of(answer: &Answer) -> String {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match problem.get("code").and_then(Value::as_str) {
        Some(code) => code.to_owned(),
        None => format!("http_{}", answer.status),
    }
}

fn code_of_error(error: &std::io::Error) -> &'static str {
    let found = ERROR_CODES.iter().find(|(kind, _)| *kind == error.kind());
    // Reset, aborted, end of file, broken pipe: the node went away.
    found.map_or("connection_lost", |(_, code)| code)
}

const ERROR_CODES: [(ErrorKind, &str); 4] = [
    (ErrorKind::ConnectionRefused, "connection_refused"),
    (ErrorKind::TimedOut, "no_answer_in_time"),
    (ErrorKind::InvalidData, "not_an_http_answer"),
    (ErrorKind::AddrNotAvailable, "no_local_port_left"),
];
