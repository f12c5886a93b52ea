//! Changing a running millpond: what can change does, everything else is left alone.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::client::{self, Client};
use support::proxy::{Config, Proxy};
use support::socket::{End, Socket};
use support::upstream::Service;
use support::wait::{self, Gate};

/// How a reload is asked for.
#[derive(Clone, Copy)]
enum Way {
    Signal,
    Admin,
}

/// Puts the configuration in place and waits until it is applied.
fn reload(proxy: &Proxy, config: &Config, way: Way, applied: impl FnMut() -> Option<()>) {
    proxy.rewrite(config);
    match way {
        Way::Signal => proxy.signal(Signal::SIGHUP),
        Way::Admin => {
            let (status, body) = proxy.admin("POST", "/api/v1/reload");
            assert_eq!(status, 200, "{body}");
        }
    }
    wait::until("the reload is applied", applied);
}

/// A service that answers with a name, each time a gate lets it.
fn named(name: &'static str, gate: &Gate) -> Service {
    let gate = gate.clone();
    Service::start(move |mut connection| {
        while connection.request().is_some() {
            gate.pass();
            connection.reply(name);
        }
    })
}

fn open_gate() -> Gate {
    let gate = Gate::new();
    gate.open_for_all();
    gate
}

#[test]
fn a_smaller_size_retires_the_surplus_at_its_boundaries_and_a_larger_one_serves_more() {
    for way in [Way::Signal, Way::Admin] {
        let gate = Gate::new();
        let service = named("a", &gate);
        let config = |size: u64| Config::to(service.address()).pool(&format!("size = {size}"));
        let proxy = config(6).start();
        let mut clients: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
        for client in &mut clients {
            client.send(client::get("/"));
        }
        service.wait_requests(6);
        let size = |want| {
            let proxy = &proxy;
            move || (proxy.snapshot().endpoint("size") == want).then_some(())
        };
        reload(&proxy, &config(2), way, size(2));
        assert_eq!(
            proxy.snapshot().endpoint("leased"),
            6,
            "no exchange is disturbed"
        );
        gate.open_for_all();
        for client in &mut clients {
            assert_eq!(client.read("GET").text(), "a");
        }
        proxy.wait_upstream("discards/pool_shrunk", 4);
        proxy.wait_upstream("connections/open", 2);
        reload(&proxy, &config(20), way, size(20));
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "a", "the sessions are the same");
        }
        drop(clients);
        assert_eq!(proxy.snapshot().listener("sessions/opened"), 10);
        proxy.finish();
    }
}

#[test]
fn endpoints_come_and_go() {
    let gates = [Gate::new(), open_gate()];
    let (old, new) = (named("old", &gates[0]), named("new", &gates[1]));
    let proxy = Config::to(old.address()).start();
    gates[0].open();
    assert_eq!(client::once(proxy.address(), "/").unwrap().text(), "old");
    let mut under_way = proxy.client();
    under_way.send(client::get("/"));
    old.wait_requests(2);
    reload(&proxy, &Config::to(new.address()), Way::Signal, || {
        let endpoints = &proxy.snapshot().0["upstreams"]["service"]["endpoints"];
        let mut endpoints = endpoints.as_array()?.iter();
        endpoints
            .any(|endpoint| endpoint["address"] == new.address())
            .then_some(())
    });
    assert_eq!(client::once(proxy.address(), "/").unwrap().text(), "new");
    gates[0].open_for_all();
    assert_eq!(
        under_way.read("GET").text(),
        "old",
        "what was under way is finished there"
    );
    assert_eq!(under_way.get("/").text(), "new");
    wait::until("the old endpoint has no connection", || {
        (old.open() == 0).then_some(())
    });
    drop(under_way);
    assert!(proxy.snapshot().upstream("discards/endpoint_removed") >= 1);
    proxy.finish();
}

#[test]
fn an_endpoint_that_is_added_takes_its_share() {
    let gate = Gate::new();
    let (first, second) = (named("first", &gate), named("second", &gate));
    let proxy = Config::to(first.address()).start();
    let both = Config::to_all(&[first.address(), second.address()]);
    reload(&proxy, &both, Way::Admin, || {
        let endpoints = &proxy.snapshot().0["upstreams"]["service"]["endpoints"];
        (endpoints.as_array()?.len() == 2).then_some(())
    });
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(client::get("/"));
    }
    first.wait_requests(4);
    second.wait_requests(4);
    gate.open_for_all();
    for client in &mut clients {
        assert_eq!(client.read("GET").status(), 200);
    }
    drop(clients);
    proxy.finish();
}

#[test]
fn timeouts_change_for_what_comes_next() {
    let service = Service::start(|mut connection| {
        connection.request();
        connection.wait_for_end();
    });
    let proxy = Config::to(service.address()).start();
    let fast = Config::to(service.address())
        .upstream("response_timeout = \"200ms\"")
        .listener("idle_timeout = \"10m\"");
    reload(&proxy, &fast, Way::Admin, || {
        // A service that never answers: only the new limit ends the wait this soon.
        let started = wait::now();
        let status = client::once(proxy.address(), "/").ok()?.status();
        (status == 504 && started.elapsed().as_secs() < 10).then_some(())
    });
    proxy.finish();
}

#[test]
fn listeners_are_added_and_removed() {
    let service = Service::echoing_targets();
    let one = Config::to(service.address());
    let two = one
        .clone()
        .more("[listener.side]\nlisten = \"127.0.0.1:0\"\nupstream = \"service\"\n");
    let proxy = one.start();
    let front = proxy.address();
    let mut client = proxy.client();
    assert_eq!(client.get("/before").status(), 200);
    let listeners = |count: usize| {
        let proxy = &proxy;
        move || (proxy.snapshot().names("listeners").len() == count).then_some(())
    };
    reload(&proxy, &two, Way::Signal, listeners(2));
    let side = proxy.address_of("side");
    assert_eq!(client::once(side, "/side").unwrap().text(), "/side");
    let mut kept = Client::dial(side);
    assert_eq!(kept.get("/").status(), 200);
    proxy.rewrite(&one);
    proxy.signal(Signal::SIGHUP);
    kept.expect_fin();
    drop(kept);
    wait::until("the removed listener is closed", || {
        let error = Socket::try_dial(side).err()?;
        (error.kind() == io::ErrorKind::ConnectionRefused).then_some(())
    });
    assert_eq!(proxy.address_of("front"), front);
    assert_eq!(
        client.get("/after").text(),
        "/after",
        "the other listener's sessions go on"
    );
    drop(client);
    proxy.finish();
}

#[test]
fn a_bad_file_is_refused_whole() {
    let service = Service::echoing_targets();
    let good = Config::to(service.address()).pool("size = 3");
    let proxy = good.start();
    let successful = |value: &str| {
        let line = format!("millpond_config_last_reload_successful {value}");
        proxy
            .metrics()
            .lines()
            .any(|found| found == line)
            .then_some(())
    };
    let bad = [
        Config::to(service.address()).pool("size = 0"),
        Config::to(service.address())
            .pool("size = 5")
            .pool("sise = 5"),
        Config::to(service.address()).upstream("response_timeout = \"5 parsecs\""),
        Config::to(service.address())
            .more("[listener.other]\nlisten = \"127.0.0.1:0\"\nupstream = \"nobody\"\n"),
    ];
    for config in &bad {
        proxy.rewrite(config);
        let (status, body) = proxy.admin("POST", "/api/v1/reload");
        assert!((400..500).contains(&status), "{status} {body}");
        assert!(!body.is_empty());
        assert_eq!(proxy.snapshot().endpoint("size"), 3);
    }
    proxy.rewrite_raw("this is not [ toml");
    proxy.signal(Signal::SIGHUP);
    wait::until("the failure is told", || successful("0"));
    assert_eq!(client::once(proxy.address(), "/on").unwrap().text(), "/on");
    reload(&proxy, &good, Way::Signal, || successful("1"));
    proxy.finish();
}

#[test]
fn statistics_live_on_through_a_reload() {
    let service = Service::echoing_targets();
    let config = Config::to(service.address());
    let proxy = config.start();
    for _ in 0..5 {
        assert_eq!(client::once(proxy.address(), "/").unwrap().status(), 200);
    }
    reload(&proxy, &config.pool("size = 9"), Way::Admin, || {
        (proxy.snapshot().endpoint("size") == 9).then_some(())
    });
    let now = proxy.wait_completed(5);
    assert_eq!(now.listener("sessions/opened"), 5);
    assert_eq!(service.accepted(), 1, "and so do the connections");
    assert_eq!(client::once(proxy.address(), "/").unwrap().status(), 200);
    assert_eq!(service.accepted(), 1);
    proxy.finish();
}

#[test]
fn a_reload_under_load_disturbs_nobody() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).start();
    let address = proxy.address();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    let mut kept = Client::dial(address);
                    for number in 0..300 {
                        let target = format!("/{number}");
                        assert_eq!(kept.get(&target).text(), target);
                        assert_eq!(client::once(address, &target).unwrap().text(), target);
                    }
                    kept.socket.half_close();
                    assert_eq!(kept.end().1, End::Fin);
                })
            })
            .collect();
        let mut size = 2;
        while clients.iter().any(|client| !client.is_finished()) {
            size = if size == 2 { 12 } else { 2 };
            let config = Config::to(service.address()).pool(&format!("size = {size}"));
            reload(&proxy, &config, Way::Admin, || {
                (proxy.snapshot().endpoint("size") == size).then_some(())
            });
        }
    });
    proxy.wait_completed(8 * 600);
    proxy.finish();
}

/// The configuration's text with one upstream, `name`, behind the listener `front`.
fn through(proxy: &Proxy, name: &str, endpoint: &str) -> String {
    format!(
        "workers = 2\n[admin]\nlisten = \"unix:{}\"\n\
         [upstream.{name}]\nprotocol = \"http\"\nendpoints = [\"{endpoint}\"]\n\
         [listener.front]\nlisten = \"127.0.0.1:0\"\nupstream = \"{name}\"\n",
        proxy.directory().join("admin").display()
    )
}

#[test]
fn who_waits_at_an_upstream_that_is_removed_is_served_by_the_new_one() {
    for way in [Way::Signal, Way::Admin] {
        let gate = Gate::new();
        let (old, new) = (named("old", &gate), named("new", &open_gate()));
        let proxy = Config::to(old.address()).pool("size = 1").start();
        let mut idle = proxy.client();
        gate.open();
        assert_eq!(idle.get("/").text(), "old");
        let mut under_way = proxy.client();
        under_way.send(client::get("/"));
        old.wait_requests(2);
        let mut waiting: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
        for client in &mut waiting {
            client.send(client::post("/", b"body"));
        }
        proxy.wait_upstream("waiters", 3);
        proxy.rewrite_raw(&through(&proxy, "other", new.address()));
        match way {
            Way::Signal => proxy.signal(Signal::SIGHUP),
            Way::Admin => assert_eq!(proxy.admin("POST", "/api/v1/reload").0, 200),
        }
        for client in &mut waiting {
            let answer = client.read("POST");
            assert_eq!((answer.status(), answer.text().as_str()), (200, "new"));
        }
        assert_eq!(idle.get("/").text(), "new", "its session goes on");
        assert_eq!(old.open(), 1, "the exchange under way is not disturbed");
        gate.open_for_all();
        assert_eq!(under_way.read("GET").text(), "old");
        wait::until("the old upstream's connection ends", || {
            (old.open() == 0).then_some(())
        });
        assert_eq!(under_way.get("/").text(), "new");
        assert_eq!(proxy.address().port(), proxy.address_of("front").port());
        let now = proxy.snapshot();
        assert_eq!(now.sum("/listeners/front/refusals"), 0);
        assert_eq!(now.resets_sent() + now.resets_received(), 0);
        drop((idle, under_way, waiting));
        proxy.finish();
        assert_eq!((old.accepted(), old.requests()), (1, 2));
    }
}

#[test]
fn the_time_spent_waiting_at_a_removed_upstream_is_not_the_new_ones_silence() {
    let gate = Gate::new();
    let old = named("old", &gate);
    let new = Service::start(|mut connection| {
        while connection.request().is_some() {
            wait::pace(Duration::from_millis(100));
            connection.reply("new");
        }
    });
    let other = format!(
        "[upstream.other]\nprotocol = \"http\"\nendpoints = [\"{}\"]\nresponse_timeout = \"500ms\"\n\
         [listener.other]\nlisten = \"127.0.0.1:0\"\nupstream = \"other\"\n",
        new.address()
    );
    let proxy = Config::to(old.address())
        .pool("size = 1")
        .more(&other)
        .start();
    let warm = client::once(proxy.address_of("other"), "/").unwrap();
    assert_eq!(warm.text(), "new");
    let mut clients = [proxy.client(), proxy.client()];
    clients[0].send(client::get("/"));
    old.wait_requests(1);
    clients[1].send(client::get("/"));
    proxy.wait_upstream("waiters", 1);
    let waits = || proxy.snapshot().upstream("waiters") == 1;
    wait::throughout(Duration::from_millis(700), "it waits", waits);
    proxy.rewrite_raw(&format!(
        "workers = 2\n[admin]\nlisten = \"unix:{}\"\n{other}\
         [listener.front]\nlisten = \"127.0.0.1:0\"\nupstream = \"other\"\n",
        proxy.directory().join("admin").display()
    ));
    assert_eq!(proxy.admin("POST", "/api/v1/reload").0, 200);
    assert_eq!(clients[1].read("GET").text(), "new");
    gate.open_for_all();
    assert_eq!(clients[0].read("GET").text(), "old");
    drop(clients);
    proxy.finish();
}

#[test]
fn a_greater_max_sessions_lets_those_in_who_wait() {
    for way in [Way::Signal, Way::Admin] {
        let service = Service::echoing_targets();
        let config =
            |max: u64| Config::to(service.address()).listener(&format!("max_sessions = {max}"));
        let proxy = config(1).start();
        let mut inside = proxy.client();
        assert_eq!(inside.get("/in").text(), "/in");
        let mut waiting: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
        for client in &mut waiting {
            client.send(client::get("/waited"));
        }
        assert!(waiting[0].socket.stays_silent(Duration::from_millis(100)));
        assert_eq!(proxy.snapshot().listener("sessions/opened"), 1);
        reload(&proxy, &config(3), way, || {
            (proxy.snapshot().listener("sessions/open") == 3).then_some(())
        });
        // The queue of the kernel is one: those who came first are let in first.
        assert_eq!(waiting[0].read("GET").text(), "/waited");
        assert_eq!(waiting[1].read("GET").text(), "/waited");
        assert!(waiting[2].socket.stays_silent(Duration::from_millis(100)));
        assert_eq!(proxy.snapshot().listener("sessions/open"), 3);
        reload(&proxy, &config(1), way, || Some(()));
        assert_eq!(inside.get("/in").text(), "/in", "nobody is put out");
        drop(inside);
        drop(waiting.remove(0));
        drop(waiting.remove(0));
        assert_eq!(waiting[0].read("GET").text(), "/waited");
        drop(waiting);
        proxy.finish();
    }
}

#[test]
fn the_log_changes_without_a_restart() {
    let service = Service::echoing_targets();
    let config = |level: &str, sessions: &str| {
        Config::to(service.address()).more(&format!(
            "[log]\nlevel = \"{level}\"\nsessions = \"{sessions}\"\n"
        ))
    };
    let proxy = config("info", "none").start();
    let said = |mark: &str| {
        let said = proxy.process().said();
        said.iter().filter(|line| line.contains(mark)).count()
    };
    let ask_and_end = |count: u64| {
        assert_eq!(client::once(proxy.address(), "/").unwrap().status(), 200);
        proxy.wait_listener("sessions/terminated", count);
    };
    let change = |level: &str, sessions: &str| -> serde_json::Value {
        proxy.rewrite(&config(level, sessions));
        let (status, body) = proxy.admin("POST", "/api/v1/reload");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    let applied =
        |sentences: &[&str]| serde_json::json!({ "applied": sentences, "needs_restart": [] });
    ask_and_end(1);
    let answer = change("info", "all");
    assert_eq!(answer, applied(&["log.sessions: none -> all"]));
    ask_and_end(2);
    wait::until("the line about the second session", || {
        (said("session ended") == 1).then_some(())
    });
    // What is left out is seen to be so once a line that comes later is there.
    assert_eq!(said("DEBUG"), 0);
    let answer = change("warn,millpond=debug", "none");
    assert_eq!(
        answer,
        applied(&[
            "log.level: info -> warn,millpond=debug",
            "log.sessions: all -> none"
        ])
    );
    ask_and_end(3);
    wait::until("the line about the reload", || {
        (said("log.sessions: all -> none") == 1).then_some(())
    });
    let answer = change("error", "all");
    assert_eq!(answer["applied"].as_array().unwrap().len(), 2);
    ask_and_end(4);
    change("info", "all");
    ask_and_end(5);
    wait::until("the line about the fifth session", || {
        (said("session ended") >= 2).then_some(())
    });
    assert_eq!(said("session ended"), 2, "neither the third nor the fourth");
    assert_eq!(change("info", "all"), applied(&[]));
    proxy.finish();
}

#[test]
fn a_dead_upstream_that_was_removed_costs_no_processor_time() {
    let gate = Gate::new();
    let (old, new) = (named("old", &gate), named("new", &open_gate()));
    let config = Config::to(old.address())
        .pool("backoff_min = \"1ms\"")
        .pool("backoff_max = \"1ms\"");
    let proxy = config.start();
    let mut under_way = proxy.client();
    under_way.send(client::get("/"));
    old.wait_requests(1);
    old.refuse();
    // Warmth that can't be had: the endpoint is due for a trial again and again.
    reload(&proxy, &config.pool("min_idle = 4"), Way::Admin, || {
        (proxy.snapshot().upstream("connects/refused") > 3).then_some(())
    });
    proxy.rewrite_raw(&through(&proxy, "other", new.address()));
    let (status, body) = proxy.admin("POST", "/api/v1/reload");
    assert_eq!(status, 200, "{body}");
    assert_eq!(client::once(proxy.address(), "/").unwrap().text(), "new");
    let before = proxy.process().processor_ticks();
    let second = Duration::from_secs(1);
    wait::throughout(second, "the exchange is under way", || old.open() == 1);
    let used = proxy.process().processor_ticks() - before;
    assert!(used < 20, "{used}0 ms of processor time in an idle second");
    gate.open_for_all();
    assert_eq!(under_way.read("GET").text(), "old");
    wait::until("the old upstream's connection ends", || {
        (old.open() == 0).then_some(())
    });
    drop(under_way);
    proxy.finish();
}

#[test]
fn an_upstream_that_comes_back_keeps_its_size_over_both_lives() {
    let gate = Gate::new();
    let (service, other) = (named("service", &gate), named("other", &open_gate()));
    let config = Config::to(service.address()).pool("size = 1");
    let proxy = config.start();
    let mut under_way = proxy.client();
    under_way.send(client::get("/"));
    service.wait_requests(1);
    proxy.rewrite_raw(&through(&proxy, "other", other.address()));
    assert_eq!(proxy.admin("POST", "/api/v1/reload").0, 200);
    assert_eq!(client::once(proxy.address(), "/").unwrap().text(), "other");
    proxy.rewrite(&config);
    assert_eq!(proxy.admin("POST", "/api/v1/reload").0, 200);
    let mut next = proxy.client();
    next.send(client::get("/"));
    // The one slot is still taken by the exchange from before.
    let now = proxy.wait_upstream("waiters", 1);
    assert_eq!((now.endpoint("leased"), now.endpoint("connecting")), (1, 0));
    gate.open_for_all();
    assert_eq!(under_way.read("GET").text(), "service");
    assert_eq!(next.read("GET").text(), "service");
    assert_eq!(service.open_max(), 1);
    drop((under_way, next));
    proxy.finish();
}
