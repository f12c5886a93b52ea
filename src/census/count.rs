//! Counts listed sockets by the leg that they are on, and the ports that they take.
//!
//! A leg is a listener or an upstream. Where its other end is on this host, that end's sockets are listed
//! too: they are the peer's, and told apart by which of the two addresses is the leg's.
//!
//! Pure: sockets in, numbers out.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::filter::{Condition, End, Filter};
use super::ports::{PortUse, Route};
use super::socket::{ByState, Socket, State};
use crate::close::Side;

/// One leg, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Who dials: the clients, or millpond.
    pub side: Side,
    /// Where it is dialled: a listener's address, or those of an upstream's endpoints.
    pub addresses: Vec<SocketAddr>,
}

/// The sockets of one leg.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LegCount {
    by_state: ByState,
    /// TIME_WAIT that the leg's peers keep on this host.
    pub peers_time_wait: u64,
}

impl LegCount {
    /// Those on our side in this state. Towards a service they may be another program's: the kernel does
    /// not say whose a socket was that is in TIME_WAIT.
    pub fn in_state(&self, state: State) -> u64 {
        self.by_state.of(state)
    }
}

/// A socket on our side of a leg that some process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The leg, by its place.
    pub leg: usize,
    /// The socket.
    pub cookie: u64,
    /// Its name among the descriptors of whoever has it.
    pub inode: u32,
}

/// What is counted, and what was so far.
#[derive(Debug)]
pub struct Count {
    sides: Vec<Side>,
    /// Where legs are, by port; `None`: at any address of this host.
    places: HashMap<u16, Vec<(Option<IpAddr>, usize)>>,
    planned: Vec<Route>,
    /// The routes from one address to one other.
    towards: HashMap<(IpAddr, SocketAddr), Vec<usize>>,
    /// The others, and which of our addresses takes a port of theirs: several sockets may have it.
    wide: Vec<usize>,
    taken: HashSet<(usize, SocketAddr)>,
    /// The legs' sockets, in their order.
    pub legs: Vec<LegCount>,
    /// What the routes' ports are taken by, in their order.
    pub routes: Vec<PortUse>,
    /// The sockets that somebody has.
    pub held: Vec<Held>,
}

/// What has the kernel list the sockets of these legs and routes; `None`: none of them is TCP's.
pub fn filter(legs: &[Leg], routes: &[Route]) -> Option<Filter> {
    let mut conditions = Vec::new();
    let places = legs.iter().flat_map(|leg| &leg.addresses);
    let places = places.copied().chain(routes.iter().filter_map(|it| it.to));
    for place in places {
        conditions.push(Condition::at(End::Local, place));
        conditions.push(Condition::at(End::Peer, place));
    }
    let whole_sources = routes.iter().filter(|it| it.to.is_none());
    conditions.extend(whole_sources.map(|it| Condition {
        end: End::Local,
        address: it.from,
        port: None,
    }));
    let mut seen = HashSet::new();
    conditions.retain(|condition| seen.insert(*condition));
    Filter::any_of(conditions)
}

impl Count {
    /// Nothing counted yet.
    pub fn new(legs: &[Leg], routes: &[Route]) -> Self {
        let mut places = HashMap::<u16, Vec<_>>::new();
        for (number, leg) in legs.iter().enumerate() {
            for address in &leg.addresses {
                let ip = address.ip().to_canonical();
                let place = ((!ip.is_unspecified()).then_some(ip), number);
                places.entry(address.port()).or_default().push(place);
            }
        }
        let mut towards = HashMap::<_, Vec<_>>::new();
        let mut wide = Vec::new();
        for (number, route) in routes.iter().enumerate() {
            match (route.from, route.to) {
                (Some(from), Some(to)) => towards.entry((from, to)).or_default().push(number),
                _ => wide.push(number),
            }
        }
        Self {
            sides: legs.iter().map(|leg| leg.side).collect(),
            places,
            planned: routes.to_vec(),
            towards,
            wide,
            taken: HashSet::new(),
            legs: vec![LegCount::default(); legs.len()],
            routes: routes
                .iter()
                .map(|it| PortUse::none_of(&it.ports))
                .collect(),
            held: Vec::new(),
        }
    }

    /// Counts a port that somebody listens on. To be told of each address once.
    pub fn add_listening(&mut self, listening: SocketAddr) {
        for (number, route) in self.planned.iter().enumerate() {
            let place = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), listening.port());
            if route.is_listened_on(listening) && self.taken.insert((number, place)) {
                self.routes[number].used += 1;
            }
        }
    }

    /// Counts one socket that is not listening.
    pub fn add(&mut self, socket: &Socket) {
        self.add_to_legs(socket);
        let towards = self.towards.get(&(socket.local.ip(), socket.peer));
        for &number in towards.into_iter().flatten() {
            if self.planned[number].is_taken_by(socket) {
                self.routes[number].add(socket);
            }
        }
        for &number in &self.wide {
            if self.planned[number].is_taken_by(socket) && self.taken.insert((number, socket.local))
            {
                self.routes[number].add(socket);
            }
        }
    }

    fn add_to_legs(&mut self, socket: &Socket) {
        let (local, peer) = (socket.local, socket.peer);
        // Whether the other end is this host's too.
        let is_local = peer.ip() == local.ip() || peer.ip().is_loopback();
        let ends = [
            (local, Side::Downstream, true),
            (peer, Side::Upstream, is_local),
        ];
        for (place, ours, is_here) in ends {
            for &(ip, leg) in self.places.get(&place.port()).into_iter().flatten() {
                if ip.is_some_and(|ip| ip != place.ip()) || (ip.is_none() && !is_here) {
                    continue;
                }
                if self.sides[leg] == ours {
                    self.legs[leg].by_state.add(socket.state);
                    if socket.inode != 0 {
                        let Socket { cookie, inode, .. } = *socket;
                        self.held.push(Held { leg, cookie, inode });
                    }
                } else if socket.state == State::TimeWait {
                    self.legs[leg].peers_time_wait += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::ports::{Picker, Ports};

    fn socket(local: &str, peer: &str, state: State, inode: u32) -> Socket {
        Socket {
            state,
            local: local.parse().expect("an address"),
            peer: peer.parse().expect("an address"),
            inode,
            user_id: 0,
            cookie: u64::from(inode),
            receive_queue: 0,
            send_queue: 0,
            time_wait_left: None,
        }
    }

    fn leg(side: Side, address: &str) -> Leg {
        Leg {
            side,
            addresses: vec![address.parse().expect("an address")],
        }
    }

    fn counted(legs: &[Leg], routes: &[Route], sockets: &[Socket]) -> Count {
        let mut count = Count::new(legs, routes);
        for socket in sockets {
            count.add(socket);
        }
        count
    }

    #[test]
    fn each_end_is_counted_on_its_side_of_its_leg() {
        use State::{CloseWait, Established, TimeWait};
        let legs = [
            leg(Side::Downstream, "0.0.0.0:81"),
            leg(Side::Upstream, "127.0.0.1:80"),
        ];
        let sockets = [
            // A client's connection: our end, and its own.
            socket("127.0.0.1:81", "127.0.0.1:4000", Established, 1),
            socket("127.0.0.1:4000", "127.0.0.1:81", Established, 2),
            socket("10.0.0.1:81", "10.0.0.9:4000", CloseWait, 3),
            socket("10.0.0.1:81", "10.0.0.9:4001", TimeWait, 0),
            socket("127.0.0.1:4002", "127.0.0.1:81", TimeWait, 0),
            // Somebody's connection to another host's port 81.
            socket("10.0.0.1:4003", "10.0.0.8:81", TimeWait, 0),
            // Ours to the service, and the service's end.
            socket("127.0.0.1:5000", "127.0.0.1:80", Established, 4),
            socket("127.0.0.1:80", "127.0.0.1:5000", Established, 5),
            socket("127.0.0.1:5001", "127.0.0.1:80", TimeWait, 0),
            socket("127.0.0.1:80", "127.0.0.1:5002", TimeWait, 0),
        ];
        let count = counted(&legs, &[], &sockets);
        let [front, service] = &count.legs[..] else {
            panic!("two legs")
        };
        assert_eq!(front.in_state(Established), 1);
        assert_eq!(front.in_state(CloseWait), 1);
        assert_eq!((front.in_state(TimeWait), front.peers_time_wait), (1, 1));
        assert_eq!(service.in_state(Established), 1);
        assert_eq!(
            (service.in_state(TimeWait), service.peers_time_wait),
            (1, 1)
        );
        let held: Vec<_> = count.held.iter().map(|it| (it.leg, it.inode)).collect();
        assert_eq!(held, [(0, 1), (0, 3), (1, 4)]);
    }

    #[test]
    fn ports_are_counted_for_each_route() {
        let route = |from: &str, to: Option<&str>| Route {
            from: Some(from.parse().expect("an address")),
            to: to.map(|to| to.parse().expect("an address")),
            ports: Ports::new(4000..=4099, &[]),
            picker: match to {
                Some(_) => Picker::Kernel,
                None => Picker::Millpond,
            },
        };
        let routes = [
            route("10.0.0.1", Some("10.0.0.9:80")),
            route("10.0.0.2", Some("10.0.0.9:80")),
            route("10.0.0.1", None),
        ];
        let sockets = [
            socket("10.0.0.1:4000", "10.0.0.9:80", State::Established, 1),
            socket("10.0.0.1:4001", "10.0.0.9:80", State::TimeWait, 0),
            socket("10.0.0.1:5000", "10.0.0.9:80", State::TimeWait, 0),
            socket("10.0.0.2:4001", "10.0.0.9:80", State::TimeWait, 0),
            socket("10.0.0.1:4002", "10.0.0.7:1", State::Established, 1),
            // A service there has one port, however many clients.
            socket("10.0.0.1:4002", "10.0.0.7:2", State::Established, 1),
        ];
        let mut count = counted(&[], &routes, &sockets);
        for listening in ["0.0.0.0:4099", "[::]:4099", "10.0.0.3:4098", "0.0.0.0:4100"] {
            count.add_listening(listening.parse().expect("an address"));
        }
        let taken: Vec<_> = count
            .routes
            .iter()
            .map(|it| (it.used, it.time_wait))
            .collect();
        assert_eq!(taken, [(3, 1), (2, 1), (3, 1)]);
    }

    #[test]
    fn the_kernel_is_asked_for_the_sockets_of_legs_and_routes() {
        assert_eq!(filter(&[], &[]), None);
        let legs = [
            leg(Side::Downstream, "0.0.0.0:81"),
            leg(Side::Upstream, "127.0.0.1:80"),
        ];
        let filter = filter(&legs, &[]).expect("places");
        for (local, peer, expected) in [
            ("10.0.0.1:81", "10.0.0.9:4000", true),
            ("10.0.0.9:4000", "10.0.0.1:81", true),
            ("127.0.0.1:4000", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:4000", true),
            ("10.0.0.1:80", "10.0.0.1:82", false),
        ] {
            let socket = socket(local, peer, State::Established, 1);
            assert_eq!(filter.holds(&socket), expected, "{local} {peer}");
        }
    }
}
