//! When and where connections are opened: for who waits, for warmth, for balance, on trial.
//!
//! Part of the pure core. Not here: what becomes of a connect when it ends (see [`Core`]).

use std::time::Instant;

use super::{Action, Actions, Core};
use crate::pool::core::Handle;
use crate::pool::{EndpointId, PoolKey};
use crate::stats::reason::{DiscardReason, OpenReason};
use crate::upstream::balance::{Candidate, least_loaded};
use crate::upstream::health::Health;

impl<C: Handle, W> Core<C, W> {
    /// Serves the queue: trials that are due, then connects, then room for connects. Nothing that
    /// suits a waiter is ever idle here: it was lent when it came.
    pub(super) fn pump(&mut self, now: Instant, actions: &mut Actions<C, W>) {
        self.forget_removed();
        if self.is_draining {
            return;
        }
        let front = self.queue.iter().next().map(|waiter| waiter.key);
        if let Some(key) = front {
            self.try_resting(key, now, actions);
            self.connect_for_waiters(actions);
        } else {
            self.warm(now, actions);
        }
    }

    /// Walks the queue from the oldest waiter, counting off the connects and the closing slots that
    /// are under way, and starts what is missing. Ends at the first waiter nothing can be done for:
    /// nobody is served past it.
    fn connect_for_waiters(&mut self, actions: &mut Actions<C, W>) {
        let mut under_way = self.connecting.clone();
        let mut closing: usize = self.active().map(|it| it.books.closing()).sum();
        let waiting: Vec<(PoolKey, bool)> = self
            .queue
            .iter()
            .map(|it| (it.key, it.fresh))
            .take(self.walk_max())
            .collect();
        for (key, fresh) in waiting {
            if let Some((_, count)) = under_way.iter_mut().find(|(it, n)| *it == key && *n > 0) {
                *count -= 1;
                continue;
            }
            if let Some(place) = self.choose_for_connect() {
                self.start_connect(place, key, OpenReason::Demand, actions);
                continue;
            }
            if closing > 0 {
                closing -= 1;
                continue;
            }
            if !self.make_room(key, fresh, actions) {
                break;
            }
        }
    }

    /// Waiters beyond this many can't be helped in one walk: there are not that many slots.
    fn walk_max(&self) -> usize {
        self.active()
            .map(|it| it.books.limits().size)
            .sum::<usize>()
            + 1
    }

    /// Retires the least recently used idle connection that the waiter can't use, where only that
    /// makes room.
    fn make_room(&mut self, key: PoolKey, fresh: bool, actions: &mut Actions<C, W>) -> bool {
        let unless = (!fresh).then_some(key);
        for endpoint in self.endpoints.iter_mut().filter(|it| !it.is_removed) {
            if !endpoint.books.is_full() {
                continue;
            }
            if let Some(connection) = endpoint.books.retire_oldest_idle(unless) {
                actions.push_back(Action::Retire(
                    endpoint.id,
                    connection,
                    DiscardReason::KeyNeeded,
                ));
                return true;
            }
        }
        false
    }

    pub(super) fn warm(&mut self, now: Instant, actions: &mut Actions<C, W>) {
        for place in 0..self.endpoints.len() {
            while {
                let endpoint = &self.endpoints[place];
                !endpoint.is_removed
                    && endpoint.books.wants_warmth()
                    && endpoint.health.may_connect(now)
            } {
                let is_well = self.endpoints[place].health == Health::Well;
                let reason = if is_well {
                    OpenReason::Warm
                } else {
                    OpenReason::Trial
                };
                self.start_connect(place, PoolKey::SOLE, reason, actions);
            }
        }
    }

    pub(super) fn start_connect(
        &mut self,
        place: usize,
        key: PoolKey,
        reason: OpenReason,
        actions: &mut Actions<C, W>,
    ) {
        let endpoint = &mut self.endpoints[place];
        endpoint.books.start_connect();
        endpoint.health.connecting();
        actions.push_back(Action::Connect(endpoint.id, key, reason));
        if serves_waiters(reason) {
            match self.connecting.iter_mut().find(|(it, _)| *it == key) {
                Some((_, count)) => *count += 1,
                None => self.connecting.push((key, 1)),
            }
        }
    }

    pub(super) fn connect_ended(&mut self, key: PoolKey, reason: OpenReason) {
        if serves_waiters(reason)
            && let Some((_, count)) = self.connecting.iter_mut().find(|(it, _)| *it == key)
        {
            *count -= 1;
        }
    }

    /// The least loaded endpoint that is well and has room for a connect.
    fn choose_for_connect(&mut self) -> Option<usize> {
        let candidates = self
            .endpoints
            .iter()
            .enumerate()
            .filter(|(_, it)| !it.is_removed && it.books.can_connect() && it.health == Health::Well)
            .map(|(place, it)| Candidate {
                place,
                load: it.books.load(),
                weight: it.weight,
            });
        let chosen = least_loaded(candidates, self.turn, self.endpoints.len());
        self.turn = self.turn.wrapping_add(usize::from(chosen.is_some()));
        chosen
    }

    /// Tries endpoints whose rest is over, with one connect each. No waiter counts on it, so an
    /// endpoint that fails, fast or slowly, keeps nobody from one that works.
    fn try_resting(&mut self, key: PoolKey, now: Instant, actions: &mut Actions<C, W>) {
        for place in 0..self.endpoints.len() {
            let it = &self.endpoints[place];
            let is_due = it.health != Health::Well && it.health.may_connect(now);
            if is_due && !it.is_removed && it.books.can_connect() {
                self.start_connect(place, key, OpenReason::Trial, actions);
            }
        }
    }

    /// After a lease from `place`: opens a connection, for later, to an endpoint that has less to do
    /// than its share and nothing idle. So load evens out, and an endpoint that comes back is found,
    /// without anybody waiting for a connect while something is idle elsewhere.
    pub(super) fn even_out(
        &mut self,
        place: usize,
        key: PoolKey,
        now: Instant,
        actions: &mut Actions<C, W>,
    ) {
        let (load, weight) = (
            self.endpoints[place].books.load() as u64,
            self.endpoints[place].weight,
        );
        for other in (0..self.endpoints.len()).filter(|other| *other != place) {
            let it = &self.endpoints[other];
            let is_less =
                (it.books.load() as u64 + 1) * u64::from(weight) <= load * u64::from(it.weight);
            if is_less
                && !it.is_removed
                && it.books.connecting() == 0
                && it.books.can_connect()
                && !it.books.has_idle(key, now)
                && it.health.may_connect(now)
            {
                let is_well = it.health == Health::Well;
                let reason = if is_well {
                    OpenReason::Balance
                } else {
                    OpenReason::Trial
                };
                self.start_connect(other, key, reason, actions);
            }
        }
    }

    /// Whether the oldest waiter can't use a connection of `key` that came back to `id`, and nothing
    /// else is under way or possible for it: then the connection makes room for it, or it would wait
    /// behind all others. Where a slot is free already, one more brings no connect any closer.
    pub(super) fn front_is_stuck(&self, id: EndpointId, key: PoolKey) -> bool {
        self.queue.iter().next().is_some_and(|front| {
            (front.key != key || front.fresh)
                && !self
                    .connecting
                    .iter()
                    .any(|(it, count)| *it == front.key && *count > 0)
                && self.active().all(|it| {
                    let can_dial = !it.books.is_full() && it.health == Health::Well;
                    it.books.closing() == 0 && !can_dial && (it.id != id || it.books.is_full())
                })
        })
    }
}

/// Whether a waiter may count on a connect that was started for this reason.
fn serves_waiters(reason: OpenReason) -> bool {
    match reason {
        OpenReason::Demand | OpenReason::Warm => true,
        OpenReason::Balance | OpenReason::Trial => false,
    }
}
