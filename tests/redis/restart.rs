//! Redis goes away and comes back: errors while it is away, and nobody hangs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::client::{Client, Reply};
use crate::server::Redis;
use crate::support::wait::{self, Flag};
use crate::{finish, in_front_of};

/// What clients under a restart saw.
#[derive(Default)]
struct Seen {
    values: AtomicU64,
    errors: AtomicU64,
    /// Clients that got values again after the last restart.
    recovered: AtomicU64,
}

/// Asks until the last restart is over and it has a value again. The connection stays the same.
fn live(proxy: std::net::SocketAddr, number: usize, seen: &Seen, over: &Flag) {
    let mut client = Client::dial(proxy);
    let key = format!("key:{number}");
    for turn in 0u64.. {
        let (value, is_over) = (format!("{number}-{turn}"), over.is_raised());
        let set = client.ask(&["SET", &key, &value]);
        let got = client.ask(&["GET", &key]);
        for reply in [&set, &got] {
            if let Reply::Error(text) = reply {
                let first = text.split(' ').next().unwrap();
                assert!(["ERR", "LOADING"].contains(&first), "{text}");
                seen.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
        if set == Reply::ok() {
            // Its memory may have gone in between; it never has another value.
            assert!(
                got == Reply::bulk(&value) || got == Reply::Null || got.is_error(),
                "{got:?}"
            );
            seen.values.fetch_add(1, Ordering::Relaxed);
            if is_over && got == Reply::bulk(&value) {
                break;
            }
        }
        if set.is_error() {
            wait::pace(Duration::from_millis(5));
        }
    }
    seen.recovered.fetch_add(1, Ordering::Relaxed);
    client.leave();
}

#[test]
fn a_restart_is_errors_and_then_answers_on_the_same_connections() {
    const CLIENTS: usize = 30;
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let (seen, over) = (Seen::default(), Flag::default());
    let address = proxy.address();
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (seen, over) = (&seen, &over);
            scope.spawn(move || live(address, number, seen, over));
        }
        let _raise = over.raise_at_end();
        for _ in 0..3 {
            let before = seen.values.load(Ordering::Relaxed);
            wait::until("they are busy", || {
                (seen.values.load(Ordering::Relaxed) > before + 500).then_some(())
            });
            redis.kill();
            let errors = seen.errors.load(Ordering::Relaxed);
            wait::until("they are told", || {
                (seen.errors.load(Ordering::Relaxed) > errors).then_some(())
            });
            redis.run();
        }
    });
    assert_eq!(seen.recovered.load(Ordering::Relaxed), CLIENTS as u64);
    finish(proxy, &redis);
}

#[test]
fn what_a_client_had_at_redis_alone_ends_with_it() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let dial = || Client::dial(proxy.address());
    let (mut subscribes, mut blocks, mut watches) = (dial(), dial(), dial());
    subscribes.ask(&["SUBSCRIBE", "news"]);
    watches.ask(&["WATCH", "key"]);
    watches.ask(&["MULTI"]);
    watches.ask(&["SET", "key", "value"]);
    blocks.send(&["BLPOP", "list", "0"]);
    proxy.wait_until("all have connections of their own", |now| {
        now.endpoint("leased") >= 3
    });
    redis.restart();
    // Whoever waits is told by an error or by the end; a transaction is not half done.
    if let Ok(reply) = blocks.try_read() {
        assert!(reply.is_error(), "{reply:?}");
    }
    if let Ok(reply) = watches.try_ask(&["EXEC"]) {
        assert!(reply.is_error() || reply == Reply::Null, "{reply:?}");
    }
    // Silence would be the worst: it listens to nobody and does not know.
    if let Ok(reply) = subscribes.try_read() {
        assert!(reply.is_error(), "{reply:?}");
    }
    let mut client = dial();
    wait::until("Redis answers again", || {
        (client.ask(&["GET", "key"]) == Reply::Null).then_some(())
    });
    client.leave();
    drop((subscribes, blocks, watches));
    finish(proxy, &redis);
}

#[test]
fn an_error_that_is_an_answer_reaches_its_client_alone() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut straight = redis.witness();
    let mut client = Client::dial(proxy.address());
    assert_eq!(client.ask(&["SET", "key", "value"]), Reply::ok());
    let before = redis.info("total_connections_received");
    // An error that is an answer is no reason to part from the connection.
    straight.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = client.ask(&["SET", "key", "more"]);
    assert!(refused.error().starts_with("OOM"), "{refused:?}");
    straight.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(client.ask(&["SET", "key", "more"]), Reply::ok());
    assert_eq!(client.ask(&["GET", "key"]), Reply::bulk("more"));
    client.leave();
    let connects = redis.info("total_connections_received") - before - 1;
    assert!(connects < crate::SHARED, "{connects} connects");
    finish(proxy, &redis);
}
