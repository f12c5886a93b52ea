//! A millpond in front of one service, listening on TCP and on a Unix socket.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::runtime::Handle;

use super::DemoError;
use super::dial::Target;
use super::service::HOST;
use crate::config::checked::{Address, Config};
use crate::drain::Drained;
use crate::proxy::Proxy;

/// Connections to the service, at most.
pub(super) const POOL_SIZE: usize = 16;

const OVER_TCP: &str = "tcp";
const OVER_UNIX: &str = "unix";

/// A running millpond. The Unix socket's directory goes with it.
pub(super) struct Mill {
    pub(super) proxy: Proxy,
    pub(super) config: Config,
    pub(super) tcp: SocketAddrV4,
    pub(super) unix: PathBuf,
    runtime: Handle,
    _directory: TempDir,
}

impl Mill {
    /// Starts on a runtime of millpond's own.
    pub(super) async fn start(runtime: &Handle, service: SocketAddrV4) -> Result<Self, DemoError> {
        let directory = tempfile::Builder::new()
            .prefix("millpond-demo-")
            .tempdir()
            .map_err(DemoError::Directory)?;
        let unix = directory.path().join("millpond.sock");
        let config = config(service, &Address::Unix(unix.clone()))?;
        let proxy = {
            let _on_it = runtime.enter();
            Proxy::start(&config, None)?
        };
        let Some(Address::Ip(SocketAddr::V4(tcp))) = proxy.listener_address(OVER_TCP) else {
            return Err(DemoError::NotBound);
        };
        Ok(Self {
            proxy,
            config,
            tcp,
            unix,
            runtime: runtime.clone(),
            _directory: directory,
        })
    }

    pub(super) fn over_tcp(&self) -> Target {
        Target::Tcp(self.tcp)
    }

    pub(super) fn over_unix(&self) -> Target {
        Target::Unix(self.unix.clone())
    }

    /// Drains it, which closes its pool.
    pub(super) async fn stop(self) -> Result<(), DemoError> {
        let proxy = self.proxy.clone();
        let draining = self.runtime.spawn(async move { proxy.drain().await });
        match draining.await {
            Ok(Drained::Complete) => Ok(()),
            Ok(Drained::CutOff { .. }) | Err(_) => Err(DemoError::CutOff),
        }
    }
}

fn config(service: SocketAddrV4, unix: &Address) -> Result<Config, DemoError> {
    let unix = unix.to_string();
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n\
         [upstream.service]\nprotocol = \"http\"\nendpoints = [\"{service}\"]\n\
         [upstream.service.pool]\nsize = {POOL_SIZE}\n\
         [listener.{OVER_TCP}]\nlisten = \"{HOST}:0\"\nupstream = \"service\"\n\
         [listener.{OVER_UNIX}]\nlisten = {unix:?}\nupstream = \"service\"\n"
    );
    crate::config::parse(&text).map_err(|errors| DemoError::Config(errors.to_string()))
}
