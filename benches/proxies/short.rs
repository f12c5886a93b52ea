//! The load of short-lived clients that end first: connect, one request, its answer to the last byte,
//! close. What wrk can't do: its connections are ended by the service.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use crate::load::Load;
use crate::support::clock;

const CLIENTS_AT_ONCE: usize = 50;
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than any answer, so that one read that ends with the body's end is enough.
const ANSWER_BYTES_MAX: usize = 4096;

/// What one lane of clients saw.
#[derive(Default)]
struct Lane {
    latencies: Vec<Duration>,
    failures: u64,
}

/// Loads `address` for `duration`: each client asks for `path` and ends with the answer, which ends
/// with `body_end`.
pub(crate) fn run(address: SocketAddr, path: &str, body_end: &[u8], duration: Duration) -> Load {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let lanes = Mutex::new(Vec::new());
    let start = clock::monotonic();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS_AT_ONCE {
            scope.spawn(|| {
                let mut lane = Lane::default();
                while clock::monotonic() - start < duration {
                    let began = clock::monotonic();
                    match client(address, request.as_bytes(), body_end) {
                        Ok(()) => lane.latencies.push(clock::monotonic() - began),
                        Err(_) => lane.failures += 1,
                    }
                }
                lanes.lock().expect("no lane panics").push(lane);
            });
        }
    });
    let elapsed = clock::monotonic() - start;
    let lanes = lanes.into_inner().expect("no lane panics");
    let failures = lanes.iter().map(|lane| lane.failures).sum();
    let mut latencies: Vec<_> = lanes.into_iter().flat_map(|lane| lane.latencies).collect();
    latencies.sort_unstable();
    let quantile = |percent: usize| {
        let place = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
        latencies.get(place).copied().unwrap_or_default()
    };
    Load {
        requests: latencies.len() as u64,
        failures,
        requests_per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
        latency_p50: quantile(50),
        latency_p99: quantile(99),
    }
}

fn client(address: SocketAddr, request: &[u8], body_end: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let mut filled = 0;
    while !answer[..filled].ends_with(body_end) {
        match stream.read(&mut answer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(())
}
