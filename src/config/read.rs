//! From what was written (a file, options, the environment) to one checked value for each key.
//!
//! Options go before the environment, the environment before the file, the file before the
//! defaults. Not here: limits between two keys (see `limits`).

use std::collections::{BTreeMap, BTreeSet};

use ::config::{Environment, File, FileFormat, Map, Source as _, Value as Written, ValueKind};

use super::error::Problem;
use super::keys::{KEYS, Key, NAME, Preset, is_under};
use super::value::{is_name, shown};
use super::values::{DEFAULT_ORIGIN, Values};

const VARIABLE_PREFIX: &str = "MILLPOND";
const SEPARATOR: &str = "__";
const NAME_RULE: &str = "a lower-case letter, then lower-case letters, digits and _; 63 at most";

/// What was written, by key, before any value is read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    written: BTreeMap<Vec<String>, Entry>,
    pub(super) upstreams: BTreeSet<String>,
    pub(super) listeners: BTreeSet<String>,
}

/// One written value and where it comes from.
#[derive(Debug)]
struct Entry {
    value: Raw,
    /// What an error says after the key: nothing, a variable or an option.
    origin: String,
}

#[derive(Debug)]
enum Raw {
    InFile(Written),
    Text(String),
}

/// Where a path leads in the table of keys.
enum Place {
    Leaf,
    Section,
    Nowhere,
}

impl Draft {
    /// Takes what a TOML text says. `place` names the text in a syntax error.
    pub(super) fn take_text(&mut self, place: &str, text: &str, problems: &mut Vec<Problem>) {
        match File::from_str(text, FileFormat::Toml).collect() {
            Ok(table) => self.take_table(&mut Vec::new(), table, problems),
            Err(error) => problems.push(Problem::Syntax {
                place: place.to_owned(),
                reason: parser_words(&error),
            }),
        }
    }

    /// Takes the variables that begin with `MILLPOND__`.
    pub(super) fn take_environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
        problems: &mut Vec<Problem>,
    ) {
        let source = Environment::with_prefix(VARIABLE_PREFIX)
            .prefix_separator(SEPARATOR)
            .separator(SEPARATOR)
            .source(Some(variables.collect()));
        let found = source
            .collect()
            .expect("variables that are text already make no error");
        let sorted: BTreeMap<_, _> = found.into_iter().collect();
        for (key, written) in sorted {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            let variable = format!(
                "{VARIABLE_PREFIX}{SEPARATOR}{}",
                path.join(SEPARATOR).to_uppercase()
            );
            match place(&path) {
                Place::Leaf => {
                    self.note_name(&path, problems);
                    let text = written.into_string().unwrap_or_default();
                    let origin = format!(" (from {variable})");
                    self.written.insert(
                        path,
                        Entry {
                            value: Raw::Text(text),
                            origin,
                        },
                    );
                }
                Place::Section | Place::Nowhere => problems.push(Problem::Unknown {
                    hint: hint(&path),
                    key: format!("{} (from {variable})", spelled(&path)),
                }),
            }
        }
    }

    /// Takes an option of the command line.
    pub(super) fn take_option(&mut self, path: &[&str], option: &str, text: &str) {
        let path: Vec<String> = path.iter().map(|&segment| segment.to_owned()).collect();
        self.note_name(&path, &mut Vec::new());
        let origin = if option.is_empty() {
            String::new()
        } else {
            format!(" (from {option})")
        };
        self.written.insert(
            path,
            Entry {
                value: Raw::Text(text.to_owned()),
                origin,
            },
        );
    }

    /// Reads every value, or its default.
    pub(super) fn read(self, problems: &mut Vec<Problem>) -> Values {
        let mut values = Values::default();
        for key in KEYS {
            let names = match key.path.split('.').next() {
                Some("upstream") => Some(&self.upstreams),
                Some("listener") => Some(&self.listeners),
                _ => None,
            };
            match names {
                None => self.read_key(key, "", &mut values, problems),
                Some(names) => {
                    for name in names {
                        self.read_key(key, name, &mut values, problems);
                    }
                }
            }
        }
        values
    }

    fn read_key(&self, key: &Key, name: &str, values: &mut Values, problems: &mut Vec<Problem>) {
        let path = with_name(key.path, name);
        let full = spelled(&path);
        let entry = self.written.get(&path);
        let origin = entry.map_or(DEFAULT_ORIGIN, |entry| entry.origin.as_str());
        let read = match (entry.map(|entry| &entry.value), key.default) {
            (Some(Raw::InFile(written)), _) => key.kind.read(written),
            (Some(Raw::Text(text)), _) => key.kind.read_text(text),
            (None, Preset::Is(text)) => key.kind.read_text(text),
            (None, Preset::Unset) => return,
            (None, Preset::Required) => {
                problems.push(Problem::Missing {
                    key: full,
                    allowed: key.kind.allowed(),
                });
                return;
            }
        };
        values.origins.insert(full.clone(), origin.to_owned());
        match read {
            Ok(value) => {
                values.read.insert(full, value);
            }
            Err(faults) => problems.extend(faults.into_iter().map(|fault| Problem::Value {
                key: format!("{full}{}{origin}", fault.place),
                value: fault.value,
                reason: fault.reason,
                allowed: fault.allowed,
            })),
        }
    }

    fn take_table(
        &mut self,
        path: &mut Vec<String>,
        table: Map<String, Written>,
        problems: &mut Vec<Problem>,
    ) {
        let sorted: BTreeMap<_, _> = table.into_iter().collect();
        for (key, written) in sorted {
            path.push(key);
            match place(path) {
                Place::Leaf => {
                    let entry = Entry {
                        value: Raw::InFile(written),
                        origin: String::new(),
                    };
                    self.written.insert(path.clone(), entry);
                }
                Place::Section => match written.kind {
                    ValueKind::Table(inside) => {
                        self.note_name(path, problems);
                        self.take_table(path, inside, problems);
                    }
                    _ => problems.push(Problem::Value {
                        key: spelled(path),
                        value: shown(&written),
                        reason: "is not a section".to_owned(),
                        allowed: format!("a section [{}]", spelled(path)),
                    }),
                },
                Place::Nowhere => {
                    problems.push(Problem::Unknown {
                        key: spelled(path),
                        hint: hint(path),
                    });
                }
            }
            path.pop();
        }
    }

    /// Remembers the upstream or listener that a path speaks of.
    fn note_name(&mut self, path: &[String], problems: &mut Vec<Problem>) {
        let [kind, name, ..] = path else { return };
        let names = match kind.as_str() {
            "upstream" => &mut self.upstreams,
            "listener" => &mut self.listeners,
            _ => return,
        };
        if names.insert(name.clone()) && !is_name(name) {
            problems.push(Problem::Value {
                key: kind.clone(),
                value: format!("{name:?}"),
                reason: "is not a name".to_owned(),
                allowed: NAME_RULE.to_owned(),
            });
        }
    }
}

fn with_name(path: &str, name: &str) -> Vec<String> {
    path.split('.')
        .map(|segment| {
            if segment == NAME {
                name.to_owned()
            } else {
                segment.to_owned()
            }
        })
        .collect()
}

/// A key in one line: what is not a bare key of TOML stands in quotes.
fn spelled(path: &[impl AsRef<str>]) -> String {
    let bare = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'_' || letter == b'-';
    let segments = path.iter().map(|segment| match segment.as_ref() {
        segment if !segment.is_empty() && segment.bytes().all(bare) => segment.to_owned(),
        segment => format!("{segment:?}"),
    });
    segments.collect::<Vec<_>>().join(".")
}

fn place(path: &[String]) -> Place {
    let mut place = Place::Nowhere;
    for key in KEYS {
        let pattern: Vec<&str> = key.path.split('.').collect();
        if path.len() > pattern.len() || !is_under(path, &pattern) {
            continue;
        }
        if path.len() == pattern.len() {
            return Place::Leaf;
        }
        place = Place::Section;
    }
    place
}

/// The nearest known key, else all that could stand there.
fn hint(path: &[String]) -> String {
    const SIMILARITY_MIN: f64 = 0.6;
    let Some((last, before)) = path.split_last() else {
        return known_in(&[]);
    };
    let siblings = siblings(before);
    let nearest = siblings
        .iter()
        .filter(|sibling| **sibling != NAME)
        .map(|sibling| {
            (
                strsim::normalized_damerau_levenshtein(last, sibling),
                sibling,
            )
        })
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    if let Some((_, sibling)) = nearest {
        let near = before
            .iter()
            .map(String::as_str)
            .chain([*sibling])
            .collect::<Vec<_>>();
        return format!("did you mean {}?", spelled(&near));
    }
    if let Some(elsewhere) = elsewhere(path, last) {
        return format!("did you mean {elsewhere}?");
    }
    known_in(before)
}

/// The same word in another section, with the path's own name in it.
fn elsewhere(path: &[String], last: &str) -> Option<String> {
    let root = path.first()?;
    let has_word = |key: &&Key| key.path.rsplit('.').next() == Some(last);
    let same_root = |key: &&Key| key.path.split('.').next() == Some(root.as_str());
    let key = KEYS
        .iter()
        .find(|key| has_word(key) && same_root(key))
        .or_else(|| KEYS.iter().find(has_word))?;
    let name = path
        .get(1)
        .filter(|name| same_root(&key) && is_name(name) && path.len() > 2);
    Some(with_name(key.path, name.map_or(NAME, String::as_str)).join("."))
}

fn known_in(before: &[String]) -> String {
    let known = siblings(before);
    match before.is_empty() || known.is_empty() {
        true => format!("known here: {}", siblings(&[]).join(", ")),
        false => format!("known in [{}]: {}", spelled(before), known.join(", ")),
    }
}

/// What may stand in a section, each once, in the manual's order.
fn siblings(before: &[String]) -> Vec<&'static str> {
    let mut siblings = Vec::new();
    for key in KEYS {
        let pattern: Vec<&'static str> = key.path.split('.').collect();
        if pattern.len() > before.len() && is_under(before, &pattern) {
            let sibling = pattern[before.len()];
            if !siblings.contains(&sibling) {
                siblings.push(sibling);
            }
        }
    }
    siblings
}

/// The parser's message in one line: where, then what, without its drawing of the line.
fn parser_words(error: &::config::ConfigError) -> String {
    let text = match error {
        ::config::ConfigError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    let drawing = |line: &str| {
        line.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ' ')
            .starts_with('|')
    };
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !drawing(line) && !line.trim().is_empty())
        .collect();
    lines.join(": ")
}
