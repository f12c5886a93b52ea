//! What a connection that several clients share has to know of memcached's protocol.
//!
//! Nobody is anybody here: one connection is like every other, and nothing is said on it first.

use super::kind::{Hidden, Kind};
use super::reply::ReplyFramer;
use super::request::{Limits, RequestFramer, Scan};
use crate::protocol::replies::{Language, Setup, Wordless};

/// The text and meta protocol of memcached.
#[derive(Debug, Clone, Copy)]
pub struct Memcached;

impl Language for Memcached {
    type Replies = ReplyFramer;
    type Identity = ();

    const RESET: Option<(&'static [u8], &'static [u8])> = None;

    fn replies(&self) -> ReplyFramer {
        ReplyFramer::new()
    }

    fn setup((): &()) -> Setup {
        Setup::default()
    }

    fn refusal(_reply: &[u8]) -> Option<&[u8]> {
        None
    }

    fn write_refusal(&self, kind: Kind, sentence: &str, out: &mut Vec<u8>) -> Result<(), Wordless> {
        if kind.hidden != Hidden::All {
            out.extend_from_slice(b"SERVER_ERROR millpond: ");
            out.extend_from_slice(sentence.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    fn first_request(requests: &[u8]) -> usize {
        let limits = Limits {
            item_bytes_max: u64::MAX / 2,
            ..Limits::default()
        };
        match RequestFramer::new(limits).scan(requests) {
            Ok(Scan::Whole { bytes } | Scan::Faulty { bytes, .. } | Scan::Skipped { bytes }) => {
                bytes
            }
            Ok(Scan::More) | Err(_) => requests.len(),
        }
    }
}
