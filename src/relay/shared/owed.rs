//! The replies that a connection owes, and whose they are.
//!
//! ```text
//!  gathered ──take_over──► in the order of their requests ──► answered from the front
//!                     └──► by an id of the connection's own ──► answered in any order, or overdue:
//!                                                               a tombstone until the late reply comes
//! ```
//!
//! Not here: the bytes of replies (see `delivery`), and what becomes of them at the end (see `ends`).
//!
//! Invariant: an id stands for one request from the moment that it is put in until its reply has come or
//! the connection ends; so a late reply finds nobody else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::mailbox::{Lost, Mailbox, Nature, Returned};
use crate::protocol::replies::{Kind, Language};

/// Replies owed to one session, in a row.
#[derive(Debug)]
pub(super) struct Owed<L: Language> {
    pub(super) mailbox: Arc<Mailbox<Kind<L>>>,
    pub(super) kind: Kind<L>,
    /// Those that have not come yet.
    pub(super) replies: usize,
    /// Those that have.
    pub(super) answered: usize,
    pub(super) nature: Nature,
    /// The bytes of their requests.
    pub(super) request_bytes: usize,
    /// Where the requests end among all that the connection was ever to carry; 0 while they gather.
    pub(super) ends_at: u64,
    /// When they were handed over.
    pub(super) asked_at: Instant,
    /// How often they were given back before.
    pub(super) tries: u8,
    /// Their session has seen bytes of a reply that goes on.
    pub(super) is_begun: bool,
}

/// The replies that a connection owes.
#[derive(Debug)]
pub(super) struct OwedReplies<L: Language> {
    pub(super) in_order: VecDeque<Owed<L>>,
    by_id: HashMap<u64, Owed<L>>,
    last_id: u64,
    id_max: u64,
    /// The reply that is being handed out, where replies are found by ids.
    current: Option<u64>,
    /// Bytes of the requests of all that was ever owed.
    pub(super) taken_bytes: u64,
    /// Before then none is overdue.
    overdue_from: Option<Instant>,
    /// Whose the replies are that nobody waits for any more.
    nobody: Arc<Mailbox<Kind<L>>>,
    tombstones: usize,
    /// Whose the replies are to what millpond itself asks.
    own: Arc<Mailbox<Kind<L>>>,
}

impl<L: Language> OwedReplies<L> {
    /// `carried`: so many exchanges were carried before, so that ids of theirs are not used again soon.
    pub(super) fn new(ids_max: usize, carried: u64) -> Self {
        let nobody = || {
            let mailbox = Arc::<Mailbox<Kind<L>>>::default();
            mailbox.leave();
            mailbox
        };
        Self {
            in_order: VecDeque::new(),
            by_id: HashMap::new(),
            last_id: carried % ids_max as u64,
            id_max: ids_max as u64,
            current: None,
            taken_bytes: 0,
            overdue_from: None,
            nobody: nobody(),
            tombstones: 0,
            own: nobody(),
        }
    }

    /// Whose the replies are to what millpond itself asks.
    pub(super) fn own(&self) -> &Arc<Mailbox<Kind<L>>> {
        &self.own
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_order.is_empty() && self.by_id.is_empty()
    }

    /// Whether nobody waits for anything but a late reply that finds nobody.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_order.is_empty() && self.by_id.len() == self.tombstones
    }

    fn all(&self) -> impl Iterator<Item = &Owed<L>> {
        self.in_order.iter().chain(self.by_id.values())
    }

    /// Enters what stands at the end of `in_order` from this place on; `requests` are all of its bytes.
    pub(super) fn enter(&mut self, from: usize, requests: &mut [u8], language: &L) {
        let mut at = 0;
        for owed in self.in_order.range_mut(from..) {
            at += owed.request_bytes;
            owed.ends_at = self.taken_bytes + at as u64;
        }
        if L::BY_ID {
            self.give_ids(from, requests, language);
        }
        self.taken_bytes += at as u64;
    }

    fn give_ids(&mut self, from: usize, requests: &mut [u8], language: &L) {
        let mut unanswered = self.in_order.split_off(from);
        for owed in unanswered.drain(..) {
            let end = usize::try_from(owed.ends_at - self.taken_bytes).unwrap_or(requests.len());
            let request = &mut requests[end - owed.request_bytes..end];
            match (owed.replies, owed.nature) {
                // A part of what has an id already.
                (0, _) => {}
                (_, Nature::Unanswered) => {
                    // What is answered all the same finds nobody.
                    language.put_id(request, self.fresh_id());
                    self.in_order.push_back(owed);
                }
                _ => {
                    let id = self.fresh_id();
                    language.put_id(request, id);
                    self.by_id.insert(id, owed);
                }
            }
        }
    }

    /// No connection owes as many replies as there are ids.
    fn fresh_id(&mut self) -> u64 {
        loop {
            // Some protocols mean something else by 0.
            self.last_id = self.last_id % self.id_max + 1;
            if !self.by_id.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// Whether something that only makes sense as a whole is owed its reply.
    pub(super) fn has_block(&self) -> bool {
        self.in_order.iter().any(|it| it.nature == Nature::Block)
    }

    /// Forgets what is answered, or has no reply of its own, at the front.
    pub(super) fn pop_answered(&mut self) {
        while self.in_order.front().is_some_and(|it| it.replies == 0) {
            self.in_order.pop_front();
        }
    }

    /// The request of this id, whose reply is handed out from here on.
    pub(super) fn begin(&mut self, id: u64) -> Option<&mut Owed<L>> {
        let owed = self.by_id.get_mut(&id)?;
        self.current = Some(id);
        Some(owed)
    }

    /// The request whose reply is being handed out.
    pub(super) fn current(&mut self) -> Option<&mut Owed<L>> {
        self.by_id.get_mut(&self.current?)
    }

    /// The reply that was being handed out has ended. Whether somebody waited for it.
    pub(super) fn end_current(&mut self) -> bool {
        let ended = self.current.take().and_then(|id| self.by_id.remove(&id));
        let is_late = ended.is_some_and(|it| Arc::ptr_eq(&it.mailbox, &self.nobody));
        self.tombstones -= usize::from(is_late);
        !is_late
    }

    /// Those requests without a reply that end within what was written: they are done.
    pub(super) fn take_done(&mut self, written_bytes: u64) -> Option<Owed<L>> {
        let is_done = |owed: &Owed<L>| owed.ends_at <= written_bytes;
        match L::BY_ID && self.in_order.front().is_some_and(is_done) {
            true => self.in_order.pop_front(),
            false => None,
        }
    }

    /// When one that has not begun may be overdue.
    pub(super) fn overdue_at(&mut self, timeout: Duration) -> Option<Instant> {
        if self.by_id.len() == self.tombstones {
            return None;
        }
        if self.overdue_from.is_none() {
            let waited_for = self.by_id.iter().filter(|it| self.is_waited_for(*it));
            self.overdue_from = waited_for.map(|(_, owed)| owed.asked_at).min();
        }
        self.overdue_from.map(|asked_at| asked_at + timeout)
    }

    /// Whether somebody waits for a reply that has not begun.
    fn is_waited_for(&self, (id, owed): (&u64, &Owed<L>)) -> bool {
        self.current != Some(*id) && !Arc::ptr_eq(&owed.mailbox, &self.nobody)
    }

    /// Gives those back that were asked for so long ago, and leaves tombstones in their places. When the last
    /// of them was asked, if any.
    pub(super) fn give_back_overdue(&mut self, now: Instant, timeout: Duration) -> Option<Instant> {
        self.overdue_from = None;
        let is_due = |owed: &Owed<L>| now >= owed.asked_at + timeout;
        let all = self.by_id.iter();
        let due: Vec<u64> = all
            .filter(|it| self.is_waited_for(*it) && is_due(it.1))
            .map(|(id, _)| *id)
            .collect();
        self.tombstones += due.len();
        let mut last_asked_at = None;
        for id in due {
            let Some(owed) = self.by_id.get_mut(&id) else {
                continue;
            };
            let lost = Returned::Lost(owed.kind, owed.replies, Lost::Silent);
            owed.mailbox.give_back(lost);
            owed.mailbox = Arc::clone(&self.nobody);
            last_asked_at = last_asked_at.max(Some(owed.asked_at));
        }
        last_asked_at
    }

    /// Whether a reply is being handed out that was found by its id.
    pub(super) fn has_current(&self) -> bool {
        self.current.is_some()
    }

    /// Requests whose replies nobody waits for any more.
    pub(super) fn tombstones(&self) -> usize {
        self.tombstones
    }

    /// Whether nobody waits for anything any more.
    pub(super) fn are_all_left(&self) -> bool {
        self.all().all(|it| it.mailbox.is_left())
    }

    /// Whether a reply is owed to another session.
    pub(super) fn is_owed_to_another(&self, mailbox: &Arc<Mailbox<Kind<L>>>) -> bool {
        self.all().any(|it| {
            let is_ours = Arc::ptr_eq(&it.mailbox, mailbox) || self.is_nobodys(it);
            it.replies > 0 && !is_ours
        })
    }

    /// How many sessions a reply is owed to.
    pub(super) fn sessions(&self) -> usize {
        let owed = self.all().filter(|it| !self.is_nobodys(it));
        let mailboxes = owed.map(|it| Arc::as_ptr(&it.mailbox));
        mailboxes.collect::<HashSet<_>>().len()
    }

    fn is_nobodys(&self, owed: &Owed<L>) -> bool {
        Arc::ptr_eq(&owed.mailbox, &self.nobody) || Arc::ptr_eq(&owed.mailbox, &self.own)
    }

    /// How many replies are owed.
    pub(super) fn replies(&self) -> usize {
        self.all().map(|it| it.replies).sum()
    }

    /// All of it and what had gathered behind it, in the order of the requests.
    pub(super) fn into_order(self, gathered: Vec<Owed<L>>) -> Vec<Owed<L>> {
        let mut all: Vec<_> = self.in_order.into_iter().collect();
        all.extend(self.by_id.into_values());
        if L::BY_ID {
            all.sort_unstable_by_key(|it| it.ends_at);
        }
        let mut ends_at = self.taken_bytes;
        for mut owed in gathered {
            ends_at += owed.request_bytes as u64;
            owed.ends_at = ends_at;
            all.push(owed);
        }
        all
    }
}
