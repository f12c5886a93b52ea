//! Any bytes as requests and as replies: however they are cut, the framers say the same. Run by the
//! tests over seeds and by the fuzz target.

use super::{
    Hidden, Kind, Limits, Replies, ReplyFramer, ReplyThen, ReplyViolation, RequestFramer,
    RequestViolation, Scan, Shape, Treatment, treatment, write_disarmed,
};

/// What came of a client's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Whole(Vec<u8>),
    Faulty(RequestViolation, bool),
    Ended(RequestViolation),
}

/// What came of a service's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// A whole reply: what the client sees of it.
    Reply(Vec<u8>),
    /// The reply that the bytes ended within.
    Begun(Vec<u8>),
    Broken(ReplyViolation),
}

pub(crate) const SHAPES: [Shape; 13] = [
    Shape::Values,
    Shape::Stored,
    Shape::Deleted,
    Shape::Touched,
    Shape::Number,
    Shape::Version,
    Shape::AnyLine,
    Shape::Statistics,
    Shape::MetaGet,
    Shape::MetaSet,
    Shape::MetaDelete,
    Shape::MetaArithmetic,
    Shape::MetaDebug,
];

pub(crate) const HIDDEN: [Hidden; 4] =
    [Hidden::Nothing, Hidden::All, Hidden::Miss, Hidden::Success];

/// Panics where a framer is wrong. The first bytes choose the cuts and the kind of the replies.
pub(crate) fn check(data: &[u8]) {
    let Some((choice, sent)) = data.split_first_chunk::<4>() else {
        return;
    };
    let mut cuts = [choice[0], choice[1]].map(|cut| usize::from(cut) % (sent.len() + 1));
    cuts.sort_unstable();
    let every: Vec<usize> = (0..sent.len()).collect();
    let limits = Limits {
        line_bytes_max: 4096,
        item_bytes_max: 40,
    };
    let whole = ask(limits, sent, &[], false);
    for cuts in [&cuts[..], &every] {
        assert_eq!(ask(limits, sent, cuts, false), whole, "cut at {cuts:?}");
        // What goes on early is the same request, unless its data ends wrongly.
        let streamed = ask(limits, sent, cuts, true);
        assert_eq!(streamed.len(), whole.len(), "cut at {cuts:?}");
        for (streamed, whole) in streamed.iter().zip(&whole) {
            let is_bad = matches!(whole, Asked::Faulty(RequestViolation::BadDataChunk, _));
            assert!(is_bad || streamed == whole, "{streamed:?}, not {whole:?}");
        }
    }
    for asked in &whole {
        if let Asked::Whole(request) = asked {
            check_request(limits, request);
        }
    }
    let kind = Kind {
        shape: SHAPES[usize::from(choice[2]) % SHAPES.len()],
        hidden: HIDDEN[usize::from(choice[3]) % HIDDEN.len()],
    };
    let kinds = vec![kind; sent.len()];
    let whole = tell(&kinds, sent, &[]);
    for cuts in [&cuts[..], &every] {
        assert_eq!(tell(&kinds, sent, cuts), whole, "{kind:?} cut at {cuts:?}");
    }
}

/// A shared request is one request in its other form too, and that asks for no silence.
fn check_request(limits: Limits, request: &[u8]) {
    let Treatment::Share(shared) = treatment(request) else {
        return;
    };
    let mut disarmed = Vec::new();
    write_disarmed(request, &mut disarmed);
    assert_eq!(shared.armed, disarmed.len() < request.len());
    assert!(shared.armed || disarmed == request);
    assert_eq!(shared.armed, shared.kind.hidden != Hidden::Nothing);
    let again = ask(limits, &disarmed, &[], false);
    assert_eq!(again, [Asked::Whole(disarmed.clone())], "one request");
    if let Treatment::Share(again) = treatment(&disarmed) {
        assert!(!again.armed, "{}", disarmed.escape_ascii());
        assert_eq!(again.kind, Kind::shown(shared.kind.shape));
    }
}

/// Shows `sent` to a framer of requests up to each of `cuts` in turn, and all of it at the end.
/// `streams`: what may go on early does.
pub(crate) fn ask(limits: Limits, sent: &[u8], cuts: &[usize], streams: bool) -> Vec<Asked> {
    let mut framer = RequestFramer::new(limits);
    let mut asked = Vec::new();
    let mut early = Vec::new();
    let mut at = 0;
    for end in cuts.iter().copied().chain([sent.len()]) {
        loop {
            let scan = match framer.scan(&sent[at.min(end)..end]) {
                Ok(scan) => scan,
                Err(violation) => {
                    asked.push(Asked::Ended(violation));
                    return asked;
                }
            };
            match scan {
                Scan::More => break,
                Scan::Whole { bytes } => {
                    early.extend_from_slice(&sent[at..at + bytes]);
                    asked.push(Asked::Whole(std::mem::take(&mut early)));
                    at += bytes;
                }
                Scan::Faulty {
                    bytes,
                    violation,
                    shown,
                } => {
                    asked.push(Asked::Faulty(violation, shown));
                    at += bytes;
                }
                Scan::Skipped { bytes } => at += bytes,
            }
            assert!(at <= end, "no more than there is");
            assert_eq!(framer.scanned(), 0, "nothing is begun");
        }
        let scanned = framer.scanned();
        assert!(at + scanned <= end, "no more than there is");
        if streams && scanned > 0 {
            framer.consumed(scanned);
            early.extend_from_slice(&sent[at..at + scanned]);
            at += scanned;
            assert_eq!(framer.scanned(), 0);
        }
    }
    asked
}

/// Shows `sent` to a framer of replies, which are owed in the order of `kinds`, up to each of `cuts`
/// in turn, and all of it at the end.
pub(crate) fn tell(kinds: &[Kind], sent: &[u8], cuts: &[usize]) -> Vec<Told> {
    let mut framer = ReplyFramer::new();
    let mut told = Vec::new();
    let mut seen = Vec::new();
    let mut at = 0;
    for end in cuts.iter().copied().chain([sent.len()]) {
        while at < end {
            let Some(kind) = kinds.get(told.len()) else {
                return told;
            };
            let frame = match framer.frame(*kind, &sent[at..end]) {
                Ok(frame) => frame,
                Err(violation) => {
                    told.push(Told::Begun(seen));
                    told.push(Told::Broken(violation));
                    return told;
                }
            };
            assert!(frame.taken > 0 || frame.then == ReplyThen::More);
            assert!(frame.taken > 0 || end - at <= 4096, "it waits for no more");
            if frame.shown {
                seen.extend_from_slice(&sent[at..at + frame.taken]);
            }
            at += frame.taken;
            match frame.then {
                ReplyThen::End => told.push(Told::Reply(std::mem::take(&mut seen))),
                ReplyThen::More if frame.taken == 0 => break,
                ReplyThen::More => {}
            }
        }
    }
    if !seen.is_empty() {
        told.push(Told::Begun(seen));
    }
    told
}
