//! Which sockets a process has open.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

/// The inodes of this process's sockets.
pub fn own_sockets() -> io::Result<HashSet<u32>> {
    Ok(sockets_of("self")?.flatten().collect())
}

/// Of each open descriptor of a process (proc_pid_fd(5)), by its number or `self`, the inode if it is a
/// socket.
pub fn sockets_of(process: &str) -> io::Result<impl Iterator<Item = Option<u32>> + use<>> {
    let open = fs::read_dir(format!("/proc/{process}/fd"))?;
    // One that is closed meanwhile is not open.
    let inode = |descriptor: fs::DirEntry| inode_of(&fs::read_link(descriptor.path()).ok()?);
    Ok(open.map(move |it| inode(it.ok()?)))
}

/// The inode of a socket, from what an open descriptor links to: `socket:[12345]`.
pub fn inode_of(target: &Path) -> Option<u32> {
    let digits = target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_told_by_its_link() {
        assert_eq!(inode_of(Path::new("socket:[12345]")), Some(12_345));
        for other in ["pipe:[12345]", "/dev/null", "socket:[]", "socket:[1"] {
            assert_eq!(inode_of(Path::new(other)), None, "{other}");
        }
    }
}
