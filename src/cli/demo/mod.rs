//! `millpond demo`: the same churn of short-lived clients, straight to a service and through
//! millpond, and what changed.
//!
//! Service, clients and millpond live in this process and talk over loopback. Every figure is
//! measured in this run; the service counts its connects itself, the kernel counts TIME_WAIT. Not
//! here: a benchmark. Three parties share the cores, so speeds compare only with each other.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table is for a person at a terminal"
)]

mod clients;
mod service;
mod sockets;
mod table;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::checked::Address;
use crate::config::checked::Config;
use crate::proxy::{Proxy, StartError};

use clients::{Churn, Failure};
use service::Service;
use sockets::TimeWait;

const CLIENTS: usize = 8_000;
const CLIENTS_AT_ONCE: usize = 48;
const POOL_SIZE: usize = 16;
/// Clients that have not begun by then never begin, and the demo fails.
const CHURN_TIME_MAX: Duration = Duration::from_secs(20);
const LISTENER: &str = "demo";

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("the runtime could not be started: {0}")]
    Runtime(io::Error),
    #[error("the embedded service could not be started: {0}")]
    Service(io::Error),
    #[error("the demo's own configuration was refused: {0}")]
    Config(String),
    #[error("millpond could not be started: {0}")]
    Start(#[from] StartError),
    #[error("millpond has no listener of the name it was given")]
    NoListener,
    #[error("the kernel's table of sockets can't be read: {0}")]
    Sockets(io::Error),
    #[error("only {begun} of {CLIENTS} clients had begun after {} s; this host is too slow or too busy", CHURN_TIME_MAX.as_secs())]
    TooSlow { begun: usize },
    #[error("{count} clients failed; one of them: {first}")]
    ClientsFailed { count: usize, first: Failure },
}

/// One way to the service, measured.
struct Leg {
    churn: Churn,
    /// Connects that the service saw, by its own count.
    connects: u64,
    /// What the service's thread spent, where the kernel tells.
    service_cpu: Option<Duration>,
    /// TIME_WAIT on the service's address, after the churn.
    at_service: TimeWait,
    /// TIME_WAIT on millpond's listener, after the churn.
    at_millpond: Option<TimeWait>,
    /// TIME_WAIT on the service's address, after millpond has stopped.
    at_service_stopped: Option<TimeWait>,
}

/// Runs the demo and prints its table. Exit code 0, or 1 with the reason on stderr.
pub fn run() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().map_err(DemoError::Runtime);
    match runtime.and_then(|runtime| runtime.block_on(demo())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millpond demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<(), DemoError> {
    println!(
        "{CLIENTS} clients, {CLIENTS_AT_ONCE} at a time: each connects, makes one request, checks \
         the answer and ends its connection."
    );
    println!("Twice: straight to an embedded HTTP service, then through a pool of {POOL_SIZE}.\n");
    let straight = straight().await?;
    let pooled = pooled().await?;
    table::print(&straight, &pooled);
    for leg in [straight, pooled] {
        let count = leg.churn.failures.len();
        if let Some(first) = leg.churn.failures.into_iter().next() {
            return Err(DemoError::ClientsFailed { count, first });
        }
    }
    Ok(())
}

async fn straight() -> Result<Leg, DemoError> {
    let service = Service::start().map_err(DemoError::Service)?;
    let churn = churn(service.address(), "straight").await?;
    let at_service = time_wait(service.address()).await?;
    Ok(Leg {
        churn,
        connects: service.connects(),
        service_cpu: service.cpu_time(),
        at_service,
        at_millpond: None,
        at_service_stopped: None,
    })
}

/// The same with a service of its own, so that nothing of the first leg is counted again.
async fn pooled() -> Result<Leg, DemoError> {
    let service = Service::start().map_err(DemoError::Service)?;
    let proxy = Proxy::start(&config(service.address())?, None)?;
    let Some(Address::Ip(listener)) = proxy.listener_address(LISTENER) else {
        return Err(DemoError::NoListener);
    };
    let churn = churn(listener, "through millpond").await?;
    let at_millpond = time_wait(listener).await?;
    let at_service = time_wait(service.address()).await?;
    let service_cpu = service.cpu_time();
    proxy.drain().await;
    let at_service_stopped = time_wait(service.address()).await?;
    Ok(Leg {
        churn,
        connects: service.connects(),
        service_cpu,
        at_service,
        at_millpond: Some(at_millpond),
        at_service_stopped: Some(at_service_stopped),
    })
}

async fn churn(address: SocketAddr, way: &'static str) -> Result<Churn, DemoError> {
    let churn = clients::churn(address, way).await;
    match churn.clients() {
        CLIENTS => Ok(churn),
        begun => Err(DemoError::TooSlow { begun }),
    }
}

async fn time_wait(address: SocketAddr) -> Result<TimeWait, DemoError> {
    sockets::settled(address.port())
        .await
        .map_err(DemoError::Sockets)
}

fn config(service: SocketAddr) -> Result<Config, DemoError> {
    let text = format!(
        "[upstream.{LISTENER}]\nprotocol = \"http\"\nendpoints = [\"{service}\"]\n\
         [upstream.{LISTENER}.pool]\nsize = {POOL_SIZE}\n\
         [listener.{LISTENER}]\nlisten = \"127.0.0.1:0\"\nupstream = \"{LISTENER}\"\n"
    );
    crate::config::parse(&text).map_err(|errors| DemoError::Config(errors.to_string()))
}
