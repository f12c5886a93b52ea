//! A client's request: its verdict, its boundary, and the head that the service gets instead.
//!
//! What the service gets (RFC 9110 section 7.6): always `HTTP/1.1` (section 2.5, our own version);
//! no hop-by-hop fields; `Content-Length` or `Transfer-Encoding` in its plainest spelling; a `Host`,
//! which is the target's authority for the absolute form (RFC 9112 section 3.2.2, which goes on in
//! origin form). `Upgrade` goes on from HTTP/1.1 clients for anything but `h2c`, if the request has
//! no content that a switch could overtake. `Expect: 100-continue` goes on; one from an HTTP/1.0
//! client is dropped (RFC 9110 section 10.1.1).
//!
//! `X-Forwarded-For`: the client is appended to what was there, in one field at the end.
//! `X-Forwarded-Proto`: kept where there is one, since a proxy that ends TLS in front of us knows
//! better; so it is only as trustworthy as what may reach the listener.
//!
//! Invariant: no byte after the boundary is taken; it belongs to the next request.

use super::body::Body;
use super::chunk::Chunked;
use super::fields::{self, Connection, Field, Framing};
use super::head::{self, FIELDS_MAX, Fields, LineCopy, Scan, push_field, push_number};
use super::violation::RequestViolation;
use super::{BodyLength, Options, RequestFacts};
use crate::protocol::{Frame, Framer, Pass, Then};

/// Frames one request. After the boundary or a violation it is spent.
#[derive(Debug)]
pub struct RequestFramer<'o> {
    options: &'o Options,
    state: State,
    facts: Option<RequestFacts>,
}

/// `Start ─▶ Head ─▶ Body ─▶ Complete`; `Start` is where one empty line may be (RFC 9112 section 2.2).
#[derive(Debug)]
enum State {
    Start { empty_line_seen: bool },
    Head { scan: Scan, start_line_judged: bool },
    Body(Body),
    Complete,
}

impl<'o> RequestFramer<'o> {
    /// For the next request of a session.
    #[must_use]
    pub fn new(options: &'o Options) -> Self {
        Self {
            options,
            state: State::Start {
                empty_line_seen: false,
            },
            facts: None,
        }
    }

    /// What the head said, once it was framed.
    #[must_use]
    pub fn facts(&self) -> Option<RequestFacts> {
        self.facts
    }

    /// The boundary was reached.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// What may stand before the head, and the first byte of what can't be one (a TLS handshake).
    fn frame_start(&mut self, bytes: &[u8], seen: bool) -> Result<Option<Frame>, RequestViolation> {
        match bytes {
            [] | [b'\r'] => Ok(Some(Frame::WAIT)),
            [b'\r', b'\n', ..] if !seen => {
                self.state = State::Start {
                    empty_line_seen: true,
                };
                Ok(Some(Frame {
                    taken: 2,
                    pass: Pass::Dropped,
                    then: Then::More,
                }))
            }
            [b'\r', b'\n', ..] => Err(RequestViolation::BadStartLine),
            [b'\r' | b'\n', ..] => Err(RequestViolation::BareLineEnd),
            [first, ..] if !fields::is_token(*first) => Err(RequestViolation::BadStartLine),
            _ => {
                self.state = State::Head {
                    scan: Scan::new(),
                    start_line_judged: false,
                };
                Ok(None)
            }
        }
    }

    fn frame_head(&mut self, head: &[u8], edited: &mut Vec<u8>) -> Result<Frame, RequestViolation> {
        let mut places = [const { std::mem::MaybeUninit::uninit() }; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let read = httparse::ParserConfig::default().parse_request_with_uninit_headers(
            &mut request,
            head,
            &mut places,
        );
        if let Err(error) = read {
            let first_line = head
                .iter()
                .position(|&byte| byte == b'\n')
                .map_or(0, |at| at + 1);
            StartLine::read(&head[..first_line])?;
            return Err(head::fault_of(error, &head[first_line..]).into());
        }
        let start_line = StartLine::of(&request)?;
        let fields = Fields::new(head, request.headers);
        let reading = Reading::of(&start_line, &fields, self.options)?;

        start_line.write(edited);
        if reading.hosts == 0 {
            let authority = start_line
                .target
                .authority()
                .unwrap_or(&self.options.authority);
            push_field(edited, "Host", authority.as_bytes());
        }
        reading.write_fields(&start_line, &fields, edited, self.options);

        let facts = reading.facts(&start_line);
        self.facts = Some(facts);
        let body_max = self.options.body_max;
        self.state = match facts.body {
            BodyLength::None | BodyLength::Length(0) => State::Complete,
            BodyLength::Length(length) => State::Body(Body::Length(length)),
            BodyLength::Chunked => {
                State::Body(Body::Chunked(Chunked::new(body_max, self.options.head_max)))
            }
        };
        let then = if self.is_complete() {
            Then::Boundary
        } else {
            Then::More
        };
        Ok(Frame {
            taken: head.len(),
            pass: Pass::Edited,
            then,
        })
    }
}

impl Framer for RequestFramer<'_> {
    type Violation = RequestViolation;

    fn frame(&mut self, bytes: &[u8], edited: &mut Vec<u8>) -> Result<Frame, RequestViolation> {
        if let State::Start { empty_line_seen } = self.state
            && let Some(frame) = self.frame_start(bytes, empty_line_seen)?
        {
            return Ok(frame);
        }
        match &mut self.state {
            State::Start { .. } => Ok(Frame::WAIT),
            State::Head {
                scan,
                start_line_judged,
            } => {
                let found = scan.look(bytes, self.options.head_max);
                if let Ok(Some(len)) = found {
                    return self.frame_head(&bytes[..len], edited);
                }
                // The start line outranks what follows it, also where that is incomplete or broken.
                if let (false, Some(len)) = (*start_line_judged, scan.first_line()) {
                    StartLine::read(&bytes[..len])?;
                    *start_line_judged = true;
                }
                found?;
                Ok(Frame::WAIT)
            }
            State::Body(body) => {
                let frame = body.take(bytes)?;
                if frame.then == Then::Boundary {
                    self.state = State::Complete;
                }
                Ok(frame)
            }
            State::Complete => Ok(Frame::ENDED),
        }
    }
}

/// A request line (RFC 9112 section 3).
struct StartLine<'b> {
    method: &'b str,
    target: Target<'b>,
    version_minor: u8,
}

/// RFC 9112 section 3.2.
enum Target<'b> {
    /// Origin form, or `*` of an OPTIONS request: goes on as it is.
    Plain(&'b str),
    /// Absolute form: an authority, and the path and query behind it.
    Absolute { authority: &'b str, rest: &'b str },
}

impl<'b> Target<'b> {
    fn authority(&self) -> Option<&'b str> {
        match self {
            Self::Plain(_) => None,
            Self::Absolute { authority, .. } => Some(authority),
        }
    }
}

impl<'b> StartLine<'b> {
    /// Reads a line with its CRLF.
    fn read(line: &'b [u8]) -> Result<Self, RequestViolation> {
        let mut request = httparse::Request::new(&mut []);
        match request.parse(line) {
            Ok(_) => Self::of(&request),
            Err(_) if has_other_version(line) => Err(RequestViolation::UnsupportedVersion),
            Err(_) => Err(RequestViolation::BadStartLine),
        }
    }

    fn of(request: &httparse::Request<'_, 'b>) -> Result<Self, RequestViolation> {
        let (Some(method), Some(target), Some(version_minor)) =
            (request.method, request.path, request.version)
        else {
            return Err(RequestViolation::BadStartLine);
        };
        if method.eq_ignore_ascii_case("CONNECT") {
            return Err(RequestViolation::UnsupportedMethod);
        }
        // A fragment is never sent (RFC 9110 section 7.1); recipients differ on where it ends a path.
        if target.contains('#') {
            return Err(RequestViolation::BadStartLine);
        }
        let target = match target {
            "*" if method == "OPTIONS" => Target::Plain(target),
            _ if target.starts_with('/') => Target::Plain(target),
            _ => absolute(target).ok_or(RequestViolation::BadStartLine)?,
        };
        if target
            .authority()
            .is_some_and(|authority| !fields::is_authority(authority.as_bytes()))
        {
            return Err(RequestViolation::BadHost);
        }
        Ok(Self {
            method,
            target,
            version_minor,
        })
    }

    fn write(&self, edited: &mut Vec<u8>) {
        edited.extend_from_slice(self.method.as_bytes());
        edited.push(b' ');
        match self.target {
            Target::Plain(target) => edited.extend_from_slice(target.as_bytes()),
            Target::Absolute { rest: "", .. } if self.method == "OPTIONS" => edited.push(b'*'),
            Target::Absolute { rest, .. } => {
                if !rest.starts_with('/') {
                    edited.push(b'/');
                }
                edited.extend_from_slice(rest.as_bytes());
            }
        }
        edited.extend_from_slice(b" HTTP/1.1\r\n");
    }

    /// RFC 9110 section 9.2.2.
    fn is_idempotent(&self) -> bool {
        matches!(
            self.method,
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
        )
    }
}

fn absolute(target: &str) -> Option<Target<'_>> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    Some(Target::Absolute { authority, rest })
}

/// True for a well-formed line of an HTTP version that is not served.
fn has_other_version(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r\n").unwrap_or(line);
    let mut parts = line.split(|&byte| byte == b' ');
    let is_part = |part: Option<&[u8]>| part.is_some_and(|part| !part.is_empty());
    if !is_part(parts.next()) || !is_part(parts.next()) {
        return false;
    }
    let version = parts
        .next()
        .and_then(|version| version.strip_prefix(b"HTTP/"));
    let is_version = matches!(version, Some([b'0'..=b'9', b'.', b'0'..=b'9']));
    is_version && !matches!(version, Some(b"1.0" | b"1.1")) && parts.next().is_none()
}

/// What a request's fields mean together.
struct Reading<'b> {
    connection: Connection<'b>,
    body: BodyLength,
    hosts: usize,
    expects_continue: bool,
    upgrade: bool,
    has_proto: bool,
}

impl<'b> Reading<'b> {
    fn of(
        start_line: &StartLine<'_>,
        fields: &Fields<'_, 'b>,
        options: &Options,
    ) -> Result<Self, RequestViolation> {
        let mut reading = Self {
            connection: Connection::default(),
            body: BodyLength::None,
            hosts: 0,
            expects_continue: false,
            upgrade: false,
            has_proto: false,
        };
        let is_current = start_line.version_minor == 1;
        let mut framing = Framing::default();
        let mut expectations = true;
        let mut hosts_fit = true;
        for (field, value) in fields.iter() {
            match field {
                Field::Connection if !reading.connection.add(value) => {
                    return Err(RequestViolation::BadHeader);
                }
                Field::FramingLookalike => return Err(RequestViolation::BadHeader),
                Field::ContentLength => framing.add_length(value),
                Field::TransferEncoding => framing.add_coding(value),
                Field::Host => {
                    reading.hosts += 1;
                    hosts_fit &= fields::is_authority(value);
                }
                Field::Expect if is_current => {
                    reading.expects_continue = true;
                    expectations &= value.eq_ignore_ascii_case(b"100-continue");
                }
                Field::Upgrade => reading.upgrade |= fields::protocols(value).next().is_some(),
                Field::ForwardedProto => reading.has_proto = true,
                _ => {}
            }
        }
        reading.body = framing.read(start_line.version_minor)?;
        if !hosts_fit || reading.hosts > 1 || (reading.hosts == 0 && is_current) {
            return Err(RequestViolation::BadHost);
        }
        if !expectations {
            return Err(RequestViolation::UnsupportedExpectation);
        }
        if let (BodyLength::Length(length), Some(max)) = (reading.body, options.body_max)
            && length > max
        {
            return Err(RequestViolation::BodyTooLarge);
        }
        reading.upgrade &= is_current
            && reading.connection.upgrade
            && matches!(reading.body, BodyLength::None | BodyLength::Length(0));
        Ok(reading)
    }

    fn facts(&self, start_line: &StartLine<'_>) -> RequestFacts {
        let persists = start_line.version_minor == 1 || self.connection.keep_alive;
        RequestFacts {
            idempotent: start_line.is_idempotent(),
            head: start_line.method == "HEAD",
            version_minor: start_line.version_minor,
            keep_alive: persists && !self.connection.close,
            expects_continue: self.expects_continue,
            upgrade: self.upgrade,
            body: self.body,
        }
    }

    /// Copies the fields with the changes that the module's header lists, and ends the head.
    fn write_fields(
        &self,
        start_line: &StartLine<'_>,
        fields: &Fields<'_, 'b>,
        edited: &mut Vec<u8>,
        options: &Options,
    ) {
        let forwarded = options.forwarded.as_ref();
        let mut copy = LineCopy::new(fields.head(), fields.start(), edited);
        for line in fields.lines() {
            match line.field {
                field if field.is_hop_by_hop() => copy.leave_out(&line.at),
                Field::Host => {
                    if let Some(authority) = start_line.target.authority() {
                        copy.replace(&line, authority.as_bytes());
                    }
                }
                Field::TransferEncoding => copy.replace(&line, b"chunked"),
                Field::ContentLength => {
                    if let BodyLength::Length(length) = self.body {
                        copy.leave_out(&line.at);
                        push_number(copy.edited, line.name, length);
                    }
                }
                Field::Expect if !self.expects_continue => copy.leave_out(&line.at),
                Field::ForwardedFor if forwarded.is_some() => copy.leave_out(&line.at),
                field if field.yields_to_nomination() && self.connection.nominates(line.name) => {
                    copy.leave_out(&line.at);
                }
                _ => {}
            }
        }
        let edited = copy.rest();
        if self.upgrade {
            push_field(edited, "Connection", b"upgrade");
            let upgrades = fields.iter().filter(|(field, _)| *field == Field::Upgrade);
            push_list(
                edited,
                "Upgrade",
                upgrades.flat_map(|(_, value)| fields::protocols(value)),
            );
        }
        if let Some(forwarded) = forwarded {
            let earlier = fields
                .iter()
                .filter(|(field, _)| *field == Field::ForwardedFor);
            let earlier = earlier
                .map(|(_, value)| value)
                .filter(|value| !value.is_empty());
            let all = earlier.chain(std::iter::once(forwarded.client.as_bytes()));
            push_list(edited, "X-Forwarded-For", all);
            if !self.has_proto {
                push_field(edited, "X-Forwarded-Proto", forwarded.proto.as_bytes());
            }
        }
        edited.extend_from_slice(b"\r\n");
    }
}

fn push_list<'b>(edited: &mut Vec<u8>, name: &str, members: impl Iterator<Item = &'b [u8]>) {
    edited.extend_from_slice(name.as_bytes());
    for (index, member) in members.enumerate() {
        edited.extend_from_slice(if index == 0 { b": " } else { b", " });
        edited.extend_from_slice(member);
    }
    edited.extend_from_slice(b"\r\n");
}
