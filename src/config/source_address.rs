//! The addresses of this host that an upstream is dialled from.
//!
//! Spelling only: whether an address is this host's, and a range within what its kernel gives out, is
//! found out when it is used.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ::config::{Value as Written, ValueKind};

use super::checked::SourceAddress;
use super::value::{Fault, Value, fault, shown};

/// An upstream's source addresses, at most.
const SOURCES_MAX: usize = 64;
/// Ports below are for those with the privilege (ip(7), `ip_unprivileged_port_start`).
const PORT_MIN: u16 = 1024;
const FORMS: &str = "IPv4, [IPv6], IPv4:LOW-HIGH or [IPv6]:LOW-HIGH";

/// What may stand there, for people.
pub(super) fn allowed() -> String {
    format!("a list of at most {SOURCES_MAX} of: {FORMS}, with ports from {PORT_MIN} to 65535")
}

/// Reads a list of addresses to dial from.
pub(super) fn sources(list: &[Written]) -> Result<Value, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut sources: Vec<SourceAddress> = Vec::new();
    for (index, written) in list.iter().enumerate() {
        let read = match &written.kind {
            ValueKind::String(text) => source(text),
            _ => Err("is of the wrong type"),
        };
        let read = read.and_then(
            |source| match sources.iter().any(|it| overlap(it, &source)) {
                true => Err("has ports that stand there already"),
                false => Ok(source),
            },
        );
        match read {
            Ok(source) => sources.push(source),
            Err(reason) => {
                let place = format!("[{index}]");
                faults.push(fault(&place, shown(written), reason, allowed()));
            }
        }
    }
    if list.len() > SOURCES_MAX {
        let value = format!("{} addresses", list.len());
        faults.push(fault("", value, "are too many", allowed()));
    }
    match faults.is_empty() {
        true => Ok(Value::Sources(sources)),
        false => Err(faults),
    }
}

/// Two that would hand out the same port of the same address.
fn overlap(one: &SourceAddress, other: &SourceAddress) -> bool {
    one.ip == other.ip
        && match (&one.ports, &other.ports) {
            (Some(one), Some(other)) => one.start() <= other.end() && other.start() <= one.end(),
            _ => true,
        }
}

fn source(text: &str) -> Result<SourceAddress, &'static str> {
    let (ip, ports) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, ports) = rest.split_once(']').ok_or("is not an address")?;
            let ip: Ipv6Addr = ip.parse().map_err(|_| "is not an address")?;
            let ports = match ports {
                "" => None,
                ports => Some(ports.strip_prefix(':').ok_or("is not an address")?),
            };
            (IpAddr::V6(ip), ports)
        }
        None if text.parse::<Ipv6Addr>().is_ok() => return Err("is IPv6 without brackets"),
        None => {
            let (ip, ports) = match text.split_once(':') {
                Some((ip, ports)) => (ip, Some(ports)),
                None => (text, None),
            };
            let ip: Ipv4Addr = ip.parse().map_err(|_| "is not an address")?;
            (IpAddr::V4(ip), ports)
        }
    };
    if ip.to_canonical() != ip {
        return Err("is IPv4 written as IPv6");
    }
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err("is no address of one host");
    }
    if matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
        return Err("is of one link, which it does not name");
    }
    let ports = ports.map(range).transpose()?;
    Ok(SourceAddress { ip, ports })
}

fn range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let (low, high) = text.split_once('-').ok_or("has no range of ports")?;
    let port = |text: &str| -> Result<u16, &'static str> {
        let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number);
        number.ok_or("has no range of ports")
    };
    let (low, high) = (port(low)?, port(high)?);
    if low > high {
        return Err("has a range that ends before it begins");
    }
    if low < PORT_MIN {
        return Err("has ports that need a privilege");
    }
    Ok(low..=high)
}
