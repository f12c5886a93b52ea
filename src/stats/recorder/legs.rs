//! Which ends of a session's two legs belong together.
//!
//! The two come in either order: an upstream connection may linger for longer than its session lives.
//! Whoever comes second finds the first.

use std::sync::{Mutex, PoisonError};

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
    /// The one that ended first, and the upstream connection that the session had then.
    first: Mutex<Option<Box<(u64, Leg)>>>,
}

impl Legs {
    /// One leg has ended. `connection` is the upstream connection whose end goes with the session's.
    /// Where the other leg's end is known, both records are told.
    pub fn ended(&self, connection: u64, leg: Leg, recorder: &Recorder) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let other = match first.as_deref() {
            Some(&(with, other)) if with == connection && other.side != leg.side => other,
            _ => {
                *first = Some(Box::new((connection, leg)));
                return;
            }
        };
        *first = None;
        drop(first);
        for (told, of) in [(leg, other), (other, leg)] {
            if let Some(record) = told.record {
                recorder.tie(record, of);
            }
        }
    }
}
