//! Frames with ids as real protocols have them, declared, and frames of each.

use super::rows::dubbo as dubbo_layout;
use super::*;

pub(super) const DUBBO_CALL: &[u8] = b"\xda\xbb\xc2\x00\0\0\0\0\0\0\x01\x02\0\0\0\x06\x052.0.2";
pub(super) const DUBBO_ONEWAY: &[u8] = b"\xda\xbb\x82\x00\0\0\0\0\0\0\0\x02\0\0\0\x06\x052.0.2";
pub(super) const DUBBO_PING: &[u8] = b"\xda\xbb\xe2\x00\0\0\0\0\0\0\0\x03\0\0\0\x01N";
pub(super) const DUBBO_EVENT: &[u8] = b"\xda\xbb\xa2\x00\0\0\0\0\0\0\0\x04\0\0\0\x02\x01R";
pub(super) const DUBBO_REPLY: &[u8] = b"\xda\xbb\x02\x14\0\0\0\0\0\0\x01\x02\0\0\0\x06\x91\x04pong";
pub(super) const DUBBO_PONG: &[u8] = b"\xda\xbb\x22\x14\0\0\0\0\0\0\0\x03\0\0\0\x01N";
pub(super) const DUBBO_ERROR: &[u8] = b"\xda\xbb\x02\x50\0\0\0\0\0\0\0\0\0\0\0\x05\x04gone";

pub(super) const KAFKA_CALL: &[u8] = b"\0\0\0\x0e\0\x12\0\0\0\0\0\x07\0\x04test";
pub(super) const KAFKA_REPLY: &[u8] = b"\0\0\0\x0a\0\0\0\x07\0\0\0\0\0\0";

pub(super) const THRIFT_CALL: &[u8] = b"\0\0\0\x11\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x01\0";
pub(super) const THRIFT_ONEWAY: &[u8] = b"\0\0\0\x11\x80\x01\0\x04\0\0\0\x04ping\0\0\0\x02\0";
pub(super) const THRIFT_REPLY: &[u8] = b"\0\0\0\x11\x80\x01\0\x02\0\0\0\x04ping\0\0\0\x01\0";
pub(super) const THRIFT_ERROR: &[u8] = b"\0\0\0\x11\x80\x01\0\x03\0\0\0\x04ping\0\0\0\0\0";

/// Length, magic, flags, number, 4 bytes of header, and the strict message behind it.
pub(super) const HEADER_CALL: &[u8] =
    b"\0\0\0\x1f\x0f\xff\0\0\0\0\0\x09\0\x01\0\0\0\0\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x09\0";
pub(super) const HEADER_REPLY: &[u8] =
    b"\0\0\0\x23\x0f\xff\0\0\0\0\0\x09\0\x02\0\0\0\0\0\0\0\0\x80\x01\0\x02\0\0\0\x04ping\0\0\0\x09\0";

/// A message of no operation that anybody knows: length, number, number that is answered, operation.
pub(super) const MONGO_CALL: &[u8] = b"\x12\0\0\0\x05\x01\0\0\0\0\0\0\xdd\x07\0\0ok";
pub(super) const MONGO_REPLY: &[u8] = b"\x12\0\0\0\x63\0\0\0\x05\x01\0\0\xdd\x07\0\0ok";

pub(super) const FIXED_CALL: &[u8] = b"call 007";
pub(super) const FIXED_REPLY: &[u8] = b"done 007";

pub(super) const fn field(offset: usize, width: usize) -> Field {
    Field {
        offset,
        width,
        endian: Endian::Big,
    }
}

pub(super) const fn little_field(offset: usize, width: usize) -> Field {
    Field {
        offset,
        width,
        endian: Endian::Little,
    }
}

pub(super) fn at(field: Field) -> Place {
    behind(&[], field)
}

/// Each step is a field and the bytes that lie behind it for each that it counts.
pub(super) fn behind(steps: &[(Field, u8)], field: Field) -> Place {
    let steps = steps.iter().map(|&(field, unit)| Step { field, unit });
    Place {
        steps: steps.collect(),
        field,
    }
}

/// The same places in both directions.
pub(super) fn both(places: Vec<Place>) -> Ids {
    Ids {
        request: places.clone(),
        reply: places,
    }
}

pub(super) fn magic(offset: usize, bytes: &[u8]) -> Magic {
    Magic {
        offset,
        bytes: bytes.to_vec(),
    }
}

/// Nothing but a layout and places.
pub(super) fn calls(layout: Layout, ids: Ids) -> Calls {
    Calls {
        layout,
        ids,
        magic: Vec::new(),
        asks: None,
        unasked: Unasked::Drop,
        answers_heartbeats: false,
        heartbeat_reply: None,
        heartbeat_request: None,
        heartbeat_interval: Duration::from_secs(60),
        error_reply: None,
    }
}

pub(super) fn dubbo() -> Calls {
    Calls {
        magic: vec![magic(0, b"\xda\xbb")],
        asks: mark(2, 0x80, 0x80),
        answers_heartbeats: true,
        heartbeat_reply: Some(DUBBO_PONG.to_vec()),
        heartbeat_request: Some(DUBBO_PING.to_vec()),
        error_reply: Some(DUBBO_ERROR.to_vec()),
        ..calls(dubbo_layout(), both(vec![at(field(4, 8))]))
    }
}

pub(super) fn kafka() -> Calls {
    let ids = Ids {
        request: vec![at(field(8, 4))],
        reply: vec![at(field(4, 4))],
    };
    Calls {
        heartbeat_request: Some(KAFKA_CALL.to_vec()),
        heartbeat_interval: Duration::from_secs(9),
        ..calls(layout(big(0, 4, 0)), ids)
    }
}

pub(super) fn thrift_framed() -> Calls {
    let layout = Layout {
        oneway: mark(7, 0xff, 4),
        ..layout(big(0, 4, 0))
    };
    let place = behind(&[(field(8, 4), 1)], field(0, 4));
    Calls {
        magic: vec![magic(4, b"\x80\x01")],
        error_reply: Some(THRIFT_ERROR.to_vec()),
        ..calls(layout, both(vec![place]))
    }
}

pub(super) fn thrift_header() -> Calls {
    let steps = [(field(12, 2), 4), (field(4, 4), 1)];
    let places = vec![at(field(8, 4)), behind(&steps, field(0, 4))];
    Calls {
        magic: vec![magic(4, b"\x0f\xff")],
        ..calls(layout(big(0, 4, 0)), both(places))
    }
}

pub(super) fn mongo() -> Calls {
    let ids = Ids {
        request: vec![at(little_field(4, 4))],
        reply: vec![at(little_field(8, 4))],
    };
    calls(layout(little(0, 4, -4)), ids)
}

pub(super) fn fixed() -> Calls {
    Calls {
        asks: mark(0, 0xff, b'c'),
        error_reply: Some(b"fail 000".to_vec()),
        ..calls(layout(Framing::Fixed(8)), both(vec![at(field(5, 3))]))
    }
}

pub(super) fn call(ids: IdValues) -> Call {
    Call {
        ids,
        oneway: false,
        heartbeat: false,
    }
}

/// A declaration, a request and its reply.
pub(super) struct Declared {
    pub(super) name: &'static str,
    pub(super) calls: Calls,
    pub(super) request: &'static [u8],
    pub(super) reply: &'static [u8],
}

pub(super) fn all() -> Vec<Declared> {
    let row = |name, calls, request, reply| Declared {
        name,
        calls,
        request,
        reply,
    };
    vec![
        row("Dubbo", dubbo(), DUBBO_CALL, DUBBO_REPLY),
        row("Kafka", kafka(), KAFKA_CALL, KAFKA_REPLY),
        row("Thrift", thrift_framed(), THRIFT_CALL, THRIFT_REPLY),
        row("Thrift header", thrift_header(), HEADER_CALL, HEADER_REPLY),
        row("Mongo", mongo(), MONGO_CALL, MONGO_REPLY),
        row("fixed", fixed(), FIXED_CALL, FIXED_REPLY),
    ]
}
