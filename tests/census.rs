//! The kernel's own count of sockets and ports, and what millpond says by it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout)]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::client::{self, Client};
use support::netns::{Namespace, Network, SERVICE};
use support::proxy::{Config, Proxy};
use support::upstream::Service;
use support::wait;

/// The service's host has an address of its own, so that no TIME_WAIT is reused.
fn service(network: &Network) -> Service {
    let start = || Service::start_on(&format!("{SERVICE}:0"), serve);
    network.service.enter(start)
}

fn serve(mut connection: support::upstream::Connection) {
    while connection.request().is_some() {
        connection.reply("whole");
    }
}

/// With a census only when one is asked for.
fn config(service: &Service) -> Config {
    counting_every(service, "0s")
}

fn counting_every(service: &Service, interval: &str) -> Config {
    Config::to(service.address())
        .listen("10.77.1.2:0")
        .more(&format!("[ledger]\ncensus_interval = \"{interval}\"\n"))
}

fn census(proxy: &Proxy) -> Value {
    let (status, text) = proxy.admin("GET", "/api/v1/census");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The sockets of one leg.
fn leg<'a>(census: &'a Value, side: &str) -> &'a Value {
    let legs = census["legs"].as_array().unwrap();
    legs.iter().find(|leg| leg["side"] == side).unwrap()
}

/// Dials and holds.
fn dial(from: &Namespace, to: SocketAddr, count: usize) -> Vec<TcpStream> {
    from.enter(|| {
        (0..count)
            .map(|_| TcpStream::connect(to).unwrap())
            .collect()
    })
}

#[test]
fn the_census_counts_each_leg_as_ss_does() {
    let network = Network::create();
    let service = service(&network);
    let proxy = network
        .proxy
        .enter(|| config(&service).pool("size = 8").start());
    // Some stay, and some end first and keep TIME_WAIT, each on its own host.
    let mut clients: Vec<Client> = network
        .clients
        .enter(|| (0..5).map(|_| proxy.client()).collect());
    for client in &mut clients {
        assert_eq!(client.get("/").status(), 200);
    }
    for _ in 0..7 {
        let mut client = network.clients.enter(|| proxy.client());
        client.send(client::last_get("/"));
        assert_eq!(client.read("GET").status(), 200);
        client.expect_fin();
    }
    proxy.wait_listener("sessions/open", 5);
    let port = proxy.address().port();
    let ss = |state: &str| {
        let filter = format!("state {state} sport = :{port}");
        network.proxy.sockets(&filter)
    };
    let counted = wait::until("the last close is complete", || {
        let census = census(&proxy);
        let sockets = leg(&census, "downstream")["sockets"].clone();
        (sockets["time_wait"] == 7).then_some(sockets)
    });
    assert_eq!(counted["established"], 5);
    for (state, name) in [
        ("established", "established"),
        ("time-wait", "time_wait"),
        ("close-wait", "close_wait"),
        ("fin-wait-2", "fin_wait_2"),
        ("last-ack", "last_ack"),
    ] {
        assert_eq!(counted[name], ss(state), "{state}");
    }
    let census = census(&proxy);
    let upstream = leg(&census, "upstream");
    let opened = proxy.snapshot().upstream("connections/open");
    assert_eq!(upstream["sockets"]["established"], opened);
    // What the metrics say is the last census.
    let metrics = proxy.metrics();
    let line = "millpond_kernel_sockets{side=\"downstream\",name=\"front\",state=\"time_wait\"} 7";
    assert!(metrics.contains(line), "{metrics}");
    let line = "millpond_ephemeral_ports_run_out_seconds{";
    let line = metrics.lines().find(|it| it.starts_with(line)).unwrap();
    let (_, left) = line.rsplit_once(' ').unwrap();
    assert_eq!(left.parse(), Ok(f64::INFINITY), "not in sight");
    drop(clients);
    proxy.finish();
}

#[test]
fn ports_in_use_in_time_wait_and_free_are_all_the_ports() {
    let network = Network::create();
    network.set_ports("50000 50099");
    let reserved = "net.ipv4.ip_local_reserved_ports=50010-50019";
    network.proxy.run("sysctl", &["-qw", reserved]);
    let service = service(&network);
    let proxy = network.proxy.enter(|| config(&service).start());
    let held = dial(&network.proxy, service.socket_address(), 12);
    // These end first: TIME_WAIT is millpond's host's.
    drop(dial(&network.proxy, service.socket_address(), 5));
    let row = wait::until("five are in TIME_WAIT", || {
        let row = census(&proxy)["ports"][0].clone();
        (row["time_wait"] == 5).then_some(row)
    });
    let number = |name: &str| row[name].as_u64().unwrap();
    assert_eq!(number("count"), 90);
    // The port that millpond listens on is picked for nobody.
    let listening = u64::from((50000..50100).contains(&proxy.address().port()));
    assert_eq!(number("used"), 12 + listening);
    assert_eq!(number("free"), 90 - 12 - listening - 5);
    assert_eq!(
        (row["source"].as_str(), row["from"].as_str()),
        (Some("auto"), Some("10.77.2.2"))
    );
    assert_eq!(row["reuses_time_wait"], false);
    assert!(row["run_out_seconds"].is_null());
    drop(held);
    proxy.finish();
}

/// Port 7 of the shell stays open in millpond, which knows nothing of it.
#[test]
fn a_socket_that_the_ledger_does_not_know_is_a_leak() {
    let network = Network::create();
    let service = service(&network);
    let (ip, port) = service.address().rsplit_once(':').unwrap();
    let shell = format!("exec 7<>/dev/tcp/{ip}/{port}; exec \"$@\"");
    for (through, leaks) in [(None, 0), (Some(shell), 1)] {
        let twin = format!(
            "[upstream.twin]\nprotocol = \"http\"\nendpoints = [\"{}\"]\npool.min_idle = 2\n",
            service.address()
        );
        let mut config = config(&service).more(&twin);
        if let Some(shell) = &through {
            config = config.through(&["bash", "-c", shell, "bash"]);
        }
        let proxy = network.proxy.enter(|| config.start());
        let mut client = network.clients.enter(|| proxy.client());
        assert_eq!(client.get("/").status(), 200);
        // Somebody else's sockets are none of ours, nor is what another upstream has at the same endpoint.
        let others = dial(&network.proxy, service.socket_address(), 3);
        // Found in the second census that is a second later than the first.
        let began = wait::now();
        let found = wait::until("censuses for long enough", || {
            census(&proxy);
            let now = proxy.snapshot();
            let twins = now.number("/upstreams/twin/leaks/no_entry");
            let found = now.upstream("leaks/no_entry") + twins;
            (found > 0 || wait::now() - began > Duration::from_secs(3)).then_some(found)
        });
        assert_eq!(found, leaks);
        // Its own connections are none, and what is counted is counted once.
        let now = proxy.snapshot();
        assert_eq!(now.upstream("leaks/no_socket"), 0);
        assert_eq!(now.listener("leaks/no_entry"), 0);
        assert_eq!(now.listener("leaks/no_socket"), 0);
        census(&proxy);
        let now = proxy.snapshot();
        assert_eq!(
            now.upstream("leaks/no_entry") + now.number("/upstreams/twin/leaks/no_entry"),
            leaks
        );
        drop(others);
        drop(client);
        // What leaks, and the twin's, is seen at the end of every other test, too.
        proxy.signal(Signal::SIGTERM);
        assert!(proxy.wait().success());
    }
}

/// A spare that was greeted gets another descriptor, and one whose upstream a reload has renamed is still
/// in a ledger.
#[test]
fn greeted_spares_and_renamed_upstreams_leak_nothing() {
    let service = Service::start(|mut connection| {
        connection.write("220 hello\n");
        connection.wait_for_end();
    });
    let config = |upstream: &'static str| {
        let named = format!(
            "[upstream.{upstream}]\nprotocol = \"tcp\"\nendpoints = [\"{}\"]\npool.min_idle = 1\n",
            service.address()
        );
        Config::to(service.address())
            .more("[ledger]\ncensus_interval = \"0s\"\n")
            .more(&named)
            .upstream_of_front(upstream)
    };
    let proxy = config("before").start();
    proxy.wait_until("a spare", |now| {
        now.number("/upstreams/before/endpoints/0/idle") == 1
    });
    service.wait_accepted(1);
    let mut client = proxy.client();
    assert_eq!(client.through(b"\n").unwrap(), b"220 hello\n");
    for round in 0..3 {
        census(&proxy);
        if round == 0 {
            proxy.rewrite(&config("after"));
            proxy.signal(Signal::SIGHUP);
            proxy.wait_until("it is renamed", |now| {
                now.0.pointer("/upstreams/after").is_some()
            });
        }
        wait::pace(Duration::from_millis(1100));
    }
    let now = proxy.snapshot();
    for upstream in ["before", "after"] {
        for kind in ["no_entry", "no_socket"] {
            assert_eq!(
                now.number(&format!("/upstreams/{upstream}/leaks/{kind}")),
                0,
                "{upstream} {kind}"
            );
        }
    }
    drop(client);
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
}

/// Somebody takes a port every 50 ms and gives none back.
#[test]
fn the_forecast_of_a_steady_leak_is_right_from_half_time_on() {
    let network = Network::create();
    network.set_ports("50000 50199");
    let service = service(&network);
    let config = counting_every(&service, "200ms");
    let proxy = network.proxy.enter(|| config.start());
    let began = wait::now();
    let mut forecasts: Vec<(Duration, f64)> = Vec::new();
    let mut leaked = Vec::new();
    let exhausted = network.proxy.enter(|| {
        loop {
            match TcpStream::connect(service.socket_address()) {
                Ok(stream) => leaked.push(stream),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
                    return wait::now() - began;
                }
            }
            if let Some(left) = run_out(&proxy) {
                forecasts.push((wait::now() - began, left));
            }
            let due = began + Duration::from_millis(50) * leaked.len() as u32;
            wait::pace(due.saturating_duration_since(wait::now()));
        }
    });
    // A port that millpond listens on is among them, and picked for nobody.
    assert_eq!(leaked.len(), 199);
    let moment = exhausted.as_secs_f64();
    let second_half = forecasts
        .iter()
        .filter(|(at, _)| at.as_secs_f64() > moment / 2.0);
    let mut count = 0;
    for (at, left) in second_half {
        count += 1;
        let error = (at.as_secs_f64() + left - moment).abs() / moment;
        assert!(error < 0.2, "at {at:?} of {moment} s: {left} s left");
    }
    assert!(count >= 50, "{count} forecasts");
    let log = proxy.process().said().join("\n");
    assert!(log.contains("ports run out in"), "{log}");
    drop(leaked);
    proxy.finish();
}

fn run_out(proxy: &Proxy) -> Option<f64> {
    proxy
        .snapshot()
        .0
        .pointer("/census/ports/0/run_out_seconds")?
        .as_f64()
}

/// So many sockets in TIME_WAIT: `MILLPOND_TIME_WAIT`, 20,000 without it.
#[test]
fn a_census_of_many_sockets_is_cheap_and_holds_nobody_up() {
    let asked = std::env::var("MILLPOND_TIME_WAIT").ok();
    let many: u64 = asked.map_or(20_000, |it| it.parse().unwrap());
    let network = Network::create();
    for host in [&network.proxy, &network.service] {
        host.run("sysctl", &["-qw", "net.ipv4.tcp_max_tw_buckets=400000"]);
    }
    network.set_ports("1024 65535");
    let service = service(&network);
    let listeners: Vec<TcpListener> = network.service.enter(|| {
        let count = many.div_ceil(PORTS_EACH);
        (0..count)
            .map(|_| TcpListener::bind((SERVICE, 0)).unwrap())
            .collect()
    });
    let endpoints = listeners
        .iter()
        .map(|it| it.local_addr().unwrap().to_string());
    let endpoints: Vec<_> = endpoints.collect();
    let other = format!("[upstream.other]\nprotocol = \"tcp\"\nendpoints = {endpoints:?}\n");
    let config = config(&service).more(&other);
    let proxy = network.proxy.enter(|| config.start());
    let began = wait::now();
    network.proxy.enter(|| leave_in_time_wait(&listeners, many));
    println!("{many} in TIME_WAIT after {:?}", wait::now() - began);
    // A census of somebody's sockets, and one of all.
    let mut client = network.clients.enter(|| proxy.client());
    let mut slowest = [Duration::ZERO; 2];
    let mut cpu_us = Vec::new();
    std::thread::scope(|scope| {
        for (round, slowest) in slowest.iter_mut().enumerate() {
            let asking = (round == 1).then(|| {
                scope.spawn(|| {
                    let all = network.proxy.enter(|| count_all(many));
                    let ours = (0..3).map(|_| {
                        wait::pace(Duration::from_millis(600));
                        census(&proxy)["cpu_us"].as_u64().unwrap()
                    });
                    (all, ours.collect::<Vec<_>>())
                })
            });
            let end = wait::now() + Duration::from_secs(2);
            while wait::now() < end {
                let asked = wait::now();
                assert_eq!(client.get("/").status(), 200);
                *slowest = (*slowest).max(wait::now() - asked);
            }
            if let Some((all, ours)) = asking.map(|it| it.join().unwrap()) {
                println!("all sockets: {all:?}; census: {ours:?} us");
                cpu_us = ours;
                cpu_us.push(u64::try_from(all.as_micros()).unwrap());
            }
        }
    });
    println!(
        "slowest exchange: {:?} without, {:?} during",
        slowest[0], slowest[1]
    );
    let census = census(&proxy);
    let mut legs = census["legs"].as_array().unwrap().iter();
    let other = legs.find(|leg| leg["name"] == "other").unwrap();
    assert_eq!(other["sockets"]["time_wait"], many);
    let most = *cpu_us.iter().max().unwrap();
    assert!(most < 100_000, "{most} us");
    drop(client);
    proxy.finish();
}

/// Lists every socket of the namespace, and holds the number against `ss`; the CPU time that it took.
fn count_all(many: u64) -> Duration {
    use millpond::census::diag::dump;
    use millpond::census::filter::Filter;
    use millpond::census::socket::{State, States};

    let began = millpond::sys::clock::thread_cpu_time().unwrap();
    let mut count = 0;
    dump(States::of(&[State::TimeWait]), &Filter::all(), &mut |_| {
        count += 1;
    })
    .unwrap();
    let took = millpond::sys::clock::thread_cpu_time().unwrap() - began;
    let ss = std::process::Command::new("ss")
        .args(["-Htn", "state", "time-wait"])
        .output()
        .unwrap();
    let lines = ss.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(count, lines);
    assert!(count as u64 >= many);
    took
}

/// More of its ports towards one address, and the kernel searches long for a free one.
const PORTS_EACH: u64 = 20_000;

/// Connects and ends first, `count` times.
fn leave_in_time_wait(listeners: &[TcpListener], count: u64) {
    let mut left = count;
    for listener in listeners {
        let address = listener.local_addr().unwrap();
        for _ in 0..left.min(PORTS_EACH) {
            let client = TcpStream::connect(address).unwrap();
            let (server, _) = listener.accept().unwrap();
            drop(client);
            drop(server);
        }
        left = left.saturating_sub(PORTS_EACH);
    }
    assert_eq!(left, 0);
}

#[test]
fn a_reload_changes_how_often_and_how_much_is_kept() {
    let service = Service::start(serve);
    let slow = Config::to(service.address())
        .more("[ledger]\ncensus_interval = \"1h\"\nrecorder_size = 10\n");
    let proxy = slow.start();
    proxy.wait_until("the first census", |now| now.number("/censuses/taken") == 1);
    let quick = Config::to(service.address())
        .more("[ledger]\ncensus_interval = \"100ms\"\nrecorder_size = 1\n");
    proxy.rewrite(&quick);
    proxy.signal(Signal::SIGHUP);
    proxy.wait_until("more of them", |now| now.number("/censuses/taken") > 3);
    for _ in 0..3 {
        proxy.client().reset();
    }
    let now = proxy.wait_listener("sessions/terminated", 3);
    assert_eq!(now.resets_received(), 3);
    let (_, text) = proxy.admin("GET", "/api/v1/resets");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["records"].as_array().unwrap().len(), 1, "{answer:#}");
    proxy.finish();
}

fn doctor(host: &Namespace) -> Value {
    let millpond = env!("CARGO_BIN_EXE_millpond");
    let run = || {
        let mut command = std::process::Command::new(millpond);
        command
            .args(["doctor", "--json", "--seconds", "1"])
            .output()
    };
    let output = host.enter(run).unwrap();
    assert_eq!(output.status.code(), Some(1), "it finds something");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Straight clients on millpond's host use its ports up; who comes through millpond is served all the
/// while, and millpond has said so before.
#[test]
fn straight_clients_run_out_of_ports_and_those_of_the_pool_do_not() {
    let network = Network::create();
    network.set_ports("50000 50299");
    let service = service(&network);
    let config = counting_every(&service, "200ms");
    let proxy = network.proxy.enter(|| config.start());
    let mut through = network.clients.enter(|| proxy.client());
    assert_eq!(through.get("/").status(), 200);
    let mut foretold: Option<Instant> = None;
    let mut straight = 0;
    let exhausted = loop {
        let to = service.socket_address();
        match network.proxy.enter(|| TcpStream::connect(to)) {
            Ok(stream) => drop(stream),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
                break wait::now();
            }
        }
        straight += 1;
        assert_eq!(through.get("/").status(), 200);
        if straight == 150 {
            // With half the ports taken, the doctor says so too.
            let report = doctor(&network.proxy);
            let found = &report["findings"][0];
            let kind = found["kind"].as_str().unwrap();
            assert!(
                ["ports_filling", "ports_exhausted"].contains(&kind),
                "{report:#}"
            );
            assert_eq!(found["subject"], service.address(), "{report:#}");
        }
        if foretold.is_none() && run_out(&proxy).is_some_and(|left| left < 60.0) {
            foretold = Some(wait::now());
        }
        wait::pace(Duration::from_millis(20));
    };
    let foretold = foretold.expect("a forecast before it happened");
    assert!(exhausted - foretold > Duration::from_secs(1));
    assert!((280..300).contains(&straight), "{straight}");
    for _ in 0..50 {
        let mut client = network.clients.enter(|| proxy.client());
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(proxy.snapshot().upstream("connects/ports_exhausted"), 0);
    let log = proxy.process().said().join("\n");
    assert!(log.contains("ports run out in"), "{log}");
    drop(through);
    proxy.finish();
}
