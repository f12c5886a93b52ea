//! The accounts, held against each other: cables, kernel, ledger, records, and the storm's journal.
//!
//! Not here: what the peers do (see `journal`).

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::journal::{Entry, Journal, Name};
use crate::support::netns::Network;
use crate::support::proxy::{Proxy, Snapshot};

/// The events of one direction that are millpond's, by verdict.
struct Told {
    witnessed: u64,
    repeats: u64,
    unattributed: u64,
}

impl Told {
    fn of(now: &Snapshot, direction: &str) -> Self {
        let count = |name: &str| now.number(&format!("/witness/{direction}/{name}"));
        Self {
            witnessed: count("witnessed"),
            repeats: count("repeat"),
            unattributed: count("unattributed"),
        }
    }

    fn all(&self) -> u64 {
        self.witnessed + self.repeats + self.unattributed
    }
}

/// Opened = open + terminated, of every book.
pub fn check_books(now: &Snapshot) {
    for (list, what) in [("listeners", "sessions"), ("upstreams", "connections")] {
        let rows = now.0[list].as_object().unwrap();
        for (name, row) in rows {
            let count = |count: &str| row[what][count].as_u64().unwrap();
            println!("{list}/{name}: {} {what}", count("opened"));
            assert_eq!(
                count("opened"),
                count("open") + count("terminated"),
                "{name}"
            );
            assert_eq!(count("open"), 0, "{name}");
        }
    }
}

/// What the cables counted = what the kernel told = what the ledger counted.
pub fn check_resets(network: &Network, now: &Snapshot) {
    let (sent, received) = (Told::of(now, "sent"), Told::of(now, "received"));
    let wires = [network.downstream_resets(), network.upstream_resets()];
    let wire_sent = wires.iter().map(|wire| wire.sent).sum::<u64>();
    let wire_received = wires.iter().map(|wire| wire.received).sum::<u64>();
    println!(
        "sent: {wire_sent} on the cables = {} in records + {} repeats + {} unattributed; \
         received: {wire_received} on the cables = {} in records + {} repeats + {} unattributed \
         + {} late",
        sent.witnessed,
        sent.repeats,
        sent.unattributed,
        received.witnessed,
        received.repeats,
        received.unattributed,
        wire_received.saturating_sub(received.all()),
    );
    println!("unattributed: {}", now.0["witness"]["unattributed"]);
    assert_eq!(now.number("/witness/lost_events"), 0);
    assert_eq!(
        sent.witnessed,
        now.resets_sent(),
        "each RST of the ledger is the kernel's"
    );
    assert_eq!(
        received.witnessed,
        now.resets_received(),
        "and each that it received"
    );
    assert_eq!(
        sent.all(),
        wire_sent,
        "the kernel told of each that went out"
    );
    assert!(received.all() <= wire_received);
    // What the kernel sends of itself answers bytes that came behind a close; it aborts nothing. Where
    // the port is a listener's, such bytes meet the listener, and their ACK flag is what is wrong.
    let late = [
        ("upstream", "no_socket"),
        ("upstream", "tcp_timewait_socket"),
        ("downstream", "no_socket"),
        ("downstream", "tcp_timewait_socket"),
        ("downstream", "tcp_flags"),
    ];
    let answered = late.map(|(side, reason)| {
        let labels = ["sent", side, reason];
        let labels = ["direction", "side", "kernel_reason"]
            .into_iter()
            .zip(labels);
        let labels: Vec<_> = labels
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        now.rows("/witness/unattributed", &labels)
    });
    assert_eq!(sent.unattributed, answered.iter().sum::<u64>());
}

/// The records, by their numbers.
pub type Records = BTreeMap<u64, Value>;

/// Adds the records that are held now to those of before; how many there ever were.
pub fn collect(proxy: &Proxy, records: &mut Records) -> u64 {
    let (status, text) = proxy.admin("GET", "/api/v1/resets?limit=100000");
    assert_eq!(status, 200, "{text}");
    let mut answer: Value = serde_json::from_str(&text).unwrap();
    let Value::Array(held) = answer["records"].take() else {
        panic!("{answer}");
    };
    let numbered = held
        .into_iter()
        .map(|row| (row["id"].as_u64().unwrap(), row));
    records.extend(numbered);
    answer["recorded"].as_u64().unwrap()
}

/// The entry of a record's connection.
struct Matched<'a> {
    record: &'a Value,
    name: Name,
    entry: &'a Entry,
}

/// Each record has its entry, which may have led to it; each entry that must have led to one has.
pub fn check_records(records: &Records, journal: &Journal) {
    let pages = journal.read();
    let mut wrong = Vec::new();
    let mut matched = HashMap::new();
    for (&id, record) in records {
        match match_entry(record, &pages) {
            Some(found) => {
                matched.insert(id, found);
            }
            None => wrong.push(("of a connection that nobody knows".to_owned(), record)),
        }
    }
    let mut tally = BTreeMap::<String, u64>::new();
    let mut recorded = HashSet::new();
    for found in matched.values() {
        let why = explain(found, &matched);
        let of = format!(
            "{} {}: {}",
            found.name.upstream,
            found.name.side,
            outcome(found.record)
        );
        match why {
            Ok(why) => *tally.entry(format!("{of}, for {why}")).or_default() += 1,
            Err(why) => wrong.push((format!("{of}, and {why}"), found.record)),
        }
        if !recorded.insert(&found.name) {
            wrong.push((
                format!("{of} is the second of its connection"),
                found.record,
            ));
        }
    }
    for (what, count) in &tally {
        println!("{count:>7} {what}");
    }
    let mut missing = BTreeMap::<String, u64>::new();
    let mut faults = BTreeMap::<String, u64>::new();
    for (name, entry) in &pages {
        let fault = format!("{} {}: {}", name.upstream, name.side, entry.fault.name);
        *faults.entry(fault.clone()).or_default() += 1;
        if entry.fault.must && !recorded.contains(name) {
            *missing.entry(fault).or_default() += 1;
        }
    }
    println!("faults: {faults:#?}");
    report(&wrong);
    assert!(wrong.is_empty(), "{} records are wrong", wrong.len());
    assert!(missing.is_empty(), "no record of these: {missing:#?}");
}

fn report(wrong: &[(String, &Value)]) {
    let mut kinds = BTreeMap::<&str, (u64, &Value)>::new();
    for (what, record) in wrong {
        kinds.entry(what).or_insert((0, *record)).0 += 1;
    }
    for (what, (count, _)) in &kinds {
        println!("WRONG {count:>6} {what}");
    }
    for (what, (_, record)) in kinds.iter().take(3) {
        println!("{what}: {record:#}");
    }
}

fn match_entry<'a>(record: &'a Value, pages: &'a HashMap<Name, Entry>) -> Option<Matched<'a>> {
    let (side, address) = match record["side"].as_str()? {
        "downstream" => ("downstream", &record["client"]),
        _ => ("upstream", &record["local"]),
    };
    let upstream = crate::UPSTREAMS
        .into_iter()
        .find(|name| record["upstream"] == **name)?;
    let name = Name {
        side,
        upstream,
        address: address.as_str()?.to_owned(),
    };
    let entry = pages.get(&name)?;
    Some(Matched {
        record,
        name,
        entry,
    })
}

/// `CODE DIRECTION PHASE CAUSE`
fn outcome(record: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    [
        &record["termination"]["code"],
        &record["direction"],
        &record["phase"],
        &record["cause"],
    ]
    .map(text)
    .join(" ")
}

/// Whose doing it was; or why it can be nobody's.
fn explain(found: &Matched, all: &HashMap<u64, Matched>) -> Result<String, String> {
    let (record, fault) = (found.record, found.entry.fault);
    let outcome = outcome(record);
    if fault.own.contains(&outcome.as_str()) {
        let exchange = record["exchange"].as_u64().unwrap();
        if found.entry.exchange.contains(&exchange) {
            return Ok(format!("itself: {}", fault.name));
        }
        let of = &found.entry.exchange;
        return Err(format!("in the wrong exchange ({exchange} not {of:?})"));
    }
    let other = &record["other"];
    let Some(cause) = other["record"].as_u64().and_then(|id| all.get(&id)) else {
        return Err(format!("it did: {}", fault.name));
    };
    let theirs = cause.entry.fault;
    let is_received = record["direction"] == "received";
    let is_caused = other["relation"] == "caused_by" || other["relation"] == "with";
    if !is_received && is_caused && theirs.other.contains(&outcome.as_str()) {
        return Ok(format!("the other leg: {}", theirs.name));
    }
    Err(format!(
        "it did: {}, and the other leg ({} {}): {}",
        fault.name,
        other["relation"],
        self::outcome(cause.record),
        theirs.name
    ))
}
