//! A session that speaks HTTP/1: one exchange after the other, and what its client is told when one
//! fails.
//!
//! Not here: framing (see `protocol::http`), moving bytes (see `relay`).

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Attempts, Conclusion, Outcome};
use super::verdict::{self, Attempt};
use super::{Closing, Session, SessionEnd, refusal};
use crate::close::{Initiator, Manner, Phase};
use crate::config::checked::{CloseFirst, Retry};
use crate::pool::Lease;
use crate::protocol::Reply;
use crate::protocol::http::{
    Options, Persistence, Refusal, RequestFacts, RequestFramer, ResponseFramer,
};
use crate::relay::buffer::Buffer;
use crate::relay::client::ClientLost;
use crate::relay::request::Request;
use crate::relay::tunnel::{self, TunnelRules};
use crate::stats::reason::{DiscardReason, RefusalReason};
use crate::stats::sessions::Command;
use crate::sys::clock;

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
    Request::new(RequestFramer::new(options), hold_bytes_max)
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
    let is_provable = true;
    let mut attempts = session.begin_exchange(facts.idempotent, is_provable);
    let conclusion = loop {
        let lease = match session.lease_for(&mut attempts, request).await {
            Ok(lease) => lease,
            Err(conclusion) => break conclusion,
        };
        let attempt = attempt(session, request, facts, lease, options, &attempts).await;
        if let Some(conclusion) = session.conclude(&mut attempts, request, attempt) {
            break conclusion;
        }
    };
    match conclusion {
        Conclusion::Answered => Ok(()),
        Conclusion::End(end) => Err(end),
        Conclusion::Refuse(reason) => refuse(session, request, Some(facts), reason).await,
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
        match request.frame(&mut session.client.inbound) {
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
        match session.client.read_more(deadline).await {
            Ok(()) => {}
            Err(ClientLost::WithheldBytes) => {
                return Err(refuse_and_close(session, None, RefusalReason::HeadTimeout).await);
            }
            Err(lost) => return Err(verdict::client_lost(lost, Phase::Request, true)),
        }
    }
}

/// Carries the exchange over one lease.
async fn attempt(
    session: &mut Session,
    request: &mut Request<RequestFramer<'_>>,
    facts: RequestFacts,
    lease: Lease,
    options: &Options,
    attempts: &Attempts,
) -> Attempt {
    let framer = || ResponseFramer::new(facts, options);
    let head_max = options.head_max;
    match session
        .attempt(request, lease, framer, head_max, attempts)
        .await
    {
        Outcome::Answered {
            request_complete,
            framer,
        } => {
            let end_is_seen = framer.client_sees_end();
            let client_closes = framer.client_closes();
            after_answer(session, facts, request_complete, client_closes, end_is_seen)
        }
        Outcome::Pinned {
            lease,
            from_service,
        } => Attempt::End(tunnel(session, lease, from_service).await),
        Outcome::Failed(attempt) => attempt,
    }
}

/// What follows a delivered answer.
fn after_answer(
    session: &Session,
    facts: RequestFacts,
    request_complete: bool,
    client_closes: bool,
    end_is_seen: bool,
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
    let mut end = SessionEnd::graceful(initiator, phase, Manner::Fin);
    // Behind an answer that ends where the connection does, nobody else can end it; and a client that is
    // still sending would not know that it should.
    if session.rules.listener.close_first == CloseFirst::Peer && end_is_seen && request_complete {
        end.closing = Closing::AfterClient;
    }
    Attempt::End(end)
}

/// Answers in the service's place. `Ok` where the next request may follow.
async fn refuse(
    session: &mut Session,
    request: &Request<RequestFramer<'_>>,
    facts: Option<RequestFacts>,
    reason: RefusalReason,
) -> Result<(), SessionEnd> {
    session.count_refused_exchange();
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
    session.count_refusal(reason);
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
    let rules = TunnelRules {
        idle: session.rules.listener.idle_timeout,
        half_closed: session.rules.listener.half_close_timeout,
        quiet: None,
        has_served: false,
        is_greeted: false,
    };
    session.client.facts.set_phase(Phase::Response);
    lease.connection_mut().is_answering = true;
    let service = &mut lease.connection_mut().transport;
    let ended = tunnel::run(&mut session.client, service, from_service, rules).await;
    lease.connection_mut().dropped_bytes = ended.undelivered_bytes;
    let (reason, seen, end) = verdict::on_tunnel(ended.end, DiscardReason::Tunnel);
    session.discard(lease, reason, seen);
    end
}
