//! The census: the kernel's own count of TCP sockets, of any process, in this network namespace.
//!
//! [`diag`] asks the kernel, with a [`filter`] that the kernel itself applies; [`count`] counts what it
//! lists, [`ports`] and [`forecast`] say how many ports are left and for how long, [`leaks`] finds what the
//! ledger and the kernel do not agree about. Not here: whose the numbers are (see `stats`), and what a user
//! should do about them.
//!
//! Invariant: nothing here opens, closes or changes a connection; it can be left out of a millpond,
//! or refused by a kernel, without anybody's traffic noticing.

pub mod count;
pub mod descriptors;
pub mod diag;
pub mod filter;
pub mod forecast;
pub mod leaks;
pub mod ports;
pub mod settings;
pub mod socket;
pub mod take;
