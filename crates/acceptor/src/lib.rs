//! The acceptor: promises and votes (the patent's steps 2 and 4; DESIGN 5).
//!
//! [`core`] is the role itself, pure and deterministic; [`actor`] gives it a mailbox, stable
//! storage and a network. What is durable here decides what a cluster can lose: nothing leaves
//! before the promise or the votes that it speaks of are on disk.

pub mod actor;
pub mod core;

pub use crate::actor::{AcceptorActor, AcceptorPorts, Deliver};
pub use crate::core::{Acceptor, Config, Effect, IgnoreReason, Input};
