//! A place in the queue, as a future.
//!
//! Dropping it leaves the queue; a lease that was granted just then goes to the next waiter, and is
//! never lost.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::{AcquireError, Upstream};
use crate::pool::Lease;
use crate::pool::wait_queue::Ticket;
use crate::stats::reason::WaitOutcome;
use crate::sys::clock;

/// Waits for a lease. Its deadline is kept by the upstream.
#[derive(Debug)]
pub struct Wait {
    upstream: Arc<Upstream>,
    ticket: Ticket,
    /// `None` once the answer was taken.
    receiver: Option<oneshot::Receiver<Result<Lease, AcquireError>>>,
}

impl Wait {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        ticket: Ticket,
        receiver: oneshot::Receiver<Result<Lease, AcquireError>>,
    ) -> Self {
        Self {
            upstream,
            ticket,
            receiver: Some(receiver),
        }
    }
}

impl Future for Wait {
    type Output = Result<Lease, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(receiver) = self.receiver.as_mut() else {
            return Poll::Pending;
        };
        let answer = std::task::ready!(Pin::new(receiver).poll(context));
        self.receiver = None;
        // The sender goes without an answer only when the upstream itself goes.
        Poll::Ready(answer.unwrap_or(Err(AcquireError::Draining)))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(mut receiver) = self.receiver.take() else {
            return;
        };
        if self.upstream.lock().core.leave(self.ticket) {
            self.upstream.stats.waits.increment(WaitOutcome::Abandoned);
            return;
        }
        // Served already: either the answer is here, or its sender will find nobody and put it back.
        receiver.close();
        if let Ok(Ok(lease)) = receiver.try_recv() {
            lease.put_back(clock::now());
        }
    }
}
