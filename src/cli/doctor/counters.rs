//! The kernel's counters of resets, drops and failures: what each really means on Linux, and when it is
//! a finding.
//!
//! They count since boot, and for the whole network namespace; only the difference of two readings says
//! what goes on now.
//!
//! Pure: reads text that somebody else has read from `/proc/net`.

use std::collections::HashMap;

/// A counter of `/proc/net/snmp` or `/proc/net/netstat`.
#[derive(Debug, PartialEq)]
pub(super) struct Counter {
    /// As the kernel spells it.
    pub(super) name: &'static str,
    /// What makes it grow.
    pub(super) meaning: &'static str,
    /// What to do when it grows.
    pub(super) advice: &'static str,
    /// More than so many a second are a finding; `None`: they belong to an ordinary day.
    pub(super) ordinary_per_second_max: Option<f64>,
}

/// A healthy program resets nobody; one a second is no accident any more.
const ABORTS: Option<f64> = Some(1.0);
/// These grow on a host that lacks something, and on no other.
const NEVER: Option<f64> = Some(0.0);
/// Clients that are killed or unplugged reset a few connections on any busy host.
const TORN: Option<f64> = Some(10.0);

/// Every counter that is shown, those of resets first.
pub(super) const COUNTERS: &[Counter] = &[
    Counter {
        name: "TCPAbortOnData",
        meaning: "closed with SO_LINGER 0 (whatever the name says), or data came for a connection that its program had closed: an RST instead of a FIN, and what was not delivered yet is lost",
        advice: "look for SO_LINGER in the program that closes (setsockopt, setSoLinger(true, 0), reset_on_close) and remove it; TIME_WAIT is no reason for it",
        ordinary_per_second_max: ABORTS,
    },
    Counter {
        name: "TCPAbortOnClose",
        meaning: "closed while bytes that had arrived were not read: the kernel sends an RST, and the other end can lose the answer it was reading",
        advice: "have the program read to the end before it closes (a request's body too), or put a proxy in front that does",
        ordinary_per_second_max: ABORTS,
    },
    Counter {
        name: "TCPAbortOnTimeout",
        meaning: "given up, since the other end answered nothing any more (retransmissions, keep-alive or TCP_USER_TIMEOUT ran out)",
        advice: "look for hosts that vanish, and for firewalls or NAT that forget idle connections; keep-alive shorter than their timeout helps",
        ordinary_per_second_max: ABORTS,
    },
    Counter {
        name: "TCPAbortOnLinger",
        meaning: "dropped in FIN_WAIT_2 at once, as TCP_LINGER2 below 0 asks",
        advice: "look for TCP_LINGER2 in the program that closes",
        ordinary_per_second_max: ABORTS,
    },
    Counter {
        name: "TCPAbortOnMemory",
        meaning: "killed, since too many connections without a process (tcp_max_orphans) or too much memory (tcp_mem) were in use",
        advice: "find out who leaves so many connections half closed before raising tcp_max_orphans or tcp_mem",
        ordinary_per_second_max: NEVER,
    },
    Counter {
        name: "EstabResets",
        meaning: "connections that ended abruptly, by an RST in either direction; each end on this host counts, so one on loopback counts twice",
        advice: "compare with TCPAbortOnData and TCPAbortOnClose, which are this host's own; what is beyond them came from the other ends",
        ordinary_per_second_max: TORN,
    },
    Counter {
        name: "OutRsts",
        meaning: "RSTs sent for any reason: the aborts above, and answers to packets for closed ports or for connections that are over",
        advice: "without aborts, somebody dials a port where nobody listens",
        ordinary_per_second_max: None,
    },
    Counter {
        name: "AttemptFails",
        meaning: "connects that came to nothing: refused or unanswered here, or never completed by a client",
        advice: "look which destination refuses: ss -t state syn-sent",
        ordinary_per_second_max: None,
    },
    Counter {
        name: "ListenOverflows",
        meaning: "a client was ready and the queue of the listening socket was full: its connect is dropped, and hangs for a second or more",
        advice: "have the service accept faster (more workers), and raise its backlog and net.core.somaxconn, of which the lower one holds",
        ordinary_per_second_max: NEVER,
    },
    Counter {
        name: "ListenDrops",
        meaning: "connects that were dropped at a listening socket, for a full queue (ListenOverflows) or another reason",
        advice: "see ListenOverflows",
        ordinary_per_second_max: None,
    },
    Counter {
        name: "TCPReqQFullDrop",
        meaning: "a SYN was dropped, since too many connections were half open and SYN cookies are off",
        advice: "set net.ipv4.tcp_syncookies=1",
        ordinary_per_second_max: NEVER,
    },
    Counter {
        name: "TCPReqQFullDoCookies",
        meaning: "too many connections were half open, so a SYN was answered with a cookie: a flood, or a backlog that is too small",
        advice: "find out who sends the SYNs; if they are yours, raise the service's backlog and net.ipv4.tcp_max_syn_backlog",
        ordinary_per_second_max: ABORTS,
    },
    Counter {
        name: "TCPTimeWaitOverflow",
        meaning: "a connection skipped TIME_WAIT, since there were tcp_max_tw_buckets already: what arrives late for it meets nobody, or its successor",
        advice: "make fewer connections (a pool); tcp_max_tw_buckets may be raised, each costs some 250 bytes",
        ordinary_per_second_max: NEVER,
    },
    Counter {
        name: "TCPSynRetrans",
        meaning: "SYNs that had to be sent again: a destination that drops them (a full queue there, a firewall), or loss",
        advice: "look for clients that wait one second, or three, to connect: ss -t state syn-sent",
        ordinary_per_second_max: None,
    },
    Counter {
        name: "ActiveOpens",
        meaning: "connects dialled by this host",
        advice: "",
        ordinary_per_second_max: None,
    },
    Counter {
        name: "PassiveOpens",
        meaning: "connections that came in",
        advice: "",
        ordinary_per_second_max: None,
    },
];

/// How a counter grew between two readings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    /// Which.
    pub(super) counter: &'static Counter,
    /// By how much.
    pub(super) count: u64,
    /// By how much in a second.
    pub(super) per_second: f64,
}

/// Values by name.
pub(super) type Values = HashMap<String, u64>;

/// Reads the lines of names of one group, each followed by a line of values, which begin with its name
/// (proc_pid_net(5)).
pub(super) fn parse(text: &str, group: &str) -> Values {
    let mut values = Values::new();
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    while let (Some(names), Some(numbers)) = (lines.next(), lines.next()) {
        let pairs = names.split_whitespace().zip(numbers.split_whitespace());
        for (name, number) in pairs.skip(1) {
            // MaxConn is -1.
            if let Ok(number) = number.parse() {
                values.insert(name.to_owned(), number);
            }
        }
    }
    values
}

/// What has grown, in the table's order; what this kernel does not count is left out.
pub(super) fn rates(before: &Values, now: &Values, seconds: f64) -> Vec<Rate> {
    let rate = |counter: &'static Counter| {
        let count = now
            .get(counter.name)?
            .saturating_sub(*before.get(counter.name)?);
        Some(Rate {
            counter,
            count,
            per_second: count as f64 / seconds,
        })
    };
    COUNTERS.iter().filter_map(rate).collect()
}

/// Those that say that something is wrong.
pub(super) fn beyond_the_ordinary(rates: &[Rate]) -> impl Iterator<Item = &Rate> {
    let of = |name: &str| rates.iter().find(|it| it.counter.name == name);
    let per_second = move |name: &str| of(name).map_or(0.0, |it| it.per_second);
    // Both ends of what this host aborts may be its own.
    let explained = 2.0 * (per_second("TCPAbortOnData") + per_second("TCPAbortOnClose"));
    rates.iter().filter(move |rate| {
        let max = rate.counter.ordinary_per_second_max;
        let explained = match rate.counter.name {
            "EstabResets" => explained,
            _ => 0.0,
        };
        max.is_some_and(|max| rate.per_second - explained > max)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Tcp: RtoMin MaxConn EstabResets OutRsts\nTcp: 200 -1 5 7\n";

    fn found(grown: &[(&str, u64)]) -> Vec<&'static str> {
        let zero: Values = COUNTERS.iter().map(|it| (it.name.to_owned(), 9)).collect();
        let mut now = zero.clone();
        for (name, count) in grown {
            *now.get_mut(*name).expect("a counter") += count;
        }
        let rates = rates(&zero, &now, 3.0);
        beyond_the_ordinary(&rates)
            .map(|it| it.counter.name)
            .collect()
    }

    #[test]
    fn counters_are_read_by_name() {
        let values = parse(SNMP, "Tcp:");
        assert_eq!(values["EstabResets"], 5);
        assert_eq!(values["OutRsts"], 7);
        assert!(!values.contains_key("MaxConn"));
    }

    #[test]
    fn a_rate_is_of_the_seconds_between_and_not_since_boot() {
        let grown = SNMP.replace(" 5 ", " 11 ");
        let rates = rates(&parse(SNMP, "Tcp:"), &parse(&grown, "Tcp:"), 3.0);
        let resets = rates.iter().find(|it| it.counter.name == "EstabResets");
        let resets = resets.expect("it is counted");
        assert_eq!((resets.count, resets.per_second), (6, 2.0));
        assert_eq!(rates.len(), 2, "what is not counted is left out");
    }

    #[test]
    fn what_is_beyond_the_ordinary_is_found() {
        assert!(found(&[]).is_empty());
        assert!(found(&[("TCPAbortOnData", 3), ("OutRsts", 9_000)]).is_empty());
        assert_eq!(found(&[("TCPAbortOnClose", 4)]), ["TCPAbortOnClose"]);
        assert_eq!(found(&[("ListenOverflows", 1)]), ["ListenOverflows"]);
        let torn = ("EstabResets", 60);
        assert_eq!(found(&[torn]), ["EstabResets"]);
        assert_eq!(found(&[torn, ("TCPAbortOnData", 30)]), ["TCPAbortOnData"]);
    }
}
