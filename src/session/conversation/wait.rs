//! Waiting in a conversation: replies go to the client, and what the client says is listened to.
//!
//! Invariant: a client that takes nothing of what it is owed is asked for nothing more.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::returned::{is_cut, replies};
use super::{Conversation, Unsent};
use crate::close::{Initiator, Manner, Phase};
use crate::protocol::replies::Language;
use crate::relay::client::ClientLost;
use crate::relay::shared::Standing;
use crate::session::{Session, SessionEnd, refusal, verdict};
use crate::stats::reason::{DiscardReason, RefusalReason};
use crate::stats::sessions::Command;
use crate::sys::clock;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Until {
    /// More bytes of the client's, or its FIN; until then, if it owes them. Or that nothing is under way any
    /// more: between exchanges a session waits otherwise.
    Bytes(Option<Instant>),
    /// Every reply is here.
    Settled,
    /// Every reply is with the client's kernel.
    Flushed,
    /// There is room for a request.
    Room,
    /// No reply is in the midst.
    Between,
    /// The connection that is pinned has ended, and all that it said is with the client's kernel.
    Lost,
}

/// What has happened meanwhile.
enum Event {
    Done,
    Returned,
}

/// How long a client that has said FIN is given the answer to a command that may wait for ever.
const LAST_ANSWER_TIME_MAX: Duration = Duration::from_millis(2);
/// A larger buffer is freed when it is empty.
const OUTGOING_KEPT_BYTES: usize = 16 * 1024;

impl<L: Language> Conversation<L> {
    /// Waits for `future`, and listens to the client meanwhile: who is gone needs nothing.
    pub(super) async fn while_listening<T>(
        &mut self,
        session: &mut Session,
        future: impl Future<Output = T>,
    ) -> Result<T, Unsent> {
        let mut future = pin!(future);
        let waited = poll_fn(|context| {
            // What it is owed from before is not kept from it.
            self.flush(session, context)?;
            if let Err(lost) = listen(session, context) {
                let end = verdict::client_lost(lost, Phase::Queue, true);
                return Poll::Ready(Err(end));
            }
            future.as_mut().poll(context).map(Ok)
        });
        waited.await.map_err(Unsent::End)
    }

    /// Moves replies to the client until what is waited for has happened.
    pub(in crate::session) async fn wait(
        &mut self,
        session: &mut Session,
        until: Until,
    ) -> Result<(), SessionEnd> {
        let known_bytes = session.client.inbound.filled().len();
        loop {
            match poll_fn(|context| self.poll(session, context, until, known_bytes)).await? {
                Event::Done => return Ok(()),
                Event::Returned => Box::pin(self.settle_returned(session)).await?,
            }
        }
    }

    /// Waits until every reply is here.
    pub(in crate::session) async fn settle(&mut self, session: &mut Session) -> Result<(), Unsent> {
        let settled = self.wait(session, Until::Settled).await;
        settled.map_err(Unsent::End)
    }

    /// Waits for more bytes of a request that has begun, or of the next one; the limit counts from the
    /// first byte. A client that has said FIN is given what it is owed, and no more.
    pub(in crate::session) async fn await_bytes(
        &mut self,
        session: &mut Session,
        request_since: &mut Option<Instant>,
    ) -> Result<(), SessionEnd> {
        let is_begun = !session.client.inbound.is_empty();
        if session.client.has_ended {
            self.wait(session, Until::Flushed).await?;
            let (phase, manner) = match is_begun {
                true => (Phase::Request, Manner::Truncated),
                false => (Phase::Idle, Manner::Fin),
            };
            return Err(SessionEnd::graceful(Initiator::Downstream, phase, manner));
        }
        let listener = &session.rules.listener;
        let since = is_begun.then(|| *request_since.get_or_insert_with(clock::now));
        let holds = self.pin.is_some() && !self.is_long;
        let deadline = match since {
            Some(since) => Some(since + listener.head_timeout),
            None => holds.then(|| clock::now() + listener.idle_timeout),
        };
        self.wait(session, Until::Bytes(deadline)).await
    }

    /// Who has been served is served no more once millpond stops.
    pub(in crate::session) async fn heed_drain(
        &mut self,
        session: &mut Session,
    ) -> Result<(), SessionEnd> {
        if session.client.facts.control.command() == Command::None || session.exchanges() == 0 {
            return Ok(());
        }
        self.wait(session, Until::Flushed).await?;
        let (initiator, phase) = (Initiator::Operator, Phase::Idle);
        Err(SessionEnd::graceful(initiator, phase, Manner::Fin))
    }

    /// Says `reply`, as the last thing, behind all that is owed.
    pub(in crate::session) async fn say_last(
        &mut self,
        session: &mut Session,
        reply: &[u8],
        reason: RefusalReason,
    ) -> SessionEnd {
        session.count_refusal(reason);
        let said = async {
            self.wait(session, Until::Settled).await?;
            self.answer(reply);
            self.wait(session, Until::Flushed).await
        };
        match said.await {
            Ok(()) => refusal::end(reason),
            Err(end) => end,
        }
    }

    fn poll(
        &mut self,
        session: &mut Session,
        context: &mut Context<'_>,
        until: Until,
        known_bytes: usize,
    ) -> Poll<Result<Event, SessionEnd>> {
        self.mailbox.watch(context);
        loop {
            self.flush(session, context)?;
            if !self.is_flushed() || !self.take()? {
                break;
            }
        }
        if until == Until::Between && !self.is_midway {
            return Poll::Ready(Ok(Event::Done));
        }
        // They come one by one, and where order matters are settled together.
        let is_all_back = !self.returned.is_empty()
            && match L::BY_ID {
                true => !self.is_midway || self.returned.iter().any(is_cut),
                false => self.returned.iter().map(replies).sum::<usize>() == self.in_flight,
            };
        if is_all_back && self.is_flushed() {
            return Poll::Ready(Ok(Event::Returned));
        }
        if self.has_lost_pin && self.is_flushed() && until == Until::Lost {
            return Poll::Ready(Ok(Event::Done));
        }
        if self.has_lost_pin && self.is_flushed() {
            // What the connection remembered of its session is gone with it.
            return Poll::Ready(Err(refusal::end(RefusalReason::UpstreamDied)));
        }
        if let Err(lost) = listen(session, context) {
            return Poll::Ready(Err(self.client_lost(lost)));
        }
        let client = &session.client;
        let has_more = client.inbound.filled().len() > known_bytes || client.has_ended;
        let is_done = match until {
            Until::Bytes(_) => {
                let is_between = self.is_idle() && client.inbound.is_empty();
                is_between || (has_more && self.is_flushed())
            }
            Until::Settled => self.in_flight == 0,
            Until::Flushed => self.in_flight == 0 && self.is_flushed(),
            Until::Room => self.has_room,
            Until::Between => !self.is_midway,
            Until::Lost => false,
        };
        if is_done {
            return Poll::Ready(Ok(Event::Done));
        }
        if let Some(end) = self.given_up(session) {
            return Poll::Ready(Err(end));
        }
        self.watch_time(session, context, until)
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.written == self.outgoing.len()
    }

    fn flush(
        &mut self,
        session: &mut Session,
        context: &mut Context<'_>,
    ) -> Result<(), SessionEnd> {
        let transport = &mut session.client.transport;
        while !self.is_flushed() {
            match transport.poll_write(context, &self.outgoing[self.written..], &[]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    self.has_waited_for_client = true;
                    session.client.facts.add_written_bytes(count as u64);
                }
                Poll::Ready(Err(error)) => return Err(self.client_lost(ClientLost::at(&error))),
            }
        }
        if self.written > 0 {
            self.outgoing.clear();
            self.outgoing.shrink_to(OUTGOING_KEPT_BYTES);
            self.written = 0;
        }
        Ok(())
    }

    /// Takes what is in the mailbox; whether there is something to write now.
    fn take(&mut self) -> Result<bool, SessionEnd> {
        let taken = self.mailbox.take(&mut self.outgoing);
        self.reply_begins = self.reply_begins.or_else(|| self.outgoing.first().copied());
        self.is_midway = taken.is_midway;
        self.has_room |= taken.has_room;
        if taken.standing == Standing::CutOff {
            return Err(self.client_lost(ClientLost::WithheldRoom));
        }
        if taken.replies > 0 {
            self.moved_at = clock::now();
            self.in_flight -= taken.replies;
        }
        self.returned.extend(taken.returned);
        let pinned = self.pin.as_ref().map(|pin| pin.link().id);
        self.has_lost_pin = pinned.is_some() && pinned == taken.lost_pin;
        Ok(!self.outgoing.is_empty())
    }

    /// The end of a session that holds a connection, and is not waited for: its client needs it no more, or
    /// millpond is stopping.
    fn given_up(&self, session: &Session) -> Option<SessionEnd> {
        self.pin.as_ref()?;
        let is_between = self.in_flight == 0 && self.is_flushed();
        let is_leaving = session.client.has_ended && self.is_long && is_between;
        let is_stopping = session.client.facts.control.command() != Command::None;
        let (initiator, manner) = match is_leaving {
            true => (Initiator::Downstream, Manner::Fin),
            false if is_stopping && (self.is_long || is_between) => {
                (Initiator::Operator, Manner::Fin)
            }
            false => return None,
        };
        Some(SessionEnd::graceful(initiator, Phase::Idle, manner))
    }

    fn watch_time(
        &mut self,
        session: &mut Session,
        context: &mut Context<'_>,
        until: Until,
    ) -> Poll<Result<Event, SessionEnd>> {
        let owes_room = !self.is_flushed();
        let is_owed = self.pin.is_some() && self.in_flight > 0;
        let is_silent = is_owed && !self.is_long;
        let is_leaving = is_owed && self.is_long && session.client.has_ended;
        let deadline = match until {
            _ if owes_room => {
                if std::mem::take(&mut self.has_waited_for_client) {
                    self.moved_at = clock::now();
                }
                self.moved_at + session.rules.listener.stall_timeout
            }
            _ if is_silent => self.moved_at + self.links.response_timeout(),
            // What its last command waits for is not waited for without it; what is there already comes.
            _ if is_leaving => self.moved_at + LAST_ANSWER_TIME_MAX,
            Until::Bytes(Some(deadline)) => deadline,
            _ => return Poll::Pending,
        };
        if session.client.alarm.poll(context, deadline).is_pending() {
            return Poll::Pending;
        }
        if owes_room {
            return Poll::Ready(Err(self.client_lost(ClientLost::WithheldRoom)));
        }
        if is_leaving {
            let (initiator, phase) = (Initiator::Downstream, Phase::Idle);
            let end = SessionEnd::graceful(initiator, phase, Manner::Fin);
            return Poll::Ready(Err(end));
        }
        if !is_silent {
            return Poll::Ready(Err(self.client_lost(ClientLost::WithheldBytes)));
        }
        // What it owes comes back to the mailbox.
        if let Some(pin) = self.pin.take() {
            pin.abandon(DiscardReason::ResponseTimeout);
            self.was_pinned = true;
        }
        Poll::Pending
    }

    /// The end of a session whose client was lost.
    fn client_lost(&self, lost: ClientLost) -> SessionEnd {
        let phase = match (self.is_midway || !self.is_flushed(), self.in_flight) {
            (true, _) => Phase::Response,
            (false, 0) => Phase::Idle,
            (false, _) => Phase::Request,
        };
        // Every reply says how long it is.
        verdict::client_lost(lost, phase, true)
    }
}

/// Takes in what the client sends while there is room, and notices when it is gone.
fn listen(session: &mut Session, context: &mut Context<'_>) -> Result<(), ClientLost> {
    let client = &mut session.client;
    while !client.has_ended && !client.inbound.is_full() {
        match client.poll_read(context) {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Err(ClientLost::at(&error)),
            Poll::Pending => break,
        }
    }
    match client.poll_command(context) {
        Command::Cut => Err(ClientLost::Cut),
        Command::None | Command::Drain => Ok(()),
    }
}
