//! The census's part of the statistics: what the kernel listed last, and what asking it costs.
//!
//! The field names are part of the stable interface: they are what `/api/v1/census` says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::counter::Counter;
use crate::census::count::LegCount;
use crate::census::forecast::{Forecast, TimeWaitPorts};
use crate::census::ports::{PortUse, Route};
use crate::census::socket::State;
use crate::close::Side;

/// What is counted about the census.
#[derive(Debug, Default)]
pub struct CensusStats {
    last: Mutex<Option<Arc<CensusSnapshot>>>,
    /// Censuses that the kernel answered.
    pub taken: Counter,
    /// Censuses that it did not.
    pub failed: Counter,
    /// What they have cost, microseconds of CPU time.
    pub cpu_us: Counter,
}

impl CensusStats {
    /// The last census that was taken.
    pub fn last(&self) -> Option<Arc<CensusSnapshot>> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A census was refused: what the last one said may be true no more.
    pub fn forget(&self) {
        self.failed.increment();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A census was taken.
    pub fn record(&self, census: Arc<CensusSnapshot>) {
        self.taken.increment();
        self.cpu_us.add(census.cpu_us);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(census);
    }
}

/// The kernel's sockets at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CensusSnapshot {
    /// When the kernel was asked, seconds since 1970.
    #[serde(serialize_with = "since_1970")]
    pub taken_at: SystemTime,
    /// CPU time that it took, the kernel's included, microseconds.
    pub cpu_us: u64,
    /// Each listener and each upstream that speaks TCP.
    pub legs: Vec<LegRow>,
    /// Each pair of a source address and an endpoint.
    pub ports: Vec<PortsRow>,
}

/// The sockets of one listener or upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LegRow {
    /// `downstream` or `upstream`.
    #[serde(serialize_with = "side_label")]
    pub side: Side,
    /// The listener's or the upstream's name.
    pub name: String,
    /// Sockets on our side, by state. Towards a service they may be another program's.
    pub sockets: BTreeMap<&'static str, u64>,
    /// TIME_WAIT that the clients, or the service, keep on this host.
    pub peers_time_wait: u64,
}

/// The ports from one address to an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PortsRow {
    /// Whose they are.
    #[serde(flatten)]
    pub whose: PortsOf,
    /// The source's address. Of an endpoint with several addresses this row is for the one with the fewest
    /// free ports.
    pub from: String,
    /// That address of the endpoint; null where the ports are bound, and serve any.
    pub to: Option<String>,
    /// The first and the last port that may be taken.
    pub range: (u16, u16),
    /// How many there are, without those that the host reserves.
    pub count: u32,
    /// Taken by connections.
    pub used: u32,
    /// Taken by TIME_WAIT.
    pub time_wait: u32,
    /// Taken by nothing.
    pub free: u32,
    /// Whether a connect may take one out of TIME_WAIT (`tcp_tw_reuse`, or `reuse_time_wait`).
    pub reuses_time_wait: bool,
    /// When none is left, as things go; null where that is not in sight.
    #[serde(serialize_with = "seconds")]
    pub run_out_seconds: Option<Duration>,
}

/// What one row of ports is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct PortsOf {
    /// The upstream's name.
    pub upstream: String,
    /// The endpoint, as configured.
    pub endpoint: String,
    /// The source, as configured; `auto` where the kernel chooses it.
    pub source: String,
}

impl LegRow {
    /// What a count says of a leg.
    pub fn of(side: Side, name: &str, count: &LegCount) -> Self {
        let connected = Self::states().map(|state| (state.label(), count.in_state(state)));
        Self {
            side,
            name: name.to_owned(),
            sockets: connected.collect(),
            peers_time_wait: count.peers_time_wait,
        }
    }

    /// The states that are counted: all but that of listening.
    fn states() -> impl Iterator<Item = State> {
        State::ALL
            .into_iter()
            .filter(|state| *state != State::Listen)
    }
}

impl PortsRow {
    /// What a count says of a route's ports.
    pub fn of(
        whose: PortsOf,
        route: &Route,
        ports: &PortUse,
        forecast: Forecast,
        waiting: TimeWaitPorts,
    ) -> Self {
        let range = route.ports.range();
        Self {
            whose,
            from: route
                .from
                .map_or_else(|| "any".to_owned(), |it| it.to_string()),
            to: route.to.map(|to| to.to_string()),
            range: (*range.start(), *range.end()),
            count: ports.count,
            used: ports.used,
            time_wait: ports.time_wait,
            free: ports.free(),
            reuses_time_wait: waiting == TimeWaitPorts::Reused,
            run_out_seconds: match forecast {
                Forecast::Lasts => None,
                Forecast::RunsOut(after) => Some(after),
            },
        }
    }
}

fn side_label<S: Serializer>(side: &Side, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(side.label())
}

fn since_1970<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_f64(since.as_secs_f64())
}

fn seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|it| it.as_secs_f64()).serialize(serializer)
}
