//! A world in which the shipped cores of whole clusters run from one seed.
//!
//! - [`world`]: nodes, network, clocks, disks and clients, moved event by event; two phases, the
//!   faults and then the healing of a connected core;
//! - [`swarm`]: what a seed draws for its world; [`chance`]: where all chance comes from;
//! - [`schedule`], [`network`], [`clocks`]: virtual time, links, and what nodes see of time;
//! - [`client`], [`functions`]: who asks, and what is asked for;
//! - [`fact`], [`fault`]: what happens, for whoever watches ([`watchers`]): [`invariants`],
//!   [`tally`], [`trace`], [`chart`];
//! - [`planted`]: mistakes that must be caught;
//! - [`run`]: many seeds and their summary; [`scenarios`]: worlds of a fixed shape.
//!
//! One seed decides all: the same seed gives the same trace, in every build.

pub mod chance;
pub mod chart;
pub mod client;
pub mod clocks;
pub mod fact;
pub mod fault;
pub mod functions;
pub mod invariants;
pub mod network;
mod node;
pub mod planted;
pub mod run;
pub mod scenarios;
pub mod schedule;
pub mod swarm;
pub mod tally;
pub mod trace;
pub mod watchers;
pub mod words;
pub mod world;
