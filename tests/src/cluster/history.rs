//! The issued commands as `GET /v1/commands` tells them, and what they add up to.

use std::collections::BTreeMap;

use serde_json::Value;

use super::http::send;

/// All commands from number 1 on: dense, each decided by a function, or it could not be made.
#[derive(Clone, Debug, PartialEq)]
pub struct History(Vec<Value>);

impl History {
    /// Reads all commands from the node at `url`, in pages.
    pub async fn read(client: &reqwest::Client, url: &str) -> Self {
        let mut commands: Vec<Value> = Vec::new();
        let mut from = Some(1);
        while let Some(first) = from {
            let page = send(client.get(format!("{url}/v1/commands?limit=1000&from={first}"))).await;
            let page = page.expect("a living node answers");
            assert_eq!(page.status, 200, "{page:?}");
            let page = page.json();
            commands.extend(page["commands"].as_array().expect("a list").iter().cloned());
            from = page["next"].as_u64();
        }
        for (command, number) in commands.iter().zip(1..) {
            assert_eq!(command["number"], number, "numbers have no gaps: {command}");
            let changes = command["effects"].as_array().is_some_and(|effects| !effects.is_empty());
            assert_eq!(command["kind"], if changes { "function" } else { "answer" }, "{command}");
        }
        Self(commands)
    }

    #[cfg(test)]
    pub(super) fn of(commands: Vec<Value>) -> Self {
        Self(commands)
    }

    /// The number of the last command; 0 when there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.0.len() as u64
    }

    /// How many commands are no changes of the membership, which nodes ask for by themselves.
    #[must_use]
    pub fn of_callers(&self) -> usize {
        let is_change = |command: &Value| command["function"].as_str().is_some_and(|name| name.starts_with("cluster."));
        self.0.iter().filter(|command| !is_change(command)).count()
    }

    /// The commands, from number 1 on.
    #[must_use]
    pub fn commands(&self) -> &[Value] {
        &self.0
    }

    /// What was so when `number` was the last command.
    #[must_use]
    pub fn through(&self, number: u64) -> Self {
        let number = usize::try_from(number).expect("a command that there is");
        Self(self.0[..number].to_vec())
    }

    /// The numbers of the commands of each request.
    #[must_use]
    pub fn by_request(&self) -> BTreeMap<&str, Vec<u64>> {
        let mut numbers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (command, number) in self.0.iter().zip(1..) {
            numbers.entry(command["request_id"].as_str().expect("text")).or_default().push(number);
        }
        numbers
    }

    /// The state that the commands make, applied in order: value and version of each key.
    #[must_use]
    pub fn state(&self) -> BTreeMap<&str, (&Value, u64)> {
        let mut state = BTreeMap::new();
        for (command, number) in self.0.iter().zip(1..) {
            for effect in command["effects"].as_array().expect("a list") {
                if let Some(key) = effect["put"]["key"].as_str() {
                    state.insert(key, (&effect["put"]["value"], number));
                } else {
                    state.remove(effect["delete"]["key"].as_str().expect("a put or a delete"));
                }
            }
        }
        state
    }

    /// The sum of all stocks.
    #[must_use]
    pub fn stock(&self) -> u64 {
        let stocks = self.state().into_iter().filter(|(key, _)| key.starts_with("inventory/"));
        stocks.map(|(_, (stock, _))| stock.as_u64().expect("a stock")).sum()
    }

    /// Checks a page of `GET /v1/state`, which holds everything, against these commands.
    pub fn assert_state(&self, page: &Value) {
        assert_eq!(page["next"], Value::Null, "there are more keys than this check was made for");
        let entries = page["entries"].as_array().expect("a list").iter();
        let entry = |entry: &Value| {
            let key = entry["key"].as_str().expect("text").to_owned();
            (key, (entry["value"].clone(), entry["version"].as_u64().expect("a number")))
        };
        let shown: BTreeMap<String, (Value, u64)> = entries.map(entry).collect();
        let state = self.state().into_iter().map(|(key, (value, version))| (key.to_owned(), (value.clone(), version)));
        assert_eq!(shown, state.collect(), "the state is not what the commands make");
    }
}
