//! What becomes of an exchange whose client left.
//!
//! The service owes the rest of its answer. Where that is little, reading and dropping it is cheaper
//! for everyone than a new connection; past a bound the connection is discarded with an RST, which
//! also tells the service that nobody listens any more.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::exclusive::{Exchange, Failure};
use crate::pool::{Lease, Seen};
use crate::protocol::{Framer, Reply, Then};
use crate::stats::reason::DiscardReason;
use crate::stats::sessions::Command;
use crate::sys::clock;

/// How long a service may take to finish an answer that nobody waits for.
const ABANDONED_TIME_MAX: Duration = Duration::from_secs(2);

impl<Q: Framer, A: Reply> Exchange<'_, Q, A> {
    /// Reads and drops up to `bytes_max` of what the service still owes, so that its connection can
    /// be lent again. Past that, or where the request is not complete: the lease, to be discarded for
    /// `reason`.
    pub async fn abandon(
        mut self,
        reason: DiscardReason,
        bytes_max: u64,
    ) -> Option<(Lease, DiscardReason, Seen)> {
        let deadline = clock::now() + ABANDONED_TIME_MAX;
        let mut left_bytes = bytes_max;
        let mut found = (reason, Seen::MidResponse);
        if self.request_is_sent() {
            poll_fn(|context| self.poll_abandoned(context, &mut left_bytes, deadline, &mut found))
                .await;
        }
        // Gone where it was settled at the boundary.
        let lease = self.into_broken_lease()?;
        Some((lease, found.0, found.1))
    }

    /// Ready once the lease has been settled at the boundary, or never will be; then `found` says why.
    fn poll_abandoned(
        &mut self,
        context: &mut Context<'_>,
        left_bytes: &mut u64,
        deadline: Instant,
        found: &mut (DiscardReason, Seen),
    ) -> Poll<()> {
        loop {
            self.drop_held();
            if self.response.then == Then::Boundary {
                self.settle();
                return Poll::Ready(());
            }
            if matches!(self.response.then, Then::Pinned(_)) {
                return Poll::Ready(());
            }
            match self.frame_response() {
                Err(_violation) => return Poll::Ready(()),
                Ok(true) => {}
                // The same checks as for an answer that somebody waits for: a crossed one is none.
                Ok(false) => match self.read_response(context) {
                    Err(failure) => {
                        let has_begun = self.response.has_begun;
                        let was_reused = self.lease.as_ref().is_some_and(Lease::is_reused);
                        *found = on_loss(&failure, has_begun, was_reused).unwrap_or(*found);
                        return Poll::Ready(());
                    }
                    Ok(Poll::Pending) => break,
                    Ok(Poll::Ready(count)) => match left_bytes.checked_sub(count as u64) {
                        Some(left) => *left_bytes = left,
                        None => return Poll::Ready(()),
                    },
                },
            }
        }
        if self.client.poll_command(context) == Command::Cut {
            return Poll::Ready(());
        }
        self.client.alarm.poll(context, deadline)
    }

    /// Drops what is framed for the client, and remembers how much that was: where the connection ends
    /// after all, it is lost with it.
    fn drop_held(&mut self) {
        let response = &mut self.response;
        let before = response.undelivered_bytes();
        response.outbound.abandon(&mut response.inbound);
        response.abandoned_bytes += before - response.undelivered_bytes();
    }
}

/// Why the lease is discarded where the service ended it first: inside its answer, or without one.
fn on_loss<Q, A>(
    failure: &Failure<Q, A>,
    has_begun: bool,
    was_reused: bool,
) -> Option<(DiscardReason, Seen)> {
    let unless_begun = |begun| match (has_begun, was_reused) {
        (true, _) => begun,
        (false, true) => DiscardReason::LostRace,
        (false, false) => DiscardReason::NoAnswer,
    };
    match failure {
        Failure::ServiceFin => Some((unless_begun(DiscardReason::UpstreamFin), Seen::PeerFin)),
        Failure::ServiceReset => {
            Some((unless_begun(DiscardReason::UpstreamReset), Seen::PeerReset))
        }
        Failure::ServiceVanished => Some((DiscardReason::UpstreamVanished, Seen::PeerVanished)),
        _ => None,
    }
}
