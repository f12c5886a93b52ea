//! What the witness counts: every event gets exactly one verdict, or waits for it.
//!
//! Invariant: read = witnessed + repeats + unattributed + foreign + pending, for each direction, in
//! every copy.

use super::event::Direction;
use super::reason::KernelReason;
use crate::close::Side;

/// What the witness has seen so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessStats {
    /// Whether it reads: it may have failed since it was started.
    pub up: bool,
    /// RSTs that were sent.
    pub sent: EventCounts,
    /// RSTs that were received.
    pub received: EventCounts,
    /// Events that the kernel overwrote before they were read; no verdict counts them.
    pub lost_events: u64,
    /// Lines that say nothing that is known here.
    pub unreadable_lines: u64,
    /// Events that got their verdict early because too many were pending.
    pub pending_overflowed: u64,
    /// Events whose connection was open for so long after them that they were not kept.
    pub pending_expired: u64,
    unattributed: Box<[u64]>,
}

/// The events of one direction by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// All of them.
    pub read: u64,
    /// The first event of an RST in the ledger.
    pub witnessed: u64,
    /// A further one of it.
    pub repeats: u64,
    /// Ours, but of no RST in the ledger.
    pub unattributed: u64,
    /// Somebody else's on this host.
    pub foreign: u64,
    /// Not decided yet.
    pub pending: u64,
}

impl Default for WitnessStats {
    fn default() -> Self {
        let kinds = Side::ALL.len() * Direction::ALL.len() * KernelReason::ALL.len();
        Self {
            up: false,
            sent: EventCounts::default(),
            received: EventCounts::default(),
            lost_events: 0,
            unreadable_lines: 0,
            pending_overflowed: 0,
            pending_expired: 0,
            unattributed: vec![0; kinds].into_boxed_slice(),
        }
    }
}

impl WitnessStats {
    /// The events of one direction.
    pub fn of(&self, direction: Direction) -> &EventCounts {
        match direction {
            Direction::Sent => &self.sent,
            Direction::Received => &self.received,
        }
    }

    /// How many of this kind are ours, but of no RST in the ledger.
    pub fn unattributed(&self, side: Side, direction: Direction, reason: KernelReason) -> u64 {
        self.unattributed[index(side, direction, reason)]
    }

    /// The same for every kind that there can be.
    pub fn every_unattributed(
        &self,
    ) -> impl Iterator<Item = (Side, Direction, KernelReason, u64)> + '_ {
        let pairs = Side::ALL
            .into_iter()
            .flat_map(|side| Direction::ALL.map(|direction| (side, direction)));
        let all = pairs.flat_map(|(side, direction)| {
            let reasons = KernelReason::ALL.iter();
            reasons.map(move |&reason| (side, direction, reason))
        });
        all.filter(|(_, direction, reason)| {
            (*direction == Direction::Received) == (*reason == KernelReason::Peer)
        })
        .map(|(side, direction, reason)| {
            let count = self.unattributed(side, direction, reason);
            (side, direction, reason, count)
        })
    }

    pub(super) fn of_mut(&mut self, direction: Direction) -> &mut EventCounts {
        match direction {
            Direction::Sent => &mut self.sent,
            Direction::Received => &mut self.received,
        }
    }

    pub(super) fn on_unattributed(
        &mut self,
        side: Side,
        direction: Direction,
        reason: KernelReason,
    ) {
        self.of_mut(direction).unattributed += 1;
        self.unattributed[index(side, direction, reason)] += 1;
    }
}

impl EventCounts {
    /// Whether every event has one verdict, or none yet.
    pub fn balances(&self) -> bool {
        let decided = self.witnessed + self.repeats + self.unattributed + self.foreign;
        self.read == decided + self.pending
    }
}

fn index(side: Side, direction: Direction, reason: KernelReason) -> usize {
    let kind = side as usize * Direction::ALL.len() + direction as usize;
    kind * KernelReason::ALL.len() + reason as usize
}
