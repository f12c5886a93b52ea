//! An instance of the kernel's tracing for this process alone: its own buffers, its own two events.
//!
//! What others trace on this host is neither seen nor touched. tracefs is found where it is mounted and
//! never mounted here. Not here: what the lines say (see `event`).
//!
//! Invariant: an instance is removed with its value; the kernel refuses that while its pipe is open, so
//! the pipe is closed first. What a process leaves that was killed goes when the next one starts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tracing::warn;

/// Why the kernel's account can't be had.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// tracefs is nowhere.
    #[error(
        "tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing \
         (in a container: give it the host's /sys/kernel/tracing)"
    )]
    NotMounted,
    /// This process may not.
    #[error(
        "{}: {error}: it takes root, or CAP_DAC_OVERRIDE, to write there (and a kernel that is not \
         locked down)",
        path.display()
    )]
    NotPermitted {
        /// What was to be made, written or read.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The kernel has no such tracepoint.
    #[error(
        "{}: the kernel has no such tracepoint; it takes Linux 4.16, built with CONFIG_FTRACE",
        path.display()
    )]
    NoTracepoint {
        /// What is not there.
        path: PathBuf,
    },
    /// The kernel refused something else.
    #[error("{}: {error}", path.display())]
    Refused {
        /// What was to be made, written or read.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A thread, a socket pair or the clock could not be had.
    #[error("the witness can't be started: {0}")]
    Start(#[from] io::Error),
}

/// The instance, with its pipe open.
#[derive(Debug)]
pub(super) struct Instance {
    /// Closed before the folder goes: fields are dropped in their order.
    pipe: File,
    folder: Folder,
}

/// The folder of an instance.
#[derive(Debug)]
struct Folder(PathBuf);

impl Instance {
    /// Makes an instance, sets it up and switches its events on.
    pub(super) fn create() -> Result<Self, WitnessError> {
        let instances = find_tracefs()?.join("instances");
        sweep(&instances);
        let folder = Folder::create(&instances)?;
        // First of all: from here on nobody else can take it for a left one and remove it.
        let path = folder.0.join("trace_pipe");
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .map_err(|error| WitnessError::of(path, error))?;
        let instance = Self { pipe, folder };
        let folder = &instance.folder;
        folder.write("trace_clock", "mono")?;
        folder.write("buffer_size_kb", BUFFER_KIB)?;
        // Otherwise poll(2) waits until the buffer is half full. An older kernel has no such file.
        folder.try_write("buffer_percent", "0");
        // It would note the name of every program that the host's scheduler switches to.
        folder.try_write("trace_options", "norecord-cmd");
        for event in EVENTS {
            folder.write(&format!("events/tcp/{event}/enable"), "1")?;
        }
        Ok(instance)
    }

    /// Reads some whole lines and perhaps a part of one; 0 when nothing is there.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.pipe.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}

impl AsFd for Instance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Folder {
    /// One process may have several, and in another namespace the same numbers may be another's.
    fn create(instances: &Path) -> Result<Self, WitnessError> {
        let owner = std::process::id();
        let started = start_ticks(owner).unwrap_or(0);
        let mut number = 0;
        loop {
            let path = instances.join(format!("{PREFIX}{owner}-{started}-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < SAME_MAX => {
                    number += 1;
                }
                Err(error) => return Err(WitnessError::of(path, error)),
            }
        }
    }

    fn write(&self, file: &str, text: &str) -> Result<(), WitnessError> {
        let path = self.0.join(file);
        // A file that is not there must not be made: tracefs calls that a lack of permission.
        let opened = OpenOptions::new().write(true).open(&path);
        opened
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| WitnessError::of(path, error))
    }

    fn try_write(&self, file: &str, text: &str) {
        if let Err(error) = self.write(file, text) {
            warn!("{error}");
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            warn!(instance = %self.0.display(), %error, "a tracing instance could not be removed");
        }
    }
}

impl WitnessError {
    fn of(path: PathBuf, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotPermitted { path, error }
            }
            io::ErrorKind::NotFound if path.ends_with("enable") => Self::NoTracepoint { path },
            _ => Self::Refused { path, error },
        }
    }
}

/// Where tracefs is mounted. Where only debugfs is, the kernel mounts it there when it is looked at.
fn find_tracefs() -> Result<PathBuf, WitnessError> {
    let path = PathBuf::from("/proc/thread-self/mounts");
    let mounts = fs::read_to_string(&path).map_err(|error| WitnessError::of(path, error))?;
    tracefs_in(&mounts).ok_or(WitnessError::NotMounted)
}

/// The place of tracefs in the text of `/proc/thread-self/mounts` (proc(5)).
fn tracefs_in(mounts: &str) -> Option<PathBuf> {
    let mounted = |kind: &'static str| {
        mounts.lines().filter_map(move |line| {
            let mut words = line.split(' ').skip(1);
            let (place, found) = (words.next()?, words.next()?);
            (found == kind).then(|| PathBuf::from(unescaped(place)))
        })
    };
    let usual = Path::new("/sys/kernel/tracing");
    mounted("tracefs")
        .find(|place| place == usual)
        .or_else(|| mounted("tracefs").next())
        .or_else(|| Some(mounted("debugfs").next()?.join("tracing")))
}

/// A path in which blanks, tabs, line ends and backslashes are written in octal.
fn unescaped(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (code, character)| {
        text.replace(code, character)
    })
}

/// Removes the instances of millponds that are no more. One that lives where this process can't see it
/// (another namespace, another user under `hidepid`) looks as if it were gone; but its pipe is open, so
/// the kernel calls its instance busy and keeps it.
fn sweep(instances: &Path) {
    let Ok(entries) = fs::read_dir(instances) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner_of);
        let is_left = owner.is_some_and(|(pid, started)| start_ticks(pid) != Some(started));
        if is_left
            && let Err(error) = fs::remove_dir(entry.path())
            && !matches!(
                error.kind(),
                // It lives, or it has just been removed by its owner or by another sweep.
                io::ErrorKind::ResourceBusy | io::ErrorKind::NotFound
            )
        {
            warn!(instance = %entry.path().display(), %error, "a left tracing instance could not be removed");
        }
    }
}

/// The process that an instance is of, and when that was started.
fn owner_of(name: &str) -> Option<(u32, u64)> {
    let mut numbers = name.strip_prefix(PREFIX)?.split('-');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// When a process was started, in clock ticks since the host's boot (proc(5)): two processes that had
/// the same number one after the other differ in it.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may hold anything; the fields count from behind its parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

const PREFIX: &str = "millpond-";
/// Instances of one process, at most.
const SAME_MAX: u32 = 64;
const EVENTS: [&str; 2] = ["tcp_send_reset", "tcp_receive_reset"];
/// For each processor. An event takes about 90 bytes, so more than 5,000 fit between two looks.
const BUFFER_KIB: &str = "512";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracefs_is_found_wherever_it_is_mounted() {
        let table = [
            ("proc /proc proc rw 0 0", None),
            (
                "t /mnt/my\\040traces tracefs rw 0 0",
                Some("/mnt/my traces"),
            ),
            (
                "t /mnt/t tracefs rw 0 0\ntracefs /sys/kernel/tracing tracefs rw 0 0",
                Some("/sys/kernel/tracing"),
            ),
            (
                "debugfs /sys/kernel/debug debugfs rw 0 0",
                Some("/sys/kernel/debug/tracing"),
            ),
            (
                "d /sys/kernel/debug debugfs rw 0 0\nt /mnt/t tracefs rw 0 0",
                Some("/mnt/t"),
            ),
            ("tracefs", None),
        ];
        for (mounts, place) in table {
            assert_eq!(tracefs_in(mounts), place.map(PathBuf::from), "{mounts}");
        }
    }

    #[test]
    fn an_error_says_what_is_missing() {
        let of = |file: &str, number| {
            let error = io::Error::from_raw_os_error(number);
            WitnessError::of(PathBuf::from(file), error).to_string()
        };
        let tracepoint = of("/t/events/tcp/tcp_send_reset/enable", libc::ENOENT);
        assert!(tracepoint.contains("Linux 4.16"), "{tracepoint}");
        for number in [libc::EACCES, libc::EPERM, libc::EROFS] {
            let permission = of("/t/instances/x", number);
            assert!(permission.contains("CAP_DAC_OVERRIDE"), "{permission}");
        }
        let other = of("/t/instances/x", libc::ENOMEM);
        assert!(other.starts_with("/t/instances/x: "), "{other}");
    }

    #[test]
    fn an_instance_names_its_owner() {
        assert_eq!(owner_of("millpond-12-345-0"), Some((12, 345)));
        for name in ["millpond-12", "millpond-x-1", "other-12-345", "millpond--1"] {
            assert_eq!(owner_of(name), None, "{name}");
        }
        let own = start_ticks(std::process::id());
        assert!(own.is_some_and(|ticks| ticks > 0));
        assert_eq!(start_ticks(u32::MAX), None);
    }
}
