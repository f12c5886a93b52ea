//! The census: the kernel's own count of TCP sockets, of any process, in this network namespace.
//!
//! [`diag`] asks the kernel, with a [`filter`] that the kernel itself applies. Not here: what the
//! ledger says of the same connections (see `stats`), and what a user should do about it.
//!
//! Invariant: nothing here opens, closes or changes a connection; it can be left out of a millpond,
//! or refused by a kernel, without anybody's traffic noticing.

pub mod diag;
pub mod filter;
pub mod forecast;
pub mod ports;
pub mod settings;
pub mod socket;
