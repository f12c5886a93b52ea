//! How the process stops: in stages, each with its limit.
//!
//! ```text
//! Serving ──SIGTERM, SIGINT, admin──► Grace ──grace──► Draining ──all sessions ended──► Drained
//!    (accepts, /readyz 503)                               │ drain_timeout, second signal
//!                                                         └──────────► CutOff
//! ```

use std::sync::atomic::{AtomicU8, Ordering};

/// How far the stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Not stopping.
    Serving,
    /// Still accepting, but saying on `/readyz` that it will stop.
    Grace,
    /// Not accepting; exchanges end, idle sessions are closed.
    Draining,
}

/// How the stop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every session came to its end.
    Complete,
    /// Some were cut off, at the deadline or by a second signal.
    CutOff {
        /// How many.
        sessions: usize,
    },
}

/// The stage, readable from everywhere. It only moves on.
#[derive(Debug, Default)]
pub struct StageCell(AtomicU8);

impl StageCell {
    /// Moves on to `stage`; false if it was reached already.
    pub fn reach(&self, stage: Stage) -> bool {
        self.0.fetch_max(stage as u8, Ordering::AcqRel) < stage as u8
    }

    /// The stage.
    pub fn read(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
            0 => Stage::Serving,
            1 => Stage::Grace,
            _ => Stage::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_never_moves_back() {
        let cell = StageCell::default();
        assert!(cell.reach(Stage::Draining));
        assert!(!cell.reach(Stage::Grace));
        assert!(!cell.reach(Stage::Draining));
        assert_eq!(cell.read(), Stage::Draining);
    }
}
