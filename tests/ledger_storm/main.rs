//! A storm of faults on both sides, and at its end every account against every other: what the cables
//! counted, what the kernel told, what the ledger says, and what the storm itself did.
//!
//! `MILLPOND_STORM_CONNECTIONS` clients come (2,000 without it), with the seed `MILLPOND_STORM_SEED`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use support::client::{self, Client};
use support::netns::{Network, PROXY, SERVICE};
use support::proxy::{Config, Proxy, Snapshot};
use support::tracefs::{Mounted, with_tracefs};
use support::upstream::{Connection, Service};
use support::wait;

/// Clients at a time.
const CROWD: u64 = 16;
/// How long somebody is silent who stalls; millpond waits for [`STALL_TIMEOUT`].
const STALLED: Duration = Duration::from_millis(400);
const STALL_TIMEOUT: &str = "300ms";

fn setting(name: &str, usual: u64) -> u64 {
    let asked = std::env::var(name).ok();
    asked.map_or(usual, |it| it.parse().expect("a number"))
}

/// Addresses, as the ledger writes them, of those that reset their connection.
#[derive(Clone, Default)]
struct Resetters(Arc<Mutex<HashSet<String>>>);

impl Resetters {
    fn note(&self, address: String) {
        self.0.lock().unwrap().insert(address);
    }

    fn has(&self, address: &Value) -> bool {
        self.0.lock().unwrap().contains(address.as_str().unwrap())
    }
}

/// One connection to the service, which does to each request what chance says.
fn serve(mut connection: Connection, seed: u64, resetters: &Resetters) {
    let mut random = fastrand::Rng::with_seed(seed ^ connection.number);
    let (_, millpond) = connection.socket.ends();
    let reset = |connection: Connection| {
        resetters.note(millpond.clone());
        connection.reset();
    };
    while connection.request().is_some() {
        match random.u8(0..100) {
            0..3 => return reset(connection),
            3..6 => return,
            6..9 => {
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf");
                return reset(connection);
            }
            9..12 => {
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf");
                return;
            }
            12..15 => {
                connection.write("HTTP/1.1 200 OK\r\n\r\nof unknown length");
                return reset(connection);
            }
            15..18 => {
                connection.write("HTTP/1.1 200 OK\r\n\r\nof unknown length");
                return;
            }
            18..22 => {
                connection
                    .write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlast");
                return;
            }
            22..25 => {
                connection.reply("good");
                return reset(connection);
            }
            25..28 => {
                connection.reply("good");
                // The next request may be on its way, and then the kernel answers it.
                break;
            }
            28..34 => connection.reply(vec![b'x'; 300_000]),
            34 => {
                // Silent for longer than millpond waits.
                connection.wait_for_end();
                return;
            }
            _ => connection.reply("good"),
        }
    }
    // A request that did not come whole may lie there unread, and then the kernel resets.
    resetters.note(millpond);
}

/// One client, which does what chance says.
fn visit(address: SocketAddr, random: &mut fastrand::Rng, resetters: &Resetters) {
    let mut client = Client::dial(address);
    let (here, _) = client.socket.ends();
    let reset = |client: Client| {
        resetters.note(here.clone());
        client.reset();
    };
    for _ in 0..random.u8(0..4) {
        if client.try_send(client::get("/")).is_err() || client.response("GET").is_err() {
            // A close with bytes unread is an RST too.
            resetters.note(here);
            return;
        }
    }
    match random.u8(0..10) {
        0 => reset(client),
        1 => {
            let _ = client.try_send("GET / HT");
            reset(client);
        }
        2 => {
            let _ = client.try_send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
        }
        3 => {
            let _ = client.try_send(client::get("/"));
            reset(client);
        }
        4 => {
            let _ = client.try_send(client::get("/"));
            client.socket.half_close();
            let _ = client.until_end();
        }
        5 => {
            let _ = client.try_send(client::last_get("/"));
            let _ = client.until_end();
            // Behind millpond's FIN, and perhaps behind its close.
            let _ = client.try_send("late");
            resetters.note(here);
        }
        6 => {
            let _ = client.try_send(client::last_get("/"));
            resetters.note(here);
        }
        8 if random.u8(0..4) == 0 => {
            // Takes nothing of its answer for longer than millpond waits.
            let _ = client.try_send(client::get("/"));
            wait::pace(STALLED);
            reset(client);
        }
        7 => {
            let _ = client.try_send("nonsense\r\n\r\n");
            let _ = client.until_end();
        }
        _ => {
            let _ = client.try_send(client::last_get("/"));
            let _ = client.until_end();
        }
    }
}

fn storm(network: &Network, proxy: &Proxy, seed: u64, resetters: &Resetters) {
    let left = AtomicU64::new(setting("MILLPOND_STORM_CONNECTIONS", 2000));
    let address = proxy.address();
    network.clients.enter(|| {
        std::thread::scope(|scope| {
            for number in 0..CROWD {
                let left = &left;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed + number);
                    let one_more = |left: u64| left.checked_sub(1);
                    let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
                    while left.fetch_update(set, get, one_more).is_ok() {
                        visit(address, &mut random, resetters);
                    }
                });
            }
        });
    });
}

/// The events of one direction that are millpond's, by verdict.
struct Told {
    witnessed: u64,
    repeats: u64,
    unattributed: u64,
}

impl Told {
    fn of(now: &Snapshot, direction: &str) -> Self {
        let count = |name: &str| now.number(&format!("/witness/{direction}/{name}"));
        Self {
            witnessed: count("witnessed"),
            repeats: count("repeat"),
            unattributed: count("unattributed"),
        }
    }

    fn all(&self) -> u64 {
        self.witnessed + self.repeats + self.unattributed
    }
}

/// Every record that is held: of a long storm the last ones.
fn records(proxy: &Proxy) -> Vec<Value> {
    let (status, text) = proxy.admin("GET", "/api/v1/resets?limit=100000");
    assert_eq!(status, 200);
    let mut answer: Value = serde_json::from_str(&text).unwrap();
    let Value::Array(records) = answer["records"].take() else {
        panic!("{answer}");
    };
    records
}

fn check_records(records: &[Value], clients: &Resetters, services: &Resetters) {
    for record in records {
        match (record["side"].as_str(), record["direction"].as_str()) {
            (Some("downstream"), Some("received")) => {
                assert!(clients.has(&record["client"]), "it did not: {record:#}");
            }
            (Some("upstream"), Some("received")) => {
                assert!(services.has(&record["local"]), "it did not: {record:#}");
            }
            (Some("downstream"), Some("sent")) => {
                assert_eq!(record["cause"], "propagated", "{record:#}");
                assert_eq!(record["other"]["side"], "upstream", "{record:#}");
                assert_eq!(record["other"]["relation"], "caused_by", "{record:#}");
            }
            (Some("upstream"), Some("sent")) => {
                assert_eq!(record["cause"], "abandoned", "{record:#}");
                assert_eq!(
                    record["phase"]
                        .as_str()
                        .map(|it| ["request", "response"].contains(&it)),
                    Some(true)
                );
            }
            _ => {}
        }
    }
}

#[test]
fn after_a_storm_every_account_agrees_with_every_other() {
    with_tracefs(Mounted::Writable, || {
        let seed = setting("MILLPOND_STORM_SEED", fastrand::u64(..));
        println!("MILLPOND_STORM_SEED={seed}");
        let network = Network::create();
        let (clients, services) = (Resetters::default(), Resetters::default());
        let service = network.service.enter(|| {
            let services = services.clone();
            Service::start_on(&format!("{SERVICE}:0"), move |connection| {
                serve(connection, seed, &services);
            })
        });
        let config = Config::to(service.address())
            .listen(&format!("{PROXY}:0"))
            .pool("size = 12")
            .upstream("abandon_bytes = \"16KiB\"")
            .upstream(&format!("response_timeout = \"{STALL_TIMEOUT}\""))
            .listener(&format!("stall_timeout = \"{STALL_TIMEOUT}\""))
            .listener("linger_time = \"2s\"")
            .listener("linger_gap = \"500ms\"")
            .more("[ledger]\nwitness = true\nrecorder_size = 100000\n[log]\nsessions = \"none\"\n");
        let proxy = network.proxy.enter(|| config.start());
        storm(&network, &proxy, seed, &clients);
        proxy.admin("POST", "/api/v1/upstream/service/flush");
        let limit = wait::PATIENCE * 2;
        let now = proxy.wait_within(limit, "everything has ended and is judged", |now| {
            now.listener("sessions/open") == 0
                && now.upstream("connections/open") == 0
                && now.number("/witness/sent/pending") == 0
                && now.number("/witness/received/pending") == 0
                && quiet(&proxy, now)
        });
        for (path, what) in [
            ("listeners/front", "sessions"),
            ("upstreams/service", "connections"),
        ] {
            let count = |name: &str| now.number(&format!("/{path}/{what}/{name}"));
            assert_eq!(count("opened"), count("terminated"), "{path}");
        }
        let (sent, received) = (Told::of(&now, "sent"), Told::of(&now, "received"));
        let wires = [network.downstream_resets(), network.upstream_resets()];
        let wire_sent = wires.iter().map(|wire| wire.sent).sum::<u64>();
        let wire_received = wires.iter().map(|wire| wire.received).sum::<u64>();
        println!(
            "{} sessions, {} connections; sent: {wire_sent} on the cables = {} in records + {} repeats \
             + {} unattributed; received: {wire_received} on the cables = {} in records + {} repeats \
             + {} unattributed + {} late",
            now.listener("sessions/opened"),
            now.upstream("connections/opened"),
            sent.witnessed,
            sent.repeats,
            sent.unattributed,
            received.witnessed,
            received.repeats,
            received.unattributed,
            wire_received.saturating_sub(received.all()),
        );
        println!("unattributed: {}", now.0["witness"]["unattributed"]);
        let records = records(&proxy);
        check_records(&records, &clients, &services);
        assert_eq!(now.number("/witness/lost_events"), 0);
        assert_eq!(
            sent.witnessed,
            now.resets_sent(),
            "each RST of the ledger is the kernel's"
        );
        assert_eq!(
            received.witnessed,
            now.resets_received(),
            "and each that it received"
        );
        assert_eq!(
            sent.all(),
            wire_sent,
            "the kernel told of each that went out"
        );
        assert!(received.all() <= wire_received);
        // What the kernel sends of itself answers bytes that came behind a close; it aborts nothing.
        let late = ["no_socket", "tcp_timewait_socket"];
        let answered = late.map(|reason| {
            let labels = [
                "direction=sent".to_owned(),
                format!("kernel_reason={reason}"),
            ];
            let labels: Vec<_> = labels.iter().map(String::as_str).collect();
            now.rows("/witness/unattributed", &labels)
        });
        assert_eq!(sent.unattributed, answered.iter().sum::<u64>());
        proxy.finish();
    });
}

/// Nothing more is told: two looks in a row show the same.
fn quiet(proxy: &Proxy, now: &Snapshot) -> bool {
    wait::pace(Duration::from_millis(300));
    let read =
        |now: &Snapshot| ["sent", "received"].map(|it| now.number(&format!("/witness/{it}/read")));
    read(&proxy.snapshot()) == read(now)
}
