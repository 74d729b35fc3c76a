//! One execution of a function, from argument text to result and effects.
//!
//! Whatever happens in it, nothing stays but what the returned [`Execution`] holds: a function
//! that refuses, fails, exceeds a limit or panics has no effects (S-09).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use protocol::{Effect, Key, NodeId, Verdict};
use serde_json::Value;

use crate::context::{ExecutionContext, ReadSet};
use crate::function::{Failure, Function};
use crate::text;

/// The longest argument text, in bytes: the largest value (1 MiB) in base64, with room around it.
pub const ARGUMENTS_BYTES_MAX: usize = 2 << 20;
/// The longest result text, in bytes: like a value, it is stored on every replica and travels
/// whole.
pub const RESULT_BYTES_MAX: usize = 1 << 20;
/// How deep arguments may be nested. As serde_json's own limit, which does not look into
/// values that are kept as text.
pub const ARGUMENTS_DEPTH_MAX: usize = 127;

/// What came of one execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The function's result as JSON text, or why there is none.
    pub result: Result<Bytes, Failure>,
    /// What it wrote, one effect a key, in order of keys; empty when there is no result.
    pub effects: Vec<Effect>,
    /// What it read, with a failure too: a "not now" waits until some of it changes.
    pub reads: ReadSet,
    /// Who is to lead from now on: only with a result.
    pub successor: Option<NodeId>,
}

impl Execution {
    /// What the function decided.
    ///
    /// # Errors
    /// Why it came to no decision: never [`Failure::Refused`].
    pub fn verdict(&self) -> Result<Verdict, &Failure> {
        match &self.result {
            Ok(result) if self.effects.is_empty() => Ok(Verdict::Unchanged(result.clone())),
            Ok(result) => Ok(Verdict::Changed(result.clone())),
            Err(Failure::Refused(refusal)) => {
                Ok(Verdict::Refused { code: refusal.code.to_owned(), message: refusal.message.clone() })
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Executes a function in a fresh context. Never panics, and never lets the function's panic out.
#[must_use]
pub fn run(function: &dyn Function, mut context: ExecutionContext<'_>, arguments: &Bytes) -> Execution {
    let returned = check_arguments(arguments).and_then(|text| {
        // Unwind safety: after a panic nothing of the context is used but its reads, and the
        // state is behind a reference through which a function can only read.
        catch_unwind(AssertUnwindSafe(|| function.execute_text(&mut context, text)))
            .unwrap_or_else(|panic| Err(Failure::Panicked(panic_text(panic.as_ref()))))
    });
    let successor = context.successor();
    let (effects, reads) = context.finish();
    let outcome = effects.and_then(|effects| Ok((result_text(&returned?)?, effects)));
    match outcome {
        Ok((result, effects)) => Execution { result: Ok(result), effects, reads, successor },
        Err(failure) => Execution { result: Err(failure), effects: Vec::new(), reads, successor: None },
    }
}

/// Whether a function could be executed with these arguments at all, in any state; nothing is
/// executed.
///
/// # Errors
/// What [`run`] would say to them: [`Failure::InvalidArguments`] or [`Failure::TooLarge`].
pub fn check(function: &dyn Function, arguments: &Bytes) -> Result<(), Failure> {
    function.check_text(check_arguments(arguments)?)
}

/// The keys that a call of a function with these arguments may read or write ([`Function::keys`]).
///
/// # Errors
/// What [`check`] would say to them.
pub fn keys(function: &dyn Function, arguments: &Bytes) -> Result<Option<Vec<Key>>, Failure> {
    function.keys(check_arguments(arguments)?)
}

/// The arguments as text: UTF-8, not too long, not too deep.
fn check_arguments(arguments: &Bytes) -> Result<&str, Failure> {
    if arguments.len() > ARGUMENTS_BYTES_MAX {
        return Err(Failure::TooLarge(format!(
            "arguments have at most {ARGUMENTS_BYTES_MAX} bytes, these have {}",
            arguments.len()
        )));
    }
    let text = std::str::from_utf8(arguments)
        .map_err(|error| Failure::InvalidArguments(format!("the arguments are not UTF-8: {error}")))?;
    if text::depth(text) > ARGUMENTS_DEPTH_MAX {
        return Err(Failure::InvalidArguments(format!(
            "the arguments are nested too deep: at most {ARGUMENTS_DEPTH_MAX} levels"
        )));
    }
    Ok(text)
}

fn result_text(result: &Value) -> Result<Bytes, Failure> {
    let text = result.to_string();
    if text.len() > RESULT_BYTES_MAX {
        return Err(Failure::TooLarge(format!(
            "a result has at most {RESULT_BYTES_MAX} bytes, this one has {}",
            text.len()
        )));
    }
    Ok(text.into())
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;
