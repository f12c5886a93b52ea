//! What one HTTP keep-alive exchange costs millpond, counted instead of timed: instructions (by
//! callgrind) and system calls (by strace). Counts don't mind a noisy machine.
//!
//! ```sh
//! cargo build --release && cp target/release/millpond /tmp/millpond-new
//! cargo bench --bench instructions -- /tmp/millpond-new /tmp/millpond-old    # needs valgrind and strace
//! ```
//!
//! Without a build to count, it takes the bench's own, which costs more: it has the clock that tests can
//! stop. Each figure is the difference between a short and a long run, so that starting and stopping are not in it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Exchanges of a short run and of a long one.
const SHORT: u64 = 500;
const LONG: u64 = 5500;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn main() {
    let service = serve();
    let named = std::env::args().skip(1).filter(|it| !it.starts_with("--"));
    let mut builds: Vec<_> = named.collect();
    if builds.is_empty() {
        builds.push(env!("CARGO_BIN_EXE_millpond").to_owned());
    }
    println!("for one exchange: instructions, system calls, build");
    for build in builds {
        let instructions = difference(|count| instructions(&build, service, count));
        let calls = difference(|count| system_calls(&build, service, count));
        println!("{instructions:10.0} {calls:8.3}  {build}");
    }
}

fn difference(count: impl Fn(u64) -> u64) -> f64 {
    let (long, short) = (count(LONG), count(SHORT));
    (long - short) as f64 / (LONG - SHORT) as f64
}

fn instructions(build: &str, service: SocketAddr, exchanges: u64) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", build]);
    let said = run(command, service, exchanges);
    let line = said.lines().find(|line| line.contains("Collected :"));
    let number = line.and_then(|line| line.split_whitespace().last());
    number.unwrap_or_else(|| panic!("{said}")).parse().unwrap()
}

fn system_calls(build: &str, service: SocketAddr, exchanges: u64) -> u64 {
    let mut command = Command::new("strace");
    command.args(["--follow-forks", "--summary-only", build]);
    let said = run(command, service, exchanges);
    // "100.00    0.1  2  12345  67 total", the errors perhaps absent.
    let line = said.lines().find(|line| line.trim_end().ends_with("total"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

/// Has millpond, under a program that counts, carry so many exchanges; what was said at the end.
fn run(mut counting: Command, service: SocketAddr, exchanges: u64) -> String {
    let address = free_address();
    let mut child = counting
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
