//! memcached on a port of its own.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use super::nginx::free_address;
use super::process::Process;
use super::socket::Socket;
use super::wait;

/// A running memcached. Dropping it kills it.
pub struct Memcached {
    _process: Process,
    address: SocketAddr,
}

impl Memcached {
    /// Serves on a free port with these arguments besides.
    pub fn start(arguments: &[&str]) -> Self {
        let mut said = Vec::new();
        for _ in 0..5 {
            match Self::attempt(arguments) {
                Ok(started) => return started,
                Err(last) => said = last,
            }
        }
        panic!("memcached ends at its start: {said:?}")
    }

    /// A port that was free may be held for a moment by a process that another thread is starting:
    /// what memcached said then.
    fn attempt(arguments: &[&str]) -> Result<Self, Vec<String>> {
        let address = free_address(&own_host());
        let mut command = Command::new("memcached");
        command.args(["-u", "root", "-U", "0", "-p", &address.port().to_string()]);
        command
            .args(["-l", &address.ip().to_string()])
            .args(arguments);
        let mut process = Process::start(&mut command);
        let answers = wait::until("memcached answers", || {
            if process.ended().is_some() {
                return Some(false);
            }
            // It listens before all of it is at work.
            let mut socket = Socket::try_dial(address).ok()?;
            socket.send(b"version\r\n").ok()?;
            socket.receive(&mut [0; 64]).ok().map(|_| true)
        });
        match answers {
            true => Ok(Self {
                _process: process,
                address,
            }),
            false => Err(process.said()),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// An address that nobody else on this machine dials from or listens on: between the choice of a port
/// and the listening on it there is time for others.
fn own_host() -> String {
    static STARTED: AtomicU8 = AtomicU8::new(1);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let started = STARTED.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{middle}.{}", 64 | high, low ^ started)
}
