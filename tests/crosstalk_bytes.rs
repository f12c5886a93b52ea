//! The oracle for protocols that millpond knows little or nothing of: no client ever sees a byte that
//! was meant for another.
//!
//! The service and its clients speak frames of a length and a payload, and every payload says whose it
//! is. To millpond it is `frames`, or opaque `tcp` whose connections are reused on a probe or on a
//! promise. Connections are killed, clients vanish, answers come twice or late. Requests may fail; a
//! foreign byte may not come.
//!
//! `MILLPOND_STORM_SECONDS=60 cargo test --test crosstalk_bytes` makes the storms longer, and
//! `MILLPOND_STORM_SEED` repeats one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use support::client::Client;
use support::facts;
use support::message::{Wire, pattern};
use support::proxy::{Config, Proxy, Snapshot};
use support::socket::{End, Socket};
use support::upstream::{Connection, Service};
use support::wait::{self, Flag};

const POOL_SIZE: u64 = 16;
/// What is promised. The service's own pauses are far shorter, so that a busy host breaks no promise.
const QUIET: Duration = Duration::from_millis(250);
const PROBE: &[u8] = b"\x00\x00\x00\x04PING";
const PROBE_ANSWER: &[u8] = b"\x00\x00\x00\x04PONG";

/// One request: whose it is, how long it is, and how long its answer is.
#[derive(Debug, Clone, Copy)]
struct Ask {
    tag: u64,
    sent: usize,
    wanted: usize,
}

impl Ask {
    fn random(tag: u64, random: &mut Rng) -> Self {
        let size = |random: &mut Rng, max: usize| match random.u8(0..8) {
            0 => random.usize(1..=max),
            1..=3 => random.usize(1..=max / 20),
            _ => random.usize(1..=200),
        };
        Self {
            tag,
            // The head of a request is always its client's own.
            sent: size(random, 60_000).max(PROBE.len()),
            wanted: size(random, 200_000),
        }
    }

    fn request(&self) -> Vec<u8> {
        let wanted = u32::try_from(self.wanted).unwrap().to_be_bytes();
        let body = pattern(!self.tag, self.sent);
        frame(&[&self.tag.to_be_bytes(), &wanted, &body])
    }

    /// No byte of a request may be another client's. A client may end in the midst of one just when the
    /// service speaks unasked, which looks like an answer: then `probe` is taken for the rest.
    /// `None`: it is taken even for a part of the length.
    fn read(payload: &[u8], probe: &[u8]) -> Option<Self> {
        if payload.is_empty() && !probe.is_empty() {
            return None;
        }
        let (head, body) = payload.split_at(12);
        let tag = u64::from_be_bytes(head[..8].try_into().unwrap());
        let wanted = u32::from_be_bytes(head[8..].try_into().unwrap()) as usize;
        let sent = body.len();
        let own = pattern(!tag, sent);
        let is_own_up_to_probe = |count| body == [&own[..sent - count], &probe[..count]].concat();
        assert!(
            (0..=probe.len()).any(is_own_up_to_probe),
            "a foreign byte in a request"
        );
        Some(Self { tag, sent, wanted })
    }

    fn answer(&self) -> Vec<u8> {
        frame(&[&self.tag.to_be_bytes(), &pattern(self.tag, self.wanted)])
    }
}

fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let payload = parts.concat();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [length.as_slice(), &payload].concat()
}

/// The next payload. Of a frame that is cut short, nothing is taken.
fn read_frame(wire: &mut Wire) -> Result<Vec<u8>, End> {
    loop {
        if let Some((length, _)) = wire.buffered().split_first_chunk() {
            let whole = 4 + u32::from_be_bytes(*length) as usize;
            if wire.buffered().len() >= whole {
                return wire.exactly(whole).map(|frame| frame[4..].to_vec());
            }
        }
        wire.fill()?;
    }
}

/// What a service may do, which depends on what it is trusted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// A second answer may come in the same segment, and then nothing more.
    OneReplyEach,
    /// An answer may come again, as late as it likes, before anything else is read.
    InOrder,
    /// One answer for each request, with pauses.
    Promising,
}

impl Manners {
    /// What it may be asked by millpond itself.
    fn probe(self) -> &'static [u8] {
        match self {
            Self::InOrder => PROBE,
            Self::OneReplyEach | Self::Promising => &[],
        }
    }
}

fn serve(mut connection: Connection, manners: Manners) {
    let mut random = Rng::with_seed(connection.number);
    while let Ok(payload) = read_frame(&mut connection) {
        if payload == b"PING" {
            connection.write(PROBE_ANSWER);
            continue;
        }
        let Some(ask) = Ask::read(&payload, manners.probe()) else {
            return;
        };
        let answer = ask.answer();
        match random.u8(0..40) {
            // It dies inside its answer.
            0 => {
                connection.write(&answer[..random.usize(0..answer.len())]);
                if random.bool() {
                    connection.reset();
                }
                return;
            }
            // So slowly that a client can vanish inside it.
            1..5 => {
                connection.write_slowly(&answer, answer.len() / 5 + 1, Duration::from_millis(2));
            }
            5..7 if manners == Manners::OneReplyEach => {
                connection.write([answer.as_slice(), &frame(&[b"foreign reply"])].concat());
                return;
            }
            5..8 if manners == Manners::InOrder => {
                connection.write(&answer);
                wait::pace(Duration::from_millis(random.u64(0..120)));
                connection.write(&answer);
            }
            5..8 => {
                connection.write_slowly(&answer, answer.len() / 2 + 1, Duration::from_millis(20));
            }
            _ => {
                connection.write(&answer);
            }
        }
    }
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    whole: AtomicU64,
    failed: AtomicU64,
    vanished: AtomicU64,
}

/// One client's life: sessions, each with a number that is part of its tags.
fn live(address: SocketAddr, seed: u64, seen: &Seen, over: &Flag) {
    let mut random = Rng::with_seed(seed);
    while !over.is_raised() {
        let session = random.u64(..) << 8;
        let mut client = Client::over(Socket::dial(address));
        for number in 0..random.u64(1..4) {
            let ask = Ask::random(session | number, &mut random);
            if !act(&mut client, ask, &mut random, seen) {
                break;
            }
        }
        // The rest end in order: FIN, and nothing foreign until the other side's.
        if random.bool() {
            client.socket.half_close();
            while let Ok(payload) = read_frame(&mut client) {
                judge(session, &payload);
            }
            judge_part(session, client.buffered());
        }
    }
}

/// One exchange, or half of one; says whether the session can go on.
fn act(client: &mut Client, ask: Ask, random: &mut Rng, seen: &Seen) -> bool {
    let request = ask.request();
    let vanishes = match random.u8(0..20) {
        0 => client
            .try_send(&request[..random.usize(1..=request.len())])
            .is_ok(),
        1 => client.try_send(&request).is_ok() && client.fill().is_ok(),
        _ => false,
    };
    if vanishes {
        judge_part(ask.tag, client.buffered());
        wait::pace(Duration::from_millis(random.u64(0..50)));
        seen.vanished.fetch_add(1, Ordering::Relaxed);
        if random.bool() {
            client.socket.duplicate().reset();
        }
        return false;
    }
    let _ = client.try_send(&request);
    match read_frame(client) {
        Ok(payload) => {
            judge(ask.tag, &payload);
            seen.whole.fetch_add(1, Ordering::Relaxed);
            true
        }
        Err(_) => {
            judge_part(ask.tag, client.buffered());
            seen.failed.fetch_add(1, Ordering::Relaxed);
            false
        }
    }
}

/// A payload must be an answer to this session; it may come twice, which is the service's doing.
fn judge(tag: u64, payload: &[u8]) {
    let theirs = u64::from_be_bytes(payload[..8].try_into().unwrap());
    assert_eq!(theirs >> 8, tag >> 8, "another session's answer");
    assert!(
        payload[8..] == pattern(theirs, payload.len() - 8),
        "a foreign byte in an answer"
    );
}

/// Every byte of a cut answer must still be its own.
fn judge_part(tag: u64, bytes: &[u8]) {
    let Some(payload) = bytes.get(4..).filter(|payload| payload.len() >= 8) else {
        return;
    };
    let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    judge(tag, &payload[..length.min(payload.len())]);
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Sixty clients over a pool of sixteen, while connections are killed.
fn storm(manners: Manners, configure: impl Fn(Config) -> Config) -> (Proxy, Snapshot) {
    let seconds = variable("MILLPOND_STORM_SECONDS", 6);
    let seed = variable("MILLPOND_STORM_SEED", fastrand::u64(..1 << 32));
    eprintln!("{manners:?}: MILLPOND_STORM_SEED={seed}");
    let service = Service::start(move |connection| serve(connection, manners));
    let proxy = configure(Config::to(service.address()))
        .pool(&format!("size = {POOL_SIZE}"))
        .pool("wait_timeout = \"15s\"")
        .start();
    let (seen, over) = (Seen::default(), Flag::default());
    let address = proxy.address();
    std::thread::scope(|scope| {
        for number in 0..60 {
            let (seen, over) = (&seen, &over);
            scope.spawn(move || live(address, seed + number, seen, over));
        }
        let _raise = over.raise_at_end();
        let mut random = Rng::with_seed(seed);
        let end = wait::now() + Duration::from_secs(seconds);
        while wait::now() < end {
            service.kill_one(&mut random);
            let now = proxy.snapshot();
            facts::check_always(&now);
            let taken = now.taken_slots();
            assert!(
                taken <= POOL_SIZE,
                "{taken} slots:\n{:#}",
                now.0["upstreams"]
            );
            wait::pace(Duration::from_millis(random.u64(5..40)));
        }
    });
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (whole, failed, vanished) = (read(&seen.whole), read(&seen.failed), read(&seen.vanished));
    eprintln!("{manners:?}: {whole} whole, {failed} failed, {vanished} clients vanished");
    assert!(whole > 50 * seconds, "only {whole} whole answers");
    assert!(failed > 0 && vanished > 0, "the storm was none");
    assert!(whole > 4 * failed, "{whole} whole, {failed} failed");
    let now = proxy.snapshot();
    // It judges its scripts at its end, and a value that is being returned would survive the panic.
    drop(service);
    (proxy, now)
}

#[test]
fn no_client_of_a_framed_protocol_sees_a_byte_of_anothers_reply() {
    let (proxy, now) = storm(Manners::OneReplyEach, |config| {
        config
            .protocol("frames")
            .frames("length = { offset = 0, width = 4 }")
            .upstream("abandon_bytes = \"2KiB\"")
    });
    assert!(
        now.upstream("waits/granted") > 0,
        "the pool was not smaller than the demand"
    );
    let found = now.upstream("discards/stray_bytes") + now.upstream("discards/idle_bytes");
    assert!(found > 0, "no second reply was found");
    proxy.finish();
}

#[test]
fn no_client_of_an_opaque_protocol_sees_a_foreign_byte_where_a_probe_is_answered() {
    let (proxy, now) = storm(Manners::InOrder, |config| {
        let escaped = |bytes: &[u8]| -> String {
            bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
        };
        config
            .protocol("tcp")
            .tcp("reuse = \"probed\"")
            .tcp("quiet = \"1ms\"")
            .tcp(&format!(
                "probe = {{ send = '{}', expect = '{}' }}",
                escaped(PROBE),
                escaped(PROBE_ANSWER)
            ))
    });
    reused(&now);
    assert!(
        now.upstream("discards/reuse_probe_wrong") + now.upstream("discards/reuse_late_bytes") > 0,
        "no late answer was found: {:#}",
        now.0["upstreams"]["service"]["discards"]
    );
    proxy.finish();
}

#[test]
fn no_client_of_an_opaque_protocol_sees_a_foreign_byte_where_the_promise_is_kept() {
    let (proxy, now) = storm(Manners::Promising, |config| {
        config
            .protocol("tcp")
            .tcp("reuse = \"promised\"")
            .tcp(&format!("quiet = \"{}ms\"", QUIET.as_millis()))
    });
    reused(&now);
    proxy.finish();
}

fn reused(now: &Snapshot) {
    let (sessions, connects) = (
        now.upstream("exchanges/completed"),
        now.upstream("connects/established"),
    );
    // Most connections are killed before their time.
    assert!(
        sessions > connects + 50,
        "{sessions} sessions over {connects} connections: {:#}",
        now.0["upstreams"]["service"]["discards"]
    );
}

/// The oracle must go red when replies are mixed up.
#[test]
fn the_oracle_sees_a_foreign_byte() {
    let (own, other) = (
        Ask {
            tag: 1 << 8,
            sent: 1,
            wanted: 500,
        },
        Ask {
            tag: 2 << 8,
            sent: 1,
            wanted: 500,
        },
    );
    judge(own.tag, &own.answer()[4..]);
    judge_part(own.tag, &own.answer()[..300]);
    let sees = |bytes: &[u8]| std::panic::catch_unwind(|| judge_part(own.tag, bytes)).is_err();
    assert!(sees(&other.answer()));
    assert!(sees(&other.answer()[..300]));
    let mut wrong = own.answer();
    *wrong.last_mut().unwrap() ^= 1;
    assert!(sees(&wrong));
}
