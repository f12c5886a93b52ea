//! What a declaration with ids may be, what a client's frames are in it, and what millpond says itself.

use super::super::CallsFault::{self, Asks, Delimiter, HeartbeatsUntold};
use super::declared::*;
use super::*;

const OVERLAPS: CallsFault = CallsFault::Ids(IdsFault::Overlaps);
const TOO_FAR_IN: CallsFault = CallsFault::Ids(IdsFault::TooFarIn);
const ERROR: CallsFault = CallsFault::Template(Template::Error);
const REPLY: CallsFault = CallsFault::Template(Template::HeartbeatReply);
const REQUEST: CallsFault = CallsFault::Template(Template::HeartbeatRequest);

#[test]
fn the_declarations_of_the_rows_are_possible() {
    for Declared { name, calls, .. } in all() {
        assert_eq!(calls.layout.check(), Ok(()), "{name}");
        assert_eq!(calls.check(), Ok(()), "{name}");
    }
}

/// Most are Dubbo's declaration with one thing changed.
#[rustfmt::skip]
fn faults() -> Vec<(&'static str, Calls, Result<(), CallsFault>)> {
    let framed = |framing| Calls { layout: layout(framing), magic: vec![], ..calls(dubbo().layout, both(vec![at(field(4, 8))])) };
    let with_magic = |offset, bytes: &[u8]| Calls { magic: vec![magic(0, b"\xda\xbb"), magic(offset, bytes)], ..untold() };
    let with_asks = |asks| Calls { asks, ..untold() };
    let with_ids = |ids| Calls { ids, ..untold() };
    let short = |frame_max| Calls { layout: Layout { frame_max, ..dubbo().layout }, ..untold() };
    let error = |frame: &[u8]| Calls { error_reply: Some(frame.to_vec()), ..dubbo() };
    let beat = |frame: &[u8]| Calls { heartbeat_request: Some(frame.to_vec()), ..dubbo() };
    let answer = |frame: &[u8]| Calls { heartbeat_reply: Some(frame.to_vec()), ..dubbo() };
    let no_beats = |calls: Calls| Calls { layout: Layout { heartbeat: None, ..calls.layout }, ..calls };
    vec![
        ("a delimiter", framed(until(b"\n")), Err(Delimiter)),
        ("a fixed size", framed(Framing::Fixed(12)), Ok(())),
        ("a fixed size with no room for an id", framed(Framing::Fixed(11)), Err(TOO_FAR_IN)),
        ("room for no more than the head", short(16), Ok(())),
        ("no room for an id behind it", Calls { ids: both(vec![at(field(16, 1))]), ..short(16) }, Err(TOO_FAR_IN)),
        ("no room for magic behind it", Calls { magic: vec![magic(16, b"a")], ..short(16) }, Err(CallsFault::Magic)),
        ("no magic", Calls { magic: vec![], ..untold() }, Ok(())),
        ("more magic", with_magic(3, b"\0"), Ok(())),
        ("empty magic", with_magic(3, b""), Err(CallsFault::Magic)),
        ("the last byte that magic can have", with_magic(255, b"a"), Ok(())),
        ("magic behind the head", with_magic(256, b"a"), Err(CallsFault::Magic)),
        ("magic half behind the head", with_magic(255, b"ab"), Err(CallsFault::Magic)),
        ("magic as far as can be", with_magic(usize::MAX, b"ab"), Err(CallsFault::Magic)),
        ("an id in the magic", with_magic(11, b"a"), Err(OVERLAPS)),
        ("magic in front of the id", with_magic(3, b"ab"), Err(OVERLAPS)),
        ("magic behind the id", with_magic(16, b"ab"), Ok(())),
        ("heartbeats, and no mark of requests", with_asks(None), Err(HeartbeatsUntold)),
        ("no heartbeats, and no mark of requests", no_beats(with_asks(None)), Ok(())),
        ("no heartbeats", no_beats(untold()), Ok(())),
        ("a mark of requests behind the head", with_asks(mark(256, 1, 1)), Err(Asks(MarkFault::TooFarIn))),
        ("a mark of requests as far as can be", with_asks(mark(usize::MAX, 1, 1)), Err(Asks(MarkFault::TooFarIn))),
        ("a mark of requests behind the frame", Calls { asks: mark(17, 1, 1), ..short(17) }, Err(Asks(MarkFault::BeyondFrame))),
        ("a mark of requests without bits", with_asks(mark(2, 0, 0)), Err(Asks(MarkFault::NoBits))),
        ("a mark of requests that never matches", with_asks(mark(2, 1, 2)), Err(Asks(MarkFault::NeverMatches))),
        ("a mark of requests in the id", with_asks(mark(4, 1, 1)), Err(OVERLAPS)),
        ("an id in the length", with_ids(both(vec![at(field(8, 8))])), Err(OVERLAPS)),
        ("an id behind the length", with_ids(both(vec![at(field(16, 8))])), Ok(())),
        ("an id between the magic and the length", with_ids(both(vec![at(field(3, 8)), at(field(11, 1))])), Ok(())),
        ("an id in the other marks", with_ids(both(vec![at(field(2, 2))])), Err(OVERLAPS)),
        ("an id that moves before the length", with_ids(both(vec![behind(&[(field(3, 1), 1)], field(0, 1))])), Err(OVERLAPS)),
        ("an id that moves behind all", with_ids(both(vec![behind(&[(field(3, 1), 1)], field(12, 1))])), Ok(())),
        ("an id in the length of replies", with_ids(Ids { request: vec![at(field(4, 8))], reply: vec![at(field(12, 8))] }), Err(OVERLAPS)),
        ("no place", with_ids(both(vec![])), Err(CallsFault::Ids(IdsFault::Places))),
        ("an error that is none", error(b""), Err(ERROR)),
        ("an error that is cut short", error(&DUBBO_ERROR[..20]), Err(ERROR)),
        ("an error and a byte", error(&[DUBBO_ERROR, b"N"].concat()), Err(ERROR)),
        ("two errors", error(&DUBBO_ERROR.repeat(2)), Err(ERROR)),
        ("an error of another protocol", error(&[b"HTTP", &DUBBO_ERROR[4..]].concat()), Err(ERROR)),
        ("an error that asks", error(DUBBO_CALL), Err(ERROR)),
        ("an error with an id of its own", error(DUBBO_REPLY), Ok(())),
        ("an answer to heartbeats that asks", answer(DUBBO_PING), Err(REPLY)),
        ("an answer to heartbeats that is cut short", answer(&DUBBO_PONG[..16]), Err(REPLY)),
        ("a heartbeat that answers", beat(DUBBO_PONG), Err(REQUEST)),
        ("a heartbeat that is cut short", beat(&DUBBO_PING[..12]), Err(REQUEST)),
        ("a heartbeat without its mark", beat(DUBBO_CALL), Ok(())),
        ("a heartbeat with no room for its id", Calls { heartbeat_request: Some(b"\0\0\0\x07\0\x12\0\0\0\0\0".to_vec()), ..kafka() }, Err(REQUEST)),
        ("an error with room for the id of a reply", Calls { error_reply: Some(b"\0\0\0\x04\0\0\0\0".to_vec()), ..kafka() }, Ok(())),
        ("an error with no room for it", Calls { error_reply: Some(b"\0\0\0\x03\0\0\0".to_vec()), ..kafka() }, Err(ERROR)),
    ]
}

/// Dubbo's, and nothing that millpond says itself.
fn untold() -> Calls {
    Calls {
        answers_heartbeats: false,
        heartbeat_reply: None,
        heartbeat_request: None,
        heartbeat_interval: Duration::from_secs(60),
        error_reply: None,
        ..dubbo()
    }
}

#[test]
fn an_impossible_declaration_is_named() {
    for (name, calls, expected) in faults() {
        assert_eq!(calls.layout.check(), Ok(()), "{name}");
        assert_eq!(calls.check(), expected, "{name}");
    }
}

#[test]
fn a_fault_reads_as_a_sentence() {
    for (fault, sentence) in [
        (
            CallsFault::Ids(IdsFault::Places),
            "an id has no place, or more than 2",
        ),
        (
            Asks(MarkFault::NoBits),
            "the mark of requests looks at no bit",
        ),
        (
            CallsFault::Template(Template::Error),
            "is not one whole frame with its id and magic that asks, or answers, as it should",
        ),
    ] {
        assert_eq!(fault.to_string(), sentence);
    }
}

/// What a client's frame is, and how many of its bytes tell that.
struct Row {
    name: &'static str,
    calls: Calls,
    sent: &'static [u8],
    first: Result<FirstFrame, FrameViolation>,
    told_by: usize,
}

fn oneway(ids: IdValues) -> Call {
    Call {
        oneway: true,
        ..call(ids)
    }
}

fn heartbeat(ids: IdValues) -> Call {
    Call {
        heartbeat: true,
        ..call(ids)
    }
}

fn is(
    name: &'static str,
    calls: Calls,
    sent: &'static [u8],
    (asked, length, told_by): (Asked, u64, usize),
) -> Row {
    Row {
        name,
        calls,
        sent,
        first: Ok(FirstFrame { length, asked }),
        told_by,
    }
}

fn refused(
    name: &'static str,
    calls: Calls,
    sent: &'static [u8],
    violation: FrameViolation,
    told_by: usize,
) -> Row {
    Row {
        name,
        calls,
        sent,
        first: Err(violation),
        told_by,
    }
}

/// Frames of up to 255 bytes, of which those ask that have a 1 behind the length, and have an id behind it.
fn tiny() -> Calls {
    Calls {
        asks: mark(1, 0xff, 1),
        ..calls(layout(big(0, 1, 0)), both(vec![at(field(2, 2))]))
    }
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    use Asked::{Answer, Call as Asks};
    use FrameViolation::{BadId, BadLength, BadMagic, TooLong};
    let short = |calls: Calls, frame_max| Calls { layout: Layout { frame_max, ..calls.layout }, ..calls };
    let two_magics = || Calls { magic: vec![magic(0, b"\xda\xbb"), magic(3, b"\0")], ..untold() };
    let far_magic = || Calls { magic: vec![magic(4, b"ok")], ..tiny() };
    let moving = || calls(layout(big(0, 2, 0)), both(vec![behind(&[(field(2, 2), 1)], field(0, 1))]));
    vec![
        is("Dubbo call", dubbo(), DUBBO_CALL, (Asks(call([0x102, 0])), 22, 16)),
        is("Dubbo one-way call", dubbo(), DUBBO_ONEWAY, (Asks(oneway([2, 0])), 22, 16)),
        is("Dubbo heartbeat", dubbo(), DUBBO_PING, (Asks(heartbeat([3, 0])), 17, 16)),
        is("Dubbo event without an answer", dubbo(), DUBBO_EVENT, (Asks(Call { heartbeat: true, ..oneway([4, 0]) }), 18, 16)),
        is("Dubbo reply", dubbo(), DUBBO_REPLY, (Answer, 22, 16)),
        is("Dubbo reply to a heartbeat", dubbo(), DUBBO_PONG, (Answer, 17, 16)),
        is("Kafka call", kafka(), KAFKA_CALL, (Asks(call([7, 0])), 18, 12)),
        is("Kafka call of 1 MiB", kafka(), b"\0\x10\0\0\0\0\0\x09\xff\xff\xff\xff\0", (Asks(call([0xffff_ffff, 0])), 0x10_0004, 12)),
        is("Thrift call", thrift_framed(), THRIFT_CALL, (Asks(call([1, 0])), 21, 20)),
        is("Thrift one-way call", thrift_framed(), THRIFT_ONEWAY, (Asks(oneway([2, 0])), 21, 20)),
        is("Thrift header call", thrift_header(), HEADER_CALL, (Asks(call([9, 9])), 35, 34)),
        is("Mongo call", mongo(), MONGO_CALL, (Asks(call([0x105, 0])), 18, 8)),
        is("fixed call", fixed(), FIXED_CALL, (Asks(call([0x30_3037, 0])), 8, 8)),
        is("fixed answer", fixed(), FIXED_REPLY, (Answer, 8, 1)),
        is("as short as a call can be", tiny(), b"\x03\x01\0\x07", (Asks(call([7, 0])), 4, 4)),
        is("an id of 0", tiny(), b"\x03\x01\0\0", (Asks(call([0, 0])), 4, 4)),
        is("an answer with no room for an id", tiny(), b"\x01\x02", (Answer, 2, 2)),
        is("an answer with no room for the mark", tiny(), b"\0", (Answer, 1, 1)),
        is("a call behind that answer", tiny(), b"\0\x03\x01\0\x07", (Answer, 1, 1)),
        is("as long as allowed", short(tiny(), 4), b"\x03\x01\0\x07", (Asks(call([7, 0])), 4, 4)),

        refused("too long", short(tiny(), 4), b"\x04\x01\0\x07", TooLong, 1),
        refused("a length outranks the magic", dubbo(), b"GET / HTTP/1.1\r\n", TooLong, 16),
        refused("a length below its field", mongo(), b"\x03\0\0\0\0\0\0\0", BadLength, 4),
        refused("other magic", dubbo(), b"\xda\xbc\xc2\0\0\0\0\0\0\0\x01\x02\0\0\0\0", BadMagic, 16),
        refused("other magic in an answer", dubbo(), b"\xba\xdd\x02\0\0\0\0\0\0\0\x01\x02\0\0\0\0", BadMagic, 16),
        refused("the second magic is another", two_magics(), b"\xda\xbb\xc2\x01\0\0\0\0\0\0\x01\x02\0\0\0\0", BadMagic, 16),
        refused("a frame that ends within its magic", far_magic(), b"\x04\x01\0\x07oko", BadMagic, 5),
        refused("a frame that ends before its magic", far_magic(), b"\x03\x01\0\x07ok", BadMagic, 4),
        refused("a frame that ends within its id", tiny(), b"\x02\x01\0\x07", BadId, 2),
        refused("a frame that ends before its id", kafka(), b"\0\0\0\x04\0\x12\0\0\0\0\0\x07", BadId, 4),
        refused("a name longer than its frame", thrift_framed(), b"\0\0\0\x11\x80\x01\0\x01\0\0\0\x06ping\0\0\0\x01\0", BadId, 12),
        refused("a header longer than its frame", thrift_header(), b"\0\0\0\x1f\x0f\xff\0\0\0\0\0\x09\0\x06\0\0\0\0\x80\x01\0\x01", BadId, 14),
        refused("an id behind 4096 bytes", moving(), b"\xff\x00\x0f\xfd", BadId, 4),
    ]
}

#[test]
fn a_frame_is_told_by_its_head_and_its_ids() {
    for row in rows() {
        assert_eq!(row.calls.check(), Ok(()), "{}", row.name);
        for shown in 0..=row.sent.len() {
            let expected = match shown >= row.told_by {
                true => row.first.map(Some),
                false => Ok(None),
            };
            let first = row.calls.first_frame(&row.sent[..shown]);
            assert_eq!(first, expected, "{} up to {shown}", row.name);
        }
        let followed = [row.sent, b"\xff\0\x01N"].concat();
        let first = row.calls.first_frame(&followed);
        assert_eq!(first, row.first.map(Some), "{}", row.name);
    }
}

#[test]
fn an_id_is_put_in_and_taken_out_as_soon_as_it_is_in_sight() {
    for row in rows() {
        let Ok(FirstFrame {
            asked: Asked::Call(call),
            ..
        }) = row.first
        else {
            continue;
        };
        let framed = Framed::new(Arc::new(row.calls.clone()));
        let mut ids = [0; PLACES_MAX];
        ids[..row.calls.ids.request.len()].fill(0x51);
        for shown in row.told_by..=row.sent.len() {
            let sent = &row.sent[..shown];
            let mut frame = sent.to_vec();
            framed.put_id(&mut frame, 0x51);
            let first = row.calls.first_frame(&frame);
            let asked = Asked::Call(Call { ids, ..call });
            let expected = row.first.map(|first| Some(FirstFrame { asked, ..first }));
            assert_eq!(first, expected, "{}", row.name);
            framed.put_back(&mut frame, call);
            assert_eq!(text(&frame), text(sent), "{}", row.name);
        }
    }
}

#[test]
fn millpond_answers_in_the_services_place() {
    for (name, calls, ids, expected) in [
        (
            "Dubbo",
            dubbo(),
            [0x0102_0304_0506_0708, 0],
            Some(&b"\xda\xbb\x02\x50\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x05\x04gone"[..]),
        ),
        (
            "Thrift",
            thrift_framed(),
            [0xffff_fffe, 0],
            Some(b"\0\0\0\x11\x80\x01\0\x03\0\0\0\x04ping\xff\xff\xff\xfe\0"),
        ),
        ("fixed", fixed(), [0x31_3233, 0], Some(b"fail 123")),
        ("Kafka", kafka(), [7, 0], None),
    ] {
        let said = calls.error(call(ids));
        assert_eq!(said.as_deref().map(text), expected.map(text), "{name}");
    }
}

#[test]
fn each_place_of_an_answer_has_the_clients_id() {
    let calls = Calls {
        error_reply: Some(HEADER_REPLY.to_vec()),
        ..thrift_header()
    };
    assert_eq!(calls.check(), Ok(()));
    let said = calls.error(call([0x0102_0304, 0x0a0b_0c0d]));
    let [mut expected, first, second] = [
        HEADER_REPLY.to_vec(),
        vec![1, 2, 3, 4],
        vec![10, 11, 12, 13],
    ];
    expected[8..12].copy_from_slice(&first);
    expected[34..38].copy_from_slice(&second);
    assert_eq!(said, Some(expected));
}

#[test]
fn a_refusal_is_an_error_and_a_one_way_request_has_none() {
    let expected = [&DUBBO_ERROR[..4], &[0; 7], b"\x07", &DUBBO_ERROR[12..]].concat();
    for (name, calls, call, said) in [
        ("call", dubbo(), call([7, 0]), Ok(&expected[..])),
        ("heartbeat", dubbo(), heartbeat([7, 0]), Ok(&expected)),
        ("one-way call", dubbo(), oneway([7, 0]), Ok(b"")),
        (
            "one-way call, and no words",
            kafka(),
            oneway([7, 0]),
            Ok(b""),
        ),
        ("call, and no words", kafka(), call([7, 0]), Err(Wordless)),
    ] {
        let mut out = b"said before ".to_vec();
        let refused = Framed::new(Arc::new(calls)).write_refusal(call, "no", &mut out);
        assert_eq!(refused, said.map(drop), "{name}");
        let expected = [b"said before ", said.unwrap_or_default()].concat();
        assert_eq!(text(&out), text(&expected), "{name}");
    }
}

#[test]
fn clients_heartbeats_are_answered_where_that_is_declared() {
    let pong = [&DUBBO_PONG[..4], b"\0\0\0\0\0\0\x02\x01", &DUBBO_PONG[12..]].concat();
    let forwards = Calls {
        answers_heartbeats: false,
        ..dubbo()
    };
    let wordless = Calls {
        heartbeat_reply: None,
        ..dubbo()
    };
    let event = Call {
        heartbeat: true,
        ..oneway([4, 0])
    };
    for (name, calls, call, expected) in [
        ("a heartbeat", dubbo(), heartbeat([0x201, 0]), Some(pong)),
        ("one without an answer", dubbo(), event, None),
        ("a call", dubbo(), call([1, 0]), None),
        ("forwarded", forwards, heartbeat([1, 0]), None),
        ("no words", wordless, heartbeat([1, 0]), None),
    ] {
        assert_eq!(calls.answer_to_heartbeat(call), expected, "{name}");
    }
}

#[test]
fn a_quiet_connection_is_sent_a_heartbeat() {
    for (name, calls, message, ids, seconds, with_id) in [
        (
            "Dubbo",
            dubbo(),
            DUBBO_PING,
            [3, 0],
            60,
            &b"\xda\xbb\xe2\x00\0\0\0\0\0\0\x12\x34\0\0\0\x01N"[..],
        ),
        (
            "Kafka has no mark of them",
            kafka(),
            KAFKA_CALL,
            [7, 0],
            9,
            b"\0\0\0\x0e\0\x12\0\0\0\0\x12\x34\0\x04test",
        ),
    ] {
        let framed = Framed::new(Arc::new(calls));
        let expected = Heartbeat {
            message: message.to_vec(),
            kind: heartbeat(ids),
            is_answered: true,
        };
        let interval = Duration::from_secs(seconds);
        assert_eq!(framed.heartbeat(), Some((&expected, interval)), "{name}");
        let mut message = message.to_vec();
        framed.put_id(&mut message, 0x1234);
        assert_eq!(text(&message), text(with_id), "{name}");
    }
    assert_eq!(Framed::new(Arc::new(mongo())).heartbeat(), None);
}

#[test]
fn what_a_shared_connection_has_to_know_follows_from_the_declaration() {
    for (name, calls, ids_max, is_provable) in [
        ("Dubbo", dubbo(), i64::MAX as usize, false),
        ("Kafka", kafka(), i32::MAX as usize, true),
        ("Thrift", thrift_framed(), i32::MAX as usize, false),
        ("fixed", fixed(), 0x7f_ffff, true),
    ] {
        let framed = Framed::new(Arc::new(calls));
        assert_eq!(framed.ids_max(), ids_max, "{name}");
        assert_eq!(framed.is_provable(), is_provable, "{name}");
    }
    assert_eq!(Framed::first_request(&DUBBO_CALL.repeat(2)), 44);
    assert_eq!(Framed::refusal(DUBBO_ERROR), None);
    assert_eq!(Framed::setup(&()), Setup::default());
}
