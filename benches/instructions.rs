//! What one HTTP keep-alive exchange costs millpond, counted instead of timed: instructions (by
//! callgrind) and system calls (by strace). Counts don't mind a noisy machine.
//!
//! ```sh
//! cargo build --release && cp target/release/millpond /tmp/millpond-new
//! cargo bench --bench instructions -- /tmp/millpond-new /tmp/millpond-old    # needs valgrind and strace
//! ```
//!
//! Without a build to count, it takes the bench's own, which costs more: it has the clock that tests can
//! stop. A build that is named more often is counted as often. Each figure is the difference between a short
//! and a long run, so that starting and stopping are not in it, but for a few calls: 0.0003 for an exchange.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Exchanges of a short run and of a long one.
const SHORT: u64 = 500;
const LONG: u64 = 20_500;

/// A call that happens more rarely, for one exchange, has no row.
const RARE: f64 = 0.0005;

/// Calls whose number says how threads slept and woke, not what millpond does. A worker waits in
/// `epoll_wait` once for the request and once for the answer. After each 61 turns it looks there without
/// waiting (tokio's `event_interval`), which is one call more if the peer is not so far; and a timer that
/// is due wakes it. On a `futex` threads wait for each other. What wakes a worker out of `epoll_wait` from
/// another thread is a `write` to an eventfd, but one worker has nobody to wake it between two exchanges;
/// so any `write` or `read` that is seen here is millpond's own, and counts.
const OF_SCHEDULING: [&str; 2] = ["epoll_wait", "futex"];

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn main() {
    let service = serve();
    let named = std::env::args().skip(1).filter(|it| !it.starts_with("--"));
    let mut builds: Vec<_> = named.collect();
    if builds.is_empty() {
        builds.push(env!("CARGO_BIN_EXE_millpond").to_owned());
    }
    let costs: Vec<_> = builds
        .iter()
        .map(|build| Cost::of_exchange(build, service))
        .collect();
    print(&builds, &costs);
}

/// What one exchange costs.
struct Cost {
    instructions: f64,
    /// How many of each system call.
    calls: BTreeMap<String, f64>,
}

impl Cost {
    fn of_exchange(build: &str, service: SocketAddr) -> Self {
        let [short, long] = [SHORT, LONG].map(|count| instructions(build, service, count));
        let instructions = for_one(short, long);
        let [short, long] = [SHORT, LONG].map(|count| system_calls(build, service, count));
        let names: BTreeSet<_> = short.keys().chain(long.keys()).collect();
        let calls = names.into_iter().map(|name| {
            let [short, long] = [&short, &long].map(|calls| calls.get(name).copied().unwrap_or(0));
            (name.clone(), for_one(short, long))
        });
        Self {
            instructions,
            calls: calls.collect(),
        }
    }

    fn calls(&self, name: &str) -> f64 {
        self.calls.get(name).copied().unwrap_or(0.0)
    }

    fn all_calls(&self) -> f64 {
        self.calls.values().sum()
    }

    fn calls_but_of_scheduling(&self) -> f64 {
        let of_scheduling = OF_SCHEDULING.map(|name| self.calls(name));
        self.all_calls() - of_scheduling.iter().sum::<f64>()
    }
}

/// What one exchange adds. A call of starting or stopping may be missing in the long run.
fn for_one(short: u64, long: u64) -> f64 {
    (long as f64 - short as f64) / (LONG - SHORT) as f64
}

/// One column for each build, in the order in which they were counted.
fn print(builds: &[String], costs: &[Cost]) {
    let row = |name: &str, digits: usize, of: &dyn Fn(&Cost) -> f64| {
        let figures = costs.iter().map(|cost| format!("{:12.digits$}", of(cost)));
        println!("{name:28}{}", figures.collect::<String>());
    };
    let numbers = (1..=builds.len()).map(|number| format!("{number:12}"));
    println!("{:28}{}", "for one exchange", numbers.collect::<String>());
    row("instructions", 0, &|cost| cost.instructions);
    let names: BTreeSet<_> = costs.iter().flat_map(|cost| cost.calls.keys()).collect();
    for name in names {
        if costs.iter().any(|cost| cost.calls(name).abs() > RARE) {
            row(name, 4, &|cost| cost.calls(name));
        }
    }
    row("all system calls", 4, &Cost::all_calls);
    let rest = format!("without {}", OF_SCHEDULING.join(", "));
    row(&rest, 4, &Cost::calls_but_of_scheduling);
    for (number, build) in (1..).zip(builds) {
        println!("{number}: {build}");
    }
}

fn instructions(build: &str, service: SocketAddr, exchanges: u64) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", build]);
    let said = run(command, service, exchanges);
    let line = said.lines().find(|line| line.contains("Collected :"));
    let number = line.and_then(|line| line.split_whitespace().last());
    number.unwrap_or_else(|| panic!("{said}")).parse().unwrap()
}

fn system_calls(build: &str, service: SocketAddr, exchanges: u64) -> BTreeMap<String, u64> {
    let mut command = Command::new("strace");
    command.args(["--follow-forks", "--summary-only"]);
    command.args(["--summary-columns=calls,name", build]);
    let said = run(command, service, exchanges);
    // Rows of a number and a name, between rules and above a total.
    let calls = said.lines().filter_map(|line| {
        let (count, name) = line.trim().split_once(' ')?;
        Some((name.trim().to_owned(), count.parse().ok()?))
    });
    let mut calls: BTreeMap<_, _> = calls.collect();
    let total = calls.remove("total");
    assert_eq!(total, Some(calls.values().sum()), "{said}");
    calls
}

/// Has millpond, under a program that counts, carry so many exchanges; what was said at the end.
fn run(mut counting: Command, service: SocketAddr, exchanges: u64) -> String {
    let address = free_address();
    let mut child = counting
        // More workers wake each other, now and then.
        .env("MILLPOND__WORKERS", "1")
        .args(["run", "--listen", &address.to_string(), "--admin", "off"])
        .args(["--upstream", &format!("http://{service}")])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    exchange(&connect(address), exchanges);
    stop(&mut child);
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    said
}

/// Ends millpond, which may be a child of the program that counts.
fn stop(child: &mut Child) {
    let id = child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let millpond = children.split_whitespace().next();
    let id = millpond.map_or(id, |child| child.parse().unwrap());
    kill(Pid::from_raw(id.try_into().unwrap()), Signal::SIGTERM).unwrap();
}

fn exchange(mut client: &TcpStream, exchanges: u64) {
    let mut answer = [0; ANSWER.len()];
    for _ in 0..exchanges {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        client.read_exact(&mut answer).unwrap();
        assert!(answer.ends_with(b"cdef"));
    }
}

/// An address on loopback where nobody listens yet.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_nodelay(true).unwrap();
                return stream;
            }
            Err(error) => assert!(Instant::now() < until, "{address}: {error}"),
        }
        std::thread::yield_now();
    }
}

/// A service that answers everything alike, for as long as the process lives.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&stream));
        }
    });
    address
}

fn answer(mut stream: &TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
        if line == "\r\n" && stream.write_all(ANSWER).is_err() {
            return;
        }
        line.clear();
    }
}
