//! Who ends a connection first whose end both sides know of, and so keeps TIME_WAIT.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::net::SocketAddr;

use support::netns::{Network, SERVICE};
use support::proxy::{Config, Proxy};
use support::upstream::{Connection, Service};
use support::wait::{self, Gate};

/// A client's host, millpond's and a service's, whose every answer is `script`'s.
struct Hosts {
    network: Network,
    service: Service,
    proxy: Proxy,
}

impl Hosts {
    fn new(
        script: impl Fn(Connection) + Send + Sync + 'static,
        settings: impl FnOnce(Config) -> Config,
    ) -> Self {
        let network = Network::create();
        let service = network
            .service
            .enter(|| Service::start_on(&format!("{SERVICE}:0"), script));
        let config = settings(Config::to(service.address()).listen("10.77.1.2:0"));
        let proxy = network.proxy.enter(|| config.start());
        Self {
            network,
            service,
            proxy,
        }
    }

    fn client(&self) -> support::client::Client {
        self.network.clients.enter(|| self.proxy.client())
    }

    /// TIME_WAIT on the clients' leg: at the client, at millpond.
    fn downstream_time_waits(&self) -> (u64, u64) {
        let port = self.proxy.address().port();
        (
            self.network
                .clients
                .sockets(&format!("state time-wait dport = :{port}")),
            self.network
                .proxy
                .sockets(&format!("state time-wait sport = :{port}")),
        )
    }

    /// TIME_WAIT on the service's leg: at millpond, at the service.
    fn upstream_time_waits(&self) -> (u64, u64) {
        let SocketAddr::V4(address) = self.service.socket_address() else {
            panic!("an IPv4 address");
        };
        let port = address.port();
        (
            self.network
                .proxy
                .sockets(&format!("state time-wait dport = :{port}")),
            self.network
                .service
                .sockets(&format!("state time-wait sport = :{port}")),
        )
    }

    fn finish(self) {
        assert_eq!(self.network.downstream_resets().sent, 0);
        assert_eq!(self.network.upstream_resets().sent, 0);
        self.proxy.finish();
    }
}

const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const ANNOUNCED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlast";

fn answering(mut connection: Connection) {
    while connection.answer("good") {}
}

#[test]
fn millpond_takes_time_wait_from_a_client_whose_answer_is_the_last() {
    for choice in ["auto", "millpond"] {
        let settings = |config: Config| config.listener(&format!("close_first = \"{choice}\""));
        let hosts = Hosts::new(answering, settings);
        let mut client = hosts.client();
        client.send(LAST);
        assert_eq!(client.read("GET").text(), "good");
        client.expect_fin();
        drop(client);
        wait::until("the session has ended", || {
            (hosts.downstream_time_waits() == (0, 1)).then_some(())
        });
        hosts.finish();
    }
}

#[test]
fn a_client_that_is_to_end_first_keeps_time_wait() {
    let settings = |config: Config| {
        config
            .listener("close_first = \"client\"")
            .listener("linger_gap = \"20s\"")
    };
    let hosts = Hosts::new(answering, settings);
    let mut client = hosts.client();
    client.send(LAST);
    assert_eq!(client.read("GET").text(), "good");
    hosts.proxy.wait_until("the session closes", |now| {
        now.listener("sessions/open") == 1
    });
    drop(client);
    wait::until("the session has ended", || {
        (hosts.downstream_time_waits() == (1, 0)).then_some(())
    });
    let now = hosts.proxy.wait_listener("sessions/terminated", 1);
    assert_eq!(
        now.session_ends(&["initiator=downstream", "phase=idle", "manner=fin"]),
        1
    );
    hosts.finish();
}

#[test]
fn a_client_that_waits_for_the_end_gets_it_all_the_same() {
    let settings = |config: Config| {
        config
            .listener("close_first = \"client\"")
            .listener("linger_gap = \"50ms\"")
    };
    let hosts = Hosts::new(answering, settings);
    let mut client = hosts.client();
    client.send(LAST);
    assert_eq!(client.read("GET").text(), "good");
    client.expect_fin();
    drop(client);
    hosts.proxy.wait_listener("sessions/terminated", 1);
    hosts.finish();
}

#[test]
fn an_answer_that_ends_with_its_connection_is_ended_by_millpond_whatever_is_chosen() {
    let script = |mut connection: Connection| {
        if connection.request().is_some() {
            connection.write("HTTP/1.1 200 OK\r\n\r\nto the end");
        }
    };
    let settings = |config: Config| {
        config
            .listener("close_first = \"client\"")
            .listener("linger_gap = \"20s\"")
    };
    let hosts = Hosts::new(script, settings);
    let mut client = hosts.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read("GET").text(), "to the end");
    drop(client);
    hosts.proxy.wait_listener("sessions/terminated", 1);
    hosts.finish();
}

#[test]
fn a_service_that_announces_its_end_is_left_to_end_first() {
    for choice in ["auto", "service"] {
        let gate = Gate::new();
        let script = {
            let gate = gate.clone();
            move |mut connection: Connection| {
                if connection.request().is_some() {
                    connection.write(ANNOUNCED);
                    gate.pass();
                }
            }
        };
        let settings = |config: Config| config.upstream(&format!("close_first = \"{choice}\""));
        let hosts = Hosts::new(script, settings);
        let mut client = hosts.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read("GET").text(), "last");
        hosts
            .proxy
            .wait_until("the connection closes", |now| now.endpoint("closing") == 1);
        gate.open_for_all();
        wait::until("the service keeps TIME_WAIT", || {
            (hosts.upstream_time_waits() == (0, 1)).then_some(())
        });
        drop(client);
        hosts.finish();
    }
}

#[test]
fn millpond_ends_first_where_it_is_to_or_the_service_does_not_keep_its_word() {
    for choice in ["millpond", "service"] {
        let script = |mut connection: Connection| {
            if connection.request().is_some() {
                connection.write(ANNOUNCED);
                connection.wait_for_end();
            }
        };
        let settings = |config: Config| config.upstream(&format!("close_first = \"{choice}\""));
        let hosts = Hosts::new(script, settings);
        let mut client = hosts.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read("GET").text(), "last");
        wait::until("millpond keeps TIME_WAIT", || {
            (hosts.upstream_time_waits() == (1, 0)).then_some(())
        });
        drop(client);
        hosts.finish();
    }
}
