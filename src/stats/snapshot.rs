//! One copy of all statistics, for the admin interface, the metrics and the tests.
//!
//! Each listener's and each upstream's ledger is copied under its own lock, and each pool's holdings
//! under the pool's, so opened = open + terminated holds in every copy. Two of them are copied one
//! after the other: a sum over both can be off by what happened between.
//!
//! The field names are part of the stable interface: they are what `/api/v1/snapshot` says.

use std::collections::BTreeMap;
use std::time::{Instant, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::census::CensusSnapshot;
use super::counter::Reasons;
use super::histogram::Durations;
use super::ledger::{Book, Reset};
use super::reason::Reason;
use super::sessions::SessionRow;
use super::tree::{EndpointHoldings, LinkRow, ListenerBranch, ListenerStats, Tree, UpstreamBranch};
use super::witness::WitnessSnapshot;
use crate::close::{Initiator, Manner, Phase, ResetCause, Termination};

/// All statistics at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// millpond's version.
    pub version: &'static str,
    /// Since the process began to count.
    pub uptime_seconds: f64,
    /// Whether the process has begun to drain.
    pub draining: bool,
    /// Every listener that this process has had.
    pub listeners: BTreeMap<String, ListenerSnapshot>,
    /// Every upstream that this process has had.
    pub upstreams: BTreeMap<String, UpstreamSnapshot>,
    /// What the kernel tells of resets; `None` where nobody reads it.
    pub witness: Option<WitnessSnapshot>,
    /// The kernel's sockets as they were listed last; `None` before that.
    pub census: Option<CensusSnapshot>,
    /// How often the kernel was asked for them, and what that cost.
    pub censuses: CensusCost,
    /// Whether the last configuration that was given was taken.
    #[serde(skip)]
    pub last_reload_successful: bool,
    /// When a configuration was last taken, seconds since 1970.
    #[serde(skip)]
    pub last_reload_succeeded_at: f64,
    /// Lines about sessions' ends that the rate limit kept out of the log.
    #[serde(skip)]
    pub session_lines_suppressed: u64,
    /// Times that the admin interface's connections were at their limit.
    #[serde(skip)]
    pub admin_limit_reached: u64,
}

/// What the censuses of a process cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CensusCost {
    /// Those that the kernel answered.
    pub taken: u64,
    /// Those that it did not.
    pub failed: u64,
    /// CPU time of the answered ones, microseconds.
    pub cpu_us: u64,
}

/// One listener's statistics.
#[derive(Debug, Clone, Serialize)]
pub struct ListenerSnapshot {
    /// Where it really listens; `None` while it does not.
    pub address: Option<String>,
    /// Its sessions.
    pub sessions: Population,
    /// How they ended; what never happened is left out.
    pub terminations: Vec<TerminationCount>,
    /// The RSTs that were part of it; what never happened is left out.
    pub resets: Vec<ResetCount>,
    /// What did not get through.
    pub lost_bytes: LostBytes,
    /// What was refused, by reason.
    pub refusals: Tally,
    /// Connections that the ledger and the kernel do not agree about.
    pub leaks: Tally,
    /// How often limits of accepting were reached.
    pub limits: AcceptLimits,
}

/// One upstream's statistics.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamSnapshot {
    /// Its connections, over all endpoints.
    pub connections: Population,
    /// How they ended; what never happened is left out.
    pub terminations: Vec<TerminationCount>,
    /// The RSTs that were part of it; what never happened is left out.
    pub resets: Vec<ResetCount>,
    /// What did not get through.
    pub lost_bytes: LostBytes,
    /// How exchanges ended.
    pub exchanges: Tally,
    /// How connects ended.
    pub connects: Tally,
    /// Why connections were opened.
    pub opens: Tally,
    /// Why connections were discarded.
    pub discards: Tally,
    /// How waits ended.
    pub waits: Tally,
    /// Leases granted, waited for or not.
    pub lent: u64,
    /// Sessions turned away because the wait queue was full.
    pub queue_full: u64,
    /// Heartbeats of the service that were dropped, because no client had asked for one.
    pub heartbeats_dropped: u64,
    /// Why messages of a service with ids reached no client.
    pub messages_dropped: Tally,
    /// Why requests were sent again or elsewhere.
    pub retries: Tally,
    /// Sessions that needed a connection of their own where connections are shared, by reason.
    pub pins: Tally,
    /// Connections that are shared, or that one session has to itself for a while.
    pub links: Vec<LinkRow>,
    /// Why requests that met the end of a reused connection were not sent again.
    pub races_lost: Tally,
    /// Connections that the ledger and the kernel do not agree about.
    pub leaks: Tally,
    /// Sessions that wait now.
    pub waiters: usize,
    /// How long waits took, however they ended.
    pub wait_seconds: CountAndSum,
    /// What each endpoint's pool holds now.
    pub endpoints: Vec<EndpointHoldings>,
    /// How long exchanges took.
    #[serde(skip)]
    pub exchange_duration: Durations,
    /// How long sessions had a connection to themselves where connections are shared.
    #[serde(skip)]
    pub pin_duration: Durations,
    /// How long successful connects took.
    #[serde(skip)]
    pub connect_duration: Durations,
    /// How long waits took that ended with a lease.
    #[serde(skip)]
    pub wait_granted_duration: Durations,
    /// How long waits took that ended without one.
    #[serde(skip)]
    pub wait_failed_duration: Durations,
}

/// How many there were and are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Population {
    /// Ever opened.
    pub opened: u64,
    /// Open now.
    pub open: u64,
    /// Ended.
    pub terminated: u64,
}

/// How often connections ended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TerminationCount {
    /// Who began the end.
    #[serde(serialize_with = "initiator_label")]
    pub initiator: Initiator,
    /// What was under way.
    #[serde(serialize_with = "phase_label")]
    pub phase: Phase,
    /// In which manner.
    #[serde(serialize_with = "manner_label")]
    pub manner: Manner,
    /// How often.
    pub count: u64,
}

/// How often an RST was part of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ResetCount {
    /// `sent` or `received`.
    pub direction: &'static str,
    /// What was under way.
    #[serde(serialize_with = "phase_label")]
    pub phase: Phase,
    /// Why it was sent; `peer` for a received one.
    pub cause: &'static str,
    /// How often.
    pub count: u64,
}

/// Bytes that did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LostBytes {
    /// Sent by the peer, read by nobody.
    pub unread: u64,
    /// Written, and never confirmed by the peer's kernel. What its program read is not knowable.
    pub unacknowledged: u64,
}

/// How often limits of accepting were reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AcceptLimits {
    /// `max_sessions` were open.
    pub session_limit_reached: u64,
    /// The process or the host was out of descriptors.
    pub descriptors_exhausted: u64,
    /// The kernel said something else was wrong.
    pub accept_errors: u64,
}

/// A number of durations and their sum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CountAndSum {
    /// How many.
    pub count: u64,
    /// Their sum, seconds.
    pub sum: f64,
}

/// Every member of a closed list with its number, in the list's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally(pub Vec<(&'static str, u64)>);

impl Tally {
    fn of<R: Reason>(reasons: &Reasons<R>) -> Self {
        let members = reasons.iter();
        Self(members.map(|(r, count)| (r.label(), count)).collect())
    }

    /// The sum over all members.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

impl Serialize for Tally {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// The open sessions of all listeners, or the first of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionList {
    /// How many are open, listed or not.
    pub open: usize,
    /// The listed ones by listener.
    pub listeners: BTreeMap<String, Vec<SessionRow>>,
}

impl Tree {
    /// A copy of all statistics at the moment `now`.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let uptime = now.saturating_duration_since(self.started_at());
        let reload = self.last_reload();
        let since_1970 = reload.succeeded_at.duration_since(UNIX_EPOCH);
        let listeners = self.listeners().into_iter();
        let upstreams = self.upstreams().into_iter();
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: uptime.as_secs_f64(),
            draining: self.is_draining(),
            listeners: listeners
                .map(|(name, branch)| (name, ListenerSnapshot::of(branch)))
                .collect(),
            upstreams: upstreams
                .map(|(name, branch)| (name, UpstreamSnapshot::of(&branch)))
                .collect(),
            witness: self
                .witness()
                .map(|witness| WitnessSnapshot::of(&witness.stats())),
            census: self.census.last().map(|it| (*it).clone()),
            censuses: CensusCost {
                taken: self.census.taken.read(),
                failed: self.census.failed.read(),
                cpu_us: self.census.cpu_us.read(),
            },
            last_reload_successful: reload.successful,
            last_reload_succeeded_at: since_1970.map_or(0.0, |since| since.as_secs_f64()),
            session_lines_suppressed: self.process.session_lines_suppressed.read(),
            admin_limit_reached: self.process.admin_limit_reached.read(),
        }
    }

    /// Up to `limit` open sessions, over all listeners.
    pub fn list_sessions(&self, limit: usize, now: Instant) -> SessionList {
        let mut list = SessionList {
            open: 0,
            listeners: BTreeMap::new(),
        };
        let mut left = limit;
        for (name, branch) in self.listeners() {
            list.open += branch.stats.sessions.len();
            let rows = branch.stats.sessions.list(left, now);
            left -= rows.len();
            list.listeners.insert(name, rows);
        }
        list
    }
}

impl ListenerSnapshot {
    fn of(branch: ListenerBranch) -> Self {
        let stats = branch.stats;
        let book = stats.ledger.read();
        Self {
            address: branch.bound_to,
            sessions: Population::of(&book),
            terminations: terminations(&book),
            resets: resets(&book),
            lost_bytes: LostBytes::of(&book),
            refusals: Tally::of(&stats.refusals),
            leaks: Tally::of(&stats.leaks),
            limits: AcceptLimits::of(&stats),
        }
    }
}

impl UpstreamSnapshot {
    fn of(branch: &UpstreamBranch) -> Self {
        let stats = &branch.stats;
        let book = stats.ledger.read();
        let holdings = branch.holdings();
        let wait_granted_duration = stats.wait_granted_duration.read();
        let wait_failed_duration = stats.wait_failed_duration.read();
        Self {
            connections: Population::of(&book),
            terminations: terminations(&book),
            resets: resets(&book),
            lost_bytes: LostBytes::of(&book),
            exchanges: Tally::of(&stats.exchanges),
            connects: Tally::of(&stats.connects),
            opens: Tally::of(&stats.opens),
            discards: Tally::of(&stats.discards),
            waits: Tally::of(&stats.waits),
            lent: stats.lent.read(),
            queue_full: stats.queue_full.read(),
            heartbeats_dropped: stats.heartbeats_dropped.read(),
            messages_dropped: Tally::of(&stats.messages_dropped),
            retries: Tally::of(&stats.retries),
            pins: Tally::of(&stats.pins),
            links: holdings.links,
            pin_duration: stats.pin_duration.read(),
            races_lost: Tally::of(&stats.races_lost),
            leaks: Tally::of(&stats.leaks),
            waiters: holdings.waiters,
            wait_seconds: CountAndSum {
                count: wait_granted_duration.count + wait_failed_duration.count,
                sum: wait_granted_duration.sum + wait_failed_duration.sum,
            },
            endpoints: holdings.endpoints,
            exchange_duration: stats.exchange_duration.read(),
            connect_duration: stats.connect_duration.read(),
            wait_granted_duration,
            wait_failed_duration,
        }
    }
}

impl Population {
    fn of(book: &Book) -> Self {
        Self {
            opened: book.opened,
            open: book.open,
            terminated: book.terminated(),
        }
    }
}

impl LostBytes {
    fn of(book: &Book) -> Self {
        Self {
            unread: book.unread_bytes,
            unacknowledged: book.unacknowledged_bytes,
        }
    }
}

impl AcceptLimits {
    fn of(stats: &ListenerStats) -> Self {
        Self {
            session_limit_reached: stats.session_limit_reached.read(),
            descriptors_exhausted: stats.descriptors_exhausted.read(),
            accept_errors: stats.accept_errors.read(),
        }
    }
}

impl TerminationCount {
    /// The end that is counted.
    pub fn termination(&self) -> Termination {
        Termination {
            initiator: self.initiator,
            phase: self.phase,
            manner: self.manner,
        }
    }
}

impl ResetCount {
    /// A row for `reset` in `phase`.
    pub fn new(reset: Reset, phase: Phase, count: u64) -> Self {
        Self {
            direction: reset.direction(),
            phase,
            cause: reset.cause(),
            count,
        }
    }
}

fn terminations(book: &Book) -> Vec<TerminationCount> {
    let mut rows = Vec::new();
    for initiator in Initiator::ALL {
        for phase in Phase::ALL {
            for manner in Manner::ALL {
                let termination = Termination {
                    initiator,
                    phase,
                    manner,
                };
                let count = book.terminations(termination);
                if count > 0 {
                    rows.push(TerminationCount {
                        initiator,
                        phase,
                        manner,
                        count,
                    });
                }
            }
        }
    }
    rows
}

fn resets(book: &Book) -> Vec<ResetCount> {
    let sent = ResetCause::ALL.into_iter().map(Reset::Sent);
    let kinds = std::iter::once(Reset::Received).chain(sent);
    let rows = kinds.flat_map(|reset| {
        Phase::ALL
            .into_iter()
            .map(move |phase| ResetCount::new(reset, phase, book.resets(reset, phase)))
    });
    rows.filter(|row| row.count > 0).collect()
}

fn initiator_label<S: Serializer>(value: &Initiator, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.label())
}

fn phase_label<S: Serializer>(value: &Phase, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.label())
}

fn manner_label<S: Serializer>(value: &Manner, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.label())
}

#[cfg(test)]
mod tests;
