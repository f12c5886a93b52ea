//! Whether an endpoint may be dialled now.
//!
//! ```text
//!   Well ──connect failed──► Resting until … ──time──► may be tried, one connect at a time
//!    ▲                          ▲                              │
//!    └────────── connected ─────┼──────────────────────────────┤
//!                               └──────── failed, longer ◄─────┘
//! ```
//!
//! Pure: time and chance are arguments. A rest doubles with each failure up to a limit, and varies
//! so that many millponds don't come back in step.

use std::time::{Duration, Instant};

/// How long an endpoint rests after failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

/// The health of one endpoint, as its connects tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// The last connect succeeded, or none was made.
    #[default]
    Well,
    /// The last connect failed.
    Resting {
        /// Failures in a row.
        failures: u32,
        /// When the last one was.
        failed_at: Instant,
        /// When it may be tried again.
        until: Instant,
        /// A trial is under way.
        is_tried: bool,
    },
}

impl Health {
    /// Whether a connect may be started now.
    pub fn may_connect(&self, now: Instant) -> bool {
        match self {
            Self::Well => true,
            Self::Resting {
                until, is_tried, ..
            } => !is_tried && *until <= now,
        }
    }

    /// A connect was started.
    pub fn connecting(&mut self) {
        if let Self::Resting { is_tried, .. } = self {
            *is_tried = true;
        }
    }

    /// A connect succeeded.
    pub fn connected(&mut self) {
        *self = Self::Well;
    }

    /// A connect failed. `is_trial`: it was made because a rest was over. `chance` is in `0.0..1.0`.
    pub fn failed(&mut self, now: Instant, is_trial: bool, backoff: Backoff, chance: f64) {
        if let Self::Resting { failed_at, .. } = self
            && !is_trial
        {
            // One of those that were under way when the first failed: the same failure.
            *failed_at = now;
            return;
        }
        let failures = self.failures() + 1;
        let doubled = backoff
            .min
            .saturating_mul(1 << (failures - 1).min(16))
            .min(backoff.max);
        // Half of it is fixed, half of it is chance.
        let rest = doubled.mul_f64(0.5 + chance / 2.0);
        *self = Self::Resting {
            failures,
            failed_at: now,
            until: now + rest,
            is_tried: false,
        };
    }

    /// A connect was given up for another reason than the endpoint's.
    pub fn not_tried(&mut self) {
        if let Self::Resting { is_tried, .. } = self {
            *is_tried = false;
        }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        match self {
            Self::Well => 0,
            Self::Resting { failures, .. } => *failures,
        }
    }

    /// Whether it has failed at or after `since`, and not succeeded afterwards.
    pub fn has_failed_since(&self, since: Instant) -> bool {
        matches!(self, Self::Resting { failed_at, .. } if *failed_at >= since)
    }

    /// When it may be tried again, where that is not now and no trial is under way.
    pub fn next_trial(&self) -> Option<Instant> {
        match self {
            Self::Resting {
                until,
                is_tried: false,
                ..
            } => Some(*until),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    const BACKOFF: Backoff = Backoff {
        min: Duration::from_millis(100),
        max: Duration::from_secs(2),
    };

    #[test]
    fn rests_double_up_to_the_limit() {
        let now = clock::now();
        let mut health = Health::Well;
        let mut rests = Vec::new();
        for _ in 0..7 {
            health.failed(now, true, BACKOFF, 1.0);
            rests.push(health.next_trial().map(|until| (until - now).as_millis()));
        }
        assert_eq!(rests, [100, 200, 400, 800, 1600, 2000, 2000].map(Some));
    }

    #[test]
    fn chance_takes_up_to_half_of_a_rest() {
        let now = clock::now();
        let mut health = Health::Well;
        health.failed(now, true, BACKOFF, 0.0);
        assert_eq!(health.next_trial(), Some(now + Duration::from_millis(50)));
    }

    #[test]
    fn one_trial_at_a_time_after_the_rest() {
        let now = clock::now();
        let mut health = Health::Well;
        assert!(health.may_connect(now));
        health.failed(now, true, BACKOFF, 1.0);
        assert!(!health.may_connect(now));
        let later = now + Duration::from_millis(100);
        assert!(health.may_connect(later));
        health.connecting();
        assert!(
            !health.may_connect(later),
            "a second trial while the first is under way"
        );
        health.connected();
        assert_eq!(health, Health::Well);
    }

    #[test]
    fn a_volley_of_failures_is_one() {
        let now = clock::now();
        let mut health = Health::Well;
        for _ in 0..8 {
            health.failed(now, false, BACKOFF, 1.0);
        }
        assert_eq!(health.failures(), 1);
        assert_eq!(health.next_trial(), Some(now + Duration::from_millis(100)));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let now = clock::now();
        let mut health = Health::Well;
        for _ in 0..100 {
            health.failed(now, true, BACKOFF, 0.5);
        }
        assert_eq!(health.failures(), 100);
    }
}
