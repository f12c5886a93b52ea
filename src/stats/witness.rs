//! The witness's part of a snapshot. The field names are part of the stable interface.

use serde::{Serialize, Serializer};

use crate::witness::WitnessStats;
use crate::witness::tally::EventCounts;

/// What the kernel told of RSTs, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WitnessSnapshot {
    /// Whether it still reads.
    pub up: bool,
    /// RSTs that this host sent.
    pub sent: EventRow,
    /// RSTs that came in for a socket of this host's.
    pub received: EventRow,
    /// Ours, but of no RST in the ledger; what never happened is left out of the JSON.
    #[serde(serialize_with = "happened")]
    pub unattributed: Vec<UnattributedCount>,
    /// Events that the kernel overwrote before they were read.
    pub lost_events: u64,
    /// Lines that could not be read.
    pub unreadable_lines: u64,
    /// How often limits of what waits for a verdict were reached.
    pub pending_limits: PendingLimits,
}

/// The events of one direction: read = the sum of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EventRow {
    /// All of them.
    pub read: u64,
    /// The first event of an RST in the ledger.
    pub witnessed: u64,
    /// A further one of it.
    pub repeat: u64,
    /// Ours, but of no RST in the ledger.
    pub unattributed: u64,
    /// Somebody else's on this host.
    pub foreign: u64,
    /// Not decided yet.
    pub pending: u64,
}

/// How many events of one kind the ledger has no RST for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct UnattributedCount {
    /// On which leg.
    pub side: &'static str,
    /// `sent` or `received`.
    pub direction: &'static str,
    /// Why the kernel sent it; `peer` for a received one.
    pub kernel_reason: &'static str,
    /// How often.
    pub count: u64,
}

/// Events that got their verdict before all was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PendingLimits {
    /// Too many waited.
    pub count: u64,
    /// They had waited too long.
    pub time: u64,
}

impl WitnessSnapshot {
    /// What these numbers say.
    pub fn of(stats: &WitnessStats) -> Self {
        let rows = stats.every_unattributed();
        Self {
            up: stats.up,
            sent: EventRow::of(stats.sent),
            received: EventRow::of(stats.received),
            unattributed: rows
                .map(|(side, direction, reason, count)| UnattributedCount {
                    side: side.label(),
                    direction: direction.label(),
                    kernel_reason: reason.label(),
                    count,
                })
                .collect(),
            lost_events: stats.lost_events,
            unreadable_lines: stats.unreadable_lines,
            pending_limits: PendingLimits {
                count: stats.pending_overflowed,
                time: stats.pending_expired,
            },
        }
    }
}

impl EventRow {
    fn of(counts: EventCounts) -> Self {
        let EventCounts {
            read,
            witnessed,
            repeats,
            unattributed,
            foreign,
            pending,
        } = counts;
        Self {
            read,
            witnessed,
            repeat: repeats,
            unattributed,
            foreign,
            pending,
        }
    }
}

fn happened<S: Serializer>(rows: &[UnattributedCount], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(rows.iter().filter(|row| row.count > 0))
}
