//! A session that is cancelled at any await takes nothing with it: no connection, no place in a queue, no
//! right to a lease, and no reply of anybody else's.
//!
//! The parts are those of the library, run here; a session is polled so and so often and then dropped,
//! from once up to as often as it takes to its end. Whoever comes after it must find all as it was.
//!
//! Not here: clients that leave (see the suites of the protocols).
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use millpond::config;
use millpond::config::checked::{Config, LogSessions};
use millpond::log::SessionLog;
use millpond::session::{Rules, RulesCell, Session, SharedLinks};
use millpond::stats::counter::Counter;
use millpond::stats::sessions::Peer;
use millpond::stats::tree::Tree;
use millpond::transport::Transport;
use millpond::upstream::Upstream;
use support::memcached::Memcached;
use support::redis::Redis;
use support::upstream::Service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// What stands in a script for a name that nobody else uses.
const TAG: &str = "tag00000";

/// A script comes in so many.
const PIECES: usize = 24;

/// A session that needs more polls than that never ends.
const POLLS_MAX: usize = 2000;

/// All that a session is served by.
struct Stage {
    tree: Arc<Tree>,
    cell: Arc<RulesCell>,
}

impl Stage {
    /// In front of `service`, with these lines of its upstream.
    fn new(service: &str, lines: &str) -> Self {
        let text = format!(
            "[upstream.service]\nendpoints = [\"{service}\"]\n{lines}\n\
             [upstream.service.pool]\nsize = 3\nwait_timeout = \"2s\"\n\
             [listener.front]\nlisten = \"127.0.0.1:0\"\nupstream = \"service\"\n"
        );
        let Config {
            upstreams,
            listeners,
            ..
        } = config::parse(&text).unwrap();
        let settings = &upstreams["service"];
        let tree = Arc::<Tree>::default();
        let tasks = TaskTracker::new();
        let upstream = Upstream::start("service", settings, tree.upstream("service"), &tasks);
        tree.watch_pool("service", Arc::downgrade(&upstream) as _);
        let links = SharedLinks::new(&upstream, settings, &tasks);
        let stats = tree.listener("front");
        let now = std::time::Instant::now();
        let log = SessionLog::new(LogSessions::None, Arc::<Counter>::default(), now);
        let rules = Rules {
            name: "front".into(),
            listener: listeners["front"].clone(),
            upstream,
            links,
            upstream_settings: Arc::new(settings.clone()),
            authority: service.into(),
            sessions: Arc::clone(&stats.sessions),
            stats,
            log: Arc::new(log),
        };
        Self {
            tree,
            cell: Arc::new(RulesCell::new(rules)),
        }
    }

    /// A client that sends its script, says that it has ended, and reads to the end; and its session.
    async fn connect(&self, script: &[u8]) -> (impl Future<Output = Vec<u8>> + use<>, Session) {
        // One for each, so that nobody gets another's.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let transport = Transport::accepted_tcp(stream);
        let session = Session::new(transport, Peer::Ip(peer), Arc::clone(&self.cell));
        let script = script.to_vec();
        let talk = async move {
            let mut heard = Vec::new();
            // Whoever is cut off may see it at any of these.
            for piece in script.chunks(script.len().div_ceil(PIECES)) {
                if client.write_all(piece).await.is_err() {
                    return heard;
                }
                tokio::task::yield_now().await;
            }
            if client.shutdown().await.is_ok() {
                let _ = client.read_to_end(&mut heard).await;
            }
            heard
        };
        (talk, session)
    }

    /// What a client hears whose session is served to its end.
    async fn serve(&self, script: &[u8]) -> Vec<u8> {
        let tag = fresh_tag();
        let (talk, session) = self.connect(&replaced(script, TAG, &tag)).await;
        let session = tokio::spawn(session.run());
        let heard = talk.await;
        session.await.unwrap();
        replaced(&heard, &tag, TAG)
    }

    /// Cancels a session after so many polls; whether it had not ended by itself.
    async fn cancel(&self, script: &[u8], polls: usize) -> bool {
        let script = replaced(script, TAG, &fresh_tag());
        let (talk, session) = self.connect(&script).await;
        let talk = tokio::spawn(talk);
        let is_cancelled = {
            let mut left = polls;
            let mut session = pin!(session.run());
            std::future::poll_fn(|context| {
                if left == 0 {
                    return std::task::Poll::Ready(true);
                }
                left -= 1;
                session.as_mut().poll(context).map(|()| false)
            })
            .await
        };
        talk.await.unwrap();
        is_cancelled
    }

    /// Waits until no connection is with a session.
    async fn settled(&self) {
        for _ in 0..4000 {
            let books = self.tree.snapshot(std::time::Instant::now());
            let books = serde_json::to_value(&books).unwrap();
            let at = |path: &str| {
                books
                    .pointer(path)
                    .and_then(serde_json::Value::as_u64)
                    .unwrap()
            };
            let leased = at("/upstreams/service/endpoints/0/leased");
            if leased == 0 && at("/upstreams/service/waiters") == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("something is still with a session that is no more");
    }
}

/// Cancels a session at each of its polls. `held`: what others do meanwhile, each as long as it is served.
async fn at_every_await(service: &str, lines: &str, script: &[u8], held: &[u8]) {
    let expected = Stage::new(service, lines).serve(script).await;
    assert!(!expected.is_empty());
    let mut warm = Stage::new(service, lines);
    let mut is_cancelled = true;
    let mut polls = 0;
    while is_cancelled {
        polls += 1;
        assert!(polls < POLLS_MAX, "it never ends");
        let cold = Stage::new(service, lines);
        for stage in [&cold, &warm] {
            is_cancelled = stage.cancel(script, polls).await;
            stage.settled().await;
            assert_same(&stage.serve(script).await, &expected, polls);
        }
        // While others have what it needs.
        let crowd = async { (warm.serve(held).await, warm.serve(held).await) };
        let (_, crowd) = tokio::join!(warm.cancel(script, polls), crowd);
        assert!(!crowd.0.is_empty() && !crowd.1.is_empty());
        warm.settled().await;
        assert_same(&warm.serve(script).await, &expected, polls);
        if polls % 16 == 0 {
            warm = Stage::new(service, lines);
        }
    }
    assert!(polls > 2, "it was never cancelled");
}

fn fresh_tag() -> String {
    static TAGS: AtomicU32 = AtomicU32::new(1);
    format!("tag{:05}", TAGS.fetch_add(1, Ordering::Relaxed))
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut replaced = bytes.to_vec();
    for place in memchr::memmem::find_iter(bytes, from) {
        replaced[place..place + from.len()].copy_from_slice(to.as_bytes());
    }
    replaced
}

fn assert_same(heard: &[u8], expected: &[u8], polls: usize) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned();
    assert!(
        heard == expected,
        "after {polls} polls: {}\ninstead of {}",
        text(heard),
        text(expected)
    );
}

fn resp(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    bytes.into_bytes()
}

#[tokio::test]
async fn of_redis() {
    let redis = Redis::start(&[]);
    let large = "x".repeat(100_000);
    let script = [
        resp(&["SET", TAG, "1"]),
        resp(&["GET", TAG]),
        resp(&["APPEND", TAG, &large]),
        resp(&["WATCH", TAG]),
        resp(&["MULTI"]),
        resp(&["SET", TAG, "2"]),
        resp(&["EXEC"]),
        resp(&["SELECT", "1"]),
        resp(&["RPUSH", TAG, "x"]),
        resp(&["BLPOP", TAG, "5"]),
        resp(&["NO.SUCH.COMMAND"]),
        resp(&["SUBSCRIBE", "news"]),
        resp(&["UNSUBSCRIBE", "news"]),
        resp(&["QUIT"]),
    ]
    .concat();
    let held = [
        resp(&["WATCH", "b"]),
        resp(&["GET", "b"]),
        resp(&["UNWATCH"]),
    ]
    .concat();
    at_every_await(&redis.endpoint(), "protocol = \"redis\"", &script, &held).await;
}

#[tokio::test]
async fn of_memcached() {
    let memcached = Memcached::start(&[]);
    let large = "x".repeat(100_000);
    let script = format!(
        "set {TAG} 0 0 1\r\n1\r\nget {TAG}\r\nappend {TAG} 0 0 100000\r\n{large}\r\n\
         set {TAG} 0 0 1 noreply\r\n2\r\nget {TAG} none\r\nmg {TAG} v q\r\nmn\r\nquit\r\n"
    );
    let held = format!("set held 0 0 100000\r\n{large}\r\n");
    let address = memcached.address().to_string();
    let lines = "protocol = \"memcached\"";
    at_every_await(&address, lines, script.as_bytes(), held.as_bytes()).await;
}

/// A service that sends each frame of a length of four bytes back.
fn echoing_frames() -> Service {
    Service::start(|mut connection| {
        while let Ok(length) = connection.exactly(4) {
            let bytes = u32::from_be_bytes(length.as_slice().try_into().unwrap());
            let Ok(rest) = connection.exactly(bytes as usize) else {
                return;
            };
            connection.write([length, rest].concat());
        }
    })
}

fn frame(id: u8, count: usize) -> Vec<u8> {
    let length = u32::try_from(count + 4).unwrap().to_be_bytes();
    [&length[..], &[0, 0, 0, id], &vec![id; count]].concat()
}

#[tokio::test]
async fn of_frames_with_ids() {
    let service = echoing_frames();
    let script = [frame(1, 10), frame(2, 100_000), frame(1, 0)].concat();
    let lines = "protocol = \"frames\"\nframes = { length = \"0:4:big\", id = \"4:4\" }";
    at_every_await(service.address(), lines, &script, &frame(3, 200_000)).await;
}

#[tokio::test]
async fn of_frames() {
    let service = echoing_frames();
    let script = [frame(1, 10), frame(2, 100_000), frame(1, 0)].concat();
    let lines = "protocol = \"frames\"\nframes = { length = \"0:4:big\" }";
    at_every_await(service.address(), lines, &script, &frame(3, 200_000)).await;
}

#[tokio::test]
async fn of_http() {
    let service = Service::echoing_targets();
    let script = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n";
    let held = b"GET /c HTTP/1.1\r\nHost: x\r\n\r\n";
    at_every_await(service.address(), "protocol = \"http\"", script, held).await;
}

#[tokio::test]
async fn of_tcp() {
    let service = Service::start(|mut connection| {
        let (asked, _) = connection.until_end();
        connection.write(asked);
    });
    let lines = "protocol = \"tcp\"";
    at_every_await(service.address(), lines, b"hello", b"others").await;
}
