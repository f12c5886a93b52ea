//! Any bytes as requests to a memcached and as its replies: no panic, no byte too many taken, the same
//! answer for any cut, and no shared request that asks for silence.
#![no_main]

#[path = "../../../src/protocol/memcached/tests/any.rs"]
mod any;

use libfuzzer_sys::fuzz_target;
use millpond::protocol::memcached::{
    Hidden, Kind, Limits, ReplyFramer, RequestFramer, RequestViolation, Scan, Shape, Treatment,
    treatment, write_disarmed,
};
use millpond::protocol::replies::{Replies, ReplyThen, ReplyViolation};

fuzz_target!(|data: &[u8]| {
    any::check(data);
});
