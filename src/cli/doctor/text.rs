//! The report for people.
//!
//! Pure.

use std::fmt::Write;

use textwrap::Options;

use super::colours::{Colours, Paint};
use super::finding::Severity;
use super::report::{
    ClosesFirst, Counted, Found, Others, PortsFrom, Relief, Report, Service, Towards, Verdict,
};
use super::settings::{self, Judged};
use crate::cli::table::{count, or_not_there, paragraph, point, table};

/// Of a finding's paragraphs.
const LINE_WIDTH: usize = 96;

const WHY_TIME_WAIT: &str = "Whoever closes a connection first keeps it in TIME_WAIT for 60 s, so that what \
    still comes late is recognised and can't reach the next connection on the same ports, and so that \
    the last FIN is answered again if its ACK was lost. That is right and needs no cure. On the side that \
    listens it costs some 250 bytes each. On the side that dialled it also takes a port towards that \
    destination, and only when those run short something should change: make fewer connections.";

const RELIEF: &str = "A pool opens its connections once and then replaces each after an hour. It needs to \
    know where an exchange ends: protocol http, frames, or tcp with a probe; plain tcp saves no connects. \
    On the leg from the clients to millpond everything stays as it is, unless they use a Unix socket.";

/// All that was found and seen.
pub(super) fn text(report: &Report, colours: Colours) -> String {
    let mut out = String::new();
    head(&mut out, report, colours);
    if !report.findings.is_empty() {
        // What TIME_WAIT is for stands before any advice about it.
        line(&mut out, &paragraph(WHY_TIME_WAIT));
        line(&mut out, "");
    }
    for (number, found) in report.findings.iter().enumerate() {
        finding(&mut out, number + 1, found, colours);
    }
    missing(&mut out, report, colours);
    time_wait(&mut out, report, colours);
    counters(&mut out, report, colours);
    settings(&mut out, &report.settings, colours);
    relief(&mut out, &report.relief, colours);
    out
}

fn head(out: &mut String, report: &Report, colours: Colours) {
    let verdict = match (report.verdict, report.findings.len()) {
        (Verdict::Healthy, _) => colours.paint(Paint::Good, "Nothing is wrong here."),
        (Verdict::Findings, 1) => colours.paint(Paint::Bad, "1 finding."),
        (Verdict::Findings, many) => colours.paint(Paint::Bad, &format!("{many} findings.")),
        (Verdict::Unknown, _) => {
            colours.paint(Paint::Bad, "Nothing can be said: see what is missing.")
        }
    };
    line(
        out,
        &format!("{verdict} Rates are of the last {:.0} s.", report.seconds),
    );
}

fn finding(out: &mut String, number: usize, found: &Found, colours: Colours) {
    let (paint, severity) = match found.severity {
        Severity::Critical => (Paint::Bad, "critical"),
        Severity::Serious => (Paint::Bad, "serious"),
        Severity::Notice => (Paint::Notice, "notice"),
    };
    let title = format!("{number}. [{severity}] {}", found.title);
    line(out, &format!("\n{}", colours.paint(paint, &title)));
    let indent = |text: &str| {
        let options = Options::new(LINE_WIDTH).initial_indent("   ");
        textwrap::fill(text, options.subsequent_indent("   "))
    };
    line(out, &indent(&found.why));
    line(out, &indent(&format!("What to do: {}", found.advice)));
}

fn missing(out: &mut String, report: &Report, colours: Colours) {
    if report.missing.is_empty() {
        return;
    }
    title(out, "Missing", colours);
    for missing in &report.missing {
        line(
            out,
            &point(&format!("{}: {}", missing.what, missing.reason)),
        );
    }
}

fn time_wait(out: &mut String, report: &Report, colours: Colours) {
    let time_wait = &report.time_wait;
    let heading = format!(
        "TIME_WAIT: {} sockets, {} where this host dialled, {} where it listens",
        count(time_wait.total),
        count(time_wait.dialling),
        count(time_wait.listening)
    );
    title(out, &heading, colours);
    if report.findings.is_empty() {
        line(out, &paragraph(WHY_TIME_WAIT));
    }
    if time_wait.uncounted > 0 {
        let uncounted = count(time_wait.uncounted);
        line(
            out,
            &format!("{uncounted} sockets were beyond the table's bound and stand in no row."),
        );
    }
    if !report.destinations.is_empty() {
        line(out, "");
        line(out, &destinations(&report.destinations));
        others(out, report.other_destinations, "destinations");
    }
    let reused = report.destinations.iter().flat_map(|it| &it.ports);
    if reused
        .clone()
        .any(|it| it.back_after_seconds == 1 && it.time_wait > 0)
    {
        line(
            out,
            "* a port in TIME_WAIT comes back after 1 s here (tcp_tw_reuse), so none is short",
        );
    }
    if !report.services.is_empty() {
        line(out, "");
        line(out, &services(&report.services));
        others(out, report.other_services, "services");
    }
}

fn destinations(all: &[Towards]) -> String {
    let rows = all.iter().map(|it| {
        [
            it.address.to_string(),
            count(it.time_wait),
            count(it.open),
            count(it.close_wait),
            format!("{:.1}", it.connects_per_second),
            or_not_there(it.ports.first(), ports),
            closes_first(it.closes_first),
        ]
    });
    table(
        [
            "dialled to",
            "TIME_WAIT",
            "open",
            "CLOSE_WAIT",
            "connects/s",
            "ports taken",
            "closes first",
        ],
        rows,
    )
}

fn ports(from: &PortsFrom) -> String {
    let mark = if from.back_after_seconds == 1 {
        "*"
    } else {
        ""
    };
    let taken = from.used + from.time_wait;
    format!("{} of {}{mark}", count(taken), count(from.count))
}

fn services(all: &[Service]) -> String {
    let rows = all.iter().map(|it| {
        [
            it.address.to_string(),
            count(it.time_wait),
            count(it.open),
            count(it.close_wait),
            count(it.half_open),
            format!("{:.1}", it.connects_per_second),
            or_not_there(it.queue.zip(it.queue_max), |(waiting, max)| {
                format!("{} of {}", count(waiting), count(max))
            }),
            closes_first(it.closes_first),
        ]
    });
    table(
        [
            "service here",
            "TIME_WAIT",
            "open",
            "CLOSE_WAIT",
            "half open",
            "connects/s",
            "queue",
            "closes first",
        ],
        rows,
    )
}

fn closes_first(who: Option<ClosesFirst>) -> String {
    or_not_there(who, |who| {
        let who = match who {
            ClosesFirst::ThisEnd => "this end",
            ClosesFirst::OtherEnd => "the other end",
            ClosesFirst::Both => "now one, now the other",
        };
        who.to_owned()
    })
}

fn others(out: &mut String, others: Others, what: &str) {
    if others.count > 0 {
        let text = format!(
            "and {} more {what}: {} TIME_WAIT, {} open",
            count(others.count as u64),
            count(others.time_wait),
            count(others.open)
        );
        line(out, &text);
    }
}

/// Those that did not move are named in one line.
fn counters(out: &mut String, report: &Report, colours: Colours) {
    let heading = format!("Resets and failures in the last {:.0} s", report.seconds);
    title(out, &heading, colours);
    let (grown, still): (Vec<&Counted>, Vec<&Counted>) =
        report.counters.iter().partition(|it| it.count > 0);
    for counted in grown {
        let text = format!(
            "{} {:.1} a second ({}): {}",
            counted.name,
            counted.per_second,
            count(counted.count),
            counted.meaning
        );
        line(out, &point(&text));
    }
    let names: Vec<&str> = still.iter().map(|it| it.name).collect();
    if !names.is_empty() {
        line(out, &point(&format!("0: {}", names.join(", "))));
    }
}

fn settings(out: &mut String, all: &[Judged], colours: Colours) {
    title(out, "Settings", colours);
    for judged in all {
        let (paint, verdict) = match judged.verdict {
            settings::Verdict::Good => (Paint::Good, "good"),
            settings::Verdict::Note => (Paint::Notice, "note"),
            settings::Verdict::Change => (Paint::Bad, "change"),
        };
        let value = format!("{:<30} {:<24}", judged.name, judged.value);
        line(out, &format!("{value} {}", colours.paint(paint, verdict)));
        let mut text = judged.reason.to_owned();
        if !judged.advice.is_empty() {
            let _ = write!(text, ". What to do: {}", judged.advice);
        }
        let options = Options::new(LINE_WIDTH).initial_indent("    ");
        line(
            out,
            &textwrap::fill(&text, options.subsequent_indent("    ")),
        );
    }
}

fn relief(out: &mut String, all: &[Relief], colours: Colours) {
    title(out, "What millpond in front would relieve", colours);
    if all.is_empty() {
        line(out, "Nothing: no destination gets a connect a second.");
        return;
    }
    let rows = all.iter().map(|it| {
        [
            it.address.to_string(),
            format!("{:.1}", it.connects_per_second),
            count(it.pool_size),
            format!("{:.4}", it.pool_connects_per_second),
        ]
    });
    let headings = [
        "dialled to",
        "connects/s\nnow",
        "pool's size\n(open now)",
        "connects/s\nof the pool",
    ];
    line(out, &table(headings, rows));
    line(out, &paragraph(RELIEF));
}

fn title(out: &mut String, text: &str, colours: Colours) {
    line(out, &format!("\n{}", colours.paint(Paint::Title, text)));
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}
