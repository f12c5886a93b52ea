//! What a listener's sessions are served under, and how a reload reaches them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::checked;
use crate::log::SessionLog;
use crate::stats::sessions::SessionRegistry;
use crate::stats::tree::ListenerStats;
use crate::upstream::Upstream;

/// What a listener's sessions are served under. Never changed; replaced as a whole.
#[derive(Debug)]
pub struct Rules {
    /// The listener's name.
    pub name: Arc<str>,
    /// The listener's settings.
    pub listener: checked::Listener,
    /// Where its exchanges go.
    pub upstream: Arc<Upstream>,
    /// The settings of that upstream which concern an exchange.
    pub upstream_settings: Arc<checked::Upstream>,
    /// The `Host` for requests that bring none.
    pub authority: Arc<str>,
    /// What is counted.
    pub stats: Arc<ListenerStats>,
    /// The sessions that are open.
    pub sessions: Arc<SessionRegistry>,
    /// Where ends of sessions are told.
    pub log: Arc<SessionLog>,
}

/// The place where a listener's rules stand. A session looks here before each exchange: one load,
/// and a lock only after a reload.
#[derive(Debug)]
pub struct RulesCell {
    generation: AtomicU64,
    current: Mutex<Arc<Rules>>,
}

impl RulesCell {
    /// A cell with its first rules.
    pub fn new(rules: Rules) -> Self {
        Self {
            generation: AtomicU64::new(0),
            current: Mutex::new(Arc::new(rules)),
        }
    }

    /// The rules that hold now.
    pub fn current(&self) -> Arc<Rules> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Other rules from the next exchange of every session on.
    pub fn replace(&self, rules: Rules) {
        let sessions = Arc::clone(&rules.sessions);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.generation.fetch_add(1, Ordering::Release);
        sessions.limit_changed();
    }

    /// The rules if they are newer than `seen`, which is moved on.
    pub fn newer(&self, seen: &mut u64) -> Option<Arc<Rules>> {
        let generation = self.generation.load(Ordering::Acquire);
        if generation == *seen {
            return None;
        }
        *seen = generation;
        Some(self.current())
    }
}
