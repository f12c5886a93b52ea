//! Whose doing an RST was, or whose socket it hit, as far as that can be found out.
//!
//! A process that sent one was running. One that an RST came for is found by its socket's cookie among
//! those of the last census, for the socket itself is gone from the kernel's tables by then; so a
//! connection younger than that is nobody's. Addresses alone would do, but another network namespace
//! may have the same.
//!
//! Invariant: a look costs at most one pass over the open descriptors each [`PASS_EVERY`], and no pass
//! looks at more than [`DESCRIPTORS_MAX`].

use std::collections::HashMap;
use std::fs;
use std::num::NonZeroU64;
use std::path::Path;
use std::time::{Duration, Instant};

use super::line::{Actor, Process};
use crate::census::socket::Socket;
use crate::cli::doctor::processes::{each_socket, name_of};
use crate::witness::Direction;
use crate::witness::event::ResetEvent;
use crate::witness::task::{Context, Task};

/// Sockets of a census that are kept, at most.
const SOCKETS_MAX: usize = 65_536;
/// How often all processes may be asked for their descriptors.
const PASS_EVERY: Duration = Duration::from_secs(1);
/// How many descriptors are looked at in one pass; about 0.1 s.
const DESCRIPTORS_MAX: usize = 50_000;

/// What is known of processes and their sockets.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// The inodes of sockets, by their cookies.
    inodes: HashMap<NonZeroU64, u32>,
    /// The numbers of processes, by the inodes of sockets that they have open.
    holders: HashMap<u32, u32>,
    passed_at: Option<Instant>,
}

impl Owners {
    /// A census begins: what was noted of the one before is over.
    pub(super) fn forget_sockets(&mut self) {
        self.inodes.clear();
    }

    /// A socket of the census.
    pub(super) fn note(&mut self, socket: &Socket) {
        let cookie = NonZeroU64::new(socket.cookie);
        if let Some(cookie) = cookie
            && socket.inode != 0
            && self.inodes.len() < SOCKETS_MAX
        {
            self.inodes.insert(cookie, socket.inode);
        }
    }

    /// Who it was.
    pub(super) fn actor(
        &mut self,
        event: &ResetEvent,
        running: Option<Task>,
        now: Instant,
    ) -> Actor {
        match (event.direction, running) {
            // Also one that came while its process was at the socket, and was left for it to take.
            (_, Some(running)) if running.context == Context::Process => {
                Actor::Process(process_of(running.thread))
            }
            (Direction::Sent, Some(_)) => Actor::Kernel,
            (Direction::Sent, None) => Actor::Unknown,
            (Direction::Received, _) => {
                let holder = event.cookie.and_then(|cookie| self.holder(cookie, now));
                holder.map_or(Actor::Unknown, Actor::Process)
            }
        }
    }

    fn holder(&mut self, cookie: NonZeroU64, now: Instant) -> Option<Process> {
        let inode = *self.inodes.get(&cookie)?;
        let is_due = self
            .passed_at
            .is_none_or(|passed| now >= passed + PASS_EVERY);
        if !self.holders.contains_key(&inode) && is_due {
            self.holders = holders();
            self.passed_at = Some(now);
        }
        let id = *self.holders.get(&inode)?;
        Some(Process {
            id,
            name: name_of(id),
        })
    }
}

/// The process of a thread; where it is gone, or this is another namespace of processes than the
/// kernel's own, only the number that the kernel tells.
fn process_of(thread: u32) -> Process {
    let found = is_in_hosts_namespace().then(|| process_with(thread));
    found.flatten().unwrap_or(Process {
        id: thread,
        name: None,
    })
}

fn process_with(thread: u32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let id = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    let id = id.trim().parse().ok()?;
    Some(Process {
        id,
        name: name_of(id),
    })
}

/// Whether numbers of processes mean here what they mean to the kernel (`PROC_PID_INIT_INO` in
/// include/linux/proc_ns.h).
fn is_in_hosts_namespace() -> bool {
    let namespace = fs::read_link("/proc/self/ns/pid");
    namespace.is_ok_and(|it| it == Path::new("pid:[4026531836]"))
}

/// Who has which sockets open, as far as this process may see it.
fn holders() -> HashMap<u32, u32> {
    let mut holders = HashMap::new();
    each_socket(DESCRIPTORS_MAX, &mut |process, inode| {
        holders.entry(inode).or_insert(process);
    });
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_told_by_its_process() {
        let own = std::process::id();
        let found = process_with(own).expect("this process");
        assert_eq!((found.id, found.name.clone()), (own, name_of(own)));
        let gone = Process {
            id: u32::MAX,
            name: None,
        };
        assert_eq!(process_of(u32::MAX), gone);
    }
}
