//! One look at the sockets of a host, by destination and by service; of the second of two looks also
//! what is new.
//!
//! A socket whose own address is one that is listened on was accepted here; any other was dialled. What
//! a side that dialled keeps in TIME_WAIT takes a port towards its destination; what a listening side
//! keeps takes memory alone.
//!
//! Pure: counts sockets that somebody else has listed. Invariant: memory is bounded, whatever is listed;
//! what went beyond a bound is counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::census::ports::{PortUse, Ports, TIME_WAIT};
use crate::census::socket::{Socket, State};

/// So many pairs of own address and destination are told apart, some 5 MiB.
const ROUTES_MAX: usize = 16_384;
/// So many listening addresses.
const LISTENERS_MAX: usize = 16_384;
/// So many connections are remembered from one look to the next, some 8 MiB.
const REMEMBERED_MAX: usize = 262_144;

/// A listening address, with the fullest queue of the sockets that listen on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listener {
    /// Connections that nobody has accepted.
    pub(super) waiting: u32,
    /// The most that may wait.
    pub(super) waiting_max: u32,
}

/// Who listens where.
#[derive(Debug, Clone, Default)]
pub(super) struct Listeners(HashMap<SocketAddr, Listener>);

impl Listeners {
    /// Takes note of a listening socket.
    pub(super) fn add(&mut self, socket: &Socket) {
        let new = Listener {
            waiting: socket.receive_queue,
            waiting_max: socket.send_queue,
        };
        if self.0.len() >= LISTENERS_MAX && !self.0.contains_key(&socket.local) {
            return;
        }
        let listener = self.0.entry(socket.local).or_insert(new);
        if new.waiting > listener.waiting {
            *listener = new;
        }
    }

    /// The listener at exactly this address.
    pub(super) fn at(&self, address: SocketAddr) -> Option<Listener> {
        self.0.get(&address).copied()
    }

    /// Every listening address.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.keys().copied()
    }

    /// The listening address that a connection to `local` reaches.
    fn reached_by(&self, local: SocketAddr) -> Option<SocketAddr> {
        let port = local.port();
        let any_v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let candidates = [Some(local), local.is_ipv4().then_some(any_v4), Some(any)];
        let mut candidates = candidates.into_iter().flatten();
        candidates.find(|it| self.0.contains_key(it))
    }
}

/// What is remembered of a look for the next one.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Connections, by both addresses.
    connections: HashSet<u64>,
    /// Cookies of those that the other end had closed.
    close_wait: HashSet<u64>,
    /// Half-open connections of each service.
    half_open: HashMap<SocketAddr, u32>,
    /// Who listened, and how many waited there.
    listeners: Listeners,
    /// How long ago it was.
    elapsed: Duration,
}

impl Before {
    /// The listener at exactly this address, as it was.
    pub(super) fn listener(&self, address: SocketAddr) -> Option<Listener> {
        self.listeners.at(address)
    }

    /// Half-open connections of a service, as they were.
    pub(super) fn half_open(&self, service: SocketAddr) -> u32 {
        self.half_open.get(&service).copied().unwrap_or(0)
    }
}

/// Where a socket belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    /// It was accepted at this address of ours.
    Service(SocketAddr),
    /// It was dialled to this one.
    Destination(SocketAddr),
}

/// Sockets of one destination, or of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// Closed here first.
    pub(super) time_wait: u32,
    /// Open, being opened, or being closed here.
    pub(super) open: u32,
    /// Closed by the other end, and not yet here.
    pub(super) close_wait: u32,
    /// Answered and not confirmed.
    pub(super) half_open: u32,
    /// Made since the look before.
    pub(super) new: u32,
}

/// What this host dials.
#[derive(Debug, Clone, Default)]
pub(super) struct Destination {
    /// Its sockets.
    pub(super) ends: Ends,
    /// Ports towards it, by our own address.
    pub(super) sources: BTreeMap<IpAddr, PortUse>,
}

/// What the sockets of a host are.
#[derive(Debug)]
pub(super) struct Look {
    /// What is dialled.
    pub(super) destinations: HashMap<SocketAddr, Destination>,
    /// What is listened on; an address that is not any more has no [`Listener`].
    pub(super) services: HashMap<SocketAddr, Ends>,
    /// Who listens.
    pub(super) listeners: Listeners,
    /// Those that the other end has closed in this look and in the one before.
    pub(super) forgotten: Vec<Socket>,
    /// TIME_WAIT on the side that dialled.
    pub(super) time_wait_dialling: u64,
    /// TIME_WAIT on the side that listens.
    pub(super) time_wait_listening: u64,
    /// Sockets that were beyond a bound.
    pub(super) uncounted: u64,
    /// The look before.
    pub(super) before: Before,
    ports: Ports,
    routes: usize,
    remembered: Before,
}

impl Look {
    /// A look that begins now, where `listeners` listen and a connect takes one of `ports`.
    pub(super) fn new(listeners: Listeners, ports: Ports, before: Before) -> Self {
        Self {
            destinations: HashMap::new(),
            services: HashMap::new(),
            listeners,
            forgotten: Vec::new(),
            time_wait_dialling: 0,
            time_wait_listening: 0,
            uncounted: 0,
            before,
            ports,
            routes: 0,
            remembered: Before::default(),
        }
    }

    /// Takes note of a socket that does not listen.
    pub(super) fn add(&mut self, socket: &Socket) {
        let is_new = self.is_new(socket);
        match self.service_of(socket) {
            Some(service) => self.add_accepted(service, socket, is_new),
            None => self.add_dialled(socket, is_new),
        }
        self.remember(socket);
    }

    /// What the next look needs of this one, so much later.
    pub(super) fn into_before(self, elapsed: Duration) -> Before {
        let half_open = self.services.iter();
        let half_open = half_open.map(|(address, ends)| (*address, ends.half_open));
        Before {
            half_open: half_open.collect(),
            listeners: self.listeners,
            elapsed,
            ..self.remembered
        }
    }

    /// Where the socket belongs: the service that it was accepted by, or what it was dialled to.
    pub(super) fn place(&self, socket: &Socket) -> Place {
        match self.service_of(socket) {
            Some(service) => Place::Service(service),
            None => Place::Destination(socket.peer),
        }
    }

    /// Ports that a connect may take.
    pub(super) fn ports(&self) -> &Ports {
        &self.ports
    }

    /// `None`: it was dialled. A service that does not listen any more is told by its port, which is
    /// none that a connect would get, while the other end's is.
    fn service_of(&self, socket: &Socket) -> Option<SocketAddr> {
        let was_one = || !self.ports.has(socket.local.port()) && self.ports.has(socket.peer.port());
        let listening = self.listeners.reached_by(socket.local);
        listening.or_else(|| was_one().then_some(socket.local))
    }

    fn add_accepted(&mut self, service: SocketAddr, socket: &Socket, is_new: bool) {
        if socket.state == State::TimeWait {
            self.time_wait_listening += 1;
        }
        if self.services.len() >= ROUTES_MAX && !self.services.contains_key(&service) {
            self.uncounted += 1;
            return;
        }
        self.services
            .entry(service)
            .or_default()
            .add(socket, is_new);
    }

    fn add_dialled(&mut self, socket: &Socket, is_new: bool) {
        if socket.state == State::TimeWait {
            self.time_wait_dialling += 1;
        }
        let source = socket.local.ip();
        let known = self.destinations.get(&socket.peer);
        if !known.is_some_and(|it| it.sources.contains_key(&source)) {
            if self.routes >= ROUTES_MAX {
                self.uncounted += 1;
                return;
            }
            self.routes += 1;
        }
        let destination = self.destinations.entry(socket.peer).or_default();
        destination.ends.add(socket, is_new);
        let sources = &mut destination.sources;
        let taken = sources
            .entry(source)
            .or_insert_with(|| PortUse::none_of(&self.ports));
        if self.ports.has(socket.local.port()) {
            taken.add(socket);
        }
    }

    fn is_new(&self, socket: &Socket) -> bool {
        if self.before.connections.contains(&pair(socket)) {
            return false;
        }
        let age = socket
            .time_wait_left
            .map(|left| TIME_WAIT.saturating_sub(left));
        socket.state != State::TimeWait || age.is_some_and(|age| age < self.before.elapsed)
    }

    fn remember(&mut self, socket: &Socket) {
        if socket.state == State::TimeWait {
            return;
        }
        if self.remembered.connections.len() < REMEMBERED_MAX {
            self.remembered.connections.insert(pair(socket));
        }
        if socket.state != State::CloseWait {
            return;
        }
        if self.before.close_wait.contains(&socket.cookie) {
            self.forgotten.push(*socket);
        }
        if self.remembered.close_wait.len() < REMEMBERED_MAX {
            self.remembered.close_wait.insert(socket.cookie);
        }
    }
}

impl Ends {
    fn add(&mut self, socket: &Socket, is_new: bool) {
        match socket.state {
            State::TimeWait => self.time_wait += 1,
            State::CloseWait | State::LastAck => self.close_wait += 1,
            State::SynReceived => self.half_open += 1,
            State::Established
            | State::SynSent
            | State::FinWait1
            | State::FinWait2
            | State::Close
            | State::Closing => self.open += 1,
            State::Listen => {}
        }
        self.new += u32::from(is_new);
    }
}

/// A connection has no other name that lasts into TIME_WAIT.
fn pair(socket: &Socket) -> u64 {
    let mut hasher = DefaultHasher::new();
    (socket.local, socket.peer).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A socket of this host's.
    pub(in crate::cli::doctor) fn socket(local: &str, peer: &str, state: State) -> Socket {
        let address = |text: &str| text.parse().expect("an address");
        let mut socket = Socket {
            state,
            local: address(local),
            peer: address(peer),
            inode: 7,
            user_id: 1000,
            cookie: 0,
            receive_queue: 0,
            send_queue: 0,
            time_wait_left: (state == State::TimeWait).then(|| Duration::from_secs(30)),
        };
        socket.cookie = pair(&socket);
        socket
    }

    pub(in crate::cli::doctor) fn look(listening: &[Socket], sockets: &[Socket]) -> Look {
        after(Before::default(), listening, sockets)
    }

    pub(in crate::cli::doctor) fn after(
        before: Before,
        listening: &[Socket],
        sockets: &[Socket],
    ) -> Look {
        let mut listeners = Listeners::default();
        for socket in listening {
            listeners.add(socket);
        }
        let mut look = Look::new(listeners, Ports::new(32_768..=60_999, &[]), before);
        for socket in sockets {
            look.add(socket);
        }
        look
    }

    fn listening(address: &str) -> Socket {
        socket(address, "0.0.0.0:0", State::Listen)
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn who_listens_tells_the_sides_apart() {
        let listeners = [
            listening("0.0.0.0:80"),
            listening("[::]:443"),
            listening("10.0.0.1:81"),
        ];
        let sockets = [
            socket("10.0.0.1:80", "10.0.0.9:40000", State::TimeWait),
            socket("10.0.0.1:443", "10.0.0.9:40000", State::Established),
            socket("[fd00::1]:443", "[fd00::2]:40000", State::CloseWait),
            socket("10.0.0.1:81", "10.0.0.9:40000", State::TimeWait),
            socket("10.0.0.1:40001", "10.0.0.2:80", State::TimeWait),
            // Was listened on until a moment ago.
            socket("10.0.0.1:82", "10.0.0.9:40000", State::TimeWait),
        ];
        let look = look(&listeners, &sockets);
        assert_eq!((look.time_wait_dialling, look.time_wait_listening), (1, 3));
        let services = ["0.0.0.0:80", "[::]:443", "10.0.0.1:81", "10.0.0.1:82"];
        for service in services {
            assert!(look.services.contains_key(&at(service)), "{service}");
        }
        assert_eq!(look.services[&at("[::]:443")].open, 1);
        assert_eq!(look.services[&at("[::]:443")].close_wait, 1);
        let dialled = &look.destinations[&at("10.0.0.2:80")];
        assert_eq!(dialled.ends.time_wait, 1);
        assert_eq!(dialled.sources[&at("10.0.0.1:0").ip()].time_wait, 1);
    }

    #[test]
    fn a_port_outside_the_range_takes_none_of_it() {
        let look = look(
            &[],
            &[socket("10.0.0.1:1024", "10.0.0.2:80", State::TimeWait)],
        );
        let dialled = &look.destinations[&at("10.0.0.2:80")];
        assert_eq!(dialled.ends.time_wait, 1);
        assert_eq!(dialled.sources[&at("10.0.0.1:0").ip()].time_wait, 0);
    }

    #[test]
    fn what_is_new_came_between_the_looks() {
        let open = socket("10.0.0.1:40001", "10.0.0.2:80", State::Established);
        let before = look(&[], &[open]).into_before(Duration::from_secs(3));
        let waiting = |port: u16, left: u64| Socket {
            local: SocketAddr::new(open.local.ip(), port),
            state: State::TimeWait,
            time_wait_left: Some(Duration::from_secs(left)),
            ..open
        };
        let sockets = [
            open,
            // Was open before; ended before; came and ended; came.
            waiting(40_001, 59),
            waiting(40_002, 30),
            waiting(40_003, 58),
            socket("10.0.0.1:40004", "10.0.0.2:80", State::Established),
        ];
        let look = after(before, &[], &sockets);
        assert_eq!(look.destinations[&at("10.0.0.2:80")].ends.new, 2);
    }

    #[test]
    fn forgotten_is_what_waits_to_be_closed_in_both_looks() {
        let old = socket("10.0.0.1:40001", "10.0.0.2:80", State::CloseWait);
        let new = socket("10.0.0.1:40002", "10.0.0.2:80", State::CloseWait);
        let before = look(&[], &[old]).into_before(Duration::from_secs(3));
        let look = after(before, &[], &[old, new]);
        assert_eq!(look.forgotten, [old]);
    }

    #[test]
    fn destinations_are_bounded_and_the_rest_is_counted() {
        let many = (0..ROUTES_MAX + 10).map(|number| {
            let ip = Ipv4Addr::from(0x0b00_0000 + u32::try_from(number).expect("few"));
            socket("10.0.0.1:40001", &format!("{ip}:80"), State::TimeWait)
        });
        let look = look(&[], &many.collect::<Vec<_>>());
        assert_eq!(look.destinations.len(), ROUTES_MAX);
        assert_eq!(look.uncounted, 10);
        assert_eq!(look.time_wait_dialling, ROUTES_MAX as u64 + 10);
    }
}
