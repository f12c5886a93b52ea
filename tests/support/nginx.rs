//! nginx with a configuration and a directory of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::process::Process;
use super::wait;

/// A running nginx. Dropping it stops its master and workers.
pub struct Nginx {
    process: Process,
    directory: TempDir,
    address: SocketAddr,
}

impl Nginx {
    /// Serves on a free port of `host` with these lines in its server block. `ROOT` in them stands
    /// for the directory of [`Nginx::root`].
    pub fn start(host: &str, server: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address(host);
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let file = directory.path().join("nginx.conf");
        let server = server.replace("ROOT", &root.to_string_lossy());
        std::fs::write(&file, configuration(directory.path(), address, &server)).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(directory.path()).arg("-c").arg(&file);
        let mut process = Process::start(&mut command);
        wait::until("nginx listens", || {
            assert!(
                process.ended().is_none(),
                "nginx ended at its start: {:?}",
                process.said()
            );
            TcpStream::connect(address).ok()
        });
        Self {
            process,
            directory,
            address,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory that `root ROOT;` serves.
    pub fn root(&self) -> std::path::PathBuf {
        self.directory.path().join("root")
    }

    /// The access log's lines: connection's number, requests on it so far, status, target.
    pub fn access_log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.path().join("access.log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Stops it: the access log, to which nothing is added any more.
    pub fn finish(mut self) -> Vec<String> {
        self.stop();
        self.access_log()
    }

    fn stop(&mut self) {
        if self.process.ended().is_none() {
            // The master ends its workers; a killed master would leave them.
            self.process.signal(Signal::SIGTERM);
            let _ = self.process.wait();
        }
    }
}

/// The target in a line of the access log.
pub fn target_of(line: &str) -> String {
    line.split(' ').nth(3).unwrap().to_owned()
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
    }
}

fn configuration(directory: &Path, address: SocketAddr, server: &str) -> String {
    let at = directory.display();
    format!(
        "daemon off; worker_processes 1; pid {at}/pid; error_log stderr warn;
user root;
events {{ worker_connections 4096; }}
http {{
  log_format ends '$connection $connection_requests $status $request_uri';
  access_log {at}/access.log ends;
  client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
  uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
  client_max_body_size 0;
  server {{ listen {address} backlog=4096; {server} }}
}}
"
    )
}

/// A port that was free a moment ago.
pub fn free_address(host: &str) -> SocketAddr {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}
