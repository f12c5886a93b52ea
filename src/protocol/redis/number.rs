//! The number in a header: decimal digits up to CRLF, behind the byte that tells the type.
//!
//! Redis writes and accepts one form only (`string2ll` in its `util.c`): no sign but a minus, no
//! zero in front of other digits, nothing over 64 bits.
//!
//! Invariant: no more bytes are looked at than the longest number has, however many there are.

/// What the bytes behind a type byte say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// It may still become a number.
    Partial,
    /// No number.
    Malformed,
    /// A number, but behind it a CR without its LF.
    BadEnd,
    Found {
        value: i64,
        /// Digits and CRLF.
        bytes: usize,
    },
}

/// Reads a number and its CRLF.
#[inline]
pub(super) fn read(bytes: &[u8]) -> Number {
    // Most are below ten.
    if let [digit @ b'0'..=b'9', b'\r', b'\n', ..] = bytes {
        return Number::Found {
            value: i64::from(digit - b'0'),
            bytes: 3,
        };
    }
    read_any(bytes)
}

fn read_any(bytes: &[u8]) -> Number {
    let is_negative = bytes.first() == Some(&b'-');
    let digits = usize::from(is_negative);
    let mut at = digits;
    let mut value: i64 = 0;
    let end = loop {
        let Some(byte) = bytes.get(at) else {
            return Number::Partial;
        };
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break *byte;
        }
        let has_zero_in_front = value == 0 && at > digits;
        let shifted = value.checked_mul(10);
        let next = shifted.and_then(|shifted| {
            if is_negative {
                shifted.checked_sub(i64::from(digit))
            } else {
                shifted.checked_add(i64::from(digit))
            }
        });
        value = match next {
            Some(next) if !has_zero_in_front && (next < 0 || !is_negative) => next,
            _ => return Number::Malformed,
        };
        at += 1;
    };
    if end != b'\r' || at == digits {
        return Number::Malformed;
    }
    match bytes.get(at + 1) {
        None => Number::Partial,
        Some(b'\n') => Number::Found {
            value,
            bytes: at + 2,
        },
        Some(_) => Number::BadEnd,
    }
}
