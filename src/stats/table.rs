//! The one table that spells the name of every metric.
//!
//! Names, labels and units are part of the stable interface. Not here: where the numbers come from
//! (see `exposition`) and how they are written (see `prometheus`, `openmetrics`).

/// One metric: a family of samples that differ in their labels.
#[derive(Debug)]
pub struct Metric {
    /// Its name, with the unit, and `_total` for a counter.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// The names of its labels, in the order in which samples give their values.
    pub labels: &'static [&'static str],
    /// The unit of its values; empty for plain numbers. It is the end of the name.
    pub unit: &'static str,
    /// What it counts, in one sentence.
    pub help: &'static str,
}

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution in buckets.
    Histogram,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $unit:literal: $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                unit: $unit,
                help: $help,
            };
        )*

        /// Every metric, in the order of the exposition.
        pub const ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    SESSIONS = Counter "millpond_sessions_total" ["listener"] "":
        "Sessions accepted.";
    SESSIONS_OPEN = Gauge "millpond_sessions_open" ["listener"] "":
        "Sessions open now.";
    LISTENER_BOUND = Gauge "millpond_listener_bound" ["listener"] "":
        "Whether the listener listens: 1, or 0.";
    REFUSALS = Counter "millpond_refusals_total" ["listener", "reason"] "":
        "What was refused to clients, by reason.";
    ACCEPT_PAUSES = Counter "millpond_accept_pauses_total" ["listener", "reason"] "":
        "Times that accepting stopped for a while, by reason.";

    EXCHANGES = Counter "millpond_exchanges_total" ["upstream", "outcome"] "":
        "Exchanges ended, by outcome.";
    EXCHANGE_DURATION = Histogram "millpond_exchange_duration_seconds" ["upstream"] "seconds":
        "From the complete head of a request to the end of its response.";
    RETRIES = Counter "millpond_retries_total" ["upstream", "reason"] "":
        "Requests sent again or to another endpoint, by reason.";
    RACES_LOST = Counter "millpond_races_lost_total" ["upstream", "reason"] "":
        "Requests that met the end of a reused connection and failed, by why they were not sent again.";
    PINS = Counter "millpond_pins_total" ["upstream", "reason"] "":
        "Sessions that needed a connection of their own where connections are shared, by reason.";
    PINS_OPEN = Gauge "millpond_pins_open" ["upstream", "reason"] "":
        "Sessions that have a connection to themselves now where connections are shared, by reason.";
    PIN_DURATION = Histogram "millpond_pin_duration_seconds" ["upstream"] "seconds":
        "How long such a session had its connection.";
    SHARING_SESSIONS = Gauge "millpond_sharing_sessions" ["upstream", "endpoint"] "":
        "Sessions that share connections to the endpoint now.";
    HEARTBEATS_DROPPED = Counter "millpond_heartbeats_dropped_total" ["upstream"] "":
        "Heartbeats of the service that were dropped, because no client had asked for one.";
    MESSAGES_DROPPED = Counter "millpond_messages_dropped_total" ["upstream", "reason"] "":
        "Messages of services with ids, and answers to those, that reached nobody, by reason.";
    UPSTREAM_CONNECTIONS = Counter "millpond_upstream_connections_total" ["upstream"] "":
        "Upstream connections opened.";
    UPSTREAM_CONNECTIONS_OPEN = Gauge "millpond_upstream_connections_open" ["upstream"] "":
        "Upstream connections open now, those being dialled and those being closed included.";
    OPENS = Counter "millpond_upstream_opens_total" ["upstream", "reason"] "":
        "Upstream connections opened, by what they were opened for.";
    CONNECTS = Counter "millpond_upstream_connects_total" ["upstream", "outcome"] "":
        "Connects to endpoints ended, by outcome.";
    CONNECT_DURATION = Histogram "millpond_upstream_connect_duration_seconds" ["upstream"] "seconds":
        "How long connects took that were established.";
    CONNECT_FAILURES = Gauge "millpond_upstream_connect_failures_in_row" ["upstream", "endpoint"] "":
        "Failed connects to the endpoint since the last that was established.";

    LEASES = Counter "millpond_leases_total" ["upstream"] "":
        "Leases of upstream connections granted, waited for or not.";
    POOL_CONNECTIONS = Gauge "millpond_pool_connections" ["upstream", "endpoint", "state"] "":
        "Connections that the pool holds now, by state.";
    POOL_SIZE = Gauge "millpond_pool_size" ["upstream", "endpoint"] "":
        "Connections that the pool may hold.";
    LEARNED_IDLE_TIMEOUT = Gauge "millpond_learned_idle_timeout_seconds" ["upstream", "endpoint"] "seconds":
        "How long the endpoint keeps idle connections, as learned from its closes; 0 while nothing is learned.";
    POOL_WAITERS = Gauge "millpond_pool_waiters" ["upstream"] "":
        "Sessions that wait for a connection now.";
    POOL_WAITS = Counter "millpond_pool_waits_total" ["upstream", "outcome"] "":
        "Waits for a connection ended, by outcome; what was granted at once is none.";
    POOL_WAIT_DURATION = Histogram "millpond_pool_wait_duration_seconds" ["upstream", "outcome"] "seconds":
        "How long waits took, granted or failed.";
    POOL_QUEUE_FULL = Counter "millpond_pool_queue_full_total" ["upstream"] "":
        "Sessions turned away because the wait queue was full.";
    DISCARDS = Counter "millpond_discards_total" ["upstream", "reason"] "":
        "Upstream connections taken out of the pool, by reason.";

    TERMINATIONS = Counter "millpond_terminations_total" ["side", "name", "initiator", "phase", "manner"] "":
        "Connections ended: who began the end, in which phase, in which manner.";
    RESETS = Counter "millpond_resets_total" ["side", "name", "direction", "phase", "cause"] "":
        "RSTs at the ends of connections, sent for a cause or received from the peer.";
    LOST_BYTES = Counter "millpond_lost_bytes_total" ["side", "name", "kind"] "":
        "Bytes that nobody read, or that the kernel of the peer never confirmed.";

    KERNEL_SOCKETS = Gauge "millpond_kernel_sockets" ["side", "name", "state"] "":
        "TCP sockets on our side of a listener or upstream as the kernel lists them, by state.";
    PEERS_TIME_WAIT = Gauge "millpond_peers_time_wait" ["side", "name"] "":
        "Sockets in TIME_WAIT that the peers of a listener or upstream keep on this host.";
    EPHEMERAL_PORTS = Gauge "millpond_ephemeral_ports" ["upstream", "endpoint", "source", "state"] "":
        "Ports that a connect to the endpoint may take, by what they are taken by.";
    PORTS_RUN_OUT = Gauge "millpond_ephemeral_ports_run_out_seconds" ["upstream", "endpoint", "source"] "seconds":
        "When no port towards the endpoint will be free, as things go; +Inf where that is not in sight.";
    SOCKET_LEAKS = Counter "millpond_socket_leaks_total" ["side", "name", "kind"] "":
        "Connections that the ledger and the kernel do not agree about.";
    CENSUSES = Counter "millpond_censuses_total" ["outcome"] "":
        "Times that the kernel was asked for its sockets, by outcome.";
    CENSUS_TIME = Gauge "millpond_census_timestamp_seconds" [] "seconds":
        "When the kernel was last asked for its sockets and answered, since 1970.";
    CENSUS_CPU = Counter "millpond_census_cpu_seconds_total" [] "":
        "CPU time that asking the kernel for its sockets took, in seconds.";

    UNATTRIBUTED_RESETS = Counter "millpond_unattributed_resets_total" ["side", "direction", "kernel_reason"] "":
        "RSTs at our addresses that the kernel told of and the ledger has none for, by the kernel's reason.";
    WITNESS_UP = Gauge "millpond_witness_up" [] "":
        "Whether the kernel's own account of resets is read: 1, or 0.";
    WITNESS_EVENTS = Counter "millpond_witness_events_total" ["direction", "verdict"] "":
        "RSTs that the kernel told of, on all of the host, by what they were found to be.";
    WITNESS_PENDING = Gauge "millpond_witness_pending_events" ["direction"] "":
        "RSTs that the kernel told of and that wait for the end of their connection.";
    WITNESS_PENDING_LIMIT = Counter "millpond_witness_pending_limit_reached_total" ["limit"] "":
        "Events that were decided before their connection had ended, because too many waited or for too long.";
    WITNESS_LOST = Counter "millpond_witness_lost_events_total" [] "":
        "Events that the kernel overwrote before they were read.";
    WITNESS_UNREADABLE = Counter "millpond_witness_unreadable_lines_total" [] "":
        "Lines of the kernel that could not be read.";

    BUILD_INFO = Gauge "millpond_build_info" ["version"] "":
        "Always 1; the version is the label.";
    DRAINING = Gauge "millpond_draining" [] "":
        "Whether the process drains: 1, or 0.";
    LAST_RELOAD_SUCCESSFUL = Gauge "millpond_config_last_reload_successful" [] "":
        "Whether the last configuration that was given was taken: 1, or 0.";
    LAST_RELOAD_TIME = Gauge "millpond_config_last_reload_success_timestamp_seconds" [] "seconds":
        "When a configuration was last taken, since 1970.";
    SESSION_LINES_SUPPRESSED = Counter "millpond_session_lines_suppressed_total" [] "":
        "Lines about the ends of sessions that the rate limit kept out of the log.";
    ADMIN_LIMIT_REACHED = Counter "millpond_admin_limit_reached_total" [] "":
        "Times that the admin interface stopped accepting because its connections were at their limit.";

    PROCESS_CPU = Counter "process_cpu_seconds_total" [] "":
        "User and system CPU time spent, in seconds.";
    PROCESS_OPEN_DESCRIPTORS = Gauge "process_open_fds" [] "":
        "Descriptors open now.";
    PROCESS_DESCRIPTORS_MAX = Gauge "process_max_fds" [] "":
        "Descriptors that may be open.";
    PROCESS_RESIDENT = Gauge "process_resident_memory_bytes" [] "bytes":
        "Resident memory.";
    PROCESS_VIRTUAL = Gauge "process_virtual_memory_bytes" [] "bytes":
        "Virtual memory.";
    PROCESS_START = Gauge "process_start_time_seconds" [] "seconds":
        "When the process started, since 1970.";
    PROCESS_THREADS = Gauge "process_threads" [] "":
        "Threads of the process.";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = HashSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(seen.insert(name), "{name} is spelled twice");
            assert!(name.ends_with(metric.unit), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{name}"
            );
            assert!(metric.help.ends_with('.'), "{name}");
            // The OpenMetrics encoder writes help texts as they are.
            assert!(!metric.help.contains(['\\', '"', '\n']), "{name}");
        }
    }
}
