//! What a service says over a connection that several clients share: whose it is, and where it ends.

use super::any_calls::{self, CHOICE_BYTES, Heard, Met, listen};
use super::declared::*;
use super::*;
use crate::protocol::replies::{ReplyFrame, UNDECIDED_BYTES_MAX};

/// Whose a message is, and how many of its bytes tell that.
struct Row {
    name: &'static str,
    calls: Calls,
    sent: &'static [u8],
    whose: Whose<Call>,
    told_by: usize,
}

const UNASKED: Whose<Call> = Whose::Unasked { retires: false };
const RETIRES: Whose<Call> = Whose::Unasked { retires: true };

/// A heartbeat of this id that is answered so.
fn answered(id: u64, message: &[u8]) -> Whose<Call> {
    Whose::Heartbeat(Some(Heartbeat {
        message: message.to_vec(),
        kind: Call {
            ids: [id, 0],
            oneway: true,
            heartbeat: true,
        },
        is_answered: false,
    }))
}

/// Frames of up to 255 bytes with flags: 1 asks, 2 is a heartbeat, 4 has no reply. What asks has its id
/// in front of what answers.
fn lopsided() -> Calls {
    let layout = Layout {
        oneway: mark(1, 4, 4),
        heartbeat: mark(1, 2, 2),
        ..layout(big(0, 1, 0))
    };
    let ids = Ids {
        request: vec![at(field(2, 2))],
        reply: vec![at(field(4, 2))],
    };
    Calls {
        asks: mark(1, 1, 1),
        heartbeat_reply: Some(b"\x05\x02\0\0\0\0".to_vec()),
        ..calls(layout, ids)
    }
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let row = |name, calls, sent, whose, told_by| Row { name, calls, sent, whose, told_by };
    let retiring = || Calls { unasked: Unasked::Retire, ..dubbo() };
    let silent = || Calls { heartbeat_reply: None, answers_heartbeats: false, ..dubbo() };
    vec![
        row("Dubbo reply", dubbo(), DUBBO_REPLY, Whose::Asked(0x102), 16),
        row("Dubbo reply to a heartbeat", dubbo(), DUBBO_PONG, Whose::Asked(3), 16),
        row("Dubbo heartbeat", dubbo(), DUBBO_PING, answered(3, DUBBO_PONG), 16),
        row("Dubbo heartbeat, and no words for an answer", silent(), DUBBO_PING, Whose::Heartbeat(None), 16),
        row("Dubbo event without an answer", dubbo(), DUBBO_EVENT, Whose::Heartbeat(None), 16),
        row("Dubbo call", dubbo(), DUBBO_CALL, UNASKED, 16),
        row("Dubbo one-way call", dubbo(), DUBBO_ONEWAY, UNASKED, 16),
        row("Dubbo call, which retires", retiring(), DUBBO_CALL, RETIRES, 16),
        row("Dubbo reply, which does not", retiring(), DUBBO_REPLY, Whose::Asked(0x102), 16),
        row("Dubbo heartbeat, which does not", retiring(), DUBBO_PING, answered(3, DUBBO_PONG), 16),
        row("Kafka reply", kafka(), KAFKA_REPLY, Whose::Asked(7), 8),
        row("Kafka reply as short as can be", kafka(), b"\0\0\0\x04\0\0\0\x07", Whose::Asked(7), 8),
        row("Thrift reply", thrift_framed(), THRIFT_REPLY, Whose::Asked(1), 20),
        row("Thrift exception", thrift_framed(), THRIFT_ERROR, Whose::Asked(0), 20),
        row("Thrift header reply", thrift_header(), HEADER_REPLY, Whose::Asked(9), 38),
        row("Mongo reply", mongo(), MONGO_REPLY, Whose::Asked(0x105), 12),
        row("fixed reply", fixed(), FIXED_REPLY, Whose::Asked(0x30_3037), 8),
        row("fixed call", fixed(), FIXED_CALL, UNASKED, 1),
        row("nothing in the id", kafka(), b"\0\0\0\x04\0\0\0\0", Whose::Asked(0), 8),
        row("all ones in the id", kafka(), b"\0\0\0\x04\xff\xff\xff\xff", Whose::Asked(0xffff_ffff), 8),
        row("a call with no room for an id", lopsided(), b"\x01\x01", UNASKED, 2),
        row("a heartbeat has its id where calls have it", lopsided(), b"\x03\x03\x01\x02", answered(0x102, b"\x05\x02\0\0\x01\x02"), 4),
        row("and its answer where replies have it", lopsided(), b"\x05\x02\0\0\x01\x02", Whose::Asked(0x102), 6),
        row("a reply that says that it has no reply", lopsided(), b"\x05\x04\0\0\x01\x02", Whose::Asked(0x102), 6),
    ]
}

#[test]
fn a_message_is_told_by_its_head_and_its_ids() {
    for row in rows() {
        assert_eq!(row.calls.check(), Ok(()), "{}", row.name);
        let framed = Framed::new(Arc::new(row.calls));
        for shown in 0..=row.sent.len() {
            let expected = match shown >= row.told_by {
                true => Some(row.whose.clone()),
                false => None,
            };
            let whose = framed.replies().whose(&row.sent[..shown]);
            assert_eq!(whose, Ok(expected), "{} up to {shown}", row.name);
        }
    }
}

#[test]
fn a_broken_message_is_refused() {
    let of = |calls: Calls, frame_max| Calls {
        layout: Layout {
            frame_max,
            ..calls.layout
        },
        ..calls
    };
    for (name, calls, sent, sentence) in [
        (
            "too long",
            of(kafka(), 20),
            &b"\0\0\0\x11"[..],
            "the frame is too long",
        ),
        (
            "below its length field",
            mongo(),
            b"\x03\0\0\0",
            "the frame's length is impossible",
        ),
        (
            "with no room for its id",
            kafka(),
            b"\0\0\0\x03\0\0\0",
            "the frame has no room for its id",
        ),
        (
            "a heartbeat with no room for its id",
            lopsided(),
            b"\x02\x03\0",
            "the frame has no room for its id",
        ),
        (
            "of another protocol",
            dubbo(),
            b"HTTP/1.1 400\0\0\0\0",
            "the frame has not the magic of its protocol",
        ),
    ] {
        let framed = Framed::new(Arc::new(Calls {
            heartbeat_request: None,
            heartbeat_interval: Duration::from_secs(60),
            ..calls
        }));
        let whose = framed.replies().whose(sent);
        assert_eq!(whose, Err(ReplyViolation(sentence)), "{name}");
    }
}

#[test]
fn what_came_before_a_broken_message_is_still_whose_it_is() {
    let broken = b"HTTP/1.1 400\0\0\0\0";
    for cuts in every_cut(DUBBO_PONG.len() + broken.len()) {
        let heard = hear(&dubbo(), &[DUBBO_PONG, broken], &cuts);
        let whole = (Whose::Asked(3), DUBBO_PONG.to_vec());
        assert_eq!(heard.messages, [whole], "cut at {cuts:?}");
        assert!(heard.end.is_err(), "cut at {cuts:?}");
    }
}

#[test]
fn a_reply_goes_back_to_its_request_with_the_ids_of_its_client() {
    for row in all() {
        let Declared {
            name,
            calls,
            request,
            reply,
        } = row;
        let Ok(Some(FirstFrame {
            asked: Asked::Call(call),
            ..
        })) = calls.first_frame(request)
        else {
            panic!("{name} does not ask");
        };
        let framed = Framed::new(Arc::new(calls));
        let mut replies = framed.replies();
        let ids = [0x51; PLACES_MAX];
        let mut sent = reply.to_vec();
        replies.put_back(&mut sent, Call { ids, ..call });
        assert_ne!(text(&sent), text(reply), "{name}");
        assert_eq!(replies.whose(&sent), Ok(Some(Whose::Asked(0x51))), "{name}");
        replies.put_back(&mut sent, call);
        assert_eq!(text(&sent), text(reply), "{name}");
    }
}

/// Hands `sent` out, cut there, with the ids of each client's request put back.
fn hear(calls: &Calls, sent: &[&[u8]], cuts: &[usize]) -> Heard {
    let framed = Framed::new(Arc::new(calls.clone()));
    listen(&framed, &sent.concat(), cuts, |id| match id {
        0x102 => Some(call([0x0a0b_0c0d, 0x0e0f])),
        9 => Some(call([0x8000_0001, 2])),
        _ => None,
    })
}

/// No cut, each cut and all of them, and each two that are not far apart.
fn every_cut(length: usize) -> Vec<Vec<usize>> {
    let mut cuts = vec![vec![], (0..=length).collect()];
    for first in 0..=length {
        let seconds = first..=length.min(first + 24);
        cuts.extend(seconds.map(|second| vec![first, second]));
    }
    cuts
}

#[test]
fn messages_in_a_row_are_the_same_however_they_are_cut() {
    let sent = [
        DUBBO_PING,
        DUBBO_REPLY,
        DUBBO_CALL,
        DUBBO_EVENT,
        DUBBO_PONG,
        DUBBO_REPLY,
    ];
    let own: &[u8] = b"\xda\xbb\x02\x14\0\0\0\0\x0a\x0b\x0c\x0d\0\0\0\x06\x91\x04pong";
    let expected: Vec<(Whose<Call>, &[u8])> = vec![
        (answered(3, DUBBO_PONG), DUBBO_PING),
        (Whose::Asked(0x102), own),
        (UNASKED, DUBBO_CALL),
        (Whose::Heartbeat(None), DUBBO_EVENT),
        (Whose::Asked(3), DUBBO_PONG),
        (Whose::Asked(0x102), own),
    ];
    for cuts in every_cut(sent.concat().len()) {
        let heard = hear(&dubbo(), &sent, &cuts);
        let messages = heard.messages.iter();
        let messages: Vec<_> = messages
            .map(|(whose, bytes)| (whose.clone(), &bytes[..]))
            .collect();
        assert_eq!(messages, expected, "cut at {cuts:?}");
        assert_eq!((heard.begun, heard.end), (None, Ok(0)), "cut at {cuts:?}");
    }
}

#[test]
fn each_place_of_a_reply_gets_its_clients_id_back() {
    let own = b"\0\0\0\x23\x0f\xff\0\0\x80\0\0\x01\0\x02\0\0\0\0\0\0\0\0\x80\x01\0\x02\0\0\0\x04ping\0\0\0\x02\0";
    let sent = [HEADER_REPLY, HEADER_REPLY];
    for cuts in every_cut(2 * HEADER_REPLY.len()) {
        let heard = hear(&thrift_header(), &sent, &cuts);
        let message = || (Whose::Asked(9), own.to_vec());
        assert_eq!(heard.messages, [message(), message()], "cut at {cuts:?}");
    }
}

#[test]
fn a_message_that_the_service_cuts_short_has_begun_or_waits() {
    for row in rows() {
        for shown in 0..row.sent.len() {
            let heard = hear(&row.calls, &[&row.sent[..shown]], &[]);
            assert_eq!(heard.messages, [], "{}", row.name);
            let is_told = shown >= row.told_by;
            assert_eq!(heard.begun.is_some(), is_told, "{} up to {shown}", row.name);
            let waiting = if is_told { 0 } else { shown };
            assert_eq!(heard.end, Ok(waiting), "{} up to {shown}", row.name);
        }
    }
}

#[test]
fn a_message_is_streamed_as_it_comes() {
    let framed = Framed::new(Arc::new(kafka()));
    let mut replies = framed.replies();
    let head = b"\0\x10\0\0\0\0\0\x07";
    assert_eq!(replies.whose(head), Ok(Some(Whose::Asked(7))));
    let mut left = 0x10_0004 - 8;
    let frame = |taken, then| ReplyFrame {
        taken,
        shown: true,
        then,
    };
    assert_eq!(
        replies.frame(call([0, 0]), head),
        Ok(frame(8, ReplyThen::More))
    );
    let piece = [b'x'; 5000];
    while left > piece.len() {
        let expected = frame(piece.len(), ReplyThen::More);
        assert_eq!(replies.frame(call([0, 0]), &piece), Ok(expected));
        left -= piece.len();
    }
    // What lies behind its end is the next message's.
    let expected = frame(left, ReplyThen::End);
    assert_eq!(replies.frame(call([0, 0]), &piece), Ok(expected));
    assert_eq!(replies.whose(KAFKA_REPLY), Ok(Some(Whose::Asked(7))));
}

#[test]
fn it_is_said_of_so_many_bytes_whose_they_are_whatever_they_are() {
    let fixed_place = vec![at(field(ID_END_BYTES_MAX - 8, 8))];
    let moving = vec![behind(&[(field(4, 2), 1)], field(0, 8))];
    for (name, places, step) in [("fixed", fixed_place, 0), ("moving", moving, 4096 - 6 - 8)] {
        let calls = calls(layout(big(0, 4, 0)), both(places));
        assert_eq!(calls.check(), Ok(()), "{name}");
        let framed = Framed::new(Arc::new(calls.clone()));
        let mut sent = vec![0; UNDECIDED_BYTES_MAX + 100];
        sent[..6].copy_from_slice(&[0, 0, 0x20, 0, (step >> 8) as u8, step as u8]);
        sent[UNDECIDED_BYTES_MAX - 1] = 5;
        let all_but_one = &sent[..UNDECIDED_BYTES_MAX - 1];
        assert_eq!(framed.replies().whose(all_but_one), Ok(None), "{name}");
        assert_eq!(calls.first_frame(all_but_one), Ok(None), "{name}");
        let all = &sent[..UNDECIDED_BYTES_MAX];
        assert_eq!(framed.replies().whose(all), Ok(Some(Whose::Asked(5))));
        assert!(matches!(calls.first_frame(all), Ok(Some(_))), "{name}");
    }
}

/// Frames in `calls`, most of them sound, of small numbers.
fn frames(random: &mut fastrand::Rng, calls: &Calls) -> Vec<u8> {
    let mut sent = Vec::new();
    for _ in 0..random.usize(1..6) {
        let frame_max = calls.layout.frame_max.min(64);
        let mut frame: Vec<u8> = (0..random.usize(frame_max / 2..frame_max + 2))
            .map(|_| b"\x00\x00\x00\x01\x02\x03\x04\xff"[random.usize(0..8)])
            .collect();
        if let Framing::Fixed(size) = calls.layout.framing {
            frame.resize(size.min(64), 1);
        }
        let places = [&calls.ids.request, &calls.ids.reply];
        for place in places[random.usize(0..2)] {
            let mut at = 0;
            for Step { field, unit } in &place.steps {
                let start = at + field.offset;
                let counted = random.u8(0..4);
                put(
                    &mut frame,
                    Field {
                        offset: start,
                        ..*field
                    },
                    counted.into(),
                );
                at = start + field.width + usize::from(counted) * usize::from(*unit);
            }
        }
        for magic in calls.magic.iter().filter(|_| random.u8(..16) > 0) {
            let bytes = frame.get_mut(magic.offset..).unwrap_or_default();
            let bytes = bytes.iter_mut().zip(&magic.bytes);
            bytes.for_each(|(byte, magic)| *byte = *magic);
        }
        let marks = [calls.asks, calls.layout.heartbeat, calls.layout.oneway];
        for mark in marks.into_iter().flatten().filter(|_| random.bool()) {
            if let Some(byte) = frame.get_mut(mark.offset) {
                *byte = *byte & !mark.mask | mark.value;
            }
        }
        if let Framing::Length(LengthField {
            offset,
            width,
            endian,
            adjust,
        }) = calls.layout.framing
        {
            frame.resize(frame.len().max(offset + width), 0);
            let value = frame.len() as i64 - (offset + width) as i64 - adjust;
            put(
                &mut frame,
                Field {
                    offset,
                    width,
                    endian,
                },
                value as u64,
            );
        }
        sent.extend_from_slice(&frame);
    }
    if random.u8(..8) == 0 {
        sent.truncate(random.usize(..=sent.len()));
    }
    sent
}

fn put(frame: &mut [u8], field: Field, value: u64) {
    let end = field.offset + field.width;
    if let Some(bytes) = frame.get_mut(field.offset..end) {
        bytes.copy_from_slice(&value.to_be_bytes()[8 - field.width..]);
        if field.endian == Endian::Little {
            bytes.reverse();
        }
    }
}

#[test]
fn generated_messages_are_whose_their_declaration_says_however_they_are_cut() {
    let mut all: Vec<Met> = Vec::new();
    for seed in 0..40_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut choice = [0; CHOICE_BYTES];
        random.fill(&mut choice);
        let Some(calls) = any_calls::declaration(&choice, &[]) else {
            continue;
        };
        let sent = frames(&mut random, &calls);
        all.extend(any_calls::check(&[&choice, &sent[..]].concat()));
    }
    // Each way was met, not once but often.
    let count = |is: &dyn Fn(&Met) -> bool| all.iter().filter(|met| is(met)).count();
    let asked = |is: &dyn Fn(&Calls, Call) -> bool| {
        count(&|met| match met.first {
            Ok(Some(FirstFrame {
                asked: Asked::Call(call),
                ..
            })) => is(&met.calls, call),
            _ => false,
        })
    };
    let moves = |calls: &Calls| calls.ids.request.iter().any(|it| !it.steps.is_empty());
    let is_split = |calls: &Calls| calls.ids.request.len() > 1;
    let violation = |violation| count(&|met| met.first == Err(violation));
    let heard = |is: &dyn Fn(&Whose<Call>) -> bool| {
        count(&|met| met.heard.messages.iter().any(|(whose, _)| is(whose)))
    };
    let answered = |it: &Whose<Call>| matches!(it, Whose::Heartbeat(Some(_)));
    for (name, met, least) in [
        ("call", asked(&|_, _| true), 1000),
        ("one-way call", asked(&|_, call| call.oneway), 200),
        ("heartbeat", asked(&|_, call| call.heartbeat), 150),
        ("id that moves", asked(&|calls, _| moves(calls)), 300),
        ("id in two places", asked(&|calls, _| is_split(calls)), 300),
        ("starved", count(&|met| met.first == Ok(None)), 80),
        ("too long", violation(FrameViolation::TooLong), 200),
        ("bad length", violation(FrameViolation::BadLength), 15),
        ("bad magic", violation(FrameViolation::BadMagic), 1000),
        ("bad id", violation(FrameViolation::BadId), 300),
        ("error", count(&|met| met.calls.error_reply.is_some()), 300),
        ("reply", heard(&|it| matches!(it, Whose::Asked(_))), 1000),
        ("unasked", heard(&|it| *it == UNASKED), 300),
        ("unasked that retires", heard(&|it| *it == RETIRES), 300),
        (
            "heartbeat without an answer",
            heard(&|it| *it == Whose::Heartbeat(None)),
            200,
        ),
        ("heartbeat with one", heard(&answered), 30),
        (
            "several messages",
            count(&|met| met.heard.messages.len() > 2),
            500,
        ),
    ] {
        assert!(
            met >= least,
            "{name} was met only {met} times of {}",
            all.len()
        );
    }
}
