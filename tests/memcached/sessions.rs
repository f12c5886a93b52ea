//! Clients that have their ways, a memcached that goes away, and what others see of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::client::{Client, is_error, storage};
use crate::server::Memcached;
use crate::support::message::pattern;
use crate::support::netns::{Network, Resets, SERVICE};
use crate::support::proxy::Proxy;
use crate::support::wait::{self, Flag};
use crate::{SIZE, finish, in_front_of, setting};

/// So many questions of another client, each answered by its own answer.
fn ask_many(proxy: &Proxy, tag: &str, count: u32) {
    let mut client = Client::dial(proxy.address());
    for number in 0..count {
        let value = format!("{tag}-{number}");
        assert_eq!(client.set(tag, value.as_bytes()), "STORED");
        assert_eq!(client.get(tag).unwrap(), value.as_bytes());
    }
    client.leave();
}

#[test]
fn a_client_that_leaves_with_replies_owed_takes_none_of_anothers() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    Client::dial(proxy.address()).set("owed", &pattern(3, 20_000));
    for round in 0..60 {
        let mut leaves = Client::dial(proxy.address());
        leaves.send("get owed\r\n".repeat(100));
        match round % 4 {
            0 => drop(leaves),
            1 => leaves.reset(),
            2 => {
                let _ = leaves.try_items();
            }
            _ => {
                // It leaves inside a request.
                leaves.send(&storage("set owed 0 0", &pattern(4, 20_000), "")[..10_000]);
            }
        }
        ask_many(&proxy, &format!("other:{round}"), 5);
    }
    let kept = Client::dial(proxy.address()).get("owed").unwrap();
    assert!(kept == pattern(3, 20_000), "half of a request was done");
    finish(proxy, &memcached);
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let value = pattern(4, 1 << 20);
    Client::dial(proxy.address()).set("much", &value);
    let lazy = [1, 2, 3].map(|_| {
        let mut client = Client::dial(proxy.address());
        client.send("get much\r\n".repeat(100));
        client
    });
    let began = wait::now();
    ask_many(&proxy, "diligent", 1000);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let memory = proxy.process().resident_max_kib();
    assert!(memory < 150_000, "{memory} KiB");
    for mut client in lazy {
        // It may have been given up by now; what it gets is right.
        while !client.socket().stays_silent(Duration::from_millis(500)) {
            match client.try_items() {
                Ok(Ok(items)) => assert!(items[0].data == value, "a foreign byte"),
                Ok(Err(line)) => assert!(is_error(&line), "{line}"),
                Err(_) => break,
            }
        }
    }
    finish(proxy, &memcached);
}

/// Asks until the last restart is over and it has a value again. The connection stays the same.
fn live(proxy: SocketAddr, number: usize, errors: &AtomicU64, over: &Flag) {
    let mut client = Client::dial(proxy);
    let key = format!("key:{number}");
    for turn in 0u64.. {
        let (value, is_over) = (format!("{number}-{turn}"), over.is_raised());
        let stored = client.set(&key, value.as_bytes());
        client.send(format!("get {key}\r\n"));
        let got = client.items();
        for line in [Some(&stored), got.as_ref().err()].into_iter().flatten() {
            if is_error(line) {
                assert!(line.starts_with("SERVER_ERROR"), "{line}");
                errors.fetch_add(1, Ordering::Relaxed);
            }
        }
        match got {
            Ok(items) if stored == "STORED" => {
                // Its memory may have gone in between; it never has another value.
                let is_own = items.iter().all(|item| item.data == value.as_bytes());
                assert!(is_own, "{items:?}");
                if is_over && !items.is_empty() {
                    break;
                }
            }
            _ => wait::pace(Duration::from_millis(5)),
        }
    }
    client.leave();
}

#[test]
fn a_restart_is_errors_and_then_answers_on_the_same_connections() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let (errors, over) = (AtomicU64::new(0), Flag::default());
    let address = proxy.address();
    std::thread::scope(|scope| {
        for number in 0..30 {
            let (errors, over) = (&errors, &over);
            scope.spawn(move || live(address, number, errors, over));
        }
        let _raise = over.raise_at_end();
        for _ in 0..3 {
            wait::pace(Duration::from_millis(300));
            memcached.kill();
            let before = errors.load(Ordering::Relaxed);
            wait::until("they are told", || {
                (errors.load(Ordering::Relaxed) > before).then_some(())
            });
            memcached.run();
        }
    });
    finish(proxy, &memcached);
}

#[test]
fn short_lived_clients_cost_memcached_no_connection_and_no_time_wait() {
    let clients = setting("MILLPOND_CLIENTS", 3000);
    let network = Network::create();
    let memcached = network.service.enter(|| Memcached::start_on(SERVICE));
    let config = in_front_of(&memcached).listen("10.77.1.2:0");
    let proxy = network.proxy.enter(|| config.start());
    let address = proxy.address();
    let left = AtomicU64::new(clients);
    network.clients.enter(|| {
        std::thread::scope(|scope| {
            for lane in 0..50 {
                let left = &left;
                scope.spawn(move || {
                    let one_more = |left: u64| left.checked_sub(1);
                    let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
                    while let Ok(number) = left.fetch_update(set, get, one_more) {
                        visit(address, lane, number);
                    }
                });
            }
        });
    });
    let now = proxy.wait_listener("sessions/terminated", clients);
    assert_eq!(now.listener("sessions/opened"), clients);
    assert_eq!(now.sum("/listeners/front/refusals"), 0);
    let connects = network.connects();
    assert!((1..=SIZE).contains(&connects), "{connects} connects");
    let port = memcached.address().port();
    let filter = format!("state time-wait sport = :{port} dst 10.77.2.2");
    assert_eq!(
        network.service.sockets(&filter),
        0,
        "TIME_WAIT at memcached"
    );
    for resets in [network.downstream_resets(), network.upstream_resets()] {
        let (sent, received) = (0, 0);
        assert_eq!(resets, Resets { sent, received });
    }
    assert_eq!(now.sum("/upstreams/service/discards"), 0, "{:#}", now.0);
    proxy.finish();
}

/// A client that connects, asks once and leaves.
fn visit(address: SocketAddr, lane: u64, number: u64) {
    let mut client = Client::dial(address);
    let (key, value) = (format!("key:{lane}"), number.to_string());
    match number % 3 {
        0 => assert_eq!(client.set(&key, value.as_bytes()), "STORED"),
        1 => {
            let line = client.ask(&format!("mg absent O{number}"));
            assert_eq!(line, format!("EN O{number}"));
        }
        _ => {
            let mut bytes = storage(&format!("set {key} 0 0"), value.as_bytes(), " noreply");
            bytes.extend(format!("get {key}\r\n").into_bytes());
            client.send(bytes);
            assert_eq!(client.items().unwrap()[0].data, value.as_bytes());
        }
    }
    if number.is_multiple_of(2) {
        client.leave();
    } else {
        client.send("quit\r\n");
        client.expect_fin();
    }
}

#[test]
fn a_session_that_is_idle_is_let_go_by_a_drain() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let mut idle = Client::dial(proxy.address());
    assert_eq!(idle.set("a", b"b"), "STORED");
    proxy.signal(Signal::SIGTERM);
    idle.expect_fin();
    assert_eq!(proxy.wait().code(), Some(0));
}
