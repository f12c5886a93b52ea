//! How many of the ports towards one address are taken, and by what.
//!
//! A connect takes a local port that no other socket has towards the same address from the same IP. So
//! ports run out for each pair of source and destination by itself, however few sockets there are.
//!
//! Pure: counts sockets that somebody else has listed.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::socket::{Socket, State};

/// The ports that a connect may take.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ports {
    range: RangeInclusive<u16>,
    /// Of these it takes none.
    reserved: Vec<RangeInclusive<u16>>,
}

impl Default for Ports {
    /// What a kernel begins with.
    fn default() -> Self {
        Self::new(32_768..=60_999, &[])
    }
}

impl Ports {
    /// Those of `range` that are not `reserved`.
    pub fn new(range: RangeInclusive<u16>, reserved: &[RangeInclusive<u16>]) -> Self {
        let reserved = reserved
            .iter()
            .map(|it| *it.start().max(range.start())..=*it.end().min(range.end()))
            .filter(|it| !it.is_empty())
            .collect();
        Self { range, reserved }
    }

    /// Those of them that are within `range`.
    pub fn within(&self, range: &RangeInclusive<u16>) -> Self {
        let first = *self.range.start().max(range.start());
        let last = *self.range.end().min(range.end());
        Self::new(first..=last, &self.reserved)
    }

    /// From the first to the last.
    pub fn range(&self) -> &RangeInclusive<u16> {
        &self.range
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        let span = |it: &RangeInclusive<u16>| match it.is_empty() {
            true => 0,
            false => u32::from(it.end() - it.start()) + 1,
        };
        // The kernel keeps the reserved ones as a set: no port stands in two of its ranges.
        span(&self.range) - self.reserved.iter().map(span).sum::<u32>()
    }

    /// Whether `port` is one of them.
    pub fn has(&self, port: u16) -> bool {
        self.range.contains(&port) && !self.reserved.iter().any(|it| it.contains(&port))
    }
}

/// Who picks the port that a connect takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Picker {
    /// The kernel, when it connects: any that is free towards this endpoint.
    Kernel,
    /// millpond, since the kernel keeps to no range, or to none that is not wholly within its own (ip(7),
    /// `IP_LOCAL_PORT_RANGE`): only what is free towards all endpoints.
    Millpond,
}

/// Ports from one address to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// Our own address; `None`: any of this host.
    pub from: Option<IpAddr>,
    /// The service's; `None`: any, where a port serves one at a time.
    pub to: Option<SocketAddr>,
    /// What a connect may take.
    pub ports: Ports,
    /// Who picks one.
    pub picker: Picker,
}

impl Route {
    /// Whether `socket` takes one of its ports.
    pub fn is_taken_by(&self, socket: &Socket) -> bool {
        self.to.is_none_or(|to| to == socket.peer)
            && self.from.is_none_or(|from| from == socket.local.ip())
            && self.ports.has(socket.local.port())
    }

    /// Whether one of its ports can't be had because somebody listens on it: what the kernel picks is none
    /// that is listened on at whatever address (`inet_hash_connect` in net/ipv4/inet_hashtables.c), and
    /// what is bound none that is at the same one.
    pub fn is_listened_on(&self, listening: SocketAddr) -> bool {
        let ip = listening.ip();
        let is_in_the_way =
            self.picker == Picker::Kernel || ip.is_unspecified() || self.from == Some(ip);
        is_in_the_way && self.ports.has(listening.port())
    }
}

/// For how long the kernel keeps TIME_WAIT (`TCP_TIMEWAIT_LEN` in include/net/tcp.h), whatever is
/// configured.
pub const TIME_WAIT: Duration = Duration::from_secs(TIME_WAIT_SECONDS as u64);

/// The same in whole seconds.
pub(super) const TIME_WAIT_SECONDS: usize = 60;

/// What the ports of a route are taken by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortUse {
    /// There are so many.
    pub count: u32,
    /// Taken by connections, those included that are being made or closed, and by listeners.
    pub used: u32,
    /// Taken by TIME_WAIT.
    pub time_wait: u32,
    /// Of those: by how many whole seconds are left of it.
    expiring: [u32; TIME_WAIT_SECONDS],
}

impl PortUse {
    /// Nothing is taken of these ports.
    pub fn none_of(ports: &Ports) -> Self {
        Self {
            count: ports.count(),
            used: 0,
            time_wait: 0,
            expiring: [0; TIME_WAIT_SECONDS],
        }
    }

    /// Counts a socket that takes one of them.
    pub fn add(&mut self, socket: &Socket) {
        if socket.state != State::TimeWait {
            self.used += 1;
            return;
        }
        self.time_wait += 1;
        let left = socket.time_wait_left.unwrap_or(Duration::ZERO).as_secs();
        let second = usize::try_from(left).unwrap_or(usize::MAX);
        self.expiring[second.min(TIME_WAIT_SECONDS - 1)] += 1;
    }

    /// Taken by nothing. One route's sockets that were listed while they changed can be listed twice.
    pub fn free(&self) -> u32 {
        self.count.saturating_sub(self.used + self.time_wait)
    }

    /// Those in TIME_WAIT now that will be in it after `seconds` too.
    pub fn still_waiting_after(&self, seconds: usize) -> u32 {
        let later = self.expiring.get(seconds..).unwrap_or(&[]);
        later.iter().sum()
    }

    /// How many have entered TIME_WAIT in the last `seconds`, as far as it lasts.
    pub fn entered_within(&self, seconds: usize) -> u32 {
        self.still_waiting_after(TIME_WAIT_SECONDS.saturating_sub(seconds))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::census) fn socket(port: u16, state: State, left: u64) -> Socket {
        Socket {
            state,
            local: ([10, 0, 0, 1], port).into(),
            peer: ([10, 0, 0, 2], 80).into(),
            inode: 0,
            user_id: 0,
            cookie: u64::from(port),
            receive_queue: 0,
            send_queue: 0,
            time_wait_left: (state == State::TimeWait).then(|| Duration::from_secs(left)),
        }
    }

    #[test]
    fn ports_are_the_range_without_what_is_reserved() {
        let ports = Ports::new(1000..=1999, &[900..=1000, 1500..=1509, 1999..=3000, 5..=6]);
        assert_eq!(ports.count(), 1000 - 1 - 10 - 1);
        assert!(ports.has(1001) && ports.has(1998));
        assert!(!ports.has(1000) && !ports.has(1505) && !ports.has(999));
        assert_eq!(Ports::new(7..=7, &[]).count(), 1);
        assert_eq!(Ports::new(0..=u16::MAX, &[]).count(), 65_536);
        assert_eq!(Ports::new(7..=7, &[1..=9]).count(), 0);
        assert_eq!(ports.within(&(1490..=5000)).count(), 510 - 10 - 1);
        assert_eq!(ports.within(&(2000..=5000)).count(), 0);
    }

    #[test]
    fn a_route_is_one_source_one_destination_and_its_ports() {
        let route = Route {
            from: Some([10, 0, 0, 1].into()),
            to: Some(([10, 0, 0, 2], 80).into()),
            ports: Ports::new(1000..=1999, &[]),
            picker: Picker::Kernel,
        };
        let taken = socket(1000, State::Established, 0);
        assert!(route.is_taken_by(&taken));
        let outside = socket(2000, State::Established, 0);
        assert!(!route.is_taken_by(&outside));
        let other_source = Socket {
            local: ([10, 0, 0, 9], 1000).into(),
            ..taken
        };
        assert!(!route.is_taken_by(&other_source));
        let other_service = Socket {
            peer: ([10, 0, 0, 2], 81).into(),
            ..taken
        };
        assert!(!route.is_taken_by(&other_service));
    }

    #[test]
    fn what_takes_a_port_is_a_connection_or_time_wait() {
        let mut taken = PortUse::none_of(&Ports::new(1000..=1099, &[]));
        taken.add(&socket(1000, State::Established, 0));
        taken.add(&socket(1001, State::SynSent, 0));
        for (port, left) in [(1002, 59), (1003, 59), (1004, 30), (1005, 0), (1006, 61)] {
            taken.add(&socket(port, State::TimeWait, left));
        }
        assert_eq!((taken.used, taken.time_wait, taken.free()), (2, 5, 93));
        assert_eq!(taken.still_waiting_after(0), 5);
        assert_eq!(taken.still_waiting_after(1), 4);
        assert_eq!(taken.still_waiting_after(31), 3);
        assert_eq!(taken.still_waiting_after(60), 0);
        assert_eq!(taken.entered_within(1), 3);
        assert_eq!(taken.entered_within(30), 4);
        assert_eq!(taken.entered_within(100), 5);
    }
}
