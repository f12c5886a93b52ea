//! Which listener gets which socket from the service manager.
//!
//! By name first: a `FileDescriptorName=` that is a listener's. Else by address: the socket is bound to
//! just what a listener's `listen` says. Not here: how a process comes by the sockets (see
//! `sys::inherit`).
//!
//! Invariant: no socket is left open that nobody accepts on; its clients would wait for ever.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use socket2::SockRef;

use super::bind::set_session_options;
use super::listening_at;
use crate::config::checked::{Address, Listener};
use crate::sys::inherit::Inherited;

/// Why an inherited socket can't be used. The operator's to mend, in the `.socket` unit or in the
/// configuration; trying again is no use.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// No listener wants it.
    #[error("inherited socket \"{name}\" at {address}: no listener has this name or this address")]
    Unclaimed {
        /// Its name.
        name: String,
        /// Where it is bound.
        address: Address,
    },
    /// A listener has only one socket.
    #[error("inherited socket \"{name}\" at {address}: listener.{listener} has another already")]
    Claimed {
        /// Its name.
        name: String,
        /// Where it is bound.
        address: Address,
        /// The listener.
        listener: String,
    },
    /// It is of another kind, or the kernel refused an option.
    #[error("inherited socket \"{name}\": {error}")]
    Unusable {
        /// Its name.
        name: String,
        /// Why.
        error: io::Error,
    },
}

/// Gives every inherited socket to a listener and sets the options that its sessions inherit. Its
/// accept queue's length stays what the service manager made it.
pub fn claim(
    inherited: Vec<Inherited>,
    listeners: &BTreeMap<String, Listener>,
) -> Result<BTreeMap<String, OwnedFd>, InheritError> {
    let mut claimed = BTreeMap::new();
    // Names go before addresses also where the socket with the right address comes first.
    let (named, unnamed) = inherited
        .into_iter()
        .partition::<Vec<_>, _>(|it| listeners.contains_key(&it.name));
    for Inherited { name, descriptor } in named.into_iter().chain(unnamed) {
        let socket = SockRef::from(&descriptor);
        let unusable = |error| InheritError::Unusable {
            name: name.clone(),
            error,
        };
        let address = listening_at(&socket).map_err(unusable)?;
        let found = listeners
            .get_key_value(&name)
            .or_else(|| listeners.iter().find(|(_, it)| it.listen == address));
        let Some((listener, settings)) = found else {
            return Err(InheritError::Unclaimed { name, address });
        };
        if claimed.contains_key(listener) {
            let listener = listener.clone();
            return Err(InheritError::Claimed {
                name,
                address,
                listener,
            });
        }
        if let Address::Ip(_) = address {
            set_session_options(&socket, settings).map_err(unusable)?;
        }
        claimed.insert(listener.clone(), descriptor);
    }
    Ok(claimed)
}
