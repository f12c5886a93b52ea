//! Redis behind millpond: many clients over few connections, and none of them can tell.
//!
//! Redis, redis-cli, redis-benchmark, redis-py, redis-rs and phpredis are the real ones; clients that
//! misbehave are ours.
//! The default run is short: `MILLPOND_CLIENTS=30000`, `MILLPOND_TRANSACTIONS=60000` and
//! `MILLPOND_STORM_SECONDS=300 cargo test --test redis` are the whole of it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]
#![allow(unreachable_pub, reason = "its modules are one program")]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod server;

mod identity;
mod neighbours;
mod oracle;
mod php;
mod programs;
mod python;
mod restart;
mod rust;
mod sessions;
mod short;
mod storm;
mod transactions;

use server::Redis;
use support::proxy::{Config, Proxy};

/// Connections at Redis, at most, and how many of them clients share.
const SIZE: u64 = 16;
const SHARED: u64 = 2;

/// millpond in front of a Redis, with a pool of [`SIZE`].
fn in_front_of(redis: &Redis) -> Config {
    with_pool(redis, SIZE)
}

fn with_pool(redis: &Redis, size: u64) -> Config {
    Config::to(&redis.address().to_string())
        .protocol("redis")
        .pool(&format!("size = {size}"))
        .pool(&format!("shared = {SHARED}"))
}

fn setting(name: &str, usual: u64) -> u64 {
    let asked = std::env::var(name).ok();
    asked.map_or(usual, |it| it.parse().expect("a number"))
}

/// How often a client got a connection of its own, for this reason.
fn leases(proxy: &Proxy, reason: &str) -> u64 {
    let label = format!("reason=\"{reason}\"");
    let metrics = proxy.metrics();
    let rows = metrics
        .lines()
        .filter(|line| line.starts_with("millpond_pins_total{") && line.contains(&label));
    rows.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Ends a test: Redis has seen no more connections at once than the pool may hold, and everything is in
/// order.
fn finish(proxy: Proxy, redis: &Redis) {
    let count = redis.connections();
    assert!(count <= SIZE, "{count} connections at Redis");
    proxy.finish();
}
