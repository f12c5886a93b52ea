//! Whether a service's bytes can be the answer to what was just written to it.
//!
//! Every segment that answers a request acknowledges some of it (RFC 9293 §3.10.7.4), so bytes that
//! come while nothing of it is acknowledged were under way before: a 408, or a late answer to
//! somebody else.

use std::io;
use std::os::fd::AsFd;

use crate::sys::socket;
use crate::transport::Transport;

/// How much of what was last written to a service its kernel had acknowledged when bytes came from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing: the bytes were under way before.
    Nothing,
    /// Some of it: they can be an answer, but not to all of it.
    Part,
    /// All of it.
    All,
}

/// So much of a request is read by a service in one go, over a Unix socket.
pub(super) const UNREAD_PROOF_BYTES_MAX: u64 = 4096;

/// How much of the last `written_bytes` has been acknowledged by `service`, from which bytes have come.
pub(super) fn heard(service: &Transport, written_bytes: u64) -> Heard {
    match socket::unacknowledged_bytes(service.as_fd()) {
        Ok(unacknowledged) if service.is_tcp() && unacknowledged >= written_bytes => Heard::Nothing,
        // A Unix socket tells only whether its reader has taken all. A service may well answer a
        // long request before it has, so only the beginning of one is a proof.
        Ok(unread_memory)
            if !service.is_tcp()
                && (written_bytes == 0
                    || (unread_memory > 0 && written_bytes <= UNREAD_PROOF_BYTES_MAX)) =>
        {
            Heard::Nothing
        }
        Ok(0) => Heard::All,
        Ok(_) => Heard::Part,
        Err(error) => {
            debug_assert_eq!(
                error.kind(),
                io::ErrorKind::InvalidInput,
                "any stream can be asked"
            );
            Heard::Nothing
        }
    }
}

/// Whether bytes have come from `service` although nothing of the last `written_bytes` has been
/// acknowledged.
pub(super) fn is_crossed(service: &Transport, written_bytes: u64) -> bool {
    heard(service, written_bytes) == Heard::Nothing
}
