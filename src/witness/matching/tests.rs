#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::num::NonZeroU64;

use super::*;

/// A core with a clock that starts at 1000 s.
struct Bench {
    matching: Matching,
    start: Instant,
}

const LISTENER: &str = "127.0.0.1:80";

impl Bench {
    fn new() -> Self {
        Self::with(Bounds::default())
    }

    fn with(bounds: Bounds) -> Self {
        let mut matching = Matching::new(bounds);
        matching.listens(address(LISTENER));
        Self {
            matching,
            start: Instant::now(),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn open(&mut self, cookie: u64, peer: &str, at: u64) {
        let at = self.at(at);
        let opened = Opened {
            side: Side::Downstream,
            local: Some(address(LISTENER)),
            peer: address(peer),
            cookie,
            at,
        };
        self.matching.opened(&opened, at);
    }

    fn end(&mut self, cookie: u64, peer: &str, (from, to): (u64, u64), reset: Option<Direction>) {
        let ended = Ended {
            side: Side::Downstream,
            local: Some(address(LISTENER)),
            peer: address(peer),
            cookie,
            opened_at: self.at(from),
            ended_at: self.at(to),
            reset: reset.map(|direction| RecordedReset {
                record: RecordId(cookie),
                direction,
            }),
        };
        self.matching.ended(&ended, self.at(to));
        self.check();
    }

    fn sent(&mut self, local: &str, peer: &str, at: u64) {
        self.hear(event(Direction::Sent, local, peer, 0), at);
    }

    fn received(&mut self, local: &str, peer: &str, cookie: u64, at: u64) {
        self.hear(event(Direction::Received, local, peer, cookie), at);
    }

    fn hear(&mut self, event: ResetEvent, at: u64) {
        let at = self.at(at);
        self.matching.heard(event, at, at);
        self.check();
    }

    fn tick(&mut self, at: u64) {
        self.matching.tick(self.at(at));
        self.check();
    }

    fn check(&self) {
        let stats = self.matching.stats();
        for direction in Direction::ALL {
            assert!(stats.of(direction).balances(), "{stats:?}");
        }
        assert!(self.matching.pending.is_consistent());
        let pending = stats.sent.pending + stats.received.pending;
        assert_eq!(pending, self.matching.pending.len() as u64);
        let sum: u64 = stats.every_unattributed().map(|row| row.3).sum();
        assert_eq!(sum, stats.sent.unattributed + stats.received.unattributed);
    }

    fn records(&mut self) -> Vec<u64> {
        let found = self.matching.take_witnessed();
        found.into_iter().map(|found| found.record.0).collect()
    }

    /// Witnessed, repeats, unattributed, foreign, pending.
    fn counts(&self, direction: Direction) -> [u64; 5] {
        let counts = self.matching.stats().of(direction);
        [
            counts.witnessed,
            counts.repeats,
            counts.unattributed,
            counts.foreign,
            counts.pending,
        ]
    }

    fn all_sent(&self) -> [u64; 5] {
        self.counts(Direction::Sent)
    }

    fn all_received(&self) -> [u64; 5] {
        self.counts(Direction::Received)
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn event(direction: Direction, local: &str, peer: &str, cookie: u64) -> ResetEvent {
    ResetEvent {
        at: Duration::ZERO,
        direction,
        local: address(local),
        peer: address(peer),
        cookie: NonZeroU64::new(cookie),
        kernel_reason: match direction {
            Direction::Sent => KernelReason::State,
            Direction::Received => KernelReason::Peer,
        },
    }
}

const PEER: &str = "127.0.0.1:4000";
const OTHER: &str = "127.0.0.1:4001";

#[test]
fn an_event_waits_for_the_end_of_its_connection() {
    let mut bench = Bench::new();
    bench.open(7, PEER, 0);
    bench.received(LISTENER, PEER, 7, 5);
    bench.tick(60_000);
    assert_eq!(bench.all_received(), [0, 0, 0, 0, 1]);
    bench.end(7, PEER, (0, 60_000), Some(Direction::Received));
    assert_eq!(bench.all_received(), [1, 0, 0, 0, 0]);
    assert_eq!(bench.records(), [7]);
    assert!(bench.records().is_empty());
}

#[test]
fn an_end_may_be_told_before_the_event_is_read() {
    let mut bench = Bench::new();
    bench.open(7, PEER, 0);
    bench.end(7, PEER, (0, 10), Some(Direction::Sent));
    bench.sent(LISTENER, PEER, 10);
    assert_eq!(bench.records(), [7]);
    bench.sent(LISTENER, PEER, 11);
    bench.sent(LISTENER, PEER, 400);
    assert_eq!(bench.all_sent(), [1, 2, 0, 0, 0]);
    // Long after the end it is another matter.
    bench.sent(LISTENER, PEER, 2_500);
    assert_eq!(bench.all_sent(), [1, 2, 1, 0, 0]);
    assert!(bench.records().is_empty());
}

#[test]
fn an_event_of_the_other_direction_is_not_the_recorded_one() {
    let mut bench = Bench::new();
    bench.open(7, PEER, 0);
    bench.sent(LISTENER, PEER, 9);
    bench.end(7, PEER, (0, 10), Some(Direction::Received));
    assert_eq!(bench.all_sent(), [0, 0, 1, 0, 0]);
    bench.received(LISTENER, PEER, 7, 10);
    assert_eq!(bench.all_received(), [1, 0, 0, 0, 0]);
}

#[test]
fn an_end_without_a_reset_leaves_events_unattributed_with_side_and_reason() {
    let mut bench = Bench::new();
    bench.open(7, PEER, 0);
    bench.end(7, PEER, (0, 10), None);
    bench.sent(LISTENER, PEER, 11);
    let stats = bench.matching.stats();
    let count = stats.unattributed(Side::Downstream, Direction::Sent, KernelReason::State);
    assert_eq!(count, 1);
    assert_eq!(bench.all_sent(), [0, 0, 1, 0, 0]);
}

#[test]
fn addresses_that_are_used_again_belong_to_the_last_that_had_begun() {
    let mut bench = Bench::new();
    bench.open(7, PEER, 0);
    // The second begins before the end of the first is told.
    bench.open(8, PEER, 20);
    bench.sent(LISTENER, PEER, 10);
    bench.end(7, PEER, (0, 21), Some(Direction::Sent));
    assert_eq!(bench.records(), [7]);
    bench.sent(LISTENER, PEER, 30);
    assert_eq!(bench.all_sent(), [1, 0, 0, 0, 1]);
    bench.end(8, PEER, (20, 31), Some(Direction::Sent));
    assert_eq!(bench.records(), [8]);
    bench.sent(LISTENER, PEER, 12);
    assert_eq!(bench.all_sent(), [2, 1, 0, 0, 0]);
}

#[test]
fn what_waits_in_the_accept_queue_is_waited_for() {
    let mut bench = Bench::new();
    bench.received(LISTENER, PEER, 7, 0);
    bench.received(LISTENER, OTHER, 8, 0);
    bench.tick(50_000);
    assert_eq!(bench.all_received(), [0, 0, 0, 0, 2]);
    bench.open(7, PEER, 50_000);
    bench.end(7, PEER, (50_000, 50_001), Some(Direction::Received));
    assert_eq!(bench.records(), [7]);
    bench.tick(120_000);
    assert_eq!(bench.all_received(), [1, 0, 1, 0, 0]);
}

#[test]
fn a_dialling_socket_is_known_by_its_cookie_before_it_has_an_address() {
    let mut bench = Bench::new();
    let (local, peer) = ("10.0.0.1:40000", "10.0.0.2:80");
    bench.received(local, peer, 9, 1);
    let at = bench.at(0);
    let opened = Opened {
        side: Side::Upstream,
        local: None,
        peer: address(peer),
        cookie: 9,
        at,
    };
    bench.matching.opened(&opened, bench.at(2));
    bench.tick(3_000);
    assert_eq!(bench.all_received(), [0, 0, 0, 0, 1]);
    let ended = Ended {
        side: Side::Upstream,
        local: None,
        peer: address(peer),
        cookie: 9,
        opened_at: at,
        ended_at: at,
        reset: None,
    };
    bench.matching.ended(&ended, bench.at(3_000));
    let stats = bench.matching.stats();
    let count = stats.unattributed(Side::Upstream, Direction::Received, KernelReason::Peer);
    assert_eq!(count, 1);
}

#[test]
fn a_dialling_socket_is_told_of_again_once_it_has_an_address() {
    let mut bench = Bench::new();
    let (local, peer) = ("10.0.0.1:40000", "10.0.0.2:80");
    let dialling = Opened {
        side: Side::Upstream,
        local: None,
        peer: address(peer),
        cookie: 9,
        at: bench.at(0),
    };
    bench.matching.opened(&dialling, bench.at(0));
    bench.received(local, peer, 9, 1);
    let connected = Opened {
        local: Some(address(local)),
        at: bench.at(2),
        ..dialling
    };
    bench.matching.opened(&connected, bench.at(2));
    bench.sent(local, peer, 5);
    assert_eq!(bench.all_received(), [0, 0, 0, 0, 1]);
    let reset = RecordedReset {
        record: RecordId(1),
        direction: Direction::Sent,
    };
    let ended = connected.ended(bench.at(6), Some(reset));
    bench.matching.ended(&ended, bench.at(6));
    assert_eq!(bench.records(), [1]);
    assert_eq!(bench.all_received(), [0, 0, 1, 0, 0]);
}

#[test]
fn what_is_not_ours_is_foreign_after_a_moment() {
    let mut bench = Bench::new();
    bench.sent("127.0.0.1:81", PEER, 0);
    bench.received("127.0.0.2:80", PEER, 99, 0);
    assert_eq!(bench.all_sent(), [0, 0, 0, 0, 1]);
    bench.tick(1_000);
    assert_eq!(bench.all_sent(), [0, 0, 0, 1, 0]);
    assert_eq!(bench.all_received(), [0, 0, 0, 1, 0]);
}

#[test]
fn a_wildcard_listener_has_its_port_on_every_address() {
    let table = [
        ("0.0.0.0:80", "10.1.1.1:80", true),
        ("0.0.0.0:80", "10.1.1.1:81", false),
        ("0.0.0.0:80", "[::1]:80", false),
        ("[::]:80", "[::1]:80", true),
        ("[::]:80", "10.1.1.1:80", true),
        ("[::1]:80", "[::2]:80", false),
    ];
    for (bound, local, is_ours) in table {
        let mut bench = Bench::new();
        bench.matching.listens(address(bound));
        bench.sent(local, "10.9.9.9:1", 0);
        bench.tick(1_000);
        let expected = if is_ours {
            [0, 0, 1, 0, 0]
        } else {
            [0, 0, 0, 1, 0]
        };
        assert_eq!(bench.all_sent(), expected, "{bound} {local}");
        bench.matching.listens_no_more(address(bound));
        bench.sent(local, "10.9.9.9:1", 2_000);
        bench.tick(4_000);
        assert_eq!(bench.all_sent()[3], if is_ours { 1 } else { 2 });
    }
}

#[test]
fn every_table_has_its_bound() {
    let mut bench = Bench::with(Bounds {
        pending_max: 3,
        ended_max: 2,
        ..Bounds::default()
    });
    for number in 0..5 {
        bench.sent("127.0.0.1:81", PEER, number);
    }
    assert_eq!(bench.all_sent(), [0, 0, 0, 2, 3]);
    assert_eq!(bench.matching.stats().pending_overflowed, 2);
    bench.tick(5_000);
    for cookie in 1..5 {
        let peer = format!("127.0.0.1:500{cookie}");
        bench.open(cookie, &peer, 5_000);
        bench.end(cookie, &peer, (5_000, 5_000), Some(Direction::Sent));
    }
    assert_eq!(bench.matching.connections.len(), 2);
    assert_eq!(bench.matching.by_tuple.len(), 2);
    bench.tick(125_000);
    assert!(bench.matching.connections.is_empty());
    assert!(bench.matching.by_tuple.is_empty());
    assert_eq!(bench.matching.stats().pending_expired, 0);
    bench.open(9, PEER, 130_000);
    bench.received(LISTENER, PEER, 9, 130_001);
    bench.tick(250_001);
    assert_eq!(bench.all_received(), [0, 0, 1, 0, 0]);
    assert_eq!(bench.matching.stats().pending_expired, 1);
}

/// What a random world tells, in an order of its own.
#[derive(Debug, Clone, Copy)]
enum Told {
    Open,
    End,
    Sent(u64),
    Received(u64),
}

/// One life between the addresses of a lane.
struct Life {
    cookie: u64,
    peer: String,
    span: (u64, u64),
    reset: Option<Direction>,
    telling: VecDeque<Told>,
}

/// A connection that ends, with all that the kernel tells of it. Sends are told after the opening,
/// receives whenever it pleases.
fn live(random: &mut fastrand::Rng, cookie: u64, peer: String, from: u64) -> Life {
    let to = from + random.u64(1..50);
    let reset = *random
        .choice(&[None, Some(Direction::Sent), Some(Direction::Received)])
        .unwrap();
    let mut later = vec![Told::End];
    for _ in 0..random.u64(0..4) {
        later.push(Told::Sent(random.u64(from..=to + 1)));
    }
    random.shuffle(&mut later);
    later.insert(0, Told::Open);
    if random.bool() {
        later.insert(random.usize(0..=later.len()), Told::Received(to));
    }
    Life {
        cookie,
        peer,
        span: (from, to),
        reset,
        telling: later.into(),
    }
}

/// How many sent and received events a life must be found to have: witnessed, repeats, unattributed.
fn expected(life: &Life) -> ([u64; 3], [u64; 3]) {
    let count =
        |is_it: fn(&Told) -> bool| life.telling.iter().filter(|told| is_it(told)).count() as u64;
    let share = |count: u64, recorded: bool| match recorded {
        true => [count.min(1), count.saturating_sub(1), 0],
        false => [0, 0, count],
    };
    (
        share(
            count(|told| matches!(told, Told::Sent(_))),
            life.reset == Some(Direction::Sent),
        ),
        share(
            count(|told| matches!(told, Told::Received(_))),
            life.reset == Some(Direction::Received),
        ),
    )
}

#[test]
fn every_event_gets_its_verdict_in_whatever_order_things_are_told() {
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new();
        let mut lives = Vec::new();
        for lane in 0..4 {
            let mut from = 0;
            for _ in 0..random.u64(1..6) {
                let cookie = lives.len() as u64 + 1;
                let life = live(&mut random, cookie, format!("127.0.0.1:400{lane}"), from);
                // A millisecond lies between an RST and the connection that uses the addresses again.
                from = life.span.1 + 2;
                lives.push(life);
            }
        }
        let mut sent = [0; 3];
        let mut received = [0; 3];
        for life in &lives {
            let (of_sent, of_received) = expected(life);
            for number in 0..3 {
                sent[number] += of_sent[number];
                received[number] += of_received[number];
            }
        }
        let foreign = random.u64(0..5);
        for _ in 0..foreign {
            bench.sent("127.0.0.1:9", "127.0.0.1:10", 0);
        }
        loop {
            let unfinished = lives.iter_mut().filter(|life| !life.telling.is_empty());
            let Some(life) = random.choice(unfinished.collect::<Vec<_>>()) else {
                break;
            };
            tell(&mut bench, life);
        }
        let waiting = (bench.all_sent()[4], bench.all_received()[4]);
        assert_eq!(waiting, (foreign, 0), "seed {seed}");
        bench.tick(1_000_000);
        let whole = |[witnessed, repeats, unattributed]: [u64; 3], foreign| {
            [witnessed, repeats, unattributed, foreign, 0]
        };
        assert_eq!(bench.all_sent(), whole(sent, foreign), "seed {seed}");
        assert_eq!(bench.all_received(), whole(received, 0), "seed {seed}");
        let found = bench.records().len() as u64;
        assert_eq!(found, sent[0] + received[0], "seed {seed}");
        assert!(bench.matching.connections.is_empty() && bench.matching.by_tuple.is_empty());
    }
}

/// Tells the next thing of a life.
fn tell(bench: &mut Bench, life: &mut Life) {
    let peer = life.peer.as_str();
    match life.telling.pop_front() {
        None => {}
        Some(Told::Open) => bench.open(life.cookie, peer, life.span.0),
        Some(Told::End) => bench.end(life.cookie, peer, life.span, life.reset),
        Some(Told::Sent(at)) => bench.sent(LISTENER, peer, at),
        Some(Told::Received(at)) => bench.received(LISTENER, peer, life.cookie, at),
    }
}
