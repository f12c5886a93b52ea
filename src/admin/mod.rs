//! The admin interface: a small HTTP server for people, scrapers and probes.
//!
//! [`bind`] makes the listener, [`server`] accepts within limits, [`access`] decides who may ask
//! what, [`page`] is the page for people. Not here: the proxy itself, which is behind [`Control`].
//!
//! Health and metrics answer anyone. Everything else answers only callers on this host (loopback or
//! a Unix socket) and those with the bearer token; what changes something refuses requests that a
//! web page in a browser made (see [`access`]). Errors are JSON: `{"error": "a sentence"}`.

pub mod access;
pub mod bind;
pub mod page;
mod query;
pub mod server;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use crate::stats::census::CensusSnapshot;
use crate::stats::exposition::{Family, gather};
use crate::stats::process::Process;
use crate::stats::tree::Tree;
use crate::stats::{openmetrics, prometheus};
use crate::sys::clock;

use access::Access;
use query::Bounds;

/// What the admin interface asks of the proxy.
pub trait Control: Send + Sync + 'static {
    /// All statistics.
    fn tree(&self) -> &Tree;
    /// Whether new clients should be sent here.
    fn readiness(&self) -> Readiness;
    /// Begins to drain, as SIGTERM does. Returns at once; a second call changes nothing.
    fn drain(&self);
    /// Reads the configuration again and applies what can change, as SIGHUP does. On an error the
    /// old one runs on, and the errors are all there are, each with its key. The future is dropped
    /// when the caller goes away, so what it does must not be left half done by that.
    fn reload(&self) -> BoxFuture<'_, Result<ReloadReport, Vec<String>>>;
    /// The kernel's own count of sockets, now. On an error, a sentence that says why there is none.
    fn census(&self) -> BoxFuture<'_, Result<Arc<CensusSnapshot>, String>>;
    /// Retires every idle connection of the upstream `name`, and every leased one at its next
    /// boundary. `false`: there is no such upstream.
    fn flush(&self, name: &str) -> bool;
}

/// Whether new clients should be sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Every listener is bound.
    Ready,
    /// Not every listener is bound yet.
    Starting,
    /// millpond is stopping, or in the grace time before it.
    Draining,
}

/// What a reload did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReloadReport {
    /// What changed, a sentence each.
    pub applied: Vec<String>,
    /// The keys that changed in the file and take effect only in a new process.
    pub needs_restart: Vec<String>,
}

/// A request's body, at most: no request has one that is looked at.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a request's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Sessions listed.
const SESSIONS_LISTED: Bounds = Bounds {
    usual: 1_000,
    max: 100_000,
};
/// Records of ends listed.
const RECORDS_LISTED: Bounds = Bounds {
    usual: 100,
    max: 100_000,
};

type Proxy = State<Arc<dyn Control>>;

/// Every path, with who may ask it.
pub fn router(control: Arc<dyn Control>, access: Access) -> Router {
    let guarded = Router::new()
        .route("/", get(page))
        .route("/api/v1/snapshot", get(snapshot))
        .route("/api/v1/sessions", get(sessions))
        .route("/api/v1/resets", get(resets))
        .route("/api/v1/census", get(census))
        .route("/api/v1/drain", post(drain))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/upstream/{name}/flush", post(flush))
        .route_layer(middleware::from_fn_with_state(
            Arc::new(access),
            access::guard,
        ));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .fallback(async || refuse(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            let sentence = "this path does not take this method; the Allow header says which";
            refuse(StatusCode::METHOD_NOT_ALLOWED, sentence)
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(control)
}

/// A refusal that says why.
fn refuse(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({ "error": sentence }))).into_response()
}

/// Nothing here is worth keeping, and nothing is to be guessed at.
const PLAIN: [(header::HeaderName, &str); 2] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

async fn page(State(control): Proxy) -> Response {
    let snapshot = control.tree().snapshot(clock::now());
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    let headers = [(header::CONTENT_SECURITY_POLICY, policy)];
    (PLAIN, headers, Html(page::render(&snapshot))).into_response()
}

async fn readyz(State(control): Proxy) -> Response {
    let not_ready = |sentence| refuse(StatusCode::SERVICE_UNAVAILABLE, sentence);
    match control.readiness() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::Starting => not_ready("not ready: not every listener is bound"),
        Readiness::Draining => not_ready("not ready: draining"),
    }
}

async fn metrics(State(control): Proxy, headers: HeaderMap) -> Response {
    let families = families(&*control);
    let accepted = headers.get_all(header::ACCEPT).iter();
    let accepted: Vec<_> = accepted.filter_map(|value| value.to_str().ok()).collect();
    if prefers_openmetrics(&accepted.join(",")) {
        let kind = [(header::CONTENT_TYPE, openmetrics::CONTENT_TYPE)];
        return (PLAIN, kind, openmetrics::text(families)).into_response();
    }
    let kind = [(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)];
    (PLAIN, kind, prometheus::text(&families)).into_response()
}

fn families(control: &dyn Control) -> Vec<Family> {
    gather(&control.tree().snapshot(clock::now()), &Process::read())
}

/// Whether an Accept header (RFC 9110, section 12.5.1) wants OpenMetrics 1.0.0 at least as much as
/// the plain text format.
fn prefers_openmetrics(accept: &str) -> bool {
    let weight_of = |kind: &str, version: &str| {
        let ranges = accept.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            if !parts.next()?.eq_ignore_ascii_case(kind) {
                return None;
            }
            let mut weight = 1.0;
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name {
                    "version" if value != version => return None,
                    "q" => weight = value.parse().unwrap_or(0.0),
                    _ => {}
                }
            }
            Some(weight)
        });
        ranges.fold(0.0_f64, f64::max)
    };
    let open = weight_of("application/openmetrics-text", "1.0.0");
    open > 0.0 && open >= weight_of("text/plain", "0.0.4")
}

async fn snapshot(State(control): Proxy) -> Response {
    (PLAIN, Json(control.tree().snapshot(clock::now()))).into_response()
}

async fn sessions(State(control): Proxy, uri: Uri) -> Response {
    let limit = match query::limit(uri.query().unwrap_or_default(), SESSIONS_LISTED) {
        Ok(limit) => limit,
        Err(sentence) => return refuse(StatusCode::BAD_REQUEST, &sentence),
    };
    (
        PLAIN,
        Json(control.tree().list_sessions(limit, clock::now())),
    )
        .into_response()
}

async fn resets(State(control): Proxy, uri: Uri) -> Response {
    match query::records(uri.query().unwrap_or_default(), RECORDS_LISTED) {
        Ok((filter, limit)) => {
            let records = control.tree().recorder.list(&filter, limit);
            (PLAIN, Json(records)).into_response()
        }
        Err(sentence) => refuse(StatusCode::BAD_REQUEST, &sentence),
    }
}

async fn census(State(control): Proxy) -> Response {
    match control.census().await {
        Ok(census) => (PLAIN, Json(&*census)).into_response(),
        Err(sentence) => refuse(StatusCode::SERVICE_UNAVAILABLE, &sentence),
    }
}

async fn drain(State(control): Proxy, _body: Ignored) -> Response {
    tracing::info!("drain asked for on the admin interface");
    control.drain();
    (StatusCode::ACCEPTED, Json(json!({ "draining": true }))).into_response()
}

async fn reload(State(control): Proxy, _body: Ignored) -> Response {
    tracing::info!("reload asked for on the admin interface");
    match control.reload().await {
        Ok(report) => Json(report).into_response(),
        Err(errors) => {
            let sentence = "the configuration was not taken, the old one runs on";
            let body = json!({ "error": sentence, "errors": errors });
            (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
        }
    }
}

async fn flush(
    State(control): Proxy,
    name: Result<Path<String>, PathRejection>,
    _body: Ignored,
) -> Response {
    let Ok(Path(name)) = name else {
        return refuse(StatusCode::NOT_FOUND, NO_SUCH_UPSTREAM);
    };
    tracing::info!(upstream = name, "flush asked for on the admin interface");
    if control.flush(&name) {
        Json(json!({ "flushed": name })).into_response()
    } else {
        refuse(StatusCode::NOT_FOUND, NO_SUCH_UPSTREAM)
    }
}

const NO_SUCH_UPSTREAM: &str = "there is no upstream of this name";

/// A request's body: read, so that closing the connection does not reset it, and not looked at.
struct Ignored;

impl<S: Send + Sync> FromRequest<S> for Ignored {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        match timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
            Ok(Ok(_)) => Ok(Self),
            Ok(Err(rejection)) => Err(refuse(rejection.status(), &rejection.body_text())),
            Err(_) => {
                let sentence = "the body that the head announced did not come";
                Err(refuse(StatusCode::REQUEST_TIMEOUT, sentence))
            }
        }
    }
}

#[cfg(test)]
mod tests;
