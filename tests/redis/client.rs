//! A blocking client that speaks RESP2 and RESP3, strictly. It is independent of millpond's framer, so
//! that one can show the other wrong.

use std::net::SocketAddr;

use crate::support::message::Wire;
use crate::support::socket::{End, Socket};

/// One reply, as it came.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Boolean(bool),
    Double(String),
    Array(Vec<Self>),
    Set(Vec<Self>),
    Map(Vec<(Self, Self)>),
    Push(Vec<Self>),
}

impl Reply {
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(bytes.as_ref().to_vec())
    }

    pub fn simple(text: &str) -> Self {
        Self::Simple(text.to_owned())
    }

    pub fn ok() -> Self {
        Self::simple("OK")
    }

    /// An array of bulks.
    pub fn bulks(words: &[&str]) -> Self {
        Self::Array(words.iter().map(Self::bulk).collect())
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// The text of an error.
    pub fn error(&self) -> &str {
        match self {
            Self::Error(text) => text,
            other => panic!("no error: {other:?}"),
        }
    }

    /// The bytes of a bulk, as text.
    pub fn text(&self) -> String {
        match self {
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("no text: {other:?}"),
        }
    }
}

/// One connection. Dropping it closes the socket. A reply that does not come fails the test.
pub struct Client {
    wire: Wire,
}

/// The bytes of one command.
pub fn command<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

impl Client {
    pub fn dial(address: SocketAddr) -> Self {
        Self::over(Socket::dial(address))
    }

    pub fn over(socket: Socket) -> Self {
        let wire = Wire::new(socket);
        Self { wire }
    }

    pub fn socket(&self) -> &Socket {
        &self.wire.socket
    }

    /// Sends bytes as they are; the other side must still be there.
    pub fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send_bytes(bytes).expect("it still listens");
    }

    pub fn try_send_bytes(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), End> {
        self.wire.send(bytes)
    }

    pub fn send<W: AsRef<[u8]>>(&mut self, words: &[W]) {
        self.send_bytes(command(words));
    }

    /// One command and its reply.
    pub fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Reply {
        self.send(words);
        self.read()
    }

    /// The same, of a proxy that may end the connection.
    pub fn try_ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Reply, End> {
        self.try_send_bytes(command(words))?;
        self.try_read()
    }

    /// The next reply.
    pub fn read(&mut self) -> Reply {
        self.try_read()
            .unwrap_or_else(|end| panic!("{end:?} instead of a reply"))
    }

    pub fn try_read(&mut self) -> Result<Reply, End> {
        let line = self.wire.through(b"\r\n")?;
        let kind = line[0];
        let line = String::from_utf8(line[1..line.len() - 2].to_vec()).expect("a line of text");
        let number = || -> i64 { line.parse().unwrap_or_else(|_| panic!("a number: {line}")) };
        Ok(match kind {
            b'+' => Reply::Simple(line),
            b'-' => Reply::Error(line),
            b':' => Reply::Integer(number()),
            b'_' => Reply::Null,
            b'#' => Reply::Boolean(line == "t"),
            b',' => Reply::Double(line),
            b'$' | b'*' if number() == -1 => Reply::Null,
            b'$' | b'=' => self.bulk(number())?,
            b'*' => Reply::Array(self.replies(number())?),
            b'~' => Reply::Set(self.replies(number())?),
            b'>' => Reply::Push(self.replies(number())?),
            b'%' => {
                let words = self.replies(2 * number())?;
                let pairs = words.chunks(2);
                Reply::Map(pairs.map(|it| (it[0].clone(), it[1].clone())).collect())
            }
            _ => panic!("no reply begins like this: {:?} {line}", char::from(kind)),
        })
    }

    fn bulk(&mut self, length: i64) -> Result<Reply, End> {
        let length = usize::try_from(length).expect("a length");
        let bytes = self.wire.exactly(length + 2)?;
        assert!(
            bytes.ends_with(b"\r\n"),
            "a bulk that is longer than it says"
        );
        Ok(Reply::bulk(&bytes[..length]))
    }

    fn replies(&mut self, count: i64) -> Result<Vec<Reply>, End> {
        (0..count).map(|_| self.try_read()).collect()
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
