//! The proxy as the admin interface sees it.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Proxy;
use crate::admin::{Control, Readiness, ReloadReport};
use crate::stats::census::CensusSnapshot;
use crate::stats::tree::Tree;

impl Control for Proxy {
    fn tree(&self) -> &Tree {
        &self.shared.tree
    }

    fn readiness(&self) -> Readiness {
        // Every listener is bound before there is a Proxy to ask.
        if self.shared.tree.is_draining() {
            Readiness::Draining
        } else {
            Readiness::Ready
        }
    }

    fn drain(&self) {
        self.ask_stop();
    }

    fn reload(&self) -> BoxFuture<'_, Result<ReloadReport, Vec<String>>> {
        async {
            let done = Self::reload(self).await?;
            Ok(ReloadReport {
                applied: done.applied,
                needs_restart: done.needs_restart,
            })
        }
        .boxed()
    }

    fn census(&self) -> BoxFuture<'_, Result<Arc<CensusSnapshot>, String>> {
        self.take_census().boxed()
    }

    fn flush(&self, name: &str) -> bool {
        let upstream = self.parts().upstreams.get(name).cloned();
        upstream.is_some_and(|upstream| {
            upstream.flush();
            true
        })
    }
}
