//! Events that wait for their verdict, each until its time is over.
//!
//! Pure. Not here: what the verdict is (see `matching`).
//!
//! Invariant: every event that is held stands once in the order of time and once in the index of its
//! own key; nothing else does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::event::ResetEvent;

/// By what an event is told apart: a cookie where there is one, else the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Cookie(u64),
    Tuple(Tuple),
}

/// This host's end and the other one.
pub(super) type Tuple = (SocketAddr, SocketAddr);

/// An event with the moment that it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timed {
    pub(super) event: ResetEvent,
    pub(super) at: Instant,
}

/// An event that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) timed: Timed,
    /// Since when.
    pub(super) since: Instant,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Pending {
    by_time: BTreeMap<Place, Held>,
    /// One key may have all of them, so it has no list of its own to search.
    by_key: BTreeMap<(Key, u64), Instant>,
    next: u64,
}

/// When the time of an event is over, and a number that tells it from others.
type Place = (Instant, u64);

impl Timed {
    pub(super) fn key(&self) -> Key {
        match self.event.cookie {
            Some(cookie) => Key::Cookie(cookie.get()),
            None => Key::Tuple((self.event.local, self.event.peer)),
        }
    }
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.by_time.len()
    }

    pub(super) fn hold(&mut self, held: Held, until: Instant) {
        let number = self.next;
        self.next += 1;
        self.by_key.insert((held.timed.key(), number), until);
        self.by_time.insert((until, number), held);
    }

    /// Takes out what waits under a key, in the order in which it came.
    pub(super) fn take(&mut self, key: Key) -> Vec<Held> {
        let under_key = (key, 0)..=(key, u64::MAX);
        let places: Vec<Place> = self
            .by_key
            .range(under_key)
            .map(|(&(_, number), &until)| (until, number))
            .collect();
        places
            .into_iter()
            .map(|place| self.remove(place).expect("it stands in both"))
            .collect()
    }

    /// Whether both orders hold the same.
    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        let in_time = |(&(_, number), &until)| self.by_time.contains_key(&(until, number));
        self.by_key.len() == self.by_time.len() && self.by_key.iter().all(in_time)
    }

    /// Takes out one whose time is over.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Held> {
        let (&(until, _), _) = self.by_time.first_key_value()?;
        if until > now {
            return None;
        }
        self.take_first()
    }

    /// Takes out the one whose time is over first.
    pub(super) fn take_first(&mut self) -> Option<Held> {
        let (&place, _) = self.by_time.first_key_value()?;
        self.remove(place)
    }

    fn remove(&mut self, place: Place) -> Option<Held> {
        let held = self.by_time.remove(&place)?;
        self.by_key.remove(&(held.timed.key(), place.1));
        Some(held)
    }
}
