//! The framers and the ids row by row, cut by cut, and against a plain reading of what is declared.

mod any;
mod any_calls;
mod calls;
mod declared;
mod ids;
mod layouts;
mod messages;
mod replies;
mod requests;
mod rows;
mod splits;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::protocol::replies::{
    Heartbeat, Language, Replies, ReplyThen, ReplyViolation, Setup, Whose, Wordless,
};
use crate::protocol::tests::drive;
use crate::protocol::{Eof, Framer, Reply};

/// Facts of a request that is answered and no heartbeat.
const CALL: RequestFacts = RequestFacts {
    oneway: false,
    heartbeat: false,
    length: None,
};

/// Facts of a request that is a heartbeat.
const PING: RequestFacts = RequestFacts {
    heartbeat: true,
    ..CALL
};

fn layout(framing: Framing) -> Layout {
    Layout {
        framing,
        frame_max: 8 << 20,
        oneway: None,
        heartbeat: None,
    }
}

fn big(offset: usize, width: usize, adjust: i64) -> Framing {
    Framing::Length(LengthField {
        offset,
        width,
        endian: Endian::Big,
        adjust,
    })
}

fn little(offset: usize, width: usize, adjust: i64) -> Framing {
    Framing::Length(LengthField {
        offset,
        width,
        endian: Endian::Little,
        adjust,
    })
}

fn until(delimiter: &[u8]) -> Framing {
    Framing::Delimiter(delimiter.into())
}

const fn mark(offset: usize, mask: u8, value: u8) -> Option<Mark> {
    Some(Mark {
        offset,
        mask,
        value,
    })
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
