//! The books of one endpoint's pool: every slot, exactly.
//!
//! ```text
//!              start_connect                       lend          share
//!   (free) ─────────────────► connecting ──► idle ──────► leased ──────► shared (several sessions)
//!      ▲                          │           │  ▲          │              │
//!      │                          │           │  └──────────┤              │
//!      │      connect_failed      │           │   release   │              │
//!      ├──────────────────────────┘           │ retire      │              │
//!      └───────── slot_freed ◄──── closing ◄──┴─────────────┴──────────────┘
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
use super::idle_limit::{Evidence, IdleLimit, Learned};
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
    /// Since when its service has heard nothing, where that is longer than it is known here.
    fn idle_since(&self) -> Option<Instant> {
        None
    }
    /// For how long it may be idle, as its service has announced.
    fn idle_max(&self) -> Option<Duration> {
        None
    }
    /// Whether what its service does to it while it is idle goes by the timeout between exchanges.
    fn is_between_exchanges(&self) -> bool {
        self.exchanges() > 0
    }
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
    /// Idle connections also go by what their service does and announces.
    pub learn_idle_timeout: bool,
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
    /// Idle, and not lent any more: it shows how long the service keeps it.
    sentinel: Option<Idle<C>>,
    idle_limit: IdleLimit,
    connecting: usize,
    leased: usize,
    shared: usize,
    closing: usize,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since: Instant,
}

impl<C: Handle> Books<C> {
    /// Empty books.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            idle: VecDeque::new(),
            sentinel: None,
            idle_limit: IdleLimit::default(),
            connecting: 0,
            leased: 0,
            shared: 0,
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
        if !limits.learn_idle_timeout {
            self.idle_limit.forget();
        }
        self.limits = limits;
    }

    /// What is known of the service's idle timeout.
    pub fn learned(&self) -> Option<Learned> {
        self.idle_limit.learned()
    }

    /// Slots taken.
    pub fn occupied(&self) -> usize {
        self.connecting + self.idle() + self.leased + self.shared + self.closing
    }

    /// Idle connections.
    pub fn idle(&self) -> usize {
        self.idle.len() + usize::from(self.sentinel.is_some())
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
        self.shared
    }

    /// Connections whose end is not complete.
    pub fn closing(&self) -> usize {
        self.closing
    }

    /// Connections in use, those under way included: what balance goes by.
    pub fn load(&self) -> usize {
        self.leased + self.connecting + self.shared
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

    /// Whether a connection of this key is idle and may be lent.
    pub fn has_idle(&self, key: PoolKey, now: Instant) -> bool {
        let mut idle = self.idle.iter().rev();
        idle.any(|idle| idle.connection.key() == key && !self.is_served_out(idle, now))
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
        self.keep(connection, now);
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

    /// Lends the last released connection of this key, unless its service is about to close it.
    pub fn lend(&mut self, key: PoolKey, now: Instant) -> Option<C> {
        let fit = |idle: &Idle<C>| idle.connection.key() == key && !self.is_served_out(idle, now);
        let last = self.idle.iter().rposition(fit)?;
        let idle = self.idle.remove(last)?;
        self.leased += 1;
        if idle.connection.is_between_exchanges() {
            self.idle_limit.on_survival(idle.age(now), now);
        }
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
        self.keep(connection, now);
    }

    /// A lease ends with its connection. A slot is kept where the service still has the connection.
    pub fn retire_leased(&mut self, keeps_slot: bool) {
        self.leased -= 1;
        self.closing += usize::from(keeps_slot);
    }

    /// A lease carries the exchanges of several sessions from now on.
    pub fn share(&mut self) {
        self.leased -= 1;
        self.shared += 1;
    }

    /// A shared connection ends. A slot is kept where the service still has it.
    pub fn retire_shared(&mut self, keeps_slot: bool) {
        self.shared -= 1;
        self.closing += usize::from(keeps_slot);
    }

    /// Takes an idle connection out, for its end; says how long it was idle.
    pub fn retire_idle(&mut self, id: u64, now: Instant) -> Option<(C, Duration)> {
        if let Some(sentinel) = self.sentinel.take_if(|it| it.connection.id() == id) {
            self.closing += 1;
            self.idle_limit.on_sentinel_end(now);
            let age = sentinel.age(now);
            return Some((sentinel.connection, age));
        }
        let mut idle = self.idle.iter();
        let place = idle.position(|idle| idle.connection.id() == id)?;
        let idle = self.idle.remove(place)?;
        self.closing += 1;
        let age = idle.age(now);
        Some((idle.connection, age))
    }

    /// Takes the least recently used idle connection out, if it can't be lent for the key `unless`.
    pub fn retire_oldest_idle(&mut self, unless: Option<PoolKey>) -> Option<C> {
        if let Some(sentinel) = self.sentinel.take() {
            self.closing += 1;
            return Some(sentinel.connection);
        }
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
            .chain(&self.sentinel)
            .map(|idle| &idle.connection)
            .find(|connection| connection.id() == id)
    }

    /// The service has closed a connection that was idle for `age`, or a request was lost to that.
    pub fn closed_by_service(&mut self, age: Duration, evidence: Evidence, now: Instant) {
        if self.limits.learn_idle_timeout {
            self.idle_limit.on_close(age, evidence, now);
        }
    }

    /// The end of a closing connection is complete.
    pub fn slot_freed(&mut self) {
        debug_assert!(self.closing > 0, "only what closes can be freed");
        self.closing -= 1;
    }

    /// Takes out one idle connection that is past a limit, for its end. Called until `None`.
    /// `is_wanted`: somebody waits, so that no slot can be spared.
    pub fn expire(&mut self, now: Instant, is_wanted: bool) -> Option<(C, DiscardReason)> {
        if let Some(reason) = self.sentinel_overdue(now, is_wanted) {
            let sentinel = self.sentinel.take()?;
            self.closing += 1;
            self.idle_limit.on_sentinel_end(now);
            return Some((sentinel.connection, reason));
        }
        loop {
            let mut idle = self.idle.iter().enumerate();
            let (place, reason) = idle.find_map(|(place, idle)| {
                self.overdue(place, idle, now).map(|reason| (place, reason))
            })?;
            let idle = self.idle.remove(place)?;
            if reason == DiscardReason::IdleLearned && self.may_stay(&idle, now, is_wanted) {
                self.sentinel = Some(idle);
                continue;
            }
            self.closing += 1;
            match reason {
                DiscardReason::IdleLearned => self.idle_limit.on_retired(now),
                _ if idle.connection.is_between_exchanges() => {
                    self.idle_limit.on_survival(idle.age(now), now);
                }
                _ => {}
            }
            return Some((idle.connection, reason));
        }
    }

    /// Takes out one idle connection that a smaller `size` has made surplus. Called until `None`.
    pub fn surplus(&mut self) -> Option<C> {
        let kept = self.occupied() - self.closing;
        if kept <= self.limits.size {
            return None;
        }
        let idle = self.sentinel.take().or_else(|| self.idle.pop_front())?;
        self.closing += 1;
        Some(idle.connection)
    }

    /// When [`Books::expire`] next has something to say.
    pub fn next_expiry(&self) -> Option<Instant> {
        let idle = self
            .limits
            .idle_timeout
            .filter(|_| self.idle.len() > self.limits.min_idle)
            .and_then(|timeout| Some(self.idle.front()?.since + timeout));
        let others = self.idle.iter().flat_map(|idle| {
            let served_out = self
                .service_limit(&idle.connection)
                .map(|it| idle.since + it);
            [idle.connection.retire_at(), served_out]
        });
        let sentinel = self.sentinel.iter().flat_map(|it| {
            let ages = [self.idle_limit.outlived_at(), self.limits.idle_timeout];
            let ages = ages.map(|age| age.map(|age| it.since + age));
            [it.connection.retire_at(), ages[0], ages[1]]
        });
        others.chain(sentinel).chain([idle]).flatten().min()
    }

    /// How long this connection may be idle at most: by its service, as far as that is known, and by
    /// `idle_timeout`.
    pub fn idle_max(&self, connection: &C) -> Option<Duration> {
        let ages = [self.service_limit(connection), self.limits.idle_timeout];
        ages.into_iter().flatten().min()
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

    /// Puts a connection among the idle ones.
    fn keep(&mut self, connection: C, now: Instant) {
        let since = connection.idle_since().unwrap_or(now);
        // One that comes back unused goes to where it was.
        let place = match self.idle.back() {
            Some(last) if last.since > since => self.idle.partition_point(|it| it.since <= since),
            _ => self.idle.len(),
        };
        self.idle.insert(place, Idle { connection, since });
    }

    /// How long the service lets this connection be idle, less a margin, as far as that is known.
    fn service_limit(&self, connection: &C) -> Option<Duration> {
        if !self.limits.learn_idle_timeout || !connection.is_between_exchanges() {
            return None;
        }
        let learned = self.idle_limit.retirement();
        [learned, connection.idle_max()].into_iter().flatten().min()
    }

    /// Whether the service is about to close it, or may have done so.
    fn is_served_out(&self, idle: &Idle<C>, now: Instant) -> bool {
        self.service_limit(&idle.connection)
            .is_some_and(|limit| idle.age(now) >= limit)
    }

    fn overdue(&self, place: usize, idle: &Idle<C>, now: Instant) -> Option<DiscardReason> {
        let spared = place > 0 || self.idle.len() <= self.limits.min_idle;
        let is_over = |limit: Option<Duration>| limit.is_some_and(|it| idle.age(now) >= it);
        if idle.connection.retire_at().is_some_and(|at| at <= now) {
            Some(DiscardReason::MaxLifetime)
        } else if !spared && is_over(self.limits.idle_timeout) {
            Some(DiscardReason::IdleTimeout)
        } else {
            self.is_served_out(idle, now)
                .then_some(DiscardReason::IdleLearned)
        }
    }

    /// Whether a connection that is about to retire may become the sentinel: nobody misses its slot.
    fn may_stay(&self, idle: &Idle<C>, now: Instant, is_wanted: bool) -> bool {
        let is_announced = idle
            .connection
            .idle_max()
            .is_some_and(|it| idle.age(now) >= it);
        // It is out of the idle ones already, and still takes its slot.
        let is_spare = (self.occupied() + 1) * 2 <= self.limits.size;
        !is_wanted
            && !is_announced
            && is_spare
            && self.sentinel.is_none()
            && self.idle_limit.may_have_sentinel(idle.age(now), now)
    }

    /// Why the sentinel must go, if so.
    fn sentinel_overdue(&mut self, now: Instant, is_wanted: bool) -> Option<DiscardReason> {
        let sentinel = self.sentinel.as_ref()?;
        let age = sentinel.age(now);
        if sentinel.connection.retire_at().is_some_and(|at| at <= now) {
            return Some(DiscardReason::MaxLifetime);
        }
        // None: what it was to tell is forgotten.
        if self.idle_limit.outlived_at().is_none_or(|at| age >= at) {
            self.idle_limit.on_outlived(now);
            return Some(DiscardReason::IdleLearned);
        }
        if self
            .limits
            .idle_timeout
            .is_some_and(|timeout| age >= timeout)
        {
            return Some(DiscardReason::IdleTimeout);
        }
        (is_wanted && self.is_full()).then_some(DiscardReason::IdleLearned)
    }
}

impl<C> Idle<C> {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod idle_tests;
#[cfg(test)]
mod tests;
