//! One exchange over one lease: the request out, the response back, both streamed.
//!
//! ```text
//!            send_request                         deliver_response
//! client ──► inbound ──► request framer ──► service ──► inbound ──► response framer ──► client
//! ```
//!
//! Both directions go on at the same time, each stops reading when its reader does not take, and the
//! lease goes back as soon as the boundary is read, whether or not the client has taken it all.
//!
//! Not here: what a client is told when this fails, and whether it is tried again (see `session`).
//!
//! Invariant: a lease is released only at a boundary with the request complete, nothing behind it,
//! and a service that keeps its connection. On any doubt it is discarded, with the reason.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::client::{Client, ClientLost};
use super::crossing::is_crossed;
use super::request::Request;
use super::response::Response;
use crate::close::classify::{Loss, loss};
use crate::pool::{Lease, Look, Seen};
use crate::protocol::{Eof, Framer, PinReason, Reply, Then};
use crate::stats::reason::DiscardReason;
use crate::stats::sessions::Command;
use crate::sys::clock;

/// How long each side may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The client, while it owes bytes or room.
    pub client: Duration,
    /// The service, while it owes an answer or room.
    pub service: Duration,
}

/// How an exchange went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// The client has the whole response. `request_complete` is false where the service answered
    /// early, so that the rest of the request is still to come.
    Answered {
        /// The last byte of the request was framed.
        request_complete: bool,
    },
    /// From here on both directions are opaque; the lease is still held.
    Pinned(PinReason),
}

/// How an exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure<Q, A> {
    /// The request broke the protocol after its head.
    RequestViolation(Q),
    /// The response broke the protocol.
    ResponseViolation(A),
    /// The service closed before the response ended.
    ServiceFin,
    /// The service reset the connection before the response ended.
    ServiceReset,
    /// The service vanished: nothing came, not even a reset.
    ServiceVanished,
    /// Bytes came before the service's kernel had acknowledged anything of the request: whatever
    /// they are, they are not its answer.
    CrossedAnswer,
    /// The service was silent for too long.
    ServiceSilent,
    /// The client is gone, or was too slow.
    Client(ClientLost),
}

/// One attempt at an exchange.
#[derive(Debug)]
pub struct Exchange<'a, Q: Framer, A: Reply> {
    pub(super) client: &'a mut Client,
    request: &'a mut Request<Q>,
    pub(super) lease: Option<Lease>,
    pub(super) response: Response<A>,
    patience: Patience,
    /// When a byte last moved.
    moved_at: Instant,
    has_looked: bool,
    /// A write to the service failed so; what it answered before that may still be readable.
    request_broken: Option<io::ErrorKind>,
}

type Failed<Q, A> = Failure<<Q as Framer>::Violation, <A as Framer>::Violation>;

impl<'a, Q: Framer, A: Reply> Exchange<'a, Q, A> {
    /// An exchange about to begin over `lease`.
    pub fn new(
        client: &'a mut Client,
        request: &'a mut Request<Q>,
        lease: Lease,
        framer: A,
        head_bytes_max: usize,
        patience: Patience,
        now: Instant,
    ) -> Self {
        let response = Response::new(framer, head_bytes_max);
        Self {
            client,
            request,
            lease: Some(lease),
            response,
            patience,
            moved_at: now,
            has_looked: false,
            request_broken: None,
        }
    }

    /// Carries the exchange to its end. Called once; after it, [`Exchange::into_parts`].
    pub async fn run(&mut self) -> Result<Done, Failed<Q, A>> {
        poll_fn(|context| self.poll(context)).await
    }

    /// When the last byte came from the service, or moved at all.
    pub fn moved_at(&self) -> Instant {
        self.moved_at
    }

    /// The response's framer, for its facts.
    pub fn response_framer(&self) -> &A {
        &self.response.framer
    }

    /// Whether the client has been sent a byte of a response, interim ones included.
    pub fn has_answered(&self) -> bool {
        self.response.outbound.written_bytes > 0
    }

    /// Whether the client has been sent all that was framed for it.
    pub fn is_flushed(&self) -> bool {
        self.response.outbound.is_flushed()
    }

    /// Whether a byte of any response has come.
    pub fn has_begun(&self) -> bool {
        self.response.has_begun
    }

    pub(super) fn request_is_sent(&self) -> bool {
        self.request.is_sent()
    }

    /// Ends the exchange without its boundary. The lease is still there unless that was reached; what
    /// came over it and went nowhere is lost with it.
    pub fn into_broken_lease(self) -> Option<Lease> {
        let mut lease = self.lease?;
        let undelivered_bytes = self.response.undelivered_bytes();
        let connection = lease.connection_mut();
        connection.dropped_bytes += undelivered_bytes;
        connection.is_answering = self.response.has_begun;
        Some(lease)
    }

    /// Ends the exchange. The lease is still there unless a boundary was reached; `Buffer` holds
    /// what the service sent behind the head that pinned the connection.
    pub fn into_parts(self) -> (Option<Lease>, Buffer, A) {
        let Response {
            framer, inbound, ..
        } = self.response;
        (self.lease, inbound, framer)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Done, Failed<Q, A>>> {
        self.look_before_sending()?;
        self.send_request(context)?;
        if !self.response.framer.is_owed() {
            return self.poll_unanswered(context);
        }
        if let Poll::Ready(done) = self.deliver_response(context)? {
            return Poll::Ready(Ok(done));
        }
        self.watch_client(context)?;
        self.watch_time(context)?;
        Poll::Pending
    }

    /// Before the first byte goes out over a connection that others had: nothing may be waiting in
    /// it. Once the request is acknowledged, such bytes could not be told from its answer.
    fn look_before_sending(&mut self) -> Result<(), Failed<Q, A>> {
        if self.has_looked {
            return Ok(());
        }
        self.has_looked = true;
        match self.lease.as_ref().filter(|lease| lease.is_reused()) {
            None => Ok(()),
            Some(lease) => match lease.connection().ask_kernel() {
                Look::Quiet => Ok(()),
                Look::Fin => Err(Failure::ServiceFin),
                Look::Reset => Err(Failure::ServiceReset),
                Look::Vanished => Err(Failure::ServiceVanished),
                Look::Bytes => Err(Failure::CrossedAnswer),
            },
        }
    }

    /// Moves the request towards the service until one of the two has to be waited for.
    fn send_request(&mut self, context: &mut Context<'_>) -> Result<(), Failed<Q, A>> {
        let Some(lease) = self
            .lease
            .as_mut()
            .filter(|_| self.request_broken.is_none())
        else {
            return Ok(());
        };
        loop {
            let service = &mut lease.connection_mut().transport;
            let outbound = &mut self.request.outbound;
            let (flushed, has_moved) =
                outbound.poll_flush(service, &mut self.client.inbound, context);
            // The clock is asked where somebody has to be waited for; a request that goes out at once
            // went out when the exchange began.
            if has_moved {
                self.moved_at = clock::now();
            }
            match flushed {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.request_broken = Some(error.kind());
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
            if self.request.is_framed {
                return Ok(());
            }
            if self
                .request
                .frame(&mut self.client.inbound)
                .map_err(Failure::RequestViolation)?
            {
                // It gives more without having heard, and so owes the rest.
                self.request.awaits_interim = false;
                continue;
            }
            match self.client.poll_read(context) {
                Poll::Ready(Ok(0)) => return Err(Failure::Client(ClientLost::Fin)),
                Poll::Ready(Ok(_)) => self.moved_at = clock::now(),
                Poll::Ready(Err(error)) => return Err(Failure::Client(ClientLost::at(&error))),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Ends an exchange to which no answer is owed, once the request is sent.
    fn poll_unanswered(&mut self, context: &mut Context<'_>) -> Poll<Result<Done, Failed<Q, A>>> {
        match self.request_broken {
            Some(io::ErrorKind::BrokenPipe) => return Poll::Ready(Err(Failure::ServiceFin)),
            Some(_) => return Poll::Ready(Err(Failure::ServiceReset)),
            None => {}
        }
        if self.request.is_sent() {
            self.settle();
            let request_complete = true;
            return Poll::Ready(Ok(Done::Answered { request_complete }));
        }
        self.watch_client(context)?;
        self.watch_time(context)?;
        Poll::Pending
    }

    /// Moves the response towards the client until one of the two has to be waited for.
    fn deliver_response(&mut self, context: &mut Context<'_>) -> Result<Poll<Done>, Failed<Q, A>> {
        loop {
            if !self.response.outbound.is_flushed() && self.flush_response(context)?.is_pending() {
                return Ok(Poll::Pending);
            }
            match self.response.then {
                Then::More | Then::OneMoreResponse => {}
                Then::Boundary => {
                    let request_complete = self.request.is_framed;
                    return Ok(Poll::Ready(Done::Answered { request_complete }));
                }
                Then::Pinned(reason) => return Ok(Poll::Ready(Done::Pinned(reason))),
            }
            if self.frame_response()? {
                continue;
            }
            if self.read_response(context)?.is_pending() {
                return Ok(Poll::Pending);
            }
        }
    }

    fn flush_response(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, Failed<Q, A>> {
        let Response {
            outbound, inbound, ..
        } = &mut self.response;
        let before = outbound.written_bytes;
        let (flushed, has_moved) =
            outbound.poll_flush(&mut self.client.transport, inbound, context);
        let written = outbound.written_bytes - before;
        if written > 0 {
            self.client.facts.add_written_bytes(written);
        }
        if has_moved {
            self.moved_at = clock::now();
        }
        match flushed {
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(error)) => Err(Failure::Client(ClientLost::at(&error))),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Frames what was read; false where nothing can be said without more bytes.
    pub(super) fn frame_response(&mut self) -> Result<bool, Failed<Q, A>> {
        let Response {
            framer,
            inbound,
            outbound,
            then,
            ..
        } = &mut self.response;
        if inbound.is_empty() {
            return Ok(false);
        }
        // An answer that is early leaves the rest of the request behind it.
        let is_early = !self.request.is_framed;
        let is_draining = self.client.facts.control.command() != Command::None;
        framer.announce_close(is_early || is_draining);
        let has_complained = framer.says_idle_for_too_long();
        let mut framed = false;
        while !outbound.is_blocked() && !inbound.is_empty() {
            let frame = framer
                .frame(inbound.filled(), outbound.edited())
                .map_err(Failure::ResponseViolation)?;
            if frame.taken == 0 && frame.then == Then::More {
                break;
            }
            framed = true;
            outbound.pass(frame.pass, frame.taken, inbound);
            *then = frame.then;
            if matches!(frame.then, Then::Boundary | Then::Pinned(_)) {
                break;
            }
        }
        // The whole request is out, so a complaint that none came was meant for the time before. It is
        // judged as it comes: of one that came earlier the client may have the beginning.
        let complains = !has_complained && self.response.framer.says_idle_for_too_long();
        let is_reused = self.lease.as_ref().is_some_and(Lease::is_reused);
        if complains && is_reused && self.request.is_sent() {
            return Err(Failure::CrossedAnswer);
        }
        match self.response.then {
            Then::Boundary => self.settle(),
            // Opaque bytes can't follow a request that is not out yet.
            Then::Pinned(_) if !self.request.is_sent() => return Err(Failure::CrossedAnswer),
            _ => {}
        }
        if framed {
            self.request.outbound.release_hold();
        }
        Ok(framed)
    }

    /// Reads what the service sent; how much. 0 is the end of a response that ends so.
    pub(super) fn read_response(
        &mut self,
        context: &mut Context<'_>,
    ) -> Result<Poll<usize>, Failed<Q, A>> {
        let Some(lease) = self.lease.as_mut() else {
            // The boundary was reached, so nothing more is read.
            return Ok(Poll::Pending);
        };
        let service = &mut lease.connection_mut().transport;
        match self.response.inbound.poll_read(service, context) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(0)) => self.end_of_service().map(|()| Poll::Ready(0)),
            Poll::Ready(Err(error)) => Err(match loss(&error) {
                Loss::Reset => Failure::ServiceReset,
                Loss::Vanished => Failure::ServiceVanished,
            }),
            Poll::Ready(Ok(count)) => {
                if !self.response.has_begun {
                    if is_crossed(service, self.request.outbound.written_bytes) {
                        return Err(Failure::CrossedAnswer);
                    }
                    self.response.has_begun = true;
                    self.request.awaits_interim = false;
                }
                self.moved_at = clock::now();
                Ok(Poll::Ready(count))
            }
        }
    }

    /// The service's FIN: the end of the response, or the end of its connection inside it.
    fn end_of_service(&mut self) -> Result<(), Failed<Q, A>> {
        // A write that fails takes the error that a read would have shown, which then says 0 and
        // looks like a FIN. Only EPIPE tells of a FIN that came before (tcp(7)).
        if self
            .request_broken
            .is_some_and(|kind| kind != io::ErrorKind::BrokenPipe)
        {
            return Err(Failure::ServiceReset);
        }
        if self.response.framer.eof() != Eof::Complete {
            return Err(Failure::ServiceFin);
        }
        self.response.then = Then::Boundary;
        if let Some(lease) = self.lease.take() {
            lease.discard(DiscardReason::UntilClose, Seen::PeerFin);
        }
        Ok(())
    }

    /// The boundary is read: the connection goes back, or is discarded with the reason.
    pub(super) fn settle(&mut self) {
        let Some(mut lease) = self.lease.take() else {
            return;
        };
        let stray_bytes = self.response.stray_bytes();
        if stray_bytes > 0 {
            lease.connection_mut().dropped_bytes = stray_bytes as u64;
            lease.serves(&self.client.facts);
            lease.discard(DiscardReason::StrayBytes, Seen::Open);
        } else if !self.request.is_sent() {
            lease.discard(DiscardReason::HalfRequest, Seen::Open);
        } else if !self.response.framer.allows_reuse() {
            lease.discard(DiscardReason::ServiceClose, Seen::Open);
        } else {
            let announced = self.response.framer.idle_timeout();
            lease.connection_mut().set_announced(announced);
            lease.release(self.moved_at);
        }
    }

    /// Notices a client that leaves, and takes in what it pipelines while there is room.
    fn watch_client(&mut self, context: &mut Context<'_>) -> Result<(), Failed<Q, A>> {
        while self.request.is_framed && !self.client.has_ended && !self.client.inbound.is_full() {
            match self.client.poll_read(context) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(Failure::Client(ClientLost::at(&error))),
                Poll::Pending => break,
            }
        }
        if self.client.poll_command(context) == Command::Cut {
            return Err(Failure::Client(ClientLost::Cut));
        }
        Ok(())
    }

    fn watch_time(&mut self, context: &mut Context<'_>) -> Result<(), Failed<Q, A>> {
        let client_owes_room = !self.response.outbound.is_flushed();
        let client_owes_bytes = !self.request.is_framed
            && self.request.outbound.is_flushed()
            && !self.request.awaits_interim
            && self.request_broken.is_none();
        let (patience, failure) = if client_owes_room {
            (
                self.patience.client,
                Failure::Client(ClientLost::WithheldRoom),
            )
        } else if client_owes_bytes {
            (
                self.patience.client,
                Failure::Client(ClientLost::WithheldBytes),
            )
        } else {
            (self.patience.service, Failure::ServiceSilent)
        };
        while self
            .client
            .alarm
            .poll(context, self.moved_at + patience)
            .is_ready()
        {
            let (request, response) = (&mut self.request.outbound, &mut self.response.outbound);
            let has_taken = match &self.lease {
                _ if client_owes_room => response.has_been_taken(&self.client.transport),
                Some(lease) => request.has_been_taken(&lease.connection().transport),
                None => false,
            };
            if !has_taken {
                return Err(failure);
            }
            self.moved_at = clock::now();
        }
        Ok(())
    }
}
