//! How clients connect: to what, and with which options on their own sockets.

use std::io;
use std::net::SocketAddrV4;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::path::PathBuf;

use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_util::either::Either;

use crate::sys::socket;

/// A client's connection.
pub(super) type Stream = Either<TcpStream, UnixStream>;

/// Whom a client dials.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Tcp(SocketAddrV4),
    Unix(PathBuf),
}

/// A way to connect. The options concern TCP only.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    pub(super) target: Target,
    /// The ports that the kernel may choose from; `None`: the host's own.
    pub(super) ports: Option<RangeInclusive<u16>>,
    /// `SO_REUSEADDR` and `SO_REUSEPORT` before the connect, and no bind.
    pub(super) reuse: bool,
    /// `SO_RCVBUF`, bytes; `None`: the system's.
    pub(super) receive_bytes: Option<u32>,
}

impl Dial {
    pub(super) fn tcp(address: SocketAddrV4) -> Self {
        Self::to(Target::Tcp(address))
    }

    pub(super) fn to(target: Target) -> Self {
        Self {
            target,
            ports: None,
            reuse: false,
            receive_bytes: None,
        }
    }

    pub(super) async fn connect(&self) -> io::Result<Stream> {
        let address = match &self.target {
            Target::Unix(path) => return UnixStream::connect(path).await.map(Either::Right),
            Target::Tcp(address) => *address,
        };
        let socket = TcpSocket::new_v4()?;
        if let Some(ports) = &self.ports {
            socket::set_local_ports(socket.as_fd(), ports)?;
        }
        if self.reuse {
            socket.set_reuseaddr(true)?;
            socket.set_reuseport(true)?;
        }
        if let Some(bytes) = self.receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.connect(address.into()).await.map(Either::Left)
    }
}

/// Whether this kernel lets a socket narrow its ports (Linux 6.3).
pub(super) fn can_narrow_ports(ports: &RangeInclusive<u16>) -> io::Result<bool> {
    let socket = TcpSocket::new_v4()?;
    match socket::set_local_ports(socket.as_fd(), ports) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(false),
        Err(error) => Err(error),
    }
}
