//! Any bytes as a response: no panic, no byte too many taken, the same answer for any cut, and a
//! response that goes on has the same boundary for its next reader.
#![no_main]

#[path = "../../../src/protocol/tests/drive.rs"]
mod drive;

use std::sync::Arc;

use drive::{End, drive};
use libfuzzer_sys::fuzz_target;
use millpond::protocol::http::{BodyLength, Options, RequestFacts, ResponseFramer};
use millpond::protocol::{Eof, Reply};
use millpond::protocol::{Framer, Pass, PinReason, Then};

fuzz_target!(|data: &[u8]| {
    let [choice, first, second, sent @ ..] = data else { return };
    let options = Options {
        head_max: 512,
        body_max: None,
        authority: Arc::from("service.test"),
        forwarded: None,
    };
    let request = RequestFacts {
        idempotent: true,
        head: choice & 1 == 1,
        version_minor: choice >> 1 & 1,
        keep_alive: choice & 4 == 4,
        expects_continue: false,
        upgrade: choice & 8 == 8,
        body: BodyLength::None,
    };
    let new = || {
        let mut framer = ResponseFramer::new(request, &options);
        framer.set_client_close(choice & 16 == 16);
        framer
    };
    let mut cuts = [first, second].map(|cut| usize::from(*cut) % (sent.len() + 1));
    cuts.sort_unstable();

    let (mut framer, mut other) = (new(), new());
    let whole = drive(&mut framer, sent, []);
    assert_eq!(drive(&mut other, sent, cuts), whole);
    assert_eq!(drive(&mut new(), sent, 0..sent.len()), whole);
    assert_eq!(other.facts(), framer.facts());
    if !matches!(whole.end, End::Violation(_)) {
        assert_eq!(other.eof(), framer.eof());
    }

    if whole.end == End::Boundary {
        let passed = whole.passed();
        // What was added for the client may take a head over the limit of the first reader.
        let wider = Options { head_max: 1024, ..options.clone() };
        let mut next = ResponseFramer::new(request, &wider);
        next.set_client_close(choice & 16 == 16);
        let again = drive(&mut next, &passed, []);
        assert_eq!(again.passed(), passed);
        assert_eq!(next.eof(), Eof::Complete);
        assert_eq!(next.client_closes(), framer.client_closes());
    }
});
