//! An upstream: a named group of endpoints with their pools and the one queue before them.
//!
//! [`core`] decides, purely; this shell holds it under one lock, never over an await, and does what
//! it says: dial, grant, refuse, end. Not here: what a lease is used for (see `relay`).
//!
//! Invariant: every connection is entered in the ledger when its connect starts, and closed there
//! exactly once.

pub mod balance;
pub mod core;
mod ends;
pub mod health;
mod keeper;
mod lesson;
mod reshape;
mod sharing;
mod shortage;
mod wait;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::core::{Action, Answer, Core, Refused};
use self::ends::seen_when;
use self::reshape::{Dialling, Shape};
pub use self::sharing::{Retry, Sharer, SharingRules};
pub use self::wait::Wait;
use crate::config::checked;
use crate::pool::connect::Failed;
use crate::pool::connection::HeldAs;
use crate::pool::ending::Seen;
use crate::pool::source::Sources;
use crate::pool::{Connection, EndpointId, Home, Lease, PoolKey, connect};
use crate::stats::ledger::Watch;
use crate::stats::reason::{ConnectOutcome, DiscardReason, OpenReason, WaitOutcome};
use crate::stats::tree::{EndpointHoldings, PoolHoldings, UpstreamHoldings, UpstreamStats};
use crate::sys::clock;

/// A named group of endpoints.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    stats: Arc<UpstreamStats>,
    state: Mutex<State>,
    /// Idle connections whose wakers were called.
    woken: Mutex<Vec<(EndpointId, u64)>>,
    keeper: Notify,
    /// Told when a slot is freed.
    settled: Notify,
    /// Connects and closing connections.
    tasks: TaskTracker,
    /// Ends connects and closes at once.
    cut: CancellationToken,
    next_connection: AtomicU64,
    /// Who has connections shared, if anybody does.
    sharer: OnceLock<Weak<dyn Sharer>>,
    me: Weak<Self>,
}

#[derive(Debug)]
struct State {
    core: Core<Box<Connection>, Granting>,
    shape: Shape,
    /// When the keeper will look next on its own.
    keeper_deadline: Option<Instant>,
    /// Connections opened before this are not lent again.
    flushed_at: Option<Instant>,
}

type Granting = oneshot::Sender<Result<Lease, AcquireError>>;
type Actions = VecDeque<Action<Box<Connection>, Granting>>;

/// What a session asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// What the connection must be like.
    pub key: PoolKey,
    /// It must not have carried anything yet, so that no keep-alive race can be lost on it.
    pub fresh: bool,
}

/// The answer to [`Upstream::acquire`].
#[derive(Debug)]
pub enum Acquired {
    /// Lent at once.
    Lease(Lease),
    /// To be waited for.
    Wait(Wait),
}

/// Why nothing was lent. Nothing was sent, so trying again later is always sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// `wait_queue` sessions wait already: more load than the service and its pool can bear.
    #[error("the wait queue is full")]
    QueueFull,
    /// No connection within `wait_timeout`: as above, or a service that is slow.
    #[error("no connection was free in time")]
    TimedOut,
    /// No endpoint could be connected to: the service's fault, or the network's; where it
    /// [is local](ConnectOutcome::is_local), that of this host.
    #[error("no endpoint could be connected to ({0:?})")]
    ConnectFailed(ConnectOutcome),
    /// millpond is stopping.
    #[error("millpond is stopping")]
    Draining,
}

impl Upstream {
    /// Starts an upstream and its keeper. Must be called on the runtime.
    pub fn start(
        name: &str,
        settings: &checked::Upstream,
        stats: Arc<UpstreamStats>,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let now = clock::now();
        let seed = clock::wall_now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64);
        let shape = Shape::new(settings);
        let state = State {
            core: Core::new(shape.group_rules(), seed),
            shape,
            keeper_deadline: None,
            flushed_at: None,
        };
        let upstream = Arc::new_cyclic(|me| Self {
            name: name.to_owned(),
            stats,
            state: Mutex::new(state),
            woken: Mutex::default(),
            keeper: Notify::new(),
            settled: Notify::new(),
            tasks: tasks.clone(),
            cut: CancellationToken::new(),
            next_connection: AtomicU64::new(0),
            sharer: OnceLock::new(),
            me: Weak::clone(me),
        });
        upstream.apply(settings, now);
        tasks.spawn(keeper::keep(
            Arc::downgrade(&upstream),
            upstream.cut.clone(),
        ));
        upstream
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is counted for it.
    pub fn stats(&self) -> &UpstreamStats {
        &self.stats
    }

    /// Lends a connection, or queues for one.
    pub fn acquire(self: &Arc<Self>, want: Want, now: Instant) -> Result<Acquired, AcquireError> {
        loop {
            let mut actions = Actions::new();
            let mut receiver = None;
            let mut state = self.lock();
            let make_waiter = || {
                let (sender, waiting) = oneshot::channel();
                receiver = Some(waiting);
                sender
            };
            let answer = state
                .core
                .acquire(want.key, want.fresh, now, make_waiter, &mut actions);
            if matches!(answer, Answer::Waits(_)) {
                self.hasten_to_next(&mut state);
            }
            drop(state);
            self.perform(actions);
            match (answer, receiver) {
                (Answer::Lent(mut connection), _) => {
                    connection.idle_until = now;
                    let Some(reason) = connection.look().stale() else {
                        connection.was_idle = true;
                        self.stats.lent.increment();
                        return Ok(Acquired::Lease(self.lease(connection)));
                    };
                    self.take_discarded(connection, reason, seen_when(reason));
                }
                (Answer::Waits(ticket), Some(receiver)) => {
                    return Ok(Acquired::Wait(Wait::new(
                        Arc::clone(self),
                        ticket,
                        receiver,
                    )));
                }
                (Answer::QueueFull, _) => {
                    self.stats.queue_full.increment();
                    return Err(AcquireError::QueueFull);
                }
                (Answer::Draining | Answer::Waits(_), _) => return Err(AcquireError::Draining),
            }
        }
    }

    /// The source addresses of each endpoint, by its label, for whoever counts their ports
    /// ([`SourcePorts::set_counted`](crate::pool::source::SourcePorts::set_counted)); none where the kernel
    /// chooses the address.
    pub fn sources(&self) -> Vec<(Arc<str>, Arc<Sources>)> {
        let state = self.lock();
        let in_force = state.core.books().map(|(id, ..)| id);
        in_force.filter_map(|id| state.shape.sources(id)).collect()
    }

    /// Says who has connections shared. Only the first is taken.
    pub fn shares_through(&self, sharer: Weak<dyn Sharer>) {
        let _ = self.sharer.set(sharer);
    }

    fn sharer(&self) -> Option<Arc<dyn Sharer>> {
        self.sharer.get().and_then(Weak::upgrade)
    }

    /// Retires every connection: idle ones now, leased ones at their boundary.
    pub fn flush(&self) {
        let now = clock::now();
        let mut actions = Actions::new();
        let mut state = self.lock();
        state.flushed_at = Some(now);
        state.core.flush(DiscardReason::Flushed, now, &mut actions);
        drop(state);
        if let Some(sharer) = self.sharer() {
            sharer.flush();
        }
        self.perform(actions);
    }

    /// Lends nothing any more; connections end gracefully, leased ones at their boundary.
    pub fn drain(&self) {
        let mut actions = Actions::new();
        self.lock().core.drain(clock::now(), &mut actions);
        if let Some(sharer) = self.sharer() {
            sharer.drain();
        }
        self.perform(actions);
    }

    /// Waits until the last connection's end is complete, and ends with it; or until the drain is
    /// taken back. To be called after [`Upstream::drain`].
    pub async fn closed(&self) {
        loop {
            let settled = self.settled.notified();
            {
                let state = self.lock();
                if !state.core.is_draining() {
                    return;
                }
                if state.core.occupied() == 0 {
                    // Under the lock, so that nobody resumes what has ended.
                    self.cut.cancel();
                    return;
                }
            }
            settled.await;
        }
    }

    /// Takes a drain back, with these settings: what is still closing keeps its slots, so `size`
    /// holds over both lives. False if it has ended already, or spoke another protocol.
    pub fn resume(&self, settings: &checked::Upstream, now: Instant) -> bool {
        {
            let mut state = self.lock();
            if self.cut.is_cancelled() || !state.shape.speaks(&settings.protocol) {
                return false;
            }
            state.core.resume();
        }
        self.settled.notify_waiters();
        if let Some(sharer) = self.sharer() {
            sharer.resume();
        }
        self.apply(settings, now);
        true
    }

    /// Ends connects and closes under way at once, and the keeper.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    fn lease(self: &Arc<Self>, connection: Box<Connection>) -> Lease {
        Lease::new(connection, Arc::clone(self) as Arc<dyn Home>)
    }

    /// Does what the core has decided. Never called under the lock.
    fn perform(&self, mut actions: Actions) {
        let Some(me) = self.me.upgrade().filter(|_| !actions.is_empty()) else {
            return;
        };
        let now = clock::now();
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Connect(endpoint, key, reason) => {
                    self.tasks
                        .spawn(Arc::clone(&me).dial(endpoint, key, reason));
                }
                Action::Grant(waiter, connection) => {
                    let waited = now.saturating_duration_since(waiter.since);
                    match waiter.waiter.send(Ok(me.lease(connection))) {
                        Ok(()) => {
                            self.stats.lent.increment();
                            self.stats.waits.increment(WaitOutcome::Granted);
                            self.stats.wait_granted_duration.observe(waited);
                        }
                        // The waiter went away just now: the next one may have it.
                        Err(Ok(lease)) => {
                            self.stats.waits.increment(WaitOutcome::Abandoned);
                            lease.put_back(now);
                        }
                        Err(Err(_)) => {}
                    }
                }
                Action::Refuse(waiter, refused) => {
                    let waited = now.saturating_duration_since(waiter.since);
                    self.stats.wait_failed_duration.observe(waited);
                    let (outcome, error) = refusal(refused);
                    self.stats.waits.increment(outcome);
                    // Who went away needs no answer.
                    let _ = waiter.waiter.send(Err(error));
                }
                Action::Retire(_, connection, reason) => self.end(*connection, reason, Seen::Open),
            }
        }
    }

    /// Opens one connection and hands it to the core.
    async fn dial(self: Arc<Self>, endpoint: EndpointId, key: PoolKey, reason: OpenReason) {
        self.stats.opens.increment(reason);
        self.stats.ledger.open();
        let began = clock::now();
        let dialling = self.lock().shape.dialling(endpoint);
        let mut watch = Watch::default();
        let connected = match &dialling {
            Some(dialling) => {
                let connecting = dialling.connect(&self.stats.ledger, &mut watch, began);
                let ended = self.cut.run_until_cancelled(connecting).await;
                ended.unwrap_or(Err(Failed::ABANDONED))
            }
            None => Err(Failed::ABANDONED),
        };
        let now = clock::now();
        let mut actions = Actions::new();
        match (connected, dialling) {
            (Ok(transport), Some(dialling)) => {
                self.stats.connects.increment(ConnectOutcome::Established);
                self.stats.connect_duration.observe(now - began);
                let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
                let mut state = self.lock();
                let chance = state.core.chance();
                let connection = Box::new(Connection {
                    service: connect::peer(&transport),
                    transport,
                    id,
                    endpoint,
                    address: dialling.label,
                    key,
                    opened_at: now,
                    retire_at: dialling.max_lifetime.map(|it| now + jittered(it, chance)),
                    exchanges: 0,
                    idle_since: now,
                    idle_until: now,
                    idle_max: None,
                    held_as: HeldAs::Leased,
                    is_prepared: key == PoolKey::SOLE,
                    sessions_touched: 0,
                    session: None,
                    watch,
                    is_answering: false,
                    dropped_bytes: 0,
                    was_idle: false,
                    may_greet: dialling.may_greet,
                    waker: keeper::waker(&self.me, endpoint, id),
                });
                state
                    .core
                    .connected(endpoint, connection, reason, now, &mut actions);
                state.shape.end_shortage(endpoint);
                drop(state);
                // If it is idle, the keeper's first look begins the watch.
                self.wake_keeper_for(endpoint, id);
            }
            (connected, dialling) => {
                let failed = connected.err().unwrap_or(Failed::ABANDONED);
                let outcome = failed.outcome;
                self.stats.connects.increment(outcome);
                let sources = dialling.as_ref().map(Dialling::sources);
                self.end_unconnected(outcome, dialling, watch, now - began);
                let mut state = self.lock();
                state
                    .core
                    .connect_failed(endpoint, key, reason, outcome, now, &mut actions);
                state.keeper_deadline = None;
                drop(state);
                self.note_shortage(endpoint, sources, failed, now);
                self.keeper.notify_one();
                self.settled.notify_waiters();
            }
        }
        self.perform(actions);
    }

    /// Sees to it that the keeper looks no later than the core has something for it to do.
    fn hasten_to_next(&self, state: &mut State) {
        if let Some(deadline) = state.core.next_deadline() {
            self.hasten_keeper(state, deadline);
        }
    }

    /// Sees to it that the keeper looks no later than `at`.
    fn hasten_keeper(&self, state: &mut State, at: Instant) {
        if state.keeper_deadline.is_none_or(|deadline| at < deadline) {
            state.keeper_deadline = Some(at);
            self.keeper.notify_one();
        }
    }

    fn wake_keeper_for(&self, endpoint: EndpointId, connection: u64) {
        self.woken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((endpoint, connection));
        self.keeper.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolHoldings for Upstream {
    fn holdings(&self) -> UpstreamHoldings {
        let sharer = self.sharer();
        let links = sharer.map_or_else(Vec::new, |it| it.links(clock::now()));
        let state = self.lock();
        let endpoints = state
            .core
            .books()
            .map(|(id, books, failures)| EndpointHoldings {
                address: state.shape.label(id),
                size: books.limits().size,
                idle: books.idle(),
                leased: books.leased(),
                connecting: books.connecting(),
                shared: books.shared(),
                closing: books.closing(),
                failures,
                learned_idle_timeout: books.learned().map(|it| it.timeout),
                learned_from_closes: books.learned().map_or(0, |it| it.closes),
                shortage: state.shape.shortage_text(id),
            });
        UpstreamHoldings {
            waiters: state.core.waiters(),
            endpoints: endpoints.collect(),
            links,
        }
    }
}

fn refusal(refused: Refused) -> (WaitOutcome, AcquireError) {
    match refused {
        Refused::TimedOut => (WaitOutcome::TimedOut, AcquireError::TimedOut),
        Refused::ConnectFailed(outcome) => {
            (WaitOutcome::Failed, AcquireError::ConnectFailed(outcome))
        }
        Refused::Draining => (WaitOutcome::Abandoned, AcquireError::Draining),
    }
}

/// Up to a tenth less, so that connections opened together don't end together.
fn jittered(lifetime: Duration, chance: f64) -> Duration {
    lifetime.mul_f64(1.0 - chance / 10.0)
}
