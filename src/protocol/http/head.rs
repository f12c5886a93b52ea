//! The head of a message as bytes: finding its end, naming what is wrong with it, copying it with
//! changes. Shared by requests, responses and trailer sections.
//!
//! httparse reads the fields. It tolerates bare LF and any number of empty lines in front, so
//! [`Scan`] has looked at every line end before.
//!
//! Invariant: a verdict depends on the bytes alone. What is found while a head is still incomplete
//! (line ends, size) outranks what is found in its fields, in whatever pieces it came.

use std::ops::Range;

use httparse::Header;
use memchr::memchr2;

use super::fields::{Field, is_token};

/// Fields of a head or of a trailer section, at most.
pub(super) const FIELDS_MAX: usize = 100;

/// What is wrong with a head, apart from its start line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadFault {
    /// Over `head_max` bytes or [`FIELDS_MAX`] fields.
    TooLarge,
    /// A CR without LF or a LF without CR (RFC 9112 section 2.2).
    BareLineEnd,
    /// Space between a field's name and its colon (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// A line that starts with space (RFC 9112 section 5.2).
    Folded,
    /// A byte that a name or value may not have (RFC 9110 section 5).
    BadField,
}

/// Looks for the empty line that ends a head, and remembers how far it looked, so that a head that
/// comes in small pieces is looked at once.
#[derive(Debug)]
pub(super) struct Scan {
    seen: usize,
    line_start: usize,
    first_line: Option<usize>,
}

impl Scan {
    pub(super) const fn new() -> Self {
        Self {
            seen: 0,
            line_start: 0,
            first_line: None,
        }
    }

    /// The length of what starts at `bytes[0]` and ends with an empty line, once that is in sight.
    /// `bytes` must begin at the same place in every call.
    pub(super) fn look(&mut self, bytes: &[u8], max: usize) -> Result<Option<usize>, HeadFault> {
        let limit = bytes.len().min(max);
        while let Some(ahead) = memchr2(b'\r', b'\n', &bytes[self.seen..limit]) {
            let at = self.seen + ahead;
            if bytes[at] == b'\n' {
                return Err(HeadFault::BareLineEnd);
            }
            self.seen = at;
            let after = at + 1;
            if after == limit {
                return self.unfinished(limit, max);
            }
            if bytes[after] != b'\n' {
                return Err(HeadFault::BareLineEnd);
            }
            let empty = at == self.line_start;
            self.seen = after + 1;
            self.line_start = self.seen;
            self.first_line.get_or_insert(self.seen);
            if empty {
                return Ok(Some(self.seen));
            }
        }
        self.seen = limit;
        self.unfinished(limit, max)
    }

    /// The length of the first line with its CRLF, once it was seen.
    pub(super) fn first_line(&self) -> Option<usize> {
        self.first_line
    }

    fn unfinished(&self, limit: usize, max: usize) -> Result<Option<usize>, HeadFault> {
        if limit == max {
            Err(HeadFault::TooLarge)
        } else {
            Ok(None)
        }
    }
}

/// Says what httparse's refusal of a head or trailer section means. `lines` starts at the first field.
pub(super) fn fault_of(error: httparse::Error, lines: &[u8]) -> HeadFault {
    if error == httparse::Error::TooManyHeaders {
        return HeadFault::TooLarge;
    }
    for line in lines.split(|&byte| byte == b'\n') {
        let name = line.iter().take_while(|&&byte| is_token(byte)).count();
        let spaces = line[name..]
            .iter()
            .take_while(|&&byte| matches!(byte, b' ' | b'\t'))
            .count();
        match line.get(name + spaces) {
            _ if name == 0 && spaces > 0 => return HeadFault::Folded,
            Some(b':') if name > 0 && spaces > 0 => return HeadFault::SpaceBeforeColon,
            Some(b':') if name > 0 && line[name..].iter().all(|&byte| is_value(byte)) => {}
            _ => return HeadFault::BadField,
        }
    }
    HeadFault::BadField
}

fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\r' | b' '..=0x7e | 0x80..)
}

/// The fields of a head that httparse accepted, each with the place of its line.
pub(super) struct Fields<'h, 'b> {
    head: &'b [u8],
    list: &'h [Header<'b>],
}

impl<'h, 'b> Fields<'h, 'b> {
    /// `list` was read from `head`, which ends with its empty line.
    pub(super) fn new(head: &'b [u8], list: &'h [Header<'b>]) -> Self {
        Self { head, list }
    }

    pub(super) fn head(&self) -> &'b [u8] {
        self.head
    }

    /// Where the first field's line starts: right after the start line.
    pub(super) fn start(&self) -> usize {
        self.line_start(0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Field, &'b [u8])> + '_ {
        self.list
            .iter()
            .map(|header| (Field::of(header.name), header.value))
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'b>> + '_ {
        self.list.iter().enumerate().map(|(index, header)| Line {
            field: Field::of(header.name),
            name: header.name,
            at: self.line_start(index)..self.line_start(index + 1),
        })
    }

    /// Where the line of the field at `index` starts; the empty line for the one past the last.
    fn line_start(&self, index: usize) -> usize {
        match self.list.get(index) {
            Some(header) => header.name.as_ptr() as usize - self.head.as_ptr() as usize,
            None => self.head.len() - b"\r\n".len(),
        }
    }
}

/// One field and its line.
pub(super) struct Line<'b> {
    pub(super) field: Field,
    pub(super) name: &'b str,
    /// From the first byte of the name to the CRLF, inclusive.
    pub(super) at: Range<usize>,
}

/// Copies a head's field lines in as few pieces as its changes allow.
pub(super) struct LineCopy<'b, 'o> {
    head: &'b [u8],
    copied: usize,
    pub(super) edited: &'o mut Vec<u8>,
}

impl<'b, 'o> LineCopy<'b, 'o> {
    /// Starts at byte `from` of `head`, the first that may be copied.
    pub(super) fn new(head: &'b [u8], from: usize, edited: &'o mut Vec<u8>) -> Self {
        Self {
            head,
            copied: from,
            edited,
        }
    }

    /// Copies what stands before `at` and leaves `at` out; the caller may write something instead.
    pub(super) fn leave_out(&mut self, at: &Range<usize>) {
        self.edited
            .extend_from_slice(&self.head[self.copied..at.start]);
        self.copied = at.end;
    }

    /// Replaces a field's line.
    pub(super) fn replace(&mut self, line: &Line<'_>, value: &[u8]) {
        self.leave_out(&line.at);
        push_field(self.edited, line.name, value);
    }

    /// Leaves out what stands between a field's name and its colon.
    pub(super) fn without_space_before_colon(&mut self, line: &Line<'_>) {
        let name_end = line.at.start + line.name.len();
        if self.head[name_end] != b':' {
            let spaces = self.head[name_end..]
                .iter()
                .take_while(|&&byte| byte != b':')
                .count();
            self.leave_out(&(name_end..name_end + spaces));
        }
    }

    /// Copies the rest of the lines, without the empty line at the end.
    pub(super) fn rest(mut self) -> &'o mut Vec<u8> {
        let end = self.head.len() - b"\r\n".len();
        self.leave_out(&(end..end));
        self.edited
    }
}

/// Writes the line of a field whose value is a number.
pub(super) fn push_number(edited: &mut Vec<u8>, name: &str, number: u64) {
    edited.extend_from_slice(name.as_bytes());
    edited.extend_from_slice(b": ");
    push_decimal(edited, number);
    edited.extend_from_slice(b"\r\n");
}

/// Writes one field's line.
pub(super) fn push_field(edited: &mut Vec<u8>, name: &str, value: &[u8]) {
    edited.extend_from_slice(name.as_bytes());
    edited.extend_from_slice(b": ");
    edited.extend_from_slice(value);
    edited.extend_from_slice(b"\r\n");
}

/// Writes a number in decimal, without a detour over a string.
pub(super) fn push_decimal(edited: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    edited.extend_from_slice(&digits[first..]);
}
