//! How a connection that has a task of its own ends, and what becomes of what it owed.
//!
//! What was never wholly written goes back to its session, which may send it elsewhere; of what was
//! written nobody knows what became, unless TCP proves that the service never had it.
//!
//! Invariant: every request that was taken over is answered or given back, in order.

use std::sync::Arc;

use super::link::Left;
use super::mailbox::{Batch, Lost, Nature, Returned, Run};
use super::owed::Owed;
use super::owner::{End, Owner};
use crate::pool::Seen;
use crate::protocol::replies::Language;
use crate::relay::delivery::Delivery;
use crate::relay::proof::{self, Found};
use crate::stats::reason::{DiscardReason, RaceLost, RetryReason};
use crate::sys::clock;
use crate::upstream::Retry;

impl<L: Language> Owner<L> {
    /// Ends the connection, or gives it back, and gives every session back what it was owed.
    pub(super) async fn finish(mut self, end: End, retry: Retry) {
        let is_over = self.inbound.is_empty() && !self.is_midway;
        let is_clean = end == End::GivenBack(Left::Nothing) && is_over;
        let gathered = self.link.end();
        let terms = Arc::clone(&self.terms);
        let (stats, language) = (terms.upstream.stats(), &terms.language);
        if is_clean {
            let from = self.owed.taken_bytes;
            let owed = self.owed.into_order(gathered.owed);
            self.lease.release_after(self.exchanges, clock::now());
            let requests = Requests::from(from, &gathered.requests);
            let executed = Executed::UpTo(from);
            give_back(language, owed, requests, (executed, Lost::Died));
            return;
        }
        let lost = match end {
            End::Silent => Lost::Silent,
            _ => Lost::Died,
        };
        let (reason, mut seen) = self.verdict(end);
        let mut executed = Executed::UpTo(self.writing.written_bytes);
        if reason == DiscardReason::LostRace {
            let found = self.find_out(retry).await;
            seen = found.as_ref().ok().and_then(|it| it.seen).unwrap_or(seen);
            let lost = match found.map(|it| it.delivery) {
                Ok(Delivery::Undelivered) => {
                    executed = Executed::Proven(self.writing.written_bytes - self.busy_bytes());
                    None
                }
                Ok(undecided) => Some(RaceLost::of(undecided)),
                Err(lost) => Some(lost),
            };
            if let Some(lost) = lost {
                stats.races_lost.add(lost, self.owed.replies() as u64);
            }
        }
        if let (Retry::Idempotent, Executed::UpTo(bytes), false) = (retry, executed, self.is_midway)
        {
            executed = Executed::ReadOnlyUpTo(bytes);
        }
        let sessions_touched = self.owed.sessions();
        let undelivered_bytes = self.inbound.filled().len() as u64;
        let connection = self.lease.connection_mut();
        connection.sessions_touched = sessions_touched;
        connection.exchanges += self.exchanges;
        connection.is_answering = self.is_midway;
        connection.idle_until = clock::now();
        connection.dropped_bytes += undelivered_bytes;
        self.lease.discard(reason, seen);
        let mut requests = self.writing.requests;
        let from = self.owed.taken_bytes - requests.len() as u64;
        requests.extend_from_slice(&gathered.requests);
        let owed = self.owed.into_order(gathered.owed);
        let requests = Requests::from(from, &requests);
        give_back(language, owed, requests, (executed, lost));
    }

    /// Whether the service had what was written since nothing was owed.
    async fn find_out(&mut self, retry: Retry) -> Result<Found, RaceLost> {
        if retry == Retry::Off {
            return Err(RaceLost::Off);
        }
        if !self.terms.language.is_provable() {
            return Err(RaceLost::Oneway);
        }
        if !self.is_provable() {
            return Err(RaceLost::TooLarge);
        }
        let request_bytes = self.busy_bytes();
        let service = &mut self.lease.connection_mut().transport;
        let found = Box::pin(proof::find_out(service, request_bytes)).await;
        self.lease.connection_mut().dropped_bytes += found.dropped_bytes;
        Ok(found)
    }

    /// Why the connection goes, and what was seen of it.
    fn verdict(&self, end: End) -> (DiscardReason, Seen) {
        use DiscardReason as R;
        let is_quiet = self.owed.is_quiet();
        let unanswered = match self.exchanges > 0 || self.lease.is_reused() {
            true => R::LostRace,
            false => R::NoAnswer,
        };
        let died = |idle, midway| match (is_quiet, self.is_midway || self.has_answered()) {
            (true, _) => idle,
            (false, true) => midway,
            (false, false) => unanswered,
        };
        match end {
            End::Closing(reason) | End::Abandoned(reason) => (reason, Seen::Open),
            End::GivenBack(Left::Nothing) => (R::StrayBytes, Seen::Open),
            End::GivenBack(_) => (R::ResetRefused, Seen::Open),
            End::Fin => (died(R::IdleFin, R::UpstreamFin), Seen::PeerFin),
            End::Reset => (died(R::IdleReset, R::UpstreamReset), Seen::PeerReset),
            End::Vanished if is_quiet => (R::IdleVanished, Seen::PeerVanished),
            End::Vanished => (R::UpstreamVanished, Seen::PeerVanished),
            End::Silent => (R::ResponseTimeout, Seen::MidResponse),
            End::Violation => (R::Violation, Seen::Open),
            End::Stray => (R::IdleBytes, Seen::Open),
            End::Crossed => (R::CrossedAnswer, Seen::Open),
        }
    }
}

/// What the service may have executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Executed {
    /// Requests that end up to this place.
    UpTo(u64),
    /// The same; what changes nothing may be executed twice.
    ReadOnlyUpTo(u64),
    /// The same; TCP has proved it.
    Proven(u64),
}

/// Requests that are still held, from a place of all that were ever taken over.
#[derive(Debug, Clone, Copy)]
struct Requests<'r> {
    from: u64,
    bytes: &'r [u8],
}

impl<'r> Requests<'r> {
    fn from(from: u64, bytes: &'r [u8]) -> Self {
        Self { from, bytes }
    }

    /// So many from the place `at`, if they are still held.
    fn get(self, at: u64, count: usize) -> Option<&'r [u8]> {
        let start = usize::try_from(at.checked_sub(self.from)?).ok()?;
        self.bytes.get(start..start.checked_add(count)?)
    }
}

/// Gives requests back to their sessions.
fn give_back<L: Language>(
    language: &L,
    all: Vec<Owed<L>>,
    requests: Requests<'_>,
    end: (Executed, Lost),
) {
    for owed in all {
        let at = owed.ends_at - owed.request_bytes as u64;
        if owed.is_begun {
            owed.mailbox.give_back(Returned::Cut(owed.replies));
        } else if owed.replies > 0 {
            let held = requests.get(at, owed.request_bytes);
            give_back_run(language, &owed, held, (at, end));
        }
    }
}

/// Gives back the requests of one run, of which the first bytes stand at the place `at`.
fn give_back_run<L: Language>(
    language: &L,
    owed: &Owed<L>,
    held: Option<&[u8]>,
    (at, (executed, why)): (u64, (Executed, Lost)),
) {
    let (mut executed_bytes, mut retry) = match executed {
        Executed::UpTo(bytes) | Executed::ReadOnlyUpTo(bytes) => (bytes, RetryReason::Unsent),
        Executed::Proven(bytes) => (bytes, RetryReason::Proven),
    };
    let may_repeat = matches!(executed, Executed::ReadOnlyUpTo(_));
    if may_repeat && owed.nature == Nature::ReadOnly && at < executed_bytes {
        (executed_bytes, retry) = (0, RetryReason::Idempotent);
    }
    let lost = |replies| Returned::Lost(owed.kind, replies, why);
    let unsent = |requests: &[u8], replies| {
        let mut requests = requests.to_vec();
        language.put_back(&mut requests, owed.kind);
        let run = Run {
            kind: owed.kind,
            replies,
            nature: owed.nature,
            tries: owed.tries,
        };
        Returned::Unsent(Batch { requests, run }, retry)
    };
    match held {
        Some(requests) if at >= executed_bytes && owed.answered == 0 => {
            owed.mailbox.give_back(unsent(requests, owed.replies));
        }
        Some(requests) if owed.nature != Nature::Block => {
            let parts = split::<L>(requests, at, executed_bytes, owed.answered);
            let (executed, rest) = parts.unwrap_or((owed.replies, &[]));
            if executed > 0 {
                owed.mailbox.give_back(lost(executed));
            }
            if owed.replies > executed {
                owed.mailbox
                    .give_back(unsent(rest, owed.replies - executed));
            }
        }
        _ => owed.mailbox.give_back(lost(owed.replies)),
    }
}

/// How many of the requests that were not answered may have been executed, and the rest. The first
/// `answered` of them were answered. `None` where answers came before their requests were written.
fn split<L: Language>(
    mut rest: &[u8],
    mut at: u64,
    executed_bytes: u64,
    answered: usize,
) -> Option<(usize, &[u8])> {
    let (mut executed, mut place) = (0, 0);
    while !rest.is_empty() {
        let length = L::first_request(rest).clamp(1, rest.len());
        at += length as u64;
        place += 1;
        if place > answered {
            if at > executed_bytes {
                break;
            }
            executed += 1;
        } else if at > executed_bytes {
            // What is answered before it is asked is no service whose answers can be counted.
            return None;
        }
        rest = &rest[length..];
    }
    Some((executed, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::redis::{Redis, Shape, write_command};
    use crate::relay::shared::Mailbox;

    const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n";

    fn run(mailbox: &Arc<Mailbox<Shape>>, count: usize, answered: usize) -> Owed<Redis> {
        Owed {
            mailbox: Arc::clone(mailbox),
            kind: Shape::Shown,
            replies: count - answered,
            answered,
            nature: Nature::Each,
            request_bytes: count * GET.len(),
            ends_at: 0,
            asked_at: clock::now(),
            tries: 0,
            is_begun: false,
        }
    }

    /// Says where the requests end, the first of which begins at the place `from`.
    fn placed(owed: Vec<Owed<Redis>>, mut from: u64) -> Vec<Owed<Redis>> {
        let place = |mut it: Owed<Redis>| {
            from += it.request_bytes as u64;
            it.ends_at = from;
            it
        };
        owed.into_iter().map(place).collect()
    }

    /// What comes back of `owed`, whose requests begin at the place `from` and of which `held` bytes are
    /// still there: how many are lost, and how many go elsewhere, bytes included.
    fn returned(
        owed: Vec<Owed<Redis>>,
        mailbox: &Mailbox<Shape>,
        (from, held): (u64, usize),
        executed: Executed,
    ) -> (usize, usize, Vec<u8>) {
        let bytes = GET.repeat(held);
        let all: usize = owed.iter().map(|it| it.request_bytes).sum();
        let begin = from + bytes.len() as u64 - all as u64;
        let requests = Requests::from(from, &bytes);
        give_back(
            &Redis,
            placed(owed, begin),
            requests,
            (executed, Lost::Died),
        );
        let taken = mailbox.take(&mut Vec::new());
        let mut sum = (0, 0, Vec::new());
        for returned in taken.returned {
            match returned {
                Returned::Cut(_) => unreachable!("no reply had begun"),
                Returned::Lost(_, replies, _) => {
                    assert_eq!(sum.1, 0, "what may have been executed comes first");
                    sum.0 += replies;
                }
                Returned::Unsent(batch, _) => {
                    sum.1 += batch.run.replies;
                    sum.2.extend(batch.requests);
                }
            }
        }
        sum
    }

    #[test]
    fn what_was_not_wholly_written_goes_elsewhere_and_the_rest_is_lost() {
        let length = GET.len() as u64;
        // Of three runs of two requests each, so many bytes were written.
        for written in 0..=6 * length {
            let mailbox = Arc::default();
            let owed = (0..3).map(|_| run(&mailbox, 2, 0)).collect();
            let (lost, unsent, bytes) =
                returned(owed, &mailbox, (100, 6), Executed::UpTo(100 + written));
            let whole = usize::try_from(written / length).unwrap_or(0);
            assert_eq!((lost, unsent), (whole, 6 - whole), "{written} written");
            assert_eq!(bytes, GET.repeat(6 - whole), "{written} written");
        }
    }

    #[test]
    fn what_was_answered_does_not_come_back() {
        let length = GET.len() as u64;
        let mailbox = Arc::default();
        let owed = vec![run(&mailbox, 4, 2)];
        let executed = Executed::UpTo(3 * length);
        let (lost, unsent, bytes) = returned(owed, &mailbox, (0, 4), executed);
        assert_eq!((lost, unsent, bytes), (1, 1, GET.to_vec()));
    }

    #[test]
    fn a_service_that_answers_before_it_is_asked_is_not_asked_again() {
        let mailbox = Arc::default();
        let owed = vec![run(&mailbox, 3, 2)];
        let executed = Executed::UpTo(GET.len() as u64);
        let (lost, unsent, _) = returned(owed, &mailbox, (0, 3), executed);
        assert_eq!((lost, unsent), (1, 0));
    }

    #[test]
    fn what_is_not_held_any_more_is_lost() {
        let length = GET.len() as u64;
        let mailbox = Arc::default();
        let owed = vec![run(&mailbox, 2, 0), run(&mailbox, 2, 0)];
        let executed = Executed::Proven(0);
        let (lost, unsent, _) = returned(owed, &mailbox, (2 * length, 2), executed);
        assert_eq!((lost, unsent), (2, 2));
    }

    #[test]
    fn a_block_is_sent_again_whole_or_not_at_all() {
        let mut block = Vec::new();
        write_command(&[b"MULTI"], &mut block);
        let multi_bytes = block.len() as u64;
        write_command(&[b"EXEC"], &mut block);
        for (written, expected) in [(0, (0, 2)), (1, (2, 0)), (multi_bytes, (2, 0))] {
            let mailbox: Arc<Mailbox<Shape>> = Arc::default();
            let owed = Owed::<Redis> {
                nature: Nature::Block,
                request_bytes: block.len(),
                ..run(&mailbox, 2, 0)
            };
            let requests = Requests::from(0, &block);
            let executed = (Executed::UpTo(written), Lost::Died);
            give_back(&Redis, placed(vec![owed], 0), requests, executed);
            let taken = mailbox.take(&mut Vec::new());
            let found = taken
                .returned
                .iter()
                .fold((0, 0), |(lost, unsent), it| match it {
                    Returned::Lost(_, replies, _) => (lost + replies, unsent),
                    Returned::Unsent(batch, _) => (lost, unsent + batch.run.replies),
                    Returned::Cut(_) => unreachable!("no reply had begun"),
                });
            assert_eq!(found, expected, "{written} written");
        }
    }

    #[test]
    fn what_only_reads_is_asked_again_where_that_is_allowed() {
        let written = 2 * GET.len() as u64;
        for (nature, expected) in [(Nature::ReadOnly, (0, 2)), (Nature::Each, (2, 0))] {
            let mailbox = Arc::default();
            let owed = Owed {
                nature,
                ..run(&mailbox, 2, 0)
            };
            let executed = Executed::ReadOnlyUpTo(written);
            let (lost, unsent, _) = returned(vec![owed], &mailbox, (0, 2), executed);
            assert_eq!((lost, unsent), expected, "{nature:?}");
        }
    }
}
