//! `quorate majority`: which sets of acceptors are majority sets. `POST /v1/cluster/majority`.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::acceptor::{ask, node_of, said};
use crate::cli::{Majority, Nodes, Output, SetMajority};
use crate::client::show;
use crate::failure::Failure;

/// Changes the majority sets, or only says what would be done, and shows who votes then and which sets decide.
///
/// # Errors
/// The refusal, with its reason.
pub(crate) fn run(Majority::Set(set): &Majority) -> Result<(), Failure> {
    let change = &set.change;
    let dry_run = if change.dry_run { "?dry_run=true" } else { "" };
    let answer = ask(Method::POST, format!("/v1/cluster/majority{dry_run}"), &body(set)?, change)?;
    let text = match change.connection.output {
        Output::Json => format!("{answer}\n"),
        Output::Text => format!("{}{}", decides(&answer), said(&answer, change.dry_run)),
    };
    Ok(show(text)?)
}

fn body(set: &SetMajority) -> Result<Value, Failure> {
    let listed = |Nodes(nodes): &Nodes| Value::from_iter(nodes.iter().map(|node| node_of(node)));
    if set.zones.is_empty() {
        // Without any, weights decide.
        return Ok(json!({"majority_sets": set.sets.iter().map(listed).collect::<Vec<_>>()}));
    }
    let mut zones = Map::new();
    for (zone, nodes) in &set.zones {
        if zones.insert(zone.clone(), listed(nodes)).is_some() {
            return Err(Failure::Usage(format!("--zone {zone}: is there twice; give all of its nodes at once")));
        }
    }
    Ok(json!({ "zones": zones }))
}

/// Which sets decide.
fn decides(answer: &Value) -> String {
    let membership = &answer["result"]["membership"];
    let Some(sets) = membership["majority_sets"].as_array() else {
        return "majority: more than half of the weights\n".to_owned();
    };
    let nodes = membership["nodes"].as_array().into_iter().flatten();
    let names: BTreeMap<u64, &str> =
        nodes.filter_map(|node| Some((node["id"].as_u64()?, node["name"].as_str()?))).collect();
    let named = |set: &Value| {
        let ids = set.as_array().into_iter().flatten().filter_map(Value::as_u64);
        let set: Vec<&str> = ids.map(|id| names.get(&id).copied().unwrap_or("?")).collect();
        format!("{{{}}}", set.join(", "))
    };
    format!("majority sets: {}\n", sets.iter().map(named).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(words: &[&str]) -> Result<Value, String> {
        let all = ["quorate", "majority", "set"].iter().chain(words);
        let Command::Majority(Majority::Set(set)) =
            Cli::try_parse_from(all).map_err(|error| error.to_string())?.command
        else {
            panic!("another command")
        };
        body(&set).map_err(|error| error.to_string())
    }

    /// Catches sets that are asked for otherwise than they were written, words of which a part is ignored, and a command
    /// without any, which would give up the list.
    #[test]
    fn the_words_become_the_sets() {
        assert_eq!(parsed(&["a,2", "2, c"]), Ok(json!({"majority_sets": [["a", 2], [2, "c"]]})));
        assert_eq!(parsed(&["--weights", "--dry-run"]), Ok(json!({"majority_sets": []})));
        let zones = parsed(&["--zone", "east=a,b", "--zone", "west=c"]);
        assert_eq!(zones, Ok(json!({"zones": {"east": ["a", "b"], "west": ["c"]}})));
        for (wrong, says) in [
            (&[][..], "required"),
            (&["a,b", "--weights"], "cannot be used with"),
            (&["a,b", "--zone", "x=a"], "cannot be used with"),
            (&["a,,b"], "such as a,b"),
            (&["--zone", "a,b"], "such as east=a,b,c"),
            (&["--zone", "x=a", "--zone", "x=b"], "twice"),
        ] {
            let error = parsed(wrong).expect_err("no sets");
            assert!(error.contains(says), "{wrong:?}: {error}");
        }
    }

    /// Catches sets that are shown by numbers which no operator knows, and weights that are not said.
    #[test]
    fn it_says_which_sets_decide() {
        let nodes = json!([{"id": 1, "name": "a", "weight": 1}, {"id": 2, "name": "b", "weight": 1}]);
        let answer =
            |sets: Value| json!({"command": 17, "result": {"membership": {"nodes": nodes, "majority_sets": sets}}});
        assert_eq!(decides(&answer(json!([[1], [1, 2]]))), "majority sets: {a} {a, b}\n");
        assert_eq!(decides(&answer(Value::Null)), "majority: more than half of the weights\n");
    }
}
