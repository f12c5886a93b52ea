//! Any bytes as a declaration with ids and as frames of a client's and of a service's: no panic, whose they
//! are is what a plain reading of the declaration says, for any cut, and ids come back as they were.
#![no_main]

#[path = "../../../src/protocol/frames/tests/any_calls.rs"]
mod any_calls;

use libfuzzer_sys::fuzz_target;
use millpond::protocol::frames::{
    Asked, Call, Calls, CallsFault, Endian, Field, FirstFrame, FrameViolation, Framed, Framing,
    ID_END_BYTES_MAX, IdValues, Ids, Layout, LengthField, Magic, Mark, PLACES_MAX, Place, Step,
    Template, Unasked,
};
use millpond::protocol::replies::{Heartbeat, Language, Replies, ReplyThen, ReplyViolation, Whose};

fuzz_target!(|data: &[u8]| {
    any_calls::check(data);
});
