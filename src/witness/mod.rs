//! The kernel as witness: what it tells of RSTs, held against what the ledger says of them.
//!
//! A thread reads the tracepoints `tcp:tcp_send_reset` and `tcp:tcp_receive_reset` from an
//! instance of this process's own; [`event`] reads their lines, [`matching`] finds out whose they
//! are, [`tally`] counts. An RST in the ledger that the kernel confirms is told to a [`Testimony`].
//! Whoever wants to see each RST of the host, whosever it is, has a [`stream`].
//!
//! Not here: the ledger. Whoever opens and ends connections says so to [`Witness::opened`] and
//! [`Witness::ended`].
//!
//! Invariant: a millpond without a witness is the same millpond; nothing waits for one.

pub mod event;
pub mod matching;
pub mod reason;
pub mod stream;
pub mod tally;
pub mod task;

mod instance;
mod pending;
mod pipe;
mod reader;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use socket2::SockRef;

pub use event::Direction;
pub use instance::WitnessError;
pub use matching::{Ended, Opened, RecordId, RecordedReset, Witnessed};
pub use reason::KernelReason;
pub use tally::WitnessStats;

use crate::close::Side;
use crate::sys::clock::{self, MonotonicAnchor};
use crate::sys::socket::socket_cookie;
use instance::Instance;
use matching::{Bounds, Matching};
use reader::Reader;

/// Who hears which RSTs of the ledger the kernel has confirmed.
pub trait Testimony: Send + Sync {
    /// The kernel has told of a recorded RST. Called on the witness's own thread, with no lock held, and
    /// once for each record.
    fn witnessed(&self, witnessed: Witnessed);
}

/// For who only counts.
impl Testimony for () {
    fn witnessed(&self, _: Witnessed) {}
}

/// A reader of the kernel's account.
#[derive(Debug)]
pub struct Witness {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread and everybody else have in common.
#[derive(Debug)]
struct Shared {
    matching: Mutex<Matching>,
    is_up: AtomicBool,
    is_stopping: AtomicBool,
    /// A byte in it wakes the thread.
    bell: UnixStream,
}

impl Opened {
    /// That a TCP socket has a connection with `peer` now, or is about to dial it. One that dials has an
    /// address of its own only once it is connected: telling of it again then does no harm.
    ///
    /// # Errors
    /// What getsockname(2) or getsockopt(2) says.
    pub fn of(side: Side, socket: BorrowedFd<'_>, peer: SocketAddr) -> io::Result<Self> {
        let local = SockRef::from(&socket).local_addr()?.as_socket();
        Ok(Self {
            side,
            local: local.filter(|local| local.port() != 0),
            peer,
            cookie: socket_cookie(socket)?,
            at: clock::now(),
        })
    }
}

impl Witness {
    /// Starts to read. Blocks for as long as the kernel takes to make buffers.
    pub fn start(testimony: Arc<dyn Testimony>) -> Result<Self, WitnessError> {
        let instance = Instance::create()?;
        let anchor = MonotonicAnchor::now()?;
        let (bell, woken) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            matching: Mutex::new(Matching::new(Bounds::default())),
            is_up: AtomicBool::new(true),
            is_stopping: AtomicBool::new(false),
            bell,
        });
        let reader = Reader::new(instance, anchor, woken, Arc::clone(&shared), testimony);
        let thread = thread::Builder::new()
            .name("witness".to_owned())
            .spawn(move || reader.run())?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// A connection has begun: at once after it was accepted, or when its connect begins. It must be
    /// told of before it can send anything.
    pub fn opened(&self, opened: &Opened) {
        let now = clock::now();
        self.shared.lock().opened(opened, now);
    }

    /// A connection has ended, once.
    pub fn ended(&self, ended: &Ended) {
        let now = clock::now();
        let has_found = {
            let mut matching = self.shared.lock();
            matching.ended(ended, now);
            matching.has_witnessed()
        };
        if has_found {
            self.shared.ring();
        }
    }

    /// A listener is bound there: what the kernel does at this address without a connection is ours too.
    pub fn listens(&self, address: SocketAddr) {
        self.shared.lock().listens(address);
    }

    /// A listener is no longer bound there.
    pub fn listens_no_more(&self, address: SocketAddr) {
        self.shared.lock().listens_no_more(address);
    }

    /// What was counted so far.
    pub fn stats(&self) -> WitnessStats {
        let mut stats = self.shared.lock().stats().clone();
        stats.up = self.shared.is_up.load(Ordering::Acquire);
        stats
    }

    /// Reads what is still there, and removes the instance. Blocks until that is done. What was counted
    /// stays; what follows is not counted.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        self.shared.ring();
        // Held until it has ended, so that nobody who stops it too goes on before that.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // A reader that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Matching> {
        self.matching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // A bell that is full is ringing already.
        let _ = (&self.bell).write(&[0]);
    }
}
