//! Opens one connection to an endpoint.
//!
//! Not here: when, and how many at once (see `upstream::core`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, UnixStream, lookup_host};
use tokio::time::timeout_at;
use tracing::debug;

use crate::close::Side;
use crate::config::checked::Address;
use crate::stats::ledger::{Ledger, Watch};
use crate::stats::reason::ConnectOutcome;
use crate::transport::Transport;

/// The options of upstream connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// TCP keepalive; `None`: off.
    pub keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT`; `None`: the system's.
    pub user_timeout: Option<Duration>,
}

/// Connects to `address`, trying all addresses of a name, until `deadline`. `watch` follows the last one
/// that was tried, with success or without.
pub async fn connect(
    address: &Address,
    options: Options,
    ledger: &Ledger,
    watch: &mut Watch,
    deadline: Instant,
) -> Result<Transport, ConnectOutcome> {
    let dialled = async {
        match address {
            Address::Ip(address) => {
                let dialled = dial(*address, options, ledger, watch).await;
                dialled.map_err(|it| outcome(&it))
            }
            Address::Name(name, port) => dial_name(name, *port, options, ledger, watch).await,
            Address::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Transport::dialled_unix(stream)),
                Err(error) => Err(outcome(&error)),
            },
        }
    };
    timeout_at(deadline.into(), dialled)
        .await
        .unwrap_or(Err(ConnectOutcome::TimedOut))
}

/// Whom a connection leads to; `None` over a Unix socket.
pub fn peer(service: &Transport) -> Option<SocketAddr> {
    SockRef::from(service).peer_addr().ok()?.as_socket()
}

async fn dial_name(
    name: &str,
    port: u16,
    options: Options,
    ledger: &Ledger,
    watch: &mut Watch,
) -> Result<Transport, ConnectOutcome> {
    let addresses = lookup_host((name, port)).await.map_err(|error| {
        debug!(name, %error, "name not resolved");
        ConnectOutcome::Unresolved
    })?;
    let mut last = ConnectOutcome::Unresolved;
    for address in addresses {
        match dial(address, options, ledger, watch).await {
            Ok(dialled) => return Ok(dialled),
            Err(error) => last = outcome(&error),
        }
    }
    Err(last)
}

async fn dial(
    address: SocketAddr,
    options: Options,
    ledger: &Ledger,
    watch: &mut Watch,
) -> io::Result<Transport> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    let options_of = SockRef::from(&socket);
    options_of.set_tcp_nodelay(true)?;
    if let Some(idle) = options.keepalive {
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(idle);
        options_of.set_tcp_keepalive(&keepalive)?;
    }
    if options.user_timeout.is_some() {
        options_of.set_tcp_user_timeout(options.user_timeout)?;
    }
    *watch = ledger.watch(Side::Upstream, socket.as_fd(), address);
    let stream = socket.connect(address).await?;
    watch.connected(stream.as_fd());
    Ok(Transport::dialled_tcp(stream))
}

/// What an error of connect(2) or socket(2) means.
fn outcome(error: &io::Error) -> ConnectOutcome {
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
