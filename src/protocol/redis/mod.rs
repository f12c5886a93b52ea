//! RESP2 and RESP3, the language of Redis and Valkey, and what each of their commands asks of a
//! connection that several clients share.
//!
//! Not here: sockets, pools, the variables of a client, and the order in which replies are owed.
//! Commands are read, never executed: of a command nothing counts but its shape and its name.
//!
//! Invariant: a request is validated completely. What goes on to a service makes it answer exactly
//! once, or is of a kind that [`treatment`] names; nothing that goes on makes it close.

mod arguments;
mod command;
pub mod document;
mod inline;
mod language;
mod number;
mod reply;
mod request;
mod short;
mod table;
#[cfg(test)]
mod tests;
mod violation;

pub use arguments::{ArgumentIter, Arguments};
pub use command::{
    Ending, LeaseNeed, Local, Refused, Row, Rule, Treatment, may_be_queued, rows, treatment,
};
pub use inline::canonical;
pub use language::{Credentials, Identity, Redis, Version, write_bulk, write_command};
pub use reply::{AnyFrame, ReplyFramer, Shape};
pub use request::{Limits, RequestFramer, Scan, is_inline};
pub use short::{Confirmation, Short, confirmation, inspect};
pub use violation::RequestViolation;
