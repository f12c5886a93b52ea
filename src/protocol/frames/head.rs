//! The head of a frame, which is all that must be in sight before the frame goes on: its length field
//! and the marks that somebody asks for. And what comes after it, which is only counted or searched.
//!
//! Invariant: what a head says does not depend on how many bytes behind it are in sight already, and
//! nothing behind the end of a frame is taken for part of it.

use memchr::memmem;

use super::FrameViolation;
use super::delimiter::{Delimited, Taken};
use super::layout::{BadLength, Framing, Layout};

/// What the first bytes of a frame say.
#[derive(Debug)]
pub(super) struct Head<'l, 'b> {
    /// The frame's bytes up to where the marks end, or all of it where it is shorter.
    pub(super) bytes: &'b [u8],
    /// Bytes of the frame, all of it, where they are known in advance.
    pub(super) length: Option<u64>,
    /// The frame, of which nothing is taken yet.
    pub(super) rest: Rest<'l>,
}

/// What is not taken yet of a frame.
#[derive(Debug)]
pub(super) enum Rest<'l> {
    /// So many bytes.
    Counted(u64),
    Delimited(Delimited<'l>),
}

impl<'l, 'b> Head<'l, 'b> {
    /// Judges the frame that starts at `bytes[0]`, once its length field and its first `marks_end`
    /// bytes are in sight. A length outranks the marks behind it.
    pub(super) fn read(
        layout: &'l Layout,
        marks_end: usize,
        bytes: &'b [u8],
    ) -> Result<Option<Self>, FrameViolation> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let length = match &layout.framing {
            Framing::Delimiter(delimiter) => {
                return Ok(Self::read_delimited(layout, delimiter, marks_end, bytes));
            }
            Framing::Fixed(size) => *size as u64,
            Framing::Length(field) => match field.read(bytes) {
                None => return Ok(None),
                Some(Err(BadLength)) => return Err(FrameViolation::BadLength),
                Some(Ok(length)) => length,
            },
        };
        if length > layout.frame_max as u64 {
            return Err(FrameViolation::TooLong);
        }
        let marks_end = usize::try_from(length).map_or(marks_end, |length| marks_end.min(length));
        Ok(bytes.get(..marks_end).map(|bytes| Self {
            bytes,
            length: Some(length),
            rest: Rest::Counted(length),
        }))
    }

    fn read_delimited(
        layout: &'l Layout,
        delimiter: &'l [u8],
        marks_end: usize,
        bytes: &'b [u8],
    ) -> Option<Self> {
        let bytes = &bytes[..marks_end.min(bytes.len())];
        let end = memmem::find(bytes, delimiter).map(|at| at + delimiter.len());
        if end.is_none() && bytes.len() < marks_end {
            return None;
        }
        Some(Self {
            bytes: &bytes[..end.unwrap_or(marks_end)],
            length: None,
            rest: Rest::Delimited(Delimited::new(delimiter, layout.frame_max)),
        })
    }
}

impl Rest<'_> {
    /// Takes what is there of the frame.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Taken, FrameViolation> {
        match self {
            Self::Counted(left) => {
                let count =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= count as u64;
                Ok(Taken {
                    count,
                    is_whole: *left == 0,
                })
            }
            Self::Delimited(delimited) => delimited.take(bytes),
        }
    }
}
