//! The task that owns a connection: it writes what the sessions hand over, many requests in one piece,
//! and hands out the replies.
//!
//! It belongs to no session, so a session that is cancelled at any await leaves neither a reply nor a
//! slot behind. Not here: which requests may come (see `session`), and what is told when they come to
//! nothing.
//!
//! Invariant: what was handed over is written in that order, and is answered or given back.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::link::{Left, Link, Standing};
use super::mailbox::Mailbox;
use super::owed::OwedReplies;
use super::terms::Terms;
use crate::close::classify::{Loss, loss};
use crate::pool::{Lease, Look};
use crate::protocol::replies::{Kind, Language};
use crate::relay::alarm::Alarm;
use crate::relay::buffer::Buffer;
use crate::relay::crossing::{UNREAD_PROOF_BYTES_MAX, is_crossed};
use crate::stats::histogram::GatheredDurations;
use crate::stats::reason::DiscardReason;
use crate::sys::clock;

/// What a session on a shared connection may leave lying in its mailbox, bytes, before the others
/// would have to wait for it.
const SHARED_MAILBOX_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The same where nobody else waits.
const PINNED_MAILBOX_BYTES_MAX: usize = 256 * 1024;
/// For so long the others wait for it to take that.
const HELD_UP_MAX: Duration = Duration::from_secs(1);
/// The runtime asks the kernel once in each round, and more requests may be there than one answer holds.
const DEFERRED_ROUNDS_MAX: u8 = 4;

/// The task that owns a connection.
pub(super) struct Owner<L: Language> {
    pub(super) lease: Lease,
    pub(super) link: Arc<Link<L>>,
    pub(super) terms: Arc<Terms<L>>,
    pub(super) replies: L::Replies,
    pub(super) inbound: Buffer,
    pub(super) writing: Writing,
    pub(super) owed: OwedReplies<L>,
    /// The message that is being read goes on.
    pub(super) is_midway: bool,
    /// The last write failed so.
    write_broken: Option<io::ErrorKind>,
    /// It waits until those who are about to hand something over have done so.
    deferred: Deferred,
    /// Nothing was owed, so that what comes first may have been under way before.
    was_quiet: bool,
    /// What was written before nothing was owed last.
    quiet_written_bytes: u64,
    /// A reply has come since then.
    pub(super) has_answered: bool,
    /// Since when somebody else waits for the session that takes nothing.
    others_wait_since: Option<Instant>,
    /// A session that takes nothing, and since when.
    pub(super) held_up: Option<(Arc<Mailbox<Kind<L>>>, Instant)>,
    /// What a session may leave lying in its mailbox, bytes.
    pub(super) mailbox_bytes_max: usize,
    /// How long they took.
    pub(super) durations: GatheredDurations,
    /// Exchanges carried since the lease began.
    pub(super) exchanges: u64,
    pub(super) moved_at: Instant,
    /// When requests were taken to be written, or the service last took a part of them.
    pub(super) wrote_at: Instant,
    /// When the service last said something.
    heard_at: Instant,
    /// When it last served a session.
    pub(super) used_at: Instant,
    alarm: Alarm,
}

/// Requests on their way out. They stay here until all are written, so that what is not can go elsewhere.
#[derive(Debug, Default)]
pub(super) struct Writing {
    pub(super) requests: Vec<u8>,
    pub(super) written: usize,
    /// All that was ever written.
    pub(super) written_bytes: u64,
}

impl Writing {
    pub(super) fn is_done(&self) -> bool {
        self.written == self.requests.len()
    }
}

/// How often the writing was put off, and what had gathered then.
#[derive(Debug, Clone, Copy, Default)]
struct Deferred {
    rounds: u8,
    bytes: usize,
}

/// Why a connection is not read from and written to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It owes nothing, and is not wanted any more.
    Closing(DiscardReason),
    /// Its session gave it back.
    GivenBack(Left),
    /// Its session left in the midst of something.
    Abandoned(DiscardReason),
    /// The service said FIN.
    Fin,
    /// The service reset it.
    Reset,
    /// The service is gone without a word.
    Vanished,
    /// The service owes something, and was silent for too long.
    Silent,
    /// The service broke the protocol.
    Violation,
    /// The service said something that nobody had asked for.
    Stray,
    /// Its first answer was under way before the request.
    Crossed,
}

impl End {
    pub(super) fn at(error: &io::Error) -> Self {
        match loss(error) {
            Loss::Reset => Self::Reset,
            Loss::Vanished => Self::Vanished,
        }
    }
}

impl<L: Language> Owner<L> {
    pub(super) fn new(lease: Lease, link: Arc<Link<L>>, terms: Arc<Terms<L>>) -> Self {
        let now = clock::now();
        let carried = lease.connection().exchanges;
        Self {
            mailbox_bytes_max: match link.pinned.is_some() {
                true => PINNED_MAILBOX_BYTES_MAX,
                false => SHARED_MAILBOX_BYTES_MAX,
            },
            lease,
            link,
            replies: terms.language.replies(),
            inbound: Buffer::new(0),
            writing: Writing::default(),
            owed: OwedReplies::new(terms.language.ids_max(), carried),
            durations: terms.upstream.stats().exchange_duration.gather(),
            terms,
            is_midway: false,
            write_broken: None,
            deferred: Deferred::default(),
            was_quiet: true,
            quiet_written_bytes: 0,
            has_answered: false,
            others_wait_since: None,
            held_up: None,
            exchanges: 0,
            moved_at: now,
            wrote_at: now,
            heard_at: now,
            used_at: now,
            alarm: Alarm::new(now + QUIET_LOOK),
        }
    }

    /// Serves the sessions until the connection ends, or is not wanted any more.
    pub(super) async fn serve(&mut self) -> End {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        self.link.register_owner(context);
        loop {
            if let Err(end) = self.write(context) {
                return Poll::Ready(end);
            }
            match self.read(context) {
                Err(end) => return Poll::Ready(end),
                // Meanwhile others may have handed something over.
                Ok(()) if self.may_write() && self.link.has_gathered() => {}
                Ok(()) => break,
            }
        }
        if let Some(end) = self.what_becomes_of_it() {
            return Poll::Ready(end);
        }
        self.watch_time(context)
    }

    /// Whether those whose requests are here already are to hand them over first, so that all go out at
    /// once: as long as more of them do, a few times.
    fn defers(&mut self, gathered_bytes: usize) -> bool {
        let Deferred { rounds, bytes } = self.deferred;
        if rounds > 0 && (rounds == DEFERRED_ROUNDS_MAX || gathered_bytes == bytes) {
            return false;
        }
        self.deferred = Deferred {
            rounds: rounds + 1,
            bytes: gathered_bytes,
        };
        true
    }

    /// Whether what gathers now would be written at once.
    fn may_write(&self) -> bool {
        let is_free = self.writing.is_done() && self.write_broken.is_none();
        is_free && self.deferred.rounds == 0 && !self.awaits_first_bytes()
    }

    /// Whether nothing more may be written before the service has said something. A Unix socket tells only
    /// whether all is read, so with more behind it the answer to what came first would look like one that was
    /// under way before. A request that goes on in pieces is not answered before its end.
    fn awaits_first_bytes(&self) -> bool {
        let is_short = (1..=UNREAD_PROOF_BYTES_MAX).contains(&self.busy_bytes());
        let is_asked = self.was_quiet && is_short && !L::BY_ID;
        is_asked
            && !self.lease.connection().transport.is_tcp()
            && !(self.link.pinned.is_some() && self.owed.has_block())
    }

    /// Writes what has gathered, until nothing more has or the service has to be waited for.
    fn write(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        while self.write_broken.is_none() {
            if self.writing.is_done() {
                let gathered_bytes = self.link.gathered_bytes();
                if gathered_bytes == 0 || self.awaits_first_bytes() {
                    break;
                }
                if self.defers(gathered_bytes) {
                    let _ = pin!(tokio::task::yield_now()).poll(context);
                    break;
                }
                self.deferred = Deferred::default();
                self.take_requests()?;
            }
            let service = &mut self.lease.connection_mut().transport;
            let rest = &self.writing.requests[self.writing.written..];
            match service.poll_write(context, rest, &[]) {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) => {
                    self.writing.written += count;
                    self.writing.written_bytes += count as u64;
                    if !self.writing.is_done() {
                        self.wrote_at = clock::now();
                    }
                    if L::BY_ID {
                        self.finish_unanswered();
                    }
                }
                // What it has said already may still be read.
                Poll::Ready(Err(error)) => self.write_broken = Some(error.kind()),
            }
        }
        Ok(())
    }

    fn take_requests(&mut self) -> Result<(), End> {
        let is_quiet = self.owed.is_quiet();
        self.wrote_at = clock::now();
        if is_quiet && self.link.streams_to().is_none() {
            self.was_quiet = true;
            self.has_answered = false;
            self.quiet_written_bytes = self.writing.written_bytes;
            self.moved_at = self.wrote_at;
            if self.exchanges > 0 || self.lease.is_reused() {
                self.look_before_sending()?;
            }
        }
        self.writing.requests.clear();
        self.writing.requests.shrink_to(WRITING_KEPT_BYTES);
        self.writing.written = 0;
        let (requests, owed) = (&mut self.writing.requests, &mut self.owed);
        let from = owed.in_order.len();
        self.link.take(requests, &mut owed.in_order);
        owed.enter(from, requests, &self.terms.language);
        Ok(())
    }

    /// Before anything goes out over a connection on which nothing was owed: nothing may be waiting in
    /// it. Once the request is acknowledged, such bytes could not be told from its answer.
    fn look_before_sending(&self) -> Result<(), End> {
        match self.lease.connection().ask_kernel() {
            Look::Quiet => Ok(()),
            Look::Fin => Err(End::Fin),
            Look::Reset => Err(End::Reset),
            Look::Vanished => Err(End::Vanished),
            // What says by its id whose it is can't be taken for another's. Before this lease there may have
            // been other ids.
            Look::Bytes if L::BY_ID && self.exchanges > 0 => Ok(()),
            Look::Bytes => Err(End::Stray),
        }
    }

    /// Reads and hands out replies until nothing more has come or a session has to be waited for.
    fn read(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        loop {
            if !self.may_deliver(context) {
                return Ok(());
            }
            self.deliver()?;
            if self.held_up.is_some() {
                continue;
            }
            if self.inbound.is_full() {
                return Err(End::Violation);
            }
            let service = &mut self.lease.connection_mut().transport;
            match self.inbound.poll_read(service, context) {
                Poll::Pending => {
                    self.inbound.rest();
                    return Ok(());
                }
                Poll::Ready(Ok(0)) => return Err(self.end_of_service()),
                Poll::Ready(Ok(_)) => self.note_bytes()?,
                Poll::Ready(Err(error)) => return Err(End::at(&error)),
            }
        }
    }

    fn note_bytes(&mut self) -> Result<(), End> {
        self.moved_at = clock::now();
        self.heard_at = self.moved_at;
        if std::mem::take(&mut self.was_quiet) && !self.owed.is_empty() && !L::BY_ID {
            let service = &self.lease.connection().transport;
            if is_crossed(service, self.busy_bytes()) {
                return Err(End::Crossed);
            }
        }
        Ok(())
    }

    /// A write that fails takes the error that a read would have shown, which then says 0 and looks like
    /// a FIN. Only EPIPE tells of a FIN that came before (tcp(7)).
    fn end_of_service(&self) -> End {
        match self.write_broken {
            None | Some(io::ErrorKind::BrokenPipe) => End::Fin,
            Some(_) => End::Reset,
        }
    }

    /// What was written since nothing was owed, bytes.
    pub(super) fn busy_bytes(&self) -> u64 {
        self.writing.written_bytes - self.quiet_written_bytes
    }

    /// Whether all of that is still here, so that it can be sent again.
    pub(super) fn is_provable(&self) -> bool {
        self.quiet_written_bytes + self.writing.requests.len() as u64 >= self.owed.taken_bytes
    }

    /// Whether a reply has come since nothing was owed.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Whether nobody who takes nothing is in the way.
    fn may_deliver(&mut self, context: &Context<'_>) -> bool {
        let Some((mailbox, _)) = &self.held_up else {
            return true;
        };
        if mailbox.wait_for_session(context.waker(), self.mailbox_bytes_max) {
            if self.others_wait_since.is_none() && self.owed.is_owed_to_another(mailbox) {
                self.others_wait_since = Some(clock::now());
            }
            return false;
        }
        self.held_up = None;
        self.others_wait_since = None;
        true
    }

    /// What is to become of the connection now, if anything.
    fn what_becomes_of_it(&mut self) -> Option<End> {
        let carried = self.lease.connection().exchanges + self.exchanges;
        let is_spent = self
            .terms
            .timing
            .max_exchanges()
            .is_some_and(|max| carried >= max);
        if is_spent && self.link.pinned.is_none() {
            self.link.close(DiscardReason::MaxExchanges);
        }
        let is_quiet = self.owed.is_empty() && self.writing.is_done() && !self.link.has_gathered();
        let standing = self.link.standing();
        match standing {
            Standing::Abandoned(reason) => Some(End::Abandoned(reason)),
            // What it owes is owed to nobody any more.
            Standing::Closing(reason) if self.owed.are_all_left() => Some(End::Abandoned(reason)),
            _ if !is_quiet => None,
            Standing::Closing(reason) => Some(End::Closing(reason)),
            Standing::GivenBack(left) => Some(End::GivenBack(left)),
            Standing::Open | Standing::Ended => None,
        }
    }

    fn watch_time(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let Some((deadline, due)) = self.next_deadline() else {
            return Poll::Pending;
        };
        if self.alarm.poll(context, deadline).is_pending() {
            return Poll::Pending;
        }
        match due {
            Due::Silence => return Poll::Ready(End::Silent),
            Due::Overdue => self.give_back_overdue(),
            Due::Heartbeat => self.send_heartbeat(),
            Due::Retirement(reason) => self.link.close(reason),
            Due::CutOff => {
                self.others_wait_since = None;
                if let Some((mailbox, _)) = self.held_up.take() {
                    mailbox.cut_off();
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells those who have waited for too long for the reply of a service that answers in any order. Who
    /// asks after them is served by another connection where this one has said nothing since.
    fn give_back_overdue(&mut self) {
        let timeout = self.terms.timing.response_timeout();
        let asked_at = self.owed.give_back_overdue(clock::now(), timeout);
        let is_silent = asked_at.is_some_and(|asked_at| self.heard_at <= asked_at);
        let tombstones_max = TOMBSTONES_MAX.min(self.link.owed_replies_max() / 2);
        if is_silent || self.owed.tombstones() >= tombstones_max {
            self.link.close(DiscardReason::ResponseTimeout);
        }
    }

    /// When time has something to say next, and what.
    fn next_deadline(&mut self) -> Option<(Instant, Due)> {
        if let Some((_, since)) = &self.held_up {
            let since = self.others_wait_since.map(|it| it.max(*since));
            return since.map(|since| (since + HELD_UP_MAX, Due::CutOff));
        }
        let is_open = self.link.standing() == Standing::Open;
        if self.link.pinned.is_some() || (!is_open && self.owed.is_empty()) {
            return None;
        }
        let timing = &self.terms.timing;
        let timeout = timing.response_timeout();
        let idle_timeout = timing.idle_timeout();
        let is_quiet = self.owed.is_quiet();
        let waits = !is_quiet && (!L::BY_ID || self.owed.has_current());
        let silence = waits.then(|| (self.moved_at + timeout, Due::Silence));
        let is_stuck = !self.writing.is_done();
        let stuck = is_stuck.then(|| (self.wrote_at + timeout, Due::Silence));
        let overdue = (L::BY_ID && !is_quiet).then(|| self.owed.overdue_at(timeout));
        let overdue = overdue.flatten().map(|at| (at, Due::Overdue));
        let idle = idle_timeout.filter(|_| is_quiet);
        let idle = idle.map(|timeout| {
            let reason = DiscardReason::IdleTimeout;
            (self.used_at + timeout, Due::Retirement(reason))
        });
        let heartbeat = self.terms.language.heartbeat();
        let may_beat = is_quiet && is_open && !is_stuck;
        let heartbeat = heartbeat.filter(|_| may_beat && !self.link.has_gathered());
        let heartbeat = heartbeat.map(|(_, interval)| (self.moved_at + interval, Due::Heartbeat));
        let old = self.lease.connection().retire_at.filter(|_| is_open);
        let old = old.map(|at| (at, Due::Retirement(DiscardReason::MaxLifetime)));
        let all = [silence, stuck, overdue, idle, heartbeat, old];
        all.into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy)]
enum Due {
    Silence,
    Overdue,
    Heartbeat,
    Retirement(DiscardReason),
    CutOff,
}

/// A connection that owes so many replies that nobody waits for any more is given up.
const TOMBSTONES_MAX: usize = 1024;
/// A larger one is freed, so that one great burst does not stay in memory for ever.
const WRITING_KEPT_BYTES: usize = 64 * 1024;
/// About when a connection on which nothing happens is first looked at.
const QUIET_LOOK: Duration = Duration::from_secs(60);
