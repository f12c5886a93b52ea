//! Short-lived clients in front, and a Redis that sees none of them: its own kernel says so.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::client::{Client, Reply};
use crate::server::Redis;
use crate::support::netns::{Network, Resets, SERVICE};
use crate::{SIZE, in_front_of, setting};

/// So many clients, 50 at a time, each for what `ask` does with its number.
fn churn(network: &Network, clients: u64, ask: impl Fn(u64) + Sync) {
    let left = AtomicU64::new(clients);
    network.clients.enter(|| {
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    let one_more = |left: u64| left.checked_sub(1);
                    let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
                    while let Ok(number) = left.fetch_update(set, get, one_more) {
                        ask(number);
                    }
                });
            }
        });
    });
}

#[test]
fn short_lived_clients_cost_redis_no_connection_and_no_time_wait() {
    let clients = setting("MILLPOND_CLIENTS", 3000);
    let network = Network::create();
    let redis = network
        .service
        .enter(|| Redis::start_on(SERVICE, &["--protected-mode", "no"]));
    let config = in_front_of(&redis).listen("10.77.1.2:0");
    let proxy = network.proxy.enter(|| config.start());
    let address = proxy.address();
    churn(&network, clients, |number| {
        let mut client = Client::dial(address);
        let (key, value) = (format!("key:{}", number % 1000), number.to_string());
        match number % 4 {
            0 => assert_eq!(client.ask(&["SET", &key, &value]), Reply::ok()),
            1 => {
                client.ask(&["SELECT", "1"]);
                assert_eq!(client.ask(&["ECHO", &value]), Reply::bulk(&value));
            }
            2 => {
                let echo = ["EVAL", "return ARGV[1]", "0", &value];
                assert_eq!(client.ask(&echo), Reply::bulk(&value));
            }
            _ => {
                client.ask(&["MULTI"]);
                client.ask(&["EVAL", "return ARGV[1]", "0", &value]);
                assert_eq!(client.ask(&["EXEC"]), Reply::bulks(&[&value]));
            }
        }
        if number % 2 == 0 {
            client.leave();
        } else {
            assert_eq!(client.ask(&["QUIT"]), Reply::ok());
            client.expect_fin();
        }
    });
    let now = proxy.wait_listener("sessions/terminated", clients);
    assert_eq!(now.listener("sessions/opened"), clients);
    assert_eq!(now.sum("/listeners/front/refusals"), 0);
    let connects = network.connects();
    // The connection that was asked whether there is a second database makes room for a transaction.
    let made_room = now.upstream("discards/key_needed");
    assert!(made_room <= 2, "{made_room} made room");
    assert!(
        (1..=SIZE + made_room).contains(&connects),
        "{connects} connects"
    );
    assert_eq!(now.upstream("connects/established"), connects);
    let port = redis.address().port();
    let filter = format!("state time-wait sport = :{port} dst 10.77.2.2");
    assert_eq!(network.service.sockets(&filter), 0, "TIME_WAIT at Redis");
    for resets in [network.downstream_resets(), network.upstream_resets()] {
        let (sent, received) = (0, 0);
        assert_eq!(resets, Resets { sent, received });
    }
    assert_eq!(
        now.sum("/upstreams/service/discards"),
        made_room,
        "{:#}",
        now.0
    );
    proxy.finish();
}
