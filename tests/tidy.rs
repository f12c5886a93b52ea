//! Holds the repository to its own rules: the arrows between the folders and the other absences
//! that ARCHITECTURE.md states.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// For each room, the rooms it may use. A room that stands in no row may use none.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "proxy", "admin", "config", "drain", "log", "notify", "stats", "witness", "census",
            "protocol", "sys",
        ],
    ),
    (
        "proxy",
        &[
            "listener", "session", "upstream", "pool", "admin", "stats", "census", "witness",
            "close", "config", "drain", "log", "notify", "sys",
        ],
    ),
    (
        "listener",
        &["session", "stats", "config", "sys", "transport"],
    ),
    (
        "session",
        &[
            "relay",
            "protocol",
            "upstream",
            "pool",
            "close",
            "stats",
            "config",
            "log",
            "sys",
            "transport",
        ],
    ),
    (
        "relay",
        &[
            "protocol",
            "upstream",
            "pool",
            "close",
            "stats",
            "sys",
            "transport",
        ],
    ),
    (
        "upstream",
        &[
            "pool",
            "census",
            "close",
            "stats",
            "config",
            "sys",
            "transport",
        ],
    ),
    (
        "pool",
        &["census", "close", "stats", "config", "sys", "transport"],
    ),
    ("admin", &["stats", "config", "sys"]),
    ("log", &["stats", "close", "config", "sys"]),
    ("stats", &["census", "witness", "close", "sys"]),
    ("witness", &["close", "sys"]),
    ("census", &["close", "sys"]),
    ("close", &["sys", "transport"]),
    ("config", &["sys", "protocol"]),
    ("drain", &[]),
    ("notify", &[]),
    ("protocol", &[]),
    ("transport", &[]),
    ("sys", &[]),
];

/// Files that decide with time as an argument.
const PURE: &[&str] = &[
    "src/protocol/",
    "src/pool/core",
    "src/pool/wait_queue",
    "src/pool/idle_limit",
    "src/pool/source",
    "src/upstream/core",
    "src/upstream/balance",
    "src/upstream/health",
    "src/close/classify",
    "src/session/redis/need",
    "src/session/verdict",
    "src/session/retry",
    "src/relay/delivery",
    "src/relay/transcript",
    "src/cli/doctor/watch/limit",
    "src/cli/doctor/watch/line",
    "src/census/count",
    "src/census/filter",
    "src/census/forecast",
    "src/census/leaks",
    "src/census/ports",
    "src/census/socket",
    "src/cli/doctor/counters",
    "src/cli/doctor/diagnosis",
    "src/cli/doctor/finding",
    "src/cli/doctor/look",
    "src/cli/doctor/report",
    "src/cli/doctor/settings",
    "src/cli/doctor/text",
    "src/witness/event",
    "src/witness/matching",
    "src/witness/pending",
    "src/witness/reason",
    "src/witness/tally",
    "src/witness/task",
];

/// What a pure file must not name.
const IMPURE: &[&str] = &[
    "tokio",
    "clock::",
    "socket2",
    "std::net::Tcp",
    "spawn(",
    "std::fs",
    "transport::",
];

const FILE_LINES_MAX: usize = 520;
const FUNCTION_LINES_MAX: usize = 80;

#[test]
fn no_arrow_between_the_rooms_goes_back() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let room = room_of(&file);
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            assert!(
                ["lib", "main"].contains(&room.as_str()),
                "{} is in no room",
                file.display()
            );
            continue;
        };
        for (number, line) in code(&file) {
            for used in rooms_named(&line) {
                if used != room && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{}:{number}: {room} -> {used}", file.display()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that go back:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn pure_files_know_no_clock_task_or_socket() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in sources("src") {
        let path = file.display().to_string();
        if !PURE.iter().any(|pure| path.starts_with(pure)) {
            continue;
        }
        seen += 1;
        for (number, line) in code(&file) {
            if let Some(word) = IMPURE.iter().find(|word| line.contains(**word)) {
                wrong.push(format!("{path}:{number}: {word}"));
            }
        }
    }
    assert!(seen >= PURE.len(), "every pure file exists: {seen}");
    for pure in PURE {
        let exists = sources("src")
            .iter()
            .any(|file| file.display().to_string().starts_with(pure));
        assert!(exists, "{pure} is no file");
    }
    assert!(
        wrong.is_empty(),
        "pure files that are not:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn only_sys_is_unsafe_and_asks_the_clock() {
    only_in(&["unsafe {", "unsafe fn", "unsafe impl"], &["src/sys/"]);
    only_in(&["Instant::now", "SystemTime::now"], &["src/sys/clock.rs"]);
}

#[test]
fn only_close_resets_and_shuts_down() {
    // The demo's misbehaving service is not millpond: it shows what the option does to others, and
    // the demo's table names it.
    only_in(
        &["set_linger", "set_zero_linger"],
        &["src/close/", "src/cli/demo/closer.rs"],
    );
    only_in(
        &["SO_LINGER"],
        &[
            "src/close/",
            "src/cli/demo/closer.rs",
            "src/cli/demo/resets.rs",
            // They tell users what it does.
            "src/cli/doctor/counters.rs",
            "src/cli/doctor/finding.rs",
        ],
    );
    only_in(
        &["shutdown(Shutdown", "shutdown(std::net"],
        &["src/transport.rs"],
    );
    only_in(
        &["say_fin("],
        &["src/transport.rs", "src/close/", "src/relay/tunnel.rs"],
    );
}

#[test]
fn only_the_table_spells_metric_names() {
    only_in(&["\"millpond_"], &["src/stats/table.rs"]);
}

#[test]
fn no_room_has_a_name_that_says_nothing() {
    for file in sources("src") {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        for word in [
            "util", "helper", "manager", "common", "inner", "impl", "misc",
        ] {
            assert!(
                !name.contains(word),
                "{}: `{word}` says nothing",
                file.display()
            );
        }
    }
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    for file in sources("src") {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let is_test = file.display().to_string().contains("tests");
        if lines.len() > FILE_LINES_MAX && !is_test {
            long.push(format!("{}: {} lines", file.display(), lines.len()));
        }
        long.extend(long_functions(&file, &lines));
    }
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}

#[test]
fn every_module_says_what_it_is() {
    for file in sources("src") {
        let text = fs::read_to_string(&file).unwrap();
        if file.file_name().unwrap() != "tests.rs" {
            assert!(text.starts_with("//! "), "{} has no header", file.display());
        }
    }
}

#[test]
fn the_project_speaks_of_itself_alone() {
    for file in repository_texts() {
        let text = fs::read_to_string(&file).unwrap_or_default();
        for word in [
            concat!("/wo", "rk/"),
            concat!("../sha", "red"),
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
        ] {
            assert!(!text.contains(word), "{} names {word}", file.display());
        }
    }
}

#[test]
fn the_architecture_page_stays_short() {
    let lines = fs::read_to_string("ARCHITECTURE.md")
        .unwrap()
        .lines()
        .count();
    assert!(lines <= 160, "ARCHITECTURE.md has {lines} lines");
}

#[test]
fn the_top_level_holds_what_it_should() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "conf",
        "tests",
        "benches",
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE",
        "target",
    ];
    for entry in fs::read_dir(".").unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            name.starts_with('.') || allowed.contains(&name.as_str()),
            "{name} at the top level"
        );
    }
}

fn only_in(words: &[&str], places: &[&str]) {
    for file in sources("src") {
        let path = file.display().to_string();
        if places.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for (number, line) in code(&file) {
            for word in words {
                assert!(
                    !line.contains(word),
                    "{path}:{number}: `{word}` belongs in {places:?}"
                );
            }
        }
    }
}

fn long_functions(file: &Path, lines: &[&str]) -> Vec<String> {
    let mut long = Vec::new();
    let mut start: Option<(usize, usize)> = None;
    for (index, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let word = line.trim_start();
        let is_function = [
            "fn ",
            "pub fn ",
            "async fn ",
            "pub async fn ",
            "pub(super) fn ",
            "pub(super) async fn ",
            "pub(crate) fn ",
        ]
        .iter()
        .any(|opening| word.starts_with(opening));
        if is_function && start.is_none() && !word.ends_with(';') {
            start = Some((index, indent));
        }
        if let Some((begin, depth)) = start
            && indent == depth
            && (word == "}" || (index == begin && word.ends_with('}')))
        {
            if index - begin > FUNCTION_LINES_MAX {
                long.push(format!(
                    "{}:{}: {} lines",
                    file.display(),
                    begin + 1,
                    index - begin
                ));
            }
            start = None;
        }
    }
    long
}

/// Lines of code with their numbers: no comments, and nothing from the first test module on.
fn code(file: &Path) -> Vec<(usize, String)> {
    if file.display().to_string().contains("tests") {
        return Vec::new();
    }
    fs::read_to_string(file)
        .unwrap()
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.to_owned()))
        .take_while(|(_, line)| !line.contains("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .collect()
}

fn rooms_named(line: &str) -> Vec<String> {
    line.split("crate::")
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        })
        .filter(|name| ARROWS.iter().any(|(room, _)| room == name))
        .collect()
}

fn room_of(file: &Path) -> String {
    let inside = file.strip_prefix("src").unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

fn repository_texts() -> Vec<PathBuf> {
    let mut texts = sources("src");
    texts.extend(
        sources("tests")
            .into_iter()
            .filter(|file| !file.ends_with("tidy.rs")),
    );
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "Cargo.toml",
        "conf/millpond.toml",
    ] {
        texts.push(name.into());
    }
    texts
}
