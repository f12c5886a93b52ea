//! Where requests end, and which are refused before their data.

use super::any::{Asked, ask};
use super::*;

fn whole(request: &[u8]) -> Asked {
    Asked::Whole(request.to_vec())
}

fn faulty(violation: RequestViolation) -> Asked {
    Asked::Faulty(violation, true)
}

/// In one piece, and in pieces of one byte.
#[track_caller]
fn expect(sent: &[u8], expected: &[Asked]) {
    let every: Vec<usize> = (0..sent.len()).collect();
    for cuts in [&[][..], &every] {
        assert_eq!(ask(LIMITS, sent, cuts, false), expected, "{}", text(sent));
    }
}

#[test]
fn requests_end_with_their_line_or_their_data() {
    let requests: &[&[u8]] = &[
        b"get a b\r\n",
        b"set a 0 0 5\r\nhello\r\n",
        b"set a 0 0 0 noreply\r\n\r\n",
        b"set a 4294967295 -1 4\n\r\n\r\n\r\n",
        b"  append a 1 2147483647 4\r\nget \r\n",
        b"cas a 0 -2147483648 2 18446744073709551615\r\nhi\r\n",
        b"ms a 2 T0 q\r\nhi\r\n",
        b"ms a 0\r\n\r\n",
        b"\r\n",
        b"\n",
        b"setter a 0 0 5\r\n",
        b"mg a v\r\n",
        // Without a number that says how much data there is, none is looked for.
        b"set a 0 0 x\r\n",
        b"set a 0 0\r\n",
        b"ms a\r\n",
    ];
    for request in requests {
        expect(request, &[whole(request)]);
        expect(&request[..request.len() - 1], &[]);
    }
    let all: Vec<Asked> = requests.iter().map(|request| whole(request)).collect();
    expect(&requests.concat(), &all);
}

#[test]
fn the_data_of_a_refused_request_is_never_a_request() {
    let get = whole(b"get a\r\n");
    let long = format!("set {} 0 0 13\r\n", "k".repeat(251));
    let many = format!("ms a 13{}\r\n", " v".repeat(17));
    let rows: &[(&[u8], RequestViolation, bool)] = &[
        (long.as_bytes(), RequestViolation::BadFormat, true),
        (b"set a x 0 13\r\n", RequestViolation::BadFormat, true),
        (
            b"set a 4294967296 0 13\r\n",
            RequestViolation::BadFormat,
            true,
        ),
        (
            b"set a 0 2147483648 13\r\n",
            RequestViolation::BadFormat,
            true,
        ),
        (b"set a 0 - 13\r\n", RequestViolation::BadFormat, true),
        (b"set a 0 0 13 reply\r\n", RequestViolation::BadFormat, true),
        (b"set a\0 0 0 13\r\n", RequestViolation::BadFormat, true),
        (
            b"add a x 0 13 noreply\r\n",
            RequestViolation::BadFormat,
            false,
        ),
        (b"cas a 0 0 13 x\r\n", RequestViolation::BadFormat, true),
        (b"ms a 13 q q\r\n", RequestViolation::DuplicateFlag, true),
        (many.as_bytes(), RequestViolation::TooManyFlags, true),
    ];
    for (line, violation, shown) in rows {
        let sent = [line, &b"flush_all\r\nxx\r\nget a\r\n"[..]].concat();
        expect(&sent, &[Asked::Faulty(*violation, *shown), get.clone()]);
    }
}

#[test]
fn data_over_the_limit_is_refused_before_it_is_here() {
    let expected = [faulty(RequestViolation::TooLarge)];
    expect(b"set a 0 0 1001\r\n", &expected);
    expect(b"set a 0 0 18446744073709551615\r\nabc", &expected);
    let silent = [Asked::Faulty(RequestViolation::TooLarge, false)];
    expect(b"set a 0 0 1001 noreply\r\n", &silent);
    // The meta protocol shows its errors whatever it was asked.
    expect(b"ms a 1001 q\r\n", &expected);
    let sent = [b"set a 0 0 1001\r\n", &[b'x'; 1003][..], b"get a\r\n"].concat();
    expect(&sent, &[expected[0].clone(), whole(b"get a\r\n")]);
    let sent = [b"set a 0 0 1000\r\n", &[b'x'; 1000][..], b"\r\n"].concat();
    expect(&sent, &[whole(&sent)]);
    // Nobody's 31 bits hold it.
    let limits = Limits {
        item_bytes_max: u64::MAX,
        ..LIMITS
    };
    let asked = ask(limits, b"set a 0 0 2147483646\r\n", &[], false);
    assert_eq!(asked, expected);
    let asked = ask(limits, b"set a 0 0 2147483645\r\n", &[], false);
    assert_eq!(asked, []);
}

#[test]
fn data_that_ends_wrongly_is_as_long_as_its_line_says() {
    let bad = RequestViolation::BadDataChunk;
    expect(
        b"set a 0 0 3\r\nabcdeget a\r\n",
        &[faulty(bad), whole(b"get a\r\n")],
    );
    expect(b"set a 0 0 3\r\nabc\r\r", &[faulty(bad)]);
    let silent = [Asked::Faulty(bad, false)];
    expect(b"set a 0 0 3 noreply\r\nabcde", &silent);
    expect(b"ms a 3 q\r\nabcde", &[faulty(bad)]);
}

#[test]
fn a_line_has_a_limit() {
    let line = |verb: &str, length: usize| {
        let mut line = format!("{verb} ").into_bytes();
        line.resize(length - 2, b'k');
        line.extend_from_slice(b"\r\n");
        line
    };
    let too_long = [Asked::Ended(RequestViolation::LineTooLong)];
    for (verb, max) in [
        ("touch", 2048),
        ("gat", 2048),
        ("get", 4096),
        ("gets", 4096),
    ] {
        let sent = line(verb, max);
        expect(&sent, &[whole(&sent)]);
        expect(&line(verb, max + 1), &too_long);
        // It is known before its end is here.
        expect(&line(verb, max + 9)[..max + 1], &too_long);
        expect(&sent[..max - 1], &[]);
    }
    assert!(RequestViolation::LineTooLong.ends_session());
}

#[test]
fn the_binary_protocol_is_known_by_the_first_byte_of_a_session() {
    let header = b"\x80\x0b\0\0\0\0\0\0\0\0\0\0\x01\x02\x03\x04\0\0\0\0\0\0\0\0";
    let violation = RequestViolation::Binary {
        opcode: 0x0b,
        opaque: [1, 2, 3, 4],
    };
    expect(header, &[Asked::Ended(violation)]);
    expect(&header[..15], &[]);
    let later = [b"mn\r\n", &header[..], b"\r\n"].concat();
    expect(&later, &[whole(b"mn\r\n"), whole(&later[4..])]);
}

#[test]
fn a_large_request_goes_on_before_its_end_is_here() {
    let mut framer = RequestFramer::new(LIMITS);
    let line = b"set a 0 0 10\r\n";
    assert_eq!(framer.scan(&line[..12]), Ok(Scan::More));
    assert_eq!(framer.scanned(), 0, "a line is never sent in pieces");
    assert_eq!(framer.scan(line), Ok(Scan::More));
    assert_eq!((framer.scanned(), framer.owed()), (line.len(), None));
    framer.consumed(line.len() - 4);
    assert_eq!((framer.scanned(), framer.owed()), (4, Some(16)));
    assert_eq!(framer.scan(b" 10\r\nabc"), Ok(Scan::More));
    framer.consumed(8);
    assert_eq!(framer.owed(), Some(8));
    // The end of the data is passed on with the last of it.
    assert_eq!(framer.scan(b"defghij"), Ok(Scan::More));
    assert_eq!(framer.scanned(), 6);
    framer.consumed(6);
    assert_eq!(framer.owed(), Some(2));
    // Too late to refuse it: the service will.
    assert_eq!(framer.scan(b"xyget"), Ok(Scan::Whole { bytes: 2 }));
    assert_eq!((framer.scanned(), framer.owed()), (0, None));
    assert_eq!(framer.scan(b"mn\r\n"), Ok(Scan::Whole { bytes: 4 }));
}
