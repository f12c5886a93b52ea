//! A TCP or Unix stream that knows how it ended: by FIN or by RST.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::SockRef;

use super::wait::PATIENCE;

/// A connected stream. Reads and writes that take longer than [`PATIENCE`] fail the test.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How the other side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
}

impl Socket {
    pub fn dial(address: SocketAddr) -> Self {
        Self::try_dial(address).unwrap_or_else(|error| panic!("connect {address}: {error}"))
    }

    pub fn try_dial(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect_timeout(&address, PATIENCE).map(Self::tcp)
    }

    /// Dials with a socket that is prepared before: some options count only then.
    pub fn dial_with(address: SocketAddr, prepare: impl FnOnce(&socket2::Socket)) -> Self {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        prepare(&socket);
        let connected = socket.connect_timeout(&address.into(), PATIENCE);
        connected.unwrap_or_else(|error| panic!("connect {address}: {error}"));
        Self::tcp(socket.into())
    }

    pub fn dial_unix(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(Self::unix)
    }

    pub fn tcp(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let socket = Self::Tcp(stream);
        socket.set_patience(PATIENCE);
        socket
    }

    pub fn unix(stream: UnixStream) -> Self {
        let socket = Self::Unix(stream);
        socket.set_patience(PATIENCE);
        socket
    }

    /// How long a read or a write may take.
    pub fn set_patience(&self, patience: Duration) {
        let reference = self.reference();
        reference.set_read_timeout(Some(patience)).unwrap();
        reference.set_write_timeout(Some(patience)).unwrap();
    }

    /// A small receive buffer: what a slow reader has.
    pub fn set_receive_buffer(&self, bytes: usize) {
        self.reference().set_recv_buffer_size(bytes).unwrap();
    }

    /// Reads what is there; `Err` is the end of the stream.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, End> {
        loop {
            let outcome = match self {
                Self::Tcp(stream) => stream.read(buffer),
                Self::Unix(stream) => stream.read(buffer),
            };
            match outcome {
                Ok(0) => return Err(End::Fin),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(end_of(&error)),
            }
        }
    }

    /// Whether neither bytes nor an end come for so long.
    pub fn stays_silent(&self, time: Duration) -> bool {
        let reference = self.reference();
        reference.set_read_timeout(Some(time)).unwrap();
        let outcome = reference.peek(&mut [std::mem::MaybeUninit::uninit()]);
        reference.set_read_timeout(Some(PATIENCE)).unwrap();
        outcome.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Writes everything; `Err` when the other side is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        let outcome = match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        };
        outcome.map_err(|error| end_of(&error))
    }

    /// Has the kernel acknowledge at once what it has received.
    pub fn acknowledge(&self) {
        self.reference().set_tcp_quickack(true).unwrap();
    }

    /// Sends our FIN and goes on reading.
    pub fn half_close(&self) {
        // The other side may be gone already.
        let _ = self.reference().shutdown(Shutdown::Write);
    }

    /// Ends both directions, also for a thread that reads from a clone.
    pub fn shut_down(&self) {
        let _ = self.reference().shutdown(Shutdown::Both);
    }

    /// Ends the connection by RST.
    pub fn reset(self) {
        self.reference().set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub fn duplicate(&self) -> Self {
        match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone().unwrap()),
            Self::Unix(stream) => Self::Unix(stream.try_clone().unwrap()),
        }
    }

    /// Our own address and the peer's.
    pub fn ends(&self) -> (String, String) {
        match self {
            Self::Tcp(stream) => (
                stream.local_addr().unwrap().to_string(),
                stream.peer_addr().unwrap().to_string(),
            ),
            Self::Unix(_) => panic!("a Unix socket has no addresses to tell apart"),
        }
    }

    fn reference(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

fn end_of(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => End::Reset,
        _ => panic!("neither bytes nor an end: {error}"),
    }
}
