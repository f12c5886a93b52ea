//! The accept loop.
//!
//! ```text
//!          ┌──────────── a session ended, or a pause is over ────────────┐
//!          ▼                                                             │
//!      Accepting ──max_sessions open──► Full        out of descriptors──► Pausing
//!          │ stop
//!          ▼
//!      Emptying (new SYNs are dropped, what waits is accepted) ──► closed
//! ```
//!
//! An inherited socket is closed without Emptying: its queue waits for the next process.
//!
//! A full house stops accepting and resets nobody: who comes next waits in the kernel's queue.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::{Holder, Listener};
use crate::session::{RulesCell, Session};
use crate::stats::sessions::Command;
use crate::sys::clock;

/// Everything one accept loop needs.
#[derive(Debug)]
pub struct Accepting {
    /// The socket.
    pub listener: Listener,
    /// What its sessions are served under.
    pub rules: Arc<RulesCell>,
    /// Where sessions run.
    pub sessions: TaskTracker,
    /// Ends the loop.
    pub stop: CancellationToken,
}

/// Whether `max_sessions` holds, and how long somebody new is waited for. What waits in the queue of
/// a listener that closes is taken in beyond both, because the only other thing to do is to reset it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Limited,
    Emptying { until: Instant },
}

impl Door {
    /// How long the loop pauses after a failure. While the queue is emptied, time is short.
    fn pause(self) -> Duration {
        match self {
            Self::Limited => EXHAUSTED_PAUSE,
            Self::Emptying { .. } => EXHAUSTED_PAUSE / 20,
        }
    }

    /// Whether a failure ends the loop: what could not be taken in by now may never be.
    fn is_overdue(self) -> bool {
        matches!(self, Self::Emptying { until } if until <= clock::now())
    }
}

/// How long the loop pauses when the process or host is out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// How long what waits in the accept queue is still accepted after the loop was told to stop:
/// handshakes whose SYN was answered before complete within this time or not at all.
const EMPTYING_TIME: Duration = Duration::from_millis(50);
/// How long the queue may take to be emptied: far more than the longest one needs, and a bound for
/// where new connections could not be shut out.
const EMPTYING_TIME_MAX: Duration = Duration::from_secs(5);

impl Accepting {
    /// Accepts until it is told to stop, then empties the accept queue and closes the socket.
    pub async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.let_in(Door::Limited)).await;
        if self.listener.holder() == Holder::ServiceManager {
            debug!(address = %self.listener.address(), "listener left to the service manager");
            return;
        }
        if let Err(error) = self.listener.shut_out() {
            warn!(address = %self.listener.address(), %error, "new connections could not be shut out");
        }
        // New ones can't come any more, so this ends with the queue; nobody who waits may be reset.
        let until = clock::now() + EMPTYING_TIME;
        let _ = timeout(EMPTYING_TIME_MAX, self.let_in(Door::Emptying { until })).await;
        debug!(address = %self.listener.address(), "listener closed");
    }

    /// Takes in whoever comes: for ever, or until a closing door finds nobody.
    async fn let_in(&self, door: Door) {
        loop {
            let rules = self.rules.current();
            let is_full = rules.sessions.len() >= rules.listener.max_sessions;
            if is_full && door == Door::Limited {
                rules.stats.session_limit_reached.increment();
                // Asked anew each time: a reload may raise the limit.
                let limit = || self.rules.current().listener.max_sessions;
                rules.sessions.below(limit).await;
            }
            let accepted = match door {
                Door::Limited => self.listener.accept().await,
                Door::Emptying { until } => {
                    match timeout_at(until.into(), self.listener.accept_last()).await {
                        Ok(accepted) => accepted,
                        Err(_nobody) => return,
                    }
                }
            };
            match accepted {
                Ok((transport, peer)) => {
                    let session = Session::new(transport, peer, Arc::clone(&self.rules));
                    if self.stop.is_cancelled() {
                        // It came while the door was being shut, after all others were told.
                        session.tell(Command::Drain);
                    }
                    self.sessions.spawn(session.run());
                    continue;
                }
                Err(error) if is_exhaustion(&error) => {
                    rules.stats.descriptors_exhausted.increment();
                    warn!(address = %self.listener.address(), %error, "accepting pauses");
                    sleep(door.pause()).await;
                }
                Err(error) => {
                    rules.stats.accept_errors.increment();
                    debug!(address = %self.listener.address(), %error, "accept failed");
                    if error.kind() == io::ErrorKind::ConnectionAborted {
                        continue;
                    }
                    // Whatever it is, it must not turn into a busy loop.
                    sleep(door.pause()).await;
                }
            }
            if door.is_overdue() {
                return;
            }
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
