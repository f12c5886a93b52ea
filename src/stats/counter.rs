//! Counters: plain structs that stand beside what they count.
//!
//! Not here: names and texts (see `table`). Counters only ever grow; what can shrink is derived
//! from two that can't.

use std::sync::atomic::{AtomicU64, Ordering};

use super::reason::Reason;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        // Relaxed: a counter orders nothing but itself.
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter for each member of a closed list.
#[derive(Debug)]
pub struct Reasons<R: Reason> {
    counters: Box<[Counter]>,
    list: std::marker::PhantomData<R>,
}

impl<R: Reason> Default for Reasons<R> {
    fn default() -> Self {
        Self {
            counters: R::ALL.iter().map(|_| Counter::default()).collect(),
            list: std::marker::PhantomData,
        }
    }
}

impl<R: Reason> Reasons<R> {
    /// Adds one to `reason`.
    pub fn increment(&self, reason: R) {
        self.add(reason, 1);
    }

    /// Adds `count` to `reason`.
    pub fn add(&self, reason: R, count: u64) {
        self.counters[reason.index()].add(count);
    }

    /// The number so far for `reason`.
    pub fn read(&self, reason: R) -> u64 {
        self.counters[reason.index()].read()
    }

    /// Every member with its number.
    pub fn iter(&self) -> impl Iterator<Item = (R, u64)> + '_ {
        R::ALL.iter().map(|&reason| (reason, self.read(reason)))
    }

    /// The sum over all members.
    pub fn total(&self) -> u64 {
        self.counters.iter().map(Counter::read).sum()
    }
}
