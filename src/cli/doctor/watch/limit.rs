//! How many RSTs of a second are shown, and what is said of the rest.
//!
//! Pure: the moment is an argument. A second begins with the first RST that is shown in it.
//!
//! Invariant: each RST is shown or stands in one [`Unshown`], never both.

use std::time::{Duration, Instant};

use crate::witness::{Direction, KernelReason};

/// The window that is counted in.
const SECOND: Duration = Duration::from_secs(1);

/// The decision for each RST.
#[derive(Debug)]
pub(super) struct Limiter {
    per_second: u32,
    second: Option<Second>,
    /// What was lost or could not be read since it was last said.
    unshown: Unshown,
}

#[derive(Debug)]
struct Second {
    began: Instant,
    shown: u32,
}

/// What was not shown.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Unshown {
    /// RSTs beyond the limit, by what they were.
    pub(super) beyond: Vec<(Direction, KernelReason, u64)>,
    /// RSTs that the kernel has dropped, since its buffer was read too slowly.
    pub(super) lost: u64,
    /// Lines that could not be read.
    pub(super) unreadable: u64,
}

impl Unshown {
    /// RSTs that were not shown, those included that the kernel has dropped.
    pub(super) fn resets(&self) -> u64 {
        let beyond: u64 = self.beyond.iter().map(|(_, _, count)| count).sum();
        beyond + self.lost
    }

    fn add(&mut self, direction: Direction, reason: KernelReason) {
        let same =
            |row: &&mut (Direction, KernelReason, u64)| (row.0, row.1) == (direction, reason);
        match self.beyond.iter_mut().find(same) {
            Some((_, _, count)) => *count += 1,
            None => self.beyond.push((direction, reason, 1)),
        }
    }
}

impl Limiter {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            second: None,
            unshown: Unshown::default(),
        }
    }

    /// Whether an RST is to be shown; if not, it is counted.
    pub(super) fn admits(
        &mut self,
        direction: Direction,
        reason: KernelReason,
        now: Instant,
    ) -> bool {
        let second = self.second.get_or_insert(Second {
            began: now,
            shown: 0,
        });
        if second.shown < self.per_second {
            second.shown += 1;
            return true;
        }
        self.unshown.add(direction, reason);
        false
    }

    /// So many are lost.
    pub(super) fn on_lost(&mut self, count: u64, now: Instant) {
        self.second.get_or_insert(Second {
            began: now,
            shown: 0,
        });
        self.unshown.lost += count;
    }

    /// A line could not be read.
    pub(super) fn on_unreadable(&mut self, now: Instant) {
        self.second.get_or_insert(Second {
            began: now,
            shown: 0,
        });
        self.unshown.unreadable += 1;
    }

    /// When [`Limiter::roll`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        self.second.as_ref().map(|second| second.began + SECOND)
    }

    /// Ends a second that is over: what was not shown in it, if anything.
    pub(super) fn roll(&mut self, now: Instant) -> Option<Unshown> {
        match self.due() {
            Some(due) if due <= now => self.end(),
            _ => None,
        }
    }

    /// Ends the second, over or not.
    pub(super) fn end(&mut self) -> Option<Unshown> {
        self.second = None;
        Some(std::mem::take(&mut self.unshown)).filter(|it| *it != Unshown::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Direction = Direction::Sent;
    const RECEIVED: Direction = Direction::Received;

    #[test]
    fn a_second_shows_so_many_and_counts_the_rest() {
        let start = crate::sys::clock::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut limiter = Limiter::new(2);
        assert_eq!(limiter.due(), None);
        let offered = [
            (0, SENT, KernelReason::State, true),
            (1, RECEIVED, KernelReason::Peer, true),
            (2, SENT, KernelReason::NoSocket, false),
            (3, RECEIVED, KernelReason::Peer, false),
            (998, SENT, KernelReason::NoSocket, false),
        ];
        for (millis, direction, reason, shown) in offered {
            assert_eq!(limiter.roll(at(millis)), None);
            assert_eq!(
                limiter.admits(direction, reason, at(millis)),
                shown,
                "{millis}"
            );
        }
        assert_eq!(limiter.due(), Some(at(1_000)));
        assert_eq!(limiter.roll(at(999)), None);
        let unshown = limiter.roll(at(1_000)).expect("three were not shown");
        assert_eq!(
            unshown.beyond,
            [
                (SENT, KernelReason::NoSocket, 2),
                (RECEIVED, KernelReason::Peer, 1)
            ]
        );
        assert_eq!(unshown.resets(), 3);
        // It is said once, and the next second begins anew, with its first.
        assert_eq!((limiter.roll(at(5_000)), limiter.due()), (None, None));
        assert!(limiter.admits(SENT, KernelReason::State, at(5_000)));
        assert_eq!(limiter.due(), Some(at(6_000)));
        assert_eq!(limiter.roll(at(6_000)), None, "all were shown");
    }

    #[test]
    fn what_was_lost_is_said_once_in_a_second() {
        let now = crate::sys::clock::now();
        let mut limiter = Limiter::new(2);
        limiter.on_lost(7, now);
        limiter.on_lost(1, now);
        limiter.on_unreadable(now);
        assert_eq!(limiter.roll(now), None);
        let unshown = limiter.roll(now + SECOND).expect("some were lost");
        assert_eq!(
            (unshown.lost, unshown.unreadable, unshown.resets()),
            (8, 1, 8)
        );
        assert_eq!(limiter.end(), None);
    }
}
