//! One line of a trace pipe, read into what it says.
//!
//! Pure. A line has the text format of `trace_pipe`, its fields those that the tracepoint's `print fmt`
//! names; three generations of them are known (Linux 4.16, 5.10, 6.10). Everything is found from the
//! right, because a line begins with the name of whatever program was running, and that may be any text.
//!
//! Invariant: no line makes this panic; what can't be read is [`Line::Unreadable`].

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::time::Duration;

use super::reason::KernelReason;

/// Which way an RST went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// This host's kernel sent it.
    Sent,
    /// It came in for a socket of this host's.
    Received,
}

impl Direction {
    /// Every member.
    pub const ALL: [Self; 2] = [Self::Sent, Self::Received];

    /// The text of its label: stable, part of the public interface.
    pub fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// An RST that the kernel told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetEvent {
    /// When, on the kernel's monotonic clock.
    pub at: Duration,
    /// Which way.
    pub direction: Direction,
    /// This host's end, as [`plain`] spells it.
    pub local: SocketAddr,
    /// The other end, as [`plain`] spells it.
    pub peer: SocketAddr,
    /// The socket's cookie; the kernel tells it of received ones only.
    pub cookie: Option<NonZeroU64>,
    /// Why it was sent.
    pub kernel_reason: KernelReason,
}

/// What a line of the pipe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// An RST.
    Reset(ResetEvent),
    /// The pipe was read too slowly, and so many events are gone; `None` if the kernel does not know.
    Lost(Option<u64>),
    /// Anything else.
    Unreadable,
}

/// Reads one line.
pub fn read(line: &str) -> Line {
    if let Some(lost) = lost_events(line) {
        return Line::Lost(lost);
    }
    reset(line).map_or(Line::Unreadable, Line::Reset)
}

/// An address as every event spells it: an IPv4 one as IPv4 even on a dual-stack socket, and without
/// the scope and the flow of an IPv6 one.
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// `CPU:1 [LOST 23 EVENTS]`
fn lost_events(line: &str) -> Option<Option<u64>> {
    let (_, words) = line.strip_prefix("CPU:")?.split_once(" [LOST ")?;
    let number = words.strip_suffix("EVENTS]")?.trim();
    Some(number.parse().ok())
}

/// `curl-77 [000] ..s1. 12.345678: tcp_send_reset: src=… dest=… …`
fn reset(line: &str) -> Option<ResetEvent> {
    let (direction, before, text) = split(line)?;
    let field = |name: &str| {
        text.split_ascii_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let (local, peer) = match field("src") {
        Some(source) => (source.parse().ok()?, field("dest")?.parse().ok()?),
        None => (
            mapped(field("saddrv6")?, field("sport")?)?,
            mapped(field("daddrv6")?, field("dport")?)?,
        ),
    };
    let cookie = field("sock_cookie").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    Some(ResetEvent {
        at: time(before)?,
        direction,
        local: plain(local),
        peer: plain(peer),
        cookie: cookie.and_then(NonZeroU64::new),
        kernel_reason: match (direction, field("reason")) {
            (Direction::Received, _) => KernelReason::Peer,
            (Direction::Sent, Some(name)) => KernelReason::named(name),
            (Direction::Sent, None) => KernelReason::Unknown,
        },
    })
}

/// Which way, what stands before the tracepoint's name, and what behind it.
pub(super) fn split(line: &str) -> Option<(Direction, &str, &str)> {
    [(Direction::Sent, SEND), (Direction::Received, RECEIVE)]
        .into_iter()
        .filter_map(|(direction, mark)| {
            let (before, text) = line.rsplit_once(mark)?;
            Some((direction, before, text))
        })
        .max_by_key(|(_, before, _)| before.len())
}

/// The fields for IPv6 are filled in for IPv4 too, with mapped addresses.
fn mapped(address: &str, port: &str) -> Option<SocketAddr> {
    let address: Ipv6Addr = address.parse().ok()?;
    Some(SocketAddr::new(IpAddr::V6(address), port.parse().ok()?))
}

/// The last word, `12345.678901`: seconds and microseconds.
fn time(before: &str) -> Option<Duration> {
    let word = before.rsplit(' ').next()?;
    let (seconds, micros) = word.split_once('.')?;
    let is_micros = micros.len() == 6 && micros.bytes().all(|digit| digit.is_ascii_digit());
    let micros: u32 = micros.parse().ok().filter(|_| is_micros)?;
    Some(Duration::new(seconds.parse().ok()?, micros * 1_000))
}

const SEND: &str = ": tcp_send_reset: ";
const RECEIVE: &str = ": tcp_receive_reset: ";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sent(local: &str, peer: &str, kernel_reason: KernelReason) -> Line {
        Line::Reset(ResetEvent {
            at: Duration::from_micros(12_351_780_924),
            direction: Direction::Sent,
            local: local.parse().unwrap(),
            peer: peer.parse().unwrap(),
            cookie: None,
            kernel_reason,
        })
    }

    fn received(local: &str, peer: &str, cookie: u64) -> Line {
        Line::Reset(ResetEvent {
            at: Duration::from_micros(12_351_780_924),
            direction: Direction::Received,
            local: local.parse().unwrap(),
            peer: peer.parse().unwrap(),
            cookie: NonZeroU64::new(cookie),
            kernel_reason: KernelReason::Peer,
        })
    }

    #[test]
    fn lines_of_every_generation_are_read() {
        let head = "         python3-16168   [001] ..s2. 12351.780924: ";
        let table = [
            (
                "tcp_send_reset: skbaddr=0000000000000000 skaddr=0000000098715a6a \
                 src=127.0.0.1:39056 dest=127.0.0.1:53007 state=TCP_CLOSE reason=TCP_STATE",
                sent("127.0.0.1:39056", "127.0.0.1:53007", KernelReason::State),
            ),
            (
                "tcp_send_reset: skbaddr=00000000de5546d3 skaddr=0000000000000000 \
                 src=[::1]:53519 dest=[::1]:54806 state=UNKNOWN reason=NO_SOCKET",
                sent("[::1]:53519", "[::1]:54806", KernelReason::NoSocket),
            ),
            (
                "tcp_send_reset: skbaddr=0000000000000000 skaddr=00000000ca1712e6 \
                 src=[::ffff:127.0.0.1]:49411 dest=[::ffff:127.0.0.1]:52322 state=TCP_CLOSE reason=0x1b",
                sent("127.0.0.1:49411", "127.0.0.1:52322", KernelReason::Unnamed),
            ),
            (
                "tcp_send_reset: skbaddr=00000000a5b0 skaddr=00000000ca17 family=AF_INET sport=80 \
                 dport=4000 saddr=10.0.0.1 daddr=10.0.0.2 saddrv6=::ffff:10.0.0.1 \
                 daddrv6=::ffff:10.0.0.2 state=TCP_ESTABLISHED",
                sent("10.0.0.1:80", "10.0.0.2:4000", KernelReason::Unknown),
            ),
            (
                "tcp_receive_reset: family=AF_INET sport=53007 dport=39056 saddr=127.0.0.1 \
                 daddr=127.0.0.1 saddrv6=::ffff:127.0.0.1 daddrv6=::ffff:127.0.0.1 sock_cookie=293ee",
                received("127.0.0.1:53007", "127.0.0.1:39056", 0x2_93ee),
            ),
            (
                "tcp_receive_reset: family=AF_INET6 sport=53519 dport=54786 saddr=127.0.0.6 \
                 daddr=127.0.0.6 saddrv6=::1 daddrv6=fe80::2 sock_cookie=0",
                received("[::1]:53519", "[fe80::2]:54786", 0),
            ),
            (
                "tcp_receive_reset: sport=80 dport=81 saddr=10.0.0.1 daddr=10.0.0.2 \
                 saddrv6=::ffff:10.0.0.1 daddrv6=::ffff:10.0.0.2",
                received("10.0.0.1:80", "10.0.0.2:81", 0),
            ),
        ];
        for (text, expected) in table {
            assert_eq!(read(&format!("{head}{text}")), expected, "{text}");
        }
    }

    #[test]
    fn a_programs_name_may_be_any_text() {
        let rest = "-1 [000] ..... 12351.780924: tcp_send_reset: src=1.2.3.4:5 dest=6.7.8.9:10 \
                    state=UNKNOWN reason=NO_SOCKET";
        for name in [
            "a b",
            "x: 1.000001: y",
            ": tcp_send_reset: ",
            "[000] src=9",
            "x [000] ..... 1.000001: tcp_receive_reset: y",
            "é\u{fffd}",
        ] {
            let expected = sent("1.2.3.4:5", "6.7.8.9:10", KernelReason::NoSocket);
            assert_eq!(read(&format!("{name}{rest}")), expected, "{name}");
        }
    }

    #[test]
    fn lost_events_are_noticed() {
        assert_eq!(read("CPU:0 [LOST 1234 EVENTS]"), Line::Lost(Some(1234)));
        assert_eq!(read("CPU:17 [LOST EVENTS]"), Line::Lost(None));
    }

    #[test]
    fn what_can_not_be_read_is_said_to_be_so() {
        let good =
            "x-1 [000] ..... 1.000001: tcp_send_reset: src=1.2.3.4:5 dest=6.7.8.9:10 reason=ERROR";
        assert!(matches!(read(good), Line::Reset(_)));
        let table = [
            "",
            "\u{0}",
            "# tracer: nop",
            "x-1 [000] ..... 1.000001: tcp_probe: src=1.2.3.4:5 dest=6.7.8.9:10",
            "x-1 [000] ..... 1.000001: tcp_send_reset:",
            "x-1 [000] ..... 1.000001: tcp_send_reset: ",
            "x-1 [000] ..... 1.000001: tcp_send_reset: src=1.2.3.4:5",
            "x-1 [000] ..... 1.000001: tcp_send_reset: src=1.2.3.4:5 dest=6.7.8.9:70000",
            "x-1 [000] ..... 1.000001: tcp_send_reset: src=1.2.3:5 dest=6.7.8.9:10",
            "x-1 [000] ..... 1.000001: tcp_receive_reset: sport=1 dport=2 saddrv6=::1",
            "x-1 [000] ..... 1.000001: tcp_receive_reset: sport=-1 dport=2 saddrv6=::1 daddrv6=::1",
            "x-1 [000] ..... 1.0001: tcp_send_reset: src=1.2.3.4:5 dest=6.7.8.9:10",
            "x-1 [000] ..... 1.+00001: tcp_send_reset: src=1.2.3.4:5 dest=6.7.8.9:10",
            "x-1 [000] ..... 1: tcp_send_reset: src=1.2.3.4:5 dest=6.7.8.9:10",
            "99999999999999999999.000001: tcp_send_reset: src=1.2.3.4:5 dest=6.7.8.9:10",
        ];
        for line in table {
            assert_eq!(read(line), Line::Unreadable, "{line}");
        }
        for end in 0..good.len() {
            read(&good[..end]);
            read(&good[end..]);
        }
    }

    #[test]
    fn an_address_is_the_same_from_a_socket_and_from_an_event() {
        let scoped: SocketAddr = "[fe80::1%3]:80".parse().unwrap();
        assert_eq!(plain(scoped), "[fe80::1]:80".parse().unwrap());
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(plain(mapped), "10.0.0.1:80".parse().unwrap());
    }
}
