//! Functions whose arguments and result are Rust types: serde reads the arguments and writes
//! the result, schemars describes both, and the body is a plain Rust function.
//!
//! The arguments are read from the caller's own text, never by way of a [`Value`], so that a
//! field that wants the text of a number as it was written
//! ([`RawValue`](serde_json::value::RawValue)) gets it.

use protocol::Key;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::context::ExecutionContext;
use crate::function::{Failure, Function};

/// A function made of a name, a sentence and a Rust function.
pub struct TypedFunction<A, R> {
    name: &'static str,
    description: &'static str,
    body: fn(&mut ExecutionContext<'_>, A) -> Result<R, Failure>,
    keys: Option<KeysOf<A>>,
}

/// Which keys arguments name.
type KeysOf<A> = fn(&A) -> Result<Vec<Key>, Failure>;

impl<A, R> TypedFunction<A, R> {
    /// The function `name`, described in one sentence, that runs `body` in line.
    pub const fn new(
        name: &'static str,
        description: &'static str,
        body: fn(&mut ExecutionContext<'_>, A) -> Result<R, Failure>,
    ) -> Self {
        Self { name, description, body, keys: None }
    }

    /// The same function, of which the arguments say all keys that it may read or write ([`Function::keys`]).
    #[must_use]
    pub fn of_keys(self, keys: KeysOf<A>) -> Self {
        Self { keys: Some(keys), ..self }
    }
}

impl<A, R> Function for TypedFunction<A, R>
where
    A: DeserializeOwned + JsonSchema,
    R: Serialize + JsonSchema,
{
    fn name(&self) -> &str {
        self.name
    }

    fn description(&self) -> &str {
        self.description
    }

    fn arguments_schema(&self) -> Value {
        SchemaGenerator::default().into_root_schema_for::<A>().to_value()
    }

    fn result_schema(&self) -> Value {
        SchemaGenerator::default().into_root_schema_for::<R>().to_value()
    }

    fn check_text(&self, arguments: &str) -> Result<(), Failure> {
        parse::<A>(arguments).map(drop)
    }

    fn keys(&self, arguments: &str) -> Result<Option<Vec<Key>>, Failure> {
        self.keys.map(|keys| keys(&parse(arguments)?)).transpose()
    }

    fn execute(&self, context: &mut ExecutionContext<'_>, arguments: Value) -> Result<Value, Failure> {
        self.execute_text(context, &arguments.to_string())
    }

    fn execute_text(&self, context: &mut ExecutionContext<'_>, arguments: &str) -> Result<Value, Failure> {
        let result = (self.body)(context, parse(arguments)?)?;
        // A result type that is no JSON (a map with keys that are not strings) is a mistake in
        // the function, like a panic of its body.
        serde_json::to_value(result)
            .map_err(|error| Failure::Panicked(format!("{}: the result is not JSON: {error}", self.name)))
    }
}

/// Reads arguments, and says which field is wrong.
fn parse<A: DeserializeOwned>(arguments: &str) -> Result<A, Failure> {
    let invalid = |message: String| Failure::InvalidArguments(message);
    // Serde would take the fields from an array too, by position.
    if !arguments.trim_start().starts_with('{') {
        return Err(invalid("the arguments must be one JSON object".to_owned()));
    }
    let mut deserializer = serde_json::Deserializer::from_str(arguments);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let at = if path == "." { String::new() } else { format!("argument `{path}`: ") };
        invalid(format!("{at}{}", error.inner()))
    })?;
    deserializer.end().map_err(|error| invalid(error.to_string()))?;
    Ok(parsed)
}

/// An argument that may be left out, but not given as `null`: a `null` that meant a version
/// must not turn a conditional put into an unconditional one.
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The schema's side of [`present`]: an argument left out is not the same as `null`.
pub(crate) fn without_null_defaults(schema: &mut Schema) {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(|properties| properties.values_mut()) {
        if let Some(property) = property.as_object_mut()
            && property.get("default") == Some(&Value::Null)
        {
            property.remove("default");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use protocol::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::testing::MapState;

    /// Catches a typed function that takes other arguments as a value than as text.
    #[test]
    fn a_value_is_taken_like_its_text() {
        let state = MapState::default();
        let mut context = ExecutionContext::new(&state, Timestamp(1), 1);
        let double = TypedFunction::new("double", "Doubles.", |_, numbers: BTreeMap<String, u64>| {
            Ok(numbers.into_iter().map(|(name, number)| (name, number * 2)).collect::<BTreeMap<_, _>>())
        });
        assert_eq!(double.execute(&mut context, json!({"a": 4})), Ok(json!({"a": 8})));
        assert_eq!(double.execute_text(&mut context, r#" {"a": 4} "#), Ok(json!({"a": 8})));
        let wrong = double.execute(&mut context, json!({"a": "4"}));
        assert_eq!(wrong, double.execute_text(&mut context, r#"{"a":"4"}"#));
        assert!(
            matches!(&wrong, Err(Failure::InvalidArguments(message)) if message.starts_with("argument `a`: ")),
            "{wrong:?}"
        );
    }

    /// S-09: catches a result type that cannot be written as JSON and takes the leader down.
    #[test]
    fn a_result_that_is_not_json_is_a_failure() {
        let state = MapState::default();
        let mut context = ExecutionContext::new(&state, Timestamp(1), 1);
        let function = TypedFunction::new("pairs", "Has keys that are lists.", |_, _: BTreeMap<String, u64>| {
            Ok(BTreeMap::from([(vec![1_u8], 2_u8)]))
        });
        let result = function.execute_text(&mut context, "{}");
        assert!(matches!(&result, Err(Failure::Panicked(message)) if message.contains("not JSON")), "{result:?}");
    }
}
