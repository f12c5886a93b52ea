//! The settings of this network namespace that say how many ports there are and when one comes back.

use std::fs;
use std::io;
use std::ops::RangeInclusive;

use super::ports::Ports;

/// The ports that a connect without a bind to one takes (ip(7), `ip_local_port_range`).
pub fn port_range() -> io::Result<RangeInclusive<u16>> {
    let text = read("ip_local_port_range")?;
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(unexpected("ip_local_port_range", &text)),
    }
}

/// The ports of that range that a connect never takes all the same (`ip_local_reserved_ports`), in
/// order.
pub fn reserved_ports() -> io::Result<Vec<RangeInclusive<u16>>> {
    let text = read("ip_local_reserved_ports")?;
    let ranges = parse_ranges(&text);
    ranges.ok_or_else(|| unexpected("ip_local_reserved_ports", &text))
}

/// The ports that a connect may take: the one without the other.
pub fn ports() -> io::Result<Ports> {
    Ok(Ports::new(port_range()?, &reserved_ports()?))
}

/// When a dialling socket may take a port that is in TIME_WAIT towards the same address
/// (Documentation/networking/ip-sysctl.rst, `tcp_tw_reuse`): 0 never, 1 after a second, 2 the same on
/// loopback only; and never where segments carry no timestamps (RFC 7323, `tcp_timestamps`).
pub fn tw_reuse() -> io::Result<u8> {
    if read("tcp_timestamps")?.trim() == "0" {
        return Ok(0);
    }
    let text = read("tcp_tw_reuse")?;
    let value = text.trim().parse();
    value.map_err(|_| unexpected("tcp_tw_reuse", &text))
}

/// One setting of `net.ipv4`, which holds for IPv6 too where it is TCP's.
pub fn read(name: &str) -> io::Result<String> {
    fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"))
}

fn unexpected(name: &str, text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{name} says {text:?}"))
}

/// `8080,9000-9010`
fn parse_ranges(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let items = text.trim().split(',').filter(|item| !item.is_empty());
    let ranges = items.map(|item| match item.split_once('-') {
        Some((first, last)) => Some(first.parse().ok()?..=last.parse().ok()?),
        None => item.parse().ok().map(|port| port..=port),
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_the_settings() {
        let range = port_range().expect("a range");
        assert!(range.start() <= range.end());
        assert!(reserved_ports().is_ok());
        assert!(tw_reuse().expect("a number") <= 2);
    }

    #[test]
    fn ranges_are_single_ports_or_spans() {
        assert_eq!(parse_ranges("\n"), Some(vec![]));
        assert_eq!(parse_ranges("8080\n"), Some(vec![8080..=8080]));
        assert_eq!(parse_ranges("1,5-7"), Some(vec![1..=1, 5..=7]));
        assert_eq!(parse_ranges("1-x"), None);
    }
}
