//! The framers row by row, cut by cut, and with what a generator makes up.

#![allow(clippy::unwrap_used)]

mod generate;
mod refusals;
mod request_rows;
mod requests;
mod response_rows;
mod responses;
mod splits;

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::protocol::tests::drive;
use crate::protocol::{Framer, Pass, PinReason, Then};

/// Limits that the rows know, nothing told about the client.
fn options() -> Options {
    Options {
        head_max: 2048,
        body_max: Some(1000),
        authority: Arc::from("service.test:8080"),
        forwarded: None,
    }
}

/// The same, and the service is told about 192.0.2.1.
fn forwarding() -> Options {
    let client = Ipv4Addr::new(192, 0, 2, 1).into();
    Options {
        forwarded: Some(Forwarded::from_address(client)),
        ..options()
    }
}

/// The facts of a plain GET from an HTTP/1.1 client.
const GET: RequestFacts = RequestFacts {
    idempotent: true,
    head: false,
    version_minor: 1,
    keep_alive: true,
    expects_continue: false,
    upgrade: false,
    body: BodyLength::None,
};

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
