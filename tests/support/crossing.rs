//! A service that ends its connection at the very moment that a request is under way to it.
//!
//! millpond's bytes are lost on the cable until the end has arrived; sent again by its kernel, they
//! meet whatever the service left.

use super::client::Client;
use super::netns::{Network, SERVICE};
use super::proxy::{Config, Proxy};
use super::upstream::{Connection, Service};
use super::wait::{self, Gate};

/// A service in a namespace, whose first connection was used once and is idle.
pub struct Crossing {
    pub network: Network,
    pub service: Service,
    pub proxy: Proxy,
    gate: Gate,
}

/// When a request that is under way may arrive.
#[derive(Clone, Copy)]
pub enum Until {
    /// The service's FIN has arrived.
    Fin,
    /// millpond has counted this.
    Counted(&'static str),
}

impl Crossing {
    /// In front of a service that speaks HTTP; `happening` is what becomes of its first connection.
    pub fn prepare(
        configure: impl Fn(Config) -> Config,
        happening: impl Fn(Connection) + Send + Sync + 'static,
    ) -> Self {
        let answer = |connection: &mut Connection| {
            connection.answer(format!("connection {}", connection.number))
        };
        let warm = |client: &mut Client| {
            assert_eq!(client.get("/warm").text(), "connection 0");
        };
        Self::between(configure, answer, happening, warm)
    }

    /// In front of a service that answers each request with `answer`, and serves `warm` first.
    pub fn between(
        configure: impl Fn(Config) -> Config,
        answer: impl Fn(&mut Connection) -> bool + Send + Sync + 'static,
        happening: impl Fn(Connection) + Send + Sync + 'static,
        warm: impl Fn(&mut Client),
    ) -> Self {
        let network = Network::create();
        network.hasten_retransmissions();
        let gate = Gate::new();
        let script = {
            let gate = gate.clone();
            move |mut connection: Connection| {
                while answer(&mut connection) {
                    if connection.number == 0 {
                        gate.pass();
                        return happening(connection);
                    }
                }
            }
        };
        let address = format!("{SERVICE}:0");
        let service = network
            .service
            .enter(|| Service::start_on(&address, script));
        let config = configure(Config::to(service.address())).listen("10.77.1.2:0");
        let proxy = network.proxy.enter(|| config.start());
        let crossing = Self {
            network,
            service,
            proxy,
            gate,
        };
        let mut client = crossing.client();
        warm(&mut client);
        client.leave();
        crossing
            .proxy
            .wait_until("a connection is idle", |now| now.endpoint("idle") == 1);
        crossing.nft("add table inet cable");
        crossing.nft("add chain inet cable input { type filter hook input priority 0 ; }");
        crossing
    }

    /// Sends a request into the happening, and says which status and body came of it.
    pub fn run(&self, request: &[u8], until: Until) -> (u16, String) {
        let method = if request.starts_with(b"GET") {
            "GET"
        } else {
            "POST"
        };
        let answer = self.send(request, until).read(method);
        (answer.status(), answer.text())
    }

    /// Sends a request into the happening.
    pub fn send(&self, request: &[u8], until: Until) -> Client {
        let mut client = self.client();
        self.nft("add rule inet cable input tcp flags & psh == psh counter drop");
        client.send(request);
        wait::until("the request is lost on the cable", || {
            let rules = self.nft("list chain inet cable input");
            let line = rules.lines().find(|line| line.contains("drop"))?.to_owned();
            (!line.contains("packets 0 ")).then_some(())
        });
        self.gate.open();
        match until {
            Until::Fin => wait::until("the FIN has arrived", || {
                let fins = self.network.proxy.sockets("state close-wait");
                (fins > 0).then_some(())
            }),
            Until::Counted(what) => {
                self.proxy.wait_upstream(what, 1);
            }
        }
        self.nft("flush chain inet cable input");
        client
    }

    /// Ends the test: how many requests the service had.
    pub fn finish(self) -> u64 {
        self.proxy.finish();
        self.service.requests()
    }

    fn client(&self) -> Client {
        let clients = &self.network.clients;
        clients.enter(|| Client::dial(self.proxy.address()))
    }

    fn nft(&self, command: &str) -> String {
        let words = command.split(' ').collect::<Vec<_>>();
        self.network.service.run("nft", &words)
    }
}
