//! Stopping: what is under way is finished, and nobody is thrown out.
//!
//! `MILLPOND_DRAINS=100 cargo test --test drain` makes the storm as long as it is meant to be.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::client::{self, Client};
use support::message::{Wire, pattern};
use support::process::run;
use support::proxy::{Config, Proxy};
use support::socket::{End, Socket};
use support::upstream::Service;
use support::wait::{self, Flag, Gate};

/// A service that answers with the target, each time a gate lets it.
fn gated(gate: &Gate) -> Service {
    let gate = gate.clone();
    Service::start(move |mut connection| {
        while let Some(request) = connection.request() {
            gate.pass();
            connection.reply(request.head.target());
        }
    })
}

/// Signals, and waits until millpond says that it drains.
fn drain(proxy: &Proxy, signal: Signal) {
    proxy.signal(signal);
    wait::until("it drains", || {
        (proxy.admin("GET", "/readyz").0 == 503).then_some(())
    });
}

#[test]
fn an_exchange_in_progress_is_finished_and_says_close() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let gate = Gate::new();
        let service = gated(&gate);
        let proxy = Config::to(service.address()).start();
        let mut client = proxy.client();
        client.send(client::get("/last"));
        service.wait_requests(1);
        drain(&proxy, signal);
        gate.open();
        let response = client.read("GET");
        assert_eq!(response.text(), "/last");
        assert!(response.head.says_close(), "{:?}", response.head);
        client.expect_fin();
        drop(client);
        assert_eq!(proxy.wait().code(), Some(0));
    }
}

#[test]
fn an_answer_that_has_begun_is_delivered_to_its_end() {
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            if connection.request().is_some() {
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n");
                connection.write(&pattern(1, 400_000)[..1000]);
                gate.pass();
                connection.write(&pattern(1, 400_000)[1000..]);
                connection.wait_for_end();
            }
        }
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    client.send(client::get("/"));
    client.head().unwrap();
    drain(&proxy, Signal::SIGTERM);
    gate.open();
    assert!(client.exactly(400_000).unwrap() == pattern(1, 400_000));
    client.expect_fin();
    drop(client);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn idle_sessions_are_closed_in_order() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).start();
    let mut clients: Vec<_> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut clients[..10] {
        assert_eq!(client.get("/").status(), 200);
    }
    proxy.signal(Signal::SIGTERM);
    for client in &mut clients {
        client.expect_fin();
    }
    drop(clients);
    assert_eq!(proxy.wait().code(), Some(0));
    wait::until("the service's connections are closed too", || {
        (service.open() == 0).then_some(())
    });
}

#[test]
fn a_waiter_in_the_queue_is_served_or_told() {
    let gate = Gate::new();
    let service = gated(&gate);
    let proxy = Config::to(service.address()).pool("size = 1").start();
    let mut clients = [proxy.client(), proxy.client()];
    clients[0].send(client::get("/"));
    service.wait_requests(1);
    clients[1].send(client::get("/"));
    proxy.wait_upstream("waiters", 1);
    drain(&proxy, Signal::SIGTERM);
    gate.open_for_all();
    for client in &mut clients {
        let response = client.read("GET");
        assert!([200, 503].contains(&response.status()));
        assert!(response.head.says_close());
        client.expect_fin();
    }
    drop(clients);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn nobody_new_is_let_in() {
    let gate = Gate::new();
    let service = gated(&gate);
    let proxy = Config::to(service.address()).start();
    let address = proxy.address();
    let mut client = proxy.client();
    client.send(client::get("/"));
    service.wait_requests(1);
    proxy.signal(Signal::SIGTERM);
    wait::until("the listener is closed", || {
        let error = Socket::try_dial(address).err()?;
        (error.kind() == io::ErrorKind::ConnectionRefused).then_some(())
    });
    assert_eq!(proxy.snapshot().0["draining"], true);
    gate.open_for_all();
    assert_eq!(client.read("GET").status(), 200);
    drop(client);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_long_accept_queue_is_emptied_however_long_that_takes() {
    // Both ends are descriptors of this test, which many systems give 1,024 unless they are asked.
    let own = std::process::id().to_string();
    run("prlimit", &["--pid", &own, "--nofile=8192:"]);
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let waiting = limit.trim().parse::<usize>().unwrap().min(4000) - 10;
    let gate = Gate::new();
    gate.open_for_all();
    let service = gated(&gate);
    let proxy = Config::to(service.address())
        .listener("max_sessions = 1")
        .pool("wait_queue = 4000")
        .start();
    let mut inside = proxy.client();
    assert_eq!(inside.get("/in").text(), "/in");
    let mut outside: Vec<_> = (0..waiting).map(|_| proxy.client()).collect();
    for client in &mut outside {
        client.send(client::last_get("/out"));
    }
    assert_eq!(proxy.snapshot().listener("sessions/opened"), 1);
    proxy.signal(Signal::SIGTERM);
    for client in &mut outside {
        assert_eq!(client.read("GET").text(), "/out");
        client.expect_fin();
    }
    drop((inside, outside));
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_drain_that_takes_too_long_is_cut_off() {
    let gate = Gate::new();
    let service = gated(&gate);
    let proxy = Config::to(service.address())
        .shutdown("drain_timeout = \"300ms\"")
        .start();
    let mut client = proxy.client();
    client.send(client::get("/"));
    service.wait_requests(1);
    proxy.signal(Signal::SIGTERM);
    let started = wait::now();
    assert_eq!(proxy.wait().code(), Some(1));
    assert!(started.elapsed() < Duration::from_secs(5));
    gate.open_for_all();
}

#[test]
fn a_second_signal_ends_at_once() {
    let gate = Gate::new();
    let service = gated(&gate);
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    client.send(client::get("/"));
    service.wait_requests(1);
    drain(&proxy, Signal::SIGTERM);
    proxy.signal(Signal::SIGTERM);
    let started = wait::now();
    assert_eq!(proxy.wait().code(), Some(1));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "drain_timeout is 25 s"
    );
    gate.open_for_all();
}

#[test]
fn grace_says_not_ready_while_still_accepting() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address())
        .shutdown("grace = \"700ms\"")
        .start();
    assert_eq!(proxy.admin("GET", "/readyz").0, 200);
    assert_eq!(proxy.admin("GET", "/healthz").0, 200);
    let address = proxy.address();
    drain(&proxy, Signal::SIGTERM);
    assert_eq!(proxy.admin("GET", "/healthz").0, 200, "it lives");
    assert_eq!(client::once(address, "/still").unwrap().text(), "/still");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn the_admin_interface_drains_too() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    let (status, body) = proxy.admin("POST", "/api/v1/drain");
    assert!((200..300).contains(&status), "{status} {body}");
    client.expect_fin();
    drop(client);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_drained_ledger_is_complete() {
    let gate = Gate::new();
    let service = gated(&gate);
    let proxy = Config::to(service.address()).start();
    let mut idle: Vec<_> = (0..5).map(|_| proxy.client()).collect();
    for client in &mut idle {
        // Answered once: who has only connected is still owed an answer.
        gate.open();
        assert_eq!(client.get("/").status(), 200);
    }
    let mut busy = proxy.client();
    busy.send(client::get("/"));
    service.wait_requests(6);
    proxy.wait_listener("sessions/open", 6);
    drain(&proxy, Signal::SIGTERM);
    for client in &mut idle {
        client.expect_fin();
    }
    drop(idle);
    let now = proxy.wait_listener("sessions/open", 1);
    support::facts::check_always(&now);
    assert_eq!(now.session_ends(&["initiator=operator", "manner=fin"]), 5);
    gate.open_for_all();
    assert_eq!(busy.read("GET").status(), 200);
    drop(busy);
    assert_eq!(proxy.wait().code(), Some(0));
}

/// What churning clients saw.
#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    resets: AtomicU64,
    torn: AtomicU64,
}

/// Asks until the listener is gone, over kept or new connections.
fn churn(address: SocketAddr, seed: u64, seen: &Seen, over: &Flag) {
    let mut random = fastrand::Rng::with_seed(seed);
    'connections: while !over.is_raised() {
        let socket = match Socket::try_dial(address) {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
            Err(error) => panic!("connect: {error}"),
        };
        let mut wire = Wire::new(socket);
        let exchanges = if random.bool() { 1 } else { random.u64(2..20) };
        for number in 1..=exchanges {
            let target = format!("/{}/{}", random.u64(..), random.u32(0..30_000));
            let request = if number == exchanges {
                client::last_get(&target)
            } else {
                client::get(&target)
            };
            let before = wire.received();
            match wire.send(request).and_then(|()| wire.response("GET")) {
                Ok(response) => {
                    assert!(response.status() != 200 || response.body == answer(&target));
                    seen.answers.fetch_add(1, Ordering::Relaxed);
                    if response.head.says_close() {
                        match wire.until_end().1 {
                            End::Fin => continue 'connections,
                            End::Reset => seen.resets.fetch_add(1, Ordering::Relaxed),
                        };
                    }
                }
                Err(end) => {
                    // A kept connection may be closed before its next request: that is HTTP. A
                    // write after that FIN may be answered by a reset only if millpond is gone.
                    let torn = wire.received() > before;
                    seen.torn.fetch_add(u64::from(torn), Ordering::Relaxed);
                    seen.resets
                        .fetch_add(u64::from(end == End::Reset), Ordering::Relaxed);
                    continue 'connections;
                }
            }
        }
    }
}

fn answer(target: &str) -> Vec<u8> {
    let (tag, size) = target[1..].split_once('/').unwrap();
    pattern(tag.parse().unwrap(), size.parse().unwrap())
}

#[test]
fn drains_under_churn_reset_nobody_and_lose_no_answer() {
    drains_under_churn(|config| config);
}

#[test]
fn drains_without_a_right_to_filter_reset_nobody_either() {
    drains_under_churn(Config::unprivileged);
}

#[test]
fn a_dual_stack_listener_without_a_right_to_filter_lets_nobody_new_in() {
    let gate = Gate::new();
    let service = gated(&gate);
    let proxy = Config::to(service.address())
        .listen("[::]:0")
        .unprivileged()
        .start();
    let port = proxy.address().port();
    let address = |host: &str| -> SocketAddr { format!("{host}:{port}").parse().unwrap() };
    let mut clients: Vec<_> = ["127.0.0.1", "[::1]"]
        .map(|host| Client::dial(address(host)))
        .into();
    for (number, client) in (1..).zip(&mut clients) {
        client.send(client::get("/"));
        service.wait_requests(number);
    }
    drain(&proxy, Signal::SIGTERM);
    for host in ["127.0.0.1", "[::1]"] {
        wait::until("nobody new gets in", || {
            Socket::try_dial(address(host)).is_err().then_some(())
        });
    }
    gate.open_for_all();
    for mut client in clients {
        assert_eq!(client.read("GET").status(), 200);
        client.expect_fin();
    }
    assert_eq!(proxy.wait().code(), Some(0));
}

fn drains_under_churn(configure: impl Fn(Config) -> Config) {
    let drains = std::env::var("MILLPOND_DRAINS").map_or(10, |count| count.parse().unwrap());
    let service = Service::replying(|request| answer(request.head.target()));
    let seen = Seen::default();
    for round in 0..drains {
        let config = Config::to(service.address()).pool("size = 8");
        let proxy = configure(config).start();
        let (address, over) = (proxy.address(), Flag::default());
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..24)
                .map(|number| {
                    let (seen, over) = (&seen, &over);
                    scope.spawn(move || churn(address, round * 24 + number, seen, over))
                })
                .collect();
            let _raise = over.raise_at_end();
            proxy.wait_until("churn", |now| now.upstream("exchanges/completed") > 200);
            proxy.signal(Signal::SIGTERM);
            wait::until("every client was refused in the end", || {
                clients
                    .iter()
                    .all(|client| client.is_finished())
                    .then_some(())
            });
        });
        assert_eq!(proxy.wait().code(), Some(0), "round {round}");
        let (resets, torn) = (&seen.resets, &seen.torn);
        assert_eq!(
            (resets.load(Ordering::Relaxed), torn.load(Ordering::Relaxed)),
            (0, 0),
            "round {round}"
        );
    }
    assert!(seen.answers.into_inner() > drains * 200);
}
