//! Who may ask for more than health and metrics.
//!
//! A caller on this host may: over a Unix socket (its permissions say who), or from loopback. From
//! elsewhere it takes the bearer token; where none is configured, nothing helps. A request that a
//! proxy on this host passed on comes from loopback too, so one with a forwarding header is not
//! taken as local.
//!
//! A browser on this host is local, and runs other people's pages. So a local request must name
//! this host by address, by `localhost` or by the configured name (a page whose own name was
//! pointed at 127.0.0.1 can't), and one that changes something must not come from a page of another
//! origin (`Origin`, `Sec-Fetch-Site`). Pages can't add a bearer token without asking first, and are
//! not answered when they ask.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

use crate::config::checked::Address;

/// Who is asking, as far as its socket tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Over TCP, from this address.
    Ip(IpAddr),
    /// Over a Unix socket.
    Unix,
}

/// The rules.
#[derive(Debug)]
pub struct Access {
    token: Option<String>,
    own_name: Option<String>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Denial {
    /// It is not local, and no token is configured.
    NotLocal,
    /// It is not local, and has no token or a wrong one.
    NoToken,
    /// It names this host as only a web page would.
    StrangeHost,
    /// A web page of another origin made it.
    OtherOrigin,
}

const FORWARDED: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

impl Access {
    /// The rules for an interface that listens at `listen`.
    pub fn new(token: Option<String>, listen: &Address) -> Self {
        let own_name = match listen {
            Address::Name(name, _) => Some(name.clone()),
            Address::Ip(_) | Address::Unix(_) => None,
        };
        Self { token, own_name }
    }

    fn judge(&self, caller: Caller, changes: bool, headers: &HeaderMap) -> Result<(), Denial> {
        if changes && is_of_other_origin(headers) {
            return Err(Denial::OtherOrigin);
        }
        if caller == Caller::Unix || self.has_token(headers) {
            return Ok(());
        }
        if !is_local(caller, headers) {
            return Err(match self.token {
                Some(_) => Denial::NoToken,
                None => Denial::NotLocal,
            });
        }
        if self.is_named_rightly(headers) {
            Ok(())
        } else {
            Err(Denial::StrangeHost)
        }
    }

    /// Compared in a time that depends on nothing but the lengths.
    fn has_token(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return false;
        };
        let value = headers
            .get(header::AUTHORIZATION)
            .map(HeaderValue::as_bytes);
        let given = value.and_then(|value| value.split_at_checked(BEARER.len()));
        given.is_some_and(|(scheme, given)| {
            scheme.eq_ignore_ascii_case(BEARER) && bool::from(given.ct_eq(token.as_bytes()))
        })
    }

    fn is_named_rightly(&self, headers: &HeaderMap) -> bool {
        let Some(host) = headers.get(header::HOST) else {
            // HTTP/1.0; browsers always send it.
            return true;
        };
        let host = host.to_str().map(without_port);
        host.is_ok_and(|host| {
            let is_own = |own: &String| host.eq_ignore_ascii_case(own);
            host.parse::<IpAddr>().is_ok()
                || host.eq_ignore_ascii_case("localhost")
                || self.own_name.as_ref().is_some_and(is_own)
        })
    }
}

const BEARER: &[u8] = b"Bearer ";

/// `[::1]:80` → `::1`, `name:80` → `name`.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_local(caller: Caller, headers: &HeaderMap) -> bool {
    let local = match caller {
        Caller::Unix => true,
        Caller::Ip(address) => address.to_canonical().is_loopback(),
    };
    local && !FORWARDED.iter().any(|name| headers.contains_key(*name))
}

/// Whether a web page of another origin made the request (the Fetch standard's `Origin` and
/// `Sec-Fetch-Site`). Programs that are no browsers send neither.
fn is_of_other_origin(headers: &HeaderMap) -> bool {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    if let Some(site) = headers.get(SITE)
        && site != "same-origin"
        && site != "none"
    {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let origin = origin.as_bytes();
    let authority = origin
        .strip_prefix(b"http://")
        .or_else(|| origin.strip_prefix(b"https://"));
    authority.is_none() || authority != host
}

/// Lets a request through, or answers it with the reason why not.
pub(super) async fn guard(
    State(access): State<Arc<Access>>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let changes = !request.method().is_safe();
    match access.judge(caller, changes, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(denial) => denial.answer(),
    }
}

impl Denial {
    fn answer(self) -> Response {
        let (status, sentence) = match self {
            Self::NotLocal => (
                StatusCode::FORBIDDEN,
                "only callers on this host may ask this, for no admin.token is configured",
            ),
            Self::NoToken => (
                StatusCode::UNAUTHORIZED,
                "from elsewhere this takes the bearer token that is configured as admin.token",
            ),
            Self::StrangeHost => (
                StatusCode::FORBIDDEN,
                "the Host header names neither an address nor localhost, as a web page would",
            ),
            Self::OtherOrigin => (
                StatusCode::FORBIDDEN,
                "a web page of another origin made this request",
            ),
        };
        let mut response = super::refuse(status, sentence);
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

#[cfg(test)]
mod tests;
