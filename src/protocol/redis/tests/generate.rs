//! Requests and replies that a generator makes up from a seed, most of them sound.

use super::multibulk;

const NAMES: &[&[u8]] = &[
    b"GET",
    b"set",
    b"Client",
    b"XREAD",
    b"xreadgroup",
    b"BLPOP",
    b"MULTI",
    b"kill",
    b"BLOCK",
    b"STREAMS",
    b"",
    b"\r\n",
    b"a \"b\"",
    b"$1\r\nx\r\n",
    b"0",
    b"-1",
];

const LINES: &[&[u8]] = &[
    b"PING\r\n",
    b"\r\n",
    b"\n",
    b" get  k \n",
    b"set k \"a\\x00\\\"b\"\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*-7\r\n",
    b"SET 'a'b\r\n",
    b"GET \"\r\n",
    b"post / HTTP/1.1\r\n",
    b"*1\r\n$5\r\nhOst:\r\n",
    b"*1\r\n$-1\r\n",
    b"*01\r\n",
    b"*10\r\n",
    b"*x\r\n",
    b"*1\r\n$60\r\n",
    b"*1\r\n:1\r\n",
    b"*1\r\n$2\r\nabc\r\n",
    b"0123456789012345678901234567890123456789\n",
    b"01234567890123456789012345678901234567890\n",
    b"a\0'\n",
    b"\0\n",
    b"a\x0bb\x0c\n",
];

/// Where to cut `len` bytes, in order.
pub(super) fn cuts(random: &mut fastrand::Rng, len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..random.usize(..6))
        .map(|_| random.usize(..=len))
        .collect();
    cuts.sort_unstable();
    cuts
}

/// One byte of eight messages is another one.
fn disturb(random: &mut fastrand::Rng, bytes: &mut [u8]) {
    if random.u8(..8) == 0 && !bytes.is_empty() {
        let at = random.usize(..bytes.len());
        bytes[at] = b"\r\n\0 *$:-0129+|>"[random.usize(..15)];
    }
}

pub(super) fn requests(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..5) {
        if random.u8(..4) == 0 {
            bytes.extend_from_slice(LINES[random.usize(..LINES.len())]);
        } else {
            let count = random.usize(1..6);
            let arguments: Vec<&[u8]> = (0..count)
                .map(|_| NAMES[random.usize(..NAMES.len())])
                .collect();
            bytes.extend_from_slice(&multibulk(&arguments));
        }
    }
    disturb(random, &mut bytes);
    bytes
}

pub(super) fn replies(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..4) {
        if random.u8(..8) == 0 {
            bytes.extend_from_slice(b">");
            values(random, 4, 1, &mut bytes);
        } else {
            value(random, 4, &mut bytes);
        }
    }
    disturb(random, &mut bytes);
    bytes
}

/// A value whose own values go no deeper than `depth`.
fn value(random: &mut fastrand::Rng, depth: usize, bytes: &mut Vec<u8>) {
    let kinds = if depth == 0 { 12 } else { 16 };
    match random.usize(..kinds) {
        0 => bytes.extend_from_slice(b"+OK\r\n"),
        1 => bytes.extend_from_slice(b"-ERR \rno\n\r\n"),
        2 => bytes.extend_from_slice(format!(":{}\r\n", random.i64(..)).as_bytes()),
        3 => bytes.extend_from_slice(b"$-1\r\n"),
        4 => bytes.extend_from_slice(b"*-1\r\n"),
        5 => bytes.extend_from_slice(b"_\r\n"),
        6 => bytes.extend_from_slice(b",1.5e9\r\n"),
        7 => bytes.extend_from_slice(b"#t\r\n"),
        8 => bytes.extend_from_slice(b"(3492890328409238509324850943850943825024385\r\n"),
        9 => string(random, b'!', bytes),
        10 => string(random, b'=', bytes),
        11 => string(random, b'$', bytes),
        12 => {
            bytes.push(b'|');
            values(random, depth, 2, bytes);
            value(random, depth - 1, bytes);
        }
        13 => {
            bytes.push(b'%');
            values(random, depth, 2, bytes);
        }
        14 => {
            bytes.push(b'~');
            values(random, depth, 1, bytes);
        }
        _ => {
            bytes.push(b'*');
            values(random, depth, 1, bytes);
        }
    }
}

fn values(random: &mut fastrand::Rng, depth: usize, each: usize, bytes: &mut Vec<u8>) {
    let count = random.usize(..4);
    bytes.extend_from_slice(format!("{count}\r\n").as_bytes());
    for _ in 0..count * each {
        value(random, depth - 1, bytes);
    }
}

fn string(random: &mut fastrand::Rng, kind: u8, bytes: &mut Vec<u8>) {
    let length = random.usize(..20);
    bytes.push(kind);
    bytes.extend_from_slice(format!("{length}\r\n").as_bytes());
    bytes.extend((0..length).map(|_| b"\r\n$*ab"[random.usize(..6)]));
    bytes.extend_from_slice(b"\r\n");
}
