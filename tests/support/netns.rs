//! Network namespaces of a test's own, where RSTs and sockets can be counted exactly.
//!
//! [`Network`] is a client's host, millpond's host and a service's host, joined by two cables:
//!
//! ```text
//! clients 10.77.1.1 ── 10.77.1.2 proxy 10.77.2.2 ── 10.77.2.1 service
//! ```
//!
//! A namespace goes when its value is dropped; those of test processes that were killed go when the
//! next one is made.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

use super::process::{Process, attempt, run};
use super::wait;

/// One namespace.
pub struct Namespace {
    name: String,
}

/// Three hosts and two cables.
pub struct Network {
    pub clients: Namespace,
    pub proxy: Namespace,
    pub service: Namespace,
}

/// The RSTs that crossed a cable at millpond's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resets {
    pub sent: u64,
    pub received: u64,
}

/// Millpond's address on the clients' cable.
pub const PROXY: &str = "10.77.1.2";
/// The service's address.
pub const SERVICE: &str = "10.77.2.1";

impl Namespace {
    /// A namespace with its loopback up.
    pub fn create(role: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        sweep();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.run("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// Runs `body` in a thread inside: sockets that it makes, threads and programs that it starts
    /// are inside too.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                body()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program inside, to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.enter(|| run(program, arguments))
    }

    /// Has one processor receive everything from a cable. Otherwise two of them overtake each other
    /// now and then, and a late ACK that meets no socket any more is answered by an RST: a fact of
    /// the cable, not of the hosts.
    fn keep_order(&self, device: &str) {
        let file = format!("/sys/class/net/{device}/queues/rx-0/rps_cpus");
        let write = format!("echo 1 > {file}");
        run("ip", &["netns", "exec", &self.name, "sh", "-c", &write]);
    }

    /// Lets hosts that close first, and keep TIME_WAIT, make 60,000 connections to one address.
    fn widen_ports(&self) {
        let file = "/proc/sys/net/ipv4/ip_local_port_range";
        self.enter(|| std::fs::write(file, "1024 65000").unwrap());
    }

    fn drop_arrivals(&self, device: &str) {
        self.run("nft", &["add", "table", "inet", "cut"]);
        let chain = "{ type filter hook input priority -10; }";
        self.run("nft", &["add", "chain", "inet", "cut", "input", chain]);
        let rule = [
            "add", "rule", "inet", "cut", "input", "iifname", device, "drop",
        ];
        self.run("nft", &rule);
    }

    /// How many TCP sockets inside match an `ss` filter: `state time-wait sport = :80`.
    pub fn sockets(&self, filter: &str) -> u64 {
        let words: Vec<&str> = ["-tnaH"].into_iter().chain(filter.split(' ')).collect();
        self.run("ss", &words).lines().count() as u64
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = attempt("ip", &["netns", "del", &self.name]);
    }
}

impl Network {
    pub fn create() -> Self {
        let network = Self {
            clients: Namespace::create("clients"),
            proxy: Namespace::create("proxy"),
            service: Namespace::create("service"),
        };
        network.join(&network.clients, "clients", "10.77.1.1/24", "10.77.1.2/24");
        network.join(&network.service, "service", "10.77.2.1/24", "10.77.2.2/24");
        network.clients.widen_ports();
        let rules = network
            .proxy
            .enter(|| tempfile::NamedTempFile::new().unwrap());
        std::fs::write(rules.path(), RULES).unwrap();
        network
            .proxy
            .run("nft", &["-f", &rules.path().to_string_lossy()]);
        network
    }

    /// Lets millpond's kernel send again what is lost on the way to the service after 20 ms instead of
    /// 200, for connections made from now on.
    pub fn hasten_retransmissions(&self) {
        let route = "route change 10.77.2.0/24 dev service proto kernel scope link src 10.77.2.2";
        let words = route.split(' ').chain(["rto_min", "20ms"]);
        self.proxy.run("ip", &words.collect::<Vec<_>>());
    }

    /// Replaces the cable to the service by one on which everything takes so many seconds. It lasts as
    /// long as the program that carries it.
    pub fn stretch(&self, seconds: &str) -> Process {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let ends = ["p", "s"].map(|end| format!("{end}{}-{number}", std::process::id()));
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/race/cable.py");
        let mut command = Command::new("/usr/bin/python3");
        let cable = Process::start(command.args(["-B", program, seconds]).args(&ends));
        wait::until("the cable has two ends", || {
            let is_there = |end: &String| run("ip", &["-o", "link"]).contains(end.as_str());
            ends.iter().all(is_there).then_some(())
        });
        self.proxy.run("ip", &["link", "del", "service"]);
        for (end, namespace, name, address) in [
            (&ends[0], &self.proxy, "service", "10.77.2.2/24"),
            (&ends[1], &self.service, "proxy", "10.77.2.1/24"),
        ] {
            let place = ["netns", namespace.name.as_str(), "name", name];
            run(
                "ip",
                &[["link", "set", end.as_str()].as_slice(), &place].concat(),
            );
            namespace.run("ip", &["address", "add", address, "dev", name]);
            namespace.run("ip", &["link", "set", name, "up"]);
        }
        cable
    }

    /// RSTs on the cable to the clients.
    pub fn downstream_resets(&self) -> Resets {
        self.resets("downstream")
    }

    /// RSTs on the cable to the service.
    pub fn upstream_resets(&self) -> Resets {
        self.resets("upstream")
    }

    /// Nothing crosses the cable to the clients from now on, and nobody is told.
    pub fn cut_clients(&self) {
        self.cut(&self.clients, "clients");
    }

    /// Nothing gets to the clients from now on; what they send arrives.
    pub fn cut_to_clients(&self) {
        self.clients.drop_arrivals("proxy");
    }

    /// Nothing crosses the cable to the service from now on, and nobody is told.
    pub fn cut_service(&self) {
        self.cut(&self.service, "service");
    }

    /// Mends the cables that were cut.
    pub fn mend(&self) {
        for host in [&self.proxy, &self.clients, &self.service] {
            host.run("nft", &["add", "table", "inet", "cut"]);
            host.run("nft", &["delete", "table", "inet", "cut"]);
        }
    }

    /// Both hosts drop what arrives; dropped on its way out, its sender would hear of it.
    fn cut(&self, host: &Namespace, cable: &str) {
        for (at, device) in [(&self.proxy, cable), (host, "proxy")] {
            at.drop_arrivals(device);
        }
    }

    /// Leaves millpond's host only these ports to dial from: `"50000 50000"`.
    pub fn set_ports(&self, range: &str) {
        let file = "/proc/sys/net/ipv4/ip_local_port_range";
        self.proxy.enter(|| std::fs::write(file, range).unwrap());
    }

    /// Connections dialled towards the service (SYNs, without those sent again).
    pub fn connects(&self) -> u64 {
        self.counter("upstream_syn_sent")
    }

    fn resets(&self, leg: &str) -> Resets {
        Resets {
            sent: self.counter(&format!("{leg}_sent")),
            received: self.counter(&format!("{leg}_received")),
        }
    }

    fn counter(&self, name: &str) -> u64 {
        let text = self
            .proxy
            .run("nft", &["list", "counter", "inet", "count", name]);
        let mut words = text.split_whitespace();
        words
            .find(|word| *word == "packets")
            .unwrap_or_else(|| panic!("no counter: {text}"));
        words.next().unwrap().parse().unwrap()
    }

    /// The cable's end in millpond's host has the name of the other host.
    fn join(&self, other: &Namespace, name: &str, there: &str, here: &str) {
        let proxy = &self.proxy;
        let (far, near) = (other.name.as_str(), proxy.name.as_str());
        proxy.run(
            "ip",
            &[
                "link", "add", name, "type", "veth", "peer", "name", "proxy", "netns", far,
            ],
        );
        debug_assert!(near.starts_with(PREFIX));
        proxy.run("ip", &["address", "add", here, "dev", name]);
        proxy.run("ip", &["link", "set", name, "up"]);
        other.run("ip", &["address", "add", there, "dev", "proxy"]);
        other.run("ip", &["link", "set", "proxy", "up"]);
        proxy.keep_order(name);
        other.keep_order("proxy");
    }
}

const PREFIX: &str = "millpond-";

const RULES: &str = "
table inet count {
  counter downstream_sent {}
  counter downstream_received {}
  counter upstream_sent {}
  counter upstream_received {}
  counter upstream_syn_sent {}
  chain input {
    type filter hook input priority 0;
    iifname clients tcp flags & rst == rst counter name downstream_received
    iifname service tcp flags & rst == rst counter name upstream_received
  }
  chain output {
    type filter hook output priority 0;
    oifname clients tcp flags & rst == rst counter name downstream_sent
    oifname service tcp flags & rst == rst counter name upstream_sent
    oifname service tcp flags & (syn | ack) == syn counter name upstream_syn_sent
  }
}
";

/// Removes the namespaces of test processes that are no more.
fn sweep() {
    for line in run("ip", &["netns", "list"]).lines() {
        let name = line.split(' ').next().unwrap();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = attempt("ip", &["netns", "del", name]);
        }
    }
}
