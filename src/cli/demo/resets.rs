//! The second table: long answers from a service that ends each connection first.
//!
//! The clients' small receive buffers stand for a network that is slower than loopback: most of an
//! answer is still on its way when the service closes.

use std::net::SocketAddrV4;

use indicatif::ProgressBar;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;

use super::DemoError;
use super::census::{self, TimeWait};
use super::client::{Failure, head, in_time};
use super::closer::{ANSWER_BYTES, Close, long_answer_to};
use super::crowd::crowd;
use super::dial::{Dial, Stream};
use super::mill::Mill;
use super::service::{Behaviour, Service};
use crate::admin::Control;
use crate::cli::table::{count, paragraph, point, table};
use crate::sys::clock;

/// What the progress bar counts.
pub(super) const STEPS: usize = 4 * CLIENTS;

const CLIENTS: usize = 200;
const CLIENTS_AT_ONCE: usize = 8;
const RECEIVE_BYTES: u32 = 16 * 1024;
const HEAD_BYTES_MAX: usize = 4096;

const STRAIGHT: &str = "straight, normal close";
const STRAIGHT_LINGER: &str = "straight, SO_LINGER 0";
const POOLED: &str = "through millpond, normal close";
const POOLED_LINGER: &str = "through millpond, SO_LINGER 0";

/// What was measured.
pub(super) struct Resets {
    straight: Row,
    straight_linger: Row,
    pooled: Row,
    pooled_linger: Row,
}

/// One way to a service, measured.
struct Row {
    way: &'static str,
    /// Clients that saw "connection reset by peer".
    resets: usize,
    cut_short: usize,
    lost_bytes: u64,
    /// TIME_WAIT on the leg to the service, on either side.
    time_wait: usize,
    /// What should not have happened in any way.
    failures: Vec<Failure>,
    at_millpond: Option<AtMillpond>,
}

/// What there was to see at a millpond.
struct AtMillpond {
    /// TIME_WAIT on the leg from the clients.
    time_wait: TimeWait,
    /// Resets from the service, by its ledger.
    resets_from_service: u64,
}

/// How much of an answer a client got.
struct Answer {
    lost_bytes: usize,
    reset: bool,
}

/// Sends the clients each way, to a service and a millpond of that way's own.
pub(super) async fn measure(
    millpond: &Handle,
    progress: &ProgressBar,
) -> Result<Resets, DemoError> {
    Ok(Resets {
        straight: straight(STRAIGHT, Close::Normal, progress).await?,
        straight_linger: straight(STRAIGHT_LINGER, Close::LingerZero, progress).await?,
        pooled: pooled(POOLED, Close::Normal, millpond, progress).await?,
        pooled_linger: pooled(POOLED_LINGER, Close::LingerZero, millpond, progress).await?,
    })
}

async fn straight(
    way: &'static str,
    close: Close,
    progress: &ProgressBar,
) -> Result<Row, DemoError> {
    let service = Service::start(Behaviour::ClosesFirst(close))?;
    row(way, &service, Dial::tcp(service.address()), progress).await
}

async fn pooled(
    way: &'static str,
    close: Close,
    millpond: &Handle,
    progress: &ProgressBar,
) -> Result<Row, DemoError> {
    let service = Service::start(Behaviour::ClosesFirst(close))?;
    let mill = Mill::start(millpond, service.address()).await?;
    let row = row(way, &service, Dial::to(mill.over_tcp()), progress).await?;
    let ledger = mill.proxy.tree().snapshot(clock::now());
    let resets = ledger.upstreams.values().flat_map(|it| &it.resets);
    let received = resets.filter(|it| it.direction == "received");
    let at_millpond = Some(AtMillpond {
        resets_from_service: received.map(|it| it.count).sum(),
        time_wait: time_wait(mill.tcp).await?,
    });
    mill.stop().await?;
    Ok(Row { at_millpond, ..row })
}

async fn row(
    way: &'static str,
    service: &Service,
    dial: Dial,
    progress: &ProgressBar,
) -> Result<Row, DemoError> {
    progress.set_message(way);
    let dial = Dial {
        receive_bytes: Some(RECEIVE_BYTES),
        ..dial
    };
    let outcomes = crowd(CLIENTS, CLIENTS_AT_ONCE, |number| {
        let (dial, progress) = (dial.clone(), progress.clone());
        async move {
            let outcome = in_time(client(&dial, number)).await;
            progress.inc(1);
            outcome
        }
    });
    let mut row = Row {
        way,
        resets: 0,
        cut_short: 0,
        lost_bytes: 0,
        time_wait: 0,
        failures: Vec::new(),
        at_millpond: None,
    };
    for outcome in outcomes.await {
        match outcome {
            Ok(answer) => {
                row.resets += usize::from(answer.reset);
                row.cut_short += usize::from(answer.lost_bytes > 0);
                row.lost_bytes += answer.lost_bytes as u64;
            }
            Err(failure) => row.failures.push(failure),
        }
    }
    let at_service = time_wait(service.address()).await?;
    row.time_wait = at_service.dialling + at_service.listening;
    Ok(row)
}

async fn time_wait(address: SocketAddrV4) -> Result<TimeWait, DemoError> {
    census::time_wait(address).await.map_err(DemoError::Census)
}

/// Asks, and reads until the end, whatever it is.
async fn client(dial: &Dial, number: usize) -> Result<Answer, Failure> {
    let mut stream = dial.connect().await?;
    let request =
        format!("GET /client/{number} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (response, reset) = read_to_end(&mut stream).await?;
    let Some(head) = head(&response)? else {
        return Ok(Answer {
            lost_bytes: ANSWER_BYTES,
            reset,
        });
    };
    let body = &response[head.bytes..];
    match long_answer_to(number).strip_prefix(body) {
        Some(missing) => Ok(Answer {
            lost_bytes: missing.len(),
            reset,
        }),
        None => Err(Failure::Foreign),
    }
}

/// What came before the end, and whether the end was a reset.
async fn read_to_end(stream: &mut Stream) -> Result<(Vec<u8>, bool), Failure> {
    let mut response = Vec::with_capacity(HEAD_BYTES_MAX + ANSWER_BYTES);
    while response.len() < HEAD_BYTES_MAX + ANSWER_BYTES {
        match stream.read_buf(&mut response).await.map_err(Failure::from) {
            Ok(0) => return Ok((response, false)),
            Ok(_) => {}
            Err(Failure::Reset) => return Ok((response, true)),
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Unreadable)
}

impl Resets {
    fn rows(&self) -> [&Row; 4] {
        [
            &self.straight,
            &self.straight_linger,
            &self.pooled,
            &self.pooled_linger,
        ]
    }

    /// Prints the table and what it means.
    pub(super) fn print(&self) {
        let opening = format!(
            "RESETS. {} clients with receive buffers of {} KiB ask for {} KiB each, from a service \
             that ends each connection first: with a FIN, or with SO_LINGER 0, the folk remedy \
             against TIME_WAIT.",
            count(CLIENTS),
            RECEIVE_BYTES / 1024,
            ANSWER_BYTES / 1024
        );
        println!("{}\n", paragraph(&opening));
        println!("{}\n", self.table());
        for what in self.meaning() {
            println!("{}", point(&what));
        }
        println!();
    }

    fn table(&self) -> String {
        let headings = [
            "",
            "\"connection\nreset by\npeer\" seen",
            "answers\ncut\nshort",
            "bytes\nlost",
            "TIME_WAIT\non the leg to\nthe service",
        ];
        let rows = self.rows().map(|row| {
            [
                row.way.to_owned(),
                count(row.resets),
                count(row.cut_short),
                count(row.lost_bytes),
                count(row.time_wait),
            ]
        });
        table(headings, rows)
    }

    fn meaning(&self) -> Vec<String> {
        let mut meaning = vec![format!(
            "SO_LINGER 0 leaves {} TIME_WAIT where a normal close leaves {}, and throws away what the \
             clients have not received yet: {} bytes.",
            count(self.straight_linger.time_wait),
            count(self.straight.time_wait),
            count(self.straight_linger.lost_bytes)
        )];
        if let Some(seen) = &self.pooled.at_millpond {
            meaning.push(format!(
                "millpond ends with a FIN, then reads until the client's: {} resets, {} bytes lost. \
                 These clients asked it to (Connection: close), so TIME_WAIT of their leg, {}, is on \
                 its listening side, where it holds no port; {} with the clients.",
                count(self.pooled.resets),
                count(self.pooled.lost_bytes),
                count(seen.time_wait.listening),
                count(seen.time_wait.dialling)
            ));
        }
        meaning.push(format!(
            "A pool can't keep what the service ends after each answer: {} TIME_WAIT there behind \
             millpond too. Let the service keep its connections, as in the first table.",
            count(self.pooled.time_wait)
        ));
        if let Some(seen) = &self.pooled_linger.at_millpond {
            meaning.push(format!(
                "What a service throws away, millpond can't bring back: {} answers cut short. It never \
                 makes whole ones of them: they end before their declared length, and its ledger \
                 counts {} resets from the service.",
                count(self.pooled_linger.cut_short),
                count(seen.resets_from_service)
            ));
        }
        meaning
    }

    /// Whether it was what the table is meant to show.
    pub(super) fn judge(self) -> Result<(), DemoError> {
        if self.straight_linger.lost_bytes == 0 {
            return Err(DemoError::NotShown {
                way: STRAIGHT_LINGER,
                what: "a loss of bytes",
            });
        }
        self.straight.judge(Close::Normal)?;
        self.straight_linger.judge(Close::LingerZero)?;
        self.pooled.judge(Close::Normal)?;
        self.pooled_linger.judge(Close::LingerZero)
    }
}

impl Row {
    /// A service that closes normally has every answer delivered whole.
    fn judge(mut self, close: Close) -> Result<(), DemoError> {
        if close == Close::Normal {
            let resets = (0..self.resets).map(|_| Failure::Reset);
            self.failures.extend(resets);
            let cut = self.cut_short.saturating_sub(self.resets);
            self.failures.extend((0..cut).map(|_| Failure::Truncated));
        }
        let count = self.failures.len();
        match self.failures.into_iter().next() {
            Some(first) => Err(DemoError::ClientsFailed {
                way: self.way,
                count,
                first,
            }),
            None => Ok(()),
        }
    }
}
