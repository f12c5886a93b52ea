//! A scripted service: each connection runs a script that behaves, or misbehaves, on purpose.
//!
//! A script owns its [`Connection`]; it reads requests and writes whatever bytes it wants, and ends
//! the connection by FIN (drop), by RST ([`Connection::reset`]) or by half.

use std::net::{Shutdown, SocketAddr, TcpListener};
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::message::{Message, Wire};
use super::socket::{End, Socket};
use super::wait;

/// A listening service. Dropping it ends every connection, and fails the test when a script failed.
pub struct Service {
    address: String,
    tally: Arc<Tally>,
    acceptor: Option<JoinHandle<()>>,
    listener: socket2::Socket,
}

/// What a service saw.
#[derive(Default)]
pub struct Tally {
    accepted: AtomicU64,
    ended: AtomicU64,
    open_max: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
    sockets: Mutex<Vec<(u64, Socket)>>,
}

/// One connection of a service.
pub struct Connection {
    /// How many came before it.
    pub number: u64,
    /// Where it comes from, also when it was reset before anybody looked; `unix` over a Unix socket.
    pub from: String,
    wire: Wire,
    tally: Arc<Tally>,
}

impl Service {
    /// Listens on a free port of 127.0.0.1.
    pub fn start(script: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0", script)
    }

    /// Listens on `address`.
    pub fn start_on(address: &str, script: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address)
            .unwrap_or_else(|error| panic!("listen on {address}: {error}"));
        let bound = listener.local_addr().unwrap().to_string();
        let closer = listener.try_clone().unwrap().into();
        let accept = move || {
            let (stream, from) = listener.accept()?;
            Ok((Socket::tcp(stream), from.to_string()))
        };
        Self::run(bound, closer, accept, script)
    }

    /// Listens on a Unix socket.
    pub fn start_unix(path: &Path, script: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let closer = OwnedFd::from(listener.try_clone().unwrap()).into();
        let accept = move || {
            let (stream, _) = listener.accept()?;
            Ok((Socket::unix(stream), "unix".to_owned()))
        };
        Self::run(format!("unix:{}", path.display()), closer, accept, script)
    }

    /// A service that answers each request with the body that `reply` makes.
    pub fn replying(reply: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(move |mut connection| {
            while let Some(request) = connection.request() {
                connection.reply(reply(&request));
            }
        })
    }

    /// A service that answers each request with its target.
    pub fn echoing_targets() -> Self {
        Self::replying(|request| request.head.target().as_bytes().to_vec())
    }

    fn run(
        address: String,
        listener: socket2::Socket,
        accept: impl Fn() -> std::io::Result<(Socket, String)> + Send + 'static,
        script: impl Fn(Connection) + Send + Sync + 'static,
    ) -> Self {
        let tally = Arc::new(Tally::default());
        let (counts, script) = (Arc::clone(&tally), Arc::new(script));
        let acceptor = std::thread::spawn(move || {
            while let Ok((socket, from)) = accept() {
                let connection = Connection::accepted(socket, from, &counts);
                let script = Arc::clone(&script);
                let counts = Arc::clone(&counts);
                std::thread::spawn(move || {
                    let script = AssertUnwindSafe(|| script(connection));
                    if std::panic::catch_unwind(script).is_err() {
                        counts.failed.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Self {
            address,
            tally,
            acceptor: Some(acceptor),
            listener,
        }
    }

    /// Where it listens, as a configuration says it.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn socket_address(&self) -> SocketAddr {
        self.address.parse().expect("a TCP service")
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.tally.accepted.load(Ordering::SeqCst)
    }

    /// Connections whose script has not ended.
    pub fn open(&self) -> u64 {
        self.accepted() - self.tally.ended.load(Ordering::SeqCst)
    }

    /// The most that were open at once.
    pub fn open_max(&self) -> u64 {
        self.tally.open_max.load(Ordering::SeqCst)
    }

    /// Whole requests read so far.
    pub fn requests(&self) -> u64 {
        self.tally.requests.load(Ordering::SeqCst)
    }

    /// Waits until that many connections were accepted.
    pub fn wait_accepted(&self, count: u64) {
        wait::until(&format!("{count} connections"), || {
            (self.accepted() >= count).then_some(())
        });
    }

    /// Waits until that many requests were read.
    pub fn wait_requests(&self, count: u64) {
        wait::until(&format!("{count} requests"), || {
            (self.requests() >= count).then_some(())
        });
    }

    /// Refuses connections from now on; those that are open stay.
    pub fn refuse(&self) {
        self.listener.shutdown(Shutdown::Both).unwrap();
    }

    /// Ends one random open connection; says whether there was one.
    pub fn kill_one(&self, random: &mut fastrand::Rng) -> bool {
        let sockets = self.tally.sockets.lock().unwrap();
        let Some((_, socket)) = random.choice(sockets.iter()) else {
            return false;
        };
        socket.shut_down();
        true
    }
}

/// Where nobody listens. Its port stays taken, so that nobody else comes to.
pub struct Nobody {
    address: String,
    _port: socket2::Socket,
}

impl Nobody {
    pub fn new() -> Self {
        let port =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        port.bind(&any.into()).unwrap();
        let address = port.local_addr().unwrap().as_socket().unwrap();
        Self {
            address: address.to_string(),
            _port: port,
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let failed = self.tally.failed.load(Ordering::SeqCst);
        // A listener that is shut down refuses, and its accept returns.
        let _ = self.listener.shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for (_, socket) in self.tally.sockets.lock().unwrap().drain(..) {
            socket.shut_down();
        }
        assert!(
            failed == 0 || std::thread::panicking(),
            "{failed} scripts of the service failed"
        );
    }
}

impl Connection {
    fn accepted(socket: Socket, from: String, tally: &Arc<Tally>) -> Self {
        let number = tally.accepted.fetch_add(1, Ordering::SeqCst);
        let open = number + 1 - tally.ended.load(Ordering::SeqCst);
        tally.open_max.fetch_max(open, Ordering::SeqCst);
        // A service's connection may be idle for as long as the pool likes.
        socket.set_patience(Duration::from_secs(600));
        tally
            .sockets
            .lock()
            .unwrap()
            .push((number, socket.duplicate()));
        Self {
            number,
            from,
            wire: Wire::new(socket),
            tally: Arc::clone(tally),
        }
    }

    /// The next whole request; `None` when the connection ended.
    pub fn request(&mut self) -> Option<Message> {
        let request = self.wire.request().ok()?;
        self.count_request();
        Some(request)
    }

    /// Says that a request was read, for scripts that read it piece by piece.
    pub fn count_request(&self) {
        self.tally.requests.fetch_add(1, Ordering::SeqCst);
    }

    /// Answers 200 with a length.
    pub fn reply(&mut self, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        self.write([head.as_bytes(), body].concat());
    }

    /// Reads one request and answers it; says whether there was one.
    pub fn answer(&mut self, body: impl AsRef<[u8]>) -> bool {
        let came = self.request().is_some();
        if came {
            self.reply(body);
        }
        came
    }

    /// Writes bytes to a peer that may be gone; says whether it was there.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.send(bytes).is_ok()
    }

    /// Writes at most `cap` bytes at a time, with `pause` between.
    pub fn write_slowly(&mut self, bytes: &[u8], cap: usize, pause: Duration) -> bool {
        bytes.chunks(cap).all(|piece| {
            wait::pace(pause);
            self.write(piece)
        })
    }

    /// Sends a FIN and goes on reading.
    pub fn half_close(&self) {
        self.wire.socket.half_close();
    }

    /// Reads until the peer's end, and says what it was.
    pub fn wait_for_end(&mut self) -> End {
        self.wire.until_end().1
    }

    /// Ends the connection by RST.
    pub fn reset(self) {
        let socket = self.wire.socket.duplicate();
        self.forget();
        socket.reset();
    }

    /// The other descriptor of the socket must go before the one that resets it.
    fn forget(self) {
        drop(self);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tally
            .sockets
            .lock()
            .unwrap()
            .retain(|(number, _)| *number != self.number);
        self.tally.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Deref for Connection {
    type Target = Wire;
    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}
