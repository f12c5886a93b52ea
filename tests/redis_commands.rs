//! The table of commands, the framing of requests and replies, against a real Redis.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use millpond::protocol::redis::{
    Arguments, Limits, ReplyFramer, RequestFramer, Row, Rule, Scan, Shape, Treatment, canonical,
    rows, treatment,
};
use millpond::protocol::replies::{Replies, ReplyThen};
use support::redis::{Redis, Value};

/// What Redis says of a command: its name as our rows spell it, and its flags.
fn commands(redis: &Redis) -> BTreeMap<String, Vec<String>> {
    let mut connection = redis.connect();
    let mut commands = BTreeMap::new();
    let reply = connection.ask(&["COMMAND"]);
    let mut told: Vec<&Value> = reply.array().iter().collect();
    while let Some(command) = told.pop() {
        let fields = command.array();
        let name = fields[0].text().to_uppercase().replace('|', " ");
        let flags = fields[2].array().iter().map(|flag| flag.text().to_owned());
        commands.insert(name, flags.collect());
        // Its subcommands, told in the same way (Redis 7.0).
        told.extend(fields[9].array());
    }
    assert!(commands.len() >= 360, "{}", commands.len());
    commands
}

fn row(name: &str) -> Option<&'static Row> {
    rows().find(|row| row.name == name)
}

#[test]
fn every_command_of_redis_has_a_row() {
    let redis = Redis::start(&[]);
    let commands = commands(&redis);
    let without: Vec<_> = commands.keys().filter(|name| row(name).is_none()).collect();
    assert!(without.is_empty(), "no row: {without:?}");
    let listed = redis.connect().ask(&["COMMAND", "LIST"]);
    for name in listed.array() {
        let name = name.text().to_uppercase().replace('|', " ");
        assert!(commands.contains_key(&name), "{name}");
    }
}

#[test]
fn rows_agree_with_what_redis_says_of_its_commands() {
    let redis = Redis::start(&[]);
    for (name, flags) in commands(&redis) {
        let has = |flag: &str| flags.iter().any(|it| it == flag);
        let rule = row(&name).unwrap().rule;
        let shared = match rule {
            Rule::Always(Treatment::Share { read_only }) | Rule::UnlessBlock { read_only } => {
                Some(read_only)
            }
            Rule::Always(_) | Rule::BySubcommand(_) => None,
        };
        if has("write") {
            assert_ne!(shared, Some(true), "{name} writes");
        }
        if has("readonly") && shared.is_some() {
            assert_eq!(shared, Some(true), "{name} reads");
        }
        if has("blocking") {
            let is_told = !matches!(rule, Rule::Always(Treatment::Share { .. }));
            assert!(is_told, "{name} blocks");
        }
        if has("no_multi") {
            assert_eq!(shared, None, "{name} may not stand in a transaction");
        }
    }
}

/// The whole commands in `sent`, in the form that goes on.
fn framed(sent: &[u8]) -> Vec<Vec<u8>> {
    let mut framer = RequestFramer::new(Limits::default());
    let mut commands = Vec::new();
    let mut rest = sent;
    loop {
        match framer.scan(rest).unwrap() {
            Scan::More => return commands,
            Scan::Blank { bytes } => rest = &rest[bytes..],
            Scan::Whole { bytes } => {
                let (command, after) = rest.split_at(bytes);
                rest = after;
                let mut form = Vec::new();
                if Arguments::new(command).is_some() {
                    form.extend_from_slice(command);
                } else {
                    canonical(command, &mut form).unwrap();
                }
                commands.push(form);
            }
        }
    }
}

#[test]
fn inline_commands_are_the_ones_that_redis_reads() {
    let redis = Redis::start(&[]);
    for line in [
        &b"ECHO hello\r\n"[..],
        b"  ECHO\thello  \n",
        b"ECHO \"a b\"\r\n",
        b"ECHO \"\\x41\\n\\t\\\"\\q\\x4\"\n",
        b"ECHO 'a\\'b\\n'\n",
        b"ECHO a\"b c\"\n",
        b"ECHO a\x0bb\n",
        b"ECHO a\rb\n",
        b"'ECHO' ''\n",
        b"ECHO\n",
    ] {
        let [form] = framed(line).try_into().unwrap();
        let mut connection = redis.connect();
        connection.send(line);
        let expected = connection.value();
        connection.send(&form);
        assert_eq!(connection.value(), expected, "{}", line.escape_ascii());
    }
}

#[test]
fn what_is_refused_is_what_redis_refuses() {
    let redis = Redis::start(&[]);
    for sent in [
        &b"*x\r\n"[..],
        b"*01\r\n",
        b"*-0\r\n",
        b"*99999999999999999999\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$01\r\n",
        b"*1\r\n$536870913\r\n",
        b"GET \"a\r\n",
        b"GET 'a'b\r\n",
        &[b'a'; (64 << 10) + 1],
    ] {
        let violation = RequestFramer::new(Limits::default())
            .scan(sent)
            .unwrap_err();
        let mut connection = redis.connect();
        connection.send(sent);
        let said = String::from_utf8(connection.rest()).unwrap();
        assert_eq!(said, format!("-{}\r\n", violation.message()));
    }
    for sent in [&b"POST / HTTP/1.1\r\n"[..], b"*1\r\n$5\r\nhOsT:\r\n"] {
        assert!(RequestFramer::new(Limits::default()).scan(sent).is_err());
        let mut connection = redis.connect();
        connection.send(sent);
        assert_eq!(connection.rest(), b"", "it closes without a word");
    }
    // Redis waits for more, and would take the rest of the line for a part of it.
    let sent = b"ECHO a\0\n";
    assert!(RequestFramer::new(Limits::default()).scan(sent).is_err());
    let mut connection = redis.connect();
    connection.send(&[&sent[..], &[b'a'; 64 << 10]].concat());
    let said = String::from_utf8(connection.rest()).unwrap();
    assert_eq!(said, "-ERR Protocol error: too big inline request\r\n");
}

#[test]
fn what_asks_for_nothing_is_not_answered() {
    let redis = Redis::start(&[]);
    for sent in [
        &b"\r\n"[..],
        b"\n",
        b" \t\x0b\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*-7\r\n",
    ] {
        assert!(framed(sent).is_empty(), "{}", sent.escape_ascii());
        let mut connection = redis.connect();
        connection.send(&[sent, b"ECHO behind\r\n"].concat());
        let expected = Value::Text("behind".to_owned());
        assert_eq!(connection.value(), expected, "{}", sent.escape_ascii());
    }
}

/// Of each type a reply, in both versions of the protocol.
#[test]
fn a_stream_of_replies_is_one_reply_for_each_command() {
    let redis = Redis::start(&["--enable-debug-command", "yes"]);
    for version in ["2", "3"] {
        let types = [
            "string", "integer", "double", "null", "array", "set", "map", "verbatim", "true",
            "false", "bignum", "attrib",
        ];
        let mut lines: Vec<String> = types
            .iter()
            // Attributes are of RESP3 only; without them there are two replies.
            .filter(|kind| version == "3" || **kind != "attrib")
            .map(|kind| format!("DEBUG PROTOCOL {kind}"))
            .collect();
        lines.insert(0, format!("HELLO {version}"));
        lines.extend(
            [
                "SET k v",
                "GET k",
                "GET none",
                "FOO",
                "COMMAND",
                "INFO",
                "MULTI",
                "GET k",
                "EXEC",
                "HGETALL none",
                "CONFIG GET *",
                "QUIT",
            ]
            .map(str::to_owned),
        );
        let mut connection = redis.connect();
        connection.send((lines.join("\r\n") + "\r\n").as_bytes());
        let bytes = connection.rest();
        for step in [bytes.len(), 1, 7, 4096] {
            assert_eq!(count_replies(&bytes, step), lines.len(), "RESP{version}");
        }
    }
}

/// Whole replies in `bytes`, of which `step` more come at a time; they end with the last one.
fn count_replies(bytes: &[u8], step: usize) -> usize {
    let mut framer = ReplyFramer::new();
    let [mut replies, mut at, mut shown] = [0; 3];
    loop {
        let frame = framer.frame(Shape::Shown, &bytes[at..shown]).unwrap();
        at += frame.taken;
        if frame.then == ReplyThen::End {
            replies += 1;
        } else if frame.taken == 0 && shown == bytes.len() {
            assert_eq!(at, bytes.len(), "nothing is left over");
            return replies;
        } else if frame.taken == 0 {
            shown = (shown + step).min(bytes.len());
        }
    }
}

/// What is shared is answered once, and leaves the connection as it was: a marker behind each command
/// comes next, and `CLIENT INFO` says the same as before.
#[test]
fn what_is_shared_leaves_the_connection_as_it_was() {
    let redis = Redis::start(&[]);
    let mut connection = redis.connect();
    let flags = |info: &Value| -> Vec<String> {
        let kept = [
            "name=", "flags=", "db=", "sub=", "psub=", "multi=", "redir=", "resp=", "user=",
        ];
        let fields = info.text().split(' ');
        let fields = fields.filter(|field| kept.iter().any(|kept| field.starts_with(kept)));
        fields.map(str::to_owned).collect()
    };
    let before = flags(&connection.ask(&["CLIENT", "INFO"]));
    let mut asked = 0;
    for name in commands(&redis).into_keys() {
        let mut words: Vec<&str> = name.split(' ').collect();
        // With what looks like keys, numbers and options; most of it is an error.
        for arguments in [
            &[][..],
            &["k"],
            &["1", "k"],
            &["k", "1", "2"],
            &["k", "ON", "1", "x"],
            &["ON"],
        ] {
            words.truncate(name.split(' ').count());
            words.extend(arguments);
            let command = words
                .iter()
                .fold(format!("*{}\r\n", words.len()), |command, word| {
                    command + &format!("${}\r\n{word}\r\n", word.len())
                });
            let arguments = Arguments::new(command.as_bytes()).unwrap();
            if !matches!(treatment(&arguments), Treatment::Share { .. }) {
                continue;
            }
            connection.send(command.as_bytes());
            connection.value();
            assert_eq!(
                flags(&connection.ask(&["CLIENT", "INFO"])),
                before,
                "{words:?}"
            );
            asked += 1;
        }
    }
    assert!(asked > 1000, "{asked}");
}
