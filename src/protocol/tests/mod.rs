//! What the tests of every protocol share.

pub(super) mod drive;

// The fuzz targets include `drive` beside the same names.
use super::{Framer, Pass, PinReason, Then};
