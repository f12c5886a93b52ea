//! A budget of lines: so many at once, then so many a second. Pure; time is an argument.
//!
//! Invariant: every line that was asked for is either allowed or reported as suppressed, once.

use std::time::{Duration, Instant};

/// A bucket of tokens, one for each line.
#[derive(Debug)]
pub struct LineBudget {
    tokens: f64,
    burst: f64,
    per_second: f64,
    filled_at: Instant,
    suppressed: u64,
    suppressed_since: Instant,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is written; before it, that so many were not, since so long ago.
    Write {
        /// Lines suppressed since the last that was written.
        suppressed: u64,
        /// How long ago the first of them was.
        since: Duration,
    },
    /// It is not written.
    Suppress,
}

impl LineBudget {
    /// A full budget of `burst` lines that fills again at `per_second`.
    pub fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self {
            tokens: f64::from(burst),
            burst: f64::from(burst),
            per_second: f64::from(per_second),
            filled_at: now,
            suppressed: 0,
            suppressed_since: now,
        }
    }

    /// Asks for one line.
    pub fn ask(&mut self, now: Instant) -> Verdict {
        // A clock read on another thread may be a moment behind; it then fills nothing.
        let passed = now.saturating_duration_since(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            let (suppressed, since) = self.take_suppressed(now);
            return Verdict::Write { suppressed, since };
        }
        if self.suppressed == 0 {
            self.suppressed_since = now;
        }
        self.suppressed += 1;
        Verdict::Suppress
    }

    /// Takes what was suppressed and not reported yet, and since how long ago.
    pub fn take_suppressed(&mut self, now: Instant) -> (u64, Duration) {
        let suppressed = std::mem::take(&mut self.suppressed);
        let since = match suppressed {
            0 => Duration::ZERO,
            _ => now.saturating_duration_since(self.suppressed_since),
        };
        (suppressed, since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    const QUIET: Verdict = Verdict::Write {
        suppressed: 0,
        since: Duration::ZERO,
    };

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_the_rest_is_reported() {
        let start = clock::now();
        let mut budget = LineBudget::new(3, 2, start);
        for _ in 0..3 {
            assert_eq!(budget.ask(start), QUIET);
        }
        assert_eq!(budget.ask(start), Verdict::Suppress);
        let later = start + Duration::from_millis(400);
        assert_eq!(budget.ask(later), Verdict::Suppress);
        let later = start + Duration::from_millis(500);
        assert_eq!(
            budget.ask(later),
            Verdict::Write {
                suppressed: 2,
                since: Duration::from_millis(500)
            }
        );
        assert_eq!(budget.ask(later), Verdict::Suppress);
        assert_eq!(budget.take_suppressed(later), (1, Duration::ZERO));
        assert_eq!(budget.take_suppressed(later), (0, Duration::ZERO));
    }

    #[test]
    fn a_long_silence_fills_no_more_than_the_burst() {
        let start = clock::now();
        let mut budget = LineBudget::new(2, 100, start);
        let later = start + Duration::from_secs(3600);
        assert_eq!(budget.ask(later), QUIET);
        assert_eq!(budget.ask(later), QUIET);
        assert_eq!(budget.ask(later), Verdict::Suppress);
    }

    #[test]
    fn a_clock_that_is_a_moment_behind_fills_nothing_twice() {
        let start = clock::now();
        let later = start + Duration::from_secs(1);
        let mut budget = LineBudget::new(1, 1, start);
        assert_eq!(budget.ask(later), QUIET);
        assert_eq!(budget.ask(start), Verdict::Suppress);
        assert_eq!(budget.ask(later), Verdict::Suppress);
    }
}
