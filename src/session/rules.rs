//! What a listener's sessions are served under, and how a reload reaches them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::task::TaskTracker;

use crate::config::checked::{self, Protocol};
use crate::log::SessionLog;
use crate::protocol::frames::Framed;
use crate::protocol::memcached::Memcached;
use crate::protocol::redis::Redis;
use crate::relay::shared::Links;
use crate::stats::sessions::SessionRegistry;
use crate::stats::tree::ListenerStats;
use crate::upstream::{SharingRules, Upstream};

/// What a listener's sessions are served under. Never changed; replaced as a whole.
#[derive(Debug)]
pub struct Rules {
    /// The listener's name.
    pub name: Arc<str>,
    /// The listener's settings.
    pub listener: checked::Listener,
    /// Where its exchanges go.
    pub upstream: Arc<Upstream>,
    /// Its shared connections, where the protocol has such.
    pub links: SharedLinks,
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

/// The shared connections of an upstream.
#[derive(Debug, Clone)]
pub enum SharedLinks {
    /// Its protocol shares none.
    None,
    /// Those that speak RESP.
    Redis(Arc<Links<Redis>>),
    /// Those that speak memcached's protocol.
    Memcached(Arc<Links<Memcached>>),
    /// Those that speak frames with ids.
    Calls(Arc<Links<Framed>>),
}

impl SharedLinks {
    /// Whether both are the same connections, or there are none.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Redis(one), Self::Redis(other)) => Arc::ptr_eq(one, other),
            (Self::Memcached(one), Self::Memcached(other)) => Arc::ptr_eq(one, other),
            (Self::Calls(one), Self::Calls(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// The shared connections of `upstream`, of which there are none yet. Those of `tasks` are waited for
    /// when millpond stops.
    pub fn new(
        upstream: &Arc<Upstream>,
        settings: &checked::Upstream,
        tasks: &TaskTracker,
    ) -> Self {
        let rules = SharingRules::of(settings);
        let upstream = Arc::clone(upstream);
        match &settings.protocol {
            Protocol::Redis(_) => Self::Redis(Links::new(upstream, Redis, rules, tasks)),
            Protocol::Memcached(_) => {
                Self::Memcached(Links::new(upstream, Memcached, rules, tasks))
            }
            Protocol::Calls(calls) => {
                let framed = Framed::new(Arc::clone(calls));
                Self::Calls(Links::new(upstream, framed, rules, tasks))
            }
            Protocol::Http | Protocol::Tcp(_) | Protocol::Frames(_) => Self::None,
        }
    }

    /// Those that speak RESP.
    pub(super) fn redis(&self) -> Option<Arc<Links<Redis>>> {
        match self {
            Self::Redis(links) => Some(Arc::clone(links)),
            Self::None | Self::Memcached(_) | Self::Calls(_) => None,
        }
    }

    /// Those that speak memcached's protocol.
    pub(super) fn memcached(&self) -> Option<Arc<Links<Memcached>>> {
        match self {
            Self::Memcached(links) => Some(Arc::clone(links)),
            Self::None | Self::Redis(_) | Self::Calls(_) => None,
        }
    }

    /// Those that speak frames with ids.
    pub(super) fn calls(&self) -> Option<Arc<Links<Framed>>> {
        match self {
            Self::Calls(links) => Some(Arc::clone(links)),
            Self::None | Self::Redis(_) | Self::Memcached(_) => None,
        }
    }
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
