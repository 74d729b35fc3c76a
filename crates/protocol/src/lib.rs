//! The vocabulary of Executive Paxos: ids, ballots, commands, votes, majority sets, messages.
//!
//! Everything here is plain data with the rules that belong to the data itself: what orders
//! two ballots, what makes one command the precedent of another, which families of sets may
//! serve as majority sets. No clock, disk, socket, thread or random number; no crate of ours
//! below this one. The words are those of the patent (US 10,135,929 B2) and stay unaltered;
//! `docs/glossary.md` lists the few that had to come from elsewhere.
//!
//! How bytes travel between nodes is the business of `transport`; how they lie on disk, of
//! `storage`. The one encoding kept here is that of a command's *body* ([`body`]), because
//! the same bytes are proposed, voted for, stored and applied: they are encoded once, by the
//! leader that first proposes the command, and never again.

pub mod ballot;
pub mod body;
pub mod call;
pub mod command;
pub mod majority;
pub mod membership;
pub mod message;
pub mod node;
pub mod snapshot;
pub mod space;
pub mod state;
pub mod time;
pub mod token;
pub mod trace;

pub use ballot::Ballot;
pub use body::{CommandBody, Effect, Forget};
pub use call::{Call, Fingerprint, Outcome, RequestId, StoredOutcome, Verdict};
pub use command::{Command, CommandId, CommandNumber, Run, Vote};
pub use majority::MajoritySets;
pub use membership::{Member, Membership};
pub use message::{LearnFrom, Message, Role};
pub use node::{ClusterId, NodeId};
pub use snapshot::{Position, SnapshotId, SnapshotPiece, SnapshotRecord};
pub use space::Space;
pub use state::{Entry, Key, StateError, StateView};
pub use time::{Now, Tick, Timestamp};
pub use token::{Rights, Token};
pub use trace::{TraceId, Tracer};
