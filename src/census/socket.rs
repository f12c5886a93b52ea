//! One TCP socket, as the kernel lists it.

use std::net::SocketAddr;
use std::time::Duration;

/// A TCP socket of this network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// What it is doing.
    pub state: State,
    /// Its own address; an IPv4 one that an IPv6 socket carries is an IPv4 one here.
    pub local: SocketAddr,
    /// The other end's; of a listening socket all zeros.
    pub peer: SocketAddr,
    /// Names it among the open descriptors of its owner (`socket:[INODE]` in proc_pid_fd(5)); 0 where no
    /// process has it: it was closed, or nobody has accepted it yet.
    pub inode: u32,
    /// The user that made it; 0 too where no process has it.
    pub user_id: u32,
    /// No other socket ever has it (socket(7), `SO_COOKIE`).
    pub cookie: u64,
    /// Bytes that nobody has read; of a listening socket the connections that nobody has accepted.
    pub receive_queue: u32,
    /// Bytes that the other end has not acknowledged; of a listening socket the most that its
    /// `receive_queue` may hold.
    pub send_queue: u32,
    /// How much is left of TIME_WAIT, or of the bound on FIN_WAIT_2 that no process holds.
    pub time_wait_left: Option<Duration>,
}

/// What a TCP socket is doing (RFC 9293 §3.3.2; the numbers are those of include/net/tcp_states.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Open in both directions.
    Established = 1,
    /// Dialled, and not answered yet.
    SynSent = 2,
    /// Answered, and not confirmed yet.
    SynReceived = 3,
    /// Closed here; the other kernel has not confirmed that.
    FinWait1 = 4,
    /// Closed here; the other end has not closed.
    FinWait2 = 5,
    /// Closed by both, here first: kept for a minute, so that nothing late meets a successor.
    TimeWait = 6,
    /// Over, and still held by its process.
    Close = 7,
    /// Closed by the other end, and not here.
    CloseWait = 8,
    /// Closed by the other end first, then here; that is not confirmed yet.
    LastAck = 9,
    /// Waits for others to dial.
    Listen = 10,
    /// Closed by both at the same time.
    Closing = 11,
}

impl State {
    /// Every member.
    pub const ALL: [Self; 11] = [
        Self::Established,
        Self::SynSent,
        Self::SynReceived,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
    ];

    /// The text of its label: stable, part of the public interface.
    pub fn label(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn_sent",
            Self::SynReceived => "syn_received",
            Self::FinWait1 => "fin_wait_1",
            Self::FinWait2 => "fin_wait_2",
            Self::TimeWait => "time_wait",
            Self::Close => "close",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
        }
    }

    /// The state of that number; a half-open connection that has no socket yet (12) is one that was
    /// answered and not confirmed.
    pub(super) fn of(number: u8) -> Option<Self> {
        const NEW_SYN_RECEIVED: u8 = 12;
        match number {
            NEW_SYN_RECEIVED => Some(Self::SynReceived),
            _ => Self::ALL.into_iter().find(|it| *it as u8 == number),
        }
    }
}

/// How many sockets there are, by state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByState([u64; State::ALL.len()]);

impl ByState {
    /// Those in `state`.
    pub fn of(&self, state: State) -> u64 {
        self.0[Self::place(state)]
    }

    /// One more in `state`.
    pub fn add(&mut self, state: State) {
        self.0[Self::place(state)] += 1;
    }

    /// States are numbered from 1.
    fn place(state: State) -> usize {
        state as usize - 1
    }
}

/// A set of [`State`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct States(u32);

impl States {
    /// Every state but [`State::Listen`]: what a port is taken by.
    pub const CONNECTED: Self = Self(Self::ALL.0 & !(1 << State::Listen as u32));
    /// Every state.
    pub const ALL: Self = Self(0xfff << 1);

    /// These ones.
    pub fn of(states: &[State]) -> Self {
        let mut bits = 0;
        for &state in states {
            bits |= 1 << state as u32;
        }
        Self(bits)
    }

    /// As the kernel wants it: bit n for state n.
    pub(super) fn bits(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_found_by_its_number() {
        for state in State::ALL {
            assert_eq!(State::of(state as u8), Some(state));
        }
        assert_eq!(State::of(12), Some(State::SynReceived));
        assert_eq!(State::of(0), None);
        assert_eq!(State::of(13), None);
    }

    #[test]
    fn connected_is_all_but_listening() {
        let listening = States::of(&[State::Listen]);
        assert_eq!(
            States::CONNECTED.bits() | listening.bits(),
            States::ALL.bits()
        );
        assert_eq!(States::CONNECTED.bits() & listening.bits(), 0);
        assert_eq!(
            States::of(&[State::Established, State::TimeWait]).bits(),
            0b100_0010
        );
    }
}
