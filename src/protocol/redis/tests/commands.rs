//! The table of commands, and what becomes of commands.

use std::collections::BTreeSet;

use super::*;
use LeaseNeed::*;

fn of(words: &str) -> Treatment {
    let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
    treatment(&Arguments::new(&multibulk(&words)).unwrap())
}

const READ: Treatment = Treatment::Share { read_only: true };
const WRITE: Treatment = Treatment::Share { read_only: false };

fn lease(need: LeaseNeed) -> Treatment {
    Treatment::Lease(need)
}

#[test]
fn the_table_is_sorted_and_says_each_thing_once() {
    for is_subcommand in [false, true] {
        let names: Vec<&str> = rows()
            .map(|row| row.name)
            .filter(|name| name.contains(' ') == is_subcommand)
            .collect();
        assert!(names.len() > 100, "{}", names.len());
        for pair in names.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
    }
    let commands = rows().filter(|row| matches!(row.rule, Rule::BySubcommand(_)));
    let commands: BTreeSet<&str> = commands.map(|row| row.name).collect();
    let subcommands = rows().filter_map(|row| row.name.split_once(' '));
    let parents: BTreeSet<&str> = subcommands.map(|(parent, _)| parent).collect();
    assert_eq!(commands, parents);
    for row in rows() {
        assert_eq!(row.name, row.name.to_ascii_uppercase());
        assert!(row.name.len() <= 32, "{}", row.name);
        assert!(!row.meaning.is_empty() && !row.meaning.contains('|'));
    }
}

#[test]
fn every_row_is_found_in_any_case() {
    for row in rows() {
        let expected = match row.rule {
            Rule::Always(treatment) | Rule::BySubcommand(treatment) => treatment,
            Rule::UnlessBlock { .. } => lease(Blocking),
        };
        let mixed: String = row
            .name
            .char_indices()
            .map(|(at, c)| {
                if at % 2 == 0 {
                    c.to_ascii_lowercase()
                } else {
                    c
                }
            })
            .collect();
        for name in [row.name, &row.name.to_ascii_lowercase(), &mixed] {
            assert_eq!(of(name), expected, "{name}");
            for other in [
                format!("{name}X"),
                format!("X{name}"),
                name.replace(' ', "  "),
            ] {
                if other != name && !rows().any(|row| row.name.eq_ignore_ascii_case(&other)) {
                    assert_eq!(of(&other), lease(Unknown), "{other}");
                }
            }
        }
        // A name with a space in it is no subcommand.
        if row.name.contains(' ') {
            let one = multibulk(&[row.name.as_bytes()]);
            assert_eq!(treatment(&Arguments::new(&one).unwrap()), lease(Unknown));
        }
    }
}

#[test]
fn commands_are_treated_by_what_they_leave_behind() {
    for (words, expected) in [
        ("get k", READ),
        ("GET k", READ),
        ("SeT k v", WRITE),
        ("ping", Treatment::Answer(Local::Ping)),
        ("client setname x", Treatment::Answer(Local::ClientSetName)),
        ("client kill id 3", Treatment::Refuse(Refused::ClientKill)),
        ("client list", READ),
        ("client frobnicate", lease(Unknown)),
        ("client", READ),
        ("command", READ),
        ("command docs", READ),
        ("config set a b", WRITE),
        ("script debug yes", Treatment::Refuse(Refused::Debug)),
        ("script kill", lease(Overtaking)),
        ("multi", lease(Transaction)),
        ("watch k", lease(Watch)),
        ("unwatch", READ),
        (
            "exec",
            Treatment::Refuse(Refused::OutsideTransaction(Ending::Exec)),
        ),
        ("blpop k 0", lease(Blocking)),
        ("brpoplpush a b 0", lease(Blocking)),
        ("wait 1 0", Treatment::Refuse(Refused::Wait)),
        ("subscribe a", lease(Subscribe)),
        ("monitor", lease(Monitor)),
        ("client tracking on", lease(Tracking)),
        ("readonly", lease(Cluster)),
        ("json.get k", lease(Unknown)),
        ("eval x 0", WRITE),
        ("georadius_ro k 0 0 1 m", READ),
    ] {
        assert_eq!(of(words), expected, "{words}");
    }
    let empty = multibulk(&[b""]);
    assert_eq!(treatment(&Arguments::new(&empty).unwrap()), lease(Unknown));
    let long = multibulk(&[&[b'G'; 100]]);
    assert_eq!(treatment(&Arguments::new(&long).unwrap()), lease(Unknown));
}

#[test]
fn only_the_option_block_blocks() {
    for (words, blocks) in [
        ("xread streams s 0", false),
        ("xread block 0 streams s 0", true),
        ("xread BLOCK 0 streams s 0", true),
        ("XREAD bLoCk 0 STREAMS s 0", true),
        ("xread count 2 block 5 streams s 0", true),
        ("xread count 2 streams s 0", false),
        // Keys and values of these names.
        ("xread streams block 0", false),
        ("xread count block streams s 0", false),
        ("xread COUNT streams BLOCK 0 streams s 0", true),
        ("xreadgroup group block block streams s >", false),
        (
            "xreadgroup GROUP streams streams BLOCK 0 noack streams s >",
            true,
        ),
        ("xreadgroup group g c noack count 1 streams block >", false),
        ("xreadgroup group g c NOACK block 1 streams s >", true),
        // What is not known may be followed by anything.
        ("xread claim block streams s 0", true),
        ("xread bloc 0 streams s 0", true),
        ("xread", true),
        ("xread count", true),
    ] {
        let read_only = !words.starts_with("xreadgroup");
        let expected = if blocks {
            lease(Blocking)
        } else {
            Treatment::Share { read_only }
        };
        assert_eq!(of(words), expected, "{words}");
    }
}

#[test]
fn of_a_command_that_is_not_whole_only_certain_things_are_said() {
    let whole = multibulk(&[b"XREAD", b"COUNT", b"1", b"STREAMS", b"s", b"0"]);
    let streams = whole.windows(7).position(|it| it == b"STREAMS").unwrap() + 9;
    for end in 4..=whole.len() {
        let expected = match end {
            ..15 => lease(Unknown),
            end if end < streams => lease(Blocking),
            _ => READ,
        };
        let arguments = Arguments::new(&whole[..end]).unwrap();
        assert_eq!(treatment(&arguments), expected, "{}", text(&whole[..end]));
    }
    let kill = multibulk(&[b"CLIENT", b"KILL"]);
    let arguments = Arguments::new(&kill[..kill.len() - 1]).unwrap();
    assert_eq!(treatment(&arguments), lease(Unknown));
}

#[test]
fn only_what_leaves_nothing_behind_may_be_queued_on_a_shared_connection() {
    for words in [
        "get k",
        "set k v",
        "blpop k 0",
        "xread block 0 streams s 0",
        "ping",
        "unwatch",
    ] {
        assert!(may_be_queued(&of(words)), "{words}");
    }
    for words in [
        "multi",
        "watch k",
        "select 1",
        "auth p",
        "hello 3",
        "reset",
        "quit",
        "subscribe a",
        "monitor",
        "client reply off",
        "client tracking on",
        "wait 1 0",
        "shutdown",
        "exec",
        "json.get k",
        "migrate",
        "readonly",
        "client no-evict on",
        "client id",
    ] {
        assert!(!may_be_queued(&of(words)), "{words}");
    }
}

#[test]
fn refusals_are_one_line_and_say_whose_they_are() {
    for row in rows() {
        let Rule::Always(Treatment::Refuse(refused)) = row.rule else {
            continue;
        };
        let message = refused.message();
        let is_ours = message.starts_with("ERR millpond: ");
        let of_redis = matches!(refused, Refused::OutsideTransaction(_));
        assert_eq!(is_ours, !of_redis, "{message}");
        assert!(
            message.bytes().all(|byte| (b' '..0x7f).contains(&byte)),
            "{message}"
        );
    }
    assert_eq!(
        Refused::OutsideTransaction(Ending::Exec).message(),
        "ERR EXEC without MULTI"
    );
}
