//! Bounded buffers and their free list.
//!
//! A session takes buffers when bytes arrive and gives them back when the exchange ends, so a
//! session between exchanges holds none. The free list is one for each worker thread: no lock, and
//! a bound on what it keeps.
//!
//! Invariant: `start <= end <= capacity`, and only `start..end` is meaningful.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use crate::transport::Transport;

/// Bytes read and not yet taken. Holds memory only from a read to [`Buffer::rest`].
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    capacity_bytes: usize,
}

impl Buffer {
    /// Bytes that a buffer from the free list holds.
    pub const CAPACITY_BYTES: usize = 16 * 1024;

    /// An empty buffer that will hold up to `capacity_bytes`, and no less than the usual size.
    pub fn new(capacity_bytes: usize) -> Self {
        let capacity_bytes = capacity_bytes.max(Self::CAPACITY_BYTES);
        Self {
            bytes: Box::default(),
            start: 0,
            end: 0,
            capacity_bytes,
        }
    }

    /// Gives the memory back if nothing is left to take.
    pub fn rest(&mut self) {
        if self.is_empty() {
            self.give_back();
        }
    }

    /// Holds up to `capacity_bytes` from now on, if that is more than before.
    pub fn hold_at_least(&mut self, capacity_bytes: usize) {
        if capacity_bytes <= self.capacity_bytes {
            return;
        }
        self.capacity_bytes = capacity_bytes;
        if !self.bytes.is_empty() {
            let mut bytes = free_buffer(capacity_bytes);
            let filled = self.end - self.start;
            bytes[..filled].copy_from_slice(self.filled());
            self.give_back();
            self.bytes = bytes;
            (self.start, self.end) = (0, filled);
        }
    }

    /// Whether it holds so much.
    pub fn is_held_at_least(&self, capacity_bytes: usize) -> bool {
        self.capacity_bytes >= capacity_bytes
    }

    /// Puts other bytes in the place of the first `count`, and holds more for them if it must.
    pub fn replace_front(&mut self, count: usize, bytes: &[u8]) {
        let kept = self.end - self.start - count;
        self.hold_at_least(bytes.len() + kept);
        let from = self.start + count;
        self.bytes.copy_within(from..self.end, bytes.len());
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        (self.start, self.end) = (0, bytes.len() + kept);
    }

    /// What was read and not taken.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The same, to be changed in its place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Whether nothing is left to take.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether no more can be read before something is taken.
    pub fn is_full(&self) -> bool {
        self.end - self.start == self.capacity_bytes
    }

    /// Takes the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        debug_assert!(
            count <= self.end - self.start,
            "only what was read can be taken"
        );
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Reads behind what is there. 0 is the peer's FIN; a full buffer must not be read into.
    pub fn poll_read(
        &mut self,
        transport: &mut Transport,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(
            !self.is_full(),
            "a read into no space would look like a FIN"
        );
        if self.bytes.is_empty() {
            // Memory is taken once there is something to put in it, not while waiting.
            ready!(transport.poll_read_ready(context))?;
            self.bytes = free_buffer(self.capacity_bytes);
        }
        if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let mut space = ReadBuf::new(&mut self.bytes[self.end..]);
        let polled = transport.poll_read(context, &mut space);
        if polled.is_pending() {
            // Readiness was a false alarm; waiting holds no memory.
            self.rest();
            return polled;
        }
        if let Poll::Ready(Ok(count)) = &polled {
            self.end += count;
        }
        polled
    }
}

impl Buffer {
    fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.len() != Self::CAPACITY_BYTES {
            return;
        }
        // A thread that ends has no free list any more; then the memory is simply freed.
        let _ = FREE.try_with(|free| {
            let free = &mut free.borrow_mut().buffers;
            if free.len() < FREE_MAX {
                free.push(bytes);
            }
        });
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Memory for a buffer. The usual size comes from the free list; larger ones (for heads, where the
/// configuration allows them) are made for the purpose.
fn free_buffer(capacity_bytes: usize) -> Box<[u8]> {
    if capacity_bytes > Buffer::CAPACITY_BYTES {
        return vec![0; capacity_bytes].into_boxed_slice();
    }
    FREE.with_borrow_mut(|free| free.buffers.pop())
        .unwrap_or_else(|| vec![0; Buffer::CAPACITY_BYTES].into_boxed_slice())
}

/// Bytes that a framer has edited, on their way out.
#[derive(Debug)]
pub struct Edited {
    bytes: Vec<u8>,
}

impl Edited {
    /// An empty one from the free list.
    pub fn take() -> Self {
        let bytes = FREE
            .with_borrow_mut(|free| free.edited.pop())
            .unwrap_or_default();
        Self { bytes }
    }

    /// Empties it, and frees a large one's memory.
    pub fn forget(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(EDITED_KEPT_BYTES);
    }
}

impl std::ops::Deref for Edited {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl std::ops::DerefMut for Edited {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Edited {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() == 0 || bytes.capacity() > EDITED_KEPT_BYTES {
            return;
        }
        bytes.clear();
        let _ = FREE.try_with(|free| {
            let free = &mut free.borrow_mut().edited;
            if free.len() < FREE_MAX {
                free.push(bytes);
            }
        });
    }
}

/// Buffers of each kind that one worker thread keeps for later.
const FREE_MAX: usize = 64;
/// A larger one is freed, so that one huge head does not stay in memory for ever.
const EDITED_KEPT_BYTES: usize = 32 * 1024;

#[derive(Default)]
struct Free {
    buffers: Vec<Box<[u8]>>,
    edited: Vec<Vec<u8>>,
}

thread_local! {
    static FREE: RefCell<Free> = RefCell::default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(capacity_bytes: usize) -> Buffer {
        let mut buffer = Buffer::new(capacity_bytes);
        buffer.bytes = free_buffer(buffer.capacity_bytes);
        buffer
    }

    #[test]
    fn memory_given_back_is_the_next_taken() {
        let mut buffer = filled(1);
        let place = buffer.bytes.as_ptr();
        buffer.rest();
        assert!(buffer.bytes.is_empty());
        assert_eq!(filled(1).bytes.as_ptr(), place);
    }

    #[test]
    fn a_buffer_with_bytes_left_does_not_rest() {
        let mut buffer = filled(1);
        buffer.end = 3;
        buffer.rest();
        assert_eq!(buffer.filled().len(), 3);
        buffer.consume(3);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_buffer_for_large_heads_is_not_kept() {
        let before = FREE.with_borrow(|free| free.buffers.len());
        drop(filled(Buffer::CAPACITY_BYTES + 1));
        assert_eq!(FREE.with_borrow(|free| free.buffers.len()), before);
    }

    #[test]
    fn the_free_list_is_bounded() {
        let many: Vec<_> = (0..FREE_MAX * 2).map(|_| filled(1)).collect();
        drop(many);
        assert_eq!(FREE.with_borrow(|free| free.buffers.len()), FREE_MAX);
    }

    #[test]
    fn edited_bytes_do_not_survive_in_the_free_list() {
        let mut edited = Edited::take();
        edited.extend_from_slice(b"secret");
        drop(edited);
        assert!(Edited::take().is_empty());
    }
}
