//! Events that wait for their verdict, each until its time is over.
//!
//! Pure. Not here: what the verdict is (see `matching`).
//!
//! Invariant: every event that is held stands once in the order of time and once in the index of its
//! own key; nothing else does.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

use super::event::ResetEvent;

/// By what an event is told apart: a cookie where there is one, else the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    by_key: HashMap<Key, Vec<Place>>,
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
        let place = (until, self.next);
        self.next += 1;
        self.by_key.entry(held.timed.key()).or_default().push(place);
        self.by_time.insert(place, held);
    }

    /// Takes out what waits under a key, the oldest first.
    pub(super) fn take(&mut self, key: Key) -> Vec<Held> {
        let mut places = self.by_key.remove(&key).unwrap_or_default();
        let mut taken: Vec<Held> = places
            .drain(..)
            .map(|place| self.by_time.remove(&place).expect("it stands in both"))
            .collect();
        taken.sort_by_key(|held| held.timed.at);
        taken
    }

    /// Whether both orders hold the same.
    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        let indexed: usize = self.by_key.values().map(Vec::len).sum();
        let has_empty = self.by_key.values().any(Vec::is_empty);
        indexed == self.by_time.len() && !has_empty
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
        let (place, held) = self.by_time.pop_first()?;
        let key = held.timed.key();
        let places = self.by_key.get_mut(&key).expect("it stands in both");
        places.retain(|other| *other != place);
        if places.is_empty() {
            self.by_key.remove(&key);
        }
        Some(held)
    }
}
