//! The thread that reads the pipe: waits, reads, hands on.
//!
//! It looks at the pipe at most every [`PACE`], so that a storm of RSTs is read in large pieces and
//! wakes nobody for each one.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::error;

use super::event::{self, Line};
use super::instance::Instance;
use super::pipe::Pipe;
use super::{Shared, Testimony};
use crate::sys::clock::{self, MonotonicAnchor};
use crate::sys::poll::wait_readable;

/// The thread's own.
pub(super) struct Reader {
    pipe: Pipe,
    anchor: MonotonicAnchor,
    bell: UnixStream,
    shared: Arc<Shared>,
    testimony: Arc<dyn Testimony>,
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
            pipe: Pipe::new(instance),
            anchor,
            bell,
            shared,
            testimony,
        }
    }

    pub(super) fn run(mut self) {
        if let Err(error) = self.read_until_stopped() {
            error!(%error, "the kernel's account of resets can no longer be read");
        }
    }

    fn read_until_stopped(&mut self) -> io::Result<()> {
        loop {
            let descriptors = [self.bell.as_fd(), self.pipe.as_fd()];
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

    /// Hands on all that is there.
    fn read_all(&mut self) -> io::Result<()> {
        let Self {
            pipe,
            anchor,
            shared,
            ..
        } = self;
        pipe.read_all(|text| {
            let now = clock::now();
            let lines: Vec<Line> = text.lines().map(event::read).collect();
            let mut matching = shared.lock();
            for line in lines {
                match line {
                    Line::Reset(event) => {
                        matching.heard(event, anchor.instant_of(event.at), now);
                    }
                    Line::Lost(count) => matching.on_lost(count.unwrap_or(1)),
                    Line::Unreadable => matching.on_unreadable(),
                }
            }
        })
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
