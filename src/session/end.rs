//! The end of a session: what it was, how its socket is closed, and its entry in the ledger.

use std::sync::Arc;

use super::{Discarded, Session};
use crate::close::account::Detail;
use crate::close::linger::{self, Bounds, First};
use crate::close::{Initiator, Manner, Phase, ResetCause, Side, Termination, reset};
use crate::config::checked::Listener;
use crate::log::EndedSession;
use crate::stats::ledger::{Ending, Reset, ResetSeen};
use crate::stats::reason::Reason;
use crate::stats::recorder::{Leg, Story};
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
    /// Our FIN, if it is not out already, then read and drop until the client's, within bounds.
    Graceful,
    /// The same, but the client, which knows that this was the last answer, is given time to say its FIN
    /// first.
    AfterClient,
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
            idle_since,
            watch,
            ..
        } = self;
        let facts = client.facts;
        facts.set_phase(Phase::Close);
        // What the client pipelined and nobody took goes with the session, and so does its buffer: the
        // close may take long.
        let pipelined_bytes = client.inbound.filled().len() as u64;
        drop(client.inbound);
        let idle = clock::now().saturating_duration_since(idle_since);
        let detail = Detail::for_end(end.termination, pipelined_bytes);
        let mut ending = close(
            client.transport,
            client.has_ended,
            end,
            detail,
            &rules.listener,
        )
        .await;
        ending.account.unread_bytes += pipelined_bytes;
        let now = clock::now();
        let ledger = &rules.stats.ledger;
        let record = ledger.close(&ending, watch, || Story {
            listener: Some(Arc::clone(&facts.listener)),
            upstream: Some(rules.upstream.name().into()),
            endpoint: endpoint.clone(),
            client: Some(facts.peer),
            session: Some(facts.id),
            discard: discarded.map(|it| it.reason),
            exchange: facts.exchanges(),
            age: now.saturating_duration_since(facts.accepted_at),
            idle: matches!(end.termination.phase, Phase::Accept | Phase::Idle).then_some(idle),
            ..Story::of(Side::Downstream)
        });
        if let Some(Discarded { connection, .. }) = discarded {
            let leg = Leg {
                side: Side::Downstream,
                termination: end.termination,
                record,
            };
            facts.legs.ended(connection, leg, ledger.recorder());
        }
        drop(entry);
        let ended = EndedSession {
            listener: &rules.name,
            upstream: rules.upstream.name(),
            endpoint: endpoint.as_deref(),
            facts: &facts,
            ending: &ending,
            discard: discarded.map(|it| it.reason.label()),
            detail: refused.map(Reason::label),
            record,
        };
        rules.log.record(&ended, now);
    }
}

/// Closes the socket, and says how it ended with all that was seen.
async fn close(
    transport: Transport,
    has_ended: bool,
    end: SessionEnd,
    detail: Detail,
    listener: &Listener,
) -> Ending {
    let termination = end.termination;
    let at_once = |reset: Option<Reset>, account| Ending {
        termination,
        reset: reset.map(|reset| ResetSeen {
            reset,
            phase: termination.phase,
        }),
        account,
    };
    match end.closing {
        Closing::Graceful | Closing::AfterClient => {
            let first = match end.closing {
                Closing::AfterClient => First::Peer {
                    patience: listener.linger_gap,
                },
                _ => First::Us,
            };
            let bounds = Bounds {
                time: listener.linger_time,
                gap: listener.linger_gap,
                bytes: listener.linger_bytes,
            };
            let report = if has_ended {
                linger::deliver(transport, listener.linger_time, detail).await
            } else {
                linger::linger(transport, first, bounds, detail).await
            };
            Ending {
                termination,
                reset: Reset::of_linger(report.end).map(|reset| ResetSeen {
                    reset,
                    phase: Phase::Close,
                }),
                account: report.account,
            }
        }
        Closing::Gone => at_once(Some(Reset::Received), reset::bury(transport)),
        Closing::Vanished => at_once(None, reset::bury(transport)),
        Closing::ResetAfterDelivery(cause) => {
            let patience = listener.linger_time;
            let aborted = reset::abort_after_delivery(transport, cause, patience).await;
            at_once(Reset::of_abort(cause, aborted.by), aborted.account)
        }
        Closing::Reset(cause) => {
            let aborted = reset::abort(transport, cause);
            at_once(Reset::of_abort(cause, aborted.by), aborted.account)
        }
    }
}
