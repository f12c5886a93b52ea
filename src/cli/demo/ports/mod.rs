//! The first table: short-lived clients with few ports, in four ways.
//!
//! The small range stands for a host whose ports run out. Linux gives a port in TIME_WAIT on loopback
//! out again after a second, so what runs out here is ports a second; the arithmetic below makes sure
//! that they do, on a slow host as on a fast one.

mod told;

use std::net::SocketAddrV4;
use std::ops::RangeInclusive;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::runtime::Handle;

use super::DemoError;
use super::census::{self, TimeWait};
use super::client::{Failure, short_lived};
use super::crowd::crowd;
use super::dial::{Dial, Target, can_narrow_ports};
use super::mill::Mill;
use super::service::{Behaviour, Service};
use crate::census::settings;
use crate::sys::clock;

/// What the progress bar counts.
pub(super) const STEPS: usize = 4 * CLIENTS;

const CLIENTS: usize = 6_000;
const CLIENTS_A_SECOND: usize = 2_000;
const CLIENTS_AT_ONCE: usize = 64;
const PORTS: u16 = 200;
/// Clients that have not begun by then never begin, and the demo fails.
const CHURN_TIME_MAX: Duration = Duration::from_secs(20);

// The kernel counts that second by a clock of whole seconds, so a churn of n seconds has no more than
// n + 2 times the ports: even the slowest that is let through has fewer than clients.
const _: () = assert!((CHURN_TIME_MAX.as_secs() as usize + 2) * (PORTS as usize) < CLIENTS);

const STRAIGHT: &str = "straight";
const WITH_REUSE: &str = "straight, SO_REUSEADDR and -PORT";
const OVER_TCP: &str = "through millpond, TCP";
const OVER_UNIX: &str = "through millpond, Unix socket";

/// The ports of the clients' sockets.
#[derive(Debug, Clone)]
enum ClientPorts {
    /// The small range.
    Few(RangeInclusive<u16>),
    /// The kernel can't narrow them, so they are all that the host has.
    All(RangeInclusive<u16>),
}

/// What was measured.
pub(super) struct Ports {
    client_ports: ClientPorts,
    /// `net.ipv4.tcp_tw_reuse`
    tw_reuse: u8,
    straight: Row,
    with_reuse: Row,
    over_tcp: Row,
    over_unix: Row,
    /// TIME_WAIT of millpond towards the service of `over_tcp`, once millpond had stopped.
    stopped: usize,
}

/// One way to the service, measured.
struct Row {
    way: &'static str,
    churn: Churn,
    /// TIME_WAIT of the clients, towards whom they dial; `None`: Unix sockets have none.
    clients: Option<usize>,
    /// TIME_WAIT of millpond, on both legs.
    millpond: Option<usize>,
    /// TIME_WAIT of the service.
    service: usize,
    /// Connects that the service saw, by its own count.
    connects: u64,
    /// Whom the clients dialled; `None`: a Unix socket.
    dialled: Option<SocketAddrV4>,
    service_address: SocketAddrV4,
}

/// How the clients fared.
#[derive(Default)]
struct Churn {
    no_port: usize,
    failures: Vec<Failure>,
}

/// Sends the clients each way, to a service and a millpond of that way's own.
pub(super) async fn measure(millpond: &Handle, progress: &ProgressBar) -> Result<Ports, DemoError> {
    let client_ports = ClientPorts::of_this_kernel()?;
    let narrowed = |target| Dial {
        ports: match &client_ports {
            ClientPorts::Few(ports) => Some(ports.clone()),
            ClientPorts::All(_) => None,
        },
        ..Dial::to(target)
    };
    let reusing = |target| Dial {
        reuse: true,
        ..narrowed(target)
    };
    let straight = straight(STRAIGHT, narrowed, progress).await?;
    let with_reuse = self::straight(WITH_REUSE, reusing, progress).await?;
    let pool_of = |service: &Service| Mill::start(millpond, service.address());
    let (over_tcp, stopped) = {
        let service = Service::start(Behaviour::KeepsOpen)?;
        let mill = pool_of(&service).await?;
        let row = pooled(
            OVER_TCP,
            &service,
            &mill,
            narrowed(mill.over_tcp()),
            progress,
        )
        .await?;
        mill.stop().await?;
        (row, time_wait(service.address()).await?.dialling)
    };
    let over_unix = {
        let service = Service::start(Behaviour::KeepsOpen)?;
        let mill = pool_of(&service).await?;
        let row = pooled(
            OVER_UNIX,
            &service,
            &mill,
            Dial::to(mill.over_unix()),
            progress,
        )
        .await?;
        mill.stop().await?;
        row
    };
    Ok(Ports {
        tw_reuse: settings::tw_reuse().map_err(DemoError::Census)?,
        client_ports,
        straight,
        with_reuse,
        over_tcp,
        over_unix,
        stopped,
    })
}

async fn straight(
    way: &'static str,
    dial: impl Fn(Target) -> Dial,
    progress: &ProgressBar,
) -> Result<Row, DemoError> {
    let service = Service::start(Behaviour::KeepsOpen)?;
    let address = service.address();
    let churn = churn(way, dial(Target::Tcp(address)), progress).await?;
    let time_wait = time_wait(address).await?;
    Ok(Row {
        way,
        churn,
        clients: Some(time_wait.dialling),
        millpond: None,
        service: time_wait.listening,
        connects: service.connects(),
        dialled: Some(address),
        service_address: address,
    })
}

async fn pooled(
    way: &'static str,
    service: &Service,
    mill: &Mill,
    dial: Dial,
    progress: &ProgressBar,
) -> Result<Row, DemoError> {
    let dialled = match dial.target {
        Target::Tcp(address) => Some(address),
        Target::Unix(_) => None,
    };
    let churn = churn(way, dial, progress).await?;
    let at_service = time_wait(service.address()).await?;
    let at_millpond = time_wait(mill.tcp).await?;
    Ok(Row {
        way,
        churn,
        clients: dialled.map(|_| at_millpond.dialling),
        millpond: Some(at_millpond.listening + at_service.dialling),
        service: at_service.listening,
        connects: service.connects(),
        dialled,
        service_address: service.address(),
    })
}

/// Each client begins at its time, or as soon after it as there is room for it.
async fn churn(way: &'static str, dial: Dial, progress: &ProgressBar) -> Result<Churn, DemoError> {
    progress.set_message(way);
    let start = clock::now();
    let outcomes = crowd(CLIENTS, CLIENTS_AT_ONCE, |number| {
        let (dial, progress) = (dial.clone(), progress.clone());
        async move {
            let begin = start + Duration::from_secs(1) * number as u32 / CLIENTS_A_SECOND as u32;
            tokio::time::sleep_until(begin.into()).await;
            if start.elapsed() > CHURN_TIME_MAX {
                return None;
            }
            let outcome = short_lived(&dial, number).await;
            progress.inc(1);
            Some(outcome)
        }
    });
    let mut churn = Churn::default();
    for outcome in outcomes.await {
        match outcome {
            None => return Err(DemoError::TooSlow { way }),
            Some(Ok(())) => {}
            Some(Err(Failure::NoPort)) => churn.no_port += 1,
            Some(Err(failure)) => churn.failures.push(failure),
        }
    }
    Ok(churn)
}

async fn time_wait(address: SocketAddrV4) -> Result<TimeWait, DemoError> {
    census::time_wait(address).await.map_err(DemoError::Census)
}

impl ClientPorts {
    /// The last ones of the host's own: a range outside of them would not be taken.
    fn of_this_kernel() -> Result<Self, DemoError> {
        let all = settings::port_range().map_err(DemoError::Census)?;
        let first = all.end().saturating_sub(PORTS - 1);
        let few = first.max(*all.start())..=*all.end();
        match can_narrow_ports(&few).map_err(DemoError::Ports)? {
            true => Ok(Self::Few(few)),
            false => Ok(Self::All(all)),
        }
    }
}

impl Ports {
    fn rows(&self) -> [&Row; 4] {
        [
            &self.straight,
            &self.with_reuse,
            &self.over_tcp,
            &self.over_unix,
        ]
    }

    /// Whether it was what the table is meant to show.
    pub(super) fn judge(self) -> Result<(), DemoError> {
        if matches!(self.client_ports, ClientPorts::Few(_)) && self.straight.churn.no_port == 0 {
            return Err(DemoError::NotShown {
                way: STRAIGHT,
                what: "want of ports",
            });
        }
        let Self {
            straight,
            with_reuse,
            over_tcp,
            over_unix,
            ..
        } = self;
        for row in [straight, with_reuse, over_tcp, over_unix] {
            let count = row.churn.failures.len();
            if let Some(first) = row.churn.failures.into_iter().next() {
                return Err(DemoError::ClientsFailed {
                    way: row.way,
                    count,
                    first,
                });
            }
        }
        Ok(())
    }
}
