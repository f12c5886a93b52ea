//! How a connection comes back to its upstream, or ends.
//!
//! The one place where an upstream connection is closed and its entry in the ledger made. A slot is
//! freed when the service's end is known, not when the descriptor is closed.

use std::future::Future;
use std::time::{Duration, Instant};

use super::lesson::Lesson;
use super::{Actions, Upstream};
use crate::close::linger::{self, Bounds, OurFin};
use crate::close::{Termination, reset};
use crate::pool::ending::{self, Seen};
use crate::pool::{Connection, EndpointId, Home};
use crate::stats::ledger::{Ending, Reset};
use crate::stats::reason::DiscardReason;
use crate::sys::clock;

impl Upstream {
    /// Ends a connection that the core has taken out; its slot is freed when the end is complete.
    pub(super) fn end(&self, connection: Connection, reason: DiscardReason, seen: Seen) {
        self.stats.discards.increment(reason);
        let endpoint = connection.endpoint;
        let termination = ending::termination(reason, seen);
        let transport = connection.transport;
        let ending = match seen {
            Seen::Open | Seen::HalfClosed => {
                let our_fin = match seen {
                    Seen::HalfClosed => OurFin::Said,
                    _ => OurFin::Due,
                };
                self.end_in_time(endpoint, termination, async move |time| {
                    let bounds = Bounds {
                        time,
                        gap: time,
                        bytes: CLOSING_BYTES_MAX,
                    };
                    let report = linger::linger(transport, our_fin, bounds).await;
                    ending::lingered(termination, &report)
                });
                return;
            }
            Seen::PeerFin => Ending {
                unacknowledged_bytes: linger::answer_fin(transport),
                ..Ending::clean(termination.initiator, termination.phase, termination.manner)
            },
            Seen::PeerReset => ending::reset(termination, Reset::Received, reset::bury(transport)),
            Seen::PeerVanished => Ending {
                unacknowledged_bytes: reset::bury(transport),
                ..Ending::clean(termination.initiator, termination.phase, termination.manner)
            },
            Seen::ResetForPeer => {
                let cause = ending::reset_cause(reason, seen);
                self.end_in_time(endpoint, termination, async move |time| {
                    let aborted = reset::abort_after_delivery(transport, cause, time).await;
                    ending::aborted(termination, cause, aborted)
                });
                return;
            }
            Seen::MidResponse => {
                let cause = ending::reset_cause(reason, seen);
                ending::reset(
                    termination,
                    Reset::Sent(cause),
                    reset::abort(transport, cause),
                )
            }
        };
        self.stats.ledger.close(&ending);
        self.settled.notify_waiters();
    }

    /// Lets an end take its time, which it is given, and frees the slot after it.
    fn end_in_time<E>(
        &self,
        endpoint: EndpointId,
        termination: Termination,
        end: impl FnOnce(Duration) -> E,
    ) where
        E: Future<Output = Ending> + Send + 'static,
    {
        let Some(me) = self.me.upgrade() else { return };
        let ending = end(self.lock().shape.linger_time());
        self.tasks.spawn(async move {
            let ending = me.cut.run_until_cancelled(ending).await;
            let Termination {
                initiator,
                phase,
                manner,
            } = termination;
            let ending = ending.unwrap_or_else(|| Ending::clean(initiator, phase, manner));
            me.stats.ledger.close(&ending);
            me.free_slot(endpoint);
        });
    }

    pub(super) fn free_slot(&self, endpoint: EndpointId) {
        let mut actions = Actions::new();
        let mut state = self.lock();
        state.core.slot_freed(endpoint, clock::now(), &mut actions);
        // A trial that only lacked a slot has a time now.
        self.hasten_to_next(&mut state);
        drop(state);
        self.settled.notify_waiters();
        self.perform(actions);
    }
}

impl Home for Upstream {
    fn take_back(&self, mut connection: Box<Connection>, now: Instant) {
        let mut actions = Actions::new();
        let mut state = self.lock();
        if state.flushed_at.is_some_and(|at| connection.opened_at < at) {
            drop(state);
            return self.take_discarded(connection, DiscardReason::Flushed, Seen::Open);
        }
        // Looked at under the lock, so that what arrives from now on finds it among the idle.
        if let Some(reason) = connection.look().stale() {
            connection.idle_age = now.saturating_duration_since(connection.idle_since);
            drop(state);
            return self.take_discarded(connection, reason, seen_when(reason));
        }
        let idle_expiry = state
            .core
            .idle_expiry(connection.endpoint, &connection, now);
        let expiry = [idle_expiry, connection.retire_at];
        if let Some(expiry) = expiry.into_iter().flatten().min() {
            self.hasten_keeper(&mut state, expiry);
        }
        state
            .core
            .release(connection.endpoint, connection, now, &mut actions);
        drop(state);
        self.perform(actions);
    }

    fn take_discarded(&self, connection: Box<Connection>, reason: DiscardReason, seen: Seen) {
        let mut actions = Actions::new();
        let endpoint = connection.endpoint;
        let lesson = Lesson::of(&connection, reason);
        if seen.is_awaited() {
            self.lock()
                .core
                .discard(endpoint, true, clock::now(), &mut actions);
            self.end(*connection, reason, seen);
        } else {
            // The socket goes first, so that the service never sees one more than `size`.
            self.end(*connection, reason, seen);
            let now = clock::now();
            let mut state = self.lock();
            if let Some(lesson) = lesson {
                state.core.learn(lesson, now);
            }
            state.core.discard(endpoint, false, now, &mut actions);
            self.hasten_to_next(&mut state);
            drop(state);
            self.settled.notify_waiters();
        }
        self.perform(actions);
    }
}

/// Bytes that a service may still send after our FIN before it is reset.
const CLOSING_BYTES_MAX: u64 = 1024 * 1024;

/// What a stale idle connection's end needs.
pub(super) fn seen_when(reason: DiscardReason) -> Seen {
    match reason {
        DiscardReason::IdleFin => Seen::PeerFin,
        DiscardReason::IdleReset => Seen::PeerReset,
        DiscardReason::IdleVanished => Seen::PeerVanished,
        _ => Seen::Open,
    }
}
