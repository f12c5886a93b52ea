//! The metrics of a snapshot: every family of `table` with its samples, before any text format.
//!
//! What can happen is present at 0 from the start, so that the first time shows as an increase.

use std::time::{Duration, UNIX_EPOCH};

use super::histogram::Durations;
use super::process::Process;
use super::reason::{LeaseReason, Reason};
use super::snapshot::{
    ListenerSnapshot, LostBytes, ResetCount, Snapshot, Tally, TerminationCount, UpstreamSnapshot,
};
use super::table::{self, Metric};
use super::termination::{find, reachable, reachable_resets};
use super::tree::{EndpointHoldings, LinkRow};
use super::witness::WitnessSnapshot;
use crate::close::{Side, Termination};

/// One metric with its samples.
#[derive(Debug, Clone)]
pub struct Family {
    /// Its name, kind, labels and help.
    pub metric: &'static Metric,
    /// One for each combination of label values.
    pub samples: Vec<Sample>,
}

/// One number, or one distribution.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The values of the metric's labels, in its order.
    pub labels: Vec<String>,
    /// The number.
    pub value: Value,
}

/// What a sample says.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A counter or gauge.
    Number(f64),
    /// A histogram.
    Distribution(Durations),
}

/// Every metric that has a sample, in the table's order. Where assertions are on, an end that the
/// table of reachable ends does not know is one; elsewhere it just shows.
pub fn gather(snapshot: &Snapshot, process: &Process) -> Vec<Family> {
    debug_assert_eq!(
        gaps(snapshot),
        [],
        "ends that the table of reachable ends lacks"
    );
    gather_known_or_not(snapshot, process)
}

/// The ends that were recorded and stand in no table.
fn gaps(snapshot: &Snapshot) -> Vec<(Side, Termination)> {
    let listeners = snapshot.listeners.values();
    let downstream = listeners.flat_map(|listener| &listener.terminations);
    let upstreams = snapshot.upstreams.values();
    let upstream = upstreams.flat_map(|upstream| &upstream.terminations);
    let all = downstream
        .map(|row| (Side::Downstream, row.termination()))
        .chain(upstream.map(|row| (Side::Upstream, row.termination())));
    all.filter(|&(side, end)| find(side, end).is_none())
        .collect()
}

fn gather_known_or_not(snapshot: &Snapshot, process: &Process) -> Vec<Family> {
    let mut families = Families::new();
    gather_process(&mut families, snapshot, process);
    gather_census(&mut families, snapshot);
    gather_witness(&mut families, snapshot.witness.as_ref());
    for (name, listener) in &snapshot.listeners {
        gather_listener(&mut families, name, listener);
    }
    for (name, upstream) in &snapshot.upstreams {
        gather_upstream(&mut families, name, upstream);
        for endpoint in &upstream.endpoints {
            gather_endpoint(&mut families, name, endpoint);
        }
    }
    families.finish()
}

fn gather_listener(families: &mut Families, name: &str, listener: &ListenerSnapshot) {
    families.count(&table::SESSIONS, &[name], listener.sessions.opened);
    families.count(&table::SESSIONS_OPEN, &[name], listener.sessions.open);
    let bound = u64::from(listener.address.is_some());
    families.count(&table::LISTENER_BOUND, &[name], bound);
    families.tally(&table::REFUSALS, name, &listener.refusals);
    let limits = &listener.limits;
    let pauses = Tally(vec![
        ("session_limit", limits.session_limit_reached),
        ("descriptors", limits.descriptors_exhausted),
        ("error", limits.accept_errors),
    ]);
    families.tally(&table::ACCEPT_PAUSES, name, &pauses);
    let leg = (Side::Downstream, name);
    gather_terminations(families, leg, &listener.terminations);
    gather_resets(families, leg, &listener.resets);
    gather_lost_bytes(families, leg, listener.lost_bytes);
    gather_leaks(families, leg, &listener.leaks);
}

fn gather_upstream(families: &mut Families, name: &str, upstream: &UpstreamSnapshot) {
    let connections = &upstream.connections;
    families.count(&table::UPSTREAM_CONNECTIONS, &[name], connections.opened);
    families.count(&table::UPSTREAM_CONNECTIONS_OPEN, &[name], connections.open);
    families.tally(&table::EXCHANGES, name, &upstream.exchanges);
    families.tally(&table::RETRIES, name, &upstream.retries);
    families.tally(&table::PINS, name, &upstream.pins);
    gather_links(families, name, upstream);
    families.tally(&table::MESSAGES_DROPPED, name, &upstream.messages_dropped);
    families.tally(&table::RACES_LOST, name, &upstream.races_lost);
    families.tally(&table::OPENS, name, &upstream.opens);
    families.tally(&table::CONNECTS, name, &upstream.connects);
    families.tally(&table::POOL_WAITS, name, &upstream.waits);
    families.tally(&table::DISCARDS, name, &upstream.discards);
    families.count(&table::LEASES, &[name], upstream.lent);
    families.count(&table::POOL_QUEUE_FULL, &[name], upstream.queue_full);
    families.count(
        &table::HEARTBEATS_DROPPED,
        &[name],
        upstream.heartbeats_dropped,
    );
    families.count(&table::POOL_WAITERS, &[name], upstream.waiters as u64);
    let exchanges = &upstream.exchange_duration;
    families.distribution(&table::EXCHANGE_DURATION, &[name], exchanges);
    let connects = &upstream.connect_duration;
    families.distribution(&table::CONNECT_DURATION, &[name], connects);
    let waits = [
        ("granted", &upstream.wait_granted_duration),
        ("failed", &upstream.wait_failed_duration),
    ];
    for (outcome, durations) in waits {
        families.distribution(&table::POOL_WAIT_DURATION, &[name, outcome], durations);
    }
    let leg = (Side::Upstream, name);
    gather_terminations(families, leg, &upstream.terminations);
    gather_resets(families, leg, &upstream.resets);
    gather_lost_bytes(families, leg, upstream.lost_bytes);
    gather_leaks(families, leg, &upstream.leaks);
}

fn gather_links(families: &mut Families, name: &str, upstream: &UpstreamSnapshot) {
    for reason in LeaseReason::ALL.iter().map(|it| it.label()) {
        let has_it = |link: &&LinkRow| link.pinned == Some(reason);
        let count = upstream.links.iter().filter(has_it).count();
        families.count(&table::PINS_OPEN, &[name, reason], count as u64);
    }
    families.distribution(&table::PIN_DURATION, &[name], &upstream.pin_duration);
    for endpoint in &upstream.endpoints {
        let address = endpoint.address.as_str();
        let links = upstream.links.iter();
        let shared = links.filter(|it| it.pinned.is_none() && it.endpoint == address);
        let sessions: usize = shared.map(|it| it.sessions).sum();
        let labels = [name, address];
        families.count(&table::SHARING_SESSIONS, &labels, sessions as u64);
    }
}

fn gather_endpoint(families: &mut Families, name: &str, endpoint: &EndpointHoldings) {
    let address = endpoint.address.as_str();
    let states = [
        ("idle", endpoint.idle),
        ("leased", endpoint.leased),
        ("connecting", endpoint.connecting),
        ("shared", endpoint.shared),
        ("closing", endpoint.closing),
    ];
    for (state, count) in states {
        let labels = [name, address, state];
        families.count(&table::POOL_CONNECTIONS, &labels, count as u64);
    }
    families.count(&table::POOL_SIZE, &[name, address], endpoint.size as u64);
    let failures = u64::from(endpoint.failures);
    families.count(&table::CONNECT_FAILURES, &[name, address], failures);
    let learned = endpoint.learned_idle_timeout.unwrap_or_default();
    let labels = [name, address];
    families.number(&table::LEARNED_IDLE_TIMEOUT, &labels, learned.as_secs_f64());
}

/// A listener's or an upstream's name, and on which side it stands.
type Leg<'a> = (Side, &'a str);

/// Every reachable end, at 0 if it never happened, then those that the table of reachable ends does
/// not know.
fn gather_terminations(families: &mut Families, (side, name): Leg<'_>, rows: &[TerminationCount]) {
    let mut add = |end: Termination, count| {
        let Termination {
            initiator,
            phase,
            manner,
        } = end;
        let labels = [
            side.label(),
            name,
            initiator.label(),
            phase.label(),
            manner.label(),
        ];
        families.count(&table::TERMINATIONS, &labels, count);
    };
    let happened: Vec<(Termination, u64)> = rows
        .iter()
        .map(|row| (row.termination(), row.count))
        .collect();
    for known in reachable(side) {
        let end = known.termination;
        let found = happened.iter().find(|(other, _)| *other == end);
        add(end, found.map_or(0, |(_, count)| *count));
    }
    for (end, count) in happened {
        if find(side, end).is_none() {
            add(end, count);
        }
    }
}

/// As for terminations.
fn gather_resets(families: &mut Families, (side, name): Leg<'_>, rows: &[ResetCount]) {
    let mut add = |row: &ResetCount| {
        let labels = [
            side.label(),
            name,
            row.direction,
            row.phase.label(),
            row.cause,
        ];
        families.count(&table::RESETS, &labels, row.count);
    };
    let same = |a: &ResetCount, b: &ResetCount| {
        a.direction == b.direction && a.phase == b.phase && a.cause == b.cause
    };
    let known: Vec<_> = reachable_resets(side)
        .map(|(reset, phase)| ResetCount::new(reset, phase, 0))
        .collect();
    for zero in &known {
        add(rows.iter().find(|row| same(row, zero)).unwrap_or(zero));
    }
    for row in rows {
        if !known.iter().any(|zero| same(row, zero)) {
            add(row);
        }
    }
}

fn gather_lost_bytes(families: &mut Families, (side, name): Leg<'_>, lost: LostBytes) {
    let kinds = [
        ("unread", lost.unread),
        ("unacknowledged", lost.unacknowledged),
    ];
    for (kind, bytes) in kinds {
        families.count(&table::LOST_BYTES, &[side.label(), name, kind], bytes);
    }
}

fn gather_leaks(families: &mut Families, (side, name): (Side, &str), leaks: &Tally) {
    for (kind, count) in &leaks.0 {
        families.count(&table::SOCKET_LEAKS, &[side.label(), name, kind], *count);
    }
}

/// Before the first census nothing is known, which is not the same as 0.
fn gather_census(families: &mut Families, snapshot: &Snapshot) {
    let cost = snapshot.censuses;
    families.count(&table::CENSUSES, &["taken"], cost.taken);
    families.count(&table::CENSUSES, &["failed"], cost.failed);
    let cpu = Duration::from_micros(cost.cpu_us);
    families.number(&table::CENSUS_CPU, &[], cpu.as_secs_f64());
    let Some(census) = &snapshot.census else {
        return;
    };
    let taken_at = census.taken_at.duration_since(UNIX_EPOCH);
    let taken_at = taken_at.unwrap_or_default().as_secs_f64();
    families.number(&table::CENSUS_TIME, &[], taken_at);
    for leg in &census.legs {
        let labels = [leg.side.label(), &leg.name];
        for (state, count) in &leg.sockets {
            let labels = [labels[0], labels[1], state];
            families.count(&table::KERNEL_SOCKETS, &labels, *count);
        }
        families.count(&table::PEERS_TIME_WAIT, &labels, leg.peers_time_wait);
    }
    for row in &census.ports {
        let whose = &row.whose;
        let labels = [whose.upstream.as_str(), &whose.endpoint, &whose.source];
        let states = [
            ("used", row.used),
            ("time_wait", row.time_wait),
            ("free", row.free),
        ];
        for (state, count) in states {
            let labels = [labels[0], labels[1], labels[2], state];
            families.count(&table::EPHEMERAL_PORTS, &labels, count.into());
        }
        let left = row
            .run_out_seconds
            .map_or(f64::INFINITY, |it| it.as_secs_f64());
        families.number(&table::PORTS_RUN_OUT, &labels, left);
    }
}

/// Without a witness nothing is known, which is not the same as 0.
fn gather_witness(families: &mut Families, witness: Option<&WitnessSnapshot>) {
    let up = witness.is_some_and(|witness| witness.up);
    families.count(&table::WITNESS_UP, &[], u64::from(up));
    let Some(witness) = witness else {
        return;
    };
    for (direction, row) in [("sent", witness.sent), ("received", witness.received)] {
        let verdicts = [
            ("witnessed", row.witnessed),
            ("repeat", row.repeat),
            ("unattributed", row.unattributed),
            ("foreign", row.foreign),
        ];
        for (verdict, count) in verdicts {
            families.count(&table::WITNESS_EVENTS, &[direction, verdict], count);
        }
        families.count(&table::WITNESS_PENDING, &[direction], row.pending);
    }
    for row in &witness.unattributed {
        let labels = [row.side, row.direction, row.kernel_reason];
        families.count(&table::UNATTRIBUTED_RESETS, &labels, row.count);
    }
    let limits = witness.pending_limits;
    for (limit, count) in [("count", limits.count), ("time", limits.time)] {
        families.count(&table::WITNESS_PENDING_LIMIT, &[limit], count);
    }
    families.count(&table::WITNESS_LOST, &[], witness.lost_events);
    families.count(&table::WITNESS_UNREADABLE, &[], witness.unreadable_lines);
}

fn gather_process(families: &mut Families, snapshot: &Snapshot, process: &Process) {
    families.count(&table::BUILD_INFO, &[snapshot.version], 1);
    families.count(&table::DRAINING, &[], u64::from(snapshot.draining));
    let successful = u64::from(snapshot.last_reload_successful);
    families.count(&table::LAST_RELOAD_SUCCESSFUL, &[], successful);
    let reloaded_at = snapshot.last_reload_succeeded_at;
    families.number(&table::LAST_RELOAD_TIME, &[], reloaded_at);
    let suppressed = snapshot.session_lines_suppressed;
    families.count(&table::SESSION_LINES_SUPPRESSED, &[], suppressed);
    let reached = snapshot.admin_limit_reached;
    families.count(&table::ADMIN_LIMIT_REACHED, &[], reached);
    let readings = [
        (&table::PROCESS_CPU, process.cpu_seconds),
        (&table::PROCESS_OPEN_DESCRIPTORS, process.open_descriptors),
        (&table::PROCESS_DESCRIPTORS_MAX, process.descriptors_max),
        (&table::PROCESS_RESIDENT, process.resident_bytes),
        (&table::PROCESS_VIRTUAL, process.virtual_bytes),
        (&table::PROCESS_START, process.started_at),
        (&table::PROCESS_THREADS, process.threads),
    ];
    for (metric, reading) in readings {
        if let Some(value) = reading {
            families.number(metric, &[], value);
        }
    }
}

/// The families under construction, one for each row of the table.
struct Families(Vec<Family>);

impl Families {
    fn new() -> Self {
        let empty = |metric: &&'static Metric| Family {
            metric,
            samples: Vec::new(),
        };
        Self(table::ALL.iter().map(empty).collect())
    }

    fn count(&mut self, metric: &Metric, labels: &[&str], count: u64) {
        // Exact up to 2^53, which is what the text format can say.
        self.number(metric, labels, count as f64);
    }

    fn tally(&mut self, metric: &Metric, name: &str, tally: &Tally) {
        for (member, count) in &tally.0 {
            self.count(metric, &[name, member], *count);
        }
    }

    fn number(&mut self, metric: &Metric, labels: &[&str], number: f64) {
        self.add(metric, labels, Value::Number(number));
    }

    fn distribution(&mut self, metric: &Metric, labels: &[&str], durations: &Durations) {
        self.add(metric, labels, Value::Distribution(durations.clone()));
    }

    fn add(&mut self, metric: &Metric, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        let mut rows = self.0.iter_mut();
        let family = rows
            .find(|family| family.metric.name == metric.name)
            .expect("every metric is made by the macro that also lists it in ALL");
        family.samples.push(Sample {
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            value,
        });
    }

    /// A family without a sample says nothing, and the text format refuses it.
    fn finish(mut self) -> Vec<Family> {
        self.0.retain(|family| !family.samples.is_empty());
        self.0
    }
}

#[cfg(test)]
mod tests;
