//! Keys and values (A16): `put`, `delete`, `compare_and_set`, `increment`.
//!
//! A value given as JSON is stored as its own text without insignificant white space, so a
//! long number keeps all its digits; one given as `base64` is stored as those bytes. `put` and
//! `delete` take the preconditions of HTTP, as lists of versions: `if_match` (any of them, or,
//! when empty, any version at all: the key must exist) and `if_none_match` (none of them, or,
//! when empty, no version at all: the key must not exist).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use protocol::{Entry, Key};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::context::ExecutionContext;
use crate::function::{Failure, Function, Refusal};
use crate::text;
use crate::typed::{TypedFunction, present, without_null_defaults};

/// The functions of this library.
#[must_use]
pub fn functions() -> Vec<Arc<dyn Function>> {
    vec![
        Arc::new(
            TypedFunction::new("kv.put", "Sets the value of a key.", put)
                .of_keys(|arguments| Ok(vec![arguments.key.0.clone()])),
        ),
        Arc::new(
            TypedFunction::new("kv.delete", "Deletes a key.", delete)
                .of_keys(|arguments| Ok(vec![arguments.key.0.clone()])),
        ),
        Arc::new(
            TypedFunction::new(
                "kv.compare_and_set",
                "Sets the value of a key if its version is the expected one.",
                compare_and_set,
            )
            .of_keys(|arguments| Ok(vec![arguments.key.0.clone()])),
        ),
        Arc::new(
            TypedFunction::new("kv.increment", "Adds to the integer that a key holds.", increment)
                .of_keys(|arguments| Ok(vec![arguments.key.0.clone()])),
        ),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = without_null_defaults)]
#[schemars(extend("oneOf" = [{ "required": ["value"] }, { "required": ["base64"] }]))]
struct Put {
    /// The key, 1 to 1024 bytes.
    #[schemars(with = "String", length(min = 1, max = 1024))]
    key: KeyArgument,
    /// The value, any JSON, at most 1 MiB of text. Exactly one of `value` and `base64` is given.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Value")]
    value: Option<Box<RawValue>>,
    /// The value as bytes, at most 1 MiB of them, in base64 with padding.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "String", extend("contentEncoding" = "base64"))]
    base64: Option<String>,
    /// Put only if the key's version is one of these; with an empty list, only if the key exists.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Vec<u64>")]
    if_match: Option<Vec<u64>>,
    /// Put only if the key's version is none of these; with an empty list, only if the key does
    /// not exist.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Vec<u64>")]
    if_none_match: Option<Vec<u64>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = without_null_defaults)]
struct Delete {
    /// The key, 1 to 1024 bytes.
    #[schemars(with = "String", length(min = 1, max = 1024))]
    key: KeyArgument,
    /// Delete only if the key's version is one of these; with an empty list, only if the key
    /// exists.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Vec<u64>")]
    if_match: Option<Vec<u64>>,
    /// Delete only if the key's version is none of these; with an empty list, only if the key
    /// does not exist.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Vec<u64>")]
    if_none_match: Option<Vec<u64>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CompareAndSet {
    /// The key, 1 to 1024 bytes.
    #[schemars(with = "String", length(min = 1, max = 1024))]
    key: KeyArgument,
    /// The version that the key must have; 0: it must not exist.
    expected: u64,
    /// The value, any JSON, at most 1 MiB of text.
    #[schemars(with = "Value")]
    value: Box<RawValue>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Increment {
    /// The key, 1 to 1024 bytes. An absent one counts as 0.
    #[schemars(with = "String", length(min = 1, max = 1024))]
    key: KeyArgument,
    /// What to add, an integer of 64 bits with a sign.
    #[serde(default = "one")]
    by: i64,
}

#[derive(Serialize, JsonSchema)]
struct Empty {}

#[derive(Serialize, JsonSchema)]
struct Deleted {
    /// Whether the key was there.
    deleted: bool,
}

#[derive(Serialize, JsonSchema)]
struct Incremented {
    /// The value afterwards.
    value: i64,
}

fn put(context: &mut ExecutionContext<'_>, arguments: Put) -> Result<Empty, Failure> {
    let value = match (arguments.value, arguments.base64) {
        (Some(json), None) => text::compact(json.get()).into(),
        (None, Some(text)) => STANDARD
            .decode(text)
            .map_err(|error| Failure::InvalidArguments(format!("argument `base64`: not base64 with padding: {error}")))?
            .into(),
        (Some(_), Some(_)) | (None, None) => {
            return Err(Failure::InvalidArguments("give exactly one of `value` and `base64`".to_owned()));
        }
    };
    let key = arguments.key.0;
    check_preconditions(context, &key, arguments.if_match.as_deref(), arguments.if_none_match.as_deref())?;
    context.put(key, value)?;
    Ok(Empty {})
}

fn delete(context: &mut ExecutionContext<'_>, arguments: Delete) -> Result<Deleted, Failure> {
    let key = arguments.key.0;
    check_preconditions(context, &key, arguments.if_match.as_deref(), arguments.if_none_match.as_deref())?;
    Ok(Deleted { deleted: context.delete(key)? })
}

fn compare_and_set(context: &mut ExecutionContext<'_>, arguments: CompareAndSet) -> Result<Empty, Failure> {
    let key = arguments.key.0;
    let version = version_of(context.get(&key)?.as_ref());
    if version != arguments.expected {
        return Err(refusal("version_mismatch", format!("{}, not {}", says(&key, version), arguments.expected)));
    }
    context.put(key, text::compact(arguments.value.get()).into())?;
    Ok(Empty {})
}

fn increment(context: &mut ExecutionContext<'_>, arguments: Increment) -> Result<Incremented, Failure> {
    let key = arguments.key.0;
    let number: i64 = match context.get(&key)? {
        None => 0,
        Some(entry) => serde_json::from_slice(&entry.value).map_err(|_| {
            refusal("not_a_number", format!("the value of {key} is not an integer from {} to {}", i64::MIN, i64::MAX))
        })?,
    };
    let value = number.checked_add(arguments.by).ok_or_else(|| {
        let text = format!("{number} plus {} is not from {} to {}", arguments.by, i64::MIN, i64::MAX);
        refusal("overflow", text)
    })?;
    context.put(key, Bytes::from(value.to_string()))?;
    Ok(Incremented { value })
}

/// Reads the key only where there is a precondition: a plain put depends on nothing.
fn check_preconditions(
    context: &mut ExecutionContext<'_>,
    key: &Key,
    if_match: Option<&[u64]>,
    if_none_match: Option<&[u64]>,
) -> Result<(), Failure> {
    if if_match.is_none() && if_none_match.is_none() {
        return Ok(());
    }
    let version = version_of(context.get(key)?.as_ref());
    let listed = |versions: &[u64]| version != ABSENT && (versions.is_empty() || versions.contains(&version));
    if if_match.is_some_and(|versions| !listed(versions)) {
        return Err(refusal(
            "precondition_failed",
            format!("{}, which If-Match (`if_match`) does not allow", says(key, version)),
        ));
    }
    if if_none_match.is_some_and(listed) {
        let text = format!("{}, which If-None-Match (`if_none_match`) does not allow", says(key, version));
        return Err(refusal("precondition_failed", text));
    }
    Ok(())
}

/// The version of a key that does not exist: no command has number 0.
const ABSENT: u64 = 0;

fn version_of(entry: Option<&Entry>) -> u64 {
    entry.map_or(ABSENT, |entry| entry.version.0)
}

fn says(key: &Key, version: u64) -> String {
    match version {
        ABSENT => format!("{key} does not exist (version 0)"),
        _ => format!("{key} has version {version}"),
    }
}

fn refusal(code: &'static str, message: String) -> Failure {
    Failure::Refused(Refusal { code, message, may_pass: false })
}

fn one() -> i64 {
    1
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct KeyArgument(Key);

impl TryFrom<String> for KeyArgument {
    type Error = protocol::state::KeyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Key::new(text).map(Self)
    }
}

#[cfg(test)]
mod tests;
