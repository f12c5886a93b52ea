//! Where millpond listens and dials, and what it does when there is no room.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::{Domain, SockAddr, Type};
use support::client::{self, Client};
use support::process::run;
use support::proxy::{Config, Proxy};
use support::socket::Socket;
use support::upstream::Service;
use support::wait::{self, Gate};

fn at(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().unwrap(), port)
}

#[test]
fn ipv6_on_both_legs() {
    let service = Service::start_on(
        "[::1]:0",
        |mut connection| while connection.answer("six") {},
    );
    let proxy = Config::to(service.address()).listen("[::1]:0").start();
    assert!(proxy.address().is_ipv6());
    assert_eq!(client::once(proxy.address(), "/").unwrap().text(), "six");
    proxy.finish();
}

#[test]
fn a_dual_stack_listener_takes_both_unless_told_otherwise() {
    let service = Service::replying(|request| {
        request
            .head
            .field("x-forwarded-for")
            .unwrap()
            .as_bytes()
            .to_vec()
    });
    let config = Config::to(service.address()).listen("[::]:0");
    let proxy = config.start();
    let port = proxy.address().port();
    assert_eq!(client::once(at("::1", port), "/").unwrap().text(), "::1");
    let mapped = client::once(at("127.0.0.1", port), "/").unwrap().text();
    assert_eq!(mapped, "127.0.0.1", "an IPv4 client is named as one");
    proxy.finish();
    let proxy = config.listener("ipv6_only = true").start();
    let port = proxy.address().port();
    assert_eq!(client::once(at("::1", port), "/").unwrap().text(), "::1");
    assert!(Socket::try_dial(at("127.0.0.1", port)).is_err());
    proxy.finish();
}

#[test]
fn unix_sockets_on_both_legs() {
    let directory = tempfile::tempdir().unwrap();
    let (here, there) = (
        directory.path().join("here"),
        directory.path().join("there"),
    );
    let service = Service::start_unix(&there, |mut connection| while connection.answer("unix") {});
    let proxy = Config::to(service.address())
        .listen(&format!("unix:{}", here.display()))
        .listener("unix_mode = \"0660\"")
        .start();
    let mode = std::fs::metadata(&here).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    for _ in 0..10 {
        let mut client = Client::over(Socket::dial_unix(&here).unwrap());
        assert_eq!(client.get("/").text(), "unix");
        client.send(client::last_get("/"));
        assert_eq!(client.read("GET").text(), "unix");
        client.expect_fin();
    }
    assert_eq!(service.accepted(), 1);
    proxy.finish();
    assert!(!here.exists(), "the socket's file goes with its listener");
}

#[test]
fn a_stale_unix_socket_is_taken_over_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a file that nobody listens on");
    let service = Service::echoing_targets();
    let listen = format!("unix:{}", path.display());
    let proxy = Config::to(service.address()).listen(&listen).start();
    let mut client = Client::over(Socket::dial_unix(&path).unwrap());
    assert_eq!(client.get("/a").text(), "/a");
    let second = std::panic::catch_unwind(|| Config::to("127.0.0.1:1").listen(&listen).start());
    assert!(second.is_err(), "another millpond does not steal it");
    assert_eq!(client.get("/b").text(), "/b");
    drop(client);
    assert!(Socket::dial_unix(&path).is_ok());
    proxy.finish();
}

#[test]
fn a_unix_socket_whose_accept_queue_is_full_is_not_taken_over_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front");
    let holder = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    holder.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    holder.listen(0).unwrap();
    let dial = || {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let connected = socket.connect(&SockAddr::unix(&path).unwrap());
        connected.map(|()| socket)
    };
    let waiting: Vec<_> = std::iter::from_fn(|| dial().ok()).collect();
    assert!(!waiting.is_empty());
    let began = wait::now();
    let listen = format!("unix:{}", path.display());
    let second = std::panic::catch_unwind(|| Config::to("127.0.0.1:1").listen(&listen).start());
    assert!(second.is_err() && path.exists());
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(10),
        "it is told at once: {took:?}"
    );
}

#[test]
fn the_socket_of_a_successor_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front");
    let service = Service::echoing_targets();
    let listen = format!("unix:{}", path.display());
    let old = Config::to(service.address()).listen(&listen).start();
    std::fs::remove_file(&path).unwrap();
    let new = Config::to(service.address()).listen(&listen).start();
    old.finish();
    let mut client = Client::over(Socket::dial_unix(&path).unwrap());
    assert_eq!(client.get("/a").text(), "/a");
    drop(client);
    new.finish();
}

#[test]
fn several_listeners_serve_several_upstreams() {
    let services = [Service::echoing_targets(), Service::echoing_targets()];
    let more = format!(
        "[upstream.other]\nprotocol = \"http\"\nendpoints = [\"{}\"]\n\
         [listener.second]\nlisten = \"127.0.0.1:0\"\nupstream = \"other\"\n\
         [listener.third]\nlisten = \"127.0.0.1:0\"\nupstream = \"service\"\n",
        services[1].address()
    );
    let proxy = Config::to(services[0].address()).more(&more).start();
    for (listener, count) in [("front", 2), ("second", 3), ("third", 4)] {
        for _ in 0..count {
            client::once(proxy.address_of(listener), "/").unwrap();
        }
        let opened = proxy
            .snapshot()
            .number(&format!("/listeners/{listener}/sessions/opened"));
        assert_eq!(opened, count);
    }
    assert_eq!([services[0].requests(), services[1].requests()], [6, 3]);
    assert_eq!([services[0].accepted(), services[1].accepted()], [1, 1]);
    proxy.finish();
}

#[test]
fn max_sessions_lets_the_surplus_wait_and_resets_nobody() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address())
        .listener("max_sessions = 3")
        .start();
    let mut inside: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut inside {
        assert_eq!(client.get("/in").text(), "/in");
    }
    let mut outside: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for client in &mut outside {
        client.send(client::last_get("/out"));
    }
    assert!(outside[0].socket.stays_silent(Duration::from_millis(200)));
    assert_eq!(proxy.snapshot().listener("sessions/open"), 3);
    for client in &mut inside {
        assert_eq!(client.get("/in").text(), "/in", "those inside are served");
    }
    drop(inside);
    for client in &mut outside {
        assert_eq!(client.read("GET").text(), "/out");
        client.expect_fin();
    }
    drop(outside);
    assert_eq!(proxy.snapshot().resets_sent(), 0);
    proxy.finish();
}

#[test]
fn running_out_of_descriptors_slows_down_and_recovers() {
    let service = Service::echoing_targets();
    // Who is let in takes the descriptors that connects need: those are tried again soon.
    let proxy = Config::to(service.address())
        .pool("backoff_min = \"10ms\"")
        .pool("backoff_max = \"50ms\"")
        .descriptors(48)
        .start();
    // The admin interface needs descriptors too: it is not asked while there are none.
    let address = proxy.address();
    let clients: Vec<Client> = (0..80).map(|_| Client::dial(address)).collect();
    proxy.process().wait_descriptors(48);
    let before = proxy.process().processor_ticks();
    wait::throughout(Duration::from_secs(1), "it lives", || clients.len() == 80);
    let used = proxy.process().processor_ticks() - before;
    assert!(
        used < 30,
        "{used}0 ms of processor time in a second of waiting: a busy loop"
    );
    // Room for those that wait comes as those before them go; nobody was reset.
    for mut client in clients {
        let _ = client.try_send(client::last_get("/"));
        let response = client.response("GET").expect("an answer, not an end");
        assert!([200, 502, 503].contains(&response.status()));
    }
    assert_eq!(client::once(proxy.address(), "/").unwrap().status(), 200);
    proxy.finish();
}

#[test]
fn a_client_that_goes_away_in_the_accept_queue_is_harmless() {
    let gate = Gate::new();
    let service = Service::replying({
        let gate = gate.clone();
        move |_| {
            gate.pass();
            Vec::new()
        }
    });
    let proxy = Config::to(service.address())
        .listener("max_sessions = 1")
        .start();
    let mut holder = proxy.client();
    holder.send(client::get("/"));
    service.wait_requests(1);
    for number in 0..20 {
        let mut queued = proxy.client();
        queued.send(client::get("/"));
        if number % 2 == 0 {
            queued.reset();
        } else {
            drop(queued);
        }
    }
    gate.open_for_all();
    assert_eq!(holder.read("GET").status(), 200);
    drop(holder);
    wait::until("the queue is worked off", || {
        (client::once(proxy.address(), "/").ok()?.status() == 200).then_some(())
    });
    proxy.finish();
}

/// How the kernel shows sockets of this process, filtered: `state listening sport = :80`.
fn sockets_of(proxy: &Proxy, filter: &str) -> Vec<String> {
    let words: Vec<&str> = ["-tnaHopi", "-O"]
        .into_iter()
        .chain(filter.split(' '))
        .collect();
    let owner = format!("pid={},", proxy.process().pid());
    let listing = run("ss", &words);
    let lines = listing.lines().filter(|line| line.contains(&owner));
    lines.map(str::to_owned).collect()
}

/// The only socket of this process that matches.
fn socket_of(proxy: &Proxy, filter: &str) -> String {
    let found = sockets_of(proxy, filter);
    assert_eq!(found.len(), 1, "{filter}: {found:?}");
    found.into_iter().next().unwrap()
}

/// Seconds until the keepalive timer of a socket fires; `None`: it runs none.
fn keepalive_seconds(socket: &str) -> Option<f64> {
    let timer = socket.split("timer:(keepalive,").nth(1)?;
    let time = timer.split(',').next().unwrap();
    let seconds = |text: &str, unit: &str| -> Option<f64> { text.strip_suffix(unit)?.parse().ok() };
    // `9.9sec`, `59sec`, `1min39sec`, `800ms`.
    let (minutes, rest) = time.split_once("min").unwrap_or(("0", time));
    let rest = if let Some(milliseconds) = seconds(rest, "ms") {
        milliseconds / 1e3
    } else {
        seconds(rest, "sec").unwrap_or(0.0)
    };
    Some(minutes.parse::<f64>().unwrap() * 60.0 + rest)
}

#[test]
fn keepalive_is_set_on_both_legs() {
    let service = Service::echoing_targets();
    let there = service.socket_address().port();
    for (front, upstream) in [(90, 50), (0, 200), (300, 0), (0, 0)] {
        let proxy = Config::to(service.address())
            .listener(&format!("keepalive = \"{front}s\""))
            .upstream(&format!("keepalive = \"{upstream}s\""))
            .start();
        let here = proxy.address().port();
        let mut client = proxy.client();
        assert_eq!(client.get("/").status(), 200);
        // Answers may still be unacknowledged: that is another timer, and soon over.
        for (filter, wanted) in [
            (format!("state established sport = :{here}"), front),
            (format!("state established dport = :{there}"), upstream),
        ] {
            wait::until("the timer is that of keepalive", || {
                let socket = socket_of(&proxy, &filter);
                match keepalive_seconds(&socket) {
                    None => (wanted == 0 && !socket.contains("timer:")).then_some(()),
                    Some(left) => {
                        assert!(wanted > 0, "keepalive is off: {socket}");
                        let wanted = f64::from(wanted);
                        assert!((wanted - 20.0..=wanted).contains(&left), "{left}: {socket}");
                        Some(())
                    }
                }
            });
        }
        drop(client);
        proxy.finish();
    }
}

#[test]
fn backlog_is_the_length_of_the_accept_queue() {
    let service = Service::echoing_targets();
    for backlog in [1_u64, 7, 300] {
        let proxy = Config::to(service.address())
            .listener(&format!("backlog = {backlog}"))
            .start();
        let port = proxy.address().port();
        let socket = socket_of(&proxy, &format!("state listening sport = :{port}"));
        let shown: u64 = socket.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert_eq!(shown, backlog, "{socket}");
        assert_eq!(client::once(proxy.address(), "/").unwrap().status(), 200);
        proxy.finish();
    }
}

#[test]
fn two_millponds_share_a_port_where_both_are_told_so() {
    let service = Service::echoing_targets();
    let config = |listen: &str| {
        Config::to(service.address())
            .listen(listen)
            .listener("reuse_port = true")
    };
    let first = config("127.0.0.1:0").start();
    let address = first.address();
    let second = config(&address.to_string()).start();
    assert_eq!(second.address(), address);
    let opened = |proxy: &Proxy| proxy.snapshot().listener("sessions/opened");
    let mut asked = 0;
    // The kernel chooses by a hash of the addresses: each has its share, but no turn.
    wait::until("both serve", || {
        for _ in 0..8 {
            assert_eq!(client::once(address, "/both").unwrap().text(), "/both");
        }
        asked += 8;
        (opened(&first) > 0 && opened(&second) > 0).then_some(())
    });
    assert_eq!(opened(&first) + opened(&second), asked);
    // One that does not share is kept out, and one that leaves disturbs nobody.
    let third = std::panic::catch_unwind(|| {
        Config::to("127.0.0.1:1")
            .listen(&address.to_string())
            .start()
    });
    assert!(third.is_err(), "the port is not for everybody");
    let before = opened(&second);
    first.finish();
    for _ in 0..8 {
        assert_eq!(client::once(address, "/second").unwrap().text(), "/second");
    }
    assert_eq!(opened(&second), before + 8);
    second.finish();
}

#[test]
fn a_unix_listener_drains_and_its_file_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front");
    let gate = Gate::new();
    let service = Service::replying({
        let gate = gate.clone();
        move |_| {
            gate.pass();
            b"whole".to_vec()
        }
    });
    let proxy = Config::to(service.address())
        .listen(&format!("unix:{}", path.display()))
        .start();
    let dial = || Client::over(Socket::dial_unix(&path).unwrap());
    let (mut idle, mut under_way) = (dial(), dial());
    gate.open();
    assert_eq!(idle.get("/").text(), "whole");
    under_way.send(client::get("/"));
    service.wait_requests(2);
    proxy.signal(Signal::SIGTERM);
    idle.expect_fin();
    drop(idle);
    wait::until("nobody is let in any more", || {
        Socket::dial_unix(&path).is_err().then_some(())
    });
    assert!(!path.exists(), "the file goes with the listener");
    gate.open_for_all();
    let last = under_way.read("GET");
    assert_eq!(last.text(), "whole");
    assert!(last.head.says_close());
    under_way.expect_fin();
    drop(under_way);
    assert_eq!(proxy.wait().code(), Some(0));
}
