//! Lines that announce data: `set`, `add`, `replace`, `append`, `prepend`, `cas`, and `ms`.
//!
//! memcached reads the data only after a line that it likes, and takes it for commands after any
//! other. So the line is judged by the strictest rules that any version has: what passes is followed
//! by its data for each of them.
//!
//! Invariant: where the length of the data can be read, the data is never taken for commands.

use super::kind::Shape;
use super::line::{KEY_BYTES_MAX, is_seen_whole, is_time, number, words};
use super::violation::RequestViolation;

/// Words of a meta command, at most (`MFLAG_MAX_OPT_LENGTH` less the one that ends them).
pub(super) const META_WORDS_MAX: usize = 19;

/// A line that announces data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Storage {
    /// Bytes of the data without the line end behind it. `None`: the line does not say it in a way
    /// that can be trusted, and stands alone.
    pub(super) data: Option<u64>,
    /// Why the line is refused.
    pub(super) fault: Option<RequestViolation>,
    /// It is a meta command.
    pub(super) is_meta: bool,
    /// It asks for silence.
    pub(super) is_quiet: bool,
}

impl Storage {
    /// Whether the client of a real memcached would see an error that the line is answered with, or
    /// that its data is: `noreply` hides them all, the meta protocol none.
    pub(super) fn shows_errors(self) -> bool {
        self.is_meta || !self.is_quiet
    }

    /// The shape of the reply.
    pub(super) fn shape(self) -> Shape {
        match self.is_meta {
            true => Shape::MetaSet,
            false => Shape::Stored,
        }
    }
}

/// Reads a line without its end. `None`: it announces no data.
pub(super) fn storage(line: &[u8]) -> Option<Storage> {
    // All but these are told by their first byte.
    if !matches!(
        line.first(),
        Some(b's' | b'a' | b'r' | b'p' | b'c' | b'm' | b' ')
    ) {
        return None;
    }
    let verb = words(line).next()?;
    match verb {
        b"set" | b"add" | b"replace" | b"append" | b"prepend" => Some(classic(line, 5)),
        b"cas" => Some(classic(line, 6)),
        b"ms" => Some(meta(line)),
        _ => None,
    }
}

/// `set <key> <flags> <exptime> <bytes> [noreply]`, and `cas` with one more word.
fn classic(line: &[u8], words_min: usize) -> Storage {
    let mut words_of = [&line[..0]; 8];
    let mut count = 0;
    for (place, word) in words_of.iter_mut().zip(words(line)) {
        *place = word;
        count += 1;
    }
    let mut storage = Storage {
        data: None,
        fault: None,
        is_meta: false,
        is_quiet: false,
    };
    let [_, key, flags, time, bytes, unique, ..] = words_of;
    if count != words_min && count != words_min + 1 {
        storage.fault = Some(RequestViolation::Unknown);
        return storage;
    }
    storage.is_quiet = words_of[count - 1] == b"noreply";
    storage.data = number(bytes);
    let is_sound = storage.data.is_some()
        && key.len() <= KEY_BYTES_MAX
        && number(flags).is_some_and(|flags| flags <= u32::MAX.into())
        && is_time(time)
        && (words_min == 5 || number(unique).is_some())
        && (count == words_min || storage.is_quiet)
        && is_seen_whole(line);
    if !is_sound {
        storage.fault = Some(RequestViolation::BadFormat);
    }
    storage
}

/// `ms <key> <bytes> <flags>*`
fn meta(line: &[u8]) -> Storage {
    let mut storage = Storage {
        data: None,
        fault: Some(RequestViolation::BadFormat),
        is_meta: true,
        is_quiet: false,
    };
    let mut rest = words(line).skip(1);
    let (Some(key), Some(bytes)) = (rest.next(), rest.next()) else {
        if words(line).count() < 2 {
            storage.fault = Some(RequestViolation::Unknown);
        }
        return storage;
    };
    storage.data = number(bytes);
    let flags = Flags::of(rest);
    storage.is_quiet = flags.quiet > 0;
    let is_sound = storage.data.is_some() && key.len() <= KEY_BYTES_MAX && is_seen_whole(line);
    storage.fault = match is_sound {
        false => Some(RequestViolation::BadFormat),
        true => flags.fault(3),
    };
    storage
}

/// What is to be known of the flags of a meta command.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flags {
    pub(super) count: usize,
    /// How often it asks for silence.
    pub(super) quiet: usize,
    /// It has flags by which a fetch changes what is stored.
    pub(super) changes: bool,
}

impl Flags {
    pub(super) fn of<'l>(words: impl Iterator<Item = &'l [u8]>) -> Self {
        let mut flags = Self::default();
        for word in words {
            flags.count += 1;
            match word.first() {
                Some(b'q') => flags.quiet += 1,
                Some(b'N' | b'R' | b'T' | b'E') => flags.changes = true,
                _ => {}
            }
        }
        flags
    }

    /// Why a command is refused whose flags these are, behind so many other words.
    pub(super) fn fault(self, words_before: usize) -> Option<RequestViolation> {
        if self.count + words_before > META_WORDS_MAX {
            Some(RequestViolation::TooManyFlags)
        } else if self.quiet > 1 {
            Some(RequestViolation::DuplicateFlag)
        } else {
            None
        }
    }
}
