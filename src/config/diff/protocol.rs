//! What the sections of one protocol say, so that two configurations can be compared.
//!
//! Invariant: every upstream has all of these entries; they say something for one that speaks the protocol.

use super::super::checked::{Frames, Memcached, Probe, Protocol, Redis, Reuse, Tcp};
use super::super::value::{bytes_text, time_text};
use super::super::wire::{length_text, mark_text, octets_text, probe_text};
use super::{Entry, listed, or_unset};
use crate::protocol::frames::{Framing, Layout};

/// The entries of every protocol.
pub(super) fn entries(protocol: &Protocol) -> impl Iterator<Item = Entry> {
    let tcp = tcp_entries(protocol).into_iter();
    let frames = frames_entries(protocol).into_iter();
    tcp.chain(frames).chain(cache_entries(protocol))
}

fn tcp_entries(protocol: &Protocol) -> Vec<Entry> {
    let (reuse, probe, timeout, quiet) = match protocol {
        Protocol::Tcp(Tcp { reuse, quiet }) => {
            let (reuse, probe) = match reuse {
                Reuse::Never => ("never", None),
                Reuse::Promised => ("promised", None),
                Reuse::Probed(probe) => ("probed", Some(probe)),
            };
            (Some(reuse.to_owned()), probe, probe, Some(*quiet))
        }
        Protocol::Http | Protocol::Frames(_) | Protocol::Redis(_) | Protocol::Memcached(_) => {
            (None, None, None, None)
        }
    };
    let probe = probe.map(|probe| {
        let Probe { send, expect, .. } = &**probe;
        probe_text(send, expect)
    });
    vec![
        ("tcp.reuse", or_unset(reuse)),
        ("tcp.probe", or_unset(probe)),
        (
            "tcp.probe_timeout",
            or_unset(timeout.map(|it| time_text(it.timeout))),
        ),
        ("tcp.quiet", or_unset(quiet.map(time_text))),
    ]
}

fn cache_entries(protocol: &Protocol) -> Vec<Entry> {
    let none = Redis::default();
    let (redis, item_max) = match protocol {
        Protocol::Redis(redis) => (redis, None),
        Protocol::Memcached(Memcached { item_bytes_max }) => (&none, Some(*item_bytes_max)),
        Protocol::Http | Protocol::Tcp(_) | Protocol::Frames(_) => (&none, None),
    };
    let Redis {
        lease,
        share,
        refuse,
        allow,
    } = redis;
    let text = |commands: &[String]| {
        or_unset((!commands.is_empty()).then(|| listed(commands, String::clone)))
    };
    vec![
        ("redis.lease", text(lease)),
        ("redis.share", text(share)),
        ("redis.refuse", text(refuse)),
        ("redis.allow", text(allow)),
        ("memcached.item_max", or_unset(item_max.map(bytes_text))),
    ]
}

fn frames_entries(protocol: &Protocol) -> Vec<Entry> {
    let frames = match protocol {
        Protocol::Frames(frames) => Some(frames),
        Protocol::Http | Protocol::Tcp(_) | Protocol::Redis(_) | Protocol::Memcached(_) => None,
    };
    let (mut length, mut delimiter, mut size) = (None, None, None);
    match frames.map(|frames| &frames.layout.framing) {
        Some(Framing::Length(field)) => length = Some(length_text(field)),
        Some(Framing::Delimiter(octets)) => delimiter = Some(octets_text(octets)),
        Some(Framing::Fixed(bytes)) => size = Some(bytes.to_string()),
        None => {}
    }
    let (max, oneway, heartbeat, error_reply) = match frames {
        None => (None, None, None, None),
        Some(Frames {
            layout:
                Layout {
                    framing: _,
                    frame_max,
                    oneway,
                    heartbeat,
                },
            error_reply,
        }) => (
            Some(bytes_text(*frame_max as u64)),
            oneway.as_ref().map(mark_text),
            heartbeat.as_ref().map(mark_text),
            error_reply.as_deref().map(octets_text),
        ),
    };
    vec![
        ("frames.length", or_unset(length)),
        ("frames.delimiter", or_unset(delimiter)),
        ("frames.size", or_unset(size)),
        ("frames.max", or_unset(max)),
        ("frames.oneway", or_unset(oneway)),
        ("frames.heartbeat", or_unset(heartbeat)),
        ("frames.error_reply", or_unset(error_reply)),
    ]
}
