//! Listening sockets that the service manager opened and gave to this process (sd_listen_fds(3)).
//!
//! They are the descriptors from 3 on. `LISTEN_PID` says for whom they are, `LISTEN_FDS` how many
//! there are, and `LISTEN_FDNAMES` what they are called.

#![allow(unsafe_code)]

use std::env;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// A socket from the service manager.
#[derive(Debug)]
pub struct Inherited {
    /// Its `FileDescriptorName=` (systemd.socket(5)); several may have the same.
    pub name: String,
    /// The socket, closed in children.
    pub descriptor: OwnedFd,
}

/// Takes the sockets that are meant for this process, and removes the variables that speak of them, so
/// that no child takes them for its own. Must be called before the process has a second thread.
///
/// ```standalone_crate
/// # use millpond::sys::inherit::take_inherited;
/// let give_none = || {
///     // SAFETY: this is the only thread.
///     unsafe {
///         std::env::set_var("LISTEN_PID", std::process::id().to_string());
///         std::env::set_var("LISTEN_FDS", "0");
///     }
/// };
/// give_none();
/// assert!(take_inherited()?.is_empty());
/// assert_eq!(std::env::var_os("LISTEN_PID").or(std::env::var_os("LISTEN_FDS")), None);
///
/// give_none();
/// std::thread::spawn(std::thread::park);
/// assert!(take_inherited().is_err(), "too late");
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
/// The variables speak of descriptors that are not open, or contradict each other, or there is a second
/// thread, which might read the environment just now.
pub fn take_inherited() -> io::Result<Vec<Inherited>> {
    if env::var_os("LISTEN_PID").is_none() {
        return Ok(Vec::new());
    }
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "inherited sockets are taken before threads start, and there are {threads}"
        )));
    }
    // SAFETY: there is no other thread that could read or write the environment meanwhile.
    let named = unsafe { sd_notify::listen_fds_with_names_and_unset_env() }?;
    Ok(named
        .map(|(descriptor, name)| Inherited {
            name,
            // SAFETY: it is open, since its flags were just set, and it was given to this process for
            // its own; the variables are gone, so nobody takes it twice.
            descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) },
        })
        .collect())
}
