//! What a connection is told before it serves anybody, and what brings it back to there.
//!
//! Invariant: a connection on which a step was refused, or not answered as it must be, is never lent.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::link::Left;
use super::owner::{End, Owner};
use crate::protocol::replies::{Language, Replies, ReplyThen, Setup};
use crate::relay::alarm::Alarm;
use crate::sys::clock;

/// How long a service may take over all of it.
const SETUP_TIME_MAX: Duration = Duration::from_secs(3);
/// Of a reply so much is looked at; a refusal is shorter.
const LOOKED_AT_BYTES_MAX: usize = 1024;
/// What a service may answer to all of it, bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Why a connection is not prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unprepared {
    /// The service refused a step, in these words, a whole reply.
    Refused(Vec<u8>),
    /// It ended, or did not answer.
    Died,
}

impl<L: Language> Owner<L> {
    /// Tells the service who is served.
    pub(super) async fn prepare(&mut self, setup: &Setup) -> Result<(), (End, Unprepared)> {
        let mut exchange = SetupExchange::new(&setup.requests);
        for _ in 0..setup.count {
            let reply = self.next_reply(&mut exchange).await.map_err(died)?;
            if let Some(refusal) = L::refusal(&reply) {
                let refused = Unprepared::Refused(refusal.to_vec());
                return Err((End::GivenBack(Left::Something), refused));
            }
        }
        self.lease.connection_mut().is_prepared = true;
        Ok(())
    }

    /// Brings the connection back to where it began; false where it can't be. Nothing is owed, so the first
    /// thing that the service says is its answer: a client could have it say anything later.
    pub(super) async fn reset(&mut self, setup: &Setup) -> bool {
        let Some((request, expected)) = L::RESET else {
            return false;
        };
        self.lease.connection_mut().is_prepared = false;
        let mut exchange = SetupExchange::new(request);
        match self.next_reply(&mut exchange).await {
            Ok(reply) if reply == expected => {}
            _ => return false,
        }
        self.prepare(setup).await.is_ok() && self.inbound.is_empty()
    }

    /// The beginning of the next whole reply.
    async fn next_reply(&mut self, exchange: &mut SetupExchange<'_>) -> Result<Vec<u8>, End> {
        let mut reply = Vec::new();
        poll_fn(|context| self.poll_reply(exchange, &mut reply, context)).await?;
        Ok(reply)
    }

    fn poll_reply(
        &mut self,
        exchange: &mut SetupExchange<'_>,
        reply: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), End>> {
        let service = &mut self.lease.connection_mut().transport;
        while !exchange.unwritten.is_empty() {
            match service.poll_write(context, exchange.unwritten, &[]) {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) => exchange.unwritten = &exchange.unwritten[count..],
                Poll::Ready(Err(error)) => return Poll::Ready(Err(End::at(&error))),
            }
        }
        loop {
            while !self.inbound.is_empty() {
                let bytes = self.inbound.filled();
                let Ok(frame) = self.replies.frame_unasked(bytes) else {
                    return Poll::Ready(Err(End::Violation));
                };
                if frame.taken == 0 && frame.then == ReplyThen::More {
                    break;
                }
                let looked_at = frame.taken.min(LOOKED_AT_BYTES_MAX - reply.len());
                reply.extend_from_slice(&bytes[..looked_at]);
                self.inbound.consume(frame.taken);
                exchange.read_bytes += frame.taken;
                if frame.then == ReplyThen::End {
                    return Poll::Ready(Ok(()));
                }
            }
            if exchange.read_bytes > ANSWER_BYTES_MAX {
                return Poll::Ready(Err(End::Violation));
            }
            let service = &mut self.lease.connection_mut().transport;
            match self.inbound.poll_read(service, context) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::Fin)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(End::at(&error))),
            }
        }
        let timed_out = exchange.alarm.poll(context, exchange.deadline);
        timed_out.map(|()| Err(End::Silent))
    }
}

/// What is still to be written of a setup, and by when it is answered.
struct SetupExchange<'r> {
    unwritten: &'r [u8],
    read_bytes: usize,
    deadline: Instant,
    alarm: Alarm,
}

impl<'r> SetupExchange<'r> {
    fn new(requests: &'r [u8]) -> Self {
        let deadline = clock::now() + SETUP_TIME_MAX;
        Self {
            unwritten: requests,
            read_bytes: 0,
            deadline,
            alarm: Alarm::new(deadline),
        }
    }
}

fn died(end: End) -> (End, Unprepared) {
    (end, Unprepared::Died)
}
