//! An endpoint that can't be dialled for want of a port, or of an address to dial from: says so to the
//! operator, with what the kernel counts and what helps.
//!
//! Not here: the outcome's counter (see [`Upstream::dial`]), and the pause until the next try, which is
//! that of every failed connect (see `upstream::core`).
//!
//! Invariant: the kernel is asked on no thread that serves sessions, and once in [`TOLD_EVERY`] at most.

use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::Upstream;
use crate::census::ports::Route;
use crate::census::settings;
use crate::census::take::take;
use crate::pool::EndpointId;
use crate::pool::connect::Failed;
use crate::pool::source::{Counted, HostPorts, SourcePorts, Sources};
use crate::stats::reason::ConnectOutcome;
use crate::sys::clock;
use crate::sys::socket::keeps_to_ranges;

/// An endpoint's shortage is told at once, and then so often while it lasts.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// A line names so many sources.
const NAMED_MAX: usize = 8;

/// The shortage of one endpoint, if there is one.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    told_at: Option<Instant>,
    /// Connects that failed for it since it was told.
    untold: u64,
    /// The last connect failed for it.
    lasts: bool,
    /// What was told last.
    text: Option<String>,
}

/// The ports of this host as its kernel gives them out; what a kernel begins with, where that can't be
/// read.
pub(super) fn host_ports() -> HostPorts {
    HostPorts {
        given_out: settings::ports().unwrap_or_default(),
        keeps_to_ranges: keeps_to_ranges(),
    }
}

/// Whether a connect that ended like this lacked something that this host's operator can give it.
fn is_shortage(outcome: ConnectOutcome) -> bool {
    matches!(
        outcome,
        ConnectOutcome::PortsExhausted | ConnectOutcome::SourceUnusable
    )
}

impl Shortage {
    /// A connect failed for it: how many did since it was told, if it is to be told again.
    pub(super) fn failed(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        self.lasts = true;
        let is_due = self
            .told_at
            .is_none_or(|at| now.saturating_duration_since(at) >= TOLD_EVERY);
        is_due.then(|| {
            self.told_at = Some(now);
            std::mem::take(&mut self.untold)
        })
    }

    /// A connect succeeded.
    pub(super) fn ended(&mut self) {
        self.lasts = false;
    }

    /// What was told last, while it lasts.
    pub(super) fn text(&self) -> Option<String> {
        self.text.clone().filter(|_| self.lasts)
    }
}

/// A shortage to be told.
pub(super) struct Told {
    pub(super) endpoint: EndpointId,
    pub(super) label: Arc<str>,
    pub(super) sources: Arc<Sources>,
    pub(super) failed: Failed,
    /// How many connects failed for it since it was told before.
    pub(super) count: u64,
}

impl Upstream {
    /// A connect failed: if it is for a shortage that is to be told now, sees to it.
    pub(super) fn note_shortage(
        &self,
        endpoint: EndpointId,
        sources: Option<Arc<Sources>>,
        failed: Failed,
        now: Instant,
    ) {
        let sources = sources.filter(|_| is_shortage(failed.outcome));
        let (Some(sources), Some(me)) = (sources, self.me.upgrade()) else {
            return;
        };
        let told = self.lock().shape.told(endpoint, sources, failed, now);
        if let Some(told) = told {
            self.tasks.spawn_blocking(move || me.tell_shortage(&told));
        }
    }

    /// Asks the kernel what holds the ports, and says it. Blocks for some milliseconds.
    fn tell_shortage(&self, told: &Told) {
        let host = host_ports();
        let text = match told.failed.address {
            None => return,
            Some(address) if told.failed.outcome == ConnectOutcome::SourceUnusable => {
                unusable(&self.name, &told.sources, address)
            }
            Some(address) => {
                let rows = count(&told.sources, &host, address);
                if let Ok(rows) = &rows {
                    let now = clock::now();
                    for (source, row) in told.sources.all().iter().zip(rows) {
                        source.set_counted(row.counted, now);
                    }
                }
                exhausted(&self.name, &told.sources, address, &rows)
            }
        };
        warn!(
            upstream = self.name,
            endpoint = &*told.label,
            connects_failed = told.count,
            "{text}"
        );
        let mut state = self.lock();
        // The host's range may be another by now: that may be the cure.
        state.shape.set_sources(&host);
        if let Some(shortage) = state.shape.shortage(told.endpoint) {
            shortage.text = Some(text);
        }
    }
}

/// What the kernel says of the ports of one source, or of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    route: Route,
    counted: Counted,
}

/// The ports of each source towards `address`; without sources, those of the host.
fn routes(sources: &Sources, host: &HostPorts, address: SocketAddr) -> Vec<Route> {
    match sources.all() {
        [] => vec![host.route(address)],
        all => all.iter().map(|it| sources.route(it, address)).collect(),
    }
}

/// Counts what holds them.
fn count(sources: &Sources, host: &HostPorts, address: SocketAddr) -> io::Result<Vec<Row>> {
    let routes = routes(sources, host, address);
    let count = take(&[], &routes)?;
    let rows = routes.into_iter().zip(&count.routes);
    let row = |(route, ports)| Row {
        route,
        counted: Counted::from(ports),
    };
    Ok(rows.map(row).collect())
}

/// What is said when no source has a free port.
fn exhausted(
    upstream: &str,
    sources: &Sources,
    address: SocketAddr,
    rows: &io::Result<Vec<Row>>,
) -> String {
    let mut text = format!("no free port to dial {address}");
    match rows {
        Ok(rows) => {
            for (number, row) in rows.iter().take(NAMED_MAX).enumerate() {
                let before = if number == 0 { " from" } else { "," };
                let _ = write!(text, "{before} {row}");
            }
            if rows.len() > NAMED_MAX {
                let _ = write!(text, " and {} addresses more", rows.len() - NAMED_MAX);
            }
        }
        Err(error) => {
            let _ = write!(text, "; what holds them can't be counted ({error})");
        }
    }
    let have_ranges = sources.all().iter().any(|it| it.address().ports.is_some());
    let range = match have_ranges {
        true => "widen the ranges of ports there",
        false => "widen net.ipv4.ip_local_port_range",
    };
    let _ = write!(
        text,
        ". Add source addresses (upstream.{upstream}.source), {range}, or raise pool.max_lifetime and \
         pool.max_exchanges, so that fewer connections are opened"
    );
    if sources.all().iter().any(|it| sources.is_exclusive(it)) {
        text.push_str(
            ". One port serves one endpoint at a time here: a range within \
             net.ipv4.ip_local_port_range has all its ports for each",
        );
    }
    text
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counted { in_use, time_wait } = self.counted;
        let ports = &self.route.ports;
        let (first, last) = (ports.range().start(), ports.range().end());
        match self.route.from {
            Some(ip) => write!(f, "{ip}")?,
            None => write!(f, "this host")?,
        }
        write!(
            f,
            " ({first}-{last}, {} ports: {time_wait} in TIME_WAIT, {in_use} in use",
            ports.count()
        )?;
        match ports.count().saturating_sub(time_wait + in_use) {
            0 => write!(f, ")"),
            // What somebody has bound to for another peer is not told apart.
            rest => write!(f, ", {rest} free by now or bound to elsewhere)"),
        }
    }
}

/// What is said when there is no address to dial from.
fn unusable(upstream: &str, sources: &Sources, address: SocketAddr) -> String {
    let fits = |it: &&Arc<SourcePorts>| it.address().ip.is_ipv4() == address.is_ipv4();
    let fitting: Vec<String> = sources
        .all()
        .iter()
        .filter(fits)
        .map(|it| it.address().ip.to_string())
        .collect();
    match fitting.as_slice() {
        [] => format!(
            "no address to dial {address} from: upstream.{upstream}.source has none of its family. Add one"
        ),
        fitting => format!(
            "no address to dial {address} from: {} of upstream.{upstream}.source is not this host's. Give it \
             to an interface, or take it out there",
            fitting.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests;
