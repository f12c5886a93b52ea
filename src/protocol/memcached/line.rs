//! The words of a request's line.
//!
//! memcached splits a line at spaces alone: any other byte is a part of a word, and several spaces
//! are as one. A NUL ends what it sees of the line.
//!
//! Invariant: no word is empty or holds a space.

use memchr::memchr;

/// Bytes of a key, at most (`KEY_MAX_LENGTH`).
pub const KEY_BYTES_MAX: usize = 250;

/// Bytes of a line with its end, at most: memcached closes a connection when it has more of a line and
/// no end of it. Only `get` and `gets` may be longer.
pub const LINE_BYTES_MAX: usize = 2048;

/// Words of a line that memcached tells apart (`MAX_TOKENS` less the one that ends them): what asks
/// for silence is looked for in the last of them, whatever follows.
pub(super) const WORDS_MAX: usize = 23;

/// A request's line without its end.
pub(super) fn line_of(request: &[u8]) -> &[u8] {
    let end = memchr(b'\n', request).unwrap_or(request.len());
    let line = &request[..end];
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The words of a line, in order.
pub(super) fn words(line: &[u8]) -> Words<'_> {
    Words { line }
}

/// See [`words`].
#[derive(Debug, Clone)]
pub(super) struct Words<'l> {
    line: &'l [u8],
}

impl<'l> Iterator for Words<'l> {
    type Item = &'l [u8];

    fn next(&mut self) -> Option<&'l [u8]> {
        while let Some(rest) = self.line.strip_prefix(b" ") {
            self.line = rest;
        }
        let end = memchr(b' ', self.line).unwrap_or(self.line.len());
        let (word, rest) = self.line.split_at(end);
        self.line = rest;
        (!word.is_empty()).then_some(word)
    }
}

/// Where in `line` a word stands that was taken from it.
pub(super) fn position(line: &[u8], word: &[u8]) -> usize {
    word.as_ptr() as usize - line.as_ptr() as usize
}

/// A number in the one form that every version of memcached reads in the same way: digits, no sign.
pub(super) fn number(word: &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    for byte in word {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (!word.is_empty()).then_some(value)
}

/// A time to live: digits that may have a minus, within 32 bits.
pub(super) fn is_time(word: &[u8]) -> bool {
    let (digits, max) = match word.strip_prefix(b"-") {
        Some(digits) => (digits, 1 << 31),
        None => (word, (1 << 31) - 1),
    };
    number(digits).is_some_and(|value| value <= max)
}

/// Whether memcached sees all of a line.
pub(super) fn is_seen_whole(line: &[u8]) -> bool {
    memchr(0, line).is_none()
}
