//! The tree of statistics: the process, its listeners, its upstreams.
//!
//! Branches live by name: a reload that keeps a name keeps its numbers, and one that removes a name
//! leaves them until the process ends, for a counter never goes back, also not when the name comes
//! again. So the names are bounded by those of the configurations that this process has run.
//! What only the owner knows (how many connections a pool holds right now) is asked for through
//! [`PoolHoldings`], and is gone when the owner is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};

use super::census::CensusStats;
use super::counter::{Counter, Reasons};
use super::histogram::DurationHistogram;
use super::ledger::Ledger;
use super::reason::{
    ConnectOutcome, DiscardReason, DroppedMessage, ExchangeOutcome, Leak, LeaseReason, OpenReason,
    RaceLost, RefusalReason, RetryReason, WaitOutcome,
};
use super::recorder::Recorder;
use super::sessions::{Command, SessionRegistry};
use super::units;
use crate::census::leaks::OpenEntry;
use crate::close::Side;
use crate::sys::clock;
use crate::witness::Witness;

/// What is counted for one listener.
#[derive(Debug, Default)]
pub struct ListenerStats {
    /// How its sessions ended.
    pub ledger: Ledger,
    /// What was refused, and why.
    pub refusals: Reasons<RefusalReason>,
    /// Times that accepting stopped because `max_sessions` were open.
    pub session_limit_reached: Counter,
    /// Times that accepting paused because the process or host was out of descriptors.
    pub descriptors_exhausted: Counter,
    /// Times that accepting paused for another error of the kernel's.
    pub accept_errors: Counter,
    /// Connections that the ledger and the kernel do not agree about.
    pub leaks: Reasons<Leak>,
    /// The open sessions.
    pub sessions: Arc<SessionRegistry>,
}

/// What is counted for one upstream.
#[derive(Debug, Default)]
pub struct UpstreamStats {
    /// How its connections ended.
    pub ledger: Ledger,
    /// How exchanges ended.
    pub exchanges: Reasons<ExchangeOutcome>,
    /// From a request's complete head to the end of its response.
    pub exchange_duration: DurationHistogram,
    /// Why connections were opened.
    pub opens: Reasons<OpenReason>,
    /// How connects ended.
    pub connects: Reasons<ConnectOutcome>,
    /// How long successful connects took.
    pub connect_duration: DurationHistogram,
    /// Leases granted, waited for or not.
    pub lent: Counter,
    /// How waits ended. A lease that was granted at once is no wait.
    pub waits: Reasons<WaitOutcome>,
    /// How long waits took that ended with a lease.
    pub wait_granted_duration: DurationHistogram,
    /// How long waits took that ended without one.
    pub wait_failed_duration: DurationHistogram,
    /// Sessions turned away because the wait queue was full.
    pub queue_full: Counter,
    /// Why sessions needed a connection of their own where connections are shared.
    pub pins: Reasons<LeaseReason>,
    /// How long they had it.
    pub pin_duration: DurationHistogram,
    /// Why connections were discarded.
    pub discards: Reasons<DiscardReason>,
    /// Heartbeats of the service that were dropped, because no client had asked for one.
    pub heartbeats_dropped: Counter,
    /// Why messages of a service with ids reached no client.
    pub messages_dropped: Reasons<DroppedMessage>,
    /// Why requests were sent again or elsewhere.
    pub retries: Reasons<RetryReason>,
    /// Why requests that met the end of a reused connection were not sent again.
    pub races_lost: Reasons<RaceLost>,
    /// Connections that the ledger and the kernel do not agree about.
    pub leaks: Reasons<Leak>,
}

/// One connection that has a task of its own. The field names are part of the stable interface.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinkRow {
    /// Its number, as records of resets have it.
    pub connection: u64,
    /// Its endpoint's address, as configured.
    pub endpoint: String,
    /// Sessions that it serves: those that share it, or the one that has it alone.
    pub sessions: usize,
    /// Replies that it owes them.
    pub owed: usize,
    /// Why one session has it alone; null where it is shared.
    pub pinned: Option<&'static str>,
    /// How long it has served so, seconds.
    pub age_seconds: f64,
}

/// What a pool holds at this moment; asked for by a snapshot.
pub trait PoolHoldings: Send + Sync {
    /// Every endpoint and the sessions waiting, all read under one lock.
    fn holdings(&self) -> UpstreamHoldings;
}

/// What an upstream's pools hold at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpstreamHoldings {
    /// Sessions that wait for a connection.
    pub waiters: usize,
    /// One row for each endpoint, those being drained included.
    pub endpoints: Vec<EndpointHoldings>,
    /// One row for each connection that is shared, or pinned to a session; in the order of their numbers.
    pub links: Vec<LinkRow>,
}

/// What one endpoint's pool holds at one moment. The field names are part of the stable interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EndpointHoldings {
    /// The address as configured.
    pub address: String,
    /// Connections at most.
    pub size: usize,
    /// Connections waiting to be lent.
    pub idle: usize,
    /// Connections lent to one session each.
    pub leased: usize,
    /// Connects under way.
    pub connecting: usize,
    /// Connections that carry several sessions.
    pub shared: usize,
    /// Connections whose end is not complete: the service still has them.
    pub closing: usize,
    /// Failed connects in a row; 0 while it is well.
    pub failures: u32,
    /// How long its service keeps an idle connection, as learned; null while nothing is.
    #[serde(rename = "learned_idle_timeout_ms", serialize_with = "milliseconds")]
    pub learned_idle_timeout: Option<Duration>,
    /// How many closes that rests on.
    pub learned_from_closes: usize,
    /// Why it can't be dialled, where this host lacks the ports or addresses for it, and what helps; null
    /// since a connect succeeded.
    pub shortage: Option<String>,
}

fn milliseconds<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(units::milliseconds).serialize(serializer)
}

/// One ledger of the process, with what the census counts beside it.
#[derive(Debug, Clone)]
pub struct Books {
    /// The listener's or the upstream's name.
    pub name: String,
    leg: LegStats,
}

#[derive(Debug, Clone)]
enum LegStats {
    Listener(Arc<ListenerStats>),
    Upstream(Arc<UpstreamStats>),
}

impl Books {
    /// Which leg.
    pub fn side(&self) -> Side {
        match self.leg {
            LegStats::Listener(_) => Side::Downstream,
            LegStats::Upstream(_) => Side::Upstream,
        }
    }

    /// The connections that it holds open.
    pub fn call_roll(&self) -> Vec<OpenEntry> {
        match &self.leg {
            LegStats::Listener(stats) => stats.ledger.call_roll(),
            LegStats::Upstream(stats) => stats.ledger.call_roll(),
        }
    }

    /// What it and the kernel do not agree about.
    pub fn leaks(&self) -> &Reasons<Leak> {
        match &self.leg {
            LegStats::Listener(stats) => &stats.leaks,
            LegStats::Upstream(stats) => &stats.leaks,
        }
    }
}

/// What is counted for the process itself.
#[derive(Debug, Default)]
pub struct ProcessStats {
    /// Lines about sessions' ends that the rate limit kept out of the log.
    pub session_lines_suppressed: Arc<Counter>,
    /// Times that the admin interface stopped accepting because its connections were at their limit.
    pub admin_limit_reached: Counter,
}

/// How the last attempt to load a configuration went. The one at the start counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastReload {
    /// Whether the configuration was taken.
    pub successful: bool,
    /// When a configuration was last taken.
    pub succeeded_at: SystemTime,
}

/// All statistics of the process.
pub struct Tree {
    /// What is counted for the process itself.
    pub process: ProcessStats,
    /// The last remarkable ends, one by one.
    pub recorder: Arc<Recorder>,
    /// The kernel's own count of sockets.
    pub census: CensusStats,
    started_at: Instant,
    draining: AtomicBool,
    last_reload: Mutex<LastReload>,
    branches: Mutex<Branches>,
    witness: Arc<OnceLock<Arc<Witness>>>,
}

#[derive(Default)]
struct Branches {
    /// Where the remarkable ends of them all are recorded.
    recorder: Arc<Recorder>,
    witness: Arc<OnceLock<Arc<Witness>>>,
    listeners: BTreeMap<String, ListenerBranch>,
    upstreams: BTreeMap<String, UpstreamBranch>,
}

/// One listener's numbers, and where it listens.
#[derive(Clone, Default)]
pub(super) struct ListenerBranch {
    pub(super) stats: Arc<ListenerStats>,
    pub(super) bound_to: Option<String>,
}

/// One upstream's numbers, and who to ask for the rest.
#[derive(Clone, Default)]
pub(super) struct UpstreamBranch {
    pub(super) stats: Arc<UpstreamStats>,
    holdings: Option<Weak<dyn PoolHoldings>>,
}

impl UpstreamBranch {
    /// What the pools hold now: nothing, once their owner is gone.
    pub(super) fn holdings(&self) -> UpstreamHoldings {
        let owner = self.holdings.as_ref().and_then(Weak::upgrade);
        owner.map_or_else(UpstreamHoldings::default, |owner| owner.holdings())
    }
}

impl Default for Tree {
    fn default() -> Self {
        let recorder = Arc::<Recorder>::default();
        let witness = Arc::<OnceLock<_>>::default();
        Self {
            process: ProcessStats::default(),
            recorder: Arc::clone(&recorder),
            census: CensusStats::default(),
            started_at: clock::now(),
            draining: AtomicBool::new(false),
            last_reload: Mutex::new(LastReload {
                successful: true,
                succeeded_at: clock::wall_now(),
            }),
            branches: Mutex::new(Branches {
                recorder,
                witness: Arc::clone(&witness),
                ..Branches::default()
            }),
            witness,
        }
    }
}

impl Tree {
    /// The branch of the listener `name`, made if this is the first time it is named.
    pub fn listener(&self, name: &str) -> Arc<ListenerStats> {
        let mut branches = self.lock();
        Arc::clone(&branches.listener(name).stats)
    }

    /// The branch of the upstream `name`, made if this is the first time it is named.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamStats> {
        let mut branches = self.lock();
        Arc::clone(&branches.upstream(name).stats)
    }

    /// Says where the listener `name` really listens (its port when 0 was asked for).
    pub fn bound(&self, name: &str, address: String) {
        self.lock().listener(name).bound_to = Some(address);
    }

    /// Says that the listener `name` listens no more.
    pub fn unbound(&self, name: &str) {
        self.lock().listener(name).bound_to = None;
    }

    /// Says who to ask for what the pools of the upstream `name` hold. It is not kept alive by this.
    pub fn watch_pool(&self, name: &str, owner: Weak<dyn PoolHoldings>) {
        self.lock().upstream(name).holdings = Some(owner);
    }

    /// Says that the process has begun to drain. There is no way back.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the process has begun to drain.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Says who reads the kernel's account of resets. Only the first is taken.
    pub fn set_witness(&self, witness: Arc<Witness>) {
        let _ = self.witness.set(witness);
    }

    /// Who reads the kernel's account of resets; `None` where nobody does.
    pub fn witness(&self) -> Option<&Arc<Witness>> {
        self.witness.get()
    }

    /// Records how a reload went.
    pub fn record_reload(&self, successful: bool) {
        let mut last = self.lock_reload();
        last.successful = successful;
        if successful {
            last.succeeded_at = clock::wall_now();
        }
    }

    /// How the last reload went.
    pub fn last_reload(&self) -> LastReload {
        *self.lock_reload()
    }

    /// Tells `command` to every open session of every listener, those of listeners that a reload has
    /// removed included, and to those that enter later.
    pub fn command_sessions(&self, command: Command) {
        for (_, branch) in self.listeners() {
            branch.stats.sessions.command_all(command);
        }
    }

    /// Every ledger that the process has.
    pub fn books(&self) -> Vec<Books> {
        let listeners = self.listeners().into_iter();
        let listeners = listeners.map(|(name, it)| (name, LegStats::Listener(it.stats)));
        let upstreams = self.upstreams().into_iter();
        let upstreams = upstreams.map(|(name, it)| (name, LegStats::Upstream(it.stats)));
        let all = listeners.chain(upstreams);
        all.map(|(name, leg)| Books { name, leg }).collect()
    }

    /// Since when the process counts.
    pub(super) fn started_at(&self) -> Instant {
        self.started_at
    }

    /// Every listener ever named. The lock is released before anybody reads on.
    pub(super) fn listeners(&self) -> BTreeMap<String, ListenerBranch> {
        self.lock().listeners.clone()
    }

    /// Every upstream ever named. The lock is released before a pool is asked for what it holds.
    pub(super) fn upstreams(&self) -> BTreeMap<String, UpstreamBranch> {
        self.lock().upstreams.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Branches> {
        self.branches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_reload(&self) -> MutexGuard<'_, LastReload> {
        self.last_reload
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Branches {
    fn listener(&mut self, name: &str) -> &mut ListenerBranch {
        let (recorder, witness) = (&self.recorder, &self.witness);
        let new = || ListenerBranch {
            stats: Arc::new(ListenerStats {
                ledger: Ledger::new(Arc::clone(recorder), Arc::clone(witness)),
                ..ListenerStats::default()
            }),
            bound_to: None,
        };
        self.listeners.entry(name.to_owned()).or_insert_with(new)
    }

    fn upstream(&mut self, name: &str) -> &mut UpstreamBranch {
        let (recorder, witness) = (&self.recorder, &self.witness);
        let new = || UpstreamBranch {
            stats: Arc::new(UpstreamStats {
                ledger: Ledger::new(Arc::clone(recorder), Arc::clone(witness)),
                ..UpstreamStats::default()
            }),
            holdings: None,
        };
        self.upstreams.entry(name.to_owned()).or_insert_with(new)
    }
}
