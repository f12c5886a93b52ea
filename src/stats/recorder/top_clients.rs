//! The clients with the most records, in bounded memory.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements in
//! Data Streams, 2005): who comes when the list is full takes the place of the one with the least, and
//! its count, which is then an upper bound. Whoever has more than one in [`CLIENTS_HELD`] of all records
//! is on the list.

use std::net::IpAddr;

use serde::Serialize;

use crate::close::Manner;
use crate::stats::ledger::{Ending, Reset};
use crate::stats::sessions::Peer;

/// Clients held, at most.
pub const CLIENTS_HELD: usize = 256;

/// The clients with the most records.
#[derive(Debug, Default)]
pub(super) struct TopClients {
    clients: Vec<Client>,
}

/// A client host; those on Unix sockets have no address and count as one.
#[derive(Debug, Clone, Copy)]
struct Client {
    address: Option<IpAddr>,
    records: u64,
    /// Of `records`, those that may have been another's.
    inherited: u64,
    received: u64,
    sent: u64,
    truncated: u64,
    lost_bytes: u64,
}

/// One client host, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientRow {
    /// Its address, or `unix`.
    pub client: String,
    /// Records of it, at most.
    pub records: u64,
    /// How many fewer it may be: the list is bounded, and who comes late inherits a count.
    pub records_too_many_max: u64,
    /// RSTs received from it, since it is on the list.
    pub resets_received: u64,
    /// RSTs sent to it, since it is on the list.
    pub resets_sent: u64,
    /// Messages cut short, since it is on the list.
    pub truncated: u64,
    /// Bytes lost with its connections, since it is on the list.
    pub lost_bytes: u64,
}

impl TopClients {
    pub(super) fn note(&mut self, peer: Peer, ending: &Ending) {
        let address = match peer {
            Peer::Ip(address) => Some(address.ip().to_canonical()),
            Peer::Unix => None,
        };
        let client = self.place(address);
        client.records += 1;
        match ending.reset.map(|seen| seen.reset) {
            Some(Reset::Received) => client.received += 1,
            Some(Reset::Sent(_)) => client.sent += 1,
            None => {}
        }
        client.truncated += u64::from(ending.termination.manner == Manner::Truncated);
        client.lost_bytes += ending.account.lost_bytes();
    }

    fn place(&mut self, address: Option<IpAddr>) -> &mut Client {
        let known = self.clients.iter().position(|it| it.address == address);
        let place = known.unwrap_or_else(|| {
            let fresh = |inherited| Client {
                address,
                records: inherited,
                inherited,
                received: 0,
                sent: 0,
                truncated: 0,
                lost_bytes: 0,
            };
            if self.clients.len() < CLIENTS_HELD {
                self.clients.push(fresh(0));
                return self.clients.len() - 1;
            }
            let places = self.clients.iter().enumerate();
            let (least, records) = places
                .map(|(place, client)| (place, client.records))
                .min_by_key(|&(_, records)| records)
                .expect("a full list is not empty");
            self.clients[least] = fresh(records);
            least
        });
        &mut self.clients[place]
    }

    /// The first `limit`, the one with the most first.
    pub(super) fn list(&self, limit: usize) -> Vec<ClientRow> {
        let mut clients: Vec<&Client> = self.clients.iter().collect();
        clients.sort_by_key(|it| std::cmp::Reverse((it.records - it.inherited, it.records)));
        clients.into_iter().take(limit).map(row).collect()
    }
}

fn row(client: &Client) -> ClientRow {
    let address = client.address.map(|address| address.to_string());
    ClientRow {
        client: address.unwrap_or_else(|| Peer::Unix.to_string()),
        records: client.records,
        records_too_many_max: client.inherited,
        resets_received: client.received,
        resets_sent: client.sent,
        truncated: client.truncated,
        lost_bytes: client.lost_bytes,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::close::{Initiator, Phase};

    fn peer(number: u32) -> Peer {
        Peer::Ip(SocketAddr::new(Ipv4Addr::from(number).into(), 80))
    }

    #[test]
    fn who_has_most_stays_on_a_bounded_list() {
        let mut top = TopClients::default();
        let ending = Ending::clean(Initiator::Downstream, Phase::Request, Manner::Truncated);
        for number in 0..20_000 {
            top.note(peer(1000 + number), &ending);
            if number % 50 == 0 {
                top.note(peer(1), &ending);
            }
        }
        assert_eq!(top.clients.len(), CLIENTS_HELD);
        let listed = top.list(3);
        assert_eq!(listed.len(), 3);
        assert_eq!(listed[0].client, "0.0.0.1");
        let bounds = listed[0].records - listed[0].records_too_many_max..=listed[0].records;
        assert!(bounds.contains(&400), "{bounds:?}");
    }

    #[test]
    fn ports_of_one_host_count_together_and_a_mapped_address_is_its_ipv4() {
        let mut top = TopClients::default();
        let ending = Ending::clean(Initiator::Downstream, Phase::Request, Manner::Truncated);
        for address in ["10.0.0.1:1", "10.0.0.1:2", "[::ffff:10.0.0.1]:3"] {
            top.note(Peer::Ip(address.parse().unwrap()), &ending);
        }
        top.note(Peer::Unix, &ending);
        let listed = top.list(10);
        let told: Vec<_> = listed.iter().map(|it| (&*it.client, it.records)).collect();
        assert_eq!(told, [("10.0.0.1", 3), ("unix", 1)]);
    }
}
