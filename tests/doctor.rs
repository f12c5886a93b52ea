//! `millpond doctor` on hosts that are well, and on hosts that are not.
//!
//! Each host is a namespace, so what is counted is what the test did; `ss` counts too.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use serde_json::Value;

use support::netns::{Namespace, Network, SERVICE};
use support::process::Process;
use support::wait;

const MILLPOND: &str = env!("CARGO_BIN_EXE_millpond");

/// What doctor said, and how it ended.
struct Said {
    code: Option<i32>,
    text: String,
}

impl Said {
    fn of(output: Output) -> Self {
        assert!(output.stderr.is_empty(), "{output:?}");
        Self {
            code: output.status.code(),
            text: String::from_utf8(output.stdout).unwrap(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

fn doctor(host: &Namespace, arguments: &[&str]) -> Said {
    Said::of(begin(host, arguments).wait_with_output().unwrap())
}

/// Starts a doctor whose look goes on while the test does something.
fn begin(host: &Namespace, arguments: &[&str]) -> Child {
    let mut command = Command::new(MILLPOND);
    command.arg("doctor").args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    host.enter(|| command.spawn().unwrap())
}

/// A service that closes after its client has.
fn polite_service(host: &Namespace, address: &str) -> SocketAddr {
    let listener = host.enter(|| TcpListener::bind(address).unwrap());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            while client.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {}
        }
    });
    address
}

/// Leaves so many TIME_WAIT towards `address`: connects, and closes first.
fn churn(host: &Namespace, address: SocketAddr, count: usize) {
    host.enter(|| {
        for _ in 0..count {
            drop(TcpStream::connect(address).unwrap());
        }
    });
    wait::until("every close is confirmed", || {
        (time_wait(host, address) == count as u64).then_some(())
    });
}

/// What `ss` counts.
fn time_wait(host: &Namespace, address: SocketAddr) -> u64 {
    let (ip, port) = (address.ip(), address.port());
    host.sockets(&format!("state time-wait dst {ip} dport = :{port}"))
}

fn kinds(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect()
}

fn evidence<'a>(finding: &'a Value, name: &str) -> &'a str {
    let all = finding["evidence"].as_array().unwrap();
    let one = all.iter().find(|it| it["name"] == name);
    one.unwrap_or_else(|| panic!("no {name}: {finding}"))["value"]
        .as_str()
        .unwrap()
}

#[test]
fn a_fresh_host_has_nothing() {
    let host = Namespace::create("fresh");
    let said = doctor(&host, &["--seconds", "1"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert!(
        said.text.starts_with("Nothing is wrong here."),
        "{}",
        said.text
    );
    assert!(!said.text.contains('\x1b'), "a pipe is no terminal");
    let report = doctor(&host, &["--seconds", "1", "--json"]).json();
    assert_eq!(report["verdict"], "healthy");
    assert_eq!(report["findings"], Value::Array(vec![]));
    assert_eq!(report["missing"], Value::Array(vec![]));
}

#[test]
fn a_busy_host_that_is_well_has_nothing() {
    let network = Network::create();
    let host = &network.service;
    let service = polite_service(host, "10.77.2.1:0");
    // Its clients close first: on their host TIME_WAIT takes ports, here nothing is left.
    churn(&network.proxy, service, 2_000);
    // It dials another service, now and then.
    let other = polite_service(&network.proxy, "10.77.2.2:0");
    churn(host, other, 300);
    // And closes first many a connection of its own clients.
    let closer = host.enter(|| TcpListener::bind("10.77.2.1:0").unwrap());
    let address = closer.local_addr().unwrap();
    network.proxy.enter(|| {
        for _ in 0..5_000 {
            let mut client = TcpStream::connect(address).unwrap();
            drop(closer.accept().unwrap());
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        }
    });
    let open: Vec<_> = network.proxy.enter(|| {
        (0..50)
            .map(|_| TcpStream::connect(service).unwrap())
            .collect()
    });
    let said = doctor(host, &["--seconds", "1", "--json"]);
    let report = said.json();
    assert_eq!(said.code, Some(0), "{}", said.text);
    // Clients that leave no TIME_WAIT take a port anew, and the service's TIME_WAIT makes way.
    let kept = host.sockets(&format!("state time-wait sport = :{}", address.port()));
    assert!(kept > 4_000, "{kept}");
    assert_eq!(report["time_wait"]["listening"], kept);
    assert_eq!(report["time_wait"]["dialling"], 300);
    let kept = &report["services"][0];
    assert_eq!(kept["address"], address.to_string());
    assert_eq!(kept["closes_first"], "this_end");
    drop(open);
}

#[test]
fn the_service_with_most_time_wait_is_named_first() {
    let network = Network::create();
    let host = &network.proxy;
    let services =
        [80, 81, 82].map(|port| polite_service(&network.service, &format!("{SERVICE}:{port}")));
    let [little, most, some] = services;
    churn(host, most, 20_000);
    churn(host, little, 150);
    churn(host, some, 900);
    let said = doctor(host, &["--seconds", "1"]);
    let json = doctor(host, &["--seconds", "1", "--json"]);
    let counted = services.map(|it| time_wait(host, it));
    assert_eq!(counted, [150, 20_000, 900]);

    assert_eq!((said.code, json.code), (Some(1), Some(1)));
    let named = said.text.find("10.77.2.1:").unwrap();
    assert!(
        said.text[named..].starts_with("10.77.2.1:81: 20,000 TIME_WAIT"),
        "{}",
        said.text
    );
    let row = said
        .text
        .lines()
        .find(|it| it.contains("10.77.2.1:81") && it.contains("of 28,232"));
    assert!(row.unwrap().contains("20,000"), "{}", said.text);

    let report = json.json();
    assert_eq!(kinds(&report), ["ports_filling"]);
    let finding = &report["findings"][0];
    assert_eq!(finding["subject"], "10.77.2.1:81");
    assert_eq!(evidence(finding, "time_wait"), "20000");
    assert_eq!(evidence(finding, "ports"), "28232");
    let shown = report["destinations"].as_array().unwrap();
    let shown: Vec<_> = shown
        .iter()
        .map(|it| {
            (
                it["address"].as_str().unwrap(),
                it["time_wait"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("10.77.2.1:81", 20_000),
            ("10.77.2.1:82", 900),
            ("10.77.2.1:80", 150)
        ]
    );
    assert_eq!(report["destinations"][0]["closes_first"], "this_end");
}
