//! Replies, row by row, and what a service may send before them.

use super::drive::{End, Piece, Run, drive};
use super::rows::{dubbo, refusals, wholes};
use super::*;

const HEARTBEAT: &[u8] = b"\xda\xbb\xe2\x00\0\0\0\0\0\0\0\x09\0\0\0\x01N";
const REPLY: &[u8] = b"\xda\xbb\x02\x14\0\0\0\0\0\0\0\x01\0\0\0\x06\x91\x04pong";
const HEARTBEAT_REPLY: &[u8] = b"\xda\xbb\x22\x14\0\0\0\0\0\0\0\x03\0\0\0\x01N";

/// Shows all of `sent` to a framer of Dubbo's replies, and then the end of the stream.
fn run(request: RequestFacts, sent: &[&[u8]]) -> (Run<FrameViolation>, Eof, u32) {
    let layout = dubbo();
    let mut framer = ReplyFramer::new(&layout, request);
    let run = drive(&mut framer, &sent.concat(), []);
    assert_eq!(framer.allows_reuse(), run.end == End::Boundary);
    (run, framer.eof(), framer.heartbeats_skipped())
}

fn passed(bytes: &[u8]) -> Piece {
    Piece::Verbatim(bytes.to_vec())
}

#[test]
fn a_reply_goes_on_up_to_its_boundary() {
    for row in wholes() {
        let sent = [row.frame, b"N\n\x01\x00"].concat();
        // A heartbeat is a reply only to a heartbeat.
        let request = if row.facts.heartbeat { PING } else { CALL };
        let mut framer = ReplyFramer::new(&row.layout, request);
        assert_eq!(framer.eof(), Eof::Nothing, "{}", row.name);
        assert!(!framer.allows_reuse(), "{}", row.name);
        let run = drive(&mut framer, &sent, []);
        assert_eq!(run.pieces, [passed(row.frame)], "{}", row.name);
        assert_eq!(run.end, End::Boundary, "{}", row.name);
        assert_eq!(framer.eof(), Eof::Complete, "{}", row.name);
        assert!(framer.allows_reuse(), "{}", row.name);
        assert!(!framer.says_idle_for_too_long(), "{}", row.name);
        assert_eq!(framer.heartbeats_skipped(), 0, "{}", row.name);
    }
}

#[test]
fn a_reply_that_the_service_cuts_short_is_never_complete() {
    for row in wholes() {
        for cut in 0..row.frame.len() {
            let request = if row.facts.heartbeat { PING } else { CALL };
            let mut framer = ReplyFramer::new(&row.layout, request);
            drive(&mut framer, &row.frame[..cut], []);
            let expected = if cut == 0 {
                Eof::Nothing
            } else {
                Eof::Truncated
            };
            assert_eq!(framer.eof(), expected, "{} cut at {cut}", row.name);
            assert!(!framer.allows_reuse(), "{} cut at {cut}", row.name);
        }
    }
}

#[test]
fn a_broken_reply_is_refused_at_its_byte() {
    for row in refusals() {
        let run = drive(&mut ReplyFramer::new(&row.layout, CALL), row.sent, []);
        assert_eq!(run.end, End::Violation(row.violation), "{}", row.name);
        assert_eq!(run.taken, row.taken, "{}", row.name);
    }
}

#[test]
fn heartbeats_before_the_reply_are_dropped() {
    let (run, eof, skipped) = run(CALL, &[HEARTBEAT, HEARTBEAT, REPLY, HEARTBEAT]);
    let dropped = || [Piece::Dropped(HEARTBEAT.len()), Piece::OneMoreResponse];
    let [first, second] = [dropped(), dropped()];
    let pieces = first.into_iter().chain(second).chain([passed(REPLY)]);
    assert_eq!(run.pieces, pieces.collect::<Vec<_>>());
    assert_eq!((run.end, eof, skipped), (End::Boundary, Eof::Complete, 2));
}

#[test]
fn a_heartbeat_answers_a_heartbeat() {
    let (run, eof, skipped) = run(PING, &[HEARTBEAT_REPLY]);
    assert_eq!(run.pieces, [passed(HEARTBEAT_REPLY)]);
    assert_eq!((run.end, eof, skipped), (End::Boundary, Eof::Complete, 0));
}

#[test]
fn anything_answers_a_heartbeat() {
    let (run, _, _) = run(PING, &[REPLY]);
    assert_eq!(run.pieces, [passed(REPLY)]);
    assert_eq!(run.end, End::Boundary);
}

#[test]
fn a_whole_heartbeat_is_no_part_of_the_reply() {
    let (run_, eof, skipped) = run(CALL, &[HEARTBEAT]);
    assert_eq!((run_.end, eof, skipped), (End::Starved, Eof::Nothing, 1));
    // The first byte behind it may be the reply's.
    let (_, eof, skipped) = run(CALL, &[HEARTBEAT, &REPLY[..1]]);
    assert_eq!((eof, skipped), (Eof::Truncated, 1));
    let (_, eof, skipped) = run(CALL, &[HEARTBEAT, &HEARTBEAT[..16]]);
    assert_eq!((eof, skipped), (Eof::Truncated, 2));
}

#[test]
fn heartbeats_have_a_limit() {
    let (run_, _, skipped) = run(CALL, &[&HEARTBEAT.repeat(100), REPLY]);
    assert_eq!((run_.end, skipped), (End::Boundary, 100));
    let (run_, _, skipped) = run(CALL, &[&HEARTBEAT.repeat(101), REPLY]);
    let too_many = End::Violation(FrameViolation::TooManyHeartbeats);
    assert_eq!((run_.end, skipped), (too_many, 100));
    assert_eq!(run_.taken, 100 * HEARTBEAT.len());
}

#[test]
fn heartbeats_have_the_limits_of_a_frame() {
    let layout = Layout {
        frame_max: 64,
        ..dubbo()
    };
    let long = b"\xda\xbb\xe2\x00\0\0\0\0\0\0\0\x09\0\0\0\x31N";
    let mut framer = ReplyFramer::new(&layout, CALL);
    let run = drive(&mut framer, &[HEARTBEAT, long].concat(), []);
    assert_eq!(run.end, End::Violation(FrameViolation::TooLong));
    assert_eq!(run.taken, HEARTBEAT.len());
}

#[test]
fn a_heartbeat_line_is_dropped_and_the_reply_is_not() {
    let layout = Layout {
        heartbeat: mark(0, 0xff, b'\n'),
        ..layout(until(b"\n"))
    };
    let mut framer = ReplyFramer::new(&layout, CALL);
    let run = drive(&mut framer, b"\n\nok\n\n", []);
    assert_eq!(text(&run.passed()), "ok\\n");
    assert_eq!((run.taken, run.end), (5, End::Boundary));
    assert_eq!(framer.heartbeats_skipped(), 2);
}

#[test]
fn a_reply_is_streamed_as_it_comes() {
    // The mark of heartbeats is the third byte; from there on each byte goes on when it is there.
    let mut framer_layout = dubbo();
    framer_layout.frame_max = usize::MAX;
    let layout = &framer_layout;
    let mut framer = ReplyFramer::new(layout, CALL);
    let head = &REPLY[..16];
    for shown in 0..16 {
        let frame = framer.frame(&head[..shown], &mut Vec::new());
        assert_eq!(frame, Ok(crate::protocol::Frame::WAIT));
    }
    let frame = framer.frame(head, &mut Vec::new());
    assert_eq!(frame.map(|frame| frame.taken), Ok(16));
    for byte in REPLY[16..].chunks(1) {
        let frame = framer.frame(byte, &mut Vec::new());
        assert_eq!(frame.map(|frame| frame.taken), Ok(1));
    }
    assert_eq!(framer.eof(), Eof::Complete);
}

#[test]
fn a_cut_delimiter_is_not_held_back() {
    let layout = layout(until(b"\r\n"));
    let mut framer = ReplyFramer::new(&layout, CALL);
    let frame = framer.frame(b"ok\r", &mut Vec::new());
    assert_eq!(frame.map(|frame| frame.taken), Ok(3));
    assert_eq!(framer.eof(), Eof::Truncated);
    let run = drive(&mut framer, b"\n\r\n", []);
    assert_eq!((run.taken, run.end), (1, End::Boundary));
}
