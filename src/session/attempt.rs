//! An exchange in any protocol: over one lease, and over another where that is sound.
//!
//! Not here: what the client is told (see `http`, `frames`).

use std::sync::Arc;
use std::time::Instant;

use super::queue::NoLease;
use super::retry::{Retries, Unanswered};
use super::verdict::{Attempt, Consequence, Standing, Verdict};
use super::{Session, SessionEnd, refusal};
use crate::close::Phase;
use crate::config::checked::Retry;
use crate::pool::{Lease, PoolKey};
use crate::protocol::{Framer, Reply};
use crate::relay::buffer::Buffer;
use crate::relay::exclusive::{Done, Exchange, Patience};
use crate::relay::proof;
use crate::relay::request::Request;
use crate::stats::reason::{ExchangeOutcome, RefusalReason};
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
struct Began {
    exchange: Instant,
    attempt: Instant,
}

/// The attempts at one exchange: `lease_for` begins one, `conclude` says whether another is sound.
pub(super) struct Attempts {
    began: Began,
    is_idempotent: bool,
    is_provable: bool,
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
    /// An exchange begins now. `is_idempotent`: the protocol lets its request be sent twice;
    /// `is_provable`: its service answers every request.
    pub(super) fn begin_exchange(&mut self, is_idempotent: bool, is_provable: bool) -> Attempts {
        self.client.facts.count_exchange();
        let now = clock::now();
        Attempts {
            began: Began {
                exchange: now,
                attempt: now,
            },
            is_idempotent,
            is_provable,
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
        let (was_reused, delivery) = match attempt {
            Attempt::Done => return Some(Conclusion::Answered),
            Attempt::End(end) => return Some(Conclusion::End(end)),
            Attempt::Refuse(reason) => return Some(Conclusion::Refuse(reason)),
            Attempt::NotAnswered {
                was_reused,
                delivery,
            } => (was_reused, delivery),
        };
        let outbound = &mut request.outbound;
        let unanswered = Unanswered {
            is_unsent: outbound.written_bytes == 0,
            is_held: outbound.can_rewind(),
            is_idempotent: attempts.is_idempotent,
            was_reused,
            delivery,
        };
        let stats = self.rules.upstream.stats();
        let retry = self.rules.upstream_settings.retry;
        let is_provable = attempts.is_provable;
        match attempts.retries.next(unanswered, retry, is_provable) {
            Ok(retry) => {
                stats.retries.increment(retry);
                outbound.rewind();
                attempts.began.attempt = clock::now();
                None
            }
            Err(race_lost) => {
                if let Some(reason) = race_lost {
                    stats.races_lost.increment(reason);
                }
                Some(Conclusion::Refuse(RefusalReason::UpstreamDied))
            }
        }
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
        attempts: &Attempts,
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
            attempts.began.attempt,
        );
        let failure = match exchange.run().await {
            Ok(Done::Answered { request_complete }) => {
                let duration = exchange.moved_at() - attempts.began.exchange;
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
        let mut verdict = Verdict::on(failure, standing(&exchange, was_reused));
        match verdict.lease {
            Consequence::Abandon(reason) => {
                let bytes_max = rules.upstream_settings.abandon_bytes;
                if let Some((lease, reason, seen)) = exchange.abandon(reason, bytes_max).await {
                    self.discard(lease, reason, seen);
                }
            }
            Consequence::Discard(reason, mut seen) => {
                if let Some(mut lease) = exchange.into_broken_lease() {
                    let request_bytes = request.outbound.written_bytes;
                    if self.seeks_proof(attempts, verdict.attempt, request_bytes) {
                        let service = &mut lease.connection_mut().transport;
                        // A rare way, whose state is not to be part of every session.
                        let found = Box::pin(proof::find_out(service, request_bytes)).await;
                        verdict.attempt.decide(found.delivery);
                        seen = found.seen.unwrap_or(seen);
                        lease.connection_mut().dropped_bytes += found.dropped_bytes;
                    }
                    self.discard(lease, reason, seen);
                }
            }
        }
        if let Some(outcome) = verdict.outcome {
            stats.exchanges.increment(outcome);
        }
        Outcome::Failed(verdict.attempt)
    }

    /// Whether a proof that the service did not have `request_bytes` of a request would be of use.
    fn seeks_proof(&self, attempts: &Attempts, attempt: Attempt, request_bytes: u64) -> bool {
        let is_allowed = self.rules.upstream_settings.retry != Retry::Off;
        is_allowed && attempts.is_provable && request_bytes > 0 && attempt.is_undecided()
    }
}

/// Where an exchange stands that has failed.
fn standing<Q: Framer, A: Reply>(exchange: &Exchange<'_, Q, A>, was_reused: bool) -> Standing {
    let is_begun = exchange.response_framer().is_begun();
    Standing {
        can_refuse: !exchange.has_answered() || (!is_begun && exchange.is_flushed()),
        is_visible: is_begun && exchange.response_framer().client_sees_end(),
        was_reused,
        has_begun: exchange.has_begun(),
    }
}
