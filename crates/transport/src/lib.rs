//! Connections between nodes.
//!
//! Each node dials each of its peers once per [`Lane`]; what it dialed carries its messages to
//! that peer, and the peer's own connections carry the other direction. A connection begins
//! with a [`handshake`] that keeps out other clusters, other versions and mistaken addresses;
//! then [`frame`]s follow, each with one message as [`wire`] writes it.
//!
//! ```text
//!   Handle::send -> Queue (per peer and lane) -> dialer ===TCP===> reader -> on_message
//! ```
//!
//! What the transport promises: messages of one lane from one peer arrive whole, at most once
//! and in order while a connection lives. What it does not: that they arrive. A full queue, a
//! lost connection or a damaged frame loses messages, counted, and never blocks a sender; the
//! protocol repeats what matters.
//!
//! With [`tls`] between nodes a connection begins with it, and each side proves which node it is.
//!
//! Heartbeats have an arbiter of their own, so that neither a large frame nor a slow disk
//! delays them. There is no logic of the protocol here. DESIGN 11.

mod backoff;
mod dialer;
mod disk;
pub mod frame;
pub mod fuzz;
pub mod handshake;
pub mod join;
mod lane;
mod listener;
mod opening;
mod processes;
mod queue;
mod reader;
mod report;
mod socket;
mod stream;
pub mod tls;
mod transport;
pub mod wire;

pub use backoff::BACKOFF_MAX;
pub use disk::{Disk, Disks, Judge, Say};
pub use lane::Lane;
pub use queue::QueueLimit;
pub use transport::{Handle, Limits, OnEvent, OnMessage, Peer, PeerEvent, Runtimes, Transport, TransportConfig};
