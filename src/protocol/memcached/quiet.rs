//! Requests that ask for silence, and their form that does not.
//!
//! memcached answers `noreply` with nothing at all, and the meta flag `q` with errors and what is out
//! of the ordinary. So nobody knows how many replies come; on a shared connection that must be known.
//! Without the word in question there is exactly one, and [`Kind::hidden`](super::Kind::hidden) says
//! whether the client gets it.

use super::line::{line_of, position, words};

/// Appends a request in the form that has exactly one reply. What follows its line, as much of it as
/// is here, is appended as it is.
///
/// It is for a request that is [`Shared`](super::Shared); one that is not
/// [`armed`](super::Shared::armed) is appended as it is, and may as well go on without this.
pub fn write_disarmed(request: &[u8], out: &mut Vec<u8>) {
    let line = line_of(request);
    let Some(word) = silencer(line) else {
        out.extend_from_slice(request);
        return;
    };
    let begin = position(line, word);
    // A space stands before it: it is never the first word.
    out.extend_from_slice(&request[..begin - 1]);
    out.extend_from_slice(&request[begin + word.len()..]);
}

/// The word of a line that asks for silence.
pub(super) fn silencer(line: &[u8]) -> Option<&[u8]> {
    let verb = words(line).next()?;
    let places_before = match verb {
        // The last word, but not the only key.
        b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" | b"touch" | b"incr"
        | b"decr" | b"delete" => return last_noreply(line, 3),
        b"verbosity" | b"flush_all" | b"cache_memlimit" | b"lru" | b"extstore" | b"watch"
        | b"refresh_certs" => return last_noreply(line, 2),
        b"slabs" if words(line).nth(1) == Some(b"automove") => return last_noreply(line, 3),
        b"mg" | b"md" | b"ma" => 2,
        b"ms" => 3,
        _ => return None,
    };
    words(line)
        .skip(places_before)
        .find(|word| word.first() == Some(&b'q'))
}

/// The last word of a line that has at least so many, if it is `noreply`.
fn last_noreply(line: &[u8], words_min: usize) -> Option<&[u8]> {
    // Most lines end in something else.
    if !line.trim_ascii_end().ends_with(b"noreply") {
        return None;
    }
    let (count, last) = words(line).fold((0, None), |(count, _), word| (count + 1, Some(word)));
    last.filter(|last| count >= words_min && *last == b"noreply")
}
