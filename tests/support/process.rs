//! Programs that tests talk to.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait;

/// A program that runs beside the test. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    listening: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a program and collects what it says on standard error.
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{name} does not start ({error}); tests/run installs it")
            });
        let said = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().expect("it is piped");
        let listening = std::thread::spawn({
            let said = Arc::clone(&said);
            move || collect(stderr, &said)
        });
        Self {
            name,
            child,
            said,
            listening: Some(listening),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lines it said so far.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// How it ended, when it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait::within(wait::PATIENCE * 2, &what, || self.ended())
    }

    /// Waits for the end: how it ended, and all that it said.
    pub fn outcome(mut self) -> (ExitStatus, String) {
        let status = self.wait();
        let listening = self.listening.take().expect("nobody else takes it");
        listening.join().unwrap();
        (status, self.said().join("\n"))
    }

    /// Waits until it has so many descriptors open.
    pub fn wait_descriptors(&self, count: usize) {
        wait::until(&format!("{count} descriptors"), || {
            let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
                .unwrap()
                .count();
            (open >= count).then_some(())
        });
    }

    /// Resident memory now, KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most resident memory it ever had, KiB.
    pub fn resident_max_kib(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Processor time used so far, in clock ticks (100 a second).
    pub fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name may hold spaces; the fields count from behind its parenthesis (proc(5)).
        let fields = stat.rsplit_once(')').unwrap().1;
        fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum()
    }

    fn memory(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = self.said();
            let last = &said[said.len().saturating_sub(40)..];
            eprintln!("{} said last:\n  {}", self.name, last.join("\n  "));
        }
    }
}

fn collect(stream: impl Read, said: &Mutex<Vec<String>>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        said.lock().unwrap().push(line);
    }
}

/// Runs a program to its end; it must be installed, and end well.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = attempt(program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program to its end, however that is; it must be installed.
pub fn attempt(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} does not start ({error}); tests/run installs it"))
}
