//! What our counters and the kernel say of a connection at its end.
//!
//! Taken just before its descriptor goes, for afterwards nobody knows. It bounds what was lost: bytes
//! that the peer's kernel never confirmed may still have been read by its program, if it died before
//! the confirmation went out, and confirmed bytes may never have been.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;

use super::classify::{self, PeerEnd};
use super::{Manner, Termination};
use crate::sys::socket;
use crate::sys::tcp_info::{TcpInfo, tcp_info};
use crate::transport::Transport;

/// What is known of a connection at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Bytes read from the peer.
    pub read_bytes: u64,
    /// Bytes written to the peer: the kernel took them.
    pub written_bytes: u64,
    /// Bytes that came from the peer and that nobody took.
    pub unread_bytes: u64,
    /// Bytes written that the peer's kernel never confirmed. Of a Unix socket, whose kernel does not
    /// count bytes: all of them, at most, where some were not read.
    pub unacknowledged_bytes: u64,
    /// What TCP measured; `None` on a Unix socket, and where nobody asked.
    pub path: Option<Path>,
}

/// How much is asked about a connection that ends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Only what the ledger counts.
    Brief,
    /// All there is to know: its end will have a record.
    Full,
}

impl Detail {
    /// For an end of which this is known before the connection is closed.
    pub fn for_end(termination: Termination, lost_bytes: u64) -> Self {
        match termination.manner == Manner::Truncated || lost_bytes > 0 {
            true => Self::Full,
            false => Self::Brief,
        }
    }
}

/// What TCP measured on the way to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Our address on this connection.
    pub local: Option<SocketAddr>,
    /// The smoothed round-trip time.
    pub round_trip_time: Duration,
    /// Segments sent again, over the connection's life.
    pub retransmissions: u32,
    /// How the peer ended it, as the kernel has it.
    pub peer_end: PeerEnd,
}

impl Account {
    /// Of a connection whose end is out of the ordinary: all there is to know.
    pub fn of(transport: &Transport) -> Self {
        let (mut account, info) = Self::asked(transport);
        // Asked after it: what comes in between from a peer that goes on sending would be taken for a FIN.
        let unread_bytes = socket::unread_bytes(transport.as_fd()).unwrap_or(0);
        account.unread_bytes = unread_bytes;
        account.path = info.map(|info| Path {
            local: local_address(transport),
            round_trip_time: info.round_trip_time,
            retransmissions: info.retransmissions,
            peer_end: peer_end(&info, transport, unread_bytes),
        });
        account
    }

    /// Of a connection whose peer has said FIN, as it seems. `Brief`: one question, and all of them only
    /// where that shows something else.
    pub fn in_order(transport: &Transport, detail: Detail) -> Self {
        if detail == Detail::Full {
            return Self::of(transport);
        }
        let (account, info) = Self::asked(transport);
        let is_in_order = info.is_none_or(|info| peer_end(&info, transport, 0) == PeerEnd::Fin);
        if is_in_order && account.unacknowledged_bytes == 0 {
            return account;
        }
        Self::of(transport)
    }

    fn asked(transport: &Transport) -> (Self, Option<TcpInfo>) {
        let info = transport.is_tcp().then(|| tcp_info(transport.as_fd()).ok());
        let info = info.flatten();
        let written_bytes = transport.written_bytes();
        let unacknowledged_bytes = match info {
            // Our SYN counts as acknowledged, and so does our FIN, but only after everything else.
            Some(info) => (written_bytes + u64::from(transport.is_dialled()))
                .saturating_sub(info.acknowledged_bytes),
            None => socket::unacknowledged_bytes(transport.as_fd())
                .unwrap_or(0)
                .min(written_bytes),
        };
        let account = Self {
            read_bytes: transport.read_bytes(),
            written_bytes,
            unread_bytes: 0,
            unacknowledged_bytes,
            path: None,
        };
        (account, info)
    }

    /// Bytes that did not get through, in either direction.
    pub fn lost_bytes(&self) -> u64 {
        self.unread_bytes + self.unacknowledged_bytes
    }

    /// How the peer ended the connection, as far as the kernel was asked.
    pub fn peer_end(&self) -> Option<PeerEnd> {
        self.path.map(|path| path.peer_end)
    }
}

fn peer_end(info: &TcpInfo, transport: &Transport, unread_bytes: u64) -> PeerEnd {
    let came_bytes = transport.read_bytes() + unread_bytes;
    classify::peer_end(info, came_bytes, transport.has_said_fin())
}

fn local_address(transport: &Transport) -> Option<SocketAddr> {
    let address = SockRef::from(transport).local_addr().ok()?;
    address.as_socket()
}
