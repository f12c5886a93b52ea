//! What a client is told when a connection dies under its requests, or a reply does not come.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::frame::{Ask, Frame, REQUEST};
use crate::service::obedient;
use crate::support::socket::End;
use crate::support::upstream::Service;
use crate::support::wait::{self, Gate};
use crate::{in_front_of, with_error_reply};

const TIMEOUT: &str = "response_timeout = \"300ms\"";

#[test]
fn each_request_that_dies_with_its_connection_is_answered_with_its_id() {
    let service = obedient();
    let proxy = with_error_reply(in_front_of(&service)).start();
    let mut clients = [1, 2, 3].map(|id| {
        let mut client = proxy.client();
        client.call(id, "hold on").call(id + 10, "hold on");
        client
    });
    service.wait_requests(6);
    let mut killer = proxy.client();
    assert_eq!(killer.ask(5, "die"), "away");
    for (id, client) in (1..).zip(&mut clients) {
        let mut told = [client.told(), client.told()];
        told.sort_by_key(|it| it.id);
        let ids = told.map(|it| (it.id, it.text()));
        assert_eq!(ids, [(id, "away".to_owned()), (id + 10, "away".to_owned())]);
        assert_eq!(client.ask(id, "and now"), "and now", "it goes on");
    }
    let now = proxy.wait_upstream("exchanges/refused", 7);
    assert_eq!(now.upstream("exchanges/completed"), 3);
    assert_eq!(now.upstream("retries/unsent"), 0, "{:#}", now.0);
    drop((clients, killer));
    proxy.finish();
}

#[test]
fn without_an_answer_for_it_the_session_ends_behind_what_it_is_owed() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let mut client = proxy.client();
    client.call(1, "first").call(2, "die");
    assert_eq!(client.told(), Frame::reply(1, "first"));
    let (rest, end) = client.end();
    assert!(rest.is_empty() && matches!(end, End::Fin), "{end:?}");
    proxy.wait_listener("refusals/upstream_died", 1);
    proxy.finish();
}

#[test]
fn a_reply_that_is_cut_short_is_never_dressed_up_as_whole() {
    let service = obedient();
    let proxy = with_error_reply(in_front_of(&service)).start();
    let mut other = proxy.client();
    other.call(1, "hold on");
    service.wait_requests(1);
    let mut client = proxy.client();
    client.call(1, "half");
    let (told, _) = client.end();
    assert_eq!(told.len(), 500, "what had come, and no more");
    assert_eq!(
        other.told(),
        Frame::new(0, 1, "away"),
        "others are answered"
    );
    other.leave();
    proxy.finish();
}

#[test]
fn what_is_not_answered_in_time_is_given_up_alone_and_its_late_reply_is_nobodys() {
    let service = obedient();
    let config = with_error_reply(in_front_of(&service)).upstream(TIMEOUT);
    let proxy = config.start();
    let mut slow = proxy.client();
    slow.call(9, "hold me");
    service.wait_requests(1);
    let mut busy = proxy.client();
    let began = wait::now();
    let mut asked = 0;
    // The service is not silent, so its connection stays.
    wait::until("the slow one is told", || {
        assert_eq!(busy.ask(asked, "quick"), "quick");
        asked += 1;
        let now = proxy.snapshot();
        (now.upstream("exchanges/refused") == 1).then_some(())
    });
    let told = slow.told();
    assert_eq!((told.id, told.text()), (9, "away".to_owned()));
    assert!(began.elapsed() >= Duration::from_millis(250));
    slow.call(9, "hold you");
    service.wait_requests(asked + 2);
    assert_eq!(busy.ask(1, "let"), "done");
    assert_eq!(slow.told(), Frame::reply(9, "held you"));
    assert!(slow.owes_nothing());
    let now = proxy.wait_upstream("messages_dropped/late", 1);
    assert_eq!(now.sum("/upstreams/service/discards"), 0, "{:#}", now.0);
    assert_eq!(service.accepted(), 1);
    assert_eq!(now.listener("refusals/response_timeout"), 1);
    drop((slow, busy));
    proxy.finish();
}

#[test]
fn a_service_that_says_nothing_any_more_loses_its_connection() {
    let service = obedient();
    let config = with_error_reply(in_front_of(&service)).upstream(TIMEOUT);
    let proxy = config.start();
    let mut client = proxy.client();
    assert_eq!(client.ask(1, "hold me"), "away");
    let now = proxy.wait_upstream("discards/response_timeout", 1);
    assert_eq!(now.listener("refusals/response_timeout"), 1);
    assert_eq!(client.ask(2, "again"), "again");
    assert_eq!(service.accepted(), 2);
    client.leave();
    proxy.finish();
}

#[test]
fn a_connection_that_the_service_closed_while_it_was_quiet_costs_nobody_a_reply() {
    let service = obedient();
    let proxy = with_error_reply(in_front_of(&service)).start();
    let mut client = proxy.client();
    assert_eq!(client.ask(1, "first"), "first");
    assert!(service.kill_one(&mut fastrand::Rng::with_seed(1)));
    proxy.wait_upstream("discards/idle_fin", 1);
    assert_eq!(client.ask(2, "second"), "second");
    client.leave();
    proxy.finish();
}

#[test]
fn where_nobody_listens_each_request_is_answered_and_one_without_a_reply_is_dropped() {
    let nobody = crate::support::upstream::Nobody::new();
    let service = obedient();
    let proxy = with_error_reply(in_front_of(&service))
        .endpoint(nobody.address())
        .start();
    let mut client = proxy.client();
    client.send(Frame::new(REQUEST, 1, "note").bytes());
    assert_eq!(client.ask(2, "anybody"), "away");
    let large = "x".repeat(200_000);
    assert_eq!(
        client.ask(3, &large),
        "away",
        "what is too large to be held too"
    );
    assert_eq!(client.ask(4, "anybody"), "away");
    proxy.wait_listener("refusals/connect_failed", 4);
    client.leave();
    proxy.finish();
}

#[test]
fn a_drain_ends_sessions_behind_what_they_are_owed() {
    let gate = Gate::new();
    let held = gate.clone();
    let service = Service::start(move |mut connection| {
        while let Ok(frame) = Frame::read(&mut connection) {
            connection.count_request();
            if frame.payload == b"wait" {
                held.pass();
            }
            connection.write(Frame::reply(frame.id, frame.payload).bytes());
        }
    });
    let proxy = in_front_of(&service).start();
    let (mut idle, mut busy) = (proxy.client(), proxy.client());
    assert_eq!(idle.ask(1, "served"), "served");
    busy.call(2, "wait").call(3, "behind");
    service.wait_requests(2);
    proxy.signal(Signal::SIGTERM);
    idle.expect_fin();
    gate.open();
    assert_eq!(busy.told(), Frame::reply(2, "wait"));
    assert_eq!(busy.told(), Frame::reply(3, "behind"));
    busy.expect_fin();
    drop((idle, busy));
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_reload_does_not_move_an_id_under_those_who_share_a_connection() {
    let service = obedient();
    let config = in_front_of(&service);
    let proxy = config.start();
    let mut client = proxy.client();
    client.call(1, "hold on");
    service.wait_requests(1);
    let moved = with_error_reply(config).pool("wait_queue = 7");
    proxy.rewrite(&moved);
    let (status, said) = proxy.admin("POST", "/api/v1/reload");
    assert_eq!(status, 200, "{said}");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let named = |list: &str, key: &str| {
        let lines = said[list].as_array().unwrap();
        lines.iter().any(|it| it.as_str().unwrap().contains(key))
    };
    assert!(
        named("needs_restart", "upstream.service.frames.error_reply"),
        "{said}"
    );
    assert!(
        named("applied", "upstream.service.pool.wait_queue"),
        "{said}"
    );
    let mut other = proxy.client();
    assert_eq!(other.ask(1, "let"), "done");
    assert_eq!(client.told(), Frame::reply(1, "held on"));
    // As before, nothing stands in for a reply.
    other.call(2, "die");
    other.expect_fin();
    drop(client);
    proxy.finish();
}
