//! The fields that a proxy reads, and the grammars of their values (RFC 9110 sections 7.6, 7.8 and
//! 8.6, RFC 9112 sections 6 and 9).
//!
//! Stricter than the grammar where two recipients are known to differ: an empty member of a
//! Transfer-Encoding list, a list of equal Content-Lengths, and names that a service may take for
//! framing fields because it turns `_` into `-`.
//!
//! Invariant: a value has one reading here or none.

use super::BodyLength;

/// Connection options in one head, at most. Each of them is compared with each field.
const OPTIONS_MAX: usize = 16;

/// A field's meaning to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Connection,
    ContentLength,
    Expect,
    ForwardedFor,
    ForwardedProto,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    /// `Content_Length`, `Transfer_Encoding` and their mixtures: to us a field like any other, to a
    /// service behind a CGI-like interface a framing field.
    FramingLookalike,
    /// Goes from end to end.
    Other,
}

impl Field {
    pub(super) fn of(name: &str) -> Self {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            7 if is("trailer") => Self::Trailer,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::KeepAlive,
            14 if is("content-length") => Self::ContentLength,
            14 if is("http2-settings") => Self::Http2Settings,
            14 if is_but_underscores(name, "content-length") => Self::FramingLookalike,
            15 if is("x-forwarded-for") => Self::ForwardedFor,
            16 if is("proxy-connection") => Self::ProxyConnection,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is("x-forwarded-proto") => Self::ForwardedProto,
            17 if is_but_underscores(name, "transfer-encoding") => Self::FramingLookalike,
            _ => Self::Other,
        }
    }

    /// True for what concerns one hop only, and `Connection` itself (RFC 9110 section 7.6.1).
    pub(super) fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::Http2Settings
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::Upgrade
        )
    }

    /// True for what a `Connection` option of the same name removes. Framing, `Host` and `Expect`
    /// stay, because the message would mean something else without them, and the forwarding fields
    /// stay, because a client could otherwise blot out what a proxy in front of us has said.
    pub(super) fn yields_to_nomination(self) -> bool {
        matches!(self, Self::Other | Self::Trailer)
    }
}

fn is_but_underscores(name: &str, other: &str) -> bool {
    name.bytes().zip(other.bytes()).all(|(byte, wanted)| {
        byte.eq_ignore_ascii_case(&wanted) || (byte == b'_' && wanted == b'-')
    })
}

/// The options of all `Connection` fields of a head.
#[derive(Debug, Default)]
pub(super) struct Connection<'b> {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    nominated: [&'b [u8]; OPTIONS_MAX],
    nominated_len: usize,
}

impl<'b> Connection<'b> {
    /// Adds a field's options. False: there are more than [`OPTIONS_MAX`].
    #[must_use]
    pub(super) fn add(&mut self, value: &'b [u8]) -> bool {
        for option in members(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if let Some(place) = self.nominated.get_mut(self.nominated_len) {
                *place = option;
                self.nominated_len += 1;
            } else {
                return false;
            }
        }
        true
    }

    /// True where the field concerns this hop only.
    pub(super) fn nominates(&self, name: &str) -> bool {
        self.nominated[..self.nominated_len]
            .iter()
            .any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// The non-empty members of a comma-separated list (RFC 9110 section 5.6.1).
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// What is wrong with a Transfer-Encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodingFault {
    /// Well-formed and chunked at the end, but with another coding before, which is not served.
    UnknownCoding,
    /// Anything else that is not exactly `chunked`: the end of the content cannot be told.
    Malformed,
}

/// What is wrong with the fields that frame a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FramingFault {
    /// Both fields are there (RFC 9112 section 6.1).
    Conflict,
    /// Several Content-Lengths, equal ones included, or one that is not a number up to 2^63-1.
    BadLength,
    BadCoding(CodingFault),
}

/// The fields of a head that frame its message.
#[derive(Debug, Default)]
pub(super) struct Framing<'b> {
    length: Option<&'b [u8]>,
    coding: Option<&'b [u8]>,
    length_repeated: bool,
    coding_repeated: bool,
}

impl<'b> Framing<'b> {
    pub(super) fn add_length(&mut self, value: &'b [u8]) {
        self.length_repeated |= self.length.replace(value).is_some();
    }

    pub(super) fn add_coding(&mut self, value: &'b [u8]) {
        self.coding_repeated |= self.coding.replace(value).is_some();
    }

    /// The length that the fields give. `version_minor` is the sender's: HTTP/1.0 has no
    /// Transfer-Encoding, and a message that has both is faulty (RFC 9112 section 6.1).
    pub(super) fn read(&self, version_minor: u8) -> Result<BodyLength, FramingFault> {
        match (self.length, self.coding) {
            (None, None) => Ok(BodyLength::None),
            (Some(_), Some(_)) => Err(FramingFault::Conflict),
            (Some(_), None) if self.length_repeated => Err(FramingFault::BadLength),
            (Some(value), None) => content_length(value)
                .map(BodyLength::Length)
                .ok_or(FramingFault::BadLength),
            (None, Some(_)) if self.coding_repeated || version_minor == 0 => {
                Err(FramingFault::BadCoding(CodingFault::Malformed))
            }
            (None, Some(value)) => match coding_fault(value) {
                None => Ok(BodyLength::Chunked),
                Some(fault) => Err(FramingFault::BadCoding(fault)),
            },
        }
    }
}

/// 1*DIGIT up to 2^63-1: what a service holds in a signed integer must not differ from our reading.
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = value
        .iter()
        .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    (length <= i64::MAX as u64).then_some(length)
}

fn coding_fault(value: &[u8]) -> Option<CodingFault> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if is_chunked(value) {
        return None;
    }
    let mut codings = value.rsplit(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let ends_chunked = codings.next().is_some_and(is_chunked);
    let others_known = codings.all(|coding| {
        let name = coding
            .split(|&byte| byte == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        !name.is_empty() && !is_chunked(name) && name.iter().copied().all(is_token)
    });
    match ends_chunked && others_known {
        true => Some(CodingFault::UnknownCoding),
        false => Some(CodingFault::Malformed),
    }
}

/// True for `uri-host [ ":" port ]` (RFC 9110 section 7.2) with a host that is not empty. A comma,
/// though a sub-delim, is refused: it is where two Hosts would have been joined.
pub(super) fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', inside @ ..] => {
            let Some(end) = inside.iter().position(|&byte| byte == b']') else {
                return false;
            };
            let literal = &inside[..end];
            let fits = |&byte: &u8| byte.is_ascii_alphanumeric() || b":.-_~%".contains(&byte);
            if !literal.contains(&b':') || !literal.iter().all(fits) {
                return false;
            }
            (literal, &inside[end + 1..])
        }
        _ => {
            let end = value
                .iter()
                .position(|&byte| byte == b':')
                .unwrap_or(value.len());
            let (host, port) = value.split_at(end);
            let fits =
                |&byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte);
            if !host.iter().all(fits) {
                return false;
            }
            (host, port)
        }
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !host.is_empty() && port_fits
}

/// The protocols of an `Upgrade` list that may be passed on: all but `h2c`, with which a client
/// would speak HTTP/2 past this proxy, and members that are not `name ["/" version]`.
pub(super) fn protocols(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    members(value).filter(|protocol| {
        let mut parts = protocol.split(|&byte| byte == b'/');
        let is_name = |part: &[u8]| !part.is_empty() && part.iter().copied().all(is_token);
        let name = parts.next().unwrap_or_default();
        is_name(name)
            && !name.eq_ignore_ascii_case(b"h2c")
            && parts.next().is_none_or(is_name)
            && parts.next().is_none()
    })
}

/// `timeout` of a `Keep-Alive` field, in seconds (RFC 2068 section 19.7.1.1).
pub(super) fn keep_alive_timeout(value: &[u8]) -> Option<u32> {
    members(value).find_map(|parameter| {
        let (name, seconds) = parameter.split_at(parameter.iter().position(|&byte| byte == b'=')?);
        if !name.trim_ascii().eq_ignore_ascii_case(b"timeout") {
            return None;
        }
        u32::try_from(content_length(seconds[1..].trim_ascii())?).ok()
    })
}

/// A `tchar` of RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
