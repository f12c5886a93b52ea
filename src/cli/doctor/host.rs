//! Reads this host, twice, some seconds apart. What can't be read is noted, and the rest goes on.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

use super::counters::{self, Values};
use super::diagnosis::{self, CLOSE_WAIT_PILE, Missing, Reading};
use super::finding::Owner;
use super::look::{Before, Listeners, Look};
use super::owners;
use super::settings::{DESCRIPTORS, Judged, SETTINGS, Setting};
use crate::census::diag;
use crate::census::filter::Filter;
use crate::census::ports::Ports;
use crate::census::settings;
use crate::census::socket::{Socket, State, States};
use crate::sys::{clock, process};

/// Looks, waits for so many seconds, looks again.
pub(super) fn read(seconds: u64) -> Reading {
    let mut missing = Vec::new();
    let ports = ports(&mut missing);
    let start = clock::now();
    let counted_before = note(&mut missing, COUNTERS, counters());
    let first = look(&ports, Before::default());
    wait(Duration::from_secs(seconds));
    let counted = note(&mut missing, COUNTERS, counters());
    let elapsed = start.elapsed();
    let second = first.and_then(|first| look(&ports, first.into_before(elapsed)));
    let look = note(&mut missing, "the TCP sockets (sock_diag)", second);
    let rates = match (counted_before, counted) {
        (Some(before), Some(now)) => counters::rates(&before, &now, elapsed.as_secs_f64()),
        _ => Vec::new(),
    };
    let piles = look
        .as_ref()
        .map_or_else(Vec::new, |look| piles(look, &mut missing));
    Reading {
        look,
        seconds: elapsed.as_secs_f64(),
        rates,
        settings: judged(&mut missing),
        time_wait_max: number("tcp_max_tw_buckets"),
        tw_reuse: note(&mut missing, "net.ipv4.tcp_tw_reuse", settings::tw_reuse()).unwrap_or(0),
        piles,
        missing,
    }
}

const COUNTERS: &str = "the kernel's counters (/proc/net/snmp and netstat)";

#[expect(
    clippy::disallowed_methods,
    reason = "no worker and no session is here that it could block"
)]
fn wait(time: Duration) {
    std::thread::sleep(time);
}

fn look(ports: &Ports, before: Before) -> io::Result<Look> {
    let mut listeners = Listeners::default();
    let listening = States::of(&[State::Listen]);
    diag::dump(listening, &Filter::all(), &mut |socket| {
        listeners.add(socket);
    })?;
    let mut look = Look::new(listeners, ports.clone(), before);
    diag::dump(States::CONNECTED, &Filter::all(), &mut |socket| {
        look.add(socket);
    })?;
    Ok(look)
}

fn ports(missing: &mut Vec<Missing>) -> Ports {
    let range = settings::port_range();
    let range = note(missing, "net.ipv4.ip_local_port_range", range);
    let reserved = settings::reserved_ports();
    let reserved = note(missing, "net.ipv4.ip_local_reserved_ports", reserved);
    let range = range.unwrap_or_else(|| Ports::default().range().clone());
    Ports::new(range, &reserved.unwrap_or_default())
}

fn counters() -> io::Result<Values> {
    let mut values = counters::parse(&fs::read_to_string("/proc/net/snmp")?, "Tcp:");
    let extended = fs::read_to_string("/proc/net/netstat")?;
    values.extend(counters::parse(&extended, "TcpExt:"));
    Ok(values)
}

/// Looks for the owners of forgotten sockets, where there are enough to matter.
fn piles(look: &Look, missing: &mut Vec<Missing>) -> Vec<super::finding::Pile> {
    let mut by_user: HashMap<u32, usize> = HashMap::new();
    for socket in &look.forgotten {
        *by_user.entry(socket.user_id).or_default() += 1;
    }
    if by_user.values().all(|count| *count < CLOSE_WAIT_PILE) {
        return Vec::new();
    }
    let inodes = look.forgotten.iter().map(|it| it.inode);
    let owners = owners::of(&inodes.filter(|it| *it != 0).collect());
    let owner_of = |socket: &Socket| match (socket.inode, owners.get(&socket.inode)) {
        (0, _) => Owner::NotAccepted,
        (_, Some(owner)) => owner.clone(),
        (_, None) => Owner::User(socket.user_id),
    };
    let piles = diagnosis::piles(look, owner_of);
    if piles.iter().any(|it| matches!(it.owner, Owner::User(_))) {
        missing.push(Missing {
            what: "which process holds some sockets".to_owned(),
            reason: "only root may look into other users' processes: run as root".to_owned(),
        });
    }
    piles
}

fn judged(missing: &mut Vec<Missing>) -> Vec<Judged> {
    let mut all = Vec::new();
    for setting in SETTINGS {
        let value = match value(setting) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && setting.may_be_absent => {
                continue;
            }
            value => note(missing, setting.name, value),
        };
        all.extend(value.and_then(|value| setting.judge(&value)));
    }
    all
}

fn value(setting: &Setting) -> io::Result<String> {
    if setting.name == DESCRIPTORS {
        let limit = process::descriptor_limit()?;
        return Ok(format!("{} {}", limit.soft, limit.hard));
    }
    fs::read_to_string(format!("/proc/sys/{}", setting.name.replace('.', "/")))
}

fn number(name: &str) -> Option<u64> {
    settings::read(name).ok()?.trim().parse().ok()
}

/// What was read, or a note that it was not.
fn note<T>(missing: &mut Vec<Missing>, what: &str, read: io::Result<T>) -> Option<T> {
    let known = missing.iter().any(|it| it.what == what);
    read.map_err(|error| {
        if !known {
            missing.push(Missing {
                what: what.to_owned(),
                reason: error.to_string(),
            });
        }
    })
    .ok()
}
