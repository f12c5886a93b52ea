//! Binds a listening socket with its options.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::config::checked::{Address, Listener};

/// Why a listener could not be bound. The operator's to mend; trying again is sound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The name has no address.
    #[error("{name}:{port}: the name has no address: {error}")]
    Unresolved {
        /// The name.
        name: String,
        /// The port.
        port: u16,
        /// What the resolver said.
        error: io::Error,
    },
    /// The kernel said no.
    #[error("{address}: {error}")]
    Refused {
        /// Where it was to be bound.
        address: Address,
        /// What the kernel said.
        error: io::Error,
    },
    /// Something that is no socket has the path.
    #[error("unix:{}: the path exists and is not a socket", .0.display())]
    PathTaken(PathBuf),
    /// A living process listens on the path.
    #[error("unix:{}: another process listens there", .0.display())]
    PathInUse(PathBuf),
}

/// A bound, listening socket with the options of `settings`.
pub fn bind(settings: &Listener) -> Result<OwnedFd, BindError> {
    match &settings.listen {
        Address::Ip(address) => bind_ip(*address, settings),
        Address::Name(name, port) => {
            let resolved = (name.as_str(), *port)
                .to_socket_addrs()
                .and_then(|mut addresses| {
                    addresses
                        .next()
                        .ok_or_else(|| io::ErrorKind::NotFound.into())
                });
            match resolved {
                Ok(address) => bind_ip(address, settings),
                Err(error) => Err(BindError::Unresolved {
                    name: name.clone(),
                    port: *port,
                    error,
                }),
            }
        }
        Address::Unix(path) => bind_unix(path, settings),
    }
}

fn bind_ip(address: SocketAddr, settings: &Listener) -> Result<OwnedFd, BindError> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(settings.ipv6_only)?;
        }
        // A restart must not wait for the TIME_WAIT of the sessions before it.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(settings.reuse_port)?;
        set_session_options(&SockRef::from(&socket), settings)?;
        socket.bind(&address.into())?;
        socket.listen(backlog(settings))?;
        Ok(socket)
    };
    open()
        .map(Into::into)
        .map_err(|error| refused(settings, error))
}

/// Sets what sessions inherit from a TCP listener (`TCP_NODELAY`, keepalive, `TCP_USER_TIMEOUT`;
/// tcp(7)), once for all of them.
pub(super) fn set_session_options(socket: &SockRef<'_>, settings: &Listener) -> io::Result<()> {
    socket.set_tcp_nodelay(settings.nodelay)?;
    match settings.keepalive {
        Some(idle) => {
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(idle))?;
        }
        None => socket.set_keepalive(false)?,
    }
    socket.set_tcp_user_timeout(settings.user_timeout)
}

fn bind_unix(path: &Path, settings: &Listener) -> Result<OwnedFd, BindError> {
    make_way(path)?;
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(settings.unix_mode))?;
        socket.listen(backlog(settings))?;
        Ok(socket)
    };
    open()
        .map(Into::into)
        .map_err(|error| refused(settings, error))
}

/// Removes the socket that a killed process left behind, and nothing else.
fn make_way(path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::PathTaken(path.to_owned()));
    }
    if !is_abandoned(path) {
        return Err(BindError::PathInUse(path.to_owned()));
    }
    // If it can't be removed, bind says so.
    let _ = std::fs::remove_file(path);
    Ok(())
}

/// Only a refused connect proves that nobody listens (unix(7)): a full queue is somebody, and so may
/// be a socket that we may not connect to.
fn is_abandoned(path: &Path) -> bool {
    let connect = || -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    connect().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn refused(settings: &Listener, error: io::Error) -> BindError {
    BindError::Refused {
        address: settings.listen.clone(),
        error,
    }
}

fn backlog(settings: &Listener) -> i32 {
    i32::try_from(settings.backlog).unwrap_or(i32::MAX)
}
