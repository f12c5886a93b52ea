//! The value of each key that has a good one, by its type.
//!
//! Not here: how they come to be (see `read`).

use std::collections::BTreeMap;

use super::keys::{KEYS, Preset, is_under};
use super::value::{Value, time_text};
use super::{ids, wire};
use crate::protocol::frames::{Ids, LengthField, Magic, Mark};

/// What stands in the place of the origin of a value that nobody wrote.
pub(super) const DEFAULT_ORIGIN: &str = " (the default)";

/// The value of every key that has a good one.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) read: BTreeMap<String, Value>,
    pub(super) origins: BTreeMap<String, String>,
}

impl Values {
    /// The key as an error names it: with the variable, option or default that its value comes from.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{key}{}", self.origin(key))
    }

    /// What an error says after a key, or a part of its value: nothing, a variable or an option.
    pub(super) fn origin(&self, key: &str) -> &str {
        self.origins.get(key).map_or("", String::as_str)
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        match self.read.get(key)? {
            Value::Count(number) | Value::Bytes(number) => Some(*number),
            Value::Mode(bits) => Some(u64::from(*bits)),
            _ => None,
        }
    }

    pub(super) fn time(&self, key: &str) -> Option<std::time::Duration> {
        match self.read.get(key)? {
            Value::Time(time) => Some(*time),
            _ => None,
        }
    }

    pub(super) fn switch(&self, key: &str) -> Option<bool> {
        match self.read.get(key)? {
            Value::Switch(on) => Some(*on),
            _ => None,
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.read.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// `Some(None)`: off.
    pub(super) fn address(&self, key: &str) -> Option<Option<&super::checked::Address>> {
        match self.read.get(key)? {
            Value::Address(address) => Some(address.as_ref()),
            _ => None,
        }
    }

    pub(super) fn octets(&self, key: &str) -> Option<&[u8]> {
        match self.read.get(key)? {
            Value::Octets(octets) => Some(octets),
            _ => None,
        }
    }

    /// What is sent, and what must come back.
    pub(super) fn probe(&self, key: &str) -> Option<(&[u8], &[u8])> {
        match self.read.get(key)? {
            Value::Probe(send, expect) => Some((send, expect)),
            _ => None,
        }
    }

    pub(super) fn length_field(&self, key: &str) -> Option<LengthField> {
        match self.read.get(key)? {
            Value::LengthField(field) => Some(*field),
            _ => None,
        }
    }

    pub(super) fn mark(&self, key: &str) -> Option<Mark> {
        match self.read.get(key)? {
            Value::Mark(mark) => Some(*mark),
            _ => None,
        }
    }

    pub(super) fn ids(&self, key: &str) -> Option<&Ids> {
        match self.read.get(key)? {
            Value::Ids(ids) => Some(ids),
            _ => None,
        }
    }

    /// None where the key has no good value.
    pub(super) fn magic(&self, key: &str) -> &[Magic] {
        match self.read.get(key) {
            Some(Value::Magic(magic)) => magic,
            _ => &[],
        }
    }

    /// None where the key has no good value.
    pub(super) fn sources(&self, key: &str) -> &[super::checked::SourceAddress] {
        match self.read.get(key) {
            Some(Value::Sources(sources)) => sources,
            _ => &[],
        }
    }

    /// A value of these kinds as an error shows it.
    pub(super) fn shown(&self, key: &str) -> String {
        match self.read.get(key) {
            Some(Value::Count(number)) => number.to_string(),
            Some(Value::Octets(octets)) => format!("\"{}\"", wire::octets_text(octets)),
            Some(Value::LengthField(field)) => format!("\"{}\"", wire::length_text(field)),
            Some(Value::Mark(mark)) => format!("\"{}\"", wire::mark_text(mark)),
            Some(Value::Text(text)) => format!("\"{text}\""),
            Some(Value::Time(time)) => format!("\"{}\"", time_text(*time)),
            Some(Value::Ids(ids)) => format!("\"{}\"", ids::ids_text(ids)),
            Some(Value::Magic(magic)) => format!("\"{}\"", ids::magic_text(magic)),
            _ => "…".to_owned(),
        }
    }

    /// Whether somebody wrote the key, well or badly.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.origins.get(key).is_some_and(|it| it != DEFAULT_ORIGIN)
    }

    /// Whether somebody wrote what is not the default.
    pub(super) fn says_something(&self, key: &str) -> bool {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let known = KEYS.iter().find(|known| {
            let pattern: Vec<&str> = known.path.split('.').collect();
            pattern.len() == path.len() && is_under(&path, &pattern)
        });
        let default = known.and_then(|known| match known.default {
            Preset::Is(text) => known.kind.read_text(text).ok(),
            Preset::Required | Preset::Unset => None,
        });
        self.is_written(key) && (default.is_none() || self.read.get(key) != default.as_ref())
    }

    /// None where the key has no good value.
    pub(super) fn commands(&self, key: &str) -> &[String] {
        match self.read.get(key) {
            Some(Value::Commands(commands)) => commands,
            _ => &[],
        }
    }

    pub(super) fn endpoints(&self, key: &str) -> Option<&[super::checked::Endpoint]> {
        match self.read.get(key)? {
            Value::Endpoints(endpoints) => Some(endpoints),
            _ => None,
        }
    }
}
