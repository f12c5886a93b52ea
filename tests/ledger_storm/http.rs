//! What clients and services of HTTP do in the storm.

use crate::STALLED;
use crate::addresses;
use crate::journal::{CLIENT_RESETS_AT_REST, CLIENT_RESETS_UNUSED, Fault, IN_ORDER, Journal, Page};
use crate::support::client::{self, Client};
use crate::support::socket::End;
use crate::support::upstream::Connection;
use crate::support::wait;

pub const UPSTREAM: &str = "service";

const CLIENT_RESETS_IN_HEAD: Fault = Fault {
    name: "resets inside a head",
    own: &["DRR received request peer"],
    other: &[],
    must: true,
};
/// Its RST may meet the wait for a connection, the answer, the time behind a small one, or the close
/// behind a refusal or an answer that the service ended.
const CLIENT_RESETS_UNDER_WAY: Fault = Fault {
    name: "resets behind a request",
    own: &[
        "DRR received request peer",
        "DQR received queue peer",
        "DPR received response peer",
        "DIR received idle peer",
        "URF received close peer",
        "UPT received close peer",
        "UPT received response peer",
        "UPF received close peer",
    ],
    other: &["DRS sent request abandoned", "DPS sent response abandoned"],
    must: true,
};
const CLIENT_LEAVES_IN_BODY: Fault = Fault {
    name: "leaves inside a body",
    own: &["DRT none request truncated"],
    other: &["DRT none request truncated"],
    // Not while it waits for a connection: then it ends in order, and nothing went on.
    must: false,
};
/// What it says is lost with whatever ended its session; millpond's own close may have come before, and
/// then its kernel answers.
const CLIENT_SPEAKS_LATE: Fault = Fault {
    name: "speaks behind the last answer",
    own: &[
        "DIF none idle loss",
        "DIF received close peer",
        "MRO none request loss",
        "MRO received close peer",
        "URF none request loss",
        "URF received close peer",
    ],
    other: &[],
    must: false,
};
/// The answer meets a closed socket, whose kernel resets: while it is written, or when millpond closes.
const CLIENT_LEAVES_UNDER_WAY: Fault = Fault {
    name: "closes behind a request",
    own: &[
        "DIF received close peer",
        "DIF none idle loss",
        "DPR received response peer",
        "UPT received close peer",
        "UPT received response peer",
        "UPF received close peer",
        "URF received close peer",
        "URF none request loss",
        "MRO received close peer",
        "MRO none request loss",
    ],
    other: &["DPS sent response abandoned"],
    must: false,
};
/// A small answer lies unread at its own kernel; a large one is under way, or is given up by then.
const CLIENT_STALLS: Fault = Fault {
    name: "takes nothing, and resets",
    own: &[
        "DIR received idle peer",
        "DPR received response peer",
        "UPF received close peer",
        "UPT received close peer",
        "UPT received response peer",
        "URF received close peer",
        "MRO received close peer",
        "MPO received close peer",
    ],
    other: &["DPS sent response abandoned"],
    must: false,
};
const CLIENT_BABBLES: Fault = Fault {
    name: "speaks nonsense",
    own: &["DRV none request loss"],
    other: &[],
    must: true,
};
/// The bytes that millpond takes behind its refusal are bounded; the client's kernel hears that as an RST.
const CLIENT_POURS: Fault = Fault {
    name: "goes on sending behind a refusal",
    own: &["DRV sent close linger_bound"],
    other: &[],
    must: true,
};
const CLIENT_GIVES_UP: Fault = Fault {
    name: "closes behind a broken answer",
    own: &[],
    other: &[],
    must: false,
};

const RESETS_UNANSWERED: Fault = Fault {
    name: "resets without an answer",
    own: &["URR received request peer"],
    other: &[],
    must: true,
};
const RESETS_IN_ANSWER: Fault = Fault {
    name: "resets inside an answer",
    own: &["UPR received response peer"],
    other: &["UPT none response truncated"],
    must: true,
};
const CLOSES_IN_ANSWER: Fault = Fault {
    name: "closes inside an answer",
    own: &["UPT none response truncated"],
    other: &["UPT none response truncated"],
    must: true,
};
const RESETS_IN_ENDLESS: Fault = Fault {
    name: "resets inside an answer of unknown length",
    own: &["UPR received response peer"],
    other: &["UPT sent response propagated"],
    must: true,
};
/// The next request may be written already, and its client may be giving that up.
const RESETS_AT_REST: Fault = Fault {
    name: "resets behind its answer",
    own: &[
        "UIR received idle peer",
        "URR received request peer",
        "DRT received close peer",
    ],
    other: &[],
    must: true,
};
/// A request that was written already is answered by the kernel: before its FIN is seen or behind it, or
/// when the client is giving the request up.
const CLOSES_AT_REST: Fault = Fault {
    name: "closes behind its answer",
    own: &[
        "URR received request peer",
        "URF received request peer",
        "DRT received close peer",
    ],
    other: &[],
    must: false,
};
const STALLS: Fault = Fault {
    name: "stalls",
    own: &["MRO sent request abandoned"],
    other: &[],
    must: true,
};

/// One connection to the service, which does to each request what chance says.
pub fn serve(mut connection: Connection, seed: u64, journal: &Journal) {
    let mut random = fastrand::Rng::with_seed(seed ^ connection.number);
    let page = journal.service(UPSTREAM, connection.from.clone());
    let mut count = 0;
    while connection.request().is_some() {
        count += 1;
        let this = count..=count;
        let half = "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf";
        let endless = "HTTP/1.1 200 OK\r\n\r\nof unknown length";
        match random.u8(0..100) {
            0..3 => {
                page.close(&RESETS_UNANSWERED, this);
                return connection.reset();
            }
            3..6 => return page.close(&IN_ORDER, this),
            6..9 => {
                connection.write(half);
                page.close(&RESETS_IN_ANSWER, this);
                return connection.reset();
            }
            9..12 => {
                connection.write(half);
                return page.close(&CLOSES_IN_ANSWER, this);
            }
            12..15 => {
                connection.write(endless);
                page.close(&RESETS_IN_ENDLESS, this);
                return connection.reset();
            }
            15..18 => {
                connection.write(endless);
                return page.close(&IN_ORDER, this);
            }
            18..22 => {
                connection
                    .write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlast");
                return page.close(&IN_ORDER, this);
            }
            22..25 => {
                connection.reply("good");
                page.close(&RESETS_AT_REST, count..=count + 1);
                return connection.reset();
            }
            25..28 => {
                connection.reply("good");
                // The next request may be on its way, and then the kernel answers it.
                return page.close(&CLOSES_AT_REST, count..=count + 1);
            }
            28..34 => connection.reply(vec![b'x'; 300_000]),
            34 => {
                connection.wait_for_end();
                return page.close(&STALLS, this);
            }
            _ => connection.reply("good"),
        }
    }
    page.close(&IN_ORDER, count..=count);
}

/// One client, which does what chance says.
pub fn visit(address: std::net::SocketAddr, random: &mut fastrand::Rng, journal: &Journal) {
    let mut client = Client::over(addresses::dial(address));
    let page = journal.client(UPSTREAM, client.socket.ends().0);
    let mut count = 0;
    for _ in 0..random.u8(0..4) {
        let is_sent = client.try_send(client::get("/")).is_ok();
        count += 1;
        match client.response("GET") {
            Ok(answer) if is_sent && answer.head.length().is_some() => {}
            // Of an answer of unknown length the end was read.
            Ok(_) => return page.close(&IN_ORDER, count..=count),
            Err(End::Fin | End::Reset) => return page.close(&CLIENT_GIVES_UP, count..=count),
        }
    }
    misbehave(client, page, count, random.u8(0..40));
}

/// The end of a client that has `count` answers.
fn misbehave(mut client: Client, page: Page, count: u64, chance: u8) {
    let next = count + 1..=count + 1;
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    match chance {
        0..4 if count == 0 => {
            page.close(&CLIENT_RESETS_UNUSED, 0..=0);
            client.reset();
        }
        0..4 => {
            page.close(&CLIENT_RESETS_AT_REST, count..=count);
            client.reset();
        }
        4..8 => {
            let _ = client.try_send("GET / HT");
            page.close(&CLIENT_RESETS_IN_HEAD, count..=count);
            client.reset();
        }
        8..12 => {
            let _ = client.try_send(post);
            page.close(&CLIENT_LEAVES_IN_BODY, next);
        }
        12..16 => {
            let _ = client.try_send(client::get("/"));
            page.close(&CLIENT_RESETS_UNDER_WAY, next);
            client.reset();
        }
        16..20 => {
            let _ = client.try_send(client::get("/"));
            client.socket.half_close();
            let _ = client.until_end();
            page.close(&IN_ORDER, next);
        }
        20..24 => {
            let _ = client.try_send(client::last_get("/"));
            let _ = client.until_end();
            // Behind millpond's FIN, and perhaps behind its close.
            let _ = client.try_send("late");
            page.close(&CLIENT_SPEAKS_LATE, next);
        }
        24..28 => {
            let _ = client.try_send(client::last_get("/"));
            page.close(&CLIENT_LEAVES_UNDER_WAY, next);
        }
        28..32 => {
            let _ = client.try_send("nonsense\r\n\r\n");
            let _ = client.until_end();
            page.close(&CLIENT_BABBLES, count..=count);
        }
        33 => {
            page.close(&CLIENT_POURS, count..=count);
            let _ = client.try_send("nonsense\r\n\r\n");
            while client.try_send([b'x'; 10_000]).is_ok() {}
        }
        32 => {
            let _ = client.try_send(client::get("/"));
            wait::pace(STALLED);
            page.close(&CLIENT_STALLS, next);
            client.reset();
        }
        _ => {
            let _ = client.try_send(client::last_get("/"));
            let _ = client.until_end();
            page.close(&IN_ORDER, next);
        }
    }
}
