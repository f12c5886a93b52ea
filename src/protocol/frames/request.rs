//! A client's request: one frame, which goes on as it is.
//!
//! Invariant: no byte goes on before the kind of the frame is known, and none after its boundary is
//! taken; it belongs to the next request.

use super::delimiter::Taken;
use super::head::{Head, Rest};
use super::layout::{Layout, Mark};
use super::{FrameViolation, RequestFacts};
use crate::protocol::{Frame, Framer, Pass, Then};

/// Frames one request. After the boundary or a violation it is spent.
#[derive(Debug)]
pub struct RequestFramer<'l> {
    layout: &'l Layout,
    state: State<'l>,
    facts: Option<RequestFacts>,
}

/// `Head ─▶ Rest ─▶ Complete`
#[derive(Debug)]
enum State<'l> {
    Head,
    Rest(Rest<'l>),
    Complete,
}

impl<'l> RequestFramer<'l> {
    /// For one request in a layout that [`Layout::check`] lets through.
    #[must_use]
    pub fn new(layout: &'l Layout) -> Self {
        debug_assert_eq!(layout.check(), Ok(()), "a checked layout");
        Self {
            layout,
            state: State::Head,
            facts: None,
        }
    }

    /// What the head of the frame said: known before any byte of it goes on.
    #[must_use]
    pub fn facts(&self) -> Option<RequestFacts> {
        self.facts
    }

    fn facts_of(&self, head: &Head<'_, '_>) -> RequestFacts {
        let has = |mark: Option<Mark>| mark.is_some_and(|mark| mark.is_on(head.bytes));
        RequestFacts {
            oneway: has(self.layout.oneway),
            heartbeat: has(self.layout.heartbeat),
            length: head.length,
        }
    }
}

impl Framer for RequestFramer<'_> {
    type Violation = FrameViolation;

    fn frame(&mut self, bytes: &[u8], _edited: &mut Vec<u8>) -> Result<Frame, FrameViolation> {
        if let State::Head = self.state {
            let marks = [self.layout.oneway, self.layout.heartbeat];
            let marks_end = marks.iter().flatten().map(Mark::end).max().unwrap_or(0);
            let Some(head) = Head::read(self.layout, marks_end, bytes)? else {
                return Ok(Frame::WAIT);
            };
            self.facts = Some(self.facts_of(&head));
            self.state = State::Rest(head.rest);
        }
        let State::Rest(rest) = &mut self.state else {
            return Ok(Frame::ENDED);
        };
        let Taken { count, is_whole } = rest.take(bytes)?;
        if is_whole {
            self.state = State::Complete;
        }
        Ok(Frame {
            taken: count,
            pass: Pass::Verbatim,
            then: if is_whole { Then::Boundary } else { Then::More },
        })
    }
}
