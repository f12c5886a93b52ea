//! How a connection that has a task of its own ends, and what becomes of what it owed.
//!
//! What was never wholly written goes back to its session, which may send it elsewhere; of what was
//! written nobody knows what became, unless TCP proves that the service never had it.
//!
//! Invariant: every request that was taken over is answered or given back, in order.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::link::{Left, Owed};
use super::mailbox::{Batch, Nature, Returned};
use super::owner::{End, Owner};
use crate::pool::Seen;
use crate::protocol::replies::Language;
use crate::relay::delivery::Delivery;
use crate::relay::proof::{self, Found};
use crate::stats::reason::{DiscardReason, RaceLost, RetryReason};
use crate::stats::tree::UpstreamStats;
use crate::sys::clock;
use crate::upstream::Retry;

impl<L: Language> Owner<L> {
    /// Ends the connection, or gives it back, and gives every session back what it was owed.
    pub(super) async fn finish(mut self, end: End, retry: Retry, stats: &UpstreamStats) {
        let is_clean = end == End::GivenBack(Left::Nothing) && self.inbound.is_empty();
        let gathered = self.link.end();
        if is_clean {
            self.lease.release_after(self.exchanges, clock::now());
            let requests = Requests::from(0, &gathered.requests);
            give_back::<L>(gathered.owed.into(), requests, Executed::UpTo(0));
            return;
        }
        let (reason, mut seen) = self.verdict(end);
        let mut executed = Executed::UpTo(self.writing.written_bytes);
        if reason == DiscardReason::LostRace {
            let delivery = self.find_out(retry).await;
            seen = delivery.seen.unwrap_or(seen);
            let written: usize = self.owed.iter().map(|it| it.replies).sum();
            match delivery.delivery {
                Delivery::Undelivered => {
                    executed = Executed::Proven(self.writing.written_bytes - self.busy_bytes());
                }
                undecided => {
                    let lost = RaceLost::of(undecided);
                    (0..written).for_each(|_| stats.races_lost.increment(lost));
                }
            }
        }
        if let (Retry::Idempotent, Executed::UpTo(bytes), false) = (retry, executed, self.is_midway)
        {
            executed = Executed::ReadOnlyUpTo(bytes);
        }
        let touched = self.owed.iter().map(|it| Arc::as_ptr(&it.mailbox));
        let sessions_touched = touched.collect::<HashSet<_>>().len();
        let undelivered_bytes = self.inbound.filled().len() as u64;
        let connection = self.lease.connection_mut();
        connection.sessions_touched = sessions_touched;
        connection.exchanges += self.exchanges;
        connection.is_answering = self.is_midway;
        connection.idle_until = clock::now();
        connection.dropped_bytes += undelivered_bytes;
        self.lease.discard(reason, seen);
        let mut requests = self.writing.requests;
        let from = self.taken_bytes - requests.len() as u64;
        requests.extend_from_slice(&gathered.requests);
        let mut owed = self.owed;
        owed.extend(gathered.owed);
        give_back::<L>(owed, Requests::from(from, &requests), executed);
    }

    /// Whether the service had what was written since nothing was owed.
    async fn find_out(&mut self, retry: Retry) -> Found {
        let request_bytes = self.busy_bytes();
        if retry == Retry::Off || !self.is_provable() {
            return Found {
                delivery: Delivery::Undecided,
                seen: None,
                dropped_bytes: 0,
            };
        }
        let service = &mut self.lease.connection_mut().transport;
        let found = Box::pin(proof::find_out(service, request_bytes)).await;
        self.lease.connection_mut().dropped_bytes += found.dropped_bytes;
        found
    }

    /// Why the connection goes, and what was seen of it.
    fn verdict(&self, end: End) -> (DiscardReason, Seen) {
        use DiscardReason as R;
        let is_quiet = self.owed.is_empty();
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

    fn end(self) -> u64 {
        self.from + self.bytes.len() as u64
    }

    /// So many from the place `at`, if they are still held.
    fn get(self, at: u64, count: usize) -> Option<&'r [u8]> {
        let start = usize::try_from(at.checked_sub(self.from)?).ok()?;
        self.bytes.get(start..start.checked_add(count)?)
    }
}

/// Gives requests back to their sessions. `owed` ends where `requests` do.
fn give_back<L: Language>(owed: VecDeque<Owed<L>>, requests: Requests<'_>, executed: Executed) {
    let all: u64 = owed.iter().map(|it| it.request_bytes as u64).sum();
    let mut at = requests.end() - all;
    for owed in owed {
        let until = at + owed.request_bytes as u64;
        if owed.replies > 0 {
            let held = requests.get(at, owed.request_bytes);
            give_back_run::<L>(&owed, held, at, executed);
        }
        at = until;
    }
}

/// Gives back the requests of one run, of which the first bytes stand at the place `at`.
fn give_back_run<L: Language>(owed: &Owed<L>, held: Option<&[u8]>, at: u64, executed: Executed) {
    let (mut executed_bytes, mut retry) = match executed {
        Executed::UpTo(bytes) | Executed::ReadOnlyUpTo(bytes) => (bytes, RetryReason::Unsent),
        Executed::Proven(bytes) => (bytes, RetryReason::Proven),
    };
    let may_repeat = matches!(executed, Executed::ReadOnlyUpTo(_));
    if may_repeat && owed.nature == Nature::ReadOnly && at < executed_bytes {
        (executed_bytes, retry) = (0, RetryReason::Idempotent);
    }
    let lost = |replies| Returned::Lost(owed.kind, replies);
    let unsent = |requests: &[u8], replies| {
        let batch = Batch {
            requests: requests.to_vec(),
            kind: owed.kind,
            replies,
            nature: owed.nature,
        };
        Returned::Unsent(batch, retry)
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
        }
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
        give_back::<Redis>(owed.into(), Requests::from(from, &bytes), executed);
        let taken = mailbox.take(&mut Vec::new());
        let mut sum = (0, 0, Vec::new());
        for returned in taken.returned {
            match returned {
                Returned::Lost(_, replies) => {
                    assert_eq!(sum.1, 0, "what may have been executed comes first");
                    sum.0 += replies;
                }
                Returned::Unsent(batch, _) => {
                    sum.1 += batch.replies;
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
            give_back::<Redis>(vec![owed].into(), requests, Executed::UpTo(written));
            let taken = mailbox.take(&mut Vec::new());
            let found = taken
                .returned
                .iter()
                .fold((0, 0), |(lost, unsent), it| match it {
                    Returned::Lost(_, replies) => (lost + replies, unsent),
                    Returned::Unsent(batch, _) => (lost, unsent + batch.replies),
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
