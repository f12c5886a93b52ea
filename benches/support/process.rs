//! Programs under comparison: started as children on loopback, with a directory of the run's own, and
//! ended by their pids.

#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::clock;

const START_POLLS_MAX: u32 = 500;
const STOP_POLLS_MAX: u32 = 500;
const POLL: Duration = Duration::from_millis(10);

/// Why a program does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("{name} could not be started (is it installed?): {source}")]
    Absent { name: String, source: io::Error },
    #[error("{name} ended with {status} instead of listening; it said:\n{said}")]
    Ended {
        name: String,
        status: ExitStatus,
        said: String,
    },
    #[error("{name} did not listen on {address} in time; it said:\n{said}")]
    Deaf {
        name: String,
        address: SocketAddr,
        said: String,
    },
    #[error("the CPU time of {name} can't be read: {source}")]
    CpuTime { name: String, source: io::Error },
    #[error("the working directory: {0}")]
    Directory(#[from] io::Error),
}

/// A directory of this run's own, removed at its end.
pub(crate) struct Workplace {
    directory: PathBuf,
}

impl Workplace {
    /// # Errors
    /// The directory for temporary files is not writable.
    pub(crate) fn new() -> Result<Self, ProgramError> {
        let name = format!("millpond-bench-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A file with this content in the directory.
    pub(crate) fn file(&self, name: &str, content: &str) -> Result<PathBuf, ProgramError> {
        let path = self.directory.join(name);
        fs::write(&path, content)?;
        Ok(path)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // Nothing depends on it: at worst the directory stays.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A child with the children that it has itself.
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts the program and waits until `address` can be dialled.
    pub(crate) fn start(
        name: &str,
        workplace: &Workplace,
        command: &mut Command,
        address: SocketAddr,
    ) -> Result<Self, ProgramError> {
        let log = workplace.directory.join(format!("{}.log", address.port()));
        let output = fs::File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        // SAFETY: prctl(2) is async-signal-safe and touches no memory of this process.
        unsafe {
            // A run that is killed leaves nobody behind.
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            );
        }
        let name = name.to_owned();
        let child = match command.spawn() {
            Ok(child) => child,
            Err(source) => return Err(ProgramError::Absent { name, source }),
        };
        let mut process = Self { name, child };
        for _ in 0..START_POLLS_MAX {
            if TcpStream::connect(address).is_ok() {
                return Ok(process);
            }
            if let Some(status) = process.child.try_wait()? {
                return Err(ProgramError::Ended {
                    name: process.name.clone(),
                    status,
                    said: tail(&log),
                });
            }
            pause();
        }
        Err(ProgramError::Deaf {
            name: process.name.clone(),
            address,
            said: tail(&log),
        })
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration, ProgramError> {
        let sum = self
            .pids()
            .into_iter()
            .map(clock::process_cpu_time)
            .sum::<io::Result<Duration>>();
        sum.map_err(|source| ProgramError::CpuTime {
            name: self.name.clone(),
            source,
        })
    }

    fn pids(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|word| word.parse().ok());
        std::iter::once(pid).chain(children).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(pid) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: takes no pointer; the child is not reaped yet, so the pid is its own. kill(2)
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        for _ in 0..STOP_POLLS_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            pause();
        }
        // It had its time. Both fail only when it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that was free a moment ago.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

fn tail(log: &Path) -> String {
    let said = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[allow(clippy::disallowed_methods)] // no worker is blocked here
fn pause() {
    std::thread::sleep(POLL);
}
