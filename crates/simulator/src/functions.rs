//! The functions of a simulated node: the built-in ones, and two of the simulator's own.
//!
//! `test.slow` runs on the pool, so that it is certified and sometimes runs again; `test.dice` is
//! as nondeterministic as a function can be. Every execution is noted in [`Executions`], by which
//! a world tells that a function ran, and where.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use functions::{ExecutionContext, Failure, Function, Placement, Registry};
use protocol::Key;
use serde_json::{Value, json};

/// The name of the function that runs on the pool.
pub const SLOW: &str = "test.slow";
/// The name of the function that decides by chance: the only one that decides differently when
/// it runs again on the same state.
pub const DICE: &str = "test.dice";

/// The most bytes that `test.slow` leaves under its key: the newest ones, so that a long run
/// does not write ever longer values.
const SLOW_BYTES: usize = 64;

/// The names of the functions that ran on a node, in order. A clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Executions(Arc<Mutex<Vec<String>>>);

impl Executions {
    /// What has run since this was last asked.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many have run since [`Executions::take`] was last asked.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn note(&self, function: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(function.to_owned());
    }
}

/// All functions of a node.
///
/// # Panics
/// When two functions have one name: our own mistake.
#[must_use]
pub fn all() -> Registry {
    all_keeping(SLOW_BYTES)
}

/// The same, where `test.slow` leaves at most so many bytes.
fn all_keeping(bytes: usize) -> Registry {
    let mut registry = Registry::with_builtins();
    let own: [Arc<dyn Function>; 2] = [Arc::new(Slow { bytes }), Arc::new(Dice)];
    for function in own {
        registry.register(function).expect("functions have names of their own");
    }
    registry
}

/// All functions of a node; each execution is noted in `executions`, repetitions included.
///
/// # Panics
/// When two functions have one name: our own mistake.
#[must_use]
pub fn registry(executions: &Executions) -> Registry {
    noted(&all(), executions)
}

/// The same, where `test.slow` leaves all that was ever appended: for short runs that look at it.
///
/// # Panics
/// When two functions have one name: our own mistake.
#[must_use]
pub fn registry_keeping_all(executions: &Executions) -> Registry {
    noted(&all_keeping(usize::MAX), executions)
}

pub(crate) fn noted(functions: &Registry, executions: &Executions) -> Registry {
    let mut registry = Registry::new();
    for inner in functions.iter().cloned() {
        let noted = Noted { inner, executions: executions.clone() };
        registry.register(Arc::new(noted)).expect("functions have names of their own");
    }
    registry
}

/// A function whose executions are noted.
struct Noted {
    inner: Arc<dyn Function>,
    executions: Executions,
}

impl Function for Noted {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn description(&self) -> &str {
        self.inner.description()
    }

    fn arguments_schema(&self) -> Value {
        self.inner.arguments_schema()
    }

    fn result_schema(&self) -> Value {
        self.inner.result_schema()
    }

    fn placement(&self) -> Placement {
        self.inner.placement()
    }

    fn execute(&self, context: &mut ExecutionContext<'_>, arguments: Value) -> Result<Value, Failure> {
        self.execute_text(context, &arguments.to_string())
    }

    fn execute_text(&self, context: &mut ExecutionContext<'_>, arguments: &str) -> Result<Value, Failure> {
        self.executions.note(self.inner.name());
        self.inner.execute_text(context, arguments)
    }
}

struct Slow {
    bytes: usize,
}

impl Function for Slow {
    fn name(&self) -> &str {
        SLOW
    }

    fn description(&self) -> &str {
        "Appends a text to the value of a key, on the pool, and keeps the end of it."
    }

    fn arguments_schema(&self) -> Value {
        json!({"type": "object"})
    }

    fn result_schema(&self) -> Value {
        json!({"type": "string"})
    }

    fn placement(&self) -> Placement {
        Placement::Pool
    }

    fn execute(&self, context: &mut ExecutionContext<'_>, arguments: Value) -> Result<Value, Failure> {
        let text = |name: &str| {
            let text = arguments[name].as_str().filter(|text| text.is_ascii());
            text.ok_or_else(|| Failure::InvalidArguments(format!("`{name}` is a text in ASCII")))
        };
        let key = Key::new(text("key")?).map_err(|error| Failure::InvalidArguments(error.to_string()))?;
        let mut value = context.get(&key)?.map_or_else(Vec::new, |entry| entry.value.to_vec());
        value.extend_from_slice(text("append")?.as_bytes());
        let kept = value.split_off(value.len().saturating_sub(self.bytes));
        let result = String::from_utf8_lossy(&kept).into_owned();
        context.put(key, kept.into())?;
        Ok(Value::String(result))
    }
}

struct Dice;

impl Function for Dice {
    fn name(&self) -> &str {
        DICE
    }

    fn description(&self) -> &str {
        "Puts a random number under the key `dice`."
    }

    fn arguments_schema(&self) -> Value {
        json!({"type": "object"})
    }

    fn result_schema(&self) -> Value {
        json!({"type": "integer"})
    }

    fn execute(&self, context: &mut ExecutionContext<'_>, _: Value) -> Result<Value, Failure> {
        let thrown = context.random();
        let key = Key::new("dice").map_err(|error| Failure::InvalidArguments(error.to_string()))?;
        context.put(key, thrown.to_string().into())?;
        Ok(json!(thrown))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use functions::Execution;
    use protocol::Timestamp;
    use storage::memory::MemoryState;

    use super::*;

    fn run(registry: &Registry, name: &str, entropy: u64, arguments: &str) -> Execution {
        let function = registry.get(name).expect("a function of this name");
        let arguments = Bytes::copy_from_slice(arguments.as_bytes());
        let state = MemoryState::new();
        functions::run(function.as_ref(), ExecutionContext::new(&state, Timestamp(1), entropy), &arguments)
    }

    /// A1i: catches an execution that is not noted, so that a follower could run functions unseen.
    #[test]
    fn each_execution_is_noted_once() {
        let executions = Executions::default();
        let registry = registry(&executions);
        for (name, arguments) in [("kv.put", r#"{"key":"a","value":1}"#), ("kv.put", "{}"), (DICE, "{}")] {
            let _ = run(&registry, name, 1, arguments);
        }
        assert_eq!(executions.take(), ["kv.put", "kv.put", DICE]);
        assert_eq!(executions.take(), [""; 0]);
    }

    /// Catches a dice that always falls alike, a slow function that does not, and values that grow
    /// without end.
    #[test]
    fn only_the_dice_depends_on_chance() {
        let registry = registry(&Executions::default());
        assert_ne!(run(&registry, DICE, 1, "{}"), run(&registry, DICE, 2, "{}"));
        let arguments = format!(r#"{{"key":"log","append":"{}"}}"#, "x".repeat(SLOW_BYTES + 1));
        let slow = run(&registry, SLOW, 1, &arguments);
        assert_eq!(slow, run(&registry, SLOW, 2, &arguments));
        assert_eq!(slow.result, Ok(Bytes::from(format!("\"{}\"", "x".repeat(SLOW_BYTES)))));
        assert!(matches!(run(&registry, SLOW, 1, "{}").result, Err(Failure::InvalidArguments(_))));
    }
}
