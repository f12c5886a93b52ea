//! Hundreds of thousands of random operations on the books of an upstream, with the invariants
//! checked after each, against a model that knows only what the contract says.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap, HashSet};

use super::*;
use crate::pool::idle_limit::Evidence;
use crate::sys::clock;
use crate::upstream::lesson::Lesson;

/// A connection as the test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fake {
    id: u64,
    key: PoolKey,
    endpoint: EndpointId,
    retire_at: Option<Instant>,
    exchanges: u64,
}

impl Handle for Fake {
    fn id(&self) -> u64 {
        self.id
    }
    fn key(&self) -> PoolKey {
        self.key
    }
    fn retire_at(&self) -> Option<Instant> {
        self.retire_at
    }
    fn exchanges(&self) -> u64 {
        self.exchanges
    }
}

/// The world around the books: what was dialled, lent, queued and closed.
struct World {
    core: Core<Fake, u64>,
    now: Instant,
    random: Random,
    dialling: Vec<(EndpointId, PoolKey, OpenReason)>,
    leased: Vec<Fake>,
    closing: Vec<EndpointId>,
    waiting: BTreeMap<u64, (Ticket, PoolKey, bool)>,
    sizes: HashMap<EndpointId, usize>,
    active: HashSet<EndpointId>,
    occupied: HashMap<EndpointId, usize>,
    retired_for: HashSet<DiscardReason>,
    next: u64,
}

#[derive(Clone, Copy)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound.max(1)
    }
}

fn rules(random: &mut Random) -> EndpointRules {
    let size = 1 + random.below(6);
    EndpointRules {
        weight: 1 + random.below(3) as u32,
        limits: Limits {
            size,
            min_idle: random.below(size.min(3)),
            idle_timeout: Some(Duration::from_secs(5)),
            learn_idle_timeout: true,
            max_exchanges: (random.below(2) == 0).then_some(7),
            connect_parallel: 1 + random.below(3),
        },
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let group = GroupRules {
            wait_timeout: Duration::from_secs(3),
            wait_queue: 8,
            backoff: Backoff {
                min: Duration::from_millis(100),
                max: Duration::from_secs(2),
            },
        };
        let mut world = Self {
            core: Core::new(group, seed),
            now: clock::now(),
            random,
            dialling: Vec::new(),
            leased: Vec::new(),
            closing: Vec::new(),
            waiting: BTreeMap::new(),
            sizes: HashMap::new(),
            active: HashSet::new(),
            occupied: HashMap::new(),
            retired_for: HashSet::new(),
            next: 0,
        };
        for n in 0..1 + random.below(3) as u32 {
            world.set_endpoint(EndpointId(n));
        }
        world
    }

    fn set_endpoint(&mut self, id: EndpointId) {
        let rules = rules(&mut self.random);
        self.sizes.insert(id, rules.limits.size);
        self.active.insert(id);
        let mut actions = Actions::new();
        self.core.set_endpoint(id, rules, self.now, &mut actions);
        self.perform(actions);
    }

    fn perform(&mut self, mut actions: Actions<Fake, u64>) {
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Connect(endpoint, key, reason) => {
                    self.dialling.push((endpoint, key, reason));
                }
                Action::Grant(waiter, connection) => {
                    let (_, key, fresh) = self
                        .waiting
                        .remove(&waiter.waiter)
                        .expect("granted to somebody who waits");
                    assert_eq!(key, connection.key, "granted what was asked for");
                    assert!(!fresh || connection.exchanges == 0, "granted a fresh one");
                    let older = self.waiting.iter().find(|(id, (_, key, fresh))| {
                        **id < waiter.waiter
                            && *key == connection.key
                            && (!fresh || connection.exchanges == 0)
                    });
                    assert!(older.is_none(), "served past an older waiter: {older:?}");
                    self.leased.push(connection);
                }
                Action::Refuse(waiter, _) => {
                    self.waiting
                        .remove(&waiter.waiter)
                        .expect("refused somebody who waits");
                }
                Action::Retire(endpoint, connection, reason) => {
                    assert_eq!(endpoint, connection.endpoint);
                    self.retired_for.insert(reason);
                    self.closing.push(endpoint);
                }
            }
        }
    }

    fn step(&mut self) {
        let mut actions = Actions::new();
        match self.random.below(100) {
            0..30 => self.acquire(&mut actions),
            30..52 if !self.leased.is_empty() => {
                let place = self.random.below(self.leased.len());
                let mut connection = self.leased.swap_remove(place);
                connection.exchanges += 1;
                self.core
                    .release(connection.endpoint, connection, self.now, &mut actions);
            }
            52..58 if !self.leased.is_empty() => {
                let place = self.random.below(self.leased.len());
                let connection = self.leased.swap_remove(place);
                let keeps_slot = self.random.below(2) == 0;
                if keeps_slot {
                    self.closing.push(connection.endpoint);
                }
                self.core.discard(
                    connection.endpoint,
                    HeldAs::Leased,
                    keeps_slot,
                    self.now,
                    &mut actions,
                );
            }
            58..74 if !self.dialling.is_empty() => self.finish_connect(&mut actions),
            74..84 if !self.closing.is_empty() => {
                let place = self.random.below(self.closing.len());
                let endpoint = self.closing.swap_remove(place);
                self.core.slot_freed(endpoint, self.now, &mut actions);
            }
            84..88 => self.leave(),
            88..94 => {
                self.now += Duration::from_millis(self.random.below(1500) as u64);
                self.learn();
                self.core.tick(self.now, &mut actions);
                let next = self.core.next_deadline();
                assert!(
                    next.is_none_or(|next| next > self.now),
                    "nothing to wake for"
                );
            }
            94..96 => self.lose_idle(&mut actions),
            96..98 => self.reshape(&mut actions),
            98 => self
                .core
                .flush(DiscardReason::Flushed, self.now, &mut actions),
            _ => {}
        }
        self.perform(actions);
    }

    fn acquire(&mut self, actions: &mut Actions<Fake, u64>) {
        let key = PoolKey::new(self.random.below(3) as u32 / 2);
        let fresh = self.random.below(8) == 0;
        let id = self.next;
        self.next += 1;
        let waits = self.core.waiters();
        match self.core.acquire(key, fresh, self.now, || id, actions) {
            Answer::Lent(connection) => {
                assert_eq!(connection.key, key);
                assert!(!fresh);
                self.leased.push(connection);
            }
            Answer::Waits(ticket) => {
                self.waiting.insert(id, (ticket, key, fresh));
            }
            Answer::QueueFull => assert!(waits >= 8),
            Answer::Draining => unreachable!("nothing drains here"),
        }
    }

    fn acquire_for(&mut self, id: u64, actions: &mut Actions<Fake, u64>) -> Answer<Fake> {
        self.core
            .acquire(PoolKey::SOLE, false, self.now, || id, actions)
    }

    fn finish_connect(&mut self, actions: &mut Actions<Fake, u64>) {
        let place = self.random.below(self.dialling.len());
        let (endpoint, key, reason) = self.dialling.swap_remove(place);
        if self.random.below(4) == 0 {
            let outcome = ConnectOutcome::Refused;
            self.core
                .connect_failed(endpoint, key, reason, outcome, self.now, actions);
            return;
        }
        let id = self.next;
        self.next += 1;
        let lifetime = Duration::from_millis(500 + self.random.below(20_000) as u64);
        let connection = Fake {
            id,
            key,
            endpoint,
            retire_at: Some(self.now + lifetime),
            exchanges: 0,
        };
        self.core
            .connected(endpoint, connection, reason, self.now, actions);
    }

    fn leave(&mut self) {
        let place = self.random.below(self.waiting.len());
        if let Some(&id) = self.waiting.keys().nth(place) {
            let (ticket, ..) = self.waiting.remove(&id).unwrap();
            assert!(self.core.leave(ticket), "who waits can leave");
            assert!(!self.core.leave(ticket), "but only once");
        }
    }

    fn lose_idle(&mut self, actions: &mut Actions<Fake, u64>) {
        let idle: Vec<_> = self
            .core
            .endpoints
            .iter()
            .flat_map(|it| (0..self.next).filter_map(|id| it.books.idle_connection(id)))
            .map(|it| (it.endpoint, it.id))
            .collect();
        if let Some(&(endpoint, id)) = idle.get(self.random.below(idle.len())) {
            assert!(self.core.retire_idle(endpoint, id, self.now).is_some());
            assert!(
                self.core.retire_idle(endpoint, id, self.now).is_none(),
                "it is not idle any more"
            );
            self.core.slot_freed(endpoint, self.now, actions);
        }
    }

    /// Every endpoint closes at the same age, mostly.
    fn learn(&mut self) {
        let age = match self.random.below(20) {
            0 => Duration::from_millis(self.random.below(3000) as u64),
            _ => Duration::from_secs(2),
        };
        for n in 0..4 {
            let lesson = Lesson {
                endpoint: EndpointId(n),
                age,
                evidence: Evidence::Seen,
            };
            for _ in 0..3 {
                self.core.learn(lesson, self.now);
            }
        }
    }

    fn reshape(&mut self, actions: &mut Actions<Fake, u64>) {
        let id = EndpointId(self.random.below(4) as u32);
        if self.active.len() > 1 && self.active.contains(&id) && self.random.below(2) == 0 {
            self.active.remove(&id);
            self.core.remove_endpoint(id, self.now, actions);
        } else {
            self.set_endpoint(id);
        }
    }

    fn check(&mut self) {
        let mut slots: HashMap<EndpointId, usize> = HashMap::new();
        let taken = self.dialling.iter().map(|it| it.0);
        let taken = taken.chain(self.leased.iter().map(|it| it.endpoint));
        for endpoint in taken.chain(self.closing.iter().copied()) {
            *slots.entry(endpoint).or_default() += 1;
        }
        for (id, books, _) in self.core.books() {
            let outside = slots.remove(&id).unwrap_or(0);
            assert_eq!(books.occupied(), outside + books.idle(), "slots of {id:?}");
            let before = self.occupied.get(&id).copied().unwrap_or(0);
            books.check_invariants(before);
            self.occupied.insert(id, books.occupied());
        }
        assert!(slots.is_empty(), "the books forgot {slots:?}");
        assert_eq!(self.core.waiters(), self.waiting.len(), "waiters");
        self.check_nobody_starves();
    }

    fn check_nobody_starves(&self) {
        let well: Vec<_> = self
            .core
            .endpoints
            .iter()
            .filter(|it| !it.is_removed)
            .collect();
        for (key, fresh) in self.waiting.values().map(|(_, key, fresh)| (*key, *fresh)) {
            if !fresh {
                let idle = well.iter().any(|it| it.books.has_idle(key, self.now));
                assert!(!idle, "somebody waits for what is idle");
            }
        }
        let connecting: usize = self.core.connecting.iter().map(|(_, count)| count).sum();
        let free = well
            .iter()
            .any(|it| it.books.can_connect() && it.health == Health::Well);
        assert!(
            !free || self.waiting.len() <= connecting + self.closing.len() || !self.uncovered(),
            "a slot is free, and nobody dials for who waits"
        );
    }

    /// Whether the oldest waiter counts on nothing that is under way.
    fn uncovered(&self) -> bool {
        self.waiting.values().next().is_some_and(|(_, key, _)| {
            !self
                .core
                .connecting
                .iter()
                .any(|(it, count)| it == key && *count > 0)
        })
    }
}

#[test]
fn random_operations_keep_the_books_exact() {
    let seeds = std::env::var("MILLPOND_SEEDS")
        .ok()
        .and_then(|it| it.parse().ok())
        .unwrap_or(400);
    let mut retired_for = HashSet::new();
    for seed in 1..=seeds {
        let ran = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..1_000 {
                world.step();
                world.check();
            }
            world.retired_for
        });
        let Ok(reasons) = ran else {
            panic!("seed {seed}")
        };
        retired_for.extend(reasons);
    }
    // The ways that an idle connection has.
    for reason in [DiscardReason::IdleLearned, DiscardReason::IdleTimeout] {
        assert!(retired_for.contains(&reason), "{retired_for:?}");
    }
}

#[test]
fn everything_ends_after_a_drain() {
    for seed in 1..=100 {
        let mut world = World::new(seed);
        for _ in 0..200 {
            world.step();
        }
        let mut actions = Actions::new();
        world.core.drain(world.now, &mut actions);
        world.perform(actions);
        assert!(
            world.waiting.is_empty(),
            "seed {seed}: a drain refuses who waits"
        );
        while let Some(connection) = world.leased.pop() {
            let mut actions = Actions::new();
            world
                .core
                .release(connection.endpoint, connection, world.now, &mut actions);
            world.perform(actions);
        }
        while !world.dialling.is_empty() {
            let mut actions = Actions::new();
            world.finish_connect(&mut actions);
            world.perform(actions);
        }
        while let Some(endpoint) = world.closing.pop() {
            let mut actions = Actions::new();
            world.core.slot_freed(endpoint, world.now, &mut actions);
            world.perform(actions);
        }
        assert_eq!(world.core.occupied(), 0, "seed {seed}");
    }
}

#[test]
fn an_endpoint_that_refuses_keeps_nobody_waiting_while_another_works() {
    let mut random = Random(7);
    let mut world = World::new(7);
    let limits = Limits {
        size: 4,
        min_idle: 0,
        ..rules(&mut random).limits
    };
    world.core = Core::new(world.core.rules, 7);
    let mut actions = Actions::new();
    for n in 0..2 {
        let rules = EndpointRules {
            weight: 1,
            limits: Limits {
                connect_parallel: 4,
                ..limits
            },
        };
        world
            .core
            .set_endpoint(EndpointId(n), rules, world.now, &mut actions);
    }
    let refusing = EndpointId(0);
    let mut granted = 0;
    let mut trials = 0;
    for id in 0..200 {
        world.now += Duration::from_millis(20);
        let mut actions = Actions::new();
        let mut lent = Vec::new();
        if let Answer::Lent(connection) =
            world
                .core
                .acquire(PoolKey::SOLE, false, world.now, || id, &mut actions)
        {
            lent.push(connection);
        }
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Connect(endpoint, key, reason) if endpoint == refusing => {
                    trials += 1;
                    let outcome = ConnectOutcome::Refused;
                    world.core.connect_failed(
                        endpoint,
                        key,
                        reason,
                        outcome,
                        world.now,
                        &mut actions,
                    );
                }
                Action::Connect(endpoint, key, reason) => {
                    let connection = Fake {
                        id,
                        key,
                        endpoint,
                        retire_at: None,
                        exchanges: 0,
                    };
                    world
                        .core
                        .connected(endpoint, connection, reason, world.now, &mut actions);
                }
                Action::Grant(_, connection) => lent.push(connection),
                Action::Refuse(_, why) => panic!("{why:?}"),
                Action::Retire(..) => {}
            }
        }
        for connection in lent {
            granted += 1;
            world.core.release(
                connection.endpoint,
                connection,
                world.now,
                &mut Actions::new(),
            );
        }
    }
    assert_eq!(granted, 200);
    // 4 s with rests of 0.1 to 2 s: more than once, and far less often than there were requests.
    assert!((3..=20).contains(&trials), "{trials} trials");
}

#[test]
fn a_queue_of_none_still_opens_what_fits_into_the_pool() {
    let mut world = World::new(3);
    let group = GroupRules {
        wait_queue: 0,
        ..world.core.rules
    };
    world.core = Core::new(group, 3);
    let limits = Limits {
        size: 2,
        min_idle: 0,
        idle_timeout: None,
        learn_idle_timeout: true,
        max_exchanges: None,
        connect_parallel: 1,
    };
    let rules = EndpointRules { weight: 1, limits };
    let mut actions = Actions::new();
    world
        .core
        .set_endpoint(EndpointId(0), rules, world.now, &mut actions);
    let mut answers = Vec::new();
    for id in 0..4 {
        let answer = world
            .core
            .acquire(PoolKey::SOLE, false, world.now, || id, &mut actions);
        answers.push(matches!(answer, Answer::Waits(_)));
    }
    assert_eq!(answers, [true, true, false, false]);
}

#[test]
fn a_queue_of_none_finds_an_endpoint_that_came_back() {
    let mut world = World::new(5);
    let group = GroupRules {
        wait_queue: 0,
        ..world.core.rules
    };
    world.core = Core::new(group, 5);
    let limits = Limits {
        size: 2,
        min_idle: 0,
        idle_timeout: None,
        learn_idle_timeout: true,
        max_exchanges: None,
        connect_parallel: 1,
    };
    let rules = EndpointRules { weight: 1, limits };
    let id = EndpointId(0);
    let mut actions = Actions::new();
    world.core.set_endpoint(id, rules, world.now, &mut actions);
    let first = world.acquire_for(1, &mut actions);
    assert!(matches!(first, Answer::Waits(_)));
    let (refused, reason) = (ConnectOutcome::Refused, OpenReason::Demand);
    world
        .core
        .connect_failed(id, PoolKey::SOLE, reason, refused, world.now, &mut actions);
    // While it rests nobody may wait for it; after that one finds out.
    assert!(matches!(
        world.acquire_for(2, &mut actions),
        Answer::QueueFull
    ));
    world.now += Duration::from_secs(1);
    assert!(matches!(
        world.acquire_for(3, &mut actions),
        Answer::Waits(_)
    ));
    assert!(
        actions
            .iter()
            .any(|it| matches!(it, Action::Connect(_, _, OpenReason::Trial)))
    );
}

/// Books of one endpoint with this size, and so many connections lent.
fn lent(size: usize, leased: u64) -> (World, Vec<Fake>) {
    let mut world = World::new(11);
    world.core = Core::new(world.core.rules, 11);
    let limits = Limits {
        size,
        min_idle: 0,
        idle_timeout: None,
        learn_idle_timeout: true,
        max_exchanges: None,
        connect_parallel: 8,
    };
    let mut actions = Actions::new();
    let rules = EndpointRules { weight: 1, limits };
    let endpoint = EndpointId(0);
    world
        .core
        .set_endpoint(endpoint, rules, world.now, &mut actions);
    let mut connections = Vec::new();
    for id in 0..leased {
        assert!(matches!(
            world.acquire_for(id, &mut actions),
            Answer::Waits(_)
        ));
    }
    for id in 0..leased {
        let connection = Fake {
            id,
            key: PoolKey::SOLE,
            endpoint,
            retire_at: None,
            exchanges: 1,
        };
        let (now, reason) = (world.now, OpenReason::Demand);
        world
            .core
            .connected(endpoint, connection, reason, now, &mut actions);
    }
    for action in actions {
        if let Action::Grant(_, connection) = action {
            connections.push(connection);
        }
    }
    (world, connections)
}

#[test]
fn connections_that_work_are_not_spent_on_a_waiter_for_a_fresh_one_while_connects_fail() {
    let (mut world, mut connections) = lent(4, 3);
    let endpoint = EndpointId(0);
    let mut actions = Actions::new();
    let fresh = world
        .core
        .acquire(PoolKey::SOLE, true, world.now, || 10, &mut actions);
    assert!(matches!(fresh, Answer::Waits(_)));
    let (refused, reason) = (ConnectOutcome::Refused, OpenReason::Demand);
    world.core.connect_failed(
        endpoint,
        PoolKey::SOLE,
        reason,
        refused,
        world.now,
        &mut actions,
    );
    assert!(matches!(
        world.acquire_for(11, &mut actions),
        Answer::Waits(_)
    ));
    actions.clear();
    // A slot is free already: one more would not let the endpoint be dialled any sooner.
    let connection = connections.pop().unwrap();
    world
        .core
        .release(endpoint, connection, world.now, &mut actions);
    assert!(
        matches!(actions.pop_front(), Some(Action::Grant(waiter, _)) if waiter.waiter == 11),
        "the waiter behind it can use what came back"
    );
    let connection = connections.pop().unwrap();
    world
        .core
        .release(endpoint, connection, world.now, &mut actions);
    assert!(actions.is_empty(), "{actions:?}");
}

#[test]
fn a_connect_that_was_under_way_when_size_shrank_does_not_stay_as_surplus() {
    let (mut world, mut connections) = lent(2, 1);
    let endpoint = EndpointId(0);
    let mut actions = Actions::new();
    let Answer::Waits(ticket) = world.acquire_for(10, &mut actions) else {
        panic!("nothing is idle");
    };
    let limits = Limits {
        size: 1,
        min_idle: 0,
        idle_timeout: None,
        learn_idle_timeout: true,
        max_exchanges: None,
        connect_parallel: 8,
    };
    let rules = EndpointRules { weight: 1, limits };
    world
        .core
        .set_endpoint(endpoint, rules, world.now, &mut actions);
    assert!(world.core.leave(ticket));
    actions.clear();
    let surplus = Fake {
        id: 10,
        exchanges: 0,
        ..connections[0].clone()
    };
    let reason = OpenReason::Demand;
    world
        .core
        .connected(endpoint, surplus, reason, world.now, &mut actions);
    assert!(matches!(
        actions.pop_front(),
        Some(Action::Retire(
            _,
            Fake { id: 10, .. },
            DiscardReason::PoolShrunk
        ))
    ));
    world.core.slot_freed(endpoint, world.now, &mut actions);
    let connection = connections.pop().unwrap();
    world
        .core
        .release(endpoint, connection, world.now, &mut actions);
    assert_eq!(world.core.occupied(), 1);
}
