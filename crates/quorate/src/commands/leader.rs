//! `quorate leader`: which node leads. `POST /v1/cluster/leader`.

use reqwest::Method;
use serde_json::{Value, json};

use super::acceptor::{ask, node_of};
use crate::cli::{Leader, Output, Transfer};
use crate::client::show;
use crate::failure::Failure;

/// Hands the lead over, or only says whether the node could lead.
///
/// # Errors
/// The refusal, with its reason.
pub(crate) fn run(Leader::Transfer(Transfer { node, change }): &Leader) -> Result<(), Failure> {
    let dry_run = if change.dry_run { "?dry_run=true" } else { "" };
    let answer = ask(Method::POST, format!("/v1/cluster/leader{dry_run}"), &json!({"node": node_of(node)}), change)?;
    let text = match change.connection.output {
        Output::Json => format!("{answer}\n"),
        Output::Text => said(&answer, change.dry_run),
    };
    Ok(show(text)?)
}

fn said(answer: &Value, dry_run: bool) -> String {
    let result = &answer["result"];
    let (name, leads) = (result["name"].as_str().unwrap_or("?"), result["leads"].as_bool() == Some(true));
    if leads {
        format!("leader: {name}\n")
    } else if dry_run {
        format!("{name} could lead\nnothing was changed (--dry-run)\n")
    } else {
        format!("{name} is asked to lead\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a dry run that looks like the deed.
    #[test]
    fn it_says_who_leads() {
        let answer = |leads: bool| json!({"command": null, "result": {"node": 2, "name": "b", "leads": leads}});
        assert_eq!(said(&answer(true), false), "leader: b\n");
        assert!(said(&answer(false), true).starts_with("b could lead\nnothing was changed"));
    }
}
