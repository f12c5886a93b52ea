//! How connections end: gracefully wherever the peer behaves, and never dressed up.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::client::{self, Client};
use support::message::{chunked, pattern};
use support::netns::{Network, PROXY, Resets, SERVICE};
use support::proxy::{Config, Proxy, Snapshot};
use support::socket::{End, Socket};
use support::upstream::{Connection, Service};
use support::wait::{self, Gate};

/// Every way in which a well-behaved client can come and go.
fn well_behaved(address: SocketAddr) {
    // It closes after a kept-alive exchange, after none, or asks for the close.
    let mut kept = Client::dial(address);
    assert_eq!(kept.get("/a").status(), 200);
    assert_eq!(kept.post("/b", &pattern(1, 20_000)).status(), 200);
    drop(kept);
    drop(Client::dial(address));
    assert_eq!(client::once(address, "/c").unwrap().status(), 200);
    // HTTP/1.0.
    let mut old = Client::dial(address);
    old.send("GET /d HTTP/1.0\r\n\r\n");
    assert_eq!(old.read("GET").status(), 200);
    old.expect_fin();
    // It half-closes after its request.
    let mut half = Client::dial(address);
    half.send(client::get("/e"));
    half.socket.half_close();
    assert_eq!(half.read("GET").status(), 200);
    half.expect_fin();
    // It is refused, at once or while it is still sending.
    let mut refused = Client::dial(address);
    refused
        .send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        .send([b'x'; 1000]);
    assert_eq!(refused.read("GET").status(), 400);
    refused.expect_fin();
    let mut large = Client::dial(address);
    large
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n")
        .send(pattern(2, 300_000));
    assert_eq!(large.read("POST").status(), 413);
    large.expect_fin();
    // It pipelines more than it gets to hear an answer for.
    let mut surplus = Client::dial(address);
    surplus.send([client::last_get("/f"), client::get("/g"), client::get("/h")].concat());
    assert_eq!(surplus.read("GET").text(), "/f");
    surplus.expect_fin();
    // It reads slowly, then goes.
    let mut slow = Client::dial(address);
    slow.send(client::last_get("/big"));
    let head = slow.head().unwrap();
    wait::pace(Duration::from_millis(30));
    assert_eq!(slow.exactly(head.length().unwrap()).unwrap().len(), 300_000);
    slow.expect_fin();
}

#[test]
fn well_behaved_peers_never_see_a_reset() {
    let network = Network::create();
    let service = network.service.enter(|| {
        Service::start_on(&format!("{SERVICE}:0"), |mut connection| {
            while let Some(request) = connection.request() {
                match request.head.target() {
                    "/big" => connection.reply(pattern(3, 300_000)),
                    // Now and then a service closes in order.
                    "/c" => {
                        connection.write(
                            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                        );
                        return;
                    }
                    target => connection.reply(target),
                }
            }
        })
    });
    let config = Config::to(service.address())
        .listen("10.77.1.2:0")
        .http("body_max = \"1MiB\"")
        .pool("size = 4")
        .pool("max_exchanges = 10")
        .pool("idle_timeout = \"200ms\"");
    let proxy = network.proxy.enter(|| config.start());
    let address = proxy.address();
    network.clients.enter(|| {
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(move || (0..15).for_each(|_| well_behaved(address)));
            }
        });
    });
    let now = proxy.wait_upstream("connections/open", 0);
    assert_eq!(now.resets_sent() + now.resets_received(), 0, "{:#}", now.0);
    proxy.finish();
    assert_eq!(
        network.downstream_resets(),
        Resets {
            sent: 0,
            received: 0
        }
    );
    assert_eq!(
        network.upstream_resets(),
        Resets {
            sent: 0,
            received: 0
        }
    );
}

#[test]
fn the_ledger_counts_the_resets_that_the_kernel_sees() {
    let network = Network::create();
    let service = network.service.enter(|| {
        Service::start_on(&format!("{SERVICE}:0"), |mut connection| {
            while let Some(request) = connection.request() {
                match request.head.target() {
                    "/truncate" => {
                        connection.write("HTTP/1.0 200 OK\r\n\r\nsome");
                        connection.wait_acknowledged();
                        return connection.reset();
                    }
                    "/die" => return connection.reset(),
                    _ => connection.reply("fine"),
                }
            }
        })
    });
    let config = Config::to(service.address()).listen("10.77.1.2:0");
    let proxy = network.proxy.enter(|| config.start());
    let address = proxy.address();
    network.clients.enter(|| {
        for _ in 0..10 {
            let mut client = Client::dial(address);
            client.send("GET /truncate HTTP/1.0\r\nHost: a\r\n\r\n");
            assert_eq!(client.end().1, End::Reset);
            let mut client = Client::dial(address);
            client.send(client::post("/die", b"x"));
            assert_eq!(client.read("POST").status(), 502);
            let mut client = Client::dial(address);
            assert_eq!(client.get("/").text(), "fine");
            client.reset();
        }
    });
    let now = proxy.wait_listener("sessions/open", 0);
    let (down, up) = (network.downstream_resets(), network.upstream_resets());
    assert_eq!(
        down,
        Resets {
            sent: 10,
            received: 10
        }
    );
    assert_eq!(
        up,
        Resets {
            sent: 0,
            received: 20
        }
    );
    let rows = |side: &str, direction: &str| {
        now.rows(
            &format!("/{side}/resets"),
            &[&format!("direction={direction}")],
        )
    };
    assert_eq!(
        (
            rows("listeners/front", "sent"),
            rows("listeners/front", "received")
        ),
        (10, 10)
    );
    assert_eq!(
        (
            rows("upstreams/service", "sent"),
            rows("upstreams/service", "received")
        ),
        (0, 20)
    );
    proxy.finish();
}

/// A service that sends an answer of unknown length, `bytes` long, and ends it like `ending`, once
/// millpond's kernel has all of it.
fn until_close(bytes: usize, ending: fn(Connection)) -> Service {
    Service::start(move |mut connection| {
        if connection.request().is_some() {
            connection.write("HTTP/1.0 200 OK\r\n\r\n");
            connection.write(pattern(7, bytes));
            connection.wait_acknowledged();
            ending(connection);
        }
    })
}

/// Asks as an HTTP/1.0 client with a small receive buffer.
fn ask_slowly(address: SocketAddr) -> Client {
    let socket = Socket::dial(address);
    socket.set_receive_buffer(4096);
    let mut client = Client::over(socket);
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    client
}

#[test]
fn a_reset_inside_an_answer_of_unknown_length_reaches_the_client_after_every_byte() {
    let service = until_close(200_000, Connection::reset);
    let proxy = Config::to(service.address()).start();
    for _ in 0..20 {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        client.head().unwrap();
        let (body, end) = client.end();
        assert_eq!(
            (body == pattern(7, 200_000), body.len(), end),
            (true, 200_000, End::Reset)
        );
    }
    let now = proxy.wait_listener("sessions/terminated", 20);
    assert_eq!(
        now.session_ends(&["initiator=upstream", "phase=response", "manner=truncated"]),
        20
    );
    assert_eq!(now.upstream("exchanges/truncated"), 20);
    assert_eq!(
        now.rows(
            "/listeners/front/resets",
            &["direction=sent", "cause=propagated"]
        ),
        20
    );
    proxy.finish();
}

#[test]
fn a_slow_reader_gets_every_byte_too_before_the_reset() {
    let service = until_close(200_000, Connection::reset);
    let proxy = Config::to(service.address()).start();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = ask_slowly(proxy.address());
                client.head().unwrap();
                let mut body = Vec::new();
                while body.len() < 200_000 {
                    wait::pace(Duration::from_millis(1));
                    body.extend(client.exactly(2000).expect("every byte comes first"));
                }
                assert!(body == pattern(7, 200_000));
                assert_eq!(client.end(), (Vec::new(), End::Reset));
            });
        }
    });
    assert_eq!(proxy.snapshot().listener("lost_bytes/unacknowledged"), 0);
    proxy.finish();
}

#[test]
fn an_answer_of_unknown_length_that_ends_in_order_ends_by_fin() {
    let service = until_close(200_000, drop);
    let proxy = Config::to(service.address()).start();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut client = ask_slowly(proxy.address());
                client.head().unwrap();
                let (body, end) = client.end();
                assert_eq!((body == pattern(7, 200_000), end), (true, End::Fin));
            });
        }
    });
    proxy.wait_completed(10);
    proxy.finish();
}

#[test]
fn an_answer_that_is_cut_short_is_never_complete() {
    let whole_chunks = chunked(&pattern(8, 5000), 1000, "");
    let cases: [(&str, Vec<u8>); 3] = [
        ("Content-Length: 6000", pattern(8, 5000)),
        (
            "Transfer-Encoding: chunked",
            whole_chunks[..whole_chunks.len() - 5].to_vec(),
        ),
        ("Transfer-Encoding: chunked", whole_chunks[..2500].to_vec()),
    ];
    for ending in [drop::<Connection> as fn(Connection), Connection::reset] {
        for (framing, body) in &cases {
            let bytes = [
                format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes(),
                body,
            ]
            .concat();
            let service = Service::start(move |mut connection| {
                if connection.request().is_some() {
                    connection.write(&bytes);
                    connection.wait_acknowledged();
                    ending(connection);
                }
            });
            let proxy = Config::to(service.address()).start();
            let mut client = proxy.client();
            client.send(client::get("/"));
            client.head().unwrap();
            let (rest, _) = client.end();
            assert!(
                rest == *body,
                "{} bytes of {}, and nothing that ends them",
                rest.len(),
                body.len()
            );
            drop(client);
            let now = proxy.wait_listener("sessions/terminated", 1);
            assert_eq!(
                now.session_ends(&["initiator=upstream", "manner=truncated"]),
                1
            );
            assert_eq!(now.upstream("exchanges/truncated"), 1);
            proxy.finish();
        }
    }
}

#[test]
fn chunks_that_break_their_framing_end_as_a_truncation() {
    let service = Service::start(|mut connection| {
        if connection.request().is_some() {
            connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
            connection.wait_acknowledged();
            connection.write("xyz\r\n0\r\n\r\n");
            connection.wait_for_end();
        }
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    client.send(client::get("/"));
    client.head().unwrap();
    let (rest, _) = client.end();
    assert!(
        !rest.windows(5).any(|window| window == b"0\r\n\r\n"),
        "{rest:?}"
    );
    drop(client);
    let now = proxy.wait_upstream("discards/violation", 1);
    assert_eq!(now.upstream("exchanges/truncated"), 1);
    proxy.finish();
}

#[test]
fn a_service_that_stalls_inside_its_answer_truncates_it() {
    let service = Service::start(|mut connection| {
        if connection.request().is_some() {
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive.");
            connection.wait_for_end();
        }
    });
    let proxy = Config::to(service.address())
        .upstream("response_timeout = \"300ms\"")
        .start();
    let mut client = proxy.client();
    client.send(client::get("/"));
    client.head().unwrap();
    assert_eq!(client.end().0, b"five.");
    drop(client);
    let now = proxy.wait_upstream("discards/response_timeout", 1);
    assert_eq!(now.upstream("exchanges/truncated"), 1);
    proxy.finish();
}

/// Bytes that the only session has been sent so far.
fn written_bytes(proxy: &Proxy) -> u64 {
    let (status, body) = proxy.admin("GET", "/api/v1/sessions");
    assert_eq!(status, 200, "{body}");
    let list = Snapshot(serde_json::from_str(&body).unwrap());
    list.number("/listeners/front/0/written_bytes")
}

#[test]
fn a_service_is_not_charged_with_the_time_that_its_client_took_nothing() {
    const PIECE: usize = 8 << 10;
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            connection.request();
            connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = chunked(&pattern(1, PIECE), PIECE, "");
            let chunk = chunk.strip_suffix(b"0\r\n\r\n").unwrap();
            loop {
                gate.pass();
                if !connection.write(chunk) {
                    return;
                }
            }
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front");
    let proxy = Config::to(service.address())
        .listen(&format!("unix:{}", path.display()))
        .upstream("response_timeout = \"500ms\"")
        .start();
    let mut client = Client::over(Socket::dial_unix(&path).unwrap());
    client.send(client::get("/"));
    client.head().unwrap();
    // Chunks, one after the other, until the client's socket takes no more.
    let mut sent = 0;
    let mut written = written_bytes(&proxy);
    loop {
        gate.open();
        sent += 1;
        let next = written + (PIECE + "2000\r\n\r\n".len()) as u64;
        let deadline = wait::now() + Duration::from_millis(200);
        while written < next && wait::now() < deadline {
            written = written_bytes(&proxy);
        }
        if written < next {
            break;
        }
    }
    let one_is_open = || proxy.snapshot().listener("sessions/open") == 1;
    wait::throughout(Duration::from_millis(700), "the client rests", one_is_open);
    for _ in 0..sent {
        assert!(client.through(b"2000\r\n").is_ok() && client.exactly(PIECE + 2).is_ok());
    }
    let cut_short = || proxy.snapshot().upstream("exchanges/truncated") == 1;
    wait::throughout(Duration::from_millis(200), "the service has time", || {
        !cut_short()
    });
    gate.open();
    assert!(client.through(b"2000\r\n").is_ok() && client.exactly(PIECE + 2).is_ok());
    wait::until("silence is still bounded", || cut_short().then_some(()));
    drop(client);
    proxy.finish();
}

#[test]
fn a_client_that_reads_all_the_time_however_slowly_is_not_given_up() {
    const TOTAL: usize = 8 << 20;
    let service = Service::replying(|_| pattern(1, TOTAL));
    let proxy = Config::to(service.address())
        .listener("stall_timeout = \"500ms\"")
        .start();
    let mut client = proxy.client();
    client.socket.set_receive_buffer(16 << 10);
    client.send(client::get("/"));
    assert_eq!(client.head().unwrap().length(), Some(TOTAL));
    let mut body = client.exactly(1).unwrap();
    // Far longer than the limit, and far less than makes a kernel's full buffer writable again.
    for _ in 0..40 {
        wait::pace(Duration::from_millis(50));
        body.extend(client.exactly(4 << 10).unwrap());
    }
    assert!(body == pattern(1, TOTAL)[..body.len()]);
    // One that takes nothing is given up all the same.
    let now = proxy.wait_upstream("exchanges/abandoned", 1);
    assert_eq!(
        now.session_ends(&["initiator=millpond", "manner=timeout"]),
        0
    );
    drop(client);
    proxy.wait_until("it ended so", |now| {
        now.session_ends(&["initiator=millpond", "manner=timeout"]) == 1
    });
    proxy.finish();
}

#[test]
fn the_rest_of_an_answer_is_read_for_a_client_that_left() {
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            while let Some(request) = connection.request() {
                if request.head.target() != "/half" {
                    connection.reply(connection.number.to_string());
                    continue;
                }
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n");
                connection.write([b'x'; 10_000]);
                gate.pass();
                connection.write([b'x'; 10_000]);
            }
        }
    });
    let proxy = Config::to(service.address())
        .upstream("abandon_bytes = \"64KiB\"")
        .start();
    let mut client = proxy.client();
    client.send(client::get("/half"));
    client.head().unwrap();
    client.exactly(10_000).unwrap();
    // The session, and with it the reset, is entered once the rest has come.
    client.reset();
    gate.open();
    proxy.wait_until("its connection is idle", |now| now.endpoint("idle") == 1);
    proxy.wait_until("the client's reset came", |now| now.resets_received() == 1);
    assert_eq!(
        client::once(proxy.address(), "/").unwrap().text(),
        "0",
        "and is used again"
    );
    let now = proxy.snapshot();
    assert_eq!(now.upstream("exchanges/abandoned"), 1);
    assert_eq!(
        now.session_ends(&[
            "initiator=downstream",
            "phase=response",
            "manner=reset_received"
        ]),
        1
    );
    proxy.finish();
}

#[test]
fn a_long_answer_is_not_read_for_a_client_that_left() {
    let service = Service::start(|mut connection| {
        while let Some(request) = connection.request() {
            if request.head.target() != "/long" {
                connection.reply(connection.number.to_string());
                continue;
            }
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
            while connection.write([b'x'; 65_536]) {}
            return;
        }
    });
    let proxy = Config::to(service.address())
        .upstream("abandon_bytes = \"64KiB\"")
        .start();
    let mut client = proxy.client();
    client.send(client::get("/long"));
    client.head().unwrap();
    client.reset();
    proxy.wait_upstream("discards/client_gone", 1);
    let now = proxy.wait_upstream("connections/open", 0);
    assert_eq!(now.upstream("exchanges/abandoned"), 1);
    assert_eq!(
        now.rows(
            "/upstreams/service/resets",
            &["direction=sent", "cause=abandoned"]
        ),
        1
    );
    assert_eq!(client::once(proxy.address(), "/").unwrap().text(), "1");
    proxy.finish();
}

#[test]
fn a_client_that_leaves_inside_its_request_leaves_no_half_request_behind() {
    let service = Service::start(|mut connection| {
        while let Some(request) = connection.request() {
            connection.reply(request.body.len().to_string());
        }
    });
    let proxy = Config::to(service.address()).start();
    for (number, by_reset) in [true, false, true, false].into_iter().enumerate() {
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
        client.send([b'x'; 50_000]);
        proxy.wait_until("it is under way", |now| now.endpoint("leased") == 1);
        if by_reset {
            client.reset();
        } else {
            drop(client);
        }
        proxy.wait_listener("sessions/terminated", number as u64 + 1);
    }
    assert_eq!(service.requests(), 0);
    let mut client = proxy.client();
    assert_eq!(client.post("/", b"12345").text(), "5");
    drop(client);
    assert_eq!(proxy.snapshot().upstream("discards/client_gone"), 4);
    proxy.finish();
}

/// Gets millpond to end first, by an answer with `Connection: close`, then does not end itself.
/// `resets`: how many RSTs that costs.
fn linger_is_bounded(lines: &str, resets: u64, mut happening: impl FnMut(&mut Client)) {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).listener(lines).start();
    let mut client = proxy.client();
    client.send(client::last_get("/"));
    assert_eq!(client.read("GET").status(), 200);
    assert_eq!(client.fill(), Err(End::Fin), "a FIN comes first");
    let started = wait::now();
    happening(&mut client);
    proxy.wait_listener("sessions/open", 0);
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "the bound is {lines}"
    );
    let now = proxy.snapshot();
    assert_eq!(
        now.rows(
            "/listeners/front/resets",
            &["direction=sent", "cause=linger_bound"]
        ),
        resets
    );
    assert_eq!(now.resets_sent(), resets);
    // The end itself was in order: what came after it does not change who began it.
    assert_eq!(now.listener("sessions/terminated"), 1);
    drop(client);
    proxy.finish();
}

#[test]
fn a_client_that_never_closes_is_waited_for_only_so_long() {
    let lines = "linger_time = \"600ms\"\nlinger_gap = \"300ms\"";
    linger_is_bounded(lines, 0, |client| {
        // Never silent for as long as the gap, so only the time in all ends it. What comes later is
        // answered by the kernel, which has no descriptor of millpond's for it any more.
        while client.try_send("still here").is_ok() {
            wait::pace(Duration::from_millis(130));
        }
    });
}

#[test]
fn a_client_that_is_silent_after_our_fin_is_waited_for_only_so_long() {
    // It has done nothing wrong yet, so it is left to the kernel without an RST.
    linger_is_bounded("linger_gap = \"300ms\"", 0, |_| {});
}

#[test]
fn a_client_that_goes_on_sending_after_our_fin_is_heard_only_so_far() {
    linger_is_bounded("linger_bytes = \"64KiB\"", 1, |client| {
        while client.try_send([b'x'; 16_384]).is_ok() {}
    });
}

#[test]
fn a_half_close_after_the_request_does_not_cut_the_answer() {
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            while connection.request().is_some() {
                gate.pass();
                connection.reply(pattern(9, 500_000));
            }
        }
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    client.send(client::get("/"));
    client.socket.half_close();
    service.wait_requests(1);
    gate.open_for_all();
    assert!(client.read("GET").body == pattern(9, 500_000));
    client.expect_fin();
    drop(client);
    let now = proxy.wait_listener("sessions/terminated", 1);
    assert_eq!(now.session_ends(&["initiator=downstream", "manner=fin"]), 1);
    assert_eq!(
        now.endpoint("idle"),
        1,
        "the client's FIN stayed on its own leg"
    );
    proxy.finish();
}

/// The two cross: its FIN was sent before the answer, which ends where the connection does, had come.
#[test]
fn an_answer_that_crosses_its_clients_fin_is_not_lost_before_it_had_its_time() {
    let network = Network::create();
    let gate = Gate::new();
    let service = {
        let gate = gate.clone();
        let serve = move |mut connection: Connection| {
            connection.request();
            gate.pass();
            connection.write("HTTP/1.1 200 OK\r\n\r\nof unknown length");
        };
        let start = || Service::start_on(&format!("{SERVICE}:0"), serve);
        network.service.enter(start)
    };
    let config = Config::to(service.address()).listen(&format!("{PROXY}:0"));
    let proxy = network.proxy.enter(|| config.start());
    let mut client = network.clients.enter(|| Client::dial(proxy.address()));
    client.send(client::get("/"));
    service.wait_requests(1);
    network.cut_to_clients();
    gate.open();
    let port = proxy.address().port();
    let state = |state: &str| {
        network
            .proxy
            .sockets(&format!("state {state} sport = :{port}"))
    };
    let has_closed = || (state("fin-wait-1") == 1).then_some(());
    wait::until(
        "the answer is out, and millpond's FIN behind it",
        has_closed,
    );
    client.socket.half_close();
    let has_come = || (state("closing") == 1).then_some(());
    wait::until("the client's FIN has come", has_come);
    // Nothing of the answer is confirmed, and it is not given up.
    wait::throughout(Duration::from_millis(300), "it is waited for", || {
        proxy.snapshot().listener("sessions/open") == 1
    });
    network.mend();
    assert_eq!(client.read("GET").text(), "of unknown length");
    let now = proxy.wait_listener("sessions/terminated", 1);
    assert_eq!(now.listener("lost_bytes/unacknowledged"), 0);
    drop(client);
    proxy.finish();
}

#[test]
fn a_service_that_half_closes_early_still_gets_its_answer_through() {
    let service = Service::start(|mut connection| {
        if connection.request().is_some() {
            connection.reply("then FIN");
            connection.half_close();
            connection.wait_for_end();
        }
    });
    // The next request may meet the half-close, which the service acknowledges.
    let repeat = "retry = \"idempotent\"";
    let proxy = Config::to(service.address()).upstream(repeat).start();
    let mut client = proxy.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").text(), "then FIN");
    }
    drop(client);
    assert_eq!(service.requests(), 10);
    proxy.finish();
}

#[test]
fn every_plain_end_has_its_row() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    drop(client);
    assert_eq!(client::once(proxy.address(), "/").unwrap().status(), 200);
    proxy.client().reset();
    let mut client = proxy.client();
    client.send("GARBAGE\r\n\r\n");
    assert_eq!(client.read("GET").status(), 400);
    client.expect_fin();
    drop(client);
    let now = proxy.wait_listener("sessions/terminated", 4);
    assert_eq!(
        now.session_ends(&["initiator=downstream", "phase=idle", "manner=fin"]),
        2
    );
    assert_eq!(
        now.session_ends(&["initiator=downstream", "manner=reset_received"]),
        1
    );
    assert_eq!(now.session_ends(&["manner=violation"]), 1);
    proxy.finish();
}

/// A service that answers once on each connection, and does something else before it ends it.
fn stubborn(then: impl Fn(&mut Connection) + Send + Sync + 'static) -> Service {
    Service::start_on(&format!("{SERVICE}:0"), move |mut connection| {
        if connection.answer("once") {
            then(&mut connection);
        }
    })
}

/// Every connection is ended by us, after its first exchange.
fn ended_by_us(service: &Service) -> Config {
    Config::to(service.address())
        .listen(&format!("{PROXY}:0"))
        .pool("size = 1")
        .pool("max_exchanges = 1")
        .pool("wait_timeout = \"20s\"")
}

#[test]
fn a_service_that_never_answers_our_fin_keeps_its_slot_for_linger_time_and_is_not_reset() {
    let network = Network::create();
    let (heard, end) = (Gate::new(), Gate::new());
    let service = network.service.enter(|| {
        let (heard, end) = (heard.clone(), end.clone());
        stubborn(move |connection| {
            assert_eq!(connection.fill(), Err(End::Fin));
            heard.open();
            end.pass();
        })
    });
    let config = ended_by_us(&service).upstream("linger_time = \"1s\"");
    let proxy = network.proxy.enter(|| config.start());
    let mut client = network.clients.enter(|| proxy.client());
    assert_eq!(client.get("/").text(), "once");
    let started = wait::now();
    heard.pass();
    client.send(client::get("/"));
    let now = proxy.wait_upstream("waiters", 1);
    assert_eq!((now.endpoint("closing"), service.accepted()), (1, 1));
    assert_eq!(now.upstream("connections/open"), 1, "its slot is taken");
    assert_eq!(client.read("GET").text(), "once");
    let waited = started.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(5)).contains(&waited),
        "linger_time is 1 s, and the slot was free after {waited:?}"
    );
    assert_eq!((service.accepted(), service.open()), (2, 2));
    let now = proxy.wait_upstream("connections/open", 0);
    assert_eq!(now.upstream("connections/terminated"), 2);
    assert_eq!(now.upstream("discards/max_exchanges"), 2);
    end.open_for_all();
    wait::until("the service has ended both", || {
        (service.open() == 0).then_some(())
    });
    drop(client);
    assert_eq!(proxy.snapshot().resets_sent(), 0);
    proxy.finish();
    let none = Resets {
        sent: 0,
        received: 0,
    };
    assert_eq!(network.upstream_resets(), none);
}

#[test]
fn a_service_that_goes_on_sending_after_our_fin_is_reset() {
    let network = Network::create();
    let service = network.service.enter(|| {
        stubborn(|connection| {
            assert_eq!(connection.fill(), Err(End::Fin));
            while connection.write([b'x'; 16_384]) {}
        })
    });
    let proxy = network.proxy.enter(|| ended_by_us(&service).start());
    let mut client = network.clients.enter(|| proxy.client());
    for count in 1..=3 {
        assert_eq!(client.get("/").text(), "once");
        let now = proxy.wait_upstream("connections/terminated", count);
        let row = |labels: &[&str]| now.rows("/upstreams/service/resets", labels);
        assert_eq!(row(&["direction=sent", "cause=linger_bound"]), count);
        assert_eq!(row(&[]), count, "and nothing else");
        // Who began the end is not changed by what came after it.
        let ended = ["initiator=millpond", "phase=idle", "manner=limit"];
        assert_eq!(now.connection_ends(&ended), count);
        assert!(now.upstream("lost_bytes/unread") > count << 20);
        assert_eq!(now.endpoint("closing"), 0, "the slot is free at once");
    }
    wait::until("the service has seen it", || {
        (service.open() == 0).then_some(())
    });
    drop(client);
    proxy.finish();
    // What was on its way when the socket went is answered by the kernel, each segment once.
    let resets = network.upstream_resets();
    assert!(resets.sent >= 3 && resets.received == 0, "{resets:?}");
}
