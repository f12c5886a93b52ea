//! What storms of clients have in common: what the clients count, and what holds all the while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::facts;
use super::proxy::Proxy;
use super::wait;

/// What the clients of a storm saw.
#[derive(Default)]
pub struct Seen {
    /// Connections begun; the number of each tags what it asks.
    pub tags: AtomicU64,
    /// Replies that were their own.
    pub whole: AtomicU64,
    /// Answers of millpond's in place of one.
    pub refused: AtomicU64,
    /// Connections that ended under their clients.
    pub cut: AtomicU64,
    /// Clients that left in the middle of something.
    pub vanished: AtomicU64,
}

/// Counts one more; how many there were before.
pub fn add(count: &AtomicU64) -> u64 {
    count.fetch_add(1, Ordering::Relaxed)
}

/// For how long it is to rage, seconds: `MILLPOND_STORM_SECONDS`. And what it is made of:
/// `MILLPOND_STORM_SEED`, which is said, so that it can be had again.
pub fn length_and_seed() -> (u64, u64) {
    let number = |name: &str| std::env::var(name).ok().map(|it| it.parse().expect(name));
    let seed = number("MILLPOND_STORM_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    eprintln!("MILLPOND_STORM_SEED={seed}");
    (number("MILLPOND_STORM_SECONDS").unwrap_or(6), seed)
}

/// Disturbs it now and then for so long, and looks whether the books are in order and no more than `size`
/// slots are taken.
pub fn watch(
    proxy: &Proxy,
    size: u64,
    (seconds, seed): (u64, u64),
    mut disturb: impl FnMut(&mut Rng),
) {
    let mut random = Rng::with_seed(seed);
    let end = wait::now() + Duration::from_secs(seconds);
    while wait::now() < end {
        disturb(&mut random);
        let now = proxy.snapshot();
        facts::check_always(&now);
        let taken = now.taken_slots();
        let upstreams = &now.0["upstreams"];
        assert!(taken <= size, "{taken} slots of {size}:\n{upstreams:#}");
        wait::pace(Duration::from_millis(random.u64(20..120)));
    }
}

/// Says what was seen; fails where it was no storm.
pub fn expect_storm(seen: &Seen, seconds: u64) {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (whole, refused) = (read(&seen.whole), read(&seen.refused));
    let (cut, vanished) = (read(&seen.cut), read(&seen.vanished));
    eprintln!("{whole} replies, {refused} errors, {cut} cut, {vanished} clients vanished");
    assert!(whole > 100 * seconds, "only {whole} replies");
    assert!(cut + refused > 0 && vanished > 0, "the storm was none");
}
