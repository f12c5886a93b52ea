//! What framing costs: nanoseconds for one head and gigabytes a second for chunked content.
//! `cargo bench --bench framers`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use millpond::protocol::http::{
    BodyLength, Forwarded, Options, RequestFacts, RequestFramer, ResponseFramer,
};
use millpond::protocol::{Framer, Then};
use millpond::sys::clock;

const SHORT_REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n";

const BROWSER_REQUEST: &[u8] = b"GET /a/path/to/something?with=a&query=string HTTP/1.1\r\n\
    Host: www.example.test\r\nConnection: keep-alive\r\nCache-Control: max-age=0\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes\r\n\
    If-None-Match: \"5f3c-0123456789\"\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.26.0\r\n\
    Date: Tue, 01 Jul 2025 00:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\
    Last-Modified: Tue, 01 Jul 2025 00:00:00 GMT\r\nConnection: keep-alive\r\n\
    ETag: \"68632c80-264\"\r\nAccept-Ranges: bytes\r\n\r\n";

const GET: RequestFacts = RequestFacts {
    idempotent: true,
    head: false,
    version_minor: 1,
    keep_alive: true,
    expects_continue: false,
    upgrade: false,
    body: BodyLength::None,
};

fn main() {
    let options = Options {
        head_max: 16 << 10,
        body_max: None,
        authority: Arc::from("service.test"),
        forwarded: Some(Forwarded::from_unix()),
    };
    let mut edited = Vec::with_capacity(4096);
    for (name, head) in [
        ("short request", SHORT_REQUEST),
        ("browser request", BROWSER_REQUEST),
    ] {
        let each = measure(|| {
            edited.clear();
            let mut framer = RequestFramer::new(&options);
            let frame = framer
                .frame(black_box(head), &mut edited)
                .expect("the request is sound");
            assert_eq!(frame.then, Then::Boundary);
            black_box(&edited);
        });
        report(name, each, head.len());
    }
    let each = measure(|| {
        edited.clear();
        let mut framer = ResponseFramer::new(GET, &options);
        let frame = framer
            .frame(black_box(RESPONSE), &mut edited)
            .expect("the response is sound");
        assert_eq!(frame.then, Then::Boundary);
        black_box(&edited);
    });
    report("response", each, RESPONSE.len());

    let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
    let tiny = b"1\r\n.\r\n".repeat(chunk.len() / 6);
    for (name, chunks) in [("chunks of 16 KiB", &chunk), ("chunks of 1 byte", &tiny)] {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut framer = ResponseFramer::new(GET, &options);
        framer.frame(head, &mut edited).expect("the head is sound");
        let each = measure(|| {
            let frame = framer
                .frame(black_box(chunks), &mut edited)
                .expect("the chunks are sound");
            assert_eq!(frame.taken, chunks.len());
        });
        report(name, each, chunks.len());
    }
}

/// The time of one call: the best of several rounds, which the rest of the machine disturbed least.
fn measure(mut call: impl FnMut()) -> Duration {
    const ROUND: u32 = 20_000;
    let rounds = (0..15).map(|_| {
        let start = clock::now();
        (0..ROUND).for_each(|_| call());
        clock::now().duration_since(start) / ROUND
    });
    rounds.min().unwrap_or_default()
}

#[expect(
    clippy::print_stdout,
    reason = "a benchmark's result goes to its terminal"
)]
fn report(name: &str, each: Duration, len: usize) {
    let rate = len as f64 / each.as_secs_f64().max(1e-9) / 1e9;
    println!(
        "{name:<18} {:>7} ns  {rate:>7.2} GB/s  ({len} bytes)",
        each.as_nanos()
    );
}
