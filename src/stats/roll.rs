//! The roll of a ledger: the open TCP connections, held against the kernel's accounts of their sockets.
//!
//! Two accounts: the list of sockets, by the descriptor of each (see `census::leaks`), and the RSTs that the
//! witness hears of, where there is one. Costs a connection two short locks in its life, and without a
//! witness no system call: sockets are asked for their cookies only when the roll is called.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;

use crate::census::leaks::OpenEntry;
use crate::close::Side;
use crate::sys::clock;
use crate::sys::socket::cookie_of_descriptor;
use crate::witness::{Opened, RecordedReset, Witness};

/// The open TCP connections of one ledger.
#[derive(Debug, Default)]
pub(super) struct Roll {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    entries: Slab<Entry>,
}

/// Names every entry of every roll of the process.
static ENTRIES: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct Entry {
    id: u64,
    descriptor: RawFd,
    watched: Option<Box<Watched>>,
}

/// A connection's entry in the roll, until its end; nothing for a Unix socket.
#[derive(Debug, Default)]
pub struct Watch(Option<Place>);

#[derive(Debug)]
struct Place {
    roll: Arc<Roll>,
    number: usize,
}

/// What the witness needs to know of a connection.
#[derive(Debug)]
pub(super) struct Watched {
    witness: Arc<Witness>,
    opened: Opened,
}

impl Roll {
    /// Enters a connection.
    pub(super) fn enter(
        self: &Arc<Self>,
        socket: BorrowedFd<'_>,
        watched: Option<Box<Watched>>,
    ) -> Watch {
        let number = self.lock().entries.insert(Entry {
            id: ENTRIES.fetch_add(1, Ordering::Relaxed),
            descriptor: socket.as_raw_fd(),
            watched,
        });
        Watch(Some(Place {
            roll: Arc::clone(self),
            number,
        }))
    }

    /// Every entry with its socket. One system call for each; a connection that ends meanwhile may have
    /// none, or another's.
    pub(super) fn call(&self) -> Vec<OpenEntry> {
        let open: Vec<_> = {
            let open = self.lock();
            let entries = open.entries.iter();
            entries.map(|(_, it)| (it.id, it.descriptor)).collect()
        };
        let entry = |(id, descriptor)| OpenEntry {
            id,
            cookie: cookie_of_descriptor(descriptor).ok(),
        };
        open.into_iter().map(entry).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// A dialled connection is made, so that our address is known.
    pub fn connected(&mut self, socket: BorrowedFd<'_>) {
        let Some(Place { roll, number }) = &self.0 else {
            return;
        };
        if let Some(watched) = &mut roll.lock().entries[*number].watched {
            watched.connected(socket);
        }
    }

    /// Its socket has another descriptor now.
    pub fn moved(&mut self, socket: BorrowedFd<'_>) {
        if let Some(Place { roll, number }) = &self.0 {
            roll.lock().entries[*number].descriptor = socket.as_raw_fd();
        }
    }

    /// The connection has ended, with an RST that is recorded or without one.
    pub(super) fn end(mut self, reset: Option<RecordedReset>) {
        self.strike_off(reset);
    }

    fn strike_off(&mut self, reset: Option<RecordedReset>) {
        let Some(Place { roll, number }) = self.0.take() else {
            return;
        };
        let entry = roll.lock().entries.remove(number);
        if let Some(watched) = entry.watched {
            watched.end(reset);
        }
    }
}

impl Drop for Watch {
    /// A connect that failed or was given up has no entry in the ledger of its own.
    fn drop(&mut self) {
        self.strike_off(None);
    }
}

impl Watched {
    pub(super) fn begin(
        witness: &Arc<Witness>,
        side: Side,
        socket: BorrowedFd<'_>,
        peer: SocketAddr,
    ) -> Option<Box<Self>> {
        // A socket that can't be asked is none that the kernel will tell of.
        let opened = Opened::of(side, socket, peer).ok()?;
        witness.opened(&opened);
        let witness = Arc::clone(witness);
        Some(Box::new(Self { witness, opened }))
    }

    fn connected(&mut self, socket: BorrowedFd<'_>) {
        let Opened { side, peer, at, .. } = self.opened;
        if let Ok(opened) = Opened::of(side, socket, peer) {
            self.opened = Opened { at, ..opened };
            self.witness.opened(&self.opened);
        }
    }

    fn end(&self, reset: Option<RecordedReset>) {
        self.witness.ended(&self.opened.ended(clock::now(), reset));
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;
    use crate::census::leaks::{CONFIRMED_AFTER, Leaks, Suspect};
    use crate::sys::socket::socket_cookie;

    fn socket() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").expect("bound")
    }

    #[test]
    fn the_roll_names_what_is_open() {
        let roll = Arc::<Roll>::default();
        let (first, second) = (socket(), socket());
        let first_watch = roll.enter(first.as_fd(), None);
        let second_watch = roll.enter(second.as_fd(), None);
        let cookie = |socket: &TcpListener| socket_cookie(socket.as_fd()).ok();
        let cookies = |roll: &Roll| roll.call().iter().map(|it| it.cookie).collect::<Vec<_>>();
        assert_eq!(cookies(&roll), [cookie(&first), cookie(&second)]);
        drop(first_watch);
        let third_watch = roll.enter(first.as_fd(), None);
        let ids: Vec<_> = roll.call().iter().map(|it| it.id).collect();
        assert!(ids[0] > ids[1], "a place is used again, a name never");
        let mut second_watch = second_watch;
        second_watch.moved(first.as_fd());
        assert_eq!(cookies(&roll), [cookie(&first), cookie(&first)]);
        second_watch.end(None);
        drop(third_watch);
        assert_eq!(roll.call(), []);
    }

    #[test]
    fn an_entry_whose_socket_is_closed_is_a_leak() {
        let (roll, mut leaks, now) = (Arc::<Roll>::default(), Leaks::default(), clock::now());
        let (closed, open) = (socket(), socket());
        let watches = [&closed, &open].map(|socket| roll.enter(socket.as_fd(), None));
        assert_eq!(leaks.look(&roll.call(), &[], now), []);
        let id = roll.call()[0].id;
        drop(closed);
        assert_eq!(leaks.look(&roll.call(), &[], now + CONFIRMED_AFTER), []);
        let later = now + CONFIRMED_AFTER * 2;
        assert_eq!(
            leaks.look(&roll.call(), &[], later),
            [Suspect::NoSocket(id)]
        );
        drop(watches);
    }
}
