//! Opens one connection to an endpoint.
//!
//! Not here: when, and how many at once (see `upstream::core`).

use std::net::SocketAddr;
use std::time::Instant;

use socket2::SockRef;
use tokio::net::{UnixStream, lookup_host};
use tokio::time::timeout_at;
use tracing::debug;

use super::dial::{Dialler, Options, outcome};
use crate::config::checked::Address;
use crate::stats::ledger::{Ledger, Watch};
use crate::stats::reason::ConnectOutcome;
use crate::transport::Transport;

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
