//! A byte stream to a peer, whatever carries it.
//!
//! Not here: closing on purpose (see `close`); dropping a transport closes its descriptor, and what
//! that means on the wire is the closer's business. Watching, boundaries and truncation speak of
//! the plaintext that passes through here.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected stream socket.
#[derive(Debug)]
pub enum Transport {
    /// TCP over IPv4 or IPv6.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

impl Transport {
    /// Reads what is there; 0 is the peer's FIN. An answer shorter than `buffer` means that nothing
    /// more is there yet, and costs no further system call to find out.
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let filled = buffer.filled().len();
        let polled = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        polled.map_ok(|()| buffer.filled().len() - filled)
    }

    /// Ready when a read would not block: bytes, FIN or RST have arrived.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
        }
    }

    /// Has `look` find out what has arrived. Where that answers `WouldBlock`, readiness has to come
    /// anew.
    pub fn try_io<T>(&self, look: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, look),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, look),
        }
    }

    /// Has the runtime find out anew what has arrived, after a [`Transport::try_io`] that left it in
    /// place. Fails where no descriptor is free; then everything is as it was.
    pub fn rearm(&mut self) -> io::Result<()> {
        // Another descriptor of the same socket: what waits in it is told at its registration, and the
        // socket lives on when the first one is closed.
        *self = match self {
            Self::Tcp(stream) => {
                let again: Socket = SockRef::from(&*stream).try_clone()?;
                Self::Tcp(TcpStream::from_std(again.into())?)
            }
            Self::Unix(stream) => {
                let again: Socket = SockRef::from(&*stream).try_clone()?;
                Self::Unix(UnixStream::from_std(again.into())?)
            }
        };
        Ok(())
    }

    /// Writes `first`, then `second`, in one system call.
    pub fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => poll_write(Pin::new(stream), context, first, second),
            Self::Unix(stream) => poll_write(Pin::new(stream), context, first, second),
        }
    }

    /// Whether TCP carries it, so that the kernel can tell what the peer has acknowledged.
    pub fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A vector costs the kernel more than a buffer, so it is used only where there are two.
fn poll_write<S: AsyncWrite>(
    stream: Pin<&mut S>,
    context: &mut Context<'_>,
    first: &[u8],
    second: &[u8],
) -> Poll<io::Result<usize>> {
    match (first, second) {
        (only, []) | ([], only) => stream.poll_write(context, only),
        _ => {
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            stream.poll_write_vectored(context, &slices)
        }
    }
}
