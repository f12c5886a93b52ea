//! `millpond doctor` on hosts that are well, and on hosts that are not.
//!
//! Each host is a namespace, so what is counted is what the test did; `ss` counts too.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
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

/// Leaves so many TIME_WAIT towards `address`: connects, closes first, and waits for the service to
/// close too, lest its queue runs over and a connect takes a second.
fn churn(host: &Namespace, address: SocketAddr, count: usize) {
    host.enter(|| {
        for _ in 0..count {
            let mut client = TcpStream::connect(address).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        }
    });
    wait::until("every close is confirmed", || {
        let (ip, port) = (address.ip(), address.port());
        let closing = "state fin-wait-1 state fin-wait-2 state closing";
        let closing = host.sockets(&format!("{closing} dst {ip} dport = :{port}"));
        (closing == 0).then_some(())
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

/// What 20,000 TIME_WAIT towards one service and some towards others look like.
#[test]
fn the_service_with_most_time_wait_is_named_first() {
    // Through the loopback device, which is fast, but to no loopback address: TIME_WAIT lasts.
    let host = &Namespace::create("churn");
    host.run("ip", &["address", "add", "10.77.2.1/32", "dev", "lo"]);
    // Of few ports the kernel seeks a free one for long: the first would be gone before the last is made.
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    host.enter(|| std::fs::write(range, "1024 65535").unwrap());
    let services = [80, 81, 82].map(|port| polite_service(host, &format!("{SERVICE}:{port}")));
    let [little, most, some] = services;
    churn(host, most, 20_000);
    churn(host, little, 150);
    churn(host, some, 900);
    let said = doctor(host, &["--seconds", "1"]);
    let json = doctor(host, &["--seconds", "1", "--json"]);
    let counted = services.map(|it| time_wait(host, it));
    // On a busy host one or two of so many end in another way; ss knows.
    let [few, kept, more] = counted;
    assert!(kept > 19_900 && few > 140 && more > 890, "{counted:?}");
    let shown_kept = format!("{},{:03}", kept / 1000, kept % 1000);

    assert_eq!((said.code, json.code), (Some(1), Some(1)));
    let named = said.text.find("10.77.2.1:").unwrap();
    assert!(
        said.text[named..].starts_with(&format!("10.77.2.1:81: {shown_kept} TIME_WAIT")),
        "{}",
        said.text
    );
    let row = said
        .text
        .lines()
        .find(|it| it.contains("10.77.2.1:81") && it.contains("of 64,512"));
    assert!(row.unwrap().contains(&shown_kept), "{}", said.text);

    let report = json.json();
    assert_eq!(kinds(&report), ["ports_filling"]);
    let finding = &report["findings"][0];
    assert_eq!(finding["subject"], "10.77.2.1:81");
    assert_eq!(evidence(finding, "time_wait"), kept.to_string());
    assert_eq!(evidence(finding, "ports"), "64512");
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
            ("10.77.2.1:81", kept),
            ("10.77.2.1:82", more),
            ("10.77.2.1:80", few)
        ]
    );
    assert_eq!(report["destinations"][0]["closes_first"], "this_end");
}

/// A program that forgets to close: it connects so many times, or accepts them, and waits.
const FORGETFUL: &str = "
import socket, sys, time
address = (sys.argv[1], int(sys.argv[2]))
held = [socket.create_connection(address) for _ in range(int(sys.argv[3]))]
print('held', file=sys.stderr, flush=True)
time.sleep(600)
";

/// A service whose clients are left alone at once.
fn leaving_service(host: &Namespace, address: &str) -> SocketAddr {
    let listener = host.enter(|| TcpListener::bind(address).unwrap());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().for_each(|client| drop(client.unwrap())));
    address
}

/// Runs a forgetful program until it has this many connections in CLOSE_WAIT.
fn forgetful(host: &Namespace, service: SocketAddr, count: usize) -> Process {
    let mut command = Command::new("/usr/bin/python3");
    let (ip, port) = (service.ip().to_string(), service.port().to_string());
    command.args(["-c", FORGETFUL, &ip, &port, &count.to_string()]);
    let process = host.enter(|| Process::start(&mut command));
    wait::until("connections pile up in CLOSE_WAIT", || {
        (host.sockets("state close-wait") == count as u64).then_some(())
    });
    process
}

#[test]
fn who_forgets_to_close_is_named() {
    let host = Namespace::create("forgetful");
    let service = leaving_service(&host, "127.0.0.1:0");
    let process = forgetful(&host, service, 60);
    let said = doctor(&host, &["--seconds", "1", "--json"]);
    assert_eq!(said.code, Some(1));
    let report = said.json();
    assert_eq!(kinds(&report), ["close_wait_pile"]);
    let finding = &report["findings"][0];
    assert_eq!(evidence(finding, "pid"), process.pid().to_string());
    assert_eq!(evidence(finding, "command"), "python3");
    assert_eq!(evidence(finding, "close_wait"), "60");
    assert_eq!(evidence(finding, "dialled_to"), service.to_string());
    let said = doctor(&host, &["--seconds", "1"]);
    let named = format!(
        "python3 (pid {}) has not closed 60 connections",
        process.pid()
    );
    assert!(said.text.contains(&named), "{}", said.text);
}

#[test]
fn a_user_is_told_what_only_root_sees() {
    let host = Namespace::create("user");
    let service = leaving_service(&host, "127.0.0.1:0");
    let _process = forgetful(&host, service, 60);
    // Where a user may execute it.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let copy = folder.path().join("millpond");
    std::fs::copy(MILLPOND, &copy).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups"]).arg(&copy);
    let output = host.enter(|| command.args(["doctor", "--seconds", "1"]).output().unwrap());
    let said = Said::of(output);
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert!(
        said.text
            .contains("a process of user 0 has not closed 60 connections"),
        "{}",
        said.text
    );
    assert!(
        said.text.contains("Run as root to see which process"),
        "{}",
        said.text
    );
    assert!(
        said.text
            .contains("which process holds some sockets: only root"),
        "{}",
        said.text
    );
    assert!(said.text.contains("net.ipv4.tcp_tw_reuse"), "{}", said.text);
}

/// Ends so many connections to `service` with SO_LINGER 0.
fn abort(service: SocketAddr, count: usize) {
    for _ in 0..count {
        let client = socket2::Socket::from(TcpStream::connect(service).unwrap());
        client.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
}

#[test]
fn resets_are_of_the_measured_seconds() {
    let host = Namespace::create("resets");
    let service = polite_service(&host, "127.0.0.1:0");
    // Before the look: none of its business.
    host.enter(|| abort(service, 500));
    let quiet = doctor(&host, &["--seconds", "1", "--json"]);
    assert_eq!(quiet.code, Some(0), "{}", quiet.text);
    let counted = |report: &Value| {
        let counters = report["counters"].as_array().unwrap();
        let aborts = counters.iter().find(|it| it["name"] == "TCPAbortOnData");
        aborts.unwrap()["count"].as_u64().unwrap()
    };
    assert_eq!(counted(&quiet.json()), 0);

    let looking = begin(&host, &["--seconds", "2", "--json"]);
    let mut looking = Some(looking);
    let output = host.enter(|| {
        let mut made = 0;
        while looking.as_mut().unwrap().try_wait().unwrap().is_none() {
            abort(service, 1);
            made += 1;
            wait::pace(std::time::Duration::from_millis(5));
        }
        (looking.take().unwrap().wait_with_output().unwrap(), made)
    });
    let (output, made) = output;
    let said = Said::of(output);
    let report = said.json();
    assert_eq!(said.code, Some(1));
    let count = counted(&report);
    assert!((50..=made).contains(&count), "{count} of {made}");
    assert_eq!(kinds(&report), ["counter_grows"]);
    let finding = &report["findings"][0];
    assert_eq!(finding["subject"], "TCPAbortOnData");
    assert!(
        finding["why"].as_str().unwrap().contains("SO_LINGER 0"),
        "{finding}"
    );
    let rate: f64 = evidence(finding, "per_second").parse().unwrap();
    // Two looks are never nearer to each other than was asked, but farther on a busy host.
    let seconds = report["seconds"].as_f64().unwrap();
    assert!(seconds >= 2.0, "{seconds}");
    assert!(
        (rate - count as f64 / seconds).abs() < 1.0,
        "{rate} {count} {seconds}"
    );
}

#[test]
fn ports_that_are_nearly_used_up_are_told() {
    let network = Network::create();
    let host = &network.proxy;
    network.set_ports("40000 44999");
    let service = polite_service(&network.service, &format!("{SERVICE}:80"));
    churn(host, service, 4_800);
    let said = doctor(host, &["--seconds", "1", "--json"]);
    let report = said.json();
    assert_eq!(said.code, Some(1));
    assert_eq!(kinds(&report), ["ports_exhausted"]);
    let finding = &report["findings"][0];
    assert_eq!(finding["severity"], "critical");
    assert_eq!(evidence(finding, "range"), "40000 44999");
    assert_eq!(evidence(finding, "ports"), "5000");
    assert_eq!(evidence(finding, "time_wait"), "4800");
    assert_eq!(evidence(finding, "free"), "200");
    let advice = finding["advice"].as_str().unwrap();
    assert!(
        advice.contains("millpond in front of 10.77.2.1:80"),
        "{advice}"
    );
}

/// Names of all fields, as conf/reference/doctor.md writes them: `findings[].kind`.
fn paths(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{name}");
                into.insert(path.clone());
                paths(value, &path, into);
            }
        }
        Value::Array(all) => {
            for one in all {
                paths(one, &format!("{path}[]"), into);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_field_is_documented() {
    let host = Namespace::create("fields");
    let service = leaving_service(&host, "127.0.0.1:0");
    let _process = forgetful(&host, service, 60);
    let said = doctor(&host, &["--seconds", "1", "--json"]);
    assert!(!said.text.contains('\x1b'));
    let mut there = BTreeSet::new();
    paths(&said.json(), "", &mut there);
    assert!(there.contains("findings[].evidence[].name"), "{there:?}");
    assert!(there.contains("destinations[].ports[].free"), "{there:?}");
    let page = std::fs::read_to_string("conf/reference/doctor.md").unwrap();
    for path in there {
        assert!(
            page.contains(&format!("| `{path}` |")),
            "{path} is not documented"
        );
    }
}
