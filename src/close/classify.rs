//! What an error on a socket, or its kernel's account, says about its peer.
//!
//! Pure: tables over errno values and states (tcp(7)). Not here: what follows from it.

use std::io;

use crate::sys::tcp_info::{TcpInfo, TcpState};

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

/// How a peer ended a connection, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEnd {
    /// It has not.
    Open,
    /// With its FIN.
    Fin,
    /// With its FIN, and then an RST in answer to bytes of ours.
    FinThenReset,
    /// Without a FIN: by its RST, or its kernel was given up.
    Broken,
}

/// How the peer of a connection ended it. `came_bytes`: those that came, read or still unread.
///
/// An end of file alone says less: a write that failed takes the error of an RST with it, and then
/// the next read says 0 as after a FIN.
pub fn peer_end(info: &TcpInfo, came_bytes: u64, have_said_fin: bool) -> PeerEnd {
    let has_said_fin = info.received_bytes > came_bytes;
    match (info.state, has_said_fin) {
        // Both sides' FINs close a connection as an RST does.
        (TcpState::Close, true) if !have_said_fin => PeerEnd::FinThenReset,
        (_, true) => PeerEnd::Fin,
        (TcpState::Close, false) => PeerEnd::Broken,
        (_, false) => PeerEnd::Open,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn info(state: TcpState, received_bytes: u64) -> TcpInfo {
        TcpInfo {
            state,
            acknowledged_bytes: 0,
            received_bytes,
            round_trip_time: Duration::ZERO,
            retransmissions: 0,
        }
    }

    #[test]
    fn a_fin_is_what_was_received_beyond_the_bytes() {
        let end = |state, received| peer_end(&info(state, received), 10, false);
        assert_eq!(end(TcpState::Established, 10), PeerEnd::Open);
        assert_eq!(end(TcpState::CloseWait, 11), PeerEnd::Fin);
        assert_eq!(end(TcpState::Close, 11), PeerEnd::FinThenReset);
        assert_eq!(end(TcpState::Close, 10), PeerEnd::Broken);
    }

    #[test]
    fn both_fins_close_a_connection_without_a_reset() {
        let end = |received| peer_end(&info(TcpState::Close, received), 10, true);
        assert_eq!(end(11), PeerEnd::Fin);
        assert_eq!(end(10), PeerEnd::Broken);
    }

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
