//! What the need for a connection of one's own means for how long it is kept, and what is left on it.
//!
//! Pure: tables.

use crate::protocol::redis::{LeaseNeed, Refused};
use crate::relay::shared::Left;
use crate::stats::reason::LeaseReason;

/// What a command leaves behind that needs a connection for its one reply only; `None`: for longer.
pub(super) fn left_by_one(need: LeaseNeed) -> Option<Left> {
    match need {
        LeaseNeed::Blocking | LeaseNeed::Slow | LeaseNeed::Overtaking => Some(Left::Nothing),
        LeaseNeed::Unknown => Some(Left::Something),
        LeaseNeed::Transaction
        | LeaseNeed::Watch
        | LeaseNeed::Subscribe
        | LeaseNeed::Monitor
        | LeaseNeed::Tracking
        | LeaseNeed::Cluster
        | LeaseNeed::ConnectionFlag => None,
    }
}

/// Whether it would end a transaction.
pub(super) fn is_ending(refused: Refused) -> bool {
    matches!(refused, Refused::OutsideTransaction(_))
}

pub(super) fn is_streaming(need: LeaseNeed) -> bool {
    matches!(
        need,
        LeaseNeed::Subscribe | LeaseNeed::Monitor | LeaseNeed::Tracking
    )
}

pub(super) fn reason(need: LeaseNeed) -> LeaseReason {
    match need {
        LeaseNeed::Transaction => LeaseReason::Transaction,
        LeaseNeed::Watch => LeaseReason::Watch,
        LeaseNeed::Blocking => LeaseReason::Blocking,
        LeaseNeed::Slow | LeaseNeed::Overtaking => LeaseReason::Configured,
        LeaseNeed::Subscribe => LeaseReason::Subscribe,
        LeaseNeed::Monitor => LeaseReason::Monitor,
        LeaseNeed::Tracking | LeaseNeed::Cluster | LeaseNeed::ConnectionFlag => {
            LeaseReason::Tracking
        }
        LeaseNeed::Unknown => LeaseReason::UnknownCommand,
    }
}
