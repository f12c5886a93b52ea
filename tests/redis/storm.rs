//! The oracle in a storm: no client ever sees a byte of another's reply.
//!
//! Clients ask in all the ways there are, and vanish in the middle of them. Their connections at Redis are
//! killed there, Redis stalls and is restarted, and the pool is smaller than the demand. Commands may
//! fail; a wrong byte may not come, and nobody waits for ever.
//!
//! `MILLPOND_STORM_SECONDS` makes it longer, and `MILLPOND_STORM_SEED` repeats one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use crate::client::{Client, Reply, command};
use crate::oracle::{self, COMMON, KEYS, Life, judge_common, judge_echo, judge_error};
use crate::server::{Redis, connection_ids};
use crate::support::facts;
use crate::support::proxy::Proxy;
use crate::support::socket::End;
use crate::support::upstream::Service;
use crate::support::wait::{self, Flag};
use crate::{leases, setting, with_pool};

/// Connections of the pool; the clients want more.
const POOL: u64 = 8;
const CLIENTS: u64 = 60;

/// What the clients saw.
#[derive(Default)]
struct Seen {
    tags: AtomicU64,
    whole: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    vanished: AtomicU64,
    messages: AtomicU64,
    committed: AtomicU64,
}

fn add(count: &AtomicU64) -> u64 {
    count.fetch_add(1, Ordering::Relaxed)
}

/// One connection of one client.
struct Session<'a> {
    client: Client,
    life: Life,
    random: &'a mut Rng,
    seen: &'a Seen,
    address: SocketAddr,
    words: u64,
}

impl<'a> Session<'a> {
    fn begin(address: SocketAddr, random: &'a mut Rng, seen: &'a Seen) -> Self {
        Self {
            client: Client::dial(address),
            life: Life::new(add(&seen.tags)),
            random,
            seen,
            address,
            words: 0,
        }
    }

    /// A word that nobody else says, nor this connection again.
    fn word(&mut self) -> String {
        self.words += 1;
        format!("word:{:x}:{}", self.life.tag, self.words)
    }

    fn value(&mut self, key: &str) -> Vec<u8> {
        let size = match self.random.u8(0..40) {
            0 => self.random.usize(0..300_000),
            1..4 => self.random.usize(0..20_000),
            _ => self.random.usize(0..200),
        };
        // The key's sequence is in it, so that an old value is not taken for a new one.
        self.words += 1;
        let mut value = oracle::value(key, self.life.tag, size);
        value.extend(format!("#{}", self.words).into_bytes());
        value
    }

    fn read(&mut self) -> Result<Reply, End> {
        let reply = self.client.try_read()?;
        add(match reply.is_error() {
            true => &self.seen.refused,
            false => &self.seen.whole,
        });
        Ok(reply)
    }

    fn send<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<(), End> {
        self.client.try_send_bytes(command(words))
    }

    fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Reply, End> {
        self.send(words)?;
        self.read()
    }

    /// Something that a client does, to its end.
    fn act(&mut self) -> Result<(), End> {
        match self.random.u8(0..20) {
            0..5 => self.set_and_get(),
            5..8 => self.pipeline(),
            8..10 => self.common_key(),
            10..13 => self.transaction(),
            13..15 => self.watch(),
            15..17 => self.pop(),
            17 => self.switch_database(),
            _ => self.subscribe(),
        }
    }

    fn set_own(&mut self, key: usize) -> Result<(), End> {
        let name = self.life.key(key);
        let value = self.value(&name);
        let reply = self.ask(&[b"SET", name.as_bytes(), &value]);
        self.life.set(key, value, reply.as_ref().ok());
        reply.map(drop)
    }

    fn set_and_get(&mut self) -> Result<(), End> {
        let key = self.random.usize(0..KEYS);
        if self.random.bool() {
            self.set_own(key)?;
        }
        let reply = self.ask(&["GET", &self.life.key(key)])?;
        self.life.got(key, &reply);
        Ok(())
    }

    /// Many at once, of which each reply is known beforehand.
    fn pipeline(&mut self) -> Result<(), End> {
        let key = self.random.usize(0..KEYS);
        self.set_own(key)?;
        let own = self.life.key(key);
        let mut bytes = Vec::new();
        let asked: Vec<_> = (0..self.random.usize(1..30))
            .map(|_| {
                let word = self.word();
                let kind = self.random.u8(0..4);
                bytes.extend(match kind {
                    0 => command(&["ECHO", &word]),
                    1 => command(&["PING", &word]),
                    2 => command(&["EVAL", "return ARGV[1]", "0", &word]),
                    _ => command(&["GET", &own]),
                });
                (kind, word)
            })
            .collect();
        self.client.try_send_bytes(bytes)?;
        for (kind, word) in asked {
            let reply = self.read()?;
            match kind {
                0..3 => judge_echo(&word, &reply),
                _ => self.life.got(key, &reply),
            }
        }
        Ok(())
    }

    fn common_key(&mut self) -> Result<(), End> {
        let key = format!("common:{}", self.random.usize(0..COMMON));
        if self.random.bool() {
            let size = self.random.usize(0..5000);
            let value = oracle::value(&key, self.life.tag, size);
            let reply = self.ask(&[b"SET", key.as_bytes(), &value])?;
            if let Reply::Error(text) = &reply {
                judge_error(text);
            } else {
                assert_eq!(reply, Reply::ok());
            }
        }
        let reply = self.ask(&["GET", &key])?;
        judge_common(&key, &reply);
        Ok(())
    }

    /// Whole in one piece, or step by step.
    fn transaction(&mut self) -> Result<(), End> {
        let (list, word) = (self.life.name("transaction"), self.word());
        let commands = [
            command(&["MULTI"]),
            command(&["RPUSH", &list, &word]),
            command(&["LRANGE", &list, "-1", "-1"]),
            command(&["EXEC"]),
        ];
        let in_steps = self.random.bool();
        if !in_steps {
            self.client.try_send_bytes(commands.concat())?;
        }
        let mut replies = Vec::new();
        for bytes in commands {
            if in_steps {
                self.client.try_send_bytes(bytes)?;
            }
            replies.push(self.read()?);
        }
        match &replies[..] {
            [begun, first, second, Reply::Array(results)] => {
                let queued = Reply::simple("QUEUED");
                assert_eq!([begun, first, second], [&Reply::ok(), &queued, &queued]);
                assert!(matches!(results[0], Reply::Integer(_)), "{results:?}");
                assert_eq!(results[1], Reply::bulks(&[&word]));
                add(&self.seen.committed);
            }
            // Where MULTI was refused, what followed was none of a transaction.
            _ => {
                let failed = replies.iter().filter(|reply| reply.is_error());
                assert!(failed.count() > 0, "{replies:?}");
            }
        }
        for reply in &replies {
            match reply {
                Reply::Error(text) => judge_error(text),
                Reply::Array(words) if replies[0].is_error() && !replies[1].is_error() => {
                    assert_eq!(words[..], [Reply::bulk(&word)]);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn watch(&mut self) -> Result<(), End> {
        let key = self.random.usize(0..KEYS);
        let name = self.life.key(key);
        let watched = self.ask(&["WATCH", &name])?;
        if let Reply::Error(text) = watched {
            judge_error(&text);
            return Ok(());
        }
        let reply = self.ask(&["GET", &name])?;
        self.life.got(key, &reply);
        if self.random.bool() {
            let reply = self.ask(&["UNWATCH"])?;
            assert!(reply == Reply::ok() || reply.is_error(), "{reply:?}");
            return Ok(());
        }
        let word = self.word();
        let own = ["EVAL", "return ARGV[1]", "0", &word];
        let commands = [command(&["MULTI"]), command(&own), command(&["EXEC"])];
        self.client.try_send_bytes(commands.concat())?;
        let [_, _, executed] = [self.read()?, self.read()?, self.read()?];
        match executed {
            Reply::Array(results) => assert_eq!(results[..], [Reply::bulk(&word)]),
            // A restart of Redis changes the key.
            Reply::Null => {}
            Reply::Error(text) => judge_error(&text),
            other => panic!("EXEC was answered by {other:?}"),
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<(), End> {
        let (list, word) = (self.life.name("list"), self.word());
        let is_filled = self.random.bool();
        if is_filled {
            let pushed = self.ask(&["RPUSH", &list, &word])?;
            if pushed.is_error() {
                return Ok(());
            }
        }
        let timeout = if is_filled { "1" } else { "0.03" };
        let reply = self.ask(&["BLPOP", &list, timeout])?;
        match reply {
            // It had time to go with a restart.
            Reply::Null => {}
            Reply::Error(text) => judge_error(&text),
            Reply::Array(words) => {
                assert_eq!(words[0], Reply::bulk(&list));
                // What a refused BLPOP left behind comes before.
                let own = format!("word:{:x}:", self.life.tag);
                assert!(words[1].text().starts_with(&own), "{words:?}");
            }
            other => panic!("BLPOP was answered by {other:?}"),
        }
        Ok(())
    }

    /// For one command; the keys are those of the first database again after.
    fn switch_database(&mut self) -> Result<(), End> {
        let key = self.random.usize(0..KEYS);
        let name = self.life.key(key);
        let words = [
            command(&["SELECT", "1"]),
            command(&["GET", &name]),
            command(&["SELECT", "0"]),
            command(&["GET", &name]),
        ];
        self.client.try_send_bytes(words.concat())?;
        let [there, absent, here, got] = [self.read()?, self.read()?, self.read()?, self.read()?];
        if there == Reply::ok() {
            assert!(absent == Reply::Null || absent.is_error(), "{absent:?}");
        }
        if here == Reply::ok() {
            self.life.got(key, &got);
        } else {
            return Err(End::Fin);
        }
        Ok(())
    }

    fn subscribe(&mut self) -> Result<(), End> {
        let channel = self.life.name("channel");
        let confirmed = self.ask(&["SUBSCRIBE", &channel])?;
        if let Reply::Error(text) = confirmed {
            judge_error(&text);
            return Ok(());
        }
        expect_words(&confirmed, &["subscribe", &channel]);
        for _ in 0..self.random.u8(1..4) {
            let word = self.word();
            let mut publisher = Client::dial(self.address);
            let published = publisher.try_ask(&["PUBLISH", &channel, &word]);
            match published {
                Ok(Reply::Integer(1)) => {
                    let message = self.read()?;
                    if message.is_error() {
                        return Err(End::Fin);
                    }
                    expect_words(&message, &["message", &channel, &word]);
                    add(&self.seen.messages);
                }
                // Its connection at Redis is no more.
                _ => return Err(End::Fin),
            }
        }
        let reply = self.ask(&["UNSUBSCRIBE"])?;
        if reply.is_error() {
            return Err(End::Fin);
        }
        expect_words(&reply, &["unsubscribe", &channel]);
        Ok(())
    }

    /// Leaves in the middle of something.
    fn vanish(mut self) {
        add(&self.seen.vanished);
        let own = self.life.key(0);
        let words = match self.random.u8(0..7) {
            0 => {
                let bytes = command(&[b"SET", own.as_bytes(), &self.value(&own)]);
                bytes[..self.random.usize(1..bytes.len())].to_vec()
            }
            1 => command(&["BLPOP", &self.life.name("list"), "0"]),
            2 => command(&["SUBSCRIBE", &self.life.name("channel")]),
            3 => [command(&["MULTI"]), command(&["GET", &own])].concat(),
            4 => command(&["WATCH", &own]),
            5 => command(&["MONITOR"]),
            _ => command(&["GET", "common:0"]).repeat(self.random.usize(1..100)),
        };
        let _ = self.client.try_send_bytes(words);
        if self.random.bool() {
            wait::pace(Duration::from_micros(self.random.u64(0..20_000)));
        }
        if self.random.bool() {
            self.client.reset();
        }
    }
}

/// A push, or in RESP2 an array, that begins with these words.
fn expect_words(reply: &Reply, expected: &[&str]) {
    let (Reply::Array(words) | Reply::Push(words)) = reply else {
        panic!("{reply:?} instead of {expected:?}");
    };
    let expected: Vec<_> = expected.iter().map(Reply::bulk).collect();
    assert_eq!(words[..expected.len()], expected[..]);
}

fn live(address: SocketAddr, seed: u64, seen: &Seen, over: &Flag) {
    let mut random = Rng::with_seed(seed);
    while !over.is_raised() {
        let turns = random.u8(1..15);
        let mut session = Session::begin(address, &mut random, seen);
        if session.random.bool() {
            let _ = session.ask(&["HELLO", "3"]);
        }
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

/// A connection whose end Redis has not read yet counts there still.
fn expect_few_connections(witness: &mut Client) {
    wait::until("Redis has no more connections than the pool has", || {
        (connection_ids(witness).len() as u64 <= POOL).then_some(())
    });
}

/// Kills, stalls and restarts until the time is over.
fn rage(redis: &Redis, proxy: &Proxy, seconds: u64, random: &mut Rng) {
    let end = wait::now() + Duration::from_secs(seconds);
    let mut witness = redis.witness();
    let mut next_restart = wait::now() + Duration::from_millis(1500);
    while wait::now() < end {
        if wait::now() > next_restart {
            redis.kill();
            wait::pace(Duration::from_millis(random.u64(0..200)));
            redis.run();
            witness = redis.witness();
            next_restart = wait::now() + Duration::from_millis(random.u64(1000..3000));
        }
        let ids = connection_ids(&mut witness);
        if let Some(id) = random.choice(&ids) {
            // It may have gone by itself.
            witness.ask(&["CLIENT", "KILL", "ID", id]);
        }
        if random.u8(0..20) == 0 {
            witness.ask(&["DEBUG", "SLEEP", "0.1"]);
        }
        expect_few_connections(&mut witness);
        let now = proxy.snapshot();
        facts::check_always(&now);
        let taken = now.taken_slots();
        assert!(
            taken <= POOL,
            "{taken} slots of {POOL}:\n{:#}",
            now.0["upstreams"]
        );
        wait::pace(Duration::from_millis(random.u64(20..120)));
    }
}

#[test]
fn no_client_ever_sees_a_byte_of_anothers_reply() {
    let seconds = setting("MILLPOND_STORM_SECONDS", 8);
    let seed = setting("MILLPOND_STORM_SEED", fastrand::u64(..1 << 32));
    eprintln!("MILLPOND_STORM_SEED={seed}");
    let redis = Redis::start();
    let proxy = with_pool(&redis, POOL)
        .pool("wait_timeout = \"1s\"")
        .start();
    let (seen, over) = (Seen::default(), Flag::default());
    let address = proxy.address();
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (seen, over) = (&seen, &over);
            scope.spawn(move || live(address, seed + number, seen, over));
        }
        let _raise = over.raise_at_end();
        rage(&redis, &proxy, seconds, &mut Rng::with_seed(seed));
    });
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (whole, refused) = (read(&seen.whole), read(&seen.refused));
    let (cut, vanished) = (read(&seen.cut), read(&seen.vanished));
    let (messages, committed) = (read(&seen.messages), read(&seen.committed));
    eprintln!(
        "{whole} replies, {refused} errors, {cut} connections cut, {vanished} clients vanished, \
         {messages} messages, {committed} transactions"
    );
    assert!(whole > 100 * seconds, "only {whole} replies");
    assert!(cut + refused > 0 && vanished > 0, "the storm was none");
    assert!(messages > 0 && committed > 0, "not everything was tried");
    for reason in ["transaction", "watch", "blocking", "subscribe"] {
        assert!(leases(&proxy, reason) > 0, "{reason}\n{}", proxy.metrics());
    }
    expect_few_connections(&mut redis.witness());
    proxy.finish();
}

/// The oracle must go red when replies are mixed up: here the service mixes them up itself.
#[test]
fn the_oracle_sees_a_foreign_reply() {
    let key = "own:1:0";
    let (own, foreign) = (oracle::value(key, 1, 500), oracle::value(key, 2, 500));
    let mut life = Life::new(1);
    life.set(0, own.clone(), Some(&Reply::ok()));
    life.got(0, &Reply::Bulk(own.clone()));
    let is_red = |reply: Reply| std::panic::catch_unwind(|| life.got(0, &reply)).is_err();
    assert!(is_red(Reply::Bulk(foreign.clone())));
    assert!(is_red(Reply::ok()));
    assert!(is_red(Reply::Error("WRONGTYPE it is a list".to_owned())));
    let mut flipped = own;
    *flipped.last_mut().unwrap() ^= 1;
    assert!(is_red(Reply::Bulk(flipped.clone())));
    judge_common(key, &Reply::Bulk(foreign));
    for wrong in [flipped, oracle::value("own:1:1", 1, 500)] {
        let judged = std::panic::catch_unwind(|| judge_common(key, &Reply::Bulk(wrong)));
        assert!(judged.is_err());
    }
    let service = Service::start(|mut connection| {
        while connection.through(b"\r\n").is_ok() {
            connection.write("$7\r\nforeign\r\n");
        }
    });
    let (mut random, seen) = (Rng::with_seed(1), Seen::default());
    let mut session = Session::begin(service.socket_address(), &mut random, &seen);
    let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| session.pipeline()));
    assert!(verdict.is_err());
}
