//! What the end of a connection teaches about its endpoint's idle timeout.
//!
//! Not here: what follows from many of them (see `pool::idle_limit`).

use std::time::Duration;

use crate::pool::idle_limit::Evidence;
use crate::pool::{Connection, EndpointId};
use crate::stats::reason::DiscardReason;

/// A connection was closed by its service after it had been idle for `age`.
#[derive(Debug, Clone, Copy)]
pub struct Lesson {
    /// Whose it was.
    pub endpoint: EndpointId,
    /// How long it had been idle.
    pub age: Duration,
    /// How that was noticed.
    pub evidence: Evidence,
}

impl Lesson {
    /// What a connection teaches that ends for `reason`, if anything.
    pub(super) fn of(connection: &Connection, reason: DiscardReason) -> Option<Self> {
        let evidence = match reason {
            DiscardReason::IdleFin | DiscardReason::IdleReset => Evidence::Seen,
            // Services end idle connections with a 408 too.
            DiscardReason::IdleBytes => Evidence::Seen,
            DiscardReason::LostRace | DiscardReason::CrossedAnswer => Evidence::LostRace,
            _ => return None,
        };
        // Before the first exchange a service may have another patience.
        (connection.exchanges > 0).then_some(Self {
            endpoint: connection.endpoint,
            age: connection.idle_age(),
            evidence,
        })
    }
}
