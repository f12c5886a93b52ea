//! Why bytes are refused: one variant for each class, with its section of the RFCs.

use thiserror::Error;

use super::chunk::ChunkFault;
use super::fields::{CodingFault, FramingFault};
use super::head::HeadFault;

/// Why a request is refused. Each is the client's fault; the same request would be refused again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestViolation {
    /// Head or trailer section over `head_max`, or more than 100 fields.
    #[error("the head of the request is too large")]
    HeadTooLarge,
    /// Content over `body_max`.
    #[error("the content of the request is too large")]
    BodyTooLarge,
    /// RFC 9112 section 3.
    #[error("the request line is malformed")]
    BadStartLine,
    /// RFC 9110 section 5; also a field that a service may mistake for a framing field, and more
    /// than 16 connection options.
    #[error("a header field is malformed")]
    BadHeader,
    /// RFC 9112 section 2.2.
    #[error("a line does not end with CRLF")]
    BareLineEnd,
    /// RFC 9112 section 5.1.
    #[error("there is space between a field's name and its colon")]
    SpaceBeforeColon,
    /// RFC 9112 section 5.2.
    #[error("a header field is folded over several lines")]
    FoldedHeader,
    /// RFC 9112 section 6.1.
    #[error("there are both Content-Length and Transfer-Encoding")]
    LengthConflict,
    /// RFC 9112 section 6.3.
    #[error("Content-Length is not one number")]
    BadLength,
    /// RFC 9112 section 6.1.
    #[error("Transfer-Encoding is not chunked, or not only chunked")]
    BadTransferEncoding(CodingFault),
    /// RFC 9112 section 7.1.
    #[error("a chunk is malformed")]
    BadChunk,
    /// RFC 9112 section 7.1.2.
    #[error("a trailer field is malformed or not allowed there")]
    BadTrailer,
    /// RFC 9112 section 3.2.
    #[error("there is not exactly one well-formed Host")]
    BadHost,
    /// RFC 9112 section 2.3.
    #[error("only HTTP/1.0 and HTTP/1.1 are served")]
    UnsupportedVersion,
    /// CONNECT.
    #[error("the method is not served by this proxy")]
    UnsupportedMethod,
    /// RFC 9110 section 10.1.1.
    #[error("only 100-continue may be expected")]
    UnsupportedExpectation,
}

impl RequestViolation {
    /// The status code of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTooLarge => 431,
            Self::BodyTooLarge => 413,
            Self::UnsupportedExpectation => 417,
            Self::UnsupportedMethod | Self::BadTransferEncoding(CodingFault::UnknownCoding) => 501,
            Self::UnsupportedVersion => 505,
            Self::BadStartLine
            | Self::BadHeader
            | Self::BareLineEnd
            | Self::SpaceBeforeColon
            | Self::FoldedHeader
            | Self::LengthConflict
            | Self::BadLength
            | Self::BadTransferEncoding(CodingFault::Malformed)
            | Self::BadChunk
            | Self::BadTrailer
            | Self::BadHost => 400,
        }
    }
}

impl From<HeadFault> for RequestViolation {
    fn from(fault: HeadFault) -> Self {
        match fault {
            HeadFault::TooLarge => Self::HeadTooLarge,
            HeadFault::BareLineEnd => Self::BareLineEnd,
            HeadFault::SpaceBeforeColon => Self::SpaceBeforeColon,
            HeadFault::Folded => Self::FoldedHeader,
            HeadFault::BadField => Self::BadHeader,
        }
    }
}

impl From<FramingFault> for RequestViolation {
    fn from(fault: FramingFault) -> Self {
        match fault {
            FramingFault::Conflict => Self::LengthConflict,
            FramingFault::BadLength => Self::BadLength,
            FramingFault::BadCoding(fault) => Self::BadTransferEncoding(fault),
        }
    }
}

impl From<ChunkFault> for RequestViolation {
    fn from(fault: ChunkFault) -> Self {
        match fault {
            ChunkFault::BadChunk => Self::BadChunk,
            ChunkFault::BadTrailer => Self::BadTrailer,
            ChunkFault::BareLineEnd => Self::BareLineEnd,
            ChunkFault::TrailersTooLarge => Self::HeadTooLarge,
            ChunkFault::DataOverLimit => Self::BodyTooLarge,
        }
    }
}

/// How a response breaks its own framing. Each is the service's fault. If no byte of the response
/// went on to the client, it can be answered with a 502, otherwise the response is truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ResponseViolation {
    /// Head or trailer section over `head_max`, or more than 100 fields.
    #[error("the head of the response is too large")]
    HeadTooLarge,
    /// RFC 9112 section 4.
    #[error("the status line is malformed")]
    BadStatusLine,
    /// RFC 9110 section 5, and more than 16 connection options.
    #[error("a header field of the response is malformed")]
    BadHeader,
    /// RFC 9112 section 2.2.
    #[error("a line of the response does not end with CRLF")]
    BareLineEnd,
    /// RFC 9112 section 5.2.
    #[error("a header field of the response is folded over several lines")]
    FoldedHeader,
    /// RFC 9112 section 6.1.
    #[error("the response has both Content-Length and Transfer-Encoding")]
    LengthConflict,
    /// RFC 9112 section 6.3.
    #[error("Content-Length of the response is not one number")]
    BadLength,
    /// RFC 9112 section 6.1; also any from an HTTP/1.0 service.
    #[error("Transfer-Encoding of the response is not chunked, or not only chunked")]
    BadTransferEncoding(CodingFault),
    /// RFC 9112 section 7.1.
    #[error("a chunk of the response is malformed")]
    BadChunk,
    /// RFC 9112 section 7.1.2.
    #[error("a trailer field of the response is malformed or not allowed there")]
    BadTrailer,
    /// RFC 9110 section 15.2.2.
    #[error("the response switches protocols without having been asked to")]
    UnaskedUpgrade,
    /// More than 100.
    #[error("there were too many interim responses")]
    TooManyInterim,
}

impl From<HeadFault> for ResponseViolation {
    fn from(fault: HeadFault) -> Self {
        match fault {
            HeadFault::TooLarge => Self::HeadTooLarge,
            HeadFault::BareLineEnd => Self::BareLineEnd,
            HeadFault::Folded => Self::FoldedHeader,
            // Of space before a colon only what is not followed by one is left to refuse.
            HeadFault::BadField | HeadFault::SpaceBeforeColon => Self::BadHeader,
        }
    }
}

impl From<FramingFault> for ResponseViolation {
    fn from(fault: FramingFault) -> Self {
        match fault {
            FramingFault::Conflict => Self::LengthConflict,
            FramingFault::BadLength => Self::BadLength,
            FramingFault::BadCoding(fault) => Self::BadTransferEncoding(fault),
        }
    }
}

impl From<ChunkFault> for ResponseViolation {
    fn from(fault: ChunkFault) -> Self {
        match fault {
            // A response's content has no limit, so it can't be over it.
            ChunkFault::BadChunk | ChunkFault::DataOverLimit => Self::BadChunk,
            ChunkFault::BadTrailer => Self::BadTrailer,
            ChunkFault::BareLineEnd => Self::BareLineEnd,
            ChunkFault::TrailersTooLarge => Self::HeadTooLarge,
        }
    }
}
