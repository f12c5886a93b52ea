//! What no key can tell alone: limits between two keys, names that must exist, addresses that must
//! differ.
//!
//! A key without a good value has its problem already and is passed over here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::build;
use super::checked::{Address, Endpoint};
use super::error::Problem;
use super::keys::KEYS;
use super::read::Draft;
use super::value::{Kind, time_text};
use super::values::Values;
use crate::protocol::frames::{CallsFault, LayoutFault, Template};

/// The names that are looked at, so that the draft may be consumed by reading it.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) upstreams: Vec<String>,
    pub(super) listeners: Vec<String>,
}

impl Names {
    pub(super) fn of(draft: &Draft) -> Self {
        Self {
            upstreams: draft.upstreams.iter().cloned().collect(),
            listeners: draft.listeners.iter().cloned().collect(),
        }
    }
}

/// Adds what is impossible.
pub(super) fn check(values: &Values, names: &Names, problems: &mut Vec<Problem>) {
    for name in &names.upstreams {
        let pool = format!("upstream.{name}.pool");
        at_most_size(values, &pool, "min_idle", problems);
        if shares(values, name) {
            at_most_size(values, &pool, "shared", problems);
        }
        at_most(
            values,
            &format!("{pool}.backoff_min"),
            &format!("{pool}.backoff_max"),
            problems,
        );
        check_protocol(values, &format!("upstream.{name}"), problems);
        check_sources(values, &format!("upstream.{name}"), problems);
    }
    for name in &names.listeners {
        let listener = format!("listener.{name}");
        at_most(
            values,
            &format!("{listener}.linger_gap"),
            &format!("{listener}.linger_time"),
            problems,
        );
        check_upstream(values, &format!("{listener}.upstream"), names, problems);
    }
    check_addresses(values, names, problems);
    if names.listeners.is_empty() {
        problems.push(Problem::NoListener);
    }
}

/// What works, but is probably not meant.
pub(super) fn warnings(values: &Values, names: &Names) -> Vec<String> {
    let mut warnings = Vec::new();
    for upstream in &names.upstreams {
        let used = names.listeners.iter().any(|listener| {
            values.text(&format!("listener.{listener}.upstream")) == Some(upstream)
        });
        if !used {
            warnings.push(format!("upstream.{upstream}: no listener uses it"));
        }
    }
    for upstream in &names.upstreams {
        warnings.extend(ports_warning(values, upstream));
        warnings.extend(reuse_warning(values, upstream));
        warnings.extend(lease_warning(values, upstream));
        warnings.extend(close_warning(
            values,
            &format!("upstream.{upstream}"),
            upstream,
        ));
    }
    for listener in &names.listeners {
        let listener = format!("listener.{listener}");
        if let Some(upstream) = values.text(&format!("{listener}.upstream")) {
            warnings.extend(close_warning(values, &listener, upstream));
        }
    }
    let from_elsewhere = match values.address("admin.listen").flatten() {
        Some(Address::Ip(address)) => !address.ip().is_loopback(),
        Some(Address::Name(name, _)) => name != "localhost",
        Some(Address::Unix(_)) | None => false,
    };
    if from_elsewhere && values.text("admin.token").is_none() {
        warnings.push(
            "admin.listen: without admin.token, callers from elsewhere get health and metrics only"
                .to_owned(),
        );
    }
    warnings
}

/// A pool that its own ports can't bear.
fn ports_warning(values: &Values, upstream: &str) -> Option<String> {
    let key = format!("upstream.{upstream}.source");
    let size = values.number(&format!("upstream.{upstream}.pool.size"))?;
    let ports_of = |is_ipv4: bool| -> Option<u64> {
        let sources = values
            .sources(&key)
            .iter()
            .filter(|it| it.ip.is_ipv4() == is_ipv4);
        let ports = sources.map(|it| it.ports.as_ref().map(|ports| ports.len() as u64));
        ports.sum::<Option<u64>>().filter(|ports| *ports > 0)
    };
    let ports = [true, false].into_iter().filter_map(ports_of).min()?;
    (ports < size).then(|| {
        format!("{key}: {ports} ports bear less than upstream.{upstream}.pool.size, {size}")
    })
}

/// What an operator must know who chose `tcp`.
fn reuse_warning(values: &Values, upstream: &str) -> Option<String> {
    if values.text(&format!("upstream.{upstream}.protocol")) != Some("tcp") {
        return None;
    }
    match values.text(&format!("upstream.{upstream}.tcp.reuse")) {
        Some("never") => Some(format!(
            "upstream.{upstream}: tcp without reuse saves no connects and no TIME_WAIT: each session \
             takes a connection of its own (see tcp.reuse)"
        )),
        Some("promised") => {
            let quiet = values.time(&format!("upstream.{upstream}.tcp.quiet"))?;
            let quiet = time_text(quiet);
            Some(format!(
                "upstream.{upstream}.tcp.reuse = \"promised\" is not proved: an answer that pauses for \
                 longer than quiet = \"{quiet}\" reaches the wrong client (tcp.reuse = \"probed\" asks \
                 the service)"
            ))
        }
        _ => None,
    }
}

/// What an operator must know who chose who ends first where no protocol says that the end comes.
fn close_warning(values: &Values, section: &str, upstream: &str) -> Option<String> {
    let protocol = values.text(&format!("upstream.{upstream}.protocol"))?;
    let key = format!("{section}.close_first");
    let is_chosen = values.text(&key)? != "auto";
    (is_chosen && protocol != "http").then(|| {
        format!(
            "{key}: nothing in {protocol} says that an end comes, so whoever wants it ends first"
        )
    })
}

/// Whether the upstream's protocol shares connections.
fn shares(values: &Values, upstream: &str) -> bool {
    match values.text(&format!("upstream.{upstream}.protocol")) {
        Some("redis" | "memcached") => true,
        Some("frames") => values.is_written(&format!("upstream.{upstream}.frames.id")),
        _ => false,
    }
}

/// A pool of which nothing is left for sessions that need a connection of their own.
fn lease_warning(values: &Values, upstream: &str) -> Option<String> {
    let pool = format!("upstream.{upstream}.pool");
    let size = values.number(&format!("{pool}.size"))?;
    let shared = values.number(&format!("{pool}.shared"))?;
    (shares(values, upstream) && shared >= size).then(|| {
        format!(
            "{pool}: all {size} connections are shared, so none is left for what needs one of its own \
             (transactions, subscribers, large requests, other users and databases)"
        )
    })
}

fn at_most_size(values: &Values, pool: &str, key: &str, problems: &mut Vec<Problem>) {
    let key = format!("{pool}.{key}");
    let (Some(count), Some(size)) = (values.number(&key), values.number(&format!("{pool}.size")))
    else {
        return;
    };
    if count > size {
        problems.push(Problem::Value {
            key: values.key(&key),
            value: count.to_string(),
            reason: format!("is more than {pool}.size"),
            allowed: format!("a whole number from 0 to {size}"),
        });
    }
}

/// Each source address must have an endpoint to dial, and each endpoint that is given by IP a source of
/// its family. A name may stand for any address.
fn check_sources(values: &Values, upstream: &str, problems: &mut Vec<Problem>) {
    let key = format!("{upstream}.source");
    let sources = values.sources(&key);
    check_reuse(values, upstream, problems);
    let Some(endpoints) = values.endpoints(&format!("{upstream}.endpoints")) else {
        return;
    };
    let is_ip = |it: &&Endpoint| matches!(it.address, Address::Ip(_));
    let may_be = |endpoint: &Endpoint, ip: IpAddr| match &endpoint.address {
        Address::Ip(address) => address.is_ipv4() == ip.is_ipv4(),
        Address::Name(..) => true,
        Address::Unix(_) => false,
    };
    for (index, source) in sources.iter().enumerate() {
        if !endpoints.iter().any(|it| may_be(it, source.ip)) {
            problems.push(Problem::Value {
                key: format!("{upstream}.source[{index}]{}", values.origin(&key)),
                value: format!("\"{source}\""),
                reason: "there is no endpoint that could be dialled from it".to_owned(),
                allowed: "an address of the family of an endpoint".to_owned(),
            });
        }
    }
    for endpoint in endpoints.iter().filter(is_ip) {
        if !sources.is_empty() && !sources.iter().any(|it| may_be(endpoint, it.ip)) {
            problems.push(Problem::Value {
                key: values.key(&key),
                value: sources
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
                reason: format!("has no address to dial {} from", endpoint.address),
                allowed: "an address of the family of each endpoint".to_owned(),
            });
        }
    }
}

/// Whoever dials out of TIME_WAIT says which ports are at risk.
fn check_reuse(values: &Values, upstream: &str, problems: &mut Vec<Problem>) {
    let key = format!("{upstream}.reuse_time_wait");
    let sources = values.sources(&format!("{upstream}.source"));
    let have_ranges = !sources.is_empty() && sources.iter().all(|it| it.ports.is_some());
    if values.switch(&key) == Some(true) && !have_ranges {
        problems.push(Problem::Value {
            key: values.key(&key),
            value: "true".to_owned(),
            reason: "needs to know the ports that may be taken out of TIME_WAIT".to_owned(),
            allowed: format!("only where each address of {upstream}.source has a range of ports"),
        });
    }
}

/// What a protocol needs, and what it has no use for.
fn check_protocol(values: &Values, upstream: &str, problems: &mut Vec<Problem>) {
    let Some(protocol) = values.text(&format!("{upstream}.protocol")) else {
        return;
    };
    for key in KEYS {
        let Some(rest) = key.path.strip_prefix("upstream.NAME.") else {
            continue;
        };
        let own = rest.split_once('.').map(|(section, _)| section);
        let full = format!("{upstream}.{rest}");
        if own.is_some_and(|own| PROTOCOL_SECTIONS.contains(&own) && own != protocol)
            && values.is_written(&full)
        {
            let own = own.unwrap_or_default();
            problems.push(Problem::Value {
                key: values.key(&full),
                value: format!("protocol = \"{protocol}\""),
                reason: "has no use for it".to_owned(),
                allowed: format!("only with protocol = \"{own}\""),
            });
        }
    }
    match protocol {
        "tcp" => check_tcp(values, upstream, problems),
        "frames" => check_frames(values, upstream, problems),
        _ => {}
    }
}

fn check_tcp(values: &Values, upstream: &str, problems: &mut Vec<Problem>) {
    let probe = format!("{upstream}.tcp.probe");
    let reuse = values.text(&format!("{upstream}.tcp.reuse"));
    if reuse == Some("probed") && !values.is_written(&probe) {
        problems.push(Problem::Missing {
            key: probe,
            allowed: Kind::Probe.allowed(),
        });
    }
}

fn check_frames(values: &Values, upstream: &str, problems: &mut Vec<Problem>) {
    let frames = format!("{upstream}.frames");
    let written: Vec<_> = ["length", "delimiter", "size"]
        .into_iter()
        .map(|key| format!("{frames}.{key}"))
        .filter(|key| values.is_written(key))
        .collect();
    let one = "one of length, delimiter and size";
    match written.as_slice() {
        [] => problems.push(Problem::Missing {
            key: frames,
            allowed: one.to_owned(),
        }),
        [key] => {
            let fault = build::layout(values, &frames).and_then(|layout| layout.check().err());
            if fault.is_none() {
                check_calls(values, &frames, problems);
            }
            if let Some(fault) = fault {
                let key = match fault {
                    LayoutFault::Oneway(_) => &format!("{frames}.oneway"),
                    LayoutFault::Heartbeat(_) => &format!("{frames}.heartbeat"),
                    _ => key,
                };
                problems.push(Problem::Value {
                    key: values.key(key),
                    value: values.shown(key),
                    reason: fault.to_string(),
                    allowed: "a layout in which a frame can be told from the next".to_owned(),
                });
            }
        }
        [first, .., last] => problems.push(Problem::Value {
            key: values.key(last),
            value: values.shown(last),
            reason: format!("stands beside {first}"),
            allowed: one.to_owned(),
        }),
    }
}

/// Frames with ids, whose layout is possible.
fn check_calls(values: &Values, frames: &str, problems: &mut Vec<Problem>) {
    if !values.is_written(&format!("{frames}.id")) {
        let keys = ONLY_WITH_IDS.map(|name| format!("{frames}.{name}"));
        for key in keys.into_iter().filter(|key| values.says_something(key)) {
            problems.push(Problem::Value {
                key: values.key(&key),
                value: values.shown(&key),
                reason: "is only for frames with ids".to_owned(),
                allowed: format!("beside {frames}.id"),
            });
        }
        return;
    }
    let Some(calls) = build::calls(values, frames) else {
        return;
    };
    let mut missing = |name: &str, kind: Kind| {
        problems.push(Problem::Missing {
            key: format!("{frames}.{name}"),
            allowed: kind.allowed(),
        });
    };
    if calls.answers_heartbeats && calls.heartbeat_reply.is_none() {
        missing("heartbeat_reply", Kind::Octets);
    }
    if calls.answers_heartbeats && calls.layout.heartbeat.is_none() {
        missing("heartbeat", Kind::Mark);
    }
    let Err(fault) = calls.check() else { return };
    let name = match fault {
        CallsFault::HeartbeatsUntold => return missing("request", Kind::Mark),
        CallsFault::Delimiter | CallsFault::Ids(_) => "id",
        CallsFault::Magic => "magic",
        CallsFault::Asks(_) => "request",
        CallsFault::Template(Template::Error) => "error_reply",
        CallsFault::Template(Template::HeartbeatReply) => "heartbeat_reply",
        CallsFault::Template(Template::HeartbeatRequest) => "heartbeat_request",
    };
    let key = format!("{frames}.{name}");
    problems.push(Problem::Value {
        key: values.key(&key),
        value: values.shown(&key),
        reason: fault.to_string(),
        allowed: "what a frame of the declared layout can have".to_owned(),
    });
}

/// Keys that say something of frames with ids alone.
const ONLY_WITH_IDS: [&str; 7] = [
    "magic",
    "request",
    "unasked",
    "client_heartbeats",
    "heartbeat_reply",
    "heartbeat_request",
    "heartbeat_interval",
];

/// Sections of an upstream that belong to the protocol of the same name.
const PROTOCOL_SECTIONS: [&str; 2] = ["tcp", "frames"];

fn at_most(values: &Values, key: &str, bound: &str, problems: &mut Vec<Problem>) {
    let (Some(time), Some(time_max)) = (values.time(key), values.time(bound)) else {
        return;
    };
    if time > time_max {
        problems.push(Problem::Value {
            key: values.key(key),
            value: format!("\"{}\"", time_text(time)),
            reason: format!("is more than {bound}"),
            allowed: format!("a time up to {}", time_text(time_max)),
        });
    }
}

fn check_upstream(values: &Values, key: &str, names: &Names, problems: &mut Vec<Problem>) {
    let Some(upstream) = values.text(key) else {
        return;
    };
    if names.upstreams.iter().any(|name| name == upstream) {
        return;
    }
    let allowed = match names.upstreams.as_slice() {
        [] => "an upstream, but there is none: add [upstream.NAME]".to_owned(),
        known => known
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect::<Vec<_>>()
            .join(" or "),
    };
    problems.push(Problem::Value {
        key: values.key(key),
        value: format!("\"{upstream}\""),
        reason: "there is no such upstream".to_owned(),
        allowed,
    });
}

fn check_addresses(values: &Values, names: &Names, problems: &mut Vec<Problem>) {
    let listeners = names
        .listeners
        .iter()
        .map(|name| format!("listener.{name}.listen"));
    let mut taken: BTreeMap<&Address, String> = BTreeMap::new();
    for key in ["admin.listen".to_owned()].into_iter().chain(listeners) {
        let Some(address) = values.address(&key).flatten() else {
            continue;
        };
        // Port 0 is another one each time.
        if matches!(address, Address::Ip(ip) if ip.port() == 0)
            || matches!(address, Address::Name(_, 0))
        {
            continue;
        }
        match taken.get(address) {
            Some(first) => problems.push(Problem::Value {
                key: values.key(&key),
                value: format!("\"{address}\""),
                reason: format!("is the address of {first} already"),
                allowed: "an address of its own".to_owned(),
            }),
            None => {
                taken.insert(address, key);
            }
        }
    }
}
