//! How a row of the table of keys is written: what a key takes, within which bounds.

use std::time::Duration;

use super::{Key, Preset};
use crate::config::value::Kind;

pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;
pub(super) const GIB: u64 = 1024 * MIB;
/// TOML's whole numbers end there.
pub(super) const NUMBER_MAX: u64 = i64::MAX as u64;
/// More than the kernel's usual bound on one process's descriptors (`fs.nr_open`, 1,048,576) can't be.
pub(super) const CONNECTIONS_MAX: u64 = 1_000_000;
pub(super) const TIME_MIN: Duration = Duration::from_millis(1);
pub(super) const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) const fn key(
    path: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        path,
        kind,
        default: Preset::Is(default),
        meaning,
    }
}

pub(super) const fn required(path: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key {
        path,
        kind,
        default: Preset::Required,
        meaning,
    }
}

pub(super) const fn unset(path: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key {
        path,
        kind,
        default: Preset::Unset,
        meaning,
    }
}

pub(super) const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

pub(super) const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes { min, max }
}

pub(super) const fn time() -> Kind {
    Kind::Time {
        zero: false,
        min: TIME_MIN,
        max: TIME_MAX,
    }
}

pub(super) const fn time_or_none() -> Kind {
    Kind::Time {
        zero: true,
        min: TIME_MIN,
        max: TIME_MAX,
    }
}

/// `TCP_KEEPIDLE` takes whole seconds up to 32767 (tcp(7)).
pub(super) const fn keepalive() -> Kind {
    Kind::Time {
        zero: true,
        min: Duration::from_secs(1),
        max: Duration::from_secs(32_767),
    }
}

/// `TCP_USER_TIMEOUT` takes milliseconds in an `int` (tcp(7)).
pub(super) const fn user_timeout() -> Kind {
    Kind::Time {
        zero: true,
        min: TIME_MIN,
        max: Duration::from_secs(24 * 24 * 3600),
    }
}
