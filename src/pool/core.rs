//! The books of one endpoint's pool: every slot, exactly.
//!
//! ```text
//!              start_connect                       lend
//!   (free) ─────────────────► connecting ──► idle ──────► leased ──┐
//!      ▲                          │  ▲        │  ▲          │      │ share / unshare
//!      │                          │  └────────┼──┴──────────┘      ▼
//!      │      connect_failed      │           │   release       shared (several sessions)
//!      ├──────────────────────────┘           │ retire             │
//!      └───────── slot_freed ◄──── closing ◄──┴────────────────────┘
//! ```
//!
//! Pure: the connection is whatever handle the caller has, and time is an argument. Not here: who
//! waits, and which endpoint is chosen.
//!
//! Invariant: connecting + idle + leased + shared + closing never grows beyond `size`; where a
//! smaller `size` has just come, it only falls.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::PoolKey;
use crate::stats::reason::DiscardReason;

/// A connection as the books see it.
pub trait Handle {
    /// Unique among the connections of an endpoint.
    fn id(&self) -> u64;
    /// What makes it interchangeable.
    fn key(&self) -> PoolKey;
    /// When its lifetime is over; `None`: never.
    fn retire_at(&self) -> Option<Instant>;
    /// How many exchanges it has carried.
    fn exchanges(&self) -> u64;
}

/// The limits of one endpoint's pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections, at most.
    pub size: usize,
    /// Idle connections that are kept warm, and that `idle_timeout` spares.
    pub min_idle: usize,
    /// How long a connection may be idle.
    pub idle_timeout: Option<Duration>,
    /// How many exchanges a connection may carry.
    pub max_exchanges: Option<u64>,
    /// Connects under way, at most.
    pub connect_parallel: usize,
}

/// The books of one endpoint's pool.
#[derive(Debug)]
pub struct Books<C> {
    limits: Limits,
    /// Oldest release first; lent from the back.
    idle: VecDeque<Idle<C>>,
    connecting: usize,
    leased: usize,
    shared: Vec<Shared<C>>,
    closing: usize,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since: Instant,
}

/// A connection that carries several sessions' exchanges.
#[derive(Debug)]
struct Shared<C> {
    connection: C,
    /// Exchanges under way.
    in_flight: usize,
}

impl<C: Handle> Books<C> {
    /// Empty books.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            idle: VecDeque::new(),
            connecting: 0,
            leased: 0,
            shared: Vec::new(),
            closing: 0,
        }
    }

    /// The limits that hold now.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Other limits from now on; what they make surplus is found by [`Books::surplus`] and at the
    /// next boundaries.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Slots taken.
    pub fn occupied(&self) -> usize {
        self.connecting + self.idle.len() + self.leased + self.shared.len() + self.closing
    }

    /// Connections waiting to be lent.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Connections lent to one session each.
    pub fn leased(&self) -> usize {
        self.leased
    }

    /// Connects under way.
    pub fn connecting(&self) -> usize {
        self.connecting
    }

    /// Connections that carry several sessions.
    pub fn shared(&self) -> usize {
        self.shared.len()
    }

    /// Connections whose end is not complete.
    pub fn closing(&self) -> usize {
        self.closing
    }

    /// Connections in use, those under way included: what balance goes by.
    pub fn load(&self) -> usize {
        self.leased + self.connecting + self.shared.iter().map(|it| it.in_flight).sum::<usize>()
    }

    /// Whether one more connect may be started.
    pub fn can_connect(&self) -> bool {
        self.occupied() < self.limits.size && self.connecting < self.limits.connect_parallel
    }

    /// Whether every slot is taken, so that only a retired connection makes room.
    pub fn is_full(&self) -> bool {
        self.occupied() >= self.limits.size
    }

    /// Whether another idle connection should be opened to keep `min_idle`.
    pub fn wants_warmth(&self) -> bool {
        self.idle.len() + self.connecting < self.limits.min_idle && self.can_connect()
    }

    /// Whether a connection of this key is idle.
    pub fn has_idle(&self, key: PoolKey) -> bool {
        self.idle.iter().any(|idle| idle.connection.key() == key)
    }

    /// Takes a slot for a connect.
    pub fn start_connect(&mut self) {
        debug_assert!(self.can_connect(), "a slot was free");
        self.connecting += 1;
    }

    /// A connect succeeded; its connection is lent at once.
    pub fn connected_and_lent(&mut self) {
        self.connecting -= 1;
        self.leased += 1;
    }

    /// A connect succeeded, and nobody waits.
    pub fn connected(&mut self, connection: C, now: Instant) {
        self.connecting -= 1;
        self.idle.push_back(Idle {
            connection,
            since: now,
        });
    }

    /// A connect succeeded, and its connection is not wanted any more.
    pub fn connected_and_retired(&mut self) {
        self.connecting -= 1;
        self.closing += 1;
    }

    /// A connect failed: its slot is free.
    pub fn connect_failed(&mut self) {
        self.connecting -= 1;
    }

    /// Lends the last released connection of this key.
    pub fn lend(&mut self, key: PoolKey) -> Option<C> {
        let last = self
            .idle
            .iter()
            .rposition(|idle| idle.connection.key() == key)?;
        let idle = self.idle.remove(last)?;
        self.leased += 1;
        Some(idle.connection)
    }

    /// Why a connection that comes back must not be lent again, if so.
    pub fn unfit(&self, connection: &C, now: Instant) -> Option<DiscardReason> {
        let limits = &self.limits;
        // What closes already is not retired a second time.
        if self.occupied() - self.closing > limits.size {
            Some(DiscardReason::PoolShrunk)
        } else if limits
            .max_exchanges
            .is_some_and(|max| connection.exchanges() >= max)
        {
            Some(DiscardReason::MaxExchanges)
        } else if connection.retire_at().is_some_and(|at| at <= now) {
            Some(DiscardReason::MaxLifetime)
        } else {
            None
        }
    }

    /// A lease came back, and nobody waits.
    pub fn release(&mut self, connection: C, now: Instant) {
        self.leased -= 1;
        self.idle.push_back(Idle {
            connection,
            since: now,
        });
    }

    /// A lease ends with its connection. A slot is kept where the service still has the connection.
    pub fn retire_leased(&mut self, keeps_slot: bool) {
        self.leased -= 1;
        self.closing += usize::from(keeps_slot);
    }

    /// Takes an idle connection out, for its end.
    pub fn retire_idle(&mut self, id: u64) -> Option<C> {
        let place = self
            .idle
            .iter()
            .position(|idle| idle.connection.id() == id)?;
        let idle = self.idle.remove(place)?;
        self.closing += 1;
        Some(idle.connection)
    }

    /// Takes the least recently used idle connection out, if it has another key than `unless`.
    pub fn retire_oldest_idle(&mut self, unless: Option<PoolKey>) -> Option<C> {
        let place = self
            .idle
            .iter()
            .position(|idle| Some(idle.connection.key()) != unless)?;
        let idle = self.idle.remove(place)?;
        self.closing += 1;
        Some(idle.connection)
    }

    /// Looks at an idle connection.
    pub fn idle_connection(&self, id: u64) -> Option<&C> {
        self.idle
            .iter()
            .map(|idle| &idle.connection)
            .find(|connection| connection.id() == id)
    }

    /// The end of a closing connection is complete.
    pub fn slot_freed(&mut self) {
        debug_assert!(self.closing > 0, "only what closes can be freed");
        self.closing -= 1;
    }

    /// Takes out one idle connection that is past a limit, for its end. Called until `None`.
    pub fn expire(&mut self, now: Instant) -> Option<(C, DiscardReason)> {
        let (place, reason) = self
            .idle
            .iter()
            .position(|idle| idle.connection.retire_at().is_some_and(|at| at <= now))
            .map(|place| (place, DiscardReason::MaxLifetime))
            .or_else(|| {
                self.oldest_is_overdue(now)
                    .then_some((0, DiscardReason::IdleTimeout))
            })?;
        let idle = self.idle.remove(place)?;
        self.closing += 1;
        Some((idle.connection, reason))
    }

    /// Takes out one idle connection that a smaller `size` has made surplus. Called until `None`.
    pub fn surplus(&mut self) -> Option<C> {
        let kept = self.occupied() - self.closing;
        if kept <= self.limits.size {
            return None;
        }
        let idle = self.idle.pop_front()?;
        self.closing += 1;
        Some(idle.connection)
    }

    /// When [`Books::expire`] next has something to say.
    pub fn next_expiry(&self) -> Option<Instant> {
        let lifetime = self
            .idle
            .iter()
            .filter_map(|idle| idle.connection.retire_at())
            .min();
        let idle = self
            .limits
            .idle_timeout
            .filter(|_| self.idle.len() > self.limits.min_idle)
            .and_then(|timeout| Some(self.idle.front()?.since + timeout));
        [lifetime, idle].into_iter().flatten().min()
    }

    /// Panics where the books are wrong. `before` are the slots taken before the last operation.
    pub fn check_invariants(&self, before: usize) {
        let occupied = self.occupied();
        assert!(
            occupied <= self.limits.size || occupied <= before,
            "{occupied} slots of {} are taken, {before} before",
            self.limits.size
        );
        assert!(self.connecting <= occupied);
    }

    fn oldest_is_overdue(&self, now: Instant) -> bool {
        self.idle.len() > self.limits.min_idle
            && self.limits.idle_timeout.is_some_and(|timeout| {
                self.idle
                    .front()
                    .is_some_and(|idle| idle.since + timeout <= now)
            })
    }
}

/// Sharing. One connection carries several sessions' exchanges, a bounded number at a time.
impl<C: Handle + Clone> Books<C> {
    /// Turns a lease into a shared connection, for exchanges of others too.
    pub fn share(&mut self, connection: C) {
        self.leased -= 1;
        self.shared.push(Shared {
            connection,
            in_flight: 0,
        });
    }

    /// Joins the shared connection of this key with the fewest exchanges under way.
    pub fn attach(&mut self, key: PoolKey, in_flight_max: usize) -> Option<C> {
        let shared = self
            .shared
            .iter_mut()
            .filter(|it| it.connection.key() == key && it.in_flight < in_flight_max)
            .min_by_key(|it| it.in_flight)?;
        shared.in_flight += 1;
        Some(shared.connection.clone())
    }

    /// One exchange on a shared connection ended.
    pub fn detach(&mut self, id: u64) {
        if let Some(shared) = self.shared.iter_mut().find(|it| it.connection.id() == id) {
            shared.in_flight -= 1;
        }
    }

    /// Ends a shared connection; how many exchanges were under way on it.
    pub fn retire_shared(&mut self, id: u64, keeps_slot: bool) -> Option<usize> {
        let place = self.shared.iter().position(|it| it.connection.id() == id)?;
        let shared = self.shared.swap_remove(place);
        self.closing += usize::from(keeps_slot);
        Some(shared.in_flight)
    }
}

#[cfg(test)]
mod tests;
