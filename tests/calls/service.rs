//! A service that does as it is told.
//!
//! | request | what follows |
//! |---|---|
//! | `hold …` | nothing, until `let` |
//! | `let` | `done`, and then `held …` for each that was held, the last one first |
//! | `much N` | N bytes |
//! | `half` | half of a reply, and the end |
//! | `die` | the end |
//! | `beat` | a heartbeat that is to be answered; then `beaten` |
//! | `push` | a message of the service's own that has the id of the request; then `pushed` |
//! | `tail …` | the same, and then half of a message of the service's own |
//! | `stray` | a reply that nobody asked for; then `strayed` |
//! | `notes` | how many one-way requests came |
//! | `talk back`, without asking for a reply | `nobody asked` |
//! | a heartbeat | `alive` |
//! | anything else | the same |
//!
//! Where it heard a heartbeat's answer it counts it: `beats`.

use crate::frame::{Frame, HEARTBEAT, REQUEST, TWO_WAY};
use crate::support::message::pattern;
use crate::support::upstream::{Connection, Service};

/// What one connection remembers.
#[derive(Default)]
struct Memory {
    held: Vec<Frame>,
    notes: u64,
    beats: u64,
}

pub fn obedient() -> Service {
    Service::start(|mut connection| {
        let mut memory = Memory::default();
        while let Ok(frame) = Frame::read(&mut connection) {
            connection.count_request();
            if !frame.is(REQUEST) {
                assert!(
                    frame.is(HEARTBEAT),
                    "an answer to what was not asked: {frame:?}"
                );
                memory.beats += 1;
            } else if !frame.is(TWO_WAY) {
                memory.notes += 1;
                if frame.payload == b"talk back" {
                    connection.write(Frame::reply(frame.id, "nobody asked").bytes());
                }
            } else if !obey(&mut connection, &mut memory, frame) {
                return;
            }
        }
    })
}

/// Whether the connection goes on.
fn obey(connection: &mut Connection, memory: &mut Memory, frame: Frame) -> bool {
    let id = frame.id;
    let text = frame.text();
    let mut say = |frame: Frame| connection.write(frame.bytes());
    let reply = match text.split(' ').next().unwrap() {
        _ if frame.is(HEARTBEAT) => {
            say(Frame::new(HEARTBEAT, id, "alive"));
            return true;
        }
        "hold" => {
            memory.held.push(frame);
            return true;
        }
        "let" => {
            say(Frame::reply(id, "done"));
            for held in memory.held.drain(..).rev() {
                say(Frame::reply(held.id, format!("held{}", &held.text()[4..])));
            }
            return true;
        }
        "half" => {
            let whole = Frame::reply(id, [b'x'; 1000]).bytes();
            connection.write(&whole[..500]);
            return false;
        }
        "die" => return false,
        "much" => {
            let count = text[5..].parse().unwrap();
            say(Frame::reply(id, pattern(7, count)));
            return true;
        }
        "beat" => {
            say(Frame::new(REQUEST | TWO_WAY | HEARTBEAT, id, ""));
            "beaten".to_owned()
        }
        "push" => {
            say(Frame::new(REQUEST, id, "of my own accord"));
            "pushed".to_owned()
        }
        "tail" => {
            say(Frame::reply(id, text));
            let whole = Frame::new(REQUEST, 1, [b'y'; 1000]).bytes();
            connection.write(&whole[..500]);
            return true;
        }
        "stray" => {
            say(Frame::reply(u64::MAX, "for nobody"));
            "strayed".to_owned()
        }
        "notes" => memory.notes.to_string(),
        "beats" => memory.beats.to_string(),
        _ => text,
    };
    connection.write(Frame::reply(id, reply).bytes());
    true
}
