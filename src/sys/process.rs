//! What the kernel allows this process: how many descriptors it may have open.

#![allow(unsafe_code)]

use std::io;

/// The bounds on the number of open descriptors (getrlimit(2), `RLIMIT_NOFILE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The bound that holds.
    pub soft: u64,
    /// How far the process may raise it itself.
    pub hard: u64,
}

/// How many descriptors this process may have open. `u64::MAX` means without limit.
///
/// # Errors
/// What getrlimit(2) says.
pub fn descriptor_limit() -> io::Result<Limit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes one `rlimit` to a place that lives until it returns.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Limit {
        soft: limit.rlim_cur,
        hard: limit.rlim_max,
    })
}

/// Raises the soft limit to the hard one and returns what holds now.
///
/// # Errors
/// What getrlimit(2) or setrlimit(2) say.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let Limit { soft, hard } = descriptor_limit()?;
    if soft == hard {
        return Ok(soft);
    }
    let limit = libc::rlimit {
        rlim_cur: hard,
        rlim_max: hard,
    };
    // SAFETY: the call reads one `rlimit` from a place that lives until it returns.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let before = descriptor_limit().unwrap();
        assert!(before.soft <= before.hard);
        assert_eq!(raise_descriptor_limit().unwrap(), before.hard);
        assert_eq!(
            descriptor_limit().unwrap(),
            Limit {
                soft: before.hard,
                hard: before.hard
            }
        );
    }
}
