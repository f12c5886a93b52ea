//! The point of it all: short-lived clients in front, and a service that sees none of them.
//!
//! In a namespace of its own the service's kernel says what it sees. The default run is a tenth of
//! the size; `MILLPOND_CLIENTS=30000 cargo test --test service` is the whole of it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use support::client::{self, Client};
use support::netns::{Network, Resets, SERVICE};
use support::nginx::Nginx;
use support::proxy::{Config, Proxy};
use support::upstream::Service;

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
        churn(&self.network, clients, |_| {
            let response = client::once(address, "/").expect("an answer, not a reset");
            assert_eq!(
                (response.status(), response.text().as_str()),
                (200, "answer")
            );
        });
    }
}

/// The service's sockets in TIME_WAIT, without the one that the harness made to see it start.
fn time_wait_at(network: &Network, service: SocketAddr) -> u64 {
    let port = service.port();
    network
        .service
        .sockets(&format!("state time-wait sport = :{port} dst 10.77.2.2"))
}

/// So many clients, 50 at a time, each for what `ask` does with its number.
fn churn(network: &Network, clients: u64, ask: impl Fn(u64) + Sync) {
    let left = AtomicU64::new(clients);
    network.clients.enter(|| {
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    let next = || {
                        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                            left.checked_sub(1)
                        })
                    };
                    while let Ok(number) = next() {
                        ask(number);
                    }
                });
            }
        });
    });
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
    assert_eq!(time_wait_at(&scene.network, scene.nginx.address()), 0);
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

/// A service of lines: each is answered with itself, a probe as it expects.
fn lines() -> Service {
    Service::start_on(&format!("{SERVICE}:0"), |mut connection| {
        while let Ok(line) = connection.through(b"\n") {
            let answer = match line.as_slice() {
                b"PING\n" => b"+PONG\n".to_vec(),
                _ => [b"=".as_slice(), &line].concat(),
            };
            connection.write(answer);
        }
    })
}

/// Short-lived clients, who end first, through a pool of 64 to [`lines`]: the service's kernel sees at
/// most 64 connections, no TIME_WAIT and no RST.
fn short_lived_clients_of_lines(configure: impl Fn(Config) -> Config) {
    let network = Network::create();
    let service = network.service.enter(lines);
    let config = configure(Config::to(service.address()))
        .listen("10.77.1.2:0")
        .pool("size = 64");
    let proxy = network.proxy.enter(|| config.start());
    let address = proxy.address();
    churn(&network, clients(), |number| {
        let mut client = Client::dial(address);
        client.send(format!("{number}\n"));
        let answer = client.through(b"\n").expect("an answer, not an end");
        assert_eq!(String::from_utf8(answer).unwrap(), format!("={number}\n"));
        client.socket.half_close();
        client.expect_fin();
    });
    let now = proxy.wait_completed(clients());
    assert_eq!(now.listener("sessions/opened"), clients());
    assert_eq!(now.sum("/listeners/front/refusals"), 0);
    assert!(
        (1..=64).contains(&network.connects()),
        "{} connects",
        network.connects()
    );
    assert_eq!(now.upstream("connects/established"), network.connects());
    assert_eq!(time_wait_at(&network, service.socket_address()), 0);
    for resets in [network.downstream_resets(), network.upstream_resets()] {
        let (sent, received) = (0, 0);
        assert_eq!(resets, Resets { sent, received });
    }
    assert_eq!(now.sum("/upstreams/service/discards"), 0, "{:#}", now.0);
    proxy.finish();
}

#[test]
fn short_lived_clients_of_a_framed_protocol_cost_the_service_nothing() {
    short_lived_clients_of_lines(|config| config.protocol("frames").frames("delimiter = \"\\n\""));
}

#[test]
fn short_lived_clients_of_an_opaque_protocol_cost_nothing_where_a_probe_is_answered() {
    short_lived_clients_of_lines(|config| {
        config
            .protocol("tcp")
            .tcp("reuse = \"probed\"")
            .tcp("probe = { send = 'PING\\n', expect = '+PONG\\n' }")
            .tcp("quiet = \"1ms\"")
    });
}

#[test]
fn short_lived_clients_of_an_opaque_protocol_cost_nothing_where_quiet_is_promised() {
    short_lived_clients_of_lines(|config| {
        config
            .protocol("tcp")
            .tcp("reuse = \"promised\"")
            .tcp("quiet = \"1ms\"")
    });
}
