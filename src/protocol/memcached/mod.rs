//! The text and meta protocols of memcached 1.6, for connections that many clients share.
//!
//! A request is told where it ends, what becomes of it, and in which form it has exactly one reply:
//! one that asks for silence is disarmed, and what the service would not have said is hidden again.
//! The facts are those of memcached's `doc/protocol.txt`, and where it is silent of `proto_text.c`.
//!
//! Not here: the binary protocol, which memcached 1.6 calls deprecated (it is recognised, and refused
//! in its own words); authentication, which can't be told from storing; whose reply it is.
//!
//! Invariants: the same bytes cut in any way give the same answer. Nothing is shared whose end the
//! service could see elsewhere: where memcached is lenient with a line that announces data, this is
//! strict.

mod command;
mod kind;
mod language;
mod line;
mod quiet;
mod reply;
mod request;
mod storage;
#[cfg(test)]
mod tests;
mod violation;

pub use command::{Local, Refusal, Shared, Treatment, treatment};
pub use kind::{Hidden, Kind, Shape};
pub use language::Memcached;
pub use line::{KEY_BYTES_MAX, LINE_BYTES_MAX};
pub use quiet::write_disarmed;
pub use reply::ReplyFramer;
pub use request::{Limits, RequestFramer, Scan};
pub use violation::RequestViolation;
