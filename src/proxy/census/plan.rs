//! What a census is to count: the legs of the proxy as it runs now, and the routes to its endpoints.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::census::count::Leg;
use crate::census::forecast::TimeWaitPorts;
use crate::census::leaks::OpenEntry;
use crate::census::ports::{Ports, Route};
use crate::census::settings;
use crate::close::Side;
use crate::config::checked::{self, Address};
use crate::pool::source::{Picker, SourcePorts};
use crate::proxy::Proxy;
use crate::stats::census::PortsOf;
use crate::stats::counter::Reasons;
use crate::stats::reason::Leak;
use crate::stats::tree::{ListenerStats, UpstreamStats};

/// A name that takes longer is counted where it was last.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(2);

pub(super) struct Plan {
    pub(super) legs: Vec<PlannedLeg>,
    pub(super) routes: Vec<PlannedRoute>,
}

/// A listener or an upstream.
pub(super) struct PlannedLeg {
    pub(super) name: String,
    pub(super) leg: Leg,
    stats: LegStats,
}

enum LegStats {
    Listener(Arc<ListenerStats>),
    Upstream(Arc<UpstreamStats>),
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
    settings: checked::Upstream,
    stats: Arc<UpstreamStats>,
    sources: Vec<(Arc<str>, Vec<Arc<SourcePorts>>)>,
}

impl PlannedLeg {
    pub(super) fn side(&self) -> Side {
        self.leg.side
    }

    pub(super) fn leaks(&self) -> &Reasons<Leak> {
        match &self.stats {
            LegStats::Listener(stats) => &stats.leaks,
            LegStats::Upstream(stats) => &stats.leaks,
        }
    }

    /// What the ledger holds open.
    pub(super) fn roll(&self) -> Vec<OpenEntry> {
        match &self.stats {
            LegStats::Listener(stats) => stats.ledger.call_roll(),
            LegStats::Upstream(stats) => stats.ledger.call_roll(),
        }
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
            for endpoint in &upstream.settings.endpoints {
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
                stats: LegStats::Upstream(upstream.stats),
            });
        }
        *resolved = names;
        legs.retain(|it| !it.leg.addresses.is_empty());
        Self { legs, routes }
    }
}

/// The listeners, and the upstreams.
fn running(proxy: &Proxy) -> (Vec<PlannedLeg>, Vec<Running>) {
    let tree = &proxy.shared.tree;
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
        stats: LegStats::Listener(tree.listener(name)),
    });
    let upstreams = parts.upstreams.iter().map(|(name, upstream)| Running {
        name: name.clone(),
        settings: parts.config.upstreams[name].clone(),
        stats: tree.upstream(name),
        sources: upstream.source_ports(),
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
    reserved: Vec<std::ops::RangeInclusive<u16>>,
    tw_reuse: u8,
}

impl HostSettings {
    fn read() -> Self {
        let reserved = settings::reserved_ports().unwrap_or_default();
        Self {
            ports: settings::port_range()
                .ok()
                .map(|range| Ports::new(range, &reserved)),
            reserved,
            tw_reuse: settings::tw_reuse().unwrap_or(0),
        }
    }

    fn waiting_towards(&self, to: IpAddr) -> TimeWaitPorts {
        match self.tw_reuse {
            1 => TimeWaitPorts::Reused,
            2 if to.is_loopback() => TimeWaitPorts::Reused,
            _ => TimeWaitPorts::Held,
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
        let sources = sources.map_or(&[][..], |(_, sources)| sources);
        if sources.is_empty() {
            let (Some(ports), Ok(from)) = (&host.ports, address_towards(to)) else {
                return;
            };
            routes.push(PlannedRoute {
                whose: whose("auto".to_owned()),
                route: Route {
                    from,
                    to: Some(to),
                    ports: ports.clone(),
                },
                waiting: host.waiting_towards(to.ip()),
                source: None,
            });
        }
        for source in sources {
            let from = source.address().ip;
            if from.is_ipv4() != to.is_ipv4() {
                continue;
            }
            let is_bound = source.picker() == Picker::Millpond;
            let reserved = if is_bound { &[][..] } else { &host.reserved };
            let waiting = match self.settings.reuse_time_wait {
                true => TimeWaitPorts::Reused,
                false if is_bound => TimeWaitPorts::Held,
                false => host.waiting_towards(to.ip()),
            };
            routes.push(PlannedRoute {
                whose: whose(source.address().to_string()),
                route: Route {
                    from,
                    to: (!is_bound || self.settings.reuse_time_wait).then_some(to),
                    ports: Ports::new(source.range().clone(), reserved),
                },
                waiting,
                source: Some(Arc::clone(source)),
            });
        }
    }
}

/// The address that the kernel would dial from. Nothing is sent.
fn address_towards(to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}
