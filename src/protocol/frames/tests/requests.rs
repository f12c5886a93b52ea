//! Requests, row by row.

use super::drive::{End, Piece, drive};
use super::rows::{refusals, wholes};
use super::*;

/// The first bytes of another request.
const NEXT: &[u8] = b"N\n\x01\x00";

#[test]
fn a_request_goes_on_up_to_its_boundary() {
    for row in wholes() {
        let sent = [row.frame, NEXT].concat();
        let mut framer = RequestFramer::new(&row.layout);
        assert_eq!(framer.facts(), None, "{}", row.name);
        let run = drive(&mut framer, &sent, []);
        assert_eq!(
            run.pieces,
            [Piece::Verbatim(row.frame.to_vec())],
            "{}",
            row.name
        );
        assert_eq!(run.end, End::Boundary, "{}", row.name);
        assert_eq!(framer.facts(), Some(row.facts), "{}", row.name);
    }
}

#[test]
fn a_request_without_its_last_byte_is_not_complete() {
    for row in wholes() {
        let sent = &row.frame[..row.frame.len() - 1];
        let run = drive(&mut RequestFramer::new(&row.layout), sent, []);
        assert_eq!(run.end, End::Starved, "{}", row.name);
    }
}

#[test]
fn a_broken_request_is_refused_at_its_byte() {
    for row in refusals() {
        let mut framer = RequestFramer::new(&row.layout);
        let run = drive(&mut framer, row.sent, []);
        assert_eq!(run.end, End::Violation(row.violation), "{}", row.name);
        assert_eq!(run.taken, row.taken, "{}", row.name);
        assert_eq!(
            text(&run.passed()),
            text(&row.sent[..row.taken]),
            "{}",
            row.name
        );
        // As early as it can be known: no byte before this one tells it.
        let told_by = (1..=row.sent.len()).find(|&shown| {
            let run = drive(&mut RequestFramer::new(&row.layout), &row.sent[..shown], []);
            run.end != End::Starved
        });
        let culprit = match &row.layout.framing {
            Framing::Delimiter(_) => row.taken + 1,
            Framing::Length(field) => field.offset + field.width,
            Framing::Fixed(size) => *size,
        };
        assert_eq!(told_by, Some(culprit), "{}", row.name);
    }
}

#[test]
fn nothing_goes_on_before_the_kind_is_known() {
    for row in wholes() {
        let mut framer = RequestFramer::new(&row.layout);
        for shown in 0..row.frame.len() {
            let frame = framer.frame(&row.frame[..shown], &mut Vec::new());
            let Ok(frame) = frame else {
                panic!("{}: {frame:?}", row.name);
            };
            assert_eq!(framer.facts().is_some(), frame.taken > 0, "{}", row.name);
            if frame.taken > 0 {
                assert_eq!(framer.facts(), Some(row.facts), "{}", row.name);
                break;
            }
        }
    }
}

#[test]
fn facts_are_known_once_the_last_byte_that_tells_them_is_there() {
    // Length and marks of Dubbo end with its header; the mark of these lines is their third byte.
    let lines = Layout {
        oneway: mark(2, 0xff, b'!'),
        ..layout(until(b"\n"))
    };
    let dubbo = rows::dubbo();
    for (layout, sent, known_at) in [
        (
            &dubbo,
            &b"\xda\xbb\x82\x00\0\0\0\0\0\0\0\x02\0\0\0\x06\x052.0.2"[..],
            16,
        ),
        (&lines, b"ab!\n", 3),
        (&lines, b"a\n!\n", 2),
    ] {
        for shown in 0..=sent.len() {
            let mut framer = RequestFramer::new(layout);
            drive(&mut framer, &sent[..shown], []);
            assert_eq!(
                framer.facts().is_some(),
                shown >= known_at,
                "{}",
                text(&sent[..shown])
            );
        }
    }
}

#[test]
fn a_spent_framer_takes_nothing() {
    let layout = layout(Framing::Fixed(2));
    let mut framer = RequestFramer::new(&layout);
    assert_eq!(drive(&mut framer, b"abcd", []).taken, 2);
    let again = drive(&mut framer, b"cd", []);
    assert_eq!((again.taken, again.end), (0, End::Boundary));
}

#[test]
fn a_long_line_that_comes_in_small_pieces_is_looked_at_once() {
    for (delimiter, filling) in [(&b"\n"[..], b'x'), (b"\r\n", b'\r'), (b"aaaab", b'a')] {
        let layout = layout(until(delimiter));
        let mut framer = RequestFramer::new(&layout);
        let mut edited = Vec::new();
        let mut left = layout.frame_max - delimiter.len();
        let piece = [filling; 16];
        while left > 0 {
            let bytes = &piece[..left.min(16)];
            let frame = framer.frame(bytes, &mut edited);
            // What is taken is not shown again, so nothing is looked at twice.
            assert_eq!(frame.map(|frame| frame.taken), Ok(bytes.len()));
            left -= bytes.len();
        }
        let run = drive(&mut framer, delimiter, []);
        assert_eq!((run.taken, run.end), (delimiter.len(), End::Boundary));
        assert_eq!(
            edited.capacity(),
            0,
            "nothing was written, so nothing allocated"
        );
    }
}
