//! Whether a request that was not answered is sent again, and why that is sound.
//!
//! Pure: a table over what is known of it. Not here: doing it (see `attempt`).
//!
//! Invariant: what may have reached a service is sent again only where the protocol calls it
//! idempotent and the operator allows that, once.

use crate::config::checked::Retry;
use crate::relay::delivery::Delivery;
use crate::stats::reason::{RaceLost, RetryReason};

/// What is known of a request that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unanswered {
    /// Nothing of it was written.
    pub(super) is_unsent: bool,
    /// All that was written of it can be written once more.
    pub(super) is_held: bool,
    /// The protocol calls it idempotent.
    pub(super) is_idempotent: bool,
    /// Its connection had carried exchanges before, so this may be a lost race.
    pub(super) was_reused: bool,
    /// Whether the service had it.
    pub(super) delivery: Delivery,
}

/// The requests of one exchange that were sent again.
#[derive(Debug, Default)]
pub(super) struct Retries {
    /// All of them.
    pub(super) count: u8,
    is_repeated: bool,
}

/// Attempts beyond the first, in all.
const RETRIES_MAX: u8 = 2;

impl Retries {
    /// Why the request may be sent once more. Else it fails, and the reason is given where that was a
    /// lost race. `is_provable`: every request has an answer, so that a service which has said FIN has
    /// no more reason to execute one.
    pub(super) fn next(
        &mut self,
        request: Unanswered,
        retry: Retry,
        is_provable: bool,
    ) -> Result<RetryReason, Option<RaceLost>> {
        let lost = |reason| Err(request.was_reused.then_some(reason));
        if self.count == RETRIES_MAX {
            return lost(RaceLost::RetriesSpent);
        }
        let is_proven = is_provable && request.delivery == Delivery::Undelivered;
        let may_repeat = retry == Retry::Idempotent && request.is_idempotent && !self.is_repeated;
        let reason = if request.is_unsent {
            RetryReason::Unsent
        } else if !request.was_reused {
            return Err(None);
        } else if retry == Retry::Off {
            return lost(RaceLost::Off);
        } else if is_proven && request.is_held {
            RetryReason::Proven
        } else if may_repeat && request.is_held {
            RetryReason::Idempotent
        } else if is_provable {
            return lost(RaceLost::of(request.delivery));
        } else {
            return lost(RaceLost::Oneway);
        };
        self.count += 1;
        self.is_repeated |= reason == RetryReason::Idempotent;
        Ok(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A POST that was proved not to be delivered.
    const POST: Unanswered = Unanswered {
        is_unsent: false,
        is_held: true,
        is_idempotent: false,
        was_reused: true,
        delivery: Delivery::Undelivered,
    };

    const GET: Unanswered = Unanswered {
        is_idempotent: true,
        ..POST
    };

    const DELIVERIES: [Delivery; 5] = [
        Delivery::Undelivered,
        Delivery::Acknowledged,
        Delivery::Reset,
        Delivery::Undecided,
        Delivery::Uncounted,
    ];

    fn first(request: Unanswered, retry: Retry) -> Result<RetryReason, Option<RaceLost>> {
        Retries::default().next(request, retry, true)
    }

    #[test]
    fn what_is_not_idempotent_is_sent_again_only_with_the_proof() {
        for delivery in DELIVERIES {
            let post = Unanswered { delivery, ..POST };
            for retry in [Retry::Proven, Retry::Idempotent] {
                let expected = match delivery {
                    Delivery::Undelivered => Ok(RetryReason::Proven),
                    Delivery::Acknowledged => Err(Some(RaceLost::Acknowledged)),
                    Delivery::Reset => Err(Some(RaceLost::Reset)),
                    Delivery::Undecided => Err(Some(RaceLost::Undecided)),
                    Delivery::Uncounted => Err(Some(RaceLost::Uncounted)),
                };
                assert_eq!(first(post, retry), expected, "{delivery:?} {retry:?}");
            }
            assert_eq!(first(post, Retry::Off), Err(Some(RaceLost::Off)));
        }
    }

    #[test]
    fn what_is_idempotent_is_sent_again_without_it_where_that_is_configured() {
        let doubtful = Unanswered {
            delivery: Delivery::Acknowledged,
            ..GET
        };
        assert_eq!(
            first(doubtful, Retry::Idempotent),
            Ok(RetryReason::Idempotent)
        );
        assert_eq!(first(GET, Retry::Idempotent), Ok(RetryReason::Proven));
        let lost = Err(Some(RaceLost::Acknowledged));
        assert_eq!(first(doubtful, Retry::Proven), lost);
        assert_eq!(first(GET, Retry::Off), Err(Some(RaceLost::Off)));
        // Once only.
        let mut retries = Retries::default();
        assert!(retries.next(doubtful, Retry::Idempotent, true).is_ok());
        assert_eq!(retries.next(doubtful, Retry::Idempotent, true), lost);
    }

    #[test]
    fn what_was_not_sent_goes_elsewhere_whatever_is_configured() {
        for retry in [Retry::Proven, Retry::Idempotent, Retry::Off] {
            for was_reused in [true, false] {
                let request = Unanswered {
                    is_unsent: true,
                    was_reused,
                    delivery: Delivery::Undecided,
                    ..POST
                };
                let mut retries = Retries::default();
                for _ in 0..RETRIES_MAX {
                    let next = retries.next(request, retry, false);
                    assert_eq!(next, Ok(RetryReason::Unsent));
                }
                let spent = was_reused.then_some(RaceLost::RetriesSpent);
                assert_eq!(retries.next(request, retry, false), Err(spent));
            }
        }
    }

    #[test]
    fn a_proof_needs_the_whole_request_a_reused_connection_and_a_protocol_that_answers() {
        let unheld = Unanswered {
            is_held: false,
            ..GET
        };
        for retry in [Retry::Proven, Retry::Idempotent] {
            assert_eq!(first(unheld, retry), Err(Some(RaceLost::TooLarge)));
        }
        let on_a_new_one = Unanswered {
            was_reused: false,
            ..GET
        };
        assert_eq!(first(on_a_new_one, Retry::Idempotent), Err(None));
        let oneway = Retries::default().next(POST, Retry::Proven, false);
        assert_eq!(oneway, Err(Some(RaceLost::Oneway)));
    }

    #[test]
    fn retries_are_bounded() {
        let mut retries = Retries::default();
        for _ in 0..RETRIES_MAX {
            let next = retries.next(POST, Retry::Proven, true);
            assert_eq!(next, Ok(RetryReason::Proven));
        }
        let spent = Err(Some(RaceLost::RetriesSpent));
        assert_eq!(retries.next(POST, Retry::Proven, true), spent);
    }
}
