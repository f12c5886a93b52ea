//! The ledger: how every connection of one listener or one upstream ended.
//!
//! One book under one lock, written twice in a connection's life and never for an exchange, so that
//! every copy of it is consistent. Not here: how an end is classified (see `close`), and single ends
//! (see `recorder`).
//!
//! Invariant: opened = open + terminated, in every copy.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::recorder::{RecordId, Recorder, Story};
pub use super::roll::Watch;
use super::roll::{Roll, Watched};
use crate::census::leaks::OpenEntry;
use crate::close::account::Account;
use crate::close::linger::Lingered;
use crate::close::reset::AbortedBy;
use crate::close::{Initiator, Manner, Phase, ResetCause, Side, Termination};
use crate::sys::clock;
use crate::witness::{Direction, RecordedReset, Witness};

/// How one connection ended, with all that is counted about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Who, in which phase, in which manner.
    pub termination: Termination,
    /// The RST that was part of it. It may come later than the end began: a session that ends in
    /// order can still be reset while it closes.
    pub reset: Option<ResetSeen>,
    /// What is known of the connection at its end, with what it lost.
    pub account: Account,
}

impl Ending {
    /// An end that lost nothing and involved no RST.
    pub fn clean(initiator: Initiator, phase: Phase, manner: Manner) -> Self {
        Self {
            termination: Termination {
                initiator,
                phase,
                manner,
            },
            reset: None,
            account: Account::default(),
        }
    }
}

/// An RST, and when it came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResetSeen {
    /// Which way it went.
    pub reset: Reset,
    /// What was under way.
    pub phase: Phase,
}

/// An RST at the end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reset {
    /// The peer sent it.
    Received,
    /// We sent it, for this cause.
    Sent(ResetCause),
}

impl Reset {
    /// Which way it went. The text of a label: stable, part of the public interface.
    pub fn direction(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Sent(_) => "sent",
        }
    }

    /// Why it was sent; `peer` for a received one. The text of a label, as above.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Received => "peer",
            Self::Sent(cause) => cause.label(),
        }
    }

    /// The RST of an end that was to be one by ours for `cause`.
    pub fn of_abort(cause: ResetCause, by: AbortedBy) -> Option<Self> {
        match by {
            AbortedBy::Us => Some(Self::Sent(cause)),
            AbortedBy::Peer => Some(Self::Received),
            AbortedBy::Nobody => None,
        }
    }

    /// The RST that ended a lingering close, if one did.
    pub fn of_linger(end: Lingered) -> Option<Self> {
        match end {
            Lingered::Fin | Lingered::Silent | Lingered::Lost => None,
            Lingered::ResetReceived => Some(Self::Received),
            Lingered::Bound => Some(Self::Sent(ResetCause::LingerBound)),
        }
    }
}

/// The ledger of one listener's or one upstream's connections.
#[derive(Debug)]
pub struct Ledger {
    book: Mutex<Book>,
    roll: Arc<Roll>,
    recorder: Arc<Recorder>,
    witness: Arc<OnceLock<Arc<Witness>>>,
}

/// A consistent copy of a [`Ledger`].
#[derive(Debug, Clone)]
pub struct Book {
    /// Connections ever opened.
    pub opened: u64,
    /// Connections open now.
    pub open: u64,
    /// Bytes that peers sent and nobody read.
    pub unread_bytes: u64,
    /// Bytes written that no peer's kernel confirmed.
    pub unacknowledged_bytes: u64,
    terminations: Box<[u64]>,
    resets: Box<[u64]>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(Arc::default(), Arc::default())
    }
}

impl Ledger {
    /// An empty ledger whose remarkable ends go to `recorder`, and which `witness`, once it is there,
    /// holds against the kernel's account.
    pub fn new(recorder: Arc<Recorder>, witness: Arc<OnceLock<Arc<Witness>>>) -> Self {
        Self {
            book: Mutex::new(Book::empty()),
            roll: Arc::default(),
            recorder,
            witness,
        }
    }

    /// Enters a new connection. Its owner closes it with [`Ledger::close`], once.
    pub fn open(&self) {
        let mut book = self.lock();
        book.opened += 1;
        book.open += 1;
    }

    /// Has the kernel's accounts held against a TCP socket's connection with `peer`: one that was just
    /// accepted, or is about to be dialled.
    pub fn watch(&self, side: Side, socket: BorrowedFd<'_>, peer: SocketAddr) -> Watch {
        let witness = self.witness.get();
        let watched = witness.and_then(|it| Watched::begin(it, side, socket, peer));
        self.roll.enter(socket, watched)
    }

    /// The connections under watch now, each with its socket.
    pub fn call_roll(&self) -> Vec<OpenEntry> {
        self.roll.call()
    }

    /// Closes one connection that was entered with [`Ledger::open`]. Where its end is worth a record,
    /// that is made from its story.
    pub fn close(
        &self,
        ending: &Ending,
        watch: Watch,
        story: impl FnOnce() -> Story,
    ) -> Option<RecordId> {
        self.count(ending);
        let record = Recorder::is_worth_it(ending)
            .then(|| self.recorder.record(ending, story(), clock::wall_now()));
        let reset = record.zip(ending.reset);
        watch.end(reset.map(|(record, seen)| RecordedReset {
            record,
            direction: match seen.reset {
                Reset::Received => Direction::Received,
                Reset::Sent(_) => Direction::Sent,
            },
        }));
        record
    }

    /// Where the ends of two legs are tied together.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    fn count(&self, ending: &Ending) {
        let mut book = self.lock();
        book.open -= 1;
        book.terminations[termination_index(ending.termination)] += 1;
        if let Some(ResetSeen { reset, phase }) = ending.reset {
            book.resets[reset_index(reset, phase)] += 1;
        }
        book.unread_bytes += ending.account.unread_bytes;
        book.unacknowledged_bytes += ending.account.unacknowledged_bytes;
    }

    /// A consistent copy.
    pub fn read(&self) -> Book {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Nothing panics while the lock is held, so a poisoned book is still a true one.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn empty() -> Self {
        let kinds = Initiator::ALL.len() * Phase::ALL.len() * Manner::ALL.len();
        Self {
            opened: 0,
            open: 0,
            unread_bytes: 0,
            unacknowledged_bytes: 0,
            terminations: vec![0; kinds].into_boxed_slice(),
            resets: vec![0; RESETS * Phase::ALL.len()].into_boxed_slice(),
        }
    }

    /// Connections that ended.
    pub fn terminated(&self) -> u64 {
        self.terminations.iter().sum()
    }

    /// Connections that ended so.
    pub fn terminations(&self, termination: Termination) -> u64 {
        self.terminations[termination_index(termination)]
    }

    /// Resets in this phase.
    pub fn resets(&self, reset: Reset, phase: Phase) -> u64 {
        self.resets[reset_index(reset, phase)]
    }
}

/// Received, and one for each cause of a sent one.
const RESETS: usize = 1 + ResetCause::ALL.len();

fn termination_index(termination: Termination) -> usize {
    let Termination {
        initiator,
        phase,
        manner,
    } = termination;
    (initiator as usize * Phase::ALL.len() + phase as usize) * Manner::ALL.len() + manner as usize
}

fn reset_index(reset: Reset, phase: Phase) -> usize {
    let kind = match reset {
        Reset::Received => 0,
        Reset::Sent(cause) => 1 + cause as usize,
    };
    kind * Phase::ALL.len() + phase as usize
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn story() -> Story {
        Story::of(Side::Downstream)
    }

    #[test]
    fn every_copy_balances_while_others_write() {
        let ledger = Ledger::default();
        let ending = Ending {
            reset: Some(ResetSeen {
                reset: Reset::Sent(ResetCause::LingerBound),
                phase: Phase::Close,
            }),
            account: Account {
                unread_bytes: 2,
                unacknowledged_bytes: 3,
                ..Account::default()
            },
            ..Ending::clean(Initiator::Millpond, Phase::Idle, Manner::Timeout)
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        ledger.open();
                        ledger.close(&ending, Watch::default(), story);
                    }
                    ledger.open();
                });
            }
            for _ in 0..500 {
                let book = ledger.read();
                assert_eq!(book.opened, book.open + book.terminated());
                assert_eq!(book.unread_bytes, book.terminated() * 2);
            }
        });
        let book = ledger.read();
        assert_eq!((book.opened, book.open), (2004, 4));
        assert_eq!(book.terminations(ending.termination), 2000);
        assert_eq!(book.unacknowledged_bytes, 6000);
        let linger_bound = Reset::Sent(ResetCause::LingerBound);
        assert_eq!(book.resets(linger_bound, Phase::Close), 2000);
        assert_eq!(book.resets(Reset::Received, Phase::Idle), 0);
    }

    #[test]
    fn each_end_and_each_reset_has_a_place_of_its_own() {
        let ledger = Ledger::default();
        let sent = ResetCause::ALL.into_iter().map(Reset::Sent);
        let resets: Vec<_> = [Reset::Received].into_iter().chain(sent).collect();
        for initiator in Initiator::ALL {
            for phase in Phase::ALL {
                for manner in Manner::ALL {
                    ledger.open();
                    ledger.close(
                        &Ending::clean(initiator, phase, manner),
                        Watch::default(),
                        story,
                    );
                }
            }
        }
        for (number, reset) in resets.iter().enumerate() {
            for phase in Phase::ALL {
                for _ in 0..=number {
                    ledger.open();
                    let ending = Ending {
                        reset: Some(ResetSeen {
                            reset: *reset,
                            phase,
                        }),
                        ..Ending::clean(Initiator::Kernel, Phase::Idle, Manner::Fin)
                    };
                    ledger.close(&ending, Watch::default(), story);
                }
            }
        }
        let book = ledger.read();
        for (number, reset) in resets.iter().enumerate() {
            for phase in Phase::ALL {
                assert_eq!(book.resets(*reset, phase), number as u64 + 1);
            }
        }
        assert!(book.terminations.iter().all(|&count| count >= 1));
        assert_eq!(book.opened, book.terminated());
    }
}
