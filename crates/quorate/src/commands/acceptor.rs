//! `quorate acceptor`: which nodes vote. Calls of `cluster.set_acceptor` and `cluster.remove`.

use reqwest::Method;
use serde_json::{Value, json};

use super::call::whole_seconds;
use crate::cli::{Acceptor, Add, Change, Output, Remove, Replace};
use crate::client::{Request, send, show};
use crate::failure::Failure;

/// Changes the membership, or only says what would be done, and shows who votes then.
///
/// # Errors
/// The refusal, with its reason.
pub(crate) fn run(acceptor: &Acceptor) -> Result<(), Failure> {
    match acceptor {
        Acceptor::Add(Add { node, weight, change }) => {
            call("cluster.set_acceptor", json!({"node": node_of(node), "weight": weight}), false, change)
        }
        Acceptor::Remove(Remove { node, for_good: false, change }) => {
            call("cluster.set_acceptor", json!({"node": node_of(node), "weight": 0}), false, change)
        }
        Acceptor::Remove(Remove { node, for_good: true, change }) => {
            call("cluster.remove", json!({"node": node_of(node)}), true, change)
        }
        Acceptor::Replace(Replace { old, new, weight, for_good, change }) => {
            let mut arguments = json!({"node": node_of(new), "replaces": node_of(old), "for_good": for_good});
            if let Some(weight) = weight {
                arguments["weight"] = (*weight).into();
            }
            call("cluster.set_acceptor", arguments, *for_good, change)
        }
    }
}

/// By id where it is a number, else by name.
pub(super) fn node_of(node: &str) -> Value {
    node.parse::<u64>().map_or_else(|_| Value::from(node), Value::from)
}

fn call(function: &str, mut arguments: Value, for_good: bool, change: &Change) -> Result<(), Failure> {
    arguments["dry_run"] = change.dry_run.into();
    let answer = ask(Method::POST, format!("/v1/functions/{function}"), &arguments, change)?;
    let text = match change.connection.output {
        Output::Json => format!("{answer}\n"),
        Output::Text => said(&answer, change.dry_run) + &until_when(&answer, for_good && !change.dry_run),
    };
    Ok(show(text)?)
}

/// Asks for a change of the cluster.
pub(super) fn ask(method: Method, path: String, body: &Value, change: &Change) -> Result<Value, Failure> {
    let mut request = Request::new(method, path).with_key(None);
    request.headers.push(("Content-Type", "application/json".to_owned()));
    if let Some(wait) = change.wait {
        request.headers.push(("Prefer", format!("wait={}", whole_seconds(wait))));
        request.wait = Some(wait);
    }
    request.body = Some(body.to_string());
    Ok(send(&change.connection, &request)?.json()?)
}

/// Who votes, and by which command.
pub(super) fn said(answer: &Value, dry_run: bool) -> String {
    let nodes = answer["result"]["membership"]["nodes"].as_array().cloned().unwrap_or_default();
    let voters = nodes.iter().filter(|node| node["weight"].as_u64() > Some(0)).map(|node| {
        let (name, weight) = (node["name"].as_str().unwrap_or("?"), node["weight"].as_u64().unwrap_or(1));
        if weight == 1 { name.to_owned() } else { format!("{name} ({weight})") }
    });
    let voters = voters.collect::<Vec<_>>().join(", ");
    match answer["command"].as_u64() {
        Some(command) if !dry_run => format!("acceptors: {voters}\ncommand {command}\n"),
        _ if dry_run => format!("acceptors would be: {voters}\nnothing was changed (--dry-run)\n"),
        _ => format!("acceptors: {voters}\nno command: it was so\n"),
    }
}

/// How long the disk of a node is still needed that has left: until then it may be the one that has what was decided.
fn until_when(answer: &Value, is_gone: bool) -> String {
    let command = answer["command"].as_u64().filter(|_| is_gone);
    command.map_or_else(String::new, |command| {
        format!("keep its disk until DURABLE of most nodes is {command} or more: quorate status\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches learners that are shown as voters, weights that are not said, and a dry run that looks like the deed.
    #[test]
    fn it_says_who_votes() {
        let node = |name: &str, weight: u64| json!({"name": name, "weight": weight});
        let membership = json!({"nodes": [node("a", 1), node("b", 2), node("c", 0)]});
        let answer = json!({"command": 17, "result": {"membership": membership}});
        assert_eq!(said(&answer, false), "acceptors: a, b (2)\ncommand 17\n");
        assert!(said(&answer, true).starts_with("acceptors would be: a, b (2)\nnothing was changed"));
        let same = json!({"command": null, "result": {"membership": membership}});
        assert!(said(&same, false).contains("it was so"));
        assert_eq!(until_when(&same, true) + &until_when(&answer, false), "");
        assert!(until_when(&answer, true).contains("DURABLE of most nodes is 17 or more"));
        assert_eq!((node_of("3"), node_of("d")), (json!(3), json!("d")));
    }
}
