//! The matrix: one case for each way in which connections end, and all that is held against it.
//!
//! A case is a client and a service that follow their scripts in network namespaces, and what the ledger
//! must say of the two connections between them. [`run`] plays it and checks, for every end: the
//! statistics, the metrics, the record, the tie to the other leg, the line in the log, and the RSTs that
//! crossed each cable.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::support::client::Client;
use crate::support::netns::{Network, PROXY, Resets, SERVICE};
use crate::support::proxy::{Config, Proxy, Snapshot};
use crate::support::socket::Socket;
use crate::support::upstream::{Connection, Service};
use crate::support::wait::{self, Gate};

pub use expect::{Count, End, Facts, end};

use super::observe::{self, Observed};

/// What a listener and its upstream speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Frames,
    Tcp,
    /// `tcp` whose connections serve one client after the other.
    Promised,
}

/// One case.
pub struct Case {
    pub name: String,
    pub protocol: Protocol,
    configure: fn(Config) -> Config,
    serve: fn(Connection, &Stage),
    play: fn(&Scene<'_>),
    pub sessions: Vec<End>,
    pub connections: Vec<End>,
    ends_itself: bool,
    /// RSTs of the kernel's own, to clients and to the service.
    kernel_resets: [u64; 2],
}

/// What the two scripts of a case share.
#[derive(Clone, Default)]
pub struct Stage {
    /// Opened by one for the other, in the order of the play.
    pub first: Gate,
    pub second: Gate,
    notes: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    /// The addresses of the clients.
    clients: Arc<Mutex<Vec<String>>>,
    /// Millpond's own addresses, as the service sees them.
    locals: Arc<Mutex<Vec<String>>>,
}

/// What a client's script plays with.
pub struct Scene<'a> {
    pub stage: &'a Stage,
    pub proxy: &'a Proxy,
    pub service: &'a Service,
    pub network: &'a Network,
    /// Those that stay until everything is checked.
    kept: Mutex<Vec<Client>>,
}

impl Stage {
    /// Notes a number that the ledger is to be held against.
    pub fn note(&self, what: &'static str, count: u64) {
        *self.notes.lock().unwrap().entry(what).or_default() += count;
    }

    pub fn noted_or_zero(&self, what: &str) -> u64 {
        self.notes.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    pub fn noted(&self, what: &str) -> u64 {
        let notes = self.notes.lock().unwrap();
        *notes
            .get(what)
            .unwrap_or_else(|| panic!("nobody noted: {what}"))
    }
}

impl Scene<'_> {
    /// A new client.
    pub fn client(&self) -> Client {
        self.client_with(|_| {})
    }

    /// A new client whose socket is prepared before it is connected.
    pub fn client_with(&self, prepare: impl FnOnce(&socket2::Socket)) -> Client {
        let socket = Socket::dial_with(self.proxy.address(), prepare);
        self.stage.clients.lock().unwrap().push(socket.ends().0);
        Client::over(socket)
    }

    /// Leaves a client as it is until everything is checked.
    pub fn keep(&self, client: Client) {
        self.kept.lock().unwrap().push(client);
    }
}

/// Bytes that the kernel of a test's own socket has received in order, without the FIN.
pub fn kernel_received(socket: &Socket) -> u64 {
    use millpond::sys::tcp_info::{TcpState, tcp_info};
    use std::os::fd::AsFd;
    let info = tcp_info(socket.as_fd()).unwrap();
    let has_fin = matches!(info.state, TcpState::CloseWait | TcpState::Closing);
    info.received_bytes - u64::from(has_fin)
}

/// The same of a socket that nobody reads, once its window is full and all of it is acknowledged.
pub fn stuffed(socket: &Socket) -> u64 {
    let mut before = 0;
    wait::until("nothing moves any more", || {
        socket.acknowledge();
        wait::pace(Duration::from_millis(50));
        let now = kernel_received(socket);
        (now > 0 && now == std::mem::replace(&mut before, now)).then_some(now)
    })
}

/// Bytes of those that a test wrote that millpond's kernel has acknowledged.
pub fn kernel_acknowledged(socket: &Socket) -> u64 {
    use millpond::sys::tcp_info::tcp_info;
    use std::os::fd::AsFd;
    let info = tcp_info(socket.as_fd()).unwrap();
    info.acknowledged_bytes
}

impl Case {
    pub fn new(protocol: Protocol, name: &str) -> Self {
        Self {
            name: format!("{protocol:?}: {name}"),
            protocol,
            configure: |config| config,
            serve: |mut connection, _| {
                connection.until_end();
            },
            play: |_| {},
            sessions: Vec::new(),
            connections: Vec::new(),
            ends_itself: false,
            kernel_resets: [0, 0],
        }
    }

    /// The configuration beyond [`base`].
    pub fn with(mut self, configure: fn(Config) -> Config) -> Self {
        self.configure = configure;
        self
    }

    /// What the service does with each connection.
    pub fn service(mut self, serve: fn(Connection, &Stage)) -> Self {
        self.serve = serve;
        self
    }

    /// What the client does.
    pub fn client(mut self, play: fn(&Scene)) -> Self {
        self.play = play;
        self
    }

    /// How a session ends.
    pub fn session(mut self, end: End) -> Self {
        self.sessions.push(end);
        self
    }

    /// How a connection to the service ends.
    pub fn connection(mut self, end: End) -> Self {
        self.connections.push(end);
        self
    }

    /// The kernel ends so many connections to clients and to the service by an RST of its own: it has asked
    /// a peer whether it is there, and nobody answered (`TCP_KEEPALIVE_TIMEOUT`).
    pub fn kernel_resets(mut self, downstream: u64, upstream: u64) -> Self {
        self.kernel_resets = [downstream, upstream];
        self
    }

    /// The client's script has told millpond to stop.
    pub fn ends_itself(mut self) -> Self {
        self.ends_itself = true;
        self
    }

    fn config(&self, endpoint: &str) -> Config {
        (self.configure)(base(self.protocol, endpoint))
    }
}

/// What every case is configured with.
pub fn base(protocol: Protocol, endpoint: &str) -> Config {
    let config = Config::to(endpoint)
        .listen(&format!("{PROXY}:0"))
        .more("[log]\nformat = \"json\"\nsessions = \"all\"\n");
    match protocol {
        Protocol::Http => config,
        Protocol::Frames => config
            .protocol("frames")
            .frames("length = { offset = 0, width = 4 }"),
        Protocol::Tcp => config.protocol("tcp"),
        Protocol::Promised => config
            .protocol("tcp")
            .tcp("reuse = \"promised\"")
            .tcp("quiet = \"50ms\""),
    }
}

/// Plays the cases of a table, one after the other.
pub fn run_all(cases: &[Case]) {
    let network = Network::create();
    let only = std::env::var("MILLPOND_CASE").unwrap_or_default();
    let mut failed = Vec::new();
    for case in cases.iter().filter(|case| case.name.contains(&only)) {
        // What a failed script says in the output stands behind the name of its case.
        println!("{}", case.name);
        let played = AssertUnwindSafe(|| run(&network, case));
        match std::panic::catch_unwind(played) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => failed.push(format!("{}\n{why}", case.name)),
            Err(_) => {
                network.mend();
                network.set_ports("32768 60999");
                failed.push(format!("{}: its script failed", case.name));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// Plays one case, and checks all that was said of it.
fn run(network: &Network, case: &Case) -> Checked {
    let began = wait::now();
    let stage = Stage::default();
    let service = network.service.enter(|| {
        let (stage, serve) = (stage.clone(), case.serve);
        Service::start_on(&format!("{SERVICE}:0"), move |connection| {
            let (_, local) = connection.socket.ends();
            stage.locals.lock().unwrap().push(local);
            serve(connection, &stage);
        })
    });
    let config = case.config(service.address());
    let proxy = network.proxy.enter(|| config.start());
    let front = proxy.address().to_string();
    let before = [network.downstream_resets(), network.upstream_resets()];
    let scene = Scene {
        stage: &stage,
        proxy: &proxy,
        service: &service,
        network,
        kept: Mutex::default(),
    };
    network.clients.enter(|| (case.play)(&scene));
    let now = await_ends(&proxy, case);
    let observed = Observed::of(&proxy, now);
    let after = [network.downstream_resets(), network.upstream_resets()];
    let wire = [since(before[0], after[0]), since(before[1], after[1])];
    let knows = Known {
        front,
        service: service.address().to_owned(),
        clients: stage.clients.lock().unwrap().clone(),
        locals: stage.locals.lock().unwrap().clone(),
        elapsed: wait::now() - began,
    };
    let checked = check(case, &stage, &observed, &knows, wire);
    stage.first.open_for_all();
    stage.second.open_for_all();
    drop(scene);
    if case.ends_itself {
        proxy.wait();
    } else {
        proxy.finish();
    }
    network.mend();
    checked.map_err(|why| {
        let records = Value::from(observed.records);
        let lines = Value::from(observed.lines);
        format!("{why}\nrecords: {records:#}\nlines: {lines:#}")
    })
}

/// Waits until as many connections have ended as the case says.
fn await_ends(proxy: &Proxy, case: &Case) -> Snapshot {
    let count = |ends: &[End]| ends.iter().map(|end| end.times).sum::<u64>();
    let (sessions, connections) = (count(&case.sessions), count(&case.connections));
    proxy.wait_until(&case.name, |now| {
        now.listener("sessions/terminated") >= sessions
            && now.upstream("connections/terminated") >= connections
    })
}

fn since(before: Resets, after: Resets) -> Resets {
    Resets {
        sent: after.sent - before.sent,
        received: after.received - before.received,
    }
}

/// What the test knows of the addresses.
pub struct Known {
    pub front: String,
    pub service: String,
    pub clients: Vec<String>,
    pub locals: Vec<String>,
    pub elapsed: Duration,
}

type Checked = Result<(), String>;

fn check(case: &Case, stage: &Stage, seen: &Observed, knows: &Known, wire: [Resets; 2]) -> Checked {
    let sides = [
        ("downstream", "listeners/front", "sessions", &case.sessions),
        (
            "upstream",
            "upstreams/service",
            "connections",
            &case.connections,
        ),
    ];
    let wires = wire.into_iter().zip(case.kernel_resets);
    for ((side, path, what, ends), (mut wire, by_kernel)) in sides.into_iter().zip(wires) {
        let by_us = wire.sent.checked_sub(by_kernel);
        wire.sent = by_us.ok_or_else(|| format!("{side}: only {} RSTs went out", wire.sent))?;
        observe::check_counts(seen, path, what, ends)?;
        observe::check_resets(seen, path, ends, wire).map_err(|why| format!("{side}: {why}"))?;
        observe::check_metrics(seen, side, path)?;
    }
    let mut left: Vec<&Value> = seen.records.iter().collect();
    for (side, _, _, ends) in sides {
        for end in ends.iter().filter(|end| end.is_recorded()) {
            for _ in 0..end.times {
                let at = left.iter().position(|row| end.is_of(side, row));
                let at = at.ok_or_else(|| format!("{side} {}: it has no record", end.code))?;
                let row = left.remove(at);
                let records = &seen.records;
                let facts = Facts { stage, records };
                let told = observe::check_record(end, row, &facts, knows);
                told.map_err(|why| format!("{side} {}: {why}", end.code))?;
                observe::check_tie(end, row, &seen.records)
                    .map_err(|why| format!("{side} {}: {why}", end.code))?;
            }
        }
    }
    if let Some(row) = left.first() {
        return Err(format!("a record that nothing explains: {row:#}"));
    }
    observe::check_lost_bytes(seen)?;
    observe::check_lines(seen, &case.sessions, knows)
}

mod expect {
    use serde_json::Value;

    use super::Stage;

    /// A number that must be in the record, made from what the test counted.
    pub type Count = fn(&Value, &Facts) -> u64;

    /// What a [`Count`] is made from.
    pub struct Facts<'a> {
        pub stage: &'a Stage,
        pub records: &'a [Value],
    }

    impl Facts<'_> {
        pub fn noted(&self, what: &str) -> u64 {
            self.stage.noted(what)
        }

        /// A number of the one record of this side.
        pub fn of(&self, side: &str, key: &str) -> u64 {
            let row = self.records.iter().find(|row| row["side"] == side);
            row.unwrap()[key].as_u64().unwrap()
        }
    }

    /// How a connection must end, in the ledger's words.
    pub struct End {
        /// Who, phase, manner.
        pub code: &'static str,
        /// Direction, cause and phase of the RST.
        pub reset: Option<(&'static str, &'static str, &'static str)>,
        pub discard: Option<&'static str>,
        pub exchange: u64,
        pub unread: Option<Count>,
        pub unacknowledged: Option<Count>,
        /// The relation to the other leg, and its code.
        pub tie: Option<(&'static str, &'static str)>,
        pub times: u64,
    }

    pub fn end(code: &'static str) -> End {
        End {
            code,
            reset: None,
            discard: None,
            exchange: 1,
            unread: None,
            unacknowledged: None,
            tie: None,
            times: 1,
        }
    }

    impl End {
        pub fn received(mut self, phase: &'static str) -> Self {
            self.reset = Some(("received", "peer", phase));
            self
        }

        pub fn sent(mut self, cause: &'static str, phase: &'static str) -> Self {
            self.reset = Some(("sent", cause, phase));
            self
        }

        pub fn discard(mut self, reason: &'static str) -> Self {
            self.discard = Some(reason);
            self
        }

        /// It was in this exchange; 0: none had begun.
        pub fn exchange(mut self, number: u64) -> Self {
            self.exchange = number;
            self
        }

        /// So many bytes came and nobody took them.
        pub fn unread(mut self, count: Count) -> Self {
            self.unread = Some(count);
            self
        }

        /// So many bytes went out and were not acknowledged.
        pub fn unacknowledged(mut self, count: Count) -> Self {
            self.unacknowledged = Some(count);
            self
        }

        pub fn caused_by(mut self, other: &'static str) -> Self {
            self.tie = Some(("caused_by", other));
            self
        }

        pub fn caused(mut self, other: &'static str) -> Self {
            self.tie = Some(("caused", other));
            self
        }

        pub fn together_with(mut self, other: &'static str) -> Self {
            self.tie = Some(("with", other));
            self
        }

        pub fn times(mut self, count: u64) -> Self {
            self.times = count;
            self
        }

        /// Whether it must have a record.
        pub fn is_recorded(&self) -> bool {
            let is_truncated = self.code.ends_with('T');
            let is_lossy = self.unread.is_some() || self.unacknowledged.is_some();
            self.reset.is_some() || is_truncated || is_lossy
        }

        pub fn is_of(&self, side: &str, row: &Value) -> bool {
            row["side"] == side && row["termination"]["code"] == self.code
        }
    }
}
