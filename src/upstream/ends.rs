//! How a connection comes back to its upstream, or ends.
//!
//! The one place where an upstream connection is closed and its entry in the ledger made. A slot is
//! freed when the service's end is known, not when the descriptor is closed.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lesson::Lesson;
use super::reshape::Dialling;
use super::{Actions, Upstream};
use crate::close::account::Detail;
use crate::close::linger::{self, Bounds};
use crate::close::{Phase, Side, Termination, reset};
use crate::pool::connection::HeldAs;
use crate::pool::ending::{self, Seen};
use crate::pool::{Connection, EndpointId, Home};
use crate::stats::ledger::{Ending, Reset, Watch};
use crate::stats::reason::{ConnectOutcome, DiscardReason};
use crate::stats::recorder::{Leg, Story};
use crate::stats::sessions::{Peer, SessionFacts};
use crate::sys::clock;
use crate::transport::Transport;

impl Upstream {
    /// Ends a connection that the core has taken out; its slot is freed when the end is complete.
    pub(super) fn end(&self, connection: Connection, reason: DiscardReason, seen: Seen) {
        self.stats.discards.increment(reason);
        let termination = ending::termination(reason, seen, connection.is_answering);
        let phase = termination.phase;
        let (transport, ended) = Ended::of(connection, reason, termination);
        let ending = match seen {
            Seen::Open => {
                let first = self.lock().shape.first_to_end(reason);
                let detail = Detail::for_end(termination, ended.dropped_bytes);
                self.end_in_time(ended, async move |time| {
                    let bounds = Bounds {
                        time,
                        gap: time,
                        bytes: CLOSING_BYTES_MAX,
                    };
                    let report = linger::linger(transport, first, bounds, detail).await;
                    ending::lingered(termination, &report, Phase::Close)
                });
                return;
            }
            Seen::PeerFin => {
                let report = linger::answer_fin(transport);
                ending::lingered(termination, &report, phase)
            }
            Seen::PeerFinUnanswered => {
                self.end_in_time(ended, async move |time| {
                    let time = time.min(linger::ANSWER_TIME_MAX);
                    let report = linger::deliver(transport, time, Detail::Full).await;
                    ending::lingered(termination, &report, phase)
                });
                return;
            }
            Seen::PeerReset | Seen::PeerFinThenReset => {
                let account = reset::bury(transport);
                ending::ended(termination, Some(Reset::Received), phase, account)
            }
            Seen::PeerVanished => {
                let account = reset::bury(transport);
                ending::ended(termination, None, phase, account)
            }
            Seen::ResetForPeer => {
                let cause = ending::reset_cause(reason, seen);
                self.end_in_time(ended, async move |time| {
                    let aborting = reset::abort_after_delivery(transport, cause, time);
                    ending::aborted(termination, cause, aborting.await)
                });
                return;
            }
            Seen::MidResponse => {
                let cause = ending::reset_cause(reason, seen);
                let aborted = reset::abort(transport, cause);
                ending::aborted(termination, cause, aborted)
            }
        };
        self.close_books(ended, ending);
        self.settled.notify_waiters();
    }

    /// Ends a connection that was not made.
    pub(super) fn end_unconnected(
        &self,
        outcome: ConnectOutcome,
        dialling: Option<Dialling>,
        watch: Watch,
        age: Duration,
    ) {
        let is_ip = dialling.as_ref().is_some_and(Dialling::is_ip);
        let ending = ending::unconnected(outcome, is_ip);
        self.stats.ledger.close(&ending, watch, || Story {
            upstream: Some(self.name.as_str().into()),
            service: dialling.as_ref().and_then(Dialling::service),
            endpoint: dialling.map(|it| it.label),
            age,
            ..Story::of(Side::Upstream)
        });
    }

    /// Lets an end take its time, which it is given, and frees the slot after it.
    fn end_in_time<E>(&self, ended: Ended, end: impl FnOnce(Duration) -> E)
    where
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
            } = ended.termination;
            let ending = ending.unwrap_or_else(|| Ending::clean(initiator, phase, manner));
            let endpoint = ended.endpoint;
            me.close_books(ended, ending);
            me.free_slot(endpoint);
        });
    }

    /// Makes the one entry in the ledger, and ties it to the end of the session that goes with it.
    fn close_books(&self, mut ended: Ended, mut ending: Ending) {
        ending.account.unread_bytes += ended.dropped_bytes;
        let ledger = &self.stats.ledger;
        let watch = std::mem::take(&mut ended.watch);
        let session = ended.session.as_ref();
        let record = ledger.close(&ending, watch, || Story {
            listener: session.map(|it| Arc::clone(&it.listener)),
            upstream: Some(self.name.as_str().into()),
            endpoint: Some(Arc::clone(&ended.address)),
            client: session.map(|it| it.peer),
            service: Some(ended.service.map_or(Peer::Unix, Peer::Ip)),
            session: session.map(|it| it.id),
            sessions: ended.sessions,
            discard: Some(ended.reason),
            exchange: ended.exchange,
            age: clock::now().saturating_duration_since(ended.opened_at),
            idle: Some(ended.idle),
            ..Story::of(Side::Upstream)
        });
        if let Some(session) = session {
            let leg = Leg {
                side: Side::Upstream,
                termination: ended.termination,
                record,
            };
            session.legs.ended(ended.connection, leg, ledger.recorder());
        }
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

/// What there is to tell of a connection when its descriptor is gone.
struct Ended {
    connection: u64,
    endpoint: EndpointId,
    address: Arc<str>,
    service: Option<SocketAddr>,
    session: Option<Arc<SessionFacts>>,
    sessions: Option<usize>,
    reason: DiscardReason,
    termination: Termination,
    exchange: u64,
    opened_at: Instant,
    idle: Duration,
    watch: Watch,
    dropped_bytes: u64,
}

impl Ended {
    fn of(
        connection: Connection,
        reason: DiscardReason,
        termination: Termination,
    ) -> (Transport, Self) {
        let is_idle = termination.phase == Phase::Idle;
        let idle_until = match is_idle {
            true => clock::now(),
            false => connection.idle_until,
        };
        let ended = Self {
            connection: connection.id,
            endpoint: connection.endpoint,
            address: connection.address,
            service: connection.service,
            session: connection.session,
            sessions: (connection.held_as == HeldAs::Shared).then_some(connection.sessions_touched),
            reason,
            termination,
            exchange: connection.exchanges + u64::from(!is_idle),
            opened_at: connection.opened_at,
            idle: idle_until.saturating_duration_since(connection.idle_since),
            watch: connection.watch,
            dropped_bytes: connection.dropped_bytes,
        };
        (connection.transport, ended)
    }
}

impl Home for Upstream {
    fn take_shared(&self, connection: &mut Connection) {
        connection.held_as = HeldAs::Shared;
        self.lock().core.share(connection.endpoint);
    }

    fn take_back(&self, mut connection: Box<Connection>, now: Instant) {
        let mut actions = Actions::new();
        let mut state = self.lock();
        if state.flushed_at.is_some_and(|at| connection.opened_at < at) {
            drop(state);
            return self.take_discarded(connection, DiscardReason::Flushed, Seen::Open);
        }
        // Looked at under the lock, so that what arrives from now on finds it among the idle.
        if let Some(reason) = connection.look().stale() {
            connection.idle_until = now;
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
        let (endpoint, held_as) = (connection.endpoint, connection.held_as);
        let now = clock::now();
        if let Some(lesson) = Lesson::of(&connection, reason) {
            let mut state = self.lock();
            state.core.learn(lesson, now);
            self.hasten_to_next(&mut state);
        }
        let seen = match seen {
            Seen::PeerFin if linger::is_unanswered(&connection.transport) => {
                Seen::PeerFinUnanswered
            }
            seen => seen,
        };
        if seen.is_awaited() {
            let mut state = self.lock();
            state
                .core
                .discard(endpoint, held_as, true, now, &mut actions);
            drop(state);
            self.end(*connection, reason, seen);
        } else {
            // The socket goes first, so that the service never sees one more than `size`.
            self.end(*connection, reason, seen);
            let mut state = self.lock();
            state
                .core
                .discard(endpoint, held_as, false, now, &mut actions);
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
