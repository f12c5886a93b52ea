//! Commands that need an upstream connection of their client's own, and how long it is kept.
//!
//! Invariant: a connection goes back only where nothing is owed on it; unless it is known that nothing of
//! the client is left there, it is reset first.

use super::{Conversing, Hold};
use crate::close::Phase;
use crate::protocol::redis::{
    Arguments, LeaseNeed, Local, Refused, RequestFramer, RequestViolation, Scan, Shape, Treatment,
};
use crate::relay::shared::{Left, Nature, Patience};
use crate::session::conversation::{Broken, Piecewise, Refusal, Requests, Unsent, Until};
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
        if need == LeaseNeed::Watch {
            let is_refused = self.forward_and_see(session, bytes).await? == Some(b'-');
            self.let_go(is_refused);
            return Ok(());
        }
        let treatment = Treatment::Lease(need);
        self.over_held(session, bytes, treatment).await?;
        let is_begun = matches!(
            self.hold,
            Hold::Transaction {
                is_queueing: true,
                ..
            }
        );
        self.let_go(need == LeaseNeed::Transaction && !is_begun);
        Ok(())
    }

    /// Gives the connection back if the service refused what it was for.
    fn let_go(&mut self, is_refused: bool) {
        if is_refused {
            self.conversation.give_back(Left::Something);
            self.hold = Hold::Free;
        }
    }

    /// From here on the client gets all that the service says.
    async fn stream(&mut self, session: &mut Session, bytes: usize) -> Result<(), Unsent> {
        if !self.conversation.stream() {
            self.conversation.give_back(Left::Something);
            self.hold = Hold::Free;
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
            self.conversation.give_back(left);
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
            (Hold::Streaming, Treatment::Refuse(refused)) if !is_ending(refused) => {
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
            (Hold::Kept, Treatment::Refuse(refused)) if !is_ending(refused) => {
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
                if self.forward_and_see(session, bytes).await? != Some(b'-') {
                    self.hold = Hold::Transaction {
                        is_queueing: true,
                        select: None,
                    };
                }
                Ok(())
            }
            _ if is_queueing && matches!(name, b"EXEC" | b"DISCARD") => {
                let reply_begins = self.forward_and_see(session, bytes).await?;
                self.end_transaction(session, name == b"EXEC", reply_begins);
                Ok(())
            }
            _ if !is_queueing && name == b"UNWATCH" => {
                let is_done = self.forward_and_see(session, bytes).await? == Some(b'+');
                self.hold = Hold::Free;
                self.conversation.give_back(match is_done {
                    true => Left::Nothing,
                    false => Left::Something,
                });
                Ok(())
            }
            Treatment::Refuse(refused) if !is_queueing || !ends_watch => {
                self.conversation.settle(session).await?;
                session.client.inbound.consume(bytes);
                self.error(session, refused.message());
                match is_queueing {
                    // The service can't be told that one of the commands was refused.
                    true => Err(Unsent::End(
                        self.end_after(session, RefusalReason::CommandRefused).await,
                    )),
                    false => Ok(()),
                }
            }
            Treatment::Answer(Local::Auth | Local::Hello) if is_queueing => {
                self.conversation.settle(session).await?;
                session.client.inbound.consume(bytes);
                self.error(session, NOT_QUEUED);
                Err(Unsent::End(
                    self.end_after(session, RefusalReason::CommandRefused).await,
                ))
            }
            Treatment::Answer(Local::Select | Local::Auth | Local::Hello) if !is_queueing => {
                self.conversation.settle(session).await?;
                session.client.inbound.consume(bytes);
                self.error(session, NOT_WHILE_WATCHED);
                Ok(())
            }
            Treatment::Answer(Local::Select) => {
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

    /// The transaction is over. Its connection is as it was, unless a database was chosen in it, or the
    /// service did not say so.
    fn end_transaction(&mut self, session: &Session, is_exec: bool, reply_begins: Option<u8>) {
        let select = match self.hold {
            Hold::Transaction { select, .. } => select,
            _ => None,
        };
        // EXEC that was not executed is answered with a null.
        let is_over = matches!(reply_begins, Some(b'*' | b'_' | b'+'));
        self.conversation.give_back(match select {
            None if is_over => Left::Nothing,
            _ => Left::Something,
        });
        self.hold = Hold::Free;
        if let Some(database) = select.filter(|_| is_exec && reply_begins == Some(b'*')) {
            let mut identity = self.identity().clone();
            identity.database = database;
            let known = self.conversation.links.known(identity);
            self.conversation.serve_as(known);
        }
        session.client.facts.set_phase(Phase::Idle);
    }

    async fn end_after(&mut self, session: &mut Session, reason: RefusalReason) -> SessionEnd {
        match self.conversation.wait(session, Until::Flushed).await {
            Ok(()) => refusal::end(reason),
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
            self.answer_for(session, bytes, 1, unsent).await?;
            // What the connection remembered is gone, and the client must not take it to be there.
            let died = RefusalReason::UpstreamDied;
            return Err(Unsent::End(self.end_after(session, died).await));
        }
        session.client.facts.count_exchanges(1);
        self.after_reply();
        Ok(())
    }

    /// Hands one command over to the connection that is held, and says what its reply begins with.
    async fn forward_and_see(
        &mut self,
        session: &mut Session,
        bytes: usize,
    ) -> Result<Option<u8>, Unsent> {
        let (requests, shape) = (Requests::Front(bytes), self.shape());
        let seen = self.conversation.exchange(session, requests, shape).await;
        match seen {
            Ok(begins) => {
                session.client.facts.count_exchanges(1);
                self.after_reply();
                Ok(begins)
            }
            Err(unsent) => {
                self.answer_for(session, bytes, 1, unsent).await?;
                let died = RefusalReason::UpstreamDied;
                Err(Unsent::End(self.end_after(session, died).await))
            }
        }
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
        let sent = self
            .conversation
            .send_piecewise(session, framer, shape, false);
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

const NOT_QUEUED: &str = "ERR millpond: who asks can't change within a transaction";
const NOT_WHILE_WATCHED: &str = "ERR millpond: what is watched belongs to this user and database";

/// Whether it would end a transaction: the connection is the client's own, and knows whether there is one.
fn is_ending(refused: Refused) -> bool {
    matches!(refused, Refused::OutsideTransaction(_))
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
