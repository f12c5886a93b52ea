//! memcached, and the way straight to it.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;

use nix::sys::signal::Signal;

use crate::client::Client;
use crate::support::nginx::free_address;
use crate::support::process::Process;
use crate::support::socket::Socket;
use crate::support::wait;

/// A running memcached. Dropping it kills it.
pub struct Memcached {
    process: Mutex<Option<Process>>,
    address: SocketAddr,
    /// What it calls connections before there is any but the asker's.
    quiet: Mutex<u64>,
}

impl Memcached {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::start_on("127.0.0.1")
    }

    /// Listens on a free port of `host`.
    pub fn start_on(host: &str) -> Self {
        let memcached = Self {
            process: Mutex::new(None),
            address: free_address(host),
            quiet: Mutex::new(0),
        };
        memcached.run();
        memcached
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it by SIGKILL.
    pub fn kill(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            process.signal(Signal::SIGKILL);
            process.wait();
        }
    }

    /// Starts it again after [`Memcached::kill`], with no memory of before.
    pub fn run(&self) {
        let mut command = Command::new("memcached");
        command
            .args(["-l", &self.address.ip().to_string()])
            .args(["-p", &self.address.port().to_string()])
            .args(["-U", "0", "-u", "root", "-c", "4096", "-t", "4"])
            .args(["-m", "256", "-I", "32m"]);
        let mut process = Process::start(&mut command);
        wait::until("memcached listens", || {
            let status = process.ended();
            assert!(status.is_none(), "it ended at its start: {status:?}");
            Socket::try_dial(self.address).ok()
        });
        *self.process.lock().unwrap() = Some(process);
        // The harness's own connections are still closing.
        let mut last = u64::MAX;
        let quiet = wait::until("the number of connections is stable", || {
            let now = self.statistic("curr_connections");
            wait::pace(std::time::Duration::from_millis(20));
            (std::mem::replace(&mut last, now) == now).then_some(now)
        });
        let mut kept = self.quiet.lock().unwrap();
        // millpond may have come back by now.
        if *kept == 0 {
            *kept = quiet;
        }
    }

    /// A number of `stats`.
    pub fn statistic(&self, name: &str) -> u64 {
        let mut client = Client::dial(self.address);
        client.send("stats\r\n");
        let mut found = None;
        loop {
            let line = client.line();
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["END"] => break,
                ["STAT", it, value] if it == name => found = value.parse().ok(),
                _ => {}
            }
        }
        found.unwrap_or_else(|| panic!("no {name}"))
    }

    /// How many connections it has but the asker's.
    pub fn connections(&self) -> u64 {
        let now = self.statistic("curr_connections");
        now.saturating_sub(*self.quiet.lock().unwrap())
    }
}
