//! How a session comes to a lease: at once, or after a wait in which its client is listened to.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Instant;

use super::{Session, SessionEnd, verdict};
use crate::close::Phase;
use crate::pool::Lease;
use crate::relay::client::ClientLost;
use crate::stats::reason::ExchangeOutcome;
use crate::stats::sessions::Command;
use crate::sys::clock;
use crate::upstream::{AcquireError, Acquired, Wait, Want};

/// Why no connection was lent.
pub(super) enum NoLease {
    Refused(AcquireError),
    /// The client did not wait for it.
    Ended(SessionEnd),
}

impl Session {
    /// Takes a connection from the pool, at once or after a wait in its queue; and when that was.
    /// `is_here`: the client's FIN would leave something to do.
    pub(super) async fn acquire(
        &mut self,
        want: Want,
        is_here: bool,
        mut now: Instant,
    ) -> Result<(Lease, Instant), NoLease> {
        loop {
            let lent = match self.rules.upstream.acquire(want, now) {
                Ok(Acquired::Lease(lease)) => return Ok((lease, now)),
                Ok(Acquired::Wait(wait)) => self.wait_for_lease(wait, is_here).await,
                Err(error) => Ok(Err(error)),
            };
            let error = match lent {
                Ok(Ok(lease)) => return Ok((lease, clock::now())),
                Ok(Err(error)) => error,
                Err(lost) => {
                    let stats = self.rules.upstream.stats();
                    stats.exchanges.increment(ExchangeOutcome::Abandoned);
                    let end = verdict::client_lost(lost, Phase::Queue, true);
                    return Err(NoLease::Ended(end));
                }
            };
            // The upstream was taken away by a reload; the new rules name another.
            if error != AcquireError::Draining || !self.renew_rules() {
                return Err(NoLease::Refused(error));
            }
            now = clock::now();
        }
    }

    async fn wait_for_lease(
        &mut self,
        wait: Wait,
        is_here: bool,
    ) -> Result<Result<Lease, AcquireError>, ClientLost> {
        self.client.facts.set_phase(Phase::Queue);
        let mut wait = std::pin::pin!(wait);
        let client = &mut self.client;
        poll_fn(|context| {
            while !client.has_ended && !client.inbound.is_full() {
                match client.poll_read(context) {
                    // A FIN behind a whole request says only that no more requests come; whether
                    // what is here is the whole shows when it is framed.
                    Poll::Ready(Ok(0)) if is_here || !client.inbound.is_empty() => {}
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(ClientLost::Fin));
                    }
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => {
                        return Poll::Ready(Err(ClientLost::at(&error)));
                    }
                    Poll::Pending => break,
                }
            }
            if client.poll_command(context) == Command::Cut {
                return Poll::Ready(Err(ClientLost::Cut));
            }
            // After the client: who is gone already needs no lease.
            wait.as_mut().poll(context).map(Ok)
        })
        .await
    }
}
