//! A storm of faults on both sides, and at its end every account against every other: what the cables
//! counted, what the kernel told, what the ledger says, and what the storm itself did.
//!
//! `MILLPOND_STORM_CONNECTIONS` clients come (2,500 without it), with the seed `MILLPOND_STORM_SEED`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout)]
#![allow(unreachable_pub, reason = "its modules are one program")]

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod addresses;
mod frames;
mod http;
mod journal;
mod killed;
mod tcp;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use accounts::Records;
use journal::Journal;
use killed::{Clients, Services};
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
/// The same in a tunnel, where [`TUNNEL_TIMEOUT`] is waited for.
const TUNNEL_STALLED: Duration = Duration::from_millis(1500);
const TUNNEL_TIMEOUT: &str = "1s";
/// So many come before the records are read again, so that none is lost.
const ROUND: u64 = 20_000;
/// Every upstream of the storm.
const UPSTREAMS: [&str; 4] = [
    http::UPSTREAM,
    frames::UPSTREAM,
    tcp::UPSTREAM,
    killed::UPSTREAM,
];

fn setting(name: &str, usual: u64) -> u64 {
    let asked = std::env::var(name).ok();
    asked.map_or(usual, |it| it.parse().expect("a number"))
}

/// Where the clients of each protocol go.
#[derive(Clone, Copy)]
struct Doors<'a> {
    http: SocketAddr,
    frames: SocketAddr,
    tcp: SocketAddr,
    killed: &'a Clients,
}

fn storm(network: &Network, doors: Doors<'_>, count: u64, seed: u64, journal: &Journal) {
    let left = AtomicU64::new(count);
    network.clients.enter(|| {
        std::thread::scope(|scope| {
            for number in 0..CROWD {
                let left = &left;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed + number);
                    let one_more = |left: u64| left.checked_sub(1);
                    let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
                    while left.fetch_update(set, get, one_more).is_ok() {
                        visit(doors, &mut random, journal);
                    }
                });
            }
        });
    });
}

fn visit(doors: Doors<'_>, random: &mut fastrand::Rng, journal: &Journal) {
    match random.u8(0..100) {
        0..2 => doors.killed.visit(random, journal),
        2..22 => frames::visit(doors.frames, random, journal),
        22..42 => tcp::visit(doors.tcp, random, journal),
        _ => http::visit(doors.http, random, journal),
    }
}

/// A service in its host, each of whose connections is led by `serve`.
fn start(
    network: &Network,
    journal: &Journal,
    seed: u64,
    serve: fn(Connection, u64, &Journal),
) -> Service {
    network.service.enter(|| {
        let journal = journal.clone();
        Service::start_on(&format!("{SERVICE}:0"), move |connection| {
            serve(connection, seed, &journal);
        })
    })
}

fn configure(http: &Service, frames: &Service, tcp: &Service, killed: &Services) -> Config {
    let stall = format!("{STALL_TIMEOUT:?}");
    let listener = |name: &str, upstream: &str| {
        format!(
            "[listener.{name}]\nlisten = \"{PROXY}:0\"\nupstream = \"{upstream}\"\n\
             stall_timeout = {stall}\nlinger_time = \"2s\"\nlinger_gap = \"500ms\"\n"
        )
    };
    let more = [
        "[ledger]\nwitness = true\nrecorder_size = 100000\n[log]\nsessions = \"none\"\n".to_owned(),
        format!(
            "[upstream.framed]\nprotocol = \"frames\"\nendpoints = [{:?}]\n{}\n\
             response_timeout = {stall}\n[upstream.framed.pool]\nsize = 8\n\
             [upstream.framed.frames]\nlength = {{ offset = 0, width = 4 }}\n",
            frames.address(),
            addresses::sources(1)
        ),
        format!(
            "[upstream.piped]\nprotocol = \"tcp\"\nendpoints = [{:?}]\n{}\n",
            tcp.address(),
            addresses::sources(2)
        ),
        format!(
            "[upstream.killed]\nprotocol = \"http\"\nendpoints = [{:?}]\n{}\n\
             response_timeout = \"3s\"\n[upstream.killed.pool]\nsize = 8\n",
            killed.address(),
            addresses::sources(3)
        ),
        listener("killed", killed::UPSTREAM),
        listener("frames", frames::UPSTREAM),
        listener("tcp", tcp::UPSTREAM) + &format!("idle_timeout = {TUNNEL_TIMEOUT:?}\n"),
    ];
    Config::to(http.address())
        .listen(&format!("{PROXY}:0"))
        .pool("size = 12")
        .upstream(&addresses::sources(0))
        .upstream("abandon_bytes = \"16KiB\"")
        .upstream(&format!("response_timeout = {stall}"))
        .listener(&format!("stall_timeout = {stall}"))
        .listener("linger_time = \"2s\"")
        .listener("linger_gap = \"500ms\"")
        .listener("linger_bytes = \"64KiB\"")
        .more(&more.concat())
}

#[test]
fn after_a_storm_every_account_agrees_with_every_other() {
    with_tracefs(Mounted::Writable, || {
        let seed = setting("MILLPOND_STORM_SEED", fastrand::u64(..u64::MAX / 2));
        println!("MILLPOND_STORM_SEED={seed}");
        let network = Network::create();
        addresses::give(&network, 4);
        let journal = Journal::default();
        let http = start(&network, &journal, seed, http::serve);
        let frames = start(&network, &journal, seed, frames::serve);
        let tcp = start(&network, &journal, seed, tcp::serve);
        let services = Services::start(&network, &journal);
        let config = configure(&http, &frames, &tcp, &services);
        let proxy = network.proxy.enter(|| config.start());
        let clients = Clients::start(&network, proxy.address_of("killed"));
        let doors = Doors {
            http: proxy.address(),
            frames: proxy.address_of("frames"),
            tcp: proxy.address_of("tcp"),
            killed: &clients,
        };
        let mut records = Records::new();
        let mut left = setting("MILLPOND_STORM_CONNECTIONS", 2500);
        assert!(left <= addresses::CONNECTIONS_MAX, "{left} are too many");
        while left > 0 {
            let round = left.min(ROUND);
            storm(&network, doors, round, seed + left, &journal);
            accounts::collect(&proxy, &mut records);
            left -= round;
        }
        let now = calm(&proxy);
        accounts::check_books(&now);
        accounts::check_resets(&network, &now);
        let recorded = accounts::collect(&proxy, &mut records);
        assert_eq!(records.len() as u64, recorded, "none was missed");
        wait::until("every script has noted what it did", || {
            let open = [&http, &frames, &tcp].map(Service::open);
            (open == [0; 3]).then_some(())
        });
        services.finish();
        accounts::check_records(&records, &journal);
        proxy.finish();
    });
}

/// Everything has ended and is judged.
fn calm(proxy: &Proxy) -> Snapshot {
    for upstream in UPSTREAMS {
        proxy.admin("POST", &format!("/api/v1/upstream/{upstream}/flush"));
    }
    let open = |now: &Snapshot| {
        let (lists, counts) = (["listeners", "upstreams"], ["sessions", "connections"]);
        let rows = lists.into_iter().zip(counts);
        let each = rows.flat_map(|(list, what)| {
            let rows = now.0[list].as_object().unwrap().values();
            rows.map(move |row| row[what]["open"].as_u64().unwrap())
        });
        each.sum::<u64>()
    };
    proxy.wait_within(wait::PATIENCE * 2, "everything is judged", |now| {
        open(now) == 0
            && now.number("/witness/sent/pending") == 0
            && now.number("/witness/received/pending") == 0
            && quiet(proxy, now)
    })
}

/// Nothing more is told: two looks in a row show the same.
fn quiet(proxy: &Proxy, now: &Snapshot) -> bool {
    wait::pace(Duration::from_millis(300));
    // Others on this host may have a storm of their own.
    let read = |now: &Snapshot| {
        ["sent", "received"].map(|it| {
            let count = |name: &str| now.number(&format!("/witness/{it}/{name}"));
            count("read") - count("foreign")
        })
    };
    read(&proxy.snapshot()) == read(now)
}
