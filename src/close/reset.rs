//! The only place that sends an RST on purpose.
//!
//! The causes are the variants of [`ResetCause`], and there are no others. A reset that tells a
//! peer of a truncation waits until the peer's kernel has acknowledged the bytes that did arrive:
//! `SO_LINGER` 0 drops what was not sent or not acknowledged yet.

use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;
use tokio::time::sleep;

use super::ResetCause;
use crate::sys::{clock, socket};
use crate::transport::Transport;

/// Ends a connection with an RST at once. Returns the bytes that the peer's kernel had not
/// acknowledged; they are lost.
pub fn abort(transport: Transport, _cause: ResetCause) -> u64 {
    let lost = socket::unacknowledged_bytes(transport.as_fd()).unwrap_or(0);
    // Fails only where the kernel has ended the connection already; then there is nothing to reset.
    let _ = SockRef::from(&transport).set_linger(Some(Duration::ZERO));
    drop(transport);
    lost
}

/// How a connection ended that was to be reset after delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// Whose RST it was.
    pub by: AbortedBy,
    /// Bytes that the peer's kernel had not acknowledged; they are lost.
    pub unacknowledged_bytes: u64,
}

/// Whose RST ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortedBy {
    /// Ours.
    Us,
    /// The peer's, which came while we waited.
    Peer,
}

/// Ends a connection with an RST after the peer's kernel has acknowledged everything written, or
/// after `patience`.
pub async fn abort_after_delivery(
    transport: Transport,
    cause: ResetCause,
    patience: Duration,
) -> Aborted {
    match delivery(&transport, patience).await {
        Delivery::Complete | Delivery::Overdue => Aborted {
            by: AbortedBy::Us,
            unacknowledged_bytes: abort(transport, cause),
        },
        Delivery::Reset => Aborted {
            by: AbortedBy::Peer,
            unacknowledged_bytes: bury(transport),
        },
    }
}

/// Closes a descriptor whose connection the peer has reset, or whose kernel has given it up: nothing
/// is sent. Returns the bytes that the peer's kernel had not acknowledged; they are lost.
pub fn bury(transport: Transport) -> u64 {
    let lost = socket::unacknowledged_bytes(transport.as_fd()).unwrap_or(0);
    drop(transport);
    lost
}

/// What became of bytes that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The peer's kernel has acknowledged them all.
    Complete,
    /// Not all of them in time.
    Overdue,
    /// The peer has reset the connection first.
    Reset,
}

/// Waits until the peer's kernel has acknowledged everything written.
pub(super) async fn delivery(transport: &Transport, patience: Duration) -> Delivery {
    let deadline = clock::now() + patience;
    let mut pause = DELIVERY_PAUSE_MIN;
    // The kernel has no event for "all acknowledged", so it is asked at growing intervals.
    while socket::unacknowledged_bytes(transport.as_fd()).is_ok_and(|bytes| bytes > 0) {
        if is_dead(transport) {
            return Delivery::Reset;
        }
        if clock::now() >= deadline {
            return Delivery::Overdue;
        }
        sleep(pause).await;
        pause = (pause * 2).min(DELIVERY_PAUSE_MAX);
    }
    Delivery::Complete
}

const DELIVERY_PAUSE_MIN: Duration = Duration::from_millis(1);
const DELIVERY_PAUSE_MAX: Duration = Duration::from_millis(50);

/// Whether the peer has reset the connection, so that nothing more can be delivered.
fn is_dead(transport: &Transport) -> bool {
    !matches!(SockRef::from(transport).take_error(), Ok(None))
}
