//! Shared helpers of the tests.

pub mod cluster;
pub mod fuzz;
pub mod literal;
pub mod skip;
pub mod world;
