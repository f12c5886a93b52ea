//! `millpond doctor --watch` from a shell's side, on the real kernel.
//!
//! Other processes of this host make RSTs too, so only those at the tests' own ports are looked at.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::SockRef;
use support::netns::Namespace;
use support::process::{Process, run};
use support::tracefs::{Mounted, instances_of, with_tracefs};
use support::wait;

const MILLPOND: &str = env!("CARGO_BIN_EXE_millpond");
/// RSTs that are shown in a second, at most.
const SHOWN_PER_SECOND_MAX: usize = 50;

/// How often an RST is made again that may not have been shown.
const ATTEMPTS_MAX: u32 = 50;

/// Whoever waits for one RST does so while there is no flood, in which it might not be shown.
static FLOOD: RwLock<()> = RwLock::new(());

/// A watch that runs.
struct Watch(Process);

impl Watch {
    /// Starts it; what it shows goes where the harness collects.
    fn start() -> Self {
        let script = "exec \"$0\" doctor --watch >&2";
        Self(Process::start(
            Command::new("sh").args(["-c", script, MILLPOND]),
        ))
    }

    /// Starts it, and waits until it reads the tracepoints.
    fn reading() -> Self {
        let watch = Self::start();
        watch.line(&["each RST of this host"]);
        watch
    }

    fn lines(&self) -> Vec<String> {
        self.0.said()
    }

    fn count(&self, words: &str) -> usize {
        self.lines().iter().filter(|it| it.contains(words)).count()
    }

    /// Waits for a line with all of these in it.
    fn line(&self, words: &[&str]) -> String {
        wait::until(&format!("a line with {words:?}"), || {
            let mut lines = self.lines().into_iter();
            lines.find(|line| words.iter().all(|word| line.contains(word)))
        })
    }

    /// Makes an RST, and waits for the line that begins so; what it was made with, and the line. The
    /// host may have a flood of its own just now: one that might be among the unshown is made again.
    fn shown<T>(&self, mut make: impl FnMut() -> (T, String)) -> (T, String) {
        for _ in 0..ATTEMPTS_MAX {
            let unshown = self.count("  unshown  ");
            let (made, words) = make();
            let line = wait::until(&words, || {
                let mut lines = self.lines().into_iter();
                let line = lines.find(|line| line.contains(&words));
                (line.is_some() || self.count("  unshown  ") > unshown).then_some(line)
            });
            if let Some(line) = line {
                return (made, line);
            }
        }
        panic!("none of {ATTEMPTS_MAX} RSTs was shown: {:?}", self.lines());
    }

    /// Waits until what is there now was counted.
    fn wait_numbers(&self) {
        let before = self.count("  now  ");
        // One may have begun a moment ago.
        wait::until("the next numbers", || {
            (self.count("  now  ") >= before + 2).then_some(())
        });
    }

    /// Ends it in order: all that it has shown.
    fn end(self, signal: Signal) -> Vec<String> {
        self.0.signal(signal);
        let (status, said) = self.0.outcome();
        assert_eq!(status.code(), Some(0), "{said}");
        said.lines().map(str::to_owned).collect()
    }
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A connection: the end that dialled, and the accepted one.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (dialled, listener.accept().unwrap().0)
}

fn reset(socket: TcpStream) {
    SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(socket);
}

/// A service that resets the first connection that it accepts.
const RESETTING: &str = "import socket, struct, sys
service = socket.create_server(('127.0.0.1', 0))
print(service.getsockname()[1], file=sys.stderr, flush=True)
client, _ = service.accept()
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
client.close()
if sys.argv[1:] == ['stay']: service.accept()
";

/// Has a service reset; with `is_gone`, the watch comes to read of it only when the service is gone.
fn a_resetting_service_is_named(is_gone: bool) {
    with_tracefs(Mounted::Writable, || {
        let _calm = FLOOD.read().unwrap_or_else(PoisonError::into_inner);
        let watch = Watch::reading();
        let (service, line) = watch.shown(|| {
            let (service, address, client) = service_that_resets(&watch, is_gone);
            let client = client.local_addr().unwrap();
            (service, format!("sent      {address} -> {client} "))
        });
        let process = match is_gone {
            true => format!(" process {} ", service.pid()),
            false => format!(" python3[{}] ", service.pid()),
        };
        assert!(line.contains(&process), "{line}");
        let reason = "tcp_state: A program aborted the connection, by a linger time of 0.";
        assert!(line.ends_with(reason), "{line}");
        watch.end(Signal::SIGTERM);
    });
}

/// The service, its address, and the client whose connection it has reset, or is about to.
fn service_that_resets(watch: &Watch, is_gone: bool) -> (Process, String, TcpStream) {
    let then = if is_gone { "go" } else { "stay" };
    let mut program = Command::new("/usr/bin/python3");
    let mut service = Process::start(program.args(["-c", RESETTING, then]));
    let port = wait::until("its port", || service.said().first().cloned());
    let address = format!("127.0.0.1:{port}");
    if is_gone {
        watch.0.signal(Signal::SIGSTOP);
    }
    let client = TcpStream::connect(&address).unwrap();
    if is_gone {
        service.wait();
        watch.0.signal(Signal::SIGCONT);
    }
    (service, address, client)
}

#[test]
fn a_service_that_resets_is_named_with_addresses_and_reason() {
    a_resetting_service_is_named(false);
}

#[test]
fn a_service_that_is_gone_has_its_number_left() {
    a_resetting_service_is_named(true);
}

#[test]
fn a_refusal_is_the_kernels_own() {
    with_tracefs(Mounted::Writable, || {
        let _calm = FLOOD.read().unwrap_or_else(PoisonError::into_inner);
        let watch = Watch::reading();
        let ((), line) = watch.shown(|| {
            let address = nobody();
            assert!(TcpStream::connect(address).is_err());
            ((), format!("sent      {address} -> 127.0.0.1:"))
        });
        assert!(
            line.contains(" the kernel, answering a segment  no_socket: "),
            "{line}"
        );
        watch.end(Signal::SIGINT);
    });
}

#[test]
fn a_reset_that_comes_names_the_holder_of_the_socket() {
    with_tracefs(Mounted::Writable, || {
        let _calm = FLOOD.read().unwrap_or_else(PoisonError::into_inner);
        let watch = Watch::reading();
        let (_held, line) = watch.shown(|| {
            let (dialled, accepted) = pair();
            let (ours, theirs) = (dialled.local_addr().unwrap(), dialled.peer_addr().unwrap());
            watch.wait_numbers();
            reset(accepted);
            (dialled, format!("received  {ours} <- {theirs} "))
        });
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        let holder = format!(" {}[{}] ", name.trim_end(), std::process::id());
        assert!(line.contains(&holder), "{line} without {holder}");
        assert!(line.contains("  peer: "), "{line}");
        watch.end(Signal::SIGTERM);
    });
}

#[test]
fn what_it_leaves_is_nothing() {
    with_tracefs(Mounted::Writable, || {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let watch = Watch::reading();
            let pid = watch.0.pid();
            assert_eq!(instances_of(pid).len(), 1);
            let lines = watch.end(signal);
            assert!(instances_of(pid).is_empty());
            assert!(lines.last().unwrap().contains("ended: "), "{lines:?}");
            let is_plain = |line: &String| !line.contains('\u{1b}');
            assert!(lines.iter().all(is_plain), "{lines:?}");
        }
        let mut killed = Watch::reading();
        let pid = killed.0.pid();
        killed.0.signal(Signal::SIGKILL);
        killed.0.wait();
        let next = Watch::reading();
        assert!(instances_of(pid).is_empty());
        next.end(Signal::SIGTERM);
    });
}

#[test]
fn a_flood_is_bounded_and_counted() {
    with_tracefs(Mounted::Writable, || {
        const REFUSED: u64 = 2_000;
        let _alone = FLOOD.write().unwrap_or_else(PoisonError::into_inner);
        let began = wait::now();
        let watch = Watch::reading();
        let address = nobody();
        for _ in 0..REFUSED {
            assert!(TcpStream::connect(address).is_err());
        }
        watch.line(&["  unshown  ", "no_socket"]);
        let lines = watch.end(Signal::SIGTERM);
        let seconds = began.elapsed().as_secs() as usize + 2;
        let is_reset = |line: &&String| line.contains("  sent  ") || line.contains("  received  ");
        let shown = lines.iter().filter(is_reset).count();
        assert!(shown <= SHOWN_PER_SECOND_MAX * seconds, "{shown}");
        let said: u64 = lines.iter().filter_map(|line| unshown(line)).sum();
        let end = format!("ended: {shown} RSTs shown, {said} more not shown");
        assert!(lines.last().unwrap().ends_with(&end), "{lines:?}");
        // Each refusal is an RST that is sent and one that is received.
        assert!(shown as u64 + said >= 2 * REFUSED, "{end}");
    });
}

/// How many RSTs a line says were not shown.
fn unshown(line: &str) -> Option<u64> {
    let (_, text) = line.split_once("  unshown   ")?;
    text.split(' ').next()?.parse().ok()
}

#[test]
fn without_tracing_it_says_why_once_and_shows_numbers() {
    for (mounted, hint) in [
        (Mounted::Nowhere, "mount -t tracefs"),
        (Mounted::ReadOnly, "Read-only file system"),
    ] {
        let alone = Namespace::create("watched");
        alone.enter(|| {
            with_tracefs(mounted, || numbers_alone(&Watch::start(), hint));
        });
    }
}

/// In a network namespace of its own, whose numbers are known.
fn numbers_alone(watch: &Watch, hint: &str) {
    let line = watch.line(&["no single RSTs, only numbers: "]);
    assert!(line.contains(hint), "{line}");
    let first = watch.line(&["  now  "]);
    assert!(first.ends_with("  now       time_wait 0"), "{first}");
    for _ in 0..3 {
        // The end that closes first keeps TIME_WAIT.
        let (dialled, accepted) = pair();
        drop(dialled);
        drop(accepted);
    }
    let address = nobody();
    for _ in 0..10 {
        assert!(TcpStream::connect(address).is_err());
    }
    let (dialled, accepted) = pair();
    let counted = watch.line(&["  established 2"]);
    assert!(counted.contains("  time_wait 3"), "{counted}");
    wait::until("the rate of RSTs", || {
        let rates = |line: &String| line.contains("/s sent") && !line.contains("  |  RSTs 0.0/s");
        watch.lines().iter().any(rates).then_some(())
    });
    watch.line(&["time_wait 3 (+0)"]);
    assert_eq!(watch.count("no single RSTs"), 1, "it is said once");
    assert_eq!(watch.count("/s received"), 0, "nothing tells of those");
    drop((dialled, accepted));
}

#[test]
fn without_permission_it_says_what_is_missing() {
    with_tracefs(Mounted::Writable, || {
        let place = tempfile::tempdir().unwrap();
        let binary = place.path().join("millpond").display().to_string();
        std::fs::copy(MILLPOND, &binary).unwrap();
        run("chmod", &["755", &place.path().display().to_string()]);
        let script = "exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$0\" \
                      doctor --watch >&2";
        let watch = Process::start(Command::new("sh").args(["-c", script, &binary]));
        let watch = Watch(watch);
        let line = watch.line(&["no single RSTs, only numbers: "]);
        assert!(
            line.contains("Permission denied") && line.contains("CAP_DAC_OVERRIDE"),
            "{line}"
        );
        watch.line(&["  now  ", "/s sent"]);
        watch.end(Signal::SIGTERM);
    });
}

#[test]
fn colours_are_for_a_terminal_that_wants_them() {
    for (variable, has_colours) in [("NO_COLOR=", true), ("NO_COLOR=1", false)] {
        let watch = format!("{variable} {MILLPOND} doctor --watch & echo pid $!; wait $!");
        // It gives the program a terminal.
        let script = "exec script -qefc \"$0\" /dev/null >&2";
        let terminal = Watch(Process::start(
            Command::new("sh").args(["-c", script, &watch]),
        ));
        let pid = terminal.line(&["pid "]);
        let pid = pid.trim().trim_start_matches("pid ").to_owned();
        terminal.line(&["time_wait"]);
        run("kill", &[&pid]);
        let (status, shown) = terminal.0.outcome();
        assert!(status.success(), "{status}: {shown}");
        let is_painted = shown.contains("\u{1b}[2mnow");
        assert_eq!(is_painted, has_colours, "{variable}: {shown:?}");
        assert_eq!(
            shown.contains('\u{1b}'),
            has_colours,
            "{variable}: {shown:?}"
        );
    }
}

#[test]
fn it_ends_when_nobody_reads_any_more() {
    let script = "set -o pipefail; \"$0\" doctor --watch | head -n 1";
    let shown = run("bash", &["-c", script, MILLPOND]);
    assert_eq!(shown.lines().count(), 1);
}
