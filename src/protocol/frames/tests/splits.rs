//! The same bytes cut in any way give the same answer.

use super::any::{self, CHOICE_BYTES, Ends};
use super::drive::{End, drive};
use super::rows::{refusals, wholes};
use super::*;

fn check_request(layout: &Layout, sent: &[u8], cuts: &[usize]) {
    let mut whole_framer = RequestFramer::new(layout);
    let whole = drive(&mut whole_framer, sent, []);
    let mut cut_framer = RequestFramer::new(layout);
    let cut = drive(&mut cut_framer, sent, cuts.iter().copied());
    assert_eq!(cut, whole, "{} cut at {cuts:?}", text(sent));
    assert_eq!(cut_framer.facts(), whole_framer.facts());
}

fn check_reply(layout: &Layout, request: RequestFacts, sent: &[u8], cuts: &[usize]) {
    let mut whole_framer = ReplyFramer::new(layout, request);
    let whole = drive(&mut whole_framer, sent, []);
    let mut cut_framer = ReplyFramer::new(layout, request);
    let cut = drive(&mut cut_framer, sent, cuts.iter().copied());
    assert_eq!(cut, whole, "{} cut at {cuts:?}", text(sent));
    assert_eq!(
        cut_framer.heartbeats_skipped(),
        whole_framer.heartbeats_skipped()
    );
    assert_eq!(cut_framer.allows_reuse(), whole_framer.allows_reuse());
    if !matches!(whole.end, End::Violation(_)) {
        assert_eq!(cut_framer.eof(), whole_framer.eof());
    }
}

/// Every row, whole ones with three frames in a row, so that the next one is in sight.
fn rows() -> Vec<(Layout, Vec<u8>)> {
    let wholes = wholes()
        .into_iter()
        .map(|row| (row.layout, row.frame.repeat(3)));
    let refusals = refusals()
        .into_iter()
        .map(|row| (row.layout, row.sent.to_vec()));
    wholes.chain(refusals).collect()
}

#[test]
fn a_request_cut_at_every_byte() {
    for (layout, sent) in rows() {
        for at in 0..=sent.len() {
            check_request(&layout, &sent, &[at]);
        }
        let every: Vec<usize> = (0..=sent.len()).collect();
        check_request(&layout, &sent, &every);
    }
}

#[test]
fn a_reply_cut_at_every_byte() {
    for (layout, sent) in rows() {
        for request in [CALL, PING] {
            for at in 0..=sent.len() {
                check_reply(&layout, request, &sent, &[at]);
            }
            let every: Vec<usize> = (0..=sent.len()).collect();
            check_reply(&layout, request, &sent, &every);
        }
    }
}

/// Frames of `layout`, most of them sound, from a small alphabet.
fn frames(random: &mut fastrand::Rng, layout: &Layout) -> Vec<u8> {
    let mut sent = Vec::new();
    for _ in 0..random.usize(1..6) {
        let mut frame: Vec<u8> = (0..random.usize(0..layout.frame_max + 2))
            .map(|_| b"ab\r\n\x00\x01\xff"[random.usize(0..7)])
            .collect();
        match &layout.framing {
            Framing::Fixed(size) => frame.resize(*size, b'f'),
            Framing::Delimiter(delimiter) => frame.extend_from_slice(delimiter),
            Framing::Length(field) => {
                let end = field.offset + field.width;
                frame.resize(frame.len().max(end), 0);
                let value = frame.len() as i64 - end as i64 - field.adjust;
                let digits = value.to_be_bytes();
                let field_bytes = &mut frame[field.offset..end];
                field_bytes.copy_from_slice(&digits[8 - field.width..]);
                if field.endian == Endian::Little {
                    field_bytes.reverse();
                }
            }
        }
        if let Some(mark) = layout.heartbeat.filter(|_| random.bool())
            && let Some(byte) = frame.get_mut(mark.offset)
        {
            *byte = *byte & !mark.mask | mark.value;
        }
        sent.extend_from_slice(&frame);
    }
    if random.u8(..8) == 0 {
        let at = random.usize(..sent.len());
        sent.truncate(at);
    }
    sent
}

#[test]
fn generated_frames_are_read_as_their_layout_says_however_they_are_cut() {
    let mut ends: Vec<Ends> = Vec::new();
    for seed in 0..40_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut choice = [0; CHOICE_BYTES];
        random.fill(&mut choice);
        let Some(layout) = any::layout(&choice) else {
            continue;
        };
        let sent = frames(&mut random, &layout);
        ends.extend(any::check(&[&choice, &sent[..]].concat()));
    }
    // Each way to end was met, not once but often.
    let count = |is: &dyn Fn(&Ends) -> bool| ends.iter().filter(|ends| is(ends)).count();
    let violation = |ends: &Ends, violation| ends.request == End::Violation(violation);
    for (name, met, least) in [
        (
            "boundary",
            count(&|ends| ends.request == End::Boundary),
            5000,
        ),
        ("starved", count(&|ends| ends.request == End::Starved), 500),
        (
            "too long",
            count(&|ends| violation(ends, FrameViolation::TooLong)),
            500,
        ),
        (
            "bad length",
            count(&|ends| violation(ends, FrameViolation::BadLength)),
            100,
        ),
        ("reply", count(&|ends| ends.reply == End::Boundary), 5000),
        (
            "reply behind heartbeats",
            count(&|ends| ends.heartbeats > 0 && ends.reply == End::Boundary),
            500,
        ),
    ] {
        assert!(
            met >= least,
            "{name} was met only {met} times of {}",
            ends.len()
        );
    }
}
