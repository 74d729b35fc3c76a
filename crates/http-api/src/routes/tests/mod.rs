//! The REST contract, over a node whose leader is a script.

mod access;
mod calls;
mod cluster;
mod gateway;
mod hostile;
mod keys;
mod reads;
mod surface;
mod traces;
mod wire;
mod world;
