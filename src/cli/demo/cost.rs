//! What the extra hop costs: the same requests straight and through millpond, in turns.
//!
//! Turns, so that a host that is busy for a moment is so for all ways. Latency runs from the start of
//! a client's connect, or of a request over a connection that is kept, to the end of the answer. CPU
//! time is the threads' own, with what the kernel does in their name.

use std::time::Duration;

use indicatif::ProgressBar;
use tokio::runtime::Handle;

use super::census::cpu_time;
use super::client::{Failure, ask, in_time, short_lived};
use super::crowd::crowd;
use super::dial::Dial;
use super::mill::{Mill, POOL_SIZE};
use super::service::{Behaviour, SERVICE_THREAD, Service};
use super::{DemoError, MILLPOND_THREADS};
use crate::cli::table::{count, or_not_there, paragraph, point, table, time};
use crate::sys::clock;

/// What the progress bar counts.
pub(super) const STEPS: usize = 3 * ROUNDS_MAX * (CONNECTS + REQUESTS_KEPT);

const ROUNDS_MAX: usize = 7;
/// No round begins after that, but for the first.
const ROUNDS_TIME_MAX: Duration = Duration::from_secs(15);
/// In one round, in one way, with a connect for each.
const CONNECTS: usize = 1_600;
/// In one round, in one way, over connections that are kept.
const REQUESTS_KEPT: usize = 3_200;
/// No more than millpond's connections, so that nobody waits for one.
const CLIENTS_AT_ONCE: usize = POOL_SIZE;

/// What the ways were measured with, still running.
pub(super) struct Measured {
    pub(super) service: Service,
    pub(super) mill: Mill,
}

/// What was measured.
pub(super) struct Cost {
    short_lived: Ways,
    kept: Ways,
}

/// The ways to the service.
struct Ways {
    straight: Row,
    over_tcp: Row,
    over_unix: Row,
}

/// When a client ends its connection.
#[derive(Debug, Clone, Copy)]
enum Connections {
    /// After each request.
    ShortLived,
    /// After the last one of a round.
    Kept,
}

/// One way to the service, measured.
struct Row {
    way: &'static str,
    dial: Dial,
    connections: Connections,
    /// Shortest first.
    latencies: Vec<Duration>,
    /// Requests a second in each round, slowest first.
    rates: Vec<f64>,
    /// This and the next: `None` where the kernel keeps no account.
    service_cpu: Option<Duration>,
    millpond_cpu: Option<Duration>,
}

/// Measures all ways to one service.
pub(super) async fn measure(
    millpond: &Handle,
    progress: &ProgressBar,
) -> Result<(Cost, Measured), DemoError> {
    let service = Service::start(Behaviour::KeepsOpen)?;
    let mill = Mill::start(millpond, service.address()).await?;
    let ways = |connections| Ways {
        straight: Row::new("straight", Dial::tcp(service.address()), connections),
        over_tcp: Row::new("millpond, TCP", Dial::to(mill.over_tcp()), connections),
        over_unix: Row::new("millpond, Unix", Dial::to(mill.over_unix()), connections),
    };
    let mut cost = Cost {
        short_lived: ways(Connections::ShortLived),
        kept: ways(Connections::Kept),
    };
    let start = clock::now();
    for round in 0..ROUNDS_MAX {
        if round > 0 && start.elapsed() > ROUNDS_TIME_MAX {
            break;
        }
        for ways in [&mut cost.short_lived, &mut cost.kept] {
            ways.straight.measure(progress).await?;
            ways.over_tcp.measure(progress).await?;
            ways.over_unix.measure(progress).await?;
        }
    }
    Ok((cost, Measured { service, mill }))
}

impl Ways {
    fn rows(&self) -> [&Row; 3] {
        [&self.straight, &self.over_tcp, &self.over_unix]
    }
}

impl Row {
    fn new(way: &'static str, dial: Dial, connections: Connections) -> Self {
        Self {
            way,
            dial,
            connections,
            latencies: Vec::new(),
            rates: Vec::new(),
            service_cpu: None,
            millpond_cpu: None,
        }
    }

    /// One more round.
    async fn measure(&mut self, progress: &ProgressBar) -> Result<(), DemoError> {
        progress.set_message(self.way);
        let before = [SERVICE_THREAD, MILLPOND_THREADS].map(cpu_time);
        let start = clock::now();
        let outcomes = match self.connections {
            Connections::ShortLived => short_lived_clients(&self.dial, progress).await,
            Connections::Kept => clients_that_stay(&self.dial, progress).await,
        };
        let rate = outcomes.len() as f64 / start.elapsed().as_secs_f64();
        self.rates.push(rate);
        let after = [SERVICE_THREAD, MILLPOND_THREADS].map(cpu_time);
        add(&mut self.service_cpu, before[0], after[0]);
        add(&mut self.millpond_cpu, before[1], after[1]);
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        let latencies: Result<Vec<_>, _> = outcomes.into_iter().collect();
        self.latencies
            .extend(latencies.map_err(|first| DemoError::ClientsFailed {
                way: self.way,
                count: failed,
                first,
            })?);
        self.latencies.sort_unstable();
        self.rates.sort_unstable_by(f64::total_cmp);
        Ok(())
    }

    /// The median of the rounds.
    fn requests_a_second(&self) -> u64 {
        self.rates[self.rates.len() / 2] as u64
    }

    /// The latency that so many of a hundred requests did not exceed.
    fn quantile(&self, of_hundred: usize) -> Duration {
        let last = self.latencies.len() - 1;
        self.latencies[last * of_hundred / 100]
    }

    fn service_cpu_for_one(&self) -> String {
        self.for_one(self.service_cpu)
    }

    fn millpond_cpu_for_one(&self) -> String {
        self.for_one(self.millpond_cpu)
    }

    fn for_one(&self, cpu: Option<Duration>) -> String {
        or_not_there(cpu, |cpu| time(cpu / self.latencies.len() as u32))
    }
}

/// Adds what was spent between two readings; without a second one there is no account.
fn add(spent: &mut Option<Duration>, before: Option<Duration>, after: Option<Duration>) {
    let turn = after.map(|after| after.saturating_sub(before.unwrap_or_default()));
    *spent = turn.map(|turn| turn + spent.unwrap_or_default());
}

async fn short_lived_clients(
    dial: &Dial,
    progress: &ProgressBar,
) -> Vec<Result<Duration, Failure>> {
    crowd(CONNECTS, CLIENTS_AT_ONCE, |number| {
        let (dial, progress) = (dial.clone(), progress.clone());
        async move {
            let start = clock::now();
            let outcome = short_lived(&dial, number).await;
            progress.inc(1);
            outcome.map(|()| start.elapsed())
        }
    })
    .await
}

async fn clients_that_stay(dial: &Dial, progress: &ProgressBar) -> Vec<Result<Duration, Failure>> {
    const REQUESTS_EACH: usize = REQUESTS_KEPT / CLIENTS_AT_ONCE;
    let clients = crowd(CLIENTS_AT_ONCE, CLIENTS_AT_ONCE, |client| {
        let (dial, progress) = (dial.clone(), progress.clone());
        async move {
            let mut stream = match in_time(async { Ok(dial.connect().await?) }).await {
                Ok(stream) => stream,
                Err(failure) => return vec![Err(failure)],
            };
            let mut outcomes = Vec::with_capacity(REQUESTS_EACH);
            for request in 0..REQUESTS_EACH {
                let number = client * REQUESTS_EACH + request;
                let start = clock::now();
                let outcome = in_time(ask(&mut stream, number)).await;
                progress.inc(1);
                let failed = outcome.is_err();
                outcomes.push(outcome.map(|()| start.elapsed()));
                // What follows a failure over the same connection would prove nothing.
                if failed {
                    break;
                }
            }
            outcomes
        }
    });
    clients.await.into_iter().flatten().collect()
}

impl Cost {
    /// Prints the table and how to measure more.
    pub(super) fn print(&self) {
        let opening = format!(
            "COST. {CLIENTS_AT_ONCE} clients at once, with all of the host's ports: {} requests each way \
             with a connect for each, {} over connections that are kept, in {} turns. Service, \
             clients and millpond use up {} cores together, so latency is in good part waiting for \
             one: compare these figures with each other only.",
            count(self.short_lived.straight.latencies.len()),
            count(self.kept.straight.latencies.len()),
            self.kept.straight.rates.len(),
            std::thread::available_parallelism().map_or(1, usize::from)
        );
        println!("{}\n", paragraph(&opening));
        println!("{}\n", self.table());
        for what in self.meaning() {
            println!("{}", point(&what));
        }
        println!(
            "{}",
            point("Beside nginx and HAProxy: cargo bench --bench proxies")
        );
        println!("\nIn front of your own service:");
        println!(
            "  millpond run --listen 127.0.0.1:8081 --upstream http://127.0.0.1:8080 --admin 127.0.0.1:9900"
        );
        println!("  then send your clients to port 8081 and look at http://127.0.0.1:9900/metrics");
    }

    fn table(&self) -> String {
        let headings = [
            "",
            "requests\na second",
            "median\nlatency",
            "latency\n99 of 100\nstay below",
            "service's\nCPU for\na request",
            "millpond's\nCPU for\na request",
        ];
        let rows = [self.short_lived.rows(), self.kept.rows()];
        let rows = rows.as_flattened().iter().map(|row| {
            let connections = match row.connections {
                Connections::ShortLived => "a connect each",
                Connections::Kept => "kept open",
            };
            [
                format!("{connections}: {}", row.way),
                count(row.requests_a_second()),
                time(row.quantile(50)),
                time(row.quantile(99)),
                row.service_cpu_for_one(),
                row.millpond_cpu_for_one(),
            ]
        });
        table(headings, rows)
    }

    fn meaning(&self) -> [String; 2] {
        let median = |row: &Row| time(row.quantile(50));
        let short_lived = &self.short_lived;
        [
            format!(
                "Clients that keep their connections see the bare hop, and for them millpond is nothing \
                 but that: the median went from {} to {} over TCP, and to {} over a Unix socket.",
                median(&self.kept.straight),
                median(&self.kept.over_tcp),
                median(&self.kept.over_unix)
            ),
            format!(
                "With a connect for each request, the service's CPU for one went from {} to {} behind \
                 millpond over TCP, which accepts and closes in its stead and spent {} on it.",
                short_lived.straight.service_cpu_for_one(),
                short_lived.over_tcp.service_cpu_for_one(),
                short_lived.over_tcp.millpond_cpu_for_one()
            ),
        ]
    }
}
