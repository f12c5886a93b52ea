//! The CPU time of other processes, to the nanosecond, and the clock on the wall.
//!
//! `/proc/PID/stat` counts in ticks of 10 ms, `/proc/PID/schedstat` shows one thread. The kernel's
//! CPU-time clock of a process covers all its threads, those that have ended too.

#![allow(unsafe_code)]

use std::io;
use std::time::{Duration, Instant};

/// The present moment.
#[allow(clippy::disallowed_methods)] // a bench has no core that must not ask
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// User and system time that the process has spent so far, all threads together.
///
/// # Errors
/// `ESRCH` or `EINVAL` when there is no such process.
pub(crate) fn process_cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a live, writable clockid_t. clock_getcpuclockid(3)
    let error = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a live, writable timespec. clock_gettime(2)
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let nanoseconds = time.tv_sec * 1_000_000_000 + time.tv_nsec;
    Ok(Duration::from_nanos(nanoseconds.unsigned_abs()))
}
