//! A record as people and programs read it. The field names are part of the stable interface: they are
//! what `/api/v1/resets` says.

use std::sync::Arc;

use serde::Serialize;

use super::{Leg, Record};
use crate::close::{Initiator, Side, Termination};
use crate::stats::reason::Reason;
use crate::stats::termination;
use crate::stats::units::{microseconds, milliseconds};
use crate::witness::KernelReason;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Counts up from 1 in the life of the process.
    pub id: u64,
    /// When the connection's end was complete (RFC 3339, UTC).
    pub time: String,
    /// The leg: `downstream` or `upstream`.
    pub side: &'static str,
    /// The listener of the session; `null` where the connection was lent to none.
    pub listener: Option<String>,
    /// The upstream.
    pub upstream: Option<String>,
    /// The endpoint as configured.
    pub endpoint: Option<String>,
    /// The client's address, or `unix`.
    pub client: Option<String>,
    /// The service's address, or `unix`.
    pub service: Option<String>,
    /// Our own address on this leg.
    pub local: Option<String>,
    /// The session's number, as in `/api/v1/sessions`.
    pub session: Option<u64>,
    /// Of a shared connection: how many sessions it owed something; `null` for every other.
    pub sessions: Option<usize>,
    /// Which way the RST went: `sent` or `received`; `null` where there was none.
    pub direction: Option<&'static str>,
    /// What was under way when it came or went.
    pub phase: &'static str,
    /// The cause of a sent RST, `peer` for a received one; else `truncated` or `loss`.
    pub cause: &'static str,
    /// The kernel's own reason for the RST, where the witness is on and has seen it; `peer` for a
    /// received one.
    pub kernel_reason: Option<&'static str>,
    /// Why the upstream connection was discarded.
    pub discard: Option<&'static str>,
    /// How the connection ended.
    pub termination: End,
    /// Bytes read from the peer.
    pub read_bytes: u64,
    /// Bytes written to the peer.
    pub written_bytes: u64,
    /// Bytes that came and that nobody took.
    pub unread_bytes: u64,
    /// Bytes written that the peer's kernel never confirmed.
    pub unacknowledged_bytes: u64,
    /// The sum of both.
    pub lost_bytes: u64,
    /// Which exchange on this connection it was; 0: none had begun.
    pub exchange: u64,
    /// How old the connection was.
    pub age_ms: u64,
    /// How long it had been idle: at its end, or before the exchange that was under way.
    pub idle_ms: Option<u64>,
    /// The smoothed round-trip time.
    pub round_trip_time_us: Option<u64>,
    /// Segments sent again, over the connection's life.
    pub retransmissions: Option<u32>,
    /// The end of the other leg that goes with it.
    pub other: Option<Other>,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct End {
    /// Who began the end.
    pub initiator: &'static str,
    /// What was under way.
    pub phase: &'static str,
    /// In which manner.
    pub manner: &'static str,
    /// The three letters of it, as in the log.
    pub code: String,
    /// What it means, in a sentence.
    pub meaning: Option<&'static str>,
}

/// The end of the other leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Other {
    /// The other leg.
    pub side: &'static str,
    /// `caused_by`: that end led to this one; `caused`: this one led to it; `with`: one act of
    /// millpond's, the operator's or the kernel's ended both, or each ended of its own accord.
    pub relation: &'static str,
    /// How it ended.
    pub termination: End,
    /// Its own record, if it has one.
    pub record: Option<u64>,
}

impl Row {
    pub(super) fn of(record: &Record) -> Self {
        let story = &record.story;
        let account = &record.ending.account;
        let text = |name: &Option<Arc<str>>| name.as_deref().map(str::to_owned);
        let local = account.path.and_then(|path| path.local);
        Self {
            id: record.id.0,
            time: humantime::format_rfc3339_millis(record.at).to_string(),
            side: story.side.label(),
            listener: text(&story.listener),
            upstream: text(&story.upstream),
            endpoint: text(&story.endpoint),
            client: story.client.map(|peer| peer.to_string()),
            service: story.service.map(|peer| peer.to_string()),
            local: local.map(|address| address.to_string()),
            session: story.session,
            sessions: story.sessions,
            direction: record.ending.reset.map(|seen| seen.reset.direction()),
            phase: record.phase().label(),
            cause: record.cause(),
            kernel_reason: record.kernel_reason.map(KernelReason::label),
            discard: story.discard.map(Reason::label),
            termination: End::of(story.side, record.ending.termination),
            read_bytes: account.read_bytes,
            written_bytes: account.written_bytes,
            unread_bytes: account.unread_bytes,
            unacknowledged_bytes: account.unacknowledged_bytes,
            lost_bytes: account.lost_bytes(),
            exchange: story.exchange,
            age_ms: milliseconds(story.age),
            idle_ms: story.idle.map(milliseconds),
            round_trip_time_us: account.path.map(|path| microseconds(path.round_trip_time)),
            retransmissions: account.path.map(|path| path.retransmissions),
            other: (record.other.as_ref())
                .map(|leg| Other::of(leg, record.ending.termination.initiator)),
        }
    }
}

impl End {
    fn of(side: Side, ended: Termination) -> Self {
        let code = termination::code(ended).map(char::from);
        Self {
            initiator: ended.initiator.label(),
            phase: ended.phase.label(),
            manner: ended.manner.label(),
            code: code.iter().collect(),
            meaning: termination::find(side, ended).map(|row| row.meaning),
        }
    }
}

impl Other {
    fn of(leg: &Leg, initiator: Initiator) -> Self {
        Self {
            side: leg.side.label(),
            relation: leg.relation(initiator),
            termination: End::of(leg.side, leg.termination),
            record: leg.record.map(|id| id.0),
        }
    }
}
