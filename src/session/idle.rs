//! Between exchanges: wait for bytes, the client's end, the idle limit or a drain.

use std::future::poll_fn;
use std::task::Poll;

use super::{Session, SessionEnd, verdict};
use crate::close::{Initiator, Manner, Phase};
use crate::relay::client::ClientLost;
use crate::stats::sessions::Command;
use crate::sys::clock;

impl Session {
    /// Waits until a request begins. The buffer is given back while nothing is in it.
    pub(super) async fn await_request(&mut self) -> Result<(), SessionEnd> {
        if !self.client.inbound.is_empty() {
            // Pipelined: the next request is here already.
            return Ok(());
        }
        self.client.inbound.rest();
        let phase = if self.exchanges() == 0 {
            Phase::Accept
        } else {
            Phase::Idle
        };
        self.client.facts.set_phase(phase);
        let now = clock::now();
        self.idle_since = now;
        // What became of an exchange that is over has nothing to do with the session's end.
        self.discarded = None;
        let listener = &self.rules.listener;
        // Who has just connected is owed an answer to its first request, also while draining.
        let first_request_by = now + listener.head_timeout.min(listener.idle_timeout);
        let idle_until = now + listener.idle_timeout;
        let client = &mut self.client;
        poll_fn(|context| {
            if client.has_ended {
                return Poll::Ready(Err(client_fin(phase)));
            }
            match client.poll_read(context) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(client_fin(phase))),
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => {
                    let lost = ClientLost::at(&error);
                    return Poll::Ready(Err(verdict::client_lost(lost, phase, true)));
                }
                Poll::Pending => {}
            }
            let command = client.poll_command(context);
            let (deadline, initiator, manner) = match command {
                Command::Cut => return Poll::Ready(Err(SessionEnd::cut(phase))),
                Command::Drain if phase == Phase::Idle => {
                    let (initiator, manner) = (Initiator::Operator, Manner::Fin);
                    return Poll::Ready(Err(SessionEnd::graceful(initiator, phase, manner)));
                }
                Command::Drain => (first_request_by, Initiator::Operator, Manner::Fin),
                Command::None => (idle_until, Initiator::Millpond, Manner::Timeout),
            };
            let end = SessionEnd::graceful(initiator, phase, manner);
            client.alarm.poll(context, deadline).map(|()| Err(end))
        })
        .await
    }
}

fn client_fin(phase: Phase) -> SessionEnd {
    SessionEnd::graceful(Initiator::Downstream, phase, Manner::Fin)
}
