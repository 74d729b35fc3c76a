//! Quorate over REST, as a system that is measured.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Deserialize;
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
    /// The function to call.
    pub function: String,
    /// How many calls go in each request; one alone goes to the route of its function. More than one are not sent again.
    pub batch: u32,
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
        let path = if self.batch > 1 { "/v1/calls".to_owned() } else { format!("/v1/functions/{}", self.function) };
        let body = String::new();
        Ok(Caller { rest: Self::clone(self), number: number.into(), path, connection: None, host, body })
    }

    fn calls_each(&self) -> u64 {
        self.batch.into()
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
    path: String,
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
        rest.write(self.number, sequence, dice, &mut body);
        let key = rest.retry.then(|| format!("{}-{}-{sequence}", rest.run_key, self.number));
        let deadline = now() + rest.timeout;
        let (mut pause, mut retries) = (PAUSES.0, 0);
        let (error, failed, refusal) = loop {
            let sent = now();
            let (code, refusal, may_pass) = match self.attempt(&rest, key.as_deref(), &body, deadline).await {
                Ok(answer) if (200..300).contains(&answer.status) => match rest.failed(&answer) {
                    Ok(failed) => break (None, failed, None),
                    Err(code) => (code.to_owned(), None, false),
                },
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
                break (Some(code), Vec::new(), refusal);
            }
            retries += 1;
        };
        self.body = body;
        Done { error, failed, refusal, retries }
    }
}

impl Rest {
    /// The body of a request: the arguments of one call, or many calls.
    fn write(&self, client: u64, sequence: u64, dice: &mut Dice, body: &mut String) {
        if self.batch == 1 {
            return self.template.render(Turn { client, sequence }, dice, body);
        }
        let first = sequence * u64::from(self.batch);
        for number in first..first + u64::from(self.batch) {
            body.push_str(if number == first { "[" } else { "," });
            body.push_str(&format!(r#"{{"function":{},"#, Value::from(&*self.function)));
            body.push_str(r#""arguments":"#);
            self.template.render(Turn { client, sequence: number }, dice, body);
            body.push('}');
        }
        body.push(']');
    }

    /// The codes of the calls that failed, of many.
    fn failed(&self, answer: &Answer) -> Result<Vec<String>, &'static str> {
        if self.batch == 1 {
            return Ok(Vec::new());
        }
        let outcomes: Vec<Outcome<'_>> = serde_json::from_slice(&answer.body).map_err(|_| "not_an_answer_to_many")?;
        if outcomes.len() != usize::try_from(self.batch).unwrap_or(usize::MAX) {
            return Err("answers_are_missing");
        }
        let failed = outcomes.into_iter().filter(|outcome| !(200..300).contains(&outcome.status));
        Ok(failed.map(|outcome| outcome.code.unwrap_or("no_code").to_owned()).collect())
    }
}

/// What matters of the outcome of one call of many.
#[derive(Deserialize)]
struct Outcome<'a> {
    status: u16,
    code: Option<&'a str>,
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
        let (answer, usable) = tokio::time::timeout(wait, connection.post(&self.path, key, body)).await??;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Law;

    fn rest(batch: u32) -> Rest {
        Rest {
            function: "kv.put".to_owned(),
            batch,
            template: Template::parse(r#"{"key": "k$client-$sequence"}"#).expect("a template"),
            targets: Vec::new(),
            retry: false,
            timeout: CONNECT_WAIT,
            run_key: "run".to_owned(),
        }
    }

    /// Catches a body that is not what the route takes, and a call that is sent twice in different requests.
    #[test]
    fn many_calls_go_in_one_request() {
        let written = |batch, sequence| {
            let mut body = String::new();
            rest(batch).write(7, sequence, &mut Dice::new(1, 7, Rc::new(Law::Even)), &mut body);
            serde_json::from_str::<Value>(&body).expect("JSON")
        };
        assert_eq!(written(1, 3), serde_json::json!({"key": "k7-3"}));
        let call =
            |number: u64| serde_json::json!({"function": "kv.put", "arguments": {"key": format!("k7-{number}")}});
        assert_eq!(written(2, 3), serde_json::json!([call(6), call(7)]));
    }

    /// Catches calls of a request that count as successes although they failed, and an answer that is not one for all.
    #[test]
    fn each_call_of_a_request_has_an_outcome() {
        let failed = |batch, body: &str| {
            let answer = Answer { status: 200, has_retry_after: false, body: body.as_bytes().to_vec() };
            rest(batch).failed(&answer)
        };
        assert_eq!(failed(1, "{}"), Ok(Vec::new()));
        let good = r#"{"status":200,"command":4,"result":{}}"#;
        let bad = r#"{"type":"about:blank","status":422,"code":"insufficient_stock","detail":"a \"few\""}"#;
        assert_eq!(failed(2, &format!("[{good},{good}]")), Ok(Vec::new()));
        assert_eq!(failed(2, &format!("[{good},{bad}]")), Ok(vec!["insufficient_stock".to_owned()]));
        assert_eq!(failed(2, &format!("[{good}]")), Err("answers_are_missing"));
        assert_eq!(failed(2, "{}"), Err("not_an_answer_to_many"));
    }
}
