//! Which sockets the kernel lists: conditions, and the program that has the kernel test them.
//!
//! The program is that of include/uapi/linux/inet_diag.h: each instruction says by how many bytes to go
//! on if it holds, and by how many if not; to end exactly behind the last byte is to be listed, to end
//! beyond it is not. For each condition:
//!
//! ```text
//!   ┌─ COND ── holds: to the next instruction ──► JMP ── to the end of the program: listed
//!   └──────── else: past the JMP, to the next COND; from the last one beyond the end: not listed
//! ```
//!
//! Pure: bytes from values.

use std::net::{IpAddr, SocketAddr};

use super::socket::Socket;

/// Beyond so many the kernel would test for longer than it takes to list and test here.
const KERNEL_CONDITIONS_MAX: usize = 64;

/// Sockets that meet one of some conditions; without conditions, all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    conditions: Vec<Condition>,
}

/// What one end of a socket must be. What is `None` may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Condition {
    /// Which end.
    pub end: End,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
}

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The socket's own.
    Local,
    /// The other one.
    Peer,
}

impl Condition {
    /// That `end` is exactly this address, or, where its IP is unspecified (`0.0.0.0`, `[::]`), any with
    /// its port.
    pub fn at(end: End, address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical();
        Self {
            end,
            address: (!ip.is_unspecified()).then_some(ip),
            port: Some(address.port()),
        }
    }

    fn holds(&self, socket: &Socket) -> bool {
        let end = match self.end {
            End::Local => socket.local,
            End::Peer => socket.peer,
        };
        self.port.is_none_or(|port| port == end.port())
            && self.address.is_none_or(|address| address == end.ip())
    }
}

impl Filter {
    /// Every socket.
    pub fn all() -> Self {
        Self::default()
    }

    /// Sockets that meet at least one of these; `None` where there are none, for nothing is asked then.
    pub fn any_of(conditions: Vec<Condition>) -> Option<Self> {
        (!conditions.is_empty()).then_some(Self { conditions })
    }

    /// Whether `socket` is one of them.
    pub fn holds(&self, socket: &Socket) -> bool {
        self.conditions.is_empty() || self.conditions.iter().any(|it| it.holds(socket))
    }

    /// What the kernel is given; `None`: it lists all, and [`Filter::holds`] is for us to ask.
    pub(super) fn program(&self) -> Option<Vec<u8>> {
        let count = self.conditions.len();
        if count == 0 || count > KERNEL_CONDITIONS_MAX {
            return None;
        }
        let tests: Vec<Vec<u8>> = self.conditions.iter().map(test).collect();
        let mut left: usize = tests.iter().map(|it| it.len() + JUMP_BYTES).sum();
        left -= JUMP_BYTES;
        let mut program = Vec::with_capacity(left);
        for (number, test) in tests.iter().enumerate() {
            program.extend_from_slice(test);
            left -= test.len();
            if number + 1 < count {
                program.extend_from_slice(&operation(JUMP, JUMP_BYTES, left));
                left -= JUMP_BYTES;
            }
        }
        Some(program)
    }
}

/// `INET_DIAG_BC_JMP`, `INET_DIAG_BC_S_COND` and `INET_DIAG_BC_D_COND`.
const JUMP: u8 = 1;
const LOCAL_CONDITION: u8 = 7;
const PEER_CONDITION: u8 = 8;
const JUMP_BYTES: usize = 4;

/// `struct inet_diag_bc_op`.
fn operation(code: u8, yes: usize, no: usize) -> [u8; 4] {
    let short = |bytes: usize| u16::try_from(bytes).expect("a program of few conditions is short");
    let yes = u8::try_from(yes).expect("one instruction is short");
    let [low, high] = short(no).to_ne_bytes();
    [code, yes, low, high]
}

/// One condition: `struct inet_diag_bc_op`, then `struct inet_diag_hostcond`.
fn test(condition: &Condition) -> Vec<u8> {
    const PORT_ANY: i32 = -1;
    let (family, address) = match condition.address {
        None => (libc::AF_UNSPEC, Vec::new()),
        Some(IpAddr::V4(ip)) => (libc::AF_INET, ip.octets().to_vec()),
        Some(IpAddr::V6(ip)) => (libc::AF_INET6, ip.octets().to_vec()),
    };
    let code = match condition.end {
        End::Local => LOCAL_CONDITION,
        End::Peer => PEER_CONDITION,
    };
    let bytes = 12 + address.len();
    let mut test = Vec::with_capacity(bytes);
    test.extend_from_slice(&operation(code, bytes, bytes + JUMP_BYTES));
    let family = u8::try_from(family).expect("address families are small");
    let prefix_bits = u8::try_from(address.len() * 8).expect("an address has few bits");
    test.extend_from_slice(&[family, prefix_bits, 0, 0]);
    let port = condition.port.map_or(PORT_ANY, i32::from);
    test.extend_from_slice(&port.to_ne_bytes());
    test.extend_from_slice(&address);
    test
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::socket::State;

    fn socket(local: &str, peer: &str) -> Socket {
        Socket {
            state: State::Established,
            local: local.parse().expect("an address"),
            peer: peer.parse().expect("an address"),
            inode: 1,
            user_id: 0,
            cookie: 1,
            receive_queue: 0,
            send_queue: 0,
            time_wait_left: None,
        }
    }

    fn condition(end: End, address: &str) -> Condition {
        Condition::at(end, address.parse().expect("an address"))
    }

    #[test]
    fn a_socket_meets_one_of_the_conditions() {
        let filter = Filter::any_of(vec![
            condition(End::Local, "0.0.0.0:80"),
            condition(End::Peer, "10.0.0.1:81"),
        ])
        .expect("conditions");
        for (local, peer, expected) in [
            ("10.0.0.2:80", "10.0.0.9:1000", true),
            ("[fd00::2]:80", "[fd00::3]:1000", true),
            ("10.0.0.2:82", "10.0.0.1:81", true),
            ("10.0.0.2:82", "10.0.0.2:81", false),
            ("10.0.0.2:81", "10.0.0.1:80", false),
        ] {
            assert_eq!(
                filter.holds(&socket(local, peer)),
                expected,
                "{local} {peer}"
            );
        }
        assert!(Filter::all().holds(&socket("10.0.0.2:1", "10.0.0.1:2")));
        assert_eq!(Filter::any_of(Vec::new()), None);
    }

    /// Runs a program as the kernel does (net/ipv4/inet_diag.c), for ports alone.
    fn runs(program: &[u8], local: u16, peer: u16) -> bool {
        let (mut at, length) = (0, program.len());
        while at < length {
            let no = usize::from(u16::from_ne_bytes([program[at + 2], program[at + 3]]));
            let holds = match program[at] {
                JUMP => false,
                code => {
                    let port = &program[at + 8..at + 12];
                    let port = i32::from_ne_bytes(port.try_into().expect("four bytes"));
                    let end = if code == LOCAL_CONDITION { local } else { peer };
                    port == -1 || port == i32::from(end)
                }
            };
            at += if holds {
                usize::from(program[at + 1])
            } else {
                no
            };
        }
        at == length
    }

    #[test]
    fn the_program_says_what_the_filter_says() {
        let mut conditions = Vec::new();
        for port in 1..=5 {
            conditions.push(condition(End::Local, &format!("0.0.0.0:{port}")));
            conditions.push(condition(End::Peer, &format!("[::]:{}", port + 2)));
            let filter = Filter::any_of(conditions.clone()).expect("conditions");
            let program = filter.program().expect("a program");
            for local in 0..9 {
                for peer in 0..9 {
                    let held = filter.holds(&socket(
                        &format!("10.0.0.1:{local}"),
                        &format!("10.0.0.2:{peer}"),
                    ));
                    assert_eq!(runs(&program, local, peer), held, "{local} {peer}");
                }
            }
        }
    }

    #[test]
    fn many_conditions_are_not_the_kernels() {
        let many = |count| vec![condition(End::Peer, "10.0.0.1:80"); count];
        let filter = |count| Filter::any_of(many(count)).expect("conditions");
        assert!(filter(KERNEL_CONDITIONS_MAX).program().is_some());
        assert_eq!(filter(KERNEL_CONDITIONS_MAX + 1).program(), None);
        assert_eq!(Filter::all().program(), None);
    }
}
