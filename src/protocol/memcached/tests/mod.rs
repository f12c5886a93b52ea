//! Requests and replies row by row, cut by cut, and any bytes.

mod any;
mod commands;
mod generate;
mod replies;
mod requests;
mod splits;

use super::*;
use crate::protocol::replies::{Replies, ReplyThen, ReplyViolation};

const LIMITS: Limits = Limits {
    line_bytes_max: 4096,
    item_bytes_max: 1000,
};

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// What becomes of a request that is shared.
#[track_caller]
fn shared(request: &[u8]) -> Shared {
    match treatment(request) {
        Treatment::Share(shared) => shared,
        other => panic!("{} is {other:?}", text(request)),
    }
}

fn disarmed(request: &[u8]) -> Vec<u8> {
    let mut out = b"before ".to_vec();
    write_disarmed(request, &mut out);
    assert!(out.starts_with(b"before "), "what was there stays");
    out.split_off(7)
}
