//! Accepts on the admin interface's socket and serves each connection, within limits.
//!
//! A caller can hold one of a bounded number of connections, for a bounded time, and must send its
//! head within another. What comes beyond the number waits in the kernel's queue.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::Control;
use super::access::{Access, Caller};
use super::bind::Listening;
use crate::config::checked::Admin;

/// Connections, at most.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// From the start of a connection, or of the wait for its next request, to a complete head.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// A head, at most, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// After this, a connection is closed at its next boundary.
const LIFETIME: Duration = Duration::from_secs(120);
/// After that, or once the server stops, this is left for the answer under way.
pub const LAST_ANSWER: Duration = Duration::from_secs(5);
/// Between two tries after the kernel had no descriptor for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves the admin interface until `stop`, and then until the answers under way are out.
pub async fn serve(
    listening: Listening,
    settings: Admin,
    control: Arc<dyn Control>,
    stop: CancellationToken,
) {
    if let Ok(address) = listening.address() {
        info!(%address, "admin listening");
    }
    let access = Access::new(settings.token, &settings.listen);
    let router = super::router(Arc::clone(&control), access);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let slot = slot(&slots, &*control).await;
            (slot, accept(&listening).await)
        };
        let Some((slot, accepted)) = stop.run_until_cancelled(next).await else {
            break;
        };
        match accepted {
            Ok((stream, caller)) => {
                let router = router.clone().layer(Extension(caller));
                connections.spawn(connection(stream, router, slot, stop.clone()));
            }
            Err(error) => {
                warn!(%error, "the admin interface could not accept");
                let _ = stop.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
    drop(listening);
    connections.close();
    connections.wait().await;
}

async fn slot(slots: &Arc<Semaphore>, control: &dyn Control) -> OwnedSemaphorePermit {
    if slots.available_permits() == 0 {
        control.tree().process.admin_limit_reached.increment();
    }
    let slot = Arc::clone(slots).acquire_owned().await;
    slot.expect("nobody closes the semaphore")
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn accept(listening: &Listening) -> io::Result<(Stream, Caller)> {
    match listening {
        Listening::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            Ok((Stream::Tcp(stream), Caller::Ip(address.ip())))
        }
        Listening::Unix(listener, _) => {
            let (stream, _) = listener.accept().await?;
            Ok((Stream::Unix(stream), Caller::Unix))
        }
    }
}

async fn connection(
    stream: Stream,
    router: Router,
    slot: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    match stream {
        Stream::Tcp(stream) => exchange(stream, router, stop).await,
        Stream::Unix(stream) => exchange(stream, router, stop).await,
    }
    drop(slot);
}

async fn exchange<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => Ok(ended),
        () = stop.cancelled() => Err(()),
        () = sleep(LIFETIME) => Err(()),
    };
    let ended = match ended {
        Ok(ended) => Ok(ended),
        Err(()) => {
            serving.as_mut().graceful_shutdown();
            timeout(LAST_ANSWER, serving).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "an admin connection ended early"),
        Err(_) => debug!("an admin connection was cut off"),
    }
}
