//! Which connections of an upstream have a task of their own, and who is served over which.
//!
//! ```text
//!  find ──open one of the key?──► the least loaded
//!    ├───room for one more?─────► opened in the background, by a task of nobody's
//!    ├───one of another key that has been quiet for a while? ──► retired, and as above
//!    └───else ──────────────────► no room: a lease of the session's own carries it
//! ```
//!
//! Not here: the endpoints' books, which every connection is entered in all the same (see `upstream`).
//!
//! Invariant: at most `shared` of an endpoint's connections are shared, over all pool keys, and at most
//! the rest are pinned, so that neither takes the other's place.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::TaskTracker;

use super::link::{Left, Link};
use super::mailbox::Mailbox;
use super::owner::{End, Owner};
use super::setup::Unprepared;
use super::terms::Terms;
use crate::pool::{EndpointId, Lease, PoolKey};
use crate::protocol::replies::{Kind, Language};
use crate::stats::reason::{DiscardReason, LeaseReason};
use crate::stats::tree::LinkRow;
use crate::sys::clock;
use crate::upstream::{AcquireError, Acquired, Retry, Sharer, SharingRules, Upstream, Want};

/// The connections of one upstream that have a task of their own.
#[derive(Debug)]
pub struct Links<L: Language> {
    terms: Arc<Terms<L>>,
    tasks: TaskTracker,
    state: Mutex<State<L>>,
    identities: Mutex<HashMap<L::Identity, Arc<Known<L>>>>,
    next_key: AtomicU32,
    is_single: AtomicBool,
    /// One permit for each connection that may be pinned.
    pub(super) pins: Arc<Semaphore>,
    /// One permit for each connection that may be pinned for long.
    pub(super) long_pins: Arc<Semaphore>,
}

#[derive(Debug)]
struct State<L: Language> {
    /// Those that are shared.
    open: Vec<Arc<Link<L>>>,
    /// Those that are pinned.
    pinned: Vec<Arc<Link<L>>>,
    opening: Vec<Opening<L>>,
    rules: SharingRules,
    is_draining: bool,
    /// How often all were to be retired.
    flushes: u64,
    /// Until then no connection is opened: the endpoints that can be had have as many as they may.
    full_until: Option<Instant>,
}

/// A shared connection on its way, and who waits for it.
#[derive(Debug)]
struct Opening<L: Language> {
    key: PoolKey,
    /// Where it leads to, once that is known.
    endpoint: Option<EndpointId>,
    waiters: Vec<oneshot::Sender<Opened<L>>>,
}

/// How the opening of a connection ended.
pub type Opened<L> = Result<Arc<Link<L>>, NotOpened>;

/// Whose connections they are.
#[derive(Debug)]
pub struct Known<L: Language> {
    /// Who.
    pub identity: L::Identity,
    /// The key of its connections.
    pub key: PoolKey,
    /// When the service last accepted it.
    proven_at: Mutex<Option<Instant>>,
    /// Held by who is asking the service, so that the others need not.
    asking: Arc<tokio::sync::Mutex<()>>,
}

/// Why there is no connection. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOpened {
    /// None was lent.
    NotLent(AcquireError),
    /// The service refused the identity, in these words: a whole reply.
    Refused(Vec<u8>),
    /// The service ended the connection before it could be used.
    Died,
    /// The endpoints that can be had have as many shared connections as they may.
    NoRoom,
}

/// The answer to [`Links::find`].
#[derive(Debug)]
pub enum Found<L: Language> {
    /// A connection to share.
    Link(Arc<Link<L>>),
    /// It is on its way.
    Wait(oneshot::Receiver<Opened<L>>),
    /// As many wait as may.
    QueueFull,
    /// All shared connections serve others.
    NoRoom,
}

/// A connection of another key that was not used for so long may be retired for this one.
const QUIET_BEFORE_RETIRED: Duration = Duration::from_secs(1);
/// After an endpoint was found to have as many as it may, for so long none is opened.
const FULL_TIME: Duration = Duration::from_secs(1);
/// Identities that are remembered without being used.
const IDENTITIES_MAX: usize = 1024;

impl<L: Language> Links<L> {
    /// The links of an upstream that has none yet. `tasks` are waited for when millpond stops.
    pub fn new(
        upstream: Arc<Upstream>,
        language: L,
        rules: SharingRules,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let links = Arc::new(Self {
            terms: Arc::new(Terms::new(language, upstream, &rules)),
            tasks: tasks.clone(),
            state: Mutex::new(State {
                open: Vec::new(),
                pinned: Vec::new(),
                opening: Vec::new(),
                rules,
                is_draining: false,
                flushes: 0,
                full_until: None,
            }),
            identities: Mutex::default(),
            next_key: AtomicU32::new(1),
            is_single: AtomicBool::new(rules.shared * rules.endpoints <= 1),
            pins: Arc::new(Semaphore::new(rules.leases * rules.endpoints)),
            long_pins: Arc::new(Semaphore::new(rules.long_leases * rules.endpoints)),
        });
        links
            .upstream()
            .shares_through(Arc::downgrade(&links) as Weak<dyn Sharer>);
        links
    }

    /// The upstream whose connections they are.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.terms.upstream
    }

    /// What is said on them.
    pub fn language(&self) -> &L {
        &self.terms.language
    }

    /// How long the service may be silent that owes something.
    pub fn response_timeout(&self) -> Duration {
        self.terms.timing.response_timeout()
    }

    /// Whether there is one shared connection at most, so that none needs to be chosen.
    pub fn is_single(&self) -> bool {
        self.is_single.load(Ordering::Relaxed)
    }

    /// Whether any connection may be pinned at all.
    pub fn may_pin(&self) -> bool {
        self.lock().rules.leases > 0
    }

    /// Whoever this is, under the one key that its connections have.
    pub fn known(&self, identity: L::Identity) -> Arc<Known<L>> {
        let mut identities = self
            .identities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = identities.get(&identity) {
            return Arc::clone(known);
        }
        if identities.len() >= IDENTITIES_MAX {
            identities.retain(|_, known| Arc::strong_count(known) > 1);
        }
        let key = match identity == L::Identity::default() {
            true => PoolKey::SOLE,
            false => PoolKey::new(self.next_key.fetch_add(1, Ordering::Relaxed)),
        };
        let known = Arc::new(Known {
            identity: identity.clone(),
            key,
            proven_at: Mutex::new(None),
            asking: Arc::default(),
        });
        identities.insert(identity, Arc::clone(&known));
        known
    }

    /// A connection to share for `known`, or how to come to one.
    pub fn find(self: &Arc<Self>, known: &Arc<Known<L>>, now: Instant) -> Found<L> {
        let mut state = self.lock();
        if state.is_draining {
            return Found::NoRoom;
        }
        // Those that have closed themselves take nothing any more.
        state.open.retain(|it| it.is_open());
        let of_key = state.open.iter().filter(|it| it.key == known.key);
        let least = of_key.min_by_key(|it| it.owed_replies()).cloned();
        let is_opening = state.opening.iter().any(|it| it.key == known.key);
        let is_wanted = match &least {
            Some(link) => link.owed_replies() > 0 && !is_opening,
            None => !is_opening,
        };
        if is_wanted && (state.has_room(now) || (least.is_none() && state.make_room(now))) {
            state.opening.push(Opening {
                key: known.key,
                endpoint: None,
                waiters: Vec::new(),
            });
            self.tasks.spawn(Arc::clone(self).open(Arc::clone(known)));
        }
        if let Some(link) = least {
            return Found::Link(link);
        }
        let waiting: usize = state.opening.iter().map(|it| it.waiters.len()).sum();
        let wait_queue = state.rules.wait_queue;
        match state.opening.iter_mut().find(|it| it.key == known.key) {
            Some(_) if waiting >= wait_queue => Found::QueueFull,
            Some(opening) => {
                let (sender, receiver) = oneshot::channel();
                opening.waiters.push(sender);
                Found::Wait(receiver)
            }
            None => Found::NoRoom,
        }
    }

    /// Has a lease served by a task of its own for the one session of `mailbox`. `is_proof`: the service is
    /// told anew who is served.
    ///
    /// # Errors
    /// The service refused who is served, or died of it.
    pub(super) async fn serve_alone(
        self: &Arc<Self>,
        lease: Lease,
        known: &Arc<Known<L>>,
        whose: (LeaseReason, &Arc<Mailbox<Kind<L>>>),
        is_proof: bool,
    ) -> Result<Arc<Link<L>>, NotOpened> {
        let owner = self.owner(lease, Some(whose), known, is_proof).await?;
        // Before its task begins, which forgets it at its end.
        self.lock().pinned.push(Arc::clone(&owner.link));
        Ok(self.let_serve(owner, known))
    }

    /// Has the owner's task begin.
    fn let_serve(self: &Arc<Self>, owner: Owner<L>, known: &Arc<Known<L>>) -> Arc<Link<L>> {
        let link = Arc::clone(&owner.link);
        let serving = Arc::clone(self).serve(owner, Arc::clone(known));
        self.tasks.spawn(serving);
        link
    }

    /// Opens one shared connection, and tells those who wait for it.
    async fn open(self: Arc<Self>, known: Arc<Known<L>>) {
        let flushes = self.lock().flushes;
        let opened = self.open_owner(&known).await;
        let opened = opened.map(|owner| self.let_serve(owner, &known));
        let mut state = self.lock();
        if let Ok(link) = &opened {
            match (state.is_draining, state.flushes == flushes) {
                (true, _) => link.close(DiscardReason::Drain),
                (false, false) => link.close(DiscardReason::Flushed),
                (false, true) => state.open.push(Arc::clone(link)),
            }
        }
        let place = state.opening.iter().position(|it| it.key == known.key);
        let waiters = place.map(|place| state.opening.swap_remove(place).waiters);
        drop(state);
        for waiter in waiters.into_iter().flatten() {
            // Who has left needs no answer.
            let _ = waiter.send(opened.clone());
        }
    }

    async fn open_owner(&self, known: &Arc<Known<L>>) -> Result<Owner<L>, NotOpened> {
        let want = Want {
            key: known.key,
            fresh: false,
        };
        let mut lease = match self.terms.upstream.acquire(want, clock::now()) {
            Ok(Acquired::Lease(lease)) => lease,
            Ok(Acquired::Wait(wait)) => wait.await.map_err(NotOpened::NotLent)?,
            Err(error) => return Err(NotOpened::NotLent(error)),
        };
        if !self
            .lock()
            .may_share(known.key, lease.connection().endpoint)
        {
            lease.put_back(clock::now());
            return Err(NotOpened::NoRoom);
        }
        lease.share();
        self.owner(lease, None, known, false).await
    }

    /// The owner of a lease, whose service knows who is served. `is_proof`: it is told anew.
    async fn owner(
        &self,
        lease: Lease,
        pinned: Option<(LeaseReason, &Arc<Mailbox<Kind<L>>>)>,
        known: &Known<L>,
        is_proof: bool,
    ) -> Result<Owner<L>, NotOpened> {
        let is_prepared = lease.connection().is_prepared;
        let ids_max = self.terms.language.ids_max();
        let link = Link::new(lease.connection(), pinned, ids_max, clock::now());
        let owner = Owner::new(lease, Arc::new(link), Arc::clone(&self.terms));
        match is_prepared && !is_proof {
            true => Ok(owner),
            false => self.prepared(owner, known).await,
        }
    }

    /// Tells the service who is served.
    async fn prepared(&self, mut owner: Owner<L>, known: &Known<L>) -> Result<Owner<L>, NotOpened> {
        match owner.prepare(&L::setup(&known.identity)).await {
            Ok(()) => {
                known.prove(clock::now());
                Ok(owner)
            }
            Err((end, unprepared)) => {
                known.disprove();
                owner.finish(end, Retry::Off).await;
                Err(match unprepared {
                    Unprepared::Refused(reply) => NotOpened::Refused(reply),
                    Unprepared::Died => NotOpened::Died,
                })
            }
        }
    }

    /// Lives as long as the connection has a task of its own.
    async fn serve(self: Arc<Self>, mut owner: Owner<L>, known: Arc<Known<L>>) {
        let link = Arc::clone(&owner.link);
        let mut end = owner.serve().await;
        if end == End::GivenBack(Left::Something) && owner.reset(&L::setup(&known.identity)).await {
            end = End::GivenBack(Left::Nothing);
        }
        let retry = {
            let mut state = self.lock();
            state.open.retain(|it| !Arc::ptr_eq(it, &link));
            state.pinned.retain(|it| !Arc::ptr_eq(it, &link));
            state.rules.retry
        };
        owner.finish(end, retry).await;
    }

    fn lock(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Language> State<L> {
    fn has_room(&self, now: Instant) -> bool {
        let is_full = self.full_until.is_some_and(|until| now < until);
        let max = self.rules.shared * self.rules.endpoints;
        !is_full && self.open.len() + self.opening.len() < max
    }

    /// Whether the connection of this key that is on its way may be shared, now that it is known where it
    /// leads to: an endpoint may have to carry what others would that have failed.
    fn may_share(&mut self, key: PoolKey, endpoint: EndpointId) -> bool {
        let is_there = |it: &Opening<L>| it.endpoint == Some(endpoint);
        let opening = self.opening.iter().filter(|it| is_there(it)).count();
        let open = self.open.iter().filter(|it| it.endpoint == endpoint);
        if open.count() + opening >= self.rules.shared {
            self.full_until = Some(clock::now() + FULL_TIME);
            return false;
        }
        if let Some(opening) = self.opening.iter_mut().find(|it| it.key == key) {
            opening.endpoint = Some(endpoint);
        }
        true
    }

    /// Retires the connection that has been quiet for longest, if it has been for a while.
    fn make_room(&mut self, now: Instant) -> bool {
        let quiet = self
            .open
            .iter()
            .filter_map(|it| Some((it.quiet_since()?, it)));
        let oldest = quiet.min_by_key(|(since, _)| *since);
        let Some((_, link)) = oldest.filter(|(since, _)| now - *since >= QUIET_BEFORE_RETIRED)
        else {
            return false;
        };
        let link = Arc::clone(link);
        link.close(DiscardReason::KeyNeeded);
        self.open.retain(|it| !Arc::ptr_eq(it, &link));
        true
    }

    fn close_all(&mut self, reason: DiscardReason) {
        self.flushes += 1;
        for link in self.open.drain(..) {
            link.close(reason);
        }
    }
}

impl<L: Language> Known<L> {
    /// When the service last accepted it.
    pub fn proven_at(&self) -> Option<Instant> {
        *self
            .proven_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else asks the service whether it accepts it.
    pub async fn ask_alone(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.asking).lock_owned().await
    }

    fn prove(&self, now: Instant) {
        *self
            .proven_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    fn disprove(&self) {
        *self
            .proven_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<L: Language> Sharer for Links<L> {
    fn drain(&self) {
        let mut state = self.lock();
        state.is_draining = true;
        state.close_all(DiscardReason::Drain);
    }

    fn resume(&self) {
        self.lock().is_draining = false;
    }

    fn flush(&self) {
        self.lock().close_all(DiscardReason::Flushed);
    }

    fn links(&self, now: Instant) -> Vec<LinkRow> {
        let state = self.lock();
        let links = state.open.iter().chain(&state.pinned);
        let mut rows: Vec<_> = links.map(|link| link.row(now)).collect();
        rows.sort_unstable_by_key(|row| row.connection);
        rows
    }

    fn apply(&self, rules: &SharingRules, endpoints: &[EndpointId]) {
        self.terms.timing.apply(rules);
        let mut state = self.lock();
        state.open.retain(|link| {
            let is_in_force = endpoints.contains(&link.endpoint);
            if !is_in_force {
                link.close(DiscardReason::EndpointRemoved);
            }
            is_in_force
        });
        let before = std::mem::replace(&mut state.rules, *rules);
        let max = rules.shared * rules.endpoints;
        self.is_single.store(max <= 1, Ordering::Relaxed);
        while state.open.len() > max {
            if let Some(link) = state.open.pop() {
                link.close(DiscardReason::PoolShrunk);
            }
        }
        drop(state);
        let counts = |it: &SharingRules| (it.leases * it.endpoints, it.long_leases * it.endpoints);
        let ((pins, long_pins), (new_pins, new_long_pins)) = (counts(&before), counts(rules));
        resize(&self.pins, pins, new_pins);
        resize(&self.long_pins, long_pins, new_long_pins);
    }
}

/// Permits that are out are missed as they come back.
fn resize(permits: &Arc<Semaphore>, before: usize, now: usize) {
    if now > before {
        permits.add_permits(now - before);
        return;
    }
    let surplus = before - now;
    let forgotten = permits.forget_permits(surplus);
    let missing = u32::try_from(surplus - forgotten).unwrap_or(u32::MAX);
    if missing > 0 {
        let permits = Arc::clone(permits);
        tokio::spawn(async move {
            if let Ok(permit) = permits.acquire_many_owned(missing).await {
                permit.forget();
            }
        });
    }
}
