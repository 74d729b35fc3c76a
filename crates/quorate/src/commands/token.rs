//! `quorate token create | list | revoke`: who may do what.

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{CreateToken, ListTokens, Output, RevokeToken, Token};
use crate::client::{Request, percent_encode, send, show};
use crate::failure::Failure;

/// Asks, and shows what came of it.
///
/// # Errors
/// The problem that the server reports, or that no node could be reached.
pub(crate) fn run(token: &Token) -> Result<(), Failure> {
    match token {
        Token::Create(create) => made(create),
        Token::List(list) => listed(list),
        Token::Revoke(revoke) => revoked(revoke),
    }
}

fn made(create: &CreateToken) -> Result<(), Failure> {
    let CreateToken { name, read, call, operate, keys, expires, connection } = create;
    let mut body = json!({"name": name, "read": read, "call": call, "operate": operate});
    if !keys.is_empty() {
        body["keys"] = json!(keys);
    }
    if let Some(expires) = expires {
        body["expires_in"] = json!(expires);
    }
    let mut request = Request::new(Method::POST, "/v1/tokens");
    request.headers.push(("Content-Type", "application/json".to_owned()));
    request.body = Some(body.to_string());
    let made = send(connection, &request)?.json()?;
    if connection.output == Output::Json {
        return Ok(show(format!("{made}\n"))?);
    }
    Ok(show(format!("{}\n", made["token"].as_str().unwrap_or_default()))?)
}

fn listed(list: &ListTokens) -> Result<(), Failure> {
    let listed = send(&list.connection, &Request::new(Method::GET, "/v1/tokens"))?.json()?;
    if list.connection.output == Output::Json {
        return Ok(show(format!("{listed}\n"))?);
    }
    let tokens = listed["tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(show(tokens.iter().map(line).collect::<String>())?)
}

/// One token: id, name, what it allows, until when.
fn line(token: &Value) -> String {
    let text = |field: &str| token[field].as_str().unwrap_or_default();
    let mut allows = Vec::new();
    for right in ["read", "operate"] {
        if token[right] == true {
            allows.push(right.to_owned());
        }
    }
    let list = |field: &str| token[field].as_array().map(Vec::as_slice).unwrap_or_default();
    allows.extend(list("call").iter().filter_map(Value::as_str).map(|pattern| format!("call {pattern}")));
    // Quoted: keys may hold any character.
    allows.extend(list("keys").iter().map(|start| format!("keys {start}")));
    let until = token["expires"].as_str().map_or_else(|| "does not expire".to_owned(), |at| format!("until {at}"));
    format!("{}  {}  {}; {until}\n", text("id"), text("name"), allows.join(", "))
}

fn revoked(revoke: &RevokeToken) -> Result<(), Failure> {
    let path = format!("/v1/tokens/{}", percent_encode(&revoke.id));
    let revoked = send(&revoke.connection, &Request::new(Method::DELETE, path).with_key(None))?.json()?;
    if revoke.connection.output == Output::Json {
        return Ok(show(format!("{revoked}\n"))?);
    }
    let name = revoked["result"]["name"].as_str().unwrap_or_default();
    Ok(show(format!(
        "{name} is revoked; each node knows it as soon as it has applied command {}\n",
        revoked["command"]
    ))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a list in which one right passes for another.
    #[test]
    fn a_line_says_what_a_token_allows() {
        let token =
            json!({"id": "00ff", "name": "ci", "read": true, "operate": false, "call": ["kv.*"], "expires": null});
        assert_eq!(line(&token), "00ff  ci  read, call kv.*; does not expire\n");
        let confined = json!({"id": "00ff", "name": "ci", "read": true, "keys": ["a/", "\u{1b}[2J"], "expires": null});
        assert_eq!(line(&confined), "00ff  ci  read, keys \"a/\", keys \"\\u001b[2J\"; does not expire\n");
    }
}
