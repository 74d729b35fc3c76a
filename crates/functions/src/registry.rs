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
    use serde_json::{Value, json};

    use super::*;
    use crate::function::Placement;
    use crate::testing::Closure;

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
