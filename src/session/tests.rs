//! Every way in which a session ends stands in the table of ends, and the other way round.

use std::collections::HashSet;

use super::end::SessionEnd;
use super::verdict::{self, Attempt, Consequence, Standing, Verdict};
use super::*;
use crate::close::{Initiator, Manner, Phase, Side, Termination};
use crate::relay::client::ClientLost;
use crate::relay::exclusive::Failure;
use crate::relay::tunnel::TunnelEnd;
use crate::stats::reason::{DiscardReason, ExchangeOutcome, Reason};
use crate::stats::termination;

const LOST: [ClientLost; 6] = [
    ClientLost::Fin,
    ClientLost::Reset,
    ClientLost::Vanished,
    ClientLost::WithheldBytes,
    ClientLost::WithheldRoom,
    ClientLost::Cut,
];

/// Every end that the code of a session can come to.
fn ends() -> Vec<SessionEnd> {
    let mut ends: Vec<_> = RefusalReason::ALL
        .iter()
        .map(|it| refusal::end(*it))
        .collect();
    for answered in [Phase::Queue, Phase::Request, Phase::Response] {
        for lost in LOST {
            let at_queue = answered == Phase::Queue;
            let withheld = matches!(lost, ClientLost::WithheldBytes | ClientLost::WithheldRoom);
            if !(at_queue && withheld) {
                ends.push(verdict::client_lost(lost, answered, true));
            }
        }
    }
    for phase in [Phase::Accept, Phase::Idle] {
        for lost in [ClientLost::Reset, ClientLost::Vanished] {
            ends.push(verdict::client_lost(lost, phase, true));
        }
        ends.push(SessionEnd::cut(phase));
        for (initiator, manner) in [
            (Initiator::Downstream, Manner::Fin),
            (Initiator::Operator, Manner::Fin),
            (Initiator::Millpond, Manner::Timeout),
        ] {
            ends.push(SessionEnd::graceful(initiator, phase, manner));
        }
    }
    for tunnel in [
        TunnelEnd::Fin {
            first: Side::Downstream,
            is_passed: true,
        },
        TunnelEnd::Fin {
            first: Side::Upstream,
            is_passed: true,
        },
        TunnelEnd::Reset(Side::Downstream),
        TunnelEnd::Reset(Side::Upstream),
        TunnelEnd::Vanished(Side::Downstream),
        TunnelEnd::Vanished(Side::Upstream),
        TunnelEnd::Idle,
        TunnelEnd::HalfClosed(Side::Upstream),
        TunnelEnd::Outlasted,
        TunnelEnd::Quiet,
        TunnelEnd::Drained,
        TunnelEnd::Crossed { is_unsent: false },
        TunnelEnd::Withheld(Side::Downstream),
        TunnelEnd::Withheld(Side::Upstream),
        TunnelEnd::Cut,
    ] {
        ends.push(verdict::on_tunnel(tunnel, DiscardReason::Tunnel).2);
    }
    for initiator in [
        Initiator::Operator,
        Initiator::Millpond,
        Initiator::Upstream,
    ] {
        // What follows an answer that was the last; see `http::after_answer`.
        ends.push(SessionEnd::graceful(
            initiator,
            Phase::Response,
            Manner::Fin,
        ));
    }
    ends.extend(
        failures()
            .into_iter()
            .filter_map(|verdict| match verdict.attempt {
                Attempt::End(end) => Some(end),
                _ => None,
            }),
    );
    ends
}

fn failures() -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for bits in 0..16 {
        let standing = Standing {
            can_refuse: bits & 1 > 0,
            is_visible: bits & 2 > 0,
            was_reused: bits & 4 > 0,
            has_begun: bits & 8 > 0,
        };
        if !standing.can_refuse && !standing.has_begun {
            // An answer that the client has seen some of has begun.
            continue;
        }
        let mut failures: Vec<Failure<RefusalReason, ()>> = vec![
            Failure::RequestViolation(RefusalReason::BadChunk),
            Failure::ResponseViolation(()),
            Failure::ServiceFin,
            Failure::ServiceReset,
            Failure::ServiceVanished,
            Failure::CrossedAnswer,
            Failure::ServiceSilent,
        ];
        failures.extend(LOST.map(Failure::Client));
        verdicts.extend(failures.into_iter().map(|it| Verdict::on(it, standing)));
    }
    verdicts
}

#[test]
fn every_end_of_a_session_stands_in_the_table() {
    for end in ends() {
        let row = termination::find(Side::Downstream, end.termination);
        assert!(row.is_some(), "{:?} stands in no table", end.termination);
    }
}

#[test]
fn every_row_of_the_table_is_an_end_of_a_session() {
    let reached: HashSet<Termination> = ends().into_iter().map(|end| end.termination).collect();
    for row in termination::reachable(Side::Downstream) {
        assert!(
            reached.contains(&row.termination),
            "{:?} is never reached",
            row.termination
        );
    }
}

#[test]
fn a_client_that_cannot_see_the_cut_never_gets_a_fin_first() {
    for bits in 0..2 {
        let standing = Standing {
            can_refuse: false,
            is_visible: false,
            was_reused: bits > 0,
            has_begun: true,
        };
        for failure in [
            Failure::ServiceFin,
            Failure::ServiceReset,
            Failure::ServiceVanished,
        ] {
            let verdict = Verdict::on::<RefusalReason, ()>(failure, standing);
            let Attempt::End(end) = verdict.attempt else {
                panic!("{failure:?} ends the session")
            };
            assert!(
                matches!(end.closing, Closing::ResetAfterDelivery(_)),
                "{failure:?}"
            );
        }
    }
}

#[test]
fn a_connection_is_never_kept_after_a_failure() {
    for verdict in failures() {
        assert_ne!(verdict.attempt, Attempt::Done);
        // Read out and perhaps kept: only where it was the client who went.
        if matches!(verdict.lease, Consequence::Abandon(_)) {
            assert_eq!(verdict.outcome, Some(ExchangeOutcome::Abandoned));
        }
    }
}

fn size_of_future<F: Future>(_make: impl Fn(Session) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_session_stays_small() {
    let bytes = size_of_future(Session::run);
    assert!(bytes <= 2432, "{bytes}");
}
