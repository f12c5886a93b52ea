//! The live numbers of this network namespace: its sockets by state, and the RSTs that it has sent.

use std::fs;
use std::io;

use crate::census::diag;
use crate::census::filter::Filter;
use crate::census::socket::{Socket, State, States};

/// How many sockets there are, by state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sockets([u64; State::ALL.len()]);

impl Sockets {
    /// Counts them all, and shows each to `each`.
    ///
    /// # Errors
    /// What sock_diag(7) says.
    pub(super) fn count(each: &mut dyn FnMut(&Socket)) -> io::Result<Self> {
        let mut sockets = Self::default();
        diag::dump(States::ALL, &Filter::all(), &mut |socket| {
            sockets.0[place(socket.state)] += 1;
            each(socket);
        })?;
        Ok(sockets)
    }

    pub(super) fn of(&self, state: State) -> u64 {
        self.0[place(state)]
    }

    #[cfg(test)]
    pub(super) fn set(&mut self, state: State, count: u64) {
        self.0[place(state)] = count;
    }
}

/// RSTs that this network namespace has sent since its beginning (`OutRsts`, RFC 4022); `None` where
/// the kernel does not tell.
pub(super) fn resets_sent() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").ok()?;
    counter(&text, "Tcp:", "OutRsts")
}

/// States are numbered from 1.
fn place(state: State) -> usize {
    state as usize - 1
}

/// A line of names and a line of numbers begin with the same word (proc_pid_net(5)).
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = pairs.find(|(found, _)| *found == name)?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "Ip: Forwarding OutRsts\nIp: 1 5\nTcp: RtoMin MaxConn OutRsts InCsumErrors\n\
                    Tcp: 200 -1 42 0\nUdp: OutRsts\nUdp: 7\n";
        assert_eq!(counter(text, "Tcp:", "OutRsts"), Some(42));
        assert_eq!(counter(text, "Tcp:", "MaxConn"), None, "it is no count");
        assert_eq!(counter(text, "Tcp:", "Nothing"), None);
        assert_eq!(counter("Tcp: OutRsts\n", "Tcp:", "OutRsts"), None);
        assert!(resets_sent().is_some());
    }
}
