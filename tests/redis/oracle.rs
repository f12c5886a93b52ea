//! What a client of the storm may be told: its own words, or an error that is about nobody else.
//!
//! A value says for which key it was written and by whom, and its filling says the same again, so that no
//! byte of another's can pass for a client's own.

use crate::client::Reply;
use crate::support::message::pattern;

/// What one connection knows: its tag, and what its keys may hold.
pub struct Life {
    pub tag: u64,
    candidates: Vec<Vec<Vec<u8>>>,
}

/// Keys that each connection has to itself.
pub const KEYS: usize = 4;
/// Keys that everybody writes.
pub const COMMON: usize = 8;

impl Life {
    pub fn new(tag: u64) -> Self {
        Self {
            tag,
            candidates: vec![Vec::new(); KEYS],
        }
    }

    pub fn key(&self, key: usize) -> String {
        format!("own:{:x}:{key}", self.tag)
    }

    /// A name of this connection's own: a list, a channel.
    pub fn name(&self, kind: &str) -> String {
        format!("{kind}:{:x}", self.tag)
    }

    /// What a SET of an own key was answered.
    pub fn set(&mut self, key: usize, value: Vec<u8>, reply: Option<&Reply>) {
        match reply {
            Some(reply) if *reply == Reply::ok() => self.candidates[key] = vec![value],
            // Nobody knows whether it was done.
            Some(Reply::Error(text)) => {
                judge_error(text);
                self.candidates[key].push(value);
            }
            None => self.candidates[key].push(value),
            Some(other) => panic!("SET was answered by {other:?}"),
        }
    }

    /// What a GET of an own key was answered. After a restart of Redis it is nothing.
    pub fn got(&self, key: usize, reply: &Reply) {
        match reply {
            Reply::Null => {}
            Reply::Error(text) => judge_error(text),
            Reply::Bulk(bytes) => assert!(
                self.candidates[key].contains(bytes),
                "{:x} has never written this: {}",
                self.tag,
                String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
            ),
            other => panic!("GET was answered by {other:?}"),
        }
    }
}

/// A value that says what it is.
pub fn value(key: &str, tag: u64, size: usize) -> Vec<u8> {
    let mut bytes = format!("{key}|{tag}|").into_bytes();
    bytes.extend(pattern(tag, size));
    bytes
}

/// What a GET of a common key was answered: a value for that key, whoever wrote it.
pub fn judge_common(key: &str, reply: &Reply) {
    match reply {
        Reply::Null => {}
        Reply::Error(text) => judge_error(text),
        Reply::Bulk(bytes) => {
            let mut parts = bytes.splitn(3, |&byte| byte == b'|');
            let own = parts.next() == Some(key.as_bytes());
            let tag = parts.next().and_then(|tag| std::str::from_utf8(tag).ok());
            let tag = tag.and_then(|tag| tag.parse().ok());
            let filling = parts.next().unwrap_or_default();
            let whole = tag.is_some_and(|tag| filling == pattern(tag, filling.len()));
            assert!(own && whole, "not a value of {key}");
        }
        other => panic!("GET was answered by {other:?}"),
    }
}

/// What echoes is a client's own word, or an error.
pub fn judge_echo(word: &str, reply: &Reply) {
    match reply {
        Reply::Error(text) => judge_error(text),
        other => assert_eq!(*other, Reply::bulk(word)),
    }
}

/// An error may say that something is away or too much; it never tells what another client did.
pub fn judge_error(text: &str) {
    let tells = [
        "nested",
        "in this context",
        "WRONGTYPE",
        "NOPERM",
        "NOAUTH",
        "WRONGPASS",
        "Protocol error",
        "unknown command",
        "wrong number",
        "syntax",
    ];
    assert!(
        !tells.iter().any(|word| text.contains(word)),
        "an error that is not its own: {text}"
    );
}
