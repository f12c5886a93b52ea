//! How an upstream connection ended: from the reason and what was seen to its [`Ending`].
//!
//! Pure: a table. Not here: ending it (see `close`).

use crate::close::account::Account;
use crate::close::linger::Report;
use crate::close::reset::Aborted;
use crate::close::{Initiator, Manner, Phase, ResetCause, Termination};
use crate::stats::ledger::{Ending, Reset, ResetSeen};
use crate::stats::reason::{ConnectOutcome, DiscardReason};

/// What was seen on the socket when a connection was discarded, and so what is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is open as far as anybody knows: our FIN, if a tunnel has not said it already, then the
    /// service's is awaited.
    Open,
    /// The service's FIN, with nothing unread: only our own close is left.
    PeerFin,
    /// The service's FIN, with nothing unread, while bytes of ours were under way: its kernel's RST or
    /// acknowledgement is awaited.
    PeerFinUnanswered,
    /// The service's FIN, and then the RST that answered what was under way: nothing is left.
    PeerFinThenReset,
    /// The service's RST: nothing is left.
    PeerReset,
    /// The service is gone without a word: nothing is left.
    PeerVanished,
    /// The service owes the rest of an answer that nobody wants: it is reset.
    MidResponse,
    /// The client of a tunnel was reset, and the service is to know once it has what came before.
    ResetForPeer,
}

impl Seen {
    /// Whether something is awaited of the service, its FIN or what it acknowledges, so that the end
    /// takes time.
    pub fn is_awaited(self) -> bool {
        matches!(
            self,
            Self::Open | Self::PeerFinUnanswered | Self::ResetForPeer
        )
    }

    /// Whether a service that ended without an answer did so by its FIN, whatever came of it then.
    fn is_fin(self) -> bool {
        matches!(
            self,
            Self::PeerFin | Self::PeerFinUnanswered | Self::PeerFinThenReset | Self::PeerVanished
        )
    }
}

/// Who ended a connection that was discarded for `reason`, in which phase and manner. `is_answering`: a
/// byte of an answer had come, or it was a tunnel's.
pub fn termination(reason: DiscardReason, seen: Seen, is_answering: bool) -> Termination {
    use DiscardReason as R;
    use {Initiator as I, Manner as M, Phase as P};
    let under_way = match is_answering {
        true => P::Response,
        false => P::Request,
    };
    let given_up = match seen {
        Seen::MidResponse | Seen::ResetForPeer => M::ResetSent,
        _ => M::Truncated,
    };
    let (initiator, phase, manner) = match reason {
        R::IdleTimeout | R::IdleLearned => (I::Millpond, P::Idle, M::Timeout),
        R::MaxLifetime | R::MaxExchanges | R::PoolShrunk => (I::Millpond, P::Idle, M::Limit),
        R::KeyNeeded => (I::Millpond, P::Idle, M::Fin),
        R::ResetRefused => (I::Upstream, P::Idle, M::Violation),
        R::EndpointRemoved | R::Flushed | R::Drain => (I::Operator, P::Idle, M::Fin),
        R::IdleFin => (I::Upstream, P::Idle, M::Fin),
        R::IdleReset => (I::Upstream, P::Idle, M::ResetReceived),
        R::IdleVanished => (I::Kernel, P::Idle, M::Timeout),
        R::UpstreamVanished => (I::Kernel, under_way, M::Timeout),
        R::IdleBytes => (I::Upstream, P::Idle, M::Violation),
        R::ServiceClose | R::UntilClose => (I::Upstream, P::Response, M::Fin),
        R::Tunnel | R::SessionEnd | R::ReuseTls | R::ReuseGreeting | R::ReuseUnanswered
            if seen == Seen::ResetForPeer =>
        {
            (I::Downstream, P::Response, M::ResetSent)
        }
        R::Tunnel | R::SessionEnd | R::ReuseTls | R::ReuseGreeting | R::ReuseUnanswered => {
            (I::Downstream, P::Response, M::Fin)
        }
        R::ServiceEnd => (I::Upstream, P::Response, M::Fin),
        R::TunnelTimeout if matches!(seen, Seen::ResetForPeer | Seen::MidResponse) => {
            (I::Millpond, P::Response, M::ResetSent)
        }
        R::TunnelTimeout | R::ReuseProbeTimeout => (I::Millpond, P::Idle, M::Timeout),
        R::ReuseUnacknowledged => (I::Millpond, P::Idle, M::Violation),
        R::ReuseLateBytes | R::ReuseProbeWrong => (I::Upstream, P::Idle, M::Violation),
        R::LostRace | R::NoAnswer if seen.is_fin() => (I::Upstream, P::Request, M::Fin),
        R::LostRace | R::NoAnswer => (I::Upstream, P::Request, M::ResetReceived),
        R::CrossedAnswer => (I::Upstream, P::Request, M::Violation),
        R::HalfRequest => (I::Upstream, P::Request, M::Truncated),
        R::RequestViolation => (I::Downstream, P::Request, M::Violation),
        R::RequestLimit => (I::Millpond, P::Request, M::Limit),
        R::ClientGone => (I::Downstream, under_way, given_up),
        R::ClientVanished => (I::Kernel, under_way, M::ResetSent),
        R::ClientStalled | R::ResponseTimeout => (I::Millpond, under_way, M::Timeout),
        R::UpstreamFin => (I::Upstream, P::Response, M::Truncated),
        R::UpstreamReset => (I::Upstream, P::Response, M::ResetReceived),
        R::Violation | R::StrayBytes => (I::Upstream, P::Response, M::Violation),
        R::Cancelled => (I::Operator, under_way, M::ResetSent),
    };
    Termination {
        initiator,
        phase,
        manner,
    }
}

/// The cause of the RST that ends a connection discarded for `reason`.
pub fn reset_cause(reason: DiscardReason, seen: Seen) -> ResetCause {
    match (reason, seen) {
        (DiscardReason::Cancelled | DiscardReason::TunnelTimeout, _) => ResetCause::Operator,
        (_, Seen::ResetForPeer) => ResetCause::Propagated,
        _ => ResetCause::Abandoned,
    }
}

/// The end of a connection that lingered, or whose FIN was answered; `phase` is what an RST met.
pub fn lingered(termination: Termination, report: &Report, phase: Phase) -> Ending {
    ended(
        termination,
        Reset::of_linger(report.end),
        phase,
        report.account,
    )
}

/// The end of a connection that was to be reset; the service's own reset may have come first.
pub fn aborted(termination: Termination, cause: ResetCause, aborted: Aborted) -> Ending {
    let reset = Reset::of_abort(cause, aborted.by);
    ended(termination, reset, termination.phase, aborted.account)
}

/// The end of a connection of which nothing is left to do.
pub fn ended(
    termination: Termination,
    reset: Option<Reset>,
    phase: Phase,
    account: Account,
) -> Ending {
    Ending {
        termination,
        reset: reset.map(|reset| ResetSeen { reset, phase }),
        account,
    }
}

/// The end of a connect that failed. `is_tcp`: who refuses it does so with an RST.
pub fn unconnected(outcome: ConnectOutcome, is_tcp: bool) -> Ending {
    use {Initiator as I, Manner as M};
    let (initiator, manner) = match outcome {
        ConnectOutcome::Established | ConnectOutcome::Abandoned => (I::Operator, M::Fin),
        ConnectOutcome::Refused => (I::Upstream, M::Refused),
        ConnectOutcome::TimedOut => (I::Millpond, M::Timeout),
        ConnectOutcome::Unreachable => (I::Kernel, M::Refused),
        ConnectOutcome::PortsExhausted
        | ConnectOutcome::SourceUnusable
        | ConnectOutcome::DescriptorsExhausted
        | ConnectOutcome::Unresolved
        | ConnectOutcome::Denied => (I::Millpond, M::Refused),
    };
    let reset = (outcome == ConnectOutcome::Refused && is_tcp).then_some(ResetSeen {
        reset: Reset::Received,
        phase: Phase::Connect,
    });
    Ending {
        reset,
        ..Ending::clean(initiator, Phase::Connect, manner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::close::Side;
    use crate::stats::reason::Reason;
    use crate::stats::termination as table;

    #[test]
    fn every_discard_ends_in_a_documented_termination() {
        let all = [
            Seen::Open,
            Seen::PeerFin,
            Seen::PeerFinUnanswered,
            Seen::PeerFinThenReset,
            Seen::PeerReset,
            Seen::PeerVanished,
            Seen::MidResponse,
            Seen::ResetForPeer,
        ];
        for &reason in DiscardReason::ALL {
            for (seen, is_answering) in all.into_iter().flat_map(|it| [(it, false), (it, true)]) {
                let ended = termination(reason, seen, is_answering);
                let row = table::find(Side::Upstream, ended);
                assert!(
                    row.is_some(),
                    "{reason:?} {seen:?}: {ended:?} stands in no table"
                );
            }
        }
    }

    #[test]
    fn every_row_of_the_table_is_an_end_of_a_connection() {
        let discards = DiscardReason::ALL.iter().flat_map(|&reason| {
            let seen = [Seen::PeerFin, Seen::PeerReset, Seen::MidResponse];
            let progress = [false, true];
            let each = seen
                .into_iter()
                .flat_map(move |it| progress.map(|is| (it, is)));
            each.map(move |(seen, is_answering)| termination(reason, seen, is_answering))
        });
        let connects = ConnectOutcome::ALL
            .iter()
            .map(|&outcome| unconnected(outcome, true).termination);
        let reached: HashSet<_> = discards.chain(connects).collect();
        for row in table::reachable(Side::Upstream) {
            assert!(
                reached.contains(&row.termination),
                "{:?} is never reached",
                row.termination
            );
        }
    }

    #[test]
    fn every_failed_connect_ends_in_a_documented_termination() {
        for &outcome in ConnectOutcome::ALL {
            let ended = unconnected(outcome, true).termination;
            let row = table::find(Side::Upstream, ended);
            assert!(row.is_some(), "{outcome:?}: {ended:?} stands in no table");
        }
    }
}
