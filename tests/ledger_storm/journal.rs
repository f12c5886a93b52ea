//! The storm's own account: what the peer of each connection did, and what may be said of it.
//!
//! A connection is named by its leg, its upstream, the peer's address as the ledger writes it, and by when
//! it began: a port that is used again is another page. Not here: the faults themselves (see `http`,
//! `frames`, `tcp`, `killed`), and the judgement (see `accounts`).
//!
//! Invariant: a page that was opened is closed with the one fault that its peer chose.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// What a peer does, and the closed set of what the ledger may record because of it.
///
/// An outcome is `CODE DIRECTION PHASE CAUSE`, as in `DIR received idle peer`.
#[derive(Debug)]
pub struct Fault {
    pub name: &'static str,
    /// Of the peer's own connection.
    pub own: &'static [&'static str],
    /// Of the other leg, which ends because of it.
    pub other: &'static [&'static str],
    /// Whether one record of its own is certain, whatever the other side does.
    pub must: bool,
}

/// Nothing to record.
pub const IN_ORDER: Fault = Fault {
    name: "in order",
    own: &[],
    other: &[],
    must: false,
};
/// Of a client whose connection waits for nothing before its first byte.
pub const CLIENT_RESETS_UNUSED: Fault = Fault {
    name: "resets without a byte",
    own: &["DAR received accept peer"],
    other: &[],
    must: true,
};
pub const CLIENT_RESETS_AT_REST: Fault = Fault {
    name: "resets between exchanges",
    own: &["DIR received idle peer"],
    other: &[],
    must: true,
};

/// Which leg of which upstream, and the peer's address there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    pub side: &'static str,
    pub upstream: &'static str,
    pub address: String,
}

/// What one peer did.
#[derive(Debug, Clone)]
pub struct Entry {
    pub began: SystemTime,
    pub fault: &'static Fault,
    /// The number of the exchange that it did it in; several where a race decides.
    pub exchange: RangeInclusive<u64>,
}

/// The pages of all that were.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<HashMap<Name, Vec<Entry>>>>);

/// One connection that lives.
#[derive(Debug)]
pub struct Page {
    journal: Journal,
    name: Name,
    began: SystemTime,
}

impl Journal {
    /// A client is about to dial, or has just dialled, at `began`.
    pub fn client(&self, upstream: &'static str, address: String, began: SystemTime) -> Page {
        self.page("downstream", upstream, address, began)
    }

    /// A service has accepted a connection.
    pub fn service(&self, upstream: &'static str, address: String) -> Page {
        self.page("upstream", upstream, address, SystemTime::now())
    }

    fn page(
        &self,
        side: &'static str,
        upstream: &'static str,
        address: String,
        began: SystemTime,
    ) -> Page {
        let name = Name {
            side,
            upstream,
            address,
        };
        Page {
            journal: self.clone(),
            name,
            began,
        }
    }

    /// Every page, in the order of the beginnings of each name.
    pub fn read(&self) -> HashMap<Name, Vec<Entry>> {
        let mut pages = self.0.lock().unwrap().clone();
        for entries in pages.values_mut() {
            entries.sort_by_key(|entry| entry.began);
        }
        pages
    }
}

impl Page {
    /// The peer does this now, in this exchange.
    pub fn close(self, fault: &'static Fault, exchange: RangeInclusive<u64>) {
        let entry = Entry {
            began: self.began,
            fault,
            exchange,
        };
        let mut pages = self.journal.0.lock().unwrap();
        pages.entry(self.name).or_default().push(entry);
    }
}

/// How far the beginnings of the two accounts may lie apart: a client notes its own before it dials, a
/// service when its thread gets to accept.
const APART_MAX: Duration = Duration::from_millis(500);

/// The place of the entry that a connection which millpond opened at `began` is: clients note their
/// beginning before it, services after it.
pub fn place_of(entries: &[Entry], side: &str, began: SystemTime) -> Option<usize> {
    match side {
        // The record's times are cut to milliseconds.
        "downstream" => {
            let latest = began + Duration::from_millis(2);
            entries.iter().rposition(|entry| entry.began <= latest)
        }
        _ => {
            let earliest = began - APART_MAX;
            entries.iter().position(|entry| entry.began >= earliest)
        }
    }
}

#[test]
fn a_port_that_is_used_again_is_another_page() {
    static RESETS: Fault = Fault {
        name: "resets",
        ..IN_ORDER
    };
    let at = |milliseconds| SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
    let entry = |began, fault| Entry {
        began: at(began),
        fault,
        exchange: 0..=0,
    };
    let entries = [entry(10_000, &IN_ORDER), entry(20_000, &RESETS)];
    for (side, began, place) in [
        ("downstream", 9_900, None),
        ("downstream", 10_001, Some(0)),
        ("downstream", 19_990, Some(0)),
        ("downstream", 20_001, Some(1)),
        ("upstream", 9_999, Some(0)),
        ("upstream", 10_501, Some(1)),
        ("upstream", 19_999, Some(1)),
        ("upstream", 20_501, None),
    ] {
        assert_eq!(place_of(&entries, side, at(began)), place, "{side} {began}");
    }
}
