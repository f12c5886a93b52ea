//! Texts and tables for the ids of frames, and for their magic.
//!
//! ```text
//!   ids    = places [ "=>" places ]                 of requests, and of replies where these differ
//!   places = place { "," place }
//!   place  = { offset ":" width [ ":" endian ] [ "*" unit ] ">" } offset ":" width [ ":" endian ]
//!   magic  = offset ":" bytes { "," offset ":" bytes }
//! ```
//!
//! Spelling only: whether a frame can have such places is `protocol::frames`' to say.

use ::config::{Map, Value as Written, ValueKind};

use super::value::{Fault, Value, fault, shown};
use super::wire::{self, TableReader};
use crate::protocol::frames::{Endian, Field, Ids, Magic, Place, Step};

pub(super) const IDS_FORM: &str = r#"{ offset = 4, width = 8, endian = "big" or "little" }, or "4:8:big"; { request = …, reply = … } or "8:4 => 4:4" where they differ"#;
pub(super) const MAGIC_FORM: &str =
    r"offset:bytes, such as '0:\xda\xbb'; several with commas between";

const ARROW: &str = "=>";

/// `4:8`, `8:4 => 4:4`, `8:4, 12:2*4 > 4:4 > 0:4`
pub(super) fn ids(text: &str) -> Result<Value, &'static str> {
    let (request, reply) = match text.split_once(ARROW) {
        Some((request, reply)) => (places(request)?, places(reply)?),
        None => (places(text)?, places(text)?),
    };
    Ok(Value::Ids(Ids { request, reply }))
}

fn places(text: &str) -> Result<Vec<Place>, &'static str> {
    text.split(',').map(place).collect()
}

fn place(text: &str) -> Result<Place, &'static str> {
    let mut parts: Vec<&str> = text.split('>').collect();
    let id = parts.pop().unwrap_or_default();
    Ok(Place {
        steps: parts.into_iter().map(step).collect::<Result<_, _>>()?,
        field: field(id)?,
    })
}

fn step(text: &str) -> Result<Step, &'static str> {
    let (text, unit) = match text.split_once('*') {
        Some((field, unit)) => (field, unit.trim().parse().map_err(|_| BAD_UNIT)?),
        None => (text, 1),
    };
    let field = field(text)?;
    match unit {
        0 => Err(BAD_UNIT),
        unit => Ok(Step { field, unit }),
    }
}

const BAD_UNIT: &str = "has a unit that is not 1 to 255";

fn field(text: &str) -> Result<Field, &'static str> {
    let mut parts = text.trim().split(':');
    let (Some(offset), Some(width)) = (parts.next(), parts.next()) else {
        return Err("is not offset:width or offset:width:endian");
    };
    let endian = match parts.next() {
        None => Endian::Big,
        Some(word) => {
            wire::endianness(word).ok_or("has an endian that is neither big nor little")?
        }
    };
    if parts.next().is_some() {
        return Err("has more than three parts");
    }
    Ok(Field {
        offset: offset
            .parse()
            .map_err(|_| "has an offset that is no number")?,
        width: width.parse().map_err(|_| "has a width that is no number")?,
        endian,
    })
}

/// `{ offset = 4, width = 8, endian = "big" }`, or one of these or a text for each direction.
pub(super) fn ids_table(table: &Map<String, Written>) -> Result<Value, Vec<Fault>> {
    if !table.contains_key("request") && !table.contains_key("reply") {
        let place = place_table(table)?;
        return Ok(Value::Ids(Ids {
            request: vec![place.clone()],
            reply: vec![place],
        }));
    }
    let mut faults = Vec::new();
    let mut read = |name: &str| {
        let places = match table.get(name) {
            None => Err(vec![missing(name)]),
            Some(written) => direction(name, written),
        };
        places.map_err(|found| faults.extend(found)).ok()
    };
    let (request, reply) = (read("request"), read("reply"));
    for name in table.keys() {
        if name != "request" && name != "reply" {
            let value = shown(&table[name]);
            let place = format!(".{name}");
            let allowed = IDS_FORM.to_owned();
            faults.push(fault(&place, value, "there is no such key", allowed));
        }
    }
    match (request, reply, faults.is_empty()) {
        (Some(request), Some(reply), true) => Ok(Value::Ids(Ids { request, reply })),
        _ => Err(faults),
    }
}

fn direction(name: &str, written: &Written) -> Result<Vec<Place>, Vec<Fault>> {
    let bad = |reason: &str| {
        let place = format!(".{name}");
        vec![fault(&place, shown(written), reason, IDS_FORM.to_owned())]
    };
    match &written.kind {
        ValueKind::String(text) => places(text).map_err(bad),
        ValueKind::Table(table) => place_table(table).map(|place| vec![place]),
        _ => Err(bad("is neither a table nor a text")),
    }
}

fn missing(name: &str) -> Fault {
    let place = format!(".{name}");
    fault(
        &place,
        "{ … }".to_owned(),
        "is missing",
        IDS_FORM.to_owned(),
    )
}

fn place_table(table: &Map<String, Written>) -> Result<Place, Vec<Fault>> {
    let mut reader = TableReader::new(table, IDS_FORM);
    let offset = reader.number("offset", 0, wire::OFFSET_MAX, None);
    let width = reader.number("width", 1, 8, None);
    let endian = reader.endian("endian");
    match (offset, width, endian) {
        (Some(offset), Some(width), Some(endian)) => reader.finish(Place {
            steps: Vec::new(),
            field: Field {
                offset: wire::as_usize(offset),
                width: wire::as_usize(width),
                endian,
            },
        }),
        _ => reader.fail(),
    }
}

/// Ids as they would be written in one text.
pub(super) fn ids_text(ids: &Ids) -> String {
    let request = places_text(&ids.request);
    match ids.request == ids.reply {
        true => request,
        false => format!("{request} {ARROW} {}", places_text(&ids.reply)),
    }
}

fn places_text(places: &[Place]) -> String {
    let texts = places.iter().map(|place| {
        let steps = place.steps.iter().map(|step| match step.unit {
            1 => format!("{} > ", field_text(step.field)),
            unit => format!("{}*{unit} > ", field_text(step.field)),
        });
        let steps: String = steps.collect();
        format!("{steps}{}", field_text(place.field))
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn field_text(field: Field) -> String {
    let endian = wire::endian_text(field.endian);
    format!("{}:{}:{endian}", field.offset, field.width)
}

/// `0:\xda\xbb`, `4:\x0f\xff, 14:\0\0`
pub(super) fn magic(text: &str) -> Result<Value, &'static str> {
    let one = |text: &str| {
        let (offset, bytes) = text.split_once(':').ok_or("is not offset:bytes")?;
        Ok(Magic {
            offset: offset
                .trim()
                .parse()
                .map_err(|_| "has an offset that is no number")?,
            bytes: wire::octets(bytes)?,
        })
    };
    let all: Result<_, &'static str> = text.split(',').map(one).collect();
    Ok(Value::Magic(all?))
}

/// Magic as it would be written in one text.
pub(super) fn magic_text(magic: &[Magic]) -> String {
    let texts = magic.iter().map(|Magic { offset, bytes }| {
        let bytes = wire::octets_text(bytes).replace(',', r"\x2c");
        format!("{offset}:{bytes}")
    });
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Value, ids, ids_text, magic, magic_text};

    #[test]
    fn ids_are_read_and_written_alike() {
        for (text, written) in [
            ("4:8", "4:8:big"),
            ("8:4 => 4:4:little", "8:4:big => 4:4:little"),
            ("8:4>0:4", "8:4:big > 0:4:big"),
            (
                "8:4, 12:2*4 > 4:4 > 0:4",
                "8:4:big, 12:2:big*4 > 4:4:big > 0:4:big",
            ),
        ] {
            let Ok(Value::Ids(read)) = ids(text) else {
                panic!("{text}");
            };
            assert_eq!(ids_text(&read), written);
            assert_eq!(ids(written), ids(text));
        }
        for text in [
            "",
            "4",
            "4:8:middle",
            "4:8:big:1",
            "4:8 =>",
            "1:2*0 > 0:4",
            "1:2*x > 0:4",
        ] {
            assert!(ids(text).is_err(), "{text}");
        }
    }

    #[test]
    fn magic_is_read_and_written_alike() {
        for (text, written) in [
            (r"0:\xda\xbb", r"0:\xda\xbb"),
            (r"4:\x0f\xff, 14:\0\0", r"4:\x0f\xff, 14:\x00\x00"),
            (r"0:a\x2cb", r"0:a\x2cb"),
        ] {
            let Ok(Value::Magic(read)) = magic(text) else {
                panic!("{text}");
            };
            assert_eq!(magic_text(&read), written);
        }
        for text in ["", "0", "0:", "x:a", "0:a,"] {
            assert!(magic(text).is_err(), "{text}");
        }
    }
}
