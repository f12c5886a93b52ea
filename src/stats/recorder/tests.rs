#![allow(clippy::unwrap_used)]

use super::*;
use crate::close::account::Account;
use crate::close::{Initiator, ResetCause, Termination};
use crate::stats::ledger::{Reset, ResetSeen};
use crate::sys::clock;

fn reset(reset: Reset, phase: Phase) -> Ending {
    Ending {
        reset: Some(ResetSeen { reset, phase }),
        account: Account {
            read_bytes: 70,
            written_bytes: 80,
            unread_bytes: 7,
            unacknowledged_bytes: 8,
            path: None,
        },
        ..Ending::clean(Initiator::Upstream, phase, Manner::ResetReceived)
    }
}

fn story(side: Side) -> Story {
    Story {
        listener: Some("web".into()),
        upstream: Some("app".into()),
        endpoint: Some("127.0.0.1:80".into()),
        client: Some(Peer::Ip("10.0.0.9:5000".parse().unwrap())),
        service: Some(Peer::Unix),
        session: Some(3),
        discard: Some(DiscardReason::UpstreamReset),
        exchange: 2,
        age: Duration::from_millis(1500),
        idle: Some(Duration::from_millis(20)),
        ..Story::of(side)
    }
}

fn record(recorder: &Recorder, ending: &Ending, side: Side) -> RecordId {
    recorder.record(ending, story(side), clock::wall_now())
}

fn ids(recorder: &Recorder, filter: &Filter) -> Vec<u64> {
    let records = recorder.list(filter, usize::MAX).records;
    records.iter().map(|row| row.id).collect()
}

#[test]
fn only_resets_truncations_and_losses_are_worth_a_record() {
    let clean = Ending::clean(Initiator::Downstream, Phase::Idle, Manner::Fin);
    assert!(!Recorder::is_worth_it(&clean));
    let truncated = Ending::clean(Initiator::Downstream, Phase::Request, Manner::Truncated);
    assert!(Recorder::is_worth_it(&truncated));
    let lossy = Ending {
        account: Account {
            unread_bytes: 1,
            ..Account::default()
        },
        ..clean
    };
    assert!(Recorder::is_worth_it(&lossy));
    assert!(Recorder::is_worth_it(&reset(Reset::Received, Phase::Idle)));
}

#[test]
fn a_storm_keeps_the_ring_bounded_and_the_count_exact() {
    let recorder = Recorder::default();
    recorder.resize(3);
    let ending = reset(Reset::Received, Phase::Response);
    for number in 1..=10_000 {
        assert_eq!(record(&recorder, &ending, Side::Upstream).0, number);
    }
    let list = recorder.list(&Filter::default(), 10);
    assert_eq!(
        (list.recorded, list.overwritten, list.size),
        (10_000, 9_997, 3)
    );
    assert_eq!(ids(&recorder, &Filter::default()), [10_000, 9_999, 9_998]);
    recorder.resize(1);
    assert_eq!(ids(&recorder, &Filter::default()), [10_000]);
    recorder.resize(0);
    assert_eq!(record(&recorder, &ending, Side::Upstream).0, 10_001);
    assert_eq!(ids(&recorder, &Filter::default()), [0_u64; 0]);
    recorder.resize(2);
    assert_eq!(record(&recorder, &ending, Side::Upstream).0, 10_002);
    assert_eq!(ids(&recorder, &Filter::default()), [10_002]);
}

#[test]
fn every_filter_leaves_out_what_it_does_not_name() {
    let recorder = Recorder::default();
    let received = reset(Reset::Received, Phase::Idle);
    record(&recorder, &received, Side::Upstream);
    let sent = Reset::Sent(ResetCause::Propagated);
    record(&recorder, &reset(sent, Phase::Response), Side::Downstream);
    for (name, value, expected) in [
        ("listener", "web", &[2, 1][..]),
        ("listener", "other", &[]),
        ("upstream", "app", &[2, 1]),
        ("upstream", "web", &[]),
        ("side", "upstream", &[1]),
        ("phase", "response", &[2]),
        ("direction", "received", &[1]),
        ("direction", "none", &[]),
        ("cause", "peer", &[1]),
        ("cause", "propagated", &[2]),
        ("cause", "upstream_reset", &[2, 1]),
        ("session", "3", &[2, 1]),
        ("session", "4", &[]),
        ("after", "1", &[2]),
    ] {
        let mut filter = Filter::default();
        filter.narrow(name, value).unwrap();
        assert_eq!(ids(&recorder, &filter), expected, "{name}={value}");
    }
    assert_eq!(recorder.list(&Filter::default(), 1).records.len(), 1);
}

#[test]
fn two_legs_are_tied_whichever_ends_first() {
    for first in Side::ALL {
        let recorder = Recorder::default();
        let legs = Legs::default();
        legs.may_end_with(11);
        let end = |side| {
            let ending = match side {
                Side::Upstream => reset(Reset::Received, Phase::Response),
                Side::Downstream => reset(Reset::Sent(ResetCause::Propagated), Phase::Response),
            };
            let leg = Leg {
                side,
                termination: ending.termination,
                record: Some(record(&recorder, &ending, side)),
            };
            legs.ended(11, leg, &recorder);
        };
        end(first);
        end(match first {
            Side::Upstream => Side::Downstream,
            Side::Downstream => Side::Upstream,
        });
        let rows = recorder.list(&Filter::default(), 2).records;
        let told = |side: Side| {
            let row = rows.iter().find(|row| row.side == side.label()).unwrap();
            row.other.clone().unwrap()
        };
        assert_eq!(told(Side::Downstream).relation, "caused_by");
        assert_eq!(told(Side::Downstream).side, "upstream");
        assert_eq!(told(Side::Upstream).relation, "caused");
        assert_ne!(told(Side::Upstream).record, told(Side::Downstream).record);
    }
}

#[test]
fn the_end_of_another_connection_is_not_tied_to_a_session() {
    let recorder = Recorder::default();
    let legs = Legs::default();
    legs.may_end_with(12);
    let ending = reset(Reset::Received, Phase::Response);
    for (connection, side) in [(11, Side::Upstream), (12, Side::Downstream)] {
        let leg = Leg {
            side,
            termination: ending.termination,
            record: Some(record(&recorder, &ending, side)),
        };
        legs.ended(connection, leg, &recorder);
    }
    let rows = recorder.list(&Filter::default(), 2).records;
    assert!(rows.iter().all(|row| row.other.is_none()));
}

#[test]
fn an_earlier_connection_that_closes_slowly_does_not_untie_the_one_that_ended_its_session() {
    let recorder = Recorder::default();
    let legs = Legs::default();
    let ending = reset(Reset::Received, Phase::Response);
    legs.may_end_with(11);
    legs.may_end_with(12);
    let ends = [
        (12, Side::Upstream),
        (11, Side::Upstream),
        (12, Side::Downstream),
    ];
    for (connection, side) in ends {
        let leg = Leg {
            side,
            termination: ending.termination,
            record: Some(record(&recorder, &ending, side)),
        };
        legs.ended(connection, leg, &recorder);
    }
    let rows = recorder.list(&Filter::default(), 3).records;
    let others = rows.iter().map(|row| row.other.as_ref()?.record);
    assert_eq!(others.collect::<Vec<_>>(), [Some(1), None, Some(3)]);
}

#[test]
fn what_the_kernel_says_is_told_with_its_record() {
    let recorder = Recorder::default();
    recorder.resize(1);
    let ending = reset(Reset::Received, Phase::Response);
    let [first, second] = [(); 2].map(|()| record(&recorder, &ending, Side::Upstream));
    for record in [first, second] {
        recorder.witnessed(Witnessed {
            record,
            kernel_reason: KernelReason::Peer,
        });
    }
    let rows = recorder.list(&Filter::default(), 2).records;
    assert_eq!(rows.len(), 1, "the first one is gone");
    assert_eq!((rows[0].id, rows[0].kernel_reason), (2, Some("peer")));
}

#[test]
fn the_clients_are_those_of_sessions() {
    let recorder = Recorder::default();
    let ending = reset(Reset::Received, Phase::Response);
    record(&recorder, &ending, Side::Upstream);
    assert!(recorder.list(&Filter::default(), 0).clients.is_empty());
    record(&recorder, &ending, Side::Downstream);
    let clients = recorder.list(&Filter::default(), 0).clients;
    assert_eq!(clients[0].client, "10.0.0.9");
    assert_eq!((clients[0].resets_received, clients[0].lost_bytes), (1, 15));
}

#[test]
fn a_row_is_what_the_interface_promises() {
    let recorder = Recorder::default();
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
    let ending = reset(Reset::Received, Phase::Response);
    recorder.record(&ending, story(Side::Upstream), at);
    let json = serde_json::to_value(recorder.list(&Filter::default(), 1)).unwrap();
    assert_eq!(
        json["records"][0],
        serde_json::json!({
            "id": 1,
            "time": "1970-01-01T00:00:01.500Z",
            "side": "upstream",
            "listener": "web",
            "upstream": "app",
            "endpoint": "127.0.0.1:80",
            "client": "10.0.0.9:5000",
            "service": "unix",
            "local": null,
            "session": 3,
            "sessions": null,
            "direction": "received",
            "phase": "response",
            "cause": "peer",
            "kernel_reason": null,
            "discard": "upstream_reset",
            "termination": {
                "initiator": "upstream",
                "phase": "response",
                "manner": "reset_received",
                "code": "UPR",
                "meaning": termination_meaning(),
            },
            "read_bytes": 70,
            "written_bytes": 80,
            "unread_bytes": 7,
            "unacknowledged_bytes": 8,
            "lost_bytes": 15,
            "exchange": 2,
            "age_ms": 1500,
            "idle_ms": 20,
            "round_trip_time_us": null,
            "retransmissions": null,
            "other": null,
        })
    );
}

fn termination_meaning() -> &'static str {
    let ended = Termination {
        initiator: Initiator::Upstream,
        phase: Phase::Response,
        manner: Manner::ResetReceived,
    };
    let row = crate::stats::termination::find(Side::Upstream, ended);
    row.unwrap().meaning
}
