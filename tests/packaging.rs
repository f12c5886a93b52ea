//! What packages are made from: examples, completions, manual pages, the container file.
//!
//! `MILLPOND_RENEW=1 cargo test --test packaging` writes completions, manual pages and the reference anew.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const RENEW: &str = "renew it: MILLPOND_RENEW=1 cargo test --test packaging";

fn millpond(arguments: &[&str]) -> String {
    run(Command::new(env!("CARGO_BIN_EXE_millpond")).args(arguments))
}

/// What a program says that must end well.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The folder holds just these files, or now does.
fn folder_holds(folder: &str, files: &[(String, String)]) {
    let folder = Path::new(folder);
    if std::env::var_os("MILLPOND_RENEW").is_some() {
        fs::create_dir_all(folder).unwrap();
        for old in fs::read_dir(folder).unwrap() {
            fs::remove_file(old.unwrap().path()).unwrap();
        }
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let there: BTreeSet<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let wanted = files.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(there, wanted, "{}: {RENEW}", folder.display());
    for (name, text) in files {
        let path = folder.join(name);
        let same = fs::read_to_string(&path).unwrap() == *text;
        assert!(same, "{} is of another millpond; {RENEW}", path.display());
    }
}

#[test]
fn the_completions_are_those_of_this_command_line() {
    let files = [
        ("bash", "millpond.bash"),
        ("zsh", "_millpond"),
        ("fish", "millpond.fish"),
    ];
    let files = files.map(|(shell, name)| {
        let text = millpond(&["generate", "completions", shell]);
        (name.to_owned(), text)
    });
    folder_holds("conf/completions", &files);
}

#[test]
fn the_manual_pages_are_those_of_this_command_line() {
    let whole = millpond(&["generate", "man"]);
    // The page names those of the commands: `millpond\-run(1)`.
    let pages: Vec<_> = whole
        .lines()
        .filter_map(|line| line.strip_prefix("millpond\\-")?.strip_suffix("(1)"))
        .map(|command| {
            let text = millpond(&["generate", "man", command]);
            (format!("millpond-{command}.1"), text)
        })
        .collect();
    assert!(pages.len() >= 3, "{whole}");
    let all: Vec<_> = [("millpond.1".to_owned(), whole)]
        .into_iter()
        .chain(pages)
        .collect();
    folder_holds("conf/man", &all);
}

#[test]
fn the_reference_is_of_what_is_counted_and_said() {
    let files = [
        ("counted.md", "reference"),
        ("doctor.md", "doctor-reference"),
        ("redis.md", "redis-reference"),
    ];
    let files = files.map(|(name, what)| (name.to_owned(), millpond(&["generate", what])));
    folder_holds("conf/reference", &files);
}

#[test]
fn bash_completes_commands_and_options() {
    let complete = |words: &[&str]| {
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let script = format!(
            "source <({} generate completions bash); COMP_WORDS=({}); COMP_CWORD={}; \
             _millpond millpond '{last}' '{before}'; echo \"${{COMPREPLY[@]}}\"",
            env!("CARGO_BIN_EXE_millpond"),
            words.join(" "),
            words.len() - 1,
        );
        run(Command::new("bash").args(["-c", &script]))
            .trim_end()
            .to_owned()
    };
    assert_eq!(complete(&["millpond", "ru"]), "run");
    assert_eq!(complete(&["millpond", "run", "--pool"]), "--pool-size");
    assert_eq!(
        complete(&["millpond", "check", "--config", "Cargo.t"]),
        "Cargo.toml"
    );
    assert_eq!(complete(&["millpond", "gen"]), "", "it is not for users");
}

#[test]
fn what_generates_is_for_packagers_only() {
    let texts = [
        millpond(&["--help"]),
        millpond(&["generate", "man"]),
        millpond(&["generate", "completions", "zsh"]),
    ];
    for text in texts {
        assert!(
            text.contains("check") && !text.contains("generate"),
            "{text}"
        );
    }
    assert!(millpond(&["generate", "--help"]).contains("completions"));
    for wrong in [
        &["generate", "man", "stroll"][..],
        &["generate", "completions", "csh"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        let output = command.args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(wrong[2]));
    }
}

#[test]
fn every_example_passes_check() {
    let mut checked = 0;
    for file in fs::read_dir("conf/examples").unwrap() {
        let file = file.unwrap().path();
        let file = file.to_str().unwrap();
        let said = millpond(&["check", "--config", file]);
        assert!(said.starts_with("OK\n"), "{file}: {said}");
        let text = fs::read_to_string(file).unwrap();
        let how =
            format!("#   millpond check --config {file}\n#   millpond run   --config {file}\n");
        assert!(text.contains(&how), "{file} says how it is tried");
        checked += 1;
    }
    assert!(checked >= 4);
}

/// One instruction of the container file: `("COPY", ["src", "src"])`.
type Instruction = (String, Vec<String>);

fn container_stages() -> Vec<Vec<Instruction>> {
    let text = fs::read_to_string("conf/container/Containerfile").unwrap();
    let mut stages: Vec<Vec<Instruction>> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (word, rest) = line.split_once(' ').unwrap();
        let arguments: Vec<String> = if rest.starts_with('[') {
            serde_json::from_str(rest).unwrap()
        } else {
            rest.split_whitespace().map(str::to_owned).collect()
        };
        if word == "FROM" {
            stages.push(Vec::new());
        }
        let stage = stages.last_mut().expect("it begins with FROM");
        stage.push((word.to_owned(), arguments));
    }
    stages
}

/// The arguments of an instruction that a stage has once.
fn only<'s>(stage: &'s [Instruction], word: &str) -> &'s [String] {
    let found: Vec<_> = stage.iter().filter(|(it, _)| it == word).collect();
    assert_eq!(found.len(), 1, "{word} in {stage:?}");
    &found[0].1
}

#[test]
fn the_container_file_copies_all_that_the_build_needs() {
    let stages = container_stages();
    let context = tempfile::tempdir().unwrap();
    for (_, arguments) in stages[0].iter().filter(|(word, _)| word == "COPY") {
        let (target, sources) = arguments.split_last().unwrap();
        for source in sources {
            assert!(Path::new(source).exists(), "COPY {source}");
            let to = context.path().join(target);
            run(Command::new("cp").arg("-r").arg(source).arg(to));
        }
    }
    // Before it looks at any package, cargo wants the file of every target that the manifest names.
    let rustc = run(Command::new("rustc").arg("-vV"));
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: "));
    run(Command::new(env!("CARGO"))
        .args(["fetch", "--offline", "--locked", "--target", host.unwrap()])
        .arg("--manifest-path")
        .arg(context.path().join("Cargo.toml")));
    let package = fs::read_to_string("Cargo.lock").unwrap();
    for native in ["cc", "cmake", "pkg-config", "bindgen"] {
        let entry = format!("name = \"{native}\"\n");
        assert!(
            !package.contains(&entry),
            "{native} builds what the image can't"
        );
    }
}

#[test]
fn the_container_runs_millpond_as_nobody_in_particular() {
    let stages = container_stages();
    let [build, last] = stages.as_slice() else {
        panic!("two stages: {stages:?}");
    };
    assert_eq!(only(last, "FROM"), ["scratch"]);
    let copied = only(last, "COPY");
    assert_eq!(copied[0], format!("--from={}", only(build, "FROM")[2]));
    let built = format!(
        "{}/target/release/{}",
        only(build, "WORKDIR")[0],
        env!("CARGO_PKG_NAME")
    );
    assert_eq!(copied[1], built);
    assert_eq!(only(last, "ENTRYPOINT"), [copied[2].clone()]);
    let (user, group) = only(last, "USER")[0].split_once(':').unwrap();
    for id in [user, group] {
        assert!(id.parse::<u32>().unwrap() > 0, "it is not root: {id}");
    }
    assert_eq!(only(last, "STOPSIGNAL"), ["SIGTERM"]);
    // The command line is one that it understands, up to the file that is to be mounted.
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    let output = command.args(only(last, "CMD")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains("/etc/millpond/millpond.toml") && !said.contains("Usage"),
        "{said}"
    );
}
