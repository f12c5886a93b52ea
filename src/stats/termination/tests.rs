use std::collections::HashSet;

use super::*;
use crate::close::account::Account;
use crate::stats::ledger::ResetSeen;

#[test]
fn no_end_stands_twice_in_a_table() {
    for side in Side::ALL {
        let mut seen = HashSet::new();
        for row in reachable(side) {
            assert!(seen.insert(row.termination), "{side:?} {row:?}");
        }
    }
}

#[test]
fn no_two_ends_share_a_code() {
    let mut seen = HashSet::new();
    for initiator in Initiator::ALL {
        for phase in Phase::ALL {
            for manner in Manner::ALL {
                let termination = Termination {
                    initiator,
                    phase,
                    manner,
                };
                assert!(seen.insert(code(termination)), "{termination:?}");
            }
        }
    }
}

#[test]
fn no_reset_stands_twice() {
    for side in Side::ALL {
        let resets: Vec<_> = reachable_resets(side).collect();
        let unique: HashSet<_> = resets.iter().collect();
        assert_eq!(unique.len(), resets.len());
        let has = |reset, phase| resets.contains(&(reset, phase));
        assert!(has(Reset::Received, Phase::Close));
        assert!(has(Reset::Sent(ResetCause::LingerBound), Phase::Close));
        assert!(has(Reset::Sent(ResetCause::Propagated), Phase::Response));
        assert!(!has(Reset::Sent(ResetCause::Propagated), Phase::Idle));
    }
}

#[test]
fn sentences_are_sentences() {
    for row in Side::ALL.into_iter().flat_map(reachable) {
        for text in [row.meaning, row.advice] {
            assert!(text.ends_with(['.', '?']), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }
}

#[test]
fn an_ordinary_end_is_abnormal_once_something_was_lost() {
    let ordinary = Ending::clean(Initiator::Downstream, Phase::Idle, Manner::Fin);
    assert!(!is_abnormal(Side::Downstream, &ordinary));
    let lost = Ending {
        account: Account {
            unacknowledged_bytes: 1,
            ..Account::default()
        },
        ..ordinary
    };
    assert!(is_abnormal(Side::Downstream, &lost));
    let reset = Ending {
        reset: Some(ResetSeen {
            reset: Reset::Sent(ResetCause::LingerBound),
            phase: Phase::Close,
        }),
        ..ordinary
    };
    assert!(is_abnormal(Side::Downstream, &reset));
    let unlisted = Ending::clean(Initiator::Operator, Phase::Handshake, Manner::Violation);
    assert!(is_abnormal(Side::Downstream, &unlisted));
}
