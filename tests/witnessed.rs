//! What the kernel says of the resets of a running millpond, held against its records.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use serde_json::Value;
use support::proxy::{Config, Proxy};
use support::tracefs::{Mounted, with_tracefs};
use support::upstream::{Connection, Service};
use support::wait::{self, Gate};

fn watched(service: &Service) -> Proxy {
    Config::to(service.address())
        .more("[ledger]\nwitness = true\n")
        .start()
}

/// The records that were asked for, the youngest first.
fn records(proxy: &Proxy, query: &str) -> Vec<Value> {
    let (status, text) = proxy.admin("GET", &format!("/api/v1/resets?{query}"));
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["records"].as_array().unwrap().clone()
}

/// The one record on this leg, once the kernel has confirmed it.
fn witnessed(proxy: &Proxy, side: &str) -> Value {
    wait::until("the kernel's word", || {
        let found = records(proxy, &format!("side={side}"));
        assert!(found.len() <= 1, "{found:?}");
        found
            .into_iter()
            .find(|record| !record["kernel_reason"].is_null())
    })
}

#[test]
fn a_reset_that_is_passed_on_is_confirmed_on_both_legs() {
    with_tracefs(Mounted::Writable, || {
        let service = Service::start(|mut connection: Connection| {
            if connection.request().is_some() {
                connection.write("HTTP/1.1 200 OK\r\n\r\nhalf an answer");
                connection.wait_acknowledged();
                connection.reset();
            }
        });
        let proxy = watched(&service);
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (answer, end) = client.end();
        assert!(answer.ends_with(b"half an answer"));
        assert_eq!(end, support::socket::End::Reset);
        let from_service = witnessed(&proxy, "upstream");
        let to_client = witnessed(&proxy, "downstream");
        assert_eq!(from_service["direction"], "received");
        assert_eq!(from_service["kernel_reason"], "peer");
        assert_eq!(from_service["other"]["relation"], "caused");
        assert_eq!(from_service["other"]["record"], to_client["id"]);
        assert_eq!(to_client["direction"], "sent");
        assert_eq!(to_client["cause"], "propagated");
        assert_eq!(to_client["kernel_reason"], "tcp_state");
        assert_eq!(to_client["other"]["relation"], "caused_by");
        assert_eq!(to_client["other"]["record"], from_service["id"]);
        assert_eq!(to_client["other"]["termination"]["code"], "UPR");
        let now = proxy.snapshot();
        assert_eq!(now.sum("/witness/pending_limits"), 0);
        assert!(
            proxy.snapshot().number("/witness/sent/unattributed") == 0,
            "millpond sends none that is in no record"
        );
        proxy.finish();
    });
}

#[test]
fn a_service_that_resets_an_idle_connection_is_confirmed() {
    with_tracefs(Mounted::Writable, || {
        let gate = Gate::new();
        let service = Service::start({
            let gate = gate.clone();
            move |mut connection: Connection| {
                connection.answer("good");
                gate.pass();
                connection.reset();
            }
        });
        let proxy = watched(&service);
        let mut client = proxy.client();
        assert_eq!(client.get("/").text(), "good");
        proxy.wait_until("the connection is idle", |now| now.endpoint("idle") == 1);
        gate.open_for_all();
        let record = witnessed(&proxy, "upstream");
        assert_eq!(record["phase"], "idle");
        assert_eq!(record["discard"], "idle_reset");
        assert_eq!(record["service"], service.address());
        assert_eq!(record["session"], Value::Null, "it was lent to nobody");
        assert_eq!(record["exchange"], 1);
        drop(client);
        proxy.finish();
    });
}

#[test]
fn what_a_peer_sends_after_the_close_is_unattributed() {
    with_tracefs(Mounted::Writable, || {
        let service = Service::echoing_targets();
        let config = Config::to(service.address())
            .listener("linger_gap = \"20ms\"")
            .more("[ledger]\nwitness = true\n");
        let proxy = config.start();
        let mut client = proxy.client();
        client.send(support::client::last_get("/"));
        assert_eq!(client.read("GET").status(), 200);
        // It neither ends nor sends, so it is left to the kernel; and then it sends.
        proxy.wait_listener("sessions/terminated", 1);
        client.send("late");
        proxy.wait_until("the kernel's own answer", |now| {
            let rows = "/witness/unattributed";
            now.rows(rows, &["side=downstream", "direction=sent"]) == 1
        });
        assert!(records(&proxy, "").is_empty());
        proxy.finish();
    });
}
