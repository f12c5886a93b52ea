//! millpond: a connection-pooling TCP proxy with an exact ledger of how every connection ended.
//!
//! It stands in front of a service, keeps a bounded pool of persistent connections to it, lends them
//! to clients only at boundaries that it has proved from the protocol, closes client sockets
//! gracefully, and counts who ended what, in which phase, in which manner.
//!
//! The modules, in the order a byte meets them; ARCHITECTURE.md has the map.

pub mod cli;
pub mod config;

pub mod drain;
pub mod proxy;

pub mod listener;
pub mod session;

pub mod protocol;
pub mod relay;

pub mod pool;
pub mod upstream;

pub mod close;

pub mod admin;
pub mod census;
pub mod log;
pub mod notify;
pub mod stats;
pub mod witness;

pub mod sys;
pub mod transport;
