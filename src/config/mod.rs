//! Configuration.
pub mod checked;
