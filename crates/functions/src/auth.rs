//! Tokens (ADR 0029): `token_create`, `token_revoke`. Which there are is read from the state.
//!
//! The secret of a token is made by the gateway that is asked for one, which passes on its hash: so it is in no command, no
//! stored outcome and no message between nodes.

use std::sync::Arc;
use std::time::Duration;

use protocol::token::{self, PATTERNS_MAX, PREFIX, Rights, TOKENS_MAX, Token};
use protocol::{Key, StateError, Timestamp, membership};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::ExecutionContext;
use crate::function::{Failure, Function, Refusal};
use crate::typed::{TypedFunction, present, without_null_defaults};

/// The longest life of a token that expires: ten years. More is no life that anybody plans.
const SECONDS_MAX: u64 = 10 * 366 * 24 * 60 * 60;

/// The functions of this library.
#[must_use]
pub fn functions() -> Vec<Arc<dyn Function>> {
    vec![
        Arc::new(TypedFunction::new(
            "auth.token_create",
            "Makes a token, whose secret only its owner has. `POST /v1/tokens` makes the secret too.",
            create,
        )),
        Arc::new(TypedFunction::new("auth.token_revoke", "Takes a token out of use.", revoke)),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = without_null_defaults)]
struct Create {
    /// Its id, 16 hexadecimal digits that no other token has.
    id: String,
    /// What people call it: letters, digits, `.`, `_`, `-`. No other token has it.
    name: String,
    /// The hash (BLAKE3) of what its owner presents, 64 hexadecimal digits.
    hash: String,
    /// Read the state, the commands, the cluster, and metrics.
    #[serde(default)]
    read: bool,
    /// Call these functions: each a name, or a beginning followed by `*`.
    #[serde(default)]
    call: Vec<String>,
    /// Change the membership, make and revoke tokens, take backups.
    #[serde(default)]
    operate: bool,
    /// Read and call with keys only that begin so; empty: with all. Not with `operate`, which reaches all.
    #[serde(default)]
    keys: Vec<String>,
    /// After so many seconds it counts no more; without it, it does not expire.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "u64")]
    expires_in: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Revoke {
    /// The token, by id or name.
    token: String,
}

#[derive(Serialize, JsonSchema)]
struct Created {
    /// Its id.
    id: String,
    /// From when on it counts no more, in milliseconds since 1970; null: it does not expire.
    expires: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct Revoked {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
}

fn create(context: &mut ExecutionContext<'_>, arguments: Create) -> Result<Created, Failure> {
    let wrong = |text: &str| Failure::InvalidArguments(text.to_owned());
    let key = token::key(&arguments.id).ok_or_else(|| wrong("id: must be 16 hexadecimal digits"))?;
    let hash = token::hash_of(&arguments.hash).ok_or_else(|| wrong("hash: must be 64 hexadecimal digits"))?;
    if !membership::is_name(&arguments.name) {
        return Err(wrong("name: must be 1 to 64 letters, digits, '.', '_' or '-'"));
    }
    if arguments.call.len() > PATTERNS_MAX || !arguments.call.iter().all(|pattern| token::is_pattern(pattern)) {
        return Err(wrong("call: must be at most 64 names of functions, each perhaps a beginning followed by '*'"));
    }
    if arguments.expires_in.is_some_and(|seconds| !(1..=SECONDS_MAX).contains(&seconds)) {
        return Err(wrong("expires_in: must be 1 second to ten years"));
    }
    if arguments.keys.len() > PATTERNS_MAX || !arguments.keys.iter().all(|start| token::is_beginning(start)) {
        return Err(wrong("keys: must be at most 64 beginnings of keys, of 1 to 128 bytes each"));
    }
    let Create { read, call, operate, keys, .. } = arguments;
    let rights = Rights { read, call, operate, keys };
    if !rights.read && rights.call.is_empty() && !rights.operate {
        return Err(wrong("a token without rights is of no use; give read, call or operate"));
    }
    if rights.operate && rights.is_confined() {
        return Err(wrong("keys: operate reaches all keys, by backups and tokens; give keys with read or call only"));
    }
    let others = all(context)?;
    if others.len() >= TOKENS_MAX {
        return Err(refusal("too_many_tokens", format!("there are {TOKENS_MAX} tokens already; revoke some")));
    }
    if others.iter().any(|(taken, token)| *taken == key || token.name == arguments.name) {
        let text = format!("there is a token of that id, or named {}, already", arguments.name);
        return Err(refusal("token_taken", text));
    }
    let created = context.now();
    let life = |seconds: u64| u64::try_from(Duration::from_secs(seconds).as_millis()).unwrap_or(u64::MAX);
    let expires = arguments.expires_in.map(|seconds| Timestamp(created.0.saturating_add(life(seconds))));
    let token = Token { name: arguments.name, hash, rights, created, expires };
    context.put_reserved(key, Some(token.to_value()))?;
    Ok(Created { id: arguments.id, expires: expires.map(|expires| expires.0) })
}

fn revoke(context: &mut ExecutionContext<'_>, arguments: Revoke) -> Result<Revoked, Failure> {
    let found = all(context)?
        .into_iter()
        .find(|(key, token)| token::id_of(key) == Some(arguments.token.as_str()) || token.name == arguments.token);
    let Some((key, token)) = found else {
        return Err(refusal("unknown_token", "there is no such token".to_owned()));
    };
    let id = token::id_of(&key).unwrap_or_default().to_owned();
    context.put_reserved(key, None)?;
    Ok(Revoked { id, name: token.name })
}

/// All tokens.
fn all(context: &mut ExecutionContext<'_>) -> Result<Vec<(Key, Token)>, Failure> {
    let found = context.scan(PREFIX, None, TOKENS_MAX)?;
    // One of a later version, which is no reason for the leader to stop.
    let read = |(key, entry): (Key, protocol::Entry)| {
        let token = Token::read(&entry).map_err(|StateError(why)| refusal("unreadable_token", why))?;
        Ok((key, token))
    };
    found.into_iter().map(read).collect()
}

fn refusal(code: &'static str, message: String) -> Failure {
    Failure::Refused(Refusal { code, message, may_pass: false })
}

#[cfg(test)]
mod tests;
