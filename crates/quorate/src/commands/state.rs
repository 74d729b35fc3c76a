//! `quorate get`, `put` and `delete`.

use std::io::{IsTerminal as _, stdout};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{Condition, Connection, Consistency, Delete, Get, Output, Put};
use crate::client::{Reply, Request, argument_or_stdin, send, show, state_path};
use crate::failure::Failure;

/// Reads one key.
///
/// # Errors
/// The server's problem, such as an absent key.
pub(crate) fn get(get: &Get) -> Result<(), Failure> {
    let consistency = match get.consistency {
        Consistency::Linearizable => "linearizable",
        Consistency::Local => "local",
    };
    let mut path = format!("{}?consistency={consistency}", state_path(&get.key)?);
    if let Some(number) = get.min_command {
        path.push_str(&format!("&min_command={number}"));
    }
    let reply = send(&get.connection, &Request::new(Method::GET, path))?;
    match get.connection.output {
        Output::Json => show(format!("{}\n", entry(&get.key, &reply)))?,
        Output::Text => {
            // Into a file go the bytes of the value and no others.
            let end: &[u8] = if stdout().is_terminal() { b"\n" } else { b"" };
            show([&reply.body[..], end].concat())?;
        }
    }
    Ok(())
}

/// An entry as the list of the state shows it, with what the read says about itself.
fn entry(key: &str, reply: &Reply) -> Value {
    let value = serde_json::from_slice(&reply.body)
        .unwrap_or_else(|_| json!({ "base64": BASE64_STANDARD.encode(&reply.body) }));
    let version = reply.header("ETag").and_then(|tag| tag.trim_matches('"').parse::<u64>().ok());
    let command = reply.header("Quorate-Command").and_then(|number| number.parse::<u64>().ok());
    json!({
        "key": key,
        "value": value,
        "version": version,
        "command": command,
        "time": reply.header("Quorate-Time"),
        "consistency": reply.header("Quorate-Consistency"),
    })
}

/// Writes one key.
///
/// # Errors
/// The server's problem, such as a failed precondition.
pub(crate) fn put(put: &Put) -> Result<(), Failure> {
    let value = argument_or_stdin(&put.value)?;
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&value).is_ok();
    let content_type = if is_json { "application/json" } else { "application/octet-stream" };
    let mut request = write_request(Method::PUT, &put.key, &put.condition)?;
    request.headers.push(("Content-Type", content_type.to_owned()));
    request.body = Some(value);
    show_command(&put.connection, &send(&put.connection, &request)?)
}

/// Deletes one key.
///
/// # Errors
/// The server's problem, such as a failed precondition.
pub(crate) fn delete(delete: &Delete) -> Result<(), Failure> {
    let request = write_request(Method::DELETE, &delete.key, &delete.condition)?;
    show_command(&delete.connection, &send(&delete.connection, &request)?)
}

fn write_request(method: Method, key: &str, condition: &Condition) -> Result<Request, Failure> {
    let mut request = Request::new(method, state_path(key)?).with_key(condition.idempotency_key.as_deref());
    match condition.if_version {
        Some(0) => request.headers.push(("If-None-Match", "*".to_owned())),
        Some(version) => request.headers.push(("If-Match", format!("\"{version}\""))),
        None => {}
    }
    Ok(request)
}

fn show_command(connection: &Connection, reply: &Reply) -> Result<(), Failure> {
    let answer = if reply.body.is_empty() { Value::Null } else { reply.json()? };
    Ok(match connection.output {
        Output::Json => show(format!("{answer}\n")),
        Output::Text => match answer.get("command").and_then(Value::as_u64) {
            Some(command) => show(format!("command {command}\n")),
            None => show("no command: nothing changed\n"),
        },
    }?)
}
