//! What doctor says, as `--json` says it; the text for people is made from the same.
//!
//! Pure. Invariant: every field stands in [`super::schema`], and a test holds that.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::diagnosis::{self, Missing, Reading, diagnose, runs_out_seconds};
use super::finding::{Evidence, Finding, Severity};
use super::look::{Destination, Ends, Look};
use super::settings::Judged;
use crate::census::forecast::TimeWaitPorts;

/// So many destinations and services are shown; the others are summed up.
const SHOWN_MAX: usize = 20;
/// So many of our own addresses for each.
const SOURCES_SHOWN_MAX: usize = 8;
/// Fewer connects a second are nothing to relieve.
const CONNECTS_TO_RELIEVE: f64 = 1.0;
/// A pooled connection lives so long (`max_lifetime`).
const POOL_LIFETIME_SECONDS: f64 = 3_600.0;

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    /// Of this form; it grows when a field changes or goes.
    pub(super) schema: u32,
    /// Millpond's.
    pub(super) version: &'static str,
    pub(super) verdict: Verdict,
    pub(super) seconds: f64,
    pub(super) findings: Vec<Found>,
    pub(super) time_wait: TimeWait,
    pub(super) destinations: Vec<Towards>,
    pub(super) other_destinations: Others,
    pub(super) services: Vec<Service>,
    pub(super) other_services: Others,
    pub(super) counters: Vec<Counted>,
    pub(super) settings: Vec<Judged>,
    pub(super) relief: Vec<Relief>,
    pub(super) missing: Vec<Missing>,
}

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Healthy,
    Findings,
    /// The sockets could not be looked at.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Found {
    pub(super) kind: &'static str,
    pub(super) severity: Severity,
    pub(super) subject: String,
    pub(super) title: String,
    pub(super) why: String,
    pub(super) advice: String,
    pub(super) evidence: Vec<Evidence>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct TimeWait {
    pub(super) total: u64,
    pub(super) dialling: u64,
    pub(super) listening: u64,
    pub(super) uncounted: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Towards {
    pub(super) address: SocketAddr,
    pub(super) time_wait: u32,
    pub(super) open: u32,
    pub(super) close_wait: u32,
    pub(super) connects_per_second: f64,
    pub(super) closes_first: Option<ClosesFirst>,
    pub(super) ports: Vec<PortsFrom>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct PortsFrom {
    pub(super) source: IpAddr,
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) count: u32,
    pub(super) used: u32,
    pub(super) time_wait: u32,
    pub(super) free: u32,
    /// When a port in TIME_WAIT comes back.
    pub(super) back_after_seconds: u32,
    pub(super) runs_out_seconds: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Service {
    pub(super) address: SocketAddr,
    pub(super) time_wait: u32,
    pub(super) open: u32,
    pub(super) close_wait: u32,
    pub(super) half_open: u32,
    pub(super) connects_per_second: f64,
    pub(super) closes_first: Option<ClosesFirst>,
    /// `None`: nobody listens any more.
    pub(super) queue: Option<u32>,
    pub(super) queue_max: Option<u32>,
}

/// Who ends connections first, as far as two looks can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClosesFirst {
    /// This host: TIME_WAIT is here.
    ThisEnd,
    /// The other one: CLOSE_WAIT is here, or nothing.
    OtherEnd,
    Both,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Others {
    pub(super) count: usize,
    pub(super) time_wait: u64,
    pub(super) open: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Counted {
    pub(super) name: &'static str,
    pub(super) count: u64,
    pub(super) per_second: f64,
    pub(super) meaning: &'static str,
}

/// What a pool would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Relief {
    pub(super) address: SocketAddr,
    pub(super) connects_per_second: f64,
    /// As many as were open at once, at least one.
    pub(super) pool_size: u32,
    /// Once they are there: each is replaced when its lifetime is over.
    pub(super) pool_connects_per_second: f64,
}

/// Says what was read, and what of it is wrong.
pub(super) fn report(reading: &Reading) -> Report {
    let findings: Vec<Found> = diagnose(reading).iter().map(Found::of).collect();
    let verdict = match (&reading.look, findings.is_empty()) {
        (_, false) => Verdict::Findings,
        (Some(_), true) => Verdict::Healthy,
        (None, true) => Verdict::Unknown,
    };
    let look = reading.look.as_ref();
    let (destinations, other_destinations) = shown(all_destinations(reading, look));
    let (services, other_services) = shown(all_services(reading, look));
    let counters = reading.rates.iter().map(|rate| Counted {
        name: rate.counter.name,
        count: rate.count,
        per_second: rate.per_second,
        meaning: rate.counter.meaning,
    });
    Report {
        schema: 1,
        version: env!("CARGO_PKG_VERSION"),
        verdict,
        seconds: reading.seconds,
        findings,
        time_wait: TimeWait::of(look),
        relief: relief(&destinations),
        destinations,
        other_destinations,
        services,
        other_services,
        counters: counters.collect(),
        settings: reading.settings.clone(),
        missing: reading.missing.clone(),
    }
}

impl Found {
    fn of(finding: &Finding) -> Self {
        Self {
            kind: finding.kind(),
            severity: finding.severity(),
            subject: finding.subject(),
            title: finding.title(),
            why: finding.why(),
            advice: finding.advice(),
            evidence: finding.evidence(),
        }
    }
}

impl TimeWait {
    fn of(look: Option<&Look>) -> Self {
        let (dialling, listening, uncounted) = look.map_or((0, 0, 0), |it| {
            (it.time_wait_dialling, it.time_wait_listening, it.uncounted)
        });
        Self {
            total: dialling + listening,
            dialling,
            listening,
            uncounted,
        }
    }
}

/// Something of which the largest are shown.
trait Ranked {
    /// TIME_WAIT and open connections.
    fn size(&self) -> (u32, u32);
    fn address(&self) -> SocketAddr;
}

impl Ranked for Towards {
    fn size(&self) -> (u32, u32) {
        (self.time_wait, self.open)
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Ranked for Service {
    fn size(&self) -> (u32, u32) {
        (self.time_wait, self.open)
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The largest, and the sum of the others.
fn shown<T: Ranked>(mut all: Vec<T>) -> (Vec<T>, Others) {
    all.sort_by_cached_key(|it| (Reverse(it.size()), it.address()));
    let rest = all.split_off(all.len().min(SHOWN_MAX));
    let mut others = Others::default();
    for one in rest {
        let (time_wait, open) = one.size();
        others.count += 1;
        others.time_wait += u64::from(time_wait);
        others.open += u64::from(open);
    }
    (all, others)
}

fn all_destinations(reading: &Reading, look: Option<&Look>) -> Vec<Towards> {
    let all = look.into_iter().flat_map(|look| &look.destinations);
    let one = |(&address, destination): (&SocketAddr, &Destination)| {
        let ends = &destination.ends;
        Towards {
            address,
            time_wait: ends.time_wait,
            open: ends.open,
            close_wait: ends.close_wait,
            connects_per_second: per_second(ends.new, reading),
            closes_first: closes_first(ends),
            ports: ports_towards(reading, look, address, destination),
        }
    };
    all.map(one).collect()
}

fn ports_towards(
    reading: &Reading,
    look: Option<&Look>,
    address: SocketAddr,
    destination: &Destination,
) -> Vec<PortsFrom> {
    let Some(range) = look.map(|it| it.ports().range()) else {
        return Vec::new();
    };
    let one = |(&source, ports): (&IpAddr, _)| {
        let ports: &crate::census::ports::PortUse = ports;
        let waiting = TimeWaitPorts::between(reading.tw_reuse, source, address.ip());
        PortsFrom {
            source,
            first: *range.start(),
            last: *range.end(),
            count: ports.count,
            used: ports.used,
            time_wait: ports.time_wait,
            free: ports.free(),
            back_after_seconds: match waiting {
                TimeWaitPorts::Held => 60,
                TimeWaitPorts::Reused => 1,
            },
            runs_out_seconds: runs_out_seconds(ports, waiting),
        }
    };
    let mut all: Vec<PortsFrom> = destination.sources.iter().map(one).collect();
    all.sort_by_key(|it| Reverse(it.used + it.time_wait));
    all.truncate(SOURCES_SHOWN_MAX);
    all
}

fn all_services(reading: &Reading, look: Option<&Look>) -> Vec<Service> {
    let Some(look) = look else {
        return Vec::new();
    };
    let one = |(&address, ends): (&SocketAddr, &Ends)| {
        let listener = look.listeners.at(address);
        Service {
            address,
            time_wait: ends.time_wait,
            open: ends.open,
            close_wait: ends.close_wait,
            half_open: ends.half_open,
            connects_per_second: per_second(ends.new, reading),
            closes_first: closes_first(ends),
            queue: listener.map(|it| it.waiting),
            queue_max: listener.map(|it| it.waiting_max),
        }
    };
    look.services.iter().map(one).collect()
}

fn closes_first(ends: &Ends) -> Option<ClosesFirst> {
    match (ends.time_wait > 0, ends.close_wait > 0) {
        (true, true) => Some(ClosesFirst::Both),
        (true, false) => Some(ClosesFirst::ThisEnd),
        (false, true) => Some(ClosesFirst::OtherEnd),
        (false, false) => None,
    }
}

/// What is persistent already gets nothing: it makes no connects.
fn relief(destinations: &[Towards]) -> Vec<Relief> {
    let busy = destinations
        .iter()
        .filter(|it| it.connects_per_second >= CONNECTS_TO_RELIEVE);
    let relief = busy.map(|it| {
        let pool_size = it.open.max(1);
        Relief {
            address: it.address,
            connects_per_second: it.connects_per_second,
            pool_size,
            pool_connects_per_second: f64::from(pool_size) / POOL_LIFETIME_SECONDS,
        }
    });
    let mut relief: Vec<Relief> = relief.collect();
    relief.sort_by(|one, other| {
        other
            .connects_per_second
            .total_cmp(&one.connects_per_second)
    });
    relief
}

fn per_second(count: u32, reading: &Reading) -> f64 {
    let rate = f64::from(count) / reading.seconds.max(diagnosis::SECONDS_LEAST);
    (rate * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::census::socket::State;
    use crate::cli::doctor::counters;
    use crate::cli::doctor::diagnosis::tests::dialling;
    use crate::cli::doctor::look::tests::{after, look, socket};
    use crate::cli::doctor::schema::FIELDS;
    use crate::cli::doctor::settings::SETTINGS;

    /// A host of which every part is seen.
    fn full() -> Reading {
        let listener = socket("0.0.0.0:80", "0.0.0.0:0", State::Listen);
        let mut sockets = dialling("10.0.0.1", "10.0.0.2:80", 20_000, 5);
        sockets.push(socket("10.0.0.1:80", "10.0.0.9:40000", State::TimeWait));
        let before = look(&[], &[]).into_before(Duration::from_secs(3));
        let values = counters::parse("TcpExt: TCPAbortOnData\nTcpExt: 5\n", "TcpExt:");
        Reading {
            look: Some(after(before, &[listener], &sockets)),
            seconds: 3.0,
            rates: counters::rates(&values, &values, 3.0),
            settings: SETTINGS[0].judge("32768 60999").into_iter().collect(),
            tw_reuse: 2,
            missing: vec![Missing {
                what: String::new(),
                reason: String::new(),
            }],
            ..Reading::default()
        }
    }

    fn paths(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    let path = format!("{path}{dot}{name}");
                    into.insert(path.clone());
                    paths(value, &path, into);
                }
            }
            Value::Array(all) => {
                for one in all {
                    paths(one, &format!("{path}[]"), into);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn the_schema_names_every_field_and_no_other() {
        let value = serde_json::to_value(report(&full())).expect("JSON");
        let mut there = BTreeSet::new();
        paths(&value, "", &mut there);
        let named: BTreeSet<String> = FIELDS.iter().map(|it| it.0.to_owned()).collect();
        assert_eq!(there, named);
    }

    #[test]
    fn relief_is_for_what_is_dialled_often() {
        let report = report(&full());
        let [relief] = report.relief.as_slice() else {
            panic!("{:?}", report.relief);
        };
        assert_eq!(relief.pool_size, 5);
        assert!(relief.connects_per_second >= 1.0);
        // The same, a look later: nothing is new, and nothing is to be relieved.
        let sockets = dialling("10.0.0.1", "10.0.0.2:80", 0, 500);
        let before = look(&[], &sockets).into_before(Duration::from_secs(3));
        let persistent = Reading {
            look: Some(after(before, &[], &sockets)),
            seconds: 3.0,
            ..Reading::default()
        };
        assert!(super::report(&persistent).relief.is_empty());
    }

    #[test]
    fn nothing_seen_is_not_healthy() {
        assert_eq!(report(&Reading::default()).verdict, Verdict::Unknown);
        let seen = Reading {
            look: Some(look(&[], &[])),
            ..Reading::default()
        };
        assert_eq!(report(&seen).verdict, Verdict::Healthy);
    }

    #[test]
    fn the_largest_are_shown_and_the_others_summed_up() {
        let sockets = (0..30)
            .flat_map(|number| dialling("10.0.0.1", &format!("10.0.1.{number}:80"), number + 1, 1));
        let reading = Reading {
            look: Some(look(&[], &sockets.collect::<Vec<_>>())),
            ..Reading::default()
        };
        let report = report(&reading);
        assert_eq!(report.destinations.len(), SHOWN_MAX);
        assert_eq!(report.destinations[0].time_wait, 30);
        let others = report.other_destinations;
        assert_eq!((others.count, others.time_wait, others.open), (10, 55, 10));
    }
}
