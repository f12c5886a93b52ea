//! One attempt to carry an exchange over one lease, in any protocol; and whether another is sound.
//!
//! Not here: what the client is told (see `http`, `frames`).

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::verdict::{Attempt, Consequence, Standing, Verdict};
use crate::close::Phase;
use crate::pool::Lease;
use crate::protocol::{Framer, Reply};
use crate::relay::buffer::Buffer;
use crate::relay::exclusive::{Done, Exchange, Patience};
use crate::relay::outbound::Outbound;
use crate::relay::request::Request;
use crate::stats::reason::{ExchangeOutcome, RefusalReason, RetryReason};
use crate::sys::clock;

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

impl Began {
    /// Both now.
    pub(super) fn now() -> Self {
        let now = clock::now();
        Self {
            exchange: now,
            attempt: now,
        }
    }
}

impl Session {
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
                exchange.abandon(bytes_max).await;
            }
            Consequence::Discard(reason, seen) => {
                if let (Some(lease), ..) = exchange.into_parts() {
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
pub(super) struct Retries {
    pub(super) count: u32,
    idempotent: u32,
}

/// Attempts beyond the first, in all.
const RETRIES_MAX: u32 = 2;

impl Retries {
    /// Whether the request may be sent once more, and why that is sound.
    pub(super) fn next(
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
