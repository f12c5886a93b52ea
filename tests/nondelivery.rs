//! A request whose connection the service has closed is sent again where TCP proves that the service
//! never had it, whatever its method; and nowhere else.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use support::client::{self, Client};
use support::crossing::{Crossing, Until};
use support::proxy::Config;
use support::upstream::Connection;

/// The configuration as it is by default.
fn plain(config: Config) -> Config {
    config
}

/// Expects that a request went out again once, proved, and that the ledger has the RST that proved it.
fn expect_proven(crossing: &Crossing, manner: &str) {
    let now = crossing.proxy.snapshot();
    assert_eq!(now.upstream("retries/proven"), 1);
    assert_eq!(now.sum("/upstreams/service/races_lost"), 0);
    let labels = [
        "initiator=upstream",
        "phase=request",
        &format!("manner={manner}"),
    ];
    assert_eq!(now.connection_ends(&labels), 1, "{:#}", now.0);
    let reset = ["direction=received", "phase=request"];
    assert_eq!(now.rows("/upstreams/service/resets", &reset), 1);
    assert_eq!(crossing.network.upstream_resets().received, 1);
}

/// Expects that a request failed, for this reason, and did not go out again.
fn expect_lost(crossing: &Crossing, reason: &str) {
    let now = crossing.proxy.snapshot();
    assert_eq!(now.sum("/upstreams/service/retries"), 0);
    assert_eq!(now.sum("/upstreams/service/races_lost"), 1);
    assert_eq!(now.upstream(&format!("races_lost/{reason}")), 1);
}

#[test]
fn a_request_that_came_after_the_services_close_is_sent_again_whatever_its_method() {
    for method in ["POST", "PATCH", "GET"] {
        let crossing = Crossing::prepare(plain, drop);
        let request =
            format!("{method} /next HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        let answer = crossing.run(request.as_bytes(), Until::Fin);
        assert_eq!(answer, (200, "connection 1".to_owned()), "{method}");
        expect_proven(&crossing, "fin");
        assert_eq!(crossing.finish(), 2, "the service had it once");
    }
}

#[test]
fn a_post_that_crosses_a_408_and_a_close_is_sent_again() {
    let crossing = Crossing::prepare(plain, |mut connection| {
        connection.write("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
    });
    let answer = crossing.run(&client::post("/next", b"body"), Until::Fin);
    assert_eq!(answer, (200, "connection 1".to_owned()));
    expect_proven(&crossing, "violation");
    assert_eq!(crossing.finish(), 2);
}

#[test]
fn a_post_whose_body_is_still_coming_is_sent_again_with_all_of_it() {
    let crossing = Crossing::prepare(plain, drop);
    let head = "POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n";
    let mut client = crossing.send(head.as_bytes(), Until::Fin);
    client.send([b'x'; 4000]);
    assert_eq!(client.read("POST").text(), "connection 1");
    drop(client);
    expect_proven(&crossing, "fin");
    assert_eq!(crossing.finish(), 2);
}

#[test]
fn a_post_that_expects_to_be_asked_for_its_body_is_sent_again() {
    let crossing = Crossing::prepare(plain, drop);
    let head =
        "POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let mut client = crossing.send(head.as_bytes(), Until::Fin);
    client.send("body");
    assert_eq!(client.read("POST").text(), "connection 1");
    drop(client);
    expect_proven(&crossing, "fin");
    assert_eq!(crossing.finish(), 2);
}

#[test]
fn a_post_over_the_retry_buffer_fails_although_it_was_not_delivered() {
    let small = |config: Config| config.upstream("retry_buffer = \"1KiB\"");
    let crossing = Crossing::prepare(small, drop);
    let (status, _) = crossing.run(&client::post("/next", &[b'x'; 2000]), Until::Fin);
    assert_eq!(status, 502);
    expect_lost(&crossing, "too_large");
    assert_eq!(crossing.finish(), 1);
}

#[test]
fn nothing_is_sent_again_where_the_operator_forbids_it_but_the_reset_is_in_the_ledger() {
    let off = |config: Config| config.upstream("retry = \"off\"");
    let crossing = Crossing::prepare(off, drop);
    let (status, _) = crossing.run(&client::post("/next", b"body"), Until::Fin);
    assert_eq!(status, 502);
    expect_lost(&crossing, "off");
    let reset = ["direction=received", "phase=request"];
    crossing.proxy.wait_until("the reset is counted", |now| {
        now.rows("/upstreams/service/resets", &reset) == 1
    });
    assert_eq!(crossing.finish(), 1);
}

#[test]
fn a_post_that_a_service_executes_behind_its_own_fin_is_not_sent_again() {
    let crossing = Crossing::prepare(plain, |mut connection| {
        connection.half_close();
        assert!(connection.request().is_some(), "it goes on reading");
        connection.wait_for_end();
    });
    let (status, _) = crossing.run(&client::post("/next", b"body"), Until::Fin);
    assert_eq!(status, 502);
    expect_lost(&crossing, "acknowledged");
    assert_eq!(crossing.finish(), 2, "executed once");
}

#[test]
fn a_post_that_nobody_answers_for_is_not_sent_again() {
    // The service's FIN came, and then nothing: the request stays lost on the cable.
    let crossing = Crossing::prepare(plain, drop);
    let counted = Until::Counted("discards/lost_race");
    let (status, _) = crossing.run(&client::post("/next", b"body"), counted);
    assert_eq!(status, 502);
    expect_lost(&crossing, "undecided");
    assert_eq!(crossing.finish(), 1);
}

/// A service of lines that has closed when the line `next` comes.
fn lines(configure: impl Fn(Config) -> Config) -> (Crossing, String) {
    let answer = |connection: &mut Connection| {
        let came = connection.through(b"\n").is_ok();
        if came {
            connection.count_request();
            let number = connection.number;
            connection.write(format!("connection {number}\n"));
        }
        came
    };
    let warm = |client: &mut Client| {
        client.send("warm\n");
        assert_eq!(client.through(b"\n").unwrap(), b"connection 0\n");
    };
    let framed = |config: Config| {
        let config = config.protocol("frames").frames("delimiter = \"\\n\"");
        configure(config.frames("error_reply = \"failed\\n\""))
    };
    let crossing = Crossing::between(framed, answer, drop, warm);
    let mut client = crossing.send(b"next\n", Until::Fin);
    let answer = String::from_utf8(client.through(b"\n").unwrap()).unwrap();
    (crossing, answer)
}

#[test]
fn a_frame_that_came_after_the_services_close_is_sent_again() {
    let (crossing, answer) = lines(plain);
    assert_eq!(answer, "connection 1\n");
    expect_proven(&crossing, "fin");
    assert_eq!(crossing.finish(), 2);
}

#[test]
fn no_frame_is_sent_again_where_some_have_no_answer() {
    let oneway = "oneway = { offset = 0, value = 0x4f }";
    let (crossing, answer) = lines(|config| config.frames(oneway));
    assert_eq!(answer, "failed\n");
    expect_lost(&crossing, "oneway");
    assert_eq!(crossing.finish(), 1);
}
