//! The kernel's tracing, as a host that has it mounted shows it, or one that has not.
//!
//! Mounts are made in a namespace of the test's own thread; programs and threads that it starts are in
//! it too. The instances are those of the whole host.

use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};

use super::process::run;

/// Where it is mounted.
pub const TRACEFS: &str = "/sys/kernel/tracing";

/// How the host has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounted {
    Writable,
    ReadOnly,
    Nowhere,
}

/// Runs `body` in a thread that sees tracing mounted so.
pub fn with_tracefs<T: Send>(mounted: Mounted, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            run("mount", &["--make-rprivate", "/"]);
            mount(mounted);
            body()
        });
        inside
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn mount(mounted: Mounted) {
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if ["tracefs", "debugfs"].contains(&words[2]) {
            run("umount", &["--lazy", words[1]]);
        }
    }
    if mounted != Mounted::Nowhere {
        run("mount", &["-t", "tracefs", "tracefs", TRACEFS]);
    }
    if mounted == Mounted::ReadOnly {
        run("mount", &["-o", "remount,bind,ro", TRACEFS]);
    }
}

/// The instances of the process with this number.
pub fn instances_of(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("millpond-{pid}-");
    let entries = std::fs::read_dir(Path::new(TRACEFS).join("instances")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(&prefix)
        })
        .collect()
}
