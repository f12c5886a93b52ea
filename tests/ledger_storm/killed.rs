//! Clients and services that are processes, and are killed in the middle of what they do.
//!
//! The processes are those of `peer.py`, one for each connection; each says when it is where it is to be
//! killed. A killed process leaves its connection to the kernel: that says FIN where everything was read,
//! and RST where something was not.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::addresses;
use crate::journal::{Fault, IN_ORDER, Journal, Page};
use crate::support::client::{self, Client};
use crate::support::netns::{Network, SERVICE};

pub const UPSTREAM: &str = "killed";

/// What is asked of a service that is killed.
static SERVICE_FAULTS: [(&str, Fault); 4] = [
    (
        "unanswered",
        Fault {
            name: "is killed with the request read",
            own: &[],
            other: &[],
            must: false,
        },
    ),
    (
        "unread",
        Fault {
            name: "is killed with the request unread",
            own: &["URR received request peer"],
            other: &[],
            must: true,
        },
    ),
    (
        "half",
        Fault {
            name: "is killed inside its answer",
            own: &["UPT none response truncated"],
            other: &["UPT none response truncated"],
            must: true,
        },
    ),
    (
        "half-unread",
        Fault {
            name: "is killed inside its answer, with a body unread",
            own: &["UPR received response peer"],
            other: &["UPT none response truncated"],
            must: true,
        },
    ),
];

/// A client that reads no more of it is what ends this answer, or else the time that millpond waits.
static STOPS_IN_ANSWER: Fault = Fault {
    name: "stops inside its answer",
    own: &["MPO sent response abandoned"],
    other: &[],
    must: false,
};

/// What a client does until it is killed.
static CLIENT_FAULTS: [(&str, Fault); 5] = [
    (
        "rest",
        Fault {
            name: "is killed between exchanges",
            own: &[],
            other: &[],
            must: false,
        },
    ),
    (
        "rest-unread",
        Fault {
            name: "is killed with its answer unread",
            own: &["DIR received idle peer"],
            other: &[],
            must: true,
        },
    ),
    (
        "head",
        Fault {
            name: "is killed inside a head",
            own: &["DRT none request truncated"],
            other: &[],
            must: true,
        },
    ),
    (
        "slow-unread",
        Fault {
            name: "is killed inside its answer, which is unread",
            own: &["DPR received response peer"],
            other: &["DPS sent response abandoned"],
            must: true,
        },
    ),
    (
        "slow",
        Fault {
            name: "is killed inside its answer",
            own: &[],
            other: &[],
            must: false,
        },
    ),
];

fn fault_of(table: &'static [(&str, Fault)], how: &str) -> &'static Fault {
    let row = table.iter().find(|(name, _)| *name == how);
    &row.unwrap_or_else(|| panic!("nobody asked for {how}")).1
}

fn kill_by_id(pid: &str) {
    let pid = Pid::from_raw(pid.parse().unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
}

fn run(arguments: &[&str]) -> Child {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ledger_storm/peer.py");
    Command::new("/usr/bin/python3")
        .args(["-B", program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs; tests/run installs it")
}

/// The service whose connections are processes.
pub struct Services {
    parent: Child,
    address: String,
    killer: Option<JoinHandle<()>>,
}

impl Services {
    pub fn start(network: &Network, journal: &Journal) -> Self {
        let mut parent = network.service.enter(|| run(&["serve", SERVICE]));
        let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let port = first.strip_prefix("listening ").unwrap();
        let journal = journal.clone();
        let address = format!("{SERVICE}:{port}");
        let killer = std::thread::spawn(move || attend(lines, &journal));
        Self {
            parent,
            address,
            killer: Some(killer),
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits until every connection has ended and is noted.
    pub fn finish(mut self) {
        self.parent.kill().unwrap();
        self.parent.wait().unwrap();
        // The pipe ends with the last child.
        self.killer.take().unwrap().join().unwrap();
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let _ = self.parent.kill();
        let _ = self.parent.wait();
    }
}

/// Notes what the processes of the service do, and kills those that wait for it.
fn attend(lines: Lines<BufReader<ChildStdout>>, journal: &Journal) {
    let mut pages: HashMap<String, Page> = HashMap::new();
    for line in lines.map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["accepted", peer] => {
                let page = journal.service(UPSTREAM, peer.to_owned());
                pages.insert(peer.to_owned(), page);
            }
            ["ready", pid, peer, how, count] => {
                let count = count.parse().unwrap();
                let fault = fault_of(&SERVICE_FAULTS, how);
                pages.remove(peer).unwrap().close(fault, count..=count);
                kill_by_id(pid);
            }
            ["stopped", peer, count] => {
                let count = count.parse().unwrap();
                let page = pages.remove(peer).unwrap();
                page.close(&STOPS_IN_ANSWER, count..=count);
            }
            ["ended", peer, count] => {
                let count = count.parse().unwrap();
                pages.remove(peer).unwrap().close(&IN_ORDER, count..=count);
            }
            _ => panic!("what is this? {line}"),
        }
    }
    assert!(pages.is_empty(), "they have not ended: {pages:?}");
}

/// The clients that are processes, one at a time.
pub struct Clients {
    parent: Child,
    door: SocketAddr,
    talk: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Clients {
    pub fn start(network: &Network, door: SocketAddr) -> Self {
        let (address, port) = (door.ip().to_string(), door.port().to_string());
        let mut parent = network.clients.enter(|| run(&["visit", &address, &port]));
        let said = BufReader::new(parent.stdout.take().unwrap()).lines();
        let talk = Mutex::new((parent.stdin.take().unwrap(), said));
        Self { parent, door, talk }
    }

    /// One visit at whose end somebody is killed.
    pub fn visit(&self, random: &mut fastrand::Rng, journal: &Journal) {
        if random.bool() {
            let (how, _) = random.choice(&SERVICE_FAULTS).unwrap();
            visit_doomed(self.door, how, journal);
        } else {
            let (how, fault) = random.choice(&CLIENT_FAULTS).unwrap();
            self.visit_to_die(how, fault, journal);
        }
    }

    fn visit_to_die(&self, how: &str, fault: &'static Fault, journal: &Journal) {
        let mut talk = self.talk.lock().unwrap();
        let own = addresses::next();
        writeln!(talk.0, "{how} {} {}", own.ip(), own.port()).unwrap();
        let line = talk.1.next().unwrap().unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let ["ready", pid, own, _, count] = words[..] else {
            panic!("what is this? {line}");
        };
        let count = count.parse().unwrap();
        let page = journal.client(UPSTREAM, own.to_owned());
        page.close(fault, count..=count);
        kill_by_id(pid);
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.parent.kill();
        let _ = self.parent.wait();
    }
}

/// A client that behaves, of a service that is killed.
fn visit_doomed(door: SocketAddr, how: &str, journal: &Journal) {
    let mut client = Client::over(addresses::dial(door));
    let page = journal.client(UPSTREAM, client.socket.ends().0);
    let target = format!("/{how}");
    let request = match how {
        "half-unread" => client::post(&target, b"unread"),
        _ => client::last_get(&target).into_bytes(),
    };
    let _ = client.try_send(request);
    client.socket.half_close();
    let _ = client.until_end();
    page.close(&IN_ORDER, 1..=1);
}
