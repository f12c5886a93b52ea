//! The embedded service: HTTP over axum, on a thread of its own, as in another process.
//!
//! It counts the connects that it sees; what millpond says of itself is not asked.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::stats::counter::Counter;

/// The running service; dropping it ends its thread.
pub(super) struct Service {
    address: SocketAddr,
    connects: Arc<Counter>,
    /// The kernel's account of its thread: proc_pid_schedstat, nanoseconds on a CPU first.
    schedstat: Option<PathBuf>,
    stop: Option<DropGuard>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread tells once it listens.
struct Started {
    address: SocketAddr,
    schedstat: Option<PathBuf>,
}

impl Service {
    /// Listens on a free port of 127.0.0.1.
    pub(super) fn start() -> io::Result<Self> {
        let connects = Arc::new(Counter::default());
        let stop = CancellationToken::new();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("demo-service".to_owned())
            .spawn({
                let (connects, stop) = (Arc::clone(&connects), stop.clone());
                move || serve(&tell, connects, &stop)
            })?;
        // The thread tells what became of it before it serves, or drops the sender.
        let started = told
            .recv()
            .map_err(|_| io::Error::other("its thread ended"))??;
        Ok(Self {
            address: started.address,
            connects,
            schedstat: started.schedstat,
            stop: Some(stop.drop_guard()),
            thread: Some(thread),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub(super) fn connects(&self) -> u64 {
        self.connects.read()
    }

    /// CPU time of the service's thread so far; `None` where the kernel keeps no account.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        let account = fs::read_to_string(self.schedstat.as_ref()?).ok()?;
        let nanoseconds = account.split_whitespace().next()?.parse().ok()?;
        Some(Duration::from_nanos(nanoseconds)).filter(|time| !time.is_zero())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was printed by its thread; here is nothing left to do about it.
            let _ = thread.join();
        }
    }
}

/// The thread: listens, tells where or why not, and serves until it is stopped.
fn serve(tell: &Sender<io::Result<Started>>, connects: Arc<Counter>, stop: &CancellationToken) {
    let served = listen().map(|(runtime, listener, started)| {
        let _ = tell.send(Ok(started)); // nobody receives only if `start` was unwound
        let listener = listener.tap_io(move |stream| {
            connects.increment();
            let _ = stream.set_nodelay(true); // without it answers are late, not wrong
        });
        let router = Router::new().route("/client/{number}", get(answer));
        runtime.block_on(async {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = axum::serve(listener, router) => {}
            }
        });
    });
    if let Err(error) = served {
        let _ = tell.send(Err(error));
    }
}

fn listen() -> io::Result<(Runtime, TcpListener, Started)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let started = Started {
        address: listener.local_addr()?,
        schedstat: fs::read_link("/proc/thread-self")
            .ok()
            .map(|task| PathBuf::from("/proc").join(task).join("schedstat")),
    };
    Ok((runtime, listener, started))
}

async fn answer(Path(number): Path<usize>) -> String {
    answer_to(number)
}

/// The one right answer to client `number`: nobody else's is like it.
pub(super) fn answer_to(number: usize) -> String {
    format!("This is the answer to client {number} and to nobody else.\n")
}
