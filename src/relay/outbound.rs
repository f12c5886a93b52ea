//! Bytes on their way out of one side of an exchange.
//!
//! What a framer edited goes first, then the bytes that go on as they are, straight from the buffer
//! they were read into: both in one system call and without a copy.
//!
//! Invariant: nothing is framed behind verbatim bytes before these are written, so order is kept.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use super::buffer::{Buffer, Edited};
use crate::protocol::Pass;
use crate::sys::socket;
use crate::transport::Transport;

/// Bytes framed and not yet written.
#[derive(Debug)]
pub struct Outbound {
    edited: Edited,
    /// How much of `edited` is written.
    edited_written: usize,
    /// How many bytes at the front of the source buffer go on as they are.
    verbatim: usize,
    /// Bytes that may be held, written or not, so that all can be sent once more; 0: hold nothing.
    hold_bytes_max: usize,
    held: bool,
    /// The last flush had to wait for its reader.
    has_waited: bool,
    /// What the reader's kernel had not acknowledged then.
    owed_bytes: u64,
    /// Bytes written since the beginning, or since the last rewind.
    pub written_bytes: u64,
}

impl Outbound {
    /// Nothing to send yet. Everything sent is held for a second time while it fits.
    pub fn new(hold_bytes_max: usize) -> Self {
        Self {
            edited: Edited::take(),
            edited_written: 0,
            verbatim: 0,
            hold_bytes_max,
            held: hold_bytes_max > 0,
            has_waited: false,
            owed_bytes: 0,
            written_bytes: 0,
        }
    }

    /// Where a framer puts edited bytes.
    pub fn edited(&mut self) -> &mut Vec<u8> {
        &mut self.edited
    }

    /// Takes over `count` bytes at the front of `source`.
    pub fn pass(&mut self, pass: Pass, count: usize, source: &mut Buffer) {
        debug_assert_eq!(
            self.verbatim, 0,
            "verbatim bytes are written before more is framed"
        );
        match pass {
            Pass::Verbatim if self.held && self.edited.len() + count <= self.hold_bytes_max => {
                self.edited.extend_from_slice(&source.filled()[..count]);
                source.consume(count);
            }
            // A short body goes out with its head in one piece: the copy costs less than a vector.
            Pass::Verbatim if !self.is_flushed() && count <= COPIED_BYTES_MAX => {
                self.held = false;
                self.edited.extend_from_slice(&source.filled()[..count]);
                source.consume(count);
            }
            Pass::Verbatim => {
                self.held = false;
                self.verbatim = count;
            }
            Pass::Edited => {
                self.held &= self.edited.len() <= self.hold_bytes_max;
                source.consume(count);
            }
            Pass::Dropped => source.consume(count),
        }
    }

    /// Whether verbatim bytes wait, so that nothing may be framed.
    pub fn is_blocked(&self) -> bool {
        self.verbatim > 0
    }

    /// Bytes at the front of the source that are still to be written.
    pub fn verbatim_bytes(&self) -> usize {
        self.verbatim
    }

    /// Edited bytes that are still to be written.
    pub fn edited_bytes(&self) -> usize {
        self.edited.len() - self.edited_written
    }

    /// Whether everything framed so far is written.
    pub fn is_flushed(&self) -> bool {
        self.verbatim == 0 && self.edited_written == self.edited.len()
    }

    /// Whether all that was sent can be sent once more.
    pub fn can_rewind(&self) -> bool {
        self.held
    }

    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.edited.len()
    }

    /// Holds nothing any more beyond what is not written yet: it will not be sent again.
    pub fn release_hold(&mut self) {
        self.held = false;
        if self.is_flushed() {
            self.edited.forget();
            self.edited_written = 0;
        }
    }

    /// Makes everything unsent again, for another connection.
    pub fn rewind(&mut self) {
        debug_assert!(
            self.held || self.written_bytes == 0,
            "only what is held can be sent again"
        );
        self.edited_written = 0;
        self.written_bytes = 0;
    }

    /// Writes until everything framed is written. Says also whether its reader, who had to be waited
    /// for, now or before, has taken a byte.
    pub fn poll_flush(
        &mut self,
        transport: &mut Transport,
        source: &mut Buffer,
        context: &mut Context<'_>,
    ) -> (Poll<io::Result<()>>, bool) {
        let before = self.written_bytes;
        let flushed = self.poll_write_all(transport, source, context);
        let had_waited = std::mem::replace(&mut self.has_waited, flushed.is_pending());
        let has_written = self.written_bytes > before;
        if self.has_waited && (has_written || !had_waited) {
            self.owed_bytes = owed_bytes(transport);
        }
        let has_moved = has_written && (had_waited || self.has_waited);
        (flushed, has_moved)
    }

    /// Whether the reader that is waited for has taken a byte since it was last asked after. A full
    /// socket is writable again only when much of it is free, so a slow reader shows only here.
    pub fn has_been_taken(&mut self, transport: &Transport) -> bool {
        let owed_bytes = owed_bytes(transport);
        self.has_waited && owed_bytes < std::mem::replace(&mut self.owed_bytes, owed_bytes)
    }

    fn poll_write_all(
        &mut self,
        transport: &mut Transport,
        source: &mut Buffer,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_flushed() {
            let edited = &self.edited[self.edited_written..];
            let verbatim = &source.filled()[..self.verbatim];
            let written = ready!(transport.poll_write(context, edited, verbatim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written_bytes += written as u64;
            let from_edited = written.min(edited.len());
            self.edited_written += from_edited;
            self.verbatim -= written - from_edited;
            source.consume(written - from_edited);
        }
        if !self.held {
            self.edited.clear();
            self.edited_written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Drops what is framed and not written: its reader is gone.
    pub fn abandon(&mut self, source: &mut Buffer) {
        source.consume(self.verbatim);
        self.verbatim = 0;
        self.edited_written = self.edited.len();
    }
}

fn owed_bytes(transport: &Transport) -> u64 {
    // Of a socket that can't be asked nothing is known to have been taken.
    socket::unacknowledged_bytes(transport.as_fd()).unwrap_or(u64::MAX)
}

/// Up to so many verbatim bytes are copied behind edited ones that wait anyway.
const COPIED_BYTES_MAX: usize = 2048;
