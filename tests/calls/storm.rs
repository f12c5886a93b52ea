//! The oracle in a storm: no client ever sees a byte of another's reply.
//!
//! Clients have many requests under way and use each other's ids; the service answers in any order, late,
//! or not at all, and its connections are killed. A request may be answered by millpond; a wrong byte may
//! not come, and nobody waits for ever.
//!
//! `MILLPOND_STORM_SECONDS` makes it longer, and `MILLPOND_STORM_SEED` repeats one.

use std::collections::HashMap;
use std::net::SocketAddr;

use fastrand::Rng;

use crate::frame::{Frame, REQUEST, TWO_WAY};
use crate::support::client::Client;
use crate::support::message::pattern;
use crate::support::socket::End;
use crate::support::storm::{self, Seen, add};
use crate::support::upstream::Service;
use crate::support::wait::Flag;
use crate::{SIZE, in_front_of, with_error_reply};

/// A service that answers what it has in any order, now and then not at all.
fn whimsical(seed: u64) -> Service {
    Service::start(move |mut connection| {
        let mut random = Rng::with_seed(seed ^ connection.number);
        let mut waiting: Vec<Frame> = Vec::new();
        loop {
            // Once nothing more comes at once, something is answered.
            let has_more = !connection.buffered().is_empty();
            if waiting.is_empty() || has_more || random.u8(0..64) == 0 {
                match Frame::read(&mut connection) {
                    Ok(frame) if frame.flags & TWO_WAY == 0 => continue,
                    Ok(frame) => waiting.push(frame),
                    Err(_) => return,
                }
            }
            while waiting.len() > random.usize(0..8) {
                let request = waiting.swap_remove(random.usize(0..waiting.len()));
                if random.u16(0..2000) == 0 {
                    continue;
                }
                let reply = Frame::reply(request.id, answer(&request.payload)).bytes();
                if random.u16(0..3000) == 0 {
                    connection.write(&reply[..random.usize(0..reply.len())]);
                    return;
                }
                connection.write(reply);
            }
        }
    })
}

/// The request backwards, and something that depends on it.
fn answer(request: &[u8]) -> Vec<u8> {
    let sum = request.iter().map(|byte| u64::from(*byte)).sum();
    let mut answer: Vec<u8> = request.iter().rev().copied().collect();
    answer.extend(pattern(sum, usize::try_from(sum % 900).unwrap()));
    answer
}

/// One connection of one client. It knows what it asked.
struct Session<'a> {
    client: Client,
    asked: HashMap<u64, Vec<u8>>,
    tag: u64,
    words: u64,
    random: &'a mut Rng,
    seen: &'a Seen,
}

impl<'a> Session<'a> {
    fn begin(address: SocketAddr, random: &'a mut Rng, seen: &'a Seen) -> Self {
        Self {
            client: Client::dial(address),
            asked: HashMap::new(),
            tag: add(&seen.tags),
            words: 0,
            random,
            seen,
        }
    }

    fn ask(&mut self) -> Result<(), End> {
        self.words += 1;
        let size = match self.random.u8(0..60) {
            0 => self.random.usize(0..150_000),
            _ => self.random.usize(0..300),
        };
        let mut payload = format!("{}|{}|", self.tag, self.words).into_bytes();
        payload.extend(pattern(self.tag, size));
        if self.random.u8(0..20) == 0 {
            return self
                .client
                .try_send(Frame::new(REQUEST, self.words, payload).bytes());
        }
        // Everybody uses the same few ids.
        let Some(id) = (0..64).find(|id| !self.asked.contains_key(id)) else {
            return Ok(());
        };
        let frame = Frame::call(id, &payload).bytes();
        self.asked.insert(id, payload);
        self.client.try_send(frame)
    }

    fn hear(&mut self) -> Result<(), End> {
        let told = Frame::read(&mut self.client)?;
        let asked = self.asked.remove(&told.id).expect("one that it asked");
        if told.payload == b"away" {
            add(&self.seen.refused);
        } else {
            assert!(told.payload == answer(&asked), "{} got another's", self.tag);
            add(&self.seen.whole);
        }
        Ok(())
    }

    fn act(&mut self) -> Result<(), End> {
        let window = self.random.usize(1..20);
        while self.asked.len() < window {
            self.ask()?;
        }
        let left = self.random.usize(0..window);
        while self.asked.len() > left {
            self.hear()?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), End> {
        while !self.asked.is_empty() {
            self.hear()?;
        }
        assert!(self.client.owes_nothing(), "more than it asked for");
        Ok(())
    }

    /// Leaves in the middle of something.
    fn vanish(mut self) {
        add(&self.seen.vanished);
        if self.random.bool() {
            let bytes = Frame::call(1, pattern(3, 500)).bytes();
            let _ = self
                .client
                .try_send(&bytes[..self.random.usize(1..bytes.len())]);
        }
        if self.random.bool() {
            self.client.reset();
        }
    }
}

fn live(address: SocketAddr, seed: u64, seen: &Seen, over: &Flag) {
    let mut random = Rng::with_seed(seed);
    while !over.is_raised() {
        let turns = random.u8(1..30);
        let mut session = Session::begin(address, &mut random, seen);
        let whole = (0..turns).try_for_each(|_| session.act());
        if whole.is_ok() && session.random.u8(0..3) == 0 {
            session.vanish();
        } else if whole.and_then(|()| session.settle()).is_err() {
            add(&seen.cut);
        }
    }
}

#[test]
fn no_client_ever_sees_a_byte_of_anothers_reply() {
    let (seconds, seed) = storm::length_and_seed();
    let service = whimsical(seed);
    let proxy = with_error_reply(in_front_of(&service))
        .pool("shared = 2")
        .upstream("response_timeout = \"500ms\"")
        .start();
    let (seen, over) = (Seen::default(), Flag::default());
    let address = proxy.address();
    std::thread::scope(|scope| {
        for number in 0..40 {
            let (seen, over) = (&seen, &over);
            scope.spawn(move || live(address, seed + number, seen, over));
        }
        let _raise = over.raise_at_end();
        storm::watch(&proxy, SIZE, (seconds, seed), |random| {
            if random.u8(0..8) == 0 {
                service.kill_one(random);
            }
        });
    });
    storm::expect_storm(&seen, seconds);
    proxy.finish();
}

/// The oracle must go red when replies are mixed up: here the service mixes them up itself.
#[test]
fn the_oracle_sees_a_foreign_reply() {
    let service = Service::start(|mut connection| {
        while let Ok(frame) = Frame::read(&mut connection) {
            connection.write(Frame::reply(frame.id, answer(b"99|99|")).bytes());
        }
    });
    let (mut random, seen) = (Rng::with_seed(1), Seen::default());
    let mut session = Session::begin(service.socket_address(), &mut random, &seen);
    let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| session.act()));
    assert!(verdict.is_err());
}
