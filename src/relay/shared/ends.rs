//! How a connection that has a task of its own ends, and what becomes of what it owed.
//!
//! What was never wholly written goes back to its session, which may send it elsewhere; of what was
//! written nobody knows what became, unless TCP proves that the service never had it.
//!
//! Invariant: every request that was taken over is answered or given back, in order.

use std::collections::HashSet;
use std::sync::Arc;

use super::link::{Left, Link, Owed};
use super::mailbox::{Batch, Returned};
use super::owner::{End, Owner};
use crate::pool::Seen;
use crate::protocol::replies::Language;
use crate::relay::delivery::Delivery;
use crate::relay::proof;
use crate::stats::reason::{DiscardReason, RaceLost, RetryReason};
use crate::stats::tree::UpstreamStats;
use crate::sys::clock;

impl<L: Language> Owner<L> {
    /// Ends the connection, or gives it back, and gives every session back what it was owed.
    pub(super) async fn finish(mut self, end: End, seeks_proof: bool, stats: &UpstreamStats) {
        let gathered = self.link.end();
        if end == End::GivenBack(Left::Nothing) {
            self.lease.release_after(self.exchanges, clock::now());
            give_back::<L>(gathered.owed.into(), &gathered.requests, 0, 0);
            return;
        }
        let (reason, mut seen) = self.verdict(end);
        let mut executed_bytes = self.writing.written_bytes;
        if reason == DiscardReason::LostRace {
            let delivery = match seeks_proof && self.is_provable() {
                true => {
                    let request_bytes = self.busy_bytes();
                    let service = &mut self.lease.connection_mut().transport;
                    let found = Box::pin(proof::find_out(service, request_bytes)).await;
                    seen = found.seen.unwrap_or(seen);
                    self.lease.connection_mut().dropped_bytes += found.dropped_bytes;
                    found.delivery
                }
                false => Delivery::Undecided,
            };
            let written: usize = self.owed.iter().map(|it| it.replies).sum();
            if delivery == Delivery::Undelivered {
                executed_bytes -= self.busy_bytes();
                (0..written).for_each(|_| stats.retries.increment(RetryReason::Proven));
            } else {
                let lost = RaceLost::of(delivery);
                (0..written).for_each(|_| stats.races_lost.increment(lost));
            }
        }
        let touched: HashSet<_> = self
            .owed
            .iter()
            .map(|it| Arc::as_ptr(&it.mailbox))
            .collect();
        let sessions_touched = touched.len();
        let undelivered_bytes = self.inbound.filled().len() as u64;
        let connection = self.lease.connection_mut();
        connection.sessions_touched = sessions_touched;
        connection.exchanges += self.exchanges;
        connection.is_answering = self.is_midway;
        connection.idle_until = clock::now();
        connection.dropped_bytes += undelivered_bytes;
        self.lease.discard(reason, seen);
        let taken = self.writing.requests.len() + gathered.requests.len();
        let mut requests = self.writing.requests;
        let from = self.taken_bytes - requests.len() as u64;
        requests.reserve(taken - requests.len());
        requests.extend_from_slice(&gathered.requests);
        let mut owed = self.owed;
        owed.extend(gathered.owed);
        give_back::<L>(owed, &requests, from, executed_bytes);
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

/// Gives requests back to their sessions. `requests` are those from the place `from` of all that were
/// taken over; what lies before `executed_bytes` may have been executed.
fn give_back<L: Language>(
    owed: std::collections::VecDeque<Owed<L>>,
    requests: &[u8],
    from: u64,
    executed_bytes: u64,
) {
    let all: u64 = owed.iter().map(|it| it.request_bytes as u64).sum();
    let end = from + requests.len() as u64;
    let mut at = end - all;
    for owed in owed {
        let until = at + owed.request_bytes as u64;
        if owed.replies > 0 {
            let held = at
                .checked_sub(from)
                .and_then(|start| usize::try_from(start).ok())
                .and_then(|start| requests.get(start..start + owed.request_bytes));
            give_back_run::<L>(owed, held, at, executed_bytes);
        }
        at = until;
    }
}

/// Gives back the requests of one run, of which the first bytes stand at the place `at`.
fn give_back_run<L: Language>(owed: Owed<L>, held: Option<&[u8]>, at: u64, executed_bytes: u64) {
    let Owed {
        mailbox,
        kind,
        replies,
        answered,
        is_block,
        ..
    } = owed;
    let unsent = |requests: &[u8], replies| {
        Returned::Unsent(Batch {
            requests: requests.to_vec(),
            kind,
            replies,
            is_block,
        })
    };
    match held {
        Some(requests) if at >= executed_bytes && answered == 0 => {
            mailbox.give_back(unsent(requests, replies));
        }
        Some(mut rest) if !is_block => {
            let (mut at, mut lost, mut place) = (at, 0, 0);
            while !rest.is_empty() {
                let length = L::first_request(rest).clamp(1, rest.len());
                at += length as u64;
                place += 1;
                if at > executed_bytes {
                    break;
                }
                lost += usize::from(place > answered);
                rest = &rest[length..];
            }
            if lost > 0 {
                mailbox.give_back(Returned::Lost(kind, lost));
            }
            if replies > lost {
                mailbox.give_back(unsent(rest, replies - lost));
            }
        }
        _ => mailbox.give_back(Returned::Lost(kind, replies)),
    }
}

impl<L: Language> Link<L> {
    /// Whom it leads to, for messages.
    pub fn service(&self) -> &str {
        &self.address
    }
}
