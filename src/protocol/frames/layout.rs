//! A framing as it is declared: where a frame ends, and which frames are not answered or answer
//! nothing.
//!
//! Not here: how it is written in a file, and the reading of frames (see `head` and `delimiter`).
//!
//! Invariant: what [`Layout::check`] lets through can be framed: some frame fits, and all that has to
//! be in sight before a frame goes on lies within its first [`HEAD_BYTES_MAX`] bytes.

use thiserror::Error;

/// Bytes within which a length field must end and a mark must lie. So many are looked at together;
/// no known protocol needs a quarter of them.
pub const HEAD_BYTES_MAX: usize = 256;

/// Bytes of a delimiter, at most.
pub const DELIMITER_BYTES_MAX: usize = 64;

/// How the frames of a service look, in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// How the end of a frame is known.
    pub framing: Framing,
    /// Bytes of a frame, all of it, at most.
    pub frame_max: usize,
    /// Marks the requests that are not answered. `None`: all are answered.
    pub oneway: Option<Mark>,
    /// Marks the frames that only say that their sender is alive. `None`: there are none.
    pub heartbeat: Option<Mark>,
}

/// How the end of a frame is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// A field of the frame says how long it is.
    Length(LengthField),
    /// It ends with the first of these bytes in a row; they are part of it.
    Delimiter(Box<[u8]>),
    /// All frames have this many bytes.
    Fixed(usize),
}

/// A length field, as Netty's `LengthFieldBasedFrameDecoder` knows it: the frame has
/// `value + adjust + offset + width` bytes, so `adjust` counts from the end of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthField {
    /// Bytes of the frame before the field.
    pub offset: usize,
    /// Bytes of the field, 1 to 8. It is read without a sign.
    pub width: usize,
    /// The order of its bytes.
    pub endian: Endian,
    /// What is added to its value: negative where it counts itself or what stands before it.
    pub adjust: i64,
}

/// The order of a number's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endian {
    /// The most significant byte comes first.
    Big,
    /// The least significant byte comes first.
    Little,
}

impl Endian {
    /// The number that up to 8 bytes stand for, without a sign.
    pub(super) fn number(self, bytes: &[u8]) -> u64 {
        let push = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        match self {
            Self::Big => bytes.iter().fold(0, push),
            Self::Little => bytes.iter().rev().fold(0, push),
        }
    }

    /// Writes a number that fits into up to 8 bytes; of a larger one its low bytes.
    pub(super) fn write(self, number: u64, bytes: &mut [u8]) {
        let width = bytes.len();
        match self {
            Self::Big => bytes.copy_from_slice(&number.to_be_bytes()[8 - width..]),
            Self::Little => bytes.copy_from_slice(&number.to_le_bytes()[..width]),
        }
    }
}

/// Some bits of one byte that tell one kind of frame from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Bytes of the frame before the byte.
    pub offset: usize,
    /// The bits that count.
    pub mask: u8,
    /// What they are in the frames that are marked.
    pub value: u8,
}

/// Why no frame could ever be read, or a mark says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LayoutFault {
    /// Of the length field.
    #[error("the length field is not 1 to 8 bytes wide")]
    BadWidth,
    /// It ends after [`HEAD_BYTES_MAX`].
    #[error("the length field does not lie within the first {HEAD_BYTES_MAX} bytes")]
    FieldTooFarIn,
    /// It ends after the longest frame does.
    #[error("the longest frame has no room for the length field")]
    FieldBeyondFrame,
    /// The adjustment takes each of its values below the field's end or over the longest frame.
    #[error("no value of the length field gives a length that a frame can have")]
    NoLengthFits,
    /// Of the delimiter.
    #[error("the delimiter is empty")]
    EmptyDelimiter,
    /// Over [`DELIMITER_BYTES_MAX`].
    #[error("the delimiter has more than {DELIMITER_BYTES_MAX} bytes")]
    DelimiterTooLong,
    /// It is longer than the longest frame.
    #[error("the longest frame has no room for the delimiter")]
    DelimiterBeyondFrame,
    /// Of the fixed size.
    #[error("a frame of no bytes can't be told from the next")]
    EmptyFrame,
    /// The fixed size is over the maximum.
    #[error("the frames are longer than the longest frame")]
    SizeBeyondFrame,
    /// Of the mark of one-way requests.
    #[error("the mark of one-way requests {0}")]
    Oneway(MarkFault),
    /// Of the mark of heartbeats.
    #[error("the mark of heartbeats {0}")]
    Heartbeat(MarkFault),
}

/// Why a mark says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MarkFault {
    /// After [`HEAD_BYTES_MAX`].
    #[error("does not lie within the first {HEAD_BYTES_MAX} bytes")]
    TooFarIn,
    /// No frame has that byte, or only the delimiter of the longest ones stands there.
    #[error("lies where no frame has a byte of its own")]
    BeyondFrame,
    /// The mask is 0: it would match every frame.
    #[error("looks at no bit")]
    NoBits,
    /// The value has bits outside the mask: it would match no frame.
    #[error("expects bits that its mask hides")]
    NeverMatches,
}

impl Layout {
    /// Says what makes the declaration impossible; the first of it, in the order of the fields.
    pub fn check(&self) -> Result<(), LayoutFault> {
        let marks_end = match &self.framing {
            Framing::Length(field) => field.check(self.frame_max).map(|()| self.frame_max),
            Framing::Delimiter(delimiter) => check_delimiter(delimiter, self.frame_max),
            Framing::Fixed(0) => Err(LayoutFault::EmptyFrame),
            Framing::Fixed(size) if *size > self.frame_max => Err(LayoutFault::SizeBeyondFrame),
            Framing::Fixed(size) => Ok(*size),
        }?;
        let check = |mark: Option<Mark>| mark.map_or(Ok(()), |mark| mark.check(marks_end));
        check(self.oneway).map_err(LayoutFault::Oneway)?;
        check(self.heartbeat).map_err(LayoutFault::Heartbeat)
    }

    /// Whether a client can tell from the protocol when a frame is cut short. Where not, only a reset
    /// tells it: a reader of lines may take the end of the stream for the end of a line.
    #[must_use]
    pub fn client_sees_end(&self) -> bool {
        match self.framing {
            Framing::Length(_) | Framing::Fixed(_) => true,
            Framing::Delimiter(_) => false,
        }
    }
}

impl LengthField {
    /// The length of the whole frame, once the field is in sight. A length that does not reach to the
    /// end of the field or has no 64 bits is none.
    pub(super) fn read(&self, frame: &[u8]) -> Option<Result<u64, BadLength>> {
        let field = frame.get(self.offset..)?.get(..self.width)?;
        let length = self.length_of(self.endian.number(field));
        Some(match u64::try_from(length) {
            Ok(length) if length >= self.end() as u64 => Ok(length),
            _ => Err(BadLength),
        })
    }

    /// Where the field ends, and with it the shortest frame.
    fn end(&self) -> usize {
        self.offset.saturating_add(self.width)
    }

    fn length_of(&self, value: u64) -> i128 {
        i128::from(value) + i128::from(self.adjust) + self.end() as i128
    }

    fn check(&self, frame_max: usize) -> Result<(), LayoutFault> {
        if !(1..=8).contains(&self.width) {
            return Err(LayoutFault::BadWidth);
        }
        if self.end() > HEAD_BYTES_MAX {
            return Err(LayoutFault::FieldTooFarIn);
        }
        if self.end() > frame_max {
            return Err(LayoutFault::FieldBeyondFrame);
        }
        let value_max = u64::MAX >> (64 - 8 * self.width);
        let some_reaches_its_end = self.length_of(value_max) >= self.end() as i128;
        let some_is_short_enough = self.length_of(0) <= frame_max as i128;
        match some_reaches_its_end && some_is_short_enough {
            true => Ok(()),
            false => Err(LayoutFault::NoLengthFits),
        }
    }
}

/// A length field's value that is the length of no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadLength;

impl Mark {
    /// Whether `frame`, which may be only the beginning of one, has the mark. One that is too short to
    /// have the byte does not.
    pub(super) fn is_on(&self, frame: &[u8]) -> bool {
        frame
            .get(self.offset)
            .is_some_and(|byte| byte & self.mask == self.value)
    }

    /// How many bytes of a frame have to be in sight.
    pub(super) fn end(&self) -> usize {
        self.offset.saturating_add(1)
    }

    /// `frame_end`: where the longest frame's own bytes end.
    pub(super) fn check(&self, frame_end: usize) -> Result<(), MarkFault> {
        if self.end() > HEAD_BYTES_MAX {
            Err(MarkFault::TooFarIn)
        } else if self.end() > frame_end {
            Err(MarkFault::BeyondFrame)
        } else if self.mask == 0 {
            Err(MarkFault::NoBits)
        } else if self.value & !self.mask != 0 {
            Err(MarkFault::NeverMatches)
        } else {
            Ok(())
        }
    }
}

/// Where the longest frame's own bytes end. A mark further in would be decided by the delimiter.
fn check_delimiter(delimiter: &[u8], frame_max: usize) -> Result<usize, LayoutFault> {
    if delimiter.is_empty() {
        return Err(LayoutFault::EmptyDelimiter);
    }
    if delimiter.len() > DELIMITER_BYTES_MAX {
        return Err(LayoutFault::DelimiterTooLong);
    }
    frame_max
        .checked_sub(delimiter.len())
        .ok_or(LayoutFault::DelimiterBeyondFrame)
}
