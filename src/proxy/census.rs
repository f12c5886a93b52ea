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
use crate::close::Side;
use crate::pool::source::Counted;
use crate::stats::census::{CensusSnapshot, LegRow, PortsOf, PortsRow};
use crate::stats::reason::{Leak, Reason};
use crate::stats::tree::Tree;
use crate::sys::clock;
use observe::Observed;
use plan::{Plan, PlannedLeg, PlannedRoute};

/// Who asks sooner than this after a census gets that one.
const FRESH: Duration = Duration::from_millis(500);
/// Ports that will run out within this time are worth a line.
const RUN_OUT_WARNED: Duration = Duration::from_secs(600);

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
    leaks: HashMap<(Side, String), Leaks>,
    histories: HashMap<(String, String, Route), History>,
    /// The endpoints whose ports will run out, as was logged.
    short: HashSet<(String, String, String)>,
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
        let observed = tokio::task::spawn_blocking(move || observe::observe(plan)).await;
        let (plan, observed) = observed.map_err(|error| error.to_string())?;
        match observed {
            Ok(observed) => {
                memory.is_refused = false;
                Ok(memory.conclude(tree, &plan, &observed, clock::now()))
            }
            Err(error) => {
                tree.census.failed.increment();
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
        observed: &Observed,
        now: Instant,
    ) -> Arc<CensusSnapshot> {
        for (number, leg) in plan.legs.iter().enumerate() {
            self.look_for_leaks(leg, number, observed, now);
        }
        let legs = plan.legs.iter().zip(&observed.count.legs);
        let census = Arc::new(CensusSnapshot {
            taken_at: clock::wall_now(),
            cpu_us: u64::try_from(observed.cpu_time.as_micros()).unwrap_or(u64::MAX),
            legs: legs
                .map(|(leg, count)| LegRow::of(leg.side(), &leg.name, count))
                .collect(),
            ports: self.ports(plan, observed, now),
        });
        self.taken_at = Some(now);
        tree.census.record(Arc::clone(&census));
        census
    }

    fn look_for_leaks(
        &mut self,
        leg: &PlannedLeg,
        number: usize,
        observed: &Observed,
        now: Instant,
    ) {
        let key = (leg.side(), leg.name.clone());
        let leaks = self.leaks.entry(key).or_default();
        let own = observed.own_cookies(number);
        for suspect in leaks.look(&observed.rolls[number], &own, now) {
            let leak = match suspect {
                Suspect::NoEntry(_) => Leak::NoEntry,
                Suspect::NoSocket(_) => Leak::NoSocket,
            };
            leg.leaks().increment(leak);
            warn!(
                side = leg.side().label(),
                name = leg.name,
                kind = leak.label(),
                ?suspect,
                "a connection leaks: the ledger and the kernel do not agree about it"
            );
        }
    }

    /// A row for each source towards each endpoint: where the endpoint has several addresses, for that with
    /// the fewest free ports.
    fn ports(&mut self, plan: &Plan, observed: &Observed, now: Instant) -> Vec<PortsRow> {
        let mut rows: Vec<PortsRow> = Vec::new();
        let mut histories = HashMap::new();
        for (planned, taken) in plan.routes.iter().zip(&observed.count.routes) {
            let PlannedRoute {
                whose,
                route,
                waiting,
                source,
            } = planned;
            let key = (whose.endpoint.clone(), whose.source.clone(), route.clone());
            let mut history = self.histories.remove(&key).unwrap_or_default();
            let forecast = history.forecast(now, taken, *waiting);
            histories.insert(key, history);
            if let Some(source) = source {
                let counted = Counted {
                    in_use: taken.used,
                    time_wait: taken.time_wait,
                };
                source.set_counted(counted, now);
            }
            let row = PortsRow::of(whose.clone(), route, taken, forecast, *waiting);
            match rows.iter_mut().find(|it| it.is_of(whose)) {
                Some(known) if known.free <= row.free => {}
                Some(known) => *known = row,
                None => rows.push(row),
            }
        }
        self.histories = histories;
        self.warn_of_shortage(&rows);
        rows
    }

    /// One line when it shows that ports will run out, and one when that is over.
    fn warn_of_shortage(&mut self, rows: &[PortsRow]) {
        let mut short = HashSet::new();
        for row in rows {
            let key = (
                row.upstream.clone(),
                row.endpoint.clone(),
                row.source.clone(),
            );
            let was_short = self.short.contains(&key);
            let left = row.run_out_seconds.filter(|left| *left < RUN_OUT_WARNED);
            match left {
                Some(left) if !was_short => warn!(
                    upstream = row.upstream,
                    endpoint = row.endpoint,
                    "ports run out in {} s, as things go: of {} from {} ({}-{}), {} are used, {} in TIME_WAIT, \
                     {} free. Add source addresses (upstream.{}.source), or find out what opens so many \
                     connections: /api/v1/census, millpond doctor",
                    left.as_secs(),
                    row.count,
                    row.from,
                    row.range.0,
                    row.range.1,
                    row.used,
                    row.time_wait,
                    row.free,
                    row.upstream,
                ),
                None if was_short => info!(
                    upstream = row.upstream,
                    endpoint = row.endpoint,
                    free = row.free,
                    "ports will last again, as things go"
                ),
                _ => {}
            }
            if left.is_some() {
                short.insert(key);
            }
        }
        self.short = short;
    }
}

impl PortsRow {
    fn is_of(&self, whose: &PortsOf) -> bool {
        self.upstream == whose.upstream
            && self.endpoint == whose.endpoint
            && self.source == whose.source
    }
}
