//! Frames with ids: many requests of many clients under way over few connections, answered in any order.
//!
//! Not here: real services and clients of such protocols (see `rpc.rs`).
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]
#![allow(unreachable_pub, reason = "its modules are one program")]

#[path = "../support/mod.rs"]
mod support;

mod ends;
mod frame;
mod heartbeats;
mod limits;
mod order;
mod service;
mod short;
mod storm;

use support::proxy::Config;
use support::upstream::Service;

/// Connections to the service, at most; one of them is shared.
const SIZE: u64 = 4;

/// In front of `service`, which speaks what [`frame`] says.
fn in_front_of(service: &Service) -> Config {
    in_front_of_it(Config::to(service.address()))
}

/// With what [`frame`] says.
fn in_front_of_it(config: Config) -> Config {
    let lines = [
        "length = { offset = 12, width = 4 }",
        "id = { offset = 4, width = 8 }",
        r"magic = '0:\xda\xbb'",
        "request = { offset = 2, mask = 0x80, value = 0x80 }",
        "oneway = { offset = 2, mask = 0xc0, value = 0x80 }",
        "heartbeat = { offset = 2, mask = 0x20, value = 0x20 }",
    ];
    lines
        .into_iter()
        .fold(config, Config::frames)
        .protocol("frames")
        .pool(&format!("size = {SIZE}"))
}

/// With an answer of millpond's own, whose payload is `away`.
fn with_error_reply(config: Config) -> Config {
    let zeros = r"\0".repeat(8);
    config.frames(&format!(
        r"error_reply = '\xda\xbb\x00\x50{zeros}\x00\x00\x00\x04away'"
    ))
}

/// A number from the environment, or another one.
fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().expect(name))
}
