//! Framed RPC on real bytes: each row of the README's table, as it stands there, between a service and
//! clients that a library of that protocol made.
//!
//! Many short-lived clients share few connections, and each of them knows its own replies.
//!
//! | row | service | clients |
//! |---|---|---|
//! | MINA, Netty | their own codecs | the same |
//! | text lines | postsrsd, and Python's socketserver | sockets |
//! | Dubbo | the codec of dubbo-remoting | the same |
//! | Thrift | Apache Thrift for Python | the same |
//! | Tars | the server of @tars/rpc | its client |
//! | Kafka | a stand-in for a broker, of kafka-python's messages | the producer of kafka-python |
//!
//! Not here: services that misbehave (see `frames.rs`).
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::net::SocketAddr;
use std::process::Command;

use support::nginx::free_address;
use support::peer::{Peer, Told, await_listening};
use support::process::Process;
use support::proxy::{Config, Proxy, Snapshot};

/// So many clients at a time, each with so many connections one after the other, and so many requests
/// over each.
const CLIENTS: u64 = 8;
const CONNECTIONS: u64 = 4;
const REQUESTS: u64 = 24;
/// Connections to the service, at most.
const POOL: u64 = 3;
/// One-way calls that go with the requests, where a protocol has them.
const ONEWAY: u64 = REQUESTS.div_ceil(3);

/// A row of the README's table of protocols.
struct Row {
    frame: String,
    oneway: String,
    heartbeat: String,
}

impl Row {
    fn of(protocol: &str) -> Self {
        let readme = include_str!("../README.md");
        let row = readme
            .lines()
            .find(|line| line.starts_with(&format!("| {protocol} ")))
            .unwrap_or_else(|| panic!("no row for {protocol}"));
        let cells: Vec<&str> = row.split('|').collect();
        let ["", _, frame, oneway, heartbeat, ""] = cells[..] else {
            panic!("another number of columns: {row}")
        };
        Self {
            frame: frame.to_owned(),
            oneway: oneway.to_owned(),
            heartbeat: heartbeat.to_owned(),
        }
    }

    /// The frame as the row has it first.
    fn frame(&self) -> &str {
        code(&self.frame)[0]
    }

    /// In front of `service`, with all that the row says and this frame.
    fn config_with(&self, service: SocketAddr, frame: &str) -> Config {
        let config = Config::to(&service.to_string())
            .protocol("frames")
            .frames(frame)
            .pool(&format!("size = {POOL}"));
        let marks = [("oneway", &self.oneway), ("heartbeat", &self.heartbeat)];
        marks
            .into_iter()
            .fold(config, |config, (name, cell)| match code(cell).first() {
                Some(mark) => config.frames(&format!("{name} = {mark}")),
                None => config,
            })
    }

    fn config(&self, service: SocketAddr) -> Config {
        self.config_with(service, self.frame())
    }
}

/// What the README's table of ids adds to a row.
fn with_ids(protocol: &str, config: Config) -> Config {
    let readme = include_str!("../README.md");
    let (_, ids) = readme.split_once("| protocol | `id` |").unwrap();
    let row = ids
        .lines()
        .find(|line| line.starts_with(&format!("| {protocol} ")))
        .unwrap_or_else(|| panic!("no ids for {protocol}"));
    let cells: Vec<&str> = row.split('|').collect();
    let ["", _, id, magic, request, ""] = cells[..] else {
        panic!("another number of columns: {row}")
    };
    let keys = [("id", id), ("magic", magic), ("request", request)];
    keys.into_iter()
        .fold(config, |config, (name, cell)| match code(cell).first() {
            Some(value) => config.frames(&format!("{name} = {value}")),
            None => config,
        })
}

/// A program with one row and ids, one service and one storm, all of it over one connection.
fn storm_with_ids(peer: &Peer, protocol: &str, variant: &str) -> (Told, Snapshot) {
    let address = free();
    let at = |address: SocketAddr| format!("{}{variant}", address.port());
    let _service = peer.serve(&[at(address)], &[address]);
    let proxy = with_ids(protocol, Row::of(protocol).config(address)).start();
    let told = peer.ask("ask", &storm([at(proxy.address())]));
    let now = all_was_carried(proxy, &told);
    assert_eq!(now.upstream("connects/established"), 1, "{:#}", now.0);
    (told, now)
}

/// What stands between backticks.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn free() -> SocketAddr {
    free_address("127.0.0.1")
}

/// The arguments of a storm of clients.
fn storm(targets: impl IntoIterator<Item = String>) -> Vec<String> {
    [CLIENTS, CONNECTIONS, REQUESTS]
        .map(|count| count.to_string())
        .into_iter()
        .chain(targets)
        .collect()
}

/// Ends a test: all of it went over shared connections that were kept, and nobody was cut off.
fn all_was_carried(proxy: Proxy, told: &Told) -> Snapshot {
    let now = proxy.wait_completed(told.replies + told.oneway);
    let opened = now.listener("sessions/opened");
    assert_eq!(opened, CLIENTS * CONNECTIONS, "short-lived clients");
    few_connections_were_kept(&now);
    proxy.finish();
    now
}

fn few_connections_were_kept(now: &Snapshot) {
    let established = now.upstream("connects/established");
    assert!((1..=POOL).contains(&established), "{:#}", now.0);
    let lost = [
        now.sum("/upstreams/service/discards"),
        now.sum("/listeners/front/refusals"),
        now.resets_sent() + now.resets_received(),
    ];
    assert_eq!(lost, [0; 3], "{:#}", now.0);
}

/// Every reply came, and of the one-way calls all that were made.
fn expect_told(told: &Told, requests: u64, oneway: u64) {
    let connections = CLIENTS * CONNECTIONS;
    assert!(told.replies >= connections * requests, "{told:?}");
    assert_eq!(told.oneway, connections * oneway, "{told:?}");
}

/// A program with one row, one service and one storm.
fn storm_through(peer: &Peer, row: &Row, variant: &str) -> (Told, Snapshot) {
    let address = free();
    let at = |address: SocketAddr| format!("{}{variant}", address.port());
    let _service = peer.serve(&[at(address)], &[address]);
    let proxy = row.config(address).start();
    let told = peer.ask("ask", &storm([at(proxy.address())]));
    let now = all_was_carried(proxy, &told);
    (told, now)
}

/// Services of one Java program, one for each framing, and a storm through a millpond for each.
fn storm_through_all(peer: &Peer, row: &Row, framings: &[(String, String)]) {
    let addresses: Vec<SocketAddr> = framings.iter().map(|_| free()).collect();
    let at = |address: &SocketAddr, variant: &str| format!("{}/{variant}", address.port());
    let services: Vec<String> = addresses
        .iter()
        .zip(framings)
        .map(|(address, (variant, _))| at(address, variant))
        .collect();
    let _service = peer.serve(&services, &addresses);
    let proxies: Vec<Proxy> = addresses
        .iter()
        .zip(framings)
        .map(|(&address, (_, frame))| row.config_with(address, frame).start())
        .collect();
    let targets = proxies
        .iter()
        .zip(framings)
        .map(|(proxy, (variant, _))| at(&proxy.address(), variant));
    let told = peer.ask("ask", &storm(targets));
    let each = CLIENTS * CONNECTIONS * REQUESTS;
    let all = each * framings.len() as u64;
    assert_eq!((told.replies, told.oneway), (all, 0));
    for proxy in proxies {
        let told = Told {
            replies: each,
            oneway: 0,
        };
        all_was_carried(proxy, &told);
    }
}

#[test]
fn mina_strings_behind_their_length() {
    let peer = Peer::java("MinaPeer", &["mina2-core", "slf4j-api", "slf4j-nop"]);
    let row = Row::of("MINA");
    let framings = [1, 2, 4].map(|width| {
        let frame = row
            .frame()
            .replace("width = 4", &format!("width = {width}"));
        (width.to_string(), frame)
    });
    storm_through_all(&peer, &row, &framings);
}

#[test]
fn netty_frames_behind_their_length() {
    let archives = [
        "netty-buffer",
        "netty-codec",
        "netty-common",
        "netty-resolver",
        "netty-transport",
    ];
    let peer = Peer::java("NettyPeer", &archives);
    let row = Row::of("Netty");
    let [_, _, counts_itself, _, little] = code(&row.frame)[..] else {
        panic!("another row: {}", row.frame)
    };
    let framings = [
        (1, false, "big"),
        (2, true, "big"),
        (3, false, "big"),
        (4, false, "big"),
        (4, true, "little"),
        (8, true, "big"),
    ]
    .map(|(width, includes, order)| {
        let what = if includes { "all" } else { "payload" };
        let mut frame = row.frame().to_owned();
        if includes {
            frame = frame.replace("adjust = 0", counts_itself);
        }
        if order == "little" {
            frame = frame.replace("endian = \"big\"", little);
        }
        // What the row calls n.
        let frame = frame
            .replace("= n", &format!("= {width}"))
            .replace("= -n", &format!("= -{width}"));
        (format!("{width}/{what}/{order}"), frame)
    });
    storm_through_all(&peer, &row, &framings);
}

#[test]
fn lines_that_end_with_lf_crlf_or_nul() {
    let peer = Peer::python("lines.py", &[]);
    let row = Row::of("text lines");
    let [newline, nul] = code(&row.frame)[..] else {
        panic!("another row: {}", row.frame)
    };
    for (end, frame) in [("lf", newline), ("crlf", newline), ("nul", nul)] {
        let address = free();
        let _service = peer.serve(&[format!("{}/{end}", address.port())], &[address]);
        let proxy = row.config_with(address, frame).start();
        let target = format!("{}/{end}", proxy.address().port());
        let told = peer.ask("ask", &storm([target]));
        expect_told(&told, REQUESTS, 0);
        all_was_carried(proxy, &told);
    }
}

#[test]
fn lines_of_a_mail_servers_lookup_table() {
    let [forward, reverse] = [free(), free()];
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "the key of this test\n").unwrap();
    let mut command = Command::new("/usr/sbin/postsrsd");
    command.args(["-4", "-l", "127.0.0.1", "-d", "pond.example", "-s"]);
    command.arg(&secret);
    command.arg("-f").arg(forward.port().to_string());
    command.arg("-r").arg(reverse.port().to_string());
    let mut service = Process::start(&mut command);
    await_listening(&mut service, &[forward]);
    let proxy = Row::of("text lines").config(forward).start();
    let target = format!("{}/lf", proxy.address().port());
    let told = Peer::python("lines.py", &[]).ask("srs", &storm([target]));
    expect_told(&told, REQUESTS, 0);
    all_was_carried(proxy, &told);
}

#[test]
fn dubbo_calls_one_way_calls_and_heartbeats() {
    let peer = Peer::node("dubbo.js", &["dubbo-remoting"]);
    let (told, now) = storm_through(&peer, &Row::of("Dubbo"), "");
    // One heartbeat of each client is answered, like the requests.
    expect_told(&told, REQUESTS + 1, ONEWAY);
    // Every fifth request makes the service send two of its own, and the clients saw none.
    let stirred = CLIENTS * CONNECTIONS * REQUESTS.div_ceil(5);
    assert_eq!(now.upstream("heartbeats_dropped"), 2 * stirred);
}

#[test]
fn dubbo_clients_share_one_connection() {
    let peer = Peer::node("dubbo.js", &["dubbo-remoting"]);
    let (told, now) = storm_with_ids(&peer, "Dubbo", "");
    expect_told(&told, REQUESTS + 1, ONEWAY);
    let stirred = CLIENTS * CONNECTIONS * REQUESTS.div_ceil(5);
    assert_eq!(now.upstream("heartbeats_dropped"), 2 * stirred);
}

#[test]
fn thrift_clients_share_one_connection() {
    let peer = Peer::thrift("thrift_calls.py");
    for (protocol, row, oneway) in [
        ("strict", "Thrift, framed, binary (strict)", ONEWAY),
        ("header", "Thrift, header, binary", 0),
    ] {
        let (told, _) = storm_with_ids(&peer, row, &format!("/{protocol}"));
        expect_told(&told, 2 * REQUESTS, oneway);
    }
}

#[test]
fn kafka_producers_share_one_connection() {
    let peer = Peer::python("kafka_calls.py", &["kafka"]);
    let (_broker, proxy) = broker(&peer, |config| with_ids("Kafka", config));
    let told = peer.ask("ask", &storm([proxy.address().port().to_string()]));
    expect_told(&told, REQUESTS, 0);
    let now = proxy.wait_until("all sessions have ended", |now| {
        now.listener("sessions/open") == 0
    });
    assert_eq!(now.upstream("connects/established"), 1, "{:#}", now.0);
    few_connections_were_kept(&now);
    proxy.finish();
}

#[test]
fn thrift_calls_and_one_way_calls() {
    let peer = Peer::thrift("thrift_calls.py");
    for (protocol, row) in [
        ("strict", "Thrift, framed, binary (strict)"),
        ("compact", "Thrift, framed, compact"),
        ("header", "Thrift, header, binary"),
    ] {
        let oneway = if protocol == "header" { 0 } else { ONEWAY };
        let (told, _) = storm_through(&peer, &Row::of(row), &format!("/{protocol}"));
        expect_told(&told, 2 * REQUESTS, oneway);
    }
}

#[test]
fn a_thrift_service_answers_a_one_way_call_that_it_does_not_know_and_nobody_gets_the_answer() {
    let peer = Peer::thrift("thrift_calls.py");
    let address = free();
    let at = |address: SocketAddr| format!("{}/strict", address.port());
    let _service = peer.serve(&[at(address)], &[address]);
    let row = Row::of("Thrift, framed, binary (strict)");
    let proxy = row.config(address).start();
    assert_eq!(peer.ask("unheard", &[at(proxy.address())]).oneway, 1);
    // That holds where it comes before the connection is lent again.
    proxy.wait_upstream("discards/idle_bytes", 1);
    let told = peer.ask("ask", &storm([at(proxy.address())]));
    expect_told(&told, 2 * REQUESTS, ONEWAY);
    let now = proxy.wait_completed(told.replies + told.oneway + 1);
    assert_eq!(now.sum("/upstreams/service/discards"), 1, "{:#}", now.0);
    proxy.finish();
}

#[test]
fn thrift_calls_without_strict_writes_go_through_where_no_one_way_call_is_declared() {
    let peer = Peer::thrift("thrift_calls.py");
    let mut row = Row::of("Thrift, framed, binary (strict)");
    row.oneway.clear();
    let (told, _) = storm_through(&peer, &row, "/loose");
    expect_told(&told, 2 * REQUESTS, 0);
}

#[test]
fn tars_calls_and_one_way_calls() {
    let peer = Peer::node("tars.js", &["@tars/rpc"]);
    let (told, _) = storm_through(&peer, &Row::of("Tars"), "");
    expect_told(&told, REQUESTS, ONEWAY);
}

/// A stand-in for a broker, and millpond in front of it, where the broker says that it is.
fn broker(peer: &Peer, and: impl FnOnce(Config) -> Config) -> (Process, Proxy) {
    let [address, front] = [free(), free()];
    let ports = [address, front].map(|address| address.port().to_string());
    let service = peer.serve(&ports, &[address]);
    let config = Row::of("Kafka").config(address).listen(&front.to_string());
    (service, and(config).start())
}

#[test]
fn kafka_producers_that_want_replies() {
    let peer = Peer::python("kafka_calls.py", &["kafka"]);
    let (_broker, proxy) = broker(&peer, |config| config);
    let told = peer.ask("ask", &storm([proxy.address().port().to_string()]));
    expect_told(&told, REQUESTS, 0);
    // A producer also asks for the versions and the topics, over a connection of its own.
    let now = proxy.wait_until("all sessions have ended", |now| {
        now.listener("sessions/open") == 0
    });
    assert!(now.listener("sessions/opened") >= 2 * CLIENTS * CONNECTIONS);
    assert!(now.upstream("exchanges/completed") >= told.replies);
    few_connections_were_kept(&now);
    proxy.finish();
}

#[test]
fn a_kafka_producer_that_wants_no_replies_loses_its_connection_and_nobody_a_reply() {
    let peer = Peer::python("kafka_calls.py", &["kafka"]);
    let (_broker, proxy) = broker(&peer, |config| config.upstream("response_timeout = \"2s\""));
    let port = proxy.address().port().to_string();
    std::thread::scope(|scope| {
        let port = port.clone();
        let peer = &peer;
        scope.spawn(move || {
            let one = || "1".to_owned();
            peer.ask("ask", &[one(), one(), one(), port, "0".to_owned()])
        });
        let told = peer.ask("ask", &storm([proxy.address().port().to_string()]));
        expect_told(&told, REQUESTS, 0);
    });
    let now = proxy.wait_listener("refusals/response_timeout", 1);
    assert_eq!(now.sum("/upstreams/service/discards"), 1, "{:#}", now.0);
    assert_eq!(now.upstream("discards/response_timeout"), 1);
    proxy.finish();
}
