//! The closed lists of reasons and outcomes that millpond counts.
//!
//! Nothing ends, waits or is refused without one of these, and there is no "other". A row here is
//! the label of a metric, so a change of a label is a change of the public interface.

/// A closed list whose members label a counter.
pub trait Reason: Copy + Send + Sync + 'static {
    /// Every member, in the order of [`Reason::index`].
    const ALL: &'static [Self];
    /// The member's place in [`Reason::ALL`].
    fn index(self) -> usize;
    /// The text of its label: stable, lower case, words joined by `_`.
    fn label(self) -> &'static str;
    /// What it means, in one sentence for the docs.
    fn meaning(self) -> &'static str;
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($variant:ident => $label:literal: $meaning:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $(#[doc = $meaning] $variant,)* }

        impl Reason for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];
            fn index(self) -> usize { self as usize }
            fn label(self) -> &'static str { match self { $(Self::$variant => $label,)* } }
            fn meaning(self) -> &'static str { match self { $(Self::$variant => $meaning,)* } }
        }
    };
}

reasons! {
    /// Why an upstream connection was opened.
    OpenReason {
        Demand => "demand": "A session waited for it.",
        Warm => "warm": "`min_idle` asked for it.",
        Balance => "balance": "Its endpoint had less to do than its share.",
        Trial => "trial": "Its endpoint had failed, and its rest was over.",
    }
}

reasons! {
    /// How a connect to an endpoint ended.
    ConnectOutcome {
        Established => "established": "The endpoint accepted it.",
        Refused => "refused": "The endpoint's host answered with a RST: nobody listens there.",
        TimedOut => "timeout": "Nothing was heard within `connect_timeout`.",
        Unreachable => "unreachable": "No route, or the network said no.",
        PortsExhausted => "ports_exhausted": "This host has no free port towards the endpoint.",
        SourceUnusable => "source_unusable": "No address of `source` is one of this host's and of the endpoint's family.",
        DescriptorsExhausted => "descriptors_exhausted": "The process or host is out of descriptors.",
        Unresolved => "unresolved": "The endpoint's name has no address.",
        Denied => "denied": "The kernel or a Unix socket's permissions refused it.",
        Abandoned => "abandoned": "Nobody needed it any more (drain, or the endpoint was removed).",
    }
}

impl ConnectOutcome {
    /// Whether this host could not dial, whatever the endpoint.
    pub fn is_local(self) -> bool {
        match self {
            Self::PortsExhausted | Self::SourceUnusable | Self::DescriptorsExhausted => true,
            Self::Established
            | Self::Refused
            | Self::TimedOut
            | Self::Unreachable
            | Self::Unresolved
            | Self::Denied
            | Self::Abandoned => false,
        }
    }
}

reasons! {
    /// Why an upstream connection was taken out of the pool.
    DiscardReason {
        IdleTimeout => "idle_timeout": "Idle for longer than `idle_timeout`.",
        IdleLearned => "idle_learned": "Idle for nearly as long as its service keeps it, as that has announced or its closes have shown.",
        MaxLifetime => "max_lifetime": "Older than `max_lifetime`.",
        MaxExchanges => "max_exchanges": "It has carried `max_exchanges` exchanges.",
        PoolShrunk => "pool_shrunk": "`size` was made smaller.",
        EndpointRemoved => "endpoint_removed": "Its endpoint was removed.",
        Flushed => "flushed": "An operator's command, or a reload that changed how its boundaries are known.",
        KeyNeeded => "key_needed": "Idle, and retired to make room for a waiter with another pool key.",
        ResetRefused => "reset_refused": "The service did not bring it back to where it began, or refused who was to be served.",
        Drain => "drain": "millpond is stopping.",
        IdleFin => "idle_fin": "The service closed it while it was idle.",
        IdleReset => "idle_reset": "The service reset it while it was idle.",
        IdleVanished => "idle_vanished": "The service vanished while it was idle: `keepalive` found it out.",
        IdleBytes => "idle_bytes": "The service sent bytes that nobody had asked for while it was idle.",
        ServiceClose => "service_close": "The service said, in the protocol, that it would close it.",
        UntilClose => "until_close": "The response ended where the connection did.",
        Tunnel => "tunnel": "It was pinned for life (an Upgrade), and its client ended the session.",
        SessionEnd => "session_end": "Its client ended the session, and `tcp` without reuse lends a connection once.",
        ServiceEnd => "service_end": "The service ended a tunnel, or a session of `tcp`, first.",
        TunnelTimeout => "tunnel_timeout": "A tunnel, or a session of `tcp`, was idle or half-closed for longer than its limit.",
        ReuseTls => "reuse_tls": "Not reused: its client spoke TLS, whose keys belong to one client.",
        ReuseGreeting => "reuse_greeting": "Not reused: the service spoke first, and the next client would miss its greeting.",
        ReuseUnanswered => "reuse_unanswered": "Not reused: its client ended when the service did not have the last word.",
        ReuseUnacknowledged => "reuse_unacknowledged": "Not reused: not everything that was written to either side had been acknowledged.",
        ReuseLateBytes => "reuse_late_bytes": "Not reused: the service spoke again after it had been quiet.",
        ReuseProbeWrong => "reuse_probe_wrong": "Not reused: something else than the expected bytes answered the probe.",
        ReuseProbeTimeout => "reuse_probe_timeout": "Not reused: the probe was not answered within `probe_timeout`.",
        LostRace => "lost_race": "The service closed it just as a request was written.",
        CrossedAnswer => "crossed_answer": "Bytes came before the service had acknowledged anything of the request.",
        HalfRequest => "half_request": "The response ended before the request was complete.",
        RequestViolation => "request_violation": "The client's request broke the protocol after some of it had been passed on.",
        RequestLimit => "request_limit": "The client's request was over a limit after some of it had been passed on.",
        ClientGone => "client_gone": "The client left in the middle of an exchange.",
        ClientVanished => "client_vanished": "The client vanished in the middle of an exchange: nothing came, not even a reset.",
        ClientStalled => "client_stalled": "The client took nothing of its answer, or gave nothing of its request, for `stall_timeout`.",
        ResponseTimeout => "response_timeout": "The service was silent for `response_timeout`.",
        NoAnswer => "no_answer": "The service closed or reset a new connection without a byte of an answer.",
        UpstreamFin => "upstream_fin": "The service closed in the middle of an exchange.",
        UpstreamReset => "upstream_reset": "The service reset it in the middle of an exchange.",
        UpstreamVanished => "upstream_vanished": "The service vanished in the middle of an exchange: nothing came, not even a reset.",
        Violation => "violation": "The service broke the protocol's framing.",
        StrayBytes => "stray_bytes": "Bytes came after the end of the response.",
        Cancelled => "cancelled": "The session was cut off (end of the drain's time, an operator's command).",
    }
}

reasons! {
    /// What the ledger and the kernel do not agree about.
    Leak {
        NoEntry => "no_entry": "The process has a socket that the ledger has no entry for.",
        NoSocket => "no_socket": "The ledger has an open entry whose socket is closed.",
    }
}

reasons! {
    /// How a wait in an upstream's queue ended.
    WaitOutcome {
        Granted => "granted": "The session got a connection.",
        TimedOut => "timeout": "`wait_timeout` passed.",
        Failed => "failed": "No endpoint could be connected to.",
        Abandoned => "abandoned": "The client went away, or millpond is stopping.",
    }
}

reasons! {
    /// How an exchange ended, as its client saw it.
    ExchangeOutcome {
        Completed => "completed": "The response was delivered to its end.",
        Pinned => "pinned": "It became a tunnel (Upgrade).",
        Refused => "refused": "millpond answered in the service's place.",
        Truncated => "truncated": "The response was cut short.",
        Abandoned => "abandoned": "The client left before the end.",
    }
}

reasons! {
    /// Why a request was sent again or elsewhere.
    RetryReason {
        Unsent => "unsent": "Nothing of it had been sent; another endpoint took it.",
        Proven => "proven": "TCP proved that the service never had it: a reused connection was closed before it came.",
        Idempotent => "idempotent": "A reused connection died under it, and the protocol calls it idempotent.",
    }
}

reasons! {
    /// Why a request that met the end of a reused connection was not sent again, so that its client got
    /// an error.
    RaceLost {
        Acknowledged => "acknowledged": "The service's kernel had acknowledged some of it, so it may have been executed.",
        Reset => "not_proven_reset": "The service reset the connection without closing it first, so it may have been executed.",
        Undecided => "undecided": "The service's kernel answered it neither with an ACK nor with a RST in time.",
        Uncounted => "not_tcp": "It went over a Unix socket, or past TCP, so that nothing counts what arrived.",
        Oneway => "oneway": "The protocol has messages without an answer, so the proof would not hold.",
        TooLarge => "too_large": "The service never had it, but more than `retry_buffer` of it had been sent.",
        RetriesSpent => "retries_spent": "It had been sent again as often as a request may be.",
        Off => "off": "`retry` is `off`.",
    }
}

reasons! {
    /// Why a session of a protocol whose connections are shared needed one of its own.
    LeaseReason {
        Transaction => "transaction": "MULTI whose EXEC did not come with it.",
        Watch => "watch": "WATCH: what it watches is remembered by the connection.",
        Blocking => "blocking": "A command that waits for something to happen.",
        Subscribe => "subscribe": "A subscriber is told things unasked.",
        Monitor => "monitor": "MONITOR tells every command of every client.",
        Tracking => "tracking": "CLIENT TRACKING and the like change what the connection is told.",
        LargeRequest => "large_request": "A request too large to be held whole.",
        UnknownCommand => "unknown_command": "A command of which it is not known what it does to its connection.",
        Configured => "configured": "An operator keeps it off the shared connections.",
        Identity => "identity": "The service is asked whether it accepts a user or a database.",
        NoRoom => "no_room": "All shared connections serve other pool keys.",
    }
}

reasons! {
    /// Why a message of a service with ids reached no client.
    DroppedMessage {
        Unowned => "unowned": "Its id is that of no request that is under way over its connection.",
        Late => "late": "It answers a request that was given up after `response_timeout`.",
        Unasked => "unasked": "The service said it of its own accord.",
        Answer => "answer": "A client's answer to what a service had asked, which no client was shown.",
    }
}

reasons! {
    /// Why millpond refused a client something.
    RefusalReason {
        QueueFull => "queue_full": "`wait_queue` sessions waited already (503).",
        WaitTimeout => "wait_timeout": "No connection within `wait_timeout` (503).",
        ConnectFailed => "connect_failed": "No endpoint could be connected to (502).",
        DialShortage => "dial_shortage": "millpond's own host had no port, address or descriptor left to dial with (503).",
        UpstreamDied => "upstream_died": "The service closed or reset the connection without an answer (502).",
        UpstreamVanished => "upstream_vanished": "The service vanished without an answer (502).",
        CrossedAnswer => "crossed_answer": "Bytes that were meant for somebody else came from the service (502).",
        FrameTooLong => "frame_too_long": "A frame was over `max`.",
        BadFrame => "bad_frame": "A frame's length is impossible, or its id or magic is not where it should be.",
        BadResponse => "bad_response": "The service's response broke the protocol's framing (502).",
        ResponseTimeout => "response_timeout": "The service did not answer within `response_timeout` (504).",
        HeadTimeout => "head_timeout": "The request's head was not complete within `head_timeout` (408).",
        BodyTimeout => "body_timeout": "The request's body made no progress for `stall_timeout` (408).",
        HeadTooLarge => "head_too_large": "The request's head was over `head_max` (431).",
        BodyTooLarge => "body_too_large": "The request's body was over `body_max` (413).",
        BadCommand => "bad_command": "A command that breaks the protocol.",
        CommandRefused => "command_refused": "A command that would hurt the other clients of a shared connection.",
        NoLeases => "no_leases": "All connections that one session may have for long are taken.",
        BadStartLine => "bad_start_line": "The request line is not one (400).",
        BadHeader => "bad_header": "A header field has a name or value with forbidden bytes (400).",
        BareLineEnd => "bare_line_end": "A bare CR or LF stood where only CRLF may (400).",
        SpaceBeforeColon => "space_before_colon": "Space between a field's name and its colon (400).",
        FoldedHeader => "folded_header": "An obsolete folded header line (400).",
        LengthConflict => "length_conflict": "Content-Length and Transfer-Encoding together (400).",
        BadLength => "bad_length": "Several Content-Lengths, or one that is not a number (400).",
        BadTransferEncoding => "bad_transfer_encoding": "A Transfer-Encoding that does not end in `chunked`, or is not `chunked` alone (400).",
        UnknownTransferCoding => "unknown_transfer_coding": "A Transfer-Encoding with a coding that is not known here (501).",
        BadChunk => "bad_chunk": "A chunk's size or end is malformed (400).",
        BadTrailer => "bad_trailer": "A trailer field is malformed or forbidden (400).",
        BadHost => "bad_host": "No Host, several, or a malformed one (400).",
        UnsupportedVersion => "unsupported_version": "Neither HTTP/1.0 nor HTTP/1.1 (505).",
        UnsupportedMethod => "unsupported_method": "CONNECT, which this proxy does not serve (501).",
        UnsupportedExpectation => "unsupported_expectation": "An Expect other than 100-continue (417).",
        Draining => "draining": "millpond was stopping.",
    }
}
