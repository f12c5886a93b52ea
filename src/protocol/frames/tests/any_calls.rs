//! Any bytes as a declaration with ids and as frames: whose they are and what their ids are, however they are
//! cut, is what a plain reading of the declaration says. Run by the tests over seeds and by the fuzz target.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Asked, Call, Calls, CallsFault, Endian, Field, FirstFrame, FrameViolation, Framed, Framing,
    Heartbeat, ID_END_BYTES_MAX, IdValues, Ids, Language, Layout, LengthField, Magic, Mark,
    PLACES_MAX, Place, Replies, ReplyThen, ReplyViolation, Step, Template, Unasked, Whose,
};

/// The bytes that choose declaration, cuts and ids.
pub(crate) const CHOICE_BYTES: usize = DECLARATION_BYTES + 11;
const DECLARATION_BYTES: usize = 96;

/// So many first bytes are looked at one by one.
const PREFIXES_MAX: usize = 160;

/// What was met.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) calls: Calls,
    pub(crate) first: Result<Option<FirstFrame>, FrameViolation>,
    pub(crate) heard: Heard,
}

/// What a service said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Whole messages, with the ids that their clients are to see.
    pub(crate) messages: Vec<(Whose<Call>, Vec<u8>)>,
    /// What is here of the last.
    pub(crate) begun: Option<(Whose<Call>, Vec<u8>)>,
    /// How many bytes wait for more.
    pub(crate) end: Result<usize, ReplyViolation>,
}

/// Panics where ids, or whose a frame is, are told wrong. `None`: too few bytes, or an impossible
/// declaration.
pub(crate) fn check(data: &[u8]) -> Option<Met> {
    let (choice, sent) = data.split_first_chunk::<CHOICE_BYTES>()?;
    let calls = declaration(choice, sent)?;
    let mut choice = Choice(choice[DECLARATION_BYTES..].iter());
    let id = (0..8).fold(0, |id, _| id << 8 | choice.number() as u64);
    let seed = choice.number() as u64;
    let mut cuts = [(); 2].map(|()| choice.number() % (sent.len() + 1));
    cuts.sort_unstable();
    let framed = Framed::new(Arc::new(calls.clone()));
    let first = check_client(&calls, &framed, sent, id % framed.ids_max() as u64 + 1);
    let heard = check_service(&calls, &framed, sent, cuts, seed);
    Some(Met {
        calls,
        first,
        heard,
    })
}

/// The declaration that `choice` stands for, if it is possible. Its words are from `sent`, or there are none.
pub(crate) fn declaration(choice: &[u8; CHOICE_BYTES], sent: &[u8]) -> Option<Calls> {
    let mut choice = Choice(choice[..DECLARATION_BYTES].iter());
    let mut calls = choice.calls();
    calls.layout.check().ok()?;
    calls.check().ok()?;
    let which = choice.number();
    let word = |bit, asks| match (which & bit == bit, which & 8) {
        (false, _) => None,
        (true, 0) => Some(sent.to_vec()),
        (true, _) => frame_that(&calls, sent, asks),
    };
    let (error, reply, request) = (word(1, false), word(2, false), word(4, true));
    calls.error_reply = error;
    calls.heartbeat_reply = reply;
    calls.heartbeat_request = request;
    match calls.check() {
        Ok(()) => {
            assert_eq!(wordless(&calls), None, "{calls:?}");
        }
        Err(CallsFault::Template(template)) => {
            assert_eq!(wordless(&calls), Some(template), "{calls:?}");
            calls.error_reply = None;
            calls.heartbeat_reply = None;
            calls.heartbeat_request = None;
        }
        Err(fault) => panic!("{fault} of {calls:?} only with words"),
    }
    Some(calls)
}

/// The first frame of `sent` that asks or answers, as far as frames can be told.
fn frame_that(calls: &Calls, sent: &[u8], asks: bool) -> Option<Vec<u8>> {
    let mut rest = sent;
    while let Ok(Some(plain)) = Plain::of(calls, rest, Side::Service) {
        let frame = rest.get(..plain.length)?;
        if plain.asks == asks || calls.asks.is_none() {
            return Some(frame.to_vec());
        }
        rest = &rest[plain.length..];
    }
    None
}

/// What is written in the file and no frame that can be sent.
fn wordless(calls: &Calls) -> Option<Template> {
    let beat = calls.heartbeat_request.as_ref();
    let is_good = |frame: &[u8], side| match Plain::of(calls, frame, side) {
        Ok(Some(plain)) => plain.length == frame.len() && !plain.ids.is_empty(),
        _ => false,
    };
    let is_answer = |frame: &[u8]| {
        let plain = Plain::of(calls, frame, Side::Service);
        is_good(frame, Side::Service) && plain.is_ok_and(|it| it.is_some_and(|it| !it.asks))
    };
    let [error, reply] = [&calls.error_reply, &calls.heartbeat_reply];
    if error.as_ref().is_some_and(|it| !is_answer(it)) {
        Some(Template::Error)
    } else if reply.as_ref().is_some_and(|it| !is_answer(it)) {
        Some(Template::HeartbeatReply)
    } else if beat.is_some_and(|it| !is_good(it, Side::Client)) {
        Some(Template::HeartbeatRequest)
    } else {
        None
    }
}

fn check_client(
    calls: &Calls,
    framed: &Framed,
    sent: &[u8],
    id: u64,
) -> Result<Option<FirstFrame>, FrameViolation> {
    let first = calls.first_frame(sent);
    for shown in 0..=sent.len().min(PREFIXES_MAX) {
        let shown = &sent[..shown];
        let found = calls.first_frame(shown);
        let expected = Plain::of(calls, shown, Side::Client).map(|it| it.map(Plain::first_frame));
        assert_eq!(found, expected, "{calls:?}");
        if let Ok(Some(FirstFrame {
            asked: Asked::Call(call),
            ..
        })) = found
        {
            check_put(calls, framed, shown, call, id);
        }
        // More bytes change nothing about it.
        assert!(found == Ok(None) || found == first, "{calls:?}");
    }
    if let Ok(Some(FirstFrame {
        asked: Asked::Call(call),
        ..
    })) = first
    {
        check_put(calls, framed, sent, call, id);
        check_words(calls, call);
    }
    first
}

/// A connection's own id in a client's request, and the client's again.
fn check_put(calls: &Calls, framed: &Framed, sent: &[u8], call: Call, id: u64) {
    let mut bytes = sent.to_vec();
    framed.put_id(&mut bytes, id);
    let mut ids = [0; PLACES_MAX];
    ids[..calls.ids.request.len()].fill(id);
    let asked = Asked::Call(Call { ids, ..call });
    let first = calls.first_frame(&bytes).map(|it| it.map(|it| it.asked));
    assert_eq!(first, Ok(Some(asked)), "{calls:?}");
    framed.put_back(&mut bytes, call);
    assert_eq!(bytes, sent, "{calls:?}");
}

/// What is said to a client in the service's place has the client's ids.
fn check_words(calls: &Calls, call: Call) {
    let filled = |it: &Option<Vec<u8>>| it.as_ref().map(|it| answer(calls, it, call.ids));
    assert_eq!(calls.error(call), filled(&calls.error_reply), "{calls:?}");
    let answers = calls.answers_heartbeats && call.heartbeat && !call.oneway;
    let expected = filled(&calls.heartbeat_reply).filter(|_| answers);
    assert_eq!(calls.answer_to_heartbeat(call), expected, "{calls:?}");
}

/// `frame`, which answers, with these ids.
fn answer(calls: &Calls, frame: &[u8], ids: IdValues) -> Vec<u8> {
    let mut answer = frame.to_vec();
    if let Ok(Some(plain)) = Plain::of(calls, frame, Side::Service) {
        plain.put(&mut answer, ids);
    }
    answer
}

fn check_service(
    calls: &Calls,
    framed: &Framed,
    sent: &[u8],
    cuts: [usize; 2],
    seed: u64,
) -> Heard {
    let owed = |id: u64| (id % 3 != seed % 3).then(|| owed_call(id, seed));
    let whole = listen(framed, sent, &[], owed);
    let every: Vec<usize> = (0..sent.len().min(PREFIXES_MAX)).collect();
    for cuts in [&cuts[..], &every] {
        let cut = listen(framed, sent, cuts, owed);
        assert_eq!(cut, whole, "{calls:?} cut at {cuts:?}");
    }
    let expected = plainly(calls, sent, owed);
    assert_eq!(whole.messages, expected.messages, "{calls:?}");
    assert_eq!(whole.begun, expected.begun, "{calls:?}");
    assert_eq!(whole.end.ok(), expected.end.ok(), "{calls:?}");
    whole
}

fn owed_call(id: u64, seed: u64) -> Call {
    Call {
        ids: [id.wrapping_mul(seed), !id],
        oneway: false,
        heartbeat: seed & 1 == 1,
    }
}

/// Hands out what a service says, as it comes up to each of `cuts` in turn and then to the end. A reply to a
/// request that is `owed` gets the ids of its client.
pub(crate) fn listen(
    framed: &Framed,
    sent: &[u8],
    cuts: &[usize],
    owed: impl Fn(u64) -> Option<Call>,
) -> Heard {
    let mut heard = Heard {
        messages: Vec::new(),
        begun: None,
        end: Ok(0),
    };
    let mut replies = framed.replies();
    let mut client = None;
    let (mut waiting, mut from) = (Vec::new(), 0);
    for &cut in cuts.iter().chain([&sent.len()]) {
        waiting.extend_from_slice(&sent[from..cut]);
        from = cut;
        while !waiting.is_empty() {
            if heard.begun.is_none() {
                let whose = match replies.whose(&waiting) {
                    Ok(None) => break,
                    Ok(Some(whose)) => whose,
                    Err(violation) => {
                        heard.end = Err(violation);
                        return heard;
                    }
                };
                client = match whose {
                    Whose::Asked(id) => owed(id),
                    _ => None,
                };
                if let Some(call) = client {
                    replies.put_back(&mut waiting, call);
                }
                heard.begun = Some((whose, Vec::new()));
            }
            let frame = match client {
                Some(call) => replies.frame(call, &waiting),
                None => replies.frame_unasked(&waiting),
            };
            let frame = frame.unwrap_or_else(|violation| panic!("{violation} in its midst"));
            assert!(frame.shown && frame.taken > 0, "it goes on");
            if let Some((_, bytes)) = &mut heard.begun {
                bytes.extend(waiting.drain(..frame.taken));
            }
            if frame.then == ReplyThen::End {
                heard.messages.extend(heard.begun.take());
            }
        }
    }
    heard.end = Ok(waiting.len());
    heard
}

/// The same, message after message, with all bytes in sight.
fn plainly(calls: &Calls, sent: &[u8], owed: impl Fn(u64) -> Option<Call>) -> Heard {
    let mut heard = Heard {
        messages: Vec::new(),
        begun: None,
        end: Ok(0),
    };
    let mut rest = sent;
    loop {
        let plain = match Plain::of(calls, rest, Side::Service) {
            Ok(Some(plain)) => plain,
            Ok(None) => {
                heard.end = Ok(rest.len());
                return heard;
            }
            Err(_) => {
                heard.end = Err(ReplyViolation("plainly"));
                return heard;
            }
        };
        let here = plain.length.min(rest.len());
        let mut bytes = rest[..here].to_vec();
        let whose = plain.whose(calls);
        if let Whose::Asked(id) = whose
            && let Some(call) = owed(id)
        {
            plain.put(&mut bytes, call.ids);
        }
        rest = &rest[here..];
        match here == plain.length {
            true => heard.messages.push((whose, bytes)),
            false => {
                heard.begun = Some((whose, bytes));
                return heard;
            }
        }
    }
}

/// Who sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Service,
}

/// One frame, read with no thought of speed.
#[derive(Debug)]
struct Plain {
    length: usize,
    /// Asks, and does not answer.
    asks: bool,
    oneway: bool,
    heartbeat: bool,
    /// Where each id begins, and what it is. Nobody looks for those of an answer of a client's, and of what a
    /// service asks that is no heartbeat.
    ids: Vec<(usize, Field, u64)>,
}

impl Plain {
    fn of(calls: &Calls, bytes: &[u8], side: Side) -> Result<Option<Self>, FrameViolation> {
        let Some(length) = length_of(&calls.layout, bytes)? else {
            return Ok(None);
        };
        let frame = &bytes[..length.min(bytes.len())];
        let layout = &calls.layout;
        let marks = [layout.oneway, layout.heartbeat, calls.asks];
        let ends = marks.iter().flatten().map(|mark| mark.offset + 1);
        let magic = calls.magic.iter().map(|it| it.offset + it.bytes.len());
        let head_end = ends.chain(magic).max().unwrap_or(0);
        if frame.len() < head_end.min(length) {
            return Ok(None);
        }
        for Magic { offset, bytes } in &calls.magic {
            if !frame.get(*offset..).is_some_and(|it| it.starts_with(bytes)) {
                return Err(FrameViolation::BadMagic);
            }
        }
        let has = |mark: Option<Mark>| {
            let byte = mark.and_then(|mark| frame.get(mark.offset));
            mark.zip(byte)
                .is_some_and(|(it, byte)| byte & it.mask == it.value)
        };
        let asks = match calls.asks {
            None => side == Side::Client,
            asks => has(asks),
        };
        let heartbeat = has(layout.heartbeat);
        let mut plain = Self {
            length,
            asks,
            oneway: has(layout.oneway),
            heartbeat,
            ids: Vec::new(),
        };
        let places = match (side, asks) {
            (Side::Client, false) => return Ok(Some(plain)),
            (Side::Service, true) if !heartbeat => return Ok(Some(plain)),
            (_, true) => &calls.ids.request,
            (_, false) => &calls.ids.reply,
        };
        for place in places {
            let mut at = 0;
            for Step { field, unit } in &place.steps {
                let Some((_, value)) = field_at(field, frame, at, length)? else {
                    return Ok(None);
                };
                at += (field.offset + field.width) as u128 + u128::from(value) * u128::from(*unit);
            }
            let Some((start, value)) = field_at(&place.field, frame, at, length)? else {
                return Ok(None);
            };
            plain.ids.push((start, place.field, value));
        }
        Ok(Some(plain))
    }

    fn values(&self) -> IdValues {
        let mut values = [0; PLACES_MAX];
        let ids = values.iter_mut().zip(&self.ids);
        ids.for_each(|(value, (_, _, id))| *value = *id);
        values
    }

    fn put(&self, bytes: &mut [u8], ids: IdValues) {
        for ((start, field, _), mut id) in self.ids.iter().zip(ids) {
            let mut places: Vec<usize> = (*start..start + field.width).collect();
            if field.endian == Endian::Big {
                places.reverse();
            }
            for at in places {
                bytes[at] = (id % 256) as u8;
                id /= 256;
            }
        }
    }

    fn first_frame(self) -> FirstFrame {
        let call = Call {
            ids: self.values(),
            oneway: self.oneway,
            heartbeat: self.heartbeat,
        };
        FirstFrame {
            length: self.length as u64,
            asked: match self.asks {
                true => Asked::Call(call),
                false => Asked::Answer,
            },
        }
    }

    fn whose(&self, calls: &Calls) -> Whose<Call> {
        let ids = self.values();
        if !self.asks {
            return Whose::Asked(ids[0]);
        }
        if !self.heartbeat {
            let retires = calls.unasked == Unasked::Retire;
            return Whose::Unasked { retires };
        }
        let words = calls.heartbeat_reply.as_ref().filter(|_| !self.oneway);
        Whose::Heartbeat(words.map(|words| Heartbeat {
            message: answer(calls, words, ids),
            kind: Call {
                ids,
                oneway: true,
                heartbeat: true,
            },
            is_answered: false,
        }))
    }
}

fn length_of(layout: &Layout, bytes: &[u8]) -> Result<Option<usize>, FrameViolation> {
    let length = match &layout.framing {
        _ if bytes.is_empty() => return Ok(None),
        Framing::Delimiter(_) => panic!("frames with ids have no delimiter"),
        Framing::Fixed(size) => *size as i128,
        Framing::Length(field) => {
            let end = field.offset + field.width;
            let Some(digits) = bytes.get(field.offset..end) else {
                return Ok(None);
            };
            let value = number(digits, field.endian);
            let length = i128::from(value) + i128::from(field.adjust) + end as i128;
            if length < end as i128 || length > i128::from(u64::MAX) {
                return Err(FrameViolation::BadLength);
            }
            length
        }
    };
    match length > layout.frame_max as i128 {
        true => Err(FrameViolation::TooLong),
        false => Ok(Some(length as usize)),
    }
}

/// Where it begins and what it is; `None`: it is not in sight.
fn field_at(
    field: &Field,
    frame: &[u8],
    from: u128,
    length: usize,
) -> Result<Option<(usize, u64)>, FrameViolation> {
    let start = from + field.offset as u128;
    let end = start + field.width as u128;
    if end > length.min(ID_END_BYTES_MAX) as u128 {
        return Err(FrameViolation::BadId);
    }
    let digits = frame.get(start as usize..end as usize);
    Ok(digits.map(|digits| (start as usize, number(digits, field.endian))))
}

fn number(digits: &[u8], endian: Endian) -> u64 {
    let mut digits = digits.to_vec();
    if endian == Endian::Little {
        digits.reverse();
    }
    digits
        .into_iter()
        .fold(0, |value, digit| value * 256 + u64::from(digit))
}

/// Bytes that are read as a declaration, in order.
struct Choice<'c>(std::slice::Iter<'c, u8>);

impl Choice<'_> {
    fn number(&mut self) -> usize {
        self.0.next().copied().map_or(0, usize::from)
    }

    /// Mostly a small one, and now and then one that no frame has room for.
    fn distance(&mut self, below: usize) -> usize {
        match self.number() {
            255 => usize::MAX,
            254 => usize::MAX - 7,
            253 => ID_END_BYTES_MAX - 1,
            252 => 255,
            number => number % below,
        }
    }

    fn field(&mut self, below: usize) -> Field {
        Field {
            offset: self.distance(below),
            width: match self.number() {
                255 => usize::MAX,
                254 => 0,
                253 => 9,
                number => 1 + number % 8,
            },
            endian: self.endian(),
        }
    }

    fn endian(&mut self) -> Endian {
        match self.number() & 1 {
            0 => Endian::Big,
            _ => Endian::Little,
        }
    }

    /// One that begins behind `from`.
    fn place(&mut self, from: usize, steps: usize) -> Place {
        let mut id = self.field(5);
        let steps = (0..steps).map(|_| Step {
            field: self.field(5),
            unit: [1, 1, 2, 4, 0, 255][self.number() % 6],
        });
        let mut steps: Vec<Step> = steps.collect();
        let first = steps.first_mut().map_or(&mut id, |step| &mut step.field);
        first.offset = first.offset.saturating_add(from);
        Place { steps, field: id }
    }

    fn places(&mut self) -> Vec<Place> {
        let count = [0, 3, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1][self.number() % 12];
        let mut from = self.number() % 16;
        let places = (1..=count).map(|number| {
            let moves = [0, 1, 1, 2, 5, 0, 0, 0][self.number() % 8];
            let is_last = number == count || self.number() == 0;
            let place = self.place(from, if is_last { moves } else { 0 });
            if self.number() & 7 > 0 {
                from = place.field.offset.saturating_add(place.field.width);
            }
            place
        });
        places.collect()
    }

    fn ids(&mut self) -> Ids {
        let request = self.places();
        let reply = match self.number() % 8 {
            0 => self.places(),
            1..4 => {
                let mut places = request.clone();
                if let Some(last) = places.last_mut() {
                    last.field.offset = last.field.offset.saturating_add(self.number() % 3);
                    last.field.endian = self.endian();
                }
                places
            }
            _ => request.clone(),
        };
        Ids { request, reply }
    }

    fn mark(&mut self) -> Option<Mark> {
        let (is_some, offset) = (self.number() & 1 == 1, self.distance(7));
        let mask = self.number() as u8;
        let value = self.number() as u8 & mask;
        is_some.then_some(Mark {
            offset,
            mask,
            value,
        })
    }

    fn layout(&mut self) -> Layout {
        let framing = match self.number() % 8 {
            0 if self.number() & 3 == 0 => Framing::Delimiter(b"\n"[..].into()),
            0 | 1 => Framing::Fixed(self.distance(48)),
            _ => Framing::Length(LengthField {
                offset: self.distance(5),
                width: [1, 2, 3, 4, 8][self.number() % 5],
                endian: self.endian(),
                adjust: i64::from(self.number() as u8 as i8) >> (self.number() % 8),
            }),
        };
        Layout {
            framing,
            frame_max: self.distance(64).saturating_add(1),
            oneway: self.mark(),
            heartbeat: self.mark(),
        }
    }

    fn calls(&mut self) -> Calls {
        let layout = self.layout();
        let asks = match (self.mark(), layout.heartbeat) {
            (None, Some(_)) => Some(Mark {
                offset: self.number() % 7,
                mask: 1,
                value: 1,
            }),
            (asks, _) => asks,
        };
        let magics = [0, 0, 1, 2][self.number() % 4];
        let magic = (0..magics).map(|_| Magic {
            offset: self.distance(6),
            bytes: b"magic"[..[1, 1, 1, 2, 2, 3, 5, 0][self.number() % 8]].to_vec(),
        });
        Calls {
            magic: magic.collect(),
            layout,
            ids: self.ids(),
            asks,
            unasked: match self.number() & 1 {
                0 => Unasked::Drop,
                _ => Unasked::Retire,
            },
            answers_heartbeats: self.number() & 1 == 1,
            heartbeat_reply: None,
            heartbeat_request: None,
            heartbeat_interval: Duration::from_secs(1),
            error_reply: None,
        }
    }
}
