//! Every role state and every input that the search meets, each once and by number.
//!
//! The cores are pure, so what an input does to a role in a given state is computed once and
//! remembered. A state of the cluster is then a handful of numbers, and the search runs the
//! shipped cores some ten thousand times, not once for each of millions of states.

#![expect(clippy::disallowed_types, reason = "nothing here iterates over a map")]

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use functions::Registry;
use protocol::CommandId;

use simulator::planted::no_barrier;

use super::cluster::{Config, Plant};
use super::roles::{Input, Role, genesis};

/// A role in one state.
pub(crate) type RoleId = u32;
/// An input and who takes it.
pub(crate) type InputId = u32;

/// What an input does to a role.
pub(crate) struct Step {
    pub(crate) next: RoleId,
    pub(crate) sends: Vec<InputId>,
    pub(crate) tells: Vec<InputId>,
    pub(crate) issues: Vec<CommandId>,
    pub(crate) broken: bool,
}

/// See the module.
pub(crate) struct Space {
    config: Config,
    functions: Registry,
    tables: RwLock<Tables>,
}

#[derive(Default)]
pub(crate) struct Tables {
    roles: Numbered<Role>,
    inputs: Numbered<Input>,
    steps: HashMap<(RoleId, InputId), Arc<Step>>,
}

/// Things of one kind, each once and by number.
pub(crate) struct Numbered<T> {
    by_id: Vec<Arc<T>>,
    ids: HashMap<Arc<T>, u32>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { by_id: Vec::new(), ids: HashMap::new() }
    }
}

impl<T: Eq + std::hash::Hash> Numbered<T> {
    pub(crate) fn id(&mut self, item: T) -> u32 {
        if let Some(id) = self.ids.get(&item) {
            return *id;
        }
        let id = u32::try_from(self.by_id.len()).expect("far fewer than 2^32");
        let item = Arc::new(item);
        self.by_id.push(Arc::clone(&item));
        self.ids.insert(item, id);
        id
    }

    pub(crate) fn get(&self, id: u32) -> &T {
        &self.by_id[id as usize]
    }
}

impl Tables {
    pub(crate) fn role(&self, id: RoleId) -> &Role {
        self.roles.get(id)
    }

    pub(crate) fn input(&self, id: InputId) -> &Input {
        self.inputs.get(id)
    }

    /// How many role states, inputs and steps there are.
    pub(crate) fn sizes(&self) -> [usize; 3] {
        [self.roles.by_id.len(), self.inputs.by_id.len(), self.steps.len()]
    }
}

fn functions(config: &Config) -> Registry {
    let all = Registry::with_builtins();
    if config.plant == Some(Plant::NoBarrier) { no_barrier::registry(&all, &genesis(config)) } else { all }
}

impl Space {
    pub(crate) fn new(config: Config) -> Self {
        Self { functions: functions(&config), config, tables: RwLock::default() }
    }

    pub(crate) fn look(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn role_id(&self, role: Role) -> RoleId {
        self.change().roles.id(role)
    }

    pub(crate) fn input_id(&self, input: Input) -> InputId {
        if let Some(id) = self.look().inputs.ids.get(&input) {
            return *id;
        }
        self.change().inputs.id(input)
    }

    pub(crate) fn step(&self, role: RoleId, input: InputId) -> Arc<Step> {
        let (core, what) = {
            let tables = self.look();
            if let Some(step) = tables.steps.get(&(role, input)) {
                return Arc::clone(step);
            }
            (Arc::clone(&tables.roles.by_id[role as usize]), Arc::clone(&tables.inputs.by_id[input as usize]))
        };
        let (next, outcome) = core.step(&what.what, &self.config, &self.functions);
        let mut tables = self.change();
        let next = tables.roles.id(next);
        let sends = outcome.sends.into_iter().map(|input| tables.inputs.id(input)).collect();
        let tells = outcome.tells.into_iter().map(|input| tables.inputs.id(input)).collect();
        let step = Arc::new(Step { next, sends, tells, issues: outcome.issues, broken: outcome.broken });
        tables.steps.insert((role, input), Arc::clone(&step));
        step
    }
}
