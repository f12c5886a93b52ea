//! Texts and tables for what stands on the wire: bytes, length fields, marks and probes.
//!
//! Spelling only: whether a layout is possible is `protocol::frames`' to say.

use ::config::{Map, Value as Written, ValueKind};

use super::value::{Fault, Value, fault, shown, whole};
use crate::protocol::frames::{Endian, LengthField, Mark};

pub(super) const OCTETS_FORM: &str =
    r"a text, in which \r \n \t \0 \\ and \xNN stand for bytes; single quotes leave it as it is";
pub(super) const PROBE_FORM: &str = r#"{ send = "…", expect = "…" } with bytes in each"#;
pub(super) const LENGTH_FORM: &str =
    r#"{ offset = 0, width = 4, endian = "big" or "little", adjust = 0 }, or "0:4:big:0""#;
pub(super) const MARK_FORM: &str = r#"{ offset = 2, mask = 0x20, value = 0x20 }, or "2:0x20:0x20""#;

/// Where a probe's two texts meet when it is written as one.
const PROBE_ARROW: &str = "=>";
/// An offset past this is no header any more.
pub(super) const OFFSET_MAX: u64 = 65_535;

/// Reads bytes: what is written, with escapes for what can't be.
pub(super) fn octets(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            octets.push(byte);
            continue;
        }
        let (escaped, taken) = match rest {
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'0', ..] => (0, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', high, low, ..] => match (hexadecimal(*high), hexadecimal(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => return Err(r"has a \x without two hexadecimal digits"),
            },
            _ => return Err(r"has an unknown escape (write \\ for a backslash)"),
        };
        octets.push(escaped);
        rest = &rest[taken..];
    }
    if octets.is_empty() {
        return Err("is empty");
    }
    Ok(octets)
}

fn hexadecimal(digit: u8) -> Option<u8> {
    (digit as char)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Bytes as they would be written.
pub(super) fn octets_text(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len());
    for &byte in octets {
        match byte {
            b'\r' => text.push_str(r"\r"),
            b'\n' => text.push_str(r"\n"),
            b'\t' => text.push_str(r"\t"),
            b'\\' => text.push_str(r"\\"),
            b' '..=b'~' => text.push(byte.into()),
            _ => text.push_str(&format!(r"\x{byte:02x}")),
        }
    }
    text
}

/// `PING\r\n=>+PONG\r\n`
pub(super) fn probe(text: &str) -> Result<Value, &'static str> {
    let (send, expect) = text
        .split_once(PROBE_ARROW)
        .ok_or("has no => between what is sent and what is expected")?;
    Ok(Value::Probe(octets(send)?, octets(expect)?))
}

/// A probe as it would be written in one text.
pub(super) fn probe_text(send: &[u8], expect: &[u8]) -> String {
    format!("{}{PROBE_ARROW}{}", octets_text(send), octets_text(expect))
}

/// `{ send = "…", expect = "…" }`
pub(super) fn probe_table(table: &Map<String, Written>) -> Result<Value, Vec<Fault>> {
    let mut reader = TableReader::new(table, PROBE_FORM);
    let send = reader.octets("send");
    let expect = reader.octets("expect");
    match (send, expect) {
        (Some(send), Some(expect)) => reader.finish(Value::Probe(send, expect)),
        _ => reader.fail(),
    }
}

/// `0:4:big` or `0:4:big:-4`
pub(super) fn length_field(text: &str) -> Result<Value, &'static str> {
    let mut parts = text.split(':');
    let (Some(offset), Some(width), Some(endian)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err("is not offset:width:endian or offset:width:endian:adjust");
    };
    let adjust = match parts.next() {
        Some(adjust) => adjust
            .parse()
            .map_err(|_| "has an adjust that is no number")?,
        None => 0,
    };
    if parts.next().is_some() {
        return Err("has more than four parts");
    }
    Ok(Value::LengthField(LengthField {
        offset: offset
            .parse()
            .map_err(|_| "has an offset that is no number")?,
        width: width.parse().map_err(|_| "has a width that is no number")?,
        endian: endianness(endian).ok_or("has an endian that is neither big nor little")?,
        adjust,
    }))
}

/// A length field as it would be written in one text.
pub(super) fn length_text(field: &LengthField) -> String {
    let LengthField {
        offset,
        width,
        endian,
        adjust,
    } = field;
    let endian = endian_text(*endian);
    format!("{offset}:{width}:{endian}:{adjust}")
}

/// `{ offset = 0, width = 4, endian = "big", adjust = 0 }`
pub(super) fn length_table(table: &Map<String, Written>) -> Result<Value, Vec<Fault>> {
    let mut reader = TableReader::new(table, LENGTH_FORM);
    let offset = reader.number("offset", 0, OFFSET_MAX, None);
    let width = reader.number("width", 1, 8, None);
    let endian = reader.endian("endian");
    let adjust = match reader.take("adjust").map(|written| &written.kind) {
        None => Some(0),
        Some(ValueKind::I64(number)) => Some(*number),
        Some(_) => {
            reader.fault("adjust", "is not a whole number");
            None
        }
    };
    match (offset, width, endian, adjust) {
        (Some(offset), Some(width), Some(endian), Some(adjust)) => {
            reader.finish(Value::LengthField(LengthField {
                offset: as_usize(offset),
                width: as_usize(width),
                endian,
                adjust,
            }))
        }
        _ => reader.fail(),
    }
}

/// `2:0x20:0x20`
pub(super) fn mark(text: &str) -> Result<Value, &'static str> {
    let mut parts = text.split(':');
    let (Some(offset), Some(mask), Some(value), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("is not offset:mask:value");
    };
    let byte = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    Ok(Value::Mark(Mark {
        offset: offset
            .parse()
            .map_err(|_| "has an offset that is no number")?,
        mask: byte(mask).ok_or("has a mask that is no byte")?,
        value: byte(value).ok_or("has a value that is no byte")?,
    }))
}

/// A mark as it would be written in one text.
pub(super) fn mark_text(mark: &Mark) -> String {
    format!("{}:{:#04x}:{:#04x}", mark.offset, mark.mask, mark.value)
}

/// `{ offset = 2, mask = 0x20, value = 0x20 }`
pub(super) fn mark_table(table: &Map<String, Written>) -> Result<Value, Vec<Fault>> {
    let mut reader = TableReader::new(table, MARK_FORM);
    let offset = reader.number("offset", 0, OFFSET_MAX, None);
    let mask = reader.number("mask", 1, 255, Some(255));
    let value = reader.number("value", 0, 255, None);
    match (offset, mask, value) {
        (Some(offset), Some(mask), Some(value)) => reader.finish(Value::Mark(Mark {
            offset: as_usize(offset),
            mask: as_byte(mask),
            value: as_byte(value),
        })),
        _ => reader.fail(),
    }
}

pub(super) fn endianness(text: &str) -> Option<Endian> {
    match text {
        "big" => Some(Endian::Big),
        "little" => Some(Endian::Little),
        _ => None,
    }
}

pub(super) fn endian_text(endian: Endian) -> &'static str {
    match endian {
        Endian::Big => "big",
        Endian::Little => "little",
    }
}

pub(super) fn as_usize(number: u64) -> usize {
    usize::try_from(number).expect("it was held against a bound that fits")
}

fn as_byte(number: u64) -> u8 {
    u8::try_from(number).expect("it was held against 255")
}

/// Reads the entries of an inline table, with a fault for each that is wrong, missing or unknown.
pub(super) struct TableReader<'t> {
    table: &'t Map<String, Written>,
    form: &'static str,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl<'t> TableReader<'t> {
    pub(super) fn new(table: &'t Map<String, Written>, form: &'static str) -> Self {
        Self {
            table,
            form,
            known: Vec::new(),
            faults: Vec::new(),
        }
    }

    fn take(&mut self, name: &'static str) -> Option<&'t Written> {
        self.known.push(name);
        self.table.get(name)
    }

    fn fault(&mut self, name: &str, reason: &str) {
        let value = self
            .table
            .get(name)
            .map_or_else(|| "{ … }".to_owned(), shown);
        let form = self.form.to_owned();
        self.faults
            .push(fault(&format!(".{name}"), value, reason, form));
    }

    pub(super) fn number(
        &mut self,
        name: &'static str,
        min: u64,
        max: u64,
        default: Option<u64>,
    ) -> Option<u64> {
        match self.take(name) {
            None if default.is_some() => default,
            None => {
                self.fault(name, "is missing");
                None
            }
            Some(written) => {
                let number = whole(written).filter(|number| (min..=max).contains(number));
                if number.is_none() {
                    self.fault(name, &format!("is not a whole number from {min} to {max}"));
                }
                number
            }
        }
    }

    fn octets(&mut self, name: &'static str) -> Option<Vec<u8>> {
        let read = match self.take(name).map(|written| &written.kind) {
            Some(ValueKind::String(text)) => octets(text),
            Some(_) => Err("is not a text"),
            None => Err("is missing"),
        };
        read.map_err(|reason| self.fault(name, reason)).ok()
    }

    pub(super) fn endian(&mut self, name: &'static str) -> Option<Endian> {
        match self.take(name).map(|written| &written.kind) {
            None => Some(Endian::Big),
            Some(ValueKind::String(text)) if endianness(text).is_some() => endianness(text),
            Some(_) => {
                self.fault(name, "is neither \"big\" nor \"little\"");
                None
            }
        }
    }

    pub(super) fn finish<T>(mut self, value: T) -> Result<T, Vec<Fault>> {
        self.refuse_unknown();
        if self.faults.is_empty() {
            Ok(value)
        } else {
            Err(self.faults)
        }
    }

    pub(super) fn fail<T>(mut self) -> Result<T, Vec<Fault>> {
        self.refuse_unknown();
        Err(self.faults)
    }

    fn refuse_unknown(&mut self) {
        let mut unknown: Vec<_> = self
            .table
            .keys()
            .filter(|key| !self.known.contains(&key.as_str()))
            .cloned()
            .collect();
        unknown.sort();
        for key in unknown {
            self.fault(&key, "there is no such key");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, length_field, length_text, mark, mark_text, octets, octets_text};

    #[test]
    fn bytes_are_read_and_written_alike() {
        for (text, bytes) in [
            ("PING", b"PING".as_slice()),
            (r"a\r\n\t\\", b"a\r\n\t\\"),
            (r"\x00\xff", b"\x00\xff"),
            ("é", "é".as_bytes()),
        ] {
            assert_eq!(octets(text).as_deref(), Ok(bytes), "{text}");
            let again = octets_text(bytes);
            assert_eq!(octets(&again).as_deref(), Ok(bytes), "{again}");
        }
        assert_eq!(octets(r"\0").as_deref(), Ok(b"\0".as_slice()));
        for text in ["", r"\q", r"\x1", r"\xgg", "\\"] {
            assert!(octets(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_text_says_what_a_table_says() {
        for text in ["0:4:big:0", "12:4:little:-4"] {
            let Ok(Value::LengthField(field)) = length_field(text) else {
                panic!("{text}");
            };
            assert_eq!(length_text(&field), text);
        }
        let Ok(Value::Mark(read)) = mark("2:0x40:0") else {
            panic!("a mark");
        };
        assert_eq!(mark_text(&read), "2:0x40:0x00");
        for text in ["", "0", "0:4", "0:4:middle", "0:4:big:0:0", "x:4:big"] {
            assert!(length_field(text).is_err(), "{text}");
        }
        for text in ["", "1:2", "1:256:0", "1:0xgg:0", "1:2:3:4"] {
            assert!(mark(text).is_err(), "{text}");
        }
    }
}
