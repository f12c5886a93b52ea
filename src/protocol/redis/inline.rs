//! Inline commands: a line of words, for those who type, as Redis splits it (`sdssplitargs` in its
//! `sds.c`).
//!
//! Not here: where the line ends.
//!
//! Invariant: what is written is a multibulk command of the words that Redis would have seen.

use super::violation::RequestViolation;

/// Appends the multibulk form of an inline command to `out`: nothing for a blank line.
///
/// `line` may end with its line feed, which is white space.
///
/// # Errors
/// The quotes are unbalanced, or there is a NUL; nothing has been appended.
pub fn canonical(line: &[u8], out: &mut Vec<u8>) -> Result<(), RequestViolation> {
    if memchr::memchr(0, line).is_some() {
        return Err(RequestViolation::NulInLine);
    }
    let mut word = Vec::new();
    let count = word_count(line)?;
    if count == 0 {
        return Ok(());
    }
    header(b'*', count, out);
    let mut words = Words::new(line);
    while words.next(&mut word)? {
        header(b'$', word.len(), out);
        out.extend_from_slice(&word);
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

/// How many words there are.
pub(super) fn word_count(line: &[u8]) -> Result<usize, RequestViolation> {
    let mut words = Words::new(line);
    let mut word = Vec::new();
    let mut count = 0;
    while words.next(&mut word)? {
        count += 1;
    }
    Ok(count)
}

/// The first word; empty where there is none.
pub(super) fn first_word(line: &[u8]) -> Result<Vec<u8>, RequestViolation> {
    let mut word = Vec::new();
    Words::new(line).next(&mut word)?;
    Ok(word)
}

fn header(kind: u8, number: usize, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(number.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    fn new(line: &'a [u8]) -> Self {
        Self { rest: line }
    }

    /// Writes the next word to `word`. `false`: there is none.
    fn next(&mut self, word: &mut Vec<u8>) -> Result<bool, RequestViolation> {
        word.clear();
        while let [first, rest @ ..] = self.rest
            && is_space(*first)
        {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return Ok(false);
        }
        while let [first, rest @ ..] = self.rest {
            match first {
                b'"' | b'\'' => {
                    self.rest = quoted(*first, rest, word)?;
                    return Ok(true);
                }
                // A vertical tab or a form feed stands between words, but ends none.
                b' ' | b'\n' | b'\r' | b'\t' => break,
                byte => word.push(*byte),
            }
            self.rest = rest;
        }
        Ok(true)
    }
}

/// Appends what stands before the closing `quote`, which also ends the word, and gives what follows.
fn quoted<'a>(
    quote: u8,
    mut rest: &'a [u8],
    word: &mut Vec<u8>,
) -> Result<&'a [u8], RequestViolation> {
    loop {
        let (byte, next) = match (rest, quote) {
            ([], _) => return Err(RequestViolation::UnbalancedQuotes),
            ([byte, after @ ..], _) if *byte == quote => {
                return match after.first() {
                    Some(byte) if !is_space(*byte) => Err(RequestViolation::UnbalancedQuotes),
                    _ => Ok(after),
                };
            }
            ([b'\\', b'\'', next @ ..], b'\'') => (b'\'', next),
            ([b'\\', b'x', high, low, next @ ..], b'"')
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(*high) << 4 | hex(*low), next)
            }
            ([b'\\', byte, next @ ..], b'"') => (escaped(*byte), next),
            ([byte, next @ ..], _) => (*byte, next),
        };
        word.push(byte);
        rest = next;
    }
}

fn escaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// `isspace` in the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}
