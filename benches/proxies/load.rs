//! The load: wrk, one thread, as a child, and what it said at its end; or clients of our own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::programs::SMALL_BODY;
use crate::short;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// 50 clients on kept-alive connections, a body of 64 bytes.
    Keepalive,
    /// 50 clients at a time, a new connection for each request, a body of 64 bytes.
    Churn,
    /// 10 clients on kept-alive connections, a body of 1 MB (1,000,000 bytes).
    Bodies,
    /// As [`Workload::Keepalive`], through proxies that know nothing but bytes.
    TcpKeepalive,
    /// As [`Workload::Churn`], through the same.
    TcpChurn,
    /// The same, but the client ends first.
    TcpShort,
    /// As [`Workload::Bodies`], through the same.
    TcpBodies,
    /// 50 clients, one exchange of two frames after the other: a request and a response without a body
    /// both end with an empty line, which is all that the framing knows of them.
    Frames,
}

/// What a proxy must speak to stand under a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Http,
    Tcp,
    Frames,
}

impl Workload {
    pub(crate) const ALL: [Self; 8] = [
        Self::Keepalive,
        Self::Churn,
        Self::Bodies,
        Self::TcpKeepalive,
        Self::TcpChurn,
        Self::TcpShort,
        Self::TcpBodies,
        Self::Frames,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keepalive => "keepalive",
            Self::Churn => "churn",
            Self::Bodies => "bodies",
            Self::TcpKeepalive => "tcp_keepalive",
            Self::TcpChurn => "tcp_churn",
            Self::TcpShort => "tcp_short",
            Self::TcpBodies => "tcp_bodies",
            Self::Frames => "frames",
        }
    }

    pub(crate) fn speech(self) -> Speech {
        match self {
            Self::Keepalive | Self::Churn | Self::Bodies => Speech::Http,
            Self::TcpKeepalive | Self::TcpChurn | Self::TcpShort | Self::TcpBodies => Speech::Tcp,
            Self::Frames => Speech::Frames,
        }
    }

    fn clients(self) -> u32 {
        match self {
            Self::Keepalive
            | Self::Churn
            | Self::TcpKeepalive
            | Self::TcpChurn
            | Self::TcpShort
            | Self::Frames => 50,
            Self::Bodies | Self::TcpBodies => 10,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Keepalive
            | Self::Churn
            | Self::TcpKeepalive
            | Self::TcpChurn
            | Self::TcpShort => "/small",
            Self::Bodies | Self::TcpBodies => "/large",
            Self::Frames => "/empty",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keepalive => "HTTP keep-alive, 50 clients, bodies of 64 bytes",
            Self::Churn => "HTTP, one request for each client connection, 50 at a time, 64 bytes",
            Self::Bodies => "HTTP keep-alive, 10 clients, bodies of 1 MB (a request is a megabyte)",
            Self::TcpKeepalive => "opaque tcp, 50 clients, an answer of 64 bytes after the other",
            Self::TcpChurn => {
                "opaque tcp, one request for each client, the service ends, 50 at a time"
            }
            Self::TcpShort => {
                "opaque tcp, one request for each client, the client ends, 50 at a time"
            }
            Self::TcpBodies => {
                "opaque tcp, 10 clients, 1 MB after the other (a request is a megabyte)"
            }
            Self::Frames => {
                "frames ended by an empty line, 50 clients, one exchange after the other"
            }
        })
    }
}

/// What the clients saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    /// Responses received whole.
    pub(crate) requests: u64,
    /// Socket errors, timeouts and statuses over 399.
    pub(crate) failures: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) latency_p50: Duration,
    pub(crate) latency_p99: Duration,
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("wrk could not be started (Debian: apt-get install wrk): {0}")]
    Absent(io::Error),
    #[error("wrk against {0} ended with {1}:\n{2}")]
    Failed(SocketAddr, std::process::ExitStatus, String),
    #[error("wrk against {0} said what this program does not understand:\n{1}")]
    Unreadable(SocketAddr, String),
}

/// Loads `address` for `duration` and waits for the end.
pub(crate) fn run(
    workload: Workload,
    address: SocketAddr,
    duration: Duration,
) -> Result<Load, LoadError> {
    if workload == Workload::TcpShort {
        let body_end = SMALL_BODY.as_bytes();
        return Ok(short::run(address, workload.path(), body_end, duration));
    }
    let mut command = Command::new("wrk");
    command.args(["--threads", "1", "--latency", "--timeout", "5s"]);
    command.args(["--connections", &workload.clients().to_string()]);
    command.args(["--duration", &format!("{}s", duration.as_secs())]);
    if matches!(workload, Workload::Churn | Workload::TcpChurn) {
        command.args(["--header", "Connection: close"]);
    }
    command.arg(format!("http://{address}{}", workload.path()));
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(LoadError::Absent)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(LoadError::Failed(address, output.status, said + &errors));
    }
    match parse(&said) {
        Some(load) if load.requests > 0 => Ok(load),
        _ => Err(LoadError::Unreadable(address, said)),
    }
}

fn parse(said: &str) -> Option<Load> {
    let lines = || said.lines().map(str::trim);
    let after = |prefix: &str| {
        lines()
            .find_map(|line| line.strip_prefix(prefix))
            .map(str::trim)
    };
    let requests = lines()
        .find_map(|line| line.split_once(" requests in "))?
        .0
        .parse()
        .ok()?;
    let socket_errors: u64 = after("Socket errors:").map_or(0, |counts| {
        counts
            .split([' ', ','])
            .filter_map(|word| word.parse::<u64>().ok())
            .sum()
    });
    let statuses =
        after("Non-2xx or 3xx responses:").map_or(Some(0), |count| count.parse().ok())?;
    Some(Load {
        requests,
        failures: socket_errors + statuses,
        requests_per_second: after("Requests/sec:")?.parse().ok()?,
        latency_p50: parse_time(after("50%")?)?,
        latency_p99: parse_time(after("99%")?)?,
    })
}

/// `812.00us`, `1.23ms`, `2.00s`
fn parse_time(text: &str) -> Option<Duration> {
    let unit_at = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}
