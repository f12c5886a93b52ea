//! From which source address a connection is dialled: the one with the most free ports.
//!
//! A connection is known by both addresses and both ports, so each source has all its ports anew towards
//! each endpoint. How many of them are free is known where somebody counts ([`SourcePorts::set_counted`]),
//! and estimated from the connects of the last minutes where nobody does.
//!
//! Pure: time is an argument, and whoever dials says how it went.
//!
//! Invariant: as long as one source is not known to be empty, one that is does not come before it.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use crate::census::ports::Picker;
use crate::census::ports::{PortUse, Ports, Route, TIME_WAIT};
use crate::config::checked::SourceAddress;

/// A source without a free port is passed over for so long: to find none costs the kernel a walk through
/// all of them.
pub const EMPTY_TIME: Duration = Duration::from_secs(1);
/// A count that is older says nothing about now.
const COUNT_AGE_MAX: Duration = TIME_WAIT.saturating_mul(2);

/// The ports that the kernel of this host gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPorts {
    /// `net.ipv4.ip_local_port_range`, without `net.ipv4.ip_local_reserved_ports`.
    pub given_out: Ports,
    /// Whether it can be told to keep to a range of them (ip(7), `IP_LOCAL_PORT_RANGE`; Linux 6.3).
    pub keeps_to_ranges: bool,
}

/// The sources of one endpoint; without any, the kernel chooses the address too.
#[derive(Debug)]
pub struct Sources {
    all: Vec<Arc<SourcePorts>>,
    reuse_time_wait: bool,
    host: HostPorts,
    turn: AtomicUsize,
}

/// One source address, and its ports towards one endpoint.
#[derive(Debug)]
pub struct SourcePorts {
    address: SourceAddress,
    ports: Ports,
    picker: Picker,
    next: AtomicU32,
    known: Mutex<Known>,
}

/// What the kernel holds of the ports of a source towards an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Held by connections that are opened, open or being closed.
    pub in_use: u32,
    /// Held by nothing but TIME_WAIT.
    pub time_wait: u32,
}

impl From<&PortUse> for Counted {
    fn from(ports: &PortUse) -> Self {
        Self {
            in_use: ports.used,
            time_wait: ports.time_wait,
        }
    }
}

#[derive(Debug, Default)]
struct Known {
    counted: Option<(Counted, Instant)>,
    dialled: Dialled,
    passed_over: Option<(Lack, Instant)>,
    /// When the kernel found no port to pick, whatever millpond found then.
    unpicked_at: Option<Instant>,
}

/// Why a source is passed over for a while, the better first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    /// It had no free port.
    Port,
    /// Its address was not this host's.
    Address,
}

/// Connects of the last one to two minutes: at least as many as are in TIME_WAIT.
#[derive(Debug, Default)]
struct Dialled {
    minute: Option<Instant>,
    in_minute: u32,
    in_minute_before: u32,
}

impl Default for HostPorts {
    /// What a kernel begins with.
    fn default() -> Self {
        Self {
            given_out: Ports::default(),
            keeps_to_ranges: true,
        }
    }
}

impl Default for Sources {
    /// None.
    fn default() -> Self {
        Self::new(&[], false, HostPorts::default())
    }
}

impl HostPorts {
    /// Those towards one address, where nobody says from which.
    pub fn route(&self, to: SocketAddr) -> Route {
        Route {
            from: None,
            to: Some(to),
            ports: self.given_out.clone(),
            picker: Picker::Kernel,
        }
    }

    fn can_pick_from(&self, range: &RangeInclusive<u16>) -> bool {
        let own = self.given_out.range();
        self.keeps_to_ranges && own.contains(range.start()) && own.contains(range.end())
    }
}

impl Sources {
    /// These addresses, on a host with these ports.
    pub fn new(addresses: &[SourceAddress], reuse_time_wait: bool, host: HostPorts) -> Self {
        let ports_of = |address: &SourceAddress| Arc::new(SourcePorts::new(address.clone(), &host));
        Self {
            all: addresses.iter().map(ports_of).collect(),
            reuse_time_wait,
            host,
            turn: AtomicUsize::new(0),
        }
    }

    /// Whether they are made of these.
    pub fn is_of(
        &self,
        addresses: &[SourceAddress],
        reuse_time_wait: bool,
        host: &HostPorts,
    ) -> bool {
        let own = self.all.iter().map(|it| &it.address);
        own.eq(addresses) && self.reuse_time_wait == reuse_time_wait && self.host == *host
    }

    /// Every one of them.
    pub fn all(&self) -> &[Arc<SourcePorts>] {
        &self.all
    }

    /// Whether a port may be taken out of TIME_WAIT when no other is free.
    pub fn reuse_time_wait(&self) -> bool {
        self.reuse_time_wait
    }

    /// The ports of one of them towards `to`.
    pub fn route(&self, source: &SourcePorts, to: SocketAddr) -> Route {
        Route {
            from: Some(source.address.ip),
            to: (!self.is_exclusive(source)).then_some(to),
            ports: source.ports.clone(),
            picker: source.picker,
        }
    }

    /// Whether a port of `source` serves one endpoint at a time.
    pub fn is_exclusive(&self, source: &SourcePorts) -> bool {
        source.picker == Picker::Millpond && !self.reuse_time_wait
    }

    /// Which to try towards `endpoint`, one after the other: the one with the most free ports first. Of those
    /// that were found empty just now only the one that was so first, last.
    pub fn order(&self, endpoint: IpAddr, now: Instant) -> Vec<Arc<SourcePorts>> {
        let is_ipv4 = endpoint.is_ipv4();
        let fits = |it: &&Arc<SourcePorts>| it.address.ip.is_ipv4() == is_ipv4;
        let fit = self.all.iter().filter(fits).cloned();
        let (mut order, empty): (Vec<_>, Vec<_>) =
            fit.partition(|it| it.passed_over(now).is_none());
        // Those with equally many take turns.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(order.len()).unwrap_or(0);
        order.rotate_left(first);
        order.sort_by_key(|it| Reverse(it.free(now)));
        order.extend(empty.into_iter().min_by_key(|it| it.passed_over(now)));
        order
    }
}

impl SourcePorts {
    fn new(address: SourceAddress, host: &HostPorts) -> Self {
        let picker = match &address.ports {
            Some(ports) if !host.can_pick_from(ports) => Picker::Millpond,
            _ => Picker::Kernel,
        };
        let ports = match (&address.ports, picker) {
            (None, _) => host.given_out.clone(),
            (Some(range), Picker::Kernel) => host.given_out.within(range),
            (Some(range), Picker::Millpond) => Ports::new(range.clone(), &[]),
        };
        Self {
            address,
            ports,
            picker,
            next: AtomicU32::new(0),
            known: Mutex::default(),
        }
    }

    /// The address, as configured.
    pub fn address(&self) -> &SourceAddress {
        &self.address
    }

    /// The ports to dial from: its own, or the host's.
    pub fn range(&self) -> &RangeInclusive<u16> {
        self.ports.range()
    }

    /// Who picks one.
    pub fn picker(&self) -> Picker {
        self.picker
    }

    /// How many of them can be had at all.
    pub fn ports(&self) -> u32 {
        self.ports.count()
    }

    /// How many are free, as far as that is known.
    pub fn free(&self, now: Instant) -> u32 {
        let known = self.lock();
        let counted = known
            .counted
            .filter(|(_, at)| is_within(*at, COUNT_AGE_MAX, now));
        let counted = counted.map_or(0, |(it, _)| it.in_use + it.time_wait);
        let taken = counted.saturating_add(known.dialled.recently(now));
        self.ports().saturating_sub(taken)
    }

    /// The next port where millpond picks it: each of the range before one comes again, so that each rests
    /// as long as it can.
    pub fn next_port(&self) -> u16 {
        let range = self.range();
        let length = u32::from(range.end() - range.start()) + 1;
        let next = self.next.fetch_add(1, Ordering::Relaxed) % length;
        let offset = u16::try_from(next).expect("a range of ports has at most 65,536");
        range.start() + offset
    }

    /// Whether the kernel may find a port to pick: its picker, unless it found none just now.
    pub fn may_be_picked(&self, now: Instant) -> bool {
        let unpicked_at = self.lock().unpicked_at;
        let is_empty = unpicked_at.is_some_and(|at| is_within(at, EMPTY_TIME, now));
        self.picker == Picker::Kernel && !is_empty
    }

    /// The kernel found no port to pick.
    pub fn on_unpicked(&self, now: Instant) {
        self.lock().unpicked_at = Some(now);
    }

    /// A port of it was dialled from.
    pub fn on_dialled(&self, now: Instant) {
        let mut known = self.lock();
        known.dialled.add(now);
        known.passed_over = None;
    }

    /// It had no free port.
    pub fn on_empty(&self, now: Instant) {
        self.lock().passed_over = Some((Lack::Port, now));
    }

    /// Its address was not this host's; whether that is news.
    pub fn on_foreign(&self, now: Instant) -> bool {
        let before = self.lock().passed_over.replace((Lack::Address, now));
        !matches!(before, Some((Lack::Address, _)))
    }

    /// What the kernel says now. What was estimated since is in it.
    pub fn set_counted(&self, counted: Counted, now: Instant) {
        let mut known = self.lock();
        known.counted = Some((counted, now));
        known.dialled = Dialled::default();
        if counted.in_use + counted.time_wait < self.ports() {
            known.passed_over = known.passed_over.filter(|(lack, _)| *lack != Lack::Port);
        }
    }

    /// What it lacked and when, while that may still hold.
    fn passed_over(&self, now: Instant) -> Option<(Lack, Instant)> {
        let lack = self.lock().passed_over;
        lack.filter(|(_, since)| is_within(*since, EMPTY_TIME, now))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dialled {
    fn add(&mut self, now: Instant) {
        match self.minute {
            Some(minute) if is_within(minute, TIME_WAIT, now) => self.in_minute += 1,
            Some(minute) => {
                let is_next = is_within(minute, TIME_WAIT * 2, now);
                self.in_minute_before = if is_next { self.in_minute } else { 0 };
                (self.minute, self.in_minute) = (Some(now), 1);
            }
            None => (self.minute, self.in_minute) = (Some(now), 1),
        }
    }

    fn recently(&self, now: Instant) -> u32 {
        match self.minute {
            Some(minute) if is_within(minute, TIME_WAIT, now) => {
                self.in_minute + self.in_minute_before
            }
            Some(minute) if is_within(minute, TIME_WAIT * 2, now) => self.in_minute,
            _ => 0,
        }
    }
}

fn is_within(at: Instant, time: Duration, now: Instant) -> bool {
    now.saturating_duration_since(at) < time
}

#[cfg(test)]
mod tests;
