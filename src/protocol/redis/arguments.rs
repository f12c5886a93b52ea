//! The arguments of a command, in the bytes that it came in.
//!
//! Not here: whether the bytes are a command; a [`super::RequestFramer`] has said so.
//!
//! Invariant: an argument is given only when all of it is in sight, and none after one that is not.

use super::number::{self, Number};

/// A command of the form `*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`.
#[derive(Debug, Clone, Copy)]
pub struct Arguments<'a> {
    count: usize,
    /// From the header of the first argument on.
    bytes: &'a [u8],
}

impl<'a> Arguments<'a> {
    /// The view of a command that a framer has found whole, or of as much of a command's beginning
    /// as is there. `None`: the number of arguments is not in sight, or it is no such command.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (b'*', rest) = bytes.split_first()? else {
            return None;
        };
        let Number::Found { value, bytes } = number::read(rest) else {
            return None;
        };
        Some(Self {
            count: usize::try_from(value).ok()?,
            bytes: &rest[bytes..],
        })
    }

    /// How many there are, the command's name included, whether in sight or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The command's name, in the case that the client wrote it; empty while it is not in sight.
    #[must_use]
    #[inline]
    pub fn name(&self) -> &'a [u8] {
        self.iter().next().unwrap_or_default()
    }

    /// The argument of this number; the name is number 0. `None`: it is not there, or not in sight.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<&'a [u8]> {
        self.iter().nth(number)
    }

    /// Whether all of them are in sight.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.iter().count() == self.count
    }

    /// Those in sight, from the name on.
    #[must_use]
    #[inline]
    pub fn iter(&self) -> ArgumentIter<'a> {
        ArgumentIter {
            left: self.count,
            bytes: self.bytes,
        }
    }
}

impl<'a> IntoIterator for &Arguments<'a> {
    type Item = &'a [u8];
    type IntoIter = ArgumentIter<'a>;

    fn into_iter(self) -> ArgumentIter<'a> {
        self.iter()
    }
}

/// The arguments in sight, in order.
#[derive(Debug, Clone)]
pub struct ArgumentIter<'a> {
    left: usize,
    bytes: &'a [u8],
}

impl<'a> Iterator for ArgumentIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let argument = split_bulk(&mut self.bytes);
        if argument.is_none() {
            self.left = 0;
        }
        argument
    }
}

/// The bulk string that `bytes` begin with; they are what follows it.
#[inline]
pub(super) fn split_bulk<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (b'$', rest) = bytes.split_first()? else {
        return None;
    };
    let Number::Found { value, bytes: head } = number::read(rest) else {
        return None;
    };
    let end = head.checked_add(usize::try_from(value).ok()?)?;
    let bulk = rest.get(head..end)?;
    *bytes = rest.get(end..)?.strip_prefix(b"\r\n")?;
    Some(bulk)
}
