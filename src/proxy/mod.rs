//! The proxy: all parts built from a configuration, changed while running, and stopped in order.
//!
//! Not here: signals and exit codes (see `cli`), and what any part does (see its folder).
//!
//! Invariant: a reload is applied as a whole or not at all, and what it does not name goes on
//! untouched.

mod census;
mod control;
mod reload;
mod stop;
mod witness;

pub use reload::{Origin, Reloaded};

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::config::checked::{self, Address, Config};
use crate::drain::StageCell;
use crate::listener::accept::Accepting;
use crate::listener::{BindError, Holder, InheritError, Listener, bind, claim};
use crate::log::SessionLog;
use crate::session::{Rules, RulesCell, SharedLinks};
use crate::stats::tree::{PoolHoldings, Tree};
use crate::sys::clock;
use crate::sys::inherit::Inherited;
use crate::upstream::Upstream;

/// A running proxy.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
}

/// Why a proxy could not be started, or a listener not be added.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket from the service manager can't be used.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// A listener could not be bound.
    #[error("listener.{name}: {error}")]
    Bind {
        /// The listener.
        name: String,
        /// Why.
        error: BindError,
    },
    /// The runtime did not take a bound socket.
    #[error("listener.{name}: {error}")]
    Register {
        /// The listener.
        name: String,
        /// Why.
        error: std::io::Error,
    },
}

struct Shared {
    tree: Arc<Tree>,
    parts: Mutex<Parts>,
    stage: StageCell,
    /// Wakes whoever waits for a command to stop.
    stop_asked: Notify,
    /// Accept loops.
    accepting: TaskTracker,
    /// Sessions.
    sessions: TaskTracker,
    /// Keepers, connects and closing upstream connections.
    upstream_tasks: TaskTracker,
    log: Arc<SessionLog>,
    /// Where a reload loads from; a proxy that was started by a program has nothing to reload.
    origin: Option<Origin>,
    census: census::Census,
    /// Held by the reload under way.
    reloading: Mutex<()>,
}

/// What a reload changes.
struct Parts {
    config: Config,
    upstreams: BTreeMap<String, Arc<Upstream>>,
    /// The shared connections of each that was ever started, with the upstream that has them.
    links: BTreeMap<String, SharedLinks>,
    /// Removed by a reload, and perhaps still closing connections.
    retired: BTreeMap<String, Arc<Upstream>>,
    listeners: BTreeMap<String, Door>,
}

/// A listener that runs.
struct Door {
    rules: Arc<RulesCell>,
    address: Address,
    holder: Holder,
    stop: CancellationToken,
}

/// A listener that is bound and does not accept yet.
struct BoundDoor {
    name: String,
    listener: Listener,
}

impl Proxy {
    /// Binds every listener, then starts all parts. Must be called on the runtime. Fails with
    /// nothing started.
    pub fn start(config: &Config, origin: Option<Origin>) -> Result<Self, StartError> {
        Self::start_on(Vec::new(), config, origin)
    }

    /// The same, with sockets from the service manager for listeners. Fails if one is for none.
    pub fn start_on(
        inherited: Vec<Inherited>,
        config: &Config,
        origin: Option<Origin>,
    ) -> Result<Self, StartError> {
        let claimed = claim(inherited, &config.listeners)?;
        let bound = bind_all(config.listeners.iter(), claimed)?;
        let tree = Arc::<Tree>::default();
        tree.recorder.resize(config.ledger.recorder_size);
        if config.ledger.witness {
            witness::start(&tree);
        }
        let suppressed = Arc::clone(&tree.process.session_lines_suppressed);
        let log = Arc::new(SessionLog::new(
            config.log.sessions,
            suppressed,
            clock::now(),
        ));
        let proxy = Self {
            shared: Arc::new(Shared {
                tree,
                parts: Mutex::new(Parts {
                    config: config.clone(),
                    upstreams: BTreeMap::new(),
                    links: BTreeMap::new(),
                    retired: BTreeMap::new(),
                    listeners: BTreeMap::new(),
                }),
                stage: StageCell::default(),
                stop_asked: Notify::new(),
                accepting: TaskTracker::new(),
                sessions: TaskTracker::new(),
                upstream_tasks: TaskTracker::new(),
                log,
                origin,
                census: census::Census::default(),
                reloading: Mutex::default(),
            }),
        };
        let mut parts = proxy.parts();
        for (name, settings) in &config.upstreams {
            let upstream = proxy.start_upstream(&mut parts, name, settings);
            parts.upstreams.insert(name.clone(), upstream);
        }
        for door in bound {
            proxy.open(&mut parts, door, config);
        }
        drop(parts);
        tokio::spawn(census::repeat(Arc::downgrade(&proxy.shared)));
        Ok(proxy)
    }

    /// Where the listener `name` is bound.
    pub fn listener_address(&self, name: &str) -> Option<Address> {
        self.parts()
            .listeners
            .get(name)
            .map(|door| door.address.clone())
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.shared
            .parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn start_upstream(
        &self,
        parts: &mut Parts,
        name: &str,
        settings: &checked::Upstream,
    ) -> Arc<Upstream> {
        let stats = self.shared.tree.upstream(name);
        let tasks = &self.shared.upstream_tasks;
        let upstream = Upstream::start(name, settings, stats, tasks);
        let links = SharedLinks::new(&upstream, settings, tasks);
        parts.links.insert(name.to_owned(), links);
        let holdings = Arc::downgrade(&upstream) as Weak<dyn PoolHoldings>;
        self.shared.tree.watch_pool(name, holdings);
        upstream
    }

    /// Starts to accept on a bound listener.
    fn open(&self, parts: &mut Parts, door: BoundDoor, config: &Config) {
        let BoundDoor { name, listener } = door;
        let (address, holder) = (listener.address().clone(), listener.holder());
        let rules = Arc::new(RulesCell::new(self.rules(&name, parts, config)));
        let stop = CancellationToken::new();
        self.shared.tree.bound(&name, address.to_string());
        witness::listens(&self.shared.tree, &address);
        match holder {
            Holder::Process => info!(listener = name, %address, "listening"),
            Holder::ServiceManager => info!(listener = name, %address, "listening, inherited"),
        }
        let accepting = Accepting {
            listener,
            rules: Arc::clone(&rules),
            sessions: self.shared.sessions.clone(),
            stop: stop.clone(),
        };
        self.shared.accepting.spawn(accepting.run());
        parts.listeners.insert(
            name,
            Door {
                rules,
                address,
                holder,
                stop,
            },
        );
    }

    fn rules(&self, name: &str, parts: &Parts, config: &Config) -> Rules {
        let listener = config.listeners[name].clone();
        let upstream = Arc::clone(&parts.upstreams[&listener.upstream]);
        let upstream_settings = Arc::new(config.upstreams[&listener.upstream].clone());
        let authority = match upstream_settings.endpoints.first().map(|it| &it.address) {
            Some(Address::Unix(_)) | None => "localhost".into(),
            Some(address) => address.to_string().into(),
        };
        let branch = self.shared.tree.listener(name);
        Rules {
            name: name.into(),
            listener,
            upstream,
            links: parts.links[&config.listeners[name].upstream].clone(),
            upstream_settings,
            authority,
            sessions: Arc::clone(&branch.sessions),
            stats: branch,
            log: Arc::clone(&self.shared.log),
        }
    }
}

/// Binds listeners, but for those that claimed a socket; with the first that fails, those before it
/// are closed again.
fn bind_all<'a>(
    listeners: impl Iterator<Item = (&'a String, &'a checked::Listener)>,
    mut claimed: BTreeMap<String, OwnedFd>,
) -> Result<Vec<BoundDoor>, StartError> {
    listeners
        .map(|(name, settings)| {
            let (descriptor, holder) = match claimed.remove(name) {
                Some(descriptor) => (descriptor, Holder::ServiceManager),
                None => {
                    let bound = bind(settings).map_err(|error| StartError::Bind {
                        name: name.clone(),
                        error,
                    })?;
                    (bound, Holder::Process)
                }
            };
            let listener = Listener::from_descriptor(descriptor, holder).map_err(|error| {
                StartError::Register {
                    name: name.clone(),
                    error,
                }
            })?;
            Ok(BoundDoor {
                name: name.clone(),
                listener,
            })
        })
        .collect()
}
