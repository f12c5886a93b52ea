//! A service's response to one request: its verdict, its boundary, and the head that the client
//! gets instead.
//!
//! What the client gets: always `HTTP/1.1` (RFC 9110 section 2.5), also where it speaks 1.0: so do
//! nginx and HAProxy, and what such a client needs is `Connection: keep-alive`, not a version. No
//! hop-by-hop fields but our own `Connection`; `Upgrade` stays in a 101, and in the 426 that is about
//! it (RFC 9110 section 15.5.22). Interim responses go on to HTTP/1.1 clients only. Chunked content
//! goes on as it is; to an HTTP/1.0 client without its chunks, ended by the end of the connection.
//!
//! As strict as for requests: both framing fields, several Content-Lengths (equal ones too, as with
//! nginx), a Transfer-Encoding that is not exactly `chunked`, bad chunks, folded lines, bare line
//! ends. Space before a colon alone is removed, as RFC 9112 section 5.1 demands of proxies. Framing
//! fields where there can be no content (1xx, 204: RFC 9110 section 8.6) are dropped, and the
//! connection is not trusted to persist if they announced some.
//!
//! Invariant: a response has no end other than one that its service and its client both see.

use std::time::Duration;

use super::body::Body;
use super::chunk::Chunked;
use super::fields::{self, Connection, Field, Framing};
use super::head::{self, FIELDS_MAX, Fields, LineCopy, Scan, push_decimal, push_field};
use super::violation::ResponseViolation;
use super::{BodyLength, Options, Persistence, RequestFacts, ResponseFacts};
use crate::protocol::{Eof, Frame, Framer, Pass, PinReason, Reply, Then};

/// Interim responses to one request, at most. A long-running WebDAV request sends one every 20 s.
const INTERIM_MAX: u32 = 100;

/// Frames the response to one request, with all that precedes it. After the boundary, a pin or a
/// violation it is spent.
#[derive(Debug)]
pub struct ResponseFramer {
    request: RequestFacts,
    head_max: usize,
    close: bool,
    interim: u32,
    /// An interim response announced content, which it can't have.
    doubted: bool,
    state: State,
    facts: Option<ResponseFacts>,
    client_closes: bool,
}

/// `Head (─▶ Head)* ─▶ Body ─▶ Complete`, or `Head ─▶ Pinned`.
#[derive(Debug)]
enum State {
    Head {
        scan: Scan,
        status_line_judged: bool,
        begun: bool,
    },
    Body {
        body: Body,
        unchunk: bool,
    },
    Complete,
    Pinned,
}

const HEAD: State = State::Head {
    scan: Scan::new(),
    status_line_judged: false,
    begun: false,
};

impl ResponseFramer {
    /// For the response to the request that said `request`.
    #[must_use]
    pub fn new(request: RequestFacts, options: &Options) -> Self {
        Self {
            request,
            head_max: options.head_max,
            close: false,
            interim: 0,
            doubted: false,
            state: HEAD,
            facts: None,
            client_closes: false,
        }
    }

    /// Whether the client is told that its connection closes after this response. Heeded until the
    /// final head is framed. The framer closes on its own where the client's framing needs it.
    pub fn set_client_close(&mut self, close: bool) {
        self.close = close;
    }

    /// The client was told, by the final head, that its connection ends after this response.
    #[must_use]
    pub fn client_closes(&self) -> bool {
        self.client_closes
    }

    /// What the final head said, once it was framed.
    #[must_use]
    pub fn facts(&self) -> Option<ResponseFacts> {
        self.facts
    }

    fn frame_head(
        &mut self,
        head: &[u8],
        edited: &mut Vec<u8>,
    ) -> Result<Frame, ResponseViolation> {
        let mut places = [const { std::mem::MaybeUninit::uninit() }; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let read = httparse::ParserConfig::default()
            .allow_spaces_after_header_name_in_responses(true)
            .parse_response_with_uninit_headers(&mut response, head, &mut places);
        if let Err(error) = read {
            let first_line = head
                .iter()
                .position(|&byte| byte == b'\n')
                .map_or(0, |at| at + 1);
            StatusLine::read(&head[..first_line])?;
            return Err(head::fault_of(error, &head[first_line..]).into());
        }
        let fields = Fields::new(head, response.headers);
        let status_line = StatusLine::of(response.version, response.code)?;
        let reading = Reading::of(status_line, &fields)?;
        match status_line.status {
            101 => self.frame_switch(&reading, &fields, edited),
            100..=199 => self.frame_interim(&reading, &fields, edited),
            _ => Ok(self.frame_final(&reading, &fields, edited)),
        }
    }

    fn frame_switch(
        &mut self,
        reading: &Reading<'_>,
        fields: &Fields<'_, '_>,
        edited: &mut Vec<u8>,
    ) -> Result<Frame, ResponseViolation> {
        if !self.request.upgrade {
            return Err(ResponseViolation::UnaskedUpgrade);
        }
        reading.write(
            fields,
            Keep {
                upgrade: true,
                ..Keep::default()
            },
            edited,
        );
        push_field(edited, "Connection", b"upgrade");
        edited.extend_from_slice(b"\r\n");
        self.facts = Some(ResponseFacts {
            status: 101,
            upstream_keep_alive: false,
            until_close: false,
            client_sees_end: false,
            idle_timeout_s: None,
        });
        self.state = State::Pinned;
        let then = Then::Pinned(PinReason::Upgrade);
        Ok(Frame {
            taken: fields.head().len(),
            pass: Pass::Edited,
            then,
        })
    }

    fn frame_interim(
        &mut self,
        reading: &Reading<'_>,
        fields: &Fields<'_, '_>,
        edited: &mut Vec<u8>,
    ) -> Result<Frame, ResponseViolation> {
        self.interim += 1;
        if self.interim > INTERIM_MAX {
            return Err(ResponseViolation::TooManyInterim);
        }
        self.doubted |= reading.announces_content();
        self.state = HEAD;
        let pass = match self.request.version_minor {
            0 => Pass::Dropped,
            _ => {
                reading.write(fields, Keep::default(), edited);
                edited.extend_from_slice(b"\r\n");
                Pass::Edited
            }
        };
        Ok(Frame {
            taken: fields.head().len(),
            pass,
            then: Then::OneMoreResponse,
        })
    }

    fn frame_final(
        &mut self,
        reading: &Reading<'_>,
        fields: &Fields<'_, '_>,
        edited: &mut Vec<u8>,
    ) -> Frame {
        let status = reading.status_line.status;
        let bodiless = self.request.head || matches!(status, 204 | 304);
        let old_client = self.request.version_minor == 0;
        let unchunk = old_client && reading.body == BodyLength::Chunked;
        let until_close = !bodiless && reading.body == BodyLength::None;
        let ends_by_close = until_close || (unchunk && !bodiless);

        let persistence = self.request.persistence(self.close || ends_by_close);
        self.client_closes = persistence == Persistence::Close;
        let keep = Keep {
            length: status != 204,
            coding: status != 204 && !old_client,
            trailer: !unchunk,
            upgrade: status == 426 && !old_client,
        };
        reading.write(fields, keep, edited);
        let option: &[u8] = match (persistence, keep.upgrade && reading.has_upgrade) {
            (Persistence::Close, false) => b"Connection: close\r\n\r\n",
            (Persistence::Close, true) => b"Connection: close, upgrade\r\n\r\n",
            (_, true) => b"Connection: upgrade\r\n\r\n",
            (Persistence::KeepAliveSaid, false) => b"Connection: keep-alive\r\n\r\n",
            (Persistence::KeepAlive, false) => b"\r\n",
        };
        edited.extend_from_slice(option);

        let doubted = self.doubted || (status == 204 && reading.announces_content());
        let upstream_keep_alive = reading.persists() && !until_close && !doubted;
        self.facts = Some(ResponseFacts {
            status,
            upstream_keep_alive,
            until_close,
            client_sees_end: !ends_by_close,
            idle_timeout_s: reading.idle_timeout_s.filter(|_| upstream_keep_alive),
        });
        self.state = match reading.body {
            _ if bodiless => State::Complete,
            BodyLength::None => State::Body {
                body: Body::UntilClose,
                unchunk,
            },
            BodyLength::Length(0) => State::Complete,
            BodyLength::Length(length) => State::Body {
                body: Body::Length(length),
                unchunk,
            },
            BodyLength::Chunked => {
                let chunked = Chunked::new(None, self.head_max);
                State::Body {
                    body: Body::Chunked(chunked),
                    unchunk,
                }
            }
        };
        let complete = matches!(self.state, State::Complete);
        let then = if complete { Then::Boundary } else { Then::More };
        Frame {
            taken: fields.head().len(),
            pass: Pass::Edited,
            then,
        }
    }
}

impl Reply for ResponseFramer {
    fn eof(&mut self) -> Eof {
        match &self.state {
            State::Head { begun: false, .. } => Eof::Nothing,
            State::Body {
                body: Body::UntilClose,
                ..
            } => {
                self.state = State::Complete;
                Eof::Complete
            }
            State::Complete | State::Pinned => Eof::Complete,
            State::Head { .. } | State::Body { .. } => Eof::Truncated,
        }
    }

    fn allows_reuse(&self) -> bool {
        self.facts.is_some_and(|facts| facts.upstream_keep_alive)
    }

    fn is_begun(&self) -> bool {
        self.facts.is_some()
    }

    fn client_sees_end(&self) -> bool {
        self.facts.is_some_and(|facts| facts.client_sees_end)
    }

    fn is_owed(&self) -> bool {
        true
    }

    fn says_idle_for_too_long(&self) -> bool {
        // RFC 9110 section 15.5.9.
        self.facts.is_some_and(|facts| facts.status == 408)
    }

    fn idle_timeout(&self) -> Option<Duration> {
        let seconds = self.facts?.idle_timeout_s?;
        Some(Duration::from_secs(seconds.into()))
    }

    fn announce_close(&mut self, closes: bool) {
        self.set_client_close(closes);
    }
}

impl Framer for ResponseFramer {
    type Violation = ResponseViolation;

    fn frame(&mut self, bytes: &[u8], edited: &mut Vec<u8>) -> Result<Frame, ResponseViolation> {
        match &mut self.state {
            State::Head {
                scan,
                status_line_judged,
                begun,
            } => {
                let Some(first) = bytes.first() else {
                    return Ok(Frame::WAIT);
                };
                *begun = true;
                if *first != b'H' {
                    return Err(ResponseViolation::BadStatusLine);
                }
                let found = scan.look(bytes, self.head_max);
                if let Ok(Some(len)) = found {
                    return self.frame_head(&bytes[..len], edited);
                }
                // The status line outranks what follows it, also where that is incomplete or broken.
                if let (false, Some(len)) = (*status_line_judged, scan.first_line()) {
                    StatusLine::read(&bytes[..len])?;
                    *status_line_judged = true;
                }
                found?;
                Ok(Frame::WAIT)
            }
            State::Body { body, unchunk } => {
                let frame = if *unchunk {
                    body.take_unchunked(bytes)?
                } else {
                    body.take(bytes)?
                };
                if frame.then == Then::Boundary {
                    self.state = State::Complete;
                }
                Ok(frame)
            }
            State::Complete => Ok(Frame::ENDED),
            State::Pinned => {
                let then = Then::Pinned(PinReason::Upgrade);
                Ok(Frame {
                    taken: 0,
                    pass: Pass::Dropped,
                    then,
                })
            }
        }
    }
}

/// A status line (RFC 9112 section 4).
#[derive(Debug, Clone, Copy)]
struct StatusLine {
    version_minor: u8,
    status: u16,
}

impl StatusLine {
    /// Reads a line with its CRLF.
    fn read(line: &[u8]) -> Result<Self, ResponseViolation> {
        let mut response = httparse::Response::new(&mut []);
        match response.parse(line) {
            Ok(_) => Self::of(response.version, response.code),
            Err(_) => Err(ResponseViolation::BadStatusLine),
        }
    }

    fn of(version: Option<u8>, code: Option<u16>) -> Result<Self, ResponseViolation> {
        match (version, code) {
            (Some(version_minor), Some(status @ 100..)) => Ok(Self {
                version_minor,
                status,
            }),
            _ => Err(ResponseViolation::BadStatusLine),
        }
    }
}

/// Which of the fields that concern framing or one hop stay.
#[derive(Debug, Clone, Copy, Default)]
struct Keep {
    length: bool,
    coding: bool,
    trailer: bool,
    upgrade: bool,
}

/// What a response's head means.
struct Reading<'b> {
    status_line: StatusLine,
    connection: Connection<'b>,
    body: BodyLength,
    has_upgrade: bool,
    idle_timeout_s: Option<u32>,
}

impl<'b> Reading<'b> {
    fn of(status_line: StatusLine, fields: &Fields<'_, 'b>) -> Result<Self, ResponseViolation> {
        let mut connection = Connection::default();
        let mut framing = Framing::default();
        let mut has_upgrade = false;
        let mut idle_timeout_s = None;
        for (field, value) in fields.iter() {
            match field {
                Field::Connection if !connection.add(value) => {
                    return Err(ResponseViolation::BadHeader);
                }
                Field::ContentLength => framing.add_length(value),
                Field::TransferEncoding => framing.add_coding(value),
                Field::Upgrade => has_upgrade = true,
                Field::KeepAlive => idle_timeout_s = fields::keep_alive_timeout(value),
                _ => {}
            }
        }
        let body = framing.read(status_line.version_minor)?;
        Ok(Self {
            status_line,
            connection,
            body,
            has_upgrade,
            idle_timeout_s,
        })
    }

    /// The service lets its connection persist (RFC 9112 section 9.3).
    fn persists(&self) -> bool {
        let by_default = self.status_line.version_minor == 1;
        !self.connection.close && (by_default || self.connection.keep_alive)
    }

    fn announces_content(&self) -> bool {
        !matches!(self.body, BodyLength::None | BodyLength::Length(0))
    }

    /// Writes the status line and the fields, without a `Connection` of ours and the empty line.
    fn write(&self, fields: &Fields<'_, 'b>, keep: Keep, edited: &mut Vec<u8>) {
        let version_len = b"HTTP/1.1 200".len();
        edited.extend_from_slice(b"HTTP/1.1 ");
        push_decimal(edited, self.status_line.status.into());
        let reason = &fields.head()[version_len..fields.start()];
        if !reason.starts_with(b" ") {
            edited.push(b' ');
        }
        edited.extend_from_slice(reason);

        let mut copy = LineCopy::new(fields.head(), fields.start(), edited);
        for line in fields.lines() {
            let stays = match line.field {
                Field::Upgrade => keep.upgrade,
                field if field.is_hop_by_hop() => false,
                Field::ContentLength => keep.length,
                Field::TransferEncoding => keep.coding,
                Field::Trailer if !keep.trailer => false,
                field => !field.yields_to_nomination() || !self.connection.nominates(line.name),
            };
            match (line.field, self.body) {
                _ if !stays => copy.leave_out(&line.at),
                (Field::ContentLength, BodyLength::Length(length)) => {
                    copy.leave_out(&line.at);
                    head::push_number(copy.edited, line.name, length);
                }
                (Field::TransferEncoding, _) => copy.replace(&line, b"chunked"),
                _ => copy.without_space_before_colon(&line),
            }
        }
        copy.rest();
    }
}
