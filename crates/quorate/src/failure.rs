//! How a command ends that did not do what it was asked.

use std::fmt;
use std::process::ExitCode;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::config::ConfigError;

/// Why a command failed; shown as one line.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong usage or configuration: exit code 2.
    Usage(String),
    /// A node answered that it does not do what it was asked.
    Refused(Refusal),
    /// What was asked for is on standard output, and how it failed stands in it: exit code 1.
    Reported(anyhow::Error),
    /// Anything else: exit code 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Refused(refusal) if refusal.is_wrong_usage() => ExitCode::from(2),
            Self::Refused(_) | Self::Reported(_) | Self::Failed(_) => ExitCode::from(1),
        }
    }

    /// For a program that reads standard output: the problem document of the node, or one like
    /// it. `None` when there is something on standard output already.
    pub(crate) fn document(&self) -> Option<Value> {
        let own = |code: &str, outcome: &str| {
            let detail = self.to_string();
            json!({"type": "about:blank", "title": code, "code": code, "detail": detail, "outcome": outcome})
        };
        match self {
            Self::Usage(_) => Some(own("usage", "not_executed")),
            Self::Refused(refusal) => Some(refusal.document.clone()),
            Self::Reported(_) => None,
            // A node that did not answer may have executed what it was asked.
            Self::Failed(_) => Some(own("failed", "unknown")),
        }
    }
}

/// Characters of what another server says that are shown.
const SAID_MAX: usize = 300;

/// A node's problem document.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    document: Value,
    /// What was asked changes nothing.
    read: bool,
    /// What to do, where the node cannot know it.
    advice: &'static str,
}

impl Refusal {
    /// Reads the answer; one without a problem document, as another server gives, gets one from
    /// its status, and the first line of what it says.
    pub(crate) fn new(status: StatusCode, body: &[u8]) -> Self {
        let document = serde_json::from_slice(body).ok().filter(Value::is_object).unwrap_or_else(|| {
            let title = status.canonical_reason().unwrap_or("an unknown status");
            let code = title.to_lowercase().replace(' ', "_");
            let said = String::from_utf8_lossy(body);
            let line = said.lines().next().unwrap_or_default().trim();
            let is_text = !line.is_empty() && !line.starts_with('<') && !line.contains(char::is_control);
            let detail: String = if is_text { line.chars().take(SAID_MAX).collect() } else { title.to_owned() };
            json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail, "code": code, "outcome": "unknown"})
        });
        Self { status, document, read: false, advice: "" }
    }

    /// The answer to a request that changes nothing: there is no outcome to ask for.
    pub(crate) fn of_read(self) -> Self {
        Self { read: true, ..self }
    }

    /// Adds what to do about a lack of a leader.
    pub(crate) fn without_leader(self, advice: &'static str) -> Self {
        let lacks = self.field("code").is_some_and(|code| ["no_leader", "no_majority"].contains(&code.as_str()));
        Self { advice: if lacks { advice } else { "" }, ..self }
    }

    fn field(&self, name: &str) -> Option<String> {
        self.document.get(name).and_then(Value::as_str).map(|text| text.replace('\n', " "))
    }

    /// Only the nodes know how long a wait may be.
    fn is_wrong_usage(&self) -> bool {
        self.field("code").is_some_and(|code| code == "invalid_prefer")
    }
}

/// One line: code, sentence, and the one thing to know.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.field("code").unwrap_or_else(|| "no_code".to_owned());
        let detail = self.field("detail").or_else(|| self.field("title"));
        let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
        let outcome = match self.field("outcome").as_deref() {
            _ if self.read => "",
            Some("not_executed") => "; it was not executed",
            Some("unknown") => "; whether it was executed is unknown: ask again with the same key",
            Some(_) | None => "",
        };
        write!(f, "{code}{detail} (HTTP {}{outcome}){}", self.status.as_u16(), self.advice)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(line) => f.write_str(line),
            Self::Refused(refusal) => refusal.fmt(f),
            // With the causes, on one line.
            Self::Failed(error) | Self::Reported(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.0)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
