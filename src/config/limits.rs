//! What no key can tell alone: limits between two keys, names that must exist, addresses that must
//! differ.
//!
//! A key without a good value has its problem already and is passed over here.

use std::collections::BTreeMap;

use super::checked::Address;
use super::error::Problem;
use super::read::{Draft, Values};
use super::value::time_text;

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
        check_idle(values, &pool, problems);
        at_most(
            values,
            &format!("{pool}.backoff_min"),
            &format!("{pool}.backoff_max"),
            problems,
        );
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

fn check_idle(values: &Values, pool: &str, problems: &mut Vec<Problem>) {
    let key = format!("{pool}.min_idle");
    let (Some(min_idle), Some(size)) =
        (values.number(&key), values.number(&format!("{pool}.size")))
    else {
        return;
    };
    if min_idle > size {
        problems.push(Problem::Value {
            key: values.key(&key),
            value: min_idle.to_string(),
            reason: format!("is more than {pool}.size"),
            allowed: format!("a whole number from 0 to {size}"),
        });
    }
}

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
