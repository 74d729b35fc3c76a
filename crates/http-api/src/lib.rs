//! The REST gateway of a node.
//!
//! Any node takes any request. A call goes to whichever node leads, and a change of leader is
//! a delay for the caller, not an error; a linearizable read asks the leader what it must see
//! and is then answered from this node's own state. Errors are problem documents (RFC 9457)
//! that say whether a call was executed.
//!
//! - [`core`]: calls and reads in flight; pure.
//! - [`actor`]: the actor around it.
//! - [`backend`]: what the routes need of the node; the binary implements it.
//! - [`fuzz`]: what must hold for any bytes of a request.
//! - [`proxy`]: a gateway without a node, which passes requests on to members.
//! - [`server()`]: the HTTP server. Its routes are in `routes`, the contract is `API.md` and the
//!   served `/openapi.json`.

pub mod actor;
pub mod backend;
pub mod core;
pub mod fuzz;
pub mod proxy;
pub mod server;

mod api;
mod audit;
mod auth;
mod call;
mod connection;
mod door;
mod fingerprint;
mod gate;
mod json;
mod meters;
mod names;
mod observe;
mod problem;
mod read;
mod reply;
mod request;
mod routes;
mod traces;
mod waiting;

pub use actix_web::dev::ServerHandle;
pub use actor::GatewayActor;
pub use auth::Auth;
pub use backend::Backend;
pub use call::call_of_node;
pub use core::Gateway;
pub use door::Door;
pub use server::{Options, administered, listen, server, watched};
pub use waiting::{Reason, waiting};
