//! Where replies end, and what of them is seen.

use super::any::{SHAPES, Told, tell};
use super::*;

fn kind(shape: Shape, hidden: Hidden) -> Kind {
    Kind { shape, hidden }
}

fn reply(bytes: &[u8]) -> Told {
    Told::Reply(bytes.to_vec())
}

/// In one piece, and in pieces of one byte.
#[track_caller]
fn expect(kinds: &[Kind], sent: &[u8], expected: &[Told]) {
    let every: Vec<usize> = (0..sent.len()).collect();
    for cuts in [&[][..], &every] {
        assert_eq!(tell(kinds, sent, cuts), expected, "{}", text(sent));
    }
}

pub(super) fn wholes() -> Vec<(Shape, &'static [u8])> {
    vec![
        (Shape::Values, b"END\r\n"),
        (Shape::Values, b"VALUE a 0 3\r\nabc\r\nEND\r\n"),
        (
            Shape::Values,
            b"VALUE a 0 0\r\n\r\nVALUE b 1 5 77\r\nEND\r\n\r\nEND\r\n",
        ),
        (
            Shape::Values,
            b"VALUE a 0 2\r\n\r\n\r\nSERVER_ERROR out of memory\r\n",
        ),
        (Shape::Stored, b"STORED\r\n"),
        (Shape::Stored, b"NOT_STORED\r\n"),
        (Shape::Stored, b"EXISTS\r\n"),
        (Shape::Stored, b"NOT_FOUND\r\n"),
        (Shape::Deleted, b"DELETED\r\n"),
        (Shape::Touched, b"TOUCHED\r\n"),
        (Shape::Number, b"18446744073709551615\r\n"),
        (Shape::Number, b"5  \r\n"),
        (Shape::Version, b"VERSION 1.6.18\r\n"),
        (Shape::AnyLine, b"OK\r\n"),
        (Shape::AnyLine, b"Error TLS not enabled\r\n"),
        (Shape::Statistics, b"END\r\n"),
        (Shape::Statistics, b"RESET\r\n"),
        (Shape::Statistics, b"OK\r\n"),
        (Shape::Statistics, b"STAT pid 1\r\nSTAT x END\r\nEND\r\n"),
        (Shape::Statistics, b"ITEM a [1 b; 0 s]\r\nEND\r\n"),
        (Shape::Statistics, b"PREFIX a get 1 hit 0\r\nEND\r\n"),
        (Shape::MetaGet, b"HD\r\n"),
        (Shape::MetaGet, b"EN\r\n"),
        (Shape::MetaGet, b"EN ka O1\r\n"),
        (Shape::MetaGet, b"VA 4 ka O1\r\nEN\r\n\r\n"),
        (Shape::MetaSet, b"HD c5\r\n"),
        (Shape::MetaSet, b"NS\r\n"),
        (Shape::MetaDelete, b"NF ka\r\n"),
        (Shape::MetaArithmetic, b"VA 2 t-1\r\n12\r\n"),
        (
            Shape::MetaDebug,
            b"ME a exp=-1 la=3 cas=2 fetch=no cls=1 size=63\r\n",
        ),
        (Shape::MetaDebug, b"EN\r\n"),
    ]
}

#[test]
fn each_reply_ends_at_its_end() {
    let mut kinds = Vec::new();
    let mut all = Vec::new();
    for (shape, bytes) in wholes() {
        let shown = Kind::shown(shape);
        let sent = [bytes, b"STORED\r\n"].concat();
        expect(&[shown], &sent, &[reply(bytes)]);
        kinds.push(shown);
        all.push(reply(bytes));
    }
    let sent: Vec<&[u8]> = wholes().iter().map(|(_, bytes)| *bytes).collect();
    expect(&kinds, &sent.concat(), &all);
}

#[test]
fn an_error_may_answer_anything() {
    let long = [b"SERVER_ERROR ", &[b'x'; 9000][..], b"\r\n"].concat();
    for shape in SHAPES {
        let shown = Kind::shown(shape);
        for error in [&b"ERROR\r\n"[..], b"CLIENT_ERROR bad data chunk\r\n", &long] {
            expect(&[shown], error, &[reply(error)]);
        }
    }
}

#[test]
fn what_memcached_would_not_have_said_is_hidden() {
    let (set, get) = (Shape::MetaSet, Shape::MetaGet);
    let sum = Shape::MetaArithmetic;
    let error = &b"CLIENT_ERROR x\r\n"[..];
    let rows: &[(Shape, Hidden, &[u8], bool)] = &[
        (Shape::Stored, Hidden::All, b"STORED\r\n", false),
        (Shape::Stored, Hidden::All, b"NOT_STORED\r\n", false),
        (Shape::Stored, Hidden::All, error, false),
        (get, Hidden::Miss, b"EN\r\n", false),
        (get, Hidden::Miss, b"EN ka O5\r\n", false),
        (get, Hidden::Miss, b"HD\r\n", true),
        (get, Hidden::Miss, b"VA 2\r\nEN\r\n", true),
        (get, Hidden::Miss, error, true),
        (set, Hidden::Success, b"HD\r\n", false),
        (set, Hidden::Success, b"HD O5\r\n", false),
        (set, Hidden::Success, b"NS\r\n", true),
        (set, Hidden::Success, error, true),
        (Shape::MetaDelete, Hidden::Success, b"NF\r\n", true),
        (Shape::MetaDelete, Hidden::Success, b"HD\r\n", false),
        (sum, Hidden::Success, b"VA 2\r\n12\r\n", false),
        (sum, Hidden::Success, b"NF\r\n", true),
        (Shape::AnyLine, Hidden::Success, b"OK\r\n", false),
        (Shape::AnyLine, Hidden::Success, b"Error\r\n", true),
    ];
    for (shape, hidden, bytes, is_shown) in rows {
        let seen: &[u8] = if *is_shown { bytes } else { b"" };
        let kinds = [kind(*shape, *hidden), Kind::shown(Shape::MetaGet)];
        let sent = [bytes, &b"EN\r\n"[..]].concat();
        expect(&kinds, &sent, &[reply(seen), reply(b"EN\r\n")]);
    }
}

#[test]
fn a_reply_that_is_none_to_the_command_is_a_violation() {
    let foreign = ReplyViolation("a reply that is none to the command");
    let words: &[&[u8]] = &[
        b"STORED",
        b"DELETED",
        b"TOUCHED",
        b"5",
        b"VERSION 1",
        b"VALUE a 0 0",
        b"STAT a 1",
        b"VA 0",
        b"ME a",
        b"NF",
        b"hello",
        b"",
        b"MN",
        b"\xff",
    ];
    for shape in SHAPES {
        if shape == Shape::AnyLine {
            continue;
        }
        let mut accepted = 0;
        for word in words {
            let sent = [word, &b"\r\n"[..]].concat();
            let told = tell(&[Kind::shown(shape)], &sent, &[]);
            accepted += usize::from(!told.contains(&Told::Broken(foreign)));
        }
        assert!(accepted <= 2, "{shape:?} takes {accepted}");
    }
}

#[test]
fn broken_replies_are_refused_at_their_byte() {
    let rows: &[(Shape, &[u8], &[u8])] = &[
        (Shape::Stored, b"", b"STORED\n"),
        (Shape::Stored, b"ERROR x", b"\n"),
        (Shape::Values, b"", b"VALUE a 0\r\n"),
        (Shape::Values, b"", b"VALUE a 0 x\r\n"),
        (Shape::Values, b"", b"VALUE a 0 3\nabc\r\n"),
        (Shape::Values, b"VALUE a 0 3\r\nabc", b"d\r\n"),
        (Shape::Values, b"VALUE a 0 3\r\nabc\r", b"\r\n"),
        (Shape::Values, b"VALUE a 0 0\r\n", b"END\r\n"),
        (Shape::Values, b"VALUE a 0 0\r\n\r\n", b"STORED\r\n"),
        (Shape::Statistics, b"STAT a 1\r\n", b"VALUE a 0 0\r\n"),
        (Shape::MetaGet, b"", b"VA\r\n"),
        (Shape::MetaGet, b"", b"VA -1\r\n"),
    ];
    for (shape, passed, rest) in rows {
        let sent = [*passed, *rest].concat();
        let every: Vec<usize> = (0..sent.len()).collect();
        for cuts in [&[][..], &every] {
            let told = tell(&[Kind::shown(*shape)], &sent, cuts);
            assert!(
                matches!(&told[..], [Told::Begun(seen), Told::Broken(_)] if seen == passed),
                "{}: {told:?}",
                text(&sent)
            );
        }
    }
}

#[test]
fn a_line_that_announces_data_has_a_limit_and_no_other_line_has() {
    let padded = |length: usize| {
        let mut line = b"VA 1 O".to_vec();
        line.resize(length - 2, b'x');
        [&line[..], b"\r\n", b"a\r\n"].concat()
    };
    let shown = Kind::shown(Shape::MetaGet);
    expect(&[shown], &padded(2048), &[reply(&padded(2048))]);
    let told = tell(&[shown], &padded(2049), &[]);
    assert!(matches!(told[1], Told::Broken(_)), "{told:?}");
    let word = [&[b'X'; 33][..], b"\r\n"].concat();
    let told = tell(&[Kind::shown(Shape::AnyLine)], &word, &[]);
    assert!(matches!(told[1], Told::Broken(_)), "{told:?}");
}

#[test]
fn data_is_skipped_however_long_it_is() {
    let mut framer = ReplyFramer::new();
    let shown = Kind::shown(Shape::Values);
    let line = b"VALUE a 0 18446744073709551615\r\n";
    let frame = framer
        .frame(shown, line)
        .map(|frame| (frame.taken, frame.then));
    assert_eq!(frame, Ok((line.len(), ReplyThen::More)));
    let piece = vec![b'\n'; 1 << 16];
    for _ in 0..4 {
        let frame = framer.frame(shown, &piece).map(|frame| frame.taken);
        assert_eq!(frame, Ok(piece.len()));
    }
}
