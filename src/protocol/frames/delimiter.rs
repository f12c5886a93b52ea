//! Looks for a delimiter in bytes that come in pieces.
//!
//! ```text
//!   … x y \r │ \r \n      the delimiter \r \n, its last beginning cut off by the end of a piece
//!          1 │ 1  found   how much of the delimiter the bytes so far end with
//! ```
//!
//! Invariant: each byte is looked at when it comes and never again, and none is held: what was seen of
//! a delimiter that is cut by the end of a piece is a number.

use memchr::memmem;

use super::FrameViolation;

/// A frame that ends with a delimiter, as far as it was seen.
#[derive(Debug)]
pub(super) struct Delimited<'l> {
    delimiter: &'l [u8],
    /// How much of the delimiter the bytes so far end with; not all of it.
    begun: usize,
    /// How many bytes the frame may still have.
    left: usize,
}

/// The first bytes of what was shown, which belong to the frame.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) count: usize,
    /// The frame ends with them.
    pub(super) is_whole: bool,
}

impl<'l> Delimited<'l> {
    pub(super) fn new(delimiter: &'l [u8], frame_max: usize) -> Self {
        Self {
            delimiter,
            begun: 0,
            left: frame_max,
        }
    }

    /// Takes what is there of the frame.
    ///
    /// It is too long at the first byte after which no delimiter can end within its limit. What
    /// precedes that byte is taken first, in whatever pieces it came.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Taken, FrameViolation> {
        // Before the last bytes that are allowed there is room for a whole delimiter.
        let roomy = self.left.saturating_sub(self.delimiter.len());
        let (roomy, narrow) = bytes.split_at(roomy.min(bytes.len()));
        if let Some(end) = self.look(roomy) {
            return Ok(Taken {
                count: end,
                is_whole: true,
            });
        }
        self.left -= roomy.len();
        let mut count = roomy.len();
        for byte in narrow {
            let begun = self.begun;
            if self.look(std::slice::from_ref(byte)).is_some() {
                return Ok(Taken {
                    count: count + 1,
                    is_whole: true,
                });
            }
            if self.left <= self.delimiter.len() - self.begun {
                self.begun = begun;
                return match count {
                    0 => Err(FrameViolation::TooLong),
                    _ => Ok(Taken {
                        count,
                        is_whole: false,
                    }),
                };
            }
            self.left -= 1;
            count += 1;
        }
        Ok(Taken {
            count,
            is_whole: false,
        })
    }

    /// Where in `bytes` the first delimiter ends, which may have begun in the bytes before.
    fn look(&mut self, bytes: &[u8]) -> Option<usize> {
        let delimiter = self.delimiter;
        // From the longest beginning to the shortest is from the earliest delimiter to the latest.
        for begun in (1..=self.begun).rev() {
            let (beginning, rest) = delimiter.split_at(begun);
            if !delimiter[..self.begun].ends_with(beginning) {
                continue;
            }
            if bytes.starts_with(rest) {
                return Some(rest.len());
            }
            if rest.starts_with(bytes) {
                self.begun = begun + bytes.len();
                return None;
            }
        }
        if let Some(at) = memmem::find(bytes, delimiter) {
            return Some(at + delimiter.len());
        }
        self.begun = (1..delimiter.len())
            .rev()
            .find(|&begun| bytes.ends_with(&delimiter[..begun]))
            .unwrap_or(0);
        None
    }
}
