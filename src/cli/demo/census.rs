//! The kernel's own accounts: TIME_WAIT sockets (proc_net_tcp), the ports that a connect may take
//! (ip(7)), and the CPU time of threads (proc_pid_schedstat).
//!
//! On loopback both ends of a connection are this host's, so both sides show. Whose they are is told by
//! the whole address: a port alone may be a listener's and, for another connection, a client's own.

use std::fs;
use std::io;
use std::net::SocketAddrV4;
use std::ops::RangeInclusive;
use std::time::Duration;

const SETTLE_POLLS_MAX: u32 = 100;
const SETTLE_POLL: Duration = Duration::from_millis(20);

/// TIME_WAIT sockets on one address, by the side that keeps them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeWait {
    /// The side that dialled it: each holds one of its host's ephemeral ports.
    pub(super) dialling: usize,
    /// The side that listens on it: each costs it some memory.
    pub(super) listening: usize,
}

/// Counts once no connection on `address` is half-way through its end, or after two seconds.
pub(super) async fn time_wait(address: SocketAddrV4) -> io::Result<TimeWait> {
    let mut ticks = tokio::time::interval(SETTLE_POLL);
    for _ in 0..SETTLE_POLLS_MAX {
        ticks.tick().await;
        let (time_wait, closing) = count(&fs::read_to_string("/proc/net/tcp")?, address);
        if closing == 0 {
            return Ok(time_wait);
        }
    }
    Ok(count(&fs::read_to_string("/proc/net/tcp")?, address).0)
}

/// The ports that this host gives to a connect without a bind.
pub(super) fn ephemeral_ports() -> io::Result<RangeInclusive<u16>> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(io::Error::other(format!(
            "ip_local_port_range says {text:?}"
        ))),
    }
}

/// When this host gives a port in TIME_WAIT out again: `net.ipv4.tcp_tw_reuse`.
pub(super) fn tw_reuse() -> io::Result<u8> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/tcp_tw_reuse")?;
    let value = text.trim().parse();
    value.map_err(|_| io::Error::other(format!("tcp_tw_reuse says {text:?}")))
}

/// CPU time so far of this process's threads of that name; `None` where the kernel keeps no account.
pub(super) fn cpu_time(threads: &str) -> Option<Duration> {
    let tasks = fs::read_dir("/proc/self/task").ok()?;
    let times = tasks.filter_map(|task| {
        let task = task.ok()?.path();
        let name = fs::read_to_string(task.join("comm")).ok()?;
        let account = fs::read_to_string(task.join("schedstat")).ok()?;
        let nanoseconds: u64 = account.split_whitespace().next()?.parse().ok()?;
        (name.trim_end() == threads).then(|| Duration::from_nanos(nanoseconds))
    });
    Some(times.sum()).filter(|time: &Duration| !time.is_zero())
}

/// The TIME_WAIT sockets, and those whose end is under way.
fn count(table: &str, address: SocketAddrV4) -> (TimeWait, usize) {
    // include/net/tcp_states.h
    const FIN_WAIT_1: &str = "04";
    const FIN_WAIT_2: &str = "05";
    const TIME_WAIT: &str = "06";
    const CLOSE_WAIT: &str = "08";
    const LAST_ACK: &str = "09";
    const CLOSING: &str = "0B";

    // The bytes stand as the processor sees them.
    let host = u32::from_ne_bytes(address.ip().octets());
    let address = format!("{host:08X}:{:04X}", address.port());
    let mut time_wait = TimeWait::default();
    let mut closing = 0;
    for line in table.lines().skip(1) {
        let mut words = line.split_whitespace().skip(1);
        let (Some(local), Some(remote), Some(state)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let (listening, dialling) = (local == address, remote == address);
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
        let service = SocketAddrV4::new([127, 0, 0, 2].into(), 8080);
        let listens = format!("{:08X}:1F90", u32::from_ne_bytes([127, 0, 0, 2]));
        let client = format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]));
        // The last two are others': a client whose own port is 8080, and another service.
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue\n\
             0: {listens} 00000000:0000 0A 00000000:00000000\n\
             1: {client}:C350 {listens} 06 00000000:00000000\n\
             2: {client}:C351 {listens} 06 00000000:00000000\n\
             3: {listens} {client}:C352 06 00000000:00000000\n\
             4: {listens} {client}:C353 08 00000000:00000000\n\
             5: {client}:1F90 {client}:1F91 06 00000000:00000000\n\
             6: {client}:C354 {client}:1F90 06 00000000:00000000\n"
        );
        let (time_wait, closing) = count(&table, service);
        assert_eq!(
            time_wait,
            TimeWait {
                dialling: 2,
                listening: 1
            }
        );
        assert_eq!(closing, 1);
    }

    #[test]
    fn cpu_time_is_that_of_the_threads_of_one_name() {
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let waiting = std::thread::Builder::new().name("census-test".to_owned());
        // It has run before it waits, and is there until it is told.
        let waiting = waiting.spawn(move || told.recv().is_err());
        while cpu_time("census-test").is_none() {
            std::thread::yield_now();
        }
        assert_eq!(cpu_time("census-nobody"), None);
        drop(tell);
        assert!(waiting.is_ok_and(|thread| thread.join().is_ok_and(|was_told| was_told)));
    }
}
