//! The program from a shell's side: texts and exit codes of what ends at once.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

struct Answer {
    code: i32,
    out: String,
    err: String,
}

#[test]
fn version_and_help() {
    let version = millpond(&["--version"]);
    assert_eq!(
        (version.code, version.out.as_str()),
        (0, concat!("millpond ", env!("CARGO_PKG_VERSION"), "\n"))
    );
    let help = millpond(&["--help"]);
    assert_eq!(help.code, 0);
    for word in [
        "run",
        "check",
        "demo",
        "millpond run --listen",
        "Exit codes",
    ] {
        assert!(help.out.contains(word), "{word}: {}", help.out);
    }
    let help = millpond(&["run", "--help"]);
    for word in [
        "--config <FILE>",
        "--listen <ADDR>",
        "--upstream <URL>",
        "--pool-size <N>",
        "--admin <ADDR>",
        "SIGHUP",
    ] {
        assert!(help.out.contains(word), "{word}: {}", help.out);
    }
}

#[test]
fn bad_options_end_with_2() {
    for options in [
        &["run"][..],
        &["run", "--listen", "127.0.0.1:0"],
        &["run", "--upstream", "http://127.0.0.1:1"],
        &[
            "run",
            "--config",
            "x",
            "--listen",
            "127.0.0.1:0",
            "--upstream",
            "http://127.0.0.1:1",
        ],
        &["run", "--config", "x", "--pool-size", "1"],
        &["check"],
        &["stroll"],
    ] {
        let answer = millpond(options);
        assert_eq!(answer.code, 2, "{options:?}: {}", answer.err);
        assert!(
            answer.err.contains("Usage: millpond"),
            "{options:?}: {}",
            answer.err
        );
    }
}

#[test]
fn check_says_ok_and_what_is_needed() {
    let answer = millpond(&["check", "--config", "conf/millpond.toml"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(answer.out.starts_with("OK\n"), "{}", answer.out);
    for line in [
        "descriptors: 10194 when every limit is reached",
        "listener orders: 127.0.0.1:8080 -> orders, at most 10000 sessions",
        "upstream orders: 1 endpoint, at most 64 connections to each",
    ] {
        // A small host says the same of descriptors as a warning.
        assert!(
            answer.out.contains(line) || answer.out.contains("10194 descriptors"),
            "{line}: {}",
            answer.out
        );
    }
}

#[test]
fn check_warns_of_more_than_the_host_allows() {
    let file = File::new(
        "descriptors",
        "[upstream.a]\nprotocol = \"http\"\nendpoints = [\"127.0.0.1:1\"]\n[upstream.b]\nprotocol = \"http\"\nendpoints = [\"127.0.0.1:2\"]\n\
         [listener.a]\nlisten = \"127.0.0.1:8080\"\nupstream = \"a\"\nmax_sessions = 1000\n",
    );
    let script = format!(
        "ulimit -n 1000; exec {} check --config {}",
        env!("CARGO_BIN_EXE_millpond"),
        file.0.display()
    );
    let answer = answer(Command::new("sh").args(["-c", &script]));
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(
        answer
            .out
            .contains("warning: upstream.b: no listener uses it\n"),
        "{}",
        answer.out
    );
    assert!(
        answer.out.contains("warning: 1258 descriptors are needed when every limit is reached, and this host allows 1000"),
        "{}",
        answer.out
    );
}

#[test]
fn check_warns_of_ports_that_the_kernel_does_not_pick() {
    let file = File::new(
        "sources",
        "[upstream.a]\nprotocol = \"http\"\nendpoints = [\"127.0.0.1:1\"]\n\
         source = [\"127.0.0.5:1024-9999\", \"127.0.0.6\"]\n\
         [listener.a]\nlisten = \"127.0.0.1:8080\"\nupstream = \"a\"\n",
    );
    let answer = millpond(&["check", "--config", file.0.to_str().unwrap()]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    let warning = "warning: upstream.a.source: 127.0.0.5:1024-9999";
    let says = |text: &str| answer.out.contains(text);
    assert!(says(warning), "{}", answer.out);
    assert!(
        says(", so one port serves one endpoint at a time\n"),
        "{}",
        answer.out
    );
    assert!(
        says("upstream a: dialled from 127.0.0.5:1024-9999, 127.0.0.6\n"),
        "{}",
        answer.out
    );
}

#[test]
fn check_names_every_error_and_ends_with_2() {
    let file = File::new(
        "errors",
        "workers = -1\n[admn]\n[listener.a]\nlisten = \"8080\"\nupstream = \"b\"\n",
    );
    let answer = millpond(&["check", "--config", file.0.to_str().unwrap()]);
    assert_eq!((answer.code, answer.out.as_str()), (2, ""));
    assert_eq!(
        answer.err,
        "admn: there is no such key; did you mean admin?\n\
         workers = -1: is out of bounds; allowed: a whole number from 0 to 1024\n\
         listener.a.listen = \"8080\": has no port; allowed: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH\n\
         listener.a.upstream = \"b\": there is no such upstream; allowed: an upstream, but there is none: add [upstream.NAME]\n"
    );
}

#[test]
fn check_names_the_place_of_what_is_not_toml() {
    let file = File::new("syntax", "workers = 1\n[listener.a\n");
    let path = file.0.to_str().unwrap();
    let answer = millpond(&["check", "--config", path]);
    assert_eq!(answer.code, 2);
    assert!(
        answer
            .err
            .starts_with(&format!("{path}: TOML parse error at line 2, column 12: ")),
        "{}",
        answer.err
    );
    assert_eq!(answer.err.lines().count(), 1, "{}", answer.err);
}

#[test]
fn check_says_that_a_file_is_not_there() {
    let answer = millpond(&["check", "--config", "/nowhere/millpond.toml"]);
    assert_eq!(answer.code, 2);
    assert_eq!(
        answer.err,
        "/nowhere/millpond.toml: can't be read: No such file or directory (os error 2)\n"
    );
}

#[test]
fn check_lays_variables_over_the_file() {
    let program = env!("CARGO_BIN_EXE_millpond");
    let answer = answer(
        Command::new(program)
            .args(["check", "--config", "conf/millpond.toml"])
            .env("MILLPOND__UPSTREAM__ORDERS__POOL__SIZE", "0"),
    );
    assert_eq!(answer.code, 2);
    assert!(
        answer
            .err
            .contains("(from MILLPOND__UPSTREAM__ORDERS__POOL__SIZE) = \"0\": is out of bounds"),
        "{}",
        answer.err
    );
}

#[test]
fn run_refuses_what_check_refuses() {
    let answer = millpond(&[
        "run",
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        "postgres://127.0.0.1:5432",
    ]);
    assert_eq!(answer.code, 2);
    assert!(
        answer.err.contains("postgres is not spoken"),
        "{}",
        answer.err
    );
    assert!(
        answer.err.contains("http://HOST:PORT, tcp://HOST:PORT"),
        "{}",
        answer.err
    );
}

#[test]
fn run_ends_with_1_where_an_address_is_taken() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let text = |admin: &str, second: &str| {
        format!(
            "[admin]\nlisten = \"{admin}\"\n\
             [upstream.a]\nprotocol = \"http\"\nendpoints = [\"127.0.0.1:1\"]\n\
             [listener.first]\nlisten = \"127.0.0.1:0\"\nupstream = \"a\"\n\
             [listener.second]\nlisten = \"{second}\"\nupstream = \"a\"\n"
        )
    };
    for (name, text, words) in [
        (
            "listen-taken",
            text("off", &taken),
            ["second", taken.as_str()],
        ),
        (
            "admin-taken",
            text(&taken, "127.0.0.1:0"),
            ["admin", taken.as_str()],
        ),
    ] {
        let file = File::new(name, &text);
        let answer = millpond(&["run", "--config", file.0.to_str().unwrap()]);
        assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{name}");
        let last = answer.err.lines().last().unwrap();
        for word in words.into_iter().chain(["ERROR", "ddress already in use"]) {
            assert!(last.contains(word), "{name}: {word}: {}", answer.err);
        }
        assert!(!answer.err.contains(": ready"), "{name}: {}", answer.err);
    }
}

fn millpond(options: &[&str]) -> Answer {
    answer(Command::new(env!("CARGO_BIN_EXE_millpond")).args(options))
}

fn answer(command: &mut Command) -> Answer {
    let output = command.output().unwrap();
    Answer {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A file that is gone when the test ends.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("millpond-cli-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}
