//! The failure detector: heartbeats to suspicion to who should lead (DESIGN 9).
//!
//! [`core`] is the judgement, pure and deterministic; [`actor`] gives it a clock and a
//! network. Nothing here concerns safety: nodes may disagree about who lives and who leads,
//! and only progress suffers (DESIGN 5 rule 12).

pub mod actor;
pub mod core;

pub use crate::actor::{Deliver, DetectorPorts, FailureDetectorActor};
pub use crate::core::{Config, Effect, FailureDetector, IgnoreReason, Input, LocalStatus, PeerView, Suspicion, View};
