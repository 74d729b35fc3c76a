//! Two and more transports, or one and an adversary, over real sockets of this machine.

// Under the name by which the other crates know it.
extern crate quorate_transport as transport;

mod connections;
mod golden;
mod hostile;
mod messages;
mod refusals;
mod support;
mod tls;
