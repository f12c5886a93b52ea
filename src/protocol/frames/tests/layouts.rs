//! What a layout may be, and what makes one impossible.

use super::super::LayoutFault::{self, *};
use super::super::MarkFault;
use super::rows::wholes;
use super::*;

#[test]
fn the_layouts_of_the_rows_are_possible() {
    for row in wholes() {
        assert_eq!(row.layout.check(), Ok(()), "{}", row.name);
    }
}

#[test]
fn an_impossible_layout_is_named() {
    let short = |framing, frame_max| Layout {
        frame_max,
        ..layout(framing)
    };
    let oneway = |framing, oneway| Layout {
        frame_max: 300,
        oneway,
        ..layout(framing)
    };
    let heartbeat = |framing, heartbeat| Layout {
        frame_max: 300,
        heartbeat,
        ..layout(framing)
    };
    let rows: &[(Layout, Result<(), LayoutFault>)] = &[
        (layout(big(0, 0, 0)), Err(BadWidth)),
        (layout(big(0, 9, 0)), Err(BadWidth)),
        (layout(big(0, usize::MAX, 0)), Err(BadWidth)),
        (layout(big(248, 8, 0)), Ok(())),
        (layout(big(249, 8, 0)), Err(FieldTooFarIn)),
        (layout(big(usize::MAX, 8, 0)), Err(FieldTooFarIn)),
        (short(big(2, 2, 0), 4), Ok(())),
        (short(big(2, 2, 0), 3), Err(FieldBeyondFrame)),
        // 255 bytes less 255 end with the field; less 256 they end before it.
        (layout(big(0, 1, -255)), Ok(())),
        (layout(big(0, 1, -256)), Err(NoLengthFits)),
        (short(big(0, 1, 9), 10), Ok(())),
        (short(big(0, 1, 10), 10), Err(NoLengthFits)),
        (layout(big(0, 8, i64::MIN)), Ok(())),
        (layout(big(0, 7, i64::MIN)), Err(NoLengthFits)),
        (layout(big(0, 8, i64::MAX)), Err(NoLengthFits)),
        (layout(until(b"")), Err(EmptyDelimiter)),
        (layout(until(&[b'x'; 64])), Ok(())),
        (layout(until(&[b'x'; 65])), Err(DelimiterTooLong)),
        (short(until(b"\r\n"), 2), Ok(())),
        (short(until(b"\r\n"), 1), Err(DelimiterBeyondFrame)),
        (layout(Framing::Fixed(0)), Err(EmptyFrame)),
        (short(Framing::Fixed(8), 8), Ok(())),
        (short(Framing::Fixed(9), 8), Err(SizeBeyondFrame)),
        (oneway(big(0, 1, 0), mark(255, 1, 1)), Ok(())),
        (
            oneway(big(0, 1, 0), mark(256, 1, 1)),
            Err(Oneway(MarkFault::TooFarIn)),
        ),
        (
            oneway(big(0, 1, 0), mark(usize::MAX, 1, 1)),
            Err(Oneway(MarkFault::TooFarIn)),
        ),
        (
            heartbeat(big(0, 1, 0), mark(256, 1, 1)),
            Err(Heartbeat(MarkFault::TooFarIn)),
        ),
        (oneway(Framing::Fixed(8), mark(7, 1, 1)), Ok(())),
        (
            oneway(Framing::Fixed(8), mark(8, 1, 1)),
            Err(Oneway(MarkFault::BeyondFrame)),
        ),
        (
            oneway(big(0, 1, 0), mark(0, 0, 0)),
            Err(Oneway(MarkFault::NoBits)),
        ),
        (
            heartbeat(big(0, 1, 0), mark(0, 0, 0)),
            Err(Heartbeat(MarkFault::NoBits)),
        ),
        (
            oneway(big(0, 1, 0), mark(0, 0x0f, 0x10)),
            Err(Oneway(MarkFault::NeverMatches)),
        ),
        (
            heartbeat(big(0, 1, 0), mark(0, 0x0f, 0x1f)),
            Err(Heartbeat(MarkFault::NeverMatches)),
        ),
        (oneway(big(0, 1, 0), mark(0, 0x0f, 0)), Ok(())),
    ];
    for (layout, expected) in rows {
        assert_eq!(layout.check(), *expected, "{layout:?}");
    }
}

#[test]
fn a_mark_lies_within_the_longest_frame() {
    let marked = |framing, frame_max, offset| Layout {
        frame_max,
        heartbeat: mark(offset, 1, 1),
        ..layout(framing)
    };
    let beyond = Err(Heartbeat(MarkFault::BeyondFrame));
    assert_eq!(marked(big(0, 1, 0), 4, 3).check(), Ok(()));
    assert_eq!(marked(big(0, 1, 0), 4, 4).check(), beyond);
    // The last bytes of the longest line are its delimiter.
    assert_eq!(marked(until(b"\r\n"), 4, 1).check(), Ok(()));
    assert_eq!(marked(until(b"\r\n"), 4, 2).check(), beyond);
}

#[test]
fn a_fault_reads_as_a_sentence() {
    let layout = Layout {
        oneway: mark(0, 1, 2),
        ..layout(Framing::Fixed(1))
    };
    let said = layout.check().map_err(|fault| fault.to_string());
    let sentence = "the mark of one-way requests expects bits that its mask hides";
    assert_eq!(said, Err(sentence.to_owned()));
}

#[test]
fn only_a_delimiter_hides_that_a_frame_is_cut_short() {
    assert!(layout(big(0, 1, 0)).client_sees_end());
    assert!(layout(Framing::Fixed(1)).client_sees_end());
    assert!(!layout(until(b"\n")).client_sees_end());
}
