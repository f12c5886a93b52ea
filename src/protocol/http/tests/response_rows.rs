//! Responses and what must become of them, as data.

use super::super::ResponseViolation::{self, *};
use super::super::{BodyLength, CodingFault, RequestFacts, ResponseFacts};
use super::GET;
use crate::protocol::Eof;

/// A response that goes on.
pub(super) struct Accepted {
    pub(super) name: &'static str,
    pub(super) request: RequestFacts,
    pub(super) sent: &'static [u8],
    /// All that the client gets, while the session lets its connection persist.
    pub(super) passed: &'static [u8],
    /// What stays behind a boundary or pin.
    pub(super) left: &'static [u8],
    pub(super) facts: Option<ResponseFacts>,
    /// What it means if the service's connection ends here.
    pub(super) eof: Eof,
}

const HEAD: RequestFacts = RequestFacts { head: true, ..GET };
const OLD: RequestFacts = RequestFacts {
    version_minor: 0,
    keep_alive: false,
    ..GET
};
const OLD_KEPT: RequestFacts = RequestFacts {
    version_minor: 0,
    ..GET
};
const OLD_HEAD: RequestFacts = RequestFacts {
    head: true,
    ..OLD_KEPT
};
const CLOSING: RequestFacts = RequestFacts {
    keep_alive: false,
    ..GET
};
const UPGRADE: RequestFacts = RequestFacts {
    upgrade: true,
    ..GET
};
const POST: RequestFacts = RequestFacts {
    idempotent: false,
    expects_continue: true,
    body: BodyLength::Length(1),
    ..GET
};

/// 200 over a connection that persists.
const OK: ResponseFacts = ResponseFacts {
    status: 200,
    upstream_keep_alive: true,
    until_close: false,
    client_sees_end: true,
    idle_timeout_s: None,
};
const LAST: ResponseFacts = ResponseFacts {
    upstream_keep_alive: false,
    ..OK
};
const UNTIL_CLOSE: ResponseFacts = ResponseFacts {
    until_close: true,
    client_sees_end: false,
    ..LAST
};

const fn status(status: u16) -> ResponseFacts {
    ResponseFacts { status, ..OK }
}

macro_rules! accepted {
    ($($name:literal, $request:ident: $sent:expr => $passed:expr, $left:literal, $facts:expr, $eof:ident;)*) => {
        &[$(Accepted {
            name: $name, request: $request, sent: $sent, passed: $passed, left: $left, facts: $facts,
            eof: Eof::$eof,
        },)*]
    };
}

pub(super) const ACCEPTED: &[Accepted] = accepted! {
    "length", GET:
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP", Some(OK), Complete;
    "length, to a client that closes", CLOSING:
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx" => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
        b"", Some(OK), Complete;
    "length, cut short", GET:
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"", Some(OK), Truncated;
    "length 0", GET: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nx" => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"x", Some(OK), Complete;
    "length is normalised", GET:
        b"HTTP/1.1 200 OK\r\ncontent-length:01 \r\n\r\nx" => b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", b"", Some(OK), Complete;
    "nothing", GET: b"" => b"", b"", None, Nothing;
    "half a head", GET: b"H" => b"", b"H", None, Truncated;
    "most of a head", GET: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r" => b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r", None, Truncated;
    "Date, Server and cookies stay", GET:
        b"HTTP/1.1 404 Not \xff found\r\nserver:x\r\nDate:  now\r\nset-cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\nContent_Length: 7\r\n\r\n" =>
        b"HTTP/1.1 404 Not \xff found\r\nserver:x\r\nDate:  now\r\nset-cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\nContent_Length: 7\r\n\r\n",
        b"", Some(status(404)), Complete;
    "no reason phrase", GET: b"HTTP/1.1 999\r\nContent-Length: 0\r\n\r\n" => b"HTTP/1.1 999 \r\nContent-Length: 0\r\n\r\n", b"", Some(status(999)), Complete;
    "an empty reason phrase", GET: b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n" => b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", b"", Some(OK), Complete;
    "space before a colon is removed", GET:
        b"HTTP/1.1 200 OK\r\nX \t : y\r\nContent-Length : 1\r\nConnection : X-Hop\r\nX-Hop : 1\r\nZ: 1\r\n\r\nx" =>
        b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 1\r\nZ: 1\r\n\r\nx", b"", Some(OK), Complete;
    "hop-by-hop fields", GET:
        b"HTTP/1.1 200 OK\r\nKeep-Alive: max=100, Timeout = 5\r\nUpgrade: h2,h2c\r\nA: 1\r\nConnection: x-hop, Upgrade\r\nX-Hop: 1\r\nTE: x\r\nContent-Length: 0\r\nProxy-Connection: close\r\n\r\n" =>
        b"HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 0\r\n\r\n", b"", Some(ResponseFacts { idle_timeout_s: Some(5), ..OK }), Complete;
    "the service closes", GET:
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nContent-Length: 1\r\n\r\nx" =>
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"", Some(LAST), Complete;

    "chunked", GET:
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;x\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\nHTTP" =>
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", b"HTTP", Some(OK), Complete;
    "chunked, cut short before its trailers", GET:
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" =>
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"", Some(OK), Truncated;
    "chunked, to an old client", OLD:
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nA: 1\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\nHTTP" =>
        b"HTTP/1.1 200 OK\r\nA: 1\r\nConnection: close\r\n\r\nhello!", b"HTTP", Some(ResponseFacts { client_sees_end: false, ..OK }), Complete;
    "chunked, to an old client that would stay", OLD_KEPT:
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" =>
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok", b"", Some(ResponseFacts { client_sees_end: false, ..OK }), Truncated;
    "length, to an old client that would stay", OLD_KEPT:
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx" => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx",
        b"", Some(OK), Complete;

    "until close", GET:
        b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\nhello" => b"HTTP/1.1 200 OK\r\nA: 1\r\nConnection: close\r\n\r\nhello", b"", Some(UNTIL_CLOSE), Complete;
    "until close, of HTTP/1.0", OLD_KEPT:
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello" => b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        b"", Some(UNTIL_CLOSE), Complete;
    "until close, without a byte", GET:
        b"HTTP/1.0 200 OK\r\n\r\n" => b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"", Some(UNTIL_CLOSE), Complete;

    "HTTP/1.0", GET: b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx" => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"", Some(LAST), Complete;
    "HTTP/1.0 keep-alive", GET:
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx" => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"", Some(OK), Complete;

    "HEAD with length", HEAD: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HTTP", Some(OK), Complete;
    "HEAD with chunked", HEAD:
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"", Some(OK), Complete;
    "HEAD with chunked, to an old client", OLD_HEAD:
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" => b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", b"", Some(OK), Complete;
    "HEAD with neither", HEAD: b"HTTP/1.1 200 OK\r\n\r\n" => b"HTTP/1.1 200 OK\r\n\r\n", b"", Some(OK), Complete;
    "204", GET: b"HTTP/1.1 204 No Content\r\n\r\nx" => b"HTTP/1.1 204 No Content\r\n\r\n", b"x", Some(status(204)), Complete;
    "204 with length 0", GET: b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n" => b"HTTP/1.1 204 No Content\r\n\r\n", b"", Some(status(204)), Complete;
    "204 that announces content", GET:
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello" => b"HTTP/1.1 204 No Content\r\n\r\n",
        b"hello", Some(ResponseFacts { upstream_keep_alive: false, ..status(204) }), Complete;
    "204 that announces chunks", GET:
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" => b"HTTP/1.1 204 No Content\r\n\r\n",
        b"0\r\n\r\n", Some(ResponseFacts { upstream_keep_alive: false, ..status(204) }), Complete;
    "304 with length", GET:
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nHTTP" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        b"HTTP", Some(status(304)), Complete;

    "100 and the response", POST:
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n" =>
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", b"", Some(status(201)), Complete;
    "100 and nothing", POST: b"HTTP/1.1 100 Continue\r\n\r\n" => b"HTTP/1.1 100 Continue\r\n\r\n", b"", None, Nothing;
    "103, edited", CLOSING:
        b"HTTP/1.1 103 Early Hints\r\nConnection: x-hop\r\nX-Hop: 1\r\nLink: </a>\r\n\r\nHTTP/1.1 102 \r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" =>
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 \r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"", Some(OK), Complete;
    "103, to an old client", OLD:
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" =>
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b"", Some(OK), Complete;
    "an interim response that announces content", GET:
        b"HTTP/1.1 102 Processing\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" =>
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", Some(LAST), Complete;

    "101", UPGRADE:
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade, x-hop\r\nX-Hop: 1\r\nSec-WebSocket-Accept: s\r\n\r\n\x81\x00" =>
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s\r\nConnection: upgrade\r\n\r\n",
        b"\x81\x00", Some(ResponseFacts { status: 101, client_sees_end: false, ..LAST }), Complete;
    "an upgrade that is not granted", UPGRADE:
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", Some(OK), Complete;
    "426", GET:
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n" =>
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\nConnection: upgrade\r\n\r\n", b"", Some(status(426)), Complete;
    "426, to a client that closes", CLOSING:
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n" =>
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\nConnection: close, upgrade\r\n\r\n", b"", Some(status(426)), Complete;
};

/// Responses to a GET that are refused, with how many bytes were taken before.
pub(super) const REFUSED: &[(&str, &[u8], ResponseViolation, usize)] = &[
    ("not HTTP", b"SSH-2.0-x\r\n", BadStatusLine, 0),
    ("not quite HTTP", b"HTCPCP/1.0 418 x\r\n", BadStatusLine, 0),
    (
        "a line in front",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        BadStatusLine,
        0,
    ),
    (
        "another version",
        b"HTTP/1.2 200 OK\r\n\r\n",
        BadStatusLine,
        0,
    ),
    ("HTTP/2", b"HTTP/2.0 200 OK\r\n\r\n", BadStatusLine, 0),
    (
        "status of two digits",
        b"HTTP/1.1 20 OK\r\n\r\n",
        BadStatusLine,
        0,
    ),
    (
        "status of four digits",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        BadStatusLine,
        0,
    ),
    (
        "status below 100",
        b"HTTP/1.1 099 OK\r\n\r\n",
        BadStatusLine,
        0,
    ),
    ("two spaces", b"HTTP/1.1  200 OK\r\n\r\n", BadStatusLine, 0),
    (
        "a NUL in the reason",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        BadStatusLine,
        0,
    ),
    (
        "a status line outranks its fields",
        b"HTTP/1.1 20\r\nX\n",
        BadStatusLine,
        0,
    ),
    (
        "bare LF",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        BareLineEnd,
        0,
    ),
    (
        "bare CR",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        BareLineEnd,
        0,
    ),
    (
        "a folded field",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        FoldedHeader,
        0,
    ),
    (
        "a NUL in a value",
        b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        BadHeader,
        0,
    ),
    ("no colon", b"HTTP/1.1 200 OK\r\nX\r\n\r\n", BadHeader, 0),
    (
        "a space in a name",
        b"HTTP/1.1 200 OK\r\nX y: 1\r\n\r\n",
        BadHeader,
        0,
    ),
    (
        "a space before a colon and a NUL",
        b"HTTP/1.1 200 OK\r\nX : \0\r\n\r\n",
        BadHeader,
        0,
    ),
    (
        "both",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        LengthConflict,
        0,
    ),
    (
        "both, with space before a colon",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\nTransfer-Encoding : chunked\r\n\r\n",
        LengthConflict,
        0,
    ),
    (
        "both, where there is no content",
        b"HTTP/1.1 304 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        LengthConflict,
        0,
    ),
    (
        "two lengths",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        BadLength,
        0,
    ),
    (
        "two equal lengths",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        BadLength,
        0,
    ),
    (
        "a list of lengths",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        BadLength,
        0,
    ),
    (
        "a negative length",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        BadLength,
        0,
    ),
    (
        "gzip",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        BadTransferEncoding(CodingFault::Malformed),
        0,
    ),
    (
        "gzip, chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        BadTransferEncoding(CodingFault::UnknownCoding),
        0,
    ),
    (
        "chunked of HTTP/1.0",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        BadTransferEncoding(CodingFault::Malformed),
        0,
    ),
    (
        "101 unasked",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        UnaskedUpgrade,
        0,
    ),
    (
        "101 unasked, after 100",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n",
        UnaskedUpgrade,
        25,
    ),
    (
        "content behind an interim response",
        b"HTTP/1.1 102 x\r\nContent-Length: 5\r\n\r\nhello",
        BadStatusLine,
        37,
    ),
    (
        "a bad chunk",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!",
        BadChunk,
        55,
    ),
    (
        "a bad size",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello",
        BadChunk,
        48,
    ),
    (
        "a bad trailer",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n",
        BadTrailer,
        50,
    ),
    (
        "a LF in a trailer",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\n\r\n",
        BareLineEnd,
        50,
    ),
];
