//! Simulated services: what their closes teach, and that those without an idle timeout teach nothing.

use super::*;
use crate::sys::clock;

/// How a service chooses the age at which it closes, in milliseconds.
type Service = fn(&mut fastrand::Rng) -> f64;

/// Until an idle connection would be lent: longer than any service waits.
const NEVER: f64 = 1e9;
/// Until it is retired anyway.
const IDLE_TIMEOUT: f64 = 120_000.0;

fn ms(milliseconds: f64) -> Duration {
    Duration::from_secs_f64(milliseconds / 1000.0)
}

fn exponential(random: &mut fastrand::Rng, mean: f64) -> f64 {
    -mean * (1.0 - random.f64()).ln()
}

/// Closes of a service, one after the other, as a pool sees them that lends some of its connections
/// before.
struct Closes {
    limit: IdleLimit,
    now: Instant,
    random: fastrand::Rng,
}

impl Closes {
    fn new(seed: u64) -> Self {
        Self {
            limit: IdleLimit::default(),
            now: clock::now(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// One connection becomes idle, and is closed or lent. `reuse`: how long until it would be lent,
    /// in milliseconds, on average.
    fn step(&mut self, service: Service, reuse: f64) {
        let age = ms(service(&mut self.random));
        let lent = ms(exponential(&mut self.random, reuse).min(IDLE_TIMEOUT));
        self.now += age.min(lent);
        if lent < age {
            self.limit.on_survival(lent, self.now);
        } else {
            self.limit.on_close(age, Evidence::Seen, self.now);
        }
    }

    /// Closes, until something is learned; how many that took.
    fn until_learned(&mut self, service: Service) -> Option<(usize, Learned)> {
        (1..=1000).find_map(|closes| {
            self.step(service, NEVER);
            Some((closes, self.limit.learned()?))
        })
    }
}

fn seeds(usual: u64) -> std::ops::RangeInclusive<u64> {
    let more = std::env::var("MILLPOND_SEEDS").ok();
    1..=more.and_then(|it| it.parse().ok()).unwrap_or(usual)
}

/// A timeout, in milliseconds, and a service that has it.
const TIMEOUTS: &[(f64, Service)] = &[
    (60_000.0, |_| 60_000.0),
    (75_000.0, |random| 75_000.0 + exponential(random, 2.0)),
    (5000.0, |random| 5000.0 + random.f64() * 500.0),
    (2000.0, |random| 1950.0 + random.f64() * 100.0),
    (20.0, |random| 20.0 + exponential(random, 1.2)),
    (20.0, |random| 18.5 + random.f64() * 3.0),
    // Some are closed for other causes.
    (5000.0, |random| match random.u32(0..50) {
        0 => random.f64() * 5000.0,
        _ => 5000.0 + exponential(random, 5.0),
    }),
];

#[test]
fn a_fixed_timeout_is_learned_within_a_tenth_from_fifty_closes() {
    for (row, (timeout, service)) in TIMEOUTS.iter().enumerate() {
        for seed in seeds(50) {
            let (closes, learned) = Closes::new(seed).until_learned(*service).expect("learned");
            let found = learned.timeout.as_secs_f64() * 1000.0;
            let what = format!("row {row}, seed {seed}: {closes} closes, {learned:?}");
            assert!(closes <= 50, "{what}");
            assert!((found / timeout - 1.0).abs() <= 0.1, "{what}");
            assert!(learned.retirement < ms(*timeout), "{what}");
            assert!(learned.retirement >= ms(timeout * 0.75), "{what}");
        }
    }
}

/// Services that close at random ages.
const RANDOM: &[Service] = &[
    |random| random.f64() * 60_000.0,
    |random| random.f64() * 1000.0,
    |random| random.f64() * 20.0,
    |random| random.f64() * 8.0,
    |random| 10_000.0 + random.f64() * 50_000.0,
    |random| 30_000.0 + random.f64() * 30_000.0,
    |random| exponential(random, 30_000.0),
    |random| exponential(random, 500.0),
    |random| exponential(random, 10.0),
    |random| 60_000.0 * random.f64() * random.f64(),
    |random| 60_000.0 * random.f64().sqrt(),
];

#[test]
fn random_ages_teach_nothing_ever() {
    for (row, service) in RANDOM.iter().enumerate() {
        for reuse in [NEVER, 40_000.0, 1000.0] {
            for seed in seeds(1) {
                let mut closes = Closes::new(seed);
                for close in 0..20_000 {
                    closes.step(*service, reuse);
                    let learned = closes.limit.learned();
                    assert_eq!(
                        learned, None,
                        "row {row}, seed {seed}, {reuse}: close {close}"
                    );
                }
            }
        }
    }
}

#[test]
fn of_two_timeouts_behind_one_address_the_shorter_one_is_learned_or_none() {
    let services: [Service; 2] = [
        |random| if random.bool() { 5000.0 } else { 30_000.0 },
        |random| if random.bool() { 5000.0 } else { NEVER },
    ];
    for service in services {
        for reuse in [NEVER, 40_000.0, 1000.0] {
            for seed in seeds(1) {
                let mut closes = Closes::new(seed);
                for _ in 0..20_000 {
                    closes.step(service, reuse);
                    let timeout = closes.limit.learned().map(|it| it.timeout);
                    assert!(timeout.is_none_or(|it| it == ms(5000.0)), "{timeout:?}");
                }
            }
        }
    }
}

#[test]
fn a_timeout_that_half_of_the_connections_outlive_is_none() {
    let mut closes = Closes::new(1);
    for _ in 0..20_000 {
        closes.step(|random| if random.bool() { 5000.0 } else { NEVER }, NEVER);
        assert_eq!(closes.limit.learned(), None);
    }
}

#[test]
fn a_service_that_dies_under_requests_teaches_nothing() {
    let mut limit = IdleLimit::default();
    let mut now = clock::now();
    // Its clients pause for ten seconds, so all of its connections are of one age.
    for _ in 0..1000 {
        now += Duration::from_secs(10);
        limit.on_close(Duration::from_secs(10), Evidence::LostRace, now);
        assert_eq!(limit.learned(), None);
    }
}

#[test]
fn a_service_that_restarts_teaches_nothing() {
    let mut closes = Closes::new(1);
    for _ in 0..50 {
        closes.now += Duration::from_secs(3600);
        let age = ms(closes.random.f64() * 3_600_000.0);
        for _ in 0..64 {
            closes.limit.on_close(age, Evidence::Seen, closes.now);
        }
        assert_eq!(closes.limit.learned(), None);
    }
}

#[test]
fn a_timeout_that_became_shorter_is_learned_anew() {
    for seed in seeds(20) {
        let mut closes = Closes::new(seed);
        closes.until_learned(|_| 60_000.0).expect("learned");
        for close in 0.. {
            closes.step(|random| 5000.0 + exponential(random, 2.0), NEVER);
            let learned = closes.limit.learned().map(|it| it.timeout);
            if learned.is_some_and(|it| it < Duration::from_secs(6)) {
                break;
            }
            assert!(close < 50, "seed {seed}: {learned:?}");
        }
    }
}

#[test]
fn a_restart_makes_nobody_forget() {
    let mut closes = Closes::new(1);
    closes.until_learned(|_| 60_000.0).expect("learned");
    let before = closes.limit.learned();
    for age in 1..60 {
        let age = Duration::from_secs(age);
        closes.limit.on_close(age, Evidence::Seen, closes.now);
    }
    assert_eq!(closes.limit.learned(), before);
}

#[test]
fn what_is_never_confirmed_is_forgotten_in_time() {
    let mut closes = Closes::new(1);
    closes.until_learned(|_| 5000.0).expect("learned");
    closes.limit.on_retired(closes.now + UNCONFIRMED_MAX / 2);
    assert!(closes.limit.learned().is_some());
    closes.limit.on_retired(closes.now + UNCONFIRMED_MAX * 2);
    assert_eq!(closes.limit.learned(), None);
}
