//! Where the replies of a memcached end.
//!
//! ```text
//!   Opening ─▶ (end)                      a line that is the whole reply
//!      │ ├───▶ Line ──▶ (end) or Opening  a line whose end is not in sight yet
//!      │ └───▶ Data ──▶ (end) or Opening  behind a line that announces so many bytes
//!      └─────▶ Opening                    a line that more of the reply follows
//! ```
//!
//! Not here: which request a reply belongs to. But a reply that can't be one to its request is a
//! violation: on a shared connection it may be somebody else's.
//!
//! Invariant: a byte of a line is looked at once where the line's end is in sight, and data not at
//! all. What is held are numbers.

use memchr::{memchr, memchr2};

use super::kind::{Kind, Shape};
use super::line::{number, words};
use crate::protocol::replies::{
    Replies, ReplyFrame, ReplyThen, ReplyViolation, UNDECIDED_BYTES_MAX,
};

/// Finds the end of each reply of one connection.
#[derive(Debug)]
pub struct ReplyFramer {
    state: State,
    /// The client is to see the reply that has begun.
    shown: bool,
    /// The reply has begun.
    is_begun: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// A line begins.
    Opening,
    /// Within a line that says nothing more.
    Line {
        /// The last byte was the first of a line end.
        is_ending: bool,
        then: After,
    },
    /// Within announced data. `left` is without the line end behind it.
    Data { left: u64, then: After },
    /// The first byte of the line end behind the data was there.
    DataEnd { then: After },
}

/// What follows a line, or data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// One more line of the reply.
    Opening,
    /// The next reply.
    End,
}

/// What the first word of a line makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Plain(After),
    /// The word of this number, counted from the first, says how many bytes of data follow.
    Announces(usize, After),
}

/// Bytes of a line that announces data, with its end, at most: the key of a `VALUE` has 250, and that
/// of a `VA` in base64 336, an opaque 32, and numbers 20 each.
const ANNOUNCING_BYTES_MAX: usize = 2048;
const _: () = assert!(ANNOUNCING_BYTES_MAX <= UNDECIDED_BYTES_MAX);

/// Bytes of the first word of a line, at most; no word that tells one line from another is as long.
const FIRST_WORD_BYTES_MAX: usize = 32;

const BROKEN_LINE: ReplyViolation = ReplyViolation("a line does not end in CRLF");
const BROKEN_DATA: ReplyViolation = ReplyViolation("data does not end where its line says");
const FOREIGN: ReplyViolation = ReplyViolation("a reply that is none to the command");
const NO_LENGTH: ReplyViolation = ReplyViolation("a line does not say how much data follows it");

impl Default for ReplyFramer {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplyFramer {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Opening,
            shown: true,
            is_begun: false,
        }
    }

    /// Takes the next piece of a reply: how many bytes it has, and whether the reply ends with it. Of
    /// no bytes: more must be here first.
    #[inline]
    fn step(&mut self, kind: Kind, bytes: &[u8]) -> Result<(usize, After), ReplyViolation> {
        match self.state {
            State::Opening => self.open(kind, bytes),
            State::Line { is_ending, then } => self.go_on(bytes, is_ending, then),
            State::Data { left, then } => self.skip(bytes, left, then),
            State::DataEnd { then } => match bytes.first() {
                None => Ok((0, After::Opening)),
                Some(b'\n') => {
                    self.state = State::Opening;
                    Ok((1, then))
                }
                Some(_) => Err(BROKEN_DATA),
            },
        }
    }

    #[inline]
    fn open(&mut self, kind: Kind, bytes: &[u8]) -> Result<(usize, After), ReplyViolation> {
        let sight = &bytes[..bytes.len().min(ANNOUNCING_BYTES_MAX)];
        let Some(end) = memchr(b'\n', sight) else {
            return self.open_unended(kind, sight, false);
        };
        let Some(line) = sight[..end].strip_suffix(b"\r") else {
            return self.open_unended(kind, &sight[..end], true);
        };
        let word = first_word(line);
        if word.len() > FIRST_WORD_BYTES_MAX {
            return Err(FOREIGN);
        }
        match self.begin(kind, word)? {
            Line::Plain(then) => Ok((end + 1, then)),
            Line::Announces(at, then) => {
                let length = words(line).nth(at).and_then(number);
                let left = length.ok_or(NO_LENGTH)?;
                self.state = State::Data { left, then };
                Ok((end + 1, After::Opening))
            }
        }
    }

    /// A line whose end is not in sight goes on as it comes, unless its length must be known. So does
    /// one that `is_broken` behind what is in sight, up to there.
    #[cold]
    fn open_unended(
        &mut self,
        kind: Kind,
        sight: &[u8],
        is_broken: bool,
    ) -> Result<(usize, After), ReplyViolation> {
        let word = first_word(sight);
        if word.len() > FIRST_WORD_BYTES_MAX {
            return Err(FOREIGN);
        }
        let is_word_whole = word.len() < sight.len();
        match (is_word_whole, is_broken) {
            (false, true) => return Err(BROKEN_LINE),
            (false, false) => return Ok((0, After::Opening)),
            (true, _) => {}
        }
        match self.begin(kind, word)? {
            Line::Plain(then) => {
                let is_ending = sight.ends_with(b"\r");
                self.state = State::Line { is_ending, then };
                Ok((sight.len(), After::Opening))
            }
            Line::Announces(..) if is_broken => Err(BROKEN_LINE),
            Line::Announces(..) if sight.len() == ANNOUNCING_BYTES_MAX => Err(NO_LENGTH),
            Line::Announces(..) => Ok((0, After::Opening)),
        }
    }

    /// The first line of a reply decides whether that is shown.
    #[inline]
    fn begin(&mut self, kind: Kind, word: &[u8]) -> Result<Line, ReplyViolation> {
        let line = classify(kind.shape, word)?;
        if !self.is_begun {
            self.is_begun = true;
            self.shown = kind.shows(word);
        }
        Ok(line)
    }

    fn go_on(
        &mut self,
        bytes: &[u8],
        is_ending: bool,
        then: After,
    ) -> Result<(usize, After), ReplyViolation> {
        match memchr(b'\n', bytes) {
            Some(0) if !is_ending => Err(BROKEN_LINE),
            Some(end) if end == 0 || bytes[end - 1] == b'\r' => {
                self.state = State::Opening;
                Ok((end + 1, then))
            }
            end => {
                let taken = end.unwrap_or(bytes.len());
                let is_ending = match bytes[..taken].last() {
                    Some(last) => *last == b'\r',
                    None => is_ending,
                };
                self.state = State::Line { is_ending, then };
                Ok((taken, After::Opening))
            }
        }
    }

    #[inline]
    fn skip(
        &mut self,
        bytes: &[u8],
        left: u64,
        then: After,
    ) -> Result<(usize, After), ReplyViolation> {
        if left > bytes.len() as u64 {
            let left = left - bytes.len() as u64;
            self.state = State::Data { left, then };
            return Ok((bytes.len(), After::Opening));
        }
        let data = left as usize;
        match bytes[data..] {
            [b'\r', b'\n', ..] => {
                self.state = State::Opening;
                return Ok((data + 2, then));
            }
            [] => self.state = State::Data { left: 0, then },
            [b'\r', ..] => {
                self.state = State::DataEnd { then };
                return Ok((data + 1, After::Opening));
            }
            // What precedes the wrong byte is taken first, in whatever pieces it came.
            _ if data == 0 => return Err(BROKEN_DATA),
            _ => self.state = State::Data { left: 0, then },
        }
        Ok((data, After::Opening))
    }
}

impl Replies for ReplyFramer {
    type Kind = Kind;

    fn frame(&mut self, kind: Kind, bytes: &[u8]) -> Result<ReplyFrame, ReplyViolation> {
        if !self.is_begun
            && let Some(reply) = usual(kind.shape)
            && bytes.starts_with(reply)
            && matches!(self.state, State::Opening)
        {
            return Ok(ReplyFrame {
                taken: reply.len(),
                shown: kind.shows(first_word(reply)),
                then: ReplyThen::End,
            });
        }
        let mut taken = 0;
        loop {
            let (count, then) = match self.step(kind, &bytes[taken..]) {
                Ok(step) => step,
                // The next call finds it again, with nothing before it.
                Err(_) if taken > 0 => (0, After::Opening),
                Err(violation) => return Err(violation),
            };
            taken += count;
            let shown = self.shown && taken > 0;
            if then == After::End {
                self.is_begun = false;
                let then = ReplyThen::End;
                return Ok(ReplyFrame { taken, shown, then });
            }
            if count == 0 || taken == bytes.len() {
                let then = ReplyThen::More;
                return Ok(ReplyFrame { taken, shown, then });
            }
        }
    }

    fn frame_unasked(&mut self, _bytes: &[u8]) -> Result<ReplyFrame, ReplyViolation> {
        Err(ReplyViolation("nothing is said unasked"))
    }
}

/// The reply that most commands of a shape have, all of it: found without reading it as a line.
#[inline]
fn usual(shape: Shape) -> Option<&'static [u8]> {
    match shape {
        Shape::Values => Some(b"END\r\n"),
        Shape::Stored => Some(b"STORED\r\n"),
        Shape::Deleted => Some(b"DELETED\r\n"),
        Shape::Touched => Some(b"TOUCHED\r\n"),
        Shape::MetaGet => Some(b"EN\r\n"),
        Shape::MetaSet | Shape::MetaDelete | Shape::MetaArithmetic => Some(b"HD\r\n"),
        _ => None,
    }
}

/// Up to the first space or the end of the line, as far as it is in sight.
#[inline]
fn first_word(line: &[u8]) -> &[u8] {
    let sight = &line[..line.len().min(FIRST_WORD_BYTES_MAX + 1)];
    &sight[..memchr2(b' ', b'\r', sight).unwrap_or(sight.len())]
}

/// What a line is that begins with `word`, in a reply of this shape.
#[inline]
fn classify(shape: Shape, word: &[u8]) -> Result<Line, ReplyViolation> {
    const END: Line = Line::Plain(After::End);
    const MORE: Line = Line::Plain(After::Opening);
    let line = match shape {
        Shape::Values => match word {
            b"VALUE" => Some(Line::Announces(3, After::Opening)),
            b"END" => Some(END),
            _ => None,
        },
        Shape::MetaGet => match word {
            b"VA" => Some(Line::Announces(1, After::End)),
            b"HD" | b"EN" | b"OK" => Some(END),
            _ => None,
        },
        Shape::MetaArithmetic => match word {
            b"VA" => Some(Line::Announces(1, After::End)),
            b"HD" | b"NF" | b"NS" | b"EX" | b"OK" => Some(END),
            _ => None,
        },
        Shape::Statistics => match word {
            b"STAT" | b"ITEM" | b"PREFIX" => Some(MORE),
            b"END" | b"OK" | b"RESET" => Some(END),
            _ => None,
        },
        one_line => is_reply(one_line, word).then_some(END),
    };
    match (line, word) {
        (Some(line), _) => Ok(line),
        (None, b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR") => Ok(END),
        (None, _) => Err(FOREIGN),
    }
}

/// Whether `word` begins a reply of a shape that has one line, if it is no error.
#[inline]
fn is_reply(shape: Shape, word: &[u8]) -> bool {
    match shape {
        Shape::Stored => matches!(word, b"STORED" | b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND"),
        Shape::Deleted => matches!(word, b"DELETED" | b"NOT_FOUND"),
        Shape::Touched => matches!(word, b"TOUCHED" | b"NOT_FOUND"),
        Shape::Number => word == b"NOT_FOUND" || number(word).is_some(),
        Shape::Version => word == b"VERSION",
        Shape::MetaSet => matches!(word, b"HD" | b"NS" | b"EX" | b"NF" | b"OK"),
        Shape::MetaDelete => matches!(word, b"HD" | b"NF" | b"EX" | b"OK"),
        Shape::MetaDebug => matches!(word, b"ME" | b"EN"),
        // Words of several commands and versions, but none by which another reply goes on.
        Shape::AnyLine => !matches!(word, b"VALUE" | b"VA" | b"STAT" | b"END" | b""),
        Shape::Values | Shape::MetaGet | Shape::MetaArithmetic | Shape::Statistics => false,
    }
}
