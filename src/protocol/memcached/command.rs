//! What becomes of a request: it is shared, answered here, or refused.
//!
//! Shared is what has exactly one reply, once it is disarmed, and leaves the connection as it was.
//! What would end the connection, or turn it into a stream of its own, never reaches it: `quit` is
//! for the client's session, and `shutdown`, `watch`, `lru_crawler metadump` and `mgdump` are refused
//! in the words of a memcached that does not allow them.
//!
//! Not here: where a request ends (see [`RequestFramer`](super::RequestFramer)); commands that change
//! or drop what is stored for everybody, as `flush_all` does, are the operator's matter, not the
//! connection's.

use super::kind::{Hidden, Kind, Shape};
use super::line::{KEY_BYTES_MAX, WORDS_MAX, is_seen_whole, line_of, position, words};
use super::quiet::silencer;
use super::storage::{Flags, storage};
use super::violation::RequestViolation;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It goes to the service.
    Share(Shared),
    /// Nothing of it goes to the service, which has no part in the answer.
    Answer(Local),
    /// Nothing of it goes to the service.
    Refuse(Refusal),
}

/// A request that may go over a connection that others use too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    /// What its reply may be, and whether the client sees it.
    pub kind: Kind,
    /// It changes nothing that is stored, so it may be sent once more.
    pub read_only: bool,
    /// It asks for silence, and must go on in the form that
    /// [`write_disarmed`](super::write_disarmed) gives it.
    pub armed: bool,
}

/// An answer that needs no service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// This reply, when it is its turn: the reply to `mn` says that all before it were sent.
    Say(&'static [u8]),
    /// No reply: the session ends when all replies before are sent.
    Close,
}

/// A request that the service never sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told. Empty where it asked for silence, and memcached would keep it.
    pub reply: &'static [u8],
}

/// Judges a request by its line, which must be here; its data need not be.
#[must_use]
pub fn treatment(request: &[u8]) -> Treatment {
    let line = line_of(request);
    if let Some(storage) = storage(line) {
        return match storage.fault {
            Some(violation) => refuse(violation, storage.shows_errors()),
            None if storage.is_quiet && storage.is_meta => armed(storage.shape(), Hidden::Success),
            None if storage.is_quiet => armed(storage.shape(), Hidden::All),
            None => share(storage.shape(), false),
        };
    }
    if !is_seen_whole(line) {
        return refuse(RequestViolation::BadFormat, true);
    }
    let mut rest = words(line);
    match rest.next().unwrap_or_default() {
        b"get" | b"gets" => fetch(rest, 1, true),
        b"gat" | b"gats" => fetch(rest, 2, false),
        b"mg" => meta(line, Shape::MetaGet),
        b"md" => meta(line, Shape::MetaDelete),
        b"ma" => meta(line, Shape::MetaArithmetic),
        b"me" => share(Shape::MetaDebug, true),
        b"mn" => Treatment::Answer(Local::Say(b"MN\r\n")),
        b"version" => share(Shape::Version, true),
        b"quit" => Treatment::Answer(Local::Close),
        verb => classic(line, verb),
    }
}

/// `get`, `gets`; and `gat`, `gats`, which have a time before the keys.
fn fetch<'l>(
    mut rest: impl Iterator<Item = &'l [u8]>,
    words_before_keys: usize,
    read_only: bool,
) -> Treatment {
    for _ in 1..words_before_keys {
        rest.next();
    }
    let mut keys = 0;
    for key in rest {
        keys += 1;
        if key.len() > KEY_BYTES_MAX {
            return refuse(RequestViolation::BadFormat, true);
        }
    }
    match keys {
        0 => refuse(RequestViolation::Unknown, true),
        _ => share(Shape::Values, read_only),
    }
}

/// `mg`, `md`, `ma`.
fn meta(line: &[u8], shape: Shape) -> Treatment {
    let mut rest = words(line).skip(1);
    let Some(key) = rest.next() else {
        return refuse(RequestViolation::Unknown, true);
    };
    if key.len() > KEY_BYTES_MAX {
        return refuse(RequestViolation::BadFormat, true);
    }
    let flags = Flags::of(rest);
    if let Some(violation) = flags.fault(2) {
        return refuse(violation, true);
    }
    let (read_only, hidden) = match shape {
        Shape::MetaGet => (!flags.changes, Hidden::Miss),
        _ => (false, Hidden::Success),
    };
    if flags.quiet == 0 {
        return share(shape, read_only);
    }
    Treatment::Share(Shared {
        kind: Kind { shape, hidden },
        read_only,
        armed: true,
    })
}

/// The commands whose last word may be `noreply`, and those of the operator.
fn classic(line: &[u8], verb: &[u8]) -> Treatment {
    let count = words(line).take(WORDS_MAX + 1).count();
    // With another number of words memcached does not even look for `noreply`.
    let (counts, shape) = match verb {
        b"touch" => (3..=4, Shape::Touched),
        b"incr" | b"decr" => (3..=4, Shape::Number),
        b"delete" => (2..=4, Shape::Deleted),
        b"verbosity" | b"cache_memlimit" => (2..=3, Shape::AnyLine),
        b"flush_all" => (1..=3, Shape::AnyLine),
        b"lru" | b"extstore" => (2..=WORDS_MAX, Shape::AnyLine),
        b"slabs" | b"refresh_certs" => (1..=WORDS_MAX, Shape::AnyLine),
        b"lru_crawler" => return lru_crawler(line),
        b"stats" => return statistics(line),
        b"watch" => {
            let shown = silencer(line).is_none();
            return refuse_with(b"CLIENT_ERROR watch commands not allowed\r\n", shown);
        }
        b"shutdown" => return refuse_with(b"ERROR: shutdown not enabled\r\n", true),
        _ => return unknown(line),
    };
    if !counts.contains(&count) {
        return refuse(RequestViolation::Unknown, true);
    }
    let Some(word) = silencer(line) else {
        return share(shape, false);
    };
    if silencer(&line[..position(line, word)]).is_some() {
        // Without the word it would ask for silence still. memcached takes the one before for an
        // argument, and keeps it to itself that this is none.
        return refuse(RequestViolation::BadFormat, false);
    }
    match verb {
        // It shows what went wrong whatever it was asked.
        b"refresh_certs" => armed(shape, Hidden::Success),
        _ => armed(shape, Hidden::All),
    }
}

fn lru_crawler(line: &[u8]) -> Treatment {
    match words(line).nth(1) {
        // The connection would be the dump's until that ends, and memcached takes it only when no
        // other reply is under way.
        Some(b"metadump") => refuse_with(b"ERROR metadump not allowed\r\n", true),
        Some(b"mgdump") => refuse_with(b"ERROR mgdump not allowed\r\n", true),
        _ => share(Shape::AnyLine, false),
    }
}

fn statistics(line: &[u8]) -> Treatment {
    let read_only = match words(line).nth(1) {
        None => true,
        Some(topic) => !matches!(
            topic,
            b"reset" | b"detail" | b"sizes_enable" | b"sizes_disable"
        ),
    };
    share(Shape::Statistics, read_only)
}

fn unknown(line: &[u8]) -> Treatment {
    let is_http = |word: &[u8]| word.starts_with(b"HTTP/");
    match words(line).last().is_some_and(is_http) {
        // memcached closes on a browser that was lured to it, and so do we.
        true => Treatment::Answer(Local::Close),
        false => refuse(RequestViolation::Unknown, true),
    }
}

fn share(shape: Shape, read_only: bool) -> Treatment {
    Treatment::Share(Shared {
        kind: Kind::shown(shape),
        read_only,
        armed: false,
    })
}

/// A request that asked for silence; it changes something.
fn armed(shape: Shape, hidden: Hidden) -> Treatment {
    Treatment::Share(Shared {
        kind: Kind { shape, hidden },
        read_only: false,
        armed: true,
    })
}

fn refuse(violation: RequestViolation, shown: bool) -> Treatment {
    refuse_with(violation.line(), shown)
}

fn refuse_with(reply: &'static [u8], shown: bool) -> Treatment {
    let reply = if shown { reply } else { b"" };
    Treatment::Refuse(Refusal { reply })
}
