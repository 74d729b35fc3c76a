//! The trait that every function implements.

use protocol::{Key, StateError};
use serde_json::Value;

use crate::context::ExecutionContext;

/// Where a function runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// In line with the leader, which waits for it: functions of microseconds.
    Inline,
    /// On a pool of threads, against a snapshot of the leader state; what it read is certified
    /// afterwards, and it runs again if that has changed.
    Pool,
}

/// A function says no. It has changed nothing, and the caller gets the code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Stable, such as `insufficient_stock`.
    pub code: &'static str,
    /// A sentence for the caller that says what would be right.
    pub message: String,
    /// "Not now": the refusal may pass when what the function read changes, so that a caller
    /// willing to wait is kept and tried again.
    pub may_pass: bool,
}

/// Why an execution has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The function refuses.
    Refused(Refusal),
    /// The arguments are not what the function takes; a sentence for the caller.
    InvalidArguments(String),
    /// A limit was exceeded (effects, bytes, keys): a sentence for the caller.
    TooLarge(String),
    /// The state could not be read: the node stops.
    State(StateError),
    /// The function panicked, with what it said. Found by the executor, never returned by a
    /// function.
    Panicked(String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// A function of the two-tier state machine. Executed by the leader only.
pub trait Function: Send + Sync {
    /// The name that callers use, such as `inventory.transfer`.
    fn name(&self) -> &str;

    /// One sentence for `GET /v1/functions`.
    fn description(&self) -> &str;

    /// The JSON Schema of the arguments.
    fn arguments_schema(&self) -> Value;

    /// The JSON Schema of the result.
    fn result_schema(&self) -> Value;

    /// Where it runs.
    fn placement(&self) -> Placement {
        Placement::Inline
    }

    /// Whether the function takes arguments of this form, as far as their text alone says: a
    /// node that is not the leader asks, too. What is let through may be refused when it runs.
    ///
    /// # Errors
    /// [`Failure::InvalidArguments`].
    fn check_text(&self, _arguments: &str) -> Result<(), Failure> {
        Ok(())
    }

    /// The keys that such a call may read or write, and no others, as far as the arguments say: what a caller who is
    /// confined to some keys is measured by (ADR 0038). `None`: they do not say, and such a caller needs a token that names
    /// the function in full.
    ///
    /// # Errors
    /// [`Failure::InvalidArguments`].
    fn keys(&self, _arguments: &str) -> Result<Option<Vec<Key>>, Failure> {
        Ok(None)
    }

    /// Runs the function.
    ///
    /// # Errors
    /// [`Failure`]; nothing that was written through the context then counts.
    fn execute(&self, context: &mut ExecutionContext<'_>, arguments: Value) -> Result<Value, Failure>;

    /// Runs the function on the caller's own text; this is what [`run`](crate::run) calls. Only a
    /// function to which the text matters implements it: a [`Value`] rounds long numbers.
    ///
    /// # Errors
    /// As [`Function::execute`]; [`Failure::InvalidArguments`] for a text that is not JSON.
    fn execute_text(&self, context: &mut ExecutionContext<'_>, arguments: &str) -> Result<Value, Failure> {
        let arguments = serde_json::from_str(arguments)
            .map_err(|error| Failure::InvalidArguments(format!("the arguments are not JSON: {error}")))?;
        self.execute(context, arguments)
    }
}
