//! The page for people: the main numbers, and where the rest is. No script, nothing from elsewhere.

use std::fmt::{self, Write};

use crate::stats::census::{CensusSnapshot, PortsRow};
use crate::stats::snapshot::{ListenerSnapshot, Population, Snapshot, UpstreamSnapshot};

/// The page of `snapshot`.
pub fn render(snapshot: &Snapshot) -> String {
    let mut page = String::with_capacity(8 * 1024);
    write_page(&mut page, snapshot).expect("a String takes every write");
    page
}

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<meta name="viewport" content="width=device-width"><title>millpond</title><style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em }
table { border-collapse: collapse; margin: .5em 0 1.5em; width: 100% }
th, td { padding: .2em .8em .2em 0; text-align: right; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
td { font-variant-numeric: tabular-nums } nav a { margin-right: 1em }
:root { color-scheme: light dark }
</style></head><body>
"#;

fn write_page(page: &mut String, snapshot: &Snapshot) -> fmt::Result {
    write_head(page, snapshot)?;
    page.push_str("<h2>Listeners</h2>\n");
    let columns = [
        "",
        "address",
        "sessions",
        "open",
        "ended",
        "refusals",
        "RSTs",
        "lost bytes",
    ];
    table(page, &columns, |page| {
        let mut listeners = snapshot.listeners.iter();
        listeners.try_for_each(|(name, listener)| write_listener(page, name, listener))
    })?;
    page.push_str("<h2>Upstreams</h2>\n");
    let columns = [
        "",
        "connections",
        "open",
        "ended",
        "exchanges",
        "leases",
        "reuse",
        "waiters",
        "discards",
        "RSTs",
    ];
    table(page, &columns, |page| {
        let mut upstreams = snapshot.upstreams.iter();
        upstreams.try_for_each(|(name, upstream)| write_upstream(page, name, upstream))
    })?;
    page.push_str("<h2>Pools</h2>\n");
    let columns = [
        "",
        "endpoint",
        "size",
        "idle",
        "leased",
        "connecting",
        "shared",
        "closing",
        "failures",
        "learned idle timeout",
    ];
    table(page, &columns, |page| {
        let mut upstreams = snapshot.upstreams.iter();
        upstreams.try_for_each(|(name, upstream)| write_endpoints(page, name, upstream))
    })?;
    if let Some(census) = &snapshot.census {
        write_census(page, census)?;
    }
    page.push_str("<h2>Ends</h2>\n");
    table(page, &["", "who", "phase", "manner", "count"], |page| {
        write_ends(page, snapshot)
    })?;
    page.push_str("</body></html>\n");
    Ok(())
}

fn write_head(page: &mut String, snapshot: &Snapshot) -> fmt::Result {
    page.push_str(HEAD);
    let state = if snapshot.draining {
        "draining"
    } else {
        "running"
    };
    writeln!(
        page,
        "<h1>millpond</h1><p>Version {}, {state}, up {:.0} s.</p>",
        Escaped(snapshot.version),
        snapshot.uptime_seconds
    )?;
    page.push_str("<nav>");
    for path in [
        "/metrics",
        "/api/v1/snapshot",
        "/api/v1/sessions",
        "/api/v1/resets",
        "/api/v1/census",
        "/healthz",
        "/readyz",
    ] {
        write!(page, "<a href=\"{path}\">{path}</a>")?;
    }
    page.push_str("</nav>\n");
    Ok(())
}

fn write_census(page: &mut String, census: &CensusSnapshot) -> fmt::Result {
    page.push_str("<h2>Ports</h2>\n");
    let columns = [
        "",
        "endpoint",
        "from",
        "ports",
        "used",
        "TIME_WAIT",
        "free",
        "run out",
    ];
    table(page, &columns, |page| {
        census
            .ports
            .iter()
            .try_for_each(|row| write_ports(page, row))
    })?;
    page.push_str("<h2>Sockets</h2>\n");
    let columns = [
        "",
        "side",
        "established",
        "CLOSE_WAIT",
        "TIME_WAIT",
        "the peers' TIME_WAIT",
    ];
    table(page, &columns, |page| {
        census.legs.iter().try_for_each(|leg| {
            let in_state = |state: &str| leg.sockets.get(state).copied().unwrap_or(0);
            row(
                page,
                &[
                    &Escaped(&leg.name),
                    &leg.side.label(),
                    &in_state("established"),
                    &in_state("close_wait"),
                    &in_state("time_wait"),
                    &leg.peers_time_wait,
                ],
            )
        })
    })
}

fn write_ports(page: &mut String, ports: &PortsRow) -> fmt::Result {
    let run_out = match ports.run_out_seconds {
        Some(left) => format!("in {} s", left.as_secs()),
        None => "not in sight".to_owned(),
    };
    row(
        page,
        &[
            &Escaped(&ports.whose.upstream),
            &Escaped(&ports.whose.endpoint),
            &Escaped(&ports.whose.source),
            &ports.count,
            &ports.used,
            &ports.time_wait,
            &ports.free,
            &run_out,
        ],
    )
}

fn table(
    page: &mut String,
    columns: &[&str],
    rows: impl FnOnce(&mut String) -> fmt::Result,
) -> fmt::Result {
    page.push_str("<table><tr>");
    for column in columns {
        write!(page, "<th>{column}</th>")?;
    }
    page.push_str("</tr>\n");
    rows(page)?;
    page.push_str("</table>\n");
    Ok(())
}

fn row(page: &mut String, cells: &[&dyn fmt::Display]) -> fmt::Result {
    page.push_str("<tr>");
    for cell in cells {
        write!(page, "<td>{cell}</td>")?;
    }
    page.push_str("</tr>\n");
    Ok(())
}

fn write_listener(page: &mut String, name: &str, listener: &ListenerSnapshot) -> fmt::Result {
    let address = Escaped(listener.address.as_deref().unwrap_or("not bound"));
    let Population {
        opened,
        open,
        terminated,
    } = listener.sessions;
    let refusals = listener.refusals.total();
    let resets: u64 = listener.resets.iter().map(|row| row.count).sum();
    let lost = listener.lost_bytes.unread + listener.lost_bytes.unacknowledged;
    let name = Escaped(name);
    row(
        page,
        &[
            &name,
            &address,
            &opened,
            &open,
            &terminated,
            &refusals,
            &resets,
            &lost,
        ],
    )
}

fn write_upstream(page: &mut String, name: &str, upstream: &UpstreamSnapshot) -> fmt::Result {
    let Population {
        opened,
        open,
        terminated,
    } = upstream.connections;
    let exchanges = upstream.exchanges.total();
    // Exchanges served for each connection opened: what the pool is for.
    let reuse = format!("{:.1}", exchanges as f64 / opened.max(1) as f64);
    let discards = upstream.discards.total();
    let resets: u64 = upstream.resets.iter().map(|row| row.count).sum();
    let (lent, waiters) = (upstream.lent, upstream.waiters);
    let name = Escaped(name);
    row(
        page,
        &[
            &name,
            &opened,
            &open,
            &terminated,
            &exchanges,
            &lent,
            &reuse,
            &waiters,
            &discards,
            &resets,
        ],
    )
}

fn write_endpoints(page: &mut String, name: &str, upstream: &UpstreamSnapshot) -> fmt::Result {
    let name = Escaped(name);
    upstream.endpoints.iter().try_for_each(|pool| {
        let address = Escaped(&pool.address);
        let (idle, leased, connecting) = (pool.idle, pool.leased, pool.connecting);
        let (shared, closing, failures) = (pool.shared, pool.closing, pool.failures);
        let learned = pool.learned_idle_timeout.map(|it| it.as_millis());
        let learned = learned.map_or_else(String::new, |it| format!("{it} ms"));
        row(
            page,
            &[
                &name,
                &address,
                &pool.size,
                &idle,
                &leased,
                &connecting,
                &shared,
                &closing,
                &failures,
                &learned,
            ],
        )
    })
}

fn write_ends(page: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let listeners = snapshot.listeners.iter();
    let sessions = listeners.map(|(name, listener)| (name, &listener.terminations));
    let upstreams = snapshot.upstreams.iter();
    let connections = upstreams.map(|(name, upstream)| (name, &upstream.terminations));
    for (name, ends) in sessions.chain(connections) {
        for end in ends {
            let (who, phase) = (end.initiator.label(), end.phase.label());
            row(
                page,
                &[
                    &Escaped(name),
                    &who,
                    &phase,
                    &end.manner.label(),
                    &end.count,
                ],
            )?;
        }
    }
    Ok(())
}

/// Text that stands in HTML as what it is.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            other => f.write_char(other),
        })
    }
}
