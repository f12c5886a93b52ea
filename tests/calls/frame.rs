//! The frames of these tests: the header is Dubbo's, what follows is a text.

use crate::support::client::Client;
use crate::support::message::Wire;
use crate::support::socket::End;

/// It asks.
pub const REQUEST: u8 = 0x80;
/// It is to be answered.
pub const TWO_WAY: u8 = 0x40;
/// It is a heartbeat.
pub const HEARTBEAT: u8 = 0x20;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub flags: u8,
    pub id: u64,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(flags: u8, id: u64, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref().to_vec();
        Self { flags, id, payload }
    }

    /// One that is to be answered.
    pub fn call(id: u64, payload: impl AsRef<[u8]>) -> Self {
        Self::new(REQUEST | TWO_WAY, id, payload)
    }

    pub fn reply(id: u64, payload: impl AsRef<[u8]>) -> Self {
        Self::new(0, id, payload)
    }

    pub fn is(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap();
        let mut bytes = vec![0xda, 0xbb, self.flags, 20];
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    pub fn read(wire: &mut Wire) -> Result<Self, End> {
        let head: [u8; 16] = wire.exactly(16)?.try_into().unwrap();
        assert_eq!(head[..2], [0xda, 0xbb], "no frame");
        let number = |range: std::ops::Range<usize>| {
            head[range]
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let payload = wire.exactly(usize::try_from(number(12..16)).unwrap())?;
        Ok(Self::new(head[2], number(4..12), payload))
    }
}

/// A client's question, and what it is told.
pub trait Ask {
    fn call(&mut self, id: u64, payload: &str) -> &mut Self;
    fn told(&mut self) -> Frame;
    /// Where nothing else is under way.
    fn ask(&mut self, id: u64, payload: &str) -> String;
}

impl Ask for Client {
    fn call(&mut self, id: u64, payload: &str) -> &mut Self {
        self.send(Frame::call(id, payload).bytes())
    }

    fn told(&mut self) -> Frame {
        Frame::read(self).expect("a frame")
    }

    fn ask(&mut self, id: u64, payload: &str) -> String {
        self.call(id, payload);
        let told = self.told();
        assert_eq!(told.id, id, "{told:?}");
        told.text()
    }
}
