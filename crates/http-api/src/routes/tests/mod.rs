//! The REST contract, over a node whose leader is a script.

mod calls;
mod hostile;
mod reads;
mod surface;
mod wire;
mod world;
