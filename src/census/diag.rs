//! Asks the kernel for its TCP sockets, over netlink (sock_diag(7)); no privilege is needed.
//!
//! Own code, since the crates that speak this protocol have no way to hand the kernel a filter, and
//! without one every count costs what all the sockets of the host cost.
//!
//! Blocks while the kernel walks its tables, some milliseconds for a hundred thousand sockets: not for
//! a thread that serves sessions. The kernel locks one bucket at a time, so no connection waits.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Type};

use super::filter::Filter;
use super::socket::{Socket, State, States};

/// Calls `each` for every TCP socket in one of `states` that `filter` holds for, IPv4's first. What
/// comes or goes meanwhile may be listed or not; no other is left out.
///
/// # Errors
/// What socket(2), send(2) and recv(2) say; the kernel's own answer to the question; `InvalidData` for
/// an answer that is none.
pub fn dump(states: States, filter: &Filter, each: &mut dyn FnMut(&Socket)) -> io::Result<()> {
    let program = filter.program();
    let mut listed = |socket: &Socket| {
        if program.is_some() || filter.holds(socket) {
            each(socket);
        }
    };
    for family in [libc::AF_INET, libc::AF_INET6] {
        let answer = ask(family, states, program.as_deref(), &mut listed);
        match answer {
            // A kernel without IPv6.
            Err(error)
                if error.raw_os_error() == Some(libc::ENOENT) && family == libc::AF_INET6 => {}
            answer => answer?,
        }
    }
    Ok(())
}

/// The kernel fills at most 32 KiB at a time (net/netlink/af_netlink.c).
const ANSWER_BYTES_MAX: usize = 64 * 1024;

fn ask(
    family: libc::c_int,
    states: States,
    program: Option<&[u8]>,
    each: &mut dyn FnMut(&Socket),
) -> io::Result<()> {
    let domain = Domain::from(libc::AF_NETLINK);
    let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
    let mut kernel = socket2::Socket::new(domain, Type::RAW, Some(protocol))?;
    kernel.write_all(&question(family, states, program))?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let count = kernel.read(&mut answer)?;
        if read_answer(&answer[..count], each)? == Progress::Complete {
            return Ok(());
        }
    }
}

// include/uapi/linux/netlink.h, sock_diag.h and inet_diag.h.
const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = 56;
const ATTRIBUTE_BYTES: usize = 4;
const SOCKET_BYTES: usize = 72;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_REQ_BYTECODE: u16 = 1;

/// `struct nlmsghdr`, `struct inet_diag_req_v2`, and the program as an attribute.
fn question(family: libc::c_int, states: States, program: Option<&[u8]>) -> Vec<u8> {
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).expect("flags have 16 bits");
    let byte =
        |number: libc::c_int| u8::try_from(number).expect("families and protocols are small");
    let attribute = program.map_or(0, |program| ATTRIBUTE_BYTES + program.len());
    let bytes = HEADER_BYTES + REQUEST_BYTES + attribute;
    let mut question = Vec::with_capacity(bytes);
    let length = u32::try_from(bytes).expect("a question is short");
    question.extend_from_slice(&length.to_ne_bytes());
    question.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    question.extend_from_slice(&flags.to_ne_bytes());
    // The sequence number and the sender, which the kernel repeats: there is one question to a socket.
    question.extend_from_slice(&[0; 8]);
    question.extend_from_slice(&[byte(family), byte(libc::IPPROTO_TCP), 0, 0]);
    question.extend_from_slice(&states.bits().to_ne_bytes());
    // Any ports, addresses, interface and cookie: the program says which.
    question.resize(HEADER_BYTES + REQUEST_BYTES, 0);
    if let Some(program) = program {
        let length = u16::try_from(attribute).expect("a program is short");
        question.extend_from_slice(&length.to_ne_bytes());
        question.extend_from_slice(&INET_DIAG_REQ_BYTECODE.to_ne_bytes());
        question.extend_from_slice(program);
    }
    question
}

/// The timer of a socket that is kept for nothing else (net/ipv4/inet_diag.c).
const TIMER_OF_TIME_WAIT: u8 = 3;

/// How far an answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// There is more to read.
    Partial,
    /// That was all.
    Complete,
}

/// Reads the messages of one part of an answer.
fn read_answer(mut answer: &[u8], each: &mut dyn FnMut(&Socket)) -> io::Result<Progress> {
    while !answer.is_empty() {
        let length = answer
            .first_chunk()
            .map(|it| u32::from_ne_bytes(*it) as usize);
        let message = length.and_then(|length| answer.get(..length));
        let message = message
            .filter(|it| it.len() >= HEADER_BYTES)
            .ok_or_else(nonsense)?;
        let body = &message[HEADER_BYTES..];
        match i32::from(u16::from_ne_bytes([message[4], message[5]])) {
            kind @ (libc::NLMSG_DONE | libc::NLMSG_ERROR) => {
                // A dump that fails on its way (no tcp_diag in this kernel) says so where it ends.
                let code = body
                    .first_chunk()
                    .map_or(0, |code| i32::from_ne_bytes(*code));
                return match code {
                    0 if kind == libc::NLMSG_DONE => Ok(Progress::Complete),
                    0 => Err(nonsense()),
                    code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                };
            }
            kind if kind == i32::from(SOCK_DIAG_BY_FAMILY) => {
                let listed = body.first_chunk().ok_or_else(nonsense)?;
                // A state that is newer than this code is none that holds a port.
                if let Some(socket) = read_socket(listed) {
                    each(&socket);
                }
            }
            _ => {}
        }
        // Messages start at multiples of four.
        answer = answer
            .get(message.len().next_multiple_of(4)..)
            .unwrap_or(&[]);
    }
    Ok(Progress::Partial)
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an answer of sock_diag(7)")
}

/// `struct inet_diag_msg`.
fn read_socket(message: &[u8; SOCKET_BYTES]) -> Option<Socket> {
    let short = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    let long = |at: usize| message[at..at + 4].try_into().map_or(0, u32::from_ne_bytes);
    let family = i32::from(message[0]);
    let address = |at: usize| match family {
        libc::AF_INET => message[at..at + 4]
            .try_into()
            .map(|it: [u8; 4]| Ipv4Addr::from(it).into()),
        _ => message[at..at + 16]
            .try_into()
            .map(|it: [u8; 16]| Ipv6Addr::from(it).into()),
    };
    let local: IpAddr = address(8).ok()?;
    let peer: IpAddr = address(24).ok()?;
    Some(Socket {
        state: State::of(message[1])?,
        local: SocketAddr::new(local.to_canonical(), short(4)),
        peer: SocketAddr::new(peer.to_canonical(), short(6)),
        cookie: u64::from(long(48)) << 32 | u64::from(long(44)),
        receive_queue: long(56),
        send_queue: long(60),
        time_wait_left: (message[2] == TIMER_OF_TIME_WAIT)
            .then(|| Duration::from_millis(long(52).into())),
        user_id: long(64),
        inode: long(68),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;
    use crate::census::filter::{Condition, End};
    use crate::sys::socket::socket_cookie;

    fn listed(states: States, filter: &Filter) -> Vec<Socket> {
        let mut sockets = Vec::new();
        dump(states, filter, &mut |socket| sockets.push(*socket)).expect("sock_diag");
        sockets
    }

    fn both_ends(address: SocketAddr) -> Filter {
        let ends = [End::Local, End::Peer];
        let conditions = ends.map(|end| Condition::at(end, address)).to_vec();
        Filter::any_of(conditions).expect("conditions")
    }

    fn check_connection(listener: &TcpListener) {
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("connected");
        let (_server, _) = listener.accept().expect("accepted");
        let sockets = listed(States::ALL, &both_ends(address));
        assert_eq!(sockets.len(), 3, "{sockets:?}");
        let listening = sockets.iter().find(|it| it.state == State::Listen);
        assert_eq!(listening.expect("listens").local, address);
        let dialling = sockets.iter().find(|it| it.peer == address);
        let dialling = dialling.expect("the client's");
        assert_eq!(dialling.state, State::Established);
        assert_eq!(Ok(dialling.local), client.local_addr().map_err(|_| ()));
        assert_eq!(
            Ok(dialling.cookie),
            socket_cookie(client.as_fd()).map_err(|_| ())
        );
        assert_eq!(listed(States::CONNECTED, &both_ends(address)).len(), 2);
    }

    #[test]
    fn the_kernel_lists_what_the_filter_holds_for() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            check_connection(&TcpListener::bind(address).expect("bound"));
        }
    }

    #[test]
    fn ipv4_carried_by_ipv6_is_ipv4() {
        let listener = TcpListener::bind("[::]:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let _client = TcpStream::connect(address).expect("connected");
        let (_server, _) = listener.accept().expect("accepted");
        let sockets = listed(States::CONNECTED, &both_ends(address));
        assert_eq!(sockets.len(), 2, "{sockets:?}");
        assert!(sockets.iter().any(|it| it.local == address), "{sockets:?}");
        assert!(sockets.iter().any(|it| it.peer == address), "{sockets:?}");
    }

    #[test]
    fn more_conditions_than_the_kernel_is_given_hold_all_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let nowhere = (1..200).map(|port| Condition::at(End::Peer, ([127, 9, 9, 9], port).into()));
        let conditions: Vec<_> = nowhere
            .chain([Condition::at(End::Local, address)])
            .collect();
        let filter = Filter::any_of(conditions).expect("conditions");
        let sockets = listed(States::ALL, &filter);
        assert_eq!(sockets.len(), 1, "{sockets:?}");
        assert!(sockets[0].send_queue > 0, "its accept queue");
    }

    #[test]
    fn an_answer_that_is_none_is_an_error() {
        let mut none = |_: &Socket| panic!("none is listed");
        for nonsense in [&[1, 0, 0, 0][..], &[0; 40], &[255; 40], &[3, 0]] {
            let error = read_answer(nonsense, &mut none).expect_err("nonsense");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        for kind in [libc::NLMSG_ERROR, libc::NLMSG_DONE] {
            let mut refused = Vec::from(20_u32.to_ne_bytes());
            refused.extend_from_slice(&u16::try_from(kind).expect("a kind").to_ne_bytes());
            refused.extend_from_slice(&[0; 10]);
            refused.extend_from_slice(&(-libc::ENOENT).to_ne_bytes());
            let error = read_answer(&refused, &mut none).expect_err("refused");
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        }
    }
}
