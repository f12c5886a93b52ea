//! Moves bytes between a session and its upstream connection.
//!
//! [`exclusive`] carries one exchange over one lease, [`tunnel`] what has no boundaries; [`probe`]
//! asks a service whether it has nothing more to say, [`proof`] its kernel whether it had a request.
//! Not here: what a client is told when something fails, and what is sent again (see `session`).

mod abandon;
pub mod alarm;
pub mod buffer;
pub mod client;
mod crossing;
pub mod delivery;
pub mod exclusive;
pub mod outbound;
pub mod probe;
pub mod proof;
pub mod request;
mod response;
pub mod shared;
pub mod transcript;
pub mod tunnel;
