//! The programs in `tests/rpc`: services and clients that a library of their protocol made.
//!
//! Each is one program in two roles. `serve` is a service, and the other is a storm of short-lived
//! clients that tag all that they ask, end with 1 at the first reply that is not their own, and say at
//! their end how many they had.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::{Process, run};
use super::socket::Socket;
use super::wait;

/// Debian's own Python, since that is the one that Debian's packages of libraries are for.
const PYTHON: &str = "/usr/bin/python3";

/// One of the programs, ready to start.
pub struct Peer {
    program: String,
    arguments: Vec<OsString>,
    /// What was made for it from its sources.
    made: Option<TempDir>,
}

/// What a storm of clients said at its end. Every reply was its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub replies: u64,
    pub oneway: u64,
}

impl Peer {
    /// A Python program that needs these of Debian's modules.
    pub fn python(script: &str, modules: &[&str]) -> Self {
        for module in modules {
            must_exist(&Path::new("/usr/lib/python3/dist-packages").join(module));
        }
        Self {
            program: PYTHON.to_owned(),
            // It must leave nothing beside its source.
            arguments: vec!["-B".into(), source(script).into()],
            made: None,
        }
    }

    /// A Node.js program that needs these packages.
    pub fn node(script: &str, packages: &[&str]) -> Self {
        for package in packages {
            must_exist(&node_modules().join(package));
        }
        Self {
            program: "node".to_owned(),
            arguments: vec!["--no-warnings".into(), source(script).into()],
            made: None,
        }
    }

    /// The class of a Java program that needs these of Debian's archives. It is compiled here.
    pub fn java(class: &str, archives: &[&str]) -> Self {
        let made = tempfile::tempdir().unwrap();
        let mut path = made.path().display().to_string();
        for archive in archives {
            let archive = Path::new("/usr/share/java").join(format!("{archive}.jar"));
            must_exist(&archive);
            path = format!("{path}:{}", archive.display());
        }
        let [main, storm] =
            [class, "Storm"].map(|name| source(&format!("{name}.java")).display().to_string());
        let to = made.path().display().to_string();
        run("javac", &["-cp", &path, "-d", &to, &main, &storm]);
        // A short life: it is not worth compiling much, nor having threads for collecting garbage.
        let arguments = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &path];
        Self {
            program: "java".to_owned(),
            arguments: arguments
                .iter()
                .chain([&class])
                .map(OsString::from)
                .collect(),
            made: Some(made),
        }
    }

    /// A Python program that needs what the Thrift compiler makes of `calls.thrift`.
    pub fn thrift(script: &str) -> Self {
        let made = tempfile::tempdir().unwrap();
        let to = made.path().display().to_string();
        let interface = source("calls.thrift").display().to_string();
        run("thrift", &["--gen", "py", "-out", &to, &interface]);
        let mut peer = Self::python(script, &["thrift"]);
        peer.arguments.push(to.into());
        peer.made = Some(made);
        peer
    }

    /// Starts the service, which listens at these addresses.
    pub fn serve(&self, arguments: &[String], addresses: &[SocketAddr]) -> Process {
        let mut service = self.start("serve", arguments);
        await_listening(&mut service, addresses);
        service
    }

    /// Lets the storm of clients rage.
    pub fn ask(&self, role: &str, arguments: &[String]) -> Told {
        let mut clients = self.start(role, arguments);
        let status = clients.wait();
        assert!(status.success(), "the clients: {status}");
        wait::until("what the clients say at their end", || {
            clients.said().last().and_then(|line| told(line))
        })
    }

    fn start(&self, role: &str, arguments: &[String]) -> Process {
        let mut command = Command::new(&self.program);
        command.env("NODE_PATH", node_modules());
        command.args(&self.arguments).arg(role).args(arguments);
        Process::start(&mut command)
    }
}

/// Waits until a service accepts connections at all of these.
pub fn await_listening(service: &mut Process, addresses: &[SocketAddr]) {
    for &address in addresses {
        wait::until(&format!("it listens at {address}"), || {
            let status = service.ended();
            assert!(status.is_none(), "it ended at its start: {status:?}");
            Socket::try_dial(address).ok()
        });
    }
}

/// `800 replies, 288 one-way`
fn told(line: &str) -> Option<Told> {
    let (replies, oneway) = line.split_once(" replies, ")?;
    Some(Told {
        replies: replies.parse().ok()?,
        oneway: oneway.strip_suffix(" one-way")?.parse().ok()?,
    })
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/rpc")
        .join(name)
}

fn node_modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/rpc/node_modules")
}

fn must_exist(path: &Path) {
    assert!(
        path.exists(),
        "{} is missing, which the test needs: tests/run installs it",
        path.display()
    );
}
