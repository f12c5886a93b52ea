//! Requests and replies made of sound and broken pieces, from a seed.

use super::replies::wholes;
use super::{Hidden, Kind};

const VERBS: &[&str] = &[
    "get",
    "gets",
    "gat",
    "set",
    "add",
    "replace",
    "append",
    "prepend",
    "cas",
    "delete",
    "incr",
    "touch",
    "mg",
    "ms",
    "md",
    "ma",
    "me",
    "mn",
    "stats",
    "flush_all",
    "slabs automove",
    "lru",
    "quit",
    "watch",
    "verbosity",
    "nonsense",
    " set",
    "",
];

const WORDS: &[&str] = &[
    "a",
    "0",
    "0",
    "0",
    "1",
    "2",
    "3",
    "7",
    "41",
    "noreply",
    "q",
    "v",
    "k",
    "qq",
    "-1",
    "x",
    "\0",
    "99999999999",
    "a\rb",
    "HTTP/1.1",
    "",
];

const DATA: &[&str] = &[
    "",
    "\r\n",
    "a\r\n",
    "ab\r\n",
    "abc\r\n",
    "get a\r\n",
    "abcde",
    "\n",
    "\r",
];

fn pick(random: &mut fastrand::Rng, pieces: &[&'static str]) -> &'static str {
    pieces[random.usize(..pieces.len())]
}

/// Where to cut `len` bytes, in order.
pub(super) fn cuts(random: &mut fastrand::Rng, len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..random.usize(..6))
        .map(|_| random.usize(..=len))
        .collect();
    cuts.sort_unstable();
    cuts
}

/// What a client may send, sound or not.
pub(super) fn requests(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut sent = Vec::new();
    for _ in 0..random.usize(1..6) {
        if random.bool() {
            sent.extend_from_slice(&sound_request(random));
            continue;
        }
        if random.u8(..4) == 0 {
            sent.extend_from_slice(&faulty_request(random));
            continue;
        }
        sent.extend_from_slice(pick(random, VERBS).as_bytes());
        for _ in 0..random.usize(..7) {
            sent.push(b' ');
            sent.extend_from_slice(pick(random, WORDS).as_bytes());
        }
        sent.extend_from_slice(if random.u8(..8) == 0 { b"\n" } else { b"\r\n" });
        sent.extend_from_slice(pick(random, DATA).as_bytes());
    }
    sent
}

/// A request with data that is refused.
fn faulty_request(random: &mut fastrand::Rng) -> Vec<u8> {
    let noreply = pick(random, &["", " noreply", " x"]);
    let line = match random.u8(..4) {
        0 => format!("set {} 0 0 7{noreply}", "k".repeat(251)),
        1 => format!("cas a 0 0 7 x{noreply}"),
        2 => "ms a 7 q q".to_owned(),
        // Its data ends wrongly.
        _ => format!("add a 0 0 6{noreply}"),
    };
    [line.as_bytes(), b"\r\nget a\r\n\r\n"].concat()
}

/// A request that must be shared.
pub(super) fn sound_request(random: &mut fastrand::Rng) -> Vec<u8> {
    let data: Vec<u8> = (0..random.usize(..40))
        .map(|_| b"\r\nx "[random.usize(..4)])
        .collect();
    let noreply = pick(random, &["", " noreply"]);
    let quiet = pick(random, &["", " q", " k q", " qx k"]);
    let length = data.len();
    let line = match random.u8(..8) {
        0 => format!("get a{}", " bb".repeat(random.usize(..30))),
        1 => format!("set a 0 0 {length}{noreply}"),
        2 => format!("cas a 0 -1 {length} 5{noreply}"),
        3 => format!("ms a {length} T0{quiet}"),
        4 => format!("mg a v{quiet}"),
        5 => format!("delete a{noreply}"),
        6 => format!("incr a 5{noreply}"),
        _ => "stats".to_owned(),
    };
    let mut request = [line.as_bytes(), b"\r\n"].concat();
    if ["set", "cas", "ms "]
        .iter()
        .any(|verb| line.starts_with(verb))
    {
        request.extend_from_slice(&data);
        request.extend_from_slice(b"\r\n");
    }
    request
}

/// Sound replies with their kinds, and what is seen of each.
pub(super) fn replies(random: &mut fastrand::Rng) -> Vec<(Kind, Vec<u8>, bool)> {
    let rows = wholes();
    let reply = |random: &mut fastrand::Rng| {
        let (shape, bytes) = rows[random.usize(..rows.len())];
        let hidden = [Hidden::Nothing, Hidden::All][random.usize(..2)];
        let kind = Kind { shape, hidden };
        (kind, bytes.to_vec(), hidden == Hidden::Nothing)
    };
    (0..random.usize(1..9)).map(|_| reply(random)).collect()
}
