//! The harness: millpond as a black box between scripted clients and scripted services.
//!
//! A test starts the real binary with a configuration ([`proxy`]), a service that behaves as its
//! script says ([`upstream`], [`nginx`], [`redis`], [`peer`]), and clients that send exact bytes ([`client`]). It looks
//! at what the peers saw and at what millpond's admin interface says. [`proxy::Proxy::finish`]
//! ends a test: it holds the ledger against the kernel ([`facts`]) and drains.
//!
//! Not here: anything of millpond's own code.
//!
//! Invariant: whatever a test started is gone when its values are dropped, also after a panic.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "each test file uses its part of the harness, and a harness fails by panicking"
)]

pub mod capture;
pub mod client;
pub mod crossing;
pub mod facts;
pub mod memcached;
pub mod message;
pub mod netns;
pub mod nginx;
pub mod peer;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod service_manager;
pub mod socket;
pub mod storm;
pub mod tracefs;
pub mod upstream;
pub mod wait;
