//! An exchange in any protocol: over one lease, and over another where that is sound.
//!
//! Not here: what the client is told (see `http`, `frames`).

use std::sync::Arc;
use std::time::Instant;

use super::queue::NoLease;
use super::verdict::{Attempt, Consequence, Standing, Verdict};
use super::{Session, SessionEnd, refusal};
use crate::close::Phase;
use crate::pool::{Lease, PoolKey};
use crate::protocol::{Framer, Reply};
use crate::relay::buffer::Buffer;
use crate::relay::exclusive::{Done, Exchange, Patience};
use crate::relay::outbound::Outbound;
use crate::relay::request::Request;
use crate::stats::reason::{ExchangeOutcome, RefusalReason, RetryReason};
use crate::sys::clock;
use crate::upstream::Want;

/// How an attempt went.
pub(super) enum Outcome<A> {
    /// The client has the whole answer, or has none coming.
    Answered {
        /// The last byte of the request was framed.
        request_complete: bool,
        /// What the answer said.
        framer: A,
    },
    /// From here on both directions are opaque.
    Pinned {
        lease: Lease,
        /// What the service sent behind the answer.
        from_service: Buffer,
    },
    /// Neither; this is what follows.
    Failed(Attempt),
}

/// When an exchange began, and its attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    pub(super) exchange: Instant,
    pub(super) attempt: Instant,
}

/// The attempts at one exchange: `lease_for` begins one, `conclude` says whether another is sound.
pub(super) struct Attempts {
    pub(super) began: Began,
    is_idempotent: bool,
    retries: Retries,
}

/// What its last attempt made of an exchange.
pub(super) enum Conclusion {
    /// The service answered, and the session goes on.
    Answered,
    /// The session ends.
    End(SessionEnd),
    /// Nothing was answered; millpond answers instead.
    Refuse(RefusalReason),
}

impl Session {
    /// An exchange begins now.
    pub(super) fn begin_exchange(&mut self, is_idempotent: bool) -> Attempts {
        self.client.facts.count_exchange();
        let now = clock::now();
        Attempts {
            began: Began {
                exchange: now,
                attempt: now,
            },
            is_idempotent,
            retries: Retries::default(),
        }
    }

    /// The lease of the next attempt.
    pub(super) async fn lease_for<Q: Framer>(
        &mut self,
        attempts: &mut Attempts,
        request: &Request<Q>,
    ) -> Result<Lease, Conclusion> {
        let want = Want {
            key: PoolKey::SOLE,
            fresh: attempts.retries.count > 0,
        };
        let is_here = request.is_framed || request.outbound.is_blocked();
        match self.acquire(want, is_here, attempts.began.attempt).await {
            Ok((lease, lent_at)) => {
                attempts.began.attempt = lent_at;
                Ok(lease)
            }
            Err(NoLease::Refused(error)) => Err(Conclusion::Refuse(refusal::of_acquire(&error))),
            Err(NoLease::Ended(end)) => Err(Conclusion::End(end)),
        }
    }

    /// What this attempt makes of the exchange; if nothing, the request is ready for another.
    pub(super) fn conclude<Q: Framer>(
        &mut self,
        attempts: &mut Attempts,
        request: &mut Request<Q>,
        attempt: Attempt,
    ) -> Option<Conclusion> {
        let was_reused = match attempt {
            Attempt::Done => return Some(Conclusion::Answered),
            Attempt::End(end) => return Some(Conclusion::End(end)),
            Attempt::Refuse(reason) => return Some(Conclusion::Refuse(reason)),
            Attempt::NotAnswered { was_reused } => was_reused,
        };
        let outbound = &mut request.outbound;
        let is_idempotent = attempts.is_idempotent;
        let Some(retry) = attempts.retries.next(outbound, is_idempotent, was_reused) else {
            return Some(Conclusion::Refuse(RefusalReason::UpstreamDied));
        };
        self.rules.upstream.stats().retries.increment(retry);
        outbound.rewind();
        attempts.began.attempt = clock::now();
        None
    }

    /// Carries an exchange over one lease. `framer` makes the answer's framer, in its place: handed
    /// over whole, it would be stored twice in every session. `head_bytes_max`: what a framer must see
    /// at once, at most.
    pub(super) async fn attempt<Q, A>(
        &mut self,
        request: &mut Request<Q>,
        lease: Lease,
        framer: impl FnOnce() -> A,
        head_bytes_max: usize,
        began: &Began,
    ) -> Outcome<A>
    where
        Q: Framer<Violation: Into<RefusalReason>>,
        A: Reply,
    {
        let rules = Arc::clone(&self.rules);
        let stats = rules.upstream.stats();
        let was_reused = lease.is_reused();
        self.note_lease(&lease);
        let patience = Patience {
            client: rules.listener.stall_timeout,
            service: rules.upstream_settings.response_timeout,
        };
        self.client.facts.set_phase(Phase::Request);
        let client = &mut self.client;
        let mut exchange = Exchange::new(
            client,
            request,
            lease,
            framer(),
            head_bytes_max,
            patience,
            began.attempt,
        );
        let failure = match exchange.run().await {
            Ok(Done::Answered { request_complete }) => {
                let duration = exchange.moved_at() - began.exchange;
                stats.exchange_duration.observe(duration);
                stats.exchanges.increment(ExchangeOutcome::Completed);
                let (_, _, framer) = exchange.into_parts();
                return Outcome::Answered {
                    request_complete,
                    framer,
                };
            }
            Ok(Done::Pinned(_)) => {
                stats.exchanges.increment(ExchangeOutcome::Pinned);
                let (lease, from_service, _) = exchange.into_parts();
                return Outcome::Pinned {
                    lease: lease
                        .expect("a pinned exchange ends before its boundary, with its lease"),
                    from_service,
                };
            }
            Err(failure) => failure,
        };
        let is_begun = exchange.response_framer().is_begun();
        let standing = Standing {
            can_refuse: !exchange.has_answered() || (!is_begun && exchange.is_flushed()),
            is_visible: is_begun && exchange.response_framer().client_sees_end(),
            was_reused,
            has_begun: exchange.has_begun(),
        };
        let verdict = Verdict::on(failure, standing);
        match verdict.lease {
            Consequence::Abandon => {
                let bytes_max = rules.upstream_settings.abandon_bytes;
                if let Some((lease, reason, seen)) = exchange.abandon(bytes_max).await {
                    self.discard(lease, reason, seen);
                }
            }
            Consequence::Discard(reason, seen) => {
                if let Some(lease) = exchange.into_broken_lease() {
                    self.discard(lease, reason, seen);
                }
            }
        }
        if let Some(outcome) = verdict.outcome {
            stats.exchanges.increment(outcome);
        }
        Outcome::Failed(verdict.attempt)
    }
}

/// The bound on sending one request again.
#[derive(Default)]
struct Retries {
    count: u32,
    idempotent: u32,
}

/// Attempts beyond the first, in all.
const RETRIES_MAX: u32 = 2;

impl Retries {
    /// Whether the request may be sent once more, and why that is sound.
    fn next(
        &mut self,
        request: &Outbound,
        is_idempotent: bool,
        was_reused: bool,
    ) -> Option<RetryReason> {
        if self.count == RETRIES_MAX {
            return None;
        }
        let reason = if request.written_bytes == 0 {
            RetryReason::Unsent
        } else if was_reused && is_idempotent && request.can_rewind() && self.idempotent == 0 {
            self.idempotent += 1;
            RetryReason::Idempotent
        } else {
            return None;
        };
        self.count += 1;
        Some(reason)
    }
}
