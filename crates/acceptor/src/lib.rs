//! acceptor.
