//! Opens one connection to an endpoint.
//!
//! Not here: when, and how many at once (see `upstream::core`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{UnixStream, lookup_host};
use tokio::time::timeout_at;
use tracing::debug;

use super::dial::Dialler;
use super::source::Sources;
use crate::config::checked::Address;
use crate::stats::ledger::{Ledger, Watch};
use crate::stats::reason::ConnectOutcome;
use crate::transport::Transport;

/// The options of upstream connections.
#[derive(Debug, Clone)]
pub struct Options {
    /// TCP keepalive; `None`: off.
    pub keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT`; `None`: the system's.
    pub user_timeout: Option<Duration>,
    /// The addresses to dial from.
    pub sources: Arc<Sources>,
}

/// A connect that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// How.
    pub outcome: ConnectOutcome,
    /// The address that was dialled last, if one was.
    pub address: Option<SocketAddr>,
}

impl Failed {
    /// Nobody needed it any more.
    pub const ABANDONED: Self = Self {
        outcome: ConnectOutcome::Abandoned,
        address: None,
    };
}

/// Connects to `address`, trying all addresses of a name, until `deadline`. `watch` follows the last one
/// that was tried, with success or without.
pub async fn connect(
    address: &Address,
    options: &Options,
    ledger: &Ledger,
    watch: &mut Watch,
    deadline: Instant,
) -> Result<Transport, Failed> {
    let mut dialler = Dialler {
        options,
        ledger,
        watch,
        address: None,
    };
    let dialled = async {
        match address {
            Address::Ip(address) => dialler.dial(*address).await,
            Address::Name(name, port) => dial_name(name, *port, &mut dialler).await,
            Address::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Transport::dialled_unix(stream)),
                Err(error) => Err(outcome(&error)),
            },
        }
    };
    let dialled = timeout_at(deadline.into(), dialled).await;
    let dialled = dialled.unwrap_or(Err(ConnectOutcome::TimedOut));
    dialled.map_err(|outcome| Failed {
        outcome,
        address: dialler.address,
    })
}

/// Whom a connection leads to; `None` over a Unix socket.
pub fn peer(service: &Transport) -> Option<SocketAddr> {
    SockRef::from(service).peer_addr().ok()?.as_socket()
}

async fn dial_name(
    name: &str,
    port: u16,
    dialler: &mut Dialler<'_>,
) -> Result<Transport, ConnectOutcome> {
    let addresses = lookup_host((name, port)).await.map_err(|error| {
        debug!(name, %error, "name not resolved");
        ConnectOutcome::Unresolved
    })?;
    let mut last = ConnectOutcome::Unresolved;
    for address in addresses {
        match dialler.dial(address).await {
            Ok(dialled) => return Ok(dialled),
            // A shortage of this host's can be cured here, and is not to be hidden by another address.
            Err(outcome) if !last.is_local() => last = outcome,
            Err(_) => {}
        }
    }
    Err(last)
}

/// What an error of connect(2) or socket(2) means.
pub(super) fn outcome(error: &io::Error) -> ConnectOutcome {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::ENOENT) => ConnectOutcome::Refused,
        Some(libc::ETIMEDOUT) => ConnectOutcome::TimedOut,
        Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => ConnectOutcome::PortsExhausted,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
            ConnectOutcome::DescriptorsExhausted
        }
        Some(libc::EACCES | libc::EPERM) => ConnectOutcome::Denied,
        // On a Unix socket: its accept queue is full (connect(2)).
        Some(libc::EAGAIN) => ConnectOutcome::Refused,
        _ => {
            debug!(%error, "unreachable");
            ConnectOutcome::Unreachable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_has_a_name() {
        for (errno, expected) in [
            (libc::ECONNREFUSED, ConnectOutcome::Refused),
            (libc::ENETUNREACH, ConnectOutcome::Unreachable),
            (libc::EHOSTUNREACH, ConnectOutcome::Unreachable),
            (libc::EADDRNOTAVAIL, ConnectOutcome::PortsExhausted),
            (libc::EMFILE, ConnectOutcome::DescriptorsExhausted),
            (libc::EACCES, ConnectOutcome::Denied),
        ] {
            assert_eq!(
                outcome(&io::Error::from_raw_os_error(errno)),
                expected,
                "{errno}"
            );
        }
    }
}
