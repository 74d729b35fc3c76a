//! Which functions there are, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::function::Function;
use crate::{auth, cluster, inventory, kv};

/// The functions of a node, by name. A clone shares the functions.
#[derive(Clone, Default)]
pub struct Registry {
    functions: BTreeMap<String, Arc<dyn Function>>,
}

/// Why a function was not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is already a function named {0}; give the new one another name")]
pub struct DuplicateName(pub String);

impl Registry {
    /// A registry without functions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A registry with the built-in libraries `auth`, `cluster`, `inventory` and `kv`.
    ///
    /// # Panics
    /// When two built-in functions have one name: our own mistake.
    #[must_use]
    pub fn with_builtins() -> Self {
        let mut registry = Self::new();
        let libraries = [auth::functions(), cluster::functions(), inventory::functions(), kv::functions()];
        for function in libraries.into_iter().flatten() {
            registry.register(function).expect("built-in functions have names of their own");
        }
        registry
    }

    /// Adds a function under its name.
    ///
    /// # Errors
    /// [`DuplicateName`] when there is one of that name; it stays.
    pub fn register(&mut self, function: Arc<dyn Function>) -> Result<(), DuplicateName> {
        let name = function.name().to_owned();
        if self.functions.contains_key(&name) {
            return Err(DuplicateName(name));
        }
        self.functions.insert(name, function);
        Ok(())
    }

    /// The function of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Function>> {
        self.functions.get(name)
    }

    /// All functions, in order of names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Function>> {
        self.functions.values()
    }
}

#[cfg(test)]
mod tests {
    use protocol::token::is_for_operators;
    use protocol::{Effect, Key};
    use serde_json::{Value, json};

    use super::*;
    use crate::function::{Failure, Placement};
    use crate::testing::{Closure, MapState};

    /// Catches a second function that silently replaces the first, and clones that do not share.
    #[test]
    fn a_name_is_registered_once() {
        let mut registry = Registry::with_builtins();
        let builtins: Vec<String> = registry.iter().map(|function| function.name().to_owned()).collect();
        assert_eq!(
            builtins,
            [
                "auth.token_create",
                "auth.token_revoke",
                "cluster.hand_over",
                "cluster.join",
                "cluster.remove",
                "cluster.set_acceptor",
                "cluster.set_rule",
                "inventory.inbound",
                "inventory.outbound",
                "inventory.transfer",
                "kv.compare_and_set",
                "kv.delete",
                "kv.increment",
                "kv.put"
            ]
        );
        assert_eq!(
            registry.register(Arc::new(Closure { name: "kv.put", ..Closure::inline(|_, _| Ok(Value::Null)) })),
            Err(DuplicateName("kv.put".to_owned()))
        );
        assert!(registry.get("test").is_none());
        let before = registry.clone();
        registry.register(Arc::new(Closure::inline(|_, _| Ok(Value::Null)))).expect("a new name");
        assert!(registry.get("test").is_some() && before.get("test").is_none());
        let put = |registry: &Registry| Arc::clone(registry.get("kv.put").expect("a built-in"));
        assert!(Arc::ptr_eq(&put(&registry), &put(&before)), "a clone shares its functions");
    }

    /// ADR 0038: catches a function that reads or writes a key which its arguments are not said to name, so that a caller
    /// reaches what he is not to; a new one that does not say; and arguments that are read in two ways.
    #[test]
    fn functions_touch_the_keys_that_they_say() {
        let mut state = MapState::new(&[("inventory/goods/A", "5"), ("inventory/screws/A", "5"), ("k", "1")]);
        let calls: &[(&str, &str, &[&str])] = &[
            ("inventory.inbound", r#"{"warehouse": "A", "amount": 1}"#, &["inventory/goods/A"]),
            ("inventory.inbound", r#"{"warehouse": "B", "amount": 0}"#, &["inventory/goods/B"]),
            ("inventory.outbound", r#"{"warehouse": "A", "amount": 9, "item": "screws"}"#, &["inventory/screws/A"]),
            (
                "inventory.transfer",
                r#"{"from": "A", "to": "B", "amount": 1, "item": "screws"}"#,
                &["inventory/screws/A", "inventory/screws/B"],
            ),
            ("kv.compare_and_set", r#"{"key": "k", "expected": 3, "value": 1}"#, &["k"]),
            ("kv.delete", r#"{"\u006bey": "\u006b", "if_match": []}"#, &["k"]),
            ("kv.increment", r#"{"key": "n/1"}"#, &["n/1"]),
            ("kv.put", r#"{"key": "a//b", "value": {"key": "k"}, "if_none_match": []}"#, &["a//b"]),
        ];
        let registry = Registry::with_builtins();
        for function in registry.iter().filter(|function| !is_for_operators(function.name())) {
            let name = function.name();
            assert!(calls.iter().any(|(called, ..)| *called == name), "{name} is new: say here which keys it touches");
            for wrong in ["{}", "[]", "", r#"{"key": "k", "key": "l", "value": 1}"#, r#"{"key": ""}"#] {
                let failure = crate::keys(function.as_ref(), &wrong.into());
                assert!(matches!(failure, Err(Failure::InvalidArguments(_))), "{name} {wrong}: {failure:?}");
            }
        }
        for (name, arguments, expected) in calls {
            let said = crate::keys(registry.get(name).expect("a built-in").as_ref(), &(*arguments).into());
            let said = said.expect("good arguments").unwrap_or_else(|| panic!("{name} does not say"));
            assert_eq!(said.iter().map(Key::as_str).collect::<Vec<_>>(), *expected, "{name} {arguments}");
            let execution = state.execute(name, arguments);
            assert!(execution.reads.scans.is_empty(), "{name} reads more than single keys");
            let written = execution.effects.iter().map(|(Effect::Put { key, .. } | Effect::Delete { key })| key);
            let touched: Vec<_> = execution.reads.keys.keys().chain(written).collect();
            assert!(touched.iter().all(|key| said.contains(key)), "{name} {arguments}: {touched:?}");
            state.apply(&execution.effects);
        }
        let silent = Closure::inline(|_, _| Ok(Value::Null));
        assert_eq!(crate::keys(&silent, &"{}".into()), Ok(None), "nothing is said unless it is");
    }

    /// Catches schemas that say something else than what the functions take: `GET /v1/functions`
    /// and generated clients rely on them.
    #[test]
    fn schemas_name_the_arguments_and_the_results() {
        for (name, arguments, required, results) in [
            (
                "cluster.join",
                &["address", "dry_run", "name", "replaces"][..],
                &["name", "address"][..],
                &["membership", "node"][..],
            ),
            ("cluster.remove", &["dry_run", "node"], &["node"], &["membership", "node"]),
            (
                "cluster.set_acceptor",
                &["dry_run", "for_good", "node", "replaces", "weight"],
                &["node"],
                &["membership", "node"],
            ),
            ("cluster.hand_over", &["dry_run", "node"], &["node"], &["leads", "name", "node"]),
            ("cluster.set_rule", &["dry_run", "majority_sets", "zones"], &[], &["membership", "node"]),
            ("inventory.inbound", &["amount", "item", "warehouse"], &["warehouse", "amount"], &["stock"]),
            ("inventory.outbound", &["amount", "item", "warehouse"], &["warehouse", "amount"], &["stock"]),
            ("inventory.transfer", &["amount", "from", "item", "to"], &["from", "to", "amount"], &["from", "to"]),
            ("kv.compare_and_set", &["expected", "key", "value"], &["key", "expected", "value"], &[]),
            ("kv.delete", &["if_match", "if_none_match", "key"], &["key"], &["deleted"]),
            ("kv.increment", &["by", "key"], &["key"], &["value"]),
            ("kv.put", &["base64", "if_match", "if_none_match", "key", "value"], &["key"], &[]),
        ] {
            let registry = Registry::with_builtins();
            let function = registry.get(name).expect("a built-in");
            let names = |schema: &Value| -> Vec<String> {
                schema["properties"].as_object().into_iter().flat_map(|all| all.keys().cloned()).collect()
            };
            let schema = function.arguments_schema();
            assert_eq!(names(&schema), arguments, "{name}");
            let needed = schema.get("required").cloned().unwrap_or_else(|| json!([]));
            assert_eq!(needed, json!(required), "{name}");
            assert_eq!(schema["additionalProperties"], json!(false), "{name}");
            assert!(!schema.to_string().contains(r#""default":null"#), "{name}: null is not an argument");
            assert_eq!(names(&function.result_schema()), results, "{name}");
            assert!(!function.description().is_empty());
            assert_eq!(function.placement(), Placement::Inline);
        }
    }
}
