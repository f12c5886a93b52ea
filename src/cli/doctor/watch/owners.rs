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
use crate::census::descriptors::inode_of;
use crate::census::socket::Socket;
use crate::witness::Direction;
use crate::witness::event::ResetEvent;
use crate::witness::task::{Context, Task};

/// Sockets of a census that are kept, at most.
const SOCKETS_MAX: usize = 65_536;
/// How often all processes may be asked for their descriptors.
const PASS_EVERY: Duration = Duration::from_secs(1);
/// How many descriptors are looked at in one pass; about 0.1 s.
const DESCRIPTORS_MAX: usize = 50_000;

/// A task with a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Running {
    thread: u32,
    name: Option<String>,
    context: Context,
}

/// What is known of processes and their sockets.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// The inodes of sockets, by their cookies.
    inodes: HashMap<NonZeroU64, u32>,
    /// The numbers of processes, by the inodes of sockets that they have open.
    holders: HashMap<u32, u32>,
    passed_at: Option<Instant>,
}

impl From<Task<'_>> for Running {
    fn from(task: Task<'_>) -> Self {
        Self {
            thread: task.thread,
            name: task.name.map(str::to_owned),
            context: task.context,
        }
    }
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
        running: Option<&Running>,
        now: Instant,
    ) -> Actor {
        match (event.direction, running) {
            // Also one that came while its process was at the socket, and was left for it to take.
            (_, Some(running)) if running.context == Context::Process => {
                Actor::Process(process_of(running))
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

/// The process of a task. One that is gone, or that is another in this namespace of processes, is told
/// by what the kernel said of it.
fn process_of(running: &Running) -> Process {
    let thread_name = name_of(running.thread);
    let is_the_same = match &running.name {
        Some(name) => thread_name.as_ref() == Some(name),
        None => is_in_hosts_namespace(),
    };
    let found = if is_the_same {
        process_with(running.thread)
    } else {
        None
    };
    found.unwrap_or_else(|| Process {
        id: running.thread,
        name: running.name.clone(),
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

fn name_of(id: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{id}/comm")).ok()?;
    Some(
        String::from_utf8_lossy(&name)
            .trim_end_matches('\n')
            .to_owned(),
    )
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
    let mut left = DESCRIPTORS_MAX;
    let Ok(entries) = fs::read_dir("/proc") else {
        return holders;
    };
    for entry in entries.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten().take(left) {
            left -= 1;
            let inode = fs::read_link(descriptor.path());
            if let Some(inode) = inode.ok().as_deref().and_then(inode_of) {
                holders.entry(inode).or_insert(id);
            }
        }
    }
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
        let gone = Running {
            thread: u32::MAX,
            name: Some("gone".to_owned()),
            context: Context::Process,
        };
        let told = Process {
            id: u32::MAX,
            name: Some("gone".to_owned()),
        };
        assert_eq!(process_of(&gone), told);
        // The number means another one here.
        let other = Running {
            thread: own,
            ..gone
        };
        let told = Process {
            id: own,
            name: Some("gone".to_owned()),
        };
        assert_eq!(process_of(&other), told);
    }
}
