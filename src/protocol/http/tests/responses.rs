//! Responses, row by row.

use super::drive::{End, Piece, Run, drive};
use super::response_rows::{ACCEPTED, REFUSED};
use super::*;
use crate::protocol::{Eof, Reply};

fn run(request: RequestFacts, sent: &[u8]) -> Run<ResponseViolation> {
    drive(&mut ResponseFramer::new(request, &options()), sent, [])
}

#[test]
fn a_sound_response_goes_on_up_to_its_boundary() {
    for row in ACCEPTED {
        let mut framer = ResponseFramer::new(row.request, &options());
        let run = drive(&mut framer, row.sent, []);
        assert_eq!(text(&run.passed()), text(row.passed), "{}", row.name);
        assert_eq!(text(&row.sent[run.taken..]), text(row.left), "{}", row.name);
        assert_eq!(framer.facts(), row.facts, "{}", row.name);
        let until_close = row.facts.is_some_and(|facts| facts.until_close);
        let end = match row.eof {
            Eof::Complete if row.name == "101" => End::Pinned(PinReason::Upgrade),
            Eof::Complete if !until_close => End::Boundary,
            _ => End::Starved,
        };
        assert_eq!(run.end, end, "{}", row.name);
        assert_eq!(framer.eof(), row.eof, "{}", row.name);
        let close = row
            .passed
            .windows(17)
            .any(|part| part == b"Connection: close");
        assert_eq!(framer.client_closes(), close, "{}", row.name);
    }
}

#[test]
fn what_went_on_has_the_same_end_the_second_time() {
    for row in ACCEPTED {
        let again = run(row.request, row.passed);
        assert_eq!(text(&again.passed()), text(row.passed), "{}", row.name);
        assert_eq!(again.taken, row.passed.len(), "{}", row.name);
    }
}

#[test]
fn a_broken_response_is_refused_by_its_class() {
    for (name, sent, violation, taken) in REFUSED {
        let run = run(GET, sent);
        assert_eq!(run.end, End::Violation(*violation), "{name}");
        assert_eq!(run.taken, *taken, "{name}");
    }
}

#[test]
fn a_session_may_close_late() {
    let sent = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for request in [
        GET,
        RequestFacts {
            version_minor: 0,
            ..GET
        },
    ] {
        let mut framer = ResponseFramer::new(request, &options());
        assert_eq!(
            framer.frame(&sent[..20], &mut Vec::new()),
            Ok(crate::protocol::Frame::WAIT)
        );
        framer.set_client_close(true);
        let run = drive(&mut framer, sent, []);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        assert_eq!(text(&run.passed()), text(head.as_bytes()));
        assert!(framer.client_closes());
    }
}

#[test]
fn an_interim_response_does_not_close() {
    let mut framer = ResponseFramer::new(GET, &options());
    framer.set_client_close(true);
    let run = drive(
        &mut framer,
        b"HTTP/1.1 103 Hints\r\nConnection: close\r\n\r\n",
        [],
    );
    let interim = Piece::Edited(b"HTTP/1.1 103 Hints\r\n\r\n".to_vec());
    assert_eq!(run.pieces, [interim, Piece::OneMoreResponse]);
    assert!(!framer.client_closes());
}

#[test]
fn interim_responses_have_a_limit() {
    let interim = b"HTTP/1.1 102 Processing\r\n\r\n";
    let last = b"HTTP/1.1 204 No Content\r\n\r\n";
    let sent = |count| [&interim.repeat(count)[..], last].concat();
    assert_eq!(run(GET, &sent(100)).end, End::Boundary);
    assert_eq!(
        run(GET, &sent(101)).end,
        End::Violation(ResponseViolation::TooManyInterim)
    );
}

#[test]
fn a_head_has_limits() {
    let too_large = End::Violation(ResponseViolation::HeadTooLarge);
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(options().head_max));
    assert_eq!(run(GET, long.as_bytes()).end, too_large);
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101));
    assert_eq!(run(GET, many.as_bytes()).end, too_large);
    let spaced = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X : y\r\n".repeat(100));
    assert_eq!(run(GET, spaced.as_bytes()).end, End::Starved);
}

#[test]
fn data_for_an_old_client_is_not_copied() {
    let old = RequestFacts {
        version_minor: 0,
        ..GET
    };
    let sent =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";
    let run = run(old, sent);
    assert_eq!(
        run.pieces[1..],
        [
            Piece::Dropped(3),
            Piece::Verbatim(b"hello".to_vec()),
            Piece::Dropped(5),
            Piece::Verbatim(b"!".to_vec()),
            Piece::Dropped(7),
        ]
    );
}
