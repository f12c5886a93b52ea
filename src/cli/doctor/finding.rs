//! What can be wrong with a host: each kind of finding, its evidence, why it matters and what to do.
//!
//! Pure: words and numbers. When something is a finding is for [`super::diagnosis`] to say.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use serde::Serialize;

use super::counters::Rate;
use super::look::{Listener, Place};
use super::settings::Judged;
use crate::census::forecast::TimeWaitPorts;
use crate::cli::table::count;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Finding {
    /// Hardly a port is free towards a destination.
    PortsExhausted(Shortage),
    /// Clients find the queue of a listening socket full.
    AcceptQueueFull {
        /// The service.
        service: SocketAddr,
        /// How full it is.
        queue: Listener,
    },
    /// TIME_WAIT, or connections, take much of the ports towards a destination.
    PortsFilling(Shortage),
    /// A process has not closed what the other ends have closed.
    CloseWaitPile(Pile),
    /// Many connections of a service are half open.
    HalfOpenPile {
        /// The service.
        service: SocketAddr,
        /// How many.
        count: u32,
    },
    /// There can hardly be more TIME_WAIT.
    TimeWaitFull {
        /// How many there are.
        count: u64,
        /// `tcp_max_tw_buckets`.
        max: u64,
    },
    /// A counter grows as it does not on a healthy host.
    CounterGrows(Rate),
    /// Many connections to a destination are made anew; their ports come back after a second.
    Churn(Shortage),
    /// A setting does harm.
    SettingHarms(Judged),
}

/// Ports from one address to one destination.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shortage {
    /// Our own address.
    pub(super) from: IpAddr,
    /// The destination.
    pub(super) to: SocketAddr,
    /// `ip_local_port_range`.
    pub(super) range: RangeInclusive<u16>,
    /// Ports of it that a connect may take.
    pub(super) count: u32,
    /// Taken by connections.
    pub(super) used: u32,
    /// Taken by TIME_WAIT.
    pub(super) time_wait: u32,
    /// How those come back.
    pub(super) waiting: TimeWaitPorts,
    /// After so many seconds no port is free, as things go; `None`: they last.
    pub(super) runs_out_seconds: Option<u64>,
    /// Connects in a second, at least.
    pub(super) connects_per_second: f64,
}

impl Shortage {
    /// Ports that nothing takes.
    pub(super) fn free(&self) -> u32 {
        self.count.saturating_sub(self.used + self.time_wait)
    }
}

/// Connections that the other end has closed, and their process has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pile {
    /// Whose they are.
    pub(super) owner: Owner,
    /// How many, the same ones in both looks.
    pub(super) count: usize,
    /// Where most of them belong.
    pub(super) place: Place,
}

/// Who holds a socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Owner {
    /// A process.
    Process {
        /// Its number.
        pid: u32,
        /// Its name.
        command: String,
    },
    /// A process of this user's, which only root (or the user) may look into.
    User(u32),
    /// Nobody has accepted it yet.
    NotAccepted,
}

/// How urgent a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// Connections fail now, or are about to.
    Critical,
    /// Something is lost or piles up.
    Serious,
    /// Nothing fails; it costs more than it should, or leaves a trap.
    Notice,
}

/// A number that a finding rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Evidence {
    /// What was measured.
    pub(super) name: &'static str,
    /// How much, or what.
    pub(super) value: String,
}

impl Finding {
    /// Every kind, most urgent first.
    pub(super) const KINDS: [&'static str; 9] = [
        "ports_exhausted",
        "accept_queue_full",
        "ports_filling",
        "close_wait_pile",
        "half_open_pile",
        "time_wait_full",
        "counter_grows",
        "churn",
        "setting_harms",
    ];

    /// Its kind, as scripts know it.
    pub(super) fn kind(&self) -> &'static str {
        Self::KINDS[self.rank()]
    }

    /// Its place among the kinds.
    pub(super) fn rank(&self) -> usize {
        match self {
            Self::PortsExhausted(_) => 0,
            Self::AcceptQueueFull { .. } => 1,
            Self::PortsFilling(_) => 2,
            Self::CloseWaitPile(_) => 3,
            Self::HalfOpenPile { .. } => 4,
            Self::TimeWaitFull { .. } => 5,
            Self::CounterGrows(_) => 6,
            Self::Churn(_) => 7,
            Self::SettingHarms(_) => 8,
        }
    }

    /// How urgent it is.
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::PortsExhausted(_) | Self::AcceptQueueFull { .. } => Severity::Critical,
            Self::PortsFilling(_)
            | Self::CloseWaitPile(_)
            | Self::HalfOpenPile { .. }
            | Self::TimeWaitFull { .. }
            | Self::CounterGrows(_) => Severity::Serious,
            Self::Churn(_) | Self::SettingHarms(_) => Severity::Notice,
        }
    }

    /// The address, process, counter or setting that it is about.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::PortsExhausted(ports) | Self::PortsFilling(ports) | Self::Churn(ports) => {
                ports.to.to_string()
            }
            Self::AcceptQueueFull { service, .. } | Self::HalfOpenPile { service, .. } => {
                service.to_string()
            }
            Self::CloseWaitPile(pile) => pile.owner.to_string(),
            Self::TimeWaitFull { .. } => "net.ipv4.tcp_max_tw_buckets".to_owned(),
            Self::CounterGrows(rate) => rate.counter.name.to_owned(),
            Self::SettingHarms(judged) => judged.name.to_owned(),
        }
    }

    /// One line that says it all.
    pub(super) fn title(&self) -> String {
        match self {
            Self::PortsExhausted(ports) => format!(
                "{}: {} of {} ports from {} are free",
                ports.to,
                count(ports.free()),
                count(ports.count),
                ports.from
            ),
            Self::PortsFilling(ports) | Self::Churn(ports) => format!(
                "{}: {} TIME_WAIT from {}, where there are {} ports",
                ports.to,
                count(ports.time_wait),
                ports.from,
                count(ports.count)
            ),
            Self::AcceptQueueFull { service, queue } => format!(
                "{service}: {} clients wait to be accepted, and at most {} may",
                queue.waiting, queue.waiting_max
            ),
            Self::CloseWaitPile(pile) => format!(
                "{} has not closed {} connections that the other end has closed",
                pile.owner,
                count(pile.count as u64)
            ),
            Self::HalfOpenPile { service, count } => {
                format!("{service}: {count} connections are half open")
            }
            Self::TimeWaitFull { count: now, max } => {
                format!(
                    "{} TIME_WAIT, and at most {} may be",
                    count(*now),
                    count(*max)
                )
            }
            Self::CounterGrows(rate) => format!(
                "{} grows by {:.1} a second",
                rate.counter.name, rate.per_second
            ),
            Self::SettingHarms(judged) => format!("{} is {}", judged.name, judged.value),
        }
    }

    /// What was measured.
    pub(super) fn evidence(&self) -> Vec<Evidence> {
        match self {
            Self::PortsExhausted(ports) | Self::PortsFilling(ports) | Self::Churn(ports) => {
                ports.evidence()
            }
            Self::AcceptQueueFull { queue, .. } => vec![
                evidence("waiting", &queue.waiting),
                evidence("waiting_max", &queue.waiting_max),
            ],
            Self::CloseWaitPile(pile) => {
                let place = match pile.place {
                    Place::Service(address) => evidence("accepted_at", &address),
                    Place::Destination(address) => evidence("dialled_to", &address),
                };
                let mut all = vec![evidence("close_wait", &pile.count), place];
                match &pile.owner {
                    Owner::Process { pid, command } => {
                        all.push(evidence("pid", &pid));
                        all.push(evidence("command", &command));
                    }
                    Owner::User(user) => all.push(evidence("user_id", &user)),
                    Owner::NotAccepted => {}
                }
                all
            }
            Self::HalfOpenPile { count, .. } => vec![evidence("half_open", &count)],
            Self::TimeWaitFull { count, max } => {
                vec![
                    evidence("time_wait", &count),
                    evidence("time_wait_max", &max),
                ]
            }
            Self::CounterGrows(rate) => vec![
                evidence("count", &rate.count),
                evidence("per_second", &format_args!("{:.1}", rate.per_second)),
            ],
            Self::SettingHarms(judged) => vec![evidence("value", &judged.value)],
        }
    }

    /// Why it matters.
    pub(super) fn why(&self) -> String {
        match self {
            Self::PortsExhausted(ports) | Self::PortsFilling(ports) => ports.why(),
            Self::Churn(ports) => format!(
                "A connection is made for each piece of work and closed by this host first. Ports are not \
                 short: a connect gets one in TIME_WAIT back after a second here (tcp_tw_reuse{}). What it \
                 costs is a handshake each time, and some memory.",
                if ports.to.ip().is_loopback() { ", loopback" } else { "" }
            ),
            Self::AcceptQueueFull { .. } => "The service accepts more slowly than clients come. Beyond the \
                 limit the kernel drops their connects; they try again after one second, three, seven."
                .to_owned(),
            Self::CloseWaitPile(pile) => match pile.owner {
                Owner::NotAccepted => "Clients connected, gave up and closed before the service accepted \
                     them."
                    .to_owned(),
                Owner::Process { .. } | Owner::User(_) => "CLOSE_WAIT ends only when the program calls \
                     close; no setting ends it. Each one holds a descriptor, until none is left."
                    .to_owned(),
            },
            Self::HalfOpenPile { .. } => "They were answered and never confirmed: a SYN flood, or a path \
                 that loses one direction. They take the queue from clients that mean it."
                .to_owned(),
            Self::TimeWaitFull { .. } => "Beyond the limit connections skip TIME_WAIT: what arrives late for \
                 one can meet its successor on the same ports."
                .to_owned(),
            Self::CounterGrows(rate) => sentence(rate.counter.meaning),
            Self::SettingHarms(judged) => sentence(judged.reason),
        }
    }

    /// What to do.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::PortsExhausted(ports) | Self::PortsFilling(ports) | Self::Churn(ports) => {
                format!(
                    "Keep connections instead of making new ones: a pool in the program that dials, or millpond \
                 in front of {to} (millpond run --listen 127.0.0.1:8081 --upstream http://{to}). A wider \
                 ip_local_port_range or more addresses only put it off; tcp_fin_timeout changes nothing, \
                 and SO_LINGER 0 trades TIME_WAIT for lost answers.",
                    to = ports.to
                )
            }
            Self::AcceptQueueFull { service, .. } => format!(
                "See what the service at {service} is busy with, and give it more workers. A larger backlog \
                 (its own, and net.core.somaxconn; the lower one holds) only lengthens the queue."
            ),
            Self::CloseWaitPile(pile) => match &pile.owner {
                Owner::Process { pid, .. } => format!(
                    "Fix the program: it must close when a read returns 0. To see them: \
                     ss -tnp state close-wait | grep pid={pid}. A restart frees them until the next time."
                ),
                Owner::User(_) => {
                    "Run as root to see which process. It must close when a read returns 0."
                        .to_owned()
                }
                Owner::NotAccepted => {
                    "See what the service is busy with: it does not accept.".to_owned()
                }
            },
            Self::HalfOpenPile { service, .. } => format!(
                "See where they come from: ss -tn state syn-recv sport = :{}. Leave net.ipv4.tcp_syncookies \
                 at 1; if the clients are yours, look for a firewall or a route that drops their ACK.",
                service.port()
            ),
            Self::TimeWaitFull { .. } => {
                "Make fewer connections: the table above says where they go. Until \
                 then raise net.ipv4.tcp_max_tw_buckets; never lower it."
                    .to_owned()
            }
            Self::CounterGrows(rate) => sentence(rate.counter.advice),
            Self::SettingHarms(judged) => sentence(judged.advice),
        }
    }
}

impl Shortage {
    fn evidence(&self) -> Vec<Evidence> {
        let range = format!("{} {}", self.range.start(), self.range.end());
        let mut all = vec![
            evidence("source", &self.from),
            evidence("range", &range),
            evidence("ports", &self.count),
            evidence("time_wait", &self.time_wait),
            evidence("used", &self.used),
            evidence("free", &self.free()),
            evidence(
                "connects_per_second",
                &format_args!("{:.1}", self.connects_per_second),
            ),
        ];
        if let Some(seconds) = self.runs_out_seconds {
            all.push(evidence("runs_out_seconds", &seconds));
        }
        all
    }

    fn why(&self) -> String {
        let mut why = format!(
            "Each connection to {} takes one of the ports {}-{} of {}, and for 60 s more when this host \
             closes first: {} in use, {} in TIME_WAIT, {} free. ",
            self.to,
            self.range.start(),
            self.range.end(),
            self.from,
            count(self.used),
            count(self.time_wait),
            count(self.free())
        );
        why.push_str(&match self.runs_out_seconds {
            Some(0) => "None is left: connects fail with EADDRNOTAVAIL.".to_owned(),
            Some(seconds) => format!("At this rate none is left in {seconds} s."),
            None => format!(
                "More than {} connects a second for a minute use them up.",
                count(self.count / 60)
            ),
        });
        why
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process { pid, command } => write!(formatter, "{command} (pid {pid})"),
            Self::User(user) => write!(formatter, "a process of user {user}"),
            Self::NotAccepted => formatter.write_str("nobody (not accepted yet)"),
        }
    }
}

fn evidence(name: &'static str, value: &(impl ToString + ?Sized)) -> Evidence {
    Evidence {
        name,
        value: value.to_string(),
    }
}

/// With a capital, unless it begins with a name, and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|it| it.to_ascii_uppercase());
    format!(
        "{}{}.",
        first.into_iter().collect::<String>(),
        letters.as_str()
    )
}
