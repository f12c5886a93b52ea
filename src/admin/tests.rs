#![allow(clippy::unwrap_used)]

use std::path::{Path as FilePath, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bind::{BindError, Listening, bind};
use super::*;
use crate::config::checked::{Address, Admin};
use crate::stats::sessions::{Peer, SessionFacts};

/// A proxy that remembers what it was asked.
#[derive(Default)]
struct Fake {
    tree: Tree,
    asked: Mutex<Vec<String>>,
    bad_file: AtomicBool,
}

impl Fake {
    fn note(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }
}

impl Control for Fake {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn readiness(&self) -> Readiness {
        if self.tree.is_draining() {
            Readiness::Draining
        } else if self.bad_file.load(Ordering::Relaxed) {
            Readiness::Starting
        } else {
            Readiness::Ready
        }
    }

    fn drain(&self) {
        self.note("drain");
        self.tree.set_draining();
    }

    fn reload(&self) -> BoxFuture<'_, Result<ReloadReport, Vec<String>>> {
        Box::pin(async {
            self.note("reload");
            if self.bad_file.load(Ordering::Relaxed) {
                return Err(vec!["workers: -1 is no number".to_owned()]);
            }
            Ok(ReloadReport {
                applied: vec!["upstream.app.pool.size: 8, was 4".to_owned()],
                needs_restart: vec!["workers".to_owned()],
            })
        })
    }

    fn census(&self) -> BoxFuture<'_, Result<Arc<CensusSnapshot>, String>> {
        Box::pin(async {
            self.note("census");
            self.tree
                .census
                .last()
                .ok_or_else(|| "the kernel does not list its sockets".to_owned())
        })
    }

    fn flush(&self, name: &str) -> bool {
        self.note(format!("flush {name}"));
        name == "app"
    }
}

/// An admin interface under test.
struct Served {
    fake: Arc<Fake>,
    address: Address,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn serve_at(listen: Address) -> Served {
    let fake = Arc::new(Fake::default());
    fake.tree.listener("web");
    fake.tree.upstream("app");
    let listening = bind(&listen).await.unwrap();
    let address = listening.address().unwrap();
    let stop = CancellationToken::new();
    let settings = Admin {
        listen,
        token: None,
    };
    let control: Arc<dyn Control> = Arc::clone(&fake) as _;
    let task = tokio::spawn(server::serve(listening, settings, control, stop.clone()));
    Served {
        fake,
        address,
        stop,
        task,
    }
}

async fn serve() -> Served {
    serve_at(Address::Ip("127.0.0.1:0".parse().unwrap())).await
}

impl Served {
    async fn ask(&self, head: &str) -> Answer {
        self.ask_with_body(head, "").await
    }

    async fn ask_with_body(&self, head: &str, body: &str) -> Answer {
        match &self.address {
            Address::Ip(address) => {
                ask(TcpStream::connect(address).await.unwrap(), head, body).await
            }
            Address::Unix(path) => ask(UnixStream::connect(path).await.unwrap(), head, body).await,
            Address::Name(..) => unreachable!("tests listen at addresses"),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n"))
            .await
    }

    async fn post(&self, path: &str) -> Answer {
        self.ask(&format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n"))
            .await
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// A whole answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert!(
            self.head.contains("content-type: application/json"),
            "{self:?}"
        );
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Sends a head that lacks its last line, and a body, and reads to the end.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, head: &str, body: &str) -> Answer {
    let request = format!("{head}Connection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn each_path_answers() {
    let served = serve().await;
    let facts = Arc::new(SessionFacts::new(Peer::Unix, "web".into(), clock::now()));
    let _session = served.fake.tree.listener("web").sessions.enter(facts);
    let health = served.get("/healthz").await;
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    let page = served.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/html"), "{page:?}");
    assert!(page.body.contains("<td>web</td>"), "{page:?}");
    let snapshot = served.get("/api/v1/snapshot").await.json();
    assert_eq!(snapshot["upstreams"]["app"]["lent"], 0);
    let sessions = served.get("/api/v1/sessions").await.json();
    assert_eq!(sessions["open"], 1);
    assert_eq!(sessions["listeners"]["web"][0]["client"], "unix");
    let none = served.get("/api/v1/sessions?limit=0").await.json();
    assert_eq!(none["open"], 1);
    assert_eq!(none["listeners"]["web"].as_array().unwrap().len(), 0);
    let bad = served.get("/api/v1/sessions?limit=many").await;
    assert_eq!(bad.status, 400);
    assert!(bad.json()["error"].as_str().unwrap().contains("limit"));
    served.end().await;
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let served = serve().await;
    let plain = served.get("/metrics").await;
    assert!(
        plain
            .head
            .contains("content-type: text/plain; version=0.0.4"),
        "{}",
        plain.head
    );
    assert!(
        plain
            .body
            .contains("\n# TYPE millpond_sessions_total counter\n")
    );
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3\r\n";
    let head = format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{accept}");
    let open = served.ask(&head).await;
    assert!(
        open.head
            .contains("content-type: application/openmetrics-text"),
        "{}",
        open.head
    );
    assert!(open.body.ends_with("# EOF\n"));
    served.end().await;
}

#[test]
fn openmetrics_is_for_those_who_want_it() {
    for (accept, wanted) in [
        ("", false),
        ("*/*", false),
        ("text/plain", false),
        ("application/openmetrics-text", true),
        (
            "application/openmetrics-text; version=1.0.0, text/plain;q=0.5",
            true,
        ),
        ("application/openmetrics-text; version=0.0.1", false),
        ("application/openmetrics-text;q=0", false),
        (
            "application/openmetrics-text;q=0.1, text/plain;version=0.0.4;q=0.9",
            false,
        ),
    ] {
        assert_eq!(prefers_openmetrics(accept), wanted, "{accept}");
    }
}

#[tokio::test]
async fn readiness_is_what_the_proxy_says() {
    let served = serve().await;
    assert_eq!(served.get("/readyz").await.status, 200);
    served.fake.bad_file.store(true, Ordering::Relaxed);
    assert_eq!(served.get("/readyz").await.status, 503);
    let drain = served.post("/api/v1/drain").await;
    assert_eq!(
        (drain.status, drain.json()["draining"].as_bool()),
        (202, Some(true))
    );
    let answer = served.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"], "not ready: draining");
    assert_eq!(served.get("/healthz").await.status, 200);
    served.end().await;
}

#[tokio::test]
async fn commands_reach_the_proxy() {
    let served = serve().await;
    let report = served.post("/api/v1/reload").await;
    assert_eq!(report.status, 200);
    assert_eq!(report.json()["needs_restart"][0], "workers");
    served.fake.bad_file.store(true, Ordering::Relaxed);
    let refused = served.post("/api/v1/reload").await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json()["errors"][0], "workers: -1 is no number");
    assert_eq!(served.post("/api/v1/upstream/app/flush").await.status, 200);
    let unknown = served.post("/api/v1/upstream/nope/flush").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.json()["error"].is_string());
    let asked = served.fake.asked.lock().unwrap().clone();
    assert_eq!(asked, ["reload", "reload", "flush app", "flush nope"]);
    served.end().await;
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let served = serve().await;
    let missing = served.get("/api/v2/snapshot").await;
    assert_eq!(missing.status, 404);
    assert!(missing.json()["error"].is_string());
    for wrong in [
        served.get("/api/v1/drain").await,
        served.get("/api/v1/upstream/app/flush").await,
    ] {
        assert_eq!(wrong.status, 405);
        assert!(wrong.head.contains("allow: POST"), "{wrong:?}");
        assert!(wrong.json()["error"].is_string());
    }
    let wrong = served.post("/metrics").await;
    assert_eq!(wrong.status, 405);
    served.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_is_bounded_in_size_and_time() {
    let served = serve().await;
    let post = |length: usize| {
        let head = "POST /api/v1/drain HTTP/1.1\r\nHost: localhost\r\n";
        format!("{head}Content-Length: {length}\r\n")
    };
    let late = served.ask(&post(1)).await;
    assert_eq!(late.status, 408);
    assert!(late.json()["error"].is_string());
    let long = "x".repeat(BODY_BYTES_MAX + 1);
    let head = post(long.len());
    let refused = served.ask_with_body(&head, &long).await;
    assert_eq!(refused.status, 413);
    assert!(refused.json()["error"].is_string());
    assert_eq!(served.fake.asked.lock().unwrap().len(), 0);
    served.end().await;
}

#[tokio::test]
async fn strangers_get_health_and_metrics_only() {
    let served = serve().await;
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/", 403),
        ("/api/v1/snapshot", 403),
        ("/api/v1/sessions", 403),
    ] {
        for marked in [
            "Host: localhost\r\nX-Forwarded-For: 192.0.2.1",
            "Host: rebound.example",
        ] {
            let answer = served
                .ask(&format!("GET {path} HTTP/1.1\r\n{marked}\r\n"))
                .await;
            assert_eq!(answer.status, status, "{path} {marked}");
        }
    }
    for path in [
        "/api/v1/drain",
        "/api/v1/reload",
        "/api/v1/upstream/app/flush",
    ] {
        let page = "Host: localhost\r\nOrigin: http://evil.example";
        let answer = served
            .ask(&format!("POST {path} HTTP/1.1\r\n{page}\r\n"))
            .await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.json()["error"].is_string());
    }
    assert_eq!(served.fake.asked.lock().unwrap().len(), 0);
    served.end().await;
}

/// A directory of the test's own, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millpond-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("admin.sock")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn mode(path: &FilePath) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_and_goes_with_the_server() {
    let directory = Directory::new("admin-unix");
    let path = directory.file();
    let served = serve_at(Address::Unix(path.clone())).await;
    assert_eq!(mode(&path), 0o600);
    let strange = "GET /api/v1/snapshot HTTP/1.1\r\nHost: anything\r\n";
    assert_eq!(served.ask(strange).await.status, 200);
    assert_eq!(served.post("/api/v1/drain").await.status, 202);
    let taken = bind(&Address::Unix(path.clone())).await;
    assert!(matches!(taken, Err(BindError::InUse { .. })), "{taken:?}");
    served.end().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_another_file_is_not() {
    let directory = Directory::new("admin-stale");
    let path = directory.file();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the standard library leaves the file behind");
    let listening = bind(&Address::Unix(path.clone())).await.unwrap();
    assert!(matches!(listening, Listening::Unix(..)));
    // A successor's file is not taken away by the listener before it.
    std::fs::remove_file(&path).unwrap();
    let successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(listening);
    assert!(path.exists());
    drop(successor);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    let refused = bind(&Address::Unix(path.clone())).await;
    assert!(
        matches!(refused, Err(BindError::NotASocket { .. })),
        "{refused:?}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn connections_over_the_limit_wait_and_are_counted() {
    let served = serve().await;
    let Address::Ip(address) = served.address else {
        unreachable!("it listens over TCP")
    };
    let mut held = Vec::new();
    for _ in 0..server::CONNECTIONS_MAX {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    while served.fake.tree.process.admin_limit_reached.read() == 0 {
        tokio::task::yield_now().await;
    }
    let waiting = served.get("/healthz");
    let freeing = async {
        drop(held.pop());
    };
    let (answer, ()) = tokio::join!(waiting, freeing);
    assert_eq!(answer.status, 200);
    drop(held);
    served.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_ends_the_connection() {
    let served = serve().await;
    let Address::Ip(address) = served.address else {
        unreachable!("it listens over TCP")
    };
    let whole = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // Nothing, half a head, and a whole exchange with nothing after it.
    for sent in ["", "GET /healthz HT", whole] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let limit = server::HEAD_TIMEOUT + Duration::from_secs(1);
        let mut answer = Vec::new();
        let read = timeout(limit, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{sent:?} is still open");
    }
    served.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let served = serve().await;
    let Address::Ip(address) = served.address else {
        unreachable!("it listens over TCP")
    };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    served.end().await;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
}
