//! Where a configuration comes from, and the way through all checks.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::build;
use super::checked::Config;
use super::error::{Errors, Problem};
use super::limits::{self, Names};
use super::read::Draft;
use super::wire::octets_text;

/// Where a configuration comes from. It may be loaded again: a file is read anew each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A TOML file.
    File(PathBuf),
    /// The options of the one-line form: one listener and one upstream, both named `main`.
    CommandLine {
        /// Where to listen.
        listen: String,
        /// The service as a URL: `http://HOST:PORT`, `tcp://unix:PATH`, `frames://HOST:PORT?size=8`.
        upstream: String,
        /// Connections to the service, at most.
        pool_size: Option<u64>,
        /// Where the admin interface listens, or `off`.
        admin: Option<String>,
    },
    /// A TOML text.
    Text(String),
}

/// A configuration that can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What works, but is probably not meant; one line each.
    pub warnings: Vec<String>,
}

/// Loads a configuration, with `MILLPOND__…` variables of the environment laid over it:
/// `MILLPOND__UPSTREAM__ORDERS__POOL__SIZE=32` is `upstream.orders.pool.size = 32`, and a list's
/// items are separated by commas. Options go before variables, variables before a file.
///
/// # Errors
/// Every problem at once.
pub fn load(
    source: &Source,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, Errors> {
    let mut problems = Vec::new();
    let mut draft = Draft::default();
    match source {
        Source::File(path) => {
            let place = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| {
                Errors(vec![Problem::Unreadable {
                    path: place.clone(),
                    reason: error.to_string(),
                }])
            })?;
            draft.take_text(&place, &text, &mut problems);
        }
        Source::Text(text) => draft.take_text("configuration", text, &mut problems),
        Source::CommandLine { .. } => {}
    }
    // A text that can't be parsed says nothing that could be checked.
    if problems
        .iter()
        .any(|problem| matches!(problem, Problem::Syntax { .. }))
    {
        return Err(Errors(problems));
    }
    draft.take_environment(environment, &mut problems);
    if let Source::CommandLine {
        listen,
        upstream,
        pool_size,
        admin,
    } = source
    {
        take_options(&mut draft, listen, upstream, &mut problems);
        if let Some(size) = pool_size {
            draft.take_option(
                &["upstream", "main", "pool", "size"],
                "--pool-size",
                &size.to_string(),
            );
        }
        if let Some(admin) = admin {
            draft.take_option(&["admin", "listen"], "--admin", admin);
        }
    }
    finish(draft, problems)
}

/// Loads a TOML text, without any environment.
///
/// # Errors
/// Every problem at once.
pub fn parse(text: &str) -> Result<Config, Errors> {
    load(&Source::Text(text.to_owned()), std::iter::empty()).map(|loaded| loaded.config)
}

fn take_options(draft: &mut Draft, listen: &str, upstream: &str, problems: &mut Vec<Problem>) {
    draft.take_option(&["listener", "main", "listen"], "--listen", listen);
    draft.take_option(&["listener", "main", "upstream"], "", "main");
    match Url::read(upstream) {
        Ok(url) => url.lay_down(draft),
        Err(reason) => {
            problems.push(Problem::Value {
                key: "--upstream".to_owned(),
                value: format!("{upstream:?}"),
                reason,
                allowed: URL_FORMS.to_owned(),
            });
            // Stands in, so that the other options are checked too.
            draft.take_option(&["upstream", "main", "protocol"], "", "http");
            draft.take_option(&["upstream", "main", "endpoints"], "", "127.0.0.1:1");
        }
    }
}

/// `SCHEME://ENDPOINT`, for frames with `?KEY=VALUE&…`: the keys of `[upstream.NAME.frames]`.
struct Url<'u> {
    scheme: &'u str,
    endpoint: &'u str,
    frames: Vec<(&'static str, String)>,
}

impl<'u> Url<'u> {
    fn read(text: &'u str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| "has no scheme".to_owned())?;
        if !SCHEMES.contains(&scheme) {
            return Err(format!("{scheme} is not spoken"));
        }
        let (endpoint, query) = match rest.split_once('?') {
            Some((endpoint, query)) if scheme == "frames" => (endpoint, query),
            _ => (rest, ""),
        };
        let endpoint = match endpoint.starts_with("unix:") {
            true => endpoint,
            false => endpoint.trim_end_matches('/'),
        };
        let frames = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(frames_option)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            scheme,
            endpoint,
            frames,
        })
    }

    fn lay_down(&self, draft: &mut Draft) {
        let option = "--upstream";
        draft.take_option(&["upstream", "main", "protocol"], option, self.scheme);
        draft.take_option(&["upstream", "main", "endpoints"], option, self.endpoint);
        for (key, value) in &self.frames {
            draft.take_option(&["upstream", "main", "frames", key], option, value);
        }
    }
}

fn frames_option(pair: &str) -> Result<(&'static str, String), String> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let key = FRAMES_OPTIONS
        .into_iter()
        .find(|key| *key == name)
        .ok_or_else(|| format!("{name} is none of {}", FRAMES_OPTIONS.join(", ")))?;
    let bytes: Vec<u8> = percent_decode_str(value).collect();
    let value = match key {
        // Any byte may stand there; the key reads it with escapes.
        "delimiter" => octets_text(&bytes),
        _ => String::from_utf8(bytes).map_err(|_| format!("{name} is no text"))?,
    };
    Ok((key, value))
}

const SCHEMES: [&str; 5] = ["http", "tcp", "frames", "redis", "memcached"];
const FRAMES_OPTIONS: [&str; 6] = ["length", "delimiter", "size", "max", "oneway", "heartbeat"];
const URL_FORMS: &str = "http://HOST:PORT, tcp://HOST:PORT, redis://HOST:PORT, memcached://HOST:PORT, frames://HOST:PORT?length=0:4:big (or ?delimiter=%0A, or \
                         ?size=N), each also with unix:PATH";

fn finish(draft: Draft, mut problems: Vec<Problem>) -> Result<Loaded, Errors> {
    let names = Names::of(&draft);
    let values = draft.read(&mut problems);
    limits::check(&values, &names, &mut problems);
    if !problems.is_empty() {
        return Err(Errors(problems));
    }
    Ok(Loaded {
        config: build::config(&values, &names),
        warnings: limits::warnings(&values, &names),
    })
}

/// The variables of the process. One that is not text can't be one of ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
