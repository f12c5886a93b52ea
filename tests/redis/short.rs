//! Short-lived clients in front, and a Redis that sees none of them: its own kernel says so.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::client::{Client, Reply};
use crate::server::Redis;
use crate::support::netns::{Network, Resets, SERVICE};
use crate::support::proxy::Proxy;
use crate::{SIZE, in_front_of, setting};

/// Clients, millpond and Redis, each at a host of its own.
pub struct Hosts {
    pub network: Network,
    pub redis: Redis,
    pub proxy: Proxy,
}

impl Hosts {
    pub fn start() -> Self {
        let network = Network::create();
        let redis = network
            .service
            .enter(|| Redis::start_on(SERVICE, &["--protected-mode", "no"]));
        let config = in_front_of(&redis).listen("10.77.1.2:0");
        let proxy = network.proxy.enter(|| config.start());
        Self {
            network,
            redis,
            proxy,
        }
    }

    /// So many clients, `at_once` at a time, each for what `ask` does with its number.
    pub fn churn(&self, clients: u64, at_once: usize, ask: impl Fn(u64) + Sync) {
        let left = AtomicU64::new(clients);
        self.network.clients.enter(|| {
            std::thread::scope(|scope| {
                for _ in 0..at_once {
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

    /// Ends a test of so many sessions: Redis has seen no more connections than the pool may hold, has no
    /// TIME_WAIT, and nobody has seen an RST.
    pub fn finish(self, sessions: u64) {
        let (network, proxy) = (self.network, self.proxy);
        let now = proxy.wait_listener("sessions/terminated", sessions);
        assert_eq!(now.listener("sessions/opened"), sessions);
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
        let port = self.redis.address().port();
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
}

#[test]
fn short_lived_clients_cost_redis_no_connection_and_no_time_wait() {
    let clients = setting("MILLPOND_CLIENTS", 3000);
    let hosts = Hosts::start();
    let address = hosts.proxy.address();
    hosts.churn(clients, 50, |number| {
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
    hosts.finish(clients);
}
