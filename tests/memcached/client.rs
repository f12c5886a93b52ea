//! A blocking client that speaks memcached's text protocol, strictly and line by line. It is independent
//! of millpond's framer, so that one can show the other wrong.

use std::net::SocketAddr;

use crate::support::message::Wire;
use crate::support::socket::{End, Socket};

/// What a retrieval found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub key: String,
    pub data: Vec<u8>,
    pub cas: Option<u64>,
}

/// One connection. Dropping it closes the socket. A reply that does not come fails the test.
pub struct Client {
    wire: Wire,
}

/// The bytes of a storage command: `words` up to the length, and behind it.
pub fn storage(words: &str, data: &[u8], behind: &str) -> Vec<u8> {
    let line = format!("{words} {}{behind}\r\n", data.len());
    [line.as_bytes(), data, b"\r\n"].concat()
}

impl Client {
    pub fn dial(address: SocketAddr) -> Self {
        let wire = Wire::new(Socket::dial(address));
        Self { wire }
    }

    pub fn socket(&self) -> &Socket {
        &self.wire.socket
    }

    /// Sends bytes as they are; the other side must still be there.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("it still listens");
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), End> {
        self.wire.send(bytes)
    }

    /// One line and the line that answers it.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.line()
    }

    pub fn line(&mut self) -> String {
        self.try_line()
            .unwrap_or_else(|end| panic!("{end:?} instead of a line"))
    }

    pub fn try_line(&mut self) -> Result<String, End> {
        let line = self.wire.through(b"\r\n")?;
        Ok(String::from_utf8(line[..line.len() - 2].to_vec()).expect("a line of text"))
    }

    /// Stores a value; the line that answers.
    pub fn set(&mut self, key: &str, data: &[u8]) -> String {
        self.send(storage(&format!("set {key} 0 0"), data, ""));
        self.line()
    }

    /// The data of one key.
    pub fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        self.send(format!("get {key}\r\n"));
        let items = self.items().expect("items");
        assert!(items.iter().all(|item| item.key == key), "{items:?}");
        assert!(items.len() <= 1, "{items:?}");
        items.into_iter().next().map(|item| item.data)
    }

    /// What answers a retrieval; an error line instead is the error.
    pub fn items(&mut self) -> Result<Vec<Item>, String> {
        self.try_items()
            .unwrap_or_else(|end| panic!("{end:?} instead of items"))
    }

    pub fn try_items(&mut self) -> Result<Result<Vec<Item>, String>, End> {
        let mut items = Vec::new();
        loop {
            let line = self.try_line()?;
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["END"] => return Ok(Ok(items)),
                ["VALUE", key, _, length, ref more @ ..] => {
                    let length: usize = length.parse().unwrap();
                    let data = self.wire.exactly(length + 2)?;
                    assert!(data.ends_with(b"\r\n"), "longer than it says");
                    items.push(Item {
                        key: key.to_owned(),
                        data: data[..length].to_vec(),
                        cas: more.first().map(|cas| cas.parse().unwrap()),
                    });
                }
                _ if is_error(&line) => return Ok(Err(line)),
                _ => panic!("no answer to a retrieval: {line}"),
            }
        }
    }

    /// Exactly so many bytes.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        self.wire.exactly(count).expect("so many bytes")
    }

    /// Whether nothing more has come.
    pub fn owes_nothing(&self) -> bool {
        self.wire.owes_nothing()
    }

    /// Ends in order: our FIN, then the other side's and nothing before it.
    pub fn leave(self) {
        self.wire.leave();
    }

    /// The stream ends here, by FIN, with nothing before it.
    pub fn expect_fin(self) {
        self.wire.expect_fin();
    }

    /// Leaves by RST.
    pub fn reset(self) {
        self.wire.socket.reset();
    }
}

pub fn is_error(line: &str) -> bool {
    ["ERROR", "CLIENT_ERROR", "SERVER_ERROR"]
        .iter()
        .any(|word| line.starts_with(word))
}
