//! Each RST of this host as the kernel tells of it, for whoever wants to see them all.
//!
//! Not here: a ledger to hold them against (see [`Witness`](super::Witness)), nor a thread: whoever
//! has a stream waits for it (it is a descriptor) and reads.
//!
//! Invariant: the instance is removed with the stream.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::WitnessError;
use super::event::{self, Line};
use super::instance::Instance;
use super::pipe::Pipe;
use super::task::{self, Task};

/// The kernel's account of all network namespaces of this host, from the moment of its opening on.
#[derive(Debug)]
pub struct Stream {
    pipe: Pipe,
}

impl Stream {
    /// Makes an instance. Blocks for as long as the kernel takes to make buffers.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub fn open() -> Result<Self, WitnessError> {
        let instance = Instance::create()?;
        Ok(Self {
            pipe: Pipe::new(instance),
        })
    }

    /// Calls `each` for every line that is there, with the task that was running. Does not wait.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn read(&mut self, each: &mut dyn FnMut(Line, Option<Task>)) -> io::Result<()> {
        self.pipe.read_all(|text| {
            for line in text.lines() {
                each(event::read(line), task::read(line));
            }
        })
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
