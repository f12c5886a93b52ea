//! millpond: a connection-pooling TCP proxy with an exact ledger of how every connection ended.

pub mod admin;
pub mod close;
pub mod config;
pub mod listener;
pub mod log;
pub mod pool;
pub mod protocol;
pub mod relay;
pub mod session;
pub mod stats;
pub mod sys;
pub mod transport;
pub mod upstream;
