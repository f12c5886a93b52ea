//! A session that speaks memcached's text or meta protocol: its requests go over connections that it shares
//! with others.
//!
//! What asks for silence goes on in a form that is answered, and the answer is hidden again; so every
//! request on a shared connection has exactly one reply. Not here: what a request is (see
//! `protocol::memcached`), and moving bytes (see `conversation`).
//!
//! Invariant: nothing goes over a shared connection that is not whole and sound.

use std::sync::Arc;
use std::time::Instant;

use super::conversation::{
    Broken, Conversation, Piecewise, Requests, SHARED_REQUEST_BYTES_MAX, Unsent, Until,
};
use super::{Session, SessionEnd, refusal};
use crate::close::{Initiator, Manner, Phase};
use crate::config::checked::Protocol;
use crate::protocol::memcached::{
    Kind, Limits, Local, Memcached, RequestFramer, RequestViolation, Scan, Treatment, treatment,
    write_disarmed,
};
use crate::relay::shared::{Left, Links, Nature, Patience, Run};
use crate::stats::reason::{LeaseReason, RefusalReason};
use crate::sys::clock;

/// What a session remembers of its client.
struct Conversing {
    conversation: Conversation<Memcached>,
    framer: RequestFramer,
    /// The request that comes began then.
    request_since: Option<Instant>,
    /// The form of a request that is answered.
    disarmed: Vec<u8>,
}

/// Serves the client to the end of its connection.
pub(super) async fn serve(session: &mut Session, links: Arc<Links<Memcached>>) -> SessionEnd {
    let item_bytes_max = match &session.rules.upstream_settings.protocol {
        Protocol::Memcached(settings) => settings.item_bytes_max,
        _ => unreachable!("a session keeps its protocol; see renew_rules"),
    };
    let limits = Limits {
        item_bytes_max,
        ..Limits::default()
    };
    let mut conversing = Conversing {
        conversation: Conversation::new(links, clock::now()),
        framer: RequestFramer::new(limits),
        request_since: None,
        disarmed: Vec::new(),
    };
    loop {
        if let Err(end) = conversing.step(session).await {
            conversing.conversation.leave();
            return end;
        }
    }
}

impl Conversing {
    /// Does what stands at the front of the client's bytes, or waits for more of them.
    async fn step(&mut self, session: &mut Session) -> Result<(), SessionEnd> {
        if self.conversation.is_idle() && session.client.inbound.is_empty() {
            self.conversation.rest();
            self.disarmed = Vec::new();
            session.await_request().await?;
            session.renew_rules();
        }
        self.conversation.heed_drain(session).await?;
        let done = match self.framer.scan(session.client.inbound.filled()) {
            Ok(Scan::More) => return self.await_more(session).await,
            Ok(Scan::Whole { bytes }) => self.request(session, bytes).await,
            Ok(Scan::Skipped { bytes }) => {
                session.client.inbound.consume(bytes);
                Ok(())
            }
            Ok(Scan::Faulty {
                bytes,
                violation,
                shown,
            }) => {
                session.client.inbound.consume(bytes);
                let violation = shown.then_some(violation);
                self.refuse(session, RefusalReason::BadCommand, |out| {
                    if let Some(violation) = violation {
                        violation.write_reply(out);
                    }
                })
                .await
            }
            Err(violation) => return Err(self.turn_away(session, violation).await),
        };
        match done {
            Ok(()) => Ok(()),
            Err(Unsent::End(end)) => Err(end),
            Err(Unsent::Refused(_) | Unsent::NoRoom) => {
                unreachable!("what was not handed over was answered where it was noticed")
            }
        }
    }

    /// Does what one whole request asks for.
    async fn request(&mut self, session: &mut Session, bytes: usize) -> Result<(), Unsent> {
        self.request_since = None;
        let request = &session.client.inbound.filled()[..bytes];
        match treatment(request) {
            Treatment::Share(shared) if shared.armed => {
                self.disarmed.clear();
                write_disarmed(request, &mut self.disarmed);
                let disarmed = std::mem::take(&mut self.disarmed);
                let nature = Nature::of(shared.read_only);
                let requests = Requests::Given(&disarmed);
                let sent = self.share(session, requests, shared.kind, nature).await;
                self.disarmed = disarmed;
                sent?;
                session.client.inbound.consume(bytes);
                Ok(())
            }
            Treatment::Share(shared) => {
                let nature = Nature::of(shared.read_only);
                self.share(session, Requests::Front(bytes), shared.kind, nature)
                    .await
            }
            Treatment::Answer(Local::Say(reply)) => {
                session.client.inbound.consume(bytes);
                session.client.facts.count_exchanges(1);
                self.conversation.settle(session).await?;
                self.conversation.answer(reply);
                Ok(())
            }
            Treatment::Answer(Local::Close) => {
                session.client.inbound.consume(bytes);
                let flushed = self.conversation.wait(session, Until::Flushed).await;
                let (initiator, phase) = (Initiator::Downstream, Phase::Idle);
                let end = SessionEnd::graceful(initiator, phase, Manner::Fin);
                Err(Unsent::End(flushed.err().unwrap_or(end)))
            }
            Treatment::Refuse(refused) => {
                session.client.inbound.consume(bytes);
                let reason = RefusalReason::CommandRefused;
                self.refuse(session, reason, |out| out.extend_from_slice(refused.reply))
                    .await
            }
        }
    }

    /// Hands one whole request over to a connection that others share.
    async fn share(
        &mut self,
        session: &mut Session,
        requests: Requests<'_>,
        kind: Kind,
        nature: Nature,
    ) -> Result<(), Unsent> {
        let run = Run::one(kind, nature);
        let sent = self.conversation.send_somewhere(session, requests, run);
        let sent = sent.await;
        session.client.facts.count_exchanges(1);
        let Err(unsent) = sent else {
            return Ok(());
        };
        let refusal = unsent.refusal().map_err(Unsent::End)?;
        self.conversation.settle(session).await?;
        if let Requests::Front(bytes) = requests {
            session.client.inbound.consume(bytes);
        }
        let refused = self.conversation.refuse(session, kind, &refusal);
        refused.map_err(Unsent::End)
    }

    /// Waits until the next request is here; what is too large for that goes its own way.
    async fn await_more(&mut self, session: &mut Session) -> Result<(), SessionEnd> {
        let client = &mut session.client;
        if client.inbound.is_full() {
            if !client.inbound.is_held_at_least(SHARED_REQUEST_BYTES_MAX) {
                client.inbound.hold_at_least(SHARED_REQUEST_BYTES_MAX);
                return Ok(());
            }
            return self.large(session).await;
        }
        let since = &mut self.request_since;
        self.conversation.await_bytes(session, since).await
    }

    /// A request that is too large to be held whole goes over a connection of its own as it comes.
    async fn large(&mut self, session: &mut Session) -> Result<(), SessionEnd> {
        let (kind, is_armed) = match treatment(session.client.inbound.filled()) {
            Treatment::Share(it) if self.framer.scanned() > 0 => (it.kind, it.armed),
            _ => return Err(self.turn_away(session, RequestViolation::TooLarge).await),
        };
        self.conversation.wait(session, Until::Settled).await?;
        let known = self.conversation.known.clone();
        let (reason, patience) = (LeaseReason::LargeRequest, Patience::Short);
        let conversation = &mut self.conversation;
        let pinned = conversation.pin(session, &known, reason, patience, false);
        match pinned.await {
            Ok(()) => {}
            Err(Unsent::End(end)) => return Err(end),
            Err(Unsent::Refused(_) | Unsent::NoRoom) => {
                return Err(self.turn_away(session, RequestViolation::TooLarge).await);
            }
        }
        session.client.facts.count_exchanges(1);
        match self.send_large(session, kind, is_armed).await {
            Ok(()) => {}
            Err(Broken::Violation(violation)) => {
                return Err(self.turn_away(session, violation).await);
            }
            Err(Broken::Unsent(Unsent::End(end))) => return Err(end),
            Err(Broken::Unsent(_)) => return Err(refusal::end(RefusalReason::UpstreamDied)),
        }
        self.request_since = None;
        self.conversation.wait(session, Until::Settled).await?;
        self.conversation.give_back(Left::Nothing);
        Ok(())
    }

    async fn send_large(
        &mut self,
        session: &mut Session,
        kind: Kind,
        is_armed: bool,
    ) -> Result<(), Broken<RequestViolation>> {
        let run = Run::one(kind, Nature::Block);
        if is_armed {
            let count = self.framer.scanned();
            let mut first = Vec::new();
            write_disarmed(&session.client.inbound.filled()[..count], &mut first);
            self.conversation
                .send(session, Requests::Given(&first), run)
                .await?;
            session.client.inbound.consume(count);
            self.framer.consumed(count);
        }
        let framer = &mut self.framer;
        self.conversation
            .send_piecewise(session, framer, run, is_armed)
            .await
    }

    /// Answers a request that the service never sees, when it is its turn.
    async fn refuse(
        &mut self,
        session: &mut Session,
        reason: RefusalReason,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Unsent> {
        self.conversation.settle(session).await?;
        session.client.facts.count_exchanges(1);
        session.count_refused_exchange();
        session.count_refusal(reason);
        let mut reply = Vec::new();
        write(&mut reply);
        self.conversation.answer(&reply);
        Ok(())
    }

    /// Says what the client did wrong, and ends its session.
    async fn turn_away(
        &mut self,
        session: &mut Session,
        violation: RequestViolation,
    ) -> SessionEnd {
        let mut reply = Vec::new();
        violation.write_reply(&mut reply);
        let reason = RefusalReason::BadCommand;
        self.conversation.say_last(session, &reply, reason).await
    }
}

impl Piecewise for RequestFramer {
    type Violation = RequestViolation;

    fn piece(&mut self, bytes: &[u8]) -> Result<(usize, bool), RequestViolation> {
        match self.scan(bytes)? {
            Scan::Whole { bytes } | Scan::Faulty { bytes, .. } | Scan::Skipped { bytes } => {
                Ok((bytes, true))
            }
            Scan::More => Ok((self.scanned(), false)),
        }
    }

    fn passed(&mut self, count: usize) {
        self.consumed(count);
    }
}
