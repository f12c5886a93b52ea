//! The storm's own account: what the peer of each connection did, and what may be said of it.
//!
//! A connection is named by its leg, its upstream and the address that dialled, as the ledger writes it,
//! which no other ever has (see `addresses`). Not here: the faults themselves (see `http`, `frames`,
//! `tcp`, `killed`), and the judgement (see `accounts`).
//!
//! Invariant: a page that was opened is closed with the one fault that its peer chose.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

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
    pub fault: &'static Fault,
    /// The number of the exchange that it did it in; several where a race decides.
    pub exchange: RangeInclusive<u64>,
}

/// The pages of all that were.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<HashMap<Name, Entry>>>);

/// One connection that lives.
#[derive(Debug)]
pub struct Page {
    journal: Journal,
    name: Name,
}

impl Journal {
    /// A client has dialled from this address.
    pub fn client(&self, upstream: &'static str, address: String) -> Page {
        self.page("downstream", upstream, address)
    }

    /// A service has accepted a connection.
    pub fn service(&self, upstream: &'static str, address: String) -> Page {
        self.page("upstream", upstream, address)
    }

    fn page(&self, side: &'static str, upstream: &'static str, address: String) -> Page {
        let name = Name {
            side,
            upstream,
            address,
        };
        Page {
            journal: self.clone(),
            name,
        }
    }

    /// Every page.
    pub fn read(&self) -> HashMap<Name, Entry> {
        self.0.lock().unwrap().clone()
    }
}

impl Page {
    /// The peer does this now, in this exchange.
    pub fn close(self, fault: &'static Fault, exchange: RangeInclusive<u64>) {
        let mut pages = self.journal.0.lock().unwrap();
        let before = pages.insert(self.name.clone(), Entry { fault, exchange });
        assert!(before.is_none(), "{:?} is used again", self.name);
    }
}
