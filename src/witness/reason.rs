//! Why the kernel sent an RST, in the kernel's own words (Linux, `include/net/rstreason.h`).
//!
//! A row here is the label of a metric, so a change of a label is a change of the public interface.
//! Not here: why millpond wanted an RST (see `close`); the kernel knows nothing of that.

macro_rules! kernel_reasons {
    ($($variant:ident $name:literal => $label:literal: $meaning:literal,)*) => {
        /// Why the kernel sent an RST.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum KernelReason {
            $(#[doc = $meaning] $variant,)*
            /// It was received: the peer's kernel does not tell.
            Peer,
            /// A name that is not in this list.
            Unnamed,
            /// The kernel tells no reason: Linux before 6.10.
            Unknown,
        }

        impl KernelReason {
            /// Every member.
            pub const ALL: &[Self] =
                &[$(Self::$variant,)* Self::Peer, Self::Unnamed, Self::Unknown];

            /// The text of its label: stable, part of the public interface.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                    Self::Peer => "peer",
                    Self::Unnamed => "unnamed",
                    Self::Unknown => "unknown",
                }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning,)*
                    Self::Peer => "The peer's kernel sent it and does not say why.",
                    Self::Unnamed => "The kernel has a name for it that millpond does not know.",
                    Self::Unknown => "The kernel tells no reason: Linux before 6.10.",
                }
            }

            /// The reason with this name of the kernel's.
            pub fn named(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    _ => Self::Unnamed,
                }
            }
        }
    };
}

kernel_reasons! {
    NotSpecified "NOT_SPECIFIED" => "not_specified": "The kernel says that it does not say.",
    NoSocket "NO_SOCKET" => "no_socket": "A segment came for which there was no socket.",
    InvalidAckSequence "TCP_INVALID_ACK_SEQUENCE" => "tcp_invalid_ack_sequence": "A handshake was acknowledged wrongly.",
    Paws "TCP_RFC7323_PAWS" => "tcp_rfc7323_paws": "A timestamp went back (RFC 7323).",
    TooOldAck "TCP_TOO_OLD_ACK" => "tcp_too_old_ack": "An acknowledgement was too old.",
    AckUnsentData "TCP_ACK_UNSENT_DATA" => "tcp_ack_unsent_data": "What was acknowledged had never been sent.",
    Flags "TCP_FLAGS" => "tcp_flags": "The flags of a segment make no sense.",
    OldAck "TCP_OLD_ACK" => "tcp_old_ack": "An acknowledgement was old.",
    AbortOnData "TCP_ABORT_ON_DATA" => "tcp_abort_on_data": "Data came for a socket that its program had closed.",
    TimewaitSocket "TCP_TIMEWAIT_SOCKET" => "tcp_timewait_socket": "A segment came for a connection in TIME_WAIT.",
    InvalidSyn "INVALID_SYN" => "invalid_syn": "A SYN came inside a connection.",
    AbortOnClose "TCP_ABORT_ON_CLOSE" => "tcp_abort_on_close": "A socket was closed with bytes that nobody had read.",
    AbortOnLinger "TCP_ABORT_ON_LINGER" => "tcp_abort_on_linger": "A closed socket's time to wait for the peer's FIN was over.",
    AbortOnMemory "TCP_ABORT_ON_MEMORY" => "tcp_abort_on_memory": "The kernel ran short of memory for sockets.",
    State "TCP_STATE" => "tcp_state": "A program aborted the connection, by a linger time of 0.",
    KeepaliveTimeout "TCP_KEEPALIVE_TIMEOUT" => "tcp_keepalive_timeout": "The peer did not answer keepalive probes.",
    DisconnectWithData "TCP_DISCONNECT_WITH_DATA" => "tcp_disconnect_with_data": "A socket was disconnected with data under way.",
    MptcpUnspecified "MPTCP_RST_EUNSPEC" => "mptcp_rst_eunspec": "MPTCP: unspecified.",
    MptcpSpecific "MPTCP_RST_EMPTCP" => "mptcp_rst_emptcp": "MPTCP: a subflow's own error.",
    MptcpResource "MPTCP_RST_ERESOURCE" => "mptcp_rst_eresource": "MPTCP: lack of resources.",
    MptcpProhibited "MPTCP_RST_EPROHIBIT" => "mptcp_rst_eprohibit": "MPTCP: administratively prohibited.",
    MptcpTooMuchData "MPTCP_RST_EWQ2BIG" => "mptcp_rst_ewq2big": "MPTCP: too much outstanding data.",
    MptcpPerformance "MPTCP_RST_EBADPERF" => "mptcp_rst_ebadperf": "MPTCP: unacceptable performance.",
    MptcpMiddlebox "MPTCP_RST_EMIDDLEBOX" => "mptcp_rst_emiddlebox": "MPTCP: a middlebox interferes.",
    Error "ERROR" => "error": "Something that the kernel has no name for.",
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_is_found_by_its_name_in_capitals() {
        let mut labels = HashSet::new();
        for &reason in KernelReason::ALL {
            let label = reason.label();
            assert!(labels.insert(label), "{label} stands twice");
            let not_named = matches!(
                reason,
                KernelReason::Peer | KernelReason::Unnamed | KernelReason::Unknown
            );
            let found = KernelReason::named(&label.to_ascii_uppercase());
            assert_eq!(
                found == reason,
                !not_named || reason == KernelReason::Unnamed
            );
        }
        assert_eq!(KernelReason::named("0x1b"), KernelReason::Unnamed);
    }
}
