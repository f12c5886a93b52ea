//! What millpond says about itself: the format, the names, and that they are there from the start.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use support::client;
use support::proxy::{Config, Proxy};
use support::upstream::Service;

/// Every family of the stable interface, with its type.
const FAMILIES: &[(&str, &str)] = &[
    ("millpond_sessions_total", "counter"),
    ("millpond_sessions_open", "gauge"),
    ("millpond_exchanges_total", "counter"),
    ("millpond_exchange_duration_seconds", "histogram"),
    ("millpond_upstream_connects_total", "counter"),
    ("millpond_upstream_connect_duration_seconds", "histogram"),
    ("millpond_pool_connections", "gauge"),
    ("millpond_pool_size", "gauge"),
    ("millpond_pool_waiters", "gauge"),
    ("millpond_pool_wait_duration_seconds", "histogram"),
    ("millpond_discards_total", "counter"),
    ("millpond_retries_total", "counter"),
    ("millpond_races_lost_total", "counter"),
    ("millpond_refusals_total", "counter"),
    ("millpond_terminations_total", "counter"),
    ("millpond_resets_total", "counter"),
    ("millpond_lost_bytes_total", "counter"),
    ("millpond_witness_up", "gauge"),
    ("millpond_build_info", "gauge"),
    ("millpond_draining", "gauge"),
    ("millpond_config_last_reload_successful", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("process_cpu_seconds_total", "counter"),
];

/// The value of the sample with this name and labels, in any order.
fn sample(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    text.lines().find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, rest) = series.split_once('{').unwrap_or((series, ""));
        let labelled = labels.iter().all(|label| rest.contains(label));
        (found == name && labelled).then(|| value.parse().unwrap())
    })
}

fn promtool_accepts(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed (Debian: prometheus)");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

fn start() -> (Service, Proxy) {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).start();
    (service, proxy)
}

#[test]
fn promtool_accepts_the_metrics_before_and_after_use() {
    let (_service, proxy) = start();
    promtool_accepts(&proxy.metrics());
    for _ in 0..10 {
        client::once(proxy.address(), "/").unwrap();
    }
    promtool_accepts(&proxy.metrics());
    proxy.finish();
}

#[test]
fn every_family_is_there_from_the_start_with_its_type() {
    let (_service, proxy) = start();
    let text = proxy.metrics();
    let missing: Vec<&str> = FAMILIES
        .iter()
        .filter(|(name, kind)| {
            let typed = format!("# TYPE {name} {kind}");
            let sampled = text
                .lines()
                .any(|line| line.starts_with(name) && !line.starts_with('#'));
            !(sampled && text.lines().any(|line| line == typed))
        })
        .map(|(name, _)| *name)
        .collect();
    assert!(missing.is_empty(), "{missing:?} in\n{text}");
    proxy.finish();
}

#[test]
fn every_reason_is_at_zero_from_the_start() {
    let (_service, proxy) = start();
    let text = proxy.metrics();
    let snapshot = proxy.snapshot();
    let lists = [
        (
            "millpond_discards_total",
            "upstream=\"service\"",
            "reason",
            "/upstreams/service/discards",
        ),
        (
            "millpond_retries_total",
            "upstream=\"service\"",
            "reason",
            "/upstreams/service/retries",
        ),
        (
            "millpond_races_lost_total",
            "upstream=\"service\"",
            "reason",
            "/upstreams/service/races_lost",
        ),
        (
            "millpond_exchanges_total",
            "upstream=\"service\"",
            "outcome",
            "/upstreams/service/exchanges",
        ),
        (
            "millpond_upstream_connects_total",
            "upstream=\"service\"",
            "outcome",
            "/upstreams/service/connects",
        ),
        (
            "millpond_refusals_total",
            "listener=\"front\"",
            "reason",
            "/listeners/front/refusals",
        ),
    ];
    for (name, owner, label, pointer) in lists {
        let object = snapshot.0.pointer(pointer).unwrap().as_object().unwrap();
        assert!(object.len() > 1, "{pointer}");
        for reason in object.keys() {
            let labelled = format!("{label}=\"{reason}\"");
            assert_eq!(
                sample(&text, name, &[owner, &labelled]),
                Some(0.0),
                "{name} {labelled}"
            );
        }
    }
    for state in ["idle", "leased", "connecting", "shared", "closing"] {
        let labelled = format!("state=\"{state}\"");
        assert_eq!(
            sample(&text, "millpond_pool_connections", &[&labelled]),
            Some(0.0),
            "{state}"
        );
    }
    for side in ["side=\"downstream\"", "side=\"upstream\""] {
        for kind in ["kind=\"unread\"", "kind=\"unacknowledged\""] {
            assert_eq!(
                sample(&text, "millpond_lost_bytes_total", &[side, kind]),
                Some(0.0)
            );
        }
        assert_eq!(
            sample(
                &text,
                "millpond_terminations_total",
                &[side, "manner=\"fin\""]
            ),
            Some(0.0)
        );
        assert_eq!(
            sample(
                &text,
                "millpond_resets_total",
                &[side, "direction=\"sent\""]
            ),
            Some(0.0)
        );
    }
    proxy.finish();
}

#[test]
fn metrics_and_snapshot_agree() {
    let (_service, proxy) = start();
    let mut client = proxy.client();
    for _ in 0..7 {
        assert_eq!(client.get("/").status(), 200);
    }
    drop(client);
    client::once(proxy.address(), "/").unwrap();
    let mut bad = proxy.client();
    bad.send("GARBAGE\r\n\r\n");
    assert_eq!(bad.read("GET").status(), 400);
    drop(bad);
    proxy.wait_listener("sessions/terminated", 3);
    let text = proxy.metrics();
    let value = |name: &str, labels: &[&str]| sample(&text, name, labels).unwrap();
    assert_eq!(
        value("millpond_sessions_total", &["listener=\"front\""]),
        3.0
    );
    assert_eq!(
        value("millpond_sessions_open", &["listener=\"front\""]),
        0.0
    );
    assert_eq!(
        value("millpond_exchanges_total", &["outcome=\"completed\""]),
        8.0
    );
    assert_eq!(
        value("millpond_refusals_total", &["reason=\"bad_start_line\""]),
        1.0
    );
    assert_eq!(
        value(
            "millpond_upstream_connects_total",
            &["outcome=\"established\""]
        ),
        1.0
    );
    assert_eq!(value("millpond_pool_connections", &["state=\"idle\""]), 1.0);
    assert_eq!(
        value(
            "millpond_exchange_duration_seconds_count",
            &["upstream=\"service\""]
        ),
        8.0
    );
    assert_eq!(
        value(
            "millpond_upstream_connect_duration_seconds_count",
            &["upstream=\"service\""]
        ),
        1.0
    );
    assert_eq!(value("millpond_draining", &[]), 0.0);
    assert_eq!(value("millpond_config_last_reload_successful", &[]), 1.0);
    proxy.finish();
}

#[test]
fn health_and_sessions_are_told() {
    let (_service, proxy) = start();
    assert_eq!(proxy.admin("GET", "/healthz").0, 200);
    assert_eq!(proxy.admin("GET", "/readyz").0, 200);
    assert_eq!(proxy.admin("GET", "/nothing/here").0, 404);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    let (status, body) = proxy.admin("GET", "/api/v1/sessions");
    assert_eq!(status, 200);
    let here = client.socket.ends().0;
    assert!(body.contains(&here), "{here} in {body}");
    drop(client);
    proxy.finish();
}

#[test]
fn readiness_does_not_depend_on_the_service() {
    let nobody = support::upstream::Nobody::new();
    let proxy = Config::to(nobody.address()).start();
    assert_eq!(client::once(proxy.address(), "/").unwrap().status(), 502);
    assert_eq!(proxy.admin("GET", "/readyz").0, 200);
    proxy.finish();
}

#[test]
fn an_abnormal_end_has_a_line_and_a_normal_one_has_none() {
    let (_service, proxy) = start();
    client::once(proxy.address(), "/").unwrap();
    proxy.wait_listener("sessions/terminated", 1);
    let before = proxy.process().said().len();
    let mut client = proxy.client();
    assert_eq!(client.get("/").status(), 200);
    client.reset();
    proxy.wait_listener("sessions/terminated", 2);
    let line = support::wait::until("the line", || {
        let said = proxy.process().said();
        said[before..]
            .iter()
            .find(|line| line.contains("reset_received"))
            .cloned()
    });
    assert!(
        line.contains("downstream") && line.contains("idle"),
        "{line}"
    );
    proxy.finish();
}
