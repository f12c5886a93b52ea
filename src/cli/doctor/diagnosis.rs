//! From what was read of a host to what is wrong with it.
//!
//! Pure. Invariant: a healthy host has no finding, however busy it is; so each threshold says why it is
//! where it is.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;

use serde::Serialize;

use super::counters::{self, Rate};
use super::finding::{Finding, Owner, Pile, Shortage};
use super::look::{Destination, Look, Place};
use super::settings::{Judged, Verdict};
use crate::census::forecast::{self, Forecast, TimeWaitPorts};
use crate::census::ports::PortUse;
use crate::census::socket::Socket;

/// From here on the next burst meets no free port.
const TAKEN_EXHAUSTED: f64 = 0.9;
/// A quarter of the ports in TIME_WAIT is a load that needs only to grow fourfold; a pool's or an
/// ordinary client's share is a few hundredths.
const TIME_WAIT_FILLING: f64 = 0.25;
/// Connections that stay are not growth by themselves; half of all ports is close to the end.
const TAKEN_FILLING: f64 = 0.5;
/// Where ports come back after a second, only a steady rate of hundreds of connects a second gets here.
const TIME_WAIT_CHURN: f64 = 0.5;
/// A forecast rests on the last seconds; fewer TIME_WAIT than so many are one burst.
const FORECAST_TIME_WAIT_MIN: u32 = 1_000;
/// Few programs close late by seconds, and none leaves so many on purpose.
pub(super) const CLOSE_WAIT_PILE: usize = 50;
/// Half-open connections last for a round trip; so many, twice, seconds apart, are not that.
const HALF_OPEN_PILE: u32 = 128;
/// Of an accept queue, in both looks.
const QUEUE_FULL: f64 = 0.8;
/// Fewer are a burst on a socket with a tiny backlog.
const QUEUE_WAITING_MIN: u32 = 4;
/// Of `tcp_max_tw_buckets`.
const TIME_WAIT_FULL: f64 = 0.9;

/// A shorter time between two looks says nothing about a rate.
pub(super) const SECONDS_LEAST: f64 = 1.0;

/// What was read of a host.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The second of two looks at its sockets.
    pub(super) look: Option<Look>,
    /// The time between the two.
    pub(super) seconds: f64,
    /// How the kernel's counters grew meanwhile.
    pub(super) rates: Vec<Rate>,
    /// The settings, judged.
    pub(super) settings: Vec<Judged>,
    /// `tcp_max_tw_buckets`.
    pub(super) time_wait_max: Option<u64>,
    /// `tcp_tw_reuse`.
    pub(super) tw_reuse: u8,
    /// What the other ends have closed, and nobody here.
    pub(super) piles: Vec<Pile>,
    /// What could not be read.
    pub(super) missing: Vec<Missing>,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Missing {
    /// What.
    pub(super) what: String,
    /// Why not, and what would help.
    pub(super) reason: String,
}

/// What is wrong, most urgent first; of one kind, the largest first.
pub(super) fn diagnose(reading: &Reading) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(look) = &reading.look {
        for (&to, destination) in &look.destinations {
            let worst = worst_source(reading, look, to, destination);
            found.extend(worst.and_then(judge_ports));
        }
        found.extend(queues(look));
        found.extend(half_open(look));
        found.extend(time_wait_full(look, reading.time_wait_max));
    }
    let piles = reading
        .piles
        .iter()
        .filter(|it| it.count >= CLOSE_WAIT_PILE);
    found.extend(piles.cloned().map(Finding::CloseWaitPile));
    let grown = counters::beyond_the_ordinary(&reading.rates);
    found.extend(grown.copied().map(Finding::CounterGrows));
    let harmful = reading
        .settings
        .iter()
        .filter(|it| it.verdict == Verdict::Change);
    found.extend(harmful.cloned().map(Finding::SettingHarms));
    // Stable: counters and settings stay in the order of their tables.
    found.sort_by_cached_key(|it| (it.rank(), u64::MAX - size(it), place(it)));
    found
}

/// When the ports are all taken, as things go.
pub(super) fn runs_out_seconds(ports: &PortUse, waiting: TimeWaitPorts) -> Option<u64> {
    match forecast::from_one_look(ports, waiting) {
        Forecast::RunsOut(after) => Some(after.as_secs()),
        Forecast::Lasts => None,
    }
}

/// Sorts forgotten sockets by who forgot them; of each owner, where most belong.
pub(super) fn piles(look: &Look, owner_of: impl Fn(&Socket) -> Owner) -> Vec<Pile> {
    let mut by_owner: HashMap<Owner, Vec<Place>> = HashMap::new();
    for socket in &look.forgotten {
        let places = by_owner.entry(owner_of(socket)).or_default();
        places.push(look.place(socket));
    }
    let piles = by_owner.into_iter().filter_map(|(owner, places)| {
        Some(Pile {
            owner,
            count: places.len(),
            place: most_frequent(&places)?,
        })
    });
    piles.collect()
}

fn worst_source(
    reading: &Reading,
    look: &Look,
    to: SocketAddr,
    destination: &Destination,
) -> Option<Shortage> {
    let taken = |it: &PortUse| it.used + it.time_wait;
    let (&from, ports) = destination.sources.iter().max_by_key(|(_, it)| taken(it))?;
    let waiting = TimeWaitPorts::between(reading.tw_reuse, from, to.ip());
    Some(Shortage {
        from,
        to,
        range: look.ports().range().clone(),
        count: ports.count,
        used: ports.used,
        time_wait: ports.time_wait,
        waiting,
        runs_out_seconds: runs_out_seconds(ports, waiting),
        connects_per_second: f64::from(destination.ends.new) / reading.seconds.max(SECONDS_LEAST),
    })
}

fn judge_ports(ports: Shortage) -> Option<Finding> {
    let share = |number: u32| f64::from(number) / f64::from(ports.count.max(1));
    let runs_out = ports.runs_out_seconds.is_some();
    let held = match ports.waiting {
        TimeWaitPorts::Held => ports.time_wait,
        TimeWaitPorts::Reused => 0,
    };
    if share(ports.used + held) >= TAKEN_EXHAUSTED {
        return Some(Finding::PortsExhausted(ports));
    }
    if share(held) >= TIME_WAIT_FILLING
        || share(ports.used + held) >= TAKEN_FILLING
        || runs_out && held >= FORECAST_TIME_WAIT_MIN
    {
        return Some(Finding::PortsFilling(ports));
    }
    (share(ports.time_wait) >= TIME_WAIT_CHURN).then_some(Finding::Churn(ports))
}

fn queues(look: &Look) -> impl Iterator<Item = Finding> {
    look.listeners.addresses().filter_map(|service| {
        let is_full = |waiting: u32, max: u32| {
            waiting >= QUEUE_WAITING_MIN && f64::from(waiting) >= QUEUE_FULL * f64::from(max)
        };
        let before = look.before.listener(service)?;
        let queue = look.listeners.at(service)?;
        let both = is_full(before.waiting, before.waiting_max)
            && is_full(queue.waiting, queue.waiting_max);
        both.then_some(Finding::AcceptQueueFull { service, queue })
    })
}

fn half_open(look: &Look) -> impl Iterator<Item = Finding> {
    look.services.iter().filter_map(|(&service, ends)| {
        let count = ends.half_open.min(look.before.half_open(service));
        (count >= HALF_OPEN_PILE).then_some(Finding::HalfOpenPile { service, count })
    })
}

fn time_wait_full(look: &Look, max: Option<u64>) -> Option<Finding> {
    let (count, max) = (look.time_wait_dialling + look.time_wait_listening, max?);
    let is_full = max > 0 && count as f64 >= TIME_WAIT_FULL * max as f64;
    is_full.then_some(Finding::TimeWaitFull { count, max })
}

/// Compared within one kind only.
fn size(finding: &Finding) -> u64 {
    match finding {
        Finding::PortsExhausted(ports) | Finding::PortsFilling(ports) | Finding::Churn(ports) => {
            u64::from(ports.time_wait + ports.used)
        }
        Finding::AcceptQueueFull { queue, .. } => queue.waiting.into(),
        Finding::CloseWaitPile(pile) => pile.count as u64,
        Finding::HalfOpenPile { count, .. } => (*count).into(),
        Finding::TimeWaitFull { count, .. } => *count,
        Finding::CounterGrows(_) | Finding::SettingHarms(_) => 0,
    }
}

/// Decides between equals, so that two runs say the same.
fn place(finding: &Finding) -> Option<String> {
    (size(finding) > 0).then(|| finding.subject())
}

fn most_frequent<T: Copy + Eq + Hash + Ord>(all: &[T]) -> Option<T> {
    let mut counts: HashMap<T, usize> = HashMap::new();
    for one in all {
        *counts.entry(*one).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|&(one, count)| (count, one));
    most.map(|(one, _)| one)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::census::socket::State;
    use crate::cli::doctor::look::tests::{after, look, socket};

    /// A host that dials `to` from one address: so many in TIME_WAIT, so many open.
    pub(in crate::cli::doctor) fn dialling(
        from: &str,
        to: &str,
        time_wait: u16,
        open: u16,
    ) -> Vec<Socket> {
        let states = [(State::TimeWait, time_wait), (State::Established, open)];
        let states = states
            .into_iter()
            .flat_map(|(state, count)| (0..count).map(move |_| state));
        let one = |(number, state)| socket(&format!("{from}:{}", 32_768 + number), to, state);
        states.enumerate().map(one).collect()
    }

    fn reading(sockets: &[Socket]) -> Reading {
        Reading {
            look: Some(look(&[], sockets)),
            seconds: 3.0,
            tw_reuse: 2,
            ..Reading::default()
        }
    }

    fn kinds(reading: &Reading) -> Vec<&'static str> {
        diagnose(reading).iter().map(Finding::kind).collect()
    }

    #[test]
    fn ports_are_judged_by_how_many_are_left() {
        for (to, time_wait, open, expected) in [
            ("10.0.0.2:80", 2_800, 100, None),
            ("10.0.0.2:80", 7_100, 0, Some("ports_filling")),
            ("10.0.0.2:80", 20_000, 0, Some("ports_filling")),
            ("10.0.0.2:80", 26_000, 100, Some("ports_exhausted")),
            ("10.0.0.2:80", 0, 8_000, None),
            ("10.0.0.2:80", 0, 15_000, Some("ports_filling")),
            // Ports come back after a second there.
            ("127.0.0.1:80", 10_000, 0, None),
            ("127.0.0.1:80", 20_000, 0, Some("churn")),
            ("127.0.0.1:80", 0, 27_000, Some("ports_exhausted")),
        ] {
            let from = if to.starts_with("127") {
                "127.0.0.1"
            } else {
                "10.0.0.1"
            };
            let found = kinds(&reading(&dialling(from, to, time_wait, open)));
            assert_eq!(found, Vec::from_iter(expected), "{to}: {time_wait}, {open}");
        }
    }

    #[test]
    fn the_largest_of_a_kind_comes_first() {
        let mut sockets = dialling("10.0.0.1", "10.0.0.2:80", 8_000, 0);
        sockets.extend(dialling("10.0.0.1", "10.0.0.3:80", 20_000, 0));
        sockets.extend(dialling("10.0.0.1", "10.0.0.4:80", 9_000, 0));
        let found = diagnose(&reading(&sockets));
        let subjects: Vec<_> = found.iter().map(Finding::subject).collect();
        assert_eq!(subjects, ["10.0.0.3:80", "10.0.0.4:80", "10.0.0.2:80"]);
    }

    #[test]
    fn a_queue_is_full_when_it_was_full_before() {
        let listening = |waiting, waiting_max| {
            let listener = socket("0.0.0.0:80", "0.0.0.0:0", State::Listen);
            Socket {
                receive_queue: waiting,
                send_queue: waiting_max,
                ..listener
            }
        };
        for (before, now, expected) in [
            (listening(120, 128), listening(129, 128), 1),
            (listening(0, 128), listening(129, 128), 0),
            (listening(120, 128), listening(50, 128), 0),
            (listening(2, 1), listening(2, 1), 0),
        ] {
            let before = look(&[before], &[]).into_before(Duration::from_secs(3));
            let reading = Reading {
                look: Some(after(before, &[now], &[])),
                ..Reading::default()
            };
            assert_eq!(kinds(&reading).len(), expected, "{now:?}");
        }
    }

    #[test]
    fn a_pile_is_one_owners() {
        let waiting = dialling("10.0.0.1", "10.0.0.2:80", 0, 60);
        let waiting = waiting.into_iter().map(|it| Socket {
            state: State::CloseWait,
            ..it
        });
        let waiting: Vec<Socket> = waiting.collect();
        let before = look(&[], &waiting).into_before(Duration::from_secs(3));
        let look = after(before, &[], &waiting);
        let owner_of = |socket: &Socket| match socket.local.port() % 6 {
            0 => Owner::User(2),
            _ => Owner::User(1),
        };
        let reading = Reading {
            piles: piles(&look, owner_of),
            look: Some(look),
            ..Reading::default()
        };
        let found = diagnose(&reading);
        let [Finding::CloseWaitPile(pile)] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!((&pile.owner, pile.count), (&Owner::User(1), 50));
        let to = "10.0.0.2:80".parse().expect("an address");
        assert_eq!(pile.place, Place::Destination(to));
    }

    #[test]
    fn the_table_of_time_wait_has_a_limit() {
        let full = |max| Reading {
            time_wait_max: Some(max),
            ..reading(&dialling("10.0.0.1", "10.0.0.2:80", 900, 0))
        };
        assert_eq!(kinds(&full(1_000)), ["time_wait_full"]);
        assert!(kinds(&full(10_000)).is_empty());
    }
}
