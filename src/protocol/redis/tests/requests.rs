//! Requests, row by row.

use super::any::{self, Found};
use super::*;

/// What the framer finds in `sent`, however it is cut.
fn found(sent: &[u8]) -> Vec<Found> {
    for cut in 0..sent.len() {
        any::check_requests(LIMITS, sent, &[cut]);
    }
    any::check_requests(LIMITS, sent, &[])
}

#[test]
fn commands_end_where_their_arguments_do() {
    let rows: &[&[u8]] = &[
        b"*1\r\n$4\r\nPING\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$0\r\n\r\n",
        b"*1\r\n$0\r\n\r\n",
        b"*1\r\n$11\r\n*1\r\n$1\r\nx\r\n\r\n",
        b"*1\r\n$50\r\n01234567890123456789012345678901234567890123456789\r\n",
        b"*9\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n",
        b"PING\r\n",
        b"PING\n",
        b"  SET k 'a b'\r\n",
        b"0123456789012345678901234567890123456789\n",
        b"$4\r\n",
        b"posts\r\n",
    ];
    for row in rows {
        let end = row.len();
        assert_eq!(found(row), [Found::Whole(end)], "{}", text(row));
        let twice = [*row, row].concat();
        let expected = [Found::Whole(end), Found::Whole(2 * end)];
        assert_eq!(found(&twice), expected, "{}", text(row));
        for cut in 0..end {
            assert_eq!(found(&row[..cut]), [], "{} cut at {cut}", text(row));
        }
    }
}

#[test]
fn what_asks_for_nothing_is_dropped() {
    for row in [
        &b"\r\n"[..],
        b"\n",
        b" \t\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*-7\r\n",
        b"*-9223372036854775808\r\n",
    ] {
        let sent = [row, b"*1\r\n$1\r\nx\r\n"].concat();
        let expected = [Found::Blank(row.len()), Found::Whole(sent.len())];
        assert_eq!(found(&sent), expected, "{}", text(row));
    }
}

#[test]
fn broken_requests_are_refused() {
    use RequestViolation::*;
    let rows: &[(&[u8], RequestViolation)] = &[
        (b"*\r\n", BadCount),
        (b"*x\r\n", BadCount),
        (b"* 1\r\n", BadCount),
        (b"*+1\r\n", BadCount),
        (b"*01\r\n", BadCount),
        (b"*-0\r\n", BadCount),
        (b"*--1\r\n", BadCount),
        (b"*1\n$1\r\n", BadCount),
        (b"*99999999999999999999\r\n", BadCount),
        (b"*9223372036854775808\r\n", BadCount),
        (b"*-9223372036854775809\r\n", BadCount),
        (b"*-0", BadCount),
        (b"*00", BadCount),
        (b"*9223372036854775808", BadCount),
        (b"*-9223372036854775809", BadCount),
        (b"*1\rx", BadTerminator),
        (b"*10\r\n", TooManyArguments),
        (b"*9223372036854775807\r\n", TooManyArguments),
        (b"*1\r\n:1\r\n", NotABulk(b':')),
        (b"*1\r\n*1\r\n", NotABulk(b'*')),
        (b"*2\r\n$1\r\na\r\nGET\r\n", NotABulk(b'G')),
        (b"*1\r\n\r\n", NotABulk(b'\r')),
        (b"*1\r\n$\r\n", BadLength),
        (b"*1\r\n$-1\r\n", BadLength),
        (b"*1\r\n$1x\r\n", BadLength),
        (b"*1\r\n$01\r\n", BadLength),
        (b"*1\r\n$1\rx", BadTerminator),
        (b"*1\r\n$51\r\n", BulkTooLong),
        (b"*1\r\n$9223372036854775807\r\n", BulkTooLong),
        (b"*1\r\n$2\r\nabc\r\n", BadTerminator),
        (b"*1\r\n$2\r\nab\n\n", BadTerminator),
        (b"*1\r\n$2\r\nab\rx", BadTerminator),
        (b"*1\r\n$2\r\na\r\n*1\r\n", BadTerminator),
        (b"*1\r\n$4\r\nPoSt\r\n", Http),
        (b"*2\r\n$5\r\nhost:\r\n$", Http),
        (b"POST / HTTP/1.1\r\n", Http),
        (b"Host: a\r\n", Http),
        (b"\"post\"\r\n", Http),
        (b"GET a\0b", NulInLine),
        (b"\0\n", NulInLine),
        (b"GET 'a\r\n", UnbalancedQuotes),
        (b"01234567890123456789012345678901234567890", InlineTooLong),
        (
            b"01234567890123456789012345678901234567890\n",
            InlineTooLong,
        ),
    ];
    for (row, violation) in rows {
        assert_eq!(found(row), [Found::Violation(*violation)], "{}", text(row));
        // What came before is not touched by it.
        let sent = [b"*1\r\n$1\r\nx\r\n", *row].concat();
        let expected = [Found::Whole(11), Found::Violation(*violation)];
        assert_eq!(found(&sent), expected, "{}", text(row));
    }
}

#[test]
fn violations_are_told_in_the_words_of_redis() {
    let rows = [
        (
            RequestViolation::BadCount,
            "ERR Protocol error: invalid multibulk length",
        ),
        (
            RequestViolation::BadLength,
            "ERR Protocol error: invalid bulk length",
        ),
        (
            RequestViolation::NotABulk(b'G'),
            "ERR Protocol error: expected '$', got 'G'",
        ),
        (
            RequestViolation::NotABulk(b'\n'),
            "ERR Protocol error: expected '$', got '\\n'",
        ),
        (
            RequestViolation::InlineTooLong,
            "ERR Protocol error: too big inline request",
        ),
        (
            RequestViolation::UnbalancedQuotes,
            "ERR Protocol error: unbalanced quotes in request",
        ),
    ];
    for (violation, message) in rows {
        assert_eq!(violation.message(), message);
    }
    for byte in 0..=255 {
        let message = RequestViolation::NotABulk(byte).message();
        assert!(
            message.bytes().all(|byte| (b' '..0x7f).contains(&byte)),
            "{message}"
        );
    }
}

#[test]
fn a_large_command_goes_on_before_its_end() {
    let mut framer = RequestFramer::new(Limits::default());
    let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n";
    assert_eq!(framer.scan(head), Ok(Scan::More));
    assert_eq!(framer.scanned(), head.len());
    framer.consumed(head.len() - 1);
    assert_eq!(framer.scanned(), 1);
    assert_eq!(framer.scan(b"\nab"), Ok(Scan::More));
    framer.consumed(3);
    // 512 MiB, a part of them again and again.
    let part = vec![b'x'; 1 << 20];
    for _ in 0..511 {
        assert_eq!(framer.scan(&part), Ok(Scan::More));
        assert_eq!(framer.scanned(), part.len());
        framer.consumed(part.len());
    }
    let mut last = vec![b'x'; (1 << 20) - 2];
    last.push(b'\r');
    assert_eq!(framer.scan(&last), Ok(Scan::More));
    assert_eq!(
        framer.scanned(),
        last.len() - 1,
        "its end is not known to be sound"
    );
    framer.consumed(last.len() - 1);
    assert_eq!(framer.scan(b"\r\n*1\r\n"), Ok(Scan::Whole { bytes: 2 }));
    assert_eq!(
        framer.scan(b"*1\r\n$1\r\nx\r\n"),
        Ok(Scan::Whole { bytes: 11 })
    );
}

#[test]
fn nothing_goes_on_before_the_name_is_known() {
    for (sent, scanned) in [
        (&b"*1\r\n"[..], 0),
        (b"*2\r\n$4\r\nPOS", 0),
        (b"*2\r\n$4\r\nPOSS", 0),
        (b"*2\r\n$4\r\nPOSS\r\n", 14),
        (b"*2\r\n$4\r\nPOSS\r\n$1", 14),
        (b"*2\r\n$3\r\nGE", 10),
        (b"SET a b", 0),
    ] {
        let mut framer = RequestFramer::new(LIMITS);
        assert_eq!(framer.scan(sent), Ok(Scan::More), "{}", text(sent));
        assert_eq!(framer.scanned(), scanned, "{}", text(sent));
    }
}

#[test]
fn arguments_are_seen_as_far_as_they_are_there() {
    let sent = multibulk(&[b"SET", b"k", b"", b"$1\r\nx\r\n"]);
    let arguments = Arguments::new(&sent).unwrap();
    assert_eq!((arguments.count(), arguments.name()), (4, &b"SET"[..]));
    assert_eq!(arguments.get(1), Some(&b"k"[..]));
    assert_eq!(arguments.get(2), Some(&b""[..]));
    assert_eq!(arguments.get(3), Some(&b"$1\r\nx\r\n"[..]));
    assert_eq!(arguments.get(4), None);
    assert!(arguments.is_whole());
    assert_eq!((&arguments).into_iter().count(), 4);

    let cut = Arguments::new(&sent[..sent.len() - 1]).unwrap();
    assert_eq!((cut.count(), cut.iter().count()), (4, 3));
    assert!(!cut.is_whole());
    let nameless = Arguments::new(&sent[..8]).unwrap();
    assert_eq!((nameless.count(), nameless.name()), (4, &b""[..]));
    for none in [&b""[..], b"*", b"*1", b"GET k\r\n", b"*-1\r\n", b"*x\r\n"] {
        assert!(Arguments::new(none).is_none(), "{}", text(none));
    }
}
