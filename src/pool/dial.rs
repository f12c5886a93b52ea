//! Dials one address, from one of the sources.
//!
//! ```text
//!  no sources ─────────────────────────► the kernel picks address and port
//!  each source, in its order:
//!    the kernel picks a port ──► dialled
//!          │ none free
//!          ▼
//!    reuse_time_wait, or a range that the kernel picks nothing of:
//!          millpond picks one after the other ──► dialled
//!          │ none free: the next source
//!          ▼
//!  none left: ports exhausted
//! ```
//!
//! The kernel picks first also where TIME_WAIT may be reused, so that no port is taken out of it as long as
//! another is free.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tracing::{debug, warn};

use super::source::{SourcePorts, Sources};
use crate::close::Side;
use crate::stats::ledger::{Ledger, Watch};
use crate::stats::reason::ConnectOutcome;
use crate::sys::{clock, socket};
use crate::transport::Transport;

/// How many ports of one source are tried in one connect where millpond picks them. The next connect goes
/// on behind them.
const PICKS_MAX: u32 = 512;

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

/// Dials one address after the other.
pub(super) struct Dialler<'c> {
    pub(super) options: &'c Options,
    pub(super) ledger: &'c Ledger,
    /// Follows the last socket that was tried.
    pub(super) watch: &'c mut Watch,
    /// The address that was dialled last.
    pub(super) address: Option<SocketAddr>,
}

/// What one source has to say.
enum Tried {
    Ended(Result<TcpStream, ConnectOutcome>),
    /// No port of it is free.
    Empty,
    /// Its address is not this host's.
    Foreign,
}

/// Dials one address from one of the sources.
struct Dial<'d> {
    address: SocketAddr,
    options: &'d Options,
    ledger: &'d Ledger,
    watch: &'d mut Watch,
}

impl Dialler<'_> {
    /// Dials from the sources in their order, as long as they lack a port.
    pub(super) async fn dial(&mut self, address: SocketAddr) -> Result<Transport, ConnectOutcome> {
        self.address = Some(address);
        let mut dial = Dial {
            address,
            options: self.options,
            ledger: self.ledger,
            watch: self.watch,
        };
        let stream = match self.options.sources.all().is_empty() {
            true => dial.dial_from_anywhere().await?,
            false => dial.dial_from_sources().await?,
        };
        self.watch.connected(stream.as_fd());
        Ok(Transport::dialled_tcp(stream))
    }
}

impl Dial<'_> {
    async fn dial_from_anywhere(&mut self) -> Result<TcpStream, ConnectOutcome> {
        let socket = self.open().map_err(|it| outcome(&it))?;
        self.connect(socket).await.map_err(|error| match error {
            // The kernel says the same where it has no address to dial from, as towards ::1 without IPv6.
            error if is_taken(&error) && socket::address_towards(self.address).is_err() => {
                ConnectOutcome::Unreachable
            }
            error => outcome(&error),
        })
    }

    async fn dial_from_sources(&mut self) -> Result<TcpStream, ConnectOutcome> {
        let sources = &self.options.sources;
        let mut worst = ConnectOutcome::SourceUnusable;
        for source in sources.order(self.address.ip(), clock::now()) {
            match self.dial_from(&source, sources.reuse_time_wait()).await {
                Tried::Ended(ended) => {
                    if ended.is_ok() {
                        source.on_dialled(clock::now());
                    }
                    return ended;
                }
                Tried::Empty => {
                    source.on_empty(clock::now());
                    worst = ConnectOutcome::PortsExhausted;
                }
                Tried::Foreign => {
                    if source.on_foreign(clock::now()) {
                        let (ip, address) = (source.address().ip, self.address);
                        warn!(
                            "{ip} is not an address of this host: {address} is not dialled from it"
                        );
                    }
                }
            }
            // To find no port free may have cost the kernel a walk through all of them.
            tokio::task::yield_now().await;
        }
        Err(worst)
    }

    async fn dial_from(&mut self, source: &SourcePorts, reuse_time_wait: bool) -> Tried {
        let now = clock::now();
        if source.may_be_picked(now) {
            match self.let_kernel_pick(source, reuse_time_wait).await {
                Tried::Empty if reuse_time_wait => source.on_unpicked(now),
                tried => return tried,
            }
        }
        self.pick(source, reuse_time_wait).await
    }

    /// The port is chosen when it connects, among all that are free towards the peer.
    async fn let_kernel_pick(&mut self, source: &SourcePorts, reuse_time_wait: bool) -> Tried {
        let opened = self.open().and_then(|opened| {
            // So that another may take the port out of its TIME_WAIT.
            opened.set_reuseaddr(reuse_time_wait)?;
            socket::choose_port_at_connect(opened.as_fd())?;
            if let Some(ports) = &source.address().ports {
                socket::set_local_ports(opened.as_fd(), ports)?;
            }
            Ok(opened)
        });
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return Tried::failed(&error),
        };
        match opened.bind((source.address().ip, 0).into()) {
            Ok(()) => match self.connect(opened).await {
                Err(error) if is_taken(&error) => Tried::Empty,
                ended => Tried::Ended(ended.map_err(|it| outcome(&it))),
            },
            Err(error) if is_foreign(&error) => Tried::Foreign,
            Err(error) => Tried::failed(&error),
        }
    }

    /// One port after the other, until one is free.
    async fn pick(&mut self, source: &SourcePorts, reuse_time_wait: bool) -> Tried {
        let ip = source.address().ip;
        let mut unbound = None;
        for _ in 0..PICKS_MAX.min(source.ports()) {
            let opened = match unbound.take().map_or_else(|| self.open(), Ok) {
                Ok(opened) => opened,
                Err(error) => return Tried::failed(&error),
            };
            match bind(&opened, ip, source.next_port(), reuse_time_wait) {
                Ok(()) => {}
                // Of somebody else, or in TIME_WAIT: the socket is as it was.
                Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {
                    unbound = Some(opened);
                    continue;
                }
                Err(error) if is_foreign(&error) => return Tried::Foreign,
                Err(error) => return Tried::failed(&error),
            }
            match self.connect(opened).await {
                // A connection towards this peer has it.
                Err(error) if is_taken(&error) => {}
                ended => return Tried::Ended(ended.map_err(|it| outcome(&it))),
            }
        }
        Tried::Empty
    }

    fn open(&self) -> io::Result<TcpSocket> {
        let socket = if self.address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        let options_of = SockRef::from(&socket);
        options_of.set_tcp_nodelay(true)?;
        if let Some(idle) = self.options.keepalive {
            let keepalive = TcpKeepalive::new().with_time(idle).with_interval(idle);
            options_of.set_tcp_keepalive(&keepalive)?;
        }
        if self.options.user_timeout.is_some() {
            options_of.set_tcp_user_timeout(self.options.user_timeout)?;
        }
        Ok(socket)
    }

    async fn connect(&mut self, socket: TcpSocket) -> io::Result<TcpStream> {
        *self.watch = self
            .ledger
            .watch(Side::Upstream, socket.as_fd(), self.address);
        socket.connect(self.address).await
    }
}

impl Tried {
    fn failed(error: &io::Error) -> Self {
        Self::Ended(Err(outcome(error)))
    }
}

fn bind(socket: &TcpSocket, ip: IpAddr, port: u16, reuse_time_wait: bool) -> io::Result<()> {
    socket.set_reuseaddr(reuse_time_wait)?;
    socket.bind((ip, port).into())
}

/// What bind(2) says of an address that is not this host's.
fn is_foreign(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EADDRNOTAVAIL)
}

/// What connect(2) says when no port, or not this one, is free towards the peer.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE)
    )
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
