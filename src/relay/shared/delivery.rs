//! Replies, from the bytes that were read to the mailboxes of whoever is owed them.
//!
//! Invariant: a byte of a reply goes to the mailbox whose request is at the front or has its id, or nowhere.

use std::sync::Arc;
use std::time::Instant;

use super::mailbox::{Mailbox, Nature, Run};
use super::owed::Owed;
use super::owner::{End, Owner};
use crate::protocol::replies::{
    Heartbeat, Kind, Language, Replies, ReplyThen, ReplyViolation, Whose,
};
use crate::relay::buffer::Buffer;
use crate::stats::reason::{DiscardReason, DroppedMessage, ExchangeOutcome};
use crate::sys::clock;

/// What was handed out in one go.
struct Moved {
    bytes: usize,
    /// Replies that ended.
    ended: usize,
    /// What lies in the mailbox now; `None` where nobody takes it.
    waiting_bytes: Option<usize>,
}

impl<L: Language> Owner<L> {
    /// Hands out what was read, as far as it can be told whose it is.
    pub(super) fn deliver(&mut self) -> Result<(), End> {
        let mut answered = 0;
        let delivered = loop {
            self.owed.pop_answered();
            if self.inbound.is_empty() || self.held_up.is_some() {
                break Ok(());
            }
            let moved = match L::BY_ID {
                true => self.deliver_by_id(&mut answered),
                false => self.deliver_in_order(&mut answered),
            };
            match moved {
                Err(end) => break Err(end),
                Ok(0) => break Ok(()),
                Ok(_) => {}
            }
        };
        self.note_answered(answered);
        delivered
    }

    /// So many replies have come.
    fn note_answered(&mut self, answered: usize) {
        if answered > 0 {
            self.durations.hand_over();
            self.has_answered = true;
            self.note_done(answered);
        }
    }

    /// So many requests are done with.
    fn note_done(&mut self, count: usize) {
        self.exchanges += count as u64;
        let quiet_at = self.owed.is_quiet().then_some(self.moved_at);
        self.link.answered(count, quiet_at);
    }

    /// How many bytes were moved.
    fn deliver_in_order(&mut self, answered: &mut usize) -> Result<usize, End> {
        if let Some(front) = self.owed.in_order.front_mut() {
            let (replies, inbound) = (&mut self.replies, &mut self.inbound);
            let (moved, violation) = hand_out::<L>(front, replies, inbound, &mut self.is_midway);
            *answered += moved.ended;
            let (asked_at, mailbox) = (front.asked_at, &front.mailbox);
            let is_full = moved.waiting_bytes > Some(self.mailbox_bytes_max);
            self.held_up = is_full.then(|| (Arc::clone(mailbox), self.moved_at));
            self.used_at = self.moved_at;
            self.count(&moved, asked_at);
            return violation.map_or(Ok(moved.bytes), |_| Err(End::Violation));
        }
        let Some(mailbox) = self.link.streams_to() else {
            return Err(End::Stray);
        };
        let passed = pass_on::<L>(&mailbox, &mut self.replies, &mut self.inbound);
        let moved = passed.map_err(|_violation| End::Violation)?;
        let is_full = moved.waiting_bytes > Some(self.mailbox_bytes_max);
        self.held_up = is_full.then_some((mailbox, self.moved_at));
        Ok(moved.bytes)
    }

    /// The same where a reply says by its id whose it is.
    fn deliver_by_id(&mut self, answered: &mut usize) -> Result<usize, End> {
        let (replies, inbound) = (&mut self.replies, &mut self.inbound);
        if !self.is_midway {
            let whose = replies.whose(inbound.filled());
            let Some(whose) = whose.map_err(|_violation| End::Violation)? else {
                return Ok(0);
            };
            match whose {
                Whose::Asked(id) => match self.owed.begin(id) {
                    Some(owed) => replies.put_back(inbound.filled_mut(), owed.kind),
                    None => self.count_dropped(DroppedMessage::Unowned),
                },
                Whose::Heartbeat(answer) => self.heed_heartbeat(answer),
                Whose::Unasked { retires } => self.heed_unasked(retires),
            }
        }
        let (replies, inbound) = (&mut self.replies, &mut self.inbound);
        let Some(owed) = self.owed.current() else {
            return Ok(self.drop_message());
        };
        let (moved, violation) = hand_out::<L>(owed, replies, inbound, &mut self.is_midway);
        *answered += moved.ended;
        let asked_at = owed.asked_at;
        let is_full = moved.waiting_bytes > Some(self.mailbox_bytes_max);
        self.held_up = is_full.then(|| (Arc::clone(&owed.mailbox), self.moved_at));
        if moved.waiting_bytes.is_some() {
            self.used_at = self.moved_at;
        }
        if moved.ended > 0 && !self.owed.end_current() {
            self.count_dropped(DroppedMessage::Late);
        }
        self.count(&moved, asked_at);
        violation.map_or(Ok(moved.bytes), |_| Err(End::Violation))
    }

    /// Reads past what is nobody's.
    fn drop_message(&mut self) -> usize {
        let Ok(frame) = self.replies.frame_unasked(self.inbound.filled()) else {
            return 0;
        };
        self.inbound.consume(frame.taken);
        self.is_midway = frame.then == ReplyThen::More;
        frame.taken
    }

    /// A heartbeat of the service's is dropped, and answered where that was asked for.
    fn heed_heartbeat(&mut self, answer: Option<Heartbeat<Kind<L>>>) {
        self.terms.upstream.stats().heartbeats_dropped.add(1);
        // Between the parts of a request that goes on in pieces there is no room for it.
        let answer = answer.filter(|_| self.link.pinned.is_none());
        if let Some(Heartbeat { message, kind, .. }) = answer {
            let (own, now) = (self.owed.own(), self.moved_at);
            // Where there is no room for it, the service has enough to read that shows that we live.
            let _ = self.link.send_on(own, &message, kind, now);
        }
    }

    /// What else a service says of its own accord is dropped.
    fn heed_unasked(&mut self, retires: bool) {
        self.count_dropped(DroppedMessage::Unasked);
        if retires {
            self.link.close(DiscardReason::ServiceClose);
        }
    }

    fn count_dropped(&self, why: DroppedMessage) {
        let stats = self.terms.upstream.stats();
        stats.messages_dropped.increment(why);
    }

    /// Counts the replies that somebody takes.
    fn count(&self, moved: &Moved, asked_at: Instant) {
        if moved.ended > 0 && moved.waiting_bytes.is_some() {
            let stats = self.terms.upstream.stats();
            let duration = self.moved_at.saturating_duration_since(asked_at);
            stats
                .exchanges
                .add(ExchangeOutcome::Completed, moved.ended as u64);
            self.durations.observe(duration, moved.ended);
        }
    }

    /// Requests that have no reply are done once they are written.
    pub(super) fn finish_unanswered(&mut self) {
        let mut done = 0;
        while let Some(owed) = self.owed.take_done(self.writing.written_bytes) {
            if !Arc::ptr_eq(&owed.mailbox, self.owed.own()) {
                self.used_at = self.wrote_at;
                owed.mailbox.tell_done();
                let stats = self.terms.upstream.stats();
                stats.exchanges.increment(ExchangeOutcome::Completed);
            }
            done += 1;
        }
        if done > 0 {
            self.note_done(done);
        }
    }

    /// Sends a heartbeat of millpond's own, whose reply is nobody's.
    pub(super) fn send_heartbeat(&mut self) {
        let Some((heartbeat, _)) = self.terms.language.heartbeat() else {
            return;
        };
        let nature = match heartbeat.is_answered {
            true => Nature::Each,
            false => Nature::Unanswered,
        };
        let run = Run::one(heartbeat.kind, nature);
        self.moved_at = clock::now();
        let (own, now) = (self.owed.own(), self.moved_at);
        // A link that takes nothing is about to end.
        let _ = self.link.send(own, &heartbeat.message, run, now);
    }
}

/// Hands out replies to whoever asked for them; all that was handed out, and what was wrong behind that.
fn hand_out<L: Language>(
    owed: &mut Owed<L>,
    replies: &mut L::Replies,
    inbound: &mut Buffer,
    is_midway: &mut bool,
) -> (Moved, Option<ReplyViolation>) {
    let bytes = inbound.filled();
    let (mut taken, mut shown_from, mut ended, mut told) = (0, 0, 0, 0);
    let mut waiting_bytes = None;
    let mut violation = None;
    while owed.replies > 0 && taken < bytes.len() {
        let frame = match replies.frame(owed.kind, &bytes[taken..]) {
            Ok(frame) => frame,
            Err(found) => {
                violation = Some(found);
                break;
            }
        };
        if frame.taken == 0 && frame.then == ReplyThen::More {
            break;
        }
        if !frame.shown {
            let run = &bytes[shown_from..taken];
            waiting_bytes = owed.mailbox.put(run, ended - told, false);
            told = ended;
            shown_from = taken + frame.taken;
        }
        taken += frame.taken;
        *is_midway = frame.then == ReplyThen::More;
        owed.is_begun = *is_midway && (owed.is_begun || frame.shown);
        if frame.then == ReplyThen::End {
            owed.replies -= 1;
            owed.answered += 1;
            ended += 1;
        }
    }
    let run = &bytes[shown_from..taken];
    if !run.is_empty() || ended > told {
        waiting_bytes = owed.mailbox.put(run, ended - told, *is_midway);
    }
    inbound.consume(taken);
    let moved = Moved {
        bytes: taken,
        ended,
        waiting_bytes,
    };
    (moved, violation)
}

/// Passes on what a service says unasked to the one session that it is pinned to.
fn pass_on<L: Language>(
    mailbox: &Mailbox<Kind<L>>,
    replies: &mut L::Replies,
    inbound: &mut Buffer,
) -> Result<Moved, ReplyViolation> {
    let bytes = inbound.filled();
    let (mut taken, mut is_midway) = (0, false);
    while taken < bytes.len() {
        let frame = replies.frame_unasked(&bytes[taken..])?;
        if frame.taken == 0 && frame.then == ReplyThen::More {
            break;
        }
        taken += frame.taken;
        is_midway = frame.then == ReplyThen::More;
    }
    let waiting_bytes = mailbox.put(&bytes[..taken], 0, is_midway);
    inbound.consume(taken);
    Ok(Moved {
        bytes: taken,
        ended: 0,
        waiting_bytes,
    })
}
