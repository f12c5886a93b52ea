//! The pool as a service and its clients see it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::capture::Capture;
use support::client::{self, Client};
use support::facts;
use support::netns::{Network, SERVICE};
use support::nginx::free_address;
use support::proxy::{Config, Proxy};
use support::socket::End;
use support::upstream::{Nobody, Service};
use support::wait::{self, Flag, Gate};

/// A service that answers with its connection's number, each time a gate lets it.
fn gated(gate: &Gate) -> Service {
    let gate = gate.clone();
    Service::start(move |mut connection| {
        while connection.request().is_some() {
            gate.pass();
            connection.reply(connection.number.to_string());
        }
    })
}

/// A service that answers with its connection's number.
fn numbered() -> Service {
    let gate = Gate::new();
    gate.open_for_all();
    gated(&gate)
}

/// `clients` at once, each making `count` exchanges, keep-alive or not; all must be answered.
fn crowd(address: SocketAddr, clients: u64, count: u64) {
    std::thread::scope(|scope| {
        for number in 0..clients {
            scope.spawn(move || {
                let mut kept = Client::dial(address);
                for _ in 0..count {
                    let status = if number % 2 == 0 {
                        client::once(address, "/").unwrap().status()
                    } else {
                        kept.get("/").status()
                    };
                    assert_eq!(status, 200);
                }
            });
        }
    });
}

#[test]
fn a_pool_smaller_than_the_demand_serves_everybody() {
    for size in [1, 2, 7] {
        let service = numbered();
        let proxy = Config::to(service.address())
            .pool(&format!("size = {size}"))
            .start();
        crowd(proxy.address(), 64, 20);
        assert!(
            service.open_max() <= size,
            "{} connections at once",
            service.open_max()
        );
        assert_eq!(service.accepted(), service.open_max(), "none was replaced");
        let now = proxy.wait_completed(64 * 20);
        assert_eq!(now.upstream("endpoints/0/size"), size);
        assert!(now.upstream("waits/granted") > 0);
        proxy.finish();
    }
}

#[test]
fn an_idle_client_holds_no_connection() {
    let service = numbered();
    let proxy = Config::to(service.address()).pool("size = 1").start();
    let mut clients: Vec<Client> = (0..50).map(|_| proxy.client()).collect();
    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "0");
        }
    }
    assert_eq!(proxy.snapshot().listener("sessions/open"), 50);
    drop(clients);
    proxy.finish();
}

/// 1,500 replacements of every kind at `size`, while the service's kernel is watched.
fn size_is_never_exceeded(size: u64) {
    let network = Network::create();
    let service = network.service.enter(|| {
        Service::start_on(&format!("{SERVICE}:0"), |mut connection| {
            let lives = 1 + connection.number % 3;
            for _ in 0..lives {
                if connection.request().is_none() {
                    // Slow to close: our FIN alone does not free the slot.
                    return wait::pace(Duration::from_millis(2));
                }
                match connection.number % 5 {
                    0 => {
                        connection.write(
                            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
                        );
                        return;
                    }
                    1 => {
                        connection.write("HTTP/1.0 200 OK\r\n\r\nok");
                        return;
                    }
                    2 => connection.reply("ok"),
                    _ => {
                        // Until millpond retires it after max_exchanges.
                        connection.reply("ok");
                        while connection.answer("ok") {}
                        return wait::pace(Duration::from_millis(2));
                    }
                }
            }
        })
    });
    let config = Config::to(service.address())
        .listen("10.77.1.2:0")
        .pool(&format!("size = {size}"))
        .pool("max_exchanges = 2")
        .pool("wait_timeout = \"20s\"");
    let proxy = network.proxy.enter(|| config.start());
    let address = proxy.address();
    let port = service.socket_address().port();
    let done = Flag::default();
    let capture = network.service.enter(Capture::start);
    let held = std::thread::scope(|scope| {
        let counting = scope.spawn(|| capture.count(port, &done));
        let raise = done.raise_at_end();
        network.clients.enter(|| {
            std::thread::scope(|scope| {
                for _ in 0..size * 2 + 2 {
                    scope.spawn(|| {
                        while service.accepted() < 1500 {
                            let response = client::once(address, "/").unwrap();
                            assert!([200, 502].contains(&response.status()));
                        }
                    });
                }
            });
        });
        drop(raise);
        counting.join().unwrap()
    });
    assert!(held.opened >= 1500, "{held:?}");
    assert_eq!(
        (held.at_once_max, held.aborted),
        (size, 0),
        "what the service's kernel held open at size {size}: {held:?}"
    );
    assert!(
        service.open_max() <= size,
        "the service had {} at size {size}",
        service.open_max()
    );
    facts::check(&proxy);
    assert_eq!(network.upstream_resets().sent, 0);
    proxy.finish();
}

#[test]
fn size_1_is_never_exceeded_through_1500_replacements() {
    size_is_never_exceeded(1);
}

#[test]
fn size_16_is_never_exceeded_through_1500_replacements() {
    size_is_never_exceeded(16);
}

#[test]
fn min_idle_is_kept_warm_before_and_after_losses() {
    let service = numbered();
    let proxy = Config::to(service.address())
        .pool("size = 8")
        .pool("min_idle = 3")
        .start();
    proxy.wait_until("three are warm before any client", |now| {
        now.endpoint("idle") == 3
    });
    assert_eq!(proxy.snapshot().upstream("opens/warm"), 3);
    assert!(service.kill_one(&mut fastrand::Rng::with_seed(1)));
    proxy.wait_upstream("discards/idle_fin", 1);
    proxy.wait_until("three are warm again", |now| now.endpoint("idle") == 3);
    // One that dies this young makes its endpoint rest, so the next is a trial.
    assert_eq!(proxy.snapshot().sum("/upstreams/service/opens"), 4);
    assert_eq!(client::once(proxy.address(), "/").unwrap().status(), 200);
    assert_eq!(proxy.snapshot().upstream("opens/demand"), 0);
    proxy.finish();
}

#[test]
fn the_last_released_is_the_first_lent() {
    let service = Service::start(|mut connection| {
        while let Some(request) = connection.request() {
            if let Some(name) = request.head.target().strip_prefix("/hold/") {
                gate(name).pass();
            }
            connection.reply(connection.number.to_string());
        }
    });
    let proxy = Config::to(service.address()).start();
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(client::get(&format!("/hold/{number}")));
        service.wait_requests(number as u64 + 1);
    }
    let mut lent = Vec::new();
    for (released, number) in [2, 0, 1].into_iter().enumerate() {
        gate(&number.to_string()).open();
        lent.push(clients[number].read("GET").text());
        proxy.wait_until("it is idle", |now| {
            now.endpoint("idle") == released as u64 + 1
        });
    }
    for _ in 0..5 {
        assert_eq!(client::once(proxy.address(), "/").unwrap().text(), lent[2]);
    }
    drop(clients);
    proxy.finish();
}

/// Gates by name, for scripts that are told by the request which one to wait at.
fn gate(name: &str) -> Gate {
    static GATES: Mutex<Vec<(String, Gate)>> = Mutex::new(Vec::new());
    let mut gates = GATES.lock().unwrap();
    if let Some((_, gate)) = gates.iter().find(|(known, _)| known == name) {
        return gate.clone();
    }
    gates.push((name.to_owned(), Gate::new()));
    gates[gates.len() - 1].1.clone()
}

#[test]
fn idle_connections_expire() {
    let gate = Gate::new();
    let service = gated(&gate);
    let proxy = Config::to(service.address())
        .pool("idle_timeout = \"300ms\"")
        .start();
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(client::get("/"));
    }
    service.wait_requests(4);
    gate.open_for_all();
    for client in &mut clients {
        assert_eq!(client.read("GET").status(), 200);
    }
    proxy.wait_upstream("discards/idle_timeout", 4);
    proxy.wait_upstream("connections/open", 0);
    assert_eq!(proxy.snapshot().resets_sent(), 0);
    drop(clients);
    proxy.finish();
}

#[test]
fn connections_retire_after_max_exchanges_and_max_lifetime() {
    let service = numbered();
    let proxy = Config::to(service.address())
        .pool("max_exchanges = 3")
        .pool("size = 1")
        .start();
    let mut client = proxy.client();
    let served: Vec<String> = (0..9).map(|_| client.get("/").text()).collect();
    assert_eq!(served, ["0", "0", "0", "1", "1", "1", "2", "2", "2"]);
    drop(client);
    assert_eq!(
        proxy
            .wait_upstream("discards/max_exchanges", 3)
            .sum("/upstreams/service/discards"),
        3
    );
    proxy.finish();
    let service = numbered();
    let proxy = Config::to(service.address())
        .pool("max_lifetime = \"300ms\"")
        .start();
    assert_eq!(client::once(proxy.address(), "/").unwrap().status(), 200);
    proxy.wait_upstream("discards/max_lifetime", 1);
    proxy.wait_upstream("connections/open", 0);
    proxy.finish();
}

#[test]
fn waiters_are_served_in_order() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let gate = Gate::new();
    let service = Service::replying({
        let (order, gate) = (Arc::clone(&order), gate.clone());
        move |request| {
            order.lock().unwrap().push(request.head.target().to_owned());
            gate.pass();
            Vec::new()
        }
    });
    let proxy = Config::to(service.address()).pool("size = 1").start();
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = proxy.client();
        client.send(client::get(&format!("/{number}")));
        if number == 0 {
            service.wait_requests(1);
        } else {
            proxy.wait_upstream("waiters", number);
        }
        clients.push(client);
    }
    gate.open_for_all();
    for client in &mut clients {
        assert_eq!(client.read("GET").status(), 200);
    }
    let expected: Vec<String> = (0..20).map(|number| format!("/{number}")).collect();
    assert_eq!(*order.lock().unwrap(), expected);
    drop(clients);
    assert_eq!(proxy.snapshot().upstream("waits/granted"), 20);
    proxy.finish();
}

#[test]
fn a_client_that_leaves_the_queue_takes_no_connection_with_it() {
    let gate = Gate::new();
    let service = gated(&gate);
    let proxy = Config::to(service.address()).pool("size = 1").start();
    let mut holder = proxy.client();
    holder.send(client::get("/"));
    service.wait_requests(1);
    let mut leavers: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
    for leaver in &mut leavers {
        leaver.send(client::get("/left"));
    }
    proxy.wait_upstream("waiters", 10);
    let mut last = proxy.client();
    last.send(client::get("/"));
    proxy.wait_upstream("waiters", 11);
    leavers.into_iter().for_each(Client::reset);
    proxy.wait_upstream("waiters", 1);
    gate.open_for_all();
    assert_eq!(holder.read("GET").text(), "0");
    assert_eq!(last.read("GET").text(), "0");
    assert_eq!(
        service.requests(),
        2,
        "no request of a client that left was sent"
    );
    drop((holder, last));
    let now = proxy.wait_upstream("waits/abandoned", 10);
    assert_eq!(now.upstream("exchanges/abandoned"), 10);
    assert_eq!(now.sum("/upstreams/service/exchanges"), 12);
    assert_eq!(
        now.session_ends(&[
            "initiator=downstream",
            "phase=queue",
            "manner=reset_received"
        ]),
        10
    );
    proxy.finish();
}

#[test]
fn a_client_that_half_closes_in_the_queue_still_gets_its_answer() {
    let gate = Gate::new();
    let service = gated(&gate);
    let proxy = Config::to(service.address()).pool("size = 1").start();
    let mut holder = proxy.client();
    holder.send(client::get("/"));
    service.wait_requests(1);
    let mut client = proxy.client();
    client.send(client::get("/"));
    client.socket.half_close();
    proxy.wait_upstream("waiters", 1);
    gate.open_for_all();
    assert_eq!(client.read("GET").text(), "0");
    client.expect_fin();
    assert_eq!(holder.read("GET").text(), "0");
    assert_eq!(
        holder.get("/").text(),
        "0",
        "the client's FIN never reached the service"
    );
    drop((holder, client));
    proxy.finish();
}

#[test]
fn a_refusing_endpoint_costs_no_request_and_is_tried_again() {
    let works = numbered();
    let refuses = Nobody::new();
    let proxy = Config::to_all(&[refuses.address(), works.address()])
        .pool("size = 4")
        .pool("backoff_min = \"50ms\"")
        .pool("backoff_max = \"200ms\"")
        .start();
    crowd(proxy.address(), 16, 30);
    let first = proxy.snapshot().upstream("connects/refused");
    assert!((1..100).contains(&first), "{first} connects were refused");
    assert_eq!(proxy.snapshot().sum("/listeners/front/refusals"), 0);
    // It is tried again while there is demand, with pauses.
    let back = wait::until("more attempts", || {
        assert_eq!(client::once(proxy.address(), "/").unwrap().status(), 200);
        let more = proxy.snapshot().upstream("connects/refused");
        (more > first + 1).then_some(more)
    });
    assert!(
        back < 200,
        "{back} connects were refused: that is no back-off"
    );
    // Once it works, it gets its share.
    let address = refuses.address().to_owned();
    drop(refuses);
    let revived = Service::start_on(
        &address,
        |mut connection| while connection.answer("revived") {},
    );
    wait::until("the revived endpoint serves", || {
        crowd(proxy.address(), 16, 2);
        (revived.requests() > 0).then_some(())
    });
    assert_eq!(proxy.snapshot().sum("/listeners/front/refusals"), 0);
    proxy.finish();
}

#[test]
fn an_unsent_request_fails_over_to_another_endpoint() {
    let works = numbered();
    let refuses = Nobody::new();
    for endpoints in [
        [works.address(), refuses.address()],
        [refuses.address(), works.address()],
    ] {
        let proxy = Config::to_all(&endpoints).pool("size = 1").start();
        let mut client = proxy.client();
        // A POST: failing over needs no idempotence, because nothing was sent.
        for _ in 0..10 {
            assert_eq!(client.post("/", b"x").status(), 200);
        }
        drop(client);
        proxy.finish();
    }
}

#[test]
fn the_load_is_balanced_over_endpoints() {
    let gate = Gate::new();
    let services = [gated(&gate), gated(&gate), gated(&gate)];
    let addresses: Vec<&str> = services.iter().map(Service::address).collect();
    let proxy = Config::to_all(&addresses).start();
    let mut clients: Vec<Client> = (0..12).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(client::get("/"));
    }
    wait::until("twelve requests", || {
        (services.iter().map(Service::requests).sum::<u64>() == 12).then_some(())
    });
    let shares: Vec<u64> = services.iter().map(Service::requests).collect();
    assert_eq!(shares, [4, 4, 4], "by least leased");
    gate.open_for_all();
    for client in &mut clients {
        assert_eq!(client.read("GET").status(), 200);
    }
    drop(clients);
    proxy.finish();
}

#[test]
fn a_waiter_gets_the_connection_that_any_endpoint_frees() {
    let (slow, fast) = (Gate::new(), Gate::new());
    let services = [gated(&slow), gated(&fast)];
    let proxy = Config::to_all(&[services[0].address(), services[1].address()])
        .pool("size = 1")
        .start();
    let mut holders = [proxy.client(), proxy.client()];
    for holder in &mut holders {
        holder.send(client::get("/"));
    }
    services[0].wait_requests(1);
    services[1].wait_requests(1);
    let mut waiters: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for waiter in &mut waiters {
        waiter.send(client::get("/"));
    }
    proxy.wait_upstream("waiters", 5);
    fast.open_for_all();
    for waiter in &mut waiters {
        assert_eq!(waiter.read("GET").status(), 200);
    }
    assert_eq!((services[0].requests(), services[1].requests()), (1, 6));
    slow.open_for_all();
    for holder in &mut holders {
        assert_eq!(holder.read("GET").status(), 200);
    }
    drop((holders, waiters));
    proxy.finish();
}

#[test]
fn connects_under_way_are_bounded() {
    // A listener whose accept queue is full answers no SYN: connects hang until their timeout.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _fills = TcpStream::connect(address).unwrap();
    let proxy = Config::to(&address.to_string())
        .pool("connect_parallel = 2")
        .pool("connect_timeout = \"500ms\"")
        .pool("wait_timeout = \"1s\"")
        .start();
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(client::get("/"));
    }
    proxy.wait_until("two are connecting", |now| now.endpoint("connecting") == 2);
    wait::throughout(Duration::from_millis(300), "never more than two", || {
        proxy.snapshot().endpoint("connecting") <= 2
    });
    for client in &mut clients {
        assert!([502, 503].contains(&client.read("GET").status()));
    }
    drop(clients);
    assert!(proxy.snapshot().upstream("connects/timeout") >= 1);
    proxy.finish();
}

#[test]
fn a_service_that_restarts_is_served_again() {
    let address = free_address("127.0.0.1").to_string();
    let answers = |mut connection: support::upstream::Connection| while connection.answer("up") {};
    let first = Service::start_on(&address, answers);
    let proxy: Proxy = Config::to(&address).pool("backoff_max = \"100ms\"").start();
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    drop(first);
    proxy.wait_until("its connections are gone", |now| {
        now.upstream("connections/open") == 0
    });
    assert_eq!(client.get("/").status(), 502);
    let _second = Service::start_on(&address, answers);
    wait::until("the second one answers", || {
        (client.get("/").status() == 200).then_some(())
    });
    client.socket.half_close();
    assert_eq!(client.end().1, End::Fin);
    drop(client);
    proxy.finish();
}

/// An endpoint whose accept queue is full: its kernel hears no SYN, so a connect hangs.
struct Hanging {
    address: SocketAddr,
    _listener: socket2::Socket,
    _queued: Vec<TcpStream>,
}

impl Hanging {
    fn start() -> Self {
        let listener = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )
        .unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // Longer than a SYN takes to be answered here, shorter than until it is sent again.
        let patience = Duration::from_millis(300);
        let queued = std::iter::from_fn(|| TcpStream::connect_timeout(&address, patience).ok());
        Self {
            address,
            _queued: queued.collect(),
            _listener: listener,
        }
    }
}

#[test]
fn a_connect_that_hangs_ends_after_connect_timeout() {
    let hanging = Hanging::start();
    let proxy = Config::to(&hanging.address.to_string())
        .pool("connect_timeout = \"200ms\"")
        .pool("backoff_min = \"10s\"")
        .pool("backoff_max = \"10s\"")
        .pool("wait_timeout = \"20s\"")
        .start();
    let mut client = proxy.client();
    let started = wait::now();
    assert_eq!(client.get("/").status(), 502);
    let waited = started.elapsed();
    assert!(
        (Duration::from_millis(200)..Duration::from_secs(5)).contains(&waited),
        "connect_timeout is 200 ms, and the answer came after {waited:?}"
    );
    let now = proxy.snapshot();
    assert_eq!(now.upstream("connects/timeout"), 1);
    assert_eq!(now.sum("/upstreams/service/connects"), 1);
    assert_eq!(now.listener("refusals/connect_failed"), 1);
    let ended = ["initiator=millpond", "phase=connect", "manner=timeout"];
    assert_eq!(now.connection_ends(&ended), 1);
    drop(client);
    proxy.finish();
}

#[test]
fn an_endpoint_that_hangs_costs_no_request() {
    let (hanging, works) = (Hanging::start(), numbered());
    let hangs = hanging.address.to_string();
    for endpoints in [[&hangs, works.address()], [works.address(), &hangs]] {
        let proxy = Config::to_all(&endpoints)
            .pool("size = 4")
            .pool("connect_timeout = \"200ms\"")
            .pool("backoff_min = \"50ms\"")
            .pool("backoff_max = \"200ms\"")
            .start();
        // Also those who come alone, one after the other.
        for _ in 0..10 {
            let answer = client::once(proxy.address(), "/").unwrap();
            assert_eq!(answer.status(), 200);
        }
        crowd(proxy.address(), 16, 30);
        wait::until("it is tried again", || {
            crowd(proxy.address(), 8, 1);
            (proxy.snapshot().upstream("connects/timeout") >= 2).then_some(())
        });
        let now = proxy.snapshot();
        assert_eq!(now.sum("/listeners/front/refusals"), 0);
        let timeouts = now.upstream("connects/timeout");
        assert!(timeouts < 100, "{timeouts} connects hung: no back-off");
        proxy.finish();
    }
}

#[test]
fn an_endpoint_may_be_given_by_name() {
    let service = numbered();
    let port = service.socket_address().port();
    let name = format!("localhost:{port}");
    let proxy = Config::to(&name).pool("size = 2").start();
    crowd(proxy.address(), 8, 10);
    let now = proxy.wait_completed(80);
    assert_eq!(now.text("/upstreams/service/endpoints/0/address"), name);
    assert_eq!(now.sum("/listeners/front/refusals"), 0);
    assert!((1..=2).contains(&service.accepted()));
    proxy.finish();
}
