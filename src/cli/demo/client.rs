//! A client's side of one exchange: the request, and whether the answer is its own.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dial::{Dial, Stream};

const CLIENT_TIME_MAX: Duration = Duration::from_secs(10);
const RESPONSE_BYTES_MAX: usize = 4096;

/// Why a client did not get its answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no port was left (EADDRNOTAVAIL)")]
    NoPort,
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
            // connect(2): all ephemeral ports towards this address are in use.
            io::ErrorKind::AddrNotAvailable => Self::NoPort,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            _ => Self::Io(error),
        }
    }
}

/// Connects, makes one request, checks the answer and ends the connection.
///
/// The client ends it first, so TIME_WAIT is the dialling side's, as with PHP, cron jobs and
/// serverless functions.
pub(super) async fn short_lived(dial: &Dial, number: usize) -> Result<(), Failure> {
    in_time(async {
        let mut stream = dial.connect().await?;
        ask(&mut stream, number).await
        // Everything was read, so dropping the stream sends a FIN.
    })
    .await
}

/// One exchange over a connection that may carry more of them.
pub(super) async fn ask(stream: &mut Stream, number: usize) -> Result<(), Failure> {
    let request = format!("GET /client/{number} HTTP/1.1\r\nHost: demo\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::with_capacity(512);
    loop {
        if response.len() > RESPONSE_BYTES_MAX {
            return Err(Failure::Unreadable);
        }
        if stream.read_buf(&mut response).await? == 0 {
            return Err(Failure::Truncated);
        }
        let Some(head) = head(&response)? else {
            continue;
        };
        let body = &response[head.bytes..];
        if body.len() < head.content_length {
            continue;
        }
        return match body == answer_to(number).as_bytes() {
            true => Ok(()),
            false => Err(Failure::Foreign),
        };
    }
}

/// Fails what takes longer than a client has patience.
pub(super) async fn in_time<T>(
    exchange: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(CLIENT_TIME_MAX, exchange).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(Failure::Late),
    }
}

/// A response's head.
pub(super) struct Head {
    /// Where the body begins.
    pub(super) bytes: usize,
    pub(super) content_length: usize,
}

/// The head of a response with status 200, once all of it is there.
pub(super) fn head(response: &[u8]) -> Result<Option<Head>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Response::new(&mut headers);
    let status = parsed.parse(response).map_err(|_| Failure::Unreadable)?;
    let httparse::Status::Complete(bytes) = status else {
        return Ok(None);
    };
    match parsed.code {
        Some(200) => {}
        Some(code) => return Err(Failure::Status(code)),
        None => return Err(Failure::Unreadable),
    }
    let mut headers = parsed.headers.iter();
    let length = headers.find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    match length {
        Some(content_length) => Ok(Some(Head {
            bytes,
            content_length,
        })),
        None => Err(Failure::Unreadable),
    }
}

/// The one right answer to client `number`: nobody else's is like it.
pub(super) fn answer_to(number: usize) -> String {
    format!("This is the answer to client {number} and to nobody else.\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_head_is_complete_with_its_empty_line() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let end = whole.len() - 3;
        for cut in 0..end {
            assert!(head(&whole[..cut]).unwrap().is_none(), "{cut}");
        }
        let head = head(whole).unwrap().unwrap();
        assert_eq!((head.bytes, head.content_length), (end, 3));
    }

    #[test]
    fn another_status_or_no_length_is_a_failure() {
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        assert!(matches!(head(refusal), Err(Failure::Status(503))));
        let endless = b"HTTP/1.1 200 OK\r\n\r\n";
        assert!(matches!(head(endless), Err(Failure::Unreadable)));
        let foreign = b"220 smtp ready\r\n";
        assert!(matches!(head(foreign), Err(Failure::Unreadable)));
    }
}
