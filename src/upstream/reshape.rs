//! What an upstream looks like at present, and how a reload changes it while it runs.
//!
//! Endpoints are known by their address: what keeps its address keeps its connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::core::{EndpointRules, GroupRules};
use super::health::Backoff;
use super::shortage::{Shortage, Told, host_ports};
use super::{Actions, SharingRules, Upstream};
use crate::close::linger::First;
use crate::config::checked::{self, Address, CloseFirst, Protocol};
use crate::pool::EndpointId;
use crate::pool::connect::{self, Failed};
use crate::pool::core::Limits;
use crate::pool::dial::Options;
use crate::pool::source::{HostPorts, Sources};
use crate::stats::ledger::{Ledger, Watch};
use crate::stats::reason::DiscardReason;
use crate::stats::sessions::Peer;
use crate::transport::Transport;

/// A service that has announced its end has said FIN by then, or does not mean it.
const ANNOUNCED_END_PATIENCE: Duration = Duration::from_secs(1);

/// The settings in force, and the endpoints with their names in the core.
#[derive(Debug)]
pub(super) struct Shape {
    settings: checked::Upstream,
    /// Every endpoint that was ever configured; those removed may still have connections.
    endpoints: Vec<Named>,
}

#[derive(Debug)]
struct Named {
    id: EndpointId,
    address: Address,
    label: Arc<str>,
    sources: Arc<Sources>,
    shortage: Shortage,
}

/// All that a connect needs.
#[derive(Debug)]
pub(super) struct Dialling {
    address: Address,
    pub(super) label: Arc<str>,
    options: Options,
    connect_timeout: Duration,
    pub(super) max_lifetime: Option<Duration>,
    /// The service may speak first.
    pub(super) may_greet: bool,
}

impl Dialling {
    pub(super) async fn connect(
        &self,
        ledger: &Ledger,
        watch: &mut Watch,
        now: Instant,
    ) -> Result<Transport, Failed> {
        let deadline = now + self.connect_timeout;
        connect::connect(&self.address, &self.options, ledger, watch, deadline).await
    }

    pub(super) fn sources(&self) -> Arc<Sources> {
        Arc::clone(&self.options.sources)
    }

    pub(super) fn is_ip(&self) -> bool {
        !matches!(self.address, Address::Unix(_))
    }

    /// Whom it dials; of a name that is known only once it is resolved.
    pub(super) fn service(&self) -> Option<Peer> {
        match self.address {
            Address::Ip(address) => Some(Peer::Ip(address)),
            Address::Name(..) => None,
            Address::Unix(_) => Some(Peer::Unix),
        }
    }
}

impl Shape {
    pub(super) fn new(settings: &checked::Upstream) -> Self {
        Self {
            settings: settings.clone(),
            endpoints: Vec::new(),
        }
    }

    pub(super) fn group_rules(&self) -> GroupRules {
        let pool = &self.settings.pool;
        GroupRules {
            wait_timeout: pool.wait_timeout,
            wait_queue: pool.wait_queue,
            backoff: Backoff {
                min: pool.backoff_min,
                max: pool.backoff_max,
            },
        }
    }

    pub(super) fn speaks(&self, protocol: &Protocol) -> bool {
        self.settings.protocol.label() == protocol.label()
    }

    pub(super) fn linger_time(&self) -> Duration {
        self.settings.linger_time
    }

    /// Who says FIN first on a connection that is open and discarded for `reason`.
    pub(super) fn first_to_end(&self, reason: DiscardReason) -> First {
        let is_announced = reason == DiscardReason::ServiceClose;
        match self.settings.close_first {
            CloseFirst::Auto | CloseFirst::Peer if is_announced => First::Peer {
                patience: ANNOUNCED_END_PATIENCE,
            },
            CloseFirst::Auto | CloseFirst::Peer | CloseFirst::Millpond => First::Us,
        }
    }

    pub(super) fn dialling(&self, id: EndpointId) -> Option<Dialling> {
        let endpoint = self.endpoints.iter().find(|it| it.id == id)?;
        Some(Dialling {
            address: endpoint.address.clone(),
            label: Arc::clone(&endpoint.label),
            options: Options {
                keepalive: self.settings.keepalive,
                user_timeout: self.settings.user_timeout,
                sources: Arc::clone(&endpoint.sources),
            },
            connect_timeout: self.settings.pool.connect_timeout,
            max_lifetime: self.settings.pool.max_lifetime,
            may_greet: matches!(self.settings.protocol, Protocol::Tcp(_)),
        })
    }

    pub(super) fn label(&self, id: EndpointId) -> String {
        let endpoint = self.endpoints.iter().find(|it| it.id == id);
        endpoint.map_or_else(String::new, |it| it.label.to_string())
    }

    /// Has every endpoint dialled from the sources in force. What is known of their ports is kept where
    /// nothing of it has changed; whether something has.
    pub(super) fn set_sources(&mut self, host: &HostPorts) -> bool {
        let mut is_changed = false;
        let (addresses, reuse) = (&self.settings.source, self.settings.reuse_time_wait);
        for endpoint in &mut self.endpoints {
            if !endpoint.sources.is_of(addresses, reuse, host) {
                endpoint.sources = Arc::new(Sources::new(addresses, reuse, host.clone()));
                is_changed = true;
            }
        }
        is_changed
    }

    pub(super) fn sources(&self, id: EndpointId) -> Option<(Arc<str>, Arc<Sources>)> {
        let endpoint = self.endpoints.iter().find(|it| it.id == id)?;
        Some((Arc::clone(&endpoint.label), Arc::clone(&endpoint.sources)))
    }

    pub(super) fn shortage(&mut self, id: EndpointId) -> Option<&mut Shortage> {
        let endpoint = self.endpoints.iter_mut().find(|it| it.id == id);
        endpoint.map(|it| &mut it.shortage)
    }

    pub(super) fn end_shortage(&mut self, id: EndpointId) {
        if let Some(shortage) = self.shortage(id) {
            shortage.ended();
        }
    }

    pub(super) fn shortage_text(&self, id: EndpointId) -> Option<String> {
        let endpoint = self.endpoints.iter().find(|it| it.id == id)?;
        endpoint.shortage.text()
    }

    /// A connect lacked a port, or an address: what is to be told of it, if it is time to.
    pub(super) fn told(
        &mut self,
        id: EndpointId,
        sources: Arc<Sources>,
        failed: Failed,
        now: Instant,
    ) -> Option<Told> {
        let endpoint = self.endpoints.iter_mut().find(|it| it.id == id)?;
        let count = endpoint.shortage.failed(now)?;
        Some(Told {
            endpoint: id,
            label: Arc::clone(&endpoint.label),
            sources,
            failed,
            count,
        })
    }

    /// The name of the endpoint with this address, given if it is new.
    fn name(&mut self, address: &Address) -> EndpointId {
        if let Some(known) = self.endpoints.iter().find(|it| it.address == *address) {
            return known.id;
        }
        let id = EndpointId(u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX));
        let label = address.to_string().into();
        self.endpoints.push(Named {
            id,
            address: address.clone(),
            label,
            sources: Arc::default(),
            shortage: Shortage::default(),
        });
        id
    }
}

impl Upstream {
    /// Takes over settings: limits at once, endpoints by address. What is surplus is retired, idle
    /// connections now and leased ones at their boundary; and so is everything where the boundaries
    /// are known by other rules from now on.
    pub fn apply(&self, settings: &checked::Upstream, now: Instant) {
        let host = host_ports();
        let mut actions = Actions::new();
        let mut guard = self.lock();
        let state = &mut *guard;
        let is_other_protocol = state.shape.settings.protocol != settings.protocol;
        if is_other_protocol {
            state.flushed_at = Some(now);
            state.core.flush(DiscardReason::Flushed, now, &mut actions);
        }
        state.shape.settings = settings.clone();
        state.core.set_rules(state.shape.group_rules());
        let pool = &settings.pool;
        let limits = Limits {
            size: pool.size,
            min_idle: pool.min_idle,
            idle_timeout: pool.idle_timeout,
            learn_idle_timeout: settings.learn_idle_timeout,
            max_exchanges: pool.max_exchanges,
            connect_parallel: pool.connect_parallel,
        };
        let mut named = Vec::new();
        for endpoint in &settings.endpoints {
            let id = state.shape.name(&endpoint.address);
            let rules = EndpointRules {
                weight: endpoint.weight,
                limits,
            };
            state.core.set_endpoint(id, rules, now, &mut actions);
            named.push(id);
        }
        let known: Vec<_> = state.core.books().map(|(id, ..)| id).collect();
        for id in known.into_iter().filter(|id| !named.contains(id)) {
            state.core.remove_endpoint(id, now, &mut actions);
        }
        let is_news = state.shape.set_sources(&host);
        drop(guard);
        if let Some(sharer) = self.sharer() {
            sharer.apply(&SharingRules::of(settings), &named);
            if is_other_protocol {
                sharer.flush();
            }
        }
        if is_news {
            let (range, keeps) = (host.given_out.range(), host.keeps_to_ranges);
            for warning in checked::source_warnings(&self.name, settings, range, keeps) {
                warn!("{warning}");
            }
        }
        self.keeper.notify_one();
        self.perform(actions);
    }
}
