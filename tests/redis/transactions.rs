//! Transactions come from a pool that is reused: they cost Redis no new connections.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::client::{Client, Reply, command};
use crate::server::Redis;
use crate::support::wait;
use crate::{SIZE, finish, in_front_of, leases, setting};

/// Clients at a time: fewer than there are connections for them.
const CLIENTS: usize = 12;
/// Counters that they fight for.
const COUNTERS: usize = 8;
/// What an optimised build must do in a second.
const RATE: f64 = 3000.0;

/// Adds one to a counter, if nobody else did meanwhile.
fn add_one(client: &mut Client, counter: &str) -> bool {
    client.send_bytes([command(&["WATCH", counter]), command(&["GET", counter])].concat());
    assert_eq!(client.read(), Reply::ok());
    let number: u64 = match client.read() {
        Reply::Null => 0,
        reply => reply.text().parse().unwrap(),
    };
    let sum = (number + 1).to_string();
    let set = command(&["SET", counter, &sum]);
    client.send_bytes([command(&["MULTI"]), set, command(&["EXEC"])].concat());
    assert_eq!(client.read(), Reply::ok());
    assert_eq!(client.read(), Reply::simple("QUEUED"));
    match client.read() {
        Reply::Null => false,
        Reply::Array(replies) => {
            assert_eq!(replies, [Reply::ok()]);
            true
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn transactions_that_watch_cost_no_new_connection() {
    let total = setting("MILLPOND_TRANSACTIONS", 6000);
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let address = proxy.address();
    let storm = |count: u64| {
        let (left, committed) = (AtomicU64::new(count), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                let (left, committed) = (&left, &committed);
                scope.spawn(move || {
                    let mut client = Client::dial(address);
                    let one_more = |left: u64| left.checked_sub(1);
                    let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
                    while let Ok(number) = left.fetch_update(set, get, one_more) {
                        let counter = format!("counter:{}", number as usize % COUNTERS);
                        if add_one(&mut client, &counter) {
                            committed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    client.leave();
                });
            }
        });
        committed.into_inner()
    };
    let warm = storm(500);
    let before = redis.info("total_connections_received");
    let began = wait::now();
    let committed = warm + storm(total);
    let rate = total as f64 / began.elapsed().as_secs_f64();
    let connects = redis.info("total_connections_received") - before - 1;
    eprintln!("{rate:.0} transactions a second, {committed} committed, {connects} connects");
    assert!(
        connects <= SIZE - CLIENTS as u64,
        "{connects} new connections"
    );
    assert!(
        cfg!(debug_assertions) || rate > RATE,
        "{rate:.0} transactions a second"
    );
    let mut straight = redis.witness();
    let sums = (0..COUNTERS).map(|number| {
        let counter = format!("counter:{number}");
        straight
            .ask(&["GET", &counter])
            .text()
            .parse::<u64>()
            .unwrap()
    });
    assert_eq!(
        sums.sum::<u64>(),
        committed,
        "each counts once, and none was lost"
    );
    assert!(leases(&proxy, "watch") >= total, "{}", proxy.metrics());
    finish(proxy, &redis);
}

#[test]
fn whole_transactions_and_those_in_steps_are_not_mixed() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let address = proxy.address();
    std::thread::scope(|scope| {
        for number in 0..30 {
            scope.spawn(move || {
                let mut client = Client::dial(address);
                let (list, tag) = (format!("list:{number}"), format!("tag:{number}"));
                for turn in 1..=40 {
                    let commands = [
                        command(&["MULTI"]),
                        command(&["RPUSH", &list, &tag]),
                        command(&["LLEN", &list]),
                        command(&["EXEC"]),
                    ];
                    if turn % 2 == 0 {
                        client.send_bytes(commands.concat());
                    }
                    let expected = [
                        Reply::ok(),
                        Reply::simple("QUEUED"),
                        Reply::simple("QUEUED"),
                        Reply::Array(vec![Reply::Integer(turn), Reply::Integer(turn)]),
                    ];
                    for (bytes, reply) in commands.iter().zip(expected) {
                        if turn % 2 == 1 {
                            client.send_bytes(bytes);
                        }
                        assert_eq!(client.read(), reply, "turn {turn}");
                    }
                    let length = client.ask(&["LLEN", &list]);
                    assert_eq!(length, Reply::Integer(turn));
                }
                client.leave();
            });
        }
    });
    finish(proxy, &redis);
}

#[test]
fn a_transaction_that_is_given_up_leaves_nothing_behind() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut client = Client::dial(proxy.address());
    for _ in 0..50 {
        client.ask(&["MULTI"]);
        client.ask(&["SET", "key", "never"]);
        assert_eq!(client.ask(&["DISCARD"]), Reply::ok());
        assert_eq!(client.ask(&["GET", "key"]), Reply::Null);
        client.ask(&["WATCH", "key"]);
        assert_eq!(client.ask(&["UNWATCH"]), Reply::ok());
        client.ask(&["MULTI"]);
        assert!(client.ask(&["SET", "key"]).is_error());
        assert!(client.ask(&["EXEC"]).error().starts_with("EXECABORT"));
        // What is none at Redis is none here.
        assert!(client.ask(&["EXEC"]).error().contains("without MULTI"));
        assert!(client.ask(&["DISCARD"]).error().contains("without MULTI"));
        client.ask(&["MULTI"]);
        assert!(client.ask(&["MULTI"]).error().contains("nested"));
        assert_eq!(client.ask(&["EXEC"]), Reply::Array(vec![]));
    }
    client.leave();
    finish(proxy, &redis);
}

#[test]
fn a_database_may_be_selected_while_keys_are_watched() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut client = Client::dial(proxy.address());
    let value = Reply::bulk;
    assert_eq!(client.ask(&["SET", "a", "zero"]), Reply::ok());
    for ending in [&["UNWATCH"][..], &["EXEC"], &["DISCARD"]] {
        assert_eq!(client.ask(&["WATCH", "a"]), Reply::ok());
        assert_eq!(client.ask(&["SELECT", "0"]), Reply::ok());
        assert_eq!(client.ask(&["GET", "a"]), value("zero"));
        assert!(client.ask(&["SELECT", "many"]).is_error());
        assert_eq!(client.ask(&["SELECT", "1"]), Reply::ok());
        if ending != ["UNWATCH"] {
            assert_eq!(client.ask(&["MULTI"]), Reply::ok());
            assert_eq!(client.ask(&["SET", "a", "one"]), Reply::simple("QUEUED"));
        }
        assert!(!client.ask(ending).is_error());
        let mut other = Client::dial(proxy.address());
        assert_eq!(other.ask(&["GET", "a"]), value("zero"), "{ending:?}");
        other.leave();
        assert_eq!(client.ask(&["SET", "b", "too"]), Reply::ok());
        assert_eq!(client.ask(&["SELECT", "0"]), Reply::ok());
        assert_eq!(client.ask(&["GET", "b"]), Reply::Null, "{ending:?}");
    }
    assert_eq!(client.ask(&["SELECT", "1"]), Reply::ok());
    assert_eq!(client.ask(&["GET", "a"]), value("one"));
    client.leave();
    finish(proxy, &redis);
}
