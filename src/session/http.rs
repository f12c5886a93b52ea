//! A session that speaks HTTP/1: one exchange after the other, and what its client is told when one
//! fails.
//!
//! Not here: framing (see `protocol::http`), moving bytes (see `relay`).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::verdict::{self, Attempt, Consequence, Standing, Verdict};
use super::{Session, SessionEnd, refusal};
use crate::close::{Initiator, Manner, Phase};
use crate::config::checked::Retry;
use crate::pool::{Lease, PoolKey};
use crate::protocol::http::{
    Options, Persistence, Refusal, RequestFacts, RequestFramer, ResponseFramer,
};
use crate::relay::buffer::Buffer;
use crate::relay::client::ClientLost;
use crate::relay::exclusive::{self, Done, Exchange, Patience, Request};
use crate::relay::outbound::Outbound;
use crate::relay::tunnel::{self, TunnelLimits};
use crate::stats::reason::{ExchangeOutcome, RefusalReason, RetryReason};
use crate::stats::sessions::Command;
use crate::sys::clock;
use crate::upstream::{AcquireError, Acquired, Wait, Want};

/// Serves the client to the end of its connection.
pub(super) async fn serve(session: &mut Session) -> SessionEnd {
    let mut rules = Arc::clone(&session.rules);
    let mut options = session.http_options();
    loop {
        if let Err(end) = session.await_request().await {
            return end;
        }
        session.renew_rules();
        if !Arc::ptr_eq(&rules, &session.rules) {
            rules = Arc::clone(&session.rules);
            options = session.http_options();
        }
        if let Err(end) = exchange(session, &options).await {
            return end;
        }
    }
}

/// One exchange from its request's first byte to the end of its response. `Ok` where the next one
/// may follow on this connection.
async fn exchange(session: &mut Session, options: &Options) -> Result<(), SessionEnd> {
    let mut request = new_request(session, options);
    let result = carry(session, &mut request, options).await;
    // Whatever of the request was framed and not sent is no part of the next one.
    request.outbound.abandon(&mut session.client.inbound);
    result
}

fn new_request<'o>(session: &Session, options: &'o Options) -> Request<RequestFramer<'o>> {
    let settings = &session.rules.upstream_settings;
    let hold_bytes_max = if settings.retry == Retry::Off {
        0
    } else {
        settings.retry_buffer
    };
    Request {
        framer: RequestFramer::new(options),
        outbound: Outbound::new(hold_bytes_max),
        is_framed: false,
        awaits_interim: false,
    }
}

async fn carry(
    session: &mut Session,
    request: &mut Request<RequestFramer<'_>>,
    options: &Options,
) -> Result<(), SessionEnd> {
    session.client.facts.set_phase(Phase::Request);
    let Some(facts) = read_head(session, request).await? else {
        return Ok(());
    };
    request.awaits_interim = facts.expects_continue;
    if !facts.idempotent {
        request.outbound.release_hold();
    }
    let began = clock::now();
    session.client.facts.count_exchange();
    let mut retries = Retries::default();
    let mut now = began;
    loop {
        let want = Want {
            key: PoolKey::SOLE,
            fresh: retries.count > 0,
        };
        let (lease, lent_at) = match acquire(session, request, want, now).await {
            Ok(lent) => lent,
            // The upstream was taken away by a reload; the new rules name another.
            Err(NoLease::Refused(AcquireError::Draining)) if session.renew_rules() => {
                now = clock::now();
                continue;
            }
            Err(NoLease::Refused(error)) => {
                let reason = refusal::of_acquire(&error);
                return refuse(session, request, Some(facts), reason).await;
            }
            Err(NoLease::Client(lost)) => {
                let stats = session.rules.upstream.stats();
                stats.exchanges.increment(ExchangeOutcome::Abandoned);
                return Err(verdict::client_lost(lost, Phase::Queue, true));
            }
        };
        match attempt(session, request, facts, lease, options, began, lent_at).await {
            Attempt::Done => return Ok(()),
            Attempt::End(end) => return Err(end),
            Attempt::Refuse(reason) => {
                return refuse(session, request, Some(facts), reason).await;
            }
            Attempt::NotAnswered { was_reused } => match retries.next(request, facts, was_reused) {
                Some(retry) => {
                    session.rules.upstream.stats().retries.increment(retry);
                    request.outbound.rewind();
                    now = clock::now();
                }
                None => {
                    let reason = RefusalReason::UpstreamDied;
                    return refuse(session, request, Some(facts), reason).await;
                }
            },
        }
    }
}

/// Reads until the request's head is framed. `None` where there was only an empty line, with which
/// some clients end a body (RFC 9112 section 2.2): the session is idle again.
async fn read_head(
    session: &mut Session,
    request: &mut Request<RequestFramer<'_>>,
) -> Result<Option<RequestFacts>, SessionEnd> {
    let mut deadline = None;
    loop {
        match exclusive::frame_request(request, &mut session.client.inbound) {
            Ok(_) => {}
            Err(violation) => {
                let reason = violation.into();
                return Err(refuse_and_close(session, request.framer.facts(), reason).await);
            }
        }
        let facts = request.framer.facts();
        if facts.is_some() || session.client.inbound.is_empty() {
            return Ok(facts);
        }
        // The limit counts from the first byte, and a head that comes whole never asks the clock.
        let deadline =
            *deadline.get_or_insert_with(|| clock::now() + session.rules.listener.head_timeout);
        let client = &mut session.client;
        let read = poll_fn(|context| {
            if let Poll::Ready(read) = client.poll_read(context) {
                return Poll::Ready(match read {
                    Ok(0) => Err(ClientLost::Fin),
                    Ok(_) => Ok(()),
                    Err(error) => Err(ClientLost::at(&error)),
                });
            }
            if client.poll_command(context) == Command::Cut {
                return Poll::Ready(Err(ClientLost::Cut));
            }
            client
                .alarm
                .poll(context, deadline)
                .map(|()| Err(ClientLost::WithheldBytes))
        })
        .await;
        match read {
            Ok(()) => {}
            Err(ClientLost::WithheldBytes) => {
                return Err(refuse_and_close(session, None, RefusalReason::HeadTimeout).await);
            }
            Err(lost) => return Err(verdict::client_lost(lost, Phase::Request, true)),
        }
    }
}

/// Why no connection was lent.
enum NoLease {
    Refused(AcquireError),
    Client(ClientLost),
}

/// Takes a connection from the pool, at once or after a wait in its queue; and when that was.
async fn acquire(
    session: &mut Session,
    request: &Request<RequestFramer<'_>>,
    want: Want,
    now: Instant,
) -> Result<(Lease, Instant), NoLease> {
    match session.rules.upstream.acquire(want, now) {
        Ok(Acquired::Lease(lease)) => Ok((lease, now)),
        Ok(Acquired::Wait(wait)) => {
            session.client.facts.set_phase(Phase::Queue);
            let is_here = request.is_framed || request.outbound.is_blocked();
            let lease = wait_for_lease(session, wait, is_here).await?;
            Ok((lease, clock::now()))
        }
        Err(error) => Err(NoLease::Refused(error)),
    }
}

async fn wait_for_lease(
    session: &mut Session,
    wait: Wait,
    is_here: bool,
) -> Result<Lease, NoLease> {
    let mut wait = std::pin::pin!(wait);
    let client = &mut session.client;
    poll_fn(|context| {
        while !client.has_ended && !client.inbound.is_full() {
            match client.poll_read(context) {
                // A FIN behind a whole request says only that no more requests come; whether what
                // is here is the whole shows when it is framed.
                Poll::Ready(Ok(0)) if is_here || !client.inbound.is_empty() => {}
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(NoLease::Client(ClientLost::Fin))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(NoLease::Client(ClientLost::at(&error))));
                }
                Poll::Pending => break,
            }
        }
        if client.poll_command(context) == Command::Cut {
            return Poll::Ready(Err(NoLease::Client(ClientLost::Cut)));
        }
        // After the client: who is gone already needs no lease.
        wait.as_mut().poll(context).map_err(NoLease::Refused)
    })
    .await
}

/// Carries the exchange over one lease.
async fn attempt(
    session: &mut Session,
    request: &mut Request<RequestFramer<'_>>,
    facts: RequestFacts,
    lease: Lease,
    options: &Options,
    began: Instant,
    lent_at: Instant,
) -> Attempt {
    let rules = Arc::clone(&session.rules);
    let stats = rules.upstream.stats();
    let was_reused = lease.is_reused();
    session.note_endpoint(&lease);
    let patience = Patience {
        client: rules.listener.stall_timeout,
        service: rules.upstream_settings.response_timeout,
    };
    session.client.facts.set_phase(Phase::Request);
    let framer = ResponseFramer::new(facts, options);
    let mut exchange = Exchange::new(
        &mut session.client,
        request,
        lease,
        framer,
        options.head_max,
        patience,
        lent_at,
    );
    let failure = match exchange.run().await {
        Ok(Done::Answered { request_complete }) => {
            stats.exchange_duration.observe(exchange.moved_at() - began);
            stats.exchanges.increment(ExchangeOutcome::Completed);
            let client_closes = exchange.response_framer().client_closes();
            return after_answer(session, facts, request_complete, client_closes);
        }
        Ok(Done::Pinned(_)) => {
            stats.exchanges.increment(ExchangeOutcome::Pinned);
            let (lease, from_service) = exchange.into_lease();
            let lease = lease.expect("a pinned exchange ends before its boundary, with its lease");
            return Attempt::End(tunnel(session, lease, from_service).await);
        }
        Err(failure) => failure,
    };
    let standing = Standing {
        can_refuse: !exchange.has_answered()
            || (exchange.response_framer().facts().is_none() && exchange.is_flushed()),
        is_visible: exchange
            .response_framer()
            .facts()
            .is_some_and(|it| it.client_sees_end),
        was_reused,
        has_begun: exchange.has_begun(),
    };
    let verdict = Verdict::on(failure, standing);
    match verdict.lease {
        Consequence::Abandon => {
            exchange
                .abandon(rules.upstream_settings.abandon_bytes)
                .await;
        }
        Consequence::Discard(reason, seen) => {
            if let (Some(lease), _) = exchange.into_lease() {
                lease.discard(reason, seen);
            }
        }
    }
    if let Some(outcome) = verdict.outcome {
        stats.exchanges.increment(outcome);
    }
    verdict.attempt
}

/// What follows a delivered answer.
fn after_answer(
    session: &Session,
    facts: RequestFacts,
    request_complete: bool,
    client_closes: bool,
) -> Attempt {
    if !client_closes {
        return Attempt::Done;
    }
    let (initiator, phase) = if !facts.keep_alive {
        (Initiator::Downstream, Phase::Idle)
    } else if session.client.facts.control.command() != Command::None {
        (Initiator::Operator, Phase::Response)
    } else if !request_complete {
        (Initiator::Millpond, Phase::Response)
    } else {
        // The answer ends where the service's connection did.
        (Initiator::Upstream, Phase::Response)
    };
    Attempt::End(SessionEnd::graceful(initiator, phase, Manner::Fin))
}

/// Answers in the service's place. `Ok` where the next request may follow.
async fn refuse(
    session: &mut Session,
    request: &Request<RequestFramer<'_>>,
    facts: Option<RequestFacts>,
    reason: RefusalReason,
) -> Result<(), SessionEnd> {
    session
        .rules
        .upstream
        .stats()
        .exchanges
        .increment(ExchangeOutcome::Refused);
    let goes_on = request.is_framed
        && facts.is_some_and(|facts| facts.keep_alive)
        && session.client.facts.control.command() == Command::None;
    if !goes_on {
        return Err(refuse_and_close(session, facts, reason).await);
    }
    send_refusal(session, facts, reason, false).await
}

/// Answers in the service's place, and ends the session after it.
async fn refuse_and_close(
    session: &mut Session,
    facts: Option<RequestFacts>,
    reason: RefusalReason,
) -> SessionEnd {
    match send_refusal(session, facts, reason, true).await {
        Ok(()) => refusal::end(reason),
        Err(end) => end,
    }
}

async fn send_refusal(
    session: &mut Session,
    facts: Option<RequestFacts>,
    reason: RefusalReason,
    close: bool,
) -> Result<(), SessionEnd> {
    session.rules.stats.refusals.increment(reason);
    session.refused = Some(reason);
    session.client.facts.set_phase(Phase::Response);
    let (status, sentence) = refusal::answer(reason);
    let retry_after = (status == 503).then_some(RETRY_AFTER);
    let is_head = facts.is_some_and(|facts| facts.head);
    let mut message = Vec::with_capacity(256);
    let refusal = Refusal {
        status,
        why: sentence,
        persistence: facts.map_or(Persistence::Close, |facts| facts.persistence(close)),
        retry_after,
        head: is_head,
    };
    refusal.write(&mut message);
    let deadline = clock::now() + session.rules.listener.stall_timeout;
    match session.client.send(&message, deadline).await {
        Ok(()) => Ok(()),
        Err(lost) => Err(verdict::client_lost(lost, Phase::Response, true)),
    }
}

/// What `Retry-After` says with a 503: by then a pool that is merely busy has turned over.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// From here on both directions are opaque.
async fn tunnel(session: &mut Session, mut lease: Lease, from_service: Buffer) -> SessionEnd {
    let limits = TunnelLimits {
        idle: session.rules.listener.idle_timeout,
        half_closed: session.rules.listener.half_close_timeout,
    };
    session.client.facts.set_phase(Phase::Response);
    let service = &mut lease.connection_mut().transport;
    let end = tunnel::run(&mut session.client, service, from_service, limits).await;
    let (reason, seen, end) = verdict::on_tunnel(end);
    lease.discard(reason, seen);
    end
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
        request: &Request<RequestFramer<'_>>,
        facts: RequestFacts,
        was_reused: bool,
    ) -> Option<RetryReason> {
        if self.count == RETRIES_MAX {
            return None;
        }
        let reason = if request.outbound.written_bytes == 0 {
            RetryReason::Unsent
        } else if was_reused
            && facts.idempotent
            && request.outbound.can_rewind()
            && self.idempotent == 0
        {
            self.idempotent += 1;
            RetryReason::Idempotent
        } else {
            return None;
        };
        self.count += 1;
        Some(reason)
    }
}
