//! Frames that are none, ids that run out, and clients that do not read.

use std::time::Duration;

use crate::frame::{Ask, Frame, REQUEST};
use crate::service::obedient;
use crate::support::client::Client;
use crate::support::message::pattern;
use crate::support::proxy::Config;
use crate::support::socket::End;
use crate::support::upstream::{Nobody, Service};
use crate::support::wait;
use crate::{in_front_of, in_front_of_it};

#[test]
fn a_frame_that_is_none_ends_its_session_and_nobody_elses() {
    let service = obedient();
    let proxy = in_front_of(&service).frames("max = \"1MiB\"").start();
    let mut other = proxy.client();
    other.call(1, "hold on");
    service.wait_requests(1);
    let mut long = Frame::call(1, "").bytes();
    long[12..].copy_from_slice(&2_000_000u32.to_be_bytes());
    let mut magic = Frame::call(1, "x").bytes();
    magic[1] = 0xbc;
    for (bytes, reason) in [
        (long, "frame_too_long"),
        (magic, "bad_frame"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "bad_frame"),
    ] {
        let mut client = proxy.client();
        client.call(1, "before");
        assert_eq!(client.told(), Frame::reply(1, "before"));
        client.send(bytes);
        let (told, end) = client.end();
        assert!(
            told.is_empty() && matches!(end, End::Fin),
            "{reason}: {end:?}"
        );
        let now = proxy.snapshot();
        assert!(
            now.listener(&format!("refusals/{reason}")) > 0,
            "{:#}",
            now.0
        );
    }
    other.call(2, "let");
    assert_eq!(other.told(), Frame::reply(2, "done"));
    assert_eq!(other.told(), Frame::reply(1, "held on"));
    assert_eq!(service.accepted(), 1);
    other.leave();
    proxy.finish();
}

#[test]
fn a_service_that_breaks_the_framing_loses_its_connection() {
    let service = Service::start(|mut connection| {
        while Frame::read(&mut connection).is_ok() {
            connection.write("HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let proxy = crate::with_error_reply(in_front_of(&service)).start();
    let mut client = proxy.client();
    assert_eq!(client.ask(1, "hello"), "away");
    proxy.wait_upstream("discards/violation", 1);
    client.leave();
    proxy.finish();
}

/// A frame of five bytes: one of length, one of an id, three of anything.
fn narrow(id: u8, text: &str) -> Vec<u8> {
    [&[4, id], text.as_bytes()].concat()
}

#[test]
fn ids_that_run_out_make_clients_wait_and_lose_nothing() {
    const CLIENTS: usize = 300;
    let gate = wait::Gate::new();
    let held = gate.clone();
    let service = Service::start(move |mut connection| {
        let mut first = true;
        while let Ok(frame) = connection.exactly(5) {
            connection.count_request();
            if std::mem::take(&mut first) {
                // Meanwhile the others ask.
                held.pass();
            }
            connection.write(frame);
        }
    });
    let proxy = Config::to(service.address())
        .protocol("frames")
        .frames("length = { offset = 0, width = 1 }")
        .frames("id = { offset = 1, width = 1 }")
        .start();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(narrow(9, &format!("{number:03}")));
    }
    proxy.wait_until("no id is left", |now| {
        now.number("/listeners/front/sessions/opened") == CLIENTS as u64
    });
    gate.open();
    for (number, client) in clients.iter_mut().enumerate() {
        let told = client.exactly(5).unwrap();
        assert_eq!(told, narrow(9, &format!("{number:03}")));
    }
    drop(clients);
    let now = proxy.wait_completed(CLIENTS as u64);
    assert_eq!(now.sum("/listeners/front/refusals"), 0, "{:#}", now.0);
    assert_eq!(service.accepted(), 1);
    proxy.finish();
}

#[test]
fn ids_that_are_never_answered_do_not_run_out() {
    // It answers what begins with `a`, so that it is not silent.
    let service = Service::start(|mut connection| {
        while let Ok(frame) = connection.exactly(5) {
            connection.count_request();
            if frame[2] == b'a' {
                connection.write(frame);
            }
        }
    });
    let proxy = Config::to(service.address())
        .protocol("frames")
        .frames("length = { offset = 0, width = 1 }")
        .frames("id = { offset = 1, width = 1 }")
        .frames(r"error_reply = '\x04\x00err'")
        .upstream("response_timeout = \"300ms\"")
        .start();
    let mut asks = proxy.client();
    let mut waits = proxy.client();
    for _ in 0..100 {
        waits.send(narrow(1, "bbb"));
    }
    proxy.wait_until("they are given up", |now| {
        asks.send(narrow(2, "aaa"));
        assert_eq!(asks.exactly(5).unwrap(), narrow(2, "aaa"));
        now.listener("refusals/response_timeout") == 100
    });
    proxy.wait_upstream("discards/response_timeout", 1);
    for _ in 0..100 {
        assert_eq!(waits.exactly(5).unwrap(), narrow(1, "err"));
    }
    for _ in 0..200 {
        waits.send(narrow(3, "aaa"));
        assert_eq!(waits.exactly(5).unwrap(), narrow(3, "aaa"));
    }
    drop((asks, waits));
    proxy.finish();
}

#[test]
fn a_service_that_does_not_read_keeps_nobody_for_ever() {
    let gate = wait::Gate::new();
    let held = gate.clone();
    let service = Service::start(move |_connection| held.pass());
    let proxy = in_front_of(&service)
        .upstream("response_timeout = \"500ms\"")
        .start();
    let address = proxy.address();
    let note = Frame::new(REQUEST, 1, vec![b'n'; 60_000]).bytes();
    let over = wait::Flag::default();
    std::thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || {
            let mut client = Client::dial(address);
            // None of them has a reply to wait for.
            while !over.is_raised() && client.try_send(&note).is_ok() {}
        });
        let _raise = over.raise_at_end();
        let now = proxy.wait_upstream("discards/response_timeout", 1);
        assert!(now.upstream("exchanges/completed") > 0, "{:#}", now.0);
    });
    gate.open_for_all();
    proxy.finish();
}

#[test]
fn an_endpoint_shares_no_more_connections_for_one_that_is_away() {
    let (service, nobody) = (obedient(), Nobody::new());
    let away = Config::to_all(&[service.address(), nobody.address()]);
    let proxy = in_front_of_it(away).pool("shared = 2").start();
    let mut clients: Vec<_> = (0..40).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.call(1, "hold on");
        service.wait_requests(number as u64 + 1);
    }
    let now = proxy.snapshot();
    assert_eq!(
        now.number("/upstreams/service/endpoints/0/shared"),
        2,
        "{:#}",
        now.0
    );
    clients.into_iter().for_each(Client::reset);
    proxy.finish();
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let mut lazy = proxy.client();
    for id in 0..100 {
        lazy.call(id, "much 1000000");
    }
    let mut diligent = proxy.client();
    let began = wait::now();
    for id in 0..200 {
        assert_eq!(diligent.ask(id, "quick"), "quick");
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let memory = proxy.process().resident_max_kib();
    assert!(memory < 100_000, "{memory} KiB");
    // It may have been given up by now; what it gets is right.
    while let Ok(told) = Frame::read(&mut lazy) {
        assert!(told.payload == pattern(7, 1_000_000), "a foreign byte");
        if told.id == 99 {
            break;
        }
    }
    drop(lazy);
    diligent.leave();
    proxy.finish();
}
