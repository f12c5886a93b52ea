//! What millpond refuses, with which answer, and that refusing costs nothing.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::net::SocketAddr;

use support::client::{self, Client};
use support::message::{Message, pattern};
use support::proxy::{Config, Proxy};
use support::socket::End;
use support::upstream::{Nobody, Service};
use support::wait::Gate;

/// A malformed request: what is wrong with it, its bytes, the statuses it may get, and its counter.
struct Case {
    name: &'static str,
    bytes: String,
    status: &'static [u16],
    reason: &'static str,
}

const BAD: &[u16] = &[400];

fn case(name: &'static str, bytes: &str, reason: &'static str) -> Case {
    Case {
        name,
        bytes: bytes.to_owned(),
        status: BAD,
        reason,
    }
}

/// A request with these lines after a good first line and Host.
fn with(name: &'static str, lines: &str, reason: &'static str) -> Case {
    case(
        name,
        &format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"),
        reason,
    )
}

/// A chunked request with this body.
fn chunks(name: &'static str, body: &str, reason: &'static str) -> Case {
    with(
        name,
        &format!("Transfer-Encoding: chunked\r\n\r\n{body}"),
        reason,
    )
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("no target", "GET\r\n\r\n", "bad_start_line"),
        case("no version", "GET /\r\nHost: a\r\n\r\n", "bad_start_line"),
        case(
            "two spaces",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "bad_start_line",
        ),
        case(
            "control byte in the target",
            "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
            "bad_start_line",
        ),
        case(
            "not HTTP at all",
            "\x16\x03\x01\x02\x00\x01\r\n\r\n",
            "bad_start_line",
        ),
        with("control byte in a name", "X\x01: b", "bad_header"),
        with("NUL in a value", "X: b\0c", "bad_header"),
        with("no colon", "nonsense", "bad_header"),
        with("no name", ": b", "bad_header"),
        case("bare LF", "GET / HTTP/1.1\nHost: a\n\n", "bare_line_end"),
        with("bare LF after a field", "X: a\nY: b", "bare_line_end"),
        with("bare CR in a value", "X: a\rY: b", "bare_line_end"),
        with("space before the colon", "X : b", "space_before_colon"),
        with(
            "tab before the colon",
            "Content-Length\t: 0",
            "space_before_colon",
        ),
        with("folded line", "X: a\r\n b", "folded_header"),
        with(
            "both framings",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "length_conflict",
        ),
        with(
            "two lengths",
            "Content-Length: 5\r\nContent-Length: 6",
            "bad_length",
        ),
        with("a list of lengths", "Content-Length: 5, 6", "bad_length"),
        with("a signed length", "Content-Length: +5", "bad_length"),
        with("a hexadecimal length", "Content-Length: 0x5", "bad_length"),
        with("an empty length", "Content-Length:", "bad_length"),
        with(
            "a length over 64 bits",
            "Content-Length: 99999999999999999999",
            "bad_length",
        ),
        chunks("no size", "\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
        chunks(
            "a size that is not one",
            "xyz\r\nhello\r\n0\r\n\r\n",
            "bad_chunk",
        ),
        chunks("a signed size", "+5\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
        chunks("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n", "bad_chunk"),
        chunks(
            "a size over 64 bits",
            "fffffffffffffffff\r\nhello",
            "bad_chunk",
        ),
        chunks(
            "a chunk longer than its size",
            "3\r\nhello\r\n0\r\n\r\n",
            "bad_chunk",
        ),
        chunks(
            "a framing field as trailer",
            "0\r\nContent-Length: 5\r\n\r\n",
            "bad_trailer",
        ),
        chunks(
            "a trailer without colon",
            "0\r\nnonsense\r\n\r\n",
            "bad_trailer",
        ),
        case("no Host", "GET / HTTP/1.1\r\n\r\n", "bad_host"),
        with("two Hosts", "Host: b", "bad_host"),
        case(
            "a Host with a path",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "bad_host",
        ),
    ];
    let other = |name, bytes: &str, status, reason| Case {
        status,
        ..case(name, bytes, reason)
    };
    cases.extend([
        other(
            "HTTP/2.0",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            &[505],
            "unsupported_version",
        ),
        other(
            "HTTP/1.2",
            "GET / HTTP/3.1\r\nHost: a\r\n\r\n",
            &[505],
            "unsupported_version",
        ),
        other(
            "CONNECT",
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
            &[501],
            "unsupported_method",
        ),
    ]);
    for coding in [
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "xchunked",
        "\u{b}chunked",
    ] {
        let line = format!("Transfer-Encoding: {coding}");
        let reason = match coding {
            "gzip, chunked" => "unknown_transfer_coding",
            coding if coding.contains('\u{b}') => "bad_header",
            _ => "bad_transfer_encoding",
        };
        cases.push(Case {
            status: &[400, 501],
            ..with("a coding that is not chunked", &line, reason)
        });
    }
    cases.push(Case {
        status: &[417],
        ..with(
            "an expectation",
            "Expect: wonders",
            "unsupported_expectation",
        )
    });
    cases.push(Case {
        status: &[400, 501],
        ..case(
            "chunked in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "bad_transfer_encoding",
        )
    });
    let long = format!("X: {}", "a".repeat(70_000));
    cases.push(Case {
        status: &[431],
        ..with("a head that is too large", &long, "head_too_large")
    });
    let line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000));
    cases.push(Case {
        status: &[414, 431],
        ..case("a target that is too large", &line, "head_too_large")
    });
    let body = "Content-Length: 1000001\r\n\r\nsome bytes of it";
    cases.push(Case {
        status: &[413],
        ..with("a body that is too large", body, "body_too_large")
    });
    let body = format!(
        "Transfer-Encoding: chunked\r\n\r\nf4241\r\n{}",
        "a".repeat(1000)
    );
    cases.push(Case {
        status: &[413],
        ..with("chunks that are too large", &body, "body_too_large")
    });
    cases
}

/// Sends it alone and reads to the end: an answer and a FIN, whatever the client does.
fn refused(address: SocketAddr, bytes: &[u8]) -> Message {
    let mut client = Client::dial(address);
    // The end may come while a large request is still going out.
    let _ = client.try_send(bytes);
    let answer = client.read("GET");
    assert!(answer.head.says_close(), "{:?}", answer.head);
    client.expect_fin();
    answer
}

fn strict_proxy(service: &Service) -> Proxy {
    Config::to(service.address())
        .http("head_max = \"64KiB\"")
        .http("body_max = \"1000000B\"")
        .start()
}

#[test]
fn each_malformed_request_gets_its_status_and_its_counter() {
    let service = Service::echoing_targets();
    let proxy = strict_proxy(&service);
    let mut wrong = Vec::new();
    for Case {
        name,
        bytes,
        status,
        reason,
    } in cases()
    {
        let counter = format!("refusals/{reason}");
        let before = proxy.snapshot().listener(&counter);
        let answer = refused(proxy.address(), bytes.as_bytes());
        let counted = proxy.snapshot().listener(&counter) - before;
        if !status.contains(&answer.status()) || counted != 1 {
            wrong.push(format!(
                "{name}: {} {}, {reason} +{counted}",
                answer.status(),
                answer.text()
            ));
        }
        assert!(!answer.body.is_empty(), "{name}: the body says why");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        client::once(proxy.address(), "/after").unwrap().text(),
        "/after"
    );
    assert_eq!(proxy.snapshot().resets_sent(), 0);
    proxy.finish();
}

#[test]
fn a_malformed_request_behind_good_ones_is_refused_in_its_turn() {
    let service = Service::echoing_targets();
    let proxy = strict_proxy(&service);
    for Case {
        name,
        bytes,
        status,
        ..
    } in cases()
    {
        let mut client = proxy.client();
        let good = [client::get("/one"), client::get("/two")].concat();
        let _ = client.try_send([good.as_bytes(), bytes.as_bytes()].concat());
        assert_eq!(client.read("GET").text(), "/one", "{name}");
        assert_eq!(client.read("GET").text(), "/two", "{name}");
        assert!(status.contains(&client.read("GET").status()), "{name}");
        client.expect_fin();
    }
    assert_eq!(
        service.requests(),
        2 * cases().len() as u64,
        "no malformed one is a whole request"
    );
    proxy.finish();
}

#[test]
fn a_thousand_of_each_malformed_class_cost_no_memory() {
    let service = Service::echoing_targets();
    let proxy = strict_proxy(&service);
    let address = proxy.address();
    let mut resident = Vec::new();
    for Case {
        name,
        bytes,
        status,
        ..
    } in cases()
    {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..250 {
                        assert!(
                            status.contains(&refused(address, bytes.as_bytes()).status()),
                            "{name}"
                        );
                    }
                });
            }
        });
        resident.push(proxy.process().resident_kib());
    }
    let counted = proxy.snapshot().sum("/listeners/front/refusals");
    assert_eq!(counted, 1000 * cases().len() as u64);
    let (first, last) = (resident[0], *resident.last().unwrap());
    assert!(
        last <= first + 2048,
        "resident memory after each class, KiB: {resident:?}"
    );
    proxy.finish();
}

#[test]
fn what_a_refused_client_has_sent_is_not_held_while_it_is_closed() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address())
        .listener("linger_gap = \"20s\"")
        .start();
    let refused = || {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nwhat follows is read by nobody");
        assert_eq!(client.read("GET").status(), 400);
        client.expect_fin();
        client
    };
    let first: Vec<_> = (0..50).map(|_| refused()).collect();
    let before = proxy.process().resident_kib();
    let more: Vec<_> = (0..400).map(|_| refused()).collect();
    assert_eq!(proxy.snapshot().listener("sessions/open"), 450);
    let grown = proxy.process().resident_kib().saturating_sub(before);
    assert!(grown < 400 * 8, "{grown} KiB for 400 sessions that close");
    drop((first, more));
    proxy.finish();
}

#[test]
fn a_head_that_is_never_complete_gets_408() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address())
        .listener("head_timeout = \"300ms\"")
        .start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost:");
    assert_eq!(client.read("GET").status(), 408);
    client.expect_fin();
    assert_eq!(proxy.snapshot().listener("refusals/head_timeout"), 1);
    assert_eq!(service.accepted(), 0);
    proxy.finish();
}

#[test]
fn a_head_that_trickles_is_late_all_the_same() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address())
        .listener("head_timeout = \"300ms\"")
        .start();
    let mut client = proxy.client();
    let mut sender = Client::over(client.socket.duplicate());
    let trickle = std::thread::spawn(move || {
        let started = support::wait::now();
        while started.elapsed() < std::time::Duration::from_millis(800) {
            let _ = sender.try_send("X");
            support::wait::pace(std::time::Duration::from_millis(20));
        }
    });
    client.send("GET / HTTP/1.1\r\n");
    assert_eq!(client.read("GET").status(), 408);
    trickle.join().unwrap();
    drop(client);
    proxy.finish();
}

#[test]
fn a_body_that_stops_gets_408() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address())
        .listener("stall_timeout = \"300ms\"")
        .start();
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfive.");
    assert_eq!(client.read("GET").status(), 408);
    client.expect_fin();
    assert_eq!(proxy.snapshot().listener("refusals/body_timeout"), 1);
    proxy.finish();
}

#[test]
fn a_body_that_stops_gets_408_also_where_a_100_was_expected_and_not_waited_for() {
    let service = Service::start(|mut connection| {
        if connection.head().is_ok() {
            connection.wait_for_end();
        }
    });
    let proxy = Config::to(service.address())
        .listener("stall_timeout = \"300ms\"")
        .upstream("response_timeout = \"5s\"")
        .start();
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n");
    service.wait_accepted(1);
    client.send("five.");
    assert_eq!(client.read("POST").status(), 408);
    client.expect_fin();
    assert_eq!(proxy.snapshot().listener("refusals/body_timeout"), 1);
    drop(client);
    proxy.finish();
}

#[test]
fn an_idle_client_is_closed_without_a_word() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address())
        .listener("idle_timeout = \"300ms\"")
        .start();
    let mut silent = proxy.client();
    let mut once = proxy.client();
    assert_eq!(once.get("/a").text(), "/a");
    silent.expect_fin();
    once.expect_fin();
    drop((silent, once));
    proxy.wait_listener("sessions/terminated", 2);
    assert_eq!(
        proxy
            .snapshot()
            .session_ends(&["initiator=millpond", "manner=timeout"]),
        2
    );
    proxy.finish();
}

#[test]
fn nobody_listening_gets_502() {
    let nobody = Nobody::new();
    let proxy = Config::to(nobody.address()).start();
    let mut client = proxy.client();
    for _ in 0..3 {
        assert_eq!(
            client.get("/").status(),
            502,
            "and the client may ask again"
        );
    }
    drop(client);
    let now = proxy.snapshot();
    assert_eq!(now.listener("refusals/connect_failed"), 3);
    assert_eq!(now.upstream("exchanges/refused"), 3);
    assert!(now.upstream("connects/refused") >= 1);
    proxy.finish();
}

#[test]
fn a_fresh_connection_that_dies_without_an_answer_gets_502() {
    let service = Service::start(|mut connection| {
        let Some(request) = connection.request() else {
            return;
        };
        if request.head.target() == "/reset" {
            connection.reset();
        }
    });
    let proxy = Config::to(service.address()).start();
    for target in ["/reset", "/fin"] {
        let mut client = proxy.client();
        client.send(client::get(target));
        assert_eq!(client.read("GET").status(), 502, "{target}");
    }
    assert_eq!(proxy.snapshot().listener("refusals/upstream_died"), 2);
    assert_eq!(
        service.requests(),
        2,
        "a request is not sent again over a fresh connection"
    );
    proxy.finish();
}

#[test]
fn a_response_that_breaks_its_framing_gets_502() {
    let bad = [
        "HTTP/1.1 OK\r\n\r\n",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n",
    ];
    let service = Service::start(move |mut connection| {
        let Some(request) = connection.request() else {
            return;
        };
        let index: usize = request.head.target()[1..].parse().unwrap();
        connection.write(bad[index]);
        connection.wait_for_end();
    });
    let proxy = Config::to(service.address()).start();
    for (index, bytes) in bad.iter().enumerate() {
        let mut client = proxy.client();
        assert_eq!(client.get(&format!("/{index}")).status(), 502, "{bytes:?}");
    }
    let now = proxy.snapshot();
    assert_eq!(now.listener("refusals/bad_response"), bad.len() as u64);
    assert_eq!(now.upstream("discards/violation"), bad.len() as u64);
    proxy.finish();
}

#[test]
fn a_response_whose_head_is_too_large_gets_502() {
    let service = Service::start(|mut connection| {
        connection.request();
        connection.write("HTTP/1.1 200 OK\r\nX: ");
        while connection.write([b'a'; 4096]) {}
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 502);
    drop(client);
    assert_eq!(proxy.snapshot().listener("refusals/bad_response"), 1);
    proxy.finish();
}

#[test]
fn a_service_that_does_not_answer_gets_504() {
    let service = Service::start(|mut connection| {
        connection.request();
        connection.wait_for_end();
    });
    let proxy = Config::to(service.address())
        .upstream("response_timeout = \"300ms\"")
        .start();
    let mut client = proxy.client();
    client.send(client::get("/"));
    assert_eq!(client.read("GET").status(), 504);
    drop(client);
    let now = proxy.snapshot();
    assert_eq!(now.listener("refusals/response_timeout"), 1);
    assert_eq!(now.upstream("discards/response_timeout"), 1);
    proxy.finish();
}

#[test]
fn an_exhausted_pool_gets_503_with_retry_after() {
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            while connection.request().is_some() {
                gate.pass();
                connection.reply("at last");
            }
        }
    });
    let proxy = Config::to(service.address())
        .pool("size = 1")
        .pool("wait_queue = 1")
        .pool("wait_timeout = \"500ms\"")
        .start();
    let mut holder = proxy.client();
    holder.send(client::get("/"));
    service.wait_requests(1);
    let mut waiting = proxy.client();
    waiting.send(client::get("/"));
    proxy.wait_upstream("waiters", 1);
    let mut surplus = proxy.client();
    let refused = surplus.get("/");
    assert_eq!(refused.status(), 503);
    assert!(refused.head.field("retry-after").is_some());
    assert_eq!(proxy.snapshot().listener("refusals/queue_full"), 1);
    let late = waiting.read("GET");
    assert_eq!(late.status(), 503);
    assert!(late.head.field("retry-after").is_some());
    let now = proxy.snapshot();
    assert_eq!(now.listener("refusals/wait_timeout"), 1);
    assert_eq!(now.upstream("waits/timeout"), 1);
    gate.open_for_all();
    assert_eq!(holder.read("GET").text(), "at last");
    assert_eq!(
        waiting.get("/").text(),
        "at last",
        "a refused client may ask again"
    );
    drop((holder, waiting, surplus));
    proxy.finish();
}

#[test]
fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let service = Service::echoing_targets();
    let proxy = strict_proxy(&service);
    for _ in 0..50 {
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000001\r\n\r\n");
        // Within linger_bytes: it must be read and dropped, or the kernel would reset.
        client.send(pattern(1, 500_000));
        assert_eq!(client.read("POST").status(), 413);
        let (rest, end) = client.end();
        assert_eq!((rest.len(), end), (0, End::Fin));
    }
    assert_eq!(proxy.snapshot().resets_sent(), 0);
    proxy.finish();
}
