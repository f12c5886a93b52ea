//! What is left of one exchange is never taken for the beginning of another: neither the rest of a
//! request for the next request, nor the rest of an answer for the next answer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;

use support::client;
use support::proxy::Config;
use support::upstream::Service;
use support::wait::Gate;

/// A request that hides another in its body.
fn hiding_another() -> Vec<u8> {
    client::post("/outer", b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[test]
fn the_body_of_a_refused_request_is_not_the_next_request() {
    for retry in ["off", "idempotent"] {
        // Nobody listens: the port was free a moment ago.
        let nowhere = Service::replying(|_| Vec::new()).address().to_owned();
        let proxy = Config::to(&nowhere)
            .upstream(&format!("retry = \"{retry}\""))
            .start();
        let mut client = proxy.client();
        client.send(hiding_another());
        assert_eq!(client.read("POST").status(), 502);
        client.send(client::get("/next"));
        assert_eq!(client.read("GET").status(), 502, "retry = {retry}");
        drop(client);
        let now = proxy.wait_listener("sessions/open", 0);
        assert_eq!(
            now.listener("refusals/connect_failed"),
            2,
            "retry = {retry}"
        );
        proxy.finish();
    }
}

#[test]
fn the_unsent_rest_of_a_request_answered_early_is_not_the_next_request() {
    let service = Service::start(|mut connection| {
        if let Ok(head) = connection.head() {
            let target = head.target().to_owned();
            connection.count_request();
            connection.write("HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n");
            assert_ne!(target, "/hidden");
            // Without reading the body: what was sent of it turns this close into a reset.
            connection.reset();
        }
    });
    let proxy = Config::to(service.address()).start();
    for _ in 0..20 {
        let mut client = proxy.client();
        let body = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20_000);
        // The proxy may close in the middle of it, or answer and go on where all of it was read.
        if client.try_send(client::post("/outer", &body)).is_ok() {
            let _ = client.try_send(client::last_get("/next"));
        }
        let (bytes, _) = client.end();
        let answers = String::from_utf8_lossy(&bytes).matches("HTTP/1.1 ").count();
        assert!(answers <= 2, "{answers} answers to two requests");
    }
    let now = proxy.wait_listener("sessions/open", 0);
    assert!(now.sum("/upstreams/service/exchanges") <= 40);
    proxy.finish();
}

#[test]
fn an_answer_that_nobody_waits_for_is_dropped_within_its_bound() {
    let gone = Arc::new(Gate::new());
    let service = {
        let gone = Arc::clone(&gone);
        Service::start(move |mut connection| {
            while let Some(request) = connection.request() {
                if request.head.target() != "/large" {
                    connection.reply("small");
                    continue;
                }
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
                connection.write([b'x'; 1000]);
                gone.pass();
                // Until the proxy has had enough of it.
                while connection.write([b'x'; 10_000]) {}
            }
        })
    };
    let proxy = Config::to(service.address())
        .upstream("abandon_bytes = \"64KiB\"")
        .start();
    let mut client = proxy.client();
    client.send(client::get("/large"));
    proxy.wait_until("the answer has begun", |now| now.endpoint("leased") == 1);
    client.reset();
    gone.open_for_all();
    proxy.wait_upstream("discards/client_gone", 1);
    // Its end is entered a moment after it was discarded.
    let now = proxy.wait_until("the service is told", |now| now.resets_sent() > 0);
    assert_eq!(now.resets_sent(), 1, "the service is told by a reset");
    let mut next = proxy.client();
    assert_eq!(next.get("/next").text(), "small");
    drop(next);
    proxy.finish();
}
