//! Who waits for a connection, in order, each with a deadline.
//!
//! Pure. A waiter that leaves is forgotten at once; its place is closed up when the front reaches it.
//!
//! Invariant: tickets ascend from front to back, and the front is always somebody who waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::PoolKey;

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Somebody who waits.
#[derive(Debug)]
pub struct Waiter<W> {
    /// Its place.
    pub ticket: Ticket,
    /// What it needs.
    pub key: PoolKey,
    /// It needs a connection that has carried nothing yet.
    pub fresh: bool,
    /// When it began to wait.
    pub since: Instant,
    /// When it gives up.
    pub deadline: Instant,
    /// How to reach it.
    pub waiter: W,
}

/// The queue.
#[derive(Debug)]
pub struct WaitQueue<W> {
    places: VecDeque<(Ticket, Option<Waiter<W>>)>,
    waiting: usize,
    next: u64,
}

impl<W> Default for WaitQueue<W> {
    fn default() -> Self {
        Self {
            places: VecDeque::new(),
            waiting: 0,
            next: 0,
        }
    }
}

impl<W> WaitQueue<W> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Waits behind everybody else.
    pub fn join(
        &mut self,
        key: PoolKey,
        fresh: bool,
        since: Instant,
        deadline: Instant,
        waiter: W,
    ) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting += 1;
        let waiter = Waiter {
            ticket,
            key,
            fresh,
            since,
            deadline,
            waiter,
        };
        self.places.push_back((ticket, Some(waiter)));
        ticket
    }

    /// Gives up a place; `None` if it was served already.
    pub fn leave(&mut self, ticket: Ticket) -> Option<Waiter<W>> {
        let place = self
            .places
            .binary_search_by_key(&ticket, |(ticket, _)| *ticket)
            .ok()?;
        let waiter = self.places[place].1.take()?;
        self.waiting -= 1;
        if self.places.len() > 2 * self.waiting + PLACES_SLACK {
            self.places.retain(|(_, waiter)| waiter.is_some());
        }
        while self
            .places
            .front()
            .is_some_and(|(_, waiter)| waiter.is_none())
        {
            self.places.pop_front();
        }
        Some(waiter)
    }

    /// Takes the oldest waiter that `suits`.
    pub fn take_oldest(&mut self, suits: impl Fn(&Waiter<W>) -> bool) -> Option<Waiter<W>> {
        let ticket = self.iter().find(|waiter| suits(waiter))?.ticket;
        self.leave(ticket)
    }

    /// Everybody, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Waiter<W>> {
        self.places.iter().filter_map(|(_, waiter)| waiter.as_ref())
    }

    /// Nobody waits longer than this from now on, those who wait already included.
    pub fn wait_at_most(&mut self, wait: Duration) {
        for waiter in self.places.iter_mut().filter_map(|(_, it)| it.as_mut()) {
            waiter.deadline = waiter.deadline.min(waiter.since + wait);
        }
    }

    /// The earliest deadline: the front's, since all have the same patience.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.iter().next().map(|waiter| waiter.deadline)
    }
}

/// Places of those who left that may stand open before the queue is closed up.
const PLACES_SLACK: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sys::clock;

    #[test]
    fn the_oldest_is_served_first_and_who_left_is_not_served() {
        let now = clock::now();
        let mut queue = WaitQueue::default();
        let tickets: Vec<_> = (0..4)
            .map(|n| queue.join(PoolKey::SOLE, false, now, now, n))
            .collect();
        assert!(queue.leave(tickets[0]).is_some());
        assert!(queue.leave(tickets[2]).is_some());
        assert!(queue.leave(tickets[2]).is_none(), "twice");
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.take_oldest(|_| true).unwrap().waiter, 1);
        assert_eq!(queue.take_oldest(|_| true).unwrap().waiter, 3);
        assert!(queue.is_empty() && queue.places.is_empty());
    }

    #[test]
    fn order_holds_within_a_key() {
        let now = clock::now();
        let mut queue = WaitQueue::default();
        for n in 0..6 {
            queue.join(PoolKey::new(n % 2), false, now, now, n);
        }
        let odd = |waiter: &Waiter<u32>| waiter.key == PoolKey::new(1);
        assert_eq!(queue.take_oldest(odd).unwrap().waiter, 1);
        assert_eq!(queue.take_oldest(odd).unwrap().waiter, 3);
        assert_eq!(queue.take_oldest(|_| true).unwrap().waiter, 0);
    }
}
