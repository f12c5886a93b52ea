//! The settings that matter to short-lived connections: what each is for, whether its value is fine, and
//! what to do about it.
//!
//! Pure: judges values that somebody else has read.

use serde::Serialize;

/// What is thought of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// Leave it.
    Good,
    /// Nothing is wrong; it is worth knowing.
    Note,
    /// It does harm.
    Change,
}

/// A value and what is thought of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Judged {
    /// As sysctl(8) spells it.
    pub(super) name: &'static str,
    /// As it is set.
    pub(super) value: String,
    /// What is thought of it.
    pub(super) verdict: Verdict,
    /// Why.
    pub(super) reason: &'static str,
    /// What to do; empty where nothing is to be done.
    pub(super) advice: &'static str,
}

/// A setting that is judged.
pub(super) struct Setting {
    /// As sysctl(8) spells it; `RLIMIT_NOFILE` is no sysctl.
    pub(super) name: &'static str,
    /// Older and newer kernels lack it.
    pub(super) may_be_absent: bool,
    judge: fn(&[u64]) -> Judgement,
}

type Judgement = (Verdict, &'static str, &'static str);

impl Setting {
    /// Judges what the setting says; `None` where it says no numbers.
    pub(super) fn judge(&self, value: &str) -> Option<Judged> {
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        let numbers: Option<Vec<u64>> = value.split(' ').map(|it| it.parse().ok()).collect();
        let numbers = numbers.filter(|it| !it.is_empty())?;
        let (verdict, reason, advice) = (self.judge)(&numbers);
        Some(Judged {
            name: self.name,
            value,
            verdict,
            reason,
            advice,
        })
    }
}

/// The name of the limit on descriptors (getrlimit(2)), which is no sysctl.
pub(super) const DESCRIPTORS: &str = "RLIMIT_NOFILE";

/// A host with fewer runs out at some 70 connects a second to one destination.
const PORTS_MIN: u64 = 4_096;
/// The table's size on a host with very little memory; less was set by hand.
const TIME_WAIT_MAX_LEAST: u64 = 4_096;
/// The default before Linux 5.4; a burst of more clients than that is nothing unusual.
const BACKLOG_LEAST: u64 = 128;
/// What most systems give a shell; millpond itself raises its soft limit to the hard one.
const DESCRIPTORS_LEAST: u64 = 1_024;

/// Every setting that is judged.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "net.ipv4.ip_local_port_range",
        may_be_absent: false,
        judge: port_range,
    },
    Setting {
        name: "net.ipv4.tcp_tw_reuse",
        may_be_absent: false,
        judge: tw_reuse,
    },
    Setting {
        name: "net.ipv4.tcp_tw_recycle",
        may_be_absent: true,
        judge: tw_recycle,
    },
    Setting {
        name: "net.ipv4.tcp_timestamps",
        may_be_absent: false,
        judge: timestamps,
    },
    Setting {
        name: "net.ipv4.tcp_max_tw_buckets",
        may_be_absent: false,
        judge: time_wait_max,
    },
    Setting {
        name: "net.ipv4.tcp_fin_timeout",
        may_be_absent: false,
        judge: fin_timeout,
    },
    Setting {
        name: "net.ipv4.tcp_rfc1337",
        may_be_absent: false,
        judge: rfc1337,
    },
    Setting {
        name: "net.ipv4.tcp_abort_on_overflow",
        may_be_absent: false,
        judge: abort_on_overflow,
    },
    Setting {
        name: "net.core.somaxconn",
        may_be_absent: false,
        judge: backlog,
    },
    Setting {
        name: "fs.file-nr",
        may_be_absent: false,
        judge: files,
    },
    Setting {
        name: DESCRIPTORS,
        may_be_absent: false,
        judge: descriptors,
    },
];

use Verdict::{Change, Good, Note};

fn port_range(value: &[u64]) -> Judgement {
    match value {
        [first, last] if last.saturating_sub(*first) + 1 < PORTS_MIN => (
            Change,
            "there are few ports to dial from: each destination can have so many connections, those in TIME_WAIT included",
            "set it to \"32768 60999\" (the default) or, with your listening ports in ip_local_reserved_ports, to \"1024 65535\"",
        ),
        _ => (
            Good,
            "the ports that a connect takes, for each destination anew; one in TIME_WAIT is taken for 60 s",
            "",
        ),
    }
}

fn tw_reuse(value: &[u64]) -> Judgement {
    match value {
        [0] => (
            Note,
            "a port in TIME_WAIT is never taken before its minute is over, on loopback neither",
            "2, the default since Linux 4.19, is safe and helps on loopback; 1 extends it to every destination with timestamps, where a proxy or NAT between may object",
        ),
        [1] => (
            Note,
            "a connect may take a port out of TIME_WAIT after a second, where both ends use timestamps",
            "keep it only as long as it is needed: a pool makes fewer connections instead of reusing their ports sooner",
        ),
        _ => (
            Good,
            "on loopback a connect may take a port out of TIME_WAIT after a second, elsewhere after the minute",
            "",
        ),
    }
}

fn tw_recycle(value: &[u64]) -> Judgement {
    match value {
        [0] => (
            Good,
            "off; it was removed in Linux 4.12 for good reason",
            "",
        ),
        _ => (
            Change,
            "it drops connects of clients that share an address behind NAT; it was removed in Linux 4.12 for that",
            "set it to 0",
        ),
    }
}

fn timestamps(value: &[u64]) -> Judgement {
    match value {
        [0] => (
            Change,
            "without timestamps a late duplicate is harder to tell from new data, and tcp_tw_reuse does nothing",
            "set it to 1, the default",
        ),
        _ => (Good, "on: late duplicates are told from new data", ""),
    }
}

fn time_wait_max(value: &[u64]) -> Judgement {
    match value {
        [most] if *most < TIME_WAIT_MAX_LEAST => (
            Change,
            "beyond so many a connection skips TIME_WAIT, and with it the protection against what arrives late",
            "leave it at the kernel's default, which depends on memory; each costs some 250 bytes",
        ),
        _ => (
            Good,
            "so many TIME_WAIT may there be; lowering it would not free ports, it would take protection away",
            "",
        ),
    }
}

fn fin_timeout(_: &[u64]) -> Judgement {
    (
        Good,
        "bounds FIN_WAIT_2 of connections that no process holds; it does not shorten TIME_WAIT, which is 60 s whatever is set",
        "",
    )
}

fn rfc1337(value: &[u64]) -> Judgement {
    match value {
        [0] => (
            Good,
            "off, the default: an RST ends TIME_WAIT early, which is rare and seldom matters",
            "",
        ),
        _ => (
            Good,
            "on: an RST does not end TIME_WAIT early (RFC 1337)",
            "",
        ),
    }
}

fn abort_on_overflow(value: &[u64]) -> Judgement {
    match value {
        [0] => (
            Good,
            "off: a client that meets a full queue tries again",
            "",
        ),
        _ => (
            Change,
            "a client that meets a full queue is reset, where it would have got through a second later",
            "set it to 0, the default, and raise the service's backlog",
        ),
    }
}

fn backlog(value: &[u64]) -> Judgement {
    match value {
        [most] if *most < BACKLOG_LEAST => (
            Change,
            "so many clients at most wait to be accepted, whatever backlog a service asks for; the next ones' connects are dropped",
            "set it to 4096, the default",
        ),
        _ => (
            Good,
            "so many clients at most wait to be accepted, whatever backlog a service asks for",
            "",
        ),
    }
}

fn files(value: &[u64]) -> Judgement {
    match value {
        [open, _, most] if *open > most / 10 * 9 => (
            Change,
            "of all files that this host may have open (the last number) more than nine tenths are (the first)",
            "find out who has them open (lsof, ls /proc/*/fd) before raising fs.file-max",
        ),
        _ => (
            Good,
            "files open on this host, unused, and allowed (fs.file-max)",
            "",
        ),
    }
}

fn descriptors(value: &[u64]) -> Judgement {
    match value {
        [_, hard] if *hard < DESCRIPTORS_LEAST => (
            Change,
            "so few descriptors (soft, hard) may a process started here have; a proxy needs two for each session",
            "raise it: LimitNOFILE in a unit, nofile in limits.conf",
        ),
        [_, hard] if *hard == DESCRIPTORS_LEAST => (
            Note,
            "so many descriptors (soft, hard) may a process started here have; a proxy needs two for each session",
            "raise the hard limit where millpond is to have more than some 500 sessions: LimitNOFILE in a unit",
        ),
        _ => (
            Good,
            "so many descriptors (soft, hard) may a process started here have; millpond raises its own to the hard limit",
            "",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(name: &str, value: &str) -> Verdict {
        let setting = SETTINGS.iter().find(|it| it.name.ends_with(name));
        let judged = setting.expect("a setting").judge(value);
        let judged = judged.expect("numbers");
        assert_eq!(
            judged.verdict == Good,
            judged.advice.is_empty(),
            "{judged:?}"
        );
        judged.verdict
    }

    #[test]
    fn every_value_has_a_verdict() {
        for (name, value, expected) in [
            ("ip_local_port_range", "32768\t60999\n", Good),
            ("ip_local_port_range", "50000 50999", Change),
            ("tcp_tw_reuse", "2\n", Good),
            ("tcp_tw_reuse", "0", Note),
            ("tcp_tw_reuse", "1", Note),
            ("tcp_tw_recycle", "0", Good),
            ("tcp_tw_recycle", "1", Change),
            ("tcp_timestamps", "1", Good),
            ("tcp_timestamps", "0", Change),
            ("tcp_max_tw_buckets", "65536", Good),
            ("tcp_max_tw_buckets", "1000", Change),
            ("tcp_fin_timeout", "5", Good),
            ("tcp_rfc1337", "0", Good),
            ("tcp_rfc1337", "1", Good),
            ("tcp_abort_on_overflow", "0", Good),
            ("tcp_abort_on_overflow", "1", Change),
            ("somaxconn", "4096", Good),
            ("somaxconn", "64", Change),
            ("file-nr", "3000 0 9223372036854775807", Good),
            ("file-nr", "950 0 1000", Change),
            (DESCRIPTORS, "1024 524288", Good),
            (DESCRIPTORS, "1024 1024", Note),
            (DESCRIPTORS, "256 256", Change),
        ] {
            assert_eq!(verdict(name, value), expected, "{name} = {value}");
        }
    }

    #[test]
    fn what_is_no_number_has_none() {
        assert_eq!(SETTINGS[0].judge("cubic"), None);
        assert_eq!(SETTINGS[0].judge(""), None);
    }

    #[test]
    fn nobody_is_told_to_recycle() {
        let recycle = SETTINGS.iter().find(|it| it.name.ends_with("recycle"));
        let advice = recycle
            .and_then(|it| it.judge("1"))
            .expect("numbers")
            .advice;
        assert_eq!(advice, "set it to 0");
    }
}
