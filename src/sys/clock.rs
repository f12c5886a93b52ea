//! The clock. Shells ask it and hand the answer to pure cores as an argument.

#![allow(unsafe_code)]

use std::io;
use std::time::{Duration, Instant, SystemTime};

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

/// One moment as the kernel's monotonic clock and as an [`Instant`] tell it. On Linux both are the same
/// clock, but an Instant does not say its number.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicAnchor {
    instant: Instant,
    monotonic: Duration,
}

impl MonotonicAnchor {
    /// The present moment on both.
    ///
    /// # Errors
    /// What clock_gettime(2) says.
    pub fn now() -> io::Result<Self> {
        // Whoever is kept from running between the two readings tries again.
        let mut narrowest = Self::bracketed()?;
        for _ in 0..8 {
            let other = Self::bracketed()?;
            if other.1 < narrowest.1 {
                narrowest = other;
            }
        }
        Ok(narrowest.0)
    }

    /// What the kernel's clock calls `monotonic`; the moment of the anchor for what is out of all bounds.
    pub fn instant_of(&self, monotonic: Duration) -> Instant {
        let moment = match monotonic.checked_sub(self.monotonic) {
            Some(later) => self.instant.checked_add(later),
            None => self.instant.checked_sub(self.monotonic - monotonic),
        };
        moment.unwrap_or(self.instant)
    }

    /// The present moment, and how long it took to find out.
    fn bracketed() -> io::Result<(Self, Duration)> {
        let instant = now();
        let monotonic = monotonic_now()?;
        let anchor = Self { instant, monotonic };
        Ok((anchor, now() - instant))
    }
}

/// CPU time that the calling thread has spent.
///
/// # Errors
/// What clock_gettime(2) says.
pub fn thread_cpu_time() -> io::Result<Duration> {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn monotonic_now() -> io::Result<Duration> {
    read_clock(libc::CLOCK_MONOTONIC)
}

fn read_clock(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one `timespec` to a place that lives until it returns.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Ok(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_instant_and_the_kernels_clock_tell_the_same_time() {
        let anchor = MonotonicAnchor::now().unwrap();
        let before = now();
        let between = anchor.instant_of(monotonic_now().unwrap());
        let after = now();
        let error = Duration::from_micros(50);
        assert!(before <= between + error && between <= after + error);
        let earlier = anchor.instant_of(anchor.monotonic - Duration::from_secs(1));
        assert_eq!(anchor.instant - earlier, Duration::from_secs(1));
        assert_eq!(anchor.instant_of(Duration::MAX), anchor.instant);
    }
}
