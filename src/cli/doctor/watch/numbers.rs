//! The live numbers of this network namespace: its sockets by state, and the RSTs that it has sent.

use std::fs;
use std::io;

use crate::census::diag;
use crate::census::filter::Filter;
use crate::census::socket::{ByState, Socket, States};
use crate::cli::doctor::counters;

/// Counts all sockets by state, and shows each to `each`.
///
/// # Errors
/// What sock_diag(7) says.
pub(super) fn sockets(each: &mut dyn FnMut(&Socket)) -> io::Result<ByState> {
    let mut sockets = ByState::default();
    diag::dump(States::ALL, &Filter::all(), &mut |socket| {
        sockets.add(socket.state);
        each(socket);
    })?;
    Ok(sockets)
}

/// RSTs that this network namespace has sent since its beginning (`OutRsts`, RFC 4022); `None` where
/// the kernel does not tell.
pub(super) fn resets_sent() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").ok()?;
    counters::parse(&text, "Tcp:").get("OutRsts").copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "Ip: Forwarding OutRsts\nIp: 1 5\nTcp: RtoMin MaxConn OutRsts InCsumErrors\n\
                    Tcp: 200 -1 42 0\nUdp: OutRsts\nUdp: 7\n";
        let counter = |text, group, name| counters::parse(text, group).get(name).copied();
        assert_eq!(counter(text, "Tcp:", "OutRsts"), Some(42));
        assert_eq!(counter(text, "Tcp:", "MaxConn"), None, "it is no count");
        assert_eq!(counter(text, "Tcp:", "Nothing"), None);
        assert_eq!(counter("Tcp: OutRsts\n", "Tcp:", "OutRsts"), None);
        assert!(resets_sent().is_some());
    }
}
