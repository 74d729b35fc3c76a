//! The learner: the list of issued commands, applied in order, and what it answers.
//!
//! A command is *issued* when a majority set has voted for it in one ballot and its precedent
//! is issued (patent, steps 5 and 6, claims 2 to 4; DESIGN 5 rule 6 and 7). The learner comes
//! to know it in one of two ways, issues strictly in order of numbers, applies what it issued
//! to the state machine M, and asks its peers for what it missed.
//!
//! - [`core`]: the role as a pure state machine: what is issued, what to ask for, whom;
//! - [`actor`]: carries out what the core decides: one write a turn, then the sends; and beside it, what takes long:
//!   forgetting, checkpoints, snapshots;
//! - [`ports`]: what the actor tells the rest of its node;
//! - [`query`]: what gateways use: waiting for a number, digests of the state.

pub mod actor;
mod arrival;
mod checkpoints;
pub mod core;
pub mod ports;
pub mod query;

pub use actor::{Deliver, LearnerActor, Stop};
pub use core::{Config, DigestRefusal, Effect, IgnoreReason, Input, Learner, Stored, Timing, Waiter};
pub use ports::{History, LearnerPorts, Progress};
pub use query::{NoDigest, Queries, StateDigest};
