//! Whose a reply is, whenever it comes.

use crate::frame::{Ask, Frame, REQUEST};
use crate::service::obedient;
use crate::support::client::Client;
use crate::support::message::pattern;
use crate::support::proxy::{Config, Proxy};
use crate::support::upstream::Service;
use crate::{SIZE, in_front_of};

/// Ends a test in which nobody lost anything and one connection carried all.
fn one_connection_carried_all(proxy: Proxy, service: &Service, exchanges: u64) {
    let now = proxy.wait_completed(exchanges);
    assert_eq!(service.accepted(), 1, "{:#}", now.0);
    assert_eq!(now.sum("/upstreams/service/discards"), 0, "{:#}", now.0);
    assert_eq!(now.sum("/listeners/front/refusals"), 0, "{:#}", now.0);
    now.expect_no_resets();
    proxy.finish();
}

#[test]
fn clients_with_the_same_id_get_each_their_own_reply_in_the_services_order() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.call(7, &format!("hold {number}"));
        service.wait_requests(number as u64 + 1);
    }
    assert_eq!(proxy.client().ask(7, "let"), "done");
    for (number, client) in clients.iter_mut().enumerate() {
        let told = client.told();
        assert_eq!((told.id, told.text()), (7, format!("held {number}")));
    }
    drop(clients);
    one_connection_carried_all(proxy, &service, 6);
}

#[test]
fn a_client_with_many_under_way_gets_them_as_they_come() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let mut client = proxy.client();
    for id in [1, u64::MAX, 3] {
        client.call(id, &format!("hold {id}"));
    }
    client.call(0, "let");
    let told: Vec<_> = (0..4).map(|_| client.told()).collect();
    let expected = [
        Frame::reply(0, "done"),
        Frame::reply(3, "held 3"),
        Frame::reply(u64::MAX, format!("held {}", u64::MAX)),
        Frame::reply(1, "held 1"),
    ];
    assert_eq!(told, expected);
    client.leave();
    one_connection_carried_all(proxy, &service, 4);
}

#[test]
fn a_fast_question_overtakes_a_slow_one_of_another_client() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let mut slow = proxy.client();
    slow.call(1, "hold on");
    service.wait_requests(1);
    let mut fast = proxy.client();
    for round in 0..50 {
        assert_eq!(fast.ask(round, "quick"), "quick");
    }
    assert_eq!(fast.ask(9, "let"), "done");
    assert_eq!(slow.told(), Frame::reply(1, "held on"));
    drop((slow, fast));
    one_connection_carried_all(proxy, &service, 52);
}

#[test]
fn a_client_that_left_leaves_its_reply_to_nobody() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let mut leaves = proxy.client();
    leaves.call(5, "hold mine");
    service.wait_requests(1);
    leaves.reset();
    proxy.wait_listener("sessions/open", 0);
    let mut stays = proxy.client();
    stays.call(5, "hold yours").call(6, "let");
    assert_eq!(stays.told(), Frame::reply(6, "done"));
    assert_eq!(stays.told(), Frame::reply(5, "held yours"));
    assert!(stays.owes_nothing());
    stays.leave();
    let now = proxy.wait_completed(2);
    assert_eq!(service.accepted(), 1, "{:#}", now.0);
    proxy.finish();
}

#[test]
fn a_request_without_a_reply_is_written_and_done() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let mut client = proxy.client();
    for id in 0..10 {
        client.send(Frame::new(REQUEST, id, "note").bytes());
    }
    assert_eq!(client.ask(3, "notes"), "10");
    client.leave();
    one_connection_carried_all(proxy, &service, 11);
}

#[test]
fn a_client_that_leaves_behind_a_request_without_a_reply_has_it_done() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let mut leaves = proxy.client();
    leaves.send(Frame::new(REQUEST, 1, "note").bytes());
    leaves.leave();
    proxy.wait_completed(1);
    let mut client = proxy.client();
    assert_eq!(client.ask(1, "notes"), "1");
    client.leave();
    one_connection_carried_all(proxy, &service, 2);
}

#[test]
fn the_answer_to_what_asked_for_none_reaches_nobody() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let mut waits = proxy.client();
    waits.call(1, "hold on");
    service.wait_requests(1);
    let mut talks = proxy.client();
    for id in 0..20 {
        talks.send(Frame::new(REQUEST, id, "talk back").bytes());
    }
    assert_eq!(talks.ask(1, "let"), "done");
    assert_eq!(waits.told(), Frame::reply(1, "held on"));
    let now = proxy.wait_upstream("messages_dropped/unowned", 20);
    assert_eq!(now.sum("/upstreams/service/discards"), 0, "{:#}", now.0);
    assert!(waits.owes_nothing() && talks.owes_nothing());
    drop((waits, talks));
    proxy.finish();
}

#[test]
fn a_connection_in_the_midst_of_a_message_is_not_lent_again() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    for round in 0..3 {
        let text = format!("tail {round} {}", "x".repeat(100_000));
        let mut client = proxy.client();
        assert!(client.ask(round, &text) == text, "another's bytes");
        client.leave();
        proxy.wait_until("it is discarded", |now| {
            now.sum("/upstreams/service/discards") == round + 1
        });
    }
    proxy.finish();
}

#[test]
fn long_replies_and_long_requests_pass_beside_short_ones() {
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let text = "x".repeat(500_000);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (proxy, text) = (&proxy, &text);
            scope.spawn(move || {
                let mut client = proxy.client();
                for round in 0..5 {
                    assert!(client.ask(number, text) == *text, "another's bytes");
                    let count = 300_000 + round;
                    client.call(round as u64, &format!("much {count}"));
                    assert!(
                        client.told().payload == pattern(7, count),
                        "another's bytes"
                    );
                    assert_eq!(client.ask(number, "short"), "short");
                }
                client.leave();
            });
        }
    });
    let now = proxy.wait_completed(60);
    assert!(service.accepted() <= SIZE, "{:#}", now.0);
    assert_eq!(now.upstream("pins/large_request"), 20, "{:#}", now.0);
    assert_eq!(now.sum("/upstreams/service/discards"), 0, "{:#}", now.0);
    proxy.finish();
}

#[test]
fn requests_and_replies_may_have_their_ids_in_different_places() {
    // As Kafka has them: 8 bytes in, and 4.
    let service = Service::start(|mut connection| {
        while let Ok(length) = connection.exactly(4) {
            let length = u32::from_be_bytes(length.try_into().unwrap());
            let request = connection.exactly(length as usize).unwrap();
            connection.count_request();
            let reply = [&request[4..8], &request[8..]].concat();
            let length = u32::try_from(reply.len()).unwrap().to_be_bytes();
            connection.write([&length[..], &reply].concat());
        }
    });
    let proxy = Config::to(service.address())
        .protocol("frames")
        .frames("length = { offset = 0, width = 4 }")
        .frames("id = { request = { offset = 8, width = 4 }, reply = { offset = 4, width = 4 } }")
        .start();
    for id in [0u32, 1, u32::MAX] {
        let mut client = proxy.client();
        client.send([&[0, 0, 0, 10][..], &[0; 4], &id.to_be_bytes(), b"hi"].concat());
        let told = client.exactly(10).unwrap();
        assert_eq!(told, [&[0, 0, 0, 6][..], &id.to_be_bytes(), b"hi"].concat());
        client.leave();
    }
    one_connection_carried_all(proxy, &service, 3);
}
