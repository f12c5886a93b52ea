//! What the sections of one protocol say, so that two configurations can be compared.
//!
//! Invariant: every upstream has all of these entries; they say something for one that speaks the protocol.

use super::super::checked::{Frames, Memcached, Probe, Protocol, Redis, Reuse, Tcp};
use super::super::ids::{ids_text, magic_text};
use super::super::value::{bytes_text, time_text};
use super::super::wire::{length_text, mark_text, octets_text, probe_text};
use super::{Entry, listed, or_unset};
use crate::protocol::frames::{Framing, Mark, Unasked};

/// The entries of every protocol.
pub(super) fn entries(protocol: &Protocol) -> impl Iterator<Item = Entry> {
    let tcp = tcp_entries(protocol).into_iter();
    let frames = frames_entries(protocol).into_iter();
    tcp.chain(frames)
        .chain(calls_entries(protocol))
        .chain(cache_entries(protocol))
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
        Protocol::Http
        | Protocol::Frames(_)
        | Protocol::Calls(_)
        | Protocol::Redis(_)
        | Protocol::Memcached(_) => (None, None, None, None),
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
        Protocol::Http | Protocol::Tcp(_) | Protocol::Frames(_) | Protocol::Calls(_) => {
            (&none, None)
        }
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
    let (layout, error_reply) = match protocol {
        Protocol::Frames(Frames {
            layout,
            error_reply,
        }) => (Some(layout), error_reply),
        Protocol::Calls(calls) => (Some(&calls.layout), &calls.error_reply),
        Protocol::Http | Protocol::Tcp(_) | Protocol::Redis(_) | Protocol::Memcached(_) => {
            (None, &None)
        }
    };
    let (mut length, mut delimiter, mut size) = (None, None, None);
    match layout.map(|layout| &layout.framing) {
        Some(Framing::Length(field)) => length = Some(length_text(field)),
        Some(Framing::Delimiter(octets)) => delimiter = Some(octets_text(octets)),
        Some(Framing::Fixed(bytes)) => size = Some(bytes.to_string()),
        None => {}
    }
    let max = layout.map(|layout| bytes_text(layout.frame_max as u64));
    let mark = |mark: Option<Mark>| or_unset(mark.as_ref().map(mark_text));
    vec![
        ("frames.length", or_unset(length)),
        ("frames.delimiter", or_unset(delimiter)),
        ("frames.size", or_unset(size)),
        ("frames.max", or_unset(max)),
        ("frames.oneway", mark(layout.and_then(|it| it.oneway))),
        ("frames.heartbeat", mark(layout.and_then(|it| it.heartbeat))),
        ("frames.error_reply", octets(error_reply.as_ref())),
    ]
}

fn octets(octets: Option<&Vec<u8>>) -> String {
    or_unset(octets.map(|octets| octets_text(octets)))
}

fn calls_entries(protocol: &Protocol) -> Vec<Entry> {
    let calls = match protocol {
        Protocol::Calls(calls) => Some(calls),
        Protocol::Http
        | Protocol::Tcp(_)
        | Protocol::Frames(_)
        | Protocol::Redis(_)
        | Protocol::Memcached(_) => None,
    };
    let magic = calls.filter(|it| !it.magic.is_empty());
    let unasked = calls.map(|it| match it.unasked {
        Unasked::Drop => "drop",
        Unasked::Retire => "retire",
    });
    let client_heartbeats = calls.map(|it| match it.answers_heartbeats {
        true => "answer",
        false => "forward",
    });
    let interval = calls.map(|it| it.heartbeat_interval);
    let word = |word: Option<&str>| or_unset(word.map(str::to_owned));
    vec![
        ("frames.id", or_unset(calls.map(|it| ids_text(&it.ids)))),
        (
            "frames.magic",
            or_unset(magic.map(|it| magic_text(&it.magic))),
        ),
        (
            "frames.request",
            or_unset(calls.and_then(|it| it.asks.as_ref()).map(mark_text)),
        ),
        ("frames.unasked", word(unasked)),
        ("frames.client_heartbeats", word(client_heartbeats)),
        (
            "frames.heartbeat_reply",
            octets(calls.and_then(|it| it.heartbeat_reply.as_ref())),
        ),
        (
            "frames.heartbeat_request",
            octets(calls.and_then(|it| it.heartbeat_request.as_ref())),
        ),
        (
            "frames.heartbeat_interval",
            or_unset(interval.map(time_text)),
        ),
    ]
}
