//! A function that does something else under the name and with the schemas of another one.

use std::sync::Arc;

use functions::{ExecutionContext, Failure, Function};
use serde_json::Value;

/// See the module.
pub(super) struct Instead {
    /// The shipped one.
    pub(super) function: Arc<dyn Function>,
    /// What is done in its place; it is given the shipped one.
    pub(super) execute: fn(&dyn Function, &mut ExecutionContext<'_>, Value) -> Result<Value, Failure>,
}

impl Function for Instead {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn description(&self) -> &str {
        self.function.description()
    }

    fn arguments_schema(&self) -> Value {
        self.function.arguments_schema()
    }

    fn result_schema(&self) -> Value {
        self.function.result_schema()
    }

    fn execute(&self, context: &mut ExecutionContext<'_>, arguments: Value) -> Result<Value, Failure> {
        (self.execute)(self.function.as_ref(), context, arguments)
    }
}
