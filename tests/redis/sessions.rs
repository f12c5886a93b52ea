//! Clients that have their ways, and what others see of it: nothing.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::client::{Client, Reply, command};
use crate::server::Redis;
use crate::support::message::pattern;
use crate::support::proxy::Proxy;
use crate::support::wait;
use crate::{SHARED, SIZE, finish, in_front_of, leases};

const LARGE: usize = 20 << 20;

/// So many questions of another client, each answered by its own answer.
fn ask_many(proxy: &Proxy, tag: &str, count: u32) {
    let mut client = Client::dial(proxy.address());
    for number in 0..count {
        let value = format!("{tag}-{number}");
        assert_eq!(client.ask(&["SET", tag, &value]), Reply::ok());
        assert_eq!(client.ask(&["GET", tag]), Reply::bulk(&value));
    }
    client.leave();
}

#[test]
fn large_values_pass_both_ways_beside_small_ones() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let value = pattern(1, LARGE);
    std::thread::scope(|scope| {
        let others = [1, 2, 3].map(|number| {
            let proxy = &proxy;
            scope.spawn(move || ask_many(proxy, &format!("small:{number}"), 500))
        });
        let mut client = Client::dial(proxy.address());
        for _ in 0..2 {
            assert_eq!(
                client.ask(&[&b"SET"[..], b"large", &value[..]]),
                Reply::ok()
            );
            assert!(client.ask(&["GET", "large"]) == Reply::Bulk(value.clone()));
            // The reply to the command behind it is not taken for a part of it.
            let both = [command(&["GET", "large"]), command(&["ECHO", "behind"])].concat();
            client.send_bytes(both);
            assert!(client.read() == Reply::Bulk(value.clone()));
            assert_eq!(client.read(), Reply::bulk("behind"));
        }
        client.leave();
        for other in others {
            other.join().unwrap();
        }
    });
    assert!(leases(&proxy, "large_request") > 0, "{}", proxy.metrics());
    finish(proxy, &redis);
}

#[test]
fn a_large_value_that_comes_slowly_keeps_nobody_waiting() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let bytes = command(&[&b"SET"[..], b"slow", &pattern(2, 2 << 20)[..]]);
    let mut slow = Client::dial(proxy.address());
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    slow.send_bytes(first);
    ask_many(&proxy, "meanwhile", 300);
    slow.send_bytes(rest);
    assert_eq!(slow.read(), Reply::ok());
    // One that never comes to its end is given up with its client.
    let mut cut = Client::dial(proxy.address());
    cut.send_bytes(first);
    ask_many(&proxy, "again", 50);
    cut.reset();
    assert_eq!(slow.ask(&["STRLEN", "slow"]), Reply::Integer(2 << 20));
    slow.leave();
    finish(proxy, &redis);
}

#[test]
fn a_client_that_leaves_with_replies_owed_takes_none_of_anothers() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    redis
        .witness()
        .ask(&[&b"SET"[..], b"owed", &pattern(3, 20_000)[..]]);
    for round in 0..60 {
        let mut leaves = Client::dial(proxy.address());
        for _ in 0..100 {
            leaves.send(&["GET", "owed"]);
        }
        match round % 4 {
            0 => drop(leaves),
            1 => leaves.reset(),
            2 => {
                let _ = leaves.try_read();
            }
            // Redis itself answers nobody who has said that it ends; what comes is its own.
            _ => {
                leaves.socket().half_close();
                while let Ok(reply) = leaves.try_read() {
                    assert!(reply == Reply::Bulk(pattern(3, 20_000)));
                }
            }
        }
        ask_many(&proxy, &format!("other:{round}"), 5);
    }
    finish(proxy, &redis);
}

#[test]
fn a_client_that_leaves_while_it_waits_gives_its_connection_back() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let before = redis.info("total_connections_received");
    for round in 0..100 {
        let mut leaves = Client::dial(proxy.address());
        match round % 5 {
            0 => leaves.send(&["BLPOP", "never", "0"]),
            1 => {
                leaves.ask(&["SUBSCRIBE", "news"]);
            }
            2 => {
                leaves.ask(&["MULTI"]);
                leaves.ask(&["SET", "half", "done"]);
            }
            3 => {
                leaves.ask(&["WATCH", "half"]);
            }
            _ => {
                assert_eq!(leaves.ask(&["MONITOR"]), Reply::ok());
            }
        }
        if round % 2 == 0 {
            leaves.reset();
        }
        ask_many(&proxy, "after", 2);
    }
    // Nothing that it waited for comes to anybody else.
    let mut straight = redis.witness();
    straight.ask(&["PUBLISH", "news", "late"]);
    straight.ask(&["RPUSH", "never", "late"]);
    ask_many(&proxy, "after", 50);
    assert_eq!(
        straight.ask(&["LLEN", "never"]),
        Reply::Integer(1),
        "nobody pops it any more"
    );
    assert_eq!(straight.ask(&["GET", "half"]), Reply::Null);
    proxy.wait_until("no lease is left", |now| now.endpoint("leased") == 0);
    let connects = redis.info("total_connections_received") - before;
    eprintln!("{connects} connects for 100 clients that left");
    finish(proxy, &redis);
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let value = pattern(4, 1 << 20);
    redis.witness().ask(&[&b"SET"[..], b"much", &value[..]]);
    let lazy = [1, 2, 3].map(|_| {
        let mut client = Client::dial(proxy.address());
        for _ in 0..100 {
            client.send(&["GET", "much"]);
        }
        client
    });
    let began = wait::now();
    ask_many(&proxy, "diligent", 1000);
    eprintln!("1000 pairs beside it took {:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    // 300 MiB are owed; most of that stays at Redis, which answers nobody faster than he reads.
    let memory = proxy.process().resident_max_kib();
    assert!(memory < 150_000, "{memory} KiB");
    for mut client in lazy {
        // It may have been given up by now; what it gets is right.
        for _ in 0..100 {
            match client.try_read() {
                Ok(Reply::Bulk(bytes)) => assert!(bytes == value, "a foreign byte"),
                Ok(other) => assert!(other.is_error(), "{other:?}"),
                Err(_) => break,
            }
        }
    }
    finish(proxy, &redis);
}

#[test]
fn a_crowd_that_blocks_leaves_the_shared_connections_to_others() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).pool("wait_timeout = \"300ms\"").start();
    let mut crowd: Vec<_> = (0..2 * SIZE)
        .map(|_| {
            let mut client = Client::dial(proxy.address());
            client.send(&["BLPOP", "crowd", "0"]);
            client
        })
        .collect();
    ask_many(&proxy, "others", 200);
    assert!(redis.connections() <= SIZE);
    proxy.wait_until("nobody waits for a connection any more", |now| {
        now.upstream("waiters") == 0
    });
    // Those that found no connection were told so; they are clients still.
    let mut told = 0;
    crowd.retain_mut(|client| {
        let silent = client.socket().stays_silent(Duration::from_millis(20));
        if !silent {
            assert!(client.read().is_error());
            assert_eq!(client.ask(&["PING"]), Reply::simple("PONG"));
            told += 1;
        }
        silent
    });
    assert!(told >= SIZE, "{told} were told");
    let mut straight = redis.witness();
    for _ in &crowd {
        straight.ask(&["RPUSH", "crowd", "x"]);
    }
    for client in &mut crowd {
        assert_eq!(client.read(), Reply::bulks(&["crowd", "x"]));
    }
    drop(crowd);
    finish(proxy, &redis);
}

#[test]
fn bytes_that_would_close_the_shared_connection_hurt_their_sender_alone() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut witness = Client::dial(proxy.address());
    witness.ask(&["SET", "there", "yes"]);
    let before = redis.info("total_connections_received");
    let wrong: [&[u8]; 6] = [
        b"*1\r\n$-1\r\n",
        b"*2\r\n$3\r\nGET\r\nkey\r\n",
        b"*99999999999\r\n",
        b"*1\r\n$999999999999\r\n",
        b"SET a \"unbalanced\r\n",
        b"POST / HTTP/1.1\r\nHost: redis\r\n\r\n",
    ];
    for bytes in wrong {
        let mut client = Client::dial(proxy.address());
        client.send_bytes(bytes);
        let text = String::from_utf8_lossy(bytes);
        if let Ok(reply) = client.try_read() {
            assert!(reply.is_error(), "{text}: {reply:?}");
        }
        assert_eq!(witness.ask(&["GET", "there"]), Reply::bulk("yes"), "{text}");
    }
    for words in [
        &["SHUTDOWN"][..],
        &["DEBUG", "SLEEP", "5"],
        &["CLIENT", "PAUSE", "5000"],
    ] {
        let mut client = Client::dial(proxy.address());
        assert!(client.ask(words).is_error(), "{words:?}");
        assert_eq!(
            witness.ask(&["GET", "there"]),
            Reply::bulk("yes"),
            "{words:?}"
        );
    }
    witness.leave();
    let connects = redis.info("total_connections_received") - before - 1;
    assert!(connects < SHARED, "{connects} connects: some were lost");
    finish(proxy, &redis);
}

#[test]
fn the_snapshot_says_who_shares_a_connection_and_who_has_one_and_why() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut sharing = [1, 2, 3].map(|_| Client::dial(proxy.address()));
    for client in &mut sharing {
        assert_eq!(client.ask(&["SET", "a", "b"]), Reply::ok());
    }
    let mut watching = Client::dial(proxy.address());
    assert_eq!(watching.ask(&["WATCH", "a"]), Reply::ok());
    let now = proxy.snapshot();
    let links = now.0.pointer("/upstreams/service/links").unwrap();
    let links = links.as_array().unwrap();
    let with = |pinned: Option<&str>| {
        let rows = links.iter().filter(|it| it["pinned"].as_str() == pinned);
        rows.map(|it| it["sessions"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((with(None), with(Some("watch"))), (3, 1), "{:#}", now.0);
    assert!(links.iter().all(|it| it["owed"] == 0), "{:#}", now.0);
    let has = |line: &str| {
        let metrics = proxy.metrics();
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    };
    has("millpond_pins_open{upstream=\"service\",reason=\"watch\"} 1\n");
    has(&format!(
        "millpond_sharing_sessions{{upstream=\"service\",endpoint=\"{}\"}} 3\n",
        now.text("/upstreams/service/endpoints/0/address")
    ));
    has("millpond_pin_duration_seconds_count{upstream=\"service\"} 0\n");
    assert_eq!(watching.ask(&["UNWATCH"]), Reply::ok());
    proxy.wait_until("it is given back", |now| {
        now.number("/upstreams/service/endpoints/0/leased") == 0
    });
    has("millpond_pins_open{upstream=\"service\",reason=\"watch\"} 0\n");
    has("millpond_pin_duration_seconds_count{upstream=\"service\"} 1\n");
    sharing.into_iter().for_each(Client::leave);
    watching.leave();
    finish(proxy, &redis);
}

#[test]
fn a_session_that_is_idle_is_let_go_by_a_drain_and_by_its_idle_timeout() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis)
        .listener("idle_timeout = \"300ms\"")
        .start();
    let mut idle = Client::dial(proxy.address());
    assert_eq!(idle.ask(&["SET", "a", "b"]), Reply::simple("OK"));
    idle.expect_fin();
    let proxy = in_front_of(&redis).start();
    let mut idle = Client::dial(proxy.address());
    assert_eq!(idle.ask(&["GET", "a"]), Reply::bulk("b"));
    proxy.signal(Signal::SIGTERM);
    idle.expect_fin();
    assert_eq!(proxy.wait().code(), Some(0));
}
