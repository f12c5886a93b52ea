//! TIME_WAIT of one address, by the side that keeps it, and the CPU time of threads
//! (proc_pid_schedstat).
//!
//! On loopback both ends of a connection are this host's, so both sides show. Whose they are is told by
//! the whole address: a port alone may be a listener's and, for another connection, a client's own.

use std::fs;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use crate::census::diag;
use crate::census::filter::{Condition, End, Filter};
use crate::census::socket::{Socket, State, States};

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

/// What is counted of one address.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    time_wait: TimeWait,
    /// Sockets whose end is under way.
    closing: usize,
}

/// Counts once no connection on `address` is half-way through its end, or after two seconds.
pub(super) async fn time_wait(address: SocketAddrV4) -> io::Result<TimeWait> {
    let address = SocketAddr::V4(address);
    let mut ticks = tokio::time::interval(SETTLE_POLL);
    for _ in 0..SETTLE_POLLS_MAX {
        ticks.tick().await;
        let count = count(address)?;
        if count.closing == 0 {
            return Ok(count.time_wait);
        }
    }
    Ok(count(address)?.time_wait)
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

fn count(address: SocketAddr) -> io::Result<Count> {
    let ends = [End::Local, End::Peer];
    let conditions = ends.map(|end| Condition::at(end, address)).to_vec();
    let filter = Filter::any_of(conditions).expect("there are two");
    let mut count = Count::default();
    diag::dump(States::CONNECTED, &filter, &mut |socket| {
        count.add(socket, address);
    })?;
    Ok(count)
}

impl Count {
    fn add(&mut self, socket: &Socket, address: SocketAddr) {
        match socket.state {
            State::TimeWait if socket.peer == address => self.time_wait.dialling += 1,
            State::TimeWait => self.time_wait.listening += 1,
            State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::LastAck
            | State::Closing => self.closing += 1,
            State::Established
            | State::SynSent
            | State::SynReceived
            | State::Close
            | State::Listen => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_wait_is_counted_by_the_side_that_keeps_it() {
        let service = SocketAddr::from(([127, 0, 0, 2], 8080));
        let client = SocketAddr::from(([127, 0, 0, 1], 50_000));
        let mut count = Count::default();
        for (local, peer, state) in [
            (client, service, State::TimeWait),
            (client, service, State::TimeWait),
            (service, client, State::TimeWait),
            (service, client, State::CloseWait),
            (client, service, State::Established),
        ] {
            let socket = Socket {
                state,
                local,
                peer,
                inode: 0,
                user_id: 0,
                cookie: 1,
                receive_queue: 0,
                send_queue: 0,
                time_wait_left: None,
            };
            count.add(&socket, service);
        }
        let time_wait = TimeWait {
            dialling: 2,
            listening: 1,
        };
        assert_eq!(
            count,
            Count {
                time_wait,
                closing: 1
            }
        );
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
