//! The metrics against the tools that read them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use millpond::census::count::LegCount;
use millpond::census::forecast::{Forecast, TimeWaitPorts};
use millpond::census::ports::{Picker, PortUse, Ports, Route};
use millpond::close::{Initiator, Manner, Phase, Side};
use millpond::stats::census::{CensusSnapshot, LegRow, PortsOf, PortsRow};
use millpond::stats::exposition::{Family, gather};
use millpond::stats::ledger::{Ending, Watch};
use millpond::stats::process::Process;
use millpond::stats::reason::{DiscardReason, RefusalReason};
use millpond::stats::recorder::Story;
use millpond::stats::tree::{EndpointHoldings, PoolHoldings, Tree, UpstreamHoldings};
use millpond::stats::witness::WitnessSnapshot;
use millpond::stats::{openmetrics, prometheus, table};
use millpond::sys::clock;
use millpond::witness::WitnessStats;

struct Pools;

impl PoolHoldings for Pools {
    fn holdings(&self) -> UpstreamHoldings {
        let endpoint = |address: &str| EndpointHoldings {
            address: address.to_owned(),
            size: 8,
            leased: 1,
            ..EndpointHoldings::default()
        };
        UpstreamHoldings {
            links: Vec::new(),
            waiters: 1,
            // A path may hold what the format has to escape.
            endpoints: vec![endpoint("127.0.0.1:80"), endpoint("unix:/run/a \"b\"\\c")],
        }
    }
}

/// One in which nothing is said to run out.
fn census() -> CensusSnapshot {
    let route = Route {
        from: Some([127, 0, 0, 1].into()),
        to: Some(([127, 0, 0, 1], 80).into()),
        ports: Ports::new(1000..=1099, &[]),
        picker: Picker::Kernel,
    };
    let whose = PortsOf {
        upstream: "app".to_owned(),
        endpoint: "127.0.0.1:80".to_owned(),
        source: "auto".to_owned(),
    };
    let (ports, waiting) = (PortUse::none_of(&route.ports), TimeWaitPorts::Held);
    CensusSnapshot {
        taken_at: clock::wall_now(),
        cpu_us: 300,
        legs: vec![LegRow::of(Side::Downstream, "web", &LegCount::default())],
        ports: vec![PortsRow::of(
            whose,
            &route,
            &ports,
            Forecast::Lasts,
            waiting,
        )],
    }
}

/// A tree in which every metric has a sample.
fn families() -> Vec<Family> {
    let tree = Tree::default();
    let listener = tree.listener("web");
    listener.ledger.open();
    let ending = Ending::clean(Initiator::Downstream, Phase::Idle, Manner::Fin);
    listener
        .ledger
        .close(&ending, Watch::default(), || Story::of(Side::Downstream));
    listener.refusals.increment(RefusalReason::BadChunk);
    let upstream = tree.upstream("app");
    upstream.discards.increment(DiscardReason::IdleFin);
    upstream
        .exchange_duration
        .observe(Duration::from_micros(300));
    upstream.connect_duration.observe(Duration::from_secs(100));
    upstream.wait_failed_duration.observe(Duration::ZERO);
    let pools: Arc<dyn PoolHoldings> = Arc::new(Pools);
    tree.watch_pool("app", Arc::downgrade(&pools));
    tree.census.record(Arc::new(census()));
    let mut snapshot = tree.snapshot(clock::now());
    snapshot.witness = Some(WitnessSnapshot::of(&WitnessStats::default()));
    gather(&snapshot, &Process::read())
}

#[test]
fn every_metric_of_the_table_is_gathered() {
    let gathered: Vec<_> = families().iter().map(|f| f.metric.name).collect();
    let table: Vec<_> = table::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(gathered, table);
}

#[test]
fn promtool_has_no_complaint() {
    let text = prometheus::text(&families());
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (Debian package prometheus)");
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{text}");
    assert_eq!(said.trim(), "", "{text}");
}

#[test]
fn both_formats_say_the_same() {
    let families = families();
    let prometheus = prometheus::text(&families);
    let open = openmetrics::text(families);
    assert!(open.ends_with("# EOF\n"));
    assert!(
        open.contains(
            "# TYPE millpond_sessions counter\nmillpond_sessions_total{listener=\"web\"} 1"
        )
    );
    assert_eq!(samples(&prometheus), samples(&open));
    assert!(prometheus.contains(r#"endpoint="unix:/run/a \"b\"\\c""#));
}

/// Each sample's name with its sorted labels, and its value.
fn samples(text: &str) -> Vec<(String, Vec<String>, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut samples: Vec<_> = lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap();
            let mut labels: Vec<_> = labels.split(',').map(normalized).collect();
            labels.sort();
            (name.to_owned(), labels, value.parse().unwrap())
        })
        .collect();
    samples.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    samples
}

/// A bucket's bound is `1` in one format and `1.0` in the other.
fn normalized(label: &str) -> String {
    let bound = label
        .strip_prefix("le=\"")
        .and_then(|bound| bound.strip_suffix('"'));
    match bound.and_then(|bound| bound.parse::<f64>().ok()) {
        Some(bound) => format!("le={bound}"),
        None => label.to_owned(),
    }
}
