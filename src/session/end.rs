//! The end of a session: what it was, how its socket is closed, and its entry in the ledger.

use super::Session;
use crate::close::linger::{self, Bounds, OurFin};
use crate::close::reset::{self, AbortedBy};
use crate::close::{Initiator, Manner, Phase, ResetCause, Termination};
use crate::config::checked::Listener;
use crate::log::EndedSession;
use crate::stats::ledger::{Ending, Reset, ResetSeen};
use crate::stats::reason::Reason;
use crate::sys::clock;
use crate::transport::Transport;

/// How a session ended, and what is left to do with its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEnd {
    /// Who, in which phase, in which manner; the first cause.
    pub termination: Termination,
    /// What is left to do.
    pub closing: Closing,
}

/// What is left to do with a client's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// Our FIN, then read and drop until the client's, within bounds.
    Graceful,
    /// The same, and our FIN is out already.
    HalfClosed,
    /// Nothing: the client's RST came.
    Gone,
    /// Nothing: the client is gone without a word.
    Vanished,
    /// An RST, after the client's kernel has acknowledged what was written: the client must not
    /// take a cut answer for a whole one.
    ResetAfterDelivery(ResetCause),
    /// An RST at once.
    Reset(ResetCause),
}

impl SessionEnd {
    /// An end in order, or by a rule: the socket is closed gracefully.
    pub fn graceful(initiator: Initiator, phase: Phase, manner: Manner) -> Self {
        let termination = Termination {
            initiator,
            phase,
            manner,
        };
        Self {
            termination,
            closing: Closing::Graceful,
        }
    }

    /// The client's RST ended it.
    pub fn reset_received(phase: Phase) -> Self {
        let (initiator, manner) = (Initiator::Downstream, Manner::ResetReceived);
        Self {
            termination: Termination {
                initiator,
                phase,
                manner,
            },
            closing: Closing::Gone,
        }
    }

    /// Its kernel's silence ended it: keepalive or `user_timeout` gave the client up.
    pub fn vanished(phase: Phase) -> Self {
        let (initiator, manner) = (Initiator::Kernel, Manner::Timeout);
        Self {
            termination: Termination {
                initiator,
                phase,
                manner,
            },
            closing: Closing::Vanished,
        }
    }

    /// An operator's command, or the end of the drain's time, cut it off.
    pub fn cut(phase: Phase) -> Self {
        let (initiator, manner) = (Initiator::Operator, Manner::ResetSent);
        let termination = Termination {
            initiator,
            phase,
            manner,
        };
        Self {
            termination,
            closing: Closing::Reset(ResetCause::Operator),
        }
    }
}

impl Session {
    /// Closes the client's socket as the end demands, and makes the one entry in the ledger.
    pub(super) async fn finish(self, end: SessionEnd) {
        let Self {
            client,
            rules,
            entry,
            endpoint,
            refused,
            discarded,
            ..
        } = self;
        client.facts.set_phase(Phase::Close);
        // What the client pipelined and nobody took goes with the session, and so does its buffer: the
        // close may take long.
        let pipelined_bytes = client.inbound.filled().len() as u64;
        drop(client.inbound);
        let closed = close(client.transport, client.has_ended, end, &rules.listener).await;
        let ending = Ending {
            termination: end.termination,
            reset: closed.reset,
            unread_bytes: pipelined_bytes + closed.unread_bytes,
            unacknowledged_bytes: closed.unacknowledged_bytes,
        };
        rules.stats.ledger.close(&ending);
        drop(entry);
        let ended = EndedSession {
            listener: &rules.name,
            upstream: rules.upstream.name(),
            endpoint: endpoint.as_deref(),
            facts: &client.facts,
            ending: &ending,
            discard: discarded.map(Reason::label),
            detail: refused.map(Reason::label),
        };
        rules.log.record(&ended, clock::now());
    }
}

/// What was seen while a socket was closed.
struct Closed {
    reset: Option<ResetSeen>,
    unread_bytes: u64,
    unacknowledged_bytes: u64,
}

async fn close(
    transport: Transport,
    has_ended: bool,
    end: SessionEnd,
    listener: &Listener,
) -> Closed {
    let at_once = |reset, unacknowledged_bytes| Closed {
        reset: Some(ResetSeen {
            reset,
            phase: end.termination.phase,
        }),
        unread_bytes: 0,
        unacknowledged_bytes,
    };
    match end.closing {
        Closing::Graceful | Closing::HalfClosed => {
            let our_fin = match end.closing {
                Closing::HalfClosed => OurFin::Said,
                _ => OurFin::Due,
            };
            let bounds = Bounds {
                time: listener.linger_time,
                gap: listener.linger_gap,
                bytes: listener.linger_bytes,
            };
            let report = if has_ended {
                linger::deliver(transport, listener.linger_time).await
            } else {
                linger::linger(transport, our_fin, bounds).await
            };
            Closed {
                reset: Reset::of_linger(report.end).map(|reset| ResetSeen {
                    reset,
                    phase: Phase::Close,
                }),
                unread_bytes: report.dropped_bytes,
                unacknowledged_bytes: report.unacknowledged_bytes,
            }
        }
        Closing::Gone => at_once(Reset::Received, reset::bury(transport)),
        Closing::Vanished => Closed {
            reset: None,
            unread_bytes: 0,
            unacknowledged_bytes: reset::bury(transport),
        },
        Closing::ResetAfterDelivery(cause) => {
            let patience = listener.linger_time;
            let aborted = reset::abort_after_delivery(transport, cause, patience).await;
            let seen = match aborted.by {
                AbortedBy::Us => Reset::Sent(cause),
                AbortedBy::Peer => Reset::Received,
            };
            at_once(seen, aborted.unacknowledged_bytes)
        }
        Closing::Reset(cause) => at_once(Reset::Sent(cause), reset::abort(transport, cause)),
    }
}
