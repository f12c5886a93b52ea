#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::close::account::Account;
use crate::close::{Initiator, Manner, Phase};
use crate::stats::ledger::Watch;
use crate::stats::ledger::{Ending, Reset, ResetSeen};
use crate::stats::recorder::Story;
use crate::stats::tree::{PoolHoldings, Tree, UpstreamHoldings};
use crate::sys::clock;

struct OnePool;

impl PoolHoldings for OnePool {
    fn holdings(&self) -> UpstreamHoldings {
        UpstreamHoldings {
            links: Vec::new(),
            waiters: 3,
            endpoints: vec![EndpointHoldings {
                address: "127.0.0.1:80".to_owned(),
                size: 8,
                idle: 1,
                leased: 2,
                closing: 4,
                ..EndpointHoldings::default()
            }],
        }
    }
}

fn number(families: &[Family], metric: &Metric, labels: &[&str]) -> Option<f64> {
    let family = families.iter().find(|f| f.metric.name == metric.name)?;
    let sample = family.samples.iter().find(|s| s.labels == labels)?;
    match sample.value {
        Value::Number(number) => Some(number),
        Value::Distribution(_) => None,
    }
}

fn gathered(tree: &Tree) -> Vec<Family> {
    gather_known_or_not(&tree.snapshot(clock::now()), &Process::default())
}

#[test]
fn what_can_happen_is_there_at_zero_from_the_start() {
    let tree = Tree::default();
    tree.listener("web");
    tree.upstream("app");
    let families = gathered(&tree);
    for side in Side::ALL {
        let name = ["web", "app"][side as usize];
        for row in reachable(side) {
            let end = row.termination;
            let labels = [
                side.label(),
                name,
                end.initiator.label(),
                end.phase.label(),
                end.manner.label(),
            ];
            assert_eq!(
                number(&families, &table::TERMINATIONS, &labels),
                Some(0.0),
                "{row:?}"
            );
        }
    }
    let labels = ["upstream", "app", "sent", "response", "abandoned"];
    assert_eq!(number(&families, &table::RESETS, &labels), Some(0.0));
    let labels = ["web", "queue_full"];
    assert_eq!(number(&families, &table::REFUSALS, &labels), Some(0.0));
    assert_eq!(number(&families, &table::DRAINING, &[]), Some(0.0));
}

#[test]
fn an_end_outside_the_table_shows_all_the_same() {
    let tree = Tree::default();
    let listener = tree.listener("web");
    let ending = Ending {
        reset: Some(ResetSeen {
            reset: Reset::Received,
            phase: Phase::Handshake,
        }),
        account: Account {
            unread_bytes: 7,
            ..Account::default()
        },
        ..Ending::clean(Initiator::Kernel, Phase::Handshake, Manner::Violation)
    };
    listener.ledger.open();
    listener
        .ledger
        .close(&ending, Watch::default(), || Story::of(Side::Downstream));
    let families = gathered(&tree);
    let labels = ["downstream", "web", "kernel", "handshake", "violation"];
    assert_eq!(number(&families, &table::TERMINATIONS, &labels), Some(1.0));
    let labels = ["downstream", "web", "received", "handshake", "peer"];
    assert_eq!(number(&families, &table::RESETS, &labels), Some(1.0));
    let labels = ["downstream", "web", "unread"];
    assert_eq!(number(&families, &table::LOST_BYTES, &labels), Some(7.0));
    let snapshot = tree.snapshot(clock::now());
    assert_eq!(gaps(&snapshot).len(), 1);
}

#[test]
fn the_terminations_of_a_name_add_up_to_what_ended() {
    let tree = Tree::default();
    let listener = tree.listener("web");
    for row in reachable(Side::Downstream) {
        let end = row.termination;
        listener.ledger.open();
        let ending = Ending::clean(end.initiator, end.phase, end.manner);
        listener
            .ledger
            .close(&ending, Watch::default(), || Story::of(Side::Downstream));
    }
    listener.ledger.open();
    let families = gather(&tree.snapshot(clock::now()), &Process::default());
    let family = families
        .iter()
        .find(|family| family.metric.name == table::TERMINATIONS.name)
        .unwrap();
    let ended: f64 = family
        .samples
        .iter()
        .map(|sample| match sample.value {
            Value::Number(number) => number,
            Value::Distribution(_) => f64::NAN,
        })
        .sum();
    let opened = number(&families, &table::SESSIONS, &["web"]).unwrap();
    let open = number(&families, &table::SESSIONS_OPEN, &["web"]).unwrap();
    assert_eq!(opened, open + ended);
    assert_eq!(open, 1.0);
}

#[test]
fn a_pool_is_asked_while_it_lives() {
    let tree = Tree::default();
    tree.upstream("app");
    let pool: Arc<dyn PoolHoldings> = Arc::new(OnePool);
    tree.watch_pool("app", Arc::downgrade(&pool));
    let labels = ["app", "127.0.0.1:80", "closing"];
    let families = gathered(&tree);
    assert_eq!(
        number(&families, &table::POOL_CONNECTIONS, &labels),
        Some(4.0)
    );
    assert_eq!(number(&families, &table::POOL_WAITERS, &["app"]), Some(3.0));
    drop(pool);
    let families = gathered(&tree);
    assert_eq!(number(&families, &table::POOL_CONNECTIONS, &labels), None);
    assert_eq!(number(&families, &table::POOL_WAITERS, &["app"]), Some(0.0));
}
