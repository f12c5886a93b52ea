//! Replies, row by row.

use super::any;
use super::*;
use crate::protocol::replies::ReplyFrame;

const PUSH: &[u8] = b">2\r\n+message\r\n+hello\r\n";

#[test]
fn replies_end_where_their_values_do() {
    let rows: &[&[u8]] = &[
        b"+OK\r\n",
        b"+\r\n",
        b"+a\rb\nc\r\n",
        b"-ERR no\r\n",
        b":1\r\n",
        b":-9223372036854775808\r\n",
        b":9223372036854775807\r\n",
        b"$3\r\nabc\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"$4\r\n\r\n\r\n\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*2\r\n$1\r\na\r\n:1\r\n",
        b"*2\r\n*2\r\n:1\r\n*0\r\n*1\r\n*1\r\n+x\r\n",
        b"_\r\n",
        b",1.23\r\n",
        b",inf\r\n",
        b"#t\r\n",
        b"#f\r\n",
        b"(3492890328409238509324850943850943825024385\r\n",
        b"!8\r\nERR x\r\ny\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n:1\r\n:2\r\n",
        b"%0\r\n",
        b"~2\r\n+a\r\n+b\r\n",
        b"|1\r\n+ttl\r\n:3600\r\n*1\r\n|1\r\n+a\r\n+b\r\n:1\r\n",
        b"|0\r\n+OK\r\n",
    ];
    for row in rows {
        let sent = [*row, row].concat();
        for cut in 0..=sent.len() {
            let (ends, is_broken) = any::check_replies(&sent, &[cut]);
            let expected = (vec![row.len(), sent.len()], false);
            assert_eq!((ends, is_broken), expected, "{}", text(row));
            let (ends, _) = any::check_replies(&sent[..cut], &[]);
            assert_eq!(ends.len(), cut / row.len(), "{} cut at {cut}", text(row));
        }
    }
}

#[test]
fn broken_replies_are_violations() {
    let long = format!(",{}\r\n", "1".repeat(63));
    for row in [
        &b"\r\n"[..],
        b"OK\r\n",
        b"$?\r\n",
        b"*?\r\n",
        b";4\r\n",
        b".\r\n",
        b"$-2\r\n",
        b"$03\r\n",
        b"$3x\r\n",
        b"$3\r\nabcd\r\n",
        b"$3\r\nabc\n\n",
        b"!-1\r\n",
        b"%-1\r\n",
        b"*-2\r\n",
        b"*x\r\n",
        b"*1\r\n\r\n",
        b":\r\n",
        b":1.5\r\n",
        b":9223372036854775808\r\n",
        b":123456789012345678901234567890",
        b"#x\r\n",
        b"_x\r\n",
        b",\r\n",
        b"*2\r\n*4294967296\r\n",
        b"%9223372036854775807\r\n",
        long.as_bytes(),
    ] {
        let (ends, is_broken) = any::check_replies(row, &[1]);
        assert!(ends.is_empty() && is_broken, "{}", text(row));
    }
}

#[test]
fn a_reply_is_shown_or_hidden_as_its_request_says() {
    let mut framer = ReplyFramer::new();
    for (shape, shown) in [(Shape::Hidden, false), (Shape::Shown, true)] {
        let expected = ReplyFrame {
            taken: 5,
            shown,
            then: ReplyThen::End,
        };
        assert_eq!(framer.frame(shape, b"+OK\r\n:1\r\n"), Ok(expected));
    }
}

#[test]
fn a_push_answers_no_request() {
    let mut framer = ReplyFramer::new();
    assert_eq!(
        framer.frame(Shape::Shown, PUSH),
        Err(ReplyViolation("a push that nobody subscribed to"))
    );
    let mut framer = ReplyFramer::new();
    let sent = [b"*1\r\n", PUSH].concat();
    assert_eq!(framer.frame(Shape::Shown, &sent).unwrap().taken, 4);
    let within = Err(ReplyViolation("a push within a reply"));
    assert_eq!(framer.frame(Shape::Shown, PUSH), within);
    assert_eq!(
        framer.frame_any(PUSH).map(|_| ()),
        within.map(|_: ReplyFrame| ())
    );
}

#[test]
fn on_a_connection_of_ones_own_every_value_goes_on() {
    let sent = [PUSH, b"+OK\r\n"].concat();
    let mut framer = ReplyFramer::new();
    let frame = framer.frame_any(&sent).unwrap();
    assert!(frame.is_push());
    assert_eq!((frame.taken, frame.then), (PUSH.len(), ReplyThen::End));
    let frame = framer.frame_any(&sent[frame.taken..]).unwrap();
    assert_eq!((frame.is_push(), frame.first_byte), (false, Some(b'+')));

    // What it is, is known from its beginning.
    let frame = framer.frame_any(&PUSH[..5]).unwrap();
    assert!(frame.is_push() && frame.then == ReplyThen::More);
    assert!(!framer.is_between_replies());
    assert!(framer.frame_any(&PUSH[frame.taken..]).unwrap().is_push());
    assert!(framer.is_between_replies());
    assert_eq!(framer.frame_any(b"").unwrap().first_byte, None);
}

#[test]
fn depth_costs_nothing() {
    let depth = 200_000;
    let sent = [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
    let mut framer = ReplyFramer::new();
    let frame = framer.frame(Shape::Shown, &sent).unwrap();
    assert_eq!((frame.taken, frame.then), (sent.len(), ReplyThen::End));
    assert!(size_of::<ReplyFramer>() <= 40, "there is nothing to grow");
}

#[test]
fn bodies_of_any_length_stream() {
    let mut framer = ReplyFramer::new();
    let head = framer
        .frame(Shape::Shown, b"$9223372036854775807\r\nabc")
        .unwrap();
    assert_eq!((head.taken, head.then), (25, ReplyThen::More));
    let part = vec![0; 1 << 16];
    for _ in 0..1000 {
        let frame = framer.frame(Shape::Shown, &part).unwrap();
        assert_eq!((frame.taken, frame.then), (part.len(), ReplyThen::More));
    }
    let mut framer = ReplyFramer::new();
    let frame = framer.frame(Shape::Shown, &[b'-'; 100]).unwrap();
    assert_eq!((frame.taken, frame.then), (100, ReplyThen::More));
    let frame = framer.frame(Shape::Shown, b"x\r").unwrap();
    assert_eq!((frame.taken, frame.then), (1, ReplyThen::More));
    let frame = framer.frame(Shape::Shown, b"\r\n+").unwrap();
    assert_eq!((frame.taken, frame.then), (2, ReplyThen::End));
}
