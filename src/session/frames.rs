//! A session that speaks declared frames: one exchange after the other, in the order of its requests.
//!
//! Nothing is known of what a frame means, so none is sent twice without a proof that the service did
//! not have it, and where the service has no answer the operator's own stands in for it, or the session
//! ends.
//!
//! Not here: framing (see `protocol::frames`), moving bytes (see `relay`).

use std::sync::Arc;

use super::attempt::{Attempts, Conclusion, Outcome};
use super::verdict::{self, Attempt};
use super::{Session, SessionEnd, refusal};
use crate::close::{Initiator, Manner, Phase};
use crate::config::checked::{Frames, Protocol, Retry};
use crate::pool::Lease;
use crate::protocol::frames::{ReplyFramer, RequestFacts, RequestFramer};
use crate::relay::client::ClientLost;
use crate::relay::request::Request;
use crate::stats::reason::RefusalReason;
use crate::stats::sessions::Command;
use crate::sys::clock;

/// So much of a request is here before a connection is asked for, unless that is all of it: a client
/// that sends slowly holds none meanwhile.
const AWAITED_BYTES_MAX: usize = 16 * 1024;

/// Serves the client to the end of its connection.
pub(super) async fn serve(session: &mut Session) -> SessionEnd {
    loop {
        if let Err(end) = session.await_request().await {
            return end;
        }
        session.renew_rules();
        let settings = Arc::clone(&session.rules.upstream_settings);
        let Protocol::Frames(frames) = &settings.protocol else {
            unreachable!("a session keeps its protocol; see renew_rules");
        };
        if let Err(end) = exchange(session, frames).await {
            return end;
        }
    }
}

/// One exchange from its request's first byte to the end of its reply, if it has one. `Ok` where the
/// next one may follow on this connection.
async fn exchange(session: &mut Session, frames: &Frames) -> Result<(), SessionEnd> {
    let settings = &session.rules.upstream_settings;
    let hold_bytes_max = match settings.retry {
        Retry::Off => AWAITED_BYTES_MAX,
        _ => settings.retry_buffer.max(AWAITED_BYTES_MAX),
    };
    let mut request = Request::new(RequestFramer::new(&frames.layout), hold_bytes_max);
    let result = carry(session, &mut request, frames).await;
    // Whatever of the request was framed and not sent is no part of the next one.
    request.outbound.abandon(&mut session.client.inbound);
    result
}

async fn carry(
    session: &mut Session,
    request: &mut Request<RequestFramer<'_>>,
    frames: &Frames,
) -> Result<(), SessionEnd> {
    session.client.facts.set_phase(Phase::Request);
    let facts = read_request(session, request).await?;
    // Whether the service would mind having it twice, nobody can tell.
    let is_idempotent = false;
    // What has no answer may be executed at any time, also behind the service's own FIN.
    let is_provable = frames.layout.oneway.is_none();
    let mut attempts = session.begin_exchange(is_idempotent, is_provable);
    let conclusion = loop {
        let lease = match session.lease_for(&mut attempts, request).await {
            Ok(lease) => lease,
            Err(conclusion) => break conclusion,
        };
        let attempt = attempt(session, request, facts, lease, frames, &attempts).await;
        if let Some(conclusion) = session.conclude(&mut attempts, request, attempt) {
            break conclusion;
        }
    };
    match conclusion {
        Conclusion::Answered => Ok(()),
        Conclusion::End(end) => Err(end),
        Conclusion::Refuse(reason) => refuse(session, request, facts, frames, reason).await,
    }
}

/// Reads until the request is here, or so much of it as is awaited.
async fn read_request(
    session: &mut Session,
    request: &mut Request<RequestFramer<'_>>,
) -> Result<RequestFacts, SessionEnd> {
    let mut deadline = None;
    loop {
        if let Err(violation) = request.frame(&mut session.client.inbound) {
            return Err(session.turn_away(violation.into()));
        }
        let outbound = &request.outbound;
        let is_enough = request.is_framed
            || outbound.is_blocked()
            || outbound.held_bytes() >= AWAITED_BYTES_MAX;
        if let Some(facts) = request.framer.facts().filter(|_| is_enough) {
            return Ok(facts);
        }
        // The limit counts from the first byte, and a request that comes whole never asks the clock.
        let deadline =
            *deadline.get_or_insert_with(|| clock::now() + session.rules.listener.head_timeout);
        match session.client.read_more(deadline).await {
            Ok(()) => {}
            Err(ClientLost::WithheldBytes) => {
                return Err(session.turn_away(RefusalReason::HeadTimeout));
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
    frames: &Frames,
    attempts: &Attempts,
) -> Attempt {
    let framer = || ReplyFramer::new(&frames.layout, facts);
    let outcome = session.attempt(request, lease, framer, 0, attempts).await;
    let request_complete = match outcome {
        Outcome::Answered {
            request_complete,
            framer,
        } => {
            let stats = session.rules.upstream.stats();
            stats
                .heartbeats_dropped
                .add(framer.heartbeats_skipped().into());
            request_complete
        }
        Outcome::Pinned { .. } => unreachable!("frames pin no connection"),
        Outcome::Failed(attempt) => return attempt,
    };
    let initiator = if !request_complete {
        Initiator::Millpond
    } else if session.client.facts.control.command() != Command::None {
        Initiator::Operator
    } else {
        return Attempt::Done;
    };
    Attempt::End(SessionEnd::graceful(
        initiator,
        Phase::Response,
        Manner::Fin,
    ))
}

/// Answers in the service's place, or ends the session. `Ok` where the next request may follow.
async fn refuse(
    session: &mut Session,
    request: &Request<RequestFramer<'_>>,
    facts: RequestFacts,
    frames: &Frames,
    reason: RefusalReason,
) -> Result<(), SessionEnd> {
    session.count_refused_exchange();
    let reply = frames
        .error_reply
        .as_ref()
        .filter(|_| !facts.oneway && !refusal::is_clients_fault(reason));
    let Some(reply) = reply else {
        return Err(session.turn_away(reason));
    };
    session.count_refusal(reason);
    session.client.facts.set_phase(Phase::Response);
    let deadline = clock::now() + session.rules.listener.stall_timeout;
    if let Err(lost) = session.client.send(reply, deadline).await {
        return Err(verdict::client_lost(lost, Phase::Response, true));
    }
    let goes_on = request.is_framed && session.client.facts.control.command() == Command::None;
    if goes_on {
        Ok(())
    } else {
        Err(refusal::end(reason))
    }
}
