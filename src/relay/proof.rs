//! Finds out whether a service that ended without an answer had the request.
//!
//! Nothing more is written; what the service still sends is read to its end; then TCP is asked, until
//! the service's kernel has answered our bytes, with an ACK or with a RST, or the time is over. The
//! descriptor is held meanwhile, so that the RST is seen. Not here: what the counters mean (see
//! `delivery`), and what follows.

use std::future::{pending, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::time::timeout;

use super::delivery::{self, Delivery, Ours};
use crate::close::linger::ANSWER_TIME_MAX;
use crate::pool::Seen;
use crate::sys::clock;
use crate::sys::tcp_info::{TcpInfo, TcpState, tcp_info};
use crate::transport::Transport;

/// What was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What became of the request.
    pub delivery: Delivery,
    /// What was seen of the service's end; `None` where TCP does not tell.
    pub seen: Option<Seen>,
    /// Bytes that were read and dropped.
    pub dropped_bytes: u64,
}

/// Finds out what became of the last `request_bytes` that were written to `service`. Takes up to
/// [`ANSWER_TIME_MAX`].
pub async fn find_out(service: &mut Transport, request_bytes: u64) -> Found {
    const UNCOUNTED: Found = Found {
        delivery: Delivery::Uncounted,
        seen: None,
        dropped_bytes: 0,
    };
    if !service.is_tcp() || !service.is_dialled() {
        return UNCOUNTED;
    }
    let deadline = clock::now() + ANSWER_TIME_MAX;
    let written_before = service.written_bytes() - request_bytes;
    let mut reading = Reading::default();
    let mut pause = PAUSE_MIN;
    loop {
        reading.read_out(service).await;
        // After the last read: what comes later is no more than a RST or an ACK.
        let Ok(told) = tcp_info(service.as_fd()) else {
            return UNCOUNTED;
        };
        let ours = Ours {
            written_before,
            read_bytes: service.read_bytes(),
            is_read_out: reading.end == Some(End::Zero),
            is_given_up: is_given_up(&told, service),
        };
        let delivery = delivery::judge(&told, ours);
        let is_over = reading.end == Some(End::Bound) || clock::now() >= deadline;
        if delivery != Delivery::Undecided || ours.is_given_up || is_over {
            return Found {
                delivery,
                seen: Some(delivery::seen(&told, ours)),
                dropped_bytes: reading.bytes,
            };
        }
        // A RST is an event, an ACK is none.
        let _elapsed = timeout(pause, reading.event(service)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// So much of what a service sends out of turn is read before it is left undecided.
const READ_BYTES_MAX: u64 = 256 * 1024;

/// How far a service's connection is read.
#[derive(Default)]
struct Reading {
    end: Option<End>,
    bytes: u64,
    has_failed: bool,
}

/// How the reading ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// A read returned 0.
    Zero,
    /// A read failed.
    Error,
    /// The service sent too much.
    Bound,
}

impl Reading {
    /// Reads and drops what is there.
    async fn read_out(&mut self, service: &mut Transport) {
        poll_fn(|context| {
            let mut scratch = [MaybeUninit::uninit(); SCRATCH_BYTES];
            while self.end.is_none() {
                match service.poll_read(context, &mut ReadBuf::uninit(&mut scratch)) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(0)) => self.end = Some(End::Zero),
                    Poll::Ready(Ok(count)) => {
                        self.bytes += count as u64;
                        self.end = (self.bytes > READ_BYTES_MAX).then_some(End::Bound);
                    }
                    Poll::Ready(Err(_)) => self.end = Some(End::Error),
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Waits for more to read; after its end, for the RST, which is told once.
    async fn event(&mut self, service: &Transport) {
        if self.end.is_none() {
            let _ = poll_fn(|context| service.poll_read_ready(context)).await;
        } else if !self.has_failed {
            let _ = service.failed().await;
            self.has_failed = true;
        } else {
            pending::<()>().await;
        }
    }
}

const SCRATCH_BYTES: usize = 4096;

/// Whether the connection is no more for another reason than the service's RST: its kernel heard nothing
/// for too long, or was told to end it. A RST behind a FIN is EPIPE, which a write may have taken.
fn is_given_up(told: &TcpInfo, service: &Transport) -> bool {
    if told.state != TcpState::Close {
        return false;
    }
    let of_reset = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    let error = SockRef::from(service).take_error();
    !matches!(error, Ok(None)) && !matches!(error, Ok(Some(it)) if of_reset.contains(&it.kind()))
}
