//! The log as a program reads it: one JSON object a line.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use serde_json::Value;
use support::client::{self, Client};
use support::proxy::{Config, Proxy};
use support::socket::End;
use support::upstream::Service;
use support::wait;

/// A service that answers in order, or cuts its answer short, or answers nonsense.
fn unsteady() -> Service {
    Service::start(|mut connection| {
        while let Some(request) = connection.request() {
            match request.head.target() {
                "/cut" => {
                    connection.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
                    return;
                }
                "/nonsense" => {
                    connection.write("this is no answer\r\n\r\n");
                    return;
                }
                _ => connection.reply("whole"),
            }
        }
    })
}

fn start(endpoint: &str, sessions: &str) -> Proxy {
    Config::to(endpoint)
        .more(&format!(
            "[log]\nformat = \"json\"\nsessions = \"{sessions}\"\n"
        ))
        .start()
}

/// Every line so far, each of which must be a JSON object.
fn lines(proxy: &Proxy) -> Vec<Value> {
    let said = proxy.process().said();
    let parse = |line: &String| -> Value {
        let value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(matches!(value, Value::Object(_)), "{line}");
        value
    };
    said.iter().map(parse).collect()
}

/// The lines about sessions' ends, when there are so many.
fn session_lines(proxy: &Proxy, count: usize) -> Vec<Value> {
    wait::until(&format!("{count} lines about sessions"), || {
        let mut lines = lines(proxy);
        lines.retain(|line| line.get("code").is_some());
        (lines.len() >= count).then_some(lines)
    })
}

/// The values of these fields; one that is missing is `null`.
fn fields<const N: usize>(line: &Value, names: [&str; N]) -> [Value; N] {
    names.map(|name| line.get(name).cloned().unwrap_or(Value::Null))
}

#[test]
fn each_abnormal_session_is_one_json_object() {
    let service = unsteady();
    let proxy = start(service.address(), "abnormal");
    let address = proxy.address();
    let at = service.address();
    // In order: no line.
    assert_eq!(client::once(address, "/").unwrap().text(), "whole");
    let mut cases: Vec<(Client, [Value; 6])> = Vec::new();
    let mut case = |client: Client, facts: [Option<&str>; 6]| {
        cases.push((client, facts.map(Value::from)));
    };
    let mut cut = proxy.client();
    cut.send(client::get("/cut"));
    cut.head().unwrap();
    cut.end();
    case(
        cut,
        [
            Some("UPT"),
            Some("upstream"),
            Some("response"),
            Some("truncated"),
            Some(at),
            None,
        ],
    );
    let mut nonsense = proxy.client();
    nonsense.send(client::last_get("/nonsense"));
    assert_eq!(nonsense.read("GET").status(), 502);
    case(
        nonsense,
        [
            Some("URV"),
            Some("upstream"),
            Some("request"),
            Some("violation"),
            Some(at),
            Some("bad_response"),
        ],
    );
    let mut smuggler = proxy.client();
    smuggler.send("GET /\"quoted\\\r\n HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(smuggler.read("GET").status(), 400);
    case(
        smuggler,
        [
            Some("DRV"),
            Some("downstream"),
            Some("request"),
            Some("violation"),
            None,
            Some("bad_start_line"),
        ],
    );
    let names = ["code", "initiator", "phase", "manner", "endpoint", "detail"];
    for (number, (client, wanted)) in cases.into_iter().enumerate() {
        let (peer, _) = client.socket.ends();
        drop(client);
        let lines = session_lines(&proxy, number + 1);
        let about: Vec<_> = lines.iter().filter(|it| it["client"] == peer).collect();
        assert_eq!(about.len(), 1, "one line each: {lines:#?}");
        let line = about[0];
        assert_eq!(fields(line, names), wanted, "{line:#}");
        assert_eq!(
            fields(line, ["level", "message", "listener", "upstream"]),
            ["WARN", "session ended abnormally", "front", "service"].map(Value::from)
        );
        for number in ["exchanges", "read_bytes", "written_bytes", "age_ms"] {
            assert!(line[number].is_u64(), "{number}: {line:#}");
        }
    }
    proxy.wait_listener("sessions/terminated", 4);
    assert_eq!(
        session_lines(&proxy, 3).len(),
        3,
        "none for the one in order"
    );
    proxy.finish();
}

#[test]
fn every_session_gets_its_json_object_where_all_are_asked_for() {
    let service = unsteady();
    let proxy = start(service.address(), "all");
    for _ in 0..3 {
        assert_eq!(client::once(proxy.address(), "/").unwrap().text(), "whole");
    }
    for line in session_lines(&proxy, 3) {
        assert_eq!(
            fields(
                &line,
                ["level", "message", "endpoint", "exchanges", "detail"]
            ),
            [
                Value::from("INFO"),
                Value::from("session ended"),
                Value::from(service.address()),
                Value::from(1),
                Value::Null
            ],
            "{line:#}"
        );
    }
    proxy.finish();
}

#[test]
fn a_reset_that_was_passed_on_is_told_with_the_end_of_the_other_leg() {
    let service = Service::start(|mut connection| {
        connection.exactly(4).unwrap();
        connection.reset();
    });
    let proxy = Config::to(service.address())
        .protocol("tcp")
        .more("[log]\nformat = \"json\"\n")
        .start();
    let mut client = proxy.client();
    client.send("ping");
    assert_eq!(client.end(), (Vec::new(), End::Reset));
    drop(client);
    let line = &session_lines(&proxy, 1)[0];
    assert_eq!(
        fields(line, ["code", "initiator", "reset", "discard"]),
        ["UPS", "upstream", "propagated", "upstream_reset"].map(Value::from),
        "{line:#}"
    );
    proxy.finish();
}
