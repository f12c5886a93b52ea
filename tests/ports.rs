//! The ports that millpond dials from: how many connects they bear, what is said when none is free, and
//! how it goes on.
//!
//! Every exchange has a connection of its own here, and TIME_WAIT stays with millpond.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use millpond::sys::socket::{choose_port_at_connect, set_local_ports};
use support::client::Client;
use support::netns::{Network, SERVICE};
use support::proxy::{Config, Proxy, Snapshot};
use support::upstream::{Connection, Service};
use support::wait;

/// Millpond's addresses on the service's cable: the one it has anyway, and another.
const SOURCES: [&str; 2] = ["10.77.2.2", "10.77.2.3"];
const SOURCES_V6: [&str; 2] = ["fd77::2", "fd77::3"];

/// A client's host, millpond's with two addresses of each family, and a service's.
struct Hosts {
    network: Network,
    service: Service,
    /// From where the service was dialled.
    seen: Arc<Seen>,
}

type Seen = Mutex<Vec<SocketAddr>>;

impl Hosts {
    fn new() -> Self {
        Self::serving(&format!("{SERVICE}:0"))
    }

    fn serving(address: &str) -> Self {
        let network = Network::create();
        let give = |host: &support::netns::Namespace, device: &str, address: &str| {
            host.run("ip", &["address", "add", address, "dev", device, "nodad"]);
        };
        let more = format!("{}/24", SOURCES[1]);
        let arguments = ["address", "add", &more, "dev", "service"];
        network.proxy.run("ip", &arguments);
        for address in SOURCES_V6 {
            give(&network.proxy, "service", &format!("{address}/64"));
        }
        give(&network.service, "proxy", "fd77::1/64");
        let seen = Arc::<Seen>::default();
        let noted = Arc::clone(&seen);
        let serve = move |connection: Connection| serve(connection, &noted);
        let service = network.service.enter(|| Service::start_on(address, serve));
        Self {
            network,
            service,
            seen,
        }
    }

    fn config(&self, sources: &[String]) -> Config {
        Config::to(self.service.address())
            .listen("10.77.1.2:0")
            .upstream(&format!("source = {sources:?}"))
            .pool("max_exchanges = 1")
            .pool("size = 4")
    }

    fn start(&self, config: &Config) -> Proxy {
        self.network.proxy.enter(|| config.start())
    }

    fn client(&self, proxy: &Proxy) -> Client {
        self.network.clients.enter(|| proxy.client())
    }

    /// Exchanges until one is refused: how many were not.
    fn exhaust(&self, proxy: &Proxy) -> u64 {
        let mut client = self.client(proxy);
        let mut served = 0;
        loop {
            let answer = client.get("/");
            match answer.status() {
                200 => served += 1,
                503 => {
                    assert_eq!(answer.head.field("retry-after"), Some("1"));
                    return served;
                }
                status => panic!("{status} after {served}"),
            }
            assert!(served < 2_000, "it never runs out");
        }
    }

    fn time_waits(&self) -> u64 {
        let port = self.service.socket_address().port();
        let filter = format!("state time-wait dport = :{port}");
        self.network.proxy.sockets(&filter)
    }

    /// Has millpond's kernel take ports out of TIME_WAIT by itself, after a second: as if they came free.
    fn free_ports(&self) {
        self.network
            .proxy
            .enter(|| std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1").unwrap());
    }
}

fn serve(mut connection: Connection, seen: &Seen) {
    let (_, peer) = connection.socket.ends();
    seen.lock().unwrap().push(peer.parse().unwrap());
    while connection.answer("good") {}
}

fn ranges(addresses: &[&str], range: &str) -> Vec<String> {
    let bracket = |it: &&str| match it.contains(':') {
        true => format!("[{it}]:{range}"),
        false => format!("{it}:{range}"),
    };
    addresses.iter().map(bracket).collect()
}

fn said(proxy: &Proxy, what: &str) -> String {
    wait::until(&format!("the log says {what:?}"), || {
        let said = proxy.process().said();
        said.into_iter().find(|line| line.contains(what))
    })
}

fn shortage(now: &Snapshot) -> Option<String> {
    let text = &now.0["upstreams"]["service"]["endpoints"][0]["shortage"];
    text.as_str().map(str::to_owned)
}

fn established_and_exhausted(proxy: &Proxy) -> (u64, u64) {
    let now = proxy.snapshot();
    let connects = |outcome: &str| now.upstream(&format!("connects/{outcome}"));
    (connects("established"), connects("ports_exhausted"))
}

#[test]
fn two_sources_bear_twice_the_connects_of_one() {
    let mut borne = Vec::new();
    for sources in [&SOURCES[..1], &SOURCES[..]] {
        let hosts = Hosts::new();
        let proxy = hosts.start(&hosts.config(&ranges(sources, "50000-50199")));
        let served = hosts.exhaust(&proxy);
        assert_eq!(established_and_exhausted(&proxy), (served, 1));
        assert_eq!(proxy.snapshot().listener("refusals/dial_shortage"), 1);
        let mut seen = hosts.seen.lock().unwrap().clone();
        for source in sources {
            let of_source = seen.iter().filter(|it| it.ip().to_string() == *source);
            assert_eq!(of_source.count(), 200, "{source}");
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len() as u64, served, "no port was dialled from twice");
        assert!(seen.iter().all(|it| (50_000..=50_199).contains(&it.port())));
        borne.push(served);
        proxy.finish();
    }
    assert_eq!(borne, [200, 400]);
}

#[test]
fn what_is_said_at_exhaustion_names_range_time_wait_and_cure() {
    let hosts = Hosts::new();
    let proxy = hosts.start(&hosts.config(&ranges(&SOURCES[..1], "50000-50019")));
    let mut client = hosts.client(&proxy);
    for _ in 0..20 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(shortage(&proxy.snapshot()), None);
    wait::until("all ports are in TIME_WAIT", || {
        (hosts.time_waits() == 20).then_some(())
    });
    let answer = client.get("/");
    assert_eq!(answer.status(), 503);
    let line = said(&proxy, "no free port");
    let endpoint = hosts.service.address();
    let told = format!(
        "no free port to dial {endpoint} from 10.77.2.2 (50000-50019, 20 ports: 20 in TIME_WAIT, 0 in use). \
         Add source addresses (upstream.service.source), widen the ranges of ports there, or raise \
         pool.max_lifetime and pool.max_exchanges, so that fewer connections are opened"
    );
    assert!(line.contains(&told), "{line}");
    assert!(line.contains("WARN"), "{line}");
    let now = proxy.wait_until("the snapshot says it too", |now| shortage(now).is_some());
    assert_eq!(shortage(&now), Some(told));
    drop(client);
    proxy.finish();
}

#[test]
fn without_a_source_the_hosts_own_range_is_told() {
    let hosts = Hosts::new();
    // One of the ports is that of the listener, which no connect gets.
    hosts.network.set_ports("50000 50009");
    let proxy = hosts.start(&hosts.config(&[]));
    assert!((50_000..=50_009).contains(&proxy.address().port()));
    let mut client = hosts.client(&proxy);
    for _ in 0..9 {
        assert_eq!(client.get("/").status(), 200);
    }
    wait::until("all ports are in TIME_WAIT", || {
        (hosts.time_waits() == 9).then_some(())
    });
    assert_eq!(client.get("/").status(), 503);
    let line = said(&proxy, "no free port");
    let told = "from this host (50000-50009, 10 ports: 9 in TIME_WAIT, 1 in use). Add source addresses \
                (upstream.service.source), widen net.ipv4.ip_local_port_range, or";
    assert!(line.contains(told), "{line}");
    drop(client);
    proxy.finish();
}

#[test]
fn a_source_without_ports_has_those_of_the_host() {
    let hosts = Hosts::new();
    hosts.network.set_ports("50000 50009");
    let sources = SOURCES.map(str::to_owned);
    let proxy = hosts.start(&hosts.config(&sources).listen("10.77.1.2:8080"));
    assert_eq!(hosts.exhaust(&proxy), 20);
    let line = said(&proxy, "no free port");
    assert!(
        line.contains(", 10.77.2.3 (50000-50009, 10 ports: "),
        "{line}"
    );
    assert!(
        line.contains("widen net.ipv4.ip_local_port_range"),
        "{line}"
    );
    // That cures it at once.
    hosts.network.set_ports("50000 50019");
    wait::until("it is served", || (hosts.exhaust(&proxy) > 0).then_some(()));
    assert_eq!(hosts.seen.lock().unwrap().len(), 40);
    proxy.finish();
}

#[test]
fn running_out_is_no_busy_loop_and_ends_by_itself() {
    let hosts = Hosts::new();
    let proxy = hosts.start(&hosts.config(&ranges(&SOURCES, "50000-50009")));
    assert_eq!(hosts.exhaust(&proxy), 20);
    let (_, before) = established_and_exhausted(&proxy);
    let began = wait::now();
    let time = Duration::from_secs(2);
    let address = proxy.address();
    let refused: u64 = hosts.network.clients.enter(|| {
        std::thread::scope(|scope| {
            let crowd: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        // Inside the same namespace as the thread that started it.
                        let mut client = Client::dial(address);
                        let mut refused = 0;
                        while began.elapsed() < time {
                            let asked = wait::now();
                            assert_eq!(client.get("/").status(), 503);
                            let waited = asked.elapsed();
                            assert!(waited < Duration::from_secs(1), "{waited:?}");
                            refused += 1;
                        }
                        refused
                    })
                })
                .collect();
            crowd.into_iter().map(|it| it.join().unwrap()).sum()
        })
    });
    let (_, after) = established_and_exhausted(&proxy);
    let (tried, elapsed) = (after - before, began.elapsed());
    // A pause is half of `backoff_min` (100 ms) or more, and one connect follows it.
    let tried_max = elapsed.as_millis() as u64 / 50 + 1;
    assert!((5..=tried_max).contains(&tried), "{tried} in {elapsed:?}");
    assert!(refused >= 8 * 5, "{refused} were refused in {elapsed:?}");
    let lines = proxy.process().said();
    let told = lines
        .iter()
        .filter(|it| it.contains("no free port"))
        .count();
    assert_eq!(told, 1, "it is not told for each connect");
    let now = proxy.snapshot();
    assert_eq!(now.upstream("connects/source_unusable"), 0);
    assert_eq!(now.listener("refusals/dial_shortage"), refused + 1);
    assert_eq!(now.sum("/listeners/front/refusals"), refused + 1);

    hosts.free_ports();
    let mut client = hosts.client(&proxy);
    wait::until("it is served again", || {
        (client.get("/").status() == 200).then_some(())
    });
    proxy.wait_until("the shortage is over", |now| shortage(now).is_none());
    drop(client);
    proxy.finish();
}

#[test]
fn a_source_that_others_have_emptied_costs_no_request() {
    let hosts = Hosts::new();
    let held: Vec<TcpStream> = hosts.network.proxy.enter(|| {
        let dial = |port| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            // Not bound to the port, or the kernel would pick it for no address at all.
            choose_port_at_connect(socket.as_fd()).unwrap();
            set_local_ports(socket.as_fd(), &(port..=port)).unwrap();
            let source: SocketAddr = format!("{}:0", SOURCES[1]).parse().unwrap();
            socket.bind(&source.into()).unwrap();
            let service = hosts.service.socket_address();
            socket.connect(&service.into()).unwrap();
            socket.into()
        };
        (50_000..=50_019).map(dial).collect()
    });
    let proxy = hosts.start(&hosts.config(&ranges(&SOURCES, "50000-50019")));
    assert_eq!(hosts.exhaust(&proxy), 20);
    assert_eq!(established_and_exhausted(&proxy), (20, 1));
    let line = said(&proxy, "no free port");
    let told = ", 10.77.2.3 (50000-50019, 20 ports: 0 in TIME_WAIT, 20 in use)";
    assert!(line.contains(told), "{line}");
    drop(held);
    proxy.finish();
}

#[test]
fn another_endpoint_has_ports_of_its_own() {
    let hosts = Hosts::new();
    let seen = Arc::<Seen>::default();
    let noted = Arc::clone(&seen);
    let serve = move |connection: Connection| serve(connection, &noted);
    let other = hosts
        .network
        .service
        .enter(|| Service::start_on(&format!("{SERVICE}:0"), serve));
    let config = Config::to_all(&[hosts.service.address(), other.address()])
        .listen("10.77.1.2:0")
        .upstream("source = [\"10.77.2.2:50000-50009\"]")
        .pool("max_exchanges = 1");
    let proxy = hosts.start(&config);
    assert_eq!(hosts.exhaust(&proxy), 20);
    let (established, exhausted) = established_and_exhausted(&proxy);
    assert_eq!(established, 20);
    assert!(exhausted >= 2, "{exhausted}");
    let counts = [&hosts.seen, &seen].map(|it| it.lock().unwrap().len());
    assert_eq!(counts, [10, 10]);
    proxy.finish();
}

#[test]
fn a_reload_changes_where_new_connections_come_from() {
    let hosts = Hosts::new();
    let config = hosts.config(&ranges(&SOURCES[..1], "50000-50009"));
    let proxy = hosts.start(&config);
    assert_eq!(hosts.exhaust(&proxy), 10);
    proxy.rewrite(&hosts.config(&ranges(&SOURCES, "50000-50009")));
    proxy.signal(Signal::SIGHUP);
    said(&proxy, "upstream.service.source");
    wait::until("the endpoint has rested", || {
        (hosts.exhaust(&proxy) > 0).then_some(())
    });
    let seen = hosts.seen.lock().unwrap().clone();
    let of = |source: &str| {
        seen.iter()
            .filter(|it| it.ip().to_string() == source)
            .count()
    };
    assert_eq!(SOURCES.map(of), [10, 10]);
    proxy.finish();
}

#[test]
fn ipv6_has_sources_too() {
    let hosts = Hosts::serving("[fd77::1]:0");
    let proxy = hosts.start(&hosts.config(&ranges(&SOURCES_V6, "50000-50019")));
    assert_eq!(hosts.exhaust(&proxy), 40);
    let line = said(&proxy, "no free port");
    assert!(
        line.contains("from fd77::2 (50000-50019, 20 ports: "),
        "{line}"
    );
    assert!(
        line.contains(", fd77::3 (50000-50019, 20 ports: "),
        "{line}"
    );
    proxy.finish();
}

#[test]
fn ports_come_out_of_time_wait_where_that_is_allowed_and_no_other_is_free() {
    // Within the host's range, where the kernel picks first, and outside, where millpond picks all.
    for (range, ports) in [
        ("50000-50019", 50_000..=50_019),
        ("20000-20019", 20_000..=20_019),
    ] {
        let hosts = Hosts::new();
        let sources = ranges(&SOURCES[..1], range);
        let config = hosts.config(&sources).upstream("reuse_time_wait = true");
        let proxy = hosts.start(&config);
        let mut client = hosts.client(&proxy);
        for _ in 0..20 {
            assert_eq!(client.get("/").status(), 200);
        }
        let seen: BTreeSet<u16> = hosts
            .seen
            .lock()
            .unwrap()
            .iter()
            .map(SocketAddr::port)
            .collect();
        let all: BTreeSet<u16> = ports.clone().collect();
        assert_eq!(
            seen, all,
            "as long as another is free, none comes out of TIME_WAIT"
        );
        for _ in 0..200 {
            assert_eq!(client.get("/").status(), 200);
        }
        assert_eq!(established_and_exhausted(&proxy), (220, 0));
        let seen = hosts.seen.lock().unwrap().clone();
        assert!(seen.iter().all(|it| ports.contains(&it.port())));
        assert!(hosts.time_waits() <= 20);
        drop(client);
        proxy.finish();
    }
}

#[test]
fn a_range_that_the_kernel_picks_nothing_of_is_dialled_from_all_the_same() {
    let hosts = Hosts::new();
    let proxy = hosts.start(&hosts.config(&ranges(&SOURCES, "20000-20009")));
    let line = said(&proxy, "20000-20009");
    assert!(
        line.contains("one port serves one endpoint at a time"),
        "{line}"
    );
    assert_eq!(hosts.exhaust(&proxy), 20);
    let seen = hosts.seen.lock().unwrap().clone();
    assert!(seen.iter().all(|it| (20_000..=20_009).contains(&it.port())));
    let line = said(&proxy, "no free port");
    assert!(
        line.contains("One port serves one endpoint at a time"),
        "{line}"
    );
    proxy.finish();
}

#[test]
fn an_address_that_is_not_this_hosts_is_named_and_passed_over() {
    let hosts = Hosts::new();
    let foreign = ["10.77.2.99", SOURCES[0]];
    let proxy = hosts.start(&hosts.config(&ranges(&foreign, "50000-50019")));
    let mut client = hosts.client(&proxy);
    for _ in 0..10 {
        assert_eq!(client.get("/").status(), 200);
    }
    said(&proxy, "10.77.2.99 is not an address of this host");
    drop(client);
    proxy.finish();

    let proxy = hosts.start(&hosts.config(&ranges(&foreign[..1], "50000-50019")));
    let mut client = hosts.client(&proxy);
    assert_eq!(client.get("/").status(), 503);
    let line = said(&proxy, "no address to dial");
    assert!(
        line.contains("10.77.2.99 of upstream.service.source is not this host's"),
        "{line}"
    );
    let now = proxy.snapshot();
    assert_eq!(now.upstream("connects/source_unusable"), 1);
    assert_eq!(now.upstream("connects/ports_exhausted"), 0);
    assert_eq!(now.listener("refusals/dial_shortage"), 1);
    // Once it has the address, it dials from it.
    let more = ["address", "add", "10.77.2.99/24", "dev", "service"];
    hosts.network.proxy.run("ip", &more);
    wait::until("it is served", || {
        (client.get("/").status() == 200).then_some(())
    });
    drop(client);
    proxy.finish();
}
