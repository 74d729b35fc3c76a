//! Three real processes over REST: what a caller is promised, while nodes are killed, frozen,
//! stopped and given nonsense. Claims 7 to 12 of the patent are the method twins of 1 to 6, so
//! an item such as A1h is shown for both here.
//!
//! The harness is `quorate_tests::cluster`. The binary must be built: `cargo xtask test` does it.
#![expect(clippy::disallowed_methods, reason = "these tests run in real time")]

mod audit;
mod backups;
mod bad_clients;
mod behind;
mod connections;
mod copies;
mod crashes;
mod damaged;
mod disks;
mod founders;
mod frozen;
mod gateway;
mod hostile;
mod joining;
mod leadership;
mod links;
mod lost;
mod membership;
mod modes;
mod nemesis;
mod operators;
mod overload;
mod owners;
mod partial;
mod peers;
mod power;
mod reads;
mod replacing;
mod retries;
mod roles;
mod space;
mod states;
mod stops;
mod surface;
mod syncs;
mod tls;
mod tokens;
mod traces;
mod unavailable;
mod upgrade;
