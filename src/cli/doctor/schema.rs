//! What `millpond doctor --json` says, field by field: the source of conf/reference/doctor.md.
//!
//! Invariant: it names the fields of [`super::report::Report`], all of them and no others; a test holds
//! that. A field that goes or changes its meaning is a new `schema` number.

use std::fmt::Write;

use super::finding::Finding;

/// A field: where it stands, its type, and what it means.
pub(super) type Field = (&'static str, &'static str, &'static str);

/// Every field, in the order of the JSON. `[]` is each element of a list.
pub(super) const FIELDS: &[Field] = &[
    ("schema", "number", "of this form: 1"),
    ("version", "text", "millpond's"),
    (
        "verdict",
        "text",
        "`healthy`, `findings`, or `unknown`: the sockets could not be looked at",
    ),
    ("seconds", "number", "over how long rates were measured"),
    (
        "findings",
        "list",
        "what is wrong, most urgent first; of one kind, the largest first",
    ),
    ("findings[].kind", "text", "one of the kinds below"),
    (
        "findings[].severity",
        "text",
        "`critical`: connections fail; `serious`: something is lost or piles up; `notice`",
    ),
    (
        "findings[].subject",
        "text",
        "the address, process, counter or setting that it is about",
    ),
    ("findings[].title", "text", "for people, in one line"),
    ("findings[].why", "text", "for people: why it matters"),
    ("findings[].advice", "text", "for people: what to do"),
    (
        "findings[].evidence",
        "list",
        "the numbers that it rests on",
    ),
    ("findings[].evidence[].name", "text", "what was measured"),
    ("findings[].evidence[].value", "text", "how much, or what"),
    (
        "time_wait",
        "object",
        "TIME_WAIT sockets of this network namespace",
    ),
    ("time_wait.total", "number", "all"),
    (
        "time_wait.dialling",
        "number",
        "where this host dialled: each takes a port towards its destination",
    ),
    (
        "time_wait.listening",
        "number",
        "where this host listens: each takes memory alone",
    ),
    (
        "time_wait.uncounted",
        "number",
        "sockets in any state that were beyond the tables' bounds, and stand in no row below",
    ),
    (
        "destinations",
        "list",
        "what this host dials: the 20 with most TIME_WAIT",
    ),
    ("destinations[].address", "text", "where to"),
    (
        "destinations[].time_wait",
        "number",
        "closed by this host first, in the last 60 s",
    ),
    (
        "destinations[].open",
        "number",
        "open, being opened, or being closed by this host",
    ),
    (
        "destinations[].close_wait",
        "number",
        "closed by the other end, and not yet by this host",
    ),
    (
        "destinations[].connects_per_second",
        "number",
        "at least: what came and was closed by the other end between the looks is not seen",
    ),
    (
        "destinations[].closes_first",
        "text or null",
        "`this_end`, `other_end`, `both`; null: nothing of it is to be seen",
    ),
    (
        "destinations[].ports",
        "list",
        "ports towards it, by our own address: the 8 that have most taken",
    ),
    ("destinations[].ports[].source", "text", "our own address"),
    (
        "destinations[].ports[].first",
        "number",
        "of ip_local_port_range",
    ),
    (
        "destinations[].ports[].last",
        "number",
        "of ip_local_port_range",
    ),
    (
        "destinations[].ports[].count",
        "number",
        "how many of those a connect may take",
    ),
    (
        "destinations[].ports[].used",
        "number",
        "taken by connections",
    ),
    (
        "destinations[].ports[].time_wait",
        "number",
        "taken by TIME_WAIT",
    ),
    ("destinations[].ports[].free", "number", "taken by nothing"),
    (
        "destinations[].ports[].back_after_seconds",
        "number",
        "when a port in TIME_WAIT comes back: 60, or 1 where tcp_tw_reuse allows it",
    ),
    (
        "destinations[].ports[].runs_out_seconds",
        "number or null",
        "when none is free, as things go; null: they last",
    ),
    (
        "other_destinations",
        "object",
        "the sum of those that are not listed",
    ),
    ("other_destinations.count", "number", "how many"),
    ("other_destinations.time_wait", "number", "their TIME_WAIT"),
    (
        "other_destinations.open",
        "number",
        "their open connections",
    ),
    (
        "services",
        "list",
        "what this host listens on and has connections of: the 20 with most TIME_WAIT",
    ),
    ("services[].address", "text", "where it listens"),
    (
        "services[].time_wait",
        "number",
        "closed by the service first, in the last 60 s",
    ),
    (
        "services[].open",
        "number",
        "open, or being closed by the service",
    ),
    (
        "services[].close_wait",
        "number",
        "closed by the client, and not yet by the service",
    ),
    (
        "services[].half_open",
        "number",
        "answered, and not confirmed by the client",
    ),
    (
        "services[].connects_per_second",
        "number",
        "at least, as for destinations",
    ),
    (
        "services[].closes_first",
        "text or null",
        "as for destinations; `other_end` is the clients",
    ),
    (
        "services[].queue",
        "number or null",
        "connections that wait to be accepted; null: nobody listens any more",
    ),
    ("services[].queue_max", "number or null", "how many may"),
    (
        "other_services",
        "object",
        "the sum of those that are not listed",
    ),
    ("other_services.count", "number", "how many"),
    ("other_services.time_wait", "number", "their TIME_WAIT"),
    ("other_services.open", "number", "their open connections"),
    (
        "counters",
        "list",
        "the kernel's counters, as they grew in those seconds",
    ),
    (
        "counters[].name",
        "text",
        "as in /proc/net/snmp and /proc/net/netstat",
    ),
    ("counters[].count", "number", "by how much"),
    ("counters[].per_second", "number", "by how much in a second"),
    (
        "counters[].meaning",
        "text",
        "for people: what makes it grow",
    ),
    ("settings", "list", "settings, judged"),
    (
        "settings[].name",
        "text",
        "as sysctl spells it, or `RLIMIT_NOFILE`",
    ),
    ("settings[].value", "text", "as it is set"),
    (
        "settings[].verdict",
        "text",
        "`good`, `note` or `change`; only the last is a finding",
    ),
    ("settings[].reason", "text", "for people: why"),
    (
        "settings[].advice",
        "text",
        "for people: what to do, if anything",
    ),
    (
        "relief",
        "list",
        "destinations with at least one connect a second, which a pool in front would relieve",
    ),
    ("relief[].address", "text", "the destination"),
    ("relief[].connects_per_second", "number", "now"),
    (
        "relief[].pool_size",
        "number",
        "what would do: as many as are open now, at least 1",
    ),
    (
        "relief[].pool_connects_per_second",
        "number",
        "what a pool of that size makes once it is warm",
    ),
    ("missing", "list", "what could not be read"),
    ("missing[].what", "text", "what"),
    ("missing[].reason", "text", "why not, and what would help"),
];

const HEAD: &str = "\
# What `millpond doctor --json` says

Made by `millpond generate doctor-reference`. Exit codes: 0 `healthy`, 1 `findings`, 2 `unknown`. New
fields and new kinds may come at any time; a field that goes or changes its meaning is a new `schema`
number.

| field | type | meaning |
|---|---|---|
";

/// The page, as Markdown.
pub(in crate::cli) fn reference() -> String {
    let mut text = HEAD.to_owned();
    for (path, kind, meaning) in FIELDS {
        let _ = writeln!(text, "| `{path}` | {kind} | {meaning} |");
    }
    text.push_str("\n## Kinds of findings\n\nMost urgent first:");
    for kind in Finding::KINDS {
        let _ = write!(text, " `{kind}`");
    }
    text.push_str(".\n");
    text
}
