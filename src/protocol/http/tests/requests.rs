//! Requests, row by row.

use super::drive::{End, Piece, Run, drive};
use super::request_rows::{ACCEPTED, REFUSED, REFUSED_CHUNKS};
use super::*;

const CHUNKED_HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

fn run(sent: &[u8], options: &Options) -> Run<RequestViolation> {
    drive(&mut RequestFramer::new(options), sent, [])
}

fn head_of(lines: &[&str], options: &Options) -> String {
    let head = format!("{}\r\n\r\n", lines.join("\r\n"));
    let run = run(head.as_bytes(), options);
    assert_eq!(run.end, End::Boundary, "{head}");
    String::from_utf8(run.passed()).unwrap()
}

#[test]
fn a_sound_request_goes_on_up_to_its_boundary() {
    for row in ACCEPTED {
        let options = options();
        let mut framer = RequestFramer::new(&options);
        assert_eq!(framer.facts(), None);
        let run = drive(&mut framer, row.sent, []);
        assert_eq!(text(&run.passed()), text(row.passed), "{}", row.name);
        assert_eq!(text(&row.sent[run.taken..]), text(row.left), "{}", row.name);
        assert_eq!(framer.facts(), Some(row.facts), "{}", row.name);
        let ends = row.name != "length at the limit";
        assert_eq!(run.end == End::Boundary, ends, "{}", row.name);
        assert_eq!(framer.is_complete(), ends, "{}", row.name);
    }
}

#[test]
fn what_went_on_goes_on_unchanged_the_second_time() {
    for row in ACCEPTED {
        let again = run(row.passed, &options());
        assert_eq!(text(&again.passed()), text(row.passed), "{}", row.name);
        assert_eq!(again.taken, row.passed.len(), "{}", row.name);
    }
}

#[test]
fn a_broken_request_is_refused_by_its_class() {
    for (name, sent, violation) in REFUSED {
        let run = run(sent, &options());
        assert_eq!(run.end, End::Violation(*violation), "{name}");
        assert!(run.passed().is_empty(), "{name}");
    }
}

#[test]
fn a_broken_chunk_is_refused_by_its_class() {
    for (name, chunks, violation) in REFUSED_CHUNKS {
        let sent = [CHUNKED_HEAD, chunks].concat();
        let run = run(&sent, &options());
        assert_eq!(run.end, End::Violation(*violation), "{name}");
        // What went on is a beginning of what was sent: nothing after the fault, nothing made up.
        assert_eq!(text(&run.passed()), text(&sent[..run.taken]), "{name}");
    }
}

#[test]
fn an_extension_has_a_limit() {
    let chunk = |len: usize| {
        [
            CHUNKED_HEAD,
            b"1;",
            "x".repeat(len).as_bytes(),
            b"\r\n.\r\n0\r\n\r\n",
        ]
        .concat()
    };
    assert_eq!(run(&chunk(255), &options()).end, End::Boundary);
    assert_eq!(
        run(&chunk(256), &options()).end,
        End::Violation(RequestViolation::BadChunk)
    );
}

#[test]
fn many_chunks_go_on_in_one_piece() {
    let sent = [CHUNKED_HEAD, &b"3\r\nabc\r\n".repeat(100), b"0\r\n\r\nGET"].concat();
    let options = options();
    let mut framer = RequestFramer::new(&options);
    let head = framer.frame(&sent, &mut Vec::new()).unwrap();
    let body = framer.frame(&sent[head.taken..], &mut Vec::new()).unwrap();
    assert_eq!((body.pass, body.then), (Pass::Verbatim, Then::Boundary));
    assert_eq!(head.taken + body.taken, sent.len() - 3);
}

#[test]
fn a_head_has_a_limit() {
    let head_max = options().head_max;
    let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    let head = |len: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(len - frame)
        )
    };
    let exact = head(head_max);
    assert_eq!(run(exact.as_bytes(), &options()).end, End::Boundary);
    let too_large = End::Violation(RequestViolation::HeadTooLarge);
    let over = head(head_max + 1);
    assert_eq!(run(over.as_bytes(), &options()).end, too_large);
    // Known before the head is complete, and before the limit is passed no verdict.
    assert_eq!(run(&over.as_bytes()[..head_max], &options()).end, too_large);
    assert_eq!(
        run(&over.as_bytes()[..head_max - 1], &options()).end,
        End::Starved
    );
}

#[test]
fn fields_have_a_limit() {
    let head = |fields: usize| {
        let fields = "X: y\r\n".repeat(fields - 1);
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    assert_eq!(run(head(100).as_bytes(), &options()).end, End::Boundary);
    let too_large = End::Violation(RequestViolation::HeadTooLarge);
    assert_eq!(run(head(101).as_bytes(), &options()).end, too_large);
}

#[test]
fn a_trailer_section_has_the_limits_of_a_head() {
    let too_large = End::Violation(RequestViolation::HeadTooLarge);
    let long = format!("0\r\nX: {}\r\n\r\n", "x".repeat(options().head_max));
    assert_eq!(
        run(&[CHUNKED_HEAD, long.as_bytes()].concat(), &options()).end,
        too_large
    );
    let many = format!("0\r\n{}\r\n", "X: y\r\n".repeat(101));
    assert_eq!(
        run(&[CHUNKED_HEAD, many.as_bytes()].concat(), &options()).end,
        too_large
    );
}

#[test]
fn content_without_a_limit_may_be_large() {
    let options = Options {
        body_max: None,
        ..options()
    };
    let sent = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\nx";
    assert_eq!(run(sent, &options).end, End::Starved);
    let sent = [CHUNKED_HEAD, b"7fffffffffffffff\r\nx"].concat();
    let run = run(&sent, &options);
    assert_eq!((run.end, run.taken), (End::Starved, sent.len()));
}

#[test]
fn the_service_is_told_about_the_client() {
    let plain = head_of(&["GET / HTTP/1.1", "Host: a"], &forwarding());
    let told = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n\r\n";
    assert_eq!(plain, format!("GET / HTTP/1.1\r\nHost: a\r\n{told}"));

    let appended = head_of(
        &[
            "GET / HTTP/1.1",
            "X-Forwarded-For: 10.0.0.1, 10.0.0.2",
            "Host: a",
            "x-forwarded-for:",
            "X-Forwarded-Proto: https",
            "x-forwarded-for: 10.0.0.3",
            "Connection: x-forwarded-for",
        ],
        &forwarding(),
    );
    let told = "X-Forwarded-For: 10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.1\r\n\r\n";
    assert_eq!(
        appended,
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n{told}")
    );
}

#[test]
fn a_client_is_named_as_peers_name_it() {
    let name = |address: &str| Forwarded::from_address(address.parse().unwrap()).client;
    assert_eq!(&*name("2001:db8::1"), "2001:db8::1");
    assert_eq!(&*name("::ffff:192.0.2.1"), "192.0.2.1");
    assert_eq!(&*Forwarded::from_unix().client, "unix:");
}

#[test]
fn a_refusal_has_a_status() {
    let status = |name| {
        let (_, _, violation) = REFUSED.iter().find(|row| row.0 == name).unwrap();
        violation.status()
    };
    assert_eq!(status("HTTP/2"), 505);
    assert_eq!(status("CONNECT"), 501);
    assert_eq!(status("gzip before chunked"), 501);
    assert_eq!(status("xchunked"), 400);
    assert_eq!(status("over body_max"), 413);
    assert_eq!(status("another expectation"), 417);
    assert_eq!(status("two Hosts"), 400);
    assert_eq!(RequestViolation::HeadTooLarge.status(), 431);
}

#[test]
fn an_empty_line_in_front_is_dropped_at_once() {
    let options = options();
    let mut framer = RequestFramer::new(&options);
    let run = drive(&mut framer, b"\r\n", []);
    assert_eq!(run.pieces, [Piece::Dropped(2)]);
    assert_eq!(run.end, End::Starved);
}
