//! Waiting for descriptors without a runtime.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Waits until one of the descriptors can be read, or `timeout` has passed; which of them can be, or
/// are at an end or an error (poll(2)).
pub fn wait_readable<const COUNT: usize>(
    descriptors: [BorrowedFd<'_>; COUNT],
    timeout: Duration,
) -> io::Result<[bool; COUNT]> {
    let mut asked = descriptors.map(|descriptor| libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    let millis = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptors are open while they are borrowed, and the call writes to as many `pollfd`
    // as it is told of, which live until it returns.
    let result = unsafe { libc::poll(asked.as_mut_ptr(), COUNT as libc::nfds_t, millis) };
    if result < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        return Ok([false; COUNT]);
    }
    Ok(asked.map(|one| one.revents != 0))
}
