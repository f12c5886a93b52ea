//! The cheapest relay that epoll allows, for orientation: what no proxy in user space can go below.
//!
//! One thread; each client is paired with a service connection of its own for life; a request costs
//! four calls (read, write, read, write) beside its share of `epoll_wait`. Nothing is parsed,
//! pooled, timed, counted or closed with care: it is a measure, not a proxy.

#![allow(unsafe_code)]

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const EVENTS_MAX: usize = 256;
const BUFFER_BYTES: usize = 64 * 1024;

/// One socket of a pair.
struct Leg {
    stream: TcpStream,
    peer: RawFd,
    /// Bytes that the peer sent and this socket did not take yet; the peer isn't read meanwhile.
    pending: Vec<u8>,
}

/// Relays until the process is ended.
///
/// # Errors
/// The address is taken, or the service can't be dialled.
pub(crate) fn relay(listen: SocketAddr, upstream: SocketAddr) -> io::Result<Infallible> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), libc::EPOLLIN)?;
    let mut legs: Vec<Option<Leg>> = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
    loop {
        for event in epoll.wait(&mut events)? {
            let descriptor = RawFd::try_from(event.u64).map_err(io::Error::other)?;
            if descriptor == listener.as_raw_fd() {
                pair(&epoll, &listener, upstream, &mut legs)?;
                continue;
            }
            let moved = match event.events & libc::EPOLLOUT as u32 {
                0 => carry(&epoll, &mut legs, descriptor, &mut buffer),
                _ => flush(&epoll, &mut legs, descriptor),
            };
            if moved.is_err() {
                // Closing a descriptor takes it out of the epoll set.
                if let Some(leg) = take(&mut legs, descriptor) {
                    take(&mut legs, leg.peer);
                }
            }
        }
    }
}

fn pair(
    epoll: &Epoll,
    listener: &TcpListener,
    upstream: SocketAddr,
    legs: &mut Vec<Option<Leg>>,
) -> io::Result<()> {
    let downstream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    let upstream = TcpStream::connect(upstream)?;
    let descriptors = [downstream.as_raw_fd(), upstream.as_raw_fd()];
    for (stream, peer) in [(downstream, descriptors[1]), (upstream, descriptors[0])] {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        epoll.add(stream.as_raw_fd(), libc::EPOLLIN)?;
        let place = usize::try_from(stream.as_raw_fd()).map_err(io::Error::other)?;
        if legs.len() <= place {
            legs.resize_with(place + 1, || None);
        }
        legs[place] = Some(Leg {
            stream,
            peer,
            pending: Vec::new(),
        });
    }
    Ok(())
}

/// Reads once from `from` and writes once to its peer. An error ends the pair.
fn carry(
    epoll: &Epoll,
    legs: &mut [Option<Leg>],
    from: RawFd,
    buffer: &mut [u8],
) -> io::Result<()> {
    // An earlier event of the same batch may have ended the pair.
    let Some(source) = leg(legs, from) else {
        return Ok(());
    };
    let peer = source.peer;
    let count = match source.stream.read(buffer) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        result => result?,
    };
    let Some(target) = leg(legs, peer) else {
        return Ok(());
    };
    let written = write(&mut target.stream, &buffer[..count])?;
    if written < count {
        target.pending.extend_from_slice(&buffer[written..count]);
        epoll.change(peer, libc::EPOLLOUT)?;
        epoll.change(from, 0)?;
    }
    Ok(())
}

fn flush(epoll: &Epoll, legs: &mut [Option<Leg>], to: RawFd) -> io::Result<()> {
    let Some(target) = leg(legs, to) else {
        return Ok(());
    };
    let written = write(&mut target.stream, &target.pending)?;
    target.pending.drain(..written);
    if target.pending.is_empty() {
        epoll.change(to, libc::EPOLLIN)?;
        epoll.change(target.peer, libc::EPOLLIN)?;
    }
    Ok(())
}

/// As much as the socket takes at once, which may be nothing.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

fn leg(legs: &mut [Option<Leg>], descriptor: RawFd) -> Option<&mut Leg> {
    legs.get_mut(usize::try_from(descriptor).ok()?)?.as_mut()
}

fn take(legs: &mut [Option<Leg>], descriptor: RawFd) -> Option<Leg> {
    legs.get_mut(usize::try_from(descriptor).ok()?)?.take()
}

/// An epoll set, level-triggered: epoll(7).
struct Epoll(OwnedFd);

impl Epoll {
    fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer. epoll_create1(2)
        let descriptor = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    fn add(&self, descriptor: RawFd, interest: i32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor, interest)
    }

    fn change(&self, descriptor: RawFd, interest: i32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, descriptor, interest)
    }

    fn control(&self, operation: i32, descriptor: RawFd, interest: i32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest.cast_unsigned(),
            u64: u64::from(descriptor.cast_unsigned()),
        };
        // SAFETY: `event` is live during the call; the kernel copies it. epoll_ctl(2)
        let result =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, descriptor, &mut event) };
        checked(result).map(drop)
    }

    /// Waits without limit for at least one event.
    fn wait<'a>(
        &self,
        events: &'a mut [libc::epoll_event; EVENTS_MAX],
    ) -> io::Result<&'a [libc::epoll_event]> {
        let descriptor = self.0.as_raw_fd();
        // SAFETY: `events` is writable for EVENTS_MAX entries, the number given. epoll_wait(2)
        let result =
            unsafe { libc::epoll_wait(descriptor, events.as_mut_ptr(), EVENTS_MAX as i32, -1) };
        match checked(result) {
            Ok(count) => Ok(&events[..usize::try_from(count).map_err(io::Error::other)?]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(&[]),
            Err(error) => Err(error),
        }
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
