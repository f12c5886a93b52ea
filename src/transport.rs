//! A byte stream to a peer, whatever carries it.
//!
//! Not here: closing on purpose (see `close`); dropping a transport closes its descriptor, and what
//! that means on the wire is the closer's business. Watching, boundaries and truncation speak of
//! the plaintext that passes through here.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected stream socket, and how much has passed through it.
#[derive(Debug)]
pub struct Transport {
    stream: Stream,
    dialled_by: DialledBy,
    read_bytes: u64,
    written_bytes: u64,
    has_said_fin: bool,
}

#[derive(Debug)]
enum Stream {
    /// TCP over IPv4 or IPv6.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

/// Whose SYN began a connection. The kernel counts it among the bytes that its sender was
/// acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DialledBy {
    Us,
    Peer,
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl Transport {
    /// One that we dialled over TCP.
    pub fn dialled_tcp(stream: TcpStream) -> Self {
        Self::new(stream, DialledBy::Us)
    }

    /// One that we dialled at a Unix socket.
    pub fn dialled_unix(stream: UnixStream) -> Self {
        Self::new(stream, DialledBy::Us)
    }

    /// One that we accepted over TCP.
    pub fn accepted_tcp(stream: TcpStream) -> Self {
        Self::new(stream, DialledBy::Peer)
    }

    /// One that we accepted at a Unix socket.
    pub fn accepted_unix(stream: UnixStream) -> Self {
        Self::new(stream, DialledBy::Peer)
    }

    fn new(stream: impl Into<Stream>, dialled_by: DialledBy) -> Self {
        Self {
            stream: stream.into(),
            dialled_by,
            read_bytes: 0,
            written_bytes: 0,
            has_said_fin: false,
        }
    }

    /// Bytes read from it.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Bytes written to it: the kernel took them, which does not say that they arrived.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Whether we dialled it.
    pub fn is_dialled(&self) -> bool {
        self.dialled_by == DialledBy::Us
    }

    /// Reads what is there; 0 is the peer's FIN. An answer shorter than `buffer` means that nothing
    /// more is there yet, and costs no further system call to find out.
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let filled = buffer.filled().len();
        ready!(match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        })?;
        let count = buffer.filled().len() - filled;
        self.read_bytes += count as u64;
        Poll::Ready(Ok(count))
    }

    /// Ready when a read would not block: bytes, FIN or RST have arrived.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.stream {
            Stream::Tcp(stream) => stream.poll_read_ready(context),
            Stream::Unix(stream) => stream.poll_read_ready(context),
        }
    }

    /// Ready when the connection has failed: the peer's RST has come, or the kernel gave it up.
    pub async fn failed(&self) -> io::Result<()> {
        let failed = match &self.stream {
            Stream::Tcp(stream) => stream.ready(Interest::ERROR).await,
            Stream::Unix(stream) => stream.ready(Interest::ERROR).await,
        };
        failed.map(drop)
    }

    /// Has `look` find out what has arrived. Where that answers `WouldBlock`, readiness has to come
    /// anew.
    pub fn try_io<T>(&self, look: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &self.stream {
            Stream::Tcp(stream) => stream.try_io(Interest::READABLE, look),
            Stream::Unix(stream) => stream.try_io(Interest::READABLE, look),
        }
    }

    /// Has the runtime find out anew what has arrived, after a [`Transport::try_io`] that left it in
    /// place. Fails where no descriptor is free; then everything is as it was.
    pub fn rearm(&mut self) -> io::Result<()> {
        // Another descriptor of the same socket: what waits in it is told at its registration, and the
        // socket lives on when the first one is closed.
        self.stream = match &self.stream {
            Stream::Tcp(stream) => {
                let again: Socket = SockRef::from(stream).try_clone()?;
                Stream::Tcp(TcpStream::from_std(again.into())?)
            }
            Stream::Unix(stream) => {
                let again: Socket = SockRef::from(stream).try_clone()?;
                Stream::Unix(UnixStream::from_std(again.into())?)
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
        let count = ready!(match &mut self.stream {
            Stream::Tcp(stream) => poll_write(Pin::new(stream), context, first, second),
            Stream::Unix(stream) => poll_write(Pin::new(stream), context, first, second),
        })?;
        self.written_bytes += count as u64;
        Poll::Ready(Ok(count))
    }

    /// Says FIN: nothing more is written. Fails where the connection is no more.
    pub fn say_fin(&mut self) -> io::Result<()> {
        SockRef::from(&*self).shutdown(Shutdown::Write)?;
        self.has_said_fin = true;
        Ok(())
    }

    /// Whether our FIN is out.
    pub fn has_said_fin(&self) -> bool {
        self.has_said_fin
    }

    /// Whether TCP carries it, so that the kernel can tell what the peer has acknowledged.
    pub fn is_tcp(&self) -> bool {
        matches!(self.stream, Stream::Tcp(_))
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_connection_has_failed_when_the_rst_comes_behind_the_fin() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut service = Transport::dialled_tcp(TcpStream::connect(address).await?);
        drop(listener.accept().await?);
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let read = std::future::poll_fn(|context| service.poll_read(context, &mut buffer));
        assert_eq!(read.await?, 0);
        let early = timeout(Duration::from_millis(50), service.failed()).await;
        assert!(early.is_err(), "a FIN is no failure");
        let write = std::future::poll_fn(|context| service.poll_write(context, b"late", &[]));
        assert_eq!(write.await?, 4);
        service.failed().await
    }
}
