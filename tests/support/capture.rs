//! What crosses a cable, in the order in which it does.
//!
//! A listing of sockets is no moment's picture: while it walks, one connection ends and the next
//! begins, and it shows both. Segments have an order, so what was open at once can be told exactly.

use std::collections::BTreeSet;
use std::io::Read;
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::wait::Flag;

/// How many connections to one of its ports a host held open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Connections whose SYN came.
    pub opened: u64,
    /// Of them, those that their dialler ended by RST.
    pub aborted: u64,
    /// The most at once, each from its SYN to the host's own FIN or RST, or to the dialler's RST.
    pub at_once_max: u64,
}

/// Sees every segment that begins or ends a connection of a host.
pub struct Capture(Socket);

impl Capture {
    /// Sees what the network namespace that this is called in sends and receives from now on.
    pub fn start() -> Self {
        let every_protocol: i32 = (libc::ETH_P_ALL as u16).to_be().into();
        let socket = Socket::new(
            Domain::PACKET,
            Type::RAW,
            Some(Protocol::from(every_protocol)),
        )
        .unwrap();
        socket.attach_filter(&begins_and_ends()).unwrap();
        socket.set_recv_buffer_size(4 << 20).unwrap();
        // The rhythm in which the flag is looked at.
        let rhythm = Duration::from_millis(20);
        socket.set_read_timeout(Some(rhythm)).unwrap();
        Self(socket)
    }

    /// Counts until the flag is raised and nothing is left.
    pub fn count(&self, port: u16, over: &Flag) -> Held {
        let mut held = Held::default();
        let mut open = BTreeSet::new();
        loop {
            let is_over = over.is_raised();
            let mut frame = [0; FLAGS_AT + 1];
            let Ok(length) = (&self.0).read(&mut frame) else {
                if is_over {
                    return held;
                }
                continue;
            };
            assert_eq!(length, frame.len(), "a segment with its flags");
            let number = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
            let (from, to, flags) = (number(TCP_AT), number(TCP_AT + 2), frame[FLAGS_AT]);
            if to == port && flags & (SYN | ACK) == SYN {
                held.opened += u64::from(open.insert(from));
                held.at_once_max = held.at_once_max.max(open.len() as u64);
            } else if to == port && flags & RST != 0 {
                held.aborted += u64::from(open.remove(&from));
            } else if from == port && flags & (FIN | RST) != 0 {
                open.remove(&to);
            }
        }
    }
}

const PROTOCOL_AT: usize = 14 + 9;
/// Behind an Ethernet header and an IPv4 header without options.
const TCP_AT: usize = 14 + 20;
const FLAGS_AT: usize = TCP_AT + 13;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Passes IPv4 segments with SYN, FIN or RST (socket(7), `SO_ATTACH_FILTER`).
fn begins_and_ends() -> [SockFilter; 8] {
    let statement =
        |code: u32, k: usize, jt: u8, jf: u8| SockFilter::new(code as u16, jt, jf, k as u32);
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let load_half = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let any_of = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    [
        statement(load_half, 12, 0, 0),
        statement(equal, libc::ETH_P_IP as usize, 0, 5),
        statement(load_byte, PROTOCOL_AT, 0, 0),
        statement(equal, libc::IPPROTO_TCP as usize, 0, 3),
        statement(load_byte, FLAGS_AT, 0, 0),
        statement(any_of, usize::from(FIN | SYN | RST), 0, 1),
        statement(answer, FLAGS_AT + 1, 0, 0),
        statement(answer, 0, 0, 0),
    ]
}
