//! What a reload would do, by example.

#![allow(clippy::unwrap_used)]

use super::{Changes, Named, diff};
use crate::config::parse;

const BASE: &str = "\
workers = 2
[admin]
listen = \"127.0.0.1:9900\"
token = \"old\"
[log]
level = \"info\"
[upstream.orders]
protocol = \"http\"
endpoints = [\"10.0.0.1:80\"]
[upstream.orders.pool]
size = 64
[upstream.stock]
protocol = \"http\"
endpoints = [\"10.0.0.2:80\"]
[listener.web]
listen = \"127.0.0.1:8080\"
upstream = \"orders\"
backlog = 128
[listener.side]
listen = \"127.0.0.1:8081\"
upstream = \"stock\"
";

/// One edit of the base, and everything that the difference says.
struct Case {
    edits: &'static [(&'static str, &'static str)],
    upstreams: [&'static [&'static str]; 3],
    listeners: [&'static [&'static str]; 3],
    applied: &'static [&'static str],
    needs_restart: &'static [&'static str],
}

const NOTHING: [&[&str]; 3] = [&[], &[], &[]];

const CASES: &[Case] = &[
    Case {
        edits: &[],
        upstreams: NOTHING,
        listeners: NOTHING,
        applied: &[],
        needs_restart: &[],
    },
    Case {
        edits: &[("size = 64", "size = 32\nidle_timeout = \"0s\"")],
        upstreams: [&[], &[], &["orders"]],
        listeners: NOTHING,
        applied: &[
            "upstream.orders.pool.size: 64 -> 32",
            "upstream.orders.pool.idle_timeout: 1m -> 0s",
        ],
        needs_restart: &[],
    },
    Case {
        edits: &[(
            "[\"10.0.0.1:80\"]",
            "[\"10.0.0.1:80\", { address = \"unix:/s\", weight = 3 }]",
        )],
        upstreams: [&[], &[], &["orders"]],
        listeners: NOTHING,
        applied: &["upstream.orders.endpoints: 10.0.0.1:80 -> 10.0.0.1:80, unix:/s (weight 3)"],
        needs_restart: &[],
    },
    Case {
        edits: &[
            ("upstream.stock", "upstream.store"),
            ("\"stock\"", "\"store\""),
        ],
        upstreams: [&["store"], &["stock"], &[]],
        listeners: [&[], &[], &["side"]],
        applied: &[
            "upstream.stock: removed",
            "upstream.store: added",
            "listener.side.upstream: stock -> store",
        ],
        needs_restart: &[],
    },
    Case {
        edits: &[("listener.side", "listener.other")],
        upstreams: NOTHING,
        listeners: [&["other"], &["side"], &[]],
        applied: &["listener.side: removed", "listener.other: added"],
        needs_restart: &[],
    },
    // It is bound anew: its backlog needs no restart then.
    Case {
        edits: &[
            ("127.0.0.1:8080", "127.0.0.1:8082"),
            ("backlog = 128", "backlog = 256"),
        ],
        upstreams: NOTHING,
        listeners: [&["web"], &["web"], &[]],
        applied: &[
            "listener.web.listen: 127.0.0.1:8080 -> 127.0.0.1:8082",
            "listener.web.backlog: 128 -> 256",
        ],
        needs_restart: &[],
    },
    Case {
        edits: &[("backlog = 128", "backlog = 256")],
        upstreams: NOTHING,
        listeners: NOTHING,
        applied: &[],
        needs_restart: &["listener.web.backlog: 128 -> 256"],
    },
    Case {
        edits: &[(
            "backlog = 128",
            "nodelay = false\nbacklog = 128\nmax_sessions = 5",
        )],
        upstreams: NOTHING,
        listeners: [&[], &[], &["web"]],
        applied: &["listener.web.max_sessions: 10000 -> 5"],
        needs_restart: &["listener.web.nodelay: true -> false"],
    },
    Case {
        edits: &[
            ("workers = 2", "workers = 0"),
            ("\"127.0.0.1:9900\"", "\"off\""),
            (
                "level = \"info\"",
                "level = \"warn\"\nformat = \"json\"\nsessions = \"all\"",
            ),
        ],
        upstreams: NOTHING,
        listeners: NOTHING,
        applied: &["log.level: info -> warn", "log.sessions: abnormal -> all"],
        needs_restart: &[
            "workers: 2 -> 0",
            "admin.listen: 127.0.0.1:9900 -> off",
            "log.format: text -> json",
            "admin.token: changed",
        ],
    },
    // A secret is not told.
    Case {
        edits: &[("\"old\"", "\"new\"")],
        upstreams: NOTHING,
        listeners: NOTHING,
        applied: &[],
        needs_restart: &["admin.token: changed"],
    },
];

#[test]
fn each_edit_does_what_it_should_and_no_more() {
    let old = parse(BASE).unwrap();
    for case in CASES {
        let text = case.edits.iter().fold(BASE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let changes = diff(&old, &parse(&text).unwrap());
        let expected = Changes {
            upstreams: named(case.upstreams),
            listeners: named(case.listeners),
            log_level_changed: case
                .applied
                .iter()
                .any(|line| line.starts_with("log.level")),
            applied: owned(case.applied),
            needs_restart: owned(case.needs_restart),
        };
        assert_eq!(changes, expected, "{:?}", case.edits);
        assert_eq!(changes.is_empty(), case.edits.is_empty());
    }
}

fn named([added, removed, changed]: [&[&str]; 3]) -> Named {
    Named {
        added: owned(added),
        removed: owned(removed),
        changed: owned(changed),
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
