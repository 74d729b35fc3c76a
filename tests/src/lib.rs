//! Shared helpers of the tests.

pub mod cluster;
pub mod world;
