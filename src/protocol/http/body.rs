//! The content of a message after its head (RFC 9112 section 6).
//!
//! Invariant: no byte after the end of the content is taken.

use super::chunk::{ChunkFault, Chunked, RunKind};
use crate::protocol::{Frame, Pass, Then};

/// How far the content has been read.
#[derive(Debug)]
pub(super) enum Body {
    /// So many octets are left.
    Length(u64),
    Chunked(Chunked),
    /// The content of a response that ends where its connection does.
    UntilClose,
}

impl Body {
    /// Takes whatever is there of the content, with its chunk framing.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Frame, ChunkFault> {
        let (taken, done) = match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left -= taken as u64;
                (taken, *left == 0)
            }
            Self::Chunked(chunked) => (take_runs(chunked, bytes)?, chunked.is_done()),
            Self::UntilClose => (bytes.len(), false),
        };
        Ok(Frame {
            taken,
            pass: Pass::Verbatim,
            then: then(done),
        })
    }

    /// Takes one piece of the content, for a recipient that does not know chunks: data goes on,
    /// chunk framing and trailers do not.
    pub(super) fn take_unchunked(&mut self, bytes: &[u8]) -> Result<Frame, ChunkFault> {
        let Self::Chunked(chunked) = self else {
            return self.take(bytes);
        };
        let run = chunked.next_run(bytes)?;
        let pass = match run.kind {
            RunKind::Data => Pass::Verbatim,
            RunKind::Framing => Pass::Dropped,
        };
        Ok(Frame {
            taken: run.len,
            pass,
            then: then(chunked.is_done()),
        })
    }
}

/// Takes runs until the bytes or the body end. A fault after the first run waits for the next call,
/// so that what precedes it goes on in whatever pieces it came.
fn take_runs(chunked: &mut Chunked, bytes: &[u8]) -> Result<usize, ChunkFault> {
    let mut taken = 0;
    loop {
        match chunked.next_run(&bytes[taken..]) {
            Ok(run) if run.len == 0 => return Ok(taken),
            Ok(run) => taken += run.len,
            Err(_) if taken > 0 => return Ok(taken),
            Err(fault) => return Err(fault),
        }
    }
}

fn then(done: bool) -> Then {
    if done { Then::Boundary } else { Then::More }
}
