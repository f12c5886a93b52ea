//! The open sessions of one listener: what each is doing, and the one way to tell them all something.
//!
//! Not here: the count of sessions (see `ledger`) and what a session does when it is told.
//! The list is locked when a session begins and ends, and when somebody asks; never for an
//! exchange. A session's facts are written by its own task only.
//!
//! Invariant: a session that enters after a command was given to all has been given it too.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Instant;

use futures_util::task::AtomicWaker;
use serde::Serialize;
use slab::Slab;
use tokio::sync::Notify;

use super::recorder::Legs;
use super::units::milliseconds;
use crate::close::Phase;

/// Who dialled us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP, from this address.
    Ip(SocketAddr),
    /// Over a Unix socket, whose dialling end has no name.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// What a session is told from outside. Later ones include earlier ones.
///
/// ```text
/// None ──▶ Drain ──▶ Cut      never back
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// Go on.
    None,
    /// Finish the exchange under way, then close gracefully.
    Drain,
    /// End now.
    Cut,
}

impl Command {
    fn from_code(code: u8) -> Self {
        match code {
            0 => Self::None,
            1 => Self::Drain,
            _ => Self::Cut,
        }
    }
}

/// How a session is told something, at no cost for an exchange.
#[derive(Debug)]
pub struct SessionControl {
    waker: AtomicWaker,
    command: AtomicU8,
}

impl SessionControl {
    /// What the session was told. One load, no registration.
    pub fn command(&self) -> Command {
        Command::from_code(self.command.load(Ordering::Acquire))
    }

    /// What the session was told; if it is told more, the task of `context` is woken. For the
    /// session's own task, where it waits: the last one to poll is the one that is woken.
    pub fn poll(&self, context: &Context<'_>) -> Command {
        self.waker.register(context.waker());
        // After the registration: a command that came before it is seen, one that comes later wakes.
        self.command()
    }

    /// Tells the session.
    pub fn tell(&self, command: Command) {
        self.set(command);
        self.wake();
    }

    fn set(&self, command: Command) {
        self.command.fetch_max(command as u8, Ordering::AcqRel);
    }

    fn wake(&self) {
        self.waker.wake();
    }
}

/// What is known of one open session from outside.
#[derive(Debug)]
pub struct SessionFacts {
    /// Unique in the life of the process.
    pub id: u64,
    /// Who dialled.
    pub peer: Peer,
    /// The listener's name.
    pub listener: Arc<str>,
    /// When it was accepted.
    pub accepted_at: Instant,
    /// How it is told something.
    pub control: SessionControl,
    /// How its end and that of its upstream connection go together.
    pub legs: Legs,
    exchanges: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    phase: AtomicU8,
}

// Ten thousand idle sessions are what a pool is for: what each one costs here is bounded.
const _: () = assert!(size_of::<SessionFacts>() <= 176);

static SESSIONS: AtomicU64 = AtomicU64::new(0);

impl SessionFacts {
    /// The facts of a session that was just accepted.
    pub fn new(peer: Peer, listener: Arc<str>, accepted_at: Instant) -> Self {
        Self {
            id: SESSIONS.fetch_add(1, Ordering::Relaxed),
            peer,
            listener,
            accepted_at,
            control: SessionControl {
                waker: AtomicWaker::new(),
                command: AtomicU8::new(Command::None as u8),
            },
            legs: Legs::default(),
            exchanges: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Accept as u8),
        }
    }

    /// Sets what the session is doing.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// What the session is doing.
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    /// Counts one exchange begun.
    pub fn count_exchange(&self) {
        add(&self.exchanges, 1);
    }

    /// Counts so many exchanges begun.
    pub fn count_exchanges(&self, count: usize) {
        add(&self.exchanges, count as u64);
    }

    /// Exchanges begun.
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Counts bytes read from the client.
    pub fn add_read_bytes(&self, bytes: u64) {
        add(&self.read_bytes, bytes);
    }

    /// Bytes read from the client.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes written to the client.
    pub fn add_written_bytes(&self, bytes: u64) {
        add(&self.written_bytes, bytes);
    }

    /// Bytes written to the client: the kernel took them, which does not say that they arrived.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    fn row(&self, now: Instant) -> SessionRow {
        SessionRow {
            id: self.id,
            client: self.peer.to_string(),
            age_ms: milliseconds(now.saturating_duration_since(self.accepted_at)),
            phase: self.phase().label(),
            exchanges: self.exchanges(),
            read_bytes: self.read_bytes(),
            written_bytes: self.written_bytes(),
        }
    }
}

/// Only the session's own task writes, so a load and a store do what a locked addition would.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

/// One open session, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionRow {
    /// Unique in the life of the process.
    pub id: u64,
    /// The client's address, or `unix`.
    pub client: String,
    /// Since it was accepted.
    pub age_ms: u64,
    /// What it is doing.
    pub phase: &'static str,
    /// Exchanges begun.
    pub exchanges: u64,
    /// Bytes read from the client.
    pub read_bytes: u64,
    /// Bytes written to the client.
    pub written_bytes: u64,
}

/// The open sessions of one listener.
#[derive(Debug)]
pub struct SessionRegistry {
    open: Mutex<Open>,
    /// Told when a session has left.
    left: Notify,
}

#[derive(Debug)]
struct Open {
    sessions: Slab<Arc<SessionFacts>>,
    standing: Command,
}

impl Default for SessionRegistry {
    fn default() -> Self {
        Self {
            open: Mutex::new(Open {
                sessions: Slab::new(),
                standing: Command::None,
            }),
            left: Notify::new(),
        }
    }
}

impl SessionRegistry {
    /// Enters a session that was just accepted. It is listed until the entry is dropped.
    pub fn enter(self: &Arc<Self>, facts: Arc<SessionFacts>) -> SessionEntry {
        let mut open = self.lock();
        facts.control.tell(open.standing);
        let key = open.sessions.insert(facts);
        drop(open);
        SessionEntry {
            key,
            registry: Arc::clone(self),
        }
    }

    /// Tells `command` to every open session and to every one that enters from now on.
    pub fn command_all(&self, command: Command) {
        {
            let mut open = self.lock();
            open.standing = open.standing.max(command);
        }
        self.command_present(command);
    }

    /// Tells `command` to every open session, and to none that enters later.
    pub fn command_present(&self, command: Command) {
        let told = self.set_present(command);
        // Outside the lock: a session that is woken may end on another worker at once.
        for facts in told {
            facts.control.wake();
        }
    }

    /// Sets `command` for every open session and wakes none yet, so that no client hears of a command
    /// before the others' next answers can say so too.
    fn set_present(&self, command: Command) -> Vec<Arc<SessionFacts>> {
        let open = self.lock();
        let present = open.sessions.iter().map(|(_, facts)| facts);
        present
            .inspect(|facts| facts.control.set(command))
            .cloned()
            .collect()
    }

    /// Waits until fewer sessions are open than `limit` says.
    pub async fn below(&self, limit: impl Fn() -> usize) {
        loop {
            let left = self.left.notified();
            if self.len() < limit() {
                return;
            }
            left.await;
        }
    }

    /// Has whoever waits for room look again: the limit has changed.
    pub fn limit_changed(&self) {
        self.left.notify_waiters();
    }

    /// Up to `limit` open sessions.
    pub fn list(&self, limit: usize, now: Instant) -> Vec<SessionRow> {
        let facts: Vec<_> = {
            let open = self.lock();
            let listed = open.sessions.iter().take(limit);
            listed.map(|(_, facts)| Arc::clone(facts)).collect()
        };
        facts.iter().map(|facts| facts.row(now)).collect()
    }

    /// How many sessions are open.
    pub fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Whether no session is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn leave(&self, key: usize) {
        let mut open = self.lock();
        open.sessions.remove(key);
        if open.sessions.is_empty() && open.sessions.capacity() > SLOTS_KEPT {
            // What a peak of sessions needed is given back after it.
            open.sessions = Slab::new();
        }
        drop(open);
        self.left.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing panics half-way through a change, so a poisoned list is still a true one.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Slots that stay allocated when no session is open.
const SLOTS_KEPT: usize = 1024;

/// One session's place in the list; dropping it takes the session off.
#[derive(Debug)]
#[must_use]
pub struct SessionEntry {
    key: usize,
    registry: Arc<SessionRegistry>,
}

impl Drop for SessionEntry {
    fn drop(&mut self) {
        self.registry.leave(self.key);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};
    use std::time::Duration;

    use super::*;
    use crate::sys::clock;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enter(registry: &Arc<SessionRegistry>, peer: Peer) -> (Arc<SessionFacts>, SessionEntry) {
        let facts = Arc::new(SessionFacts::new(peer, "web".into(), clock::now()));
        let entry = registry.enter(Arc::clone(&facts));
        (facts, entry)
    }

    #[test]
    fn a_session_is_listed_from_enter_to_drop() {
        let registry = Arc::new(SessionRegistry::default());
        let (_, first) = enter(&registry, Peer::Unix);
        let (facts, second) = enter(&registry, Peer::Ip("[::1]:9".parse().unwrap()));
        facts.set_phase(Phase::Response);
        facts.count_exchange();
        facts.add_read_bytes(3);
        facts.add_read_bytes(4);
        facts.add_written_bytes(5);
        let now = facts.accepted_at;
        let rows = registry.list(10, now + Duration::from_millis(1500));
        assert_eq!(rows.len(), 2);
        assert_eq!(
            rows[1],
            SessionRow {
                id: facts.id,
                client: "[::1]:9".to_owned(),
                age_ms: 1500,
                phase: "response",
                exchanges: 1,
                read_bytes: 7,
                written_bytes: 5,
            }
        );
        assert_ne!(rows[0].id, rows[1].id);
        assert_eq!(registry.list(1, now).len(), 1);
        drop(first);
        assert_eq!(registry.list(10, now)[0].id, facts.id);
        drop(second);
        assert!(registry.is_empty());
    }

    #[test]
    fn a_command_wakes_who_waits_and_reaches_who_comes_later() {
        let registry = Arc::new(SessionRegistry::default());
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let context = Context::from_waker(&waker);
        let (facts, _entry) = enter(&registry, Peer::Unix);
        assert_eq!(facts.control.poll(&context), Command::None);
        registry.command_all(Command::Drain);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(facts.control.poll(&context), Command::Drain);
        registry.command_all(Command::Cut);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
        registry.command_all(Command::Drain);
        assert_eq!(
            facts.control.command(),
            Command::Cut,
            "a command is never taken back"
        );
        let (late, _entry) = enter(&registry, Peer::Unix);
        assert_eq!(late.control.command(), Command::Cut);
    }

    /// Notes, when woken, what another session has been told by then.
    struct Onlooker {
        other: Arc<SessionFacts>,
        seen: AtomicU8,
    }

    impl Wake for Onlooker {
        fn wake(self: Arc<Self>) {
            let command = self.other.control.command();
            self.seen.store(command as u8, Ordering::Relaxed);
        }
    }

    #[test]
    fn nobody_is_woken_before_all_are_told() {
        let registry = Arc::new(SessionRegistry::default());
        let (first, _first) = enter(&registry, Peer::Unix);
        let (last, _last) = enter(&registry, Peer::Unix);
        let onlooker = Arc::new(Onlooker {
            other: last,
            seen: AtomicU8::default(),
        });
        let waker = Waker::from(Arc::clone(&onlooker));
        first.control.poll(&Context::from_waker(&waker));
        registry.command_all(Command::Drain);
        let seen = Command::from_code(onlooker.seen.load(Ordering::Relaxed));
        assert_eq!(seen, Command::Drain);
    }

    #[test]
    fn a_peak_gives_its_memory_back() {
        let registry = Arc::new(SessionRegistry::default());
        let entries: Vec<_> = (0..SLOTS_KEPT * 2)
            .map(|_| enter(&registry, Peer::Unix).1)
            .collect();
        assert_eq!(registry.len(), SLOTS_KEPT * 2);
        drop(entries);
        assert!(registry.lock().sessions.capacity() <= SLOTS_KEPT);
    }
}
