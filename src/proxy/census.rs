//! The census as the proxy takes it: at intervals, and when somebody asks.
//!
//! What is to be counted is read from the parts that run, the kernel is asked on a thread that serves
//! nobody, and the answer goes to the statistics, to the upstreams that choose a source by it, and to the
//! log where ports run short or a socket leaks.
//!
//! Not here: how sockets are listed and counted (see [`crate::census`]).

mod observe;
mod plan;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{Proxy, Shared};
use crate::census::forecast::History;
use crate::census::leaks::{Leaks, Suspect};
use crate::census::ports::Route;
use crate::pool::source::Counted;
use crate::stats::census::{CensusSnapshot, LegRow, PortsOf, PortsRow};
use crate::stats::reason::{Leak, Reason};
use crate::stats::tree::{Books, Tree};
use crate::sys::clock;
use observe::Observed;
use plan::{Plan, PlannedRoute};

/// Who asks sooner than this after a census gets that one.
const FRESH: Duration = Duration::from_millis(500);
/// Ports that will run out within this time are worth a line.
const RUN_OUT_WARNED: Duration = Duration::from_secs(600);
/// And that is told in the second census that shows it: one alone may have met a burst.
const SHORT_TOLD_AT: u32 = 2;

/// What is kept between one census and the next.
#[derive(Default)]
pub(super) struct Census {
    /// Held while one is taken: who asks meanwhile gets the same.
    memory: Mutex<Memory>,
    interval_changed: Arc<Notify>,
}

#[derive(Default)]
struct Memory {
    taken_at: Option<Instant>,
    /// The last one that was asked for was not answered.
    is_refused: bool,
    resolved: HashMap<(String, u16), Vec<SocketAddr>>,
    leaks: Leaks,
    /// Sockets that other processes have on the legs.
    foreign: HashSet<u64>,
    histories: HashMap<Route, History>,
    /// The endpoints and sources whose ports will run out, and in how many censuses on end that was so.
    short: HashMap<PortsOf, u32>,
}

/// Takes a census at once, and then as often as is configured, for as long as the proxy is there.
pub(super) async fn repeat(shared: Weak<Shared>) {
    while let Some(proxy) = shared.upgrade().map(|shared| Proxy { shared }) {
        let interval = proxy.parts().config.ledger.census_interval;
        let changed = Arc::clone(&proxy.shared.census.interval_changed);
        if interval.is_some() {
            // What goes wrong is counted and logged.
            let _ = proxy.take_census().await;
        }
        drop(proxy);
        match interval {
            Some(interval) => tokio::select! {
                () = sleep(interval) => {}
                () = changed.notified() => {}
            },
            None => changed.notified().await,
        }
    }
}

impl Proxy {
    /// Has the next census come by the interval that is configured now.
    pub(super) fn census_interval_changed(&self) {
        self.shared.census.interval_changed.notify_one();
    }

    /// What the kernel lists now.
    ///
    /// # Errors
    /// A sentence for an operator: the kernel does not answer such questions, or not here.
    pub(super) async fn take_census(&self) -> Result<Arc<CensusSnapshot>, String> {
        let tree = &self.shared.tree;
        let mut memory = self.shared.census.memory.lock().await;
        let is_fresh = |at: Instant| clock::now().saturating_duration_since(at) < FRESH;
        if let Some(last) = tree
            .census
            .last()
            .filter(|_| memory.taken_at.is_some_and(is_fresh))
        {
            return Ok(last);
        }
        let plan = Plan::of(self, &mut memory.resolved).await;
        let foreign = std::mem::take(&mut memory.foreign);
        let observing = move || observe::observe(plan, &foreign);
        let observed = tokio::task::spawn_blocking(observing).await;
        let (plan, observed) = observed.map_err(|error| error.to_string())?;
        match observed {
            Ok(observed) => {
                memory.is_refused = false;
                Ok(memory.conclude(tree, &plan, observed, clock::now()))
            }
            Err(error) => {
                tree.census.forget();
                if !std::mem::replace(&mut memory.is_refused, true) {
                    warn!(%error, "the kernel does not list its sockets: no census");
                }
                Err(format!("the kernel does not list its sockets: {error}"))
            }
        }
    }
}

impl Memory {
    fn conclude(
        &mut self,
        tree: &Tree,
        plan: &Plan,
        observed: Observed,
        now: Instant,
    ) -> Arc<CensusSnapshot> {
        self.look_for_leaks(plan, &observed, now);
        let legs = plan.legs.iter().zip(&observed.count.legs);
        let census = Arc::new(CensusSnapshot {
            taken_at: clock::wall_now(),
            cpu_us: u64::try_from(observed.cpu_time.as_micros()).unwrap_or(u64::MAX),
            legs: legs
                .map(|(leg, count)| LegRow::of(leg.side(), &leg.name, count))
                .collect(),
            ports: self.ports(plan, &observed, now),
        });
        self.foreign = observed.foreign;
        self.taken_at = Some(now);
        tree.census.record(Arc::clone(&census));
        census
    }

    fn look_for_leaks(&mut self, plan: &Plan, observed: &Observed, now: Instant) {
        let entries: Vec<_> = observed.rolls.iter().flatten().copied().collect();
        let unknown: Vec<_> = observed.unknown.iter().map(|it| it.cookie).collect();
        for suspect in self.leaks.look(&entries, &unknown, now) {
            let (leak, books) = match suspect {
                Suspect::NoEntry(cookie) => (Leak::NoEntry, plan.books_of_socket(observed, cookie)),
                Suspect::NoSocket(id) => (Leak::NoSocket, plan.books_of_entry(observed, id)),
            };
            let Some(books) = books else { continue };
            books.leaks().increment(leak);
            warn!(
                side = books.side().label(),
                name = books.name,
                kind = leak.label(),
                ?suspect,
                "a connection leaks: the ledger and the kernel do not agree about it"
            );
        }
    }

    /// A row for each source towards each endpoint: where the endpoint has several addresses, for that with
    /// the fewest free ports.
    fn ports(&mut self, plan: &Plan, observed: &Observed, now: Instant) -> Vec<PortsRow> {
        let mut rows: Vec<(PortsRow, &PlannedRoute)> = Vec::new();
        let mut forecasts = HashMap::new();
        let mut histories = HashMap::new();
        for (planned, taken) in plan.routes.iter().zip(&observed.count.routes) {
            let (route, waiting) = (&planned.route, planned.waiting);
            // Two upstreams may have an endpoint in common.
            let forecast = *forecasts.entry(route.clone()).or_insert_with(|| {
                let mut history = self.histories.remove(route).unwrap_or_default();
                let forecast = history.forecast(now, taken, waiting);
                histories.insert(route.clone(), history);
                forecast
            });
            let row = PortsRow::of(planned.whose.clone(), route, taken, forecast, waiting);
            match rows.iter_mut().find(|(it, _)| it.whose == planned.whose) {
                Some((known, _)) if known.free <= row.free => {}
                Some(known) => *known = (row, planned),
                None => rows.push((row, planned)),
            }
        }
        self.histories = histories;
        for (row, planned) in &rows {
            if let Some(source) = &planned.source {
                let counted = Counted {
                    in_use: row.used,
                    time_wait: row.time_wait,
                };
                source.set_counted(counted, now);
            }
        }
        let rows: Vec<_> = rows.into_iter().map(|(row, _)| row).collect();
        self.warn_of_shortage(&rows);
        rows
    }

    /// One line when two censuses on end show that ports will run out, and one when that is over.
    fn warn_of_shortage(&mut self, rows: &[PortsRow]) {
        let mut short = HashMap::new();
        for row in rows {
            let times = self.short.get(&row.whose).copied().unwrap_or(0);
            match row.run_out_seconds.filter(|left| *left < RUN_OUT_WARNED) {
                Some(left) => {
                    if times + 1 == SHORT_TOLD_AT {
                        row.tell_shortage(left);
                    }
                    short.insert(row.whose.clone(), (times + 1).min(SHORT_TOLD_AT));
                }
                None if times >= SHORT_TOLD_AT => info!(
                    upstream = row.whose.upstream,
                    endpoint = row.whose.endpoint,
                    free = row.free,
                    "ports will last again, as things go"
                ),
                None => {}
            }
        }
        self.short = short;
    }
}

impl Plan {
    /// Whose leg a socket is on that no ledger knows.
    fn books_of_socket(&self, observed: &Observed, cookie: u64) -> Option<&Books> {
        let held = observed.unknown.iter().find(|it| it.cookie == cookie)?;
        let leg = &self.legs[held.leg];
        let mut books = self.books.iter();
        books.find(|it| it.side() == leg.side() && it.name == leg.name)
    }

    /// Whose open entry it is.
    fn books_of_entry(&self, observed: &Observed, id: u64) -> Option<&Books> {
        let mut rolls = observed.rolls.iter();
        let number = rolls.position(|roll| roll.iter().any(|it| it.id == id))?;
        self.books.get(number)
    }
}

impl PortsRow {
    fn tell_shortage(&self, left: Duration) {
        warn!(
            upstream = self.whose.upstream,
            endpoint = self.whose.endpoint,
            "ports run out in {} s, as things go: of {} from {} ({}-{}), {} are used, {} in TIME_WAIT, {} free. \
             Add source addresses (upstream.{}.source), or find out what opens so many connections: \
             /api/v1/census, millpond doctor",
            left.as_secs(),
            self.count,
            self.from,
            self.range.0,
            self.range.1,
            self.used,
            self.time_wait,
            self.free,
            self.whose.upstream,
        );
    }
}
