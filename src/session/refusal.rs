//! What a client is told when millpond answers in the service's place.
//!
//! One row for each reason: the status, and one sentence that says why. A refusal speaks the
//! client's protocol; the connection goes on where its state is known.

use super::{Closing, Session, SessionEnd};
use crate::close::{Initiator, Manner, Phase, ResetCause, Termination};
use crate::config::checked::Refuse;
use crate::protocol::frames::FrameViolation;
use crate::protocol::http::{CodingFault, RequestViolation};
use crate::stats::reason::{ExchangeOutcome, RefusalReason};
use crate::upstream::AcquireError;

/// Status code and sentence for a refusal.
pub(super) fn answer(reason: RefusalReason) -> (u16, &'static str) {
    use RefusalReason as R;
    match reason {
        R::QueueFull => (
            503,
            "Too many requests are waiting for a connection to the service.",
        ),
        R::WaitTimeout => (503, "No connection to the service became free in time."),
        R::ConnectFailed => (502, "The service could not be connected to."),
        R::DialShortage => (
            503,
            "The proxy can't open a connection to the service at present.",
        ),
        R::UpstreamDied => (502, "The service closed the connection without an answer."),
        R::UpstreamVanished => (502, "The service vanished without an answer."),
        R::CrossedAnswer => (502, "The service's connection was not clean."),
        // Frames have no status; what is sent in their place is configured.
        R::FrameTooLong => (413, "The frame is too long."),
        R::BadFrame => (400, "The frame is malformed."),
        R::BadResponse => (502, "The service's answer is not valid HTTP."),
        R::ResponseTimeout => (504, "The service did not answer in time."),
        R::HeadTimeout => (408, "The request's head did not arrive in time."),
        R::BodyTimeout => (408, "The request's body did not arrive in time."),
        R::HeadTooLarge => (431, "The request's head is too large."),
        R::BodyTooLarge => (413, "The request's body is too large."),
        // The languages that have commands have errors of their own; see `protocol`.
        R::BadCommand => (400, "The command is malformed."),
        R::CommandRefused => (403, "The command is not served here."),
        R::NoLeases => (503, "Too many clients hold a connection of their own."),
        R::BadStartLine => (400, "The request line is malformed."),
        R::BadHeader => (400, "A header field is malformed."),
        R::BareLineEnd => (400, "A line does not end in CRLF."),
        R::SpaceBeforeColon => (400, "A header field has space before its colon."),
        R::FoldedHeader => (400, "A header field is folded over several lines."),
        R::LengthConflict => (
            400,
            "Content-Length and Transfer-Encoding exclude each other.",
        ),
        R::BadLength => (400, "The Content-Length is malformed."),
        R::BadTransferEncoding => (400, "The Transfer-Encoding is not chunked alone."),
        R::UnknownTransferCoding => (501, "The Transfer-Encoding is not known here."),
        R::BadChunk => (400, "A chunk of the body is malformed."),
        R::BadTrailer => (400, "A trailer field is malformed or not allowed."),
        R::BadHost => (400, "The Host field is missing, repeated or malformed."),
        R::UnsupportedVersion => (505, "Only HTTP/1.1 and HTTP/1.0 are spoken here."),
        R::UnsupportedMethod => (501, "The method is not served here."),
        R::UnsupportedExpectation => (417, "Only the expectation 100-continue can be met."),
        R::Draining => (503, "The proxy is stopping."),
    }
}

/// The end of a session that is closed after this refusal.
pub(super) fn end(reason: RefusalReason) -> SessionEnd {
    use RefusalReason as R;
    let (initiator, phase, manner) = match reason {
        R::QueueFull | R::DialShortage | R::NoLeases => {
            (Initiator::Millpond, Phase::Queue, Manner::Limit)
        }
        R::WaitTimeout => (Initiator::Millpond, Phase::Queue, Manner::Timeout),
        R::Draining => (Initiator::Operator, Phase::Request, Manner::Refused),
        R::ConnectFailed => (Initiator::Upstream, Phase::Queue, Manner::Refused),
        R::UpstreamDied => (Initiator::Upstream, Phase::Request, Manner::Fin),
        R::UpstreamVanished => (Initiator::Kernel, Phase::Request, Manner::Fin),
        R::BadResponse | R::CrossedAnswer => {
            (Initiator::Upstream, Phase::Request, Manner::Violation)
        }
        R::ResponseTimeout | R::HeadTimeout | R::BodyTimeout => {
            (Initiator::Millpond, Phase::Request, Manner::Timeout)
        }
        R::HeadTooLarge | R::BodyTooLarge | R::FrameTooLong => {
            (Initiator::Millpond, Phase::Request, Manner::Limit)
        }
        R::BadFrame
        | R::BadCommand
        | R::CommandRefused
        | R::BadStartLine
        | R::BadHeader
        | R::BareLineEnd
        | R::SpaceBeforeColon
        | R::FoldedHeader
        | R::LengthConflict
        | R::BadLength
        | R::BadTransferEncoding
        | R::UnknownTransferCoding
        | R::BadChunk
        | R::BadTrailer
        | R::BadHost
        | R::UnsupportedVersion
        | R::UnsupportedMethod
        | R::UnsupportedExpectation => (Initiator::Downstream, Phase::Request, Manner::Violation),
    };
    SessionEnd::graceful(initiator, phase, manner)
}

/// The end of a session whose client is told nothing, because its protocol has no words for it.
pub(super) fn wordless(reason: RefusalReason, refuse: Refuse) -> SessionEnd {
    let closing = match refuse {
        Refuse::Reset if !is_clients_fault(reason) => {
            Closing::ResetAfterDelivery(ResetCause::Operator)
        }
        _ => Closing::Graceful,
    };
    SessionEnd {
        closing,
        ..end(reason)
    }
}

/// Whether the client broke a rule of its protocol, or a limit.
pub(super) fn is_clients_fault(reason: RefusalReason) -> bool {
    matches!(
        end(reason).termination,
        Termination {
            initiator: Initiator::Downstream,
            ..
        }
    ) || matches!(
        reason,
        RefusalReason::FrameTooLong | RefusalReason::HeadTimeout | RefusalReason::BodyTimeout
    )
}

impl Session {
    /// Ends the session without a word, counted.
    pub(super) fn turn_away(&mut self, reason: RefusalReason) -> SessionEnd {
        self.count_refusal(reason);
        wordless(reason, self.rules.listener.refuse)
    }

    /// Counts what is refused.
    pub(super) fn count_refusal(&mut self, reason: RefusalReason) {
        self.rules.stats.refusals.increment(reason);
        self.refused = Some(reason);
    }

    /// Counts an exchange whose request had been accepted.
    pub(super) fn count_refused_exchange(&self) {
        let stats = self.rules.upstream.stats();
        stats.exchanges.increment(ExchangeOutcome::Refused);
    }
}

impl From<FrameViolation> for RefusalReason {
    fn from(violation: FrameViolation) -> Self {
        match violation {
            FrameViolation::TooLong => Self::FrameTooLong,
            FrameViolation::BadLength
            | FrameViolation::BadId
            | FrameViolation::BadMagic
            | FrameViolation::TooManyHeartbeats => Self::BadFrame,
        }
    }
}

impl From<RequestViolation> for RefusalReason {
    fn from(violation: RequestViolation) -> Self {
        use RequestViolation as V;
        match violation {
            V::HeadTooLarge => Self::HeadTooLarge,
            V::BodyTooLarge => Self::BodyTooLarge,
            V::BadStartLine => Self::BadStartLine,
            V::BadHeader => Self::BadHeader,
            V::BareLineEnd => Self::BareLineEnd,
            V::SpaceBeforeColon => Self::SpaceBeforeColon,
            V::FoldedHeader => Self::FoldedHeader,
            V::LengthConflict => Self::LengthConflict,
            V::BadLength => Self::BadLength,
            V::BadTransferEncoding(CodingFault::Malformed) => Self::BadTransferEncoding,
            V::BadTransferEncoding(CodingFault::UnknownCoding) => Self::UnknownTransferCoding,
            V::BadChunk => Self::BadChunk,
            V::BadTrailer => Self::BadTrailer,
            V::BadHost => Self::BadHost,
            V::UnsupportedVersion => Self::UnsupportedVersion,
            V::UnsupportedMethod => Self::UnsupportedMethod,
            V::UnsupportedExpectation => Self::UnsupportedExpectation,
        }
    }
}

/// The reason for a session that could not be lent a connection.
pub(super) fn of_acquire(error: &AcquireError) -> RefusalReason {
    match error {
        AcquireError::QueueFull => RefusalReason::QueueFull,
        AcquireError::TimedOut => RefusalReason::WaitTimeout,
        AcquireError::ConnectFailed(outcome) if outcome.is_local() => RefusalReason::DialShortage,
        AcquireError::ConnectFailed(_) => RefusalReason::ConnectFailed,
        AcquireError::Draining => RefusalReason::Draining,
    }
}
