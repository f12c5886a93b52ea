//! A pool between simulated clients and a simulated service that closes idle connections: what it
//! learns, what that spares, and what it costs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::*;
use crate::sys::clock;

#[derive(Debug, Clone, Copy)]
struct Connection {
    id: u64,
    idle_since: Instant,
}

impl Handle for Connection {
    fn id(&self) -> u64 {
        self.id
    }
    fn key(&self) -> PoolKey {
        PoolKey::SOLE
    }
    fn retire_at(&self) -> Option<Instant> {
        None
    }
    fn exchanges(&self) -> u64 {
        1
    }
    fn idle_since(&self) -> Option<Instant> {
        Some(self.idle_since)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ask {
        client: u64,
    },
    Answered {
        client: u64,
        connection: u64,
    },
    /// The service closes a connection, if it has been idle since then.
    Close {
        connection: u64,
        since: Instant,
    },
}

/// How a service chooses the age at which it closes, in milliseconds.
type Closing = fn(&mut fastrand::Rng) -> f64;

struct World {
    books: Books<Connection>,
    now: Instant,
    events: BinaryHeap<Reverse<(Instant, Event)>>,
    random: fastrand::Rng,
    leased: HashMap<u64, Connection>,
    /// When the service closes what is idle.
    closes_at: HashMap<u64, Instant>,
    closing: Closing,
    /// Milliseconds that a client pauses: at least, and at most.
    pause: (f64, f64),
    connects: u64,
    closes: u64,
    lost_races: u64,
}

/// From the lease of a connection until its request is at the service.
const WAY: Duration = Duration::from_micros(200);

impl World {
    fn new(seed: u64, learn: bool, size: usize, clients: u64, pause: (f64, f64)) -> Self {
        let limits = Limits {
            size,
            min_idle: 0,
            idle_timeout: Some(Duration::from_secs(120)),
            learn_idle_timeout: learn,
            max_exchanges: None,
            connect_parallel: size,
        };
        let now = clock::now();
        let mut world = Self {
            books: Books::new(limits),
            now,
            events: BinaryHeap::new(),
            random: fastrand::Rng::with_seed(seed),
            leased: HashMap::new(),
            closes_at: HashMap::new(),
            closing: |_| 0.0,
            pause,
            connects: 0,
            closes: 0,
            lost_races: 0,
        };
        for client in 0..clients {
            let pause = world.pause();
            world.after(pause, Event::Ask { client });
        }
        world
    }

    fn pause(&mut self) -> f64 {
        self.pause.0 + self.random.f64() * (self.pause.1 - self.pause.0)
    }

    fn after(&mut self, milliseconds: f64, event: Event) {
        let at = self.now + Duration::from_secs_f64(milliseconds / 1000.0);
        self.events.push(Reverse((at, event)));
    }

    /// Lets time pass against a service that closes so.
    fn run(&mut self, time: Duration, closing: Closing) {
        self.closing = closing;
        let end = self.now + time;
        while self.now < end {
            let Some(Reverse((at, event))) = self.events.pop() else {
                return;
            };
            while let Some(expiry) = self.books.next_expiry().filter(|it| *it <= at) {
                self.now = self.now.max(expiry);
                while self.books.expire(self.now, false).is_some() {
                    self.books.slot_freed();
                }
            }
            self.now = at;
            self.happen(event);
            self.books.check_invariants(self.books.limits().size);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Ask { client } => match self.books.lend(PoolKey::SOLE, self.now) {
                Some(connection) => self.ask(client, connection),
                None => {
                    // Somebody waits.
                    while self.books.expire(self.now, true).is_some() {
                        self.books.slot_freed();
                    }
                    if self.books.can_connect() {
                        self.connect(client);
                    } else {
                        self.after(1.0, Event::Ask { client });
                    }
                }
            },
            Event::Answered { client, connection } => {
                let mut connection = self.leased.remove(&connection).expect("it is lent");
                connection.idle_since = self.now;
                self.books.release(connection, self.now);
                let age = (self.closing)(&mut self.random);
                let (since, id) = (self.now, connection.id);
                let at = self.now + Duration::from_secs_f64(age / 1000.0);
                self.closes_at.insert(id, at);
                self.after(
                    age,
                    Event::Close {
                        connection: id,
                        since,
                    },
                );
                let pause = self.pause();
                self.after(pause, Event::Ask { client });
            }
            Event::Close { connection, since } => {
                let idle = self.books.idle_connection(connection);
                if idle.is_some_and(|it| it.idle_since == since) {
                    let (_, age) = self.books.retire_idle(connection, self.now).expect("idle");
                    self.closes += 1;
                    self.books.closed_by_service(age, Evidence::Seen, self.now);
                    self.books.slot_freed();
                }
            }
        }
    }

    fn connect(&mut self, client: u64) {
        self.books.start_connect();
        self.connects += 1;
        self.books.connected_and_lent();
        let (id, idle_since) = (self.connects, self.now);
        self.begin(client, Connection { id, idle_since });
    }

    fn ask(&mut self, client: u64, connection: Connection) {
        if self.closes_at[&connection.id] > self.now + WAY {
            return self.begin(client, connection);
        }
        self.lost_races += 1;
        let age = self.now - connection.idle_since;
        self.books
            .closed_by_service(age, Evidence::LostRace, self.now);
        self.books.retire_leased(false);
        self.connect(client);
    }

    fn begin(&mut self, client: u64, connection: Connection) {
        let id = connection.id;
        self.leased.insert(id, connection);
        let duration = -(1.0 - self.random.f64()).ln();
        self.after(
            duration,
            Event::Answered {
                client,
                connection: id,
            },
        );
    }

    fn learned_ms(&self) -> Option<f64> {
        let learned = self.books.learned()?;
        Some(learned.timeout.as_secs_f64() * 1000.0)
    }

    fn expect(&self, timeout_ms: f64) {
        let learned = self.books.learned().expect("it is learned");
        let (found, retirement) = (
            learned.timeout.as_secs_f64(),
            learned.retirement.as_secs_f64(),
        );
        let timeout = timeout_ms / 1000.0;
        assert!((found / timeout - 1.0).abs() <= 0.1, "{learned:?}");
        assert!((0.75..1.0).contains(&(retirement / timeout)), "{learned:?}");
    }
}

/// As an event loop does it: never early, and late by what else it has to do.
fn twenty(random: &mut fastrand::Rng) -> f64 {
    20.0 - 1.2 * (1.0 - random.f64()).ln()
}

#[test]
fn learned_retirement_spares_the_races_and_few_connections() {
    for seed in 1..=3 {
        let mut totals = [false, true].map(|learn| {
            let mut world = World::new(seed, learn, 64, 40, (16.0, 24.0));
            while world.closes < 50 {
                world.run(Duration::from_millis(10), twenty);
            }
            let (connects, lost) = (world.connects, world.lost_races);
            world.run(Duration::from_secs(20), twenty);
            assert_eq!(world.learned_ms().is_some(), learn);
            (world.connects - connects, world.lost_races - lost)
        });
        let [(connects, lost), (learned_connects, learned_lost)] = &mut totals;
        assert!(*lost > 5, "seed {seed}: {lost} lost races are no test");
        assert_eq!(*learned_lost, 0, "seed {seed}, of {lost}");
        assert!(
            *learned_connects * 2 <= *connects * 3,
            "seed {seed}: {totals:?}"
        );
    }
}

#[test]
fn what_was_learned_neither_drifts_down_nor_up() {
    let mut world = World::new(7, true, 64, 40, (16.0, 24.0));
    world.run(Duration::from_secs(2), twenty);
    for _ in 0..30 {
        world.run(Duration::from_secs(2), twenty);
        world.expect(20.0);
    }
}

#[test]
fn a_changed_timeout_is_learned_anew() {
    let mut world = World::new(7, true, 64, 40, (16.0, 24.0));
    world.run(Duration::from_secs(5), twenty);
    world.expect(20.0);
    world.run(Duration::from_secs(10), |random| 2.0 * twenty(random));
    world.expect(40.0);
    world.run(Duration::from_secs(10), |random| 0.6 * twenty(random));
    world.expect(12.0);
}

#[test]
fn a_timeout_that_is_gone_is_forgotten() {
    let mut world = World::new(7, true, 64, 40, (16.0, 24.0));
    world.run(Duration::from_secs(5), twenty);
    world.expect(20.0);
    world.run(Duration::from_secs(5), |_| 1e9);
    assert_eq!(world.books.learned(), None);
    let connects = world.connects;
    world.run(Duration::from_secs(30), |_| 1e9);
    assert!(world.connects - connects < 10, "connections stay again");
}

#[test]
fn the_timeout_of_a_quiet_service_is_learned_too() {
    // Somebody asks every 46 seconds, on average.
    let mut world = World::new(7, true, 8, 5, (60_000.0, 400_000.0));
    world.run(Duration::from_secs(3600 * 5), |random| {
        60_000.0 + random.f64() * 100.0
    });
    world.expect(60_000.0);
    world.run(Duration::from_secs(3600 * 24), |_| 90_000.0);
    world.expect(90_000.0);
    world.run(Duration::from_secs(3600 * 5), |_| 30_000.0);
    world.expect(30_000.0);
}

#[test]
fn random_closes_teach_a_pool_nothing() {
    let random: [Closing; 3] = [
        |random| random.f64() * 60_000.0,
        |random| random.f64() * 60.0,
        |random| -20.0 * (1.0 - random.f64()).ln(),
    ];
    for (row, closing) in random.into_iter().enumerate() {
        let mut world = World::new(3, true, 64, 40, (16.0, 24.0));
        for _ in 0..300 {
            world.run(Duration::from_millis(100), closing);
            assert_eq!(world.books.learned(), None, "row {row}");
        }
    }
}

/// Books that have learned twenty milliseconds, with so many connections idle since now.
fn with_idle(size: usize, idle: u64) -> Books<Connection> {
    let mut world = World::new(7, true, size, 0, (1.0, 1.0));
    for _ in 0..40 {
        world.now += Duration::from_millis(20);
        let age = Duration::from_millis(20);
        world
            .books
            .closed_by_service(age, Evidence::Seen, world.now);
    }
    let idle_since = world.now;
    for id in 0..idle {
        world.books.start_connect();
        world
            .books
            .connected(Connection { id, idle_since }, idle_since);
    }
    world.expect(20.0);
    world.books
}

/// How many retire at their time, and how many stay.
fn retired(books: &mut Books<Connection>, is_wanted: bool) -> (usize, usize) {
    let at = books.next_expiry().expect("they retire some time");
    let retired = std::iter::from_fn(|| books.expire(at, is_wanted)).count();
    assert_eq!(
        books.lend(PoolKey::SOLE, at).map(|it| it.id),
        None,
        "it is watched only"
    );
    assert!(!books.has_idle(PoolKey::SOLE, at));
    (retired, books.idle())
}

#[test]
fn one_surplus_connection_stays_as_a_sentinel_where_its_slot_can_be_spared() {
    assert_eq!(retired(&mut with_idle(8, 4), false), (3, 1));
    assert_eq!(
        retired(&mut with_idle(8, 4), true),
        (4, 0),
        "somebody waits"
    );
    assert_eq!(
        retired(&mut with_idle(1, 1), false),
        (1, 0),
        "it is the only slot"
    );
    // Whoever needs its slot later gets it.
    let mut books = with_idle(2, 1);
    assert_eq!(retired(&mut books, false), (0, 1));
    books.start_connect();
    assert!(books.is_full());
    let at = books.next_expiry().expect("it is watched") - Duration::from_millis(1);
    let retired = books.expire(at, true).map(|(_, reason)| reason);
    assert_eq!(retired, Some(DiscardReason::IdleLearned));
    assert_eq!((books.idle(), books.closing()), (0, 1));
}

#[test]
fn nothing_is_lent_that_its_service_is_about_to_close() {
    let mut books = with_idle(8, 4);
    let at = books.next_expiry().expect("they retire some time");
    assert!(books.has_idle(PoolKey::SOLE, at - Duration::from_micros(1)));
    assert!(!books.has_idle(PoolKey::SOLE, at));
    // The keeper is late, and nobody was retired.
    assert_eq!(books.lend(PoolKey::SOLE, at).map(|it| it.id), None);
    assert_eq!(books.idle(), 4);
}

#[test]
fn what_was_learned_goes_when_learning_is_switched_off() {
    let mut books = with_idle(8, 4);
    let at = books.next_expiry().expect("they retire some time");
    assert_eq!(retired(&mut books, false), (3, 1));
    let limits = Limits {
        learn_idle_timeout: false,
        ..*books.limits()
    };
    books.set_limits(limits);
    assert_eq!(books.learned(), None);
    let ended = books.expire(at, false).map(|(it, reason)| (it.id, reason));
    assert!(
        matches!(ended, Some((_, DiscardReason::IdleLearned))),
        "a sentinel has nothing more to tell: {ended:?}"
    );
    for _ in 0..100 {
        books.closed_by_service(Duration::from_millis(20), Evidence::Seen, at);
    }
    assert_eq!((books.learned(), books.idle()), (None, 0));
}
