//! Frames of real protocols and of the edges between them, as data.

use super::super::FrameViolation::{self, BadLength, TooLong};
use super::super::{Framing, Layout, RequestFacts};
use super::{big, layout, little, mark, until};

/// A frame that is whole.
pub(super) struct Whole {
    pub(super) name: &'static str,
    pub(super) layout: Layout,
    pub(super) frame: &'static [u8],
    pub(super) facts: RequestFacts,
}

/// A frame that is refused.
pub(super) struct Refused {
    pub(super) name: &'static str,
    pub(super) layout: Layout,
    pub(super) sent: &'static [u8],
    pub(super) violation: FrameViolation,
    /// How many bytes went on before.
    pub(super) taken: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Call,
    Oneway,
    Beat,
    OnewayBeat,
}

use Kind::{Beat, Call, Oneway, OnewayBeat};

/// Dubbo's 16 bytes: magic, flags (0x80 request, 0x40 two-way, 0x20 event), status, id, length.
pub(super) fn dubbo() -> Layout {
    Layout {
        oneway: mark(2, 0xc0, 0x80),
        heartbeat: mark(2, 0x20, 0x20),
        ..layout(big(12, 4, 0))
    }
}

/// Thrift's binary protocol in frames: length, version and type, name, sequence number.
fn thrift_binary() -> Layout {
    Layout {
        oneway: mark(7, 0xff, 4),
        ..layout(big(0, 4, 0))
    }
}

fn thrift_compact() -> Layout {
    Layout {
        oneway: mark(5, 0xe0, 0x80),
        ..layout(big(0, 4, 0))
    }
}

/// Tars counts the length field itself; the packet type follows the version, a byte or no byte.
fn tars() -> Layout {
    Layout {
        oneway: mark(7, 0xff, 1),
        ..layout(big(0, 4, -4))
    }
}

/// Lines of which an empty one is a heartbeat, and one that starts with `!` has no answer.
fn marked_lines() -> Layout {
    Layout {
        oneway: mark(0, 0xff, b'!'),
        heartbeat: mark(0, 0xff, b'\n'),
        ..layout(until(b"\n"))
    }
}

fn short(framing: Framing, frame_max: usize) -> Layout {
    Layout {
        frame_max,
        ..layout(framing)
    }
}

fn whole(name: &'static str, layout: Layout, frame: &'static [u8], kind: Kind) -> Whole {
    let length = match layout.framing {
        Framing::Delimiter(_) => None,
        _ => Some(frame.len() as u64),
    };
    let facts = RequestFacts {
        oneway: matches!(kind, Oneway | OnewayBeat),
        heartbeat: matches!(kind, Beat | OnewayBeat),
        length,
    };
    Whole {
        name,
        layout,
        frame,
        facts,
    }
}

#[rustfmt::skip]
pub(super) fn wholes() -> Vec<Whole> {
    vec![
        whole("MINA PrefixedString, 1 byte", layout(big(0, 1, 0)), b"\x05hello", Call),
        whole("MINA PrefixedString, 2 bytes", layout(big(0, 2, 0)), b"\x00\x05hello", Call),
        whole("MINA PrefixedString, 4 bytes", layout(big(0, 4, 0)), b"\x00\x00\x00\x05hello", Call),

        whole("Netty LengthFieldPrepender(2)", layout(big(0, 2, 0)), b"\x00\x0cHELLO, WORLD", Call),
        whole("Netty LengthFieldPrepender(2, true)", layout(big(0, 2, -2)), b"\x00\x0eHELLO, WORLD", Call),
        whole("Netty, little endian", layout(little(0, 4, 0)), b"\x0c\x00\x00\x00HELLO, WORLD", Call),
        whole("Netty, a header before the length", layout(big(2, 3, 0)), b"\xca\xfe\x00\x00\x0cHELLO, WORLD", Call),
        whole("Netty, a header behind the length", layout(big(0, 3, 2)), b"\x00\x00\x0c\xca\xfeHELLO, WORLD", Call),
        whole("Netty, a length of all", layout(big(1, 2, -3)), b"\xca\x00\x10\xfeHELLO, WORLD", Call),
        whole("Netty, 8 bytes", layout(big(0, 8, 0)), b"\0\0\0\0\0\0\0\x02ok", Call),

        whole("Dubbo request", dubbo(), b"\xda\xbb\xc2\x00\0\0\0\0\0\0\0\x01\0\0\0\x06\x052.0.2", Call),
        whole("Dubbo one-way request", dubbo(), b"\xda\xbb\x82\x00\0\0\0\0\0\0\0\x02\0\0\0\x06\x052.0.2", Oneway),
        whole("Dubbo heartbeat", dubbo(), b"\xda\xbb\xe2\x00\0\0\0\0\0\0\0\x03\0\0\0\x01N", Beat),
        whole("Dubbo event without an answer", dubbo(), b"\xda\xbb\xa2\x00\0\0\0\0\0\0\0\x04\0\0\0\x02\x01R", OnewayBeat),
        whole("Dubbo reply", dubbo(), b"\xda\xbb\x02\x14\0\0\0\0\0\0\0\x01\0\0\0\x06\x91\x04pong", Call),
        whole("Dubbo reply to a heartbeat", dubbo(), b"\xda\xbb\x22\x14\0\0\0\0\0\0\0\x03\0\0\0\x01N", Beat),

        whole("Thrift call", thrift_binary(), b"\0\0\0\x11\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x01\0", Call),
        whole("Thrift one-way call", thrift_binary(), b"\0\0\0\x11\x80\x01\0\x04\0\0\0\x04ping\0\0\0\x01\0", Oneway),
        whole("Thrift reply", thrift_binary(), b"\0\0\0\x11\x80\x01\0\x02\0\0\0\x04ping\0\0\0\x01\0", Call),
        whole("Thrift compact call", thrift_compact(), b"\0\0\0\x09\x82\x21\x01\x04ping\0", Call),
        whole("Thrift compact one-way call", thrift_compact(), b"\0\0\0\x09\x82\x81\x01\x04ping\0", Oneway),

        whole("Kafka ApiVersions request", layout(big(0, 4, 0)), b"\0\0\0\x0e\0\x12\0\0\0\0\0\x07\0\x04test", Call),
        whole("Kafka ApiVersions reply", layout(big(0, 4, 0)), b"\0\0\0\x0a\0\0\0\x07\0\0\0\0\0\0", Call),

        whole("Tars request", tars(), b"\0\0\0\x1b\x10\x01\x2c\x3c\x40\x01\x56\x01a\x66\x04ping\x7d\x00\x0c\x8c\x98\x0c\xa8\x0c", Call),
        whole("Tars one-way request", tars(), b"\0\0\0\x1c\x10\x01\x20\x01\x3c\x40\x01\x56\x01a\x66\x04ping\x7d\x00\x0c\x8c\x98\x0c\xa8\x0c", Oneway),

        whole("line", layout(until(b"\n")), b"get a\n", Call),
        whole("line that ends with CRLF, read up to LF", layout(until(b"\n")), b"get a\r\n", Call),
        whole("line up to CRLF", layout(until(b"\r\n")), b"get a\r\n", Call),
        whole("a CR and a LF of their own are no CRLF", layout(until(b"\r\n")), b"a\rb\nc\n\rd\r\n", Call),
        whole("CR before CRLF", layout(until(b"\r\n")), b"get a\r\r\n", Call),
        whole("empty line", layout(until(b"\n")), b"\n", Call),
        whole("NUL", layout(until(b"\0")), b"<policy-file-request/>\0", Call),
        whole("a delimiter that overlaps its own beginning", layout(until(b"aab")), b"aaab", Call),
        whole("a delimiter that overlaps itself twice", layout(until(b"ababac")), b"xabababababac", Call),
        whole("a delimiter of one byte repeated", layout(until(b"\n\n")), b"a\nb\n\n", Call),
        whole("heartbeat line", marked_lines(), b"\n", Beat),
        whole("one-way line", marked_lines(), b"!note\n", Oneway),
        whole("line with neither mark", marked_lines(), b"note!\n", Call),

        whole("fixed", layout(Framing::Fixed(8)), b"12345678", Call),
        whole("fixed, of one byte", layout(Framing::Fixed(1)), b"1", Call),
        whole("fixed, one-way", Layout { oneway: mark(7, 0x0f, 8), ..layout(Framing::Fixed(8)) }, b"12345678", Oneway),

        whole("no payload", layout(big(0, 4, 0)), b"\0\0\0\0", Call),
        whole("no payload, and the length counts itself", layout(big(0, 4, -4)), b"\0\0\0\x04", Call),
        whole("an adjustment that adds", layout(big(0, 1, 3)), b"\x00abc", Call),
        whole("as long as allowed", short(big(0, 1, 0), 6), b"\x05hello", Call),
        whole("as long as the length field", short(big(2, 2, 0), 4), b"ab\0\0", Call),
        whole("a line as long as allowed", short(until(b"\r\n"), 6), b"abcd\r\n", Call),
        whole("a line as long as its delimiter", short(until(b"\r\n"), 2), b"\r\n", Call),
        whole("fixed as long as allowed", short(Framing::Fixed(8), 8), b"12345678", Call),

        whole("the byte of a mark lies behind the frame", Layout { oneway: mark(6, 0xff, b'N'), ..layout(big(0, 1, 0)) }, b"\x05hello", Call),
        whole("the byte of a mark is the last of the frame", Layout { oneway: mark(5, 0xff, b'o'), ..layout(big(0, 1, 0)) }, b"\x05hello", Oneway),
        whole("the byte of a mark lies behind the line", Layout { oneway: mark(3, 0xff, b'N'), ..layout(until(b"\r\n")) }, b"a\r\n", Call),
        whole("the byte of a mark is the delimiter's", Layout { oneway: mark(1, 0xff, b'\r'), ..layout(until(b"\r\n")) }, b"a\r\n", Oneway),
        whole("a delimiter begins within the marks and ends behind them", Layout { oneway: mark(1, 0xff, b'\r'), ..layout(until(b"\r\nx")) }, b"a\r\nx", Oneway),
        whole("a mark within the length", Layout { heartbeat: mark(3, 0xff, 0), ..layout(big(0, 4, 0)) }, b"\0\0\0\0", Beat),
        whole("a mark before the length", Layout { heartbeat: mark(0, 0xf0, 0x30), ..layout(big(1, 1, 0)) }, b"7\x02ok", Beat),
    ]
}

fn refused(
    name: &'static str,
    layout: Layout,
    sent: &'static [u8],
    violation: FrameViolation,
    taken: usize,
) -> Refused {
    Refused {
        name,
        layout,
        sent,
        violation,
        taken,
    }
}

#[rustfmt::skip]
pub(super) fn refusals() -> Vec<Refused> {
    vec![
        refused("one byte over", short(big(0, 1, 0), 6), b"\x06", TooLong, 0),
        refused("a length outranks the mark behind it", Layout { frame_max: 20, ..dubbo() }, b"\xda\xbb\xc2\x00\0\0\0\0\0\0\0\x01\0\0\0\x05", TooLong, 0),
        refused("a length outranks a mark that is not in sight", Layout { oneway: mark(9, 0xff, 1), ..short(big(0, 1, 0), 20) }, b"\x14", TooLong, 0),
        refused("HTTP to a length of 4 bytes", layout(big(0, 4, 0)), b"GET / HTTP/1.1\r\n", TooLong, 0),
        refused("TLS to a length of 4 bytes", layout(big(0, 4, 0)), b"\x16\x03\x01\x02\x00\x01", TooLong, 0),
        refused("8 bytes that no memory holds", layout(big(0, 8, 0)), b"\x7f\xff\xff\xff\xff\xff\xff\xff", TooLong, 0),
        refused("8 bytes without a sign", layout(big(0, 8, 0)), b"\x80\0\0\0\0\0\0\0", TooLong, 0),
        refused("8 bytes, all ones, and the field", layout(big(0, 8, 0)), b"\xff\xff\xff\xff\xff\xff\xff\xff", BadLength, 0),
        refused("8 bytes, all ones, which count the field", layout(little(0, 8, -8)), b"\xff\xff\xff\xff\xff\xff\xff\xff", TooLong, 0),
        refused("all that can be added", short(little(0, 8, i64::MAX - 8), usize::MAX), b"\xff\xff\xff\xff\xff\xff\xff\xff", BadLength, 0),
        refused("below the field that it counts", layout(big(0, 4, -4)), b"\0\0\0\x03\x01", BadLength, 0),
        refused("below nothing", layout(big(0, 2, -100)), b"\0\x61", BadLength, 0),
        refused("below all", layout(big(0, 8, i64::MIN)), b"\0\0\0\0\0\0\0\0", BadLength, 0),
        refused("a line over its limit", short(until(b"\n"), 6), b"hello!\n", TooLong, 5),
        refused("a line far over its limit", short(until(b"\n"), 6), b"hello, world, and all\n", TooLong, 5),
        refused("a line with no room for its CRLF", short(until(b"\r\n"), 6), b"hello\r\n", TooLong, 4),
        refused("a line whose CRLF is cut by the limit", short(until(b"\r\n"), 6), b"abcd\r\r\n", TooLong, 5),
        refused("half a delimiter, and then not", short(until(b"aab"), 6), b"abcaac", TooLong, 5),
        refused("a shorter beginning of the delimiter comes too late", short(until(b"abac"), 6), b"xxabab", TooLong, 5),
        refused("a line of one byte too many", short(until(b"\n"), 1), b"a", TooLong, 0),
    ]
}
