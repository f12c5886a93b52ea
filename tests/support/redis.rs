//! A Redis of its own, on a Unix socket, and a plain client of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::wait;

/// A running `redis-server`. Dropping it kills it; it keeps nothing on disk.
pub struct Redis {
    process: Process,
    directory: TempDir,
}

impl Redis {
    /// Starts it with these arguments beside those for its socket.
    pub fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(directory.path())
            .arg("--unixsocket")
            .arg(directory.path().join("redis.sock"))
            .args(arguments);
        let mut process = Process::start(&mut command);
        wait::until("redis-server listens", || {
            let ended = process.ended();
            assert!(ended.is_none(), "it ended at its start: {ended:?}");
            UnixStream::connect(directory.path().join("redis.sock")).ok()
        });
        Self { process, directory }
    }

    /// Where it listens, as a configuration says it.
    pub fn endpoint(&self) -> String {
        format!(
            "unix:{}",
            self.directory.path().join("redis.sock").display()
        )
    }

    /// A connection to it.
    pub fn connect(&self) -> Connection {
        let socket = self.directory.path().join("redis.sock");
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        Connection {
            stream: BufReader::new(stream),
        }
    }
}

/// A value of RESP2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A status, or a string.
    Text(String),
    /// An error, its code included.
    Error(String),
    Integer(i64),
    Null,
    Array(Vec<Self>),
}

impl Value {
    /// The values of an array.
    pub fn array(&self) -> &[Self] {
        match self {
            Self::Array(values) => values,
            other => panic!("{other:?} is no array"),
        }
    }

    /// A status, or a string.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }
}

/// A client's connection.
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Sends a command and waits for its reply.
    pub fn ask(&mut self, words: &[&str]) -> Value {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.send(command.as_bytes());
        self.value()
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// All that comes up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// The next reply.
    pub fn value(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let (kind, rest) = line.trim_end().split_at_checked(1).expect("a reply");
        let number = || rest.parse::<i64>().expect("a number");
        match kind {
            "+" => Value::Text(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Integer(number()),
            "$" | "*" if number() < 0 => Value::Null,
            "*" => Value::Array((0..number()).map(|_| self.value()).collect()),
            "$" => {
                let mut text = vec![0; number() as usize + 2];
                self.stream.read_exact(&mut text).unwrap();
                text.truncate(text.len() - 2);
                Value::Text(String::from_utf8_lossy(&text).into_owned())
            }
            _ => panic!("{line:?} is no value of RESP2"),
        }
    }
}
