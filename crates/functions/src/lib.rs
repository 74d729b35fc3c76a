//! What runs on the leader: functions, their execution context, the registry, and the built-in
//! libraries `auth`, `cluster`, `inventory` and `kv`.
//!
//! A function is executed once, by the leader, against the leader state. What it reads and
//! writes goes through its [`ExecutionContext`]; it returns a result or a [`Refusal`]. What it
//! wrote becomes the effects of a command; only those, never the function, reach the other
//! nodes, so a function may be as nondeterministic as it likes: time and chance come from the
//! context too. A function that refuses or fails has changed nothing (S-09).

pub mod auth;
pub mod cluster;
mod context;
mod function;
pub mod inventory;
pub mod kv;
mod registry;
mod run;
#[cfg(test)]
mod testing;
mod text;
mod typed;

pub use cluster::{is_in_force, successor};
pub use context::{
    Cluster, EFFECTS_BYTES_MAX, EFFECTS_MAX, ExecutionContext, Heard, READS_MAX, ReadSet, SCAN_LIMIT_MAX, ScanRead,
};
pub use function::{Failure, Function, Placement, Refusal};
pub use registry::{DuplicateName, Registry};
pub use run::{ARGUMENTS_BYTES_MAX, ARGUMENTS_DEPTH_MAX, Execution, RESULT_BYTES_MAX, check, keys, run};
pub use typed::TypedFunction;
