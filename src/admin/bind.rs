//! The admin interface's listening socket.
//!
//! A Unix socket can be used by its owner only, and its file goes when the listener does. A file
//! that an earlier process left behind is replaced; one that somebody still listens on is not.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use crate::config::checked::Address;

/// Why the admin interface can't listen. The operator's to put right.
#[derive(Debug, Error)]
pub enum BindError {
    /// The kernel said no. A retry is sound once the address is free.
    #[error("admin.listen = \"{address}\": {source}")]
    Refused {
        /// Where it was to listen.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process listens on the Unix socket. A retry is sound once it is gone.
    #[error("admin.listen = \"unix:{}\": another process listens there", path.display())]
    InUse {
        /// The socket's file.
        path: PathBuf,
    },
    /// The path is taken by something that is not a socket, and is left alone.
    #[error("admin.listen = \"unix:{}\": there is a file of another kind", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
}

/// A listening socket.
#[derive(Debug)]
pub enum Listening {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket, with its file.
    Unix(UnixListener, SocketFile),
}

/// Listens at `address`.
pub async fn bind(address: &Address) -> Result<Listening, BindError> {
    let refused = |source| BindError::Refused {
        address: address.clone(),
        source,
    };
    let listener = match address {
        Address::Ip(address) => TcpListener::bind(address).await,
        Address::Name(name, port) => TcpListener::bind((name.as_str(), *port)).await,
        Address::Unix(path) => {
            clear(path).map_err(|error| error.unwrap_or_else(refused))?;
            return bind_unix(path).map_err(refused);
        }
    };
    listener.map(Listening::Tcp).map_err(refused)
}

impl Listening {
    /// Where it really listens.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Ip),
            Self::Unix(_, file) => Ok(Address::Unix(file.path.clone())),
        }
    }
}

/// Either an error that says all, or what the kernel said.
enum Uncleared {
    Said(BindError),
    Kernel(io::Error),
}

impl Uncleared {
    fn unwrap_or_else(self, refused: impl FnOnce(io::Error) -> BindError) -> BindError {
        match self {
            Self::Said(error) => error,
            Self::Kernel(error) => refused(error),
        }
    }
}

/// Removes the socket file that a process which is gone left at `path`.
fn clear(path: &Path) -> Result<(), Uncleared> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Uncleared::Kernel(error)),
    };
    let path = path.to_owned();
    if !metadata.file_type().is_socket() {
        return Err(Uncleared::Said(BindError::NotASocket { path }));
    }
    if is_listened_on(&path).map_err(Uncleared::Kernel)? {
        return Err(Uncleared::Said(BindError::InUse { path }));
    }
    fs::remove_file(&path).map_err(Uncleared::Kernel)
}

/// Only a refused connect proves that nobody listens (unix(7)); a full queue is somebody.
fn is_listened_on(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Ok(()) | Err(_) => Ok(true),
    }
}

fn bind_unix(path: &Path) -> io::Result<Listening> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before the bind: the file is never there with more permissions than it is to have.
    let inode = File::from(OwnedFd::from(socket.try_clone()?));
    inode.set_permissions(Permissions::from_mode(UNIX_MODE))?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from_std(StdUnixListener::from(OwnedFd::from(socket)))?;
    Ok(Listening::Unix(listener, file))
}

const UNIX_MODE: u32 = 0o600;
const BACKLOG: i32 = 128;

/// The file of a Unix socket; dropping it removes the file, unless another took its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // A file that can't be removed is found stale by the next process.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
