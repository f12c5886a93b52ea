//! What clients and services do in the storm of which nothing is known but bytes.

use crate::TUNNEL_STALLED;
use crate::addresses;
use crate::journal::{Fault, IN_ORDER, Journal};
use crate::support::client::Client;
use crate::support::upstream::Connection;
use crate::support::wait;
use std::net::SocketAddr;

pub const UPSTREAM: &str = "piped";

/// It waits for a connection from the start.
const CLIENT_RESETS_UNUSED: Fault = Fault {
    name: "resets without a byte",
    own: &["DAR received accept peer", "DQR received queue peer"],
    other: &[],
    must: true,
};
/// Before it has a connection, too; or when the service's own end is being passed on.
const CLIENT_RESETS: Fault = Fault {
    name: "resets in the middle",
    own: &[
        "DPR received response peer",
        "DQR received queue peer",
        "UPS received response peer",
        "UPF received close peer",
    ],
    other: &["DPS sent response propagated"],
    must: true,
};
/// Its client's reset may be on its way to it.
const RESETS: Fault = Fault {
    name: "resets in the middle",
    own: &["UPR received response peer", "DPS received response peer"],
    other: &["UPS sent response propagated"],
    must: true,
};

/// Millpond gives it up after the listener's time, and the service that pours with it.
const CLIENT_TAKES_NOTHING: Fault = Fault {
    name: "takes nothing of what is poured",
    own: &["MPO sent response operator"],
    other: &["MPS sent response operator"],
    must: true,
};
/// What a client says that wants the service to pour.
const POUR: u8 = b'p';

/// One connection to the service: it answers each byte with one, until chance ends it.
pub fn serve(mut connection: Connection, seed: u64, journal: &Journal) {
    let mut random = fastrand::Rng::with_seed(seed ^ connection.number);
    let page = journal.service(UPSTREAM, connection.from.clone());
    while let Ok(byte) = connection.exactly(1) {
        if byte == [POUR] {
            while connection.write([b'x'; 100_000]) {}
            return page.close(&IN_ORDER, 1..=1);
        }
        match random.u8(0..40) {
            0 => {
                page.close(&RESETS, 1..=1);
                return connection.reset();
            }
            1 => {
                connection.write(byte);
                page.close(&RESETS, 1..=1);
                return connection.reset();
            }
            2 => {
                connection.write(byte);
                connection.half_close();
                connection.wait_for_end();
                return page.close(&IN_ORDER, 1..=1);
            }
            _ => {
                connection.write(byte);
            }
        }
    }
    page.close(&IN_ORDER, 1..=1);
}

/// One client, which does what chance says.
pub fn visit(address: SocketAddr, random: &mut fastrand::Rng, journal: &Journal) {
    let mut client = Client::over(addresses::dial(address));
    let page = journal.client(UPSTREAM, client.socket.ends().0);
    if random.u8(0..100) == 0 {
        page.close(&CLIENT_TAKES_NOTHING, 1..=1);
        let _ = client.try_send([POUR]);
        return wait::pace(TUNNEL_STALLED);
    }
    let count = random.u8(0..4);
    for _ in 0..count {
        if client.try_send("x").is_err() || client.exactly(1).is_err() {
            let _ = client.until_end();
            return page.close(&IN_ORDER, 1..=1);
        }
    }
    match random.u8(0..10) {
        0..2 if count == 0 => {
            page.close(&CLIENT_RESETS_UNUSED, 0..=1);
            client.reset();
        }
        0..2 => {
            page.close(&CLIENT_RESETS, 1..=1);
            client.reset();
        }
        2 => {
            let _ = client.try_send("x");
            page.close(&CLIENT_RESETS, 0..=1);
            client.reset();
        }
        _ => {
            client.socket.half_close();
            let _ = client.until_end();
            page.close(&IN_ORDER, 1..=1);
        }
    }
}
