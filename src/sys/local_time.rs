//! The time of day where this host is, for people.

#![allow(unsafe_code)]

use std::fmt;
use std::mem::MaybeUninit;
use std::time::{SystemTime, UNIX_EPOCH};

/// A time of day, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 60: a leap second is one.
    pub second: u8,
    /// 0 to 999.
    pub millis: u16,
}

impl LocalTime {
    /// That of `moment`, by the zone of the host or of `TZ` (tzset(3)); in UTC where the C library can't
    /// tell.
    pub fn of(moment: SystemTime) -> Self {
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (hour, minute, second) =
            broken_down(seconds).unwrap_or((seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60));
        let small = |number: u64| u8::try_from(number).unwrap_or(0);
        Self {
            hour: small(hour),
            minute: small(minute),
            second: small(second),
            millis: u16::try_from(since.subsec_millis()).unwrap_or(0),
        }
    }
}

/// `09:05:00.007`
impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            hour,
            minute,
            second,
            millis,
        } = self;
        write!(f, "{hour:02}:{minute:02}:{second:02}.{millis:03}")
    }
}

fn broken_down(seconds: u64) -> Option<(u64, u64, u64)> {
    let seconds = libc::time_t::try_from(seconds).ok()?;
    let mut time = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both places live until the call returns; it fills in the second unless it returns null.
    let filled = unsafe { libc::localtime_r(&raw const seconds, time.as_mut_ptr()) };
    if filled.is_null() {
        return None;
    }
    // SAFETY: the call has filled it in.
    let time = unsafe { time.assume_init() };
    let number = |field: libc::c_int| u64::try_from(field).ok();
    Some((
        number(time.tm_hour)?,
        number(time.tm_min)?,
        number(time.tm_sec)?,
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seconds_and_milliseconds_are_those_of_every_zone() {
        // 2026-01-02 03:04:05.678 UTC. No zone is off by a part of a minute any more.
        let moment = UNIX_EPOCH + Duration::from_millis(1_767_323_045_678);
        let time = LocalTime::of(moment);
        assert_eq!((time.second, time.millis), (5, 678));
        assert!(time.hour < 24 && time.minute < 60, "{time}");
        let written = LocalTime {
            hour: 9,
            minute: 5,
            second: 0,
            millis: 7,
        };
        assert_eq!(written.to_string(), "09:05:00.007");
    }
}
