//! The leader: ballots, the initial history, the leader state, the execution of functions, and
//! the pipeline of proposed commands.
//!
//! [`core`] is the role itself, pure and deterministic; [`actor`] carries out what it decides;
//! [`machine`] is M(p) between the two.
//! DESIGN 5 and 6; the patent's steps 1, 3, 3', 3" and 5.

pub mod actor;
pub mod core;
pub mod machine;
mod report;
mod traces;
