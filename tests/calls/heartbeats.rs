//! Heartbeats of both sides, and what a service says of its own accord.

use crate::frame::{Ask, Frame, HEARTBEAT, REQUEST, TWO_WAY};
use crate::in_front_of;
use crate::service::obedient;

/// A heartbeat's answer, whose payload is `here`.
fn reply() -> String {
    let zeros = r"\0".repeat(8);
    format!(r"heartbeat_reply = '\xda\xbb\x20\x14{zeros}\x00\x00\x00\x04here'")
}

/// A heartbeat.
fn request() -> String {
    let zeros = r"\0".repeat(8);
    format!(r"heartbeat_request = '\xda\xbb\xe0\x00{zeros}\x00\x00\x00\x00'")
}

const BEAT: u8 = REQUEST | TWO_WAY | HEARTBEAT;

#[test]
fn a_clients_heartbeat_is_answered_by_the_service() {
    let service = obedient();
    let proxy = in_front_of(&service).frames(&reply()).start();
    let mut client = proxy.client();
    client.send(Frame::new(BEAT, 4, "").bytes());
    assert_eq!(client.told(), Frame::new(HEARTBEAT, 4, "alive"));
    client.leave();
    proxy.finish();
}

#[test]
fn a_clients_heartbeat_is_answered_here_where_that_is_asked_for() {
    let service = obedient();
    let proxy = in_front_of(&service)
        .frames(&reply())
        .frames("client_heartbeats = \"answer\"")
        .start();
    let mut client = proxy.client();
    client.send(Frame::new(BEAT, 4, "").bytes());
    assert_eq!(client.told(), Frame::new(HEARTBEAT, 4, "here"));
    client.call(1, "hold on");
    service.wait_requests(1);
    client.send(Frame::new(BEAT, 5, "").bytes());
    assert_eq!(
        client.told(),
        Frame::new(HEARTBEAT, 5, "here"),
        "also while it waits"
    );
    client.call(2, "let");
    assert_eq!(client.told(), Frame::reply(2, "done"));
    assert_eq!(client.told(), Frame::reply(1, "held on"));
    assert_eq!(service.requests(), 2, "the service saw none");
    client.leave();
    proxy.finish();
}

#[test]
fn a_services_heartbeat_is_no_reply_even_with_the_id_of_one() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let mut client = proxy.client();
    assert_eq!(client.ask(1, "beat"), "beaten");
    assert_eq!(client.ask(2, "beats"), "0", "and nobody answers it");
    let now = proxy.wait_completed(2);
    assert_eq!(now.upstream("heartbeats_dropped"), 1);
    client.leave();
    proxy.finish();
}

#[test]
fn a_services_heartbeat_is_answered_where_it_was_said_how() {
    let service = obedient();
    let proxy = in_front_of(&service).frames(&reply()).start();
    let mut client = proxy.client();
    assert_eq!(client.ask(1, "beat"), "beaten");
    assert_eq!(client.ask(2, "beats"), "1");
    assert_eq!(client.ask(3, "beat"), "beaten");
    assert_eq!(client.ask(4, "beats"), "2");
    client.leave();
    assert_eq!(proxy.wait_completed(4).upstream("heartbeats_dropped"), 2);
    proxy.finish();
}

#[test]
fn a_quiet_connection_is_kept_alive_and_still_expires() {
    let service = obedient();
    let proxy = in_front_of(&service)
        .frames(&request())
        .frames("heartbeat_interval = \"50ms\"")
        .pool("idle_timeout = \"1s\"")
        .start();
    let mut client = proxy.client();
    assert_eq!(client.ask(1, "hello"), "hello");
    client.leave();
    service.wait_requests(6);
    let now = proxy.wait_upstream("discards/idle_timeout", 1);
    // One in each interval, over a second.
    assert!(service.requests() <= 22, "{} requests", service.requests());
    assert_eq!(
        now.upstream("exchanges/completed"),
        1,
        "heartbeats are no exchanges"
    );
    assert_eq!(
        now.sum("/upstreams/service/messages_dropped"),
        0,
        "{:#}",
        now.0
    );
    proxy.finish();
}

#[test]
fn a_quiet_connection_may_be_kept_alive_by_what_nobody_answers() {
    let service = obedient();
    let one_way = request().replace(r"\xe0", r"\xa0");
    let proxy = in_front_of(&service)
        .frames(&one_way)
        .frames("heartbeat_interval = \"50ms\"")
        .upstream("response_timeout = \"200ms\"")
        .start();
    let mut client = proxy.client();
    assert_eq!(client.ask(1, "hello"), "hello");
    service.wait_requests(12);
    assert_eq!(client.ask(2, "hello"), "hello");
    let now = proxy.wait_completed(2);
    assert_eq!(now.sum("/upstreams/service/discards"), 0, "{:#}", now.0);
    client.leave();
    proxy.finish();
}

#[test]
fn what_a_service_says_of_its_own_accord_reaches_nobody() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let mut client = proxy.client();
    assert_eq!(client.ask(1, "push"), "pushed");
    assert_eq!(client.ask(2, "stray"), "strayed");
    let now = proxy.wait_completed(2);
    assert_eq!(now.upstream("messages_dropped/unasked"), 1);
    assert_eq!(now.upstream("messages_dropped/unowned"), 1);
    assert_eq!(now.sum("/upstreams/service/discards"), 0, "{:#}", now.0);
    client.leave();
    proxy.finish();
}

#[test]
fn a_service_that_says_that_it_will_close_is_asked_nothing_more_over_that_connection() {
    let service = obedient();
    let proxy = in_front_of(&service).frames("unasked = \"retire\"").start();
    let mut slow = proxy.client();
    slow.call(1, "hold on");
    service.wait_requests(1);
    let mut client = proxy.client();
    assert_eq!(client.ask(1, "push"), "pushed");
    assert_eq!(client.ask(2, "elsewhere"), "elsewhere");
    assert_eq!(service.accepted(), 2);
    // What is under way over it ends there.
    assert_eq!(service.open(), 2);
    slow.reset();
    proxy.wait_upstream("discards/service_close", 1);
    client.leave();
    proxy.finish();
}

#[test]
fn a_clients_answer_to_what_nobody_asked_it_goes_nowhere() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let mut client = proxy.client();
    client.send(Frame::reply(1, "x".repeat(100_000)).bytes());
    assert_eq!(client.ask(1, "hello"), "hello");
    assert_eq!(service.requests(), 1);
    assert_eq!(proxy.snapshot().upstream("messages_dropped/answer"), 1);
    client.leave();
    proxy.finish();
}
