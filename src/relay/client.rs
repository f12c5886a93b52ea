//! The client's end of a session: its transport, what it sent, and what it was told.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::alarm::Alarm;
use super::buffer::Buffer;
use super::outbound::Outbound;
use crate::close::classify::{Loss, loss};
use crate::protocol::Pass;
use crate::stats::sessions::{Command, SessionFacts};
use crate::transport::Transport;

/// The client's end of a session.
#[derive(Debug)]
pub struct Client {
    /// The connection.
    pub transport: Transport,
    /// What it sent and nobody has taken yet; holds no memory between exchanges.
    pub inbound: Buffer,
    /// It has sent its FIN: no more requests come.
    pub has_ended: bool,
    /// The session's one timer.
    pub alarm: Alarm,
    /// What the statistics and the operator know of the session.
    pub facts: Arc<SessionFacts>,
}

/// Why a client could not be read from or written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientLost {
    /// Its FIN came where more was owed.
    Fin,
    /// Its RST came.
    Reset,
    /// It is gone without a word.
    Vanished,
    /// It gave no byte of its request in time.
    WithheldBytes,
    /// It took no byte of its answer in time.
    WithheldRoom,
    /// The session was cut off by an operator.
    Cut,
}

impl ClientLost {
    /// What an error on its socket says about the client.
    pub fn at(error: &io::Error) -> Self {
        match loss(error) {
            Loss::Reset => Self::Reset,
            Loss::Vanished => Self::Vanished,
        }
    }
}

impl Client {
    /// Reads behind what is there. 0 is the client's FIN.
    pub fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let count = ready!(self.inbound.poll_read(&mut self.transport, context))?;
        self.has_ended |= count == 0;
        self.facts.add_read_bytes(count as u64);
        Poll::Ready(Ok(count))
    }

    /// Waits for more bytes until `deadline`.
    pub async fn read_more(&mut self, deadline: Instant) -> Result<(), ClientLost> {
        poll_fn(|context| {
            if let Poll::Ready(read) = self.poll_read(context) {
                return Poll::Ready(match read {
                    Ok(0) => Err(ClientLost::Fin),
                    Ok(_) => Ok(()),
                    Err(error) => Err(ClientLost::at(&error)),
                });
            }
            if self.poll_command(context) == Command::Cut {
                return Poll::Ready(Err(ClientLost::Cut));
            }
            self.alarm
                .poll(context, deadline)
                .map(|()| Err(ClientLost::WithheldBytes))
        })
        .await
    }

    /// Whether an operator has asked for something, now or before. Wakes the task when it happens.
    pub fn poll_command(&self, context: &Context<'_>) -> Command {
        self.facts.control.poll(context)
    }

    /// Writes a ready-made message to its end, or until `deadline`.
    pub async fn send(&mut self, message: &[u8], deadline: Instant) -> Result<(), ClientLost> {
        let mut outbound = Outbound::new(0);
        outbound.edited().extend_from_slice(message);
        let mut nothing = Buffer::new(0);
        outbound.pass(Pass::Edited, 0, &mut nothing);
        let result = poll_fn(|context| {
            let (flushed, _) = outbound.poll_flush(&mut self.transport, &mut nothing, context);
            if let Poll::Ready(written) = flushed {
                return Poll::Ready(written.map_err(|error| ClientLost::at(&error)));
            }
            if self.poll_command(context) == Command::Cut {
                return Poll::Ready(Err(ClientLost::Cut));
            }
            self.alarm
                .poll(context, deadline)
                .map(|()| Err(ClientLost::WithheldRoom))
        })
        .await;
        self.facts.add_written_bytes(outbound.written_bytes);
        result
    }
}
