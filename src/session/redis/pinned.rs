//! Commands that need an upstream connection of their client's own, and how long it is kept.
//!
//! A transaction's goes back when it is over (see `transaction`); one that streams or has a flag is its
//! client's to the end, and is not lent again.
//!
//! Invariant: a connection goes back only where nothing is owed on it, and where it is known that nothing of
//! the client is left there; what may be left is taken away by a reset, or the connection is discarded.

use super::need::{is_ending, is_streaming, left_by_one, reason};
use super::transaction::Transaction;
use super::{Conversing, Hold};
use crate::close::{Initiator, Manner, Phase};
use crate::protocol::redis::{
    LeaseNeed, Local, RequestFramer, RequestViolation, Scan, Shape, Treatment,
};
use crate::relay::shared::{Left, Nature, Patience, Run};
use crate::session::conversation::{Broken, Piecewise, Requests, Unsent, Until};
use crate::session::{Session, SessionEnd, refusal};
use crate::stats::reason::{LeaseReason, RefusalReason};

impl Conversing {
    /// Gets a connection for a command, and keeps it for as long as the command says.
    pub(super) async fn lease(
        &mut self,
        session: &mut Session,
        bytes: usize,
        need: LeaseNeed,
    ) -> Result<(), Unsent> {
        if let Some(left) = left_by_one(need) {
            return self.over_own(session, (bytes, 1), reason(need), left).await;
        }
        self.conversation.settle(session).await?;
        let patience = match is_streaming(need) {
            true => Patience::Long,
            false => Patience::Short,
        };
        let known = self.conversation.known.clone();
        let conversation = &mut self.conversation;
        let pinned = conversation.pin(session, &known, reason(need), patience, false);
        if let Err(unsent) = pinned.await {
            return self.answer_for(session, bytes, 1, unsent).await;
        }
        match need {
            LeaseNeed::Transaction | LeaseNeed::Watch => {
                self.hold = Hold::Transaction(Transaction::WATCHING);
                self.begin_transaction(session, bytes, need).await
            }
            _ if is_streaming(need) => self.stream(session, bytes).await,
            _ => {
                self.hold = Hold::Kept;
                self.forward(session, bytes).await
            }
        }
    }

    pub(super) fn let_go(&mut self, left: Left) {
        self.conversation.give_back(left);
        self.hold = Hold::Free;
    }

    /// From here on the client gets all that the service says.
    pub(super) async fn stream(
        &mut self,
        session: &mut Session,
        bytes: usize,
    ) -> Result<(), Unsent> {
        if !self.conversation.stream() {
            self.let_go(Left::Something);
            let unsent = Unsent::ours(RefusalReason::NoLeases);
            return self.answer_for(session, bytes, 1, unsent).await;
        }
        self.hold = Hold::Streaming;
        self.say_on(session, bytes).await
    }

    /// Whole commands at the front go over a connection that is given back after their replies.
    pub(super) async fn over_own(
        &mut self,
        session: &mut Session,
        (bytes, commands): (usize, usize),
        reason: LeaseReason,
        left: Left,
    ) -> Result<(), Unsent> {
        self.conversation.settle(session).await?;
        let patience = match reason {
            LeaseReason::Blocking => Patience::Long,
            _ => Patience::Short,
        };
        let known = self.conversation.known.clone();
        let conversation = &mut self.conversation;
        let pinned = conversation.pin(session, &known, reason, patience, false);
        if let Err(unsent) = pinned.await {
            return self.answer_for(session, bytes, commands, unsent).await;
        }
        let run = Run::of(self.shape(), commands, Nature::Each);
        let sent = self
            .conversation
            .send(session, Requests::Front(bytes), run)
            .await;
        if let Err(unsent) = sent {
            self.conversation.give_back(Left::Everything);
            return self.answer_for(session, bytes, commands, unsent).await;
        }
        session.client.facts.count_exchanges(commands);
        self.after_reply();
        self.conversation.settle(session).await?;
        self.conversation.give_back(left);
        Ok(())
    }

    /// One command of a client that holds a connection.
    pub(super) async fn over_held(
        &mut self,
        session: &mut Session,
        bytes: usize,
        treatment: Treatment,
    ) -> Result<(), Unsent> {
        match (self.hold, treatment) {
            (Hold::Transaction(transaction), treatment) if transaction.is_queueing => {
                self.queue(session, bytes, transaction, treatment).await
            }
            (Hold::Transaction(transaction), treatment) => {
                self.while_watching(session, bytes, transaction, treatment)
                    .await
            }
            (Hold::Streaming, Treatment::Answer(Local::Quit)) => self.quit(session, bytes).await,
            // The connection is the client's own, and knows whether there is a transaction.
            (Hold::Streaming, Treatment::Refuse(refused)) if !is_ending(refused) => {
                let between = self.conversation.wait(session, Until::Between).await;
                between.map_err(Unsent::End)?;
                self.refuse(session, bytes, refused.message());
                Ok(())
            }
            (Hold::Streaming, _) => self.say_on(session, bytes).await,
            (_, Treatment::Answer(Local::Quit)) => {
                self.conversation.settle(session).await?;
                self.let_go(Left::Everything);
                self.answer(session, bytes, Local::Quit).await
            }
            (_, Treatment::Refuse(refused)) if !is_ending(refused) => {
                self.settle_and_refuse(session, bytes, refused.message())
                    .await
            }
            (_, Treatment::Lease(need)) if is_streaming(need) => {
                self.conversation.settle(session).await?;
                self.stream(session, bytes).await
            }
            _ => self.forward(session, bytes).await,
        }
    }

    /// QUIT of a client that hears all that the service says: its answer is behind that, and then the end.
    async fn quit(&mut self, session: &mut Session, bytes: usize) -> Result<(), Unsent> {
        self.say_on(session, bytes).await?;
        let lost = self.conversation.wait(session, Until::Lost).await;
        let (initiator, phase) = (Initiator::Downstream, Phase::Idle);
        let quit = SessionEnd::graceful(initiator, phase, Manner::Fin);
        Err(Unsent::End(match lost {
            Ok(()) => quit,
            Err(end) => end,
        }))
    }

    pub(super) async fn end_after(
        &mut self,
        session: &mut Session,
        reason: RefusalReason,
    ) -> SessionEnd {
        match self.conversation.wait(session, Until::Flushed).await {
            Ok(()) => refusal::end(reason),
            Err(end) => end,
        }
    }

    /// Answers the command at the front with an error, once every reply before it is here.
    pub(super) async fn settle_and_refuse(
        &mut self,
        session: &mut Session,
        bytes: usize,
        message: &str,
    ) -> Result<(), Unsent> {
        self.conversation.settle(session).await?;
        self.refuse(session, bytes, message);
        Ok(())
    }

    /// Answers the command at the front with an error.
    fn refuse(&mut self, session: &mut Session, bytes: usize, message: &str) {
        session.client.inbound.consume(bytes);
        session.client.facts.count_exchanges(1);
        self.error(session, message);
    }

    /// Says something on to the service that no reply is counted for.
    async fn say_on(&mut self, session: &mut Session, bytes: usize) -> Result<(), Unsent> {
        session.client.facts.count_exchanges(1);
        let said = self
            .conversation
            .send_on(session, bytes, Shape::Shown)
            .await;
        match said {
            Ok(()) => Ok(()),
            Err(Unsent::End(end)) => Err(Unsent::End(end)),
            Err(_) => {
                let died = RefusalReason::UpstreamDied;
                Err(Unsent::End(self.end_after(session, died).await))
            }
        }
    }

    /// Hands one command over to the connection that is held.
    pub(super) async fn forward(
        &mut self,
        session: &mut Session,
        bytes: usize,
    ) -> Result<(), Unsent> {
        let run = Run::one(self.shape(), Nature::Each);
        let requests = Requests::Front(bytes);
        let sent = self.conversation.send(session, requests, run).await;
        self.forwarded(session, bytes, sent).await
    }

    /// The same; says what its reply begins with, if it was shown.
    pub(super) async fn forward_and_see(
        &mut self,
        session: &mut Session,
        bytes: usize,
    ) -> Result<Option<u8>, Unsent> {
        let (requests, shape) = (Requests::Front(bytes), self.shape());
        let seen = self.conversation.exchange(session, requests, shape).await;
        let (begins, sent) = match seen {
            Ok(begins) => (begins, Ok(())),
            Err(unsent) => (None, Err(unsent)),
        };
        self.forwarded(session, bytes, sent).await?;
        Ok(begins)
    }

    async fn forwarded(
        &mut self,
        session: &mut Session,
        bytes: usize,
        sent: Result<(), Unsent>,
    ) -> Result<(), Unsent> {
        match sent {
            Ok(()) => {
                session.client.facts.count_exchanges(1);
                self.after_reply();
                Ok(())
            }
            Err(unsent) => {
                self.answer_for(session, bytes, 1, unsent).await?;
                // What the connection remembered is gone, and the client must not take it to be there.
                let died = RefusalReason::UpstreamDied;
                Err(Unsent::End(self.end_after(session, died).await))
            }
        }
    }

    /// A command that is too large to be held whole goes over a connection of its own as it comes.
    pub(super) async fn large(&mut self, session: &mut Session) -> Result<(), Unsent> {
        let treatment = super::treated(session.client.inbound.filled(), super::overrides(session));
        let left = match treatment {
            Treatment::Share { .. } => Some(Left::Nothing),
            Treatment::Lease(need) => left_by_one(need),
            Treatment::Answer(_) | Treatment::Refuse(_) => None,
        };
        let Some(left) = left.filter(|_| self.framer.scanned() > 0 && self.hold != Hold::Streaming)
        else {
            let end = self.turn_away(session, RequestViolation::TooLarge).await;
            return Err(Unsent::End(end));
        };
        let is_held = self.hold != Hold::Free;
        if let Hold::Transaction(transaction) = &mut self.hold
            && left != Left::Nothing
        {
            transaction.left = left;
        }
        if !is_held {
            self.conversation.settle(session).await?;
            let known = self.conversation.known.clone();
            let reason = LeaseReason::LargeRequest;
            let conversation = &mut self.conversation;
            conversation
                .pin(session, &known, reason, Patience::Short, false)
                .await?;
        }
        session.client.facts.count_exchanges(1);
        let run = Run::one(self.shape(), Nature::Block);
        let framer = &mut self.framer;
        let sent = self
            .conversation
            .send_piecewise(session, framer, run, false);
        match sent.await {
            Ok(()) => {}
            Err(Broken::Violation(violation)) => {
                return Err(Unsent::End(self.turn_away(session, violation).await));
            }
            Err(Broken::Unsent(unsent)) => return Err(unsent),
        }
        self.after_reply();
        self.request_since = None;
        if !is_held {
            self.conversation.settle(session).await?;
            self.conversation.give_back(left);
        }
        Ok(())
    }
}

impl Piecewise for RequestFramer {
    type Violation = RequestViolation;

    fn piece(&mut self, bytes: &[u8]) -> Result<(usize, bool), RequestViolation> {
        match self.scan(bytes)? {
            Scan::Whole { bytes } | Scan::Blank { bytes } => Ok((bytes, true)),
            Scan::More => Ok((self.scanned(), false)),
        }
    }

    fn passed(&mut self, count: usize) {
        self.consumed(count);
    }
}
