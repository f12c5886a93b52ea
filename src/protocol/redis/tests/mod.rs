//! The framers row by row, cut by cut, and against a plain reading of what RESP says; the table of
//! commands; what is said of short replies.

#![allow(clippy::unwrap_used)]

mod any;
mod commands;
mod generate;
mod inline;
mod replies;
mod requests;
mod short;
mod splits;

use super::*;
use crate::protocol::replies::{Replies, ReplyThen, ReplyViolation};

/// Limits that the rows know.
const LIMITS: Limits = Limits {
    arguments_max: 9,
    bulk_bytes_max: 50,
    inline_bytes_max: 40,
};

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A command in the form that clients send.
fn multibulk(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
