//! Which process holds a socket.

use std::collections::{HashMap, HashSet};

use super::finding::Owner;
use super::processes::{each_socket, name_of};

/// The owners of these sockets, by inode. Of several processes that share one, the oldest.
pub(super) fn of(inodes: &HashSet<u32>) -> HashMap<u32, Owner> {
    let mut owners = HashMap::new();
    each_socket(usize::MAX, &mut |pid, inode| {
        if inodes.contains(&inode) {
            owners.entry(inode).or_insert_with(|| Owner::Process {
                pid,
                command: command(pid),
            });
        }
    });
    owners
}

/// A process may call itself anything: nothing of it moves a terminal's cursor.
fn command(pid: u32) -> String {
    let name = name_of(pid).unwrap_or_default();
    name.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::census::descriptors::inode_of;

    #[test]
    fn a_socket_of_this_process_is_found() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let descriptor = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let target = std::fs::read_link(descriptor).expect("it is open");
        let inode = inode_of(&target).expect("a socket");
        let owners = of(&HashSet::from([inode]));
        let Some(Owner::Process { pid, command }) = owners.get(&inode) else {
            panic!("{owners:?}");
        };
        assert_eq!(*pid, std::process::id());
        assert!(!command.is_empty());
    }
}
