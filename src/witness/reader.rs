//! The thread that reads the pipe: waits, reads, hands on.
//!
//! It looks at the pipe at most every [`PACE`], so that a storm of RSTs is read in large pieces and
//! wakes nobody for each one.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::error;

use super::event::{self, Line};
use super::instance::Instance;
use super::{Shared, Testimony};
use crate::sys::clock::{self, MonotonicAnchor};
use crate::sys::poll::wait_readable;

/// The thread's own.
pub(super) struct Reader {
    instance: Instance,
    anchor: MonotonicAnchor,
    bell: UnixStream,
    shared: Arc<Shared>,
    testimony: Arc<dyn Testimony>,
    buffer: Box<[u8]>,
    /// How much of the buffer is the beginning of a line.
    partial: usize,
}

impl Reader {
    pub(super) fn new(
        instance: Instance,
        anchor: MonotonicAnchor,
        bell: UnixStream,
        shared: Arc<Shared>,
        testimony: Arc<dyn Testimony>,
    ) -> Self {
        Self {
            instance,
            anchor,
            bell,
            shared,
            testimony,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            partial: 0,
        }
    }

    pub(super) fn run(mut self) {
        if let Err(error) = self.read_until_stopped() {
            error!(%error, "the kernel's account of resets can no longer be read");
        }
    }

    fn read_until_stopped(&mut self) -> io::Result<()> {
        loop {
            let descriptors = [self.bell.as_fd(), self.instance.as_fd()];
            let [is_rung, _] = wait_readable(descriptors, IDLE)?;
            self.hush(is_rung);
            let is_last = self.shared.is_stopping.load(Ordering::Acquire);
            self.read_all()?;
            self.shared.lock().tick(clock::now());
            self.testify();
            if is_last {
                return Ok(());
            }
            // Only the bell: what comes into the pipe meanwhile is read in one piece.
            let [is_rung] = wait_readable([self.bell.as_fd()], PACE)?;
            self.hush(is_rung);
        }
    }

    /// Reads until nothing is there, but not for ever: others must be heard too.
    fn read_all(&mut self) -> io::Result<()> {
        for _ in 0..READS_MAX {
            let count = self.instance.read(&mut self.buffer[self.partial..])?;
            if count == 0 {
                break;
            }
            self.take_lines(self.partial + count, clock::now());
        }
        Ok(())
    }

    /// Hands on the lines in the first `length` bytes of the buffer, and keeps the rest.
    fn take_lines(&mut self, length: usize, now: Instant) {
        let filled = &self.buffer[..length];
        let end = match memchr::memrchr(b'\n', filled) {
            Some(last) => last + 1,
            // A line that fills the buffer is none of ours.
            None if length == self.buffer.len() => length,
            None => 0,
        };
        let text = String::from_utf8_lossy(&filled[..end]);
        let lines: Vec<Line> = text.lines().map(event::read).collect();
        {
            let mut matching = self.shared.lock();
            for line in lines {
                match line {
                    Line::Reset(event) => {
                        let at = self.anchor.instant_of(event.at);
                        matching.heard(event, at, now);
                    }
                    Line::Lost(count) => matching.on_lost(count.unwrap_or(1)),
                    Line::Unreadable => matching.on_unreadable(),
                }
            }
        }
        self.buffer.copy_within(end..length, 0);
        self.partial = length - end;
    }

    fn testify(&self) {
        let found = self.shared.lock().take_witnessed();
        for witnessed in found {
            self.testimony.witnessed(witnessed);
        }
    }

    /// Empties the bell.
    fn hush(&mut self, is_rung: bool) {
        if is_rung {
            // What it holds says nothing; an error would be told by the next wait.
            let _ = self.bell.read(&mut [0; 256]);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.is_up.store(false, Ordering::Release);
    }
}

/// How long a storm is let grow between two looks.
const PACE: Duration = Duration::from_millis(5);
/// How long the thread sleeps while nothing happens; what is held is looked at that often.
const IDLE: Duration = Duration::from_millis(500);
/// The kernel gives a page or two for each read.
const BUFFER: usize = 64 * 1024;
const READS_MAX: usize = 1_000;
