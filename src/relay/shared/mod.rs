//! Connections that have a task of their own: shared by many sessions, or pinned to one for a while.
//!
//! [`Links`] are those of an upstream, a [`Link`] is one of them as its sessions see it, its owner is
//! the task that reads and writes it, and a [`Mailbox`] is where a session's replies arrive. What is
//! said on it is known by a `protocol::replies::Language`. Not here: what a client may ask and is told
//! (see `session`).

mod delivery;
mod ends;
mod link;
mod links;
mod mailbox;
mod owed;
mod owner;
mod pin;
mod setup;
mod terms;
mod timing;

pub use link::{Left, Link, NotSent, Share};
pub use links::{Found, Known, Links, NotOpened, Opened};
pub use mailbox::{Batch, Lost, Mailbox, Nature, Returned, Run, Standing, Taken};
pub use pin::{Patience, Pin, Pinning};
