//! The graceful close: our FIN, then read and drop until the peer's FIN, within bounds.
//!
//! A socket that is closed with unread bytes, or that gets bytes after it was closed, answers with
//! an RST that can destroy what the peer has not read yet. So the descriptor is held until the peer
//! has said its last word. A peer that is merely silent past a bound is left to the kernel, without
//! an RST; one that goes on sending past a bound is reset: it is not well behaved.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::time::{Instant, timeout_at};

use super::ResetCause;
use super::reset::{self, Delivery};
use crate::sys::{clock, socket};
use crate::transport::Transport;

/// How long and how much of a peer is waited for after our FIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// In all.
    pub time: Duration,
    /// Between two reads.
    pub gap: Duration,
    /// Bytes read and dropped.
    pub bytes: u64,
}

/// Our FIN, when a lingering close begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OurFin {
    /// It is still to be said.
    Due,
    /// It was said. Once the peer's has come too, the kernel has no connection left, and answers
    /// another shutdown as it does after an RST (`ENOTCONN`).
    Said,
}

/// How a lingering close ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lingered {
    /// With the peer's FIN: in order.
    Fin,
    /// With the peer's RST.
    ResetReceived,
    /// The peer was silent past a bound. The descriptor is closed without an RST; only what the peer
    /// might still send would be answered with one, by the kernel.
    Silent,
    /// The peer went on sending past a bound, and was reset.
    Bound,
    /// The kernel gave the connection up.
    Lost,
}

/// What a lingering close saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub end: Lingered,
    /// Bytes that came after our FIN and were dropped.
    pub dropped_bytes: u64,
    /// Bytes that the peer's kernel had not acknowledged at the end.
    pub unacknowledged_bytes: u64,
}

/// Ends a connection gracefully. Returns when the descriptor is closed.
pub async fn linger(mut transport: Transport, our_fin: OurFin, bounds: Bounds) -> Report {
    let deadline = clock::now() + bounds.time;
    let mut report = Report {
        end: Lingered::Fin,
        dropped_bytes: 0,
        unacknowledged_bytes: 0,
    };
    if our_fin == OurFin::Due
        && let Err(error) = SockRef::from(&transport).shutdown(std::net::Shutdown::Write)
    {
        // The peer's RST came first: there is nobody left to say FIN to.
        report.end = classify(&error);
        report.unacknowledged_bytes = unacknowledged(&transport);
        return report;
    }
    loop {
        let next = deadline.min(clock::now() + bounds.gap);
        let read = poll_fn(|context| {
            // On the stack of the poll, so that a closing session holds no buffer.
            let mut scratch = [MaybeUninit::uninit(); SCRATCH_BYTES];
            transport.poll_read(context, &mut ReadBuf::uninit(&mut scratch))
        });
        match timeout_at(Instant::from_std(next), read).await {
            Ok(Ok(0)) => break,
            Ok(Ok(count)) => {
                report.dropped_bytes += count as u64;
                if report.dropped_bytes > bounds.bytes || clock::now() >= deadline {
                    report.end = Lingered::Bound;
                    break;
                }
            }
            Ok(Err(error)) => {
                report.end = classify(&error);
                break;
            }
            Err(_elapsed) => {
                report.end = Lingered::Silent;
                break;
            }
        }
    }
    report.unacknowledged_bytes = unacknowledged(&transport);
    if report.end == Lingered::Bound {
        reset::abort(transport, ResetCause::LingerBound);
    }
    report
}

/// How long a kernel may take to answer bytes under way with an ACK or a RST: as long as one
/// retransmission (200 ms at least), the longest delayed ACK (200 ms) and a round trip take.
pub const ANSWER_TIME_MAX: Duration = Duration::from_millis(500);

/// Whether bytes are under way to a peer that has said FIN: a RST may still answer them.
pub fn is_unanswered(transport: &Transport) -> bool {
    transport.is_tcp() && unacknowledged(transport) > 0
}

/// Answers the peer's FIN with ours and closes at once. Returns the bytes that its kernel had not
/// acknowledged by then.
pub fn answer_fin(transport: Transport) -> u64 {
    let unacknowledged_bytes = unacknowledged(&transport);
    drop(transport);
    unacknowledged_bytes
}

/// Ends a connection whose peer has said FIN: waits, up to `patience`, until its kernel has
/// acknowledged everything, so that the ledger knows what was lost. Returns when the descriptor is
/// closed.
pub async fn deliver(transport: Transport, patience: Duration) -> Report {
    let state = reset::delivery(&transport, patience).await;
    let (end, unacknowledged_bytes) = match state {
        Delivery::Complete => (Lingered::Fin, 0),
        Delivery::Overdue => (Lingered::Fin, unacknowledged(&transport)),
        Delivery::Reset => (Lingered::ResetReceived, unacknowledged(&transport)),
    };
    Report {
        end,
        dropped_bytes: 0,
        unacknowledged_bytes,
    }
}

/// Enough to empty what a peer still sends, small enough for a task that closes.
const SCRATCH_BYTES: usize = 4096;

fn unacknowledged(transport: &Transport) -> u64 {
    // A socket that can't be asked any more has nothing left to tell.
    socket::unacknowledged_bytes(transport.as_fd()).unwrap_or(0)
}

fn classify(error: &io::Error) -> Lingered {
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => Lingered::ResetReceived,
        _ => Lingered::Lost,
    }
}
