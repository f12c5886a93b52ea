//! What a census is to count: the legs of the proxy as it runs now, and the routes to its endpoints.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::census::count::Leg;
use crate::census::forecast::TimeWaitPorts;
use crate::census::ports::{Picker, Ports, Route};
use crate::census::settings;
use crate::close::Side;
use crate::config::checked::{Address, Endpoint};
use crate::pool::source::{SourcePorts, Sources};
use crate::proxy::Proxy;
use crate::stats::census::PortsOf;
use crate::stats::tree::Books;
use crate::sys::socket::address_towards;

/// A name that takes longer is counted where it was last.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(2);

pub(super) struct Plan {
    pub(super) legs: Vec<PlannedLeg>,
    pub(super) routes: Vec<PlannedRoute>,
    /// Every ledger of the process, those of removed names included: they may have open connections.
    pub(super) books: Vec<Books>,
}

/// A listener or an upstream.
pub(super) struct PlannedLeg {
    pub(super) name: String,
    pub(super) leg: Leg,
}

/// A source address towards an address of an endpoint.
pub(super) struct PlannedRoute {
    pub(super) whose: PortsOf,
    pub(super) route: Route,
    pub(super) waiting: TimeWaitPorts,
    /// Who wants to know how many of its ports are taken.
    pub(super) source: Option<Arc<SourcePorts>>,
}

/// An upstream as it runs now.
struct Running {
    name: String,
    endpoints: Vec<Endpoint>,
    sources: Vec<(Arc<str>, Arc<Sources>)>,
}

impl PlannedLeg {
    pub(super) fn side(&self) -> Side {
        self.leg.side
    }
}

impl Plan {
    /// The plan for what runs now. Names are resolved, or stand for what they did last.
    pub(super) async fn of(
        proxy: &Proxy,
        resolved: &mut HashMap<(String, u16), Vec<SocketAddr>>,
    ) -> Self {
        let (mut legs, upstreams) = running(proxy);
        let host = HostSettings::read();
        let mut routes = Vec::new();
        let mut names = HashMap::new();
        for upstream in upstreams {
            let mut addresses = Vec::new();
            for endpoint in &upstream.endpoints {
                let found = match &endpoint.address {
                    Address::Ip(address) => vec![*address],
                    Address::Unix(_) => continue,
                    Address::Name(name, port) => {
                        let key = (name.clone(), *port);
                        let found = resolve(&key, resolved.get(&key)).await;
                        names.insert(key, found.clone());
                        found
                    }
                };
                for &address in &found {
                    upstream.add_routes(&endpoint.address, address, &host, &mut routes);
                }
                addresses.extend(found);
            }
            legs.push(PlannedLeg {
                name: upstream.name,
                leg: Leg {
                    side: Side::Upstream,
                    addresses,
                },
            });
        }
        *resolved = names;
        legs.retain(|it| !it.leg.addresses.is_empty());
        Self {
            legs,
            routes,
            books: proxy.shared.tree.books(),
        }
    }
}

/// The listeners, and the upstreams.
fn running(proxy: &Proxy) -> (Vec<PlannedLeg>, Vec<Running>) {
    let parts = proxy.parts();
    let listeners = parts.listeners.iter().map(|(name, door)| PlannedLeg {
        name: name.clone(),
        leg: Leg {
            side: Side::Downstream,
            addresses: match &door.address {
                Address::Ip(address) => vec![*address],
                Address::Name(..) | Address::Unix(_) => Vec::new(),
            },
        },
    });
    let upstreams = parts.upstreams.iter().map(|(name, upstream)| Running {
        name: name.clone(),
        endpoints: parts.config.upstreams[name].endpoints.clone(),
        sources: upstream.sources(),
    });
    (listeners.collect(), upstreams.collect())
}

async fn resolve((name, port): &(String, u16), known: Option<&Vec<SocketAddr>>) -> Vec<SocketAddr> {
    match timeout(RESOLVE_TIME_MAX, lookup_host((name.as_str(), *port))).await {
        Ok(Ok(found)) => {
            let mut found: Vec<_> = found.collect();
            found.sort();
            found.dedup();
            found
        }
        _ => known.cloned().unwrap_or_default(),
    }
}

/// What of this host's settings says which ports there are; nothing where they can't be read.
struct HostSettings {
    ports: Option<Ports>,
    tw_reuse: u8,
}

impl HostSettings {
    fn read() -> Self {
        Self {
            ports: settings::ports().ok(),
            tw_reuse: settings::tw_reuse().unwrap_or(0),
        }
    }
}

impl Running {
    /// One for each source that fits; without sources the one that the kernel would choose.
    fn add_routes(
        &self,
        endpoint: &Address,
        to: SocketAddr,
        host: &HostSettings,
        routes: &mut Vec<PlannedRoute>,
    ) {
        let endpoint = endpoint.to_string();
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let whose = |source: String| PortsOf {
            upstream: self.name.clone(),
            endpoint: endpoint.clone(),
            source,
        };
        let sources = self.sources.iter().find(|(label, _)| **label == *endpoint);
        let Some((_, sources)) = sources else { return };
        if sources.all().is_empty() {
            let (Some(ports), Ok(from)) = (&host.ports, address_towards(to)) else {
                return;
            };
            routes.push(PlannedRoute {
                whose: whose("auto".to_owned()),
                route: Route {
                    from: Some(from),
                    to: Some(to),
                    ports: ports.clone(),
                    picker: Picker::Kernel,
                },
                waiting: TimeWaitPorts::between(host.tw_reuse, from, to.ip()),
                source: None,
            });
        }
        for source in sources.all() {
            let from = source.address().ip;
            if from.is_ipv4() != to.is_ipv4() {
                continue;
            }
            let waiting = match (sources.reuse_time_wait(), source.picker()) {
                (true, _) => TimeWaitPorts::Reused,
                (false, Picker::Millpond) => TimeWaitPorts::Held,
                (false, Picker::Kernel) => TimeWaitPorts::between(host.tw_reuse, from, to.ip()),
            };
            routes.push(PlannedRoute {
                whose: whose(source.address().to_string()),
                route: sources.route(source, to),
                waiting,
                source: Some(Arc::clone(source)),
            });
        }
    }
}
