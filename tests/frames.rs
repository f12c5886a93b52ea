//! Framed RPC: many clients over few connections, one reply for each request.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use nix::sys::signal::Signal;
use support::client::Client;
use support::message::pattern;
use support::proxy::Config;
use support::socket::End;
use support::upstream::{Connection, Service};
use support::wait::{self, Gate};

const LENGTH: &str = "length = { offset = 0, width = 4 }";
const LINES: &str = "delimiter = \"\\n\"";
/// A first byte of the payload that marks a kind of frame: after the length field of [`LENGTH`].
const ONEWAY: &str = "oneway = { offset = 4, value = 0x4f }";
const HEARTBEAT: &str = "heartbeat = { offset = 4, value = 0x48 }";

fn config(service: &Service, framing: &str) -> Config {
    Config::to(service.address())
        .protocol("frames")
        .frames(framing)
}

/// A payload behind its length.
fn frame(payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length, payload].concat()
}

/// The next frame's payload.
fn read_frame(wire: &mut support::message::Wire) -> Result<Vec<u8>, End> {
    let length = wire.exactly(4)?;
    let length = u32::from_be_bytes(length.try_into().unwrap());
    wire.exactly(length as usize)
}

/// A service that answers each frame, unless it is one-way, with its payload and the connection's
/// number behind it.
fn echoing() -> Service {
    Service::start(|mut connection| {
        while let Ok(payload) = read_frame(&mut connection) {
            connection.count_request();
            if payload.first() == Some(&b'O') {
                continue;
            }
            let number = connection.number.to_string();
            connection.write(frame([&payload, number.as_bytes()].concat()));
        }
    })
}

fn ask(client: &mut Client, payload: &str) -> String {
    client.send(frame(payload));
    String::from_utf8(read_frame(client).unwrap()).unwrap()
}

#[test]
fn many_clients_share_one_connection_in_turn() {
    let service = echoing();
    let proxy = config(&service, LENGTH).pool("size = 1").start();
    let mut clients: Vec<_> = (0..10).map(|_| proxy.client()).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            let payload = format!("{round} {number} ");
            assert_eq!(ask(client, &payload), format!("{payload}0"));
        }
    }
    drop(clients);
    let now = proxy.wait_completed(30);
    assert_eq!(now.upstream("connects/established"), 1);
    assert_eq!(now.sum("/upstreams/service/discards"), 0);
    now.expect_no_resets();
    proxy.finish();
}

#[test]
fn an_idle_client_holds_no_connection() {
    let service = echoing();
    let proxy = config(&service, LENGTH).pool("size = 1").start();
    let (mut first, mut second) = (proxy.client(), proxy.client());
    assert_eq!(ask(&mut first, "a "), "a 0");
    assert_eq!(ask(&mut second, "b "), "b 0");
    let now = proxy.wait_completed(2);
    assert_eq!((now.endpoint("leased"), now.endpoint("idle")), (0, 1));
    drop((first, second));
    proxy.finish();
}

#[test]
fn a_request_that_trickles_holds_no_connection_until_it_is_here() {
    let service = echoing();
    let proxy = config(&service, LENGTH).pool("size = 1").start();
    let mut slow = proxy.client();
    slow.send(&frame("slow ")[..7]);
    proxy.wait_until("the beginning has been read", |_| {
        proxy
            .admin("GET", "/api/v1/sessions")
            .1
            .contains("\"read_bytes\":7")
    });
    let mut quick = proxy.client();
    assert_eq!(ask(&mut quick, "quick "), "quick 0");
    slow.send(&frame("slow ")[7..]);
    assert_eq!(read_frame(&mut slow).unwrap(), b"slow 0");
    drop((slow, quick));
    proxy.finish();
}

#[test]
fn frames_of_every_size_go_through_whole() {
    let service = echoing();
    let proxy = config(&service, LENGTH).start();
    let mut client = proxy.client();
    for size in [0, 1, 3000, 16_380, 16_384, 70_000, 3_000_000] {
        client.send(frame(pattern(size as u64, size)));
        let reply = read_frame(&mut client).unwrap();
        let expected = [pattern(size as u64, size), b"0".to_vec()].concat();
        assert!(reply == expected, "{size}");
    }
    drop(client);
    let now = proxy.wait_completed(7);
    assert_eq!(now.upstream("connects/established"), 1);
    proxy.finish();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let service = echoing();
    let proxy = config(&service, LENGTH).start();
    let mut client = proxy.client();
    let payloads: Vec<String> = (0..200).map(|number| format!("{number} ")).collect();
    let sent: Vec<u8> = payloads.iter().flat_map(frame).collect();
    client.send(sent);
    for payload in &payloads {
        let reply = String::from_utf8(read_frame(&mut client).unwrap()).unwrap();
        assert_eq!(reply, format!("{payload}0"));
    }
    drop(client);
    proxy.finish();
}

#[test]
fn lines_and_frames_of_one_size_go_through_too() {
    let service = Service::start(|mut connection| {
        while let Ok(line) = connection.through(b"\n") {
            connection.write(line);
        }
    });
    for framing in [LINES, "size = 8", "delimiter = '\\r\\n'"] {
        let proxy = config(&service, framing).start();
        let mut client = proxy.client();
        for _ in 0..3 {
            client.send("abcdef\r\n");
            assert_eq!(client.exactly(8).unwrap(), b"abcdef\r\n");
        }
        drop(client);
        let now = proxy.wait_completed(3);
        assert_eq!(now.upstream("connects/established"), 1);
        proxy.finish();
    }
}

#[test]
fn a_half_close_after_the_request_does_not_cut_the_reply() {
    let service = echoing();
    let proxy = config(&service, LENGTH).start();
    let mut client = proxy.client();
    client.send(frame("last "));
    client.socket.half_close();
    assert_eq!(read_frame(&mut client).unwrap(), b"last 0");
    client.expect_fin();
    drop(client);
    let now = proxy.wait_completed(1);
    // The service never hears of it.
    assert_eq!(now.endpoint("idle"), 1);
    now.expect_no_resets();
    proxy.finish();
}

#[test]
fn a_request_without_a_reply_gives_its_connection_back_at_once() {
    let service = echoing();
    let proxy = config(&service, LENGTH)
        .frames(ONEWAY)
        .pool("size = 1")
        .start();
    let mut client = proxy.client();
    client.send(frame("Oh"));
    client.send(frame("O well"));
    assert_eq!(ask(&mut client, "a "), "a 0");
    service.wait_requests(3);
    drop(client);
    let now = proxy.wait_completed(3);
    assert_eq!(now.upstream("connects/established"), 1);
    proxy.finish();
}

#[test]
fn a_long_request_without_a_reply_is_sent_to_its_end() {
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            gate.pass();
            while let Ok(payload) = read_frame(&mut connection) {
                assert!(payload[1..] == pattern(1, 5_000_000));
                connection.count_request();
            }
        }
    });
    let proxy = config(&service, LENGTH).frames(ONEWAY).start();
    let mut client = proxy.client();
    let sending = std::thread::spawn(move || {
        client.send(frame([b"O".to_vec(), pattern(1, 5_000_000)].concat()));
        client
    });
    proxy.wait_until("it is under way", |now| now.endpoint("leased") == 1);
    gate.open_for_all();
    service.wait_requests(1);
    drop(sending.join().unwrap());
    proxy.wait_completed(1);
    proxy.finish();
}

#[test]
fn a_services_heartbeat_is_no_reply_and_is_dropped() {
    let service = Service::start(|mut connection| {
        while let Ok(payload) = read_frame(&mut connection) {
            if payload.first() != Some(&b'H') {
                connection.write([frame("H1"), frame("H2")].concat());
            }
            connection.write(frame(payload));
        }
    });
    let proxy = config(&service, LENGTH).frames(HEARTBEAT).start();
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "a"), "a");
    assert_eq!(
        ask(&mut client, "Ho"),
        "Ho",
        "its own heartbeat is answered"
    );
    assert_eq!(ask(&mut client, "b"), "b");
    drop(client);
    let now = proxy.wait_completed(3);
    assert_eq!(now.upstream("heartbeats_dropped"), 4);
    assert_eq!(now.upstream("connects/established"), 1);
    proxy.finish();
}

#[test]
fn a_services_heartbeat_while_nobody_asks_costs_its_connection_and_nobody_a_reply() {
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            while let Ok(payload) = read_frame(&mut connection) {
                connection.write(frame(payload));
                if connection.number == 0 {
                    gate.pass();
                    connection.write(frame("H"));
                }
            }
        }
    });
    let proxy = config(&service, LENGTH).frames(HEARTBEAT).start();
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "a"), "a");
    proxy.wait_completed(1);
    gate.open();
    proxy.wait_upstream("discards/idle_bytes", 1);
    assert_eq!(ask(&mut client, "b"), "b");
    drop(client);
    proxy.finish();
}

#[test]
fn a_frame_over_the_limit_ends_its_session_and_nobody_elses() {
    let service = echoing();
    let proxy = config(&service, LENGTH).frames("max = \"1KiB\"").start();
    let mut other = proxy.client();
    assert_eq!(ask(&mut other, "a "), "a 0");
    let mut client = proxy.client();
    client.send(2_000_u32.to_be_bytes());
    client.send([b'x'; 500]);
    client.expect_fin();
    drop(client);
    let now = proxy.wait_listener("refusals/frame_too_long", 1);
    assert_eq!(
        now.sum("/upstreams/service/discards"),
        0,
        "nothing of it went on"
    );
    let how = ["initiator=millpond", "phase=request", "manner=limit"];
    proxy.wait_until("it ended so", |now| now.session_ends(&how) == 1);
    assert_eq!(ask(&mut other, "b "), "b 0");
    drop(other);
    proxy.snapshot().expect_no_resets();
    proxy.finish();
}

#[test]
fn an_impossible_length_ends_its_session() {
    let service = echoing();
    // The length counts itself.
    let proxy = config(&service, "length = { offset = 0, width = 4, adjust = -4 }").start();
    let mut client = proxy.client();
    client.send(3_u32.to_be_bytes());
    client.expect_fin();
    drop(client);
    proxy.wait_listener("refusals/bad_frame", 1);
    let how = ["initiator=downstream", "phase=request", "manner=violation"];
    proxy.wait_until("it ended so", |now| now.session_ends(&how) == 1);
    proxy.finish();
}

#[test]
fn a_long_line_is_found_out_when_it_is_too_long_and_costs_its_connection() {
    let service = Service::start(|mut connection| {
        connection.until_end();
    });
    let proxy = config(&service, LINES).frames("max = \"32KiB\"").start();
    let mut client = proxy.client();
    let _ = client.try_send(pattern(1, 40_000));
    let (rest, end) = client.end();
    assert_eq!((rest.as_slice(), end), (b"".as_slice(), End::Fin));
    drop(client);
    proxy.wait_listener("refusals/frame_too_long", 1);
    proxy.wait_upstream("discards/request_limit", 1);
    proxy.finish();
}

#[test]
fn a_request_that_never_comes_whole_is_turned_away() {
    let service = echoing();
    let proxy = config(&service, LENGTH)
        .listener("head_timeout = \"50ms\"")
        .start();
    let mut client = proxy.client();
    client.send(&frame("slow ")[..7]);
    client.expect_fin();
    drop(client);
    let now = proxy.wait_listener("refusals/head_timeout", 1);
    assert_eq!(now.upstream("connects/established"), 0);
    proxy.finish();
}

#[test]
fn a_reply_that_nobody_asked_for_reaches_nobody() {
    let service = Service::start(|mut connection| {
        while let Ok(payload) = read_frame(&mut connection) {
            let more = if payload == b"two" {
                frame("foreign")
            } else {
                Vec::new()
            };
            connection.write([frame(payload), more].concat());
        }
    });
    let proxy = config(&service, LENGTH).pool("size = 1").start();
    let (mut first, mut second) = (proxy.client(), proxy.client());
    assert_eq!(ask(&mut first, "two"), "two");
    assert_eq!(ask(&mut second, "b"), "b");
    drop((first, second));
    let now = proxy.wait_completed(2);
    let found = now.upstream("discards/stray_bytes") + now.upstream("discards/idle_bytes");
    assert_eq!(found, 1, "{:#}", now.0);
    proxy.finish();
}

/// A service that dies when it is told to.
fn mortal(how: fn(Connection)) -> Service {
    Service::start(move |mut connection| {
        while let Ok(payload) = read_frame(&mut connection) {
            match payload.as_slice() {
                b"die" => return how(connection),
                b"half" => {
                    connection.write(&frame("half a reply")[..9]);
                    return how(connection);
                }
                _ => connection.write(frame(payload)),
            };
        }
    })
}

#[test]
fn a_service_that_dies_is_answered_for_and_the_session_goes_on() {
    for how in [drop as fn(Connection), Connection::reset] {
        let service = mortal(how);
        let proxy = config(&service, LENGTH)
            .frames(r"error_reply = '\x00\x00\x00\x05sorry'")
            .start();
        let mut client = proxy.client();
        assert_eq!(ask(&mut client, "a"), "a");
        assert_eq!(ask(&mut client, "die"), "sorry");
        assert_eq!(ask(&mut client, "b"), "b");
        drop(client);
        let now = proxy.wait_listener("refusals/upstream_died", 1);
        assert_eq!(now.upstream("exchanges/refused"), 1);
        proxy.finish();
    }
}

#[test]
fn a_request_is_never_sent_twice() {
    let service = mortal(drop);
    let proxy = config(&service, LENGTH).start();
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "a"), "a");
    client.send(frame("die"));
    client.expect_fin();
    drop(client);
    assert_eq!(service.accepted(), 1, "no second connection was tried");
    let now = proxy.wait_listener("refusals/upstream_died", 1);
    assert_eq!(now.sum("/upstreams/service/retries"), 0);
    assert_eq!(now.upstream("discards/lost_race"), 1);
    proxy.finish();
}

#[test]
fn a_client_without_words_is_refused_as_the_operator_wants_it() {
    for (refuse, end) in [("fin", End::Fin), ("reset", End::Reset)] {
        let service = mortal(drop);
        let proxy = config(&service, LENGTH)
            .listener(&format!("refuse = \"{refuse}\""))
            .start();
        let mut client = proxy.client();
        client.send(frame("die"));
        assert_eq!(client.end(), (Vec::new(), end));
        drop(client);
        proxy.wait_listener("refusals/upstream_died", 1);
        proxy.finish();
    }
}

#[test]
fn a_reply_that_is_cut_short_is_never_dressed_up_as_whole() {
    // A client sees by its length that a frame is cut; the end of a line it can't tell from the end
    // of the stream.
    let service = mortal(drop);
    let proxy = config(&service, LENGTH).start();
    let mut client = proxy.client();
    client.send(frame("half"));
    assert_eq!(
        client.end(),
        (frame("half a reply")[..9].to_vec(), End::Fin)
    );
    drop(client);
    let how = ["initiator=upstream", "phase=response", "manner=truncated"];
    proxy.wait_until("it ended so", |now| now.session_ends(&how) == 1);
    proxy.finish();

    let service = Service::start(|mut connection| {
        connection.through(b"\n").unwrap();
        connection.write("half a li");
    });
    let proxy = config(&service, LINES).start();
    let mut client = proxy.client();
    client.send("a\n");
    assert_eq!(client.end(), (b"half a li".to_vec(), End::Reset));
    drop(client);
    let now = proxy.wait_until("it ended so", |now| now.session_ends(&how) == 1);
    let propagated = ["direction=sent", "cause=propagated"];
    assert_eq!(now.rows("/listeners/front/resets", &propagated), 1);
    proxy.finish();
}

#[test]
fn a_silent_service_is_given_up() {
    let service = Service::start(|mut connection| {
        connection.until_end();
    });
    let proxy = config(&service, LENGTH)
        .upstream("response_timeout = \"50ms\"")
        .start();
    let mut client = proxy.client();
    client.send(frame("a"));
    client.expect_fin();
    drop(client);
    proxy.wait_listener("refusals/response_timeout", 1);
    proxy.finish();
}

#[test]
fn a_drain_finishes_the_exchange_and_closes_idle_sessions() {
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            while let Ok(payload) = read_frame(&mut connection) {
                connection.count_request();
                if payload == b"wait" {
                    gate.pass();
                }
                connection.write(frame(payload));
            }
        }
    });
    let proxy = config(&service, LENGTH).start();
    let (mut idle, mut busy) = (proxy.client(), proxy.client());
    assert_eq!(ask(&mut idle, "a"), "a");
    busy.send(frame("wait"));
    service.wait_requests(2);
    proxy.signal(Signal::SIGTERM);
    idle.expect_fin();
    gate.open();
    assert_eq!(read_frame(&mut busy).unwrap(), b"wait");
    busy.expect_fin();
    drop((idle, busy));
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_listener_that_a_reload_gives_another_protocol_lets_its_sessions_end_in_their_own() {
    let service = echoing();
    let lines = Service::start(|mut connection| {
        while let Ok(line) = connection.through(b"\n") {
            connection.write(line);
        }
    });
    let more = format!(
        "[upstream.lines]\nprotocol = \"tcp\"\nendpoints = [{:?}]\n",
        lines.address()
    );
    let before = config(&service, LENGTH).more(&more);
    let proxy = before.start();
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "a "), "a 0");
    proxy.rewrite(&before.clone().upstream_of_front("lines"));
    let (status, said) = proxy.admin("POST", "/api/v1/reload");
    assert_eq!(status, 200, "{said}");
    // The session is told of it with its next request, which is still a frame to it.
    assert_eq!(ask(&mut client, "b "), "b 0");
    client.expect_fin();
    drop(client);
    wait::until("a new session speaks the new protocol", || {
        let mut client = proxy.client();
        client.send("a\n");
        (client.through(b"\n").ok()? == b"a\n").then_some(())
    });
    proxy.finish();
}
