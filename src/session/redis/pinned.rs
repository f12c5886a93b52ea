//! Commands that need an upstream connection of their client's own, and how long it is kept.
//!
//! Invariant: a connection goes back only where nothing is owed on it; unless it is known that nothing of
//! the client is left there, it is reset first.

use super::{Conversing, Hold};
use crate::protocol::redis::{
    Arguments, LeaseNeed, Local, RequestFramer, RequestViolation, Scan, Shape, Treatment,
};
use crate::relay::shared::{Left, Nature, Patience};
use crate::session::conversation::{Broken, Piecewise, Refusal, Requests, Unsent, Until};
use crate::session::{Session, refusal};
use crate::stats::reason::{LeaseReason, RefusalReason};

impl Conversing {
    /// Gets a connection for a command, and keeps it for as long as the command says.
    pub(super) async fn lease(
        &mut self,
        session: &mut Session,
        bytes: usize,
        need: LeaseNeed,
    ) -> Result<(), Unsent> {
        let hold = match need {
            LeaseNeed::Transaction | LeaseNeed::Watch => Hold::Transaction {
                is_queueing: false,
                select: None,
            },
            LeaseNeed::Subscribe | LeaseNeed::Monitor | LeaseNeed::Tracking => Hold::Streaming,
            LeaseNeed::Cluster | LeaseNeed::ConnectionFlag => Hold::Kept,
            LeaseNeed::Blocking | LeaseNeed::Slow | LeaseNeed::Overtaking => {
                let left = Left::Nothing;
                return self.over_own(session, (bytes, 1), reason(need), left).await;
            }
            LeaseNeed::Unknown => {
                let left = Left::Something;
                return self.over_own(session, (bytes, 1), reason(need), left).await;
            }
        };
        self.conversation.settle(session).await?;
        let patience = match hold {
            Hold::Streaming => Patience::Long,
            _ => Patience::Short,
        };
        let known = self.conversation.known.clone();
        let conversation = &mut self.conversation;
        let pinned = conversation.pin(session, &known, reason(need), patience, false);
        if let Err(unsent) = pinned.await {
            return self.answer_for(session, bytes, 1, unsent).await;
        }
        self.hold = hold;
        if hold == Hold::Streaming {
            return self.stream(session, bytes).await;
        }
        let treatment = Treatment::Lease(need);
        self.over_held(session, bytes, treatment).await
    }

    /// From here on the client gets all that the service says.
    async fn stream(&mut self, session: &mut Session, bytes: usize) -> Result<(), Unsent> {
        if !self.conversation.stream() {
            let unsent = Unsent::Refused(Refusal::Ours(RefusalReason::NoLeases));
            return self.answer_for(session, bytes, 1, unsent).await;
        }
        self.hold = Hold::Streaming;
        session.client.facts.count_exchanges(1);
        self.conversation
            .send_on(session, bytes, Shape::Shown)
            .await
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
        let run = (self.shape(), commands, Nature::Each);
        let sent = self
            .conversation
            .send(session, Requests::Front(bytes), run)
            .await;
        if let Err(unsent) = sent {
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
        if self.conversation.pin.is_none() {
            // It died, and what it remembered with it.
            let end = refusal::end(RefusalReason::UpstreamDied);
            return Err(Unsent::End(end));
        }
        let name = Arguments::new(&session.client.inbound.filled()[..bytes])
            .map(|it| it.name().to_ascii_uppercase())
            .unwrap_or_default();
        match (self.hold, treatment) {
            (Hold::Streaming, Treatment::Answer(Local::Reset | Local::Quit)) => {
                self.end_stream(session, bytes, treatment).await
            }
            (_, Treatment::Answer(local @ (Local::Reset | Local::Quit))) => {
                self.conversation.settle(session).await?;
                self.conversation.give_back(Left::Something);
                self.hold = Hold::Free;
                self.answer(session, bytes, local).await
            }
            (Hold::Streaming, Treatment::Refuse(refused)) => {
                let between = self.conversation.wait(session, Until::Between).await;
                between.map_err(Unsent::End)?;
                session.client.inbound.consume(bytes);
                self.error(session, refused.message());
                Ok(())
            }
            (Hold::Streaming, _) => {
                session.client.facts.count_exchanges(1);
                self.conversation
                    .send_on(session, bytes, Shape::Shown)
                    .await
            }
            (Hold::Transaction { is_queueing, .. }, treatment) => {
                self.in_transaction(session, bytes, (is_queueing, treatment), &name)
                    .await
            }
            (Hold::Kept, Treatment::Refuse(refused)) => {
                self.conversation.settle(session).await?;
                session.client.inbound.consume(bytes);
                self.error(session, refused.message());
                Ok(())
            }
            (_, Treatment::Answer(local)) => {
                self.conversation.settle(session).await?;
                self.answer(session, bytes, local).await
            }
            (_, Treatment::Lease(need)) if is_streaming(need) => {
                self.conversation.settle(session).await?;
                self.stream(session, bytes).await
            }
            _ => self.forward(session, bytes).await,
        }
    }

    /// One command of a client that watches keys, or has commands queued.
    async fn in_transaction(
        &mut self,
        session: &mut Session,
        bytes: usize,
        (is_queueing, treatment): (bool, Treatment),
        name: &[u8],
    ) -> Result<(), Unsent> {
        let ends_watch = matches!(name, b"UNWATCH" | b"EXEC" | b"DISCARD");
        match treatment {
            Treatment::Lease(LeaseNeed::Transaction) if !is_queueing => {
                self.hold = Hold::Transaction {
                    is_queueing: true,
                    select: None,
                };
                self.forward(session, bytes).await
            }
            _ if is_queueing && matches!(name, b"EXEC" | b"DISCARD") => {
                self.forward(session, bytes).await?;
                self.conversation.settle(session).await?;
                self.end_transaction(session, name == b"EXEC")
            }
            _ if !is_queueing && name == b"UNWATCH" => {
                self.forward(session, bytes).await?;
                self.conversation.settle(session).await?;
                self.conversation.give_back(Left::Nothing);
                self.hold = Hold::Free;
                Ok(())
            }
            Treatment::Refuse(refused) if !is_queueing || !ends_watch => {
                self.conversation.settle(session).await?;
                session.client.inbound.consume(bytes);
                self.error(session, refused.message());
                match is_queueing {
                    // The service can't be told that one of the commands was refused.
                    true => Err(Unsent::End(self.finish_refused(session).await)),
                    false => Ok(()),
                }
            }
            Treatment::Answer(Local::Select) if is_queueing => {
                let select = Arguments::new(&session.client.inbound.filled()[..bytes])
                    .and_then(|it| std::str::from_utf8(it.get(1)?).ok()?.parse().ok());
                self.hold = Hold::Transaction {
                    is_queueing,
                    select,
                };
                self.forward(session, bytes).await
            }
            Treatment::Answer(local) if !is_queueing => {
                self.conversation.settle(session).await?;
                self.answer(session, bytes, local).await
            }
            Treatment::Lease(need) if is_streaming(need) && !is_queueing => {
                self.conversation.settle(session).await?;
                self.stream(session, bytes).await
            }
            _ => self.forward(session, bytes).await,
        }
    }

    /// The transaction is over, and its connection is as it was, unless a database was chosen in it.
    fn end_transaction(&mut self, session: &mut Session, is_executed: bool) -> Result<(), Unsent> {
        let select = match self.hold {
            Hold::Transaction { select, .. } => select,
            _ => None,
        };
        self.conversation.give_back(match select {
            None => Left::Nothing,
            Some(_) => Left::Something,
        });
        self.hold = Hold::Free;
        if let Some(database) = select.filter(|_| is_executed) {
            let mut identity = self.identity().clone();
            identity.database = database;
            let known = self.conversation.links.known(identity);
            self.conversation.serve_as(known);
        }
        session.client.facts.set_phase(crate::close::Phase::Idle);
        Ok(())
    }

    async fn finish_refused(&mut self, session: &mut Session) -> crate::session::SessionEnd {
        match self.conversation.wait(session, Until::Flushed).await {
            Ok(()) => refusal::end(RefusalReason::CommandRefused),
            Err(end) => end,
        }
    }

    /// Hands one command over to the connection that is held.
    async fn forward(&mut self, session: &mut Session, bytes: usize) -> Result<(), Unsent> {
        let run = (self.shape(), 1, Nature::Each);
        let sent = self
            .conversation
            .send(session, Requests::Front(bytes), run)
            .await;
        if let Err(unsent) = sent {
            return self.answer_for(session, bytes, 1, unsent).await;
        }
        session.client.facts.count_exchanges(1);
        self.after_reply();
        Ok(())
    }

    /// The service's own reply to RESET says that it says nothing more unasked.
    async fn end_stream(
        &mut self,
        session: &mut Session,
        bytes: usize,
        treatment: Treatment,
    ) -> Result<(), Unsent> {
        self.hold = Hold::Free;
        if treatment == Treatment::Answer(Local::Quit) {
            let between = self.conversation.wait(session, Until::Between).await;
            between.map_err(Unsent::End)?;
            self.conversation.give_back(Left::Something);
            return self.answer(session, bytes, Local::Quit).await;
        }
        session.client.inbound.consume(bytes);
        session.client.facts.count_exchanges(1);
        self.conversation.give_back(Left::SomethingAndListens);
        self.forget_client();
        self.conversation.settle(session).await
    }

    /// A command that is too large to be held whole goes over a connection of its own as it comes.
    pub(super) async fn large(&mut self, session: &mut Session) -> Result<(), Unsent> {
        let treatment = super::treated(session.client.inbound.filled(), super::overrides(session));
        let is_served = match treatment {
            Treatment::Share { .. } => true,
            Treatment::Lease(need) => !is_streaming(need),
            Treatment::Answer(_) | Treatment::Refuse(_) => false,
        };
        if self.framer.scanned() == 0 || !is_served || self.hold == Hold::Streaming {
            let end = self.turn_away(session, RequestViolation::TooLarge).await;
            return Err(Unsent::End(end));
        }
        let is_held = self.hold != Hold::Free;
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
        let shape = self.shape();
        let framer = &mut self.framer;
        let sent = self.conversation.send_piecewise(session, framer, shape);
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
            self.conversation.give_back(Left::Nothing);
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

fn is_streaming(need: LeaseNeed) -> bool {
    matches!(
        need,
        LeaseNeed::Subscribe | LeaseNeed::Monitor | LeaseNeed::Tracking
    )
}

fn reason(need: LeaseNeed) -> LeaseReason {
    match need {
        LeaseNeed::Transaction => LeaseReason::Transaction,
        LeaseNeed::Watch => LeaseReason::Watch,
        LeaseNeed::Blocking => LeaseReason::Blocking,
        LeaseNeed::Slow | LeaseNeed::Overtaking => LeaseReason::Configured,
        LeaseNeed::Subscribe => LeaseReason::Subscribe,
        LeaseNeed::Monitor => LeaseReason::Monitor,
        LeaseNeed::Tracking | LeaseNeed::Cluster | LeaseNeed::ConnectionFlag => {
            LeaseReason::Tracking
        }
        LeaseNeed::Unknown => LeaseReason::UnknownCommand,
    }
}
