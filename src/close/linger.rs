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
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::time::timeout_at;

use super::ResetCause;
use super::account::{Account, Detail};
use super::classify::{Loss, PeerEnd, loss};
use super::reset::{self, Aborted, AbortedBy, Delivery};
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
    /// What is known of the connection; what came after our FIN and was dropped is unread.
    pub account: Account,
}

/// Who says FIN first, and so keeps TIME_WAIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// We do.
    Us,
    /// The peer, which knows that this was the last message; we do after so long.
    Peer {
        /// How long its FIN is awaited.
        patience: Duration,
    },
}

/// Ends a connection gracefully, from our FIN on if that is still to be said. Returns when the
/// descriptor is closed.
pub async fn linger(transport: Transport, first: First, bounds: Bounds, detail: Detail) -> Report {
    let mut dropped_bytes = 0;
    let mut report = take_leave(transport, first, bounds, detail, &mut dropped_bytes).await;
    report.account.unread_bytes += dropped_bytes;
    report
}

/// The same; what is dropped on the way is only in `dropped_bytes`.
async fn take_leave(
    mut transport: Transport,
    first: First,
    bounds: Bounds,
    detail: Detail,
    dropped_bytes: &mut u64,
) -> Report {
    if let First::Peer { patience } = first
        && !transport.has_said_fin()
    {
        let deadline = clock::now() + patience.min(bounds.time);
        match hear_out(&mut transport, deadline, bounds, dropped_bytes).await {
            Heard::Fin => return answer_fin(transport),
            Heard::Error(end) => return lost(transport, end),
            Heard::Silence | Heard::TooMuch => {}
        }
    }
    // Once both FINs are out, the kernel answers another shutdown as it does after an RST.
    if !transport.has_said_fin() && transport.say_fin().is_err() {
        let end = match SockRef::from(&transport).take_error() {
            Ok(Some(error)) => classify(&error),
            _ => Lingered::ResetReceived,
        };
        return lost(transport, end);
    }
    let deadline = clock::now() + bounds.time;
    match hear_out(&mut transport, deadline, bounds, dropped_bytes).await {
        Heard::Fin => {
            let detail = match *dropped_bytes {
                0 => detail,
                _ => Detail::Full,
            };
            let report = ended(&transport, detail);
            // Its FIN may have come before our last bytes, which are not lost for that.
            let is_waiting = report.end == Lingered::Fin && report.account.unacknowledged_bytes > 0;
            if !is_waiting || !transport.is_tcp() {
                return report;
            }
            let patience = deadline.saturating_duration_since(clock::now());
            deliver(transport, patience, detail).await
        }
        Heard::Error(end) => lost(transport, end),
        Heard::Silence => lost(transport, Lingered::Silent),
        Heard::TooMuch => overstayed(reset::abort(transport, ResetCause::LingerBound)),
    }
}

/// What came of a peer that was heard out.
enum Heard {
    Fin,
    Error(Lingered),
    /// Nothing for as long as it may be silent, or to the deadline.
    Silence,
    /// It was still speaking at a bound.
    TooMuch,
}

/// Reads and drops what comes until the peer's FIN, within bounds.
async fn hear_out(
    transport: &mut Transport,
    deadline: Instant,
    bounds: Bounds,
    dropped_bytes: &mut u64,
) -> Heard {
    loop {
        let next = deadline.min(clock::now() + bounds.gap);
        let read = poll_fn(|context| {
            // On the stack of the poll, so that a closing session holds no buffer.
            let mut scratch = [MaybeUninit::uninit(); SCRATCH_BYTES];
            transport.poll_read(context, &mut ReadBuf::uninit(&mut scratch))
        });
        match timeout_at(next.into(), read).await {
            Ok(Ok(0)) => return Heard::Fin,
            Ok(Ok(count)) => {
                *dropped_bytes += count as u64;
                if *dropped_bytes > bounds.bytes || clock::now() >= deadline {
                    return Heard::TooMuch;
                }
            }
            Ok(Err(error)) => return Heard::Error(classify(&error)),
            // It came just now; a close would answer it with an RST that nobody has decided on.
            Err(_elapsed) if has_unread(transport) => {
                if clock::now() >= deadline {
                    return Heard::TooMuch;
                }
            }
            Err(_elapsed) => return Heard::Silence,
        }
    }
}

fn has_unread(transport: &Transport) -> bool {
    socket::unread_bytes(transport.as_fd()).is_ok_and(|bytes| bytes > 0)
}

/// How long a kernel may take to answer bytes under way with an ACK or a RST: as long as one
/// retransmission (200 ms at least), the longest delayed ACK (200 ms) and a round trip take.
pub const ANSWER_TIME_MAX: Duration = Duration::from_millis(500);

/// Whether bytes are under way to a peer that has said FIN: a RST may still answer them.
pub fn is_unanswered(transport: &Transport) -> bool {
    let unacknowledged = || socket::unacknowledged_bytes(transport.as_fd());
    transport.is_tcp() && unacknowledged().is_ok_and(|bytes| bytes > 0)
}

/// A lingering close whose peer's FIN was read, or an RST that looks so.
fn ended(transport: &Transport, detail: Detail) -> Report {
    let account = Account::in_order(transport, detail);
    let end = match account.peer_end() {
        Some(PeerEnd::Broken) => Lingered::ResetReceived,
        _ => Lingered::Fin,
    };
    Report { end, account }
}

/// A connection that is no more, or whose peer is silent.
fn lost(transport: Transport, end: Lingered) -> Report {
    let account = Account::of(&transport);
    drop(transport);
    Report { end, account }
}

/// A peer that went on sending past a bound. Its FIN or RST may have come just now.
fn overstayed(aborted: Aborted) -> Report {
    let end = match aborted.by {
        AbortedBy::Us => Lingered::Bound,
        AbortedBy::Peer => Lingered::ResetReceived,
        AbortedBy::Nobody => Lingered::Fin,
    };
    let account = aborted.account;
    Report { end, account }
}

/// Answers the peer's FIN with ours and closes at once.
pub fn answer_fin(transport: Transport) -> Report {
    fin_answered(transport, Account::of)
}

/// Ends a connection whose peer has said FIN: waits, up to `patience`, until its kernel has
/// acknowledged everything, so that the ledger knows what was lost. Returns when the descriptor is
/// closed.
pub async fn deliver(transport: Transport, patience: Duration, detail: Detail) -> Report {
    let end = match reset::delivery(&transport, patience).await {
        Delivery::Complete | Delivery::Overdue => Lingered::Fin,
        Delivery::Reset => Lingered::ResetReceived,
        Delivery::Lost => Lingered::Lost,
    };
    if end == Lingered::Fin {
        return fin_answered(transport, |it| Account::in_order(it, detail));
    }
    lost(transport, end)
}

/// Closes a connection whose peer has said FIN, after which its RST may have come.
fn fin_answered(transport: Transport, ask: impl FnOnce(&Transport) -> Account) -> Report {
    let account = ask(&transport);
    drop(transport);
    let end = match account.peer_end() {
        Some(PeerEnd::FinThenReset | PeerEnd::Broken) => Lingered::ResetReceived,
        _ => Lingered::Fin,
    };
    Report { end, account }
}

/// Enough to empty what a peer still sends, small enough for a task that closes.
const SCRATCH_BYTES: usize = 4096;

fn classify(error: &io::Error) -> Lingered {
    match loss(error) {
        Loss::Reset => Lingered::ResetReceived,
        Loss::Vanished => Lingered::Lost,
    }
}
