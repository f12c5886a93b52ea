//! The load: redis-benchmark, one thread, as a child, and what it said at its end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What the clients do: each asks for one value of 64 bytes, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    Clients50,
    Clients500,
    /// 50 clients with 20 requests in flight each.
    Pipelines,
    /// 50 clients at a time, a new connection for each request.
    Churn,
}

impl Workload {
    pub(crate) const ALL: [Self; 4] = [
        Self::Clients50,
        Self::Clients500,
        Self::Pipelines,
        Self::Churn,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clients50 => "clients_50",
            Self::Clients500 => "clients_500",
            Self::Pipelines => "pipelines",
            Self::Churn => "churn",
        }
    }

    /// Enough for a figure, over in a second.
    pub(crate) fn requests_of_trial(self) -> u64 {
        match self {
            Self::Clients50 | Self::Clients500 => 50_000,
            Self::Pipelines => 500_000,
            Self::Churn => 5000,
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Clients50 => &["-c", "50"],
            Self::Clients500 => &["-c", "500"],
            Self::Pipelines => &["-c", "50", "-P", "20"],
            Self::Churn => &["-c", "50", "-k", "0"],
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clients50 => "50 clients, one GET in flight each",
            Self::Clients500 => "500 clients, one GET in flight each",
            Self::Pipelines => "50 clients, 20 GETs in flight each",
            Self::Churn => "50 clients at a time, a connection for each GET",
        })
    }
}

/// What the clients saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) latency_p50: Duration,
    pub(crate) latency_p99: Duration,
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("redis-benchmark could not be started (Debian: apt-get install redis-tools): {0}")]
    Absent(io::Error),
    #[error("redis-benchmark against {0} ended with {1}:\n{2}")]
    Failed(SocketAddr, std::process::ExitStatus, String),
    #[error("redis-benchmark against {0} said what this program does not understand:\n{1}")]
    Unreadable(SocketAddr, String),
}

/// Writes the value that everybody asks for.
pub(crate) fn fill(address: SocketAddr) -> Result<(), LoadError> {
    benchmark(address, "set", 1, &["-c", "1", "-d", "64"]).map(drop)
}

/// So many requests to `address`; waits for the end.
pub(crate) fn run(
    workload: Workload,
    address: SocketAddr,
    requests: u64,
) -> Result<Load, LoadError> {
    let said = benchmark(address, "get", requests, workload.arguments())?;
    match parse(&said, requests) {
        Some(load) => Ok(load),
        None => Err(LoadError::Unreadable(address, said)),
    }
}

fn benchmark(
    address: SocketAddr,
    test: &str,
    requests: u64,
    more: &[&str],
) -> Result<String, LoadError> {
    let output = Command::new("redis-benchmark")
        .args(["-h", &address.ip().to_string()])
        .args(["-p", &address.port().to_string()])
        .args(["-t", test, "-n", &requests.to_string(), "-q", "--csv", "-e"])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .map_err(LoadError::Absent)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    // It goes on after an error that it was answered, and ends well.
    if !output.status.success() || errors.contains("Error from server") {
        return Err(LoadError::Failed(address, output.status, said + &errors));
    }
    Ok(said)
}

/// The row `"GET","142857.14",…` under a head that names its columns; times are in milliseconds.
fn parse(said: &str, requests: u64) -> Option<Load> {
    let columns = |line: &str| -> Vec<String> {
        let cells = line.split(',');
        cells
            .map(|cell| cell.trim_matches('"').to_owned())
            .collect()
    };
    let head = columns(said.lines().find(|line| line.starts_with("\"test\""))?);
    let row = columns(said.lines().find(|line| line.starts_with("\"GET\""))?);
    let figure = |name: &str| -> Option<f64> {
        let place = head.iter().position(|column| column == name)?;
        row.get(place)?.parse().ok()
    };
    let time = |name: &str| Duration::try_from_secs_f64(figure(name)? / 1e3).ok();
    Some(Load {
        requests,
        requests_per_second: figure("rps")?,
        latency_p50: time("p50_latency_ms")?,
        latency_p99: time("p99_latency_ms")?,
    })
}
