use super::*;
use crate::sys::clock;

const SERVICE: &str = "10.0.0.9";

fn sources(addresses: &[&str]) -> Sources {
    let read = |text: &&str| {
        let (ip, ports) = match text.rsplit_once(':') {
            Some((ip, ports)) if ports.contains('-') => (ip, Some(ports)),
            _ => (*text, None),
        };
        let ports = ports.and_then(|it| it.split_once('-'));
        SourceAddress {
            ip: ip.parse().expect("an address"),
            ports: ports
                .map(|(low, high)| low.parse().expect("a port")..=high.parse().expect("a port")),
        }
    };
    let addresses: Vec<_> = addresses.iter().map(read).collect();
    Sources::new(&addresses, false, HostPorts::default())
}

fn order(sources: &Sources, endpoint: &str, now: Instant) -> Vec<String> {
    let order = sources.order(endpoint.parse().expect("an address"), now);
    order.iter().map(|it| it.address().to_string()).collect()
}

/// Which source comes first, `count` times, with a connect from it each time.
fn dial(sources: &Sources, count: usize, now: Instant) -> Vec<usize> {
    let mut counts = vec![0; sources.all().len()];
    for _ in 0..count {
        let first = &sources.order(SERVICE.parse().expect("an address"), now)[0];
        first.on_dialled(now);
        let place = sources.all().iter().position(|it| Arc::ptr_eq(it, first));
        counts[place.expect("one of them")] += 1;
    }
    counts
}

#[test]
fn sources_of_one_size_bear_the_same_load() {
    let sources = sources(&["10.0.0.5", "10.0.0.6", "10.0.0.7"]);
    assert_eq!(dial(&sources, 300, clock::now()), [100, 100, 100]);
}

#[test]
fn a_larger_source_is_taken_until_no_more_is_free_there_than_elsewhere() {
    let sources = sources(&["10.0.0.5:40000-40099", "10.0.0.6:40000-40299"]);
    let now = clock::now();
    assert_eq!(dial(&sources, 200, now), [0, 200]);
    assert_eq!(dial(&sources, 200, now), [100, 100]);
    assert!(sources.all().iter().all(|it| it.free(now) == 0));
}

#[test]
fn what_the_kernel_counted_goes_before_what_was_estimated() {
    let sources = sources(&["10.0.0.5:40000-40099", "10.0.0.6:40000-40099"]);
    let now = clock::now();
    dial(&sources, 100, now);
    let counted = Counted {
        in_use: 1,
        time_wait: 9,
    };
    sources.all()[1].set_counted(counted, now);
    assert_eq!(sources.all()[1].free(now), 90);
    assert_eq!(order(&sources, SERVICE, now)[0], "10.0.0.6:40000-40099");
    assert_eq!(
        dial(&sources, 40, now),
        [0, 40],
        "and goes on being adjusted"
    );
    let later = now + COUNT_AGE_MAX;
    assert_eq!(sources.all()[1].free(later), 100, "nobody counted since");
}

#[test]
fn what_was_dialled_is_forgotten_when_its_time_wait_is_over() {
    let sources = sources(&["10.0.0.5:40000-40099"]);
    let now = clock::now();
    let source = &sources.all()[0];
    dial(&sources, 10, now);
    let next = now + TIME_WAIT;
    assert_eq!(
        source.free(next),
        90,
        "it may have been closed a moment ago"
    );
    dial(&sources, 5, next);
    assert_eq!(source.free(next), 85);
    assert_eq!(source.free(next + TIME_WAIT), 95);
    assert_eq!(source.free(next + TIME_WAIT * 2), 100);
    dial(&sources, 1, next + TIME_WAIT * 3);
    assert_eq!(source.free(next + TIME_WAIT * 3), 99);
}

#[test]
fn an_empty_source_comes_last_for_a_while() {
    let sources = sources(&["10.0.0.5:40000-40009", "10.0.0.6:40000-40001"]);
    let all = ["10.0.0.5:40000-40009", "10.0.0.6:40000-40001"];
    let now = clock::now();
    assert_eq!(order(&sources, SERVICE, now), all);
    sources.all()[0].on_empty(now);
    assert_eq!(order(&sources, SERVICE, now), [all[1], all[0]]);
    assert_eq!(order(&sources, SERVICE, now + EMPTY_TIME), all);
}

#[test]
fn when_all_are_empty_one_is_tried_at_a_time() {
    let sources = sources(&["10.0.0.5", "10.0.0.6"]);
    let now = clock::now();
    let moment = Duration::from_millis(100);
    sources.all()[1].on_empty(now);
    sources.all()[0].on_empty(now + moment);
    let tried = order(&sources, SERVICE, now + moment);
    assert_eq!(tried, ["10.0.0.6"], "the one that was found empty first");
    sources.all()[1].on_empty(now + 2 * moment);
    assert_eq!(order(&sources, SERVICE, now + 2 * moment), ["10.0.0.5"]);
    sources.all()[0].on_dialled(now + 3 * moment);
    let tried = order(&sources, SERVICE, now + 3 * moment);
    assert_eq!(tried, ["10.0.0.5", "10.0.0.6"]);
}

#[test]
fn an_address_that_is_not_this_hosts_comes_last_and_is_news_once() {
    let sources = sources(&["10.0.0.5", "10.0.0.6"]);
    let now = clock::now();
    assert!(sources.all()[0].on_foreign(now));
    sources.all()[1].on_empty(now);
    assert_eq!(order(&sources, SERVICE, now), ["10.0.0.6"]);
    let later = now + EMPTY_TIME;
    assert!(!sources.all()[0].on_foreign(later));
    sources.all()[0].on_dialled(later);
    assert!(sources.all()[0].on_foreign(later));
}

#[test]
fn a_count_that_finds_free_ports_ends_the_wait() {
    let sources = sources(&["10.0.0.5:40000-40009", "10.0.0.6:40000-40009"]);
    let now = clock::now();
    for source in sources.all() {
        source.on_empty(now);
    }
    let full = Counted {
        in_use: 4,
        time_wait: 6,
    };
    sources.all()[0].set_counted(full, now);
    sources.all()[1].set_counted(Counted { in_use: 4, ..full }, now);
    assert_eq!(order(&sources, SERVICE, now).len(), 1, "both are full");
    sources.all()[1].set_counted(Counted::default(), now);
    let all = ["10.0.0.6:40000-40009", "10.0.0.5:40000-40009"];
    assert_eq!(order(&sources, SERVICE, now), all);
}

#[test]
fn only_a_source_of_the_endpoints_family_is_dialled_from() {
    let sources = sources(&["10.0.0.5", "fd00::5"]);
    let now = clock::now();
    assert_eq!(order(&sources, SERVICE, now), ["10.0.0.5"]);
    assert_eq!(order(&sources, "fd00::9", now), ["[fd00::5]"]);
    let none = self::sources(&["10.0.0.5"]);
    assert!(order(&none, "fd00::9", now).is_empty());
}

#[test]
fn the_kernel_picks_only_within_its_own_range() {
    let host = HostPorts {
        given_out: Ports::new(32_768..=60_999, &[40_000..=40_009, 50_000..=50_000]),
        keeps_to_ranges: true,
    };
    let pick_on = |host: &HostPorts, ports: Option<RangeInclusive<u16>>| {
        let ip = IpAddr::from([10, 0, 0, 5]);
        let sources = Sources::new(&[SourceAddress { ip, ports }], false, host.clone());
        let source = &sources.all()[0];
        (source.picker(), source.ports())
    };
    let pick = |ports| pick_on(&host, ports);
    assert_eq!(pick(None), (Picker::Kernel, 28_232 - 11));
    assert_eq!(pick(Some(40_000..=40_099)), (Picker::Kernel, 90));
    assert_eq!(pick(Some(32_768..=60_999)), (Picker::Kernel, 28_232 - 11));
    assert_eq!(pick(Some(20_000..=29_999)), (Picker::Millpond, 10_000));
    assert_eq!(pick(Some(60_000..=61_000)), (Picker::Millpond, 1_001));
    assert_eq!(pick(Some(1_024..=65_535)), (Picker::Millpond, 64_512));
    let older = HostPorts {
        keeps_to_ranges: false,
        ..host.clone()
    };
    assert_eq!(pick_on(&older, None), (Picker::Kernel, 28_232 - 11));
    let range = Some(40_000..=40_099);
    assert_eq!(pick_on(&older, range), (Picker::Millpond, 100));
}

#[test]
fn a_kernel_that_found_no_port_is_not_asked_again_at_once() {
    let sources = sources(&["10.0.0.5", "10.0.0.6:20000-29999"]);
    let now = clock::now();
    let may_be = |now| sources.all().iter().map(move |it| it.may_be_picked(now));
    assert!(
        may_be(now).eq([true, false]),
        "the other is millpond's to pick"
    );
    sources.all()[0].on_unpicked(now);
    assert!(may_be(now).eq([false, false]));
    assert!(may_be(now + EMPTY_TIME).eq([true, false]));
}

#[test]
fn every_port_comes_before_one_comes_again() {
    let sources = sources(&["10.0.0.5:20000-20002"]);
    let picked: Vec<u16> = (0..7).map(|_| sources.all()[0].next_port()).collect();
    assert_eq!(
        picked,
        [20_000, 20_001, 20_002, 20_000, 20_001, 20_002, 20_000]
    );
}
