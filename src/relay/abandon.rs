//! What becomes of an exchange whose client left.
//!
//! The service owes the rest of its answer. Where that is little, reading and dropping it is cheaper
//! for everyone than a new connection; past a bound the connection is discarded with an RST, which
//! also tells the service that nobody listens any more.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::exclusive::{Exchange, Failure};
use crate::pool::Seen;
use crate::protocol::{Framer, Reply, Then};
use crate::stats::reason::DiscardReason;
use crate::stats::sessions::Command;
use crate::sys::clock;

/// How long a service may take to finish an answer that nobody waits for.
const ABANDONED_TIME_MAX: Duration = Duration::from_secs(2);

impl<Q: Framer, A: Reply> Exchange<'_, Q, A> {
    /// Reads and drops up to `bytes_max` of what the service still owes, so that its connection can
    /// be lent again; past that, or where the request is not complete, discards it.
    pub async fn abandon(mut self, bytes_max: u64) {
        let deadline = clock::now() + ABANDONED_TIME_MAX;
        let mut left_bytes = bytes_max;
        let is_settled = self.request_is_sent()
            && poll_fn(|context| self.poll_abandoned(context, &mut left_bytes, deadline)).await;
        if is_settled {
            return;
        }
        if let (Some(lease), ..) = self.into_parts() {
            lease.discard(DiscardReason::ClientGone, Seen::MidResponse);
        }
    }

    /// Ready(true) once the lease has been settled at the boundary.
    fn poll_abandoned(
        &mut self,
        context: &mut Context<'_>,
        left_bytes: &mut u64,
        deadline: Instant,
    ) -> Poll<bool> {
        loop {
            self.response.outbound.abandon(&mut self.response.inbound);
            if self.response.then == Then::Boundary {
                self.settle();
                return Poll::Ready(true);
            }
            if matches!(self.response.then, Then::Pinned(_)) {
                return Poll::Ready(false);
            }
            match self.frame_response() {
                Err(_violation) => return Poll::Ready(false),
                Ok(true) => {}
                // The same checks as for an answer that somebody waits for: a crossed one is none.
                Ok(false) => match self.read_response(context) {
                    Err(failure) => return Poll::Ready(self.lose(&failure)),
                    Ok(Poll::Pending) => break,
                    Ok(Poll::Ready(count)) => match left_bytes.checked_sub(count as u64) {
                        Some(left) => *left_bytes = left,
                        None => return Poll::Ready(false),
                    },
                },
            }
        }
        if self.client.poll_command(context) == Command::Cut {
            return Poll::Ready(false);
        }
        self.client.alarm.poll(context, deadline).map(|()| false)
    }

    /// The service ended it first: true where the lease is discarded for that.
    fn lose(&mut self, failure: &Failure<Q::Violation, A::Violation>) -> bool {
        let (reason, seen) = match failure {
            Failure::ServiceFin => (DiscardReason::UpstreamFin, Seen::PeerFin),
            Failure::ServiceReset => (DiscardReason::UpstreamReset, Seen::PeerReset),
            Failure::ServiceVanished => (DiscardReason::UpstreamVanished, Seen::PeerVanished),
            _ => return false,
        };
        if let Some(lease) = self.lease.take() {
            lease.discard(reason, seen);
        }
        true
    }
}
