//! Who is lent what: the books of all endpoints of an upstream, and the one queue before them.
//!
//! ```text
//!  acquire ──idle?──► granted at once
//!     └────► queue ──► pump: a connect for each waiter that
//!                      none is under way for; where no slot is free, an idle connection of another
//!                      key is retired for it
//! ```
//!
//! Pure: connections and waiters are whatever handles the caller has, time is an argument, chance
//! comes from a seed. What is to be done outside is said in [`Action`]s.
//!
//! Invariants: nobody waits while a connection that suits is idle; the oldest waiter that a freed
//! connection suits gets it; nothing is lent twice; slots are exact (see `pool::core`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

mod connects;
mod time;

use super::balance::{Candidate, least_loaded};
use super::health::{Backoff, Health};
use crate::pool::connection::HeldAs;
use crate::pool::core::{Books, Handle, Limits};
use crate::pool::wait_queue::{Ticket, WaitQueue, Waiter};
use crate::pool::{EndpointId, PoolKey};
use crate::stats::reason::{ConnectOutcome, DiscardReason, OpenReason};

/// What the caller has to do.
#[derive(Debug)]
pub enum Action<C, W> {
    /// Dial the endpoint, then call [`Core::connected`] or [`Core::connect_failed`].
    Connect(EndpointId, PoolKey, OpenReason),
    /// Give the connection to the waiter. If it is not there any more, [`Core::release`].
    Grant(Waiter<W>, C),
    /// Tell the waiter why it gets nothing.
    Refuse(Waiter<W>, Refused),
    /// End the connection; its slot is kept until [`Core::slot_freed`].
    Retire(EndpointId, C, DiscardReason),
}

/// Why a waiter gets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its deadline passed.
    TimedOut,
    /// Every endpoint failed while it waited; this is how the last one did.
    ConnectFailed(ConnectOutcome),
    /// The upstream is being drained.
    Draining,
}

/// One endpoint as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointRules {
    /// Its share of the load, at least 1.
    pub weight: u32,
    /// Its pool's limits.
    pub limits: Limits,
}

/// The answer to [`Core::acquire`].
#[derive(Debug)]
pub enum Answer<C> {
    /// Lent, at once.
    Lent(C),
    /// In the queue; what is to be done for it is in the actions.
    Waits(Ticket),
    /// The queue is full.
    QueueFull,
    /// Nothing is lent any more.
    Draining,
}

/// The limits of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupRules {
    /// How long a session waits.
    pub wait_timeout: Duration,
    /// How many may wait.
    pub wait_queue: usize,
    /// How long an endpoint rests after failures.
    pub backoff: Backoff,
}

/// The books of an upstream.
#[derive(Debug)]
pub struct Core<C, W> {
    rules: GroupRules,
    endpoints: Vec<Endpoint<C>>,
    queue: WaitQueue<W>,
    /// Connects under way, by key, without those for warmth alone.
    connecting: Vec<(PoolKey, usize)>,
    turn: usize,
    seed: u64,
    is_draining: bool,
}

#[derive(Debug)]
struct Endpoint<C> {
    id: EndpointId,
    weight: u32,
    /// Removed by a reload: lends nothing, and goes when its last slot is free.
    is_removed: bool,
    books: Books<C>,
    health: Health,
}

type Actions<C, W> = VecDeque<Action<C, W>>;

impl<C: Handle, W> Core<C, W> {
    /// Books without endpoints. `seed` is for the jitter of back-off.
    pub fn new(rules: GroupRules, seed: u64) -> Self {
        Self {
            rules,
            endpoints: Vec::new(),
            queue: WaitQueue::default(),
            connecting: Vec::new(),
            turn: 0,
            seed: seed | 1,
            is_draining: false,
        }
    }

    /// Lends an idle connection of this key, or queues the waiter that `waiter` makes. `fresh` asks
    /// for a connection that has carried nothing yet.
    pub fn acquire(
        &mut self,
        key: PoolKey,
        fresh: bool,
        now: Instant,
        waiter: impl FnOnce() -> W,
        actions: &mut Actions<C, W>,
    ) -> Answer<C> {
        if self.is_draining {
            return Answer::Draining;
        }
        if !fresh && let Some((place, connection)) = self.lend(key, now) {
            if self.endpoints.len() > 1 {
                self.even_out(place, key, now, actions);
            }
            if self.queue.is_empty() {
                self.warm(now, actions);
            }
            return Answer::Lent(connection);
        }
        // What its service is about to close takes slots until it is out.
        self.expire(now, true, actions);
        if self.queue.len() >= self.rules.wait_queue + self.within_reach(now) {
            return Answer::QueueFull;
        }
        let deadline = now + self.rules.wait_timeout;
        let ticket = self.queue.join(key, fresh, now, deadline, waiter());
        self.pump(now, actions);
        Answer::Waits(ticket)
    }

    /// A waiter goes away; false if it was served already.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        self.queue.leave(ticket).is_some()
    }

    /// A lease comes back at a boundary, fit to be lent again.
    pub fn release(
        &mut self,
        id: EndpointId,
        connection: C,
        now: Instant,
        actions: &mut Actions<C, W>,
    ) {
        let is_draining = self.is_draining;
        let Some(endpoint) = self.endpoint(id) else {
            return;
        };
        let unfit = endpoint.unfit(&connection, is_draining, now);
        if let Some(reason) = unfit {
            endpoint.books.retire_leased(true);
            actions.push_back(Action::Retire(id, connection, reason));
            return self.pump(now, actions);
        }
        let key = connection.key();
        if self.front_is_stuck(id, key) {
            if let Some(endpoint) = self.endpoint(id) {
                endpoint.books.retire_leased(true);
            }
            actions.push_back(Action::Retire(id, connection, DiscardReason::KeyNeeded));
            return;
        }
        if let Some(waiter) = self
            .queue
            .take_oldest(|waiter| waiter.key == key && !waiter.fresh)
        {
            actions.push_back(Action::Grant(waiter, connection));
            return;
        }
        if let Some(endpoint) = self.endpoint(id) {
            endpoint.books.release(connection, now);
        }
        if !self.queue.is_empty() {
            self.pump(now, actions);
        }
    }

    /// A lease ends with its connection. `keeps_slot`: the service still has the connection, and
    /// [`Core::slot_freed`] follows.
    pub fn discard(
        &mut self,
        id: EndpointId,
        held_as: HeldAs,
        keeps_slot: bool,
        now: Instant,
        actions: &mut Actions<C, W>,
    ) {
        if let Some(endpoint) = self.endpoint(id) {
            match held_as {
                HeldAs::Leased => endpoint.books.retire_leased(keeps_slot),
                HeldAs::Shared => endpoint.books.retire_shared(keeps_slot),
            }
        }
        self.pump(now, actions);
    }

    /// A lease carries the exchanges of several sessions from now on. It does not come back: it ends by
    /// [`Core::discard`].
    pub fn share(&mut self, id: EndpointId) {
        if let Some(endpoint) = self.endpoint(id) {
            endpoint.books.share();
        }
    }

    /// An idle connection is not what it was: takes it out for its end, and says how long it was
    /// idle. `None` if it is not idle.
    pub fn retire_idle(
        &mut self,
        id: EndpointId,
        connection: u64,
        now: Instant,
    ) -> Option<(C, Duration)> {
        self.endpoint(id)?.books.retire_idle(connection, now)
    }

    /// The endpoint accepts connections and closes them at once: it rests like one that refuses.
    pub fn died_young(&mut self, id: EndpointId, now: Instant) {
        let (backoff, chance) = (self.rules.backoff, self.chance());
        if let Some(endpoint) = self.endpoint(id) {
            endpoint.health.failed(now, true, backoff, chance);
        }
    }

    /// Looks at an idle connection.
    pub fn idle_connection(&mut self, id: EndpointId, connection: u64) -> Option<&C> {
        self.endpoint(id)?.books.idle_connection(connection)
    }

    /// The end of a closing connection is complete.
    pub fn slot_freed(&mut self, id: EndpointId, now: Instant, actions: &mut Actions<C, W>) {
        if let Some(endpoint) = self.endpoint(id) {
            endpoint.books.slot_freed();
        }
        self.pump(now, actions);
    }

    /// A connect succeeded: to the oldest waiter it suits, else idle.
    pub fn connected(
        &mut self,
        id: EndpointId,
        connection: C,
        reason: OpenReason,
        now: Instant,
        actions: &mut Actions<C, W>,
    ) {
        let key = connection.key();
        self.connect_ended(key, reason);
        let is_draining = self.is_draining;
        let Some(endpoint) = self.endpoints.iter_mut().find(|it| it.id == id) else {
            return;
        };
        endpoint.health.connected();
        if let Some(reason) = endpoint.unfit(&connection, is_draining, now) {
            endpoint.books.connected_and_retired();
            actions.push_back(Action::Retire(id, connection, reason));
        } else if let Some(waiter) = self.queue.take_oldest(|waiter| waiter.key == key) {
            endpoint.books.connected_and_lent();
            actions.push_back(Action::Grant(waiter, connection));
        } else {
            endpoint.books.connected(connection, now);
        }
        self.pump(now, actions);
    }

    /// A connect failed. Waiters for whom every endpoint has failed, with nothing under way that
    /// could still serve them, are told so.
    pub fn connect_failed(
        &mut self,
        id: EndpointId,
        key: PoolKey,
        reason: OpenReason,
        outcome: ConnectOutcome,
        now: Instant,
        actions: &mut Actions<C, W>,
    ) {
        self.connect_ended(key, reason);
        let (mut backoff, chance) = (self.rules.backoff, self.chance());
        if outcome.is_local() {
            // Not the endpoint's failure: it rests only so that this is no busy loop.
            backoff.max = backoff.min;
        }
        let Some(endpoint) = self.endpoint(id) else {
            return;
        };
        endpoint.books.connect_failed();
        if outcome == ConnectOutcome::Abandoned {
            endpoint.health.not_tried();
        } else {
            endpoint
                .health
                .failed(now, reason == OpenReason::Trial, backoff, chance);
        }
        self.forget_removed();
        self.pump(now, actions);
        let endpoints = &self.endpoints;
        let is_hopeless = |waiter: &Waiter<W>| {
            endpoints
                .iter()
                .filter(|it| !it.is_removed)
                .all(|endpoint| {
                    endpoint.health.has_failed_since(waiter.since)
                        && endpoint.books.connecting() == 0
                        && endpoint.books.leased() == 0
                })
        };
        while let Some(waiter) = self.queue.take_oldest(is_hopeless) {
            actions.push_back(Action::Refuse(waiter, Refused::ConnectFailed(outcome)));
        }
    }

    /// Other limits for the group from now on.
    pub fn set_rules(&mut self, rules: GroupRules) {
        self.rules = rules;
        self.queue.wait_at_most(rules.wait_timeout);
    }

    /// Adds an endpoint, or changes the rules of one.
    pub fn set_endpoint(
        &mut self,
        id: EndpointId,
        rules: EndpointRules,
        now: Instant,
        actions: &mut Actions<C, W>,
    ) {
        match self.endpoint(id) {
            Some(endpoint) => {
                endpoint.weight = rules.weight;
                endpoint.is_removed = false;
                endpoint.books.set_limits(rules.limits);
                while let Some(connection) = endpoint.books.surplus() {
                    actions.push_back(Action::Retire(id, connection, DiscardReason::PoolShrunk));
                }
            }
            None => self.endpoints.push(Endpoint {
                id,
                weight: rules.weight,
                is_removed: false,
                books: Books::new(rules.limits),
                health: Health::Well,
            }),
        }
        self.pump(now, actions);
    }

    /// Removes an endpoint: idle connections go now, leased ones at their boundary.
    pub fn remove_endpoint(&mut self, id: EndpointId, now: Instant, actions: &mut Actions<C, W>) {
        if let Some(endpoint) = self.endpoint(id) {
            endpoint.is_removed = true;
            retire_all_idle(endpoint, DiscardReason::EndpointRemoved, actions);
        }
        self.forget_removed();
        self.pump(now, actions);
    }

    /// Retires everything idle, for `reason`.
    pub fn flush(&mut self, reason: DiscardReason, now: Instant, actions: &mut Actions<C, W>) {
        for endpoint in &mut self.endpoints {
            retire_all_idle(endpoint, reason, actions);
        }
        self.pump(now, actions);
    }

    /// Lends nothing any more, and retires what is idle or comes back.
    pub fn drain(&mut self, now: Instant, actions: &mut Actions<C, W>) {
        self.is_draining = true;
        while let Some(waiter) = self.queue.take_oldest(|_| true) {
            actions.push_back(Action::Refuse(waiter, Refused::Draining));
        }
        self.flush(DiscardReason::Drain, now, actions);
    }

    /// Lends again: the drain was taken back.
    pub fn resume(&mut self) {
        self.is_draining = false;
    }

    /// Whether it lends nothing any more.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Slots taken, over all endpoints.
    pub fn occupied(&self) -> usize {
        self.endpoints.iter().map(|it| it.books.occupied()).sum()
    }

    /// How many wait.
    pub fn waiters(&self) -> usize {
        self.queue.len()
    }

    /// Every endpoint that still has something, with its books and failures in a row.
    pub fn books(&self) -> impl Iterator<Item = (EndpointId, &Books<C>, u32)> {
        self.endpoints
            .iter()
            .map(|it| (it.id, &it.books, it.health.failures()))
    }

    fn lend(&mut self, key: PoolKey, now: Instant) -> Option<(usize, C)> {
        if let [only] = self.endpoints.as_mut_slice() {
            return if only.is_removed {
                None
            } else {
                Some((0, only.books.lend(key, now)?))
            };
        }
        let candidates = self
            .endpoints
            .iter()
            .enumerate()
            .filter(|(_, it)| !it.is_removed && it.books.has_idle(key, now))
            .map(|(place, it)| Candidate {
                place,
                load: it.books.load(),
                weight: it.weight,
            });
        let place = least_loaded(candidates, self.turn, self.endpoints.len())?;
        self.turn = self.turn.wrapping_add(1);
        Some((place, self.endpoints[place].books.lend(key, now)?))
    }

    /// How many waiters need only a connect: those are not what `wait_queue` bounds.
    fn within_reach(&self, now: Instant) -> usize {
        let under_way: usize = self.connecting.iter().map(|(_, count)| count).sum();
        let due = |it: &&Endpoint<C>| {
            it.health != Health::Well && it.health.may_connect(now) && it.books.can_connect()
        };
        let trials = self.active().filter(due).count();
        let well = self.active().filter(|it| it.health == Health::Well);
        let free = well.map(|it| it.books.limits().size.saturating_sub(it.books.occupied()));
        under_way + trials + free.sum::<usize>()
    }

    fn endpoint(&mut self, id: EndpointId) -> Option<&mut Endpoint<C>> {
        self.endpoints.iter_mut().find(|it| it.id == id)
    }

    fn active(&self) -> impl Iterator<Item = &Endpoint<C>> {
        self.endpoints.iter().filter(|it| !it.is_removed)
    }

    fn forget_removed(&mut self) {
        self.endpoints
            .retain(|it| !it.is_removed || it.books.occupied() > 0);
    }

    /// The next of a sequence of numbers in `0.0..1.0` (xorshift; only spread is asked of it).
    pub fn chance(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl<C: Handle> Endpoint<C> {
    /// Why a connection must not be lent from now on, if so.
    fn unfit(&self, connection: &C, is_draining: bool, now: Instant) -> Option<DiscardReason> {
        if is_draining {
            Some(DiscardReason::Drain)
        } else if self.is_removed {
            Some(DiscardReason::EndpointRemoved)
        } else {
            self.books.unfit(connection, now)
        }
    }
}

fn retire_all_idle<C: Handle, W>(
    endpoint: &mut Endpoint<C>,
    reason: DiscardReason,
    actions: &mut Actions<C, W>,
) {
    while let Some(connection) = endpoint.books.retire_oldest_idle(None) {
        actions.push_back(Action::Retire(endpoint.id, connection, reason));
    }
}

#[cfg(test)]
mod tests;
