//! One file for each command, but for `dev` and `bench`, which have rooms of their own.

pub(crate) mod acceptor;
pub(crate) mod audit;
pub(crate) mod call;
pub(crate) mod health;
pub(crate) mod leader;
pub(crate) mod majority;
pub(crate) mod recover;
pub(crate) mod serve;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod token;
