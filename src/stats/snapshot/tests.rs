#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::close::Side;
use crate::close::account::Account;
use crate::stats::ledger::Watch;
use crate::stats::ledger::{Ending, ResetSeen};
use crate::stats::reason::{ConnectOutcome, RefusalReason, WaitOutcome};
use crate::stats::recorder::Story;
use crate::stats::sessions::{Peer, SessionFacts};
use crate::sys::clock;

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn the_listeners_part_is_what_the_interface_promises() {
    let tree = Tree::default();
    let stats = tree.listener("web");
    tree.bound("web", "127.0.0.1:8081".to_owned());
    stats.ledger.open();
    stats.ledger.open();
    let ending = Ending {
        reset: Some(ResetSeen {
            reset: Reset::Sent(ResetCause::Propagated),
            phase: Phase::Response,
        }),
        account: Account {
            unacknowledged_bytes: 9,
            ..Account::default()
        },
        ..Ending::clean(Initiator::Upstream, Phase::Response, Manner::Truncated)
    };
    stats
        .ledger
        .close(&ending, Watch::default(), || Story::of(Side::Downstream));
    stats.refusals.increment(RefusalReason::BadHost);
    stats.descriptors_exhausted.increment();
    let json = serde_json::to_value(tree.snapshot(clock::now())).unwrap();
    assert_eq!(
        keys(&json),
        [
            "census",
            "censuses",
            "draining",
            "listeners",
            "upstreams",
            "uptime_seconds",
            "version",
            "witness"
        ]
    );
    assert_eq!(json["witness"], Value::Null);
    let mut web = json["listeners"]["web"].clone();
    let refusals = web.as_object_mut().unwrap().remove("refusals").unwrap();
    let leaks = web.as_object_mut().unwrap().remove("leaks").unwrap();
    assert_eq!(leaks, json!({"no_entry": 0, "no_socket": 0}));
    assert_eq!(refusals["bad_host"], 1);
    assert_eq!(refusals["queue_full"], 0);
    assert_eq!(
        web,
        json!({
            "address": "127.0.0.1:8081",
            "sessions": {"opened": 2, "open": 1, "terminated": 1},
            "terminations": [
                {"initiator": "upstream", "phase": "response", "manner": "truncated", "count": 1}
            ],
            "resets": [
                {"direction": "sent", "phase": "response", "cause": "propagated", "count": 1}
            ],
            "lost_bytes": {"unread": 0, "unacknowledged": 9},
            "limits": {"session_limit_reached": 0, "descriptors_exhausted": 1, "accept_errors": 0},
        })
    );
}

#[test]
fn the_upstreams_part_is_what_the_interface_promises() {
    let tree = Tree::default();
    let stats = tree.upstream("app");
    stats.ledger.open();
    let ending = Ending {
        reset: Some(ResetSeen {
            reset: Reset::Received,
            phase: Phase::Idle,
        }),
        ..Ending::clean(Initiator::Upstream, Phase::Idle, Manner::ResetReceived)
    };
    stats
        .ledger
        .close(&ending, Watch::default(), || Story::of(Side::Upstream));
    stats.connects.increment(ConnectOutcome::Refused);
    stats.waits.increment(WaitOutcome::TimedOut);
    stats
        .wait_granted_duration
        .observe(Duration::from_millis(250));
    stats
        .wait_failed_duration
        .observe(Duration::from_millis(500));
    let json = serde_json::to_value(tree.snapshot(clock::now())).unwrap();
    let app = &json["upstreams"]["app"];
    assert_eq!(
        keys(app),
        [
            "connections",
            "connects",
            "discards",
            "endpoints",
            "exchanges",
            "heartbeats_dropped",
            "leaks",
            "lent",
            "links",
            "lost_bytes",
            "messages_dropped",
            "opens",
            "pins",
            "queue_full",
            "races_lost",
            "resets",
            "retries",
            "terminations",
            "wait_seconds",
            "waiters",
            "waits",
        ]
    );
    assert_eq!(
        app["resets"],
        json!([{"direction": "received", "phase": "idle", "cause": "peer", "count": 1}])
    );
    assert_eq!(app["connects"]["refused"], 1);
    assert_eq!(app["waits"]["timeout"], 1);
    assert_eq!(app["wait_seconds"], json!({"count": 2, "sum": 0.75}));
}

#[test]
fn a_name_that_comes_again_goes_on_counting() {
    let tree = Tree::default();
    tree.listener("web").ledger.open();
    tree.bound("web", "127.0.0.1:1".to_owned());
    tree.unbound("web");
    let snapshot = tree.snapshot(clock::now());
    assert_eq!(snapshot.listeners["web"].address, None);
    tree.listener("web").ledger.open();
    let snapshot = tree.snapshot(clock::now());
    assert_eq!(snapshot.listeners["web"].sessions.opened, 2);
}

#[test]
fn sessions_are_listed_up_to_the_limit_over_all_listeners() {
    let tree = Tree::default();
    let now = clock::now();
    let enter = |name: &str| {
        let facts = Arc::new(SessionFacts::new(Peer::Unix, "web".into(), now));
        tree.listener(name).sessions.enter(facts)
    };
    let _open = [enter("a"), enter("a"), enter("b"), enter("c")];
    let list = tree.list_sessions(3, now);
    assert_eq!(list.open, 4);
    let listed: Vec<_> = list.listeners.values().map(Vec::len).collect();
    assert_eq!(listed, [2, 1, 0]);
}
