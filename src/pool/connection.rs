//! One upstream connection, and the watch over it while it is idle.
//!
//! A watch costs no task and no system call: the connection's waker points at the keeper of its
//! pool, and the next session's own reads replace it.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::task::coop::unconstrained;

use super::PoolKey;
use super::core::Handle;
use crate::close::classify::{Loss, loss};
use crate::stats::ledger::Watch;
use crate::stats::reason::DiscardReason;
use crate::stats::sessions::SessionFacts;
use crate::sys::socket;
use crate::transport::Transport;

/// Names an endpoint in its upstream. Never used twice in the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointId(pub u32);

/// What a connection that is out of its pool is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldAs {
    /// One session has it.
    Leased,
    /// It carries the exchanges of several sessions.
    Shared,
}

/// One upstream connection.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub transport: Transport,
    /// Unique in the life of the process.
    pub id: u64,
    /// The endpoint it leads to.
    pub endpoint: EndpointId,
    /// The endpoint's address as configured, for people.
    pub address: Arc<str>,
    /// The service's address, if it has one.
    pub service: Option<SocketAddr>,
    /// What makes it interchangeable.
    pub key: PoolKey,
    /// When its connect succeeded.
    pub opened_at: Instant,
    /// When its lifetime is over.
    pub retire_at: Option<Instant>,
    /// Exchanges it has carried to their boundary.
    pub exchanges: u64,
    /// Since when its service has heard nothing: its last release, or its connect.
    pub idle_since: Instant,
    /// Until when that was so: it was lent, or found closed.
    pub idle_until: Instant,
    /// How long it may be idle, as its service has announced; less a margin.
    pub idle_max: Option<Duration>,
    /// What it is used for, while it is out of its pool.
    pub held_as: HeldAs,
    /// The service was told all that its pool key stands for.
    pub is_prepared: bool,
    /// Sessions whose exchanges ended with it, where it was shared.
    pub sessions_touched: usize,
    /// The session whose exchange or tunnel ends with it, if one does.
    pub session: Option<Arc<SessionFacts>>,
    /// What the kernel's witness needs to know of it.
    pub watch: Watch,
    /// A byte of an answer had come when it ended, or it was a tunnel's.
    pub is_answering: bool,
    /// Bytes read from it that went nowhere, because of its end.
    pub dropped_bytes: u64,
    /// It has been idle, so that the service may have closed it meanwhile.
    pub was_idle: bool,
    /// Its service may speak before it is spoken to.
    pub may_greet: bool,
    /// Wakes the keeper of its pool; see [`Connection::look`].
    pub waker: Waker,
}

/// What a look at an idle connection shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing: it may be lent. Its waker is called when that changes.
    Quiet,
    /// The service has closed it.
    Fin,
    /// The service has reset it.
    Reset,
    /// The service is gone without a word.
    Vanished,
    /// The service has sent bytes that nobody asked for.
    Bytes,
}

impl Look {
    fn at(error: &io::Error) -> Self {
        match loss(error) {
            Loss::Reset => Self::Reset,
            Loss::Vanished => Self::Vanished,
        }
    }

    /// Why the connection can't stay, if so.
    pub fn stale(self) -> Option<DiscardReason> {
        match self {
            Self::Quiet => None,
            Self::Fin => Some(DiscardReason::IdleFin),
            Self::Reset => Some(DiscardReason::IdleReset),
            Self::Vanished => Some(DiscardReason::IdleVanished),
            Self::Bytes => Some(DiscardReason::IdleBytes),
        }
    }
}

impl Connection {
    /// How long it had been idle when it was lent, or found closed.
    pub fn idle_age(&self) -> Duration {
        self.idle_until.saturating_duration_since(self.idle_since)
    }

    /// Looks whether anything has arrived, and asks to be told when it does. Costs a system call
    /// only where something has, but sees only what the runtime has noticed; see
    /// [`Connection::ask_kernel`].
    pub fn look(&self) -> Look {
        let mut context = Context::from_waker(&self.waker);
        loop {
            // Not on the task's budget, which would have the runtime say "nothing" unseen.
            let ready = poll_fn(|context| self.transport.poll_read_ready(context));
            match pin!(unconstrained(ready)).poll(&mut context) {
                Poll::Pending => return Look::Quiet,
                Poll::Ready(Err(error)) => return Look::at(&error),
                Poll::Ready(Ok(())) => match self.transport.try_io(|| self.find()) {
                    Ok(look) => return look,
                    // Nothing that matters: the runtime listens anew.
                    Err(_would_block) => {}
                },
            }
        }
    }

    /// What has arrived; `WouldBlock` where that stands in nobody's way.
    fn find(&self) -> io::Result<Look> {
        match self.ask_kernel() {
            Look::Quiet => Err(io::ErrorKind::WouldBlock.into()),
            // It waits for the next session, whose it is.
            Look::Bytes if self.may_greet && self.exchanges == 0 => {
                match socket::has_peer_closed(self.transport.as_fd())? {
                    true => Ok(Look::Fin),
                    false => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
            look => Ok(look),
        }
    }
}

impl Connection {
    /// The service has announced how long it keeps the connection while it is idle, or nothing.
    pub fn set_announced(&mut self, timeout: Option<Duration>) {
        self.idle_max = timeout.map(|it| it - (it / 10).min(ANNOUNCED_MARGIN_MAX));
    }

    /// Has the runtime find out anew what has arrived; see [`Transport::rearm`].
    ///
    /// # Errors
    /// No descriptor is free; then everything is as it was.
    pub fn rearm(&mut self) -> io::Result<()> {
        self.transport.rearm()?;
        self.watch.moved(self.transport.as_fd());
        Ok(())
    }

    /// Looks whether anything has arrived, noticed by the runtime or not: one system call, made
    /// before a request is written where an earlier exchange could have left something behind.
    pub fn ask_kernel(&self) -> Look {
        ask_kernel(&self.transport)
    }
}

/// What has arrived on a service's connection: see [`Connection::ask_kernel`].
pub fn ask_kernel(service: &Transport) -> Look {
    match SockRef::from(service).peek(&mut [MaybeUninit::uninit(); 1]) {
        Ok(0) => Look::Fin,
        Ok(_) => Look::Bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Look::Quiet,
        Err(error) => Look::at(&error),
    }
}

/// A tenth of what a service announces is left to it, but not more than this: it is exact to a second.
const ANNOUNCED_MARGIN_MAX: Duration = Duration::from_secs(1);

impl Handle for Box<Connection> {
    fn id(&self) -> u64 {
        self.id
    }

    fn key(&self) -> PoolKey {
        self.key
    }

    fn retire_at(&self) -> Option<Instant> {
        self.retire_at
    }

    fn exchanges(&self) -> u64 {
        self.exchanges
    }

    fn idle_since(&self) -> Option<Instant> {
        Some(self.idle_since)
    }

    fn idle_max(&self) -> Option<Duration> {
        self.idle_max
    }
}
