//! redis-server with a directory of its own, and the way straight to it.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::client::Client;
use crate::support::nginx::free_address;
use crate::support::process::Process;
use crate::support::socket::Socket;
use crate::support::wait;

/// A running Redis that keeps nothing. Dropping it kills it.
pub struct Redis {
    process: Mutex<Option<Process>>,
    directory: TempDir,
    address: SocketAddr,
    options: Vec<String>,
}

/// What the connections straight to Redis are called there.
const WITNESS: &str = "witness";

impl Redis {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::start_on("127.0.0.1", &[])
    }

    /// Listens on a free port of `host`, with these options.
    pub fn start_on(host: &str, options: &[&str]) -> Self {
        let redis = Self {
            process: Mutex::new(None),
            directory: tempfile::tempdir().unwrap(),
            address: free_address(host),
            options: options.iter().map(|&word| word.to_owned()).collect(),
        };
        redis.run();
        redis
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it, and starts it again at the same address with no memory of before.
    pub fn restart(&self) {
        self.kill();
        self.run();
    }

    /// Ends it by SIGKILL.
    pub fn kill(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            process.signal(Signal::SIGKILL);
            process.wait();
        }
    }

    /// Starts it again after [`Redis::kill`].
    pub fn run(&self) {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", &self.address.ip().to_string()])
            .args(["--port", &self.address.port().to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--maxclients", "40000", "--tcp-backlog", "4096"])
            .args(["--enable-debug-command", "yes"])
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.options);
        let mut process = Process::start(&mut command);
        let mut kept = self.process.lock().unwrap();
        wait::until("redis-server listens", || {
            let status = process.ended();
            assert!(status.is_none(), "it ended at its start: {status:?}");
            Socket::try_dial(self.address).ok()
        });
        *kept = Some(process);
    }

    /// A connection straight to it, which it knows from millpond's by its name.
    pub fn witness(&self) -> Client {
        let mut client = Client::dial(self.address);
        client.ask(&["CLIENT", "SETNAME", WITNESS]);
        client
    }

    /// A number that INFO says.
    pub fn info(&self, name: &str) -> u64 {
        let text = self.witness().ask(&["INFO", "everything"]).text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}:\n{text}"))
            .parse()
            .unwrap()
    }

    /// How many connections it has that are not straight.
    pub fn connections(&self) -> u64 {
        connection_ids(&mut self.witness()).len() as u64
    }
}

/// The ids that Redis gave to all connections but the straight ones.
pub fn connection_ids(witness: &mut Client) -> Vec<String> {
    let text = witness.ask(&["CLIENT", "LIST"]).text();
    let named = format!(" name={WITNESS} ");
    let others = text.lines().filter(|line| !line.contains(&named));
    let ids = others.filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
    ids.map(str::to_owned).collect()
}
