//! From checked values to the typed configuration.
//!
//! Called only when no problem was found: every key then has a value of its kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::checked::{
    Address, Admin, CloseFirst, Config, Frames, Ledger, Listener, ListenerHttp, Log, LogFormat,
    LogSessions, Memcached, Pool, Probe, Protocol, Redis, Refuse, Retry, Reuse, Shutdown, Tcp,
    Upstream,
};
use super::limits::Names;
use super::values::Values;
use crate::protocol::frames::{Calls, Framing, Layout, Unasked};

const CHECKED: &str = "a configuration without problems has a value of its kind for every key";

/// The values under one section.
struct Section<'v> {
    values: &'v Values,
    prefix: String,
}

/// The configuration of values that were all good.
pub(super) fn config(values: &Values, names: &Names) -> Config {
    let top = Section {
        values,
        prefix: String::new(),
    };
    Config {
        workers: top.limit("workers").map(as_usize),
        admin: top.address("admin.listen").map(|listen| Admin {
            listen,
            token: values.text("admin.token").map(str::to_owned),
        }),
        ledger: Ledger {
            witness: top.switch("ledger.witness"),
            recorder_size: as_usize(top.number("ledger.recorder_size")),
            census_interval: top.time_limit("ledger.census_interval"),
        },
        shutdown: Shutdown {
            drain_timeout: top.time("shutdown.drain_timeout"),
            grace: top.time("shutdown.grace"),
        },
        log: log(&top),
        upstreams: each(&names.upstreams, |name| {
            upstream(&Section {
                values,
                prefix: format!("upstream.{name}."),
            })
        }),
        listeners: each(&names.listeners, |name| {
            listener(&Section {
                values,
                prefix: format!("listener.{name}."),
            })
        }),
    }
}

fn each<T>(names: &[String], build: impl Fn(&str) -> T) -> BTreeMap<String, T> {
    names
        .iter()
        .map(|name| (name.clone(), build(name)))
        .collect()
}

fn log(top: &Section<'_>) -> Log {
    Log {
        format: match top.text("log.format") {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        },
        level: top.text("log.level").to_owned(),
        sessions: match top.text("log.sessions") {
            "all" => LogSessions::All,
            "none" => LogSessions::None,
            _ => LogSessions::Abnormal,
        },
    }
}

fn upstream(section: &Section<'_>) -> Upstream {
    let endpoints = section.values.endpoints(&section.key("endpoints"));
    Upstream {
        protocol: match section.text("protocol") {
            "tcp" => Protocol::Tcp(tcp(section)),
            "frames" => match calls(section.values, &section.key("frames")) {
                Some(calls) => Protocol::Calls(Arc::new(calls)),
                None => Protocol::Frames(frames(section)),
            },
            "redis" => Protocol::Redis(redis(section)),
            "memcached" => Protocol::Memcached(Memcached {
                item_bytes_max: section.number("memcached.item_max"),
            }),
            _ => Protocol::Http,
        },
        endpoints: endpoints.expect(CHECKED).to_vec(),
        source: section.values.sources(&section.key("source")).to_vec(),
        reuse_time_wait: section.switch("reuse_time_wait"),
        response_timeout: section.time("response_timeout"),
        retry: match section.text("retry") {
            "off" => Retry::Off,
            "idempotent" => Retry::Idempotent,
            _ => Retry::Proven,
        },
        retry_buffer: as_usize(section.number("retry_buffer")),
        learn_idle_timeout: section.switch("learn_idle_timeout"),
        abandon_bytes: section.number("abandon_bytes"),
        keepalive: section.time_limit("keepalive"),
        user_timeout: section.time_limit("user_timeout"),
        close_first: close_first(section),
        linger_time: section.time("linger_time"),
        pool: Pool {
            size: as_usize(section.number("pool.size")),
            shared: as_usize(section.number("pool.shared")),
            long_leases: section.limit("pool.long_leases").map(as_usize),
            min_idle: as_usize(section.number("pool.min_idle")),
            idle_timeout: section.time_limit("pool.idle_timeout"),
            max_lifetime: section.time_limit("pool.max_lifetime"),
            max_exchanges: section.limit("pool.max_exchanges"),
            connect_timeout: section.time("pool.connect_timeout"),
            connect_parallel: as_usize(section.number("pool.connect_parallel")),
            backoff_min: section.time("pool.backoff_min"),
            backoff_max: section.time("pool.backoff_max"),
            wait_timeout: section.time("pool.wait_timeout"),
            wait_queue: as_usize(section.number("pool.wait_queue")),
        },
    }
}

fn redis(section: &Section<'_>) -> Redis {
    let commands = |key| section.values.commands(&section.key(key)).to_vec();
    Redis {
        lease: commands("redis.lease"),
        share: commands("redis.share"),
        refuse: commands("redis.refuse"),
        allow: commands("redis.allow"),
    }
}

fn close_first(section: &Section<'_>) -> CloseFirst {
    match section.text("close_first") {
        "millpond" => CloseFirst::Millpond,
        "client" | "service" => CloseFirst::Peer,
        _ => CloseFirst::Auto,
    }
}

fn tcp(section: &Section<'_>) -> Tcp {
    Tcp {
        reuse: match section.text("tcp.reuse") {
            "probed" => {
                let probe = section.values.probe(&section.key("tcp.probe"));
                let (send, expect) = probe.expect(CHECKED);
                Reuse::Probed(Arc::new(Probe {
                    send: send.to_vec(),
                    expect: expect.to_vec(),
                    timeout: section.time("tcp.probe_timeout"),
                }))
            }
            "promised" => Reuse::Promised,
            _ => Reuse::Never,
        },
        quiet: section.time("tcp.quiet"),
    }
}

fn frames(section: &Section<'_>) -> Frames {
    let error_reply = section.values.octets(&section.key("frames.error_reply"));
    Frames {
        layout: layout(section.values, &section.key("frames")).expect(CHECKED),
        error_reply: error_reply.map(<[u8]>::to_vec),
    }
}

/// Frames with ids, as the section `frames` declares them; `None` where it names no ids.
pub(super) fn calls(values: &Values, frames: &str) -> Option<Calls> {
    let key = |key: &str| format!("{frames}.{key}");
    let octets = |name: &str| values.octets(&key(name)).map(<[u8]>::to_vec);
    let is_word = |name: &str, word| values.text(&key(name)) == Some(word);
    Some(Calls {
        ids: values.ids(&key("id"))?.clone(),
        layout: layout(values, frames)?,
        magic: values.magic(&key("magic")).to_vec(),
        asks: values.mark(&key("request")),
        unasked: match is_word("unasked", "retire") {
            true => Unasked::Retire,
            false => Unasked::Drop,
        },
        answers_heartbeats: is_word("client_heartbeats", "answer"),
        heartbeat_reply: octets("heartbeat_reply"),
        heartbeat_request: octets("heartbeat_request"),
        heartbeat_interval: values.time(&key("heartbeat_interval"))?,
        error_reply: octets("error_reply"),
    })
}

/// How the frames of the section `frames` are laid out; `None` where that is not said in one way.
pub(super) fn layout(values: &Values, frames: &str) -> Option<Layout> {
    let length = values.length_field(&format!("{frames}.length"));
    let delimiter = values.octets(&format!("{frames}.delimiter"));
    let size = values.number(&format!("{frames}.size"));
    let framing = match (length, delimiter, size) {
        (Some(field), None, None) => Framing::Length(field),
        (None, Some(delimiter), None) => Framing::Delimiter(delimiter.into()),
        (None, None, Some(size)) => Framing::Fixed(as_usize(size)),
        _ => return None,
    };
    Some(Layout {
        framing,
        frame_max: as_usize(values.number(&format!("{frames}.max"))?),
        oneway: values.mark(&format!("{frames}.oneway")),
        heartbeat: values.mark(&format!("{frames}.heartbeat")),
    })
}

fn listener(section: &Section<'_>) -> Listener {
    Listener {
        listen: section.address("listen").expect(CHECKED),
        upstream: section.text("upstream").to_owned(),
        max_sessions: as_usize(section.number("max_sessions")),
        backlog: as_u32(section.number("backlog")),
        reuse_port: section.switch("reuse_port"),
        ipv6_only: section.switch("ipv6_only"),
        unix_mode: as_u32(section.number("unix_mode")),
        nodelay: section.switch("nodelay"),
        keepalive: section.time_limit("keepalive"),
        user_timeout: section.time_limit("user_timeout"),
        idle_timeout: section.time("idle_timeout"),
        head_timeout: section.time("head_timeout"),
        stall_timeout: section.time("stall_timeout"),
        linger_time: section.time("linger_time"),
        linger_gap: section.time("linger_gap"),
        linger_bytes: section.number("linger_bytes"),
        half_close_timeout: section.time("half_close_timeout"),
        close_first: close_first(section),
        refuse: match section.text("refuse") {
            "reset" => Refuse::Reset,
            _ => Refuse::Fin,
        },
        http: ListenerHttp {
            forwarded: section.switch("http.forwarded"),
            head_max: as_usize(section.number("http.head_max")),
            body_max: section.limit("http.body_max"),
        },
    }
}

impl<'v> Section<'v> {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn number(&self, key: &str) -> u64 {
        self.values.number(&self.key(key)).expect(CHECKED)
    }

    /// 0 stands for no limit.
    fn limit(&self, key: &str) -> Option<u64> {
        Some(self.number(key)).filter(|number| *number > 0)
    }

    fn time(&self, key: &str) -> Duration {
        self.values.time(&self.key(key)).expect(CHECKED)
    }

    /// 0 stands for none.
    fn time_limit(&self, key: &str) -> Option<Duration> {
        Some(self.time(key)).filter(|time| !time.is_zero())
    }

    fn switch(&self, key: &str) -> bool {
        self.values.switch(&self.key(key)).expect(CHECKED)
    }

    fn text(&self, key: &str) -> &'v str {
        self.values.text(&self.key(key)).expect(CHECKED)
    }

    /// `None`: off.
    fn address(&self, key: &str) -> Option<Address> {
        self.values.address(&self.key(key)).expect(CHECKED).cloned()
    }
}

fn as_usize(number: u64) -> usize {
    usize::try_from(number).expect("the table's bounds fit into a usize")
}

fn as_u32(number: u64) -> u32 {
    u32::try_from(number).expect("the table's bounds fit into 32 bits")
}
