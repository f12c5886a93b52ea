//! An embedded HTTP service, on a thread of its own, as in another process.
//!
//! It counts the connects that it sees; what millpond says of itself is not asked.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::DemoError;
use super::client::answer_to;
use super::closer::{self, Close};
use crate::stats::counter::Counter;

/// Where services and millponds listen. The loopback is all of 127.0.0.0/8, and its clients' own address
/// is 127.0.0.1: so no other socket is taken for one of these because of its port.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What the thread of a service is called.
pub(super) const SERVICE_THREAD: &str = "demo-service";

/// What becomes of a connection after an answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Behaviour {
    /// It waits for the next request; the client ends it.
    KeepsOpen,
    /// The service ends it, in that manner.
    ClosesFirst(Close),
}

/// The running service; dropping it ends its thread.
pub(super) struct Service {
    address: SocketAddrV4,
    connects: Arc<Counter>,
    stop: Option<DropGuard>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Listens on a free port.
    pub(super) fn start(behaviour: Behaviour) -> Result<Self, DemoError> {
        Self::start_thread(behaviour).map_err(DemoError::Service)
    }

    fn start_thread(behaviour: Behaviour) -> io::Result<Self> {
        let connects = Arc::new(Counter::default());
        let stop = CancellationToken::new();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(SERVICE_THREAD.to_owned())
            .spawn({
                let (connects, stop) = (Arc::clone(&connects), stop.clone());
                move || serve(behaviour, &tell, connects, &stop)
            })?;
        // The thread tells what became of it before it serves, or drops the sender.
        let address = told
            .recv()
            .map_err(|_| io::Error::other("its thread ended"))??;
        Ok(Self {
            address,
            connects,
            stop: Some(stop.drop_guard()),
            thread: Some(thread),
        })
    }

    pub(super) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Connections accepted so far.
    pub(super) fn connects(&self) -> u64 {
        self.connects.read()
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
fn serve(
    behaviour: Behaviour,
    tell: &Sender<io::Result<SocketAddrV4>>,
    connects: Arc<Counter>,
    stop: &CancellationToken,
) {
    let served = listen().map(|(runtime, listener, address)| {
        let _ = tell.send(Ok(address)); // nobody receives only if `start` was unwound
        runtime.block_on(async {
            let serving = async {
                match behaviour {
                    Behaviour::KeepsOpen => keep_open(listener, connects).await,
                    Behaviour::ClosesFirst(close) => {
                        closer::serve(listener, &connects, close).await;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = serving => {}
            }
        });
    });
    if let Err(error) = served {
        let _ = tell.send(Err(error));
    }
}

fn listen() -> io::Result<(Runtime, TcpListener, SocketAddrV4)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = runtime.block_on(TcpListener::bind((HOST, 0)))?;
    let address = SocketAddrV4::new(HOST, listener.local_addr()?.port());
    Ok((runtime, listener, address))
}

async fn keep_open(listener: TcpListener, connects: Arc<Counter>) {
    let listener = listener.tap_io(move |stream| {
        connects.increment();
        let _ = stream.set_nodelay(true); // without it answers are late, not wrong
    });
    let router = Router::new().route("/client/{number}", get(answer));
    let _ = axum::serve(listener, router).await; // it ends only with its thread
}

async fn answer(Path(number): Path<usize>) -> String {
    answer_to(number)
}
