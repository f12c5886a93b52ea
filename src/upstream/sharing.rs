//! What whoever has connections shared must know of their upstream, and hear of what becomes of it.
//!
//! Not here: sharing itself (see `relay::shared`).

use std::fmt;
use std::time::{Duration, Instant};

use crate::config::checked;
use crate::pool::EndpointId;
use crate::stats::tree::LinkRow;

pub use crate::config::checked::Retry;

/// Who has connections of an upstream carry the exchanges of several sessions.
pub trait Sharer: Send + Sync + fmt::Debug {
    /// Nothing is lent any more.
    fn drain(&self);
    /// The drain was taken back.
    fn resume(&self);
    /// Every connection is retired at its next boundary.
    fn flush(&self);
    /// The connections that are shared, or pinned to a session.
    fn links(&self, now: Instant) -> Vec<LinkRow>;
    /// Other rules hold from now on, and these endpoints are in force.
    fn apply(&self, rules: &SharingRules, endpoints: &[EndpointId]);
}

/// What holds for connections that are shared, or pinned to a session meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharingRules {
    /// Endpoints.
    pub endpoints: usize,
    /// Shared connections to one endpoint, at most; at least 1.
    pub shared: usize,
    /// Other connections to one endpoint, at most.
    pub leases: usize,
    /// Of those, so many for long.
    pub long_leases: usize,
    /// How many sessions may wait for a shared connection.
    pub wait_queue: usize,
    /// How long the service may be silent that owes something.
    pub response_timeout: Duration,
    /// How long a connection may be idle; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How many exchanges a connection may carry; `None`: without limit.
    pub max_exchanges: Option<u64>,
    /// Which requests may be sent again.
    pub retry: Retry,
}

impl SharingRules {
    /// Those of an upstream.
    pub fn of(settings: &checked::Upstream) -> Self {
        let pool = &settings.pool;
        let leases = pool.size.saturating_sub(pool.shared);
        let most = (leases - leases.div_ceil(4)).max(1);
        Self {
            endpoints: settings.endpoints.len(),
            shared: pool.shared,
            leases,
            long_leases: pool.long_leases.unwrap_or(most).min(leases),
            wait_queue: pool.wait_queue,
            response_timeout: settings.response_timeout,
            idle_timeout: pool.idle_timeout,
            max_exchanges: pool.max_exchanges,
            retry: settings.retry,
        }
    }
}
