//! The only raw system calls, the only `unsafe`, and the only clock.

pub mod clock;
pub mod inherit;
pub mod local_time;
pub mod poll;
pub mod process;
pub mod socket;
pub mod tcp_info;
