//! What a short reply says.
//!
//! Not here: where it ends.
//!
//! Invariant: only a reply that is all there, and nothing behind it, says anything.

use memchr::memmem;

use super::arguments::split_bulk;
use super::number::{self, Number};

/// A reply that millpond waits for itself: to `AUTH`, `HELLO`, `SELECT`, `RESET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Short<'a> {
    /// `+OK`.
    Ok,
    /// `+RESET`: the connection is as new (Redis 6.2).
    Reset,
    /// Another status, without its `+`.
    Status(&'a [u8]),
    /// An error, its code and its text: `NOAUTH Authentication required.`
    Error(&'a [u8]),
    /// A number.
    Integer(i64),
    /// `$-1`, `*-1`, `_`.
    Null,
    /// Anything else.
    Other,
}

/// What a whole reply says.
#[must_use]
pub fn inspect(reply: &[u8]) -> Short<'_> {
    match reply {
        b"+OK\r\n" => return Short::Ok,
        b"+RESET\r\n" => return Short::Reset,
        b"$-1\r\n" | b"*-1\r\n" | b"_\r\n" => return Short::Null,
        _ => {}
    }
    let Some((kind, rest)) = reply.split_first() else {
        return Short::Other;
    };
    match kind {
        b'+' => line(rest).map_or(Short::Other, Short::Status),
        b'-' => line(rest).map_or(Short::Other, Short::Error),
        b'!' => bulk(rest).map_or(Short::Other, Short::Error),
        b':' => match number::read(rest) {
            Number::Found { value, bytes } if bytes == rest.len() => Short::Integer(value),
            _ => Short::Other,
        },
        _ => Short::Other,
    }
}

/// What a service says for each channel or pattern of a `SUBSCRIBE` or an `UNSUBSCRIBE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// It is about the channels of shards, which are counted by themselves.
    pub is_sharded: bool,
    /// Subscriptions that the connection has now: channels and patterns, or channels of shards.
    pub left: u64,
}

/// What a whole value confirms. `None`: it is no confirmation.
#[must_use]
pub fn confirmation(value: &[u8]) -> Option<Confirmation> {
    let rest = value.strip_prefix(b"*3\r\n");
    let mut rest = rest.or_else(|| value.strip_prefix(b">3\r\n"))?;
    let is_sharded = match split_bulk(&mut rest)? {
        b"subscribe" | b"psubscribe" | b"unsubscribe" | b"punsubscribe" => false,
        b"ssubscribe" | b"sunsubscribe" => true,
        _ => return None,
    };
    // No channel is named where nothing was subscribed to.
    let null = [&b"$-1\r\n"[..], b"_\r\n"];
    match null.iter().find_map(|null| rest.strip_prefix(*null)) {
        Some(after) => rest = after,
        None => {
            split_bulk(&mut rest)?;
        }
    }
    let Short::Integer(left) = inspect(rest) else {
        return None;
    };
    let left = u64::try_from(left).ok()?;
    Some(Confirmation { is_sharded, left })
}

/// All but the CRLF, which must not come before the end.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let text = bytes.strip_suffix(b"\r\n")?;
    memmem::find(text, b"\r\n").is_none().then_some(text)
}

fn bulk(bytes: &[u8]) -> Option<&[u8]> {
    let Number::Found { value, bytes: head } = number::read(bytes) else {
        return None;
    };
    let text = bytes[head..].strip_suffix(b"\r\n")?;
    (usize::try_from(value) == Ok(text.len())).then_some(text)
}
