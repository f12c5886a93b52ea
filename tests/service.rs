//! The point of it all: short-lived clients in front, and a service that sees none of them.
//!
//! In a namespace of its own the service's kernel says what it sees. The default run is a tenth of
//! the size; `MILLPOND_CLIENTS=30000 cargo test --test service` is the whole of it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};

use support::client;
use support::netns::{Network, Resets, SERVICE};
use support::nginx::Nginx;
use support::proxy::{Config, Proxy};

struct Scene {
    network: Network,
    nginx: Nginx,
    proxy: Proxy,
}

const ANSWER: &str = "return 200 'answer';";
/// The request that nginx closes a connection after, unless it is configured otherwise.
const KEEPALIVE_REQUESTS: &str = "1000";

impl Scene {
    fn prepare(server: &str, size: u64) -> Self {
        let network = Network::create();
        let nginx = network.service.enter(|| Nginx::start(SERVICE, server));
        let config = Config::to(&nginx.address().to_string())
            .listen("10.77.1.2:0")
            .pool(&format!("size = {size}"));
        let proxy = network.proxy.enter(|| config.start());
        Self {
            network,
            nginx,
            proxy,
        }
    }

    /// So many clients, 50 at a time, each for one exchange. All must be answered.
    fn churn(&self, clients: u64) {
        let address = self.proxy.address();
        let left = AtomicU64::new(clients);
        self.network.clients.enter(|| {
            std::thread::scope(|scope| {
                for _ in 0..50 {
                    scope.spawn(|| {
                        let next = || {
                            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                                left.checked_sub(1)
                            })
                        };
                        while next().is_ok() {
                            let response =
                                client::once(address, "/").expect("an answer, not a reset");
                            assert_eq!(
                                (response.status(), response.text().as_str()),
                                (200, "answer")
                            );
                        }
                    });
                }
            });
        });
    }

    /// The service's sockets in TIME_WAIT, without the one that the harness made to see it start.
    fn time_wait_at_the_service(&self) -> u64 {
        let port = self.nginx.address().port();
        self.network
            .service
            .sockets(&format!("state time-wait sport = :{port} dst 10.77.2.2"))
    }
}

fn clients() -> u64 {
    std::env::var("MILLPOND_CLIENTS").map_or(3000, |count| count.parse().unwrap())
}

#[test]
fn short_lived_clients_cost_the_service_no_connection_and_no_time_wait() {
    let scene = Scene::prepare(
        &format!("keepalive_requests 1000000; location / {{ {ANSWER} }}"),
        64,
    );
    scene.churn(clients());
    let now = scene.proxy.wait_completed(clients());
    assert_eq!(now.listener("sessions/opened"), clients());
    assert_eq!(now.sum("/listeners/front/refusals"), 0);
    assert!(
        (1..=64).contains(&scene.network.connects()),
        "{} connects",
        scene.network.connects()
    );
    assert_eq!(
        now.upstream("connects/established"),
        scene.network.connects()
    );
    assert_eq!(scene.time_wait_at_the_service(), 0);
    assert_eq!(
        scene.network.downstream_resets(),
        Resets {
            sent: 0,
            received: 0
        }
    );
    assert_eq!(
        scene.network.upstream_resets(),
        Resets {
            sent: 0,
            received: 0
        }
    );
    assert_eq!(now.sum("/upstreams/service/discards"), 0);
    scene.proxy.finish();
}

#[test]
fn every_connection_that_nginx_retires_is_a_retirement_with_its_reason() {
    // So many that connections come to their thousandth request, in the short run and in the long.
    let (size, count) = if clients() < 30_000 {
        (2, clients())
    } else {
        (64, 4 * clients())
    };
    let scene = Scene::prepare(&format!("location / {{ {ANSWER} }}"), size);
    scene.churn(count);
    let closes = || {
        scene
            .nginx
            .access_log()
            .iter()
            .filter(|line| line.split(' ').nth(1) == Some(KEEPALIVE_REQUESTS))
            .count() as u64
    };
    // The log is written as exchanges end; the last line may still be on its way.
    support::wait::until("nginx has logged everything", || {
        (scene.nginx.access_log().len() as u64 >= count).then_some(())
    });
    let now = scene.proxy.wait_completed(count);
    assert!(closes() > 0);
    assert_eq!(now.upstream("discards/service_close"), closes());
    assert_eq!(
        now.sum("/upstreams/service/discards"),
        closes(),
        "{:#}",
        now.0["upstreams"]
    );
    assert_eq!(now.sum("/listeners/front/refusals"), 0);
    assert_eq!(
        scene.network.downstream_resets(),
        Resets {
            sent: 0,
            received: 0
        }
    );
    assert_eq!(
        scene.network.upstream_resets(),
        Resets {
            sent: 0,
            received: 0
        }
    );
    scene.proxy.finish();
}
