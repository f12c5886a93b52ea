//! What follows when an exchange or a tunnel ends badly: for the lease, for the statistics, and for
//! the client.
//!
//! Pure: tables over what was seen. Not here: doing it.

use super::{Closing, SessionEnd};
use crate::close::{Initiator, Manner, Phase, ResetCause, Side, Termination};
use crate::pool::Seen;
use crate::relay::client::ClientLost;
use crate::relay::delivery::Delivery;
use crate::relay::exclusive::Failure;
use crate::relay::tunnel::TunnelEnd;
use crate::stats::reason::{DiscardReason, ExchangeOutcome, RefusalReason};

/// How one attempt at an exchange went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The client has its answer, and its connection goes on.
    Done,
    /// The session ends.
    End(SessionEnd),
    /// Nothing was answered; millpond answers instead.
    Refuse(RefusalReason),
    /// The service died without a byte of an answer: another connection may be tried where that is
    /// sound, else millpond answers.
    NotAnswered {
        /// The connection had carried exchanges before, so this may be a lost race.
        was_reused: bool,
        /// Whether the service had the request.
        delivery: Delivery,
    },
}

impl Attempt {
    /// Whether it was a race that TCP may know more about.
    pub(super) fn is_undecided(self) -> bool {
        matches!(
            self,
            Self::NotAnswered {
                was_reused: true,
                delivery: Delivery::Undecided
            }
        )
    }

    /// Says what TCP knows.
    pub(super) fn decide(&mut self, found: Delivery) {
        if let Self::NotAnswered { delivery, .. } = self {
            *delivery = found;
        }
    }
}

/// Where an exchange stood when it failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// The client has seen nothing yet that would contradict an answer of ours.
    pub(super) can_refuse: bool,
    /// The client can tell from the protocol that its answer is cut short.
    pub(super) is_visible: bool,
    /// The connection had carried exchanges before.
    pub(super) was_reused: bool,
    /// A byte of an answer had come.
    pub(super) has_begun: bool,
}

/// What becomes of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consequence {
    /// The rest of the answer is read and dropped, within a bound.
    Abandon(DiscardReason),
    /// It is discarded.
    Discard(DiscardReason, Seen),
}

/// What follows a failed exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) lease: Consequence,
    /// What the exchange counts as; a refusal is counted where it is sent.
    pub(super) outcome: Option<ExchangeOutcome>,
    pub(super) attempt: Attempt,
}

impl Verdict {
    /// The verdict on a failed exchange.
    pub(super) fn on<Q, A>(failure: Failure<Q, A>, standing: Standing) -> Self
    where
        Q: Into<RefusalReason>,
    {
        match failure {
            Failure::Client(lost) => Self::on_client(lost, standing),
            Failure::RequestViolation(violation) => {
                let refusal = violation.into();
                let lease = Consequence::Discard(broken_request(refusal), Seen::Open);
                let end = || SessionEnd {
                    termination: termination(
                        Initiator::Downstream,
                        Phase::Request,
                        Manner::Violation,
                    ),
                    closing: cut_short(standing),
                };
                Self::refused_or(lease, standing, refusal, end)
            }
            Failure::ResponseViolation(_) => {
                let lease = Consequence::Discard(DiscardReason::Violation, Seen::Open);
                let end = || truncated(Manner::Violation, standing);
                Self::refused_or(lease, standing, RefusalReason::BadResponse, end)
            }
            Failure::ServiceSilent => {
                let lease = Consequence::Discard(DiscardReason::ResponseTimeout, Seen::MidResponse);
                let end = || SessionEnd {
                    termination: termination(Initiator::Millpond, Phase::Response, Manner::Timeout),
                    closing: cut_short(standing),
                };
                Self::refused_or(lease, standing, RefusalReason::ResponseTimeout, end)
            }
            Failure::ServiceFin => {
                Self::on_death(DiscardReason::UpstreamFin, Seen::PeerFin, standing)
            }
            Failure::ServiceReset => {
                Self::on_death(DiscardReason::UpstreamReset, Seen::PeerReset, standing)
            }
            Failure::ServiceVanished => Self::on_vanished(standing),
            Failure::CrossedAnswer => Self {
                lease: Consequence::Discard(DiscardReason::CrossedAnswer, Seen::Open),
                outcome: None,
                attempt: Attempt::NotAnswered {
                    was_reused: standing.was_reused,
                    delivery: Delivery::Undecided,
                },
            },
        }
    }

    /// The service's connection ended inside the exchange.
    fn on_death(reason: DiscardReason, seen: Seen, standing: Standing) -> Self {
        if !standing.has_begun {
            let reason = if standing.was_reused {
                DiscardReason::LostRace
            } else {
                DiscardReason::NoAnswer
            };
            let delivery = match seen {
                Seen::PeerReset => Delivery::Reset,
                _ => Delivery::Undecided,
            };
            return Self {
                lease: Consequence::Discard(reason, seen),
                outcome: None,
                attempt: Attempt::NotAnswered {
                    was_reused: standing.was_reused,
                    delivery,
                },
            };
        }
        let end = || truncated(Manner::Truncated, standing);
        Self::refused_or(
            Consequence::Discard(reason, seen),
            standing,
            RefusalReason::UpstreamDied,
            end,
        )
    }

    /// The service is gone without a word: whether it had the request, nobody can say.
    fn on_vanished(standing: Standing) -> Self {
        let lease = Consequence::Discard(DiscardReason::UpstreamVanished, Seen::PeerVanished);
        let end = || SessionEnd {
            termination: termination(Initiator::Kernel, Phase::Response, Manner::Truncated),
            closing: cut_short(standing),
        };
        Self::refused_or(lease, standing, RefusalReason::UpstreamVanished, end)
    }

    fn on_client(lost: ClientLost, standing: Standing) -> Self {
        let phase = if standing.has_begun {
            Phase::Response
        } else {
            Phase::Request
        };
        let is_visible = standing.is_visible || standing.can_refuse;
        let end = Attempt::End(client_lost(lost, phase, is_visible));
        let (lease, attempt) = match lost {
            ClientLost::WithheldBytes if standing.can_refuse => {
                let lease = Consequence::Discard(DiscardReason::ClientStalled, Seen::Open);
                return Self {
                    lease,
                    outcome: None,
                    attempt: Attempt::Refuse(RefusalReason::BodyTimeout),
                };
            }
            ClientLost::Fin => (
                Consequence::Discard(DiscardReason::ClientGone, Seen::Open),
                end,
            ),
            ClientLost::WithheldBytes => (
                Consequence::Discard(DiscardReason::ClientStalled, Seen::Open),
                end,
            ),
            ClientLost::Reset => (Consequence::Abandon(DiscardReason::ClientGone), end),
            ClientLost::Vanished => (Consequence::Abandon(DiscardReason::ClientVanished), end),
            ClientLost::WithheldRoom => (Consequence::Abandon(DiscardReason::ClientStalled), end),
            ClientLost::Cut => (
                Consequence::Discard(DiscardReason::Cancelled, Seen::MidResponse),
                end,
            ),
        };
        Self {
            lease,
            outcome: Some(ExchangeOutcome::Abandoned),
            attempt,
        }
    }

    fn refused_or(
        lease: Consequence,
        standing: Standing,
        reason: RefusalReason,
        end: impl FnOnce() -> SessionEnd,
    ) -> Self {
        if standing.can_refuse {
            Self {
                lease,
                outcome: None,
                attempt: Attempt::Refuse(reason),
            }
        } else {
            let outcome = Some(ExchangeOutcome::Truncated);
            Self {
                lease,
                outcome,
                attempt: Attempt::End(end()),
            }
        }
    }
}

/// Why a connection goes over which a part of a request was sent that is refused for `reason`.
fn broken_request(reason: RefusalReason) -> DiscardReason {
    match reason {
        RefusalReason::BodyTooLarge | RefusalReason::FrameTooLong | RefusalReason::HeadTooLarge => {
            DiscardReason::RequestLimit
        }
        _ => DiscardReason::RequestViolation,
    }
}

/// The end of a session whose client was lost in `phase`. `is_visible`: no answer is under way, or
/// the client can tell that it is cut short.
pub(super) fn client_lost(lost: ClientLost, phase: Phase, is_visible: bool) -> SessionEnd {
    match lost {
        ClientLost::Fin => {
            let manner = if phase == Phase::Request {
                Manner::Truncated
            } else {
                Manner::Fin
            };
            SessionEnd {
                termination: termination(Initiator::Downstream, phase, manner),
                closing: given_up(is_visible),
            }
        }
        ClientLost::Reset => SessionEnd::reset_received(phase),
        ClientLost::Vanished => SessionEnd::vanished(phase),
        ClientLost::WithheldBytes => SessionEnd {
            termination: termination(Initiator::Millpond, phase, Manner::Timeout),
            closing: given_up(is_visible),
        },
        ClientLost::WithheldRoom => SessionEnd {
            termination: termination(Initiator::Millpond, Phase::Response, Manner::Timeout),
            // What it does not take could not be delivered first.
            closing: if is_visible {
                Closing::Graceful
            } else {
                Closing::Reset(ResetCause::Operator)
            },
        },
        ClientLost::Cut => SessionEnd::cut(phase),
    }
}

/// How a client is left whose answer is given up by a rule of ours.
fn given_up(is_visible: bool) -> Closing {
    if is_visible {
        Closing::Graceful
    } else {
        Closing::ResetAfterDelivery(ResetCause::Operator)
    }
}

/// What follows the end of a tunnel: for its lease, and for its session. `by_client` is the reason
/// for the discard where the client ended it.
pub(super) fn on_tunnel(
    end: TunnelEnd,
    by_client: DiscardReason,
) -> (DiscardReason, Seen, SessionEnd) {
    let phase = Phase::Response;
    let client_fin = SessionEnd::graceful(Initiator::Downstream, Phase::Idle, Manner::Fin);
    match end {
        TunnelEnd::Fin {
            first: Side::Downstream,
            is_passed: true,
        } => (by_client, Seen::PeerFin, client_fin),
        // The service ended of its own accord.
        TunnelEnd::Fin {
            first: Side::Downstream,
            is_passed: false,
        } => (DiscardReason::ServiceEnd, Seen::PeerFin, client_fin),
        TunnelEnd::Quiet => (by_client, Seen::Open, client_fin),
        TunnelEnd::Fin {
            first: Side::Upstream,
            ..
        } => {
            let end = SessionEnd::graceful(Initiator::Upstream, phase, Manner::Fin);
            (DiscardReason::ServiceEnd, Seen::PeerFin, end)
        }
        TunnelEnd::Drained => {
            let end = SessionEnd::graceful(Initiator::Operator, Phase::Idle, Manner::Fin);
            (DiscardReason::Drain, Seen::Open, end)
        }
        TunnelEnd::Unfit(_) | TunnelEnd::Crossed { .. } => {
            let end = SessionEnd::graceful(Initiator::Upstream, Phase::Request, Manner::Violation);
            (DiscardReason::CrossedAnswer, Seen::Open, end)
        }
        TunnelEnd::Reset(_) | TunnelEnd::Vanished(_) => on_lost_side(end, by_client),
        TunnelEnd::Idle => {
            let end = SessionEnd::graceful(Initiator::Millpond, Phase::Idle, Manner::Timeout);
            (DiscardReason::TunnelTimeout, Seen::Open, end)
        }
        TunnelEnd::Withheld(side) => {
            let end = SessionEnd {
                termination: termination(Initiator::Millpond, phase, Manner::Timeout),
                closing: match side {
                    // What it does not take could not be delivered first.
                    Side::Downstream => Closing::Reset(ResetCause::Operator),
                    Side::Upstream => Closing::ResetAfterDelivery(ResetCause::Operator),
                },
            };
            let seen = match side {
                Side::Downstream => Seen::ResetForPeer,
                // What it does not take could not be delivered first.
                Side::Upstream => Seen::MidResponse,
            };
            (DiscardReason::TunnelTimeout, seen, end)
        }
        TunnelEnd::HalfClosed(ended) => half_closed(ended),
        TunnelEnd::Outlasted => {
            let (reason, seen, mut end) = half_closed(Side::Downstream);
            // A FIN would say that its answer is whole.
            end.closing = Closing::ResetAfterDelivery(ResetCause::Operator);
            (reason, seen, end)
        }
        TunnelEnd::Cut => (
            DiscardReason::Cancelled,
            Seen::MidResponse,
            SessionEnd::cut(phase),
        ),
    }
}

/// What follows when one side of a tunnel is lost: the other must not take it for an end in order.
fn on_lost_side(end: TunnelEnd, by_client: DiscardReason) -> (DiscardReason, Seen, SessionEnd) {
    let phase = Phase::Response;
    let passed_on = |initiator| SessionEnd {
        termination: termination(initiator, phase, Manner::ResetSent),
        closing: Closing::ResetAfterDelivery(ResetCause::Propagated),
    };
    match end {
        TunnelEnd::Vanished(Side::Downstream) => (
            DiscardReason::ClientVanished,
            Seen::ResetForPeer,
            SessionEnd::vanished(phase),
        ),
        TunnelEnd::Vanished(Side::Upstream) => (
            DiscardReason::UpstreamVanished,
            Seen::PeerVanished,
            passed_on(Initiator::Kernel),
        ),
        TunnelEnd::Reset(Side::Upstream) => (
            DiscardReason::UpstreamReset,
            Seen::PeerReset,
            passed_on(Initiator::Upstream),
        ),
        _ => (
            by_client,
            Seen::ResetForPeer,
            SessionEnd::reset_received(phase),
        ),
    }
}

/// The end of a session of which the service had more to say after it was taken for finished: the
/// client must not take what it has for the whole.
pub(super) fn cut_answer() -> SessionEnd {
    SessionEnd {
        termination: termination(Initiator::Upstream, Phase::Response, Manner::Truncated),
        closing: Closing::ResetAfterDelivery(ResetCause::Propagated),
    }
}

/// What follows a limit that passed after `ended` had said FIN.
fn half_closed(ended: Side) -> (DiscardReason, Seen, SessionEnd) {
    let end = SessionEnd::graceful(Initiator::Millpond, Phase::Close, Manner::Timeout);
    let seen = match ended {
        Side::Upstream => Seen::PeerFin,
        Side::Downstream => Seen::Open,
    };
    (DiscardReason::TunnelTimeout, seen, end)
}

/// An answer that ends before its end, through the service's doing.
fn truncated(manner: Manner, standing: Standing) -> SessionEnd {
    SessionEnd {
        termination: termination(Initiator::Upstream, Phase::Response, manner),
        closing: cut_short(standing),
    }
}

/// A client that can't see from the protocol that its answer is cut short must not see a FIN.
fn cut_short(standing: Standing) -> Closing {
    if standing.is_visible {
        Closing::Graceful
    } else {
        Closing::ResetAfterDelivery(ResetCause::Propagated)
    }
}

fn termination(initiator: Initiator, phase: Phase, manner: Manner) -> Termination {
    Termination {
        initiator,
        phase,
        manner,
    }
}
