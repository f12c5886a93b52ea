//! What a connection that several clients share has to know of frames with ids.
//!
//! Nobody is anybody here: one connection is like every other, and nothing is said on it first.

use std::sync::Arc;
use std::time::Duration;

use super::FrameViolation;
use super::calls::{Call, Calls};
use super::id::PLACES_MAX;
use crate::protocol::replies::{
    Heartbeat, Language, Replies, ReplyFrame, ReplyThen, ReplyViolation, Setup, Whose, Wordless,
};

/// Frames with ids.
#[derive(Debug)]
pub struct Framed {
    calls: Arc<Calls>,
    heartbeat: Option<(Heartbeat<Call>, Duration)>,
}

impl Framed {
    /// Those of a declaration that [`Calls::check`] lets through.
    pub fn new(calls: Arc<Calls>) -> Self {
        debug_assert_eq!(calls.check(), Ok(()), "a checked declaration");
        let heartbeat = calls.heartbeat();
        Self { calls, heartbeat }
    }
}

impl Language for Framed {
    type Replies = FrameReplies;
    type Identity = ();

    const RESET: Option<(&'static [u8], &'static [u8])> = None;
    const BY_ID: bool = true;

    fn replies(&self) -> FrameReplies {
        FrameReplies {
            calls: Arc::clone(&self.calls),
            left: 0,
        }
    }

    fn setup((): &()) -> Setup {
        Setup::default()
    }

    fn refusal(_reply: &[u8]) -> Option<&[u8]> {
        None
    }

    fn write_refusal(
        &self,
        call: Call,
        _sentence: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), Wordless> {
        if !call.oneway {
            out.extend(self.calls.error(call).ok_or(Wordless)?);
        }
        Ok(())
    }

    /// Each is handed over alone.
    fn first_request(requests: &[u8]) -> usize {
        requests.len()
    }

    fn is_provable(&self) -> bool {
        self.calls.layout.oneway.is_none()
    }

    fn ids_max(&self) -> usize {
        usize::try_from(self.calls.ids.id_max()).unwrap_or(usize::MAX)
    }

    fn put_id(&self, request: &mut [u8], id: u64) {
        self.calls.put_request(request, [id; PLACES_MAX]);
    }

    fn put_back(&self, request: &mut [u8], call: Call) {
        self.calls.put_request(request, call.ids);
    }

    fn heartbeat(&self) -> Option<(&Heartbeat<Call>, Duration)> {
        self.heartbeat
            .as_ref()
            .map(|(it, interval)| (it, *interval))
    }
}

/// Finds the end of each message of a service.
#[derive(Debug)]
pub struct FrameReplies {
    calls: Arc<Calls>,
    /// What is still to come of the message at the front.
    left: u64,
}

impl Replies for FrameReplies {
    type Kind = Call;

    fn whose(&mut self, bytes: &[u8]) -> Result<Option<Whose<Call>>, ReplyViolation> {
        let first = self.calls.first_message(bytes).map_err(violation)?;
        Ok(first.map(|(whose, length)| {
            self.left = length;
            whose
        }))
    }

    fn put_back(&self, reply: &mut [u8], call: Call) {
        self.calls.put_reply(reply, call.ids);
    }

    fn frame(&mut self, _call: Call, bytes: &[u8]) -> Result<ReplyFrame, ReplyViolation> {
        self.frame_unasked(bytes)
    }

    fn frame_unasked(&mut self, bytes: &[u8]) -> Result<ReplyFrame, ReplyViolation> {
        let taken = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.left -= taken as u64;
        Ok(ReplyFrame {
            taken,
            shown: true,
            then: match self.left {
                0 => ReplyThen::End,
                _ => ReplyThen::More,
            },
        })
    }
}

fn violation(violation: FrameViolation) -> ReplyViolation {
    ReplyViolation(match violation {
        FrameViolation::TooLong => "the frame is too long",
        FrameViolation::BadLength => "the frame's length is impossible",
        FrameViolation::BadId => "the frame has no room for its id",
        FrameViolation::BadMagic => "the frame has not the magic of its protocol",
        FrameViolation::TooManyHeartbeats => "there were too many heartbeats",
    })
}
