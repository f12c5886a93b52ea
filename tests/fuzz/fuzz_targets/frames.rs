//! Any bytes as a layout and frames: no panic, no byte too many taken, and what a plain reading of
//! the layout says, for any cut.
#![no_main]

#[path = "../../../src/protocol/frames/tests/any.rs"]
mod any;
#[path = "../../../src/protocol/tests/drive.rs"]
mod drive;

use libfuzzer_sys::fuzz_target;
use millpond::protocol::frames::{
    Endian, FrameViolation, Framing, Layout, LengthField, Mark, ReplyFramer, RequestFacts,
    RequestFramer,
};
use millpond::protocol::{Eof, Framer, Pass, PinReason, Reply, Then};

fuzz_target!(|data: &[u8]| {
    any::check(data);
});
