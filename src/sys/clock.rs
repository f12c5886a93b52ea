//! The clock. Shells ask it and hand the answer to pure cores as an argument.

use std::time::{Instant, SystemTime};

/// The present moment, for durations and deadlines.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that asks the clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// The present moment, for people.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that asks the clock"
)]
pub fn wall_now() -> SystemTime {
    SystemTime::now()
}
