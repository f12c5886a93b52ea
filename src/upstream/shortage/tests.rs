use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::*;
use crate::config::checked::SourceAddress;

fn service() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 9], 80))
}

fn source(last: u8, ports: Option<RangeInclusive<u16>>) -> SourceAddress {
    let ip = IpAddr::from([10, 0, 0, last]);
    SourceAddress { ip, ports }
}

fn told(addresses: &[SourceAddress], reuse: bool, counted: &[(u32, u32)]) -> String {
    let sources = Sources::new(addresses, reuse, HostPorts::default());
    let routes = routes(&sources, &HostPorts::default(), service());
    let row = |route| Row {
        route,
        counted: Counted::default(),
    };
    let mut rows: Vec<Row> = routes.into_iter().map(row).collect();
    for (row, (time_wait, in_use)) in rows.iter_mut().zip(counted) {
        row.counted = Counted {
            in_use: *in_use,
            time_wait: *time_wait,
        };
    }
    exhausted("orders", &sources, service(), &Ok(rows))
}

#[test]
fn the_host_without_sources_is_told_of_its_own_range() {
    assert_eq!(
        told(&[], false, &[(28_200, 32)]),
        "no free port to dial 10.0.0.9:80 from this host (32768-60999, 28232 ports: 28200 in TIME_WAIT, 32 in \
         use). Add source addresses (upstream.orders.source), widen net.ipv4.ip_local_port_range, or raise \
         pool.max_lifetime and pool.max_exchanges, so that fewer connections are opened"
    );
}

#[test]
fn each_source_is_told_with_its_range_and_what_holds_it() {
    let sources = [
        source(5, Some(40_000..=49_999)),
        source(6, Some(40_000..=40_099)),
    ];
    assert_eq!(
        told(&sources, false, &[(9_970, 30), (90, 7)]),
        "no free port to dial 10.0.0.9:80 from 10.0.0.5 (40000-49999, 10000 ports: 9970 in TIME_WAIT, 30 in \
         use), 10.0.0.6 (40000-40099, 100 ports: 90 in TIME_WAIT, 7 in use, 3 free by now or bound to elsewhere). Add source \
         addresses (upstream.orders.source), widen the ranges of ports there, or raise pool.max_lifetime and \
         pool.max_exchanges, so that fewer connections are opened"
    );
}

#[test]
fn a_range_of_which_the_kernel_picks_nothing_is_told_what_that_costs() {
    let sources = [source(5, Some(20_000..=20_009))];
    let cost = ". One port serves one endpoint at a time here: a range within \
                net.ipv4.ip_local_port_range has all its ports for each";
    assert!(told(&sources, false, &[(10, 0)]).ends_with(cost));
    assert!(!told(&sources, true, &[(10, 0)]).ends_with(cost));
}

#[test]
fn many_sources_make_no_endless_line() {
    let sources: Vec<_> = (0..64).map(|last| source(last, None)).collect();
    let text = told(&sources, false, &[]);
    assert!(text.contains("10.0.0.7 ("), "{text}");
    assert!(!text.contains("10.0.0.8 ("), "{text}");
    assert!(text.contains(" and 56 addresses more. Add"), "{text}");
}

#[test]
fn a_kernel_that_does_not_count_leaves_the_cure() {
    let error = io::Error::from_raw_os_error(libc::EPERM);
    let text = exhausted("orders", &Sources::default(), service(), &Err(error));
    let begins = "no free port to dial 10.0.0.9:80; what holds them can't be counted (Operation not permitted";
    assert!(text.starts_with(begins), "{text}");
    assert!(text.contains("upstream.orders.source"), "{text}");
}

#[test]
fn an_address_that_can_not_be_dialled_from_is_named() {
    let host = HostPorts::default();
    let sources = Sources::new(&[source(5, None), source(6, None)], false, host);
    assert_eq!(
        unusable("orders", &sources, service()),
        "no address to dial 10.0.0.9:80 from: 10.0.0.5, 10.0.0.6 of upstream.orders.source is not this host's. \
         Give it to an interface, or take it out there"
    );
    let ipv6: SocketAddr = "[fd00::9]:80".parse().expect("an address");
    assert_eq!(
        unusable("orders", &sources, ipv6),
        "no address to dial [fd00::9]:80 from: upstream.orders.source has none of its family. Add one"
    );
}

#[test]
fn a_shortage_is_told_at_once_then_with_pauses_and_counts_what_it_keeps_back() {
    let mut shortage = Shortage::default();
    let now = clock::now();
    assert_eq!(shortage.failed(now), Some(1));
    for _ in 0..5 {
        assert_eq!(shortage.failed(now + TOLD_EVERY / 2), None);
    }
    assert_eq!(shortage.failed(now + TOLD_EVERY), Some(6));
}

#[test]
fn what_was_told_is_shown_only_while_it_lasts() {
    let mut shortage = Shortage::default();
    let now = clock::now();
    shortage.failed(now);
    shortage.ended();
    // The kernel was asked meanwhile.
    shortage.text = Some("no free port".to_owned());
    assert_eq!(shortage.text(), None);
    shortage.failed(now);
    assert_eq!(shortage.text().as_deref(), Some("no free port"));
}
