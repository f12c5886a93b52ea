//! Which sockets a process has open.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

/// The inodes of this process's sockets (proc_pid_fd(5)).
pub fn own_sockets() -> io::Result<HashSet<u32>> {
    let open = fs::read_dir("/proc/self/fd")?;
    let inode = |descriptor: fs::DirEntry| {
        // One that is closed meanwhile is not open.
        inode_of(&fs::read_link(descriptor.path()).ok()?)
    };
    Ok(open.filter_map(|it| inode(it.ok()?)).collect())
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
