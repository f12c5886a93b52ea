//! What the kernel knows about one socket.

#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use socket2::{Domain, SockFilter, SockRef, Type};

/// Bytes written that the peer's kernel has not acknowledged (tcp(7), `SIOCOUTQ`). On a Unix socket:
/// memory held by what the peer's program has not read, which is 0 exactly when it has read all.
pub fn unacknowledged_bytes(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed, and the request writes one `int` to a
    // place that lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Bytes that came and were not read (tcp(7), `SIOCINQ`).
pub fn unread_bytes(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed, and the request writes one `int` to a
    // place that lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// The number that the kernel gives a socket and no other, ever (socket(7), `SO_COOKIE`).
pub fn socket_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    cookie_of_descriptor(socket.as_raw_fd())
}

/// The same of whatever has this number among the open descriptors now, which is for the caller to know;
/// an error where that is nothing, or no socket.
pub fn cookie_of_descriptor(descriptor: RawFd) -> io::Result<u64> {
    let mut cookie: u64 = 0;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the call changes nothing of what the number names, and fails where it names no socket; the
    // kernel writes as many bytes as the length says, which is that of the value, to a place that lives
    // until the call returns.
    let result = unsafe {
        libc::getsockopt(
            descriptor,
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The address of this host that a connect to `to` would have. Nothing is sent.
///
/// # Errors
/// What socket(2) and connect(2) say: there is no way there.
pub fn address_towards(to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// Whether the peer has said FIN, whatever is still unread before it (poll(2), `POLLRDHUP`).
pub fn has_peer_closed(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut asked = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: the descriptor is open while it is borrowed, and the call writes to one `pollfd`, the
    // number given, which lives until it returns. A timeout of 0 never waits.
    let result = unsafe { libc::poll(&raw mut asked, 1, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(asked.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0)
}

/// Lets a socket that is bound to an address and no port get one only when it connects, so that the
/// kernel may choose any that is free towards that peer (ip(7), `IP_BIND_ADDRESS_NO_PORT`).
pub fn choose_port_at_connect(socket: BorrowedFd<'_>) -> io::Result<()> {
    let option = libc::IP_BIND_ADDRESS_NO_PORT;
    set_option(socket, libc::IPPROTO_IP, option, 1)
}

/// Whether this kernel knows [`set_local_ports`].
pub fn keeps_to_ranges() -> bool {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None);
    socket.is_ok_and(|it| set_local_ports(it.as_fd(), &(0..=0)).is_ok())
}

/// Leaves a socket that is not bound to a port only these to choose from when it connects, as far as
/// they are among the host's own (ip(7), `IP_LOCAL_PORT_RANGE`): an end of the range that is not among
/// them is not observed. An older kernel than Linux 6.3 says `ENOPROTOOPT`.
pub fn set_local_ports(socket: BorrowedFd<'_>, ports: &RangeInclusive<u16>) -> io::Result<()> {
    // include/uapi/linux/in.h; libc does not name it.
    const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
    let value = u32::from(*ports.end()) << 16 | u32::from(*ports.start());
    set_option(socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, value)
}

/// Sets an option that takes 32 bits and that socket2 has no method for.
fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: u32,
) -> io::Result<()> {
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads as many bytes as
    // the value has, from a place that lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a listening TCP socket drop SYNs without an answer, so that what waits in its accept queue
/// can be accepted and nothing new comes in behind it. Dialers send their SYN again after a second
/// and find the successor, or nobody. What is accepted afterwards must be [`readmit`]ted.
///
/// By a socket filter; where the kernel lets only `CAP_NET_ADMIN` set one, by a hop limit that no
/// segment from anywhere meets unless its sender starts at 255 and is the next hop.
pub fn drop_new_connections(listener: &SockRef<'_>) -> io::Result<()> {
    match drop_syns(listener) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            set_hops_min(listener.as_fd(), HOPS_MAX)
        }
        result => result,
    }
}

/// Lifts from an accepted connection what it has inherited of [`drop_new_connections`].
pub fn readmit(accepted: BorrowedFd<'_>) -> io::Result<()> {
    set_hops_min(accepted, 0)
}

/// Has a TCP socket hear nothing of its peer any more, so that what it is asked next stays true: by a hop
/// limit, as [`drop_new_connections`] does, with the same exception.
pub fn deafen(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_hops_min(socket, HOPS_MAX)
}

const HOPS_MAX: u32 = 255;

/// The least hop limit of a segment that is not dropped (ip(7) `IP_MINTTL`; include/uapi/linux/in6.h
/// `IPV6_MINHOPCOUNT`; RFC 5082). A handshake that is under way at a listener is not affected.
fn set_hops_min(socket: BorrowedFd<'_>, hops: u32) -> io::Result<()> {
    const IPV6_MINHOPCOUNT: libc::c_int = 73;
    // An IPv6 socket may carry IPv4 too, and takes both options.
    if SockRef::from(&socket).domain()? == Domain::IPV6 {
        set_option(socket, libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT, hops)?;
    }
    set_option(socket, libc::IPPROTO_IP, libc::IP_MINTTL, hops)
}

/// By a filter (socket(7), `SO_ATTACH_FILTER`).
fn drop_syns(listener: &SockRef<'_>) -> io::Result<()> {
    // The classic BPF program sees a segment from its TCP header on; flags are its 14th byte.
    const FLAGS_OFFSET: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let statement = |code: u32, k: u32, jt: u8, jf: u8| {
        let code = u16::try_from(code).expect("BPF opcodes have 16 bits");
        SockFilter::new(code, jt, jf, k)
    };
    listener.attach_filter(&[
        statement(
            libc::BPF_LD | libc::BPF_B | libc::BPF_ABS,
            FLAGS_OFFSET,
            0,
            0,
        ),
        statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, SYN | ACK, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, SYN, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
    ])
}
