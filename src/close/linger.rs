//! The graceful close: our FIN, then read and drop until the peer's FIN, within bounds.
//!
//! A socket that is closed with unread bytes, or that gets bytes after it was closed, answers with
//! an RST that can destroy what the peer has not read yet. So the descriptor is held until the peer
//! has said its last word. A peer that is merely silent past a bound is left to the kernel, without
//! an RST; one that goes on sending past a bound is reset: it is not well behaved.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::time::{Instant, timeout_at};

use super::ResetCause;
use super::account::Account;
use super::classify::{Loss, PeerEnd, loss};
use super::reset::{self, Aborted, AbortedBy, Delivery};
use crate::sys::clock;
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

/// Ends a connection gracefully, from our FIN on if that is still to be said. Returns when the
/// descriptor is closed.
pub async fn linger(mut transport: Transport, bounds: Bounds) -> Report {
    let deadline = clock::now() + bounds.time;
    // Once both FINs are out, the kernel answers another shutdown as it does after an RST.
    if !transport.has_said_fin() && transport.say_fin().is_err() {
        // The connection was no more: there is nobody left to say FIN to.
        return lost(transport, 0);
    }
    let mut dropped_bytes = 0;
    loop {
        let next = deadline.min(clock::now() + bounds.gap);
        let read = poll_fn(|context| {
            // On the stack of the poll, so that a closing session holds no buffer.
            let mut scratch = [MaybeUninit::uninit(); SCRATCH_BYTES];
            transport.poll_read(context, &mut ReadBuf::uninit(&mut scratch))
        });
        match timeout_at(Instant::from_std(next), read).await {
            Ok(Ok(0)) => return ended(&transport, dropped_bytes),
            Ok(Ok(count)) => {
                dropped_bytes += count as u64;
                if dropped_bytes > bounds.bytes || clock::now() >= deadline {
                    let aborted = reset::abort(transport, ResetCause::LingerBound);
                    return overstayed(aborted, dropped_bytes);
                }
            }
            Ok(Err(error)) => {
                let account = account(&transport, dropped_bytes);
                let end = classify(&error);
                return Report { end, account };
            }
            Err(_elapsed) => {
                let account = account(&transport, dropped_bytes);
                let end = Lingered::Silent;
                return Report { end, account };
            }
        }
    }
}

/// A lingering close whose peer's FIN was read, or an RST that looks so.
fn ended(transport: &Transport, dropped_bytes: u64) -> Report {
    let mut account = Account::in_order(transport);
    account.unread_bytes += dropped_bytes;
    let end = match account.peer_end() {
        Some(PeerEnd::Broken) => Lingered::ResetReceived,
        _ => Lingered::Fin,
    };
    Report { end, account }
}

/// A connection that was no more when it was to be closed.
fn lost(transport: Transport, dropped_bytes: u64) -> Report {
    let account = account(&transport, dropped_bytes);
    let end = match SockRef::from(&transport).take_error() {
        Ok(Some(error)) => classify(&error),
        _ => Lingered::ResetReceived,
    };
    drop(transport);
    Report { end, account }
}

/// A peer that went on sending past a bound. Its FIN or RST may have come just now.
fn overstayed(aborted: Aborted, dropped_bytes: u64) -> Report {
    let mut account = aborted.account;
    account.unread_bytes += dropped_bytes;
    let end = match aborted.by {
        AbortedBy::Us => Lingered::Bound,
        AbortedBy::Peer => Lingered::ResetReceived,
        AbortedBy::Nobody => Lingered::Fin,
    };
    Report { end, account }
}

fn account(transport: &Transport, dropped_bytes: u64) -> Account {
    let mut account = Account::of(transport);
    account.unread_bytes += dropped_bytes;
    account
}

/// Answers the peer's FIN with ours and closes at once.
pub fn answer_fin(transport: Transport) -> Report {
    let account = Account::of(&transport);
    drop(transport);
    let end = match account.peer_end() {
        Some(PeerEnd::FinThenReset | PeerEnd::Broken) => Lingered::ResetReceived,
        _ => Lingered::Fin,
    };
    Report { end, account }
}

/// Ends a connection whose peer has said FIN: waits, up to `patience`, until its kernel has
/// acknowledged everything, so that the ledger knows what was lost. Returns when the descriptor is
/// closed.
pub async fn deliver(transport: Transport, patience: Duration) -> Report {
    let end = match reset::delivery(&transport, patience).await {
        Delivery::Complete | Delivery::Overdue => Lingered::Fin,
        Delivery::Reset => Lingered::ResetReceived,
        Delivery::Lost => Lingered::Lost,
    };
    let account = match end {
        Lingered::Fin => Account::in_order(&transport),
        _ => Account::of(&transport),
    };
    drop(transport);
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
