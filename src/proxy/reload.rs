//! A reload: load the configuration again, see what differs, and apply it by name.
//!
//! Listeners that are new are bound before anything is changed, so that a reload which can't be
//! applied leaves everything as it was. What does not differ is not touched.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use tracing::{error, info, warn};

use super::{Parts, Proxy, bind_all, witness};
use crate::config::checked::{Config, Listener};
use crate::config::{self, Changes, Loaded, diff};
use crate::drain::Stage;
use crate::listener::Holder;
use crate::log::LogHandle;
use crate::notify;
use crate::stats::sessions::Command;
use crate::sys::clock;

/// Where a proxy's configuration comes from, and what a reload changes beside the proxy itself.
#[derive(Debug)]
pub struct Origin {
    /// Where to load from.
    pub source: config::Source,
    /// The log, whose level may change.
    pub log: LogHandle,
}

/// What a reload did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What changed, a sentence each.
    pub applied: Vec<String>,
    /// What differs and needs a restart.
    pub needs_restart: Vec<String>,
}

impl Proxy {
    /// Loads the configuration again and applies what can change. On any error the old one runs on,
    /// untouched. Goes on to its end also where the caller goes away.
    pub async fn reload(&self) -> Result<Reloaded, Vec<String>> {
        let proxy = self.clone();
        // Reading a file and resolving names may block.
        let reloading = tokio::task::spawn_blocking(move || {
            // One at a time: the second sees what the first has done.
            let _alone = proxy
                .shared
                .reloading
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let outcome = proxy.reload_and_notify();
            proxy.shared.tree.record_reload(outcome.is_ok());
            match &outcome {
                Ok(done) => {
                    info!(applied = ?done.applied, needs_restart = ?done.needs_restart, "reloaded");
                }
                Err(errors) => error!(?errors, "reload refused; the old configuration runs on"),
            }
            outcome
        });
        reloading
            .await
            .unwrap_or_else(|error| Err(vec![error.to_string()]))
    }

    fn reload_and_notify(&self) -> Result<Reloaded, Vec<String>> {
        if self.shared.stage.read() != Stage::Serving {
            // The service manager was told of the stop, and that is the last word.
            return self.reload_now();
        }
        notify::reloading();
        let outcome = self.reload_now();
        notify::ready(&match &outcome {
            Ok(done) => format!("serving; the last reload changed {}", done.applied.len()),
            Err(errors) => format!(
                "serving; the last reload was refused: {}",
                errors.join("; ")
            ),
        });
        outcome
    }

    fn reload_now(&self) -> Result<Reloaded, Vec<String>> {
        let Some(origin) = &self.shared.origin else {
            return Err(vec![
                "this proxy has no configuration to load again".to_owned(),
            ]);
        };
        if self.shared.stage.read() == Stage::Draining {
            return Err(vec!["millpond is stopping".to_owned()]);
        }
        let Loaded { config, warnings } = config::load(&origin.source, config::environment())
            .map_err(|errors| {
                errors
                    .to_string()
                    .lines()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })?;
        for warning in warnings {
            warn!("{warning}");
        }
        let old = self.parts().config.clone();
        let changes = diff(&old, &config);
        self.apply(&effective(config.clone(), &old), &changes)
            .map_err(|error| vec![error])?;
        if changes.log_level_changed {
            // It was checked with the rest of the configuration.
            origin
                .log
                .set_level(&config.log.level)
                .map_err(|error| vec![error.to_string()])?;
        }
        Ok(Reloaded {
            applied: changes.applied,
            needs_restart: changes.needs_restart,
        })
    }

    fn apply(&self, config: &Config, changes: &Changes) -> Result<(), String> {
        let added = config
            .listeners
            .iter()
            .filter(|(name, _)| changes.listeners.added.contains(name));
        let bound = bind_all(added, BTreeMap::new()).map_err(|error| error.to_string())?;
        let mut parts = self.parts();
        // Under the lock that a drain takes after it has set the stage: no door opens behind it.
        if self.shared.stage.read() == Stage::Draining {
            return Err("millpond is stopping".to_owned());
        }
        let now = clock::now();
        self.shared.log.set_which(config.log.sessions);
        let recorder = &self.shared.tree.recorder;
        recorder.resize(config.ledger.recorder_size);
        for name in &changes.upstreams.added {
            let settings = &config.upstreams[name];
            // One that was removed a moment ago goes on with the slots that are still taken.
            let upstream = match parts.retired.remove(name) {
                Some(retired) if retired.resume(settings, now) => retired,
                _ => self.start_upstream(&mut parts, name, settings),
            };
            parts.upstreams.insert(name.clone(), upstream);
        }
        for name in &changes.upstreams.changed {
            parts.upstreams[name].apply(&config.upstreams[name], now);
        }
        for name in &changes.listeners.removed {
            self.close(&mut parts, name);
        }
        for door in bound {
            self.open(&mut parts, door, config);
        }
        // Rules name their upstream and its settings, so a change of either renews them.
        for (name, door) in &parts.listeners {
            let upstream = &config.listeners[name].upstream;
            if changes.listeners.changed.contains(name)
                || changes.upstreams.changed.contains(upstream)
            {
                door.rules.replace(self.rules(name, &parts, config));
            }
        }
        for name in &changes.upstreams.removed {
            if let Some(upstream) = parts.upstreams.remove(name) {
                upstream.drain();
                parts.retired.insert(name.clone(), Arc::clone(&upstream));
                // Its keeper ends with its last connection.
                self.shared
                    .upstream_tasks
                    .spawn(async move { upstream.closed().await });
            }
        }
        let census_interval = parts.config.ledger.census_interval;
        parts.config = config.clone();
        drop(parts);
        if census_interval != config.ledger.census_interval {
            self.census_interval_changed();
        }
        Ok(())
    }

    /// Stops accepting on a listener; its sessions finish their exchanges and are closed.
    fn close(&self, parts: &mut Parts, name: &str) {
        let Some(door) = parts.listeners.remove(name) else {
            return;
        };
        door.stop.cancel();
        let rules = door.rules.current();
        rules.sessions.command_present(Command::Drain);
        self.shared.tree.unbound(name);
        witness::listens_no_more(&self.shared.tree, &door.address);
        info!(listener = name, "no longer listening");
        if door.holder == Holder::ServiceManager {
            warn!(
                listener = name, address = %door.address,
                "the service manager holds the socket and goes on queueing clients: stop its .socket unit"
            );
        }
    }
}

/// `new` as it takes effect in a process that runs under `old`: what needs a restart stays as it is,
/// and so is named again by the next reload.
fn effective(mut new: Config, old: &Config) -> Config {
    new.workers = old.workers;
    new.admin.clone_from(&old.admin);
    new.ledger.witness = old.ledger.witness;
    new.log.format = old.log.format;
    for (name, upstream) in &mut new.upstreams {
        let old = old.upstreams.get(name).map(|old| &old.protocol);
        if let Some(old) = old.filter(|old| !old.is_same_language(&upstream.protocol)) {
            upstream.protocol = old.clone();
        }
    }
    for (name, listener) in &mut new.listeners {
        let Some(old) = old
            .listeners
            .get(name)
            .filter(|old| old.listen == listener.listen)
        else {
            continue;
        };
        *listener = Listener {
            backlog: old.backlog,
            reuse_port: old.reuse_port,
            ipv6_only: old.ipv6_only,
            unix_mode: old.unix_mode,
            nodelay: old.nodelay,
            keepalive: old.keepalive,
            user_timeout: old.user_timeout,
            ..listener.clone()
        };
    }
    new
}
