//! The keep-alive race and everything else that a service does to an idle connection.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use support::client;
use support::crossing::{Crossing, Until};
use support::proxy::{Config, Proxy};
use support::upstream::{Connection, Service};
use support::wait::Gate;

/// How a service ends a connection.
#[derive(Clone, Copy)]
enum Ending {
    Fin,
    Reset,
}

impl Ending {
    fn apply(self, connection: Connection) {
        match self {
            Self::Fin => drop(connection),
            Self::Reset => connection.reset(),
        }
    }
}

/// A service's upstream whose operator lets idempotent requests be sent twice.
fn repeating(service: &Service) -> Config {
    Config::to(service.address()).upstream("retry = \"idempotent\"")
}

/// A service whose connections answer `good` requests and die under the next one, unanswered.
fn dying_after(good: u64, ending: Ending) -> Service {
    Service::start(move |mut connection| {
        for _ in 0..good {
            if !connection.answer("good") {
                return;
            }
        }
        if connection.request().is_some() {
            ending.apply(connection);
        }
    })
}

/// Makes one exchange, so that the next request meets a reused connection.
fn warm(proxy: &Proxy) {
    assert_eq!(
        client::once(proxy.address(), "/warm").unwrap().status(),
        200
    );
    proxy.wait_until("a connection is idle", |now| now.endpoint("idle") == 1);
}

#[test]
fn an_idempotent_request_is_sent_again_once_when_its_reused_connection_dies() {
    for ending in [Ending::Fin, Ending::Reset] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            let service = dying_after(1, ending);
            let proxy = repeating(&service).start();
            warm(&proxy);
            let mut client = proxy.client();
            let length = if method == "PUT" {
                "Content-Length: 4\r\n"
            } else {
                ""
            };
            let body = if method == "PUT" { "body" } else { "" };
            client.send(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\n{length}\r\n{body}"
            ));
            assert_eq!(client.read(method).status(), 200, "{method}");
            drop(client);
            assert_eq!((service.accepted(), service.requests()), (2, 3), "{method}");
            let now = proxy.wait_completed(2);
            assert_eq!(now.upstream("retries/idempotent"), 1);
            proxy.finish();
        }
    }
}

#[test]
fn a_request_that_is_not_idempotent_is_never_sent_twice() {
    for ending in [Ending::Fin, Ending::Reset] {
        for method in ["POST", "PATCH", "FROBNICATE"] {
            let service = dying_after(1, ending);
            let proxy = repeating(&service).start();
            warm(&proxy);
            let mut client = proxy.client();
            client.send(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
            ));
            assert_eq!(client.read(method).status(), 502, "{method}");
            drop(client);
            assert_eq!(service.requests(), 2, "{method}");
            let now = proxy.snapshot();
            assert_eq!(now.sum("/upstreams/service/retries"), 0);
            assert_eq!(now.sum("/upstreams/service/races_lost"), 1);
            proxy.finish();
        }
    }
}

#[test]
fn the_second_attempt_is_the_last() {
    let service = Service::start(|mut connection| {
        // The first connection answers once; all others die under their first request.
        if connection.number == 0 {
            connection.answer("good");
        }
        connection.request();
    });
    let proxy = repeating(&service).start();
    warm(&proxy);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 502);
    drop(client);
    assert_eq!(service.requests(), 3);
    assert_eq!(proxy.snapshot().upstream("retries/idempotent"), 1);
    proxy.finish();
}

#[test]
fn the_second_attempt_dials_afresh() {
    // Three idle connections that all die under their second request: a retry over a second idle
    // one would lose again.
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            if connection.request().is_some() {
                gate.pass();
                connection.reply("good");
            }
            connection.request();
        }
    });
    let proxy = repeating(&service).start();
    let mut clients: Vec<_> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(client::get("/"));
    }
    service.wait_requests(3);
    gate.open_for_all();
    for client in &mut clients {
        assert_eq!(client.read("GET").status(), 200);
    }
    proxy.wait_until("three are idle", |now| now.endpoint("idle") == 3);
    assert_eq!(clients[0].get("/").text(), "good");
    drop(clients);
    assert_eq!(proxy.snapshot().upstream("retries/idempotent"), 1);
    proxy.finish();
}

#[test]
fn a_request_over_the_retry_buffer_is_not_sent_again() {
    let service = dying_after(1, Ending::Fin);
    let proxy = repeating(&service)
        .upstream("retry_buffer = \"1KiB\"")
        .start();
    warm(&proxy);
    let mut client = proxy.client();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n");
    client.send([b'x'; 4000]);
    assert_eq!(client.read("PUT").status(), 502);
    drop(client);
    assert_eq!(service.requests(), 2);
    assert_eq!(proxy.snapshot().sum("/upstreams/service/races_lost"), 1);
    proxy.finish();
}

#[test]
fn what_is_idempotent_is_not_sent_twice_unless_the_operator_says_so() {
    let service = dying_after(1, Ending::Fin);
    let proxy = Config::to(service.address()).start();
    warm(&proxy);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 502);
    drop(client);
    assert_eq!(service.requests(), 2);
    assert_eq!(proxy.snapshot().upstream("races_lost/acknowledged"), 1);
    proxy.finish();
}

#[test]
fn retries_can_be_switched_off() {
    let service = dying_after(1, Ending::Fin);
    let proxy = Config::to(service.address())
        .upstream("retry = \"off\"")
        .start();
    warm(&proxy);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 502);
    drop(client);
    assert_eq!(service.requests(), 2);
    assert_eq!(proxy.snapshot().upstream("races_lost/off"), 1);
    proxy.finish();
}

#[test]
fn a_response_that_has_begun_is_never_started_again() {
    let service = Service::start(|mut connection| {
        connection.answer("good");
        if connection.request().is_some() {
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        }
    });
    let proxy = Config::to(service.address()).start();
    warm(&proxy);
    let mut client = proxy.client();
    client.send(client::get("/"));
    assert_eq!(client.head().unwrap().length(), Some(100));
    assert_eq!(client.end().0, b"half");
    drop(client);
    assert_eq!(service.requests(), 2);
    assert_eq!(proxy.snapshot().sum("/upstreams/service/retries"), 0);
    assert_eq!(proxy.snapshot().upstream("exchanges/truncated"), 1);
    proxy.finish();
}

/// Runs an idle connection into `happening`, and expects it to leave the pool by itself, with this
/// reason, before anybody asks for it; the next client gets another one and a whole answer.
fn idle_connection_leaves(happening: fn(Connection), reason: &str) {
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            while connection.answer(connection.number.to_string()) {
                if connection.number == 0 {
                    gate.pass();
                    return happening(connection);
                }
            }
        }
    });
    let proxy = Config::to(service.address()).start();
    warm(&proxy);
    gate.open();
    proxy.wait_upstream(&format!("discards/{reason}"), 1);
    proxy.wait_until("it is not idle any more", |now| now.endpoint("idle") == 0);
    assert_eq!(client::once(proxy.address(), "/").unwrap().text(), "1");
    assert_eq!(proxy.snapshot().sum("/upstreams/service/retries"), 0);
    proxy.finish();
}

#[test]
fn an_idle_connection_that_the_service_closes_leaves_the_pool_at_once() {
    idle_connection_leaves(drop, "idle_fin");
}

#[test]
fn an_idle_connection_that_the_service_resets_leaves_the_pool_at_once() {
    idle_connection_leaves(Connection::reset, "idle_reset");
}

#[test]
fn an_idle_connection_that_says_something_leaves_the_pool_at_once() {
    idle_connection_leaves(
        |mut connection| {
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret");
            connection.wait_for_end();
        },
        "idle_bytes",
    );
}

#[test]
fn an_idle_connection_that_gets_a_408_leaves_the_pool_at_once() {
    idle_connection_leaves(
        |mut connection| {
            connection.write("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n");
        },
        "idle_bytes",
    );
}

#[test]
fn bytes_after_the_end_of_a_response_reach_nobody() {
    let service = Service::start(|mut connection| {
        while connection.request().is_some() {
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n");
        }
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "ok");
    }
    drop(client);
    proxy.wait_until("all twenty are gone", |now| {
        now.upstream("discards/stray_bytes") + now.upstream("discards/idle_bytes") == 20
    });
    proxy.wait_completed(20);
    proxy.finish();
}

#[test]
fn a_foreign_reply_that_crosses_a_post_reaches_nobody() {
    let crossing = Crossing::prepare(
        |config| config,
        |mut connection| {
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret");
            connection.wait_for_end();
        },
    );
    let happened = Until::Counted("discards/crossed_answer");
    let (status, body) = crossing.run(&client::post("/next", b"x"), happened);
    assert_eq!(status, 502, "{body}");
    assert!(!body.contains("secret"));
    assert_eq!(
        crossing.proxy.snapshot().upstream("races_lost/undecided"),
        1
    );
    assert_eq!(crossing.finish(), 1, "the POST never reached the service");
}

#[test]
fn a_get_that_a_foreign_reply_crosses_is_sent_again_where_that_is_configured() {
    let repeat = |config: Config| config.upstream("retry = \"idempotent\"");
    let crossing = Crossing::prepare(repeat, |mut connection| {
        connection.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret");
        connection.wait_for_end();
    });
    let happened = Until::Counted("discards/crossed_answer");
    let answer = crossing.run(client::get("/next").as_bytes(), happened);
    assert_eq!(answer, (200, "connection 1".to_owned()));
    assert_eq!(crossing.proxy.snapshot().upstream("retries/idempotent"), 1);
    crossing.finish();
}

#[test]
fn a_408_that_the_client_has_the_beginning_of_is_delivered_to_its_end() {
    for method in ["PUT", "POST"] {
        let service = Service::start(|mut connection| {
            if !connection.answer("good") || connection.head().is_err() {
                return;
            }
            connection.exactly(5).unwrap();
            connection.write("HTTP/1.1 408 Request Timeout\r\nContent-Length: 21\r\n\r\n");
            // The rest of the request comes after all, and so does the rest of the answer.
            connection.exactly(5).unwrap();
            connection.write("waited for it so long");
        });
        let proxy = Config::to(service.address()).start();
        warm(&proxy);
        let mut client = proxy.client();
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"
        ));
        let head = client.head().unwrap();
        assert_eq!(head.status(), 408, "{method}");
        client.send("world");
        let body = client.response_body(head).unwrap().body;
        assert_eq!(String::from_utf8_lossy(&body), "waited for it so long");
        client.expect_fin();
        drop(client);
        assert_eq!(proxy.snapshot().sum("/upstreams/service/retries"), 0);
        proxy.finish();
    }
}

#[test]
fn a_storm_of_lost_races_costs_no_get() {
    // Each connection closes a moment after its answer, so many requests meet the close.
    let service = Service::start(|mut connection| {
        while connection.answer("whole") {
            let patience = std::time::Duration::from_micros(fastrand::u64(100..3000));
            if connection.socket.stays_silent(patience) {
                return;
            }
        }
    });
    let proxy = repeating(&service).pool("size = 16").start();
    let address = proxy.address();
    std::thread::scope(|scope| {
        for seed in 0..16 {
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut client = client::Client::dial(address);
                for number in 0..200 {
                    let response = client.get("/");
                    assert_eq!(
                        (response.status(), response.text().as_str()),
                        (200, "whole"),
                        "{number}"
                    );
                    support::wait::pace(std::time::Duration::from_micros(random.u64(0..3000)));
                }
            });
        }
    });
    proxy.wait_completed(16 * 200);
    proxy.finish();
}
