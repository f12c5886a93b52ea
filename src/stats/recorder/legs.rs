//! Which ends of a session's two legs belong together.
//!
//! The two come in either order: an upstream connection may linger for longer than its session lives.
//! Whoever comes second finds the first.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{RecordId, Recorder};
use crate::close::{Initiator, Side, Termination};

/// How one leg ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// Which one.
    pub side: Side,
    /// How it ended.
    pub termination: Termination,
    /// Its record, if it has one.
    pub record: Option<RecordId>,
}

impl Leg {
    /// How the end of this leg is related to that of the other, which `initiator` began.
    pub(super) fn relation(&self, initiator: Initiator) -> &'static str {
        if initiator != self.termination.initiator {
            return "with";
        }
        match (initiator, self.side) {
            (Initiator::Downstream, Side::Downstream) | (Initiator::Upstream, Side::Upstream) => {
                "caused_by"
            }
            (Initiator::Downstream, Side::Upstream) | (Initiator::Upstream, Side::Downstream) => {
                "caused"
            }
            (Initiator::Millpond | Initiator::Kernel | Initiator::Operator, _) => "with",
        }
    }
}

/// The ends of a session's legs, as far as one waits for the other.
#[derive(Debug, Default)]
pub struct Legs {
    last: Mutex<Option<Box<Last>>>,
}

/// The upstream connection whose end may be the session's too.
#[derive(Debug)]
struct Last {
    connection: u64,
    /// The leg that has ended.
    first: Option<Leg>,
}

impl Legs {
    /// The session may end with this connection. To be said before the connection can end; what becomes of
    /// those before it has nothing to do with the session any more, however long they take to close.
    pub fn may_end_with(&self, connection: u64) {
        let first = None;
        *self.lock() = Some(Box::new(Last { connection, first }));
    }

    /// One leg has ended. `connection` is the upstream connection whose end goes with the session's.
    /// Where the other leg's end is known, both records are told.
    pub fn ended(&self, connection: u64, leg: Leg, recorder: &Recorder) {
        let mut last = self.lock();
        let Some(last_one) = last.as_deref_mut().filter(|it| it.connection == connection) else {
            return;
        };
        let other = match last_one.first {
            Some(other) if other.side != leg.side => other,
            _ => {
                last_one.first = Some(leg);
                return;
            }
        };
        *last = None;
        drop(last);
        for (told, of) in [(leg, other), (other, leg)] {
            if let Some(record) = told.record {
                recorder.tie(record, of);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Last>>> {
        // Nothing panics half-way through a change, so what a panic leaves is whole.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
