//! Declared framing: protocols of requests and replies of which millpond knows no more than where
//! their frames end. A length field, a delimiter or a fixed size says it; one frame is a request, and
//! one frame is its reply. Where both have an id, replies may come in any order (`calls`).
//!
//! Not here: what is in a frame, and replies of several frames. A service that sends frames of its own
//! accord is known only by their mark.
//!
//! Invariant: every byte but an id goes on as it is or, of what a service says of its own accord, not at all.
//! What belongs to a frame depends on the declared layout and on the bytes of that frame alone.

mod calls;
mod delimiter;
mod head;
mod id;
mod language;
mod layout;
mod reply;
mod request;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use calls::{Asked, Call, Calls, CallsFault, FirstFrame, Magic, Template, Unasked};
pub use id::{
    Field, ID_END_BYTES_MAX, IdValues, Ids, IdsFault, PLACES_MAX, Place, STEPS_MAX, Step,
};
pub use language::Framed;
pub use layout::{
    DELIMITER_BYTES_MAX, Endian, Framing, HEAD_BYTES_MAX, Layout, LayoutFault, LengthField, Mark,
    MarkFault,
};
pub use reply::ReplyFramer;
pub use request::RequestFramer;

/// What the head of a request's frame said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFacts {
    /// It has the mark of those that are not answered.
    pub oneway: bool,
    /// It has the mark of those that only say that their sender is alive.
    pub heartbeat: bool,
    /// Bytes of the frame, all of it. `None`: it ends with a delimiter, nobody knows where.
    pub length: Option<u64>,
}

/// Why a frame is refused. Of a request it is the client's fault, of a reply the service's; or the
/// layout is not the one that they speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameViolation {
    /// Over [`Layout::frame_max`]. Nothing of the frame went on where a length says so; what came
    /// before the last place for the delimiter did.
    #[error("the frame is too long")]
    TooLong,
    /// The length field says that the frame ends before the field does, or has no 64 bits.
    #[error("the length of the frame is impossible")]
    BadLength,
    /// A frame is too short for its id, or has it too far in.
    #[error("the frame has no room for its id")]
    BadId,
    /// It does not begin as the frames of its protocol do.
    #[error("the frame has not the magic of its protocol")]
    BadMagic,
    /// More than 100 before the reply to one request.
    #[error("there were too many heartbeats before the reply")]
    TooManyHeartbeats,
}
