//! Which sockets this process has open.

use std::collections::HashSet;
use std::fs;
use std::io;

/// The inodes of this process's sockets (proc_pid_fd(5)).
pub fn own_sockets() -> io::Result<HashSet<u32>> {
    let open = fs::read_dir("/proc/self/fd")?;
    let inode = |descriptor: fs::DirEntry| {
        // One that is closed meanwhile is not open.
        let target = fs::read_link(descriptor.path()).ok()?;
        let target = target.to_str()?;
        target
            .strip_prefix("socket:[")?
            .strip_suffix(']')?
            .parse()
            .ok()
    };
    Ok(open.filter_map(|it| inode(it.ok()?)).collect())
}
