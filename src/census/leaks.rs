//! Finds connections that the ledgers of a process and the kernel do not agree about.
//!
//! ```text
//!   agree ──► suspect ──► leak, counted once      the second step after [`CONFIRMED_AFTER`]
//!     ▲          │
//!     └──────────┘  it was opened or closed between two looks at different things
//! ```
//!
//! Pure: time is an argument. Not here: how either side's list is made.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// What may be leaking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suspect {
    /// The kernel lists a socket of this process, by its cookie, that the ledger has no entry for.
    NoEntry(u64),
    /// The ledger has an open entry whose socket is closed.
    NoSocket(u64),
}

/// An open entry of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenEntry {
    /// Unique in the life of the process.
    pub id: u64,
    /// The socket behind its descriptor; `None`: that is closed, or no socket.
    pub cookie: Option<u64>,
}

/// Between two looks that agree at least so long passes, or it may be one and the same moment of
/// opening or closing.
pub const CONFIRMED_AFTER: Duration = Duration::from_secs(1);

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Leaks {
    /// Which socket an entry had when it was first seen.
    cookies: HashMap<u64, u64>,
    suspects: HashMap<Suspect, Instant>,
    counted: HashSet<Suspect>,
}

impl Leaks {
    /// Takes the entries of all ledgers, and the cookies of sockets that the kernel lists for this process
    /// and none of them has; says which leaks are new. Holds no more than both lists do.
    pub fn look(&mut self, entries: &[OpenEntry], unknown: &[u64], now: Instant) -> Vec<Suspect> {
        self.remember(entries);
        let unknown = unknown.iter();
        let closed = entries.iter().filter(|it| self.has_lost_socket(it));
        let seen: HashSet<Suspect> = unknown
            .map(|cookie| Suspect::NoEntry(*cookie))
            .chain(closed.map(|it| Suspect::NoSocket(it.id)))
            .collect();
        self.suspects.retain(|suspect, _| seen.contains(suspect));
        self.counted.retain(|suspect| seen.contains(suspect));
        let mut leaks = Vec::new();
        for suspect in seen {
            let since = *self.suspects.entry(suspect).or_insert(now);
            if now.saturating_duration_since(since) >= CONFIRMED_AFTER
                && self.counted.insert(suspect)
            {
                leaks.push(suspect);
            }
        }
        leaks
    }

    fn remember(&mut self, entries: &[OpenEntry]) {
        let ids: HashSet<u64> = entries.iter().map(|it| it.id).collect();
        self.cookies.retain(|id, _| ids.contains(id));
        for entry in entries {
            if let Some(cookie) = entry.cookie {
                self.cookies.entry(entry.id).or_insert(cookie);
            }
        }
    }

    /// Its descriptor is closed, or is another socket's by now.
    fn has_lost_socket(&self, entry: &OpenEntry) -> bool {
        entry
            .cookie
            .is_none_or(|cookie| self.cookies.get(&entry.id) != Some(&cookie))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    fn entries(open: &[(u64, u64)]) -> Vec<OpenEntry> {
        let entry = |&(id, cookie): &(u64, u64)| OpenEntry {
            id,
            cookie: (cookie != 0).then_some(cookie),
        };
        open.iter().map(entry).collect()
    }

    #[test]
    fn what_comes_and_goes_is_no_leak() {
        let mut leaks = Leaks::default();
        let mut now = clock::now();
        for round in 0..10 {
            // Opened after the ledger was read, closed before the kernel was asked.
            let open = entries(&[(round, 100 + round), (round + 50, 0)]);
            assert_eq!(leaks.look(&open, &[200 + round], now), []);
            now += CONFIRMED_AFTER;
        }
        assert!(leaks.cookies.len() <= 2 && leaks.suspects.len() <= 2);
    }

    #[test]
    fn a_socket_without_an_entry_is_a_leak_once() {
        let mut leaks = Leaks::default();
        let now = clock::now();
        let open = entries(&[(1, 11)]);
        assert_eq!(leaks.look(&open, &[12], now), []);
        let soon = now + CONFIRMED_AFTER / 2;
        assert_eq!(leaks.look(&open, &[12], soon), []);
        let later = now + CONFIRMED_AFTER;
        assert_eq!(leaks.look(&open, &[12], later), [Suspect::NoEntry(12)]);
        assert_eq!(leaks.look(&open, &[12], later + CONFIRMED_AFTER), []);
    }

    #[test]
    fn an_entry_without_its_socket_is_a_leak_once() {
        let mut leaks = Leaks::default();
        let mut now = clock::now();
        assert_eq!(
            leaks.look(&entries(&[(1, 11), (2, 12), (3, 13)]), &[], now),
            []
        );
        // The descriptor of 1 is closed, that of 2 another connection's by now; 3 is only silent.
        let open = entries(&[(1, 0), (2, 99), (3, 13), (4, 99)]);
        for _ in 0..2 {
            now += CONFIRMED_AFTER / 2;
            assert_eq!(leaks.look(&open, &[], now), []);
        }
        now += CONFIRMED_AFTER;
        let mut found = leaks.look(&open, &[], now);
        found.sort_by_key(|it| format!("{it:?}"));
        assert_eq!(found, [Suspect::NoSocket(1), Suspect::NoSocket(2)]);
        assert_eq!(leaks.look(&open, &[], now + CONFIRMED_AFTER), []);
    }
}
