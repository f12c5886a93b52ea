//! millpond itself: the real binary with a configuration file, read through its admin interface.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::client::Client;
use super::message::Wire;
use super::process::Process;
use super::socket::Socket;
use super::{facts, wait};

/// A configuration with one upstream, `service`, and one listener, `front`.
#[derive(Clone)]
pub struct Config {
    listen: String,
    protocol: &'static str,
    front: &'static str,
    endpoints: Vec<String>,
    tables: Vec<(&'static str, Vec<String>)>,
    more: String,
    through: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

impl Config {
    /// In front of one endpoint, listening on a free port of 127.0.0.1.
    pub fn to(endpoint: &str) -> Self {
        Self::to_all(&[endpoint])
    }

    /// In front of several endpoints.
    pub fn to_all(endpoints: &[&str]) -> Self {
        let tables = [
            "shutdown",
            "upstream.service",
            "upstream.service.pool",
            "listener.front",
        ];
        Self {
            listen: "127.0.0.1:0".to_owned(),
            protocol: "http",
            front: "service",
            endpoints: endpoints
                .iter()
                .map(|&endpoint| endpoint.to_owned())
                .collect(),
            tables: tables
                .into_iter()
                .chain(["listener.front.http", "upstream.service.tcp"])
                .chain(["upstream.service.frames"])
                .map(|table| (table, Vec::new()))
                .collect(),
            more: String::new(),
            through: Vec::new(),
            variables: Vec::new(),
        }
    }

    pub fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    /// What the service speaks, where it is not HTTP.
    pub fn protocol(mut self, protocol: &'static str) -> Self {
        self.protocol = protocol;
        self
    }

    /// Another endpoint instead of those before.
    pub fn endpoint(mut self, address: &str) -> Self {
        self.endpoints = vec![address.to_owned()];
        self
    }

    /// The upstream of the listener `front`.
    pub fn upstream_of_front(mut self, name: &'static str) -> Self {
        self.front = name;
        self
    }

    pub fn tcp(self, line: &str) -> Self {
        self.with("upstream.service.tcp", line)
    }

    pub fn frames(self, line: &str) -> Self {
        self.with("upstream.service.frames", line)
    }

    pub fn shutdown(self, line: &str) -> Self {
        self.with("shutdown", line)
    }

    pub fn upstream(self, line: &str) -> Self {
        self.with("upstream.service", line)
    }

    pub fn pool(self, line: &str) -> Self {
        self.with("upstream.service.pool", line)
    }

    pub fn listener(self, line: &str) -> Self {
        self.with("listener.front", line)
    }

    pub fn http(self, line: &str) -> Self {
        self.with("listener.front.http", line)
    }

    /// Whole tables, as they stand.
    pub fn more(mut self, text: &str) -> Self {
        self.more.push_str(text);
        self
    }

    /// Starts millpond without the right to put a filter on a socket.
    pub fn unprivileged(self) -> Self {
        self.through(&[
            "setpriv",
            "--bounding-set=-net_admin",
            "--inh-caps=-net_admin",
        ])
    }

    /// Starts millpond with so many descriptors at most.
    pub fn descriptors(self, max: u32) -> Self {
        self.through(&["prlimit", &format!("--nofile={max}:{max}")])
    }

    /// Starts millpond through another program, which is to become it.
    pub fn through(mut self, command: &[&str]) -> Self {
        self.through = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts millpond with a variable in its environment.
    pub fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    fn with(mut self, table: &str, line: &str) -> Self {
        let row = self
            .tables
            .iter_mut()
            .find(|(name, _)| *name == table)
            .unwrap();
        row.1.push(line.to_owned());
        self
    }

    fn text(&self, admin: &Path) -> String {
        let mut text = format!(
            "workers = 2\n[admin]\nlisten = \"unix:{}\"\n",
            admin.display()
        );
        for (table, lines) in &self.tables {
            writeln!(text, "[{table}]").unwrap();
            match *table {
                "upstream.service" => {
                    writeln!(
                        text,
                        "protocol = {:?}\nendpoints = {:?}",
                        self.protocol, self.endpoints
                    )
                    .unwrap();
                }
                "listener.front" => {
                    writeln!(
                        text,
                        "listen = {:?}\nupstream = {:?}",
                        self.listen, self.front
                    )
                    .unwrap();
                }
                _ => {}
            }
            for line in lines {
                writeln!(text, "{line}").unwrap();
            }
        }
        text + &self.more
    }

    /// Starts millpond with it and waits until it is ready.
    pub fn start(&self) -> Proxy {
        Proxy::start(self)
    }

    /// Runs a millpond that ends by itself: its exit code, and what it said.
    pub fn fail(&self) -> (i32, String) {
        let directory = tempfile::tempdir().unwrap();
        let (status, said) = Process::start(&mut self.command(directory.path())).outcome();
        (status.code().unwrap(), said)
    }

    /// The command line of a millpond whose files are in this directory.
    fn command(&self, directory: &Path) -> Command {
        let file = directory.join("millpond.toml");
        std::fs::write(&file, self.text(&directory.join("admin"))).unwrap();
        let binary = env!("CARGO_BIN_EXE_millpond").to_owned();
        let words: Vec<_> = self.through.iter().chain([&binary]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg("run")
            .arg("--config")
            .arg(file);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A running millpond.
pub struct Proxy {
    process: Process,
    directory: TempDir,
    front: OnceLock<SocketAddr>,
}

impl Proxy {
    pub fn start(config: &Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::start(&mut config.command(directory.path()));
        let mut proxy = Self {
            process,
            directory,
            front: OnceLock::new(),
        };
        wait::until("millpond is ready", || {
            if let Some(status) = proxy.process.ended() {
                panic!("millpond ended at its start: {status}");
            }
            let said = proxy.process.said();
            said.iter().any(|line| is_ready(line)).then_some(())
        });
        proxy
    }

    /// Where the listener `front` listens; asked once.
    pub fn address(&self) -> SocketAddr {
        *self.front.get_or_init(|| self.address_of("front"))
    }

    /// Where a listener listens.
    pub fn address_of(&self, listener: &str) -> SocketAddr {
        let address = self
            .snapshot()
            .text(&format!("/listeners/{listener}/address"));
        address
            .parse()
            .unwrap_or_else(|_| panic!("not an IP address: {address}"))
    }

    /// A new client of the listener `front`.
    pub fn client(&self) -> Client {
        Client::dial(self.address())
    }

    /// One consistent copy of all statistics.
    pub fn snapshot(&self) -> Snapshot {
        let (status, body) = self.admin("GET", "/api/v1/snapshot");
        assert_eq!(status, 200, "{body}");
        Snapshot(serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }

    /// The metrics' text.
    pub fn metrics(&self) -> String {
        let (status, body) = self.admin("GET", "/metrics");
        assert_eq!(status, 200, "{body}");
        body
    }

    /// One request to the admin interface: its status and body.
    pub fn admin(&self, method: &str, path: &str) -> (u16, String) {
        self.try_admin(method, path)
            .expect("the admin interface answers")
    }

    /// The same, of a millpond that may be gone.
    pub fn try_admin(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut wire = Wire::new(Socket::dial_unix(&self.directory.path().join("admin")).ok()?);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        wire.send(request).ok()?;
        let response = wire.response(method).ok()?;
        Some((response.status(), response.text()))
    }

    /// Waits until the statistics say so.
    pub fn wait_until(&self, what: &str, holds: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        self.wait_within(wait::PATIENCE, what, holds)
    }

    /// Waits until the statistics say so, for `limit` at most.
    pub fn wait_within(
        &self,
        limit: std::time::Duration,
        what: &str,
        mut holds: impl FnMut(&Snapshot) -> bool,
    ) -> Snapshot {
        let mut last = None;
        let deadline = wait::now() + limit;
        loop {
            let snapshot = self.snapshot();
            if holds(&snapshot) {
                return snapshot;
            }
            last.replace(snapshot);
            assert!(
                wait::now() < deadline,
                "waited in vain: {what}\n{:#}",
                last.unwrap().0
            );
            wait::pace(std::time::Duration::from_millis(5));
        }
    }

    /// Waits until a number of the upstream `service` has this value.
    pub fn wait_upstream(&self, name: &str, value: u64) -> Snapshot {
        self.wait_until(&format!("{name} = {value}"), |now| {
            now.upstream(name) == value
        })
    }

    /// Waits until so many exchanges are counted: a client has its answer a moment before.
    pub fn wait_completed(&self, count: u64) -> Snapshot {
        self.wait_upstream("exchanges/completed", count)
    }

    /// Waits until a number of the listener `front` has this value.
    pub fn wait_listener(&self, name: &str, value: u64) -> Snapshot {
        self.wait_until(&format!("{name} = {value}"), |now| {
            now.listener(name) == value
        })
    }

    /// Puts another configuration in place of the file. It is not applied yet.
    pub fn rewrite(&self, config: &Config) {
        let text = config.text(&self.directory.path().join("admin"));
        std::fs::write(self.directory.path().join("millpond.toml"), text).unwrap();
    }

    /// Puts bytes in place of the file. They are not applied yet.
    pub fn rewrite_raw(&self, text: &str) {
        std::fs::write(self.directory.path().join("millpond.toml"), text).unwrap();
    }

    /// A directory that lives as long as this millpond.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for the end of the process.
    pub fn wait(mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Ends a test: holds the ledger against the kernel, drains, and expects exit code 0.
    pub fn finish(self) {
        facts::check(&self);
        self.signal(Signal::SIGTERM);
        assert_eq!(
            self.wait().code(),
            Some(0),
            "a drained millpond exits with 0"
        );
    }
}

/// Whether a line of the log, text or JSON, says so. An address already in use is another matter.
fn is_ready(line: &str) -> bool {
    line.contains(" ready ") || line.contains("\"ready\"")
}

/// One consistent copy of all statistics.
pub struct Snapshot(pub Value);

impl Snapshot {
    /// A number of the upstream `service`: `exchanges/completed`.
    pub fn upstream(&self, path: &str) -> u64 {
        self.number(&format!("/upstreams/service/{path}"))
    }

    /// A number of the listener `front`: `refusals/bad_length`.
    pub fn listener(&self, path: &str) -> u64 {
        self.number(&format!("/listeners/front/{path}"))
    }

    /// A number of the only, or first, endpoint of `service`: `idle`.
    pub fn endpoint(&self, name: &str) -> u64 {
        self.upstream(&format!("endpoints/0/{name}"))
    }

    /// How many slots of the first endpoint's pool are taken, for whatever.
    pub fn taken_slots(&self) -> u64 {
        let states = ["connecting", "idle", "leased", "shared", "closing"];
        states.iter().map(|state| self.endpoint(state)).sum()
    }

    /// The number at a JSON pointer; it must be there.
    pub fn number(&self, pointer: &str) -> u64 {
        let number = self.0.pointer(pointer).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("no number at {pointer} in\n{:#}", self.0))
    }

    /// The text at a JSON pointer; it must be there.
    pub fn text(&self, pointer: &str) -> String {
        let text = self.0.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_else(|| panic!("no text at {pointer} in\n{:#}", self.0))
            .to_owned()
    }

    /// The sum of all numbers of an object: `/upstreams/service/opens`.
    pub fn sum(&self, pointer: &str) -> u64 {
        let object = self.0.pointer(pointer).and_then(Value::as_object);
        let object = object.unwrap_or_else(|| panic!("no object at {pointer} in\n{:#}", self.0));
        object.values().map(|value| value.as_u64().unwrap()).sum()
    }

    /// The count of the rows of `list` that have all these labels. `["initiator=upstream"]`
    pub fn rows(&self, list: &str, labels: &[&str]) -> u64 {
        let rows = self.0.pointer(list).and_then(Value::as_array);
        let rows = rows.unwrap_or_else(|| panic!("no list at {list} in\n{:#}", self.0));
        let labelled = |row: &&Value| {
            labels.iter().all(|label| {
                let (name, text) = label.split_once('=').unwrap();
                row[name].as_str().is_some_and(|value| value == text)
            })
        };
        rows.iter()
            .filter(labelled)
            .map(|row| row["count"].as_u64().unwrap())
            .sum()
    }

    /// How many sessions of `front` ended like this: `["initiator=upstream", "manner=truncated"]`.
    pub fn session_ends(&self, labels: &[&str]) -> u64 {
        self.rows("/listeners/front/terminations", labels)
    }

    /// How many connections of `service` ended like this.
    pub fn connection_ends(&self, labels: &[&str]) -> u64 {
        self.rows("/upstreams/service/terminations", labels)
    }

    /// How many RSTs millpond sent, on all sides.
    pub fn resets_sent(&self) -> u64 {
        self.resets("sent")
    }

    /// How many RSTs millpond received, on all sides.
    pub fn resets_received(&self) -> u64 {
        self.resets("received")
    }

    /// Fails where millpond sent or received an RST, on whichever side.
    pub fn expect_no_resets(&self) {
        let resets = (self.resets_sent(), self.resets_received());
        assert_eq!(resets, (0, 0), "{:#}", self.0);
    }

    fn resets(&self, direction: &str) -> u64 {
        let label = format!("direction={direction}");
        let of = |side: &str| -> u64 {
            let names = self.0[side].as_object().unwrap().keys();
            names
                .map(|name| self.rows(&format!("/{side}/{name}/resets"), &[&label]))
                .sum()
        };
        of("listeners") + of("upstreams")
    }

    /// The names under `listeners` or `upstreams`.
    pub fn names(&self, side: &str) -> Vec<String> {
        self.0[side].as_object().unwrap().keys().cloned().collect()
    }
}
