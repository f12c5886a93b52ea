//! What systemd does for a service, done by the test: sockets given, and messages received.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::proxy::Config;
use super::wait::PATIENCE;

/// Becomes the program after its arguments, with descriptors of its parent as its own from 3 on: they
/// must be put there between fork and exec, where safe Rust has no code. In the test they stay closed
/// on exec, so that they reach no other test's children.
const LAUNCHER: &str = "
import ctypes, fcntl, os, sys
names, descriptors, program = sys.argv[1], sys.argv[2].split(','), sys.argv[3:]
PIDFD_GETFD = 438
parent, libc, taken = os.pidfd_open(os.getppid()), ctypes.CDLL(None, use_errno=True), []
for descriptor in descriptors:
    own = libc.syscall(PIDFD_GETFD, parent, int(descriptor), 0)
    if own < 0:
        raise OSError(ctypes.get_errno(), 'pidfd_getfd')
    taken.append(fcntl.fcntl(own, fcntl.F_DUPFD_CLOEXEC, 100))
os.closerange(3, 100)
for place, own in enumerate(taken):
    os.dup2(own, 3 + place)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(taken)), LISTEN_FDNAMES=names)
os.execv(program[0], program)
";

/// Gives sockets to the millpond that is started with this configuration, each with its name. They stay
/// open here too.
pub fn give(config: Config, sockets: &[(&str, &dyn AsFd)]) -> Config {
    let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
    let descriptors: Vec<_> = sockets
        .iter()
        .map(|(_, socket)| socket.as_fd().as_raw_fd().to_string())
        .collect();
    config.through(&[
        "python3",
        "-c",
        LAUNCHER,
        &names.join(":"),
        &descriptors.join(","),
    ])
}

/// The socket that a service tells its state to.
pub struct Notified(UnixDatagram);

impl Notified {
    pub fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The lines of the next message.
    pub fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let count = self.0.recv(&mut buffer).expect("a message");
        let text = std::str::from_utf8(&buffer[..count]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether no message waits.
    pub fn is_silent(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let outcome = self.0.recv(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        outcome.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}
