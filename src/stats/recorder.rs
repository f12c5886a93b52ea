//! The recorder: the last resets, truncations and losses one by one, and whose clients have most.
//!
//! A ring under one lock, written where the ledger closes a connection whose end is worth it. When the
//! ring is full its oldest record goes; the counts of the ledger stay exact. Not here: how an end is
//! classified (see `close`), and the counts (see `ledger`).
//!
//! Invariant: the ring never holds more than its size, the list of clients never more than its own.

mod filter;
mod legs;
mod row;
mod top_clients;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;

pub use self::filter::Filter;
pub use self::legs::{Leg, Legs};
pub use self::row::Row;
use self::top_clients::TopClients;
pub use self::top_clients::{CLIENTS_HELD, ClientRow};
use super::ledger::Ending;
use super::reason::DiscardReason;
use super::sessions::Peer;
use crate::close::{Manner, Phase, Side};
use crate::witness::{KernelReason, Testimony, Witnessed};

pub use crate::witness::RecordId;

/// What there is to tell of a connection beyond how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// The leg it was on.
    pub side: Side,
    /// The listener of its session, if it was of one.
    pub listener: Option<Arc<str>>,
    /// Its upstream.
    pub upstream: Option<Arc<str>>,
    /// The endpoint as configured.
    pub endpoint: Option<Arc<str>>,
    /// The client.
    pub client: Option<Peer>,
    /// The service's address.
    pub service: Option<Peer>,
    /// The session, by its number.
    pub session: Option<u64>,
    /// Of a connection that carried the exchanges of several: how many of them it owed something.
    pub sessions: Option<usize>,
    /// Why the upstream connection was discarded.
    pub discard: Option<DiscardReason>,
    /// Which exchange on this connection it was, counted from 1; 0: none had begun.
    pub exchange: u64,
    /// How old the connection was.
    pub age: Duration,
    /// How long it had been idle: at its end, or before the exchange that was under way.
    pub idle: Option<Duration>,
}

impl Story {
    /// One of which only the leg is known.
    pub fn of(side: Side) -> Self {
        Self {
            side,
            listener: None,
            upstream: None,
            endpoint: None,
            client: None,
            service: None,
            session: None,
            sessions: None,
            discard: None,
            exchange: 0,
            age: Duration::ZERO,
            idle: None,
        }
    }
}

/// One record.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) id: RecordId,
    pub(super) at: SystemTime,
    pub(super) ending: Ending,
    pub(super) story: Story,
    /// The end of the other leg that goes with it.
    pub(super) other: Option<Leg>,
    /// The kernel's own reason for the RST, once it has confirmed it.
    pub(super) kernel_reason: Option<KernelReason>,
}

impl Record {
    /// What was under way when the RST came or went, else when the end began.
    pub(super) fn phase(&self) -> Phase {
        let reset = self.ending.reset.map(|seen| seen.phase);
        reset.unwrap_or(self.ending.termination.phase)
    }

    /// Why: the cause of a sent RST, `peer` for a received one, else in which way it is a loss.
    pub(super) fn cause(&self) -> &'static str {
        match self.ending.reset.map(|seen| seen.reset) {
            Some(reset) => reset.cause(),
            None if self.ending.termination.manner == Manner::Truncated => "truncated",
            None => "loss",
        }
    }
}

/// The answer to who asks for records.
#[derive(Debug, Clone, Serialize)]
pub struct Records {
    /// Records ever made.
    pub recorded: u64,
    /// Of them those that the ring has lost, because newer ones took their place.
    pub overwritten: u64,
    /// Records that the ring holds at most.
    pub size: usize,
    /// Those asked for, the youngest first.
    pub records: Vec<Row>,
    /// The clients with the most records, the first first.
    pub clients: Vec<ClientRow>,
}

/// The last records of the process.
#[derive(Debug)]
pub struct Recorder {
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    records: VecDeque<Record>,
    size: usize,
    recorded: u64,
    clients: TopClients,
}

/// Records held where nothing else is configured.
pub const RECORDS_HELD: usize = 1000;
/// Clients listed, at most.
const CLIENTS_LISTED: usize = 20;

impl Default for Recorder {
    fn default() -> Self {
        Self {
            ring: Mutex::new(Ring {
                records: VecDeque::new(),
                size: RECORDS_HELD,
                recorded: 0,
                clients: TopClients::default(),
            }),
        }
    }
}

impl Recorder {
    /// Holds up to `size` records from now on.
    pub fn resize(&self, size: usize) {
        let mut ring = self.lock();
        ring.size = size;
        let surplus = ring.records.len().saturating_sub(size);
        ring.records.drain(..surplus);
        ring.records.shrink_to(size);
    }

    /// Whether an end is worth a record: there was an RST, or something was cut short or lost.
    pub fn is_worth_it(ending: &Ending) -> bool {
        ending.reset.is_some()
            || ending.termination.manner == Manner::Truncated
            || ending.account.lost_bytes() > 0
    }

    /// Records an end.
    pub fn record(&self, ending: &Ending, story: Story, at: SystemTime) -> RecordId {
        let mut ring = self.lock();
        ring.recorded += 1;
        let id = RecordId(ring.recorded);
        if let (Side::Downstream, Some(client)) = (story.side, story.client) {
            ring.clients.note(client, ending);
        }
        let record = Record {
            id,
            at,
            ending: *ending,
            story,
            other: None,
            kernel_reason: None,
        };
        while ring.records.len() >= ring.size.max(1) {
            ring.records.pop_front();
        }
        if ring.size > 0 {
            ring.records.push_back(record);
        }
        id
    }

    /// Says which end of the other leg goes with a record, if that is still held.
    pub fn tie(&self, id: RecordId, other: Leg) {
        if let Some(record) = self.lock().find(id) {
            record.other = Some(other);
        }
    }

    /// Up to `limit` records that `filter` admits, the youngest first.
    pub fn list(&self, filter: &Filter, limit: usize) -> Records {
        let ring = self.lock();
        let records = ring.records.iter().rev();
        let asked_for: Vec<_> = records
            .filter(|record| filter.admits(record))
            .take(limit)
            .cloned()
            .collect();
        let (recorded, size) = (ring.recorded, ring.size);
        let overwritten = recorded - ring.records.len() as u64;
        let clients = ring.clients.list(CLIENTS_LISTED);
        // What people read is made outside the lock, which ends of connections wait for.
        drop(ring);
        Records {
            recorded,
            overwritten,
            size,
            records: asked_for.iter().map(Row::of).collect(),
            clients,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics half-way through a change, so a poisoned ring is still a true one.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Testimony for Recorder {
    fn witnessed(&self, witnessed: Witnessed) {
        if let Some(record) = self.lock().find(witnessed.record) {
            record.kernel_reason = Some(witnessed.kernel_reason);
        }
    }
}

impl Ring {
    /// The record of this name; they stand in the order of their names, without gaps.
    fn find(&mut self, id: RecordId) -> Option<&mut Record> {
        let first = self.records.front()?.id;
        let place = id.0.checked_sub(first.0)?;
        self.records.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests;
