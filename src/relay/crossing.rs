//! Whether a service's bytes can be the answer to what was just written to it.
//!
//! Every segment that answers a request acknowledges some of it (RFC 9293 §3.10.7.4), so bytes that
//! come while nothing of it is acknowledged were under way before: a 408, or a late answer to
//! somebody else.

use std::io;
use std::os::fd::AsFd;

use crate::sys::socket;
use crate::transport::Transport;

/// Whether bytes have come from `service` although nothing of the last `written_bytes` has been
/// acknowledged.
pub(super) fn is_crossed(service: &Transport, written_bytes: u64) -> bool {
    match socket::unacknowledged_bytes(service.as_fd()) {
        Ok(unacknowledged) if service.is_tcp() => unacknowledged >= written_bytes,
        // A Unix socket tells only whether its reader has taken all. A service may well answer a
        // long request before it has, so only the beginning of one is a proof.
        Ok(unread_memory) => written_bytes == 0 || (unread_memory > 0 && written_bytes <= 4096),
        Err(error) => {
            debug_assert_eq!(
                error.kind(),
                io::ErrorKind::InvalidInput,
                "any stream can be asked"
            );
            true
        }
    }
}
