//! Every key there is: where it stands, what it takes, its default and its meaning.
//!
//! The one list of keys. Reading, unknown-key hints, defaults and the manual in `conf/` are held to
//! it. Not here: limits between two keys (see `limits`).

mod row;

use std::time::Duration;

use self::row::*;
use super::value::Kind;

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its place, with `NAME` where the user's name of an upstream or listener stands.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds where it is not written.
    pub default: Preset,
    /// Its meaning in a line.
    pub meaning: &'static str,
}

/// What holds for a key that is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// It must be written.
    Required,
    /// Nothing.
    Unset,
    /// This, as it would be written (without the quotes of a text).
    Is(&'static str),
}

/// The word that stands for a name in [`Key::path`].
pub const NAME: &str = "NAME";

/// Whether the path's segments are the pattern's first ones.
pub(super) fn is_under(path: &[String], pattern: &[&str]) -> bool {
    path.iter()
        .zip(pattern)
        .all(|(segment, expected)| *expected == NAME || segment == expected)
}

/// Every key, in the order of the manual.
pub const KEYS: &[Key] = &[
    key(
        "workers",
        count(0, 1024),
        "0",
        "worker threads; 0: one for each core",
    ),
    key(
        "admin.listen",
        Kind::AddressOrOff,
        "127.0.0.1:9900",
        "where page, metrics and API listen; off: nowhere",
    ),
    unset(
        "admin.token",
        Kind::Token,
        "the bearer token that lets callers from elsewhere in",
    ),
    key(
        "ledger.witness",
        Kind::Switch,
        "false",
        "read the kernel's own account of resets",
    ),
    key(
        "ledger.recorder_size",
        count(0, 100_000),
        "1000",
        "resets that the recorder keeps",
    ),
    key(
        "ledger.census_interval",
        Kind::Time {
            zero: true,
            min: Duration::from_millis(100),
            max: Duration::from_secs(3600),
        },
        "10s",
        "how often the kernel is asked for its sockets; 0s: only on request",
    ),
    key(
        "shutdown.drain_timeout",
        time_or_none(),
        "25s",
        "how long exchanges may go on after the listeners closed",
    ),
    key(
        "shutdown.grace",
        time_or_none(),
        "0s",
        "how long /readyz says 503 before the listeners close",
    ),
    key(
        "log.format",
        Kind::Choice(&["text", "json"]),
        "text",
        "how a line looks",
    ),
    key("log.level", Kind::LogFilter, "info", "what is logged"),
    key(
        "log.sessions",
        Kind::Choice(&["all", "abnormal", "none"]),
        "abnormal",
        "which sessions' ends get a line",
    ),
    required(
        "upstream.NAME.protocol",
        Kind::Choice(&["http", "tcp", "frames", "redis", "memcached"]),
        "the wire language of the service",
    ),
    required(
        "upstream.NAME.endpoints",
        Kind::Endpoints,
        "the addresses of the service",
    ),
    unset(
        "upstream.NAME.source",
        Kind::Sources,
        "the addresses, and ports, of this host to dial from",
    ),
    key(
        "upstream.NAME.reuse_time_wait",
        Kind::Switch,
        "false",
        "dial out of TIME_WAIT when no other port is free",
    ),
    key(
        "upstream.NAME.response_timeout",
        time(),
        "60s",
        "how long the service may be silent while it owes an answer",
    ),
    key(
        "upstream.NAME.retry",
        Kind::Choice(&["proven", "idempotent", "off"]),
        "proven",
        "what is sent again after a lost keep-alive race",
    ),
    key(
        "upstream.NAME.retry_buffer",
        bytes(0, 16 * MIB),
        "64KiB",
        "how much of a request is held for a retry",
    ),
    key(
        "upstream.NAME.learn_idle_timeout",
        Kind::Switch,
        "true",
        "retire idle connections before the service closes them",
    ),
    key(
        "upstream.NAME.abandon_bytes",
        bytes(0, GIB),
        "64KiB",
        "how much is read and dropped for a client that left",
    ),
    key(
        "upstream.NAME.keepalive",
        keepalive(),
        "60s",
        "TCP keepalive; 0s: off",
    ),
    key(
        "upstream.NAME.user_timeout",
        user_timeout(),
        "30s",
        "TCP_USER_TIMEOUT; 0s: the system's",
    ),
    key(
        "upstream.NAME.close_first",
        Kind::Choice(&["auto", "millpond", "service"]),
        "auto",
        "who ends a connection first whose end the service has announced",
    ),
    key(
        "upstream.NAME.linger_time",
        time(),
        "30s",
        "after our FIN: how long the service's is awaited",
    ),
    key(
        "upstream.NAME.pool.size",
        count(1, CONNECTIONS_MAX),
        "64",
        "connections to one endpoint, at most",
    ),
    key(
        "upstream.NAME.pool.shared",
        count(1, CONNECTIONS_MAX),
        "1",
        "of them shared by many sessions, where the protocol allows it; the rest are lent to one each",
    ),
    key(
        "upstream.NAME.pool.long_leases",
        count(0, CONNECTIONS_MAX),
        "0",
        "of the rest, so many may be held for long (subscribers, blocking commands); 0: three quarters",
    ),
    key(
        "upstream.NAME.pool.min_idle",
        count(0, CONNECTIONS_MAX),
        "0",
        "idle connections kept warm for each endpoint",
    ),
    key(
        "upstream.NAME.pool.idle_timeout",
        time_or_none(),
        "60s",
        "how long a connection may be idle; 0s: for ever",
    ),
    key(
        "upstream.NAME.pool.max_lifetime",
        time_or_none(),
        "1h",
        "how old a connection may become; 0s: without limit",
    ),
    key(
        "upstream.NAME.pool.max_exchanges",
        count(0, NUMBER_MAX),
        "0",
        "exchanges of one connection, at most; 0: without limit",
    ),
    key(
        "upstream.NAME.pool.connect_timeout",
        time(),
        "3s",
        "how long a connect may take",
    ),
    key(
        "upstream.NAME.pool.connect_parallel",
        count(1, 1024),
        "4",
        "connects to one endpoint under way at once, at most",
    ),
    key(
        "upstream.NAME.pool.backoff_min",
        time(),
        "100ms",
        "the first pause after a failed connect",
    ),
    key(
        "upstream.NAME.pool.backoff_max",
        time(),
        "2s",
        "the longest pause after failed connects",
    ),
    key(
        "upstream.NAME.pool.wait_timeout",
        time(),
        "5s",
        "how long a session waits for a connection",
    ),
    key(
        "upstream.NAME.pool.wait_queue",
        count(0, CONNECTIONS_MAX),
        "1024",
        "sessions waiting for a connection, at most",
    ),
    key(
        "upstream.NAME.tcp.reuse",
        Kind::Choice(&["never", "probed", "promised"]),
        "never",
        "on what grounds a connection serves another client",
    ),
    unset(
        "upstream.NAME.tcp.probe",
        Kind::Probe,
        "what is sent after a client's end, and what must come back",
    ),
    key(
        "upstream.NAME.tcp.probe_timeout",
        time(),
        "1s",
        "how long the answer to a probe may take",
    ),
    key(
        "upstream.NAME.tcp.quiet",
        time(),
        "200ms",
        "how long the service must have been silent before reuse",
    ),
    unset(
        "upstream.NAME.redis.lease",
        Kind::Commands,
        "commands that are kept off the shared connections: slow ones, large answers",
    ),
    unset(
        "upstream.NAME.redis.share",
        Kind::Commands,
        "commands of modules that have one reply and leave nothing behind on their connection",
    ),
    unset(
        "upstream.NAME.redis.refuse",
        Kind::Commands,
        "commands that are refused, beside those that would hurt others",
    ),
    unset(
        "upstream.NAME.redis.allow",
        Kind::Commands,
        "commands that are refused otherwise, and served over a connection of their own",
    ),
    key(
        "upstream.NAME.memcached.item_max",
        bytes(1024, 1024 * 1024 * 1024),
        "1MiB",
        "an item, at most; the service's own limit is its option -I",
    ),
    unset(
        "upstream.NAME.frames.length",
        Kind::LengthField,
        "frames with a length field: where it stands",
    ),
    unset(
        "upstream.NAME.frames.delimiter",
        Kind::Octets,
        "frames with an end: the bytes that end one",
    ),
    unset(
        "upstream.NAME.frames.size",
        count(1, GIB),
        "frames of one size: bytes of each",
    ),
    key(
        "upstream.NAME.frames.max",
        bytes(1, GIB),
        "8MiB",
        "a frame, at most, all of it",
    ),
    unset(
        "upstream.NAME.frames.oneway",
        Kind::Mark,
        "requests that match have no reply",
    ),
    unset(
        "upstream.NAME.frames.heartbeat",
        Kind::Mark,
        "frames of the service that match are no replies",
    ),
    unset(
        "upstream.NAME.frames.error_reply",
        Kind::Octets,
        "the reply that a client gets where the service gives none",
    ),
    unset(
        "upstream.NAME.frames.id",
        Kind::Ids,
        "where requests and replies have their ids; with them connections are shared",
    ),
    unset(
        "upstream.NAME.frames.magic",
        Kind::Magic,
        "with ids: bytes that every frame has, and whoever has others is turned away",
    ),
    unset(
        "upstream.NAME.frames.request",
        Kind::Mark,
        "with ids: frames that match ask, all others answer",
    ),
    key(
        "upstream.NAME.frames.unasked",
        Kind::Choice(&["drop", "retire"]),
        "drop",
        "with ids: what a service says of its own accord is dropped; retire: and its connection given up",
    ),
    key(
        "upstream.NAME.frames.client_heartbeats",
        Kind::Choice(&["forward", "answer"]),
        "forward",
        "with ids: heartbeats of clients go to the service, or are answered here with heartbeat_reply",
    ),
    unset(
        "upstream.NAME.frames.heartbeat_reply",
        Kind::Octets,
        "with ids: how heartbeats of the service are answered",
    ),
    unset(
        "upstream.NAME.frames.heartbeat_request",
        Kind::Octets,
        "with ids: the heartbeat that a quiet shared connection is sent",
    ),
    key(
        "upstream.NAME.frames.heartbeat_interval",
        time(),
        "60s",
        "with heartbeat_request: a connection that is quiet for so long is sent it",
    ),
    required(
        "listener.NAME.listen",
        Kind::ListenAddress,
        "where it listens",
    ),
    required(
        "listener.NAME.upstream",
        Kind::Name,
        "the upstream that serves it",
    ),
    key(
        "listener.NAME.max_sessions",
        count(1, CONNECTIONS_MAX),
        "10000",
        "open sessions, at most",
    ),
    key(
        "listener.NAME.backlog",
        count(1, 65_535),
        "4096",
        "the kernel's accept queue, connections",
    ),
    key(
        "listener.NAME.reuse_port",
        Kind::Switch,
        "false",
        "SO_REUSEPORT: several processes on one address",
    ),
    key(
        "listener.NAME.ipv6_only",
        Kind::Switch,
        "false",
        "[::] takes IPv6 only; otherwise both",
    ),
    key(
        "listener.NAME.unix_mode",
        Kind::Mode,
        "0666",
        "a Unix socket's permission bits, octal",
    ),
    key("listener.NAME.nodelay", Kind::Switch, "true", "TCP_NODELAY"),
    key(
        "listener.NAME.keepalive",
        keepalive(),
        "60s",
        "TCP keepalive; 0s: off",
    ),
    key(
        "listener.NAME.user_timeout",
        user_timeout(),
        "0s",
        "TCP_USER_TIMEOUT; 0s: the system's",
    ),
    key(
        "listener.NAME.idle_timeout",
        time(),
        "10m",
        "how long a session may be idle between exchanges",
    ),
    key(
        "listener.NAME.head_timeout",
        time(),
        "10s",
        "how long a request's head may take from its first byte",
    ),
    key(
        "listener.NAME.stall_timeout",
        time(),
        "60s",
        "how long a client may neither take nor give a byte that it owes",
    ),
    key(
        "listener.NAME.linger_time",
        time(),
        "30s",
        "after our FIN: how long the client's is awaited",
    ),
    key(
        "listener.NAME.linger_gap",
        time(),
        "5s",
        "after our FIN: how long the client may be silent",
    ),
    key(
        "listener.NAME.linger_bytes",
        bytes(1, GIB),
        "1MiB",
        "after our FIN: how much is read and dropped",
    ),
    key(
        "listener.NAME.half_close_timeout",
        time(),
        "60s",
        "how long a tunnel may go on in one direction only",
    ),
    key(
        "listener.NAME.close_first",
        Kind::Choice(&["auto", "millpond", "client"]),
        "auto",
        "who ends a session first whose last answer the protocol has announced",
    ),
    key(
        "listener.NAME.refuse",
        Kind::Choice(&["fin", "reset"]),
        "fin",
        "how a client is refused where its protocol has no words for it",
    ),
    key(
        "listener.NAME.http.forwarded",
        Kind::Switch,
        "true",
        "add X-Forwarded-For and X-Forwarded-Proto",
    ),
    key(
        "listener.NAME.http.head_max",
        bytes(KIB, MIB),
        "16KiB",
        "a head, at most",
    ),
    key(
        "listener.NAME.http.body_max",
        bytes(0, 1024 * GIB),
        "0",
        "a request's body, at most; 0: without limit",
    ),
];
