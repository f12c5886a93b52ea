//! What one key takes, and the reading of one value.
//!
//! Knows nothing of other keys. A [`Value`] lies within the bounds of the [`Kind`] that read it.

use std::time::Duration;

use ::config::{Value as Written, ValueKind};
use tracing_subscriber::EnvFilter;

use super::address::{ADDRESS_FORMS, ENDPOINT_FORM, address, endpoints, listed};
use super::checked::{Address, Endpoint, SourceAddress};
use super::ids;
use super::source_address;

use super::wire;
use crate::protocol::frames::{Ids, LengthField, Magic, Mark};

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Count {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// A size with its unit.
    Bytes {
        /// The smallest, bytes.
        min: u64,
        /// The largest, bytes.
        max: u64,
    },
    /// A time with its unit.
    Time {
        /// Whether 0 is allowed besides `min..=max`.
        zero: bool,
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// The name of an upstream or listener.
    Name,
    /// A secret.
    Token,
    /// A tracing filter.
    LogFilter,
    /// Permission bits, octal.
    Mode,
    /// Where a socket listens.
    ListenAddress,
    /// Where a socket listens, or `off`.
    AddressOrOff,
    /// A list of addresses to dial, with weights.
    Endpoints,
    /// A list of addresses to dial from, with their ports.
    Sources,
    /// A list of commands of a protocol.
    Commands,
    /// Bytes, at least one.
    Octets,
    /// Bytes to send and the bytes that must come back.
    Probe,
    /// Where a frame's length stands.
    LengthField,
    /// A byte that tells a kind of frame.
    Mark,
    /// Where ids stand.
    Ids,
    /// Bytes that every frame has.
    Magic,
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Count(u64),
    Bytes(u64),
    Time(Duration),
    Switch(bool),
    Text(String),
    Mode(u32),
    Address(Option<Address>),
    Endpoints(Vec<Endpoint>),
    Sources(Vec<SourceAddress>),
    /// In lower case.
    Commands(Vec<String>),
    Octets(Vec<u8>),
    /// What is sent, and what must come back.
    Probe(Vec<u8>, Vec<u8>),
    LengthField(LengthField),
    Mark(Mark),
    Ids(Ids),
    Magic(Vec<Magic>),
}

/// Why a value can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// What comes after the key: `[1].weight`.
    pub(super) place: String,
    pub(super) value: String,
    pub(super) reason: String,
    pub(super) allowed: String,
}

/// A longer one is not a name that fits into a page or a label.
const NAME_MAX: usize = 63;

impl Kind {
    /// What may stand there, for people.
    pub fn allowed(&self) -> String {
        match self {
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::Bytes { min, max } => format!(
                "a size from {} to {}, such as \"64KiB\", \"1MiB\"{}",
                bytes_text(*min),
                bytes_text(*max),
                if *min == 0 { "; or 0" } else { "" },
            ),
            Self::Time { zero, min, max } => format!(
                "a time from {} to {}, such as \"55s\", \"10m\", \"1h\"{}",
                time_text(*min),
                time_text(*max),
                if *zero { "; or \"0s\"" } else { "" },
            ),
            Self::Switch => "true or false".to_owned(),
            Self::Choice(words) => {
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
            }
            Self::Name => "the name of an upstream".to_owned(),
            Self::Token => "a text of visible ASCII characters, without blanks".to_owned(),
            Self::LogFilter => {
                "trace, debug, info, warn, error or off, also by module: \"info,millpond::pool=debug\""
                    .to_owned()
            }
            Self::Mode => "permission bits in octal, such as \"0660\"".to_owned(),
            Self::ListenAddress => ADDRESS_FORMS.to_owned(),
            Self::AddressOrOff => format!("{ADDRESS_FORMS}, or \"off\""),
            Self::Endpoints => {
                format!("a list of at least one of: {ENDPOINT_FORM}, with {ADDRESS_FORMS}")
            }
            Self::Sources => source_address::allowed(),
            Self::Commands => COMMANDS_FORM.to_owned(),
            Self::Octets => wire::OCTETS_FORM.to_owned(),
            Self::Probe => wire::PROBE_FORM.to_owned(),
            Self::LengthField => wire::LENGTH_FORM.to_owned(),
            Self::Mark => wire::MARK_FORM.to_owned(),
            Self::Ids => ids::IDS_FORM.to_owned(),
            Self::Magic => ids::MAGIC_FORM.to_owned(),
        }
    }

    /// Reads a value from the file.
    pub(super) fn read(&self, written: &Written) -> Result<Value, Vec<Fault>> {
        match (self, &written.kind) {
            (Self::Endpoints, ValueKind::Array(list)) => endpoints(list),
            (Self::Sources, ValueKind::Array(list)) => source_address::sources(list),
            (Self::Commands, ValueKind::Array(list)) => self.commands(list),
            (Self::Endpoints | Self::Sources | Self::Commands, ValueKind::String(_)) => {
                Err(vec![self.fault(shown(written), "is not a list")])
            }
            (Self::Probe, ValueKind::Table(table)) => wire::probe_table(table),
            (Self::LengthField, ValueKind::Table(table)) => wire::length_table(table),
            (Self::Mark, ValueKind::Table(table)) => wire::mark_table(table),
            (Self::Ids, ValueKind::Table(table)) => ids::ids_table(table),
            (Self::Count { min, max }, ValueKind::I64(_) | ValueKind::U64(_)) => {
                match whole(written).filter(|number| (*min..=*max).contains(number)) {
                    Some(number) => Ok(Value::Count(number)),
                    None => Err(vec![self.fault(shown(written), "is out of bounds")]),
                }
            }
            (Self::Count { .. }, ValueKind::String(_)) => {
                Err(vec![self.fault(shown(written), "is a text, not a number")])
            }
            (Self::Bytes { min: 0, .. }, ValueKind::I64(0)) => Ok(Value::Bytes(0)),
            (Self::Time { zero: true, .. }, ValueKind::I64(0)) => Ok(Value::Time(Duration::ZERO)),
            (Self::Bytes { .. } | Self::Time { .. }, ValueKind::I64(number)) => {
                let reason = if *number == 0 {
                    "is out of bounds"
                } else {
                    "has no unit"
                };
                Err(vec![self.fault(shown(written), reason)])
            }
            (Self::Switch, ValueKind::Boolean(on)) => Ok(Value::Switch(*on)),
            (Self::Switch, ValueKind::String(_)) => {
                Err(vec![self.fault(shown(written), "is a text, not a switch")])
            }
            (_, ValueKind::String(text)) => self.read_text(text),
            _ => Err(vec![
                self.fault(self.shown(written), "is of the wrong type"),
            ]),
        }
    }

    /// Reads a value from a text: a default, an environment variable, an option.
    pub(super) fn read_text(&self, text: &str) -> Result<Value, Vec<Fault>> {
        let read = match self {
            Self::Count { min, max } => match text.parse() {
                Ok(number) if (*min..=*max).contains(&number) => Ok(Value::Count(number)),
                Ok(_) => Err("is out of bounds"),
                Err(_) => Err("is not a whole number"),
            },
            Self::Bytes { min, max } => match bytes(text) {
                Ok(number) if (*min..=*max).contains(&number) => Ok(Value::Bytes(number)),
                Ok(_) => Err("is out of bounds"),
                Err(reason) => Err(reason),
            },
            Self::Time { zero, min, max } => match time(text) {
                Ok(Duration::ZERO) if *zero => Ok(Value::Time(Duration::ZERO)),
                Ok(time) if (*min..=*max).contains(&time) => Ok(Value::Time(time)),
                Ok(_) => Err("is out of bounds"),
                Err(reason) => Err(reason),
            },
            Self::Switch => text
                .parse()
                .map(Value::Switch)
                .map_err(|_| "is not a switch"),
            Self::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Choice(_) => Err("is not one of the choices"),
            Self::Name if is_name(text) => Ok(Value::Text(text.to_owned())),
            Self::Name => Err("is not a name"),
            Self::Token if is_token(text) => Ok(Value::Text(text.to_owned())),
            Self::Token => Err("can't be sent in a header"),
            Self::LogFilter if is_log_filter(text) => Ok(Value::Text(text.to_owned())),
            Self::LogFilter => Err("is not a filter"),
            Self::Mode => mode(text).map(Value::Mode),
            Self::AddressOrOff if text == "off" => Ok(Value::Address(None)),
            Self::ListenAddress | Self::AddressOrOff => {
                address(text).map(|address| Value::Address(Some(address)))
            }
            Self::Endpoints => return endpoints(&listed(text)),
            Self::Sources => return source_address::sources(&listed(text)),
            Self::Commands => return self.commands(&listed(text)),
            Self::Octets => wire::octets(text).map(Value::Octets),
            Self::Probe => wire::probe(text),
            Self::LengthField => wire::length_field(text),
            Self::Mark => wire::mark(text),
            Self::Ids => ids::ids(text),
            Self::Magic => ids::magic(text),
        };
        read.map_err(|reason| {
            let value = if *self == Self::Token {
                hidden()
            } else {
                format!("{text:?}")
            };
            vec![self.fault(value, reason)]
        })
    }

    fn commands(&self, list: &[Written]) -> Result<Value, Vec<Fault>> {
        let read = |(place, written): (usize, &Written)| match &written.kind {
            ValueKind::String(text) if is_command(text) => Ok(text.to_ascii_lowercase()),
            _ => Err(fault(
                &format!("[{place}]"),
                shown(written),
                "is not a command",
                self.allowed(),
            )),
        };
        let mut faults = Vec::new();
        let mut commands = Vec::new();
        for command in list.iter().enumerate().map(read) {
            match command {
                Ok(command) => commands.push(command),
                Err(fault) => faults.push(fault),
            }
        }
        match faults.is_empty() {
            true => Ok(Value::Commands(commands)),
            false => Err(faults),
        }
    }

    /// The value as an error may show it.
    pub(super) fn shown(&self, written: &Written) -> String {
        if *self == Self::Token {
            hidden()
        } else {
            shown(written)
        }
    }

    fn fault(&self, value: String, reason: &str) -> Fault {
        fault("", value, reason, self.allowed())
    }
}

const COMMANDS_FORM: &str = "a list of commands, such as [\"keys\", \"lrange\"]; [] for none";

/// Whether a command of a protocol may be called that.
fn is_command(text: &str) -> bool {
    let mut letters = text.bytes();
    let is_ordinary = |letter: u8| letter.is_ascii_alphanumeric() || b"._-".contains(&letter);
    !text.is_empty() && text.len() <= NAME_MAX && letters.all(is_ordinary)
}

/// Whether an upstream or a listener may be called that.
pub(super) fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    letters
        .next()
        .is_some_and(|first| first.is_ascii_lowercase())
        && letters
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        && text.len() <= NAME_MAX
}

/// A value of the file as it was written, shortened.
pub(super) fn shown(written: &Written) -> String {
    const SHOWN_MAX: usize = 80;
    let text = match &written.kind {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Table(_) => "{ … }".to_owned(),
        ValueKind::Array(_) => "[ … ]".to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() <= SHOWN_MAX {
        return text;
    }
    text.chars().take(SHOWN_MAX).chain(['…']).collect()
}

/// `90s`, `10m`: the largest unit that stays whole.
pub(super) fn time_text(time: Duration) -> String {
    let millis = time.as_millis();
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ];
    match units
        .iter()
        .find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit))
    {
        Some((unit, size)) => format!("{}{unit}", millis / size),
        None if millis == 0 => "0s".to_owned(),
        None => format!("{millis}ms"),
    }
}

/// `64KiB`: the largest unit that stays whole.
pub(super) fn bytes_text(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units
        .iter()
        .find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit))
    {
        Some((unit, size)) => format!("{}{unit}", bytes / size),
        None => format!("{bytes}B"),
    }
}

fn time(text: &str) -> Result<Duration, &'static str> {
    let (number, unit) = number_and_unit(text, "is not a time")?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == 0 => 1,
        "" => return Err("has no unit"),
        _ => return Err("has an unknown unit"),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or("is out of bounds")
}

fn bytes(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = number_and_unit(text, "is not a size")?;
    let size = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" if number == 0 => 1,
        "" => return Err("has no unit"),
        _ => return Err("has an unknown unit"),
    };
    number.checked_mul(size).ok_or("is out of bounds")
}

fn number_and_unit<'t>(
    text: &'t str,
    otherwise: &'static str,
) -> Result<(u64, &'t str), &'static str> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() {
        return Err(otherwise);
    }
    let number = number.parse().map_err(|_| "is out of bounds")?;
    Ok((number, unit))
}

fn mode(text: &str) -> Result<u32, &'static str> {
    if text.is_empty() || !text.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) {
        return Err("is not octal");
    }
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("is out of bounds"),
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_graphic())
}

/// Stricter than the library, which takes a misspelt level for the name of a module.
fn is_log_filter(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];
    !text.trim().is_empty()
        && text.split(',').all(|directive| {
            let directive = directive.trim();
            let is_module = directive.contains(['=', ':', '[']);
            is_module || LEVELS.contains(&directive.to_ascii_lowercase().as_str())
        })
        && EnvFilter::builder().parse(text).is_ok()
}

pub(super) fn fault(place: &str, value: String, reason: &str, allowed: String) -> Fault {
    Fault {
        place: place.to_owned(),
        value,
        reason: reason.to_owned(),
        allowed,
    }
}

pub(super) fn whole(written: &Written) -> Option<u64> {
    match written.kind {
        ValueKind::I64(number) => u64::try_from(number).ok(),
        ValueKind::U64(number) => Some(number),
        _ => None,
    }
}

fn hidden() -> String {
    "(hidden)".to_owned()
}
