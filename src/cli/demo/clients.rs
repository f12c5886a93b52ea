//! Short-lived clients: connect, one request, check the answer, end the connection.
//!
//! A client ends its connection itself, so TIME_WAIT is the dialling side's, as with PHP, cron jobs
//! and serverless functions. Latency runs from the start of the connect to the end of the answer.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::service::answer_to;
use super::{CHURN_TIME_MAX, CLIENTS, CLIENTS_AT_ONCE};
use crate::sys::clock;

const CLIENT_TIME_MAX: Duration = Duration::from_secs(10);
const RESPONSE_BYTES_MAX: usize = 4096;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
const PROGRESS_WIDTH: usize = 40;

/// Why a client did not get its answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("connection reset by peer")]
    Reset,
    #[error("the answer was another client's")]
    Foreign,
    #[error("the service's side closed before the answer was complete")]
    Truncated,
    #[error("not a response that this client understands")]
    Unreadable,
    #[error("status {0}")]
    Status(u16),
    #[error("no answer within {} s", CLIENT_TIME_MAX.as_secs())]
    Late,
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            _ => Self::Io(error),
        }
    }
}

/// How all clients fared.
#[derive(Default)]
pub(super) struct Churn {
    /// How long each client that got its answer took, shortest first.
    pub(super) latencies: Vec<Duration>,
    pub(super) failures: Vec<Failure>,
    /// From the first client's start to the last one's end.
    pub(super) duration: Duration,
}

impl Churn {
    /// Clients that began.
    pub(super) fn clients(&self) -> usize {
        self.latencies.len() + self.failures.len()
    }

    pub(super) fn resets(&self) -> usize {
        self.failures
            .iter()
            .filter(|failure| matches!(failure, Failure::Reset))
            .count()
    }

    pub(super) fn foreign(&self) -> usize {
        self.failures
            .iter()
            .filter(|failure| matches!(failure, Failure::Foreign))
            .count()
    }
}

/// Sends [`CLIENTS`] clients to `address`.
pub(super) async fn churn(address: SocketAddr, way: &'static str) -> Churn {
    let begun = Arc::new(AtomicUsize::new(0));
    let progress = io::stderr()
        .is_terminal()
        .then(|| AbortOnDropHandle::new(tokio::spawn(show_progress(Arc::clone(&begun), way))));
    let start = clock::now();
    let mut lanes = JoinSet::new();
    for _ in 0..CLIENTS_AT_ONCE {
        let begun = Arc::clone(&begun);
        lanes.spawn(async move {
            let mut lane = Churn::default();
            while start.elapsed() < CHURN_TIME_MAX {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                if number >= CLIENTS {
                    break;
                }
                match timed_client(address, number).await {
                    Ok(latency) => lane.latencies.push(latency),
                    Err(failure) => lane.failures.push(failure),
                }
            }
            lane
        });
    }
    let mut churn = Churn::default();
    for lane in lanes.join_all().await {
        churn.latencies.extend(lane.latencies);
        churn.failures.extend(lane.failures);
    }
    churn.duration = start.elapsed();
    churn.latencies.sort_unstable();
    if let Some(progress) = progress {
        progress.abort();
        let _ = progress.await; // so that it prints nothing after this
        eprint!("\r\x1b[K");
    }
    churn
}

async fn timed_client(address: SocketAddr, number: usize) -> Result<Duration, Failure> {
    let start = clock::now();
    match tokio::time::timeout(CLIENT_TIME_MAX, client(address, number)).await {
        Ok(result) => result.map(|()| start.elapsed()),
        Err(_) => Err(Failure::Late),
    }
}

async fn client(address: SocketAddr, number: usize) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /client/{number} HTTP/1.1\r\nHost: demo\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::with_capacity(512);
    let body = loop {
        if response.len() > RESPONSE_BYTES_MAX {
            return Err(Failure::Unreadable);
        }
        if stream.read_buf(&mut response).await? == 0 {
            return Err(Failure::Truncated);
        }
        if let Some(body) = complete_body(&response)? {
            break body;
        }
    };
    if body != answer_to(number).as_bytes() {
        return Err(Failure::Foreign);
    }
    // Everything was read, so dropping the stream sends a FIN.
    Ok(())
}

/// The body, once all of it is there.
fn complete_body(bytes: &[u8]) -> Result<Option<&[u8]>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(bytes).map_err(|_| Failure::Unreadable)?;
    let httparse::Status::Complete(head_length) = status else {
        return Ok(None);
    };
    match response.code {
        Some(200) => {}
        Some(code) => return Err(Failure::Status(code)),
        None => return Err(Failure::Unreadable),
    }
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| {
        std::str::from_utf8(header.value)
            .ok()?
            .parse::<usize>()
            .ok()
    });
    let body_end = length
        .and_then(|length| length.checked_add(head_length))
        .ok_or(Failure::Unreadable)?;
    Ok(bytes.get(head_length..body_end))
}

async fn show_progress(begun: Arc<AtomicUsize>, way: &'static str) {
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        ticks.tick().await;
        let count = begun.load(Ordering::Relaxed).min(CLIENTS);
        let filled = count * PROGRESS_WIDTH / CLIENTS;
        let (done, left) = ("#".repeat(filled), "·".repeat(PROGRESS_WIDTH - filled));
        eprint!("\r\x1b[K{way:<18} {done}{left} {count} of {CLIENTS}");
        // A terminal that takes no progress bar is no reason to stop.
        let _ = io::stderr().flush();
    }
}
