//! The ledger and the counters.

pub mod counter;
pub mod reason;
