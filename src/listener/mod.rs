//! Listening sockets.
//!
//! ```text
//!  bind or inherit ──► Listener ──accept loop──► sessions
//!                          │ stop: drop new SYNs, accept what waits, close
//! ```
//!
//! A listener is made from an owned descriptor, wherever that comes from. Not here: what is done
//! with a connection after it is accepted (see `session`).

pub mod accept;
mod bind;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use bind::{BindError, bind};
use socket2::SockRef;
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
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        path: PathBuf,
        /// Which file it is, so that another in its place is left alone.
        file: (u64, u64),
    },
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Listener {
    /// A listener over a descriptor that is bound and listens already. Must be called on the
    /// runtime. Fails if it is not a listening stream socket.
    pub fn from_descriptor(descriptor: OwnedFd) -> io::Result<Self> {
        let bound = SockRef::from(&descriptor).local_addr()?;
        SockRef::from(&descriptor).set_nonblocking(true)?;
        if let Some(address) = bound.as_socket() {
            let listener = TcpListener::from_std(descriptor.into())?;
            return Ok(Self {
                socket: Socket::Tcp(listener),
                address: Address::Ip(address),
            });
        }
        let path = bound
            .as_pathname()
            .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "neither IP nor a path"))?
            .to_owned();
        let file = identity(&path)?;
        let listener = UnixListener::from_std(descriptor.into())?;
        let address = Address::Unix(path.clone());
        let socket = Socket::Unix {
            listener,
            path,
            file,
        };
        Ok(Self { socket, address })
    }

    /// Where it is bound.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts one connection.
    pub async fn accept(&self) -> io::Result<(Transport, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Transport::Tcp(stream), Peer::Ip(address)))
            }
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Transport::Unix(stream), Peer::Unix))
            }
        }
    }

    /// Keeps new connections out without resetting those that wait to be accepted: a TCP listener
    /// drops new SYNs, so that their senders try again at the successor; a Unix socket's name goes,
    /// unless it is a successor's already.
    pub fn shut_out(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(listener) => socket::drop_new_connections(&SockRef::from(listener)),
            Socket::Unix { path, file, .. } if identity(path).is_ok_and(|now| now == *file) => {
                std::fs::remove_file(path)
            }
            Socket::Unix { .. } => Ok(()),
        }
    }
}
