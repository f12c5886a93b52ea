//! Any bytes as a request: no panic, no byte too many taken, the same answer for any cut, and a
//! request that goes on has the same boundary for its next reader.
#![no_main]

#[path = "../../../src/protocol/tests/drive.rs"]
mod drive;

use std::sync::Arc;

use drive::{End, drive};
use libfuzzer_sys::fuzz_target;
use millpond::protocol::http::{Forwarded, Options, RequestFramer};
use millpond::protocol::{Framer, Pass, PinReason, Then};

fuzz_target!(|data: &[u8]| {
    let [choice, first, second, sent @ ..] = data else { return };
    let mut options = Options {
        head_max: 512,
        body_max: Some(256),
        authority: Arc::from("service.test"),
        forwarded: (choice & 1 == 1).then(Forwarded::from_unix),
    };
    let mut cuts = [first, second].map(|cut| usize::from(*cut) % (sent.len() + 1));
    cuts.sort_unstable();

    let whole = drive(&mut RequestFramer::new(&options), sent, []);
    let in_three = drive(&mut RequestFramer::new(&options), sent, cuts);
    assert_eq!(in_three, whole);
    let in_bytes = drive(&mut RequestFramer::new(&options), sent, 0..sent.len());
    assert_eq!(in_bytes, whole);

    if whole.end == End::Boundary {
        let passed = whole.passed();
        options.forwarded = None;
        options.head_max *= 2;
        let next = drive(&mut RequestFramer::new(&options), &passed, []);
        assert_eq!(next.end, End::Boundary);
        assert_eq!(next.taken, passed.len());
        if choice & 1 == 0 {
            assert_eq!(next.passed(), passed);
        }
    }
});
