//! A session that speaks frames with ids: its requests go over connections that it shares with others, and
//! their replies come in the service's order.
//!
//! Nothing is known of what a frame means, so none is sent twice without a proof that the service did not
//! have it; where the service has no answer the operator's own stands in for it, or the session ends.
//!
//! Not here: framing and ids (see `protocol::frames`), and moving bytes (see `conversation`).
//!
//! Invariant: nothing goes over a shared connection that is not whole, and the client sees its own ids only.

use std::sync::Arc;
use std::time::Instant;

use super::conversation::{
    Broken, Conversation, Piecewise, Refusal, Requests, SHARED_REQUEST_BYTES_MAX, Unsent, Until,
};
use super::{Session, SessionEnd, refusal};
use crate::protocol::frames::{Asked, Call, Calls, FirstFrame, FrameViolation, Framed};
use crate::relay::shared::{Left, Links, Nature, Patience, Run};
use crate::stats::reason::{DroppedMessage, LeaseReason, RefusalReason};
use crate::sys::clock;

/// What a session remembers of its client.
struct Calling {
    calls: Arc<Calls>,
    conversation: Conversation<Framed>,
    /// The request that comes began then.
    request_since: Option<Instant>,
    /// So much is still to come of a frame that goes nowhere.
    skipped: u64,
}

/// Serves the client to the end of its connection.
pub(super) async fn serve(
    session: &mut Session,
    links: Arc<Links<Framed>>,
    calls: Arc<Calls>,
) -> SessionEnd {
    let mut calling = Calling {
        calls,
        conversation: Conversation::new(links, clock::now()),
        request_since: None,
        skipped: 0,
    };
    loop {
        if let Err(end) = calling.step(session).await {
            calling.conversation.leave();
            return end;
        }
    }
}

impl Calling {
    /// Does what stands at the front of the client's bytes, or waits for more of them.
    async fn step(&mut self, session: &mut Session) -> Result<(), SessionEnd> {
        if self.conversation.is_idle() && session.client.inbound.is_empty() {
            self.conversation.rest();
            session.await_request().await?;
            session.renew_rules();
        }
        self.conversation.heed_drain(session).await?;
        if self.skipped > 0 {
            return self.skip(session).await;
        }
        let bytes = session.client.inbound.filled();
        let here = bytes.len() as u64;
        match self.calls.first_frame(bytes) {
            Err(violation) => Err(self.turn_away(session, violation).await),
            Ok(None) => self.await_more(session).await,
            Ok(Some(FirstFrame { length, asked })) => match asked {
                Asked::Answer => {
                    let stats = session.rules.upstream.stats();
                    stats.messages_dropped.increment(DroppedMessage::Answer);
                    self.request_since = None;
                    self.skipped = length;
                    Ok(())
                }
                Asked::Call(call) if here >= length => {
                    self.request_since = None;
                    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
                    self.call(session, bytes, call).await
                }
                Asked::Call(call) if length > SHARED_REQUEST_BYTES_MAX as u64 => {
                    self.large(session, length, call).await
                }
                Asked::Call(_) => self.await_more(session).await,
            },
        }
    }

    /// Takes what is here of a frame that goes nowhere, or waits for more of it.
    async fn skip(&mut self, session: &mut Session) -> Result<(), SessionEnd> {
        let inbound = &mut session.client.inbound;
        let here = inbound.filled().len();
        let count = usize::try_from(self.skipped).map_or(here, |skipped| skipped.min(here));
        inbound.consume(count);
        self.skipped -= count as u64;
        match self.skipped {
            0 => Ok(()),
            _ => self.await_more(session).await,
        }
    }

    /// Does what one whole request asks for.
    async fn call(
        &mut self,
        session: &mut Session,
        bytes: usize,
        call: Call,
    ) -> Result<(), SessionEnd> {
        session.client.facts.count_exchanges(1);
        if let Some(answer) = self.calls.answer_to_heartbeat(call) {
            session.client.inbound.consume(bytes);
            self.conversation.wait(session, Until::Between).await?;
            self.conversation.answer(&answer);
            return Ok(());
        }
        let run = run(call, Nature::Each);
        let sent = self
            .conversation
            .send_somewhere(session, Requests::Front(bytes), run)
            .await;
        let Err(unsent) = sent else {
            return Ok(());
        };
        let refusal = unsent.refusal()?;
        session.client.inbound.consume(bytes);
        self.conversation.wait(session, Until::Between).await?;
        self.refuse(session, call, &refusal).await
    }

    /// Answers in the service's place, or ends the session behind all that it is owed.
    async fn refuse(
        &mut self,
        session: &mut Session,
        call: Call,
        refusal: &Refusal,
    ) -> Result<(), SessionEnd> {
        let refused = self.conversation.refuse(session, call, refusal);
        if refused.is_err() {
            self.conversation.wait(session, Until::Flushed).await?;
        }
        refused
    }

    /// Waits until more of the next frame is here.
    async fn await_more(&mut self, session: &mut Session) -> Result<(), SessionEnd> {
        let client = &mut session.client;
        if client.inbound.is_full() {
            client.inbound.hold_at_least(SHARED_REQUEST_BYTES_MAX);
        }
        let since = &mut self.request_since;
        self.conversation.await_bytes(session, since).await
    }

    /// A request that is too large to be held whole goes over a connection of its own as it comes.
    async fn large(
        &mut self,
        session: &mut Session,
        length: u64,
        call: Call,
    ) -> Result<(), SessionEnd> {
        session.client.facts.count_exchanges(1);
        self.conversation.wait(session, Until::Settled).await?;
        let known = self.conversation.known.clone();
        let (reason, patience) = (LeaseReason::LargeRequest, Patience::Short);
        let pinned = self
            .conversation
            .pin(session, &known, reason, patience, false)
            .await;
        if let Err(unsent) = pinned {
            let refusal = unsent.refusal()?;
            self.request_since = None;
            self.skipped = length;
            return self.refuse(session, call, &refusal).await;
        }
        let mut rest = Rest(length);
        let run = run(call, Nature::Block);
        let sent = self
            .conversation
            .send_piecewise(session, &mut rest, run, false);
        match sent.await {
            Ok(()) => {}
            Err(Broken::Violation(never)) => match never {},
            Err(Broken::Unsent(Unsent::End(end))) => return Err(end),
            Err(Broken::Unsent(_)) => return Err(refusal::end(RefusalReason::UpstreamDied)),
        }
        self.request_since = None;
        self.conversation.wait(session, Until::Settled).await?;
        self.conversation.give_back(Left::Nothing);
        Ok(())
    }

    /// Ends the session of a client that broke the protocol, behind all that it is owed.
    async fn turn_away(&mut self, session: &mut Session, violation: FrameViolation) -> SessionEnd {
        match self.conversation.wait(session, Until::Flushed).await {
            Ok(()) => session.turn_away(violation.into()),
            Err(end) => end,
        }
    }
}

fn run(call: Call, answered: Nature) -> Run<Call> {
    let nature = if call.oneway {
        Nature::Unanswered
    } else {
        answered
    };
    Run::one(call, nature)
}

/// What is still to come of a frame whose length is known.
struct Rest(u64);

impl Piecewise for Rest {
    type Violation = std::convert::Infallible;

    fn piece(&mut self, bytes: &[u8]) -> Result<(usize, bool), Self::Violation> {
        let count = usize::try_from(self.0).map_or(bytes.len(), |left| left.min(bytes.len()));
        Ok((count, count as u64 == self.0))
    }

    fn passed(&mut self, count: usize) {
        self.0 -= count as u64;
    }
}
