//! Addresses and ports of which each is used once, so that a connection is known by them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::netns::Network;
use crate::support::socket::Socket;

/// More connections than this have no address of their own.
pub const CONNECTIONS_MAX: u64 = CLIENTS * CLIENT_PORTS;

/// Addresses of the clients' host.
const CLIENTS: u64 = 4;
/// Ports of each, from [`FIRST_PORT`] on.
const CLIENT_PORTS: u64 = 60_000;
const FIRST_PORT: u16 = 2_000;
/// Addresses that millpond dials each upstream from.
const SOURCES: u8 = 4;
/// A range that the kernel picks nothing of, so that millpond does, one port after the other.
const SOURCE_PORTS: &str = "2000-31999";

/// Gives the hosts of clients and of millpond their addresses, for so many upstreams.
pub fn give(network: &Network, upstreams: u8) {
    for number in 0..CLIENTS {
        let address = format!("{}/24", client(number));
        let arguments = ["address", "add", &address, "dev", "proxy"];
        network.clients.run("ip", &arguments);
    }
    for upstream in 0..upstreams {
        for number in 0..SOURCES {
            let address = format!("{}/24", source(upstream, number));
            let arguments = ["address", "add", &address, "dev", "service"];
            network.proxy.run("ip", &arguments);
        }
    }
}

/// The addresses that the upstream of this number is dialled from, as its configuration has them.
pub fn sources(upstream: u8) -> String {
    let all = (0..SOURCES).map(|number| format!("{}:{SOURCE_PORTS}", source(upstream, number)));
    format!("source = {:?}", all.collect::<Vec<_>>())
}

/// One for a client that dials now.
pub fn next() -> SocketAddr {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let offset = u16::try_from(number % CLIENT_PORTS).unwrap();
    SocketAddr::new(client(number / CLIENT_PORTS).into(), FIRST_PORT + offset)
}

/// Dials from the next one.
pub fn dial(to: SocketAddr) -> Socket {
    Socket::dial_with(to, |socket| socket.bind(&next().into()).unwrap())
}

fn client(number: u64) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 1, 100 + u8::try_from(number).unwrap())
}

fn source(upstream: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 2, 100 + upstream * SOURCES + number)
}
