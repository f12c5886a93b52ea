//! What clients and services of frames do in the storm.

use crate::addresses;
use crate::journal::{CLIENT_RESETS_AT_REST, CLIENT_RESETS_UNUSED, Fault, IN_ORDER, Journal};
use crate::support::client::Client;
use crate::support::message::Wire;
use crate::support::socket::End;
use crate::support::upstream::Connection;
use std::net::SocketAddr;

pub const UPSTREAM: &str = "framed";

const CLIENT_LEAVES_IN_FRAME: Fault = Fault {
    name: "leaves inside a frame",
    own: &["DRT none request truncated"],
    other: &[],
    must: true,
};
const CLIENT_RESETS_IN_FRAME: Fault = Fault {
    name: "resets inside a frame",
    own: &["DRR received request peer"],
    other: &[],
    must: true,
};
/// Its RST may meet the wait for a connection, the reply, the time behind it, or the close behind a
/// service that had none.
const CLIENT_RESETS_UNDER_WAY: Fault = Fault {
    name: "resets behind a request",
    own: &[
        "DRR received request peer",
        "DQR received queue peer",
        "DPR received response peer",
        "DIR received idle peer",
        "URF received close peer",
        "UPT received close peer",
    ],
    other: &["DRS sent request abandoned", "DPS sent response abandoned"],
    must: true,
};
const RESETS_UNANSWERED: Fault = Fault {
    name: "resets without a reply",
    own: &["URR received request peer"],
    other: &[],
    must: true,
};
const CLOSES_IN_REPLY: Fault = Fault {
    name: "closes inside a reply",
    own: &["UPT none response truncated"],
    other: &["UPT none response truncated"],
    must: true,
};
const RESETS_IN_REPLY: Fault = Fault {
    name: "resets inside a reply",
    own: &["UPR received response peer"],
    other: &["UPT none response truncated"],
    must: true,
};
/// The next request may be written already.
const RESETS_AT_REST: Fault = Fault {
    name: "resets behind its reply",
    own: &["UIR received idle peer", "URR received request peer"],
    other: &[],
    must: true,
};
const STALLS: Fault = Fault {
    name: "stalls",
    own: &["MRO sent request abandoned"],
    other: &[],
    must: true,
};

fn frame(payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length, payload].concat()
}

fn read_frame(wire: &mut Wire) -> Result<Vec<u8>, End> {
    let length = wire.exactly(4)?;
    let length = u32::from_be_bytes(length.try_into().unwrap());
    wire.exactly(length as usize)
}

/// One connection to the service, which does to each request what chance says.
pub fn serve(mut connection: Connection, seed: u64, journal: &Journal) {
    let mut random = fastrand::Rng::with_seed(seed ^ connection.number);
    let page = journal.service(UPSTREAM, connection.from.clone());
    let mut count = 0;
    while read_frame(&mut connection).is_ok() {
        count += 1;
        let this = count..=count;
        let reply = frame("0123456789");
        match random.u8(0..100) {
            0..4 => {
                page.close(&RESETS_UNANSWERED, this);
                return connection.reset();
            }
            4..8 => return page.close(&IN_ORDER, this),
            8..12 => {
                connection.write(&reply[..8]);
                return page.close(&CLOSES_IN_REPLY, this);
            }
            12..16 => {
                connection.write(&reply[..8]);
                page.close(&RESETS_IN_REPLY, this);
                return connection.reset();
            }
            16..20 => {
                connection.write(reply);
                page.close(&RESETS_AT_REST, count..=count + 1);
                return connection.reset();
            }
            20 => {
                connection.wait_for_end();
                return page.close(&STALLS, this);
            }
            _ => {
                connection.write(reply);
            }
        }
    }
    page.close(&IN_ORDER, count..=count);
}

/// One client, which does what chance says.
pub fn visit(address: SocketAddr, random: &mut fastrand::Rng, journal: &Journal) {
    let mut client = Client::over(addresses::dial(address));
    let page = journal.client(UPSTREAM, client.socket.ends().0);
    let mut count = 0;
    for _ in 0..random.u8(0..4) {
        count += 1;
        let asked = client.try_send(frame("ping"));
        if asked.is_err() || read_frame(&mut client).is_err() {
            let _ = client.until_end();
            return page.close(&IN_ORDER, count..=count);
        }
    }
    let next = count + 1..=count + 1;
    match random.u8(0..10) {
        0 if count == 0 => {
            page.close(&CLIENT_RESETS_UNUSED, 0..=0);
            client.reset();
        }
        0 => {
            page.close(&CLIENT_RESETS_AT_REST, count..=count);
            client.reset();
        }
        1 => {
            let _ = client.try_send(&frame("ping")[..6]);
            client.socket.half_close();
            let _ = client.until_end();
            page.close(&CLIENT_LEAVES_IN_FRAME, count..=count);
        }
        2 => {
            let _ = client.try_send(&frame("ping")[..6]);
            page.close(&CLIENT_RESETS_IN_FRAME, count..=count);
            client.reset();
        }
        3 => {
            let _ = client.try_send(frame("ping"));
            page.close(&CLIENT_RESETS_UNDER_WAY, next);
            client.reset();
        }
        4 => {
            let _ = client.try_send(frame("ping"));
            client.socket.half_close();
            let _ = client.until_end();
            page.close(&IN_ORDER, next);
        }
        _ => {
            client.socket.half_close();
            let _ = client.until_end();
            page.close(&IN_ORDER, next);
        }
    }
}
