//! The configuration as the program uses it: typed, with its limits proven.
//!
//! Values of these types are made only by loading a source (see `source`), so what holds for a field
//! holds wherever the field is read.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::frames::{Calls, Layout};

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Worker threads; `None`: one for each core.
    pub workers: Option<usize>,
    /// The admin interface; `None`: off.
    pub admin: Option<Admin>,
    /// What is written down of how connections end.
    pub ledger: Ledger,
    /// How the process stops.
    pub shutdown: Shutdown,
    /// What is logged.
    pub log: Log,
    /// The upstreams by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// The listeners by name. Each names an upstream that exists.
    pub listeners: BTreeMap<String, Listener>,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Where the admin interface listens.
    pub listen: Address,
    /// The bearer token that lets callers from elsewhere in.
    pub token: Option<String>,
}

/// `[ledger]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Whether the kernel's own account of resets is read.
    pub witness: bool,
    /// How many resets the recorder keeps; 0: none.
    pub recorder_size: usize,
    /// How often the kernel is asked for its sockets; `None`: only when somebody asks.
    pub census_interval: Option<Duration>,
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq)]
pub struct Shutdown {
    /// How long exchanges may go on after millpond stopped accepting.
    pub drain_timeout: Duration,
    /// How long `/readyz` says 503 while millpond still accepts.
    pub grace: Duration,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// A tracing filter: `info`, or `warn,millpond::pool=debug`.
    pub level: String,
    /// Which sessions' ends get a line.
    pub sessions: LogSessions,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which sessions' ends get a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSessions {
    /// Every one.
    All,
    /// Those that did not end in order.
    Abnormal,
    /// None.
    None,
}

/// `[upstream.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// The wire language.
    pub protocol: Protocol,
    /// The addresses of the service, at least one, none twice.
    pub endpoints: Vec<Endpoint>,
    /// The addresses of this host that it is dialled from, none with a port that another has too; none:
    /// the kernel's choice. Each fits an endpoint that is given by IP, and each such endpoint one of them.
    pub source: Vec<SourceAddress>,
    /// Whether it is dialled out of TIME_WAIT when no other port is free; only with ranges of ports.
    pub reuse_time_wait: bool,
    /// How long the service may be silent while it owes an answer.
    pub response_timeout: Duration,
    /// Which requests may be sent again after a lost keep-alive race.
    pub retry: Retry,
    /// How much of a request is held for that, bytes.
    pub retry_buffer: usize,
    /// Whether idle connections retire shortly before the service closes them, as far as that is
    /// announced or can be learned.
    pub learn_idle_timeout: bool,
    /// How much of a response is read and dropped for a client that left, bytes, before its
    /// connection is discarded instead.
    pub abandon_bytes: u64,
    /// TCP keepalive on upstream connections; `None`: off.
    pub keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT` on upstream connections; `None`: the system's.
    pub user_timeout: Option<Duration>,
    /// Who ends a connection first whose end the service has announced.
    pub close_first: CloseFirst,
    /// How long an upstream connection that we closed waits for the service's FIN.
    pub linger_time: Duration,
    /// The pool's limits.
    pub pool: Pool,
}

/// The wire language of an upstream, with what concerns it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0 (RFC 9112).
    Http,
    /// Anything: nothing is known of its boundaries.
    Tcp(Tcp),
    /// A declared framing, one reply for each request.
    Frames(Frames),
    /// The same, where requests and replies have ids.
    Calls(Arc<Calls>),
    /// RESP2 and RESP3.
    Redis(Redis),
    /// memcached's text and meta protocol.
    Memcached(Memcached),
}

impl Protocol {
    /// As the configuration spells it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp(_) => "tcp",
            Self::Frames(_) | Self::Calls(_) => "frames",
            Self::Redis(_) => "redis",
            Self::Memcached(_) => "memcached",
        }
    }

    /// Whether a running millpond can go from one to the other: sessions keep the language that they speak,
    /// and those that share connections all of its settings.
    pub fn is_same_language(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Calls(_), _) | (_, Self::Calls(_)) => self == other,
            _ => self.label() == other.label(),
        }
    }

    /// Whether one connection carries the exchanges of several sessions.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Redis(_) | Self::Memcached(_) | Self::Calls(_) => true,
            Self::Http | Self::Tcp(_) | Self::Frames(_) => false,
        }
    }
}

/// `[upstream.NAME.redis]`: commands, in lower case, that are treated otherwise than they would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redis {
    /// Over a connection of the session's own.
    pub lease: Vec<String>,
    /// Over shared connections.
    pub share: Vec<String>,
    /// Not at all.
    pub refuse: Vec<String>,
    /// Over a connection of the session's own, although they can hurt others.
    pub allow: Vec<String>,
}

/// `[upstream.NAME.memcached]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memcached {
    /// An item, at most, bytes.
    pub item_bytes_max: u64,
}

/// `[upstream.NAME.tcp]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Whether a connection may serve another client after this one.
    pub reuse: Reuse,
    /// How long the service must have been silent before it may.
    pub quiet: Duration,
}

/// On what grounds a connection of `tcp` serves another client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reuse {
    /// None: one session, one connection.
    Never,
    /// The service answers a probe, byte for byte, with nothing before it.
    Probed(Arc<Probe>),
    /// The operator's word that no answer pauses for longer than `quiet`.
    Promised,
}

/// What shows that a service has nothing more to say to the client before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is sent; at least one byte.
    pub send: Vec<u8>,
    /// What must come back, and nothing else; at least one byte.
    pub expect: Vec<u8>,
    /// How long the answer may take.
    pub timeout: Duration,
}

/// `[upstream.NAME.frames]` without ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// How frames are delimited; possible (see [`Layout::check`]).
    pub layout: Layout,
    /// What a client is sent in place of a reply that can't be had; `None`: its connection ends.
    pub error_reply: Option<Vec<u8>>,
}

/// Who says FIN first where the protocol has told both sides that the end comes. Whoever does keeps
/// TIME_WAIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseFirst {
    /// The side that listens: there it costs memory, on the dialling side a port. That is millpond
    /// towards clients, and the service towards millpond.
    Auto,
    /// millpond.
    Millpond,
    /// The client, or the service.
    Peer,
}

/// What a client sees that is refused where the protocol has no words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refuse {
    /// A graceful close.
    Fin,
    /// A reset.
    Reset,
}

/// Which requests may be sent again after a lost keep-alive race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Those that the service never had, by TCP's proof.
    Proven,
    /// Those too that the protocol calls idempotent, once.
    Idempotent,
    /// None.
    Off,
}

/// One address of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// Its share of the load, at least 1.
    pub weight: u32,
}

/// An address of this host to dial from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceAddress {
    /// The address: of one host, and not IPv4 in IPv6.
    pub ip: IpAddr,
    /// The ports to dial from, at least one; `None`: those of `net.ipv4.ip_local_port_range`.
    pub ports: Option<RangeInclusive<u16>>,
}

/// `[upstream.NAME.pool]`
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Connections to one endpoint, at most; at least 1.
    pub size: usize,
    /// Of those, so many are shared over all pool keys, where the protocol shares; at least 1, at most
    /// `size`. The rest are lent to one session each.
    pub shared: usize,
    /// Of the rest, so many may be held for long, for each endpoint; `None`: three
    /// quarters.
    pub long_leases: Option<usize>,
    /// Idle connections kept warm for each endpoint; at most `size`.
    pub min_idle: usize,
    /// How long a connection may be idle; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How old a connection may become; `None`: without limit. Applied with jitter.
    pub max_lifetime: Option<Duration>,
    /// How many exchanges a connection may carry; `None`: without limit.
    pub max_exchanges: Option<u64>,
    /// How long a connect may take.
    pub connect_timeout: Duration,
    /// Connects to one endpoint under way at once, at most; at least 1.
    pub connect_parallel: usize,
    /// The first pause after a failed connect; doubles with each failure, with jitter.
    pub backoff_min: Duration,
    /// The longest such pause.
    pub backoff_max: Duration,
    /// How long a session waits for a connection.
    pub wait_timeout: Duration,
    /// How many sessions may wait.
    pub wait_queue: usize,
}

/// `[listener.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Where it listens.
    pub listen: Address,
    /// The upstream's name.
    pub upstream: String,
    /// Open sessions, at most; more wait in the kernel's accept queue. At least 1.
    pub max_sessions: usize,
    /// The kernel's accept queue, connections.
    pub backlog: u32,
    /// `SO_REUSEPORT`: several processes may listen on the address.
    pub reuse_port: bool,
    /// A `[::]` listener takes IPv6 only; otherwise both (dual stack).
    pub ipv6_only: bool,
    /// A Unix socket's permission bits.
    pub unix_mode: u32,
    /// `TCP_NODELAY` on sessions.
    pub nodelay: bool,
    /// TCP keepalive on sessions; `None`: off.
    pub keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT` on sessions; `None`: the system's.
    pub user_timeout: Option<Duration>,
    /// How long a session may be idle between exchanges.
    pub idle_timeout: Duration,
    /// How long a request's head may take from its first byte.
    pub head_timeout: Duration,
    /// How long a client may neither take nor give a byte that it owes.
    pub stall_timeout: Duration,
    /// After our FIN: how long the client's FIN is awaited.
    pub linger_time: Duration,
    /// After our FIN: how long the client may be silent.
    pub linger_gap: Duration,
    /// After our FIN: how many bytes are read and dropped.
    pub linger_bytes: u64,
    /// How long a tunnel may go on in one direction only.
    pub half_close_timeout: Duration,
    /// Who ends a session first whose last answer the protocol has announced.
    pub close_first: CloseFirst,
    /// What a client sees that is refused where the protocol has no words for it.
    pub refuse: Refuse,
    /// What concerns HTTP only.
    pub http: ListenerHttp,
}

/// `[listener.NAME.http]`
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerHttp {
    /// Add `X-Forwarded-For` and `X-Forwarded-Proto` to requests.
    pub forwarded: bool,
    /// A request's or response's head, at most, bytes.
    pub head_max: usize,
    /// A request's body, at most, bytes; `None`: without limit.
    pub body_max: Option<u64>,
}

/// Where a socket listens or is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// `127.0.0.1:80` or `[::1]:80`.
    Ip(SocketAddr),
    /// `name:80`, resolved when it is used.
    Name(String, u16),
    /// `unix:/run/millpond.sock`.
    Unix(PathBuf),
}

/// Descriptors besides connections and listeners: standard streams, epoll and signals, the admin
/// interface's callers, name lookups, and reading `/proc`.
const PROCESS_DESCRIPTORS: u64 = 128;

/// How many descriptors a process needs when every limit of this configuration is reached.
pub fn descriptors_needed(config: &Config) -> u64 {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let upstreams = config
        .upstreams
        .values()
        .map(|upstream| count(upstream.endpoints.len()).saturating_mul(count(upstream.pool.size)));
    let listeners = config
        .listeners
        .values()
        .map(|listener| sockets(&listener.listen).saturating_add(count(listener.max_sessions)));
    let admin = config.admin.iter().map(|admin| sockets(&admin.listen));
    upstreams
        .chain(listeners)
        .chain(admin)
        .fold(PROCESS_DESCRIPTORS, u64::saturating_add)
}

/// What an operator must know of an upstream's `source` on this host. `given_out`: the ports that its kernel
/// gives out (`net.ipv4.ip_local_port_range`); `keeps_to_ranges`: whether it picks them out of a range.
pub fn source_warnings(
    name: &str,
    upstream: &Upstream,
    given_out: &RangeInclusive<u16>,
    keeps_to_ranges: bool,
) -> Vec<String> {
    let with_ports = upstream.source.iter().filter(|it| it.ports.is_some());
    let concerned = with_ports.filter(|_| !upstream.reuse_time_wait);
    let (first, last) = (given_out.start(), given_out.end());
    let warning = |source: &SourceAddress| {
        let ports = source.ports.as_ref()?;
        let is_within = given_out.contains(ports.start()) && given_out.contains(ports.end());
        let why = match (keeps_to_ranges, is_within) {
            (true, true) => return None,
            (true, false) => {
                format!("{source} is not within net.ipv4.ip_local_port_range ({first}-{last})")
            }
            (false, _) => {
                format!("{source}: this kernel picks nothing out of a range (Linux 6.3 does)")
            }
        };
        Some(format!(
            "upstream.{name}.source: {why}, so one port serves one endpoint at a time"
        ))
    };
    concerned.filter_map(warning).collect()
}

/// Sockets that listening there takes: a name may stand for an IPv4 and an IPv6 address.
fn sockets(address: &Address) -> u64 {
    match address {
        Address::Ip(_) | Address::Unix(_) => 1,
        Address::Name(..) => 2,
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => ip.fmt(f)?,
            IpAddr::V6(ip) => write!(f, "[{ip}]")?,
        }
        match &self.ports {
            Some(ports) => write!(f, ":{}-{}", ports.start(), ports.end()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
