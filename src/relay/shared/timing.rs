//! The limits of connections that have a task of their own, as a reload may change them under way.
//!
//! Invariant: each limit is read anew whenever it is applied.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::upstream::SharingRules;

/// The limits in force. 0 stands for none.
#[derive(Debug, Default)]
pub(super) struct Timing {
    response_timeout_ms: AtomicU64,
    idle_timeout_ms: AtomicU64,
    max_exchanges: AtomicU64,
}

impl Timing {
    pub(super) fn apply(&self, rules: &SharingRules) {
        let store = |place: &AtomicU64, time: Duration| {
            let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            place.store(milliseconds, Ordering::Relaxed);
        };
        store(&self.response_timeout_ms, rules.response_timeout);
        let idle_timeout = rules.idle_timeout.unwrap_or_default();
        store(&self.idle_timeout_ms, idle_timeout);
        let max_exchanges = rules.max_exchanges.unwrap_or_default();
        self.max_exchanges.store(max_exchanges, Ordering::Relaxed);
    }

    pub(super) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms.load(Ordering::Relaxed))
    }

    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        let milliseconds = self.idle_timeout_ms.load(Ordering::Relaxed);
        (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
    }

    pub(super) fn max_exchanges(&self) -> Option<u64> {
        let max = self.max_exchanges.load(Ordering::Relaxed);
        (max > 0).then_some(max)
    }
}
