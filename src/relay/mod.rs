//! Moves bytes between a session and its upstream connection.
//!
//! [`exclusive`] carries one exchange over one lease, [`tunnel`] what has no boundaries any more.
//! Not here: what a client is told when something fails, and what is sent again (see `session`).

mod abandon;
pub mod alarm;
pub mod buffer;
pub mod client;
pub mod exclusive;
pub mod outbound;
pub mod tunnel;
