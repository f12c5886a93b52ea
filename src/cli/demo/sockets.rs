//! The kernel's own count of TIME_WAIT sockets, from its table of TCP sockets (proc_net_tcp).
//!
//! On loopback both ends of a connection are this host's, so both sides show.

use std::fs;
use std::io;
use std::time::Duration;

const SETTLE_POLLS_MAX: u32 = 100;
const SETTLE_POLL: Duration = Duration::from_millis(20);

/// TIME_WAIT sockets on one port, by the side that keeps them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeWait {
    /// The side that dialled the port: each holds one of its host's ephemeral ports.
    pub(super) dialling: usize,
    /// The side that listens on the port: each costs it some memory.
    pub(super) listening: usize,
}

/// Counts once no connection on `port` is half-way through its end, or after two seconds.
pub(super) async fn settled(port: u16) -> io::Result<TimeWait> {
    let mut ticks = tokio::time::interval(SETTLE_POLL);
    for _ in 0..SETTLE_POLLS_MAX {
        ticks.tick().await;
        let (time_wait, closing) = count(&fs::read_to_string("/proc/net/tcp")?, port);
        if closing == 0 {
            return Ok(time_wait);
        }
    }
    Ok(count(&fs::read_to_string("/proc/net/tcp")?, port).0)
}

/// The TIME_WAIT sockets, and those whose end is under way.
fn count(table: &str, port: u16) -> (TimeWait, usize) {
    // include/net/tcp_states.h
    const FIN_WAIT_1: &str = "04";
    const FIN_WAIT_2: &str = "05";
    const TIME_WAIT: &str = "06";
    const CLOSE_WAIT: &str = "08";
    const LAST_ACK: &str = "09";
    const CLOSING: &str = "0B";

    let suffix = format!(":{port:04X}");
    let mut time_wait = TimeWait::default();
    let mut closing = 0;
    for line in table.lines().skip(1) {
        let mut words = line.split_whitespace().skip(1);
        let (Some(local), Some(remote), Some(state)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let (listening, dialling) = (local.ends_with(&suffix), remote.ends_with(&suffix));
        match state {
            TIME_WAIT if dialling => time_wait.dialling += 1,
            TIME_WAIT if listening => time_wait.listening += 1,
            FIN_WAIT_1 | FIN_WAIT_2 | CLOSE_WAIT | LAST_ACK | CLOSING if dialling || listening => {
                closing += 1;
            }
            _ => {}
        }
    }
    (time_wait, closing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_wait_is_counted_by_the_side_that_keeps_it() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:C350 0100007F:1F90 06 00000000:00000000\n\
            2: 0100007F:C351 0100007F:1F90 06 00000000:00000000\n\
            3: 0100007F:1F90 0100007F:C352 06 00000000:00000000\n\
            4: 0100007F:1F90 0100007F:C353 08 00000000:00000000\n\
            5: 0100007F:C354 0100007F:1F91 06 00000000:00000000\n";
        let (time_wait, closing) = count(table, 8080);
        assert_eq!(
            time_wait,
            TimeWait {
                dialling: 2,
                listening: 1
            }
        );
        assert_eq!(closing, 1);
    }
}
