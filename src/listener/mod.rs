//! Listening sockets.
//!
//! ```text
//!  bind or inherit ──► Listener ──accept loop──► sessions
//!                          │ stop: drop new SYNs, accept what waits, close
//!                          └ stop of an inherited one: close; who waits is the next process's
//! ```
//!
//! A listener is made from an owned descriptor, wherever that comes from. Not here: what is done
//! with a connection after it is accepted (see `session`).

pub mod accept;
mod bind;
mod inherit;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use bind::{BindError, bind};
pub use inherit::{InheritError, claim};
use socket2::{SockRef, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::config::checked::Address;
use crate::stats::sessions::Peer;
use crate::sys::socket;
use crate::transport::Transport;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// Where it is bound; with port 0 in the configuration, the port that the kernel chose.
    address: Address,
    holder: Holder,
}

/// Who holds a listening socket open, and so what becomes of it when this process closes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// This process alone: the socket is gone, and who waits in its queue is reset.
    Process,
    /// The service manager too: the socket goes on queueing for the next process, so nothing may be
    /// done to it that outlives this one.
    ServiceManager,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        path: PathBuf,
        /// Which file it is, so that another in its place is left alone; `None`: not ours to remove.
        file: Option<(u64, u64)>,
    },
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Listener {
    /// A listener over a descriptor that is bound and listens already. Must be called on the
    /// runtime. Fails if it is not a listening stream socket.
    pub fn from_descriptor(descriptor: OwnedFd, holder: Holder) -> io::Result<Self> {
        let address = listening_at(&SockRef::from(&descriptor))?;
        SockRef::from(&descriptor).set_nonblocking(true)?;
        let socket = match &address {
            Address::Unix(path) => Socket::Unix {
                // What a service manager holds is its own to remove.
                file: match holder {
                    Holder::Process => Some(identity(path)?),
                    Holder::ServiceManager => None,
                },
                listener: UnixListener::from_std(descriptor.into())?,
                path: path.clone(),
            },
            _ => Socket::Tcp(TcpListener::from_std(descriptor.into())?),
        };
        Ok(Self {
            socket,
            address,
            holder,
        })
    }

    /// Where it is bound.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Who holds it open.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// Accepts one connection after [`Listener::shut_out`].
    pub async fn accept_last(&self) -> io::Result<(Transport, Peer)> {
        let (transport, peer) = self.accept().await?;
        if transport.is_tcp() {
            socket::readmit(transport.as_fd())?;
        }
        Ok((transport, peer))
    }

    /// Accepts one connection.
    pub async fn accept(&self) -> io::Result<(Transport, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Transport::accepted_tcp(stream), Peer::Ip(address)))
            }
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Transport::accepted_unix(stream), Peer::Unix))
            }
        }
    }

    /// Keeps new connections out without resetting those that wait to be accepted: a TCP listener
    /// drops new SYNs, so that their senders try again at the successor; a Unix socket's name goes,
    /// unless it is a successor's already.
    pub fn shut_out(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(listener) => socket::drop_new_connections(&SockRef::from(listener)),
            Socket::Unix { path, file, .. } if file.is_some() && identity(path).ok() == *file => {
                std::fs::remove_file(path)
            }
            Socket::Unix { .. } => Ok(()),
        }
    }
}

/// Where a socket listens. Fails if it is not a listening stream socket.
fn listening_at(socket: &SockRef<'_>) -> io::Result<Address> {
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        let error = "it is not a stream socket that listens";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    let bound = socket.local_addr()?;
    if let Some(address) = bound.as_socket() {
        return Ok(Address::Ip(address));
    }
    bound
        .as_pathname()
        .map(|path| Address::Unix(path.to_owned()))
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "neither IP nor a path"))
}
