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
use super::account::Account;
use super::classify::{Loss, PeerEnd, loss};
use crate::sys::{clock, socket};
use crate::transport::Transport;

/// How a connection ended that was to be reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// Whose RST it was.
    pub by: AbortedBy,
    /// What is known of the connection.
    pub account: Account,
}

/// Whose RST ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortedBy {
    /// Ours.
    Us,
    /// The peer's, which came before.
    Peer,
    /// Nobody's: both sides had said FIN, or the peer had vanished, so there was nothing left to reset;
    /// or it is a Unix socket, which has none to send unless bytes are unread in it.
    Nobody,
}

/// Ends a connection with an RST at once. What the peer's kernel had not acknowledged is lost.
pub fn abort(transport: Transport, _cause: ResetCause) -> Aborted {
    // Fails only where the kernel has ended the connection already; then there is nothing to reset.
    let _ = SockRef::from(&transport).set_linger(Some(Duration::ZERO));
    if transport.is_tcp() {
        // A RST of the peer's between the account and the close would be taken for ours. Where the kernel
        // refuses, that moment is short.
        let _ = socket::deafen(transport.as_fd());
    }
    let account = Account::of(&transport);
    let by = match account.peer_end() {
        Some(PeerEnd::Broken) if death(&transport) == Some(Delivery::Lost) => AbortedBy::Nobody,
        Some(PeerEnd::Broken | PeerEnd::FinThenReset) => AbortedBy::Peer,
        Some(PeerEnd::Fin) if transport.has_said_fin() => AbortedBy::Nobody,
        None if !transport.is_tcp() && account.unread_bytes == 0 => AbortedBy::Nobody,
        Some(PeerEnd::Open | PeerEnd::Fin) | None => AbortedBy::Us,
    };
    drop(transport);
    Aborted { by, account }
}

/// Ends a connection with an RST after the peer's kernel has acknowledged everything written, or
/// after `patience`.
pub async fn abort_after_delivery(
    transport: Transport,
    cause: ResetCause,
    patience: Duration,
) -> Aborted {
    match delivery(&transport, patience).await {
        Delivery::Complete | Delivery::Overdue => abort(transport, cause),
        Delivery::Reset => Aborted {
            by: AbortedBy::Peer,
            account: bury(transport),
        },
        Delivery::Lost => Aborted {
            by: AbortedBy::Nobody,
            account: bury(transport),
        },
    }
}

/// Closes a descriptor whose connection the peer has reset, or whose kernel has given it up: nothing
/// is sent.
pub fn bury(transport: Transport) -> Account {
    let account = Account::of(&transport);
    drop(transport);
    account
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
    /// The kernel gave the peer up.
    Lost,
}

/// Waits until the peer's kernel has acknowledged everything written.
pub(super) async fn delivery(transport: &Transport, patience: Duration) -> Delivery {
    let deadline = clock::now() + patience;
    let mut pause = DELIVERY_PAUSE_MIN;
    // The kernel has no event for "all acknowledged", so it is asked at growing intervals.
    while socket::unacknowledged_bytes(transport.as_fd()).is_ok_and(|bytes| bytes > 0) {
        if let Some(dead) = death(transport) {
            return dead;
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

/// Why nothing more can be delivered, if so.
fn death(transport: &Transport) -> Option<Delivery> {
    match SockRef::from(transport).take_error() {
        Ok(None) => None,
        Ok(Some(error)) | Err(error) => Some(match loss(&error) {
            Loss::Reset => Delivery::Reset,
            Loss::Vanished => Delivery::Lost,
        }),
    }
}
