//! memcached behind millpond: many clients over few connections, and none of them can tell.
//!
//! memcached, libmemcached's programs and pymemcache are the real ones; clients that misbehave are ours.
//! The default run is short: `MILLPOND_CLIENTS=30000` and `MILLPOND_STORM_SECONDS=300 cargo test --test
//! memcached` are the whole of it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]
#![allow(unreachable_pub, reason = "its modules are one program")]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod server;

mod commands;
mod programs;
mod sessions;
mod storm;

use server::Memcached;
use support::proxy::{Config, Proxy};

/// Connections at memcached, at most, and how many of them clients share.
const SIZE: u64 = 8;
const SHARED: u64 = 4;

/// millpond in front of a memcached, with a pool of [`SIZE`].
fn in_front_of(memcached: &Memcached) -> Config {
    Config::to(&memcached.address().to_string())
        .protocol("memcached")
        .pool(&format!("size = {SIZE}"))
        .pool(&format!("shared = {SHARED}"))
        .upstream("memcached.item_max = \"64MiB\"")
}

fn setting(name: &str, usual: u64) -> u64 {
    let asked = std::env::var(name).ok();
    asked.map_or(usual, |it| it.parse().expect("a number"))
}

/// Ends a test: memcached has seen no more connections at once than the pool may hold, and everything is
/// in order.
fn finish(proxy: Proxy, memcached: &Memcached) {
    let count = memcached.connections();
    assert!(count <= SIZE, "{count} connections at memcached");
    proxy.finish();
}
