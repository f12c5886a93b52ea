//! What benches share: the programs under comparison, clocks, figures.

#![allow(dead_code, reason = "each bench uses its part")]

pub(crate) mod clock;
pub(crate) mod figures;
pub(crate) mod process;
