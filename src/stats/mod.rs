//! The ledger and the counters. Everything may write here; nothing here acts.
//!
//! Writing: [`counter`], [`histogram`] and [`ledger`] beside what they count, [`reason`] for the
//! closed lists, [`recorder`] for single ends, [`sessions`] for what is open now, all hung into the
//! [`tree`].
//! Reading: a [`snapshot`] of the tree, which [`exposition`] turns into the metrics that [`table`]
//! names and [`termination`] bounds, and [`prometheus`] or [`openmetrics`] into text.

pub mod census;
pub mod counter;
pub mod exposition;
pub mod histogram;
pub mod ledger;
pub mod openmetrics;
pub mod process;
pub mod prometheus;
pub mod reason;
pub mod recorder;
pub mod reference;
mod roll;
pub mod sessions;
pub mod snapshot;
pub mod table;
pub mod termination;
pub mod tree;
pub mod units;
pub mod witness;
