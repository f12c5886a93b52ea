//! Whether a service had a request that it did not answer, by what TCP has counted.
//!
//! Pure: tables over TCP's counters and ours. Not here: waiting until they can tell (see `proof`).
//!
//! Invariant: a request is undelivered only where the service's FIN was counted, its RST has answered
//! our bytes, and not one byte of the request was acknowledged. What remains is an assumption: that a
//! service does not execute what it reads behind its own FIN and then reset before its ACK goes out.

use crate::pool::Seen;
use crate::stats::reason::RaceLost;
use crate::sys::tcp_info::{TcpInfo, TcpState};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The service never had it.
    Undelivered,
    /// Its kernel had some of it, and so its program may.
    Acknowledged,
    /// A reset that no FIN came before: the service may have read it first.
    Reset,
    /// Nothing has told yet.
    Undecided,
    /// Nothing can tell: it did not go through TCP, or not all that was written did.
    Uncounted,
}

impl RaceLost {
    /// Why a request that was held is not sent again; one that is proved not to be delivered was not held.
    pub fn of(delivery: Delivery) -> Self {
        match delivery {
            Delivery::Undelivered => Self::TooLarge,
            Delivery::Acknowledged => Self::Acknowledged,
            Delivery::Reset => Self::Reset,
            Delivery::Undecided => Self::Undecided,
            Delivery::Uncounted => Self::Uncounted,
        }
    }
}

/// What we know of a connection whose service was written a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ours {
    /// Bytes written before the request.
    pub(super) written_before: u64,
    /// Bytes read.
    pub(super) read_bytes: u64,
    /// A read returned 0. It need not have been a FIN: what takes an ECONNRESET leaves that behind.
    pub(super) is_read_out: bool,
    /// The kernel gave the connection up, so that its end answers nothing.
    pub(super) is_given_up: bool,
}

/// TCP counts each as a byte.
const OUR_SYN: u64 = 1;
const THEIR_FIN: u64 = 1;

impl Ours {
    fn has_fin(self, told: &TcpInfo) -> bool {
        self.is_read_out && told.received_bytes == self.read_bytes + THEIR_FIN
    }
}

/// What became of the request, on a connection that we dialled.
pub(super) fn judge(told: &TcpInfo, ours: Ours) -> Delivery {
    let acknowledged_before = ours.written_before + OUR_SYN;
    if told.acknowledged_bytes > acknowledged_before {
        Delivery::Acknowledged
    } else if told.state != TcpState::Close || ours.is_given_up {
        Delivery::Undecided
    } else if !ours.has_fin(told) {
        Delivery::Reset
    } else if told.acknowledged_bytes < acknowledged_before {
        Delivery::Uncounted
    } else {
        Delivery::Undelivered
    }
}

/// What was seen of the service's end.
pub(super) fn seen(told: &TcpInfo, ours: Ours) -> Seen {
    match (told.state, ours.has_fin(told)) {
        (TcpState::Close, _) if ours.is_given_up => Seen::PeerVanished,
        (TcpState::Close, true) => Seen::PeerFinThenReset,
        (_, true) => Seen::PeerFin,
        (TcpState::Close, false) => Seen::PeerReset,
        (_, false) => Seen::Open,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 500 bytes were written before the request, and 900 read.
    const OURS: Ours = Ours {
        written_before: 500,
        read_bytes: 900,
        is_read_out: true,
        is_given_up: false,
    };

    fn told(state: TcpState, acknowledged_bytes: u64, received_bytes: u64) -> TcpInfo {
        TcpInfo {
            state,
            acknowledged_bytes,
            received_bytes,
            round_trip_time: Duration::ZERO,
            retransmissions: 0,
        }
    }

    #[test]
    fn only_a_fin_and_an_rst_with_nothing_acknowledged_prove_that_it_was_not_delivered() {
        use Delivery as D;
        use TcpState::{Close, CloseWait, Established};
        for (state, acknowledged, received, expected) in [
            (Close, 501, 901, D::Undelivered),
            // One byte of the request is enough to doubt, in any state.
            (Close, 502, 901, D::Acknowledged),
            (Close, 502, 900, D::Acknowledged),
            (CloseWait, 502, 901, D::Acknowledged),
            (Established, 502, 900, D::Acknowledged),
            // No RST has answered yet: the service may have closed by half, and go on reading.
            (CloseWait, 501, 901, D::Undecided),
            (Established, 501, 900, D::Undecided),
            // No FIN was counted: the service may have read, executed and aborted.
            (Close, 501, 900, D::Reset),
            // Nor where bytes came that nobody has read.
            (Close, 501, 902, D::Reset),
            // What was written did not go through TCP.
            (Close, 500, 901, D::Uncounted),
            (Close, 1, 901, D::Uncounted),
        ] {
            let judged = judge(&told(state, acknowledged, received), OURS);
            assert_eq!(judged, expected, "{state:?} {acknowledged} {received}");
        }
    }

    #[test]
    fn an_unread_byte_is_not_taken_for_a_fin() {
        let ours = Ours {
            is_read_out: false,
            ..OURS
        };
        let told = told(TcpState::Close, 501, 901);
        assert_eq!(judge(&told, ours), Delivery::Reset);
        assert_eq!(seen(&told, ours), Seen::PeerReset);
    }

    #[test]
    fn a_connection_that_the_kernel_gave_up_was_not_answered() {
        let ours = Ours {
            is_given_up: true,
            ..OURS
        };
        let told = told(TcpState::Close, 501, 901);
        assert_eq!(judge(&told, ours), Delivery::Undecided);
        assert_eq!(seen(&told, ours), Seen::PeerVanished);
    }

    #[test]
    fn the_end_that_was_seen_is_what_tcp_counted() {
        for (state, received, expected) in [
            (TcpState::CloseWait, 901, Seen::PeerFin),
            (TcpState::Close, 901, Seen::PeerFinThenReset),
            (TcpState::Close, 900, Seen::PeerReset),
            (TcpState::Established, 900, Seen::Open),
        ] {
            assert_eq!(seen(&told(state, 501, received), OURS), expected);
        }
    }
}
