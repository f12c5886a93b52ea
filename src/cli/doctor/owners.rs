//! Which process holds a socket, as `/proc/PID/fd` says (proc_pid_fd(5)).
//!
//! Other users' processes show theirs to root alone; what is not found is left out.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use super::finding::Owner;

/// The owners of these sockets, by inode. Of several processes that share one, the oldest.
pub(super) fn of(inodes: &HashSet<u32>) -> HashMap<u32, Owner> {
    let mut owners = HashMap::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return owners;
    };
    let numbers = entries.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok());
    let mut processes: Vec<u32> = numbers.collect();
    processes.sort_unstable();
    for pid in processes {
        let folder = format!("/proc/{pid}");
        let Ok(descriptors) = fs::read_dir(format!("{folder}/fd")) else {
            continue;
        };
        let inodes_here = descriptors.filter_map(|it| socket_inode(&it.ok()?.path()));
        for inode in inodes_here.filter(|it| inodes.contains(it)) {
            owners.entry(inode).or_insert_with(|| Owner::Process {
                pid,
                command: command(&folder),
            });
        }
    }
    owners
}

/// `socket:[INODE]`
fn socket_inode(descriptor: &Path) -> Option<u32> {
    let link = fs::read_link(descriptor).ok()?;
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// A process may call itself anything: nothing of it moves a terminal's cursor.
fn command(folder: &str) -> String {
    let name = fs::read_to_string(format!("{folder}/comm")).unwrap_or_default();
    name.trim_end().replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_socket_of_this_process_is_found() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let descriptor = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let inode = socket_inode(Path::new(&descriptor)).expect("a socket");
        let owners = of(&HashSet::from([inode]));
        let Some(Owner::Process { pid, command }) = owners.get(&inode) else {
            panic!("{owners:?}");
        };
        assert_eq!(*pid, std::process::id());
        assert!(!command.is_empty());
    }
}
