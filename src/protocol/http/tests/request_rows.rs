//! Requests and what must become of them, as data.

use super::super::RequestViolation::{self, *};
use super::super::{BodyLength, CodingFault, RequestFacts};
use super::GET;

/// A request that goes on.
pub(super) struct Accepted {
    pub(super) name: &'static str,
    pub(super) sent: &'static [u8],
    /// All that the service gets, while it is told nothing about the client.
    pub(super) passed: &'static [u8],
    /// What stays for the next request.
    pub(super) left: &'static [u8],
    pub(super) facts: RequestFacts,
}

const POST: RequestFacts = RequestFacts {
    idempotent: false,
    ..GET
};

const fn with_length(length: u64) -> RequestFacts {
    RequestFacts {
        body: BodyLength::Length(length),
        ..POST
    }
}

const CHUNKED: RequestFacts = RequestFacts {
    body: BodyLength::Chunked,
    ..POST
};

macro_rules! accepted {
    ($($name:literal: $sent:expr => $passed:expr, $left:literal, $facts:expr;)*) => {
        &[$(Accepted { name: $name, sent: $sent, passed: $passed, left: $left, facts: $facts },)*]
    };
}

pub(super) const ACCEPTED: &[Accepted] = accepted! {
    "plain": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"", GET;
    "pipelined":
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n" =>
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /2 HTTP/1.1\r\n", GET;
    "one empty line in front":
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n" => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"", GET;
    "order, case and space of other fields stay":
        b"GET /%20?q=1&r HTTP/1.1\r\nzz:1\r\nHOST:\ta.test:80 \r\nAa:  x  y  \r\nDate: now\r\nEmpty:\r\n\r\n" =>
        b"GET /%20?q=1&r HTTP/1.1\r\nzz:1\r\nHOST:\ta.test:80 \r\nAa:  x  y  \r\nDate: now\r\nEmpty:\r\n\r\n",
        b"", GET;
    "obs-text in a value and UTF-8 in a target":
        b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\nX: \xff\xfe\r\n\r\n" =>
        b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\nX: \xff\xfe\r\n\r\n", b"", GET;
    "an extension method": b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n" => b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", b"", POST;
    "HEAD": b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" => b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", b"", RequestFacts { head: true, ..GET };
    "a method is case-sensitive": b"get / HTTP/1.1\r\nHost: a\r\n\r\n" => b"get / HTTP/1.1\r\nHost: a\r\n\r\n", b"", POST;
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" => b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"", GET;
    "Host with an IPv6 address": b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n" => b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", b"", GET;

    "absolute form":
        b"GET http://b.test:81/p?q HTTP/1.1\r\nA: 1\r\nHost: a\r\nB: 2\r\n\r\n" =>
        b"GET /p?q HTTP/1.1\r\nA: 1\r\nHost: b.test:81\r\nB: 2\r\n\r\n", b"", GET;
    "absolute form without path": b"GET HTTP://b HTTP/1.1\r\nHost: a\r\n\r\n" => b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", b"", GET;
    "absolute form with query only": b"GET http://b?q/r HTTP/1.1\r\nHost: a\r\n\r\n" => b"GET /?q/r HTTP/1.1\r\nHost: b\r\n\r\n", b"", GET;
    "absolute form of OPTIONS *": b"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n" => b"OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n", b"", GET;
    "absolute form of HTTP/1.0":
        b"GET http://b/ HTTP/1.0\r\nA: 1\r\n\r\n" => b"GET / HTTP/1.1\r\nHost: b\r\nA: 1\r\n\r\n",
        b"", RequestFacts { version_minor: 0, keep_alive: false, ..GET };

    "HTTP/1.0 without Host":
        b"GET / HTTP/1.0\r\nUser-Agent: old\r\n\r\n" => b"GET / HTTP/1.1\r\nHost: service.test:8080\r\nUser-Agent: old\r\n\r\n",
        b"", RequestFacts { version_minor: 0, keep_alive: false, ..GET };
    "HTTP/1.0 without fields":
        b"GET / HTTP/1.0\r\n\r\n" => b"GET / HTTP/1.1\r\nHost: service.test:8080\r\n\r\n",
        b"", RequestFacts { version_minor: 0, keep_alive: false, ..GET };
    "HTTP/1.0 keep-alive":
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n" => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"", RequestFacts { version_minor: 0, ..GET };
    "HTTP/1.0: close outranks keep-alive":
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n" => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"", RequestFacts { version_minor: 0, keep_alive: false, ..GET };
    "HTTP/1.0: an expectation is ignored":
        b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx" =>
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        b"", RequestFacts { version_minor: 0, keep_alive: false, ..with_length(1) };
    "HTTP/1.0: an upgrade is ignored":
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n" =>
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"", RequestFacts { version_minor: 0, ..GET };

    "HTTP/1.1 close":
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n" => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"", RequestFacts { keep_alive: false, ..GET };
    "hop-by-hop fields":
        b"GET / HTTP/1.1\r\nKeep-Alive: 5\r\nA: 1\r\nHost: a\r\nTE: trailers\r\nHTTP2-Settings: AAMAAABk\r\nProxy-Connection: keep-alive\r\nB: 2\r\nUpgrade: websocket\r\n\r\n" =>
        b"GET / HTTP/1.1\r\nA: 1\r\nHost: a\r\nB: 2\r\n\r\n", b"", GET;
    "nominated fields":
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Hop: 1\r\nConnection: x-hop,, ,X-Other\r\nx-other: 2\r\nKept: 3\r\nConnection: x-third\r\nX-Third: 4\r\n\r\n" =>
        b"GET / HTTP/1.1\r\nHost: a\r\nKept: 3\r\n\r\n", b"", GET;
    "a nomination can't blot out framing, Host, Expect or what a proxy said":
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: host, content-length, expect, x-forwarded-for\r\nX-Forwarded-For: 10.0.0.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nok" =>
        b"POST / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nok",
        b"", RequestFacts { expects_continue: true, ..with_length(2) };

    "upgrade":
        b"GET /chat HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n\x81" =>
        b"GET /chat HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: k\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"\x81", RequestFacts { upgrade: true, ..GET };
    "upgrade: h2c is not passed on":
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: AAM\r\n\r\n" =>
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"", GET;
    "upgrade: the rest of a list with h2c is":
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c, IRC/6.9\r\nUpgrade: h2c/2,x/1/2,b@d, foo\r\n\r\n" =>
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: IRC/6.9, foo\r\n\r\n",
        b"", RequestFacts { upgrade: true, ..GET };
    "upgrade: not with content":
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\nContent-Length: 1\r\n\r\nx" =>
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", b"", with_length(1);

    "length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET" => b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", b"GET", with_length(5);
    "length 0": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n\r\n" => b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b"\r\n", with_length(0);
    "length at the limit":
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" => b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", b"", with_length(1000);
    "length is normalised": b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length:  \t 0010 \t\r\n\r\n0123456789" => b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 10\r\n\r\n0123456789", b"", with_length(10);
    "GET with content":
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nokGET" => b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok",
        b"GET", RequestFacts { idempotent: true, ..with_length(2) };
    "POST without length": b"POST / HTTP/1.1\r\nHost: a\r\n\r\nhello" => b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b"hello", POST;
    "expectation":
        b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\nok" => b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\nok",
        b"", RequestFacts { expects_continue: true, idempotent: true, ..with_length(2) };

    "chunked":
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET" =>
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"GET", CHUNKED;
    "chunked is normalised":
        b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-Encoding:\tChUnKeD \r\n\r\n0\r\n\r\n" =>
        b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", CHUNKED;
    "chunked: sizes, extensions, trailers":
        b"POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n00A;sig=\"a b\";c\r\n0123456789\r\n00000000000000aB; \t x\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789a\r\n000;last\r\nX-Sum: 1\r\nY:\r\n\r\n\r\n" =>
        b"POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n00A;sig=\"a b\";c\r\n0123456789\r\n00000000000000aB; \t x\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789a\r\n000;last\r\nX-Sum: 1\r\nY:\r\n\r\n",
        b"\r\n", CHUNKED;
};

/// Requests that are refused.
pub(super) const REFUSED: &[(&str, &[u8], RequestViolation)] = &[
    // Request lines.
    ("a TLS handshake", b"\x16\x03\x01\x02\x00\x01", BadStartLine),
    ("two empty lines in front", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("a bare LF in front", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLineEnd),
    ("a bare CR in front", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLineEnd),
    ("HTTP/0.9", b"GET /\r\n", BadStartLine),
    ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("two spaces before the version", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("a tab", b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("a space at the end", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BadStartLine),
    ("a space in front", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("a NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("a NUL in the method", b"GE\0T / HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("broken UTF-8 in the target", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("a fragment", b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("no slash", b"GET index HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("* without OPTIONS", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("a foreign scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("a method with a colon", b"GET: / HTTP/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("lower-case version", b"GET / http/1.1\r\nHost: a\r\n\r\n", BadStartLine),
    ("long version", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", BadStartLine),
    ("short version", b"GET / HTTP/1\r\nHost: a\r\n\r\n", BadStartLine),
    ("a request in the request line", b"GET / HTTP/1.1 GET / HTTP/1.2\r\n", BadStartLine),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", UnsupportedVersion),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", UnsupportedVersion),
    ("HTTP/0.9 by name", b"GET / HTTP/0.9\r\n", UnsupportedVersion),
    ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", UnsupportedMethod),
    ("CONNECT, before its fields", b"CONNECT a:443 HTTP/1.1\r\nHo", UnsupportedMethod),
    ("connect", b"connect a:443 HTTP/1.1\r\nHost: a\r\n\r\n", UnsupportedMethod),
    ("a start line outranks its fields", b"GET HTTP/1.1\r\nbad field\r\n\r\n", BadStartLine),
    ("a start line outranks line ends", b"CONNECT a:1 HTTP/1.1\r\nHost: a\n\n", UnsupportedMethod),
    // Line ends.
    ("bare LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n", BareLineEnd),
    ("bare LF after a field", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", BareLineEnd),
    ("bare LF as the last line", b"GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineEnd),
    ("bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", BareLineEnd),
    ("bare CR in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\rY: b\r\n\r\n", BareLineEnd),
    ("bare CR as a line end", b"GET / HTTP/1.1\rHost: a\r\r", BareLineEnd),
    ("two CRs", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", BareLineEnd),
    ("LF CR", b"GET / HTTP/1.1\r\nHost: a\n\r\n\r", BareLineEnd),
    ("hidden after bare CR", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n", BareLineEnd),
    // Fields.
    ("space before a colon", b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", SpaceBeforeColon),
    ("tab before a colon", b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", SpaceBeforeColon),
    ("space before a framing field's colon", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", SpaceBeforeColon),
    ("folded by space", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", FoldedHeader),
    ("folded by tab", b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n", FoldedHeader),
    ("space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", FoldedHeader),
    ("a line of space", b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", FoldedHeader),
    ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", BadHeader),
    ("no name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", BadHeader),
    ("a space in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", BadHeader),
    ("a NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", BadHeader),
    ("a NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", BadHeader),
    ("a DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", BadHeader),
    ("an escape in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[2J\r\n\r\n", BadHeader),
    ("obs-text in a name", b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\xa0: chunked\r\n\r\n", BadHeader),
    ("a vertical tab before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", BadHeader),
    ("a form feed after chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0c\r\n\r\n", BadHeader),
    ("underscore in a length's name", b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 1\r\n\r\n", BadHeader),
    ("underscore in a coding's name", b"POST / HTTP/1.1\r\nHost: a\r\ntransfer_encoding: chunked\r\n\r\n", BadHeader),
    ("17 connection options", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q\r\n\r\n", BadHeader),
    // Lengths.
    ("both", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", LengthConflict),
    ("both, the other way round", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", LengthConflict),
    ("both, of HTTP/1.0", b"POST / HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", LengthConflict),
    ("both, one of them nonsense", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n", LengthConflict),
    ("both, one of them nominated", b"POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", LengthConflict),
    ("two lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", BadLength),
    ("two equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", BadLength),
    ("a list of equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", BadLength),
    ("an empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", BadLength),
    ("an empty length beside one", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\nContent-Length: 5\r\n\r\n", BadLength),
    ("a plus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", BadLength),
    ("a minus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", BadLength),
    ("a space inside", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\n", BadLength),
    ("hexadecimal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", BadLength),
    ("a fraction", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n", BadLength),
    ("an exponent", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e1\r\n\r\n", BadLength),
    ("a quoted length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\n", BadLength),
    ("other digits", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa5\r\n\r\n", BadLength),
    ("2^63", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", BadLength),
    ("2^64+5", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\n", BadLength),
    ("over-long zeros", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00000000000000000005\r\n\r\n", BadLength),
    ("over body_max", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", BodyTooLarge),
    // Transfer codings.
    ("two chunked fields", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("identity beside chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("chunked twice", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("chunked not last", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("no chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("xchunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("chunked and something", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked-x\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("chunked with a parameter", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("chunked in quotes", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("chunked after quotes", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"x\", chunked\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("chunked with an empty member", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("chunked with a comma", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("an empty coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("two words", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked chunked\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("a colon before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: : chunked\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("obs-text after chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\xa0\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("chunked of HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", BadTransferEncoding(CodingFault::Malformed)),
    ("gzip before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", BadTransferEncoding(CodingFault::UnknownCoding)),
    ("two codings before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip;q=1, identity, Chunked\r\n\r\n", BadTransferEncoding(CodingFault::UnknownCoding)),
    // Hosts.
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", BadHost),
    ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", BadHost),
    ("two equal Hosts", b"GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", BadHost),
    ("an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", BadHost),
    ("two hosts in one", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BadHost),
    ("joined hosts", b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", BadHost),
    ("a path in Host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BadHost),
    ("a user in Host", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BadHost),
    ("a backslash in Host", b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", BadHost),
    ("obs-text in Host", b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", BadHost),
    ("only a port", b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", BadHost),
    ("a port that is none", b"GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n", BadHost),
    ("two ports", b"GET / HTTP/1.1\r\nHost: a:80:81\r\n\r\n", BadHost),
    ("a bracket left open", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BadHost),
    ("something after a bracket", b"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", BadHost),
    ("brackets around a name", b"GET / HTTP/1.1\r\nHost: [a]\r\n\r\n", BadHost),
    ("an absolute form and no Host", b"GET http://a/ HTTP/1.1\r\n\r\n", BadHost),
    ("an absolute form with a user", b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", BadHost),
    ("an absolute form without authority", b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", BadHost),
    // Expectations.
    ("another expectation", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", UnsupportedExpectation),
    ("two expectations", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\n\r\n", UnsupportedExpectation),
    ("an expectation in a second field", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nExpect: 100-continue\r\n\r\n", UnsupportedExpectation),
];

/// Chunked bodies that are refused, behind the head of a chunked request.
pub(super) const REFUSED_CHUNKS: &[(&str, &[u8], RequestViolation)] = &[
    ("no size", b"\r\nhello", BadChunk),
    ("a size with 0x", b"0x5\r\nhello\r\n", BadChunk),
    ("a plus", b"+5\r\nhello\r\n", BadChunk),
    ("a minus", b"-5\r\nhello\r\n", BadChunk),
    ("a space in front", b" 5\r\nhello\r\n", BadChunk),
    ("a space behind", b"5 \r\nhello\r\n", BadChunk),
    ("a tab behind", b"5\t\r\nhello\r\n", BadChunk),
    (
        "a space before an extension",
        b"5 ;a\r\nhello\r\n",
        BadChunk,
    ),
    ("an underscore", b"1_0\r\nhello\r\n", BadChunk),
    ("not hexadecimal", b"g\r\nhello\r\n", BadChunk),
    ("17 digits", b"00000000000000005\r\nhello\r\n", BadChunk),
    ("2^63", b"8000000000000000\r\nhello\r\n", BadChunk),
    ("2^64+5", b"10000000000000005\r\nhello\r\n", BadChunk),
    ("-1 as unsigned", b"ffffffffffffffff\r\nhello\r\n", BadChunk),
    ("a NUL", b"5\0\r\nhello\r\n", BadChunk),
    ("LF after the size", b"5\nhello\r\n", BadChunk),
    ("CR alone after the size", b"5\rXhello\r\n", BadChunk),
    ("two CRs after the size", b"5\r\r\nhello\r\n", BadChunk),
    ("an extension without name", b"5;\r\nhello\r\n", BadChunk),
    ("an extension of spaces", b"5; \t\r\nhello\r\n", BadChunk),
    (
        "an extension that is no token",
        b"5;=a\r\nhello\r\n",
        BadChunk,
    ),
    ("LF in an extension", b"5;a\nhello\r\n", BadChunk),
    ("CR in an extension", b"5;a\rb\r\nhello\r\n", BadChunk),
    (
        "LF in a quoted extension",
        b"5;a=\"\n\"\r\nhello\r\n",
        BadChunk,
    ),
    ("a NUL in an extension", b"5;a=\0\r\nhello\r\n", BadChunk),
    (
        "data longer than its size",
        b"5\r\nhello!\r\n0\r\n\r\n",
        BadChunk,
    ),
    ("LF after the data", b"5\r\nhello\n0\r\n\r\n", BadChunk),
    (
        "CR alone after the data",
        b"5\r\nhello\r0\r\n\r\n",
        BadChunk,
    ),
    (
        "CR and something after the data",
        b"5\r\nhello\rX0\r\n\r\n",
        BadChunk,
    ),
    ("nothing after the data", b"5\r\nhello0\r\n\r\n", BadChunk),
    (
        "a request after data",
        b"5\r\nhello\r\nGET / HTTP/1.1\r\n",
        BadChunk,
    ),
    ("LF after the last chunk", b"0\n\r\n", BadChunk),
    ("LF as the end", b"0\r\n\n", BareLineEnd),
    ("CR alone as the end", b"0\r\n\rX", BareLineEnd),
    (
        "a data line after the last chunk",
        b"0\r\nhello\r\n\r\n",
        BadTrailer,
    ),
    (
        "Content-Length as a trailer",
        b"0\r\nContent-Length: 5\r\n\r\n",
        BadTrailer,
    ),
    (
        "Transfer-Encoding as a trailer",
        b"0\r\nX: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        BadTrailer,
    ),
    ("Host as a trailer", b"0\r\nHost: b\r\n\r\n", BadTrailer),
    (
        "Connection as a trailer",
        b"0\r\nConnection: close\r\n\r\n",
        BadTrailer,
    ),
    (
        "X-Forwarded-For as a trailer",
        b"0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
        BadTrailer,
    ),
    (
        "Content_Length as a trailer",
        b"0\r\nContent_Length: 5\r\n\r\n",
        BadTrailer,
    ),
    ("a folded trailer", b"0\r\nX: 1\r\n 2\r\n\r\n", BadTrailer),
    (
        "a space before a trailer's colon",
        b"0\r\nX : 1\r\n\r\n",
        BadTrailer,
    ),
    ("a NUL in a trailer", b"0\r\nX: \0\r\n\r\n", BadTrailer),
    (
        "a LF in a trailer",
        b"0\r\nX: 1\nHost: b\r\n\r\n",
        BareLineEnd,
    ),
    (
        "a CR in a trailer",
        b"0\r\nX: 1\rHost: b\r\n\r\n",
        BareLineEnd,
    ),
    ("a size over body_max", b"3e9\r\n", BodyTooLarge),
    (
        "chunks over body_max",
        b"5\r\nhello\r\n3e4\r\n",
        BodyTooLarge,
    ),
];
