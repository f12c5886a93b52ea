//! What a session has under way over connections that have tasks of their own: requests handed over,
//! replies taken out of its mailbox, and bytes on their way to the client.
//!
//! ```text
//!  client bytes ──► send ──► a link, shared or pinned ──► mailbox ──► take ──► client
//! ```
//!
//! Not here: what a request means (see `redis`, `memcached`), and who is served over which connection
//! (see `relay::shared`).
//!
//! Invariant: the client sees its replies in the order of its requests; the connection changes only
//! while nothing is in flight.

mod piecewise;
mod returned;
mod wait;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

pub(super) use piecewise::{Broken, Piecewise};
pub(super) use wait::Until;

use super::queue::NoLease;
use super::{Session, SessionEnd, refusal};
use crate::close::Phase;
use crate::pool::Lease;
use crate::protocol::replies::{Kind, Language};
use crate::relay::shared::{
    Found, Known, Left, Link, Links, Mailbox, Nature, NotOpened, NotSent, Opened, Patience, Pin,
    Returned, Run, Share,
};
use crate::stats::reason::{DiscardReason, LeaseReason, RefusalReason};
use crate::sys::clock;
use crate::upstream::{AcquireError, Want};

/// A request up to this size goes over a shared connection, held whole before its first byte does.
pub(super) const SHARED_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// What a session has under way.
pub(super) struct Conversation<L: Language> {
    pub(super) links: Arc<Links<L>>,
    /// Whose connections serve it.
    pub(super) known: Arc<Known<L>>,
    mailbox: Arc<Mailbox<Kind<L>>>,
    share: Option<Share<L>>,
    pub(super) pin: Option<Pin<L>>,
    /// The pin is for what may take as long as it likes.
    is_long: bool,
    /// Replies that are owed to it.
    in_flight: usize,
    /// When a byte was last moved for it.
    moved_at: Instant,
    outgoing: Vec<u8>,
    written: usize,
    /// The connection that is pinned has ended.
    has_lost_pin: bool,
    /// The client took some of what it is owed.
    has_waited_for_client: bool,
    /// The pin ended by a limit of ours.
    was_pinned: bool,
    is_midway: bool,
    has_room: bool,
    returned: VecDeque<Returned<Kind<L>>>,
    /// What the first reply since then began with.
    reply_begins: Option<u8>,
}

/// Why a request was not handed over.
pub(super) enum Unsent {
    /// All shared connections serve others: one of the session's own may carry it.
    NoRoom,
    /// The client is told instead.
    Refused(Refusal),
    /// The session ends.
    End(SessionEnd),
}

impl Unsent {
    /// The client is told so by millpond.
    pub(super) fn ours(reason: RefusalReason) -> Self {
        Self::Refused(Refusal::Ours(reason))
    }

    /// What the client is told whose requests no connection of its own can carry either.
    ///
    /// # Errors
    /// The session ends.
    pub(super) fn refusal(self) -> Result<Refusal, SessionEnd> {
        match self {
            Self::NoRoom => Ok(Refusal::Ours(RefusalReason::NoLeases)),
            Self::Refused(refusal) => Ok(refusal),
            Self::End(end) => Err(end),
        }
    }
}

/// What a client is told in place of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// By millpond.
    Ours(RefusalReason),
    /// By the service, in its own words: a whole reply.
    Service(Vec<u8>),
}

/// Requests to hand over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Requests<'r> {
    /// So many bytes that the client sent first, and nobody has taken.
    Front(usize),
    /// These.
    Given(&'r [u8]),
}

impl<L: Language> Conversation<L> {
    pub(super) fn new(links: Arc<Links<L>>, now: Instant) -> Self {
        let known = links.known(L::Identity::default());
        Self {
            links,
            known,
            mailbox: Arc::default(),
            share: None,
            pin: None,
            is_long: false,
            in_flight: 0,
            moved_at: now,
            outgoing: Vec::new(),
            written: 0,
            has_lost_pin: false,
            has_waited_for_client: false,
            was_pinned: false,
            is_midway: false,
            has_room: false,
            returned: VecDeque::new(),
            reply_begins: None,
        }
    }

    /// Whether nothing is owed to the client, and all that was is written.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.is_flushed() && self.pin.is_none()
    }

    /// Holds no memory while nothing is under way.
    pub(super) fn rest(&mut self) {
        if self.is_flushed() {
            self.outgoing = Vec::new();
            self.written = 0;
        }
    }

    /// Answers in the service's place. Nothing is in flight, or replies come in any order and none is in the
    /// midst.
    pub(super) fn answer(&mut self, reply: &[u8]) {
        debug_assert!(
            self.in_flight == 0 || (L::BY_ID && !self.is_midway),
            "it would overtake replies of the service's"
        );
        self.outgoing.extend_from_slice(reply);
    }

    /// Is served over the connections of another identity from now on.
    pub(super) fn serve_as(&mut self, known: Arc<Known<L>>) {
        self.known = known;
        self.share = None;
    }

    /// Hands over whole requests with so many replies.
    pub(super) async fn send(
        &mut self,
        session: &mut Session,
        requests: Requests<'_>,
        run: Run<Kind<L>>,
    ) -> Result<(), Unsent> {
        loop {
            let link = match &self.pin {
                Some(pin) => Arc::clone(pin.link()),
                None => self.shared_link(session).await?,
            };
            let bytes = match requests {
                Requests::Front(count) => &session.client.inbound.filled()[..count],
                Requests::Given(bytes) => bytes,
            };
            let now = clock::now();
            match link.send(&self.mailbox, bytes, run, now) {
                Ok(()) => {
                    if let Requests::Front(count) = requests {
                        session.client.inbound.consume(count);
                    }
                    if self.in_flight == 0 {
                        self.moved_at = now;
                    }
                    self.in_flight += run.replies;
                    session.note_address(&link.address);
                    session.client.facts.set_phase(Phase::Request);
                    return Ok(());
                }
                Err(NotSent::Full) => {
                    self.has_room = false;
                    self.wait(session, Until::Room).await.map_err(Unsent::End)?;
                }
                Err(NotSent::Closed) if self.pin.is_some() => {
                    return Err(Unsent::ours(RefusalReason::UpstreamDied));
                }
                Err(NotSent::Closed) => {
                    self.wait(session, Until::Settled)
                        .await
                        .map_err(Unsent::End)?;
                    self.share = None;
                }
            }
        }
    }

    /// The same; where all shared connections serve others, over a connection of the session's own, which is
    /// given back after the replies. They leave nothing behind.
    pub(super) async fn send_somewhere(
        &mut self,
        session: &mut Session,
        requests: Requests<'_>,
        run: Run<Kind<L>>,
    ) -> Result<(), Unsent> {
        match self.send(session, requests, run).await {
            Err(Unsent::NoRoom) => {}
            done => return done,
        }
        Box::pin(self.settle(session)).await?;
        let known = self.known.clone();
        let (reason, patience) = (LeaseReason::NoRoom, Patience::Short);
        Box::pin(self.pin(session, &known, reason, patience, false)).await?;
        self.send(session, requests, run).await?;
        Box::pin(self.settle(session)).await?;
        self.give_back(Left::Nothing);
        Ok(())
    }

    /// Hands over one request, and waits for its reply, which the client gets as always; and says what it
    /// begins with, if it was shown.
    pub(super) async fn exchange(
        &mut self,
        session: &mut Session,
        requests: Requests<'_>,
        kind: Kind<L>,
    ) -> Result<Option<u8>, Unsent> {
        let flushed = self.wait(session, Until::Flushed).await;
        flushed.map_err(Unsent::End)?;
        self.reply_begins = None;
        let run = Run::one(kind, Nature::Each);
        self.send(session, requests, run).await?;
        self.settle(session).await?;
        Ok(self.reply_begins)
    }

    /// Hands over a part of a request whose reply is owed already, or what is said while it streams.
    pub(super) async fn send_on(
        &mut self,
        session: &mut Session,
        count: usize,
        kind: Kind<L>,
    ) -> Result<(), Unsent> {
        loop {
            let bytes = &session.client.inbound.filled()[..count];
            let now = clock::now();
            let sent = match &self.pin {
                Some(pin) => pin.send_on(&self.mailbox, bytes, kind, now),
                None => Err(NotSent::Closed),
            };
            match sent {
                Ok(()) => {
                    session.client.inbound.consume(count);
                    self.moved_at = now;
                    return Ok(());
                }
                Err(NotSent::Full) => {
                    self.has_room = false;
                    self.wait(session, Until::Room).await.map_err(Unsent::End)?;
                }
                Err(NotSent::Closed) => {
                    return Err(Unsent::ours(RefusalReason::UpstreamDied));
                }
            }
        }
    }

    /// Waits until nobody else asks the service whether it accepts `known`.
    pub(super) async fn ask_alone(
        &mut self,
        session: &mut Session,
        known: &Arc<Known<L>>,
    ) -> Result<impl Drop + use<L>, Unsent> {
        self.while_listening(session, known.ask_alone()).await
    }

    /// Whether a connection that is shared shows that the service accepts `known`; false where none may be
    /// opened for that.
    pub(super) async fn is_accepted(
        &mut self,
        session: &mut Session,
        known: &Arc<Known<L>>,
    ) -> Result<bool, Unsent> {
        match self.links.find(known, clock::now()) {
            Found::Link(_) => Ok(true),
            Found::QueueFull | Found::NoRoom => Ok(false),
            Found::Wait(opened) => match self.opened(session, opened).await {
                Ok(_) => Ok(true),
                Err(Unsent::NoRoom) => Ok(false),
                Err(unsent) => Err(unsent),
            },
        }
    }

    /// Waits for a connection that is on its way.
    async fn opened(
        &mut self,
        session: &mut Session,
        opened: oneshot::Receiver<Opened<L>>,
    ) -> Result<Arc<Link<L>>, Unsent> {
        let opened = self.while_listening(session, opened).await?;
        // Who was to tell goes without a word only when millpond stops.
        let stopped = Err(NotOpened::NotLent(AcquireError::Draining));
        opened.unwrap_or(stopped).map_err(refused)
    }

    /// The connection that is shared: the one before where something is in flight, else the least
    /// loaded.
    async fn shared_link(&mut self, session: &mut Session) -> Result<Arc<Link<L>>, Unsent> {
        if let Some(link) = self.share.as_ref().map(Share::link)
            && (self.in_flight > 0 || (self.links.is_single() && link.is_open()))
        {
            return Ok(Arc::clone(link));
        }
        let found = self.links.find(&self.known, clock::now());
        let link = match found {
            Found::Link(link) => link,
            Found::NoRoom => return Err(Unsent::NoRoom),
            Found::QueueFull => return Err(Unsent::ours(RefusalReason::QueueFull)),
            Found::Wait(opened) => {
                session.client.facts.set_phase(Phase::Queue);
                self.opened(session, opened).await?
            }
        };
        let is_same = |share: &Share<L>| Arc::ptr_eq(share.link(), &link);
        if !self.share.as_ref().is_some_and(is_same) {
            self.share = Some(Share::of(Arc::clone(&link)));
        }
        Ok(link)
    }

    /// Takes a connection for the session alone. Nothing is in flight. `is_proof`: the service is told
    /// anew who is served.
    pub(super) async fn pin(
        &mut self,
        session: &mut Session,
        known: &Arc<Known<L>>,
        reason: LeaseReason,
        patience: Patience,
        is_proof: bool,
    ) -> Result<(), Unsent> {
        let links = Arc::clone(&self.links);
        links.upstream().stats().pins.increment(reason);
        if !links.may_pin() {
            return Err(Unsent::ours(RefusalReason::NoLeases));
        }
        session.client.facts.set_phase(Phase::Queue);
        let deadline = clock::now() + session.rules.upstream_settings.pool.wait_timeout;
        let permitted = tokio::time::timeout_at(deadline.into(), links.may_be_pinned(patience));
        let pinning = match self.while_listening(session, permitted).await? {
            Ok(Some(pinning)) => pinning,
            Ok(None) => return Err(Unsent::ours(RefusalReason::NoLeases)),
            Err(_elapsed) => {
                return Err(Unsent::ours(RefusalReason::WaitTimeout));
            }
        };
        let lease = self.lease(session, known).await?;
        session.note_lease(&lease);
        let mailbox = Arc::clone(&self.mailbox);
        let pinned = links.pin_lease(pinning, lease, known, (reason, &mailbox), is_proof);
        let pin = self
            .while_listening(session, pinned)
            .await?
            .map_err(refused)?;
        self.pin = Some(pin);
        self.is_long = patience == Patience::Long;
        Ok(())
    }

    async fn lease(
        &mut self,
        session: &mut Session,
        known: &Arc<Known<L>>,
    ) -> Result<Lease, Unsent> {
        let want = Want {
            key: known.key,
            fresh: false,
        };
        match session.acquire(want, true, clock::now()).await {
            Ok((lease, _)) => Ok(lease),
            Err(NoLease::Refused(error)) => Err(Unsent::ours(refusal::of_acquire(&error))),
            Err(NoLease::Ended(end)) => Err(Unsent::End(end)),
        }
    }

    /// Gives the session's own connection back; one that still owes something is ended.
    pub(super) fn give_back(&mut self, left: Left) {
        match self.pin.take() {
            Some(pin) if self.in_flight == 0 => pin.give_back(left),
            Some(pin) => pin.abandon(DiscardReason::ClientGone),
            None => {}
        }
    }

    /// Has the session's own connection send it all that the service says.
    pub(super) fn stream(&mut self) -> bool {
        let (links, mailbox) = (&self.links, &self.mailbox);
        let pin = self.pin.as_mut();
        self.is_long = pin.is_some_and(|pin| pin.stream(links, mailbox).is_ok());
        self.is_long
    }

    /// What comes for the session from here on is dropped.
    pub(super) fn leave(&mut self) {
        self.leave_mailbox();
        if let Some(pin) = self.pin.take() {
            pin.abandon(DiscardReason::ClientGone);
        }
    }

    fn leave_mailbox(&self) {
        self.mailbox.leave();
        if let Some(share) = self.share.as_ref().filter(|_| self.in_flight > 0) {
            share.link().tell_left();
        }
    }
}

/// What a client is told where no connection came of it.
fn refused(error: NotOpened) -> Unsent {
    Unsent::Refused(match error {
        NotOpened::NotLent(error) => Refusal::Ours(refusal::of_acquire(&error)),
        NotOpened::Refused(reply) => Refusal::Service(reply),
        NotOpened::Died => Refusal::Ours(RefusalReason::UpstreamDied),
        NotOpened::NoRoom => return Unsent::NoRoom,
    })
}

impl<L: Language> Drop for Conversation<L> {
    fn drop(&mut self) {
        self.leave_mailbox();
    }
}
