//! What TCP knows about one connection (tcp(7), `TCP_INFO`).
//!
//! The kernel fills as much of its structure as it knows of, and a newer one knows more: fields are
//! taken by their place in include/uapi/linux/tcp.h, which never changes.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// The state of a connection (include/net/tcp_states.h), as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpState {
    /// Open in both directions.
    Established,
    /// The peer has said FIN, and we have not.
    CloseWait,
    /// We have said FIN, and the peer has not.
    FinWait,
    /// Both have said FIN; the kernel does the rest alone.
    Closing,
    /// The connection is no more: both have said FIN, or there was a RST.
    Close,
    /// Being made.
    Opening,
}

/// What TCP knows about one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// Its state.
    pub state: TcpState,
    /// Bytes that the peer has acknowledged; our SYN counts as one where we dialled, and our FIN too.
    pub acknowledged_bytes: u64,
    /// Bytes that came in order, read or not; the peer's FIN counts as one.
    pub received_bytes: u64,
    /// The smoothed round-trip time; zero where nothing was measured.
    pub round_trip_time: Duration,
    /// Segments sent again, over the connection's life.
    pub retransmissions: u32,
}

/// Asks the kernel. Fails on a socket that is not TCP, and on a kernel that does not count bytes
/// (before Linux 4.1).
pub fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    let mut raw = [0_u8; RAW_BYTES];
    let mut length = RAW_BYTES as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes at most `length` bytes,
    // the size of `raw`, which lives until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            raw.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < RAW_BYTES {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(TcpInfo {
        state: state(raw[STATE]),
        acknowledged_bytes: u64::from_ne_bytes(field(&raw, BYTES_ACKED)),
        received_bytes: u64::from_ne_bytes(field(&raw, BYTES_RECEIVED)),
        round_trip_time: Duration::from_micros(u32::from_ne_bytes(field(&raw, RTT)).into()),
        retransmissions: u32::from_ne_bytes(field(&raw, TOTAL_RETRANS)),
    })
}

/// Up to the end of `tcpi_bytes_received`.
const RAW_BYTES: usize = 136;
const STATE: usize = 0;
const RTT: usize = 68;
const TOTAL_RETRANS: usize = 100;
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;

fn field<const N: usize>(raw: &[u8; RAW_BYTES], at: usize) -> [u8; N] {
    raw[at..at + N]
        .try_into()
        .expect("every field ends within the structure")
}

fn state(code: u8) -> TcpState {
    match code {
        1 => TcpState::Established,
        4 | 5 => TcpState::FinWait,
        6 | 9 | 11 => TcpState::Closing,
        7 => TcpState::Close,
        8 => TcpState::CloseWait,
        _ => TcpState::Opening,
    }
}
