//! The kernel as witness, as the proxy starts and stops it: a help that is gone without where it can't
//! be had.

use std::sync::Arc;

use tracing::{info, warn};

use crate::config::checked::Address;
use crate::stats::tree::Tree;
use crate::witness::Witness;

/// Starts it, or says once why not.
pub(super) fn start(tree: &Tree) {
    match Witness::start(Arc::clone(&tree.recorder) as _) {
        Ok(witness) => {
            tree.set_witness(Arc::new(witness));
            info!("the kernel's account of resets is read");
        }
        Err(error) => warn!(%error, "ledger.witness: running without it"),
    }
}

/// Tells it where a listener is bound.
pub(super) fn listens(tree: &Tree, address: &Address) {
    if let (Some(witness), Address::Ip(address)) = (tree.witness(), address) {
        witness.listens(*address);
    }
}

/// Tells it where a listener is bound no more.
pub(super) fn listens_no_more(tree: &Tree, address: &Address) {
    if let (Some(witness), Address::Ip(address)) = (tree.witness(), address) {
        witness.listens_no_more(*address);
    }
}

/// Stops it, which waits for the kernel.
pub(super) async fn stop(tree: &Tree) {
    if let Some(witness) = tree.witness().cloned() {
        // A runtime that takes no more tasks ends the process anyway.
        let _ = tokio::task::spawn_blocking(move || witness.stop()).await;
    }
}
