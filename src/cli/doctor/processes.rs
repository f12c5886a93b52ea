//! The processes of this host, as far as this one may look into them (proc_pid(5)).
//!
//! Other users' processes show their descriptors to root alone; what is not found is left out.

use std::fs;

use crate::census::descriptors::sockets_of;

/// Shows the number of a process and the inode of a socket, for every socket that one has open, those of
/// older processes first. Looks at so many descriptors at most.
pub(super) fn each_socket(descriptors_max: usize, each: &mut dyn FnMut(u32, u32)) {
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    let numbers = entries.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok());
    let mut processes: Vec<u32> = numbers.collect();
    processes.sort_unstable();
    let mut left = descriptors_max;
    for process in processes {
        let Ok(descriptors) = sockets_of(&process.to_string()) else {
            continue;
        };
        for inode in descriptors.take(left) {
            left -= 1;
            if let Some(inode) = inode {
                each(process, inode);
            }
        }
    }
}

/// What a process calls itself, which may be any bytes; `None`: it is gone.
pub(super) fn name_of(process: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{process}/comm")).ok()?;
    let name = String::from_utf8_lossy(&name);
    Some(name.trim_end_matches('\n').to_owned())
}
