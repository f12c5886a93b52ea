//! A raw client: it sends exactly the bytes it was given, and tells how the connection ended.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use super::message::{Message, Wire};
use super::socket::{End, Socket};

/// One downstream connection. Dropping it closes the socket.
pub struct Client(Wire);

impl Client {
    pub fn dial(address: SocketAddr) -> Self {
        Self(Wire::new(Socket::dial(address)))
    }

    pub fn over(socket: Socket) -> Self {
        Self(Wire::new(socket))
    }

    /// Sends bytes; the other side must still be there.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.send(bytes).expect("the other side still listens");
        self
    }

    /// Sends bytes to a peer that may be gone.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), End> {
        self.0.send(bytes)
    }

    /// One GET and its response.
    pub fn get(&mut self, target: &str) -> Message {
        self.send(get(target));
        self.read("GET")
    }

    /// One POST and its response.
    pub fn post(&mut self, target: &str, body: &[u8]) -> Message {
        self.send(post(target, body));
        self.read("POST")
    }

    /// The next response, which must be whole.
    pub fn read(&mut self, method: &str) -> Message {
        let before = self.0.received();
        self.0.response(method).unwrap_or_else(|end| {
            let bytes = self.0.received() - before;
            panic!("the response ended by {end:?} after {bytes} bytes")
        })
    }

    /// The rest of the stream and its end. It must not be a lone end: `bytes` says what was left.
    pub fn end(&mut self) -> (Vec<u8>, End) {
        self.0.until_end()
    }

    /// Ends in order: its FIN, then the other side's and nothing before it.
    pub fn leave(mut self) {
        self.socket.half_close();
        self.expect_fin();
    }

    /// The stream ends here, by FIN, with nothing before it.
    pub fn expect_fin(&mut self) {
        let (rest, end) = self.0.until_end();
        assert_eq!(
            (String::from_utf8_lossy(&rest).as_ref(), end),
            ("", End::Fin)
        );
    }

    /// Leaves by RST.
    pub fn reset(self) {
        self.0.socket.reset();
    }
}

impl Deref for Client {
    type Target = Wire;
    fn deref(&self) -> &Wire {
        &self.0
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.0
    }
}

/// The bytes of a GET.
pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: service\r\n\r\n")
}

/// The bytes of a GET that is the client's last request.
pub fn last_get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n")
}

/// The bytes of a POST.
pub fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {target} HTTP/1.1\r\nHost: service\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// One short-lived client: connects, asks once, reads to the end.
pub fn once(address: SocketAddr, target: &str) -> Result<Message, End> {
    let mut wire = Wire::new(Socket::try_dial(address).map_err(|_| End::Reset)?);
    wire.send(last_get(target))?;
    let message = wire.response("GET")?;
    match wire.until_end() {
        (rest, End::Fin) if rest.is_empty() => Ok(message),
        (rest, end) => panic!(
            "after the last response came {} bytes and {end:?}",
            rest.len()
        ),
    }
}
