//! A connection that has a task of its own, as its sessions see it.
//!
//! ```text
//!  session ──send──► Link (requests, owed replies) ──► owner ──► service
//!     ▲                                                  │
//!     └───────────────── Mailbox ◄───────────────────────┘
//! ```
//!
//! Sessions hand over whole requests and say whose the replies are; the owner writes what has gathered
//! in one piece. Not here: reading and writing (see `owner`), which connection is chosen (see `links`).
//!
//! Invariant: requests are written in the order in which their replies are owed; nothing is taken over
//! once the link is closing, and everything taken over is answered or given back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Instant;

use futures_util::task::AtomicWaker;

use super::mailbox::{Mailbox, Nature, Run};
use super::owed::Owed;
use crate::pool::{Connection, EndpointId, PoolKey};
use crate::protocol::replies::{Kind, Language};
use crate::stats::reason::{DiscardReason, LeaseReason, Reason};
use crate::stats::tree::LinkRow;

/// Replies that a shared connection may owe: more than a service answers in the time that anybody waits.
pub(super) const OWED_REPLIES_MAX: usize = 16 * 1024;
/// Requests that wait to be written on one connection, bytes.
pub(super) const REQUESTS_BYTES_MAX: usize = 1024 * 1024;

/// A connection that has a task of its own.
#[derive(Debug)]
pub struct Link<L: Language> {
    /// The number of its connection.
    pub id: u64,
    /// Whose requests it carries.
    pub key: PoolKey,
    /// The endpoint it leads to.
    pub endpoint: EndpointId,
    /// The endpoint's address as configured.
    pub address: Arc<str>,
    /// It serves one session only, and why; that never changes.
    pub(super) pinned: Option<LeaseReason>,
    /// Since when it serves.
    since: Instant,
    /// Sessions that share it.
    sessions: AtomicUsize,
    state: Mutex<State<L>>,
    owner: AtomicWaker,
    owed_replies: AtomicUsize,
    owed_replies_max: usize,
}

#[derive(Debug)]
struct State<L: Language> {
    gathered: Gathered<L>,
    purpose: Purpose<L>,
    standing: Standing,
    /// Sessions that found no room.
    waiting: Vec<Arc<Mailbox<Kind<L>>>>,
    /// Nothing is owed since then.
    quiet_since: Option<Instant>,
}

/// What sessions have handed over and the owner has not taken yet.
#[derive(Debug)]
pub(super) struct Gathered<L: Language> {
    pub(super) requests: Vec<u8>,
    pub(super) owed: Vec<Owed<L>>,
}

/// Whom a link serves.
#[derive(Debug)]
pub(super) enum Purpose<L: Language> {
    /// Every session of its key.
    Shared,
    /// One session, which is owed each reply.
    Pinned(Arc<Mailbox<Kind<L>>>),
    /// One session, which gets all that the service says.
    Streaming(Arc<Mailbox<Kind<L>>>),
}

/// What is to become of a link.
///
/// ```text
/// Open ──► Closing(reason) ──► Ended
///   └────► GivenBack ─────────►  ▲      pinned links only
///   └────► Abandoned ─────────► ─┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It takes requests over.
    Open,
    /// It ends once it owes nothing.
    Closing(DiscardReason),
    /// Its session needs it no more.
    GivenBack(Left),
    /// Its session left in the midst of something.
    Abandoned(DiscardReason),
    /// It is no more.
    Ended,
}

/// What a session leaves behind on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// Something that a reset takes away: the connection is reset.
    Something,
    /// What no reset takes away, or what is still to be said: the connection is discarded.
    Everything,
}

/// Why a request was not taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// The link takes nothing any more: another one may.
    Closed,
    /// It is full; the session's mailbox says when there is room.
    Full,
}

impl<L: Language> Link<L> {
    /// `pinned`: why one session has it alone, and its mailbox; `None`: it is shared. `ids_max`: how many
    /// replies can be told apart.
    pub(super) fn new(
        connection: &Connection,
        pinned: Option<(LeaseReason, &Arc<Mailbox<Kind<L>>>)>,
        ids_max: usize,
        now: Instant,
    ) -> Self {
        Self {
            id: connection.id,
            key: connection.key,
            endpoint: connection.endpoint,
            address: Arc::clone(&connection.address),
            pinned: pinned.map(|(reason, _)| reason),
            since: now,
            sessions: AtomicUsize::new(0),
            state: Mutex::new(State {
                gathered: Gathered::default(),
                purpose: match pinned {
                    None => Purpose::Shared,
                    Some((_, mailbox)) => Purpose::Pinned(Arc::clone(mailbox)),
                },
                standing: Standing::Open,
                waiting: Vec::new(),
                quiet_since: Some(now),
            }),
            owner: AtomicWaker::new(),
            owed_replies: AtomicUsize::new(0),
            owed_replies_max: ids_max.min(OWED_REPLIES_MAX),
        }
    }

    /// Hands over whole requests, whose replies are owed to `mailbox`.
    ///
    /// # Errors
    /// Nothing was taken over.
    pub fn send(
        &self,
        mailbox: &Arc<Mailbox<Kind<L>>>,
        requests: &[u8],
        run: Run<Kind<L>>,
        now: Instant,
    ) -> Result<(), NotSent> {
        let mut state = self.lock();
        if state.standing != Standing::Open {
            return Err(NotSent::Closed);
        }
        let is_full = self.owed_replies() >= self.owed_replies_max
            || state.gathered.requests.len() >= REQUESTS_BYTES_MAX;
        if is_full {
            state.wait_for_room(mailbox);
            return Err(NotSent::Full);
        }
        self.owed_replies.fetch_add(run.replies, Ordering::Relaxed);
        state.quiet_since = None;
        let is_first = state.gathered.add(mailbox, requests, run, now);
        drop(state);
        if is_first {
            self.owner.wake();
        }
        Ok(())
    }

    /// Hands over bytes of the pinned session that no reply is counted for: a part of a request whose
    /// reply is owed already, or what is said while it streams. What has begun also goes on over a connection
    /// that is to end when it owes nothing.
    ///
    /// # Errors
    /// Nothing was taken over.
    pub fn send_on(
        &self,
        mailbox: &Arc<Mailbox<Kind<L>>>,
        bytes: &[u8],
        kind: Kind<L>,
        now: Instant,
    ) -> Result<(), NotSent> {
        let mut state = self.lock();
        if !matches!(state.standing, Standing::Open | Standing::Closing(_)) {
            return Err(NotSent::Closed);
        }
        if state.gathered.requests.len() >= REQUESTS_BYTES_MAX {
            state.wait_for_room(mailbox);
            return Err(NotSent::Full);
        }
        let run = Run::of(kind, 0, Nature::Each);
        let is_first = state.gathered.add(mailbox, bytes, run, now);
        drop(state);
        if is_first {
            self.owner.wake();
        }
        Ok(())
    }

    /// From here on the pinned session gets all that the service says. Nothing is owed.
    pub(super) fn stream_to(&self, mailbox: &Arc<Mailbox<Kind<L>>>) {
        self.lock().purpose = Purpose::Streaming(Arc::clone(mailbox));
    }

    /// How many replies may be owed.
    pub(super) fn owed_replies_max(&self) -> usize {
        self.owed_replies_max
    }

    /// Replies that are owed.
    pub fn owed_replies(&self) -> usize {
        self.owed_replies.load(Ordering::Relaxed)
    }

    /// Whether it takes requests over.
    pub fn is_open(&self) -> bool {
        self.lock().standing == Standing::Open
    }

    /// Whether it is no more, so that nothing comes over it.
    pub fn has_ended(&self) -> bool {
        self.lock().standing == Standing::Ended
    }

    /// Since when nothing is owed.
    pub fn quiet_since(&self) -> Option<Instant> {
        self.lock().quiet_since
    }

    /// Says that a session has left that is owed something: nobody may be left to wait for.
    pub fn tell_left(&self) {
        self.owner.wake();
    }

    /// Ends it, once it owes nothing, for `reason`.
    pub fn close(&self, reason: DiscardReason) {
        self.stand(Standing::Closing(reason));
    }

    pub(super) fn stand(&self, standing: Standing) {
        let mut state = self.lock();
        if state.standing != Standing::Open {
            return;
        }
        state.standing = standing;
        drop(state);
        self.owner.wake();
    }

    pub(super) fn register_owner(&self, context: &Context<'_>) {
        self.owner.register(context.waker());
    }

    pub(super) fn has_gathered(&self) -> bool {
        self.gathered_bytes() > 0
    }

    /// Bytes of requests that nobody has taken.
    pub(super) fn gathered_bytes(&self) -> usize {
        self.lock().gathered.requests.len()
    }

    /// Moves what has gathered into `requests`, which is empty, and behind `owed`.
    pub(super) fn take(&self, requests: &mut Vec<u8>, owed: &mut VecDeque<Owed<L>>) {
        let mut state = self.lock();
        std::mem::swap(requests, &mut state.gathered.requests);
        owed.extend(state.gathered.owed.drain(..));
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for mailbox in waiting {
            mailbox.tell_room();
        }
    }

    /// So many replies are owed no more. `quiet_at`: nothing that the owner knows of is.
    pub(super) fn answered(&self, replies: usize, quiet_at: Option<Instant>) {
        let before = self.owed_replies.fetch_sub(replies, Ordering::Relaxed);
        let max = self.owed_replies_max;
        let has_room_again = before >= max && before - replies < max;
        if quiet_at.is_none() && !has_room_again {
            return;
        }
        let mut state = self.lock();
        if state.gathered.owed.is_empty() && quiet_at.is_some() {
            state.quiet_since = quiet_at;
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for mailbox in waiting {
            mailbox.tell_room();
        }
    }

    pub(super) fn standing(&self) -> Standing {
        self.lock().standing
    }

    /// The mailbox that gets all that the service says, if one does.
    pub(super) fn streams_to(&self) -> Option<Arc<Mailbox<Kind<L>>>> {
        match &self.lock().purpose {
            Purpose::Streaming(mailbox) => Some(Arc::clone(mailbox)),
            Purpose::Shared | Purpose::Pinned(_) => None,
        }
    }

    /// Takes nothing over any more, and hands out what had gathered. A session that it is pinned to and that
    /// still holds it is told.
    pub(super) fn end(&self) -> Gathered<L> {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.standing, Standing::Ended);
        let holder = match (&state.purpose, before) {
            (Purpose::Pinned(holder) | Purpose::Streaming(holder), Standing::Open) => Some(holder),
            _ => None,
        };
        let holder = holder.cloned();
        let waiting = std::mem::take(&mut state.waiting);
        let gathered = std::mem::take(&mut state.gathered);
        drop(state);
        for mailbox in waiting {
            mailbox.tell_room();
        }
        if let Some(holder) = holder {
            holder.tell_lost_pin(self.id);
        }
        gathered
    }

    /// What an operator may know of it.
    pub(super) fn row(&self, now: Instant) -> LinkRow {
        LinkRow {
            connection: self.id,
            endpoint: self.address.to_string(),
            sessions: match self.pinned {
                None => self.sessions.load(Ordering::Relaxed),
                Some(_) => 1,
            },
            owed: self.owed_replies(),
            pinned: self.pinned.map(Reason::label),
            age_seconds: now.saturating_duration_since(self.since).as_secs_f64(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's share of a connection.
#[derive(Debug)]
pub struct Share<L: Language> {
    link: Arc<Link<L>>,
}

impl<L: Language> Share<L> {
    /// Of this connection.
    pub fn of(link: Arc<Link<L>>) -> Self {
        link.sessions.fetch_add(1, Ordering::Relaxed);
        Self { link }
    }

    /// The connection.
    pub fn link(&self) -> &Arc<Link<L>> {
        &self.link
    }
}

impl<L: Language> Drop for Share<L> {
    fn drop(&mut self) {
        self.link.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<L: Language> State<L> {
    fn wait_for_room(&mut self, mailbox: &Arc<Mailbox<Kind<L>>>) {
        if !self.waiting.iter().any(|it| Arc::ptr_eq(it, mailbox)) {
            self.waiting.push(Arc::clone(mailbox));
        }
    }
}

impl<L: Language> Gathered<L> {
    /// Whether nothing had gathered before.
    fn add(
        &mut self,
        mailbox: &Arc<Mailbox<Kind<L>>>,
        requests: &[u8],
        run: Run<Kind<L>>,
        now: Instant,
    ) -> bool {
        let is_first = self.requests.is_empty();
        self.requests.extend_from_slice(requests);
        self.owed.push(Owed {
            mailbox: Arc::clone(mailbox),
            kind: run.kind,
            replies: run.replies,
            answered: 0,
            nature: run.nature,
            request_bytes: requests.len(),
            ends_at: 0,
            asked_at: now,
            tries: run.tries,
            is_begun: false,
        });
        is_first
    }
}

impl<L: Language> Default for Gathered<L> {
    fn default() -> Self {
        Self {
            requests: Vec::new(),
            owed: Vec::new(),
        }
    }
}
