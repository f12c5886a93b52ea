//! Any bytes as commands and as replies of Redis: no panic, no byte too many taken, and what a plain
//! reading of RESP says, for any cut.
#![no_main]

#[path = "../../../src/protocol/redis/tests/any.rs"]
mod any;

use libfuzzer_sys::fuzz_target;
use millpond::protocol::redis::{
    Arguments, Limits, ReplyFramer, RequestFramer, RequestViolation, Scan, Shape, Treatment,
    canonical, is_inline, treatment,
};
use millpond::protocol::replies::{Replies, ReplyThen};

const LIMITS: Limits = Limits {
    arguments_max: 9,
    bulk_bytes_max: 50,
    inline_bytes_max: 40,
};

fuzz_target!(|data: &[u8]| {
    let [first, second, sent @ ..] = data else { return };
    let mut cuts = [first, second].map(|cut| usize::from(*cut) % (sent.len() + 1));
    cuts.sort_unstable();
    any::check_requests(LIMITS, sent, &cuts);
    any::check_replies(sent, &cuts);
});
