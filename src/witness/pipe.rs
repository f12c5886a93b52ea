//! The pipe of an instance, read in whole lines.
//!
//! Not here: when to read (see `reader` and `stream`), and what a line says (see `event`).
//!
//! Invariant: what is handed on ends with a line, but for one that is longer than the buffer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::instance::Instance;

/// An instance, and what of a line was read so far.
#[derive(Debug)]
pub(super) struct Pipe {
    instance: Instance,
    buffer: Box<[u8]>,
    /// How much of the buffer is the beginning of a line.
    partial: usize,
}

impl Pipe {
    pub(super) fn new(instance: Instance) -> Self {
        Self {
            instance,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            partial: 0,
        }
    }

    /// Hands on what is there in pieces of some lines each, but not for ever: others must be heard too.
    pub(super) fn read_all(&mut self, mut take: impl FnMut(&str)) -> io::Result<()> {
        for _ in 0..READS_MAX {
            let count = self.instance.read(&mut self.buffer[self.partial..])?;
            if count == 0 {
                break;
            }
            self.take_lines(self.partial + count, &mut take);
        }
        Ok(())
    }

    /// Hands on the lines in the first `length` bytes of the buffer, and keeps the rest.
    fn take_lines(&mut self, length: usize, take: &mut impl FnMut(&str)) {
        let filled = &self.buffer[..length];
        let end = match memchr::memrchr(b'\n', filled) {
            Some(last) => last + 1,
            // A line that fills the buffer is none of ours.
            None if length == self.buffer.len() => length,
            None => 0,
        };
        take(&String::from_utf8_lossy(&filled[..end]));
        self.buffer.copy_within(end..length, 0);
        self.partial = length - end;
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.instance.as_fd()
    }
}

/// The kernel gives a page or two for each read.
const BUFFER: usize = 64 * 1024;
const READS_MAX: usize = 1_000;
