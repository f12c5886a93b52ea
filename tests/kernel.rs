//! What millpond takes for granted about the kernel's sockets, without millpond.
//!
//! A test here that fails means that a rule of `close`, `pool`, `relay` or `listener` rests on
//! something that this kernel does not do.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use millpond::close::linger::ANSWER_TIME_MAX;
use millpond::sys::socket::{
    choose_port_at_connect, deafen, drop_new_connections, set_local_ports, unacknowledged_bytes,
};
use millpond::sys::tcp_info::{TcpInfo, TcpState, tcp_info};
use support::netns::Namespace;
use support::wait;

/// Two ends of one connection over loopback: who dialled, who accepted.
fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    for end in [&dialled, &accepted] {
        end.set_nodelay(true).unwrap();
        end.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        end.set_write_timeout(Some(wait::PATIENCE)).unwrap();
    }
    (dialled, accepted)
}

/// What epoll(7) says of a socket now.
fn events(socket: &TcpStream) -> EpollFlags {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let asked = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
    epoll.add(socket, EpollEvent::new(asked, 0)).unwrap();
    let mut ready = [EpollEvent::empty()];
    match epoll.wait(&mut ready, EpollTimeout::ZERO).unwrap() {
        0 => EpollFlags::empty(),
        _ => ready[0].events(),
    }
}

fn wait_for(event: EpollFlags, socket: &TcpStream) {
    wait::until(&format!("{event:?}"), || {
        events(socket).contains(event).then_some(())
    });
}

/// Waits until the peer's RST has arrived, and leaves the error where it is.
fn wait_for_reset(socket: &TcpStream) {
    wait_for(EpollFlags::EPOLLERR, socket);
}

/// Waits until the peer's FIN has arrived.
fn wait_for_fin(socket: &TcpStream) {
    wait_for(EpollFlags::EPOLLRDHUP, socket);
}

fn unacknowledged(socket: &impl AsFd) -> u64 {
    unacknowledged_bytes(socket.as_fd()).unwrap()
}

fn wait_acknowledged(socket: &TcpStream) {
    wait::until("everything written is acknowledged", || {
        (unacknowledged(socket) == 0).then_some(())
    });
}

/// Closes with an RST.
fn reset(socket: TcpStream) {
    SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(socket);
}

fn pending_error(socket: &TcpStream) -> Option<ErrorKind> {
    socket.take_error().unwrap().map(|error| error.kind())
}

/// All bytes until the end, and the end.
fn read_to_end(socket: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes).map(drop);
    (bytes, end)
}

/// Writes until the peer's window and our buffer are full; how much.
fn fill(socket: &mut TcpStream) -> usize {
    socket.set_nonblocking(true).unwrap();
    let mut written = 0;
    loop {
        match socket.write(&[b'x'; 16_384]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    socket.set_nonblocking(false).unwrap();
    written
}

fn kind<T: std::fmt::Debug>(outcome: io::Result<T>) -> ErrorKind {
    outcome.unwrap_err().kind()
}

#[test]
fn a_close_with_unread_bytes_is_an_rst() {
    let (mut dialled, accepted) = connected();
    dialled.write_all(b"never read").unwrap();
    wait_for(EpollFlags::EPOLLIN, &accepted);
    drop(accepted);
    assert_eq!(kind(dialled.read(&mut [0; 1])), ErrorKind::ConnectionReset);
}

#[test]
fn a_close_with_everything_read_is_a_fin() {
    let (mut dialled, mut accepted) = connected();
    dialled.write_all(b"read").unwrap();
    accepted.read_exact(&mut [0; 4]).unwrap();
    drop(accepted);
    assert_eq!(dialled.read(&mut [0; 1]).unwrap(), 0);
    assert!(!events(&dialled).contains(EpollFlags::EPOLLERR));
    assert_eq!(pending_error(&dialled), None);
}

#[test]
fn a_plain_close_goes_on_delivering() {
    let (mut dialled, mut accepted) = connected();
    let written = fill(&mut accepted);
    assert!(unacknowledged(&accepted) > 0);
    drop(accepted);
    let (bytes, end) = read_to_end(&mut dialled);
    assert_eq!(bytes.len(), written);
    end.unwrap();
}

#[test]
fn a_byte_that_comes_after_the_close_is_answered_by_an_rst() {
    let (mut dialled, accepted) = connected();
    drop(accepted);
    wait_for_fin(&dialled);
    assert!(!events(&dialled).contains(EpollFlags::EPOLLERR));
    dialled.write_all(b"late").unwrap();
    wait_for_reset(&dialled);
}

#[test]
fn an_abort_drops_what_was_not_acknowledged() {
    let (mut dialled, mut accepted) = connected();
    let written = fill(&mut accepted);
    assert!(unacknowledged(&accepted) > 0);
    reset(accepted);
    let (bytes, end) = read_to_end(&mut dialled);
    assert!(bytes.len() < written, "{} of {written}", bytes.len());
    assert_eq!(kind(end), ErrorKind::ConnectionReset);
}

#[test]
fn an_abort_after_the_last_acknowledgement_loses_nothing() {
    let (mut dialled, mut accepted) = connected();
    let written = fill(&mut accepted);
    let mut bytes = vec![0; written];
    dialled.read_exact(&mut bytes).unwrap();
    // The peer's kernel has these, its program has not.
    accepted.write_all(&[b'y'; 10_000]).unwrap();
    wait_acknowledged(&accepted);
    reset(accepted);
    wait_for_reset(&dialled);
    let (rest, end) = read_to_end(&mut dialled);
    assert_eq!(rest, [b'y'; 10_000]);
    assert_eq!(kind(end), ErrorKind::ConnectionReset);
}

/// Segments that met a socket's least hop limit and were dropped, in this network namespace.
fn dropped_by_hop_limit() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let names = lines.next().unwrap().split_whitespace();
    let mut pairs = names.zip(lines.next().unwrap().split_whitespace());
    let (_, value) = pairs.find(|(name, _)| *name == "TCPMinTTLDrop").unwrap();
    value.parse().unwrap()
}

#[test]
fn a_deaf_socket_does_not_hear_its_peers_rst() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let host = Namespace::create("deaf");
        host.run("ip", &["link", "set", "lo", "up"]);
        host.enter(|| {
            let listener = TcpListener::bind(address).unwrap();
            let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (peers, _) = listener.accept().unwrap();
            deafen(ours.as_fd()).unwrap();
            assert_eq!(dropped_by_hop_limit(), 0);
            reset(peers);
            let has_come = || (dropped_by_hop_limit() == 1).then_some(());
            wait::until("its RST", has_come);
            assert_eq!(tcp_info(ours.as_fd()).unwrap().state, TcpState::Established);
            assert_eq!(pending_error(&ours), None);
        });
    }
}

#[test]
fn bytes_that_came_before_an_rst_can_be_read_after_it() {
    let (mut dialled, mut accepted) = connected();
    accepted.write_all(b"an answer").unwrap();
    wait_acknowledged(&accepted);
    reset(accepted);
    wait_for_reset(&dialled);
    let (bytes, end) = read_to_end(&mut dialled);
    assert_eq!(bytes, b"an answer");
    assert_eq!(kind(end), ErrorKind::ConnectionReset);
}

#[test]
fn an_answer_acknowledges_some_of_its_request() {
    // Short ones, and ones of which the service has taken one byte only.
    for length in [1, 1000, 100_000, 8_000_000] {
        for _ in 0..50 {
            let (mut dialled, mut accepted) = connected();
            let service = std::thread::spawn(move || {
                accepted.read_exact(&mut [0; 1]).unwrap();
                accepted.write_all(b"answer").unwrap();
                accepted
            });
            dialled.set_nonblocking(true).unwrap();
            let written = dialled.write(&vec![b'x'; length]).unwrap() as u64;
            while !events(&dialled).contains(EpollFlags::EPOLLIN) {
                std::thread::yield_now();
            }
            let left = unacknowledged(&dialled);
            assert!(left < written, "{left} of {written} not acknowledged");
            drop(service.join().unwrap());
        }
    }
}

/// A host whose loopback loses what goes to `port` and matches `flags`.
fn lossy(host: &Namespace, port: u16, flags: &str) {
    let port = port.to_string();
    for rule in [
        "add table inet lossy".to_owned(),
        "add chain inet lossy input { type filter hook input priority 0 ; }".to_owned(),
        format!("add rule inet lossy input tcp dport {port} tcp flags & {flags} == {flags} drop"),
    ] {
        host.run("nft", &rule.split(' ').collect::<Vec<_>>());
    }
}

#[test]
fn bytes_that_were_sent_before_the_request_came_acknowledge_nothing_of_it() {
    let host = Namespace::create("kernel");
    let (mut dialled, mut accepted) = host.enter(connected);
    lossy(&host, accepted.local_addr().unwrap().port(), "psh");
    dialled.write_all(b"a request that is lost").unwrap();
    accepted.write_all(b"408").unwrap();
    wait_for(EpollFlags::EPOLLIN, &dialled);
    assert_eq!(unacknowledged(&dialled), 22);
    dialled.read_exact(&mut [0; 3]).unwrap();
    assert_eq!(unacknowledged(&dialled), 22);
}

#[test]
fn a_write_takes_the_error_of_an_rst_and_leaves_what_looks_like_a_fin() {
    let (mut dialled, mut accepted) = connected();
    accepted.write_all(b"half an ans").unwrap();
    wait_acknowledged(&accepted);
    reset(accepted);
    wait_for_reset(&dialled);
    assert_eq!(kind(dialled.write(b"request")), ErrorKind::ConnectionReset);
    let (bytes, end) = read_to_end(&mut dialled);
    assert_eq!(bytes, b"half an ans");
    end.unwrap();
    // So the first failure has to be remembered: the second one says something else.
    assert_eq!(kind(dialled.write(b"request")), ErrorKind::BrokenPipe);
}

#[test]
fn a_look_at_the_error_takes_it_too() {
    let (mut dialled, accepted) = connected();
    reset(accepted);
    wait_for_reset(&dialled);
    assert_eq!(pending_error(&dialled), Some(ErrorKind::ConnectionReset));
    assert_eq!(pending_error(&dialled), None);
    assert_eq!(dialled.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_write_after_a_fin_and_an_rst_is_a_broken_pipe() {
    // The service closed, and its kernel resets what comes afterwards.
    let (mut dialled, mut accepted) = connected();
    accepted.write_all(b"a whole answer").unwrap();
    drop(accepted);
    wait_for_fin(&dialled);
    dialled
        .write_all(b"the first write after a FIN goes out")
        .unwrap();
    wait_for_reset(&dialled);
    assert_eq!(kind(dialled.write(b"more")), ErrorKind::BrokenPipe);
    let (bytes, end) = read_to_end(&mut dialled);
    assert_eq!(bytes, b"a whole answer");
    end.unwrap();

    // The service half-closed, then left with something unread.
    let (mut dialled, mut accepted) = connected();
    dialled.write_all(b"never read").unwrap();
    wait_for(EpollFlags::EPOLLIN, &accepted);
    accepted.write_all(b"a whole answer").unwrap();
    accepted.shutdown(Shutdown::Write).unwrap();
    wait_for_fin(&dialled);
    drop(accepted);
    wait_for_reset(&dialled);
    assert_eq!(kind(dialled.write(b"more")), ErrorKind::BrokenPipe);
    let (bytes, end) = read_to_end(&mut dialled);
    assert_eq!(bytes, b"a whole answer");
    end.unwrap();
}

#[test]
fn a_peek_tells_quiet_from_bytes_from_fin_from_reset() {
    let peek = |socket: &TcpStream| {
        socket.set_nonblocking(true).unwrap();
        SockRef::from(socket).peek(&mut [MaybeUninit::uninit(); 1])
    };
    let (dialled, mut accepted) = connected();
    assert_eq!(kind(peek(&dialled)), ErrorKind::WouldBlock);
    accepted.write_all(b"stray").unwrap();
    wait_for(EpollFlags::EPOLLIN, &dialled);
    assert_eq!(peek(&dialled).unwrap(), 1);

    let (dialled, accepted) = connected();
    drop(accepted);
    wait_for_fin(&dialled);
    assert_eq!(peek(&dialled).unwrap(), 0);

    let (dialled, accepted) = connected();
    reset(accepted);
    wait_for_reset(&dialled);
    assert_eq!(kind(peek(&dialled)), ErrorKind::ConnectionReset);
}

#[test]
fn an_accepted_socket_inherits_the_options_of_its_listener() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let (time, timeout) = (Duration::from_secs(77), Duration::from_secs(88));
    listener.set_tcp_nodelay(true).unwrap();
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(time);
    listener.set_tcp_keepalive(&keepalive).unwrap();
    listener.set_tcp_user_timeout(Some(timeout)).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(8).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let dialled = TcpStream::connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(accepted.tcp_nodelay().unwrap());
    assert!(accepted.keepalive().unwrap());
    assert_eq!(accepted.tcp_keepalive_time().unwrap(), time);
    assert_eq!(accepted.tcp_keepalive_interval().unwrap(), time);
    assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(timeout));
    // None of it is a default.
    assert!(!SockRef::from(&dialled).tcp_nodelay().unwrap());
    assert!(!SockRef::from(&dialled).keepalive().unwrap());
}

#[test]
fn a_listener_that_drops_syns_keeps_its_queue_and_answers_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    drop_new_connections(&SockRef::from(&listener)).unwrap();
    // Neither accepted nor refused.
    let late = TcpStream::connect_timeout(&address, Duration::from_millis(300));
    assert_eq!(kind(late), ErrorKind::TimedOut);
    let accepted: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
    drop(listener);
    for (dialled, mut accepted) in queued.iter_mut().zip(accepted) {
        dialled.write_all(b"hello").unwrap();
        accepted.read_exact(&mut [0; 5]).unwrap();
        accepted.write_all(b"world").unwrap();
        drop(accepted);
        let (bytes, end) = read_to_end(dialled);
        assert_eq!(bytes, b"world");
        end.unwrap();
    }
}

#[test]
fn closing_a_listener_resets_what_waits_in_its_queue() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut queued = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    drop(listener);
    assert_eq!(kind(queued.read(&mut [0; 1])), ErrorKind::ConnectionReset);
}

#[test]
fn an_abort_of_a_unix_socket_looks_like_an_end_in_order() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"half").unwrap();
    SockRef::from(&ours)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(ours);
    let mut read = Vec::new();
    theirs.read_to_end(&mut read).unwrap();
    assert_eq!(read, b"half");
}

#[test]
fn a_unix_socket_has_nothing_outstanding_exactly_when_its_peer_has_read_all() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    assert_eq!(unacknowledged(&ours), 0);
    for length in [1, 4096, 50_000] {
        ours.write_all(&vec![b'x'; length]).unwrap();
        assert!(unacknowledged(&ours) > 0);
        theirs.read_exact(&mut vec![0; length - 1]).unwrap();
        assert!(unacknowledged(&ours) > 0, "one of {length} bytes is left");
        theirs.read_exact(&mut [0; 1]).unwrap();
        assert_eq!(unacknowledged(&ours), 0);
    }
}

#[test]
fn a_connect_without_a_bind_takes_only_the_ports_it_was_left() {
    let host = Namespace::create("ports");
    host.enter(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ports = 60_001..=60_002;
        let dial = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            set_local_ports(socket.as_fd(), &ports)?;
            socket.connect(&address.into()).map(|()| socket)
        };
        let first = match dial() {
            Ok(socket) => socket,
            Err(error) => {
                // Before Linux 6.3; the demo says so and goes on without.
                assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT));
                return;
            }
        };
        let second = dial().unwrap();
        let mut taken = [&first, &second].map(|socket| {
            let address = socket.local_addr().unwrap();
            address.as_socket().unwrap().port()
        });
        taken.sort_unstable();
        assert_eq!(taken, [60_001, 60_002]);
        assert_eq!(kind(dial()), ErrorKind::AddrNotAvailable);
    });
}

/// A host whose kernel takes no port out of TIME_WAIT by itself, with two services that close nothing.
struct Dialling {
    host: Namespace,
    services: [TcpListener; 2],
}

/// Where it dials from.
const SOURCE: &str = "127.0.0.5";

impl Dialling {
    fn create() -> Self {
        let host = Namespace::create("dial");
        let services = host.enter(|| {
            // Over loopback it would after a second (ip-sysctl.rst, `tcp_tw_reuse`).
            std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "0").unwrap();
            ["127.0.0.1:0", "127.0.0.2:0"].map(|it| TcpListener::bind(it).unwrap())
        });
        Self { host, services }
    }

    /// A connection from 127.0.0.5, at the end of which this side keeps TIME_WAIT.
    fn dial(&self, service: usize, port: u16, options: impl Fn(&Socket)) -> io::Result<Dialled> {
        self.dial_from((SOURCE, port), service, options)
    }

    fn dial_from(
        &self,
        (ip, port): (&str, u16),
        service: usize,
        options: impl Fn(&Socket),
    ) -> io::Result<Dialled> {
        let listener = &self.services[service];
        // The thread's own namespace is the socket's.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        options(&socket);
        let source = SocketAddr::from((ip.parse::<Ipv4Addr>().unwrap(), port));
        socket.bind(&source.into())?;
        socket.connect(&listener.local_addr()?.into())?;
        let dialled = TcpStream::from(socket);
        let (accepted, _) = listener.accept()?;
        Ok(Dialled { dialled, accepted })
    }
}

struct Dialled {
    dialled: TcpStream,
    accepted: TcpStream,
}

impl Dialled {
    fn port(&self) -> u16 {
        self.dialled.local_addr().unwrap().port()
    }

    /// Ends it, the dialling side first, and waits until that is in TIME_WAIT.
    fn end(self) {
        self.dialled.shutdown(Shutdown::Write).unwrap();
        wait_for_fin(&self.accepted);
        drop(self.accepted);
        wait::until("both have closed", || {
            let info = tcp_info(self.dialled.as_fd());
            // The socket is what is left of one that its TIME_WAIT has taken over.
            info.is_ok_and(|it| it.state == TcpState::Close)
                .then_some(())
        });
    }
}

/// Whether this kernel lets a socket keep to a range of ports (Linux 6.3); an upstream does without.
fn knows_ranges() -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let set = set_local_ports(socket.as_fd(), &(50_000..=50_001));
    let errno = set.as_ref().err().and_then(io::Error::raw_os_error);
    assert!(set.is_ok() || errno == Some(libc::ENOPROTOOPT), "{set:?}");
    set.is_ok()
}

/// The kernel picks the port when it connects, out of these.
fn picked_from(ports: RangeInclusive<u16>) -> impl Fn(&Socket) {
    move |socket| {
        choose_port_at_connect(socket.as_fd()).unwrap();
        set_local_ports(socket.as_fd(), &ports).unwrap();
    }
}

fn plain(_: &Socket) {}

fn reusing(socket: &Socket) {
    socket.set_reuse_address(true).unwrap();
}

#[test]
fn a_port_that_is_picked_at_connect_serves_every_peer_at_once() {
    if !knows_ranges() {
        return;
    }
    let hosts = Dialling::create();
    hosts.host.enter(|| {
        let dial = |service| hosts.dial(service, 0, picked_from(50_000..=50_001));
        let all: Vec<Dialled> = [0, 0, 1, 1]
            .into_iter()
            .map(|it| dial(it).unwrap())
            .collect();
        let mut ports: Vec<u16> = all.iter().map(Dialled::port).collect();
        ports.sort_unstable();
        assert_eq!(ports, [50_000, 50_000, 50_001, 50_001]);
        for service in [0, 1] {
            assert_eq!(kind(dial(service).map(drop)), ErrorKind::AddrNotAvailable);
        }
        let other = hosts.dial_from(("127.0.0.6", 0), 0, picked_from(50_000..=50_001));
        assert!(other.is_ok(), "another address has all of them anew");
        for it in all {
            it.end();
        }
        let again = kind(dial(0).map(drop));
        assert_eq!(again, ErrorKind::AddrNotAvailable, "TIME_WAIT holds them");
    });
}

#[test]
fn a_range_outside_of_the_hosts_is_not_observed() {
    if !knows_ranges() {
        return;
    }
    let hosts = Dialling::create();
    hosts.host.enter(|| {
        let host = millpond::census::settings::port_range().unwrap();
        assert_eq!(host, 32_768..=60_999);
        let outside = hosts.dial(0, 0, picked_from(20_000..=20_001)).unwrap();
        assert!(host.contains(&outside.port()), "{}", outside.port());
        let partly = [0; 2].map(|service| {
            let dialled = hosts
                .dial(service, 0, picked_from(60_998..=61_100))
                .unwrap();
            let port = dialled.port();
            (port, dialled)
        });
        let mut ports = partly.each_ref().map(|(port, _)| *port);
        ports.sort_unstable();
        assert_eq!(ports, [60_998, 60_999]);
    });
}

#[test]
fn a_reserved_port_is_not_picked_but_can_be_bound_to() {
    if !knows_ranges() {
        return;
    }
    let hosts = Dialling::create();
    hosts.host.enter(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", "50000").unwrap();
        let one = hosts.dial(0, 0, picked_from(50_000..=50_001)).unwrap();
        assert_eq!(one.port(), 50_001);
        let another = hosts.dial(0, 0, picked_from(50_000..=50_001));
        assert_eq!(kind(another.map(drop)), ErrorKind::AddrNotAvailable);
        assert!(hosts.dial(0, 50_000, plain).is_ok());
    });
}

#[test]
fn a_port_that_is_bound_to_serves_one_peer_and_not_in_time_wait() {
    let hosts = Dialling::create();
    hosts.host.enter(|| {
        let first = hosts.dial(0, 21_000, plain).unwrap();
        let second = || kind(hosts.dial(1, 21_000, plain).map(drop));
        assert_eq!(second(), ErrorKind::AddrInUse);
        first.end();
        assert_eq!(second(), ErrorKind::AddrInUse);
        let reusing = hosts.dial(0, 21_000, reusing).map(drop);
        let why = "the one before did not allow it";
        assert_eq!(kind(reusing), ErrorKind::AddrInUse, "{why}");
    });
}

#[test]
fn a_port_that_is_bound_to_with_reuse_serves_every_peer_and_comes_out_of_time_wait() {
    if !knows_ranges() {
        return;
    }
    let hosts = Dialling::create();
    hosts.host.enter(|| {
        let first = hosts.dial(0, 21_000, reusing).unwrap();
        assert!(hosts.dial(1, 21_000, reusing).is_ok());
        let same = hosts.dial(0, 21_000, reusing).map(drop);
        assert_eq!(kind(same), ErrorKind::AddrNotAvailable, "it is in use");
        first.end();
        let second = hosts.dial(0, 21_000, reusing).unwrap();
        second.end();
        // Also where the kernel had picked it, if that socket allowed it.
        let both = |socket: &Socket| {
            reusing(socket);
            picked_from(50_000..=50_000)(socket);
        };
        hosts.dial(0, 0, both).unwrap().end();
        let picked = hosts.dial(0, 0, both).map(drop);
        let why = "what is picked is not in TIME_WAIT";
        assert_eq!(kind(picked), ErrorKind::AddrNotAvailable, "{why}");
        assert!(hosts.dial(0, 50_000, reusing).is_ok());
    });
}

#[test]
fn a_port_that_is_bound_to_is_picked_for_nobody_whatever_the_address() {
    if !knows_ranges() {
        return;
    }
    let hosts = Dialling::create();
    hosts.host.enter(|| {
        let _bound = hosts.dial(0, 50_000, reusing).unwrap();
        let picked = |service| {
            let picking = picked_from(50_000..=50_000);
            hosts
                .dial_from(("127.0.0.6", 0), service, picking)
                .map(drop)
        };
        for service in [0, 1] {
            assert_eq!(kind(picked(service)), ErrorKind::AddrNotAvailable);
        }
    });
}

#[test]
fn without_timestamps_nothing_comes_out_of_time_wait() {
    let hosts = Dialling::create();
    hosts.host.enter(|| {
        std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", "0").unwrap();
        hosts.dial(0, 21_000, reusing).unwrap().end();
        let again = hosts.dial(0, 21_000, reusing).map(drop);
        assert_eq!(kind(again), ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn an_address_of_another_host_can_not_be_bound_to() {
    let hosts = Dialling::create();
    hosts.host.enter(|| {
        let foreign = hosts.dial_from(("10.9.9.9", 0), 0, picked_from(50_000..=50_001));
        assert_eq!(kind(foreign.map(drop)), ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn a_second_shutdown_is_accepted_until_both_fins_are_acknowledged() {
    let host = Namespace::create("kernel");
    let (mut dialled, accepted) = host.enter(connected);
    dialled.shutdown(Shutdown::Write).unwrap();
    // Ours only: FIN_WAIT_2.
    wait_for_fin(&accepted);
    dialled.shutdown(Shutdown::Write).unwrap();
    // Both, but nobody has acknowledged the second: LAST_ACK.
    lossy(&host, accepted.local_addr().unwrap().port(), "ack");
    accepted.shutdown(Shutdown::Write).unwrap();
    accepted.shutdown(Shutdown::Write).unwrap();
    // The other side has seen both: TIME_WAIT, which is no connection any more.
    assert_eq!(dialled.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(
        kind(dialled.shutdown(Shutdown::Write)),
        ErrorKind::NotConnected
    );
    host.run("nft", &["delete", "table", "inet", "lossy"]);
    wait::until("the last FIN is acknowledged", || {
        accepted.shutdown(Shutdown::Write).err()
    });
    for end in [&dialled, &accepted] {
        assert_eq!(kind(end.shutdown(Shutdown::Write)), ErrorKind::NotConnected);
        assert_eq!(pending_error(end), None);
    }
}

#[test]
fn a_shutdown_after_an_rst_finds_nobody_and_leaves_the_error() {
    let (dialled, accepted) = connected();
    reset(accepted);
    wait_for_reset(&dialled);
    assert_eq!(
        kind(dialled.shutdown(Shutdown::Write)),
        ErrorKind::NotConnected
    );
    assert_eq!(pending_error(&dialled), Some(ErrorKind::ConnectionReset));
}

/// What TCP says of a socket.
fn told(socket: &TcpStream) -> TcpInfo {
    tcp_info(socket.as_fd()).unwrap()
}

#[test]
fn the_peers_fin_counts_as_a_byte_received_and_our_syn_as_one_acknowledged() {
    let (mut dialled, mut accepted) = connected();
    dialled.write_all(b"four").unwrap();
    accepted.write_all(b"fifth").unwrap();
    let mut read = [0; 5];
    accepted.read_exact(&mut read[..4]).unwrap();
    dialled.read_exact(&mut read).unwrap();
    wait_acknowledged(&dialled);
    wait_acknowledged(&accepted);
    assert_eq!(told(&dialled).acknowledged_bytes, 1 + 4);
    assert_eq!(told(&accepted).acknowledged_bytes, 5);
    assert_eq!(told(&dialled).received_bytes, 5);
    assert_eq!(told(&dialled).state, TcpState::Established);
    accepted.shutdown(Shutdown::Write).unwrap();
    wait_for_fin(&dialled);
    assert_eq!(told(&dialled).received_bytes, 5 + 1);
    assert_eq!(told(&dialled).state, TcpState::CloseWait);
}

#[test]
fn a_reset_leaves_what_was_acknowledged_and_counts_no_fin() {
    let (mut dialled, accepted) = connected();
    dialled.write_all(b"unread").unwrap();
    wait_acknowledged(&dialled);
    reset(accepted);
    wait_for_reset(&dialled);
    let told = told(&dialled);
    assert_eq!(told.state, TcpState::Close);
    assert_eq!(told.acknowledged_bytes, 1 + 6);
    assert_eq!(told.received_bytes, 0);
}

#[test]
fn what_a_reset_left_unacknowledged_is_told_after_it() {
    let (mut dialled, accepted) = connected();
    SockRef::from(&dialled).set_nonblocking(true).unwrap();
    let mut written = 0;
    while let Ok(count) = dialled.write(&[0; 65536]) {
        written += count as u64;
    }
    let before = wait::until("what the peer's kernel takes is acknowledged", || {
        let told = told(&dialled);
        (told.acknowledged_bytes > 1).then_some(told)
    });
    reset(accepted);
    wait_for_reset(&dialled);
    let after = told(&dialled);
    assert!(after.acknowledged_bytes >= before.acknowledged_bytes);
    let lost = written - (after.acknowledged_bytes - 1);
    assert!(lost > 0);
    assert_eq!(unacknowledged(&dialled), lost);
}

/// Two ends of a connection that has carried an exchange: four bytes there, five back.
fn used() -> (TcpStream, TcpStream) {
    let (mut dialled, mut accepted) = connected();
    let mut read = [0; 5];
    dialled.write_all(b"four").unwrap();
    accepted.read_exact(&mut read[..4]).unwrap();
    accepted.write_all(b"fifth").unwrap();
    dialled.read_exact(&mut read).unwrap();
    wait_acknowledged(&dialled);
    (dialled, accepted)
}

/// Acknowledged of what [`used`] has written, and received of what it has read.
const ACKNOWLEDGED_BEFORE: u64 = 1 + 4;
const READ: u64 = 5;

#[test]
fn a_request_that_meets_a_closed_socket_is_answered_by_an_rst_and_acknowledged_by_nobody() {
    let (mut dialled, accepted) = used();
    drop(accepted);
    wait_for_fin(&dialled);
    dialled.write_all(b"request").unwrap();
    wait_for_reset(&dialled);
    // A read says FIN, and leaves the error where it is.
    assert_eq!(dialled.read(&mut [0; 1]).unwrap(), 0);
    let told = told(&dialled);
    assert_eq!(told.state, TcpState::Close);
    assert_eq!(told.received_bytes, READ + 1);
    assert_eq!(told.acknowledged_bytes, ACKNOWLEDGED_BEFORE);
    assert_eq!(pending_error(&dialled), Some(ErrorKind::BrokenPipe));
}

#[test]
fn a_peer_that_closed_by_half_acknowledges_a_request_in_time() {
    for reads in [true, false] {
        let (mut dialled, mut accepted) = used();
        accepted.shutdown(Shutdown::Write).unwrap();
        wait_for_fin(&dialled);
        dialled.write_all(b"request").unwrap();
        if reads {
            accepted.read_exact(&mut [0; 7]).unwrap();
        }
        wait::within(ANSWER_TIME_MAX, "the request is acknowledged", || {
            let told = told(&dialled);
            assert_eq!(told.state, TcpState::CloseWait);
            assert_eq!(told.received_bytes, READ + 1);
            (told.acknowledged_bytes == ACKNOWLEDGED_BEFORE + 7).then_some(())
        });
    }
}

#[test]
fn the_fin_of_a_peer_that_has_read_a_request_acknowledges_it() {
    let (mut dialled, mut accepted) = used();
    dialled.write_all(b"request").unwrap();
    accepted.read_exact(&mut [0; 7]).unwrap();
    drop(accepted);
    wait_for_fin(&dialled);
    assert_eq!(told(&dialled).acknowledged_bytes, ACKNOWLEDGED_BEFORE + 7);
}

#[test]
fn no_fin_is_counted_of_a_peer_that_aborts_whatever_it_has_read() {
    for read in [7, 3, 0] {
        let (mut dialled, mut accepted) = used();
        dialled.write_all(b"request").unwrap();
        accepted.read_exact(&mut [0; 7][..read]).unwrap();
        reset(accepted);
        wait_for_reset(&dialled);
        // What takes the error leaves a read that says FIN all the same.
        assert_eq!(
            pending_error(&dialled),
            Some(ErrorKind::ConnectionReset),
            "{read}"
        );
        assert_eq!(dialled.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(told(&dialled).state, TcpState::Close);
        assert_eq!(told(&dialled).received_bytes, READ);
    }
}

#[test]
fn a_connection_that_the_kernel_gives_up_looks_as_if_it_was_reset_but_for_its_error() {
    let host = Namespace::create("kernel");
    let (mut dialled, accepted) = host.enter(used);
    SockRef::from(&dialled)
        .set_tcp_user_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    accepted.shutdown(Shutdown::Write).unwrap();
    wait_for_fin(&dialled);
    lossy(&host, accepted.local_addr().unwrap().port(), "psh");
    dialled.write_all(b"request").unwrap();
    let told = wait::until("the kernel gives it up", || {
        let told = told(&dialled);
        (told.state == TcpState::Close).then_some(told)
    });
    assert_eq!(told.received_bytes, READ + 1);
    assert_eq!(told.acknowledged_bytes, ACKNOWLEDGED_BEFORE);
    assert_eq!(pending_error(&dialled), Some(ErrorKind::TimedOut));
}
