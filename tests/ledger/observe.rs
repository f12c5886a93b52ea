//! What millpond says at the end of a case, and how it is held against what the case expects.

use std::collections::BTreeMap;

use serde_json::Value;

use super::matrix::{Count, End, Facts, Known};
use crate::support::netns::Resets;
use crate::support::proxy::{Proxy, Snapshot};
use crate::support::wait;

/// All that millpond says.
pub struct Observed {
    pub now: Snapshot,
    pub metrics: String,
    pub records: Vec<Value>,
    pub lines: Vec<Value>,
}

type Checked = Result<(), String>;

impl Observed {
    pub fn of(proxy: &Proxy, now: Snapshot) -> Self {
        let metrics = proxy.metrics();
        let (status, body) = proxy.admin("GET", "/api/v1/resets?limit=1000");
        assert_eq!(status, 200, "{body}");
        let resets: Value = serde_json::from_str(&body).unwrap();
        let sessions = now.listener("sessions/terminated");
        let lines = wait::until("a line for each session", || {
            let lines = session_lines(proxy);
            (lines.len() as u64 >= sessions).then_some(lines)
        });
        Self {
            now,
            metrics,
            records: resets["records"].as_array().unwrap().clone(),
            lines,
        }
    }
}

/// The lines about sessions' ends.
fn session_lines(proxy: &Proxy) -> Vec<Value> {
    let said = proxy.process().said();
    let parsed = said
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line.get("code").is_some()).collect()
}

/// Every end is counted once, where it belongs, and no other is.
pub fn check_counts(seen: &Observed, path: &str, what: &str, ends: &[End]) -> Checked {
    let population = |key: &str| seen.now.number(&format!("/{path}/{what}/{key}"));
    let (opened, open, ended) = (
        population("opened"),
        population("open"),
        population("terminated"),
    );
    same("opened and open + terminated", opened, open + ended)?;
    let mut expected = BTreeMap::new();
    for end in ends {
        *expected.entry(end.code.to_owned()).or_insert(0) += end.times;
    }
    let counted: BTreeMap<String, u64> = (list(seen, path, "terminations").iter())
        .map(|row| (code(row), row["count"].as_u64().unwrap()))
        .collect();
    same(&format!("terminations of {path}"), counted, expected)
}

/// Every RST is counted once, with its cause, and each crossed the cable.
pub fn check_resets(seen: &Observed, path: &str, ends: &[End], wire: Resets) -> Checked {
    let mut expected = BTreeMap::new();
    for end in ends {
        if let Some((direction, cause, phase)) = end.reset {
            let key = format!("{direction} {cause} {phase}");
            *expected.entry(key).or_insert(0) += end.times;
        }
    }
    let mut counted = BTreeMap::new();
    let mut sum = Resets {
        sent: 0,
        received: 0,
    };
    for row in list(seen, path, "resets") {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        let count = row["count"].as_u64().unwrap();
        match text("direction").as_str() {
            "sent" => sum.sent += count,
            _ => sum.received += count,
        }
        let key = format!("{} {} {}", text("direction"), text("cause"), text("phase"));
        counted.insert(key, count);
    }
    same("resets", counted, expected)?;
    same("resets counted and those on the cable", sum, wire)
}

/// The metrics say the same as the snapshot.
pub fn check_metrics(seen: &Observed, side: &str, path: &str) -> Checked {
    let name = path.rsplit('/').next().unwrap();
    let of_side = format!("side=\"{side}\"");
    let of_name = format!("name=\"{name}\"");
    for (family, key, labels) in [
        (
            "millpond_terminations_total{",
            "terminations",
            &["initiator", "phase", "manner"],
        ),
        (
            "millpond_resets_total{",
            "resets",
            &["direction", "phase", "cause"],
        ),
    ] {
        let mut samples: Vec<(&str, u64)> = (seen.metrics.lines())
            .filter(|it| it.starts_with(family) && it.contains(&of_side) && it.contains(&of_name))
            .map(|it| it.rsplit_once(' ').unwrap())
            .map(|(series, value)| (series, value.parse().unwrap()))
            .filter(|(_, value)| *value > 0)
            .collect();
        for row in list(seen, path, key) {
            let is_it = |(series, value): &(&str, u64)| {
                let has = |label: &&str| {
                    series.contains(&format!("{label}=\"{}\"", row[*label].as_str().unwrap()))
                };
                labels.iter().all(has) && *value == row["count"].as_u64().unwrap()
            };
            let at = samples.iter().position(is_it);
            samples.remove(at.ok_or_else(|| format!("no metric says {row}"))?);
        }
        if !samples.is_empty() {
            return Err(format!(
                "metrics that the snapshot does not know: {samples:?}"
            ));
        }
    }
    Ok(())
}

/// One record, field by field.
pub fn check_record(end: &End, row: &Value, facts: &Facts, knows: &Known) -> Checked {
    let reset = ["direction", "cause", "phase"].map(|key| row[key].as_str());
    match end.reset {
        Some((direction, cause, phase)) => {
            same("reset", reset, [direction, cause, phase].map(Some))?;
        }
        None => same("reset", reset[0], None)?,
    }
    same("discard", row["discard"].as_str(), end.discard)?;
    same("exchange", row["exchange"].as_u64(), Some(end.exchange))?;
    same("upstream", row["upstream"].as_str(), Some("service"))?;
    let expected = |count: Option<Count>| count.map_or(0, |it| it(row, facts));
    let number = |key: &str| row[key].as_u64().unwrap();
    same("unread bytes", number("unread_bytes"), expected(end.unread))?;
    same(
        "unacknowledged bytes",
        number("unacknowledged_bytes"),
        expected(end.unacknowledged),
    )?;
    same(
        "lost bytes",
        number("lost_bytes"),
        number("unread_bytes") + number("unacknowledged_bytes"),
    )?;
    let elapsed = knows.elapsed.as_millis() as u64;
    let is_plausible =
        number("age_ms") <= elapsed && row["idle_ms"].as_u64().unwrap_or(0) <= number("age_ms") + 1;
    same("age and idle time are plausible", is_plausible, true)?;
    check_addresses(end, row, knows)
}

/// Who was at the two ends.
fn check_addresses(end: &End, row: &Value, knows: &Known) -> Checked {
    let text = |key: &str| row[key].as_str().unwrap_or("").to_owned();
    let is_one_of = |what: &str, text: String, known: &[String]| match known.contains(&text) {
        true => Ok(()),
        false => Err(format!("{what} {text:?} is none of {known:?}")),
    };
    if row["side"] == "downstream" {
        same("listener", text("listener"), "front".to_owned())?;
        is_one_of("client", text("client"), &knows.clients)?;
        same("local", text("local"), knows.front.clone())?;
    } else if end.code.as_bytes()[1] == b'C' {
        return same("service", text("service"), text("endpoint"));
    } else {
        same("endpoint", text("endpoint"), knows.service.clone())?;
        same("service", text("service"), knows.service.clone())?;
        is_one_of("local", text("local"), &knows.locals)?;
        if row["session"].is_u64() {
            is_one_of("client", text("client"), &knows.clients)?;
            same("listener", text("listener"), "front".to_owned())?;
        }
    }
    let has_measured = row["round_trip_time_us"].as_u64().is_some_and(|it| it > 0);
    same("a round-trip time", has_measured, true)?;
    same("retransmissions", row["retransmissions"].is_u64(), true)
}

/// The end of the other leg, told from here and from there.
pub fn check_tie(end: &End, row: &Value, records: &[Value]) -> Checked {
    let other = &row["other"];
    let told = other["relation"]
        .as_str()
        .zip(other["termination"]["code"].as_str());
    same("the other leg", told, end.tie)?;
    let Some(number) = other["record"].as_u64() else {
        return Ok(());
    };
    let record = records.iter().find(|it| it["id"] == number);
    let record = record.ok_or_else(|| format!("no record {number}"))?;
    let side = if row["side"] == "upstream" {
        "downstream"
    } else {
        "upstream"
    };
    same("the other leg's side", record["side"].as_str(), Some(side))?;
    same("the same session", &record["session"], &row["session"])?;
    same("the way back", &record["other"]["record"], &row["id"])
}

/// The bytes of the records are those of the statistics.
pub fn check_lost_bytes(seen: &Observed) -> Checked {
    for (side, path) in [
        ("downstream", "/listeners/front"),
        ("upstream", "/upstreams/service"),
    ] {
        for kind in ["unread", "unacknowledged"] {
            let counted = seen.now.number(&format!("{path}/lost_bytes/{kind}"));
            let rows = seen.records.iter().filter(|row| row["side"] == side);
            let recorded = rows.map(|row| row[format!("{kind}_bytes")].as_u64().unwrap());
            same(&format!("{side}: {kind} bytes"), counted, recorded.sum())?;
        }
    }
    Ok(())
}

/// One line for each session, which says the same as its record.
pub fn check_lines(seen: &Observed, ends: &[End], knows: &Known) -> Checked {
    let mut codes: Vec<_> = (seen.lines.iter())
        .map(|line| line["code"].as_str().unwrap().to_owned())
        .collect();
    let mut expected: Vec<_> = (ends.iter())
        .flat_map(|end| (0..end.times).map(|_| end.code.to_owned()))
        .collect();
    codes.sort();
    expected.sort();
    same("the codes of the lines", codes, expected)?;
    for line in &seen.lines {
        same(
            "the line's code",
            line["code"].as_str().unwrap(),
            &code(line),
        )?;
        let client = line["client"].as_str().unwrap().to_owned();
        same("the line's client", knows.clients.contains(&client), true)?;
        let is_its = |row: &&Value| row["side"] == "downstream" && row["client"] == client;
        let record = seen.records.iter().find(is_its);
        let number = line.get("record").and_then(Value::as_u64);
        same(
            "the line's record",
            number,
            record.map(|row| row["id"].as_u64().unwrap()),
        )?;
        for key in ["unread_bytes", "unacknowledged_bytes"] {
            let of_record = record.map_or(0, |row| row[key].as_u64().unwrap());
            same(
                &format!("the line's {key}"),
                line[key].as_u64(),
                Some(of_record),
            )?;
        }
        let cause = record.filter(|row| row["direction"].is_string());
        let cause = cause.and_then(|row| row["cause"].as_str());
        same(
            "the line's reset",
            line.get("reset").and_then(Value::as_str),
            cause,
        )?;
    }
    Ok(())
}

fn list<'a>(seen: &'a Observed, path: &str, key: &str) -> &'a Vec<Value> {
    let list = seen.now.0.pointer(&format!("/{path}/{key}"));
    list.and_then(Value::as_array).expect("a list")
}

/// The three letters of an end, from its words. The words are the table's; see `termination::code`.
fn code(row: &Value) -> String {
    let letter = |key: &str, letters: &[(&str, char)]| {
        let word = row[key].as_str().unwrap();
        let found = letters.iter().find(|(it, _)| *it == word);
        found.unwrap_or_else(|| panic!("no letter for {word}")).1
    };
    let who = [
        ("downstream", 'D'),
        ("upstream", 'U'),
        ("millpond", 'M'),
        ("kernel", 'K'),
        ("operator", 'O'),
    ];
    let phase = [
        ("accept", 'A'),
        ("handshake", 'H'),
        ("queue", 'Q'),
        ("connect", 'C'),
        ("request", 'R'),
        ("response", 'P'),
        ("idle", 'I'),
        ("close", 'L'),
    ];
    let manner = [
        ("fin", 'F'),
        ("reset_received", 'R'),
        ("reset_sent", 'S'),
        ("truncated", 'T'),
        ("timeout", 'O'),
        ("refused", 'X'),
        ("limit", 'L'),
        ("violation", 'V'),
    ];
    [
        letter("initiator", &who),
        letter("phase", &phase),
        letter("manner", &manner),
    ]
    .iter()
    .collect()
}

#[expect(clippy::needless_pass_by_value, reason = "most are numbers and words")]
fn same<T: PartialEq + std::fmt::Debug>(what: &str, left: T, right: T) -> Checked {
    match left == right {
        true => Ok(()),
        false => Err(format!("{what}: {left:?}, not {right:?}")),
    }
}
