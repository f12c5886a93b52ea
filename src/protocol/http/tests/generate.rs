//! Messages made of sound and broken pieces, from a seed.

/// xorshift64*: small, seeded, good enough to pick pieces and cuts.
pub(super) struct Seeded(u64);

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn pick<'a>(&mut self, pieces: &[&'a [u8]]) -> &'a [u8] {
        pieces[self.below(pieces.len())]
    }

    /// Where to cut `len` bytes, in order.
    pub(super) fn cuts(&mut self, len: usize) -> Vec<usize> {
        let count = self.below(6);
        let mut cuts: Vec<usize> = (0..count).map(|_| self.below(len + 1)).collect();
        cuts.sort_unstable();
        cuts
    }
}

const REQUEST_LINES: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /a?b HTTP/1.1\r\n",
    b"HEAD http://b/c HTTP/1.1\r\n",
    b"PUT / HTTP/1.0\r\n",
    b"\r\nGET / HTTP/1.1\r\n",
    b"GET / HTTP/2.0\r\n",
    b"GET /  HTTP/1.1\r\n",
];

const STATUS_LINES: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 404\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 304 Not Modified\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n",
    b"HTTP/1.1 20x\r\n",
];

const FIELDS: &[&[u8]] = &[
    b"Host: a\r\n",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"content-length:  011\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: CHUNKED \r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive, x\r\n",
    b"Connection: upgrade\r\n",
    b"Upgrade: foo\r\n",
    b"X: 1\r\n",
    b"X-Forwarded-For: 10.0.0.1\r\n",
    b"Expect: 100-continue\r\n",
    b"Trailer: y\r\n",
    b"TE: trailers\r\n",
    b"Folded: a\r\n b\r\n",
    b"Spaced : a\r\n",
    b"Bare: a\n",
    b"Bare: a\rb\r\n",
    b"Nul: \0\r\n",
];

const BODIES: &[&[u8]] = &[
    b"",
    b"hello",
    b"hello worldGET / HTTP/1.1\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;a=b\r\nhello\r\n00b\r\nhello world\r\n0\r\nT: 1\r\nU: 2\r\n\r\nGET",
    b"1\r\n.\r\n1\r\n.\r\n1\r\n.\r\n0;x\r\n\r\n\r\n",
    b"5\r\nhello!\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n",
    b"5\nhello\n0\n\n",
    b"fffffffffffffffff\r\n",
    b"3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n",
    b"3\r\nabc\r\n0\r\nX: 1\n\r\n",
];

fn message(seeded: &mut Seeded, start_lines: &[&[u8]]) -> Vec<u8> {
    let mut bytes = seeded.pick(start_lines).to_vec();
    for _ in 0..seeded.below(5) {
        // The sound fields stand first; a broken one in every message would hide the rest.
        let kinds = if seeded.below(4) == 0 {
            FIELDS.len()
        } else {
            FIELDS.len() - 5
        };
        bytes.extend_from_slice(seeded.pick(&FIELDS[..kinds]));
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(seeded.pick(BODIES));
    if seeded.below(8) == 0 {
        let at = seeded.below(bytes.len());
        bytes[at] = b"\r\n\0 :,;\t0aF\xff"[seeded.below(12)];
    }
    bytes
}

pub(super) fn request(seeded: &mut Seeded) -> Vec<u8> {
    message(seeded, REQUEST_LINES)
}

pub(super) fn response(seeded: &mut Seeded) -> Vec<u8> {
    message(seeded, STATUS_LINES)
}
