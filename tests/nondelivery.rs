//! A request whose connection the service has closed is sent again where TCP proves that the service
//! never had it, whatever its method; and nowhere else.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout)]

mod support;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::process::Command;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::client::{self, Client};
use support::crossing::{Crossing, Until};
use support::netns::{Network, SERVICE};
use support::nginx::{Nginx, free_address, target_of};
use support::peer::await_listening;
use support::process::{Process, run};
use support::proxy::{Config, Proxy};
use support::upstream::{Connection, Service};
use support::wait;

/// The configuration as it is by default.
fn plain(config: Config) -> Config {
    config
}

/// Expects that a request went out again once, proved, and that the ledger has the RST that proved it.
fn expect_proven(crossing: &Crossing, manner: &str) {
    let now = crossing.proxy.snapshot();
    assert_eq!(now.upstream("retries/proven"), 1);
    assert_eq!(now.sum("/upstreams/service/races_lost"), 0);
    let labels = [
        "initiator=upstream",
        "phase=request",
        &format!("manner={manner}"),
    ];
    assert_eq!(now.connection_ends(&labels), 1, "{:#}", now.0);
    let reset = ["direction=received", "phase=request"];
    assert_eq!(now.rows("/upstreams/service/resets", &reset), 1);
    assert_eq!(crossing.network.upstream_resets().received, 1);
}

/// Expects that a request failed, for this reason, and did not go out again.
fn expect_lost(crossing: &Crossing, reason: &str) {
    let now = crossing.proxy.snapshot();
    assert_eq!(now.sum("/upstreams/service/retries"), 0);
    assert_eq!(now.sum("/upstreams/service/races_lost"), 1);
    assert_eq!(now.upstream(&format!("races_lost/{reason}")), 1);
}

#[test]
fn a_request_that_came_after_the_services_close_is_sent_again_whatever_its_method() {
    for method in ["POST", "PATCH", "GET"] {
        let crossing = Crossing::prepare(plain, drop);
        let request =
            format!("{method} /next HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        let answer = crossing.run(request.as_bytes(), Until::Fin);
        assert_eq!(answer, (200, "connection 1".to_owned()), "{method}");
        expect_proven(&crossing, "fin");
        assert_eq!(crossing.finish(), 2, "the service had it once");
    }
}

#[test]
fn a_post_that_crosses_a_408_and_a_close_is_sent_again() {
    let crossing = Crossing::prepare(plain, |mut connection| {
        connection.write("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
    });
    let answer = crossing.run(&client::post("/next", b"body"), Until::Fin);
    assert_eq!(answer, (200, "connection 1".to_owned()));
    expect_proven(&crossing, "violation");
    assert_eq!(crossing.finish(), 2);
}

#[test]
fn a_post_whose_body_is_still_coming_is_sent_again_with_all_of_it() {
    let crossing = Crossing::prepare(plain, drop);
    let head = "POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n";
    let mut client = crossing.send(head.as_bytes(), Until::Fin);
    client.send([b'x'; 4000]);
    assert_eq!(client.read("POST").text(), "connection 1");
    drop(client);
    expect_proven(&crossing, "fin");
    assert_eq!(crossing.finish(), 2);
}

#[test]
fn a_post_that_expects_to_be_asked_for_its_body_is_sent_again() {
    let crossing = Crossing::prepare(plain, drop);
    let head =
        "POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let mut client = crossing.send(head.as_bytes(), Until::Fin);
    client.send("body");
    assert_eq!(client.read("POST").text(), "connection 1");
    drop(client);
    expect_proven(&crossing, "fin");
    assert_eq!(crossing.finish(), 2);
}

#[test]
fn a_post_over_the_retry_buffer_fails_although_it_was_not_delivered() {
    let small = |config: Config| config.upstream("retry_buffer = \"1KiB\"");
    let crossing = Crossing::prepare(small, drop);
    // In one segment, which is lost whole.
    let (status, _) = crossing.run(&client::post("/next", &[b'x'; 1100]), Until::Fin);
    assert_eq!(status, 502);
    expect_lost(&crossing, "too_large");
    assert_eq!(crossing.finish(), 1);
}

#[test]
fn nothing_is_sent_again_where_the_operator_forbids_it_but_the_reset_is_in_the_ledger() {
    let off = |config: Config| config.upstream("retry = \"off\"");
    let crossing = Crossing::prepare(off, drop);
    let (status, _) = crossing.run(&client::post("/next", b"body"), Until::Fin);
    assert_eq!(status, 502);
    expect_lost(&crossing, "off");
    let reset = ["direction=received", "phase=request"];
    crossing.proxy.wait_until("the reset is counted", |now| {
        now.rows("/upstreams/service/resets", &reset) == 1
    });
    assert_eq!(crossing.finish(), 1);
}

#[test]
fn a_post_that_a_service_executes_behind_its_own_fin_is_not_sent_again() {
    let crossing = Crossing::prepare(plain, |mut connection| {
        connection.half_close();
        assert!(connection.request().is_some(), "it goes on reading");
        connection.wait_for_end();
    });
    let (status, _) = crossing.run(&client::post("/next", b"body"), Until::Fin);
    assert_eq!(status, 502);
    expect_lost(&crossing, "acknowledged");
    assert_eq!(crossing.finish(), 2, "executed once");
}

#[test]
fn a_post_that_nobody_answers_for_is_not_sent_again() {
    // The service's FIN came, and then nothing: the request stays lost on the cable.
    let crossing = Crossing::prepare(plain, drop);
    let counted = Until::Counted("discards/lost_race");
    let (status, _) = crossing.run(&client::post("/next", b"body"), counted);
    assert_eq!(status, 502);
    expect_lost(&crossing, "undecided");
    assert_eq!(crossing.finish(), 1);
}

#[test]
fn a_post_whose_connection_the_kernel_gave_up_is_not_sent_again() {
    // The end of such a connection looks like that of one that was reset, and answers nothing.
    let impatient = |config: Config| config.upstream("user_timeout = \"100ms\"");
    let crossing = Crossing::prepare(impatient, drop);
    let counted = Until::Counted("discards/lost_race");
    let (status, _) = crossing.run(&client::post("/next", b"body"), counted);
    assert_eq!(status, 502);
    expect_lost(&crossing, "undecided");
    assert_eq!(crossing.proxy.snapshot().resets_received(), 0);
    assert_eq!(crossing.finish(), 1);
}

#[test]
fn over_a_unix_socket_nothing_is_proved() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start_unix(&directory.path().join("service"), |mut connection| {
        connection.answer("good");
        connection.request();
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    assert_eq!(client.get("/warm").text(), "good");
    assert_eq!(client.post("/", b"body").status(), 502);
    drop(client);
    assert_eq!(proxy.snapshot().upstream("races_lost/not_tcp"), 1);
    assert_eq!(service.requests(), 2);
    proxy.finish();
}

/// A service of lines that has closed when the line `next` comes.
fn lines(configure: impl Fn(Config) -> Config) -> (Crossing, String) {
    let answer = |connection: &mut Connection| {
        let came = connection.through(b"\n").is_ok();
        if came {
            connection.count_request();
            let number = connection.number;
            connection.write(format!("connection {number}\n"));
        }
        came
    };
    let warm = |client: &mut Client| {
        client.send("warm\n");
        assert_eq!(client.through(b"\n").unwrap(), b"connection 0\n");
    };
    let framed = |config: Config| {
        let config = config.protocol("frames").frames("delimiter = \"\\n\"");
        configure(config.frames("error_reply = \"failed\\n\""))
    };
    let crossing = Crossing::between(framed, answer, drop, warm);
    let mut client = crossing.send(b"next\n", Until::Fin);
    let answer = String::from_utf8(client.through(b"\n").unwrap()).unwrap();
    (crossing, answer)
}

#[test]
fn a_frame_that_came_after_the_services_close_is_sent_again() {
    let (crossing, answer) = lines(plain);
    assert_eq!(answer, "connection 1\n");
    expect_proven(&crossing, "fin");
    assert_eq!(crossing.finish(), 2);
}

#[test]
fn no_frame_is_sent_again_where_some_have_no_answer() {
    let oneway = "oneway = { offset = 0, value = 0x4f }";
    let (crossing, answer) = lines(|config| config.frames(oneway));
    assert_eq!(answer, "failed\n");
    expect_lost(&crossing, "oneway");
    assert_eq!(crossing.finish(), 1);
}

const LOOPBACK: &str = "127.0.0.1";

/// An asyncio service that says what it executes; see `tests/race/keepalive.py`.
struct Keepalive {
    process: Process,
    address: SocketAddr,
}

impl Keepalive {
    fn start(host: &str, idle: &str, hang: &str) -> Self {
        let address = free_address(host);
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/race/keepalive.py");
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-B", program, host, &address.port().to_string(), idle, hang]);
        let mut process = Process::start(&mut command);
        await_listening(&mut process, &[address]);
        Self { process, address }
    }

    /// Kills it: all that it has executed.
    fn executed(self) -> Vec<String> {
        self.process.signal(Signal::SIGKILL);
        let (_, said) = self.process.outcome();
        said.lines().map(str::to_owned).collect()
    }

    fn has_executed(&self, target: &str) -> bool {
        self.process.said().iter().any(|said| said == target)
    }

    /// Bytes that wait in its connections for their reader.
    fn has_unread(&self) -> bool {
        let filter = format!("sport = :{}", self.address.port());
        let sockets = run("ss", &["-tnH", "state", "established", &filter]);
        let unread = |line: &str| line.split_whitespace().next() != Some("0");
        sockets.lines().any(unread)
    }
}

/// Sends a POST over a reused connection to one of two services, kills that one with SIGKILL once
/// `has_it`, and expects that the client is told and the other service gets nothing.
fn killed_under_a_post(hang: &str, has_it: fn(&Keepalive) -> bool) -> u64 {
    let mut services = vec![
        Keepalive::start(LOOPBACK, "0", hang),
        Keepalive::start(LOOPBACK, "0", hang),
    ];
    let addresses: Vec<_> = services.iter().map(|it| it.address.to_string()).collect();
    let proxy = Config::to_all(&[&addresses[0], &addresses[1]]).start();
    assert_eq!(proxy.client().get("/warm").text(), "/warm");
    proxy.wait_completed(1);
    let mut client = proxy.client();
    client.send(client::post("/post", b"body"));
    let victim = wait::until("a service has the request", || {
        services.iter().position(has_it)
    });
    let executed_by = |services: &[Keepalive]| -> u64 {
        services
            .iter()
            .map(|it| u64::from(it.has_executed("/post")))
            .sum()
    };
    let executed = executed_by(&services);
    drop(services.remove(victim));
    assert_eq!(client.read("POST").status(), 502);
    drop(client);
    assert_eq!(
        executed_by(&services),
        0,
        "the other service was sent it too"
    );
    let now = proxy.snapshot();
    assert_eq!(now.sum("/upstreams/service/retries"), 0);
    assert_eq!(now.sum("/upstreams/service/races_lost"), 1);
    proxy.finish();
    executed
}

#[test]
fn a_post_whose_service_is_killed_after_executing_it_is_not_sent_again() {
    let executed = killed_under_a_post("executes", |service| service.has_executed("/post"));
    assert_eq!(executed, 1);
}

#[test]
fn a_post_whose_service_is_killed_before_reading_it_is_not_sent_again() {
    let executed = killed_under_a_post("unread", Keepalive::has_unread);
    assert_eq!(executed, 0);
}

/// What became of the POSTs of a storm.
#[derive(Default)]
struct Storm {
    succeeded: HashSet<String>,
    failed: HashSet<String>,
}

const CLIENTS: usize = 40;

/// POSTs of each client: a share of `MILLPOND_RACES`.
fn rounds() -> usize {
    let asked = std::env::var("MILLPOND_RACES").ok();
    asked.map_or(100, |it| {
        it.parse::<usize>().expect("MILLPOND_RACES is a number") / CLIENTS
    })
}

/// Clients that all send a POST at once, then pause for so many microseconds: about the time after which
/// the service closes, so that its closes meet their next requests.
fn storm(address: SocketAddr, pauses: Range<u64>) -> Storm {
    let storm = Mutex::new(Storm::default());
    let barrier = Barrier::new(CLIENTS);
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (storm, barrier, pauses) = (&storm, &barrier, pauses.clone());
            scope.spawn(move || {
                let mut client = Client::dial(address);
                for round in 0..rounds() {
                    let target = format!("/{number}-{round}");
                    let answer = client.post(&target, b"body");
                    let mut storm = storm.lock().unwrap();
                    let is_new = match answer.status() {
                        200 => storm.succeeded.insert(target),
                        502 => storm.failed.insert(target),
                        status => panic!("{status}: {}", answer.text()),
                    };
                    assert!(is_new);
                    drop(storm);
                    barrier.wait();
                    let mut random = fastrand::Rng::with_seed(round as u64);
                    wait::pace(Duration::from_micros(random.u64(pauses.clone())));
                }
            });
        }
    });
    storm.into_inner().unwrap()
}

/// Holds what the clients were told against what the service has executed, and says what was proved.
fn expect_executed_once(proxy: &Proxy, storm: &Storm, executed: &[String]) -> u64 {
    let mut times: HashMap<&str, u64> = HashMap::new();
    for target in executed {
        *times.entry(target).or_default() += 1;
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "executed twice: {twice:?}");
    for target in &storm.succeeded {
        assert!(
            times.contains_key(target.as_str()),
            "{target} was answered by nobody"
        );
    }
    let now = proxy.snapshot();
    let failed = storm.failed.len() as u64;
    // On a new connection it was no race.
    let died_anew = now.upstream("discards/no_answer");
    let lost = now.sum("/upstreams/service/races_lost");
    assert_eq!(lost + died_anew, failed, "{:#}", now.0);
    let proven = now.upstream("retries/proven");
    let test = std::thread::current().name().unwrap().to_owned();
    println!(
        "{test}: {} POSTs: {failed} failed, {proven} proven, {} unsent; lost: {}",
        CLIENTS * rounds(),
        now.upstream("retries/unsent"),
        now.0["upstreams"]["service"]["races_lost"],
    );
    proven
}

/// Pauses around an idle timeout of 20 ms.
const AROUND_20_MS: Range<u64> = 16_000..24_000;
/// The same where a request takes 5 ms to the service, and its answer took as long.
const AROUND_20_MS_STRETCHED: Range<u64> = 8_000..16_000;

#[test]
fn a_storm_of_races_with_an_asyncio_service_executes_no_post_twice() {
    let service = Keepalive::start(LOOPBACK, "0.02", "never");
    let proxy = Config::to(&service.address.to_string()).start();
    let storm = storm(proxy.address(), AROUND_20_MS);
    expect_executed_once(&proxy, &storm, &service.executed());
    proxy.finish();
}

#[test]
fn a_storm_with_a_service_that_dies_after_executing_executes_no_post_twice() {
    let service = Keepalive::start(LOOPBACK, "0.02", "dies");
    let proxy = Config::to(&service.address.to_string()).start();
    let storm = storm(proxy.address(), AROUND_20_MS);
    let executed = service.executed();
    let answered = storm.succeeded.len();
    assert!(executed.len() > answered, "some had no answer");
    expect_executed_once(&proxy, &storm, &executed);
    proxy.finish();
}

const NGINX: &str = "keepalive_timeout 20ms; location / { return 200; }";

/// The targets of the requests that nginx has answered.
fn answered_by(nginx: &Nginx, storm: &Storm) -> Vec<String> {
    wait::until("nginx has logged what it answered", || {
        let log = nginx.access_log();
        let targets: Vec<_> = log.iter().map(|line| target_of(line)).collect();
        let logged: HashSet<_> = targets.iter().cloned().collect();
        storm.succeeded.is_subset(&logged).then_some(targets)
    })
}

#[test]
fn a_storm_of_races_with_nginx_executes_no_post_twice() {
    let nginx = Nginx::start(LOOPBACK, NGINX);
    let proxy = Config::to(&nginx.address().to_string()).start();
    let storm = storm(proxy.address(), AROUND_20_MS);
    expect_executed_once(&proxy, &storm, &answered_by(&nginx, &storm));
    proxy.finish();
}

/// A millpond whose service is 5 ms away.
fn stretched(network: &Network, service: SocketAddr) -> Proxy {
    let config = Config::to(&service.to_string()).listen("10.77.1.2:0");
    network.proxy.enter(|| config.start())
}

#[test]
fn a_storm_of_races_over_a_long_cable_is_won_by_proof_with_an_asyncio_service() {
    let network = Network::create();
    let _cable = network.stretch("0.005");
    let service = network
        .service
        .enter(|| Keepalive::start(SERVICE, "0.02", "never"));
    let proxy = stretched(&network, service.address);
    let address = proxy.address();
    let storm = network
        .clients
        .enter(|| storm(address, AROUND_20_MS_STRETCHED));
    let proven = expect_executed_once(&proxy, &storm, &service.executed());
    assert!(proven > 0, "no race was met: the storm shows nothing");
    proxy.finish();
}

#[test]
fn a_storm_of_races_over_a_long_cable_is_won_by_proof_with_nginx() {
    let network = Network::create();
    let _cable = network.stretch("0.005");
    let nginx = network.service.enter(|| Nginx::start(SERVICE, NGINX));
    let proxy = stretched(&network, nginx.address());
    let address = proxy.address();
    let storm = network
        .clients
        .enter(|| storm(address, AROUND_20_MS_STRETCHED));
    let proven = expect_executed_once(&proxy, &storm, &answered_by(&nginx, &storm));
    assert!(proven > 0, "no race was met: the storm shows nothing");
    proxy.finish();
}
