//! Two opaque directions between a client and the connection it is pinned to.
//!
//! ```text
//! each direction:  Open ──FIN read──► Emptying ──all written, FIN passed on──► Shut
//! ```
//!
//! Half-close goes through both ways, with a finite limit on the second half; a reset on one side is
//! passed on to the other. A direction that waits for bytes holds no buffer.
//!
//! Not here: how the two connections are closed afterwards (see `session`).

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::buffer::Buffer;
use super::client::Client;
use crate::close::Side;
use crate::stats::sessions::Command;
use crate::sys::clock;
use crate::transport::Transport;

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides said FIN, and both have all bytes.
    Fin {
        /// The side that said it first.
        first: Side,
    },
    /// This side was reset, or its kernel gave it up.
    Reset(Side),
    /// No byte moved for the idle limit.
    Idle,
    /// One side had ended, and the other went on for longer than the half-close limit.
    HalfClosed {
        /// The side that had ended.
        ended: Side,
        /// The other side was told: its FIN was passed on.
        is_passed: bool,
    },
    /// One of the limits passed while this side would not take what was read for it: those bytes
    /// are lost, and neither side may take the end for one in order.
    Withheld(Side),
    /// An operator cut it off.
    Cut,
}

/// How long a tunnel may go on.
#[derive(Debug, Clone, Copy)]
pub struct TunnelLimits {
    /// Without a byte in either direction.
    pub idle: Duration,
    /// After one side's FIN.
    pub half_closed: Duration,
}

/// A tunnel; `from_service` may hold what the service has sent already.
pub async fn run(
    client: &mut Client,
    service: &mut Transport,
    from_service: Buffer,
    limits: TunnelLimits,
) -> TunnelEnd {
    let mut tunnel = Tunnel {
        to_service: Direction::Open,
        to_client: Direction::Open,
        from_service,
        moved_at: clock::now(),
        service_is_broken: false,
        first_end: None,
    };
    if client.has_ended {
        // Its FIN was read while the exchange was still one; it is passed on like any other.
        tunnel.to_service = Direction::Emptying;
    }
    poll_fn(|context| tunnel.poll(client, service, limits, context)).await
}

struct Tunnel {
    to_service: Direction,
    to_client: Direction,
    from_service: Buffer,
    moved_at: Instant,
    /// It takes no more bytes: reset, or closed with some unread.
    service_is_broken: bool,
    /// The side whose FIN came first, and when.
    first_end: Option<(Side, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Open,
    Emptying,
    Shut,
}

/// What becomes of a FIN that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fin {
    Passed,
    /// A reset follows, and must not look like an end in order before it comes.
    Kept,
}

/// Which of the two ends of a direction failed.
enum Failed {
    Source,
    Sink,
}

impl Tunnel {
    fn poll(
        &mut self,
        client: &mut Client,
        service: &mut Transport,
        limits: TunnelLimits,
        context: &mut Context<'_>,
    ) -> Poll<TunnelEnd> {
        let (socket, inbound) = (&mut client.transport, &mut client.inbound);
        let held_before = inbound.filled().len() as u64;
        let up = self
            .to_service
            .poll(socket, inbound, service, Fin::Passed, context);
        let up = match up {
            Ok(bytes) => bytes,
            Err(Failed::Source) => return Poll::Ready(TunnelEnd::Reset(Side::Downstream)),
            Err(Failed::Sink) => {
                // What the service sent before it went is still to be delivered.
                self.to_service = Direction::Shut;
                self.service_is_broken = true;
                0
            }
        };
        let fin = if self.service_is_broken {
            Fin::Kept
        } else {
            Fin::Passed
        };
        let from_service = &mut self.from_service;
        let down = match self
            .to_client
            .poll(service, from_service, socket, fin, context)
        {
            Ok(bytes) => bytes,
            Err(Failed::Source) => return Poll::Ready(TunnelEnd::Reset(Side::Upstream)),
            Err(Failed::Sink) => return Poll::Ready(TunnelEnd::Reset(Side::Downstream)),
        };
        // What was held before has been counted when it was read.
        let read = (up + client.inbound.filled().len() as u64).saturating_sub(held_before);
        client.facts.add_read_bytes(read);
        if up + down > 0 {
            self.moved_at = clock::now();
            client.facts.add_written_bytes(down);
        }
        client.has_ended = self.to_service != Direction::Open && !self.service_is_broken;
        if self.service_is_broken && self.to_client == Direction::Shut {
            return Poll::Ready(TunnelEnd::Reset(Side::Upstream));
        }
        self.note_first_end();
        match self.first_end {
            Some((first, _)) if self.is_shut() => return Poll::Ready(TunnelEnd::Fin { first }),
            _ => {}
        }
        if client.poll_command(context) == Command::Cut {
            return Poll::Ready(TunnelEnd::Cut);
        }
        let (deadline, end) = match self.first_end {
            // The service is gone, and the client is only slow to take what it left.
            Some(_) if self.service_is_broken => {
                let end = TunnelEnd::Reset(Side::Upstream);
                (self.moved_at + limits.half_closed, end)
            }
            Some((ended, at)) => {
                let is_passed = self.is_passed(ended);
                let end = TunnelEnd::HalfClosed { ended, is_passed };
                (at + limits.half_closed, end)
            }
            None => (self.moved_at + limits.idle, TunnelEnd::Idle),
        };
        ready!(client.alarm.poll(context, deadline));
        Poll::Ready(if !self.from_service.is_empty() {
            TunnelEnd::Withheld(Side::Downstream)
        } else if !client.inbound.is_empty() && !self.service_is_broken {
            TunnelEnd::Withheld(Side::Upstream)
        } else {
            end
        })
    }

    fn is_shut(&self) -> bool {
        self.to_service == Direction::Shut && self.to_client == Direction::Shut
    }

    /// Whether the FIN of `side` was passed on.
    fn is_passed(&self, side: Side) -> bool {
        match side {
            Side::Downstream => self.to_service == Direction::Shut && !self.service_is_broken,
            Side::Upstream => self.to_client == Direction::Shut,
        }
    }

    fn note_first_end(&mut self) {
        if self.first_end.is_some() {
            return;
        }
        let ended = match (self.to_service, self.to_client) {
            (Direction::Open, Direction::Open) => return,
            (Direction::Open, _) => Side::Upstream,
            (_, _) => Side::Downstream,
        };
        self.first_end = Some((ended, clock::now()));
    }
}

impl Direction {
    /// Moves bytes until one of the two sides has to be waited for; how many were written.
    fn poll(
        &mut self,
        source: &mut Transport,
        buffer: &mut Buffer,
        sink: &mut Transport,
        fin: Fin,
        context: &mut Context<'_>,
    ) -> Result<u64, Failed> {
        let mut written = 0;
        while *self != Self::Shut {
            match poll_empty(buffer, sink, &mut written, context) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => return Err(Failed::Sink),
                Poll::Ready(Ok(())) => {}
            }
            if *self == Self::Emptying {
                if fin == Fin::Passed {
                    SockRef::from(&*sink)
                        .shutdown(Shutdown::Write)
                        .map_err(|_| Failed::Sink)?;
                }
                *self = Self::Shut;
                break;
            }
            buffer.rest();
            match buffer.poll_read(source, context) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => *self = Self::Emptying,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Err(Failed::Source),
            }
        }
        Ok(written)
    }
}

fn poll_empty(
    buffer: &mut Buffer,
    sink: &mut Transport,
    written: &mut u64,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !buffer.is_empty() {
        let count = ready!(sink.poll_write(context, buffer.filled(), &[]))?;
        buffer.consume(count);
        *written += count as u64;
    }
    Poll::Ready(Ok(()))
}
