//! Any bytes as a layout and frames: what the framers make of them, however they are cut, is what a
//! plain reading of the layout says. Run by the tests over seeds and by the fuzz target.

use super::drive::{End, Piece, Run, drive};
use super::{
    Endian, Eof, FrameViolation, Framing, Layout, LengthField, Mark, Reply, ReplyFramer,
    RequestFacts, RequestFramer,
};

/// The bytes that choose layout, cuts and the kind of the request.
pub(crate) const CHOICE_BYTES: usize = 20;

/// How the two framers ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) request: End<FrameViolation>,
    pub(crate) reply: End<FrameViolation>,
    pub(crate) heartbeats: u32,
}

/// Panics where the framers are wrong. `None`: too few bytes, or an impossible layout.
pub(crate) fn check(data: &[u8]) -> Option<Ends> {
    let (choice, sent) = data.split_first_chunk::<CHOICE_BYTES>()?;
    let layout = layout(choice)?;
    let mut cuts = [choice[17], choice[18]].map(|cut| usize::from(cut) % (sent.len() + 1));
    cuts.sort_unstable();
    let asks_heartbeat = choice[19] & 1 == 1;
    let request = check_request(&layout, sent, cuts);
    let (reply, heartbeats) = check_reply(&layout, sent, cuts, asks_heartbeat);
    Some(Ends {
        request,
        reply,
        heartbeats,
    })
}

/// The layout that `choice` stands for, if it is possible.
pub(crate) fn layout(choice: &[u8; CHOICE_BYTES]) -> Option<Layout> {
    let number = |at: usize| usize::from(choice[at]);
    let framing = match choice[0] % 3 {
        0 => Framing::Length(LengthField {
            offset: number(1) % 5,
            width: 1 + number(2) % 8,
            endian: if choice[3] & 1 == 0 {
                Endian::Big
            } else {
                Endian::Little
            },
            adjust: i64::from(choice[4] as i8) >> (choice[3] >> 5),
        }),
        1 => {
            let delimiter: Vec<u8> = (2..6).map(|at| b"ab\r\n"[number(at) % 4]).collect();
            Framing::Delimiter(delimiter[..1 + number(1) % 4].into())
        }
        _ => Framing::Fixed(number(1) % 16),
    };
    let mark = |at: usize| {
        let mask = choice[at + 2];
        (choice[at] & 1 == 1).then_some(Mark {
            offset: number(at + 1) % 7,
            mask,
            value: choice[at + 3] & mask,
        })
    };
    let layout = Layout {
        framing,
        frame_max: 1 + number(16) % 48,
        oneway: mark(8),
        heartbeat: mark(12),
    };
    layout.check().is_ok().then_some(layout)
}

fn check_request(layout: &Layout, sent: &[u8], cuts: [usize; 2]) -> End<FrameViolation> {
    let run = |cuts: &[usize]| {
        let mut framer = RequestFramer::new(layout);
        let run = drive(&mut framer, sent, cuts.iter().copied());
        (run, framer.facts())
    };
    let (whole, facts) = run(&[]);
    let every: Vec<usize> = (0..sent.len()).collect();
    for cuts in [&cuts[..], &every] {
        assert_eq!(
            run(cuts),
            (whole.clone(), facts),
            "{layout:?} cut at {cuts:?}"
        );
    }

    let marks = [layout.oneway, layout.heartbeat];
    let reading = Reading::of(layout, &marks, sent);
    let expected_facts = reading.is_judged.then(|| RequestFacts {
        oneway: reading.has(layout.oneway),
        heartbeat: reading.has(layout.heartbeat),
        length: reading.length,
    });
    assert_eq!(facts, expected_facts, "{layout:?}");
    let mut expected = Run {
        pieces: Vec::new(),
        taken: reading.taken,
        end: reading.end,
    };
    if reading.taken > 0 {
        expected
            .pieces
            .push(Piece::Verbatim(sent[..reading.taken].to_vec()));
    }
    assert_eq!(whole, expected, "{layout:?}");
    if whole.end == End::Boundary {
        // The next reader finds the same boundary.
        let again = drive(&mut RequestFramer::new(layout), &whole.passed(), []);
        assert_eq!(again, whole, "{layout:?}");
    }
    whole.end
}

fn check_reply(
    layout: &Layout,
    sent: &[u8],
    cuts: [usize; 2],
    asks_heartbeat: bool,
) -> (End<FrameViolation>, u32) {
    let request = RequestFacts {
        oneway: false,
        heartbeat: asks_heartbeat,
        length: None,
    };
    let run = |cuts: &[usize]| {
        let mut framer = ReplyFramer::new(layout, request);
        let run = drive(&mut framer, sent, cuts.iter().copied());
        let skipped = framer.heartbeats_skipped();
        // A framer that found a violation is spent.
        let eof = (!matches!(run.end, End::Violation(_))).then(|| framer.eof());
        assert_eq!(framer.allows_reuse(), run.end == End::Boundary);
        (run, eof, skipped)
    };
    let whole = run(&[]);
    let every: Vec<usize> = (0..sent.len()).collect();
    for cuts in [&cuts[..], &every] {
        assert_eq!(run(cuts), whole, "{layout:?} cut at {cuts:?}");
    }
    let heartbeat = layout.heartbeat.filter(|_| !asks_heartbeat);
    assert_eq!(whole, expected_reply(layout, heartbeat, sent), "{layout:?}");
    (whole.0.end, whole.2)
}

fn expected_reply(
    layout: &Layout,
    heartbeat: Option<Mark>,
    sent: &[u8],
) -> (Run<FrameViolation>, Option<Eof>, u32) {
    let mut run = Run {
        pieces: Vec::new(),
        taken: 0,
        end: End::Starved,
    };
    let mut skipped = 0;
    loop {
        let bytes = &sent[run.taken..];
        let reading = Reading::of(layout, &[heartbeat], bytes);
        let is_skipped = reading.is_judged && reading.has(heartbeat);
        if is_skipped && skipped == 100 {
            run.end = End::Violation(FrameViolation::TooManyHeartbeats);
            return (run, None, skipped);
        }
        skipped += u32::from(is_skipped);
        if reading.taken > 0 {
            run.pieces.push(match is_skipped {
                true => Piece::Dropped(reading.taken),
                false => Piece::Verbatim(bytes[..reading.taken].to_vec()),
            });
        }
        run.taken += reading.taken;
        if is_skipped && reading.end == End::Boundary {
            run.pieces.push(Piece::OneMoreResponse);
            continue;
        }
        run.end = reading.end;
        let eof = match run.end {
            End::Violation(_) => None,
            End::Boundary => Some(Eof::Complete),
            _ if bytes.is_empty() => Some(Eof::Nothing),
            _ => Some(Eof::Truncated),
        };
        return (run, eof, skipped);
    }
}

/// One frame, read with all bytes in sight and no thought of speed.
struct Reading<'b> {
    /// The bytes that are known to be the frame's.
    frame: &'b [u8],
    length: Option<u64>,
    is_judged: bool,
    taken: usize,
    end: End<FrameViolation>,
}

impl<'b> Reading<'b> {
    fn of(layout: &Layout, marks: &[Option<Mark>], bytes: &'b [u8]) -> Self {
        let (length, end) = match &layout.framing {
            Framing::Length(field) => match length_in(field, bytes) {
                None => return Self::unjudged(End::Starved),
                Some(length) if length < (field.offset + field.width) as i128 => {
                    return Self::unjudged(End::Violation(FrameViolation::BadLength));
                }
                Some(length) if length > i128::from(u64::MAX) => {
                    return Self::unjudged(End::Violation(FrameViolation::BadLength));
                }
                Some(length) if length > layout.frame_max as i128 => {
                    return Self::unjudged(End::Violation(FrameViolation::TooLong));
                }
                Some(length) => (Some(length as usize), Some(Ok(length as usize))),
            },
            Framing::Fixed(size) => (Some(*size), Some(Ok(*size))),
            Framing::Delimiter(delimiter) => (None, delimited(delimiter, layout.frame_max, bytes)),
        };
        let frame = match end {
            Some(Ok(end)) => &bytes[..end.min(bytes.len())],
            _ => bytes,
        };
        let is_whole = end.is_some_and(|end| end == Ok(frame.len()));
        let marks_end = marks.iter().flatten().map(|mark| mark.offset + 1).max();
        if bytes.is_empty() || (!is_whole && frame.len() < marks_end.unwrap_or(0)) {
            return Self::unjudged(End::Starved);
        }
        let (taken, end) = match end {
            Some(Err(at)) => (at, End::Violation(FrameViolation::TooLong)),
            _ if is_whole => (frame.len(), End::Boundary),
            _ => (frame.len(), End::Starved),
        };
        Self {
            frame,
            length: length.map(|length| length as u64),
            is_judged: true,
            taken,
            end,
        }
    }

    fn unjudged(end: End<FrameViolation>) -> Self {
        Self {
            frame: &[],
            length: None,
            is_judged: false,
            taken: 0,
            end,
        }
    }

    fn has(&self, mark: Option<Mark>) -> bool {
        let matches = |mark: Mark| match self.frame.get(mark.offset) {
            Some(byte) => byte & mark.mask == mark.value,
            None => false,
        };
        mark.is_some_and(matches)
    }
}

fn length_in(field: &LengthField, bytes: &[u8]) -> Option<i128> {
    let end = field.offset + field.width;
    let mut digits = bytes.get(field.offset..end)?.to_vec();
    if field.endian == Endian::Little {
        digits.reverse();
    }
    let mut value = 0;
    for digit in digits {
        value = value * 256 + i128::from(digit);
    }
    Some(value + i128::from(field.adjust) + end as i128)
}

/// Where the frame ends, or before which byte it is too long.
fn delimited(delimiter: &[u8], frame_max: usize, bytes: &[u8]) -> Option<Result<usize, usize>> {
    for seen in 1..=bytes.len() {
        let seen_bytes = &bytes[..seen];
        if seen_bytes.ends_with(delimiter) {
            return Some(Ok(seen));
        }
        let begun = (0..delimiter.len()).rev();
        let begun = begun
            .filter(|&begun| seen_bytes.ends_with(&delimiter[..begun]))
            .max();
        if seen + delimiter.len() - begun.unwrap_or(0) > frame_max {
            return Some(Err(seen - 1));
        }
    }
    None
}
