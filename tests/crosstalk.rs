//! The oracle: no client ever sees a byte of another's reply.
//!
//! Each request carries a tag of its own, and so do all bytes of its body and of its reply. While
//! clients ask, upstream connections are killed, clients vanish inside requests and responses, and
//! the pool is smaller than the demand. Requests may fail; a wrong byte may not come.
//!
//! `MILLPOND_STORM_SECONDS=300 cargo test --test crosstalk` makes the storm longer, and
//! `MILLPOND_STORM_SEED` repeats one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use support::client::Client;
use support::facts;
use support::message::{Message, chunked, pattern};
use support::proxy::Config;
use support::socket::Socket;
use support::upstream::{Connection, Service};
use support::wait::{self, Flag};

/// What one request asks for. Its target is what the service needs to know.
#[derive(Clone, Copy)]
struct Ask {
    tag: u64,
    framing: u64,
    sent: usize,
    wanted: usize,
}

/// The framing that is none.
const UNTIL_CLOSE: u64 = 3;

impl Ask {
    fn random(random: &mut Rng) -> Self {
        // Most are small, some are large, like real ones.
        let size = |random: &mut Rng, max: usize| match random.u8(0..8) {
            0 => random.usize(1..=max),
            1..=3 => random.usize(1..=max / 20),
            _ => random.usize(1..=200),
        };
        let sent = if random.u8(0..3) == 0 {
            size(random, 50_000)
        } else {
            0
        };
        Self {
            tag: random.u64(..),
            framing: random.u64(0..8),
            sent,
            wanted: size(random, 200_000),
        }
    }

    fn of(target: &str) -> Self {
        let numbers: Vec<u64> = target[1..]
            .split('/')
            .map(|word| word.parse().unwrap())
            .collect();
        Self {
            tag: numbers[0],
            framing: numbers[1],
            sent: numbers[2] as usize,
            wanted: numbers[3] as usize,
        }
    }

    fn target(&self) -> String {
        format!(
            "/{}/{}/{}/{}",
            self.tag, self.framing, self.sent, self.wanted
        )
    }

    /// The request's bytes: a GET, or a POST whose body has the tag too.
    fn request(&self, random: &mut Rng) -> Vec<u8> {
        let target = self.target();
        if self.sent == 0 {
            return format!("GET {target} HTTP/1.1\r\nHost: service\r\n\r\n").into_bytes();
        }
        let body = pattern(!self.tag, self.sent);
        let framed = random.bool();
        let framing = match framed {
            true => "Transfer-Encoding: chunked".to_owned(),
            false => format!("Content-Length: {}", body.len()),
        };
        let mut bytes =
            format!("POST {target} HTTP/1.1\r\nHost: service\r\n{framing}\r\n\r\n").into_bytes();
        bytes.extend(if framed {
            chunked(&body, random.usize(500..9000), "")
        } else {
            body
        });
        bytes
    }

    /// Whether nothing but the close says where the reply ends.
    fn lasts_until_close(&self) -> bool {
        self.framing == UNTIL_CLOSE
    }

    /// The service's whole reply. Some are closed after, some last until the close.
    fn reply(&self) -> (Vec<u8>, bool) {
        let body = pattern(self.tag, self.wanted);
        let tag = self.tag;
        let (framing, body, closes) = match self.framing {
            0 | 1 => (
                "Transfer-Encoding: chunked".to_owned(),
                chunked(&body, 3000, ""),
                false,
            ),
            2 => (
                format!("Content-Length: {}\r\nConnection: close", body.len()),
                body,
                true,
            ),
            UNTIL_CLOSE => ("Connection: close".to_owned(), body, true),
            _ => (format!("Content-Length: {}", body.len()), body, false),
        };
        let head = format!("HTTP/1.1 200 OK\r\nX-Tag: {tag}\r\n{framing}\r\n\r\n");
        ([head.into_bytes(), body].concat(), closes)
    }
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    whole: AtomicU64,
    cut: AtomicU64,
    refused: AtomicU64,
    vanished: AtomicU64,
}

fn serve(mut connection: Connection) {
    let mut random = Rng::with_seed(connection.number);
    while let Some(request) = connection.request() {
        let ask = Ask::of(request.head.target());
        assert!(
            request.body == pattern(!ask.tag, ask.sent),
            "a foreign byte in a request's body"
        );
        let (bytes, closes) = ask.reply();
        match random.u8(0..40) {
            // It dies inside its answer, or has more to say than it was asked for.
            0 => {
                connection.write(&bytes[..random.usize(0..bytes.len())]);
                if random.bool() {
                    connection.reset();
                }
                return;
            }
            1 if !ask.lasts_until_close() => {
                connection.write([bytes, pattern(1, 500)].concat());
                return;
            }
            // So slowly that a client can vanish inside it.
            5..10 => {
                connection.write_slowly(&bytes, bytes.len() / 5 + 1, Duration::from_millis(2));
            }
            // A whole foreign reply follows its own, in the same segment: nobody may get it.
            3 if !closes && bytes.len() < 30_000 => {
                let foreign = "HTTP/1.1 200 OK\r\nX-Tag: 0\r\nContent-Length: 7\r\n\r\nforeign";
                connection.write([bytes.as_slice(), foreign.as_bytes()].concat());
                return;
            }
            // It gives up waiting for the next request, a moment after its answer.
            4 if !closes => {
                connection.write(bytes);
                wait::pace(Duration::from_micros(random.u64(0..2000)));
                connection.write(
                    "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                );
                return;
            }
            _ => {
                connection.write(bytes);
            }
        }
        if closes {
            return;
        }
    }
}

/// Holds a reply, whole or cut short, against what it must be.
fn judge(ask: Ask, message: &Message) {
    let tag = message.head.field("x-tag");
    assert_eq!(
        tag,
        Some(ask.tag.to_string().as_str()),
        "another client's head"
    );
    let own = pattern(ask.tag, ask.wanted);
    // Where only the close says where a body ends, a service that dies by FIN cuts it unseen.
    let is_own = message.body == own || (ask.lasts_until_close() && own.starts_with(&message.body));
    let same = own
        .iter()
        .zip(&message.body)
        .take_while(|(own, seen)| own == seen)
        .count();
    assert!(
        is_own,
        "another client's body: {} bytes of {}, {same} its own, framing {}",
        message.body.len(),
        own.len(),
        ask.framing
    );
}

/// Every byte of a cut reply must still be its own.
fn judge_part(ask: Ask, bytes: &[u8]) {
    let (reply, _) = ask.reply();
    let start = reply
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap()
        + 4;
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return;
    };
    let text = String::from_utf8_lossy(&bytes[..head]);
    if ["HTTP/1.1 50", "HTTP/1.1 408"]
        .iter()
        .any(|refusal| text.starts_with(refusal))
    {
        return;
    }
    assert!(
        text.contains(&format!("X-Tag: {}", ask.tag)),
        "another client's head: {text}"
    );
    let body = &bytes[head + 4..];
    assert!(
        reply[start..].starts_with(body),
        "a foreign byte in a reply that was cut short"
    );
}

/// One client's life: connections that ask, some of which vanish.
fn live(address: SocketAddr, seed: u64, seen: &Seen, over: &Flag) {
    let mut random = Rng::with_seed(seed);
    while !over.is_raised() {
        let mut client = Client::over(Socket::dial(address));
        for _ in 0..random.u8(1..12) {
            let ask = Ask::random(&mut random);
            let request = ask.request(&mut random);
            match random.u8(0..20) {
                0 => {
                    let part = random.usize(1..=request.len());
                    let _ = client.try_send(&request[..part]);
                    // Not before it may have been lent a connection.
                    wait::pace(Duration::from_millis(random.u64(0..500)));
                    seen.vanished.fetch_add(1, Ordering::Relaxed);
                    if random.bool() {
                        client.reset();
                    }
                    break;
                }
                1 => {
                    let _ = client.try_send(&request);
                    let _ = client.fill();
                    judge_part(ask, client.buffered());
                    seen.vanished.fetch_add(1, Ordering::Relaxed);
                    if random.bool() {
                        client.reset();
                    }
                    break;
                }
                _ => {}
            }
            if !exchange(&mut client, ask, &request, seen) {
                break;
            }
        }
    }
}

/// One exchange; says whether the connection can go on.
fn exchange(client: &mut Client, ask: Ask, request: &[u8], seen: &Seen) -> bool {
    // A refusal may come while a body is still going out.
    let _ = client.try_send(request);
    let Ok(head) = client.head() else {
        seen.cut.fetch_add(1, Ordering::Relaxed);
        return false;
    };
    let closes = head.says_close();
    if head.status() != 200 {
        assert!([408, 502, 503, 504].contains(&head.status()), "{head:?}");
        seen.refused.fetch_add(1, Ordering::Relaxed);
        return client.exactly(head.length().unwrap()).is_ok() && !closes && ask.sent == 0;
    }
    match client.response_body(head.clone()) {
        Ok(message) => {
            judge(ask, &message);
            seen.whole.fetch_add(1, Ordering::Relaxed);
            !closes
        }
        Err((part, _)) => {
            assert_eq!(head.field("x-tag"), Some(ask.tag.to_string().as_str()));
            assert!(
                pattern(ask.tag, ask.wanted).starts_with(&part),
                "a foreign byte in a cut body"
            );
            seen.cut.fetch_add(1, Ordering::Relaxed);
            false
        }
    }
}

#[test]
fn no_client_ever_sees_a_byte_of_anothers_reply() {
    let variable = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().unwrap())
    };
    let seconds = variable("MILLPOND_STORM_SECONDS", 10);
    let seed = variable("MILLPOND_STORM_SEED", fastrand::u64(..1 << 32));
    eprintln!("MILLPOND_STORM_SEED={seed}");
    let service = Service::start(serve);
    let proxy = Config::to(service.address())
        .pool("size = 24")
        .pool("wait_timeout = \"15s\"")
        .upstream("abandon_bytes = \"2KiB\"")
        .start();
    let (seen, over) = (Seen::default(), Flag::default());
    let address = proxy.address();
    std::thread::scope(|scope| {
        for number in 0..200 {
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
                taken <= 24,
                "{taken} slots of 24:\n{:#}",
                now.0["upstreams"]
            );
            wait::pace(Duration::from_millis(random.u64(5..40)));
        }
    });
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (whole, cut, refused, vanished) = (
        read(&seen.whole),
        read(&seen.cut),
        read(&seen.refused),
        read(&seen.vanished),
    );
    eprintln!("{whole} whole, {cut} cut short, {refused} refused, {vanished} clients vanished");
    assert!(whole > 100 * seconds, "only {whole} whole exchanges");
    assert!(cut > 0 && vanished > 0, "the storm was none");
    assert!(
        whole > 4 * (cut + refused),
        "{whole} whole, {cut} cut short, {refused} refused"
    );
    let now = proxy.wait_until("every whole answer is counted", |now| {
        now.upstream("exchanges/completed") >= whole
    });
    assert!(
        now.upstream("waits/granted") > 0,
        "the pool was not smaller than the demand"
    );
    assert!(
        now.upstream("discards/client_gone") >= seconds,
        "no client vanished from a connection that it had: {:#}",
        now.0["upstreams"]["service"]["discards"]
    );
    proxy.finish();
}

/// The oracle must go red when replies are mixed up: here the service mixes them up itself.
#[test]
fn the_oracle_sees_a_foreign_reply() {
    let ask = Ask {
        tag: 1,
        framing: 4,
        sent: 0,
        wanted: 500,
    };
    let foreign = Ask { tag: 2, ..ask };
    let service = Service::start(move |mut connection| {
        while connection.request().is_some() {
            connection.write(foreign.reply().0);
        }
    });
    let mut client = Client::dial(service.socket_address());
    let request = ask.request(&mut Rng::with_seed(1));
    let seen = Seen::default();
    let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        exchange(&mut client, ask, &request, &seen)
    }));
    assert!(verdict.is_err());
    let mut wrong = ask.reply().0;
    *wrong.last_mut().unwrap() ^= 1;
    assert!(std::panic::catch_unwind(|| judge_part(ask, &wrong)).is_err());
    judge_part(ask, &ask.reply().0[..300]);
    drop(client);
}
