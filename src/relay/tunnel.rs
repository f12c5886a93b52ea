//! Two opaque directions between a client and the connection it is pinned to.
//!
//! ```text
//! each direction:  Open ──FIN read──► Emptying ──all written, FIN passed on──► Shut
//! ```
//!
//! Half-close goes through both ways, with a finite limit on the second half. A side that is reset
//! leaves behind what arrived from it: that is delivered first, then the reset is passed on. A
//! direction that waits for bytes holds no buffer.
//!
//! Where the connection may serve another client after this one, a client's FIN after the service's
//! last word is kept from the service, and the tunnel ends once the service has been quiet.
//!
//! Not here: how the two connections are closed afterwards, and whether the service's is lent again
//! (see `session`).

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::buffer::Buffer;
use super::client::Client;
use super::crossing::{Heard, heard};
use super::transcript::Transcript;
use crate::close::Side;
use crate::close::classify::{Loss, loss};
use crate::pool::{Look, ask_kernel};
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
        /// The other side was told of it before it said its own.
        is_passed: bool,
    },
    /// The client said FIN after the service's last word, and the service has been quiet since for
    /// as long as it must. It was not told of the FIN.
    Quiet,
    /// A drain was asked for when the service had the last word and had been quiet for as long.
    Drained,
    /// On a connection that had served others, this was found before anything of this client's was
    /// written, and neither side knows of the other.
    Unfit(Look),
    /// On a connection that had served others, bytes came that can't be meant for this client. None
    /// of them went on.
    Crossed {
        /// The service has been sent nothing of this client's.
        is_unsent: bool,
    },
    /// This side was reset.
    Reset(Side),
    /// This side is gone without a word: its kernel gave it up.
    Vanished(Side),
    /// No byte moved for the idle limit.
    Idle,
    /// This side had ended, and the other said nothing for the half-close limit.
    HalfClosed(Side),
    /// The service was still answering a client that had said FIN when the half-close limit passed:
    /// its answer is cut short.
    Outlasted,
    /// One of the limits passed while this side would not take what was read for it: those bytes
    /// are lost, and neither side may take the end for one in order.
    Withheld(Side),
    /// An operator cut it off.
    Cut,
}

impl TunnelEnd {
    fn lost(side: Side, loss: Loss) -> Self {
        match loss {
            Loss::Reset => Self::Reset(side),
            Loss::Vanished => Self::Vanished(side),
        }
    }
}

/// How a tunnel is led.
#[derive(Debug, Clone, Copy)]
pub struct TunnelRules {
    /// How long it may go on without a byte in either direction.
    pub idle: Duration,
    /// How long it may go on without a byte after one side's FIN.
    pub half_closed: Duration,
    /// The connection may serve another client afterwards, once the service has been silent for so
    /// long. `None`: it may not.
    pub quiet: Option<Duration>,
    /// It has served others before, so that what comes from it may be meant for one of them.
    pub has_served: bool,
    /// The service has said something already, which waits to be read.
    pub is_greeted: bool,
}

/// What there is to tell of a tunnel that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How.
    pub end: TunnelEnd,
    /// Who spoke when.
    pub transcript: Transcript,
    /// Bytes of the service's that were read and that the client was not given.
    pub undelivered_bytes: u64,
}

/// A tunnel; `from_service` may hold what the service has sent already.
pub async fn run(
    client: &mut Client,
    service: &mut Transport,
    from_service: Buffer,
    rules: TunnelRules,
) -> Ended {
    let held_bytes = from_service.filled().len() as u64;
    let (read_before, given_before) = (service.read_bytes(), client.transport.written_bytes());
    let mut tunnel = Tunnel {
        rules,
        to_service: Direction::Open,
        to_client: Direction::Open,
        from_service,
        moved_at: clock::now(),
        broken: None,
        first_end: None,
        is_fin_kept: false,
        outlasts_client: false,
        transcript: Transcript::default(),
        burst_bytes: 0,
    };
    if rules.is_greeted {
        tunnel.transcript.service_greets();
    }
    if !client.inbound.is_empty() {
        tunnel.transcript.client_said(client.inbound.filled());
    }
    if client.has_ended {
        // Its FIN was read before; it is passed on like any other.
        tunnel.to_service = Direction::Emptying;
    }
    let end = poll_fn(|context| tunnel.poll(client, service, context)).await;
    let came_bytes = held_bytes + service.read_bytes() - read_before;
    let given_bytes = client.transport.written_bytes() - given_before;
    Ended {
        end,
        transcript: tunnel.transcript,
        undelivered_bytes: came_bytes - given_bytes,
    }
}

struct Tunnel {
    rules: TunnelRules,
    to_service: Direction,
    to_client: Direction,
    from_service: Buffer,
    moved_at: Instant,
    /// The side that takes no more bytes, and how it was lost.
    broken: Option<(Side, Loss)>,
    /// The side whose FIN came first, and when.
    first_end: Option<(Side, Instant)>,
    /// The client's FIN came after the service's last word, and the service was not told.
    is_fin_kept: bool,
    /// The service's bytes have gone to a client that had said FIN before.
    outlasts_client: bool,
    transcript: Transcript,
    /// Bytes written to the service since it last spoke.
    burst_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Open,
    /// Its source has said FIN; what was read before is being written.
    Emptying,
    Shut,
}

/// Why a direction can't go on.
enum Failed {
    Source(Loss),
    Sink(Loss),
    /// What was read must not be passed on.
    Foreign,
}

impl Tunnel {
    fn poll(
        &mut self,
        client: &mut Client,
        service: &mut Transport,
        context: &mut Context<'_>,
    ) -> Poll<TunnelEnd> {
        if let Some(found) = self.look_before_writing(service) {
            return Poll::Ready(TunnelEnd::Unfit(found));
        }
        let up = match self.poll_up(client, service, context) {
            Ok(bytes) => bytes,
            Err(end) => return Poll::Ready(end),
        };
        let has_client_ended = self.to_service != Direction::Open;
        let down = match self.poll_down(client, service, context) {
            Ok(bytes) => bytes,
            Err(end) => return Poll::Ready(end),
        };
        if up + down > 0 {
            self.moved_at = clock::now();
            client.facts.add_written_bytes(down);
        }
        self.outlasts_client |= has_client_ended && down > 0;
        client.has_ended = self.to_service != Direction::Open && self.broken.is_none();
        if let Some((side, loss)) = self.broken {
            // What it left behind goes the other way first.
            let rest = match side {
                Side::Upstream => self.to_client,
                Side::Downstream => self.to_service,
            };
            if rest == Direction::Shut {
                return Poll::Ready(TunnelEnd::lost(side, loss));
            }
        }
        self.note_first_end();
        match self.first_end {
            Some((first, _)) if self.is_shut() => {
                let is_passed = self.is_passed(first);
                return Poll::Ready(TunnelEnd::Fin { first, is_passed });
            }
            _ => {}
        }
        let command = client.poll_command(context);
        if command == Command::Cut {
            return Poll::Ready(TunnelEnd::Cut);
        }
        loop {
            let (deadline, end) = self.deadline(client, command);
            ready!(client.alarm.poll(context, deadline));
            if !matches!(end, TunnelEnd::Quiet | TunnelEnd::Drained) {
                return Poll::Ready(end);
            }
            match ask_kernel(service) {
                Look::Quiet => return Poll::Ready(end),
                Look::Reset => return Poll::Ready(TunnelEnd::Reset(Side::Upstream)),
                Look::Vanished => return Poll::Ready(TunnelEnd::Vanished(Side::Upstream)),
                // The runtime has not told yet, and will.
                Look::Bytes | Look::Fin => self.moved_at = clock::now(),
            }
        }
    }

    /// What there is in a connection that has served others, while nothing of this client's is written
    /// to it. Once that is acknowledged, such bytes could not be told from its answer.
    fn look_before_writing(&self, service: &Transport) -> Option<Look> {
        let is_untouched = self.rules.has_served
            && self.burst_bytes == 0
            && self.to_service != Direction::Shut
            && !self.transcript.service_has_spoken();
        is_untouched
            .then(|| ask_kernel(service))
            .filter(|&found| found != Look::Quiet)
    }

    /// Moves the client's bytes; how many were written.
    fn poll_up(
        &mut self,
        client: &mut Client,
        service: &mut Transport,
        context: &mut Context<'_>,
    ) -> Result<u64, TunnelEnd> {
        let (socket, inbound) = (&mut client.transport, &mut client.inbound);
        let (transcript, facts) = (&mut self.transcript, &client.facts);
        let hear = |_: &Transport, bytes: &[u8]| {
            transcript.client_said(bytes);
            facts.add_read_bytes(bytes.len() as u64);
            true
        };
        let mut written = 0;
        let moved = self
            .to_service
            .poll(socket, inbound, service, &mut written, context, hear);
        if written > 0 {
            self.burst_bytes += written;
            self.transcript.service_was_told();
        }
        match moved.and_then(|()| self.pass_clients_fin(client, service)) {
            Ok(()) => {}
            Err(Failed::Source(loss)) => return Err(TunnelEnd::lost(Side::Downstream, loss)),
            Err(Failed::Foreign) => unreachable!("what a client says is its own"),
            Err(Failed::Sink(loss)) => {
                // What the service sent before it went is still to be delivered.
                self.to_service = Direction::Shut;
                self.broken.get_or_insert((Side::Upstream, loss));
            }
        }
        Ok(written)
    }

    /// Passes the client's FIN on once everything before it is written, or keeps it from a service
    /// that may serve another.
    fn pass_clients_fin(&mut self, client: &Client, service: &mut Transport) -> Result<(), Failed> {
        if self.to_service != Direction::Emptying || !client.inbound.is_empty() {
            return Ok(());
        }
        if !self.is_broken(Side::Downstream) {
            self.is_fin_kept = self.is_at_rest();
            // Where the service has ended too, its connection is closed at once, which says the same.
            if !self.is_fin_kept && self.to_client != Direction::Shut {
                pass_fin(service)?;
            }
        }
        self.to_service = Direction::Shut;
        Ok(())
    }

    /// Moves the service's bytes; how many were written.
    fn poll_down(
        &mut self,
        client: &mut Client,
        service: &mut Transport,
        context: &mut Context<'_>,
    ) -> Result<u64, TunnelEnd> {
        let (rules, transcript) = (self.rules, &mut self.transcript);
        let burst_bytes = &mut self.burst_bytes;
        let hear = |service: &Transport, _: &[u8]| {
            let is_shared = rules.quiet.is_some() || rules.has_served;
            let is_judged = is_shared && !transcript.is_answered();
            let heard = match is_judged {
                true => heard(service, *burst_bytes),
                false => Heard::All,
            };
            // The first bytes for this client can't be these; later ones are its own, but no answer.
            let is_foreign =
                heard == Heard::Nothing && rules.has_served && !transcript.service_has_spoken();
            match heard {
                Heard::Nothing => transcript.service_spoke_unasked(),
                Heard::Part => transcript.service_interjected(),
                Heard::All => {
                    transcript.service_said();
                    *burst_bytes = 0;
                }
            }
            !is_foreign
        };
        let socket = &mut client.transport;
        let mut written = 0;
        let from_service = &mut self.from_service;
        let moved = self
            .to_client
            .poll(service, from_service, socket, &mut written, context, hear);
        match moved.and_then(|()| self.pass_services_fin(client)) {
            Ok(()) => {}
            Err(Failed::Source(loss)) => return Err(TunnelEnd::lost(Side::Upstream, loss)),
            Err(Failed::Foreign) => {
                let is_unsent = self.burst_bytes == 0;
                return Err(TunnelEnd::Crossed { is_unsent });
            }
            Err(Failed::Sink(loss)) => {
                // What the client sent before it went is still to be delivered.
                self.to_client = Direction::Shut;
                self.from_service.consume(self.from_service.filled().len());
                self.broken.get_or_insert((Side::Downstream, loss));
            }
        }
        Ok(written)
    }

    /// Passes the service's FIN on once everything before it is written. One from a service that is
    /// broken is kept: a reset follows, and must not look like an end in order before it comes.
    fn pass_services_fin(&mut self, client: &mut Client) -> Result<(), Failed> {
        if self.to_client != Direction::Emptying || !self.from_service.is_empty() {
            return Ok(());
        }
        if !self.is_broken(Side::Upstream) {
            pass_fin(&mut client.transport)?;
        }
        self.to_client = Direction::Shut;
        Ok(())
    }

    /// Whether another client could begin here, as far as can be told from who spoke when.
    fn is_at_rest(&self) -> bool {
        self.rules.quiet.is_some()
            && self.transcript.is_answered()
            && self.transcript.spoiled().is_none()
    }

    /// When the tunnel ends if nothing happens before, and how.
    fn deadline(&self, client: &Client, command: Command) -> (Instant, TunnelEnd) {
        let half_closed = self.rules.half_closed;
        let (deadline, end) = match (self.broken, self.first_end) {
            // One side is gone, and the other is only slow to take what it left.
            (Some((side, loss)), _) => (self.moved_at + half_closed, TunnelEnd::lost(side, loss)),
            (None, Some((ended, at))) => {
                let end = match self.outlasts_client {
                    true => TunnelEnd::Outlasted,
                    false => TunnelEnd::HalfClosed(ended),
                };
                (at + half_closed, end)
            }
            (None, None) => (self.moved_at + self.rules.idle, TunnelEnd::Idle),
        };
        let withheld = if !self.from_service.is_empty() {
            Some(Side::Downstream)
        } else if !client.inbound.is_empty() && !self.is_broken(Side::Upstream) {
            Some(Side::Upstream)
        } else {
            None
        };
        if let Some(side) = withheld {
            return (deadline, TunnelEnd::Withheld(side));
        }
        match self.quiet_end(command) {
            // A service that is never quiet for so long has no more time than any other.
            Some((quiet_at, quiet)) if quiet_at <= deadline => (quiet_at, quiet),
            _ => (deadline, end),
        }
    }

    /// When the service will have been quiet for long enough, and how the tunnel ends then, if it may.
    fn quiet_end(&self, command: Command) -> Option<(Instant, TunnelEnd)> {
        let quiet_at = self.moved_at + self.rules.quiet?;
        if self.is_fin_kept {
            Some((quiet_at, TunnelEnd::Quiet))
        } else if command == Command::Drain && self.first_end.is_none() && self.is_at_rest() {
            Some((quiet_at, TunnelEnd::Drained))
        } else {
            None
        }
    }

    fn is_broken(&self, side: Side) -> bool {
        self.broken.is_some_and(|(broken, _)| broken == side)
    }

    fn is_shut(&self) -> bool {
        self.to_service == Direction::Shut && self.to_client == Direction::Shut
    }

    /// Whether the FIN of `side` was passed on.
    fn is_passed(&self, side: Side) -> bool {
        match side {
            Side::Downstream => self.to_service == Direction::Shut && !self.is_fin_kept,
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
    /// Moves bytes until one of the two sides has to be waited for, and adds to `written` what was
    /// written, also where it fails. What is read is shown to `hear`, which says whether it may go on.
    fn poll(
        &mut self,
        source: &mut Transport,
        buffer: &mut Buffer,
        sink: &mut Transport,
        written: &mut u64,
        context: &mut Context<'_>,
        mut hear: impl FnMut(&Transport, &[u8]) -> bool,
    ) -> Result<(), Failed> {
        while *self != Self::Shut {
            match poll_empty(buffer, sink, written, context) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Err(Failed::Sink(loss(&error))),
                Poll::Ready(Ok(())) => {}
            }
            if *self == Self::Emptying {
                break;
            }
            buffer.rest();
            match buffer.poll_read(source, context) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => *self = Self::Emptying,
                Poll::Ready(Ok(_)) if hear(source, buffer.filled()) => {}
                Poll::Ready(Ok(_)) => return Err(Failed::Foreign),
                Poll::Ready(Err(error)) => return Err(Failed::Source(loss(&error))),
            }
        }
        Ok(())
    }
}

fn pass_fin(sink: &mut Transport) -> Result<(), Failed> {
    if sink.say_fin().is_ok() {
        return Ok(());
    }
    // The kernel says only that the connection is no more; its error is still there to be read.
    Err(Failed::Sink(match SockRef::from(&*sink).take_error() {
        Ok(Some(error)) => loss(&error),
        _ => Loss::Reset,
    }))
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
