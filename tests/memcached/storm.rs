//! The oracle in a storm: no client ever sees a byte of another's reply.
//!
//! Clients ask in all the ways there are, many of them for no reply, and vanish in the middle; memcached
//! is restarted. Commands may fail; a wrong byte may not come, and nobody waits for ever.
//!
//! `MILLPOND_STORM_SECONDS` makes it longer, and `MILLPOND_STORM_SEED` repeats one.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;

use crate::client::{Client, is_error, storage};
use crate::server::Memcached;
use crate::support::message::pattern;
use crate::support::socket::End;
use crate::support::storm::{self, Seen, add};
use crate::support::upstream::Service;
use crate::support::wait::{self, Flag};
use crate::{SIZE, in_front_of};

/// One connection of one client. It knows what its keys may hold.
struct Session<'a> {
    client: Client,
    tag: u64,
    words: u64,
    candidates: Vec<Vec<u8>>,
    random: &'a mut Rng,
    seen: &'a Seen,
}

impl<'a> Session<'a> {
    fn begin(address: SocketAddr, random: &'a mut Rng, seen: &'a Seen) -> Self {
        Self {
            client: Client::dial(address),
            tag: add(&seen.tags),
            words: 0,
            candidates: Vec::new(),
            random,
            seen,
        }
    }

    fn key(&self) -> String {
        format!("own:{}", self.tag)
    }

    fn value(&mut self) -> Vec<u8> {
        let size = match self.random.u8(0..30) {
            0 => self.random.usize(0..500_000),
            _ => self.random.usize(0..500),
        };
        self.words += 1;
        let mut value = format!("{}|{}|", self.key(), self.words).into_bytes();
        value.extend(pattern(self.tag, size));
        value
    }

    fn line(&mut self) -> Result<String, End> {
        let line = self.client.try_line()?;
        self.count(&line);
        Ok(line)
    }

    /// An error may say that something is away or too much; it never tells what another client did.
    fn count(&self, line: &str) {
        if is_error(line) {
            assert!(line.starts_with("SERVER_ERROR"), "not its own: {line}");
            add(&self.seen.refused);
        } else {
            add(&self.seen.whole);
        }
    }

    fn act(&mut self) -> Result<(), End> {
        match self.random.u8(0..4) {
            0 => self.set()?,
            1 => self.set_quietly()?,
            2 => self.count_up()?,
            _ => self.meta()?,
        }
        self.get()
    }

    fn set(&mut self) -> Result<(), End> {
        let (key, value) = (self.key(), self.value());
        self.candidates.push(value.clone());
        let bytes = storage(&format!("set {key} 0 0"), &value, "");
        self.client.try_send(bytes)?;
        let line = self.line()?;
        if !is_error(&line) {
            assert_eq!(line, "STORED");
            self.candidates = vec![value];
        }
        Ok(())
    }

    /// With a question behind it whose answer says that nothing came before.
    fn set_quietly(&mut self) -> Result<(), End> {
        let (key, value) = (self.key(), self.value());
        self.candidates.push(value.clone());
        let word = format!("O{}x{}", self.tag, self.words);
        let mut bytes = storage(&format!("set {key} 0 0"), &value, " noreply");
        bytes.extend(format!("mg absent:{} {word}\r\n", self.tag).into_bytes());
        self.client.try_send(bytes)?;
        let mut line = self.line()?;
        if is_error(&line) {
            // The quiet one failed, or the other; only the first leaves an answer to come. While the
            // service is away the next question fails too.
            self.client
                .try_send(format!("mg absent:{} O0end\r\n", self.tag))?;
            loop {
                line = self.line()?;
                if line.ends_with("O0end") || is_error(&line) {
                    break;
                }
            }
            return Err(End::Fin);
        }
        assert_eq!(line, format!("EN {word}"));
        Ok(())
    }

    fn count_up(&mut self) -> Result<(), End> {
        let key = format!("count:{}", self.tag);
        let start = self.random.u32(0..1_000_000);
        let mut bytes = storage(&format!("set {key} 0 0"), start.to_string().as_bytes(), "");
        for _ in 0..5 {
            bytes.extend(format!("incr {key} {}\r\n", self.tag + 1).into_bytes());
        }
        self.client.try_send(bytes)?;
        let stored = self.line()?;
        assert!(stored == "STORED" || is_error(&stored), "{stored}");
        let mut expected = u64::from(start);
        for _ in 0..5 {
            let line = self.line()?;
            expected += self.tag + 1;
            if is_error(&line) || line == "NOT_FOUND" || is_error(&stored) {
                // Nobody knows whether it was done.
                continue;
            }
            let number: u64 = line.parse().unwrap_or_else(|_| panic!("a number: {line}"));
            let is_own = number <= expected && (expected - number).is_multiple_of(self.tag + 1);
            assert!(is_own, "{number} of {expected}");
        }
        Ok(())
    }

    fn meta(&mut self) -> Result<(), End> {
        let count = self.random.usize(1..20);
        let words: Vec<_> = (0..count)
            .map(|_| {
                self.words += 1;
                format!("O{}x{}", self.tag, self.words)
            })
            .collect();
        let key = format!("meta:{}", self.tag);
        let asked = words
            .iter()
            .map(|word| format!("ms {key} 2 {word}\r\nab\r\n"));
        self.client.try_send(asked.collect::<String>())?;
        for word in words {
            let line = self.line()?;
            assert!(is_error(&line) || line == format!("HD {word}"), "{line}");
        }
        Ok(())
    }

    fn get(&mut self) -> Result<(), End> {
        let (key, other) = (self.key(), format!("meta:{}", self.tag));
        self.client.try_send(format!("get {key} {other}\r\n"))?;
        match self.client.try_items()? {
            Err(line) => self.count(&line),
            Ok(items) => {
                for item in items {
                    let own = if item.key == key {
                        self.candidates.contains(&item.data)
                    } else {
                        item.key == other && item.data == b"ab"
                    };
                    assert!(own, "{} has never written this for {}", self.tag, item.key);
                }
                add(&self.seen.whole);
            }
        }
        Ok(())
    }

    /// Leaves in the middle of something.
    fn vanish(mut self) {
        add(&self.seen.vanished);
        let words = match self.random.u8(0..3) {
            0 => {
                let bytes = storage(&format!("set {} 0 0", self.key()), &self.value(), "");
                bytes[..self.random.usize(1..bytes.len())].to_vec()
            }
            1 => format!("get {}\r\n", self.key()).repeat(50).into_bytes(),
            _ => b"mg absent q\r\n".repeat(50),
        };
        let _ = self.client.try_send(words);
        if self.random.bool() {
            self.client.reset();
        }
    }
}

fn live(address: SocketAddr, seed: u64, seen: &Seen, over: &Flag) {
    let mut random = Rng::with_seed(seed);
    while !over.is_raised() {
        let turns = random.u8(1..15);
        let mut session = Session::begin(address, &mut random, seen);
        let whole = (0..turns).try_for_each(|_| session.act());
        if whole.is_err() {
            add(&seen.cut);
        } else if session.random.u8(0..3) == 0 {
            session.vanish();
        } else {
            assert!(session.client.owes_nothing(), "more than it asked for");
        }
    }
}

#[test]
fn no_client_ever_sees_a_byte_of_anothers_reply() {
    let (seconds, seed) = storm::length_and_seed();
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let (seen, over) = (Seen::default(), Flag::default());
    let address = proxy.address();
    std::thread::scope(|scope| {
        for number in 0..60 {
            let (seen, over) = (&seen, &over);
            scope.spawn(move || live(address, seed + number, seen, over));
        }
        let _raise = over.raise_at_end();
        let mut next_restart = wait::now() + Duration::from_secs(1);
        storm::watch(&proxy, SIZE, (seconds, seed), |random| {
            if wait::now() > next_restart {
                memcached.kill();
                wait::pace(Duration::from_millis(random.u64(0..200)));
                memcached.run();
                next_restart = wait::now() + Duration::from_millis(random.u64(1000..3000));
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
        while connection.through(b"\r\n").is_ok() {
            connection.write("HD O99x99\r\n");
        }
    });
    let (mut random, seen) = (Rng::with_seed(1), Seen::default());
    let mut session = Session::begin(service.socket_address(), &mut random, &seen);
    let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| session.meta()));
    assert!(verdict.is_err());
}
