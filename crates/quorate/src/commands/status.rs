//! `quorate status`.

use reqwest::Method;
use serde_json::Value;

use crate::cli::{Output, Status};
use crate::client::{Request, send, show};
use crate::failure::Failure;

/// Shows the cluster as the first node that answers sees it.
///
/// # Errors
/// When no node answers.
pub(crate) fn run(status: &Status) -> Result<(), Failure> {
    let reply = send(&status.connection, &Request::new(Method::GET, "/v1/cluster"))?;
    let cluster = reply.json()?;
    match status.connection.output {
        Output::Json => show(format!("{cluster}\n"))?,
        Output::Text => show(table(&cluster, reply.header("Quorate-Node").unwrap_or("?")))?,
    }
    Ok(())
}

/// The answer of `GET /v1/cluster` as a table.
fn table(cluster: &Value, seen_by: &str) -> String {
    let text = |value: &Value, name: &str| match value.get(name) {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::Null | Value::String(_)) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let leader = cluster.get("leader").filter(|leader| !leader.is_null());
    let leads = match leader {
        Some(leader) => format!("{} leads", text(leader, "name")),
        None => "nobody leads".to_owned(),
    };
    let mut lines =
        format!("cluster {}: {leads}, majority {}, seen by {seen_by}\n", text(cluster, "name"), text(cluster, "rule"));
    lines.push_str(&change_of(cluster));
    let head = ["ID", "NAME", "STATE", "WEIGHT", "BALLOT", "ISSUED", "APPLIED", "DURABLE", "REST", "PEER", "ROLES"];
    let mut rows: Vec<Vec<String>> = vec![head.iter().map(ToString::to_string).collect()];
    for node in cluster.get("nodes").and_then(Value::as_array).into_iter().flatten() {
        let reachable = node.get("reachable").and_then(Value::as_bool).unwrap_or(false);
        let state = match leader {
            _ if !reachable => "not heard".to_owned(),
            Some(leader) if leader.get("id") == node.get("id") => format!("leader{}", trouble_of(node)),
            Some(_) | None => format!("up{}", trouble_of(node)),
        };
        let roles = node.get("roles").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let addresses = node.get("addresses").unwrap_or(&Value::Null);
        rows.push(vec![
            text(node, "id"),
            text(node, "name"),
            state,
            weight_of(cluster, node.get("id")),
            text(node, "ballot"),
            text(node, "issued"),
            text(node, "applied"),
            text(node, "durable"),
            text(addresses, "http"),
            text(addresses, "peer"),
            roles.collect::<Vec<_>>().join(","),
        ]);
    }
    let widths: Vec<usize> =
        (0..head.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        lines.push_str(cells.join("  ").trim_end());
        lines.push('\n');
    }
    lines
}

/// A change of the membership that not all have applied.
fn change_of(cluster: &Value) -> String {
    let membership = &cluster["membership"];
    let change = &membership["change"];
    if !change.is_object() {
        return String::new();
    }
    let waits = change["not_applied"].as_array().into_iter().flatten().filter_map(|node| node["name"].as_str());
    let waits = waits.collect::<Vec<_>>().join(", ");
    let far = if change["in_force"] == true { "in force" } else { "not in force yet" };
    format!("change of the membership, command {}: {far}; not applied by {waits}\n", membership["number"])
}

/// What keeps a node that is up from its part, as far as the node that was asked knows.
fn trouble_of(node: &Value) -> String {
    let word = |name: &str| node.get(name).and_then(Value::as_str);
    let silent = match word("silent") {
        Some("damaged") => ", silent: log damaged",
        Some("behind") => ", silent: state lost",
        Some("fresh") => ", silent: new disk",
        Some("replaced") => ", silent: disk lost",
        // Of another node it is known that it is.
        Some(_) => ", silent",
        None => "",
    };
    let space = match word("space") {
        Some("low") => ", little space",
        Some("out") => ", no space",
        Some(_) | None => "",
    };
    format!("{silent}{space}")
}

/// What the vote of a node weighs; `-` where it has none.
fn weight_of(cluster: &Value, id: Option<&Value>) -> String {
    let acceptors = cluster["membership"]["acceptors"].as_array().into_iter().flatten();
    let mut weights =
        acceptors.filter(|acceptor| acceptor.get("id") == id).filter_map(|acceptor| acceptor["weight"].as_u64());
    weights.next().map_or_else(|| "-".to_owned(), |weight| weight.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Catches a node that is called up although it does not vote, or takes nothing any more.
    #[test]
    fn a_node_in_trouble_is_not_simply_up() {
        for (node, state) in [
            (json!({"silent": null, "space": "ample"}), "up"),
            (json!({"silent": "damaged", "space": "ample"}), "up, silent: log damaged"),
            (json!({"silent": "yes", "space": "low"}), "up, silent, little space"),
            (json!({"space": "out"}), "up, no space"),
        ] {
            let mut node = node;
            (node["id"], node["reachable"]) = (json!(1), json!(true));
            let table = table(&json!({"nodes": [node]}), "a");
            assert!(table.lines().any(|line| line.contains(&format!("{state}  "))), "{state}: {table}");
        }
        let away = json!({"id": 1, "reachable": false, "silent": "yes", "space": "out"});
        assert!(table(&json!({"nodes": [away]}), "a").contains("not heard  "), "what it said is not so any more");
    }

    /// Catches a change of the membership that nobody sees, or one that is over and still shown.
    #[test]
    fn a_change_under_way_is_said() {
        let said = |change: Value| table(&json!({"membership": {"number": 17, "change": change}}), "a");
        let waits = json!({"in_force": false, "not_applied": [{"id": 2, "name": "b"}, {"id": 3, "name": "c"}]});
        let line = "\nchange of the membership, command 17: not in force yet; not applied by b, c\n";
        assert!(said(waits).contains(line));
        assert!(
            said(json!({"in_force": true, "not_applied": [{"id": 3, "name": "c"}]}))
                .contains(": in force; not applied by c\n")
        );
        assert!(!said(Value::Null).contains("change"));
    }

    /// Catches a table that calls a dead node up, or a leader that is not marked.
    #[test]
    fn the_table_says_who_leads_and_who_is_not_heard() {
        let cluster = json!({
            "name": "demo", "rule": "2 of 3", "leader": {"id": 2, "name": "b"},
            "membership": {"number": 0, "acceptors": [{"id": 2, "weight": 3}]},
            "nodes": [
                {"id": 1, "name": "a", "reachable": false, "ballot": "7.2", "issued": 9, "applied": 9, "durable": 4,
                 "roles": ["acceptor"], "addresses": {"http": "", "peer": "p1"}},
                {"id": 2, "name": "b", "reachable": true, "ballot": "7.2", "issued": 12, "applied": 12, "durable": 9,
                 "roles": ["acceptor", "leader"], "addresses": {"http": "h2", "peer": "p2"}},
            ],
        });
        let table = table(&cluster, "b");
        let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(table.lines().next(), Some("cluster demo: b leads, majority 2 of 3, seen by b"));
        assert_eq!(words[2], ["1", "a", "not", "heard", "-", "7.2", "9", "9", "4", "-", "p1", "acceptor"]);
        assert_eq!(words[3], ["2", "b", "leader", "3", "7.2", "12", "12", "9", "h2", "p2", "acceptor,leader"]);
    }
}
