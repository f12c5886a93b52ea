//! What an error on a socket says about its peer.
//!
//! Pure: a table over errno values (tcp(7)). Not here: what follows from it.

use std::io;

/// How a peer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its RST came, or it came before what we wanted to write.
    Reset,
    /// Nothing came: keepalive or `TCP_USER_TIMEOUT` gave it up, or the network says it is gone.
    Vanished,
}

/// What an error of a read or a write says about the peer.
pub fn loss(error: &io::Error) -> Loss {
    match error.raw_os_error() {
        Some(
            libc::ETIMEDOUT
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENETDOWN,
        ) => Loss::Vanished,
        _ => Loss::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_silent_did_not_reset() {
        for (errno, expected) in [
            (libc::ECONNRESET, Loss::Reset),
            (libc::EPIPE, Loss::Reset),
            (libc::ETIMEDOUT, Loss::Vanished),
            (libc::EHOSTUNREACH, Loss::Vanished),
            (libc::ENETUNREACH, Loss::Vanished),
        ] {
            assert_eq!(
                loss(&io::Error::from_raw_os_error(errno)),
                expected,
                "{errno}"
            );
        }
    }
}
