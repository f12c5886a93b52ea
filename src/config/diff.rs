//! What differs between two configurations, by key and by name.
//!
//! Pure: it says what to do and does nothing. A key that can't change while running is named in
//! `needs_restart` and changes nothing else; everything that is not named stays as it is.

mod protocol;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::checked::{
    Admin, CloseFirst, Config, Endpoint, Ledger, Listener, ListenerHttp, Log, LogFormat,
    LogSessions, Pool, Refuse, Retry, Shutdown, SourceAddress, Upstream,
};
use super::value::{bytes_text, time_text};

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Upstreams.
    pub upstreams: Named,
    /// Listeners. One whose `listen` changed is both removed and added.
    pub listeners: Named,
    /// Whether `log.level` changed.
    pub log_level_changed: bool,
    /// Each change that can be applied, as `key: old -> new`; whole upstreams and listeners as
    /// `upstream.NAME: added`.
    pub applied: Vec<String>,
    /// Each change that needs a restart, as `key: old -> new`.
    pub needs_restart: Vec<String>,
}

/// What differs in a group of named things. A name in `changed` is in no other list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// Names that are new.
    pub added: Vec<String>,
    /// Names that are gone.
    pub removed: Vec<String>,
    /// Names whose keys changed in a way that can be applied.
    pub changed: Vec<String>,
}

/// One key with its value as it would be written.
type Entry = (&'static str, String);

const UPSTREAM_NEEDS_RESTART: &[&str] = &["protocol"];
const LISTENER_NEEDS_RESTART: &[&str] = &[
    "backlog",
    "reuse_port",
    "ipv6_only",
    "unix_mode",
    "nodelay",
    "keepalive",
    "user_timeout",
];
const PROCESS_NEEDS_RESTART: &[&str] = &["workers", "admin.listen", "ledger.witness", "log.format"];

impl Changes {
    /// Whether the configurations are the same.
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.needs_restart.is_empty()
    }
}

/// What differs between the configuration that runs and another.
pub fn diff(old: &Config, new: &Config) -> Changes {
    let mut changes = Changes {
        log_level_changed: old.log.level != new.log.level,
        ..Changes::default()
    };
    let process = compare(
        "",
        &process_entries(old),
        &process_entries(new),
        PROCESS_NEEDS_RESTART,
    );
    // The token is a secret: that it changed is all that is said.
    let token = |config: &Config| config.admin.as_ref().and_then(|admin| admin.token.clone());
    changes.add(process);
    if token(old) != token(new) {
        changes
            .needs_restart
            .push("admin.token: changed".to_owned());
    }

    let mut upstreams = Named::default();
    names(&old.upstreams, &new.upstreams, &mut upstreams, |_, _| false);
    for (name, old, new) in kept(&old.upstreams, &new.upstreams) {
        let prefix = format!("upstream.{name}.");
        let mut needs_restart = UPSTREAM_NEEDS_RESTART.to_vec();
        if !old.protocol.is_same_language(&new.protocol) {
            // What the other language says of itself comes with it.
            needs_restart.extend(protocol::entries(&new.protocol).map(|(key, _)| key));
        }
        let compared = compare(
            &prefix,
            &upstream_entries(old),
            &upstream_entries(new),
            &needs_restart,
        );
        if changes.add(compared) {
            upstreams.changed.push(name.clone());
        }
    }
    changes.say("upstream", &upstreams);
    changes.upstreams = upstreams;

    let mut listeners = Named::default();
    names(
        &old.listeners,
        &new.listeners,
        &mut listeners,
        |old, new| old.listen != new.listen,
    );
    for (name, old, new) in kept(&old.listeners, &new.listeners) {
        let prefix = format!("listener.{name}.");
        // A listener that moves is bound anew, so nothing of it needs a restart.
        let moves = old.listen != new.listen;
        let needs_restart = if moves { &[] } else { LISTENER_NEEDS_RESTART };
        let compared = compare(
            &prefix,
            &listener_entries(old),
            &listener_entries(new),
            needs_restart,
        );
        if changes.add(compared) && !moves {
            listeners.changed.push(name.clone());
        }
    }
    changes.say("listener", &listeners);
    changes.listeners = listeners;
    changes
}

impl Changes {
    /// Adds compared keys; whether any can be applied.
    fn add(&mut self, (applied, needs_restart): (Vec<String>, Vec<String>)) -> bool {
        let any = !applied.is_empty();
        self.applied.extend(applied);
        self.needs_restart.extend(needs_restart);
        any
    }

    fn say(&mut self, kind: &str, named: &Named) {
        let moved = |name: &&String| named.removed.contains(name) && named.added.contains(name);
        let removed = named.removed.iter().filter(|name| !moved(name));
        let added = named.added.iter().filter(|name| !moved(name));
        self.applied
            .extend(removed.map(|name| format!("{kind}.{name}: removed")));
        self.applied
            .extend(added.map(|name| format!("{kind}.{name}: added")));
    }
}

/// Every key of a configuration with its value as it would be written, without `admin.token`.
pub fn entries(config: &Config) -> Vec<(String, String)> {
    let mut all: Vec<_> = process_entries(config)
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    for (name, upstream) in &config.upstreams {
        all.extend(
            upstream_entries(upstream)
                .into_iter()
                .map(|(key, value)| (format!("upstream.{name}.{key}"), value)),
        );
    }
    for (name, listener) in &config.listeners {
        all.extend(
            listener_entries(listener)
                .into_iter()
                .map(|(key, value)| (format!("listener.{name}.{key}"), value)),
        );
    }
    all
}

fn compare(
    prefix: &str,
    old: &[Entry],
    new: &[Entry],
    needs_restart: &[&str],
) -> (Vec<String>, Vec<String>) {
    old.iter()
        .zip(new)
        .filter(|((_, old), (_, new))| old != new)
        .map(|((key, old), (_, new))| (*key, format!("{prefix}{key}: {old} -> {new}")))
        .fold(
            (Vec::new(), Vec::new()),
            |(mut applied, mut restart), (key, line)| {
                let list = if needs_restart.contains(&key) {
                    &mut restart
                } else {
                    &mut applied
                };
                list.push(line);
                (applied, restart)
            },
        )
}

fn names<T>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    named: &mut Named,
    moves: impl Fn(&T, &T) -> bool,
) {
    let moved: BTreeSet<&String> = kept(old, new)
        .filter(|(_, old, new)| moves(old, new))
        .map(|(name, _, _)| name)
        .collect();
    let goes = |name: &&String| !new.contains_key(*name) || moved.contains(name);
    let comes = |name: &&String| !old.contains_key(*name) || moved.contains(name);
    named.removed = old.keys().filter(goes).cloned().collect();
    named.added = new.keys().filter(comes).cloned().collect();
}

/// What has the same name in both.
fn kept<'c, T>(
    old: &'c BTreeMap<String, T>,
    new: &'c BTreeMap<String, T>,
) -> impl Iterator<Item = (&'c String, &'c T, &'c T)> {
    old.iter()
        .filter_map(|(name, old)| new.get(name).map(|new| (name, old, new)))
}

// The structs are taken apart whole, so that a new field can't be forgotten here.

fn process_entries(config: &Config) -> Vec<Entry> {
    let Config {
        workers,
        admin,
        ledger,
        shutdown,
        log,
        upstreams: _,
        listeners: _,
    } = config;
    let Ledger {
        witness,
        recorder_size,
        census_interval,
    } = ledger;
    let Shutdown {
        drain_timeout,
        grace,
    } = shutdown;
    let Log {
        format,
        level,
        sessions,
    } = log;
    let listen = match admin {
        Some(Admin { listen, token: _ }) => listen.to_string(),
        None => "off".to_owned(),
    };
    let format = match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let sessions = match sessions {
        LogSessions::All => "all",
        LogSessions::Abnormal => "abnormal",
        LogSessions::None => "none",
    };
    vec![
        ("workers", workers.unwrap_or(0).to_string()),
        ("admin.listen", listen),
        ("ledger.witness", witness.to_string()),
        ("ledger.recorder_size", recorder_size.to_string()),
        (
            "ledger.census_interval",
            time_text(census_interval.unwrap_or_default()),
        ),
        ("shutdown.drain_timeout", time_text(*drain_timeout)),
        ("shutdown.grace", time_text(*grace)),
        ("log.format", format.to_owned()),
        ("log.level", level.clone()),
        ("log.sessions", sessions.to_owned()),
    ]
}

fn upstream_entries(upstream: &Upstream) -> Vec<Entry> {
    let Upstream {
        protocol,
        endpoints,
        source,
        reuse_time_wait,
        response_timeout,
        retry,
        retry_buffer,
        learn_idle_timeout,
        abandon_bytes,
        keepalive,
        user_timeout,
        close_first,
        linger_time,
        pool,
    } = upstream;
    let retry = match retry {
        Retry::Proven => "proven",
        Retry::Idempotent => "idempotent",
        Retry::Off => "off",
    };
    let mut entries = vec![
        ("protocol", protocol.label().to_owned()),
        ("endpoints", listed(endpoints, endpoint_text)),
        ("source", or_unset(sources_text(source))),
        ("reuse_time_wait", reuse_time_wait.to_string()),
        ("response_timeout", time_text(*response_timeout)),
        ("retry", retry.to_owned()),
        ("retry_buffer", bytes_text(*retry_buffer as u64)),
        ("learn_idle_timeout", learn_idle_timeout.to_string()),
        ("abandon_bytes", bytes_text(*abandon_bytes)),
        ("keepalive", optional_time(*keepalive)),
        ("user_timeout", optional_time(*user_timeout)),
        ("close_first", close_first_text(*close_first, "service")),
        ("linger_time", time_text(*linger_time)),
    ];
    entries.extend(protocol::entries(protocol));
    entries.extend(pool_entries(pool));
    entries
}

fn or_unset(text: Option<String>) -> String {
    text.unwrap_or_else(|| "unset".to_owned())
}

fn pool_entries(pool: &Pool) -> Vec<Entry> {
    let Pool {
        size,
        shared,
        long_leases,
        min_idle,
        idle_timeout,
        max_lifetime,
        max_exchanges,
        connect_timeout,
        connect_parallel,
        backoff_min,
        backoff_max,
        wait_timeout,
        wait_queue,
    } = pool;
    vec![
        ("pool.size", size.to_string()),
        ("pool.shared", shared.to_string()),
        ("pool.long_leases", long_leases.unwrap_or(0).to_string()),
        ("pool.min_idle", min_idle.to_string()),
        ("pool.idle_timeout", optional_time(*idle_timeout)),
        ("pool.max_lifetime", optional_time(*max_lifetime)),
        ("pool.max_exchanges", max_exchanges.unwrap_or(0).to_string()),
        ("pool.connect_timeout", time_text(*connect_timeout)),
        ("pool.connect_parallel", connect_parallel.to_string()),
        ("pool.backoff_min", time_text(*backoff_min)),
        ("pool.backoff_max", time_text(*backoff_max)),
        ("pool.wait_timeout", time_text(*wait_timeout)),
        ("pool.wait_queue", wait_queue.to_string()),
    ]
}

fn listener_entries(listener: &Listener) -> Vec<Entry> {
    let Listener {
        listen,
        upstream,
        max_sessions,
        backlog,
        reuse_port,
        ipv6_only,
        unix_mode,
        nodelay,
        keepalive,
        user_timeout,
        idle_timeout,
        head_timeout,
        stall_timeout,
        linger_time,
        linger_gap,
        linger_bytes,
        half_close_timeout,
        close_first,
        refuse,
        http:
            ListenerHttp {
                forwarded,
                head_max,
                body_max,
            },
    } = listener;
    let refuse = match refuse {
        Refuse::Fin => "fin",
        Refuse::Reset => "reset",
    };
    vec![
        ("listen", listen.to_string()),
        ("upstream", upstream.clone()),
        ("max_sessions", max_sessions.to_string()),
        ("backlog", backlog.to_string()),
        ("reuse_port", reuse_port.to_string()),
        ("ipv6_only", ipv6_only.to_string()),
        ("unix_mode", format!("{unix_mode:04o}")),
        ("nodelay", nodelay.to_string()),
        ("keepalive", optional_time(*keepalive)),
        ("user_timeout", optional_time(*user_timeout)),
        ("idle_timeout", time_text(*idle_timeout)),
        ("head_timeout", time_text(*head_timeout)),
        ("stall_timeout", time_text(*stall_timeout)),
        ("linger_time", time_text(*linger_time)),
        ("linger_gap", time_text(*linger_gap)),
        ("linger_bytes", bytes_text(*linger_bytes)),
        ("half_close_timeout", time_text(*half_close_timeout)),
        ("close_first", close_first_text(*close_first, "client")),
        ("refuse", refuse.to_owned()),
        ("http.forwarded", forwarded.to_string()),
        ("http.head_max", bytes_text(*head_max as u64)),
        (
            "http.body_max",
            body_max.map_or_else(|| "0".to_owned(), bytes_text),
        ),
    ]
}

fn close_first_text(close_first: CloseFirst, peer: &str) -> String {
    let text = match close_first {
        CloseFirst::Auto => "auto",
        CloseFirst::Millpond => "millpond",
        CloseFirst::Peer => peer,
    };
    text.to_owned()
}

fn optional_time(time: Option<Duration>) -> String {
    time_text(time.unwrap_or_default())
}

fn sources_text(sources: &[SourceAddress]) -> Option<String> {
    (!sources.is_empty()).then(|| listed(sources, ToString::to_string))
}

fn listed<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn endpoint_text(endpoint: &Endpoint) -> String {
    match endpoint.weight {
        1 => endpoint.address.to_string(),
        weight => format!("{} (weight {weight})", endpoint.address),
    }
}

#[cfg(test)]
mod tests;
