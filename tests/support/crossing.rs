//! A service that ends its connection at the very moment that a request is under way to it.
//!
//! millpond's bytes are lost on the cable until the end is under way; sent again by its kernel, they
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
    /// The service has sent its FIN.
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
        for rule in [
            "add table inet cable",
            "add chain inet cable input { type filter hook input priority 0 ; }",
            "add chain inet cable output { type filter hook output priority 0 ; }",
            "add set inet cable ended { type inet_service ; flags dynamic ; }",
            "add rule inet cable output tcp flags & fin == fin add @ended { tcp dport }",
        ] {
            crossing.nft(rule);
        }
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
        let unless = match until {
            Until::Fin => "tcp sport != @ended ",
            Until::Counted(_) => "",
        };
        let (port, _) = self.sockets()[0];
        let lost = format!("tcp sport {port} {unless}tcp flags & psh == psh drop");
        let lost = format!("add rule inet cable input {lost}");
        self.nft(&lost);
        client.send(request);
        wait::until("the request is lost on the cable", || {
            self.is_unacknowledged().then_some(())
        });
        self.gate.open();
        if let Until::Counted(what) = until {
            self.proxy.wait_upstream(what, 1);
            self.nft("flush chain inet cable input");
        }
        client
    }

    /// Whether millpond's kernel holds bytes for the service.
    fn is_unacknowledged(&self) -> bool {
        self.sockets().iter().any(|(_, bytes)| *bytes > 0)
    }

    /// millpond's sockets to the service: the port, and the bytes that were not acknowledged. Read, not
    /// asked of a program: meanwhile the kernel's pauses before it sends them again grow.
    fn sockets(&self) -> Vec<(u16, u64)> {
        let pid = self.proxy.process().pid();
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
        let service = format!(":{:04X}", self.service.socket_address().port());
        let rows = table.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (own, peer, queues) = (fields[1], fields[2], fields[4]);
            let (port, bytes) = (own.split_once(':')?.1, queues.split_once(':')?.0);
            let port = u16::from_str_radix(port, 16).unwrap();
            let bytes = u64::from_str_radix(bytes, 16).unwrap();
            peer.ends_with(&service).then_some((port, bytes))
        });
        rows.collect()
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
