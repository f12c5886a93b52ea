//! Requests with ids: many may be under way over one connection, and their replies come in any order.
//!
//! Not here: the relay that shares a connection (see `relay::shared`), and who may ask (see `session`).
//!
//! Invariant: an id that goes to a service is one of the connection's own, and a client sees only its own.

use std::ops::Range;
use std::time::Duration;

use thiserror::Error;

use super::head::Head;
use super::id::{self, IdValues, Ids, IdsFault, NoId, Place};
use super::layout::{Framing, HEAD_BYTES_MAX, Layout, Mark};
use super::{FrameViolation, RequestFacts};
use crate::protocol::replies::{Heartbeat, Whose};

/// A framing whose requests have ids, and what is said in it without a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    /// Where a frame ends. A delimiter can't be: an id may be any bytes.
    pub layout: Layout,
    /// Where the ids stand.
    pub ids: Ids,
    /// What every frame has in common.
    pub magic: Vec<Magic>,
    /// Marks the frames that ask; the others answer. `None`: a client only asks, and a service only answers.
    pub asks: Option<Mark>,
    /// What becomes of a connection over which its service asks something, or says it unasked.
    pub unasked: Unasked,
    /// Whether clients' heartbeats are answered by millpond.
    pub answers_heartbeats: bool,
    /// How heartbeats are answered: those of the service, and those of clients where millpond does.
    pub heartbeat_reply: Option<Vec<u8>>,
    /// What a shared connection is sent that is quiet.
    pub heartbeat_request: Option<Vec<u8>>,
    /// How long it is quiet before.
    pub heartbeat_interval: Duration,
    /// What a client is sent in place of a reply that can't be had; `None`: its connection ends.
    pub error_reply: Option<Vec<u8>>,
}

/// Bytes that stand at the same place in every frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Magic {
    /// Bytes before them.
    pub offset: usize,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What follows from what a service says of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    /// Nothing: it is dropped.
    Drop,
    /// It is dropped, and its connection given up as soon as it owes nothing.
    Retire,
}

/// Why a declaration can't be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallsFault {
    /// An id may hold the delimiter.
    #[error("frames that end with a delimiter can't have ids: an id may be any bytes")]
    Delimiter,
    /// Of the places.
    #[error("{0}")]
    Ids(IdsFault),
    /// After [`HEAD_BYTES_MAX`], or it is empty.
    #[error("does not lie within the first {HEAD_BYTES_MAX} bytes of the longest frame")]
    Magic,
    /// Of the mark of frames that ask.
    #[error("the mark of requests {0}")]
    Asks(super::MarkFault),
    /// A heartbeat of the service's could not be told from a reply.
    #[error("heartbeats with ids can't be told from replies without a mark of requests")]
    HeartbeatsUntold,
    /// Of the frames that are written in the file.
    #[error("is not one whole frame with its id and magic that asks, or answers, as it should")]
    Template(Template),
}

/// A frame that is written in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// In place of a reply.
    Error,
    /// Of a heartbeat.
    HeartbeatReply,
    /// A heartbeat.
    HeartbeatRequest,
}

/// What a request says about its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its ids, as its client has them.
    pub ids: IdValues,
    /// It has no reply.
    pub oneway: bool,
    /// It only shows that its client is alive.
    pub heartbeat: bool,
}

/// What a client's frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A request.
    Call(Call),
    /// It answers what a service asked, which no client is shown.
    Answer,
}

/// The first frame of some bytes, as far as it is in sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstFrame {
    /// Bytes of it, all of it.
    pub length: u64,
    /// What it is.
    pub asked: Asked,
}

/// What the head of a frame says.
struct Seen {
    facts: RequestFacts,
    /// Whether it has the mark of those that ask, where there is one.
    asks: Option<bool>,
    length: u64,
}

impl Calls {
    /// Says what makes the declaration impossible. The layout is possible.
    pub fn check(&self) -> Result<(), CallsFault> {
        let (frame_max, length_field) = match &self.layout.framing {
            Framing::Delimiter(_) => return Err(CallsFault::Delimiter),
            Framing::Fixed(size) => (*size, 0..0),
            Framing::Length(field) => (
                self.layout.frame_max,
                field.offset..field.offset + field.width,
            ),
        };
        if self.magic.iter().any(|it| !it.fits(frame_max)) {
            return Err(CallsFault::Magic);
        }
        if let Some(asks) = self.asks {
            asks.check(frame_max).map_err(CallsFault::Asks)?;
        } else if self.layout.heartbeat.is_some() {
            return Err(CallsFault::HeartbeatsUntold);
        }
        let marks = self.marks().map(|mark| mark.offset..mark.end());
        let magic = self.magic.iter().map(Magic::range);
        let mut reserved: Vec<_> = marks.chain(magic).collect();
        if !length_field.is_empty() {
            reserved.push(length_field);
        }
        let places = self.ids.check(frame_max, &reserved);
        places.map_err(CallsFault::Ids)?;
        self.check_templates()
    }

    fn check_templates(&self) -> Result<(), CallsFault> {
        let heartbeat = self.heartbeat_request.as_ref();
        let reply = self.heartbeat_reply.as_ref();
        for (template, frame, asks) in [
            (Template::Error, self.error_reply.as_ref(), false),
            (Template::HeartbeatReply, reply, false),
            (Template::HeartbeatRequest, heartbeat, true),
        ] {
            if frame.is_some_and(|frame| !self.is_whole(frame, asks)) {
                return Err(CallsFault::Template(template));
            }
        }
        Ok(())
    }

    /// Whether it is one whole frame that asks, or answers.
    fn is_whole(&self, frame: &[u8], asks: bool) -> bool {
        let Ok(Some(seen)) = self.head(frame) else {
            return false;
        };
        seen.length == frame.len() as u64
            && seen.asks.is_none_or(|it| it == asks)
            && id::locate(self.places(asks), frame, seen.length).is_ok()
    }

    /// What the first of these bytes of a client's are; `None` where too few are in sight.
    ///
    /// # Errors
    /// The client broke the protocol, or its frame is too long.
    pub fn first_frame(&self, bytes: &[u8]) -> Result<Option<FirstFrame>, FrameViolation> {
        let Some(Seen {
            facts,
            asks,
            length,
        }) = self.head(bytes)?
        else {
            return Ok(None);
        };
        if asks == Some(false) {
            let asked = Asked::Answer;
            return Ok(Some(FirstFrame { length, asked }));
        }
        let Some(ids) = ids_of(&self.ids.request, bytes, length)? else {
            return Ok(None);
        };
        let call = Call {
            ids,
            oneway: facts.oneway,
            heartbeat: facts.heartbeat,
        };
        let asked = Asked::Call(call);
        Ok(Some(FirstFrame { length, asked }))
    }

    /// Whose the first of these bytes of the service's are, and how many they are.
    pub(super) fn first_message(
        &self,
        bytes: &[u8],
    ) -> Result<Option<(Whose<Call>, u64)>, FrameViolation> {
        let Some(Seen {
            facts,
            asks,
            length,
        }) = self.head(bytes)?
        else {
            return Ok(None);
        };
        let asks = asks == Some(true);
        if asks && !facts.heartbeat {
            let retires = self.unasked == Unasked::Retire;
            return Ok(Some((Whose::Unasked { retires }, length)));
        }
        let Some(ids) = ids_of(self.places(asks), bytes, length)? else {
            return Ok(None);
        };
        let whose = match asks {
            true if facts.oneway => Whose::Heartbeat(None),
            true => {
                let answer = self.heartbeat_answer(ids);
                Whose::Heartbeat(answer.map(|message| Heartbeat {
                    message,
                    kind: Call {
                        ids,
                        oneway: true,
                        heartbeat: true,
                    },
                    is_answered: false,
                }))
            }
            false => Whose::Asked(ids[0]),
        };
        Ok(Some((whose, length)))
    }

    /// What a client is told in place of a reply.
    pub fn error(&self, call: Call) -> Option<Vec<u8>> {
        let template = self.error_reply.as_ref()?;
        Some(self.filled(template, call.ids))
    }

    /// How a client's heartbeat is answered, where millpond does.
    pub fn answer_to_heartbeat(&self, call: Call) -> Option<Vec<u8>> {
        let answers = self.answers_heartbeats && call.heartbeat && !call.oneway;
        answers.then(|| self.heartbeat_answer(call.ids))?
    }

    fn heartbeat_answer(&self, ids: IdValues) -> Option<Vec<u8>> {
        let template = self.heartbeat_reply.as_ref()?;
        Some(self.filled(template, ids))
    }

    /// A reply with these ids.
    fn filled(&self, template: &[u8], ids: IdValues) -> Vec<u8> {
        let mut frame = template.to_vec();
        self.put_reply(&mut frame, ids);
        frame
    }

    /// Puts other ids into the beginning of a request that has its places in sight.
    pub(super) fn put_request(&self, frame: &mut [u8], ids: IdValues) {
        put(&self.ids.request, frame, ids);
    }

    /// The same for a reply.
    pub(super) fn put_reply(&self, frame: &mut [u8], ids: IdValues) {
        put(&self.ids.reply, frame, ids);
    }

    /// The heartbeat that a quiet connection is sent.
    pub(super) fn heartbeat(&self) -> Option<(Heartbeat<Call>, Duration)> {
        let message = self.heartbeat_request.clone()?;
        let Ok(Some(FirstFrame {
            asked: Asked::Call(call),
            ..
        })) = self.first_frame(&message)
        else {
            return None;
        };
        let kind = Call {
            heartbeat: true,
            ..call
        };
        let heartbeat = Heartbeat {
            message,
            kind,
            is_answered: !kind.oneway,
        };
        Some((heartbeat, self.heartbeat_interval))
    }

    /// What the head of a frame says.
    fn head(&self, bytes: &[u8]) -> Result<Option<Seen>, FrameViolation> {
        let ends = self.marks().map(|mark| mark.end());
        let magic = self.magic.iter().map(|it| it.range().end);
        let head_end = ends.chain(magic).max().unwrap_or(0);
        let Some(head) = Head::read(&self.layout, head_end, bytes)? else {
            return Ok(None);
        };
        if self.magic.iter().any(|it| !it.is_on(head.bytes)) {
            return Err(FrameViolation::BadMagic);
        }
        let has = |mark: Option<Mark>| mark.is_some_and(|mark| mark.is_on(head.bytes));
        let asks = self.asks.map(|mark| mark.is_on(head.bytes));
        let facts = RequestFacts {
            oneway: has(self.layout.oneway),
            heartbeat: has(self.layout.heartbeat),
            length: head.length,
        };
        Ok(head.length.map(|length| Seen {
            facts,
            asks,
            length,
        }))
    }

    /// Where what asks has its ids, or what answers.
    fn places(&self, asks: bool) -> &[Place] {
        match asks {
            true => &self.ids.request,
            false => &self.ids.reply,
        }
    }

    fn marks(&self) -> impl Iterator<Item = Mark> {
        let marks = [self.layout.oneway, self.layout.heartbeat, self.asks];
        marks.into_iter().flatten()
    }
}

/// What stands in the places of a frame; `None`: they are not in sight.
fn ids_of(places: &[Place], bytes: &[u8], length: u64) -> Result<Option<IdValues>, FrameViolation> {
    match id::locate(places, bytes, length) {
        Ok(spots) => Ok(Some(id::read(places, spots, bytes))),
        Err(NoId::NotInSight) => Ok(None),
        Err(NoId::Outside) => Err(FrameViolation::BadId),
    }
}

fn put(places: &[Place], frame: &mut [u8], ids: IdValues) {
    match id::locate(places, frame, u64::MAX) {
        Ok(spots) => id::write(places, spots, frame, ids),
        Err(_) => debug_assert!(false, "the ids of a frame that goes on are in sight"),
    }
}

impl Magic {
    fn range(&self) -> Range<usize> {
        self.offset..self.offset.saturating_add(self.bytes.len())
    }

    fn fits(&self, frame_max: usize) -> bool {
        !self.bytes.is_empty() && self.range().end <= frame_max.min(HEAD_BYTES_MAX)
    }

    fn is_on(&self, frame: &[u8]) -> bool {
        frame.get(self.range()) == Some(&self.bytes)
    }
}
