//! A service's reply to one request: one frame, which goes on as it is.
//!
//! Heartbeats of the service may stand before it, and are dropped: the client did not ask for them,
//! and counts a reply for each request. Only where its request was a heartbeat itself is the first
//! frame its reply, whatever it is; nothing tells the two kinds apart.
//!
//! Invariant: no byte goes on before the kind of its frame is known, and a reply has no end but its
//! boundary.

use super::delimiter::Taken;
use super::head::{Head, Rest};
use super::layout::{Layout, Mark};
use super::{FrameViolation, RequestFacts};
use crate::protocol::{Eof, Frame, Framer, Pass, Reply, Then};

/// Heartbeats before one reply, at most. Dubbo sends one a minute over a connection that is silent.
const HEARTBEATS_MAX: u32 = 100;

/// Frames the reply to one request, with the heartbeats that precede it. After the boundary or a
/// violation it is spent.
#[derive(Debug)]
pub struct ReplyFramer<'l> {
    layout: &'l Layout,
    is_owed: bool,
    /// What marks the frames that are not the reply.
    heartbeat: Option<Mark>,
    heartbeats: u32,
    state: State<'l>,
}

/// ```text
///   Head ─▶ Reply ─▶ Complete
///   │  ▲
///   ▼  │
///   Heartbeat
/// ```
#[derive(Debug)]
enum State<'l> {
    /// `begun`: some bytes of the frame are in sight, too few to tell what it is.
    Head {
        begun: bool,
    },
    Heartbeat(Rest<'l>),
    Reply(Rest<'l>),
    Complete,
}

impl<'l> ReplyFramer<'l> {
    /// For the reply to the request that said `request`, in the layout that it was framed by. A
    /// one-way request has none: nothing is owed, and nothing is framed.
    #[must_use]
    pub fn new(layout: &'l Layout, request: RequestFacts) -> Self {
        debug_assert_eq!(layout.check(), Ok(()), "a checked layout");
        Self {
            layout,
            is_owed: !request.oneway,
            heartbeat: layout.heartbeat.filter(|_| !request.heartbeat),
            heartbeats: 0,
            state: State::Head { begun: false },
        }
    }

    /// Heartbeats of the service that were dropped, one that is under way included.
    #[must_use]
    pub fn heartbeats_skipped(&self) -> u32 {
        self.heartbeats
    }

    /// The state after the head, once that is in sight.
    fn read_head(&mut self, bytes: &[u8]) -> Result<Option<State<'l>>, FrameViolation> {
        let marks_end = self.heartbeat.map_or(0, |mark| mark.end());
        let Some(head) = Head::read(self.layout, marks_end, bytes)? else {
            return Ok(None);
        };
        if !self.heartbeat.is_some_and(|mark| mark.is_on(head.bytes)) {
            return Ok(Some(State::Reply(head.rest)));
        }
        if self.heartbeats == HEARTBEATS_MAX {
            return Err(FrameViolation::TooManyHeartbeats);
        }
        self.heartbeats += 1;
        Ok(Some(State::Heartbeat(head.rest)))
    }
}

impl Framer for ReplyFramer<'_> {
    type Violation = FrameViolation;

    fn frame(&mut self, bytes: &[u8], _edited: &mut Vec<u8>) -> Result<Frame, FrameViolation> {
        if let State::Head { begun } = &mut self.state {
            *begun |= !bytes.is_empty();
            match self.read_head(bytes)? {
                None => return Ok(Frame::WAIT),
                Some(state) => self.state = state,
            }
        }
        let (rest, pass, then, next) = match &mut self.state {
            State::Heartbeat(rest) => {
                let next = State::Head { begun: false };
                (rest, Pass::Dropped, Then::OneMoreResponse, next)
            }
            State::Reply(rest) => (rest, Pass::Verbatim, Then::Boundary, State::Complete),
            State::Head { .. } | State::Complete => {
                return Ok(Frame::ENDED);
            }
        };
        let Taken { count, is_whole } = rest.take(bytes)?;
        if is_whole {
            self.state = next;
        }
        Ok(Frame {
            taken: count,
            pass,
            then: if is_whole { then } else { Then::More },
        })
    }
}

impl Reply for ReplyFramer<'_> {
    fn eof(&mut self) -> Eof {
        match self.state {
            State::Head { begun: false } => Eof::Nothing,
            State::Complete => Eof::Complete,
            // Half a heartbeat too: a service that dies within a frame did not end in order.
            State::Head { begun: true } | State::Heartbeat(_) | State::Reply(_) => Eof::Truncated,
        }
    }

    fn allows_reuse(&self) -> bool {
        matches!(self.state, State::Complete) || !self.is_owed
    }

    fn is_begun(&self) -> bool {
        matches!(self.state, State::Reply(_) | State::Complete)
    }

    fn client_sees_end(&self) -> bool {
        self.layout.client_sees_end()
    }

    fn is_owed(&self) -> bool {
        self.is_owed
    }

    fn says_idle_for_too_long(&self) -> bool {
        false
    }

    fn announce_close(&mut self, _closes: bool) {}
}
