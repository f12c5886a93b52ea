//! Drives a framer as a session does, with its bytes cut as the caller likes, and writes down what
//! came of it. Two runs over the same bytes must be equal, whatever the cuts.

use super::{Framer, Pass, PinReason, Then};

/// What a framer made of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run<V> {
    /// In order, pieces of one kind joined.
    pub(crate) pieces: Vec<Piece>,
    /// How many bytes were taken in all.
    pub(crate) taken: usize,
    pub(crate) end: End<V>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Verbatim(Vec<u8>),
    Edited(Vec<u8>),
    Dropped(usize),
    OneMoreResponse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End<V> {
    Boundary,
    Pinned(PinReason),
    Violation(V),
    /// The bytes ended first.
    Starved,
}

impl<V> Run<V> {
    /// All that went on.
    pub(crate) fn passed(&self) -> Vec<u8> {
        let bytes = self.pieces.iter().map(|piece| match piece {
            Piece::Verbatim(bytes) | Piece::Edited(bytes) => bytes.as_slice(),
            Piece::Dropped(_) | Piece::OneMoreResponse => &[],
        });
        bytes.collect::<Vec<_>>().concat()
    }

    fn push(&mut self, piece: Piece) {
        match (self.pieces.last_mut(), &piece) {
            (Some(Piece::Verbatim(last)), Piece::Verbatim(more)) => last.extend_from_slice(more),
            (Some(Piece::Dropped(last)), Piece::Dropped(more)) => *last += more,
            _ => self.pieces.push(piece),
        }
    }
}

/// Shows `framer` the bytes of `input` up to each of `cuts` in turn, and all of them at the end.
pub(crate) fn drive<F: Framer>(
    framer: &mut F,
    input: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Run<F::Violation> {
    let mut run = Run {
        pieces: Vec::new(),
        taken: 0,
        end: End::Starved,
    };
    let mut edited = Vec::new();
    for shown in cuts.into_iter().chain([input.len()]) {
        loop {
            let bytes = &input[run.taken..shown];
            edited.clear();
            let frame = match framer.frame(bytes, &mut edited) {
                Ok(frame) => frame,
                Err(violation) => {
                    assert!(edited.is_empty(), "a violation leaves nothing to pass on");
                    run.end = End::Violation(violation);
                    return run;
                }
            };
            assert!(
                frame.taken <= bytes.len(),
                "no framer takes what it was not shown"
            );
            assert!(
                edited.is_empty() || frame.pass == Pass::Edited && frame.taken > 0,
                "edited bytes stand for taken ones"
            );
            if frame.taken > 0 {
                run.push(match frame.pass {
                    Pass::Verbatim => Piece::Verbatim(bytes[..frame.taken].to_vec()),
                    Pass::Edited => Piece::Edited(edited.clone()),
                    Pass::Dropped => Piece::Dropped(frame.taken),
                });
            }
            run.taken += frame.taken;
            match frame.then {
                Then::More if frame.taken == 0 => break,
                Then::More => {}
                Then::OneMoreResponse => run.push(Piece::OneMoreResponse),
                Then::Boundary => run.end = End::Boundary,
                Then::Pinned(reason) => run.end = End::Pinned(reason),
            }
            if !matches!(run.end, End::Starved) {
                return run;
            }
        }
    }
    run
}
