//! A session of which nothing is known but bytes: one connection of its own for as long as it lasts.
//!
//! ```text
//! queue ──lease──► tunnel ──ended──► the connection goes with its session
//!   ▲                 │ └──client's FIN after the reply, then quiet──► settling (see `settle`)
//!   └──stale, and nothing of this client sent
//! ```
//!
//! The lease is taken when the client comes, not when it speaks: a service may speak first.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::queue::NoLease;
use super::settle::{Answer, Settling};
use super::verdict::{self, on_tunnel};
use super::{Discarded, Session, SessionEnd, refusal};
use crate::close::{Phase, Side};
use crate::config::checked::{Protocol, Reuse, Upstream};
use crate::pool::{Lease, Look, PoolKey, Seen};
use crate::relay::buffer::Buffer;
use crate::relay::client::Client;
use crate::relay::transcript::Transcript;
use crate::relay::tunnel::{self, TunnelEnd, TunnelRules};
use crate::stats::reason::{DiscardReason, ExchangeOutcome, RefusalReason, RetryReason};
use crate::stats::sessions::Command;
use crate::sys::clock;
use crate::upstream::Want;

/// Stale connections that a session may meet before it asks for a new one.
const STALE_MAX: u32 = 2;

/// Serves the client to its end.
pub(super) async fn serve(session: &mut Session) -> SessionEnd {
    let mut stale = 0;
    loop {
        let lease = match lend(session, stale >= STALE_MAX).await {
            Ok(lease) => lease,
            Err(end) => return end,
        };
        match carry(session, lease).await {
            Carried::Ended(end) => return end,
            Carried::Stale => {
                let stats = session.rules.upstream.stats();
                stats.retries.increment(RetryReason::Unsent);
                stale += 1;
            }
        }
    }
}

/// How one lease served the client.
enum Carried {
    Ended(SessionEnd),
    /// It was found unusable before anything of the client's was written to it.
    Stale,
}

async fn lend(session: &mut Session, fresh: bool) -> Result<Lease, SessionEnd> {
    let want = Want {
        key: PoolKey::SOLE,
        fresh,
    };
    // A client's FIN is for the service to hear, so it does not leave the queue.
    match session.acquire(want, true, clock::now()).await {
        Ok((lease, _)) => Ok(lease),
        Err(NoLease::Refused(error)) => {
            session.count_refused_exchange();
            Err(session.turn_away(refusal::of_acquire(&error)))
        }
        Err(NoLease::Ended(end)) => Err(end),
    }
}

async fn carry(session: &mut Session, lease: Lease) -> Carried {
    // Those of the upstream that the lease is of: while it was waited for, a reload may have named
    // another.
    let upstream_settings = Arc::clone(&session.rules.upstream_settings);
    let Protocol::Tcp(settings) = &upstream_settings.protocol else {
        unreachable!("a session keeps its protocol; see renew_rules");
    };
    session.note_lease(&lease);
    let Some((mut lease, look)) = usable(lease) else {
        return Carried::Stale;
    };
    if session.exchanges() == 0 {
        session.client.facts.count_exchange();
    }
    session.client.facts.set_phase(Phase::Response);
    let quiet = (settings.reuse != Reuse::Never).then_some(settings.quiet);
    let rules = TunnelRules {
        idle: session.rules.listener.idle_timeout,
        half_closed: session.rules.listener.half_close_timeout,
        quiet,
        has_served: lease.connection().exchanges > 0,
        // Once the client has spoken too, it could not be told from an answer.
        is_greeted: look == Look::Bytes,
    };
    lease.connection_mut().is_answering = true;
    let service = &mut lease.connection_mut().transport;
    let nothing = Buffer::new(0);
    let tunnel::Ended {
        end,
        transcript,
        undelivered_bytes,
    } = tunnel::run(&mut session.client, service, nothing, rules).await;
    lease.connection_mut().dropped_bytes = undelivered_bytes;
    match end {
        TunnelEnd::Unfit(found) => {
            put_aside(lease, found);
            return Carried::Stale;
        }
        TunnelEnd::Crossed { is_unsent: true } => {
            lease.discard(DiscardReason::CrossedAnswer, Seen::Open);
            return Carried::Stale;
        }
        TunnelEnd::Crossed { is_unsent: false } => {
            session.discard(lease, DiscardReason::CrossedAnswer, Seen::Open);
            session.count_refused_exchange();
            let end = session.turn_away(RefusalReason::CrossedAnswer);
            return Carried::Ended(end);
        }
        // The service has not heard of this client, so its connection is as it was.
        TunnelEnd::Reset(Side::Downstream) if transcript.is_empty() => {
            lease.put_back(clock::now());
            return Carried::Ended(SessionEnd::reset_received(Phase::Accept));
        }
        _ => {}
    }
    let (reason, seen, session_end) = on_tunnel(end, by_client(end, &transcript, &settings.reuse));
    if end == TunnelEnd::Quiet {
        let end = settle(session, lease, &upstream_settings, session_end).await;
        return Carried::Ended(end);
    }
    let stats = session.rules.upstream.stats();
    stats.exchanges.increment(outcome(end));
    session.discard(lease, reason, seen);
    Carried::Ended(session_end)
}

/// Ends a session whose client is done with a service that has been quiet: `end`, unless the service
/// turns out to have had more to say.
async fn settle(
    session: &mut Session,
    mut lease: Lease,
    settings: &Upstream,
    end: SessionEnd,
) -> SessionEnd {
    let connection = lease.connection().id;
    session.client.facts.legs.may_end_with(connection);
    lease.serves(&session.client.facts);
    let settling = match &settings.protocol {
        Protocol::Tcp(tcp)
            if session.cell.current().upstream_settings.protocol == settings.protocol =>
        {
            Settling::begin(lease, &tcp.reuse, &session.client.transport)
        }
        // A reload has changed the grounds meanwhile.
        _ => {
            lease.discard(DiscardReason::Flushed, Seen::Open);
            Err(DiscardReason::Flushed)
        }
    };
    let (answer, discarded) = match settling {
        Err(reason) => (Some(Answer::Whole), Some(reason)),
        Ok(settling) => match unless_cut(&session.client, settling.settle()).await {
            Some((answer, discarded)) => (Some(answer), discarded),
            None => (None, Some(DiscardReason::Cancelled)),
        },
    };
    session.discarded = discarded.map(|reason| Discarded { connection, reason });
    let (outcome, end) = match answer {
        Some(Answer::Whole) => (ExchangeOutcome::Completed, end),
        Some(Answer::CutShort) => (ExchangeOutcome::Truncated, verdict::cut_answer()),
        None => (ExchangeOutcome::Abandoned, SessionEnd::cut(Phase::Response)),
    };
    session.rules.upstream.stats().exchanges.increment(outcome);
    end
}

/// Does `work` to its end, unless an operator cuts the session off before.
async fn unless_cut<T>(client: &Client, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| match client.poll_command(context) {
        Command::Cut => Poll::Ready(None),
        Command::None | Command::Drain => work.as_mut().poll(context).map(Some),
    })
    .await
}

/// Looks what there is in a spare, which may hold a greeting, and that is this client's. One that has
/// served others is looked at in the tunnel.
fn usable(mut lease: Lease) -> Option<(Lease, Look)> {
    let connection = lease.connection_mut();
    if !connection.was_idle || connection.exchanges > 0 {
        return Some((lease, Look::Quiet));
    }
    let look = connection.ask_kernel();
    match look {
        Look::Quiet => return Some((lease, look)),
        Look::Bytes if connection.rearm().is_ok() => return Some((lease, look)),
        // No descriptor is free for it.
        Look::Bytes => lease.discard(DiscardReason::IdleBytes, Seen::Open),
        Look::Fin | Look::Reset | Look::Vanished => put_aside(lease, look),
    }
    None
}

/// Ends a connection in which this was found before anything of the client's was written.
fn put_aside(lease: Lease, found: Look) {
    let (reason, seen) = match found {
        Look::Quiet | Look::Bytes => (DiscardReason::CrossedAnswer, Seen::Open),
        Look::Fin => (DiscardReason::LostRace, Seen::PeerFin),
        Look::Reset => (DiscardReason::LostRace, Seen::PeerReset),
        Look::Vanished => (DiscardReason::IdleVanished, Seen::PeerVanished),
    };
    lease.discard(reason, seen);
}

fn outcome(end: TunnelEnd) -> ExchangeOutcome {
    match end {
        TunnelEnd::Fin { .. } | TunnelEnd::Quiet | TunnelEnd::Drained => ExchangeOutcome::Completed,
        TunnelEnd::Reset(Side::Upstream)
        | TunnelEnd::Vanished(Side::Upstream)
        | TunnelEnd::Unfit(_)
        | TunnelEnd::Crossed { .. }
        | TunnelEnd::Outlasted => ExchangeOutcome::Truncated,
        TunnelEnd::Reset(Side::Downstream)
        | TunnelEnd::Vanished(Side::Downstream)
        | TunnelEnd::Idle
        | TunnelEnd::HalfClosed(_)
        | TunnelEnd::Withheld(_)
        | TunnelEnd::Cut => ExchangeOutcome::Abandoned,
    }
}

/// Why the connection goes with a client that ended the session.
fn by_client(end: TunnelEnd, transcript: &Transcript, reuse: &Reuse) -> DiscardReason {
    if let TunnelEnd::Reset(_) = end {
        return DiscardReason::ClientGone;
    }
    match reuse {
        Reuse::Never => DiscardReason::SessionEnd,
        Reuse::Probed(_) | Reuse::Promised => transcript
            .spoiled()
            .unwrap_or(DiscardReason::ReuseUnanswered),
    }
}
