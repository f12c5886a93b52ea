//! The configuration from outside: the manual and the code agree, every mistake is named, and no text
//! whatever brings the loader down.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use millpond::config::checked::{Address, Config, Protocol, descriptors_needed};
use millpond::config::keys::{KEYS, Key, Preset};
use millpond::config::{self, Kind, Source};
use millpond::protocol::frames::Framing;

const MANUAL: &str = "conf/millpond.toml";

/// A configuration with what must be written, and nothing else.
const BASE: &str = r#"
[upstream.orders]
protocol = "http"
endpoints = ["127.0.0.1:8000"]
[listener.web]
listen = "127.0.0.1:8080"
upstream = "orders"
"#;

#[test]
fn the_manual_has_every_key_with_its_default() {
    let manual = manual_keys();
    for key in KEYS {
        let written = manual
            .get(key.path)
            .unwrap_or_else(|| panic!("{MANUAL} lacks {}", key.path));
        match key.default {
            Preset::Is(default) => {
                assert!(
                    !written.live,
                    "{} should be commented out: it is a default",
                    key.path
                );
                assert_eq!(
                    written.value, default,
                    "the default of {} in {MANUAL}",
                    key.path
                );
            }
            Preset::Required => assert!(written.live, "{} must be live in {MANUAL}", key.path),
            Preset::Unset => assert!(!written.live, "{} should be commented out", key.path),
        }
    }
}

#[test]
fn the_manual_has_no_other_key() {
    for path in manual_keys().keys() {
        assert!(
            KEYS.iter().any(|key| key.path == path),
            "{MANUAL} speaks of {path}"
        );
    }
}

/// The same for each protocol that has keys of its own; they need what stands behind them.
const BASES: &[(&str, &str, &str)] = &[
    (
        "reuse_time_wait",
        "http",
        "source = [\"10.0.0.5:40000-49999\"]",
    ),
    ("redis.", "redis", ""),
    ("memcached.", "memcached", ""),
    ("tcp.reuse", "tcp", "tcp.reuse = \"never\""),
    (
        "tcp.",
        "tcp",
        "tcp = { reuse = \"probed\", probe = \"a=>b\" }",
    ),
    ("frames.length", "frames", "frames.length = \"0:4:big\""),
    ("frames.delimiter", "frames", "frames.delimiter = ';'"),
    ("frames.id", "frames", "frames = { size = 8, id = \"0:4\" }"),
    ("frames.magic", "frames", WITH_IDS),
    ("frames.request", "frames", WITH_IDS),
    ("frames.unasked", "frames", WITH_IDS),
    (
        "frames.client_heartbeats",
        "frames",
        "frames = { size = 4, id = \"3:1\", request = \"2:1:1\", heartbeat = \"2:2:2\", \
         heartbeat_reply = \"abbd\" }",
    ),
    ("frames.heartbeat_reply", "frames", WITH_IDS),
    ("frames.heartbeat_request", "frames", WITH_IDS),
    ("frames.heartbeat_interval", "frames", WITH_IDS),
    ("frames.", "frames", "frames.size = 8"),
];

/// Frames of four bytes, the last of which is an id.
const WITH_IDS: &str = "frames = { size = 4, id = \"3:1\" }";

/// The configuration in which a key means something.
fn base(key: &Key) -> String {
    let own = key.path.strip_prefix("upstream.NAME.").unwrap_or_default();
    match BASES.iter().find(|(prefix, ..)| own.starts_with(prefix)) {
        None => BASE.to_owned(),
        Some((_, protocol, lines)) => BASE.replace(
            "protocol = \"http\"",
            &format!("protocol = \"{protocol}\"\n{lines}"),
        ),
    }
}

#[test]
fn every_key_of_the_manual_is_explained() {
    let text = fs::read_to_string(MANUAL).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        if assignment(line).is_some() {
            let before = lines[index - 1];
            let explained = before.starts_with("# ") || assignment(before).is_some();
            assert!(explained, "{MANUAL}:{}: no word about {line}", index + 1);
        }
    }
}

#[test]
fn the_manual_marks_what_needs_a_restart() {
    let text = fs::read_to_string(MANUAL).unwrap();
    let mut marked = Vec::new();
    let mut section = String::new();
    let mut block = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = pattern(name.trim_end_matches(']'));
        } else if let Some((key, _, _)) = assignment(line) {
            if block.contains("[restart]") {
                marked.push(joined(&section, key));
            }
        } else if line.starts_with('#') {
            block.push_str(line);
            continue;
        }
        block.clear();
    }
    let needing: Vec<String> = KEYS
        .iter()
        .filter(|key| key.path == "upstream.NAME.protocol" || needs_restart(key))
        .map(|key| key.path.to_owned())
        .collect();
    assert_eq!(marked, needing);
}

#[test]
fn the_files_in_conf_load_without_a_warning_that_they_do_not_explain() {
    let examples = fs::read_dir("conf/examples").unwrap();
    let examples: Vec<_> = examples.map(|file| file.unwrap().path()).collect();
    assert!(!examples.is_empty());
    for file in examples.into_iter().chain([MANUAL.into()]) {
        let loaded = config::load(&Source::File(file.clone()), std::iter::empty());
        let (text, file) = (fs::read_to_string(&file).unwrap(), file.display());
        let loaded = loaded.unwrap_or_else(|errors| panic!("{file}:\n{errors}"));
        for warning in loaded.warnings {
            assert!(text.contains(&warning), "{file}: {warning}");
        }
    }
}

#[test]
fn the_manual_with_every_default_written_out_is_the_same_configuration() {
    for (protocol, needed) in [("http", ""), ("tcp", ""), ("frames", "size = 8")] {
        let text = manual_for(protocol, needed);
        let live: Vec<String> = text
            .lines()
            .map(|line| match assignment(line) {
                Some((key, ..)) if is_unset(key) => line.to_owned(),
                Some(_) => line.trim_start_matches("# ").to_owned(),
                None => line.to_owned(),
            })
            .collect();
        let written = config::parse(&text);
        assert!(written.is_ok(), "{protocol}: {written:?}");
        assert_eq!(config::parse(&live.join("\n")), written, "{protocol}");
    }
}

#[test]
fn defaults_are_what_the_interface_promises() {
    let config = config::parse(BASE).unwrap();
    assert_eq!(config.workers, None);
    assert_eq!(
        config.admin.as_ref().unwrap().listen.to_string(),
        "127.0.0.1:9900"
    );
    assert_eq!(config.shutdown.drain_timeout, Duration::from_secs(25));
    let upstream = &config.upstreams["orders"];
    assert_eq!((upstream.pool.size, upstream.pool.wait_queue), (64, 1024));
    assert_eq!(upstream.pool.max_lifetime, Some(Duration::from_secs(3600)));
    assert_eq!(upstream.pool.max_exchanges, None);
    assert_eq!(upstream.endpoints[0].weight, 1);
    let listener = &config.listeners["web"];
    assert_eq!(listener.user_timeout, None);
    assert_eq!(listener.unix_mode, 0o666);
    assert_eq!(listener.http.head_max, 16 * 1024);
    assert_eq!(listener.http.body_max, None);
}

/// The manual with another protocol, without the sections that are not for it.
fn manual_for(protocol: &str, needed: &str) -> String {
    let text = fs::read_to_string(MANUAL).unwrap();
    let mut is_in = true;
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| {
            if line.starts_with('[') {
                let others = ["tcp", "frames"].into_iter().filter(|it| *it != protocol);
                is_in = !others
                    .into_iter()
                    .any(|other| line.ends_with(&format!(".{other}]")));
            }
            is_in
        })
        .collect();
    let section = format!("[upstream.orders.{protocol}]");
    lines
        .join("\n")
        .replace("protocol = \"http\"", &format!("protocol = \"{protocol}\""))
        .replace(&section, &format!("{section}\n{needed}"))
}

/// Whether nothing holds for the key where it is not written.
fn is_unset(name: &str) -> bool {
    KEYS.iter()
        .any(|key| key.default == Preset::Unset && key.path.ends_with(&format!(".{name}")))
}

/// Each key reaches its own field: set alone, it changes its own entry and no other.
#[test]
fn each_key_changes_itself_and_nothing_else() {
    let entries_of = |text: &str| -> BTreeMap<_, _> {
        config::entries(&config::parse(text).unwrap())
            .into_iter()
            .collect()
    };
    for key in KEYS {
        let plain = entries_of(&base(key));
        let Some(text) = other_than_default(key) else {
            continue;
        };
        let path = key
            .path
            .replace("upstream.NAME", "upstream.orders")
            .replace("listener.NAME", "listener.web");
        let changed: BTreeMap<_, _> = config::entries(&with_variable(key, &path, &text))
            .into_iter()
            .collect();
        let differing: Vec<&String> = plain
            .keys()
            .filter(|entry| plain[*entry] != changed[*entry])
            .collect();
        if key.path == "upstream.NAME.protocol" {
            let own = |entry: &&&String| entry.starts_with("upstream.orders.tcp.");
            let others = differing.iter().filter(|entry| !own(entry));
            assert_eq!(others.collect::<Vec<_>>(), [&&path], "{path} = {text}");
        } else {
            assert_eq!(differing, [&path], "{path} = {text}");
        }
        assert_eq!(changed[&path], text, "{path}");
    }
    let entries: Vec<String> = entries_of(BASE)
        .keys()
        .map(|entry| {
            entry
                .replace(".orders.", ".NAME.")
                .replace(".web.", ".NAME.")
        })
        .collect();
    for key in KEYS {
        assert!(
            key.kind == Kind::Token || entries.iter().any(|entry| entry == key.path),
            "{}",
            key.path
        );
    }
}

#[test]
fn a_variable_goes_before_the_file() {
    let text = format!("{BASE}[upstream.orders.pool]\nsize = 8\n");
    let variables = variables(&[
        ("MILLPOND__UPSTREAM__ORDERS__POOL__SIZE", "32"),
        (
            "MILLPOND__UPSTREAM__ORDERS__ENDPOINTS",
            "10.0.0.1:80, [::1]:81",
        ),
        ("MILLPOND__LISTENER__WEB__NODELAY", "false"),
        ("MILLPOND__ADMIN__TOKEN", "hush"),
        ("MILLPOND_UNRELATED", "x"),
        ("PATH", "/bin"),
    ]);
    let config = config::load(&Source::Text(text), variables).unwrap().config;
    let upstream = &config.upstreams["orders"];
    assert_eq!(upstream.pool.size, 32);
    let addresses: Vec<String> = upstream
        .endpoints
        .iter()
        .map(|endpoint| endpoint.address.to_string())
        .collect();
    assert_eq!(addresses, ["10.0.0.1:80", "[::1]:81"]);
    assert!(!config.listeners["web"].nodelay);
    assert_eq!(config.admin.unwrap().token.as_deref(), Some("hush"));
}

#[test]
fn a_bad_variable_is_named() {
    let variables = variables(&[
        ("MILLPOND__UPSTREAM__ORDERS__POOL__SIZE", "many"),
        ("MILLPOND__UPSTREAM__ORDERS__POOL__SIZES", "3"),
        ("MILLPOND__ADMIN__TOKEN", "two words"),
    ]);
    let errors = config::load(&Source::Text(BASE.to_owned()), variables).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "upstream.orders.pool.sizes (from MILLPOND__UPSTREAM__ORDERS__POOL__SIZES): there is no such key; did you mean upstream.orders.pool.size?\n\
         admin.token (from MILLPOND__ADMIN__TOKEN) = (hidden): can't be sent in a header; allowed: a text of visible ASCII characters, without blanks\n\
         upstream.orders.pool.size (from MILLPOND__UPSTREAM__ORDERS__POOL__SIZE) = \"many\": is not a whole number; allowed: a whole number from 1 to 1000000"
    );
}

#[test]
fn the_one_line_form_goes_the_same_way() {
    let source = one_line("127.0.0.1:8080", "http://service.test:80/", Some(7));
    let config = config::load(&source, std::iter::empty()).unwrap().config;
    assert_eq!(config.listeners["main"].upstream, "main");
    let upstream = &config.upstreams["main"];
    assert_eq!(upstream.pool.size, 7);
    assert_eq!(
        upstream.endpoints[0].address,
        Address::Name("service.test".to_owned(), 80)
    );

    let source = one_line("unix:/run/m.sock", "http://unix:/run/s.sock", None);
    let config = config::load(&source, std::iter::empty()).unwrap().config;
    assert_eq!(
        config.upstreams["main"].endpoints[0].address,
        Address::Unix("/run/s.sock".into())
    );
    assert_eq!(
        config.listeners["main"].listen,
        Address::Unix("/run/m.sock".into())
    );

    let source = one_line(
        "127.0.0.1:1",
        "frames://s.test:9?delimiter=%0D%0A&max=64KiB",
        None,
    );
    let config = config::load(&source, std::iter::empty()).unwrap().config;
    let Protocol::Frames(frames) = &config.upstreams["main"].protocol else {
        panic!("frames");
    };
    assert_eq!(
        (&frames.layout.framing, frames.layout.frame_max),
        (&Framing::Delimiter(b"\r\n".as_slice().into()), 65_536)
    );
    let source = one_line("127.0.0.1:1", "tcp://s.test:9", None);
    let config = config::load(&source, std::iter::empty()).unwrap().config;
    assert_eq!(config.upstreams["main"].protocol.label(), "tcp");

    let source = one_line("8080", "gopher://127.0.0.1:70", Some(0));
    let errors = config::load(&source, std::iter::empty())
        .unwrap_err()
        .to_string();
    assert_eq!(
        errors,
        "--upstream = \"gopher://127.0.0.1:70\": gopher is not spoken; allowed: http://HOST:PORT, tcp://HOST:PORT, redis://HOST:PORT, memcached://HOST:PORT, frames://HOST:PORT?length=0:4:big (or ?delimiter=%0A, or ?size=N), each also with unix:PATH\n\
         upstream.main.pool.size (from --pool-size) = \"0\": is out of bounds; allowed: a whole number from 1 to 1000000\n\
         listener.main.listen (from --listen) = \"8080\": has no port; allowed: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH"
    );
}

#[test]
fn an_option_goes_before_a_variable() {
    let variables = variables(&[
        ("MILLPOND__UPSTREAM__MAIN__POOL__SIZE", "32"),
        ("MILLPOND__UPSTREAM__MAIN__POOL__WAIT_QUEUE", "9"),
    ]);
    let source = one_line("127.0.0.1:1", "http://127.0.0.1:2", Some(7));
    let config = config::load(&source, variables).unwrap().config;
    assert_eq!(config.upstreams["main"].pool.size, 7);
    assert_eq!(config.upstreams["main"].pool.wait_queue, 9);
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let text = format!(
        "{BASE}[upstream.spare]\nprotocol = \"http\"\nendpoints = [\"a:1\"]\n[admin]\nlisten = \"0.0.0.0:9900\"\n"
    );
    let loaded = config::load(&Source::Text(text), std::iter::empty()).unwrap();
    assert_eq!(
        loaded.warnings,
        [
            "upstream.spare: no listener uses it",
            "admin.listen: without admin.token, callers from elsewhere get health and metrics only",
        ]
    );
}

#[test]
fn a_pool_that_its_ports_can_not_bear_is_a_warning() {
    let warnings = |sources: &str| {
        let text = format!("endpoints = [\"10.0.0.9:80\", \"[fd00::9]:80\"]\nsource = [{sources}]");
        let text = BASE.replace("endpoints = [\"127.0.0.1:8000\"]", &text);
        let loaded = config::load(&Source::Text(text), std::iter::empty());
        loaded.unwrap().warnings
    };
    let (v4, v6) = (r#""10.0.0.5:40000-40099""#, r#""[fd00::5]:40000-40030""#);
    assert_eq!(
        warnings(&format!("{v4}, {v6}")),
        ["upstream.orders.source: 31 ports bear less than upstream.orders.pool.size, 64"]
    );
    let more = r#""[fd00::6]:40000-40032""#;
    assert!(warnings(&format!("{v4}, {v6}, {more}")).is_empty());
    let all = r#""[fd00::6]""#;
    assert!(warnings(&format!("{v4}, {v6}, {all}")).is_empty());
}

#[test]
fn descriptors_are_the_sum_of_the_limits() {
    let text = format!("{BASE}max_sessions = 100\n[upstream.orders.pool]\nsize = 7\n");
    let one = descriptors_needed(&config::parse(&text).unwrap());
    let two = text.replace(
        "\"127.0.0.1:8000\"",
        "\"127.0.0.1:8000\", \"127.0.0.1:8001\"",
    );
    assert_eq!(descriptors_needed(&config::parse(&two).unwrap()) - one, 7);
    let more = text.replace("max_sessions = 100", "max_sessions = 150");
    assert_eq!(descriptors_needed(&config::parse(&more).unwrap()) - one, 50);
    let off = format!("{text}[admin]\nlisten = \"off\"\n");
    assert_eq!(one - descriptors_needed(&config::parse(&off).unwrap()), 1);
}

/// What is wrong, and what is said about it: the whole of it, in this order.
#[test]
fn every_mistake_is_named_with_what_is_allowed() {
    for (mistake, expected) in MISTAKES {
        let text = mistake
            .lines()
            .fold(BASE.to_owned(), |text, line| changed(&text, line));
        let errors = config::parse(&text).expect_err(mistake).to_string();
        assert_eq!(errors, *expected, "{mistake}");
    }
}

/// The base with other endpoints and sources.
fn dialled_from(endpoints: &str, lines: &str) -> Result<Config, String> {
    let line = format!("endpoints = [{endpoints}]\n{lines}");
    let text = BASE.replace("endpoints = [\"127.0.0.1:8000\"]", &line);
    config::parse(&text).map_err(|errors| errors.to_string())
}

#[test]
fn what_is_wrong_with_a_source_address_is_named() {
    let v4 = r#""10.0.0.9:80""#;
    let form = "a list of at most 64 of: IPv4, [IPv6], IPv4:LOW-HIGH or [IPv6]:LOW-HIGH, with ports from \
                1024 to 65535";
    for (text, reason) in [
        (r#""10.0.0""#, "is not an address"),
        (r#""service.test""#, "is not an address"),
        (r#""fd00::5""#, "is IPv6 without brackets"),
        (r#""[fd00::5""#, "is not an address"),
        (r#""[fd00::5]x""#, "is not an address"),
        (r#""10.0.0.5:""#, "has no range of ports"),
        (r#""10.0.0.5:20000""#, "has no range of ports"),
        (r#""10.0.0.5:20000-70000""#, "has no range of ports"),
        (r#""10.0.0.5:+20000-30000""#, "has no range of ports"),
        (
            r#""10.0.0.5:30000-20000""#,
            "has a range that ends before it begins",
        ),
        (r#""10.0.0.5:80-90""#, "has ports that need a privilege"),
        (r#""0.0.0.0""#, "is no address of one host"),
        (r#""224.0.0.1""#, "is no address of one host"),
        (r#""[::]:20000-29999""#, "is no address of one host"),
        (r#""[::ffff:10.0.0.5]""#, "is IPv4 written as IPv6"),
        (r#""[fe80::5]""#, "is of one link, which it does not name"),
        ("5", "is of the wrong type"),
    ] {
        let errors = dialled_from(v4, &format!("source = [{text}]")).unwrap_err();
        let expected = format!("upstream.orders.source[0] = {text}: {reason}; allowed: {form}");
        assert_eq!(errors, expected);
    }
    for twice in [
        r#""10.0.0.5", "10.0.0.5""#,
        r#""10.0.0.5", "10.0.0.5:20000-29999""#,
        r#""10.0.0.5:20000-29999", "10.0.0.5:29999-30000""#,
    ] {
        let errors = dialled_from(v4, &format!("source = [{twice}]")).unwrap_err();
        let expected = "has ports that stand there already";
        assert!(errors.starts_with("upstream.orders.source[1]"), "{errors}");
        assert!(errors.contains(expected), "{errors}");
    }
    let many: Vec<String> = (0..65).map(|it| format!("\"10.0.1.{it}\"")).collect();
    let errors = dialled_from(v4, &format!("source = [{}]", many.join(", "))).unwrap_err();
    let expected = format!("upstream.orders.source = 65 addresses: are too many; allowed: {form}");
    assert_eq!(errors, expected);
}

#[test]
fn a_source_address_fits_an_endpoint_and_each_endpoint_one() {
    let (v4, v6, unix) = (r#""10.0.0.9:80""#, r#""[fd00::9]:80""#, r#""unix:/s""#);
    let both = r#"source = ["10.0.0.5:20000-29999", "[fd00::5]"]"#;
    let nobody = |index: u8, source: &str| {
        format!(
            "upstream.orders.source[{index}] = \"{source}\": there is no endpoint that could be dialled \
             from it; allowed: an address of the family of an endpoint"
        )
    };
    let errors = dialled_from(v4, both).unwrap_err();
    assert_eq!(errors, nobody(1, "[fd00::5]"));
    let errors = dialled_from(v6, both).unwrap_err();
    assert_eq!(errors, nobody(0, "10.0.0.5:20000-29999"));
    let errors = dialled_from(unix, r#"source = ["10.0.0.5"]"#).unwrap_err();
    assert_eq!(errors, nobody(0, "10.0.0.5"));
    let errors = dialled_from(&format!("{v4}, {v6}"), r#"source = ["10.0.0.5"]"#).unwrap_err();
    assert_eq!(
        errors,
        "upstream.orders.source = 10.0.0.5: has no address to dial [fd00::9]:80 from; allowed: an address \
         of the family of each endpoint"
    );
    for endpoints in [
        format!("{v4}, {v6}"),
        format!("{v4}, \"a.test:1\""),
        r#""a.test:1""#.to_owned(),
        format!("{v4}, {v6}, {unix}"),
    ] {
        let config = dialled_from(&endpoints, both).unwrap();
        let sources = &config.upstreams["orders"].source;
        let written: Vec<String> = sources.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["10.0.0.5:20000-29999", "[fd00::5]"]);
    }
    assert_eq!(
        dialled_from(v4, "source = []").unwrap(),
        dialled_from(v4, "").unwrap()
    );
}

#[test]
fn only_named_ports_are_taken_out_of_time_wait() {
    let v4 = r#""10.0.0.9:80""#;
    for source in ["", r#"source = ["10.0.0.5:20000-29999", "10.0.0.6"]"#] {
        let errors = dialled_from(v4, &format!("{source}\nreuse_time_wait = true")).unwrap_err();
        assert_eq!(
            errors,
            "upstream.orders.reuse_time_wait = true: needs to know the ports that may be taken out of \
             TIME_WAIT; allowed: only where each address of upstream.orders.source has a range of ports"
        );
    }
}

/// A line of a mistake is `-TEXT` (this line of the base goes) or `[section] key = value`.
fn changed(text: &str, line: &str) -> String {
    if let Some(gone) = line.strip_prefix('-') {
        assert!(text.contains(gone), "{gone}");
        return text.replace(gone, "");
    }
    let Some((section, rest)) = line.split_once("] ") else {
        return format!("{line}\n{text}");
    };
    let header = format!("{section}]\n");
    match text.contains(&header) {
        true => text.replace(&header, &format!("{header}{rest}\n")),
        false => format!("{text}{header}{rest}\n"),
    }
}

const MISTAKES: &[(&str, &str)] = &[
    (
        "workers = -1",
        "workers = -1: is out of bounds; allowed: a whole number from 0 to 1024",
    ),
    (
        "workers = 1.5",
        "workers = 1.5: is of the wrong type; allowed: a whole number from 0 to 1024",
    ),
    (
        r#"workers = "4""#,
        r#"workers = "4": is a text, not a number; allowed: a whole number from 0 to 1024"#,
    ),
    (
        "worker = 4",
        "worker: there is no such key; did you mean workers?",
    ),
    (
        "upstream_defaults = 4",
        "upstream_defaults: there is no such key; known here: workers, admin, ledger, shutdown, log, upstream, listener",
    ),
    (
        "zzz = 4",
        "zzz: there is no such key; known here: workers, admin, ledger, shutdown, log, upstream, listener",
    ),
    (
        r#""a\nb" = 4"#,
        r#""a\nb": there is no such key; known here: workers, admin, ledger, shutdown, log, upstream, listener"#,
    ),
    (
        "admin = 5",
        "admin = 5: is not a section; allowed: a section [admin]",
    ),
    (
        r#"[admin] listen = "9900""#,
        r#"admin.listen = "9900": has no port; allowed: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH, or "off""#,
    ),
    (
        r#"[admin] listen = "of""#,
        r#"admin.listen = "of": has no port; allowed: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH, or "off""#,
    ),
    (
        r#"[admin] token = "a b""#,
        "admin.token = (hidden): can't be sent in a header; allowed: a text of visible ASCII characters, without blanks",
    ),
    (
        "[admin] token = 5",
        "admin.token = (hidden): is of the wrong type; allowed: a text of visible ASCII characters, without blanks",
    ),
    (
        r#"[admin] listen = "127.0.0.1:8080""#,
        r#"listener.web.listen = "127.0.0.1:8080": is the address of admin.listen already; allowed: an address of its own"#,
    ),
    (
        "[shutdown] drain_timeout = 25",
        r#"shutdown.drain_timeout = 25: has no unit; allowed: a time from 1ms to 365d, such as "55s", "10m", "1h"; or "0s""#,
    ),
    (
        r#"[shutdown] grace = "-1s""#,
        r#"shutdown.grace = "-1s": is not a time; allowed: a time from 1ms to 365d, such as "55s", "10m", "1h"; or "0s""#,
    ),
    (
        r#"[log] level = "inof""#,
        r#"log.level = "inof": is not a filter; allowed: trace, debug, info, warn, error or off, also by module: "info,millpond::pool=debug""#,
    ),
    (
        r#"[log] format = "xml""#,
        r#"log.format = "xml": is not one of the choices; allowed: "text" or "json""#,
    ),
    (
        "[log] sessions = true",
        r#"log.sessions = true: is of the wrong type; allowed: "all" or "abnormal" or "none""#,
    ),
    (
        r#"-protocol = "http""#,
        r#"upstream.orders.protocol: must be written; allowed: "http" or "tcp" or "frames" or "redis" or "memcached""#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "smtp""#,
        r#"upstream.orders.protocol = "smtp": is not one of the choices; allowed: "http" or "tcp" or "frames" or "redis" or "memcached""#,
    ),
    (
        r#"[upstream.orders] tcp.quiet = "1s""#,
        r#"upstream.orders.tcp.quiet = protocol = "http": has no use for it; allowed: only with protocol = "tcp""#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "tcp"
[upstream.orders] tcp.reuse = "probed""#,
        r#"upstream.orders.tcp.probe: must be written; allowed: { send = "…", expect = "…" } with bytes in each"#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "tcp"
[upstream.orders] tcp.probe = { send = '\q', answer = "a" }"#,
        r#"upstream.orders.tcp.probe.send = "\\q": has an unknown escape (write \\ for a backslash); allowed: { send = "…", expect = "…" } with bytes in each
upstream.orders.tcp.probe.expect = { … }: is missing; allowed: { send = "…", expect = "…" } with bytes in each
upstream.orders.tcp.probe.answer = "a": there is no such key; allowed: { send = "…", expect = "…" } with bytes in each"#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "frames""#,
        r#"upstream.orders.frames: must be written; allowed: one of length, delimiter and size"#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "frames"
[upstream.orders] frames = { size = 8, delimiter = ";" }"#,
        r#"upstream.orders.frames.size = 8: stands beside upstream.orders.frames.delimiter; allowed: one of length, delimiter and size"#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "frames"
[upstream.orders] frames = { length = { offset = 0, width = 9, endian = "middle" }, max = "1KiB" }"#,
        r#"upstream.orders.frames.length.width = 9: is not a whole number from 1 to 8; allowed: { offset = 0, width = 4, endian = "big" or "little", adjust = 0 }, or "0:4:big:0"
upstream.orders.frames.length.endian = "middle": is neither "big" nor "little"; allowed: { offset = 0, width = 4, endian = "big" or "little", adjust = 0 }, or "0:4:big:0""#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "frames"
[upstream.orders] frames = { size = 8, oneway = { offset = 8, mask = 0x40, value = 0x40 } }"#,
        r#"upstream.orders.frames.oneway = "8:0x40:0x40": the mark of one-way requests lies where no frame has a byte of its own; allowed: a layout in which a frame can be told from the next"#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "frames"
[upstream.orders] frames = { size = 8, heartbeat = { offset = 1, mask = 0x40, value = 0x41 } }"#,
        r#"upstream.orders.frames.heartbeat = "1:0x40:0x41": the mark of heartbeats expects bits that its mask hides; allowed: a layout in which a frame can be told from the next"#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "frames"
[upstream.orders] frames = { size = 8, unasked = "retire", magic = "0:a" }"#,
        r#"upstream.orders.frames.magic = "0:a": is only for frames with ids; allowed: beside upstream.orders.frames.id
upstream.orders.frames.unasked = "retire": is only for frames with ids; allowed: beside upstream.orders.frames.id"#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "frames"
[upstream.orders] frames = { size = 8, id = { offset = 6, width = 4 } }"#,
        r#"upstream.orders.frames.id = "6:4:big": an id does not lie within the first 4096 bytes of the longest frame; allowed: what a frame of the declared layout can have"#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "frames"
[upstream.orders] frames = { length = "0:4:big", id = "2:4" }"#,
        r#"upstream.orders.frames.id = "2:4:big": an id may stand where something else of the frame does; allowed: what a frame of the declared layout can have"#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "frames"
[upstream.orders] frames = { delimiter = ";", id = "2:4" }"#,
        r#"upstream.orders.frames.id = "2:4:big": frames that end with a delimiter can't have ids: an id may be any bytes; allowed: what a frame of the declared layout can have"#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "frames"
[upstream.orders] frames = { size = 8, id = "4:4", heartbeat = "0:1:1", client_heartbeats = "answer" }"#,
        r#"upstream.orders.frames.heartbeat_reply: must be written; allowed: a text, in which \r \n \t \0 \\ and \xNN stand for bytes; single quotes leave it as it is
upstream.orders.frames.request: must be written; allowed: { offset = 2, mask = 0x20, value = 0x20 }, or "2:0x20:0x20""#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "frames"
[upstream.orders] frames = { size = 8, id = "4:4", error_reply = "short" }"#,
        r#"upstream.orders.frames.error_reply = "short": is not one whole frame with its id and magic that asks, or answers, as it should; allowed: what a frame of the declared layout can have"#,
    ),
    (
        r#"-protocol = "http"
[upstream.orders] protocol = "frames"
[upstream.orders] frames = { size = 8, id = { request = { offset = 1, width = 9 }, answer = 1 } }"#,
        r#"upstream.orders.frames.id.width = 9: is not a whole number from 1 to 8; allowed: { offset = 4, width = 8, endian = "big" or "little" }, or "4:8:big"; { request = …, reply = … } or "8:4 => 4:4" where they differ
upstream.orders.frames.id.reply = { … }: is missing; allowed: { offset = 4, width = 8, endian = "big" or "little" }, or "4:8:big"; { request = …, reply = … } or "8:4 => 4:4" where they differ
upstream.orders.frames.id.answer = 1: there is no such key; allowed: { offset = 4, width = 8, endian = "big" or "little" }, or "4:8:big"; { request = …, reply = … } or "8:4 => 4:4" where they differ"#,
    ),
    (
        r#"-endpoints = ["127.0.0.1:8000"]"#,
        r#"upstream.orders.endpoints: must be written; allowed: a list of at least one of: an address or { address = "…", weight = 1 }, with IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH"#,
    ),
    (
        r#"-endpoints = ["127.0.0.1:8000"]
[upstream.orders] endpoints = []"#,
        r#"upstream.orders.endpoints = []: is empty; allowed: a list of at least one of: an address or { address = "…", weight = 1 }, with IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH"#,
    ),
    (
        r#"-endpoints = ["127.0.0.1:8000"]
[upstream.orders] endpoints = "127.0.0.1:8000""#,
        r#"upstream.orders.endpoints = "127.0.0.1:8000": is not a list; allowed: a list of at least one of: an address or { address = "…", weight = 1 }, with IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH"#,
    ),
    (
        r#"-endpoints = ["127.0.0.1:8000"]
[upstream.orders] endpoints = ["a:1", "a", "127.0.0.300:1", "::1:80", "a:1", "a:0", "a:65536", 5]"#,
        r#"upstream.orders.endpoints[1] = "a": has no port; allowed: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH
upstream.orders.endpoints[2] = "127.0.0.300:1": is not an address; allowed: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH
upstream.orders.endpoints[3] = "::1:80": is IPv6 without brackets; allowed: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH
upstream.orders.endpoints[4] = "a:1": stands there twice; allowed: each address once
upstream.orders.endpoints[5] = "a:0": has port 0; allowed: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH
upstream.orders.endpoints[6] = "a:65536": has no port from 0 to 65535; allowed: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH
upstream.orders.endpoints[7] = 5: is of the wrong type; allowed: an address or { address = "…", weight = 1 }, with IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH"#,
    ),
    (
        r#"-endpoints = ["127.0.0.1:8000"]
[upstream.orders] endpoints = [{ address = "a:1", weight = 0 }, { adress = "a:1" }, { address = "unix:" }]"#,
        r#"upstream.orders.endpoints[0].weight = 0: is out of bounds; allowed: a whole number from 1 to 256
upstream.orders.endpoints[1].adress = "a:1": there is no such key; allowed: an address or { address = "…", weight = 1 }
upstream.orders.endpoints[1] = { … }: has no address; allowed: an address or { address = "…", weight = 1 }
upstream.orders.endpoints[2].address = "unix:": has no path; allowed: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH"#,
    ),
    (
        r#"[upstream.orders] response_timeout = "0s""#,
        r#"upstream.orders.response_timeout = "0s": is out of bounds; allowed: a time from 1ms to 365d, such as "55s", "10m", "1h""#,
    ),
    (
        r#"[upstream.orders] response_timeout = "60""#,
        r#"upstream.orders.response_timeout = "60": has no unit; allowed: a time from 1ms to 365d, such as "55s", "10m", "1h""#,
    ),
    (
        r#"[upstream.orders] response_timeout = "60 s""#,
        r#"upstream.orders.response_timeout = "60 s": has an unknown unit; allowed: a time from 1ms to 365d, such as "55s", "10m", "1h""#,
    ),
    (
        r#"[upstream.orders] response_timeout = "sixty""#,
        r#"upstream.orders.response_timeout = "sixty": is not a time; allowed: a time from 1ms to 365d, such as "55s", "10m", "1h""#,
    ),
    (
        r#"[upstream.orders] response_timeout = "99999999999999999999h""#,
        r#"upstream.orders.response_timeout = "99999999999999999999h": is out of bounds; allowed: a time from 1ms to 365d, such as "55s", "10m", "1h""#,
    ),
    (
        r#"[upstream.orders] retry = "always""#,
        r#"upstream.orders.retry = "always": is not one of the choices; allowed: "proven" or "idempotent" or "off""#,
    ),
    (
        "[upstream.orders] retry_buffer = 65536",
        r#"upstream.orders.retry_buffer = 65536: has no unit; allowed: a size from 0B to 16MiB, such as "64KiB", "1MiB"; or 0"#,
    ),
    (
        r#"[upstream.orders] retry_buffer = "64kb""#,
        r#"upstream.orders.retry_buffer = "64kb": has an unknown unit; allowed: a size from 0B to 16MiB, such as "64KiB", "1MiB"; or 0"#,
    ),
    (
        r#"[upstream.orders] keepalive = "10h""#,
        r#"upstream.orders.keepalive = "10h": is out of bounds; allowed: a time from 1s to 32767s, such as "55s", "10m", "1h"; or "0s""#,
    ),
    (
        r#"[upstream.orders] user_timeout = "30d""#,
        r#"upstream.orders.user_timeout = "30d": is out of bounds; allowed: a time from 1ms to 24d, such as "55s", "10m", "1h"; or "0s""#,
    ),
    (
        "[upstream.orders] size = 5",
        "upstream.orders.size: there is no such key; did you mean upstream.orders.pool.size?",
    ),
    (
        "[upstream.orders.pool] size = 0",
        "upstream.orders.pool.size = 0: is out of bounds; allowed: a whole number from 1 to 1000000",
    ),
    (
        "[upstream.orders.pool] size = 4
[upstream.orders.pool] min_idle = 5",
        "upstream.orders.pool.min_idle = 5: is more than upstream.orders.pool.size; allowed: a whole number from 0 to 4",
    ),
    (
        "[upstream.orders.pool] min_idle = 65
[upstream.orders.pool] size = 0",
        "upstream.orders.pool.size = 0: is out of bounds; allowed: a whole number from 1 to 1000000",
    ),
    (
        r#"[upstream.orders.pool] backoff_min = "20s""#,
        r#"upstream.orders.pool.backoff_min = "20s": is more than upstream.orders.pool.backoff_max; allowed: a time up to 2s"#,
    ),
    (
        r#"[upstream.orders.pool] connect_timeout = "0s""#,
        r#"upstream.orders.pool.connect_timeout = "0s": is out of bounds; allowed: a time from 1ms to 365d, such as "55s", "10m", "1h""#,
    ),
    (
        "[upstream.orders.pool] connect_parallel = 0",
        "upstream.orders.pool.connect_parallel = 0: is out of bounds; allowed: a whole number from 1 to 1024",
    ),
    (
        r#"[upstream.orders.pool] wait_time = "1s""#,
        "upstream.orders.pool.wait_time: there is no such key; did you mean upstream.orders.pool.wait_timeout?",
    ),
    (
        r#"[upstream.Orders] protocol = "http"
[upstream.Orders] endpoints = ["a:1"]"#,
        r#"upstream = "Orders": is not a name; allowed: a lower-case letter, then lower-case letters, digits and _; 63 at most"#,
    ),
    (
        r#"[upstreams.spare] protocol = "http""#,
        "upstreams: there is no such key; did you mean upstream?",
    ),
    (
        r#"-upstream = "orders""#,
        "listener.web.upstream: must be written; allowed: the name of an upstream",
    ),
    (
        r#"-upstream = "orders"
[listener.web] upstream = "order""#,
        r#"listener.web.upstream = "order": there is no such upstream; allowed: "orders""#,
    ),
    (
        r#"-listen = "127.0.0.1:8080"
[listener.web] listen = "*:80""#,
        r#"listener.web.listen = "*:80": is not an address; allowed: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH"#,
    ),
    (
        r#"-listen = "127.0.0.1:8080"
[listener.web] listen = "[::1:80""#,
        r#"listener.web.listen = "[::1:80": is not an address; allowed: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH"#,
    ),
    (
        r#"[listener.two] listen = "127.0.0.1:8080"
[listener.two] upstream = "orders""#,
        r#"listener.web.listen = "127.0.0.1:8080": is the address of listener.two.listen already; allowed: an address of its own"#,
    ),
    (
        "[listener.web] max_sessions = 0",
        "listener.web.max_sessions = 0: is out of bounds; allowed: a whole number from 1 to 1000000",
    ),
    (
        "[listener.web] backlog = 0",
        "listener.web.backlog = 0: is out of bounds; allowed: a whole number from 1 to 65535",
    ),
    (
        r#"[listener.web] reuse_port = "yes""#,
        r#"listener.web.reuse_port = "yes": is a text, not a switch; allowed: true or false"#,
    ),
    (
        "[listener.web] nodelay = 1",
        "listener.web.nodelay = 1: is of the wrong type; allowed: true or false",
    ),
    (
        "[listener.web] unix_mode = 0o666",
        r#"listener.web.unix_mode = 438: is of the wrong type; allowed: permission bits in octal, such as "0660""#,
    ),
    (
        r#"[listener.web] unix_mode = "0888""#,
        r#"listener.web.unix_mode = "0888": is not octal; allowed: permission bits in octal, such as "0660""#,
    ),
    (
        r#"[listener.web] unix_mode = "1777""#,
        r#"listener.web.unix_mode = "1777": is out of bounds; allowed: permission bits in octal, such as "0660""#,
    ),
    (
        r#"[listener.web] linger_gap = "31s""#,
        r#"listener.web.linger_gap = "31s": is more than listener.web.linger_time; allowed: a time up to 30s"#,
    ),
    (
        r#"[listener.web] linger_time = "1s""#,
        r#"listener.web.linger_gap (the default) = "5s": is more than listener.web.linger_time; allowed: a time up to 1s"#,
    ),
    (
        "[listener.web] linger_bytes = 0",
        r#"listener.web.linger_bytes = 0: is out of bounds; allowed: a size from 1B to 1GiB, such as "64KiB", "1MiB""#,
    ),
    (
        r#"[listener.web.http] head_max = "512B""#,
        r#"listener.web.http.head_max = "512B": is out of bounds; allowed: a size from 1KiB to 1MiB, such as "64KiB", "1MiB""#,
    ),
    (
        r#"[listener.web.http] head_max = "2MiB""#,
        r#"listener.web.http.head_max = "2MiB": is out of bounds; allowed: a size from 1KiB to 1MiB, such as "64KiB", "1MiB""#,
    ),
    (
        r#"[listener.web.http] body_max = "1TB""#,
        r#"listener.web.http.body_max = "1TB": has an unknown unit; allowed: a size from 0B to 1024GiB, such as "64KiB", "1MiB"; or 0"#,
    ),
    (
        "[listener.web.http] forwarded = []",
        "listener.web.http.forwarded = [ … ]: is of the wrong type; allowed: true or false",
    ),
    (
        r#"-[listener.web]
-listen = "127.0.0.1:8080"
-upstream = "orders""#,
        "listener: there is none; allowed: at least one [listener.NAME]",
    ),
    (
        "workers = 4
workers = 5",
        "configuration: TOML parse error at line 2, column 1: duplicate key",
    ),
    (
        "workers = ",
        "configuration: TOML parse error at line 1, column 11: string values must be quoted, expected literal string",
    ),
    (
        "workers = 99999999999999999999",
        "configuration: number too large to fit in target type",
    ),
    (
        r#"workers = -1
[log] levle = "info"
[upstream.orders] retry = 1
[upstream.orders.pool] size = 0
[listener.web] head_timeout = 10
[listener.web.http] head_max = "1B""#,
        r#"log.levle: there is no such key; did you mean log.level?
workers = -1: is out of bounds; allowed: a whole number from 0 to 1024
upstream.orders.retry = 1: is of the wrong type; allowed: "proven" or "idempotent" or "off"
upstream.orders.pool.size = 0: is out of bounds; allowed: a whole number from 1 to 1000000
listener.web.head_timeout = 10: has no unit; allowed: a time from 1ms to 365d, such as "55s", "10m", "1h"
listener.web.http.head_max = "1B": is out of bounds; allowed: a size from 1KiB to 1MiB, such as "64KiB", "1MiB""#,
    ),
];

/// Flips, cuts, doubles and swaps pieces of the manual, always the same ones. Any answer is right,
/// except none.
#[test]
fn no_text_brings_the_loader_down() {
    const ROUNDS: u32 = 4_000;
    let manuals = [("http", ""), ("tcp", ""), ("frames", "size = 8")].map(|(protocol, needed)| {
        manual_for(protocol, needed)
            .lines()
            .filter(|line| {
                let live = !line.starts_with('#');
                let key = assignment(line).map(|(key, ..)| key);
                line.starts_with('[') || key.is_some_and(|key| live || !is_unset(key))
            })
            .map(|line| line.trim_start_matches("# ").to_owned())
            .collect::<Vec<String>>()
    });
    let values = [
        "0",
        "-1",
        "99999999999",
        "\"\"",
        "[]",
        "{}",
        "[[1]]",
        "\"0s\"",
        "1.5",
        "nan",
        "1979-05-27",
        "\"99999999999999999999h\"",
        "\"18446744073709551615GiB\"",
        "\"unix:\"",
        "\"[::1]\"",
        "\":\"",
        "{ address = 1 }",
        "true",
    ];
    let mut random = Random(0x6d69_6c6c_706f_6e64);
    let (mut good, mut bad) = (0, 0);
    for round in 0..ROUNDS {
        let mut lines = manuals[round as usize % manuals.len()].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(lines.len());
            match random.below(5) {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[random.below(lines.len())].clone()),
                2 => lines[at] = flipped(&lines[at], &mut random),
                3 => {
                    let other = random.below(lines.len());
                    lines.swap(at, other);
                }
                _ => {
                    if let Some((key, _)) = lines[at].split_once(" = ") {
                        lines[at] = format!("{key} = {}", values[random.below(values.len())]);
                    }
                }
            }
        }
        match config::parse(&lines.join("\n")) {
            Ok(config) => {
                good += 1;
                hold(&config);
            }
            Err(errors) => {
                bad += 1;
                assert!(!errors.0.is_empty());
                assert_eq!(
                    errors.to_string().lines().count(),
                    errors.0.len(),
                    "{errors}"
                );
            }
        }
    }
    assert!(
        good > 50 && bad > 500,
        "the mutations are worth something: {good} good, {bad} bad"
    );
}

/// What every loaded configuration promises.
fn hold(config: &Config) {
    assert!(!config.listeners.is_empty());
    for listener in config.listeners.values() {
        assert!(config.upstreams.contains_key(&listener.upstream));
        assert!(listener.linger_gap <= listener.linger_time);
        assert!((1024..=1024 * 1024).contains(&listener.http.head_max));
        assert!(listener.max_sessions >= 1 && listener.idle_timeout > Duration::ZERO);
    }
    for upstream in config.upstreams.values() {
        assert!(!upstream.endpoints.is_empty());
        assert!(upstream.pool.size >= 1 && upstream.pool.min_idle <= upstream.pool.size);
        assert!(upstream.pool.backoff_min <= upstream.pool.backoff_max);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

fn flipped(line: &str, random: &mut Random) -> String {
    let mut bytes = line.as_bytes().to_vec();
    let at = random.below(bytes.len());
    bytes[at] = b" \"'[]{}=.,#0aZ\t\\-_:"[random.below(19)];
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Written {
    value: String,
    live: bool,
}

/// Every `key = value` of the manual, live or commented, under its path in the table.
fn manual_keys() -> BTreeMap<String, Written> {
    let text = fs::read_to_string(MANUAL).unwrap();
    let mut section = String::new();
    let mut keys = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = pattern(name.trim_end_matches(']'));
        } else if let Some((key, value, live)) = assignment(line) {
            let value = value.trim_matches('"').to_owned();
            let twice = keys.insert(joined(&section, key), Written { value, live });
            assert!(twice.is_none(), "{section}.{key} stands twice in {MANUAL}");
        }
    }
    keys
}

/// The key, the value, and whether the line is live. Prose is no assignment: its first word is not
/// followed by ` = `.
fn assignment(line: &str) -> Option<(&str, &str, bool)> {
    let (text, live) = match line.strip_prefix("# ") {
        Some(text) => (text, false),
        None => (line, true),
    };
    let (key, value) = text.split_once(" = ")?;
    let is_key = !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit());
    is_key.then_some((key, value, live))
}

fn pattern(section: &str) -> String {
    section.replace(".orders", ".NAME")
}

fn joined(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

/// Whether a change of the key is named in `needs_restart`.
fn needs_restart(key: &Key) -> bool {
    let path = key
        .path
        .replace("upstream.NAME", "upstream.orders")
        .replace("listener.NAME", "listener.web");
    let text = match key.kind {
        Kind::Token => "hush".to_owned(),
        _ => match other_than_default(key) {
            Some(text) => text,
            None => return false,
        },
    };
    let changes = config::diff(
        &config::parse(&base(key)).unwrap(),
        &with_variable(key, &path, &text),
    );
    assert!(!changes.is_empty(), "{path}");
    !changes.needs_restart.is_empty()
}

/// Another good value, as `entries` writes it; none where there is no other.
fn other_than_default(key: &Key) -> Option<String> {
    let default = match key.default {
        Preset::Is(default) => default,
        Preset::Required | Preset::Unset => "",
    };
    Some(match key.kind {
        // A choice of protocol brings a section with it; `tcp` needs nothing in it.
        _ if key.path == "upstream.NAME.protocol" => "tcp".to_owned(),
        _ if key.path == "upstream.NAME.tcp.reuse" => "promised".to_owned(),
        Kind::Sources => "10.0.0.5, 10.0.0.6:40000-49999".to_owned(),
        Kind::Commands => "keys, lrange".to_owned(),
        Kind::Octets => r"NO\r\n".to_owned(),
        Kind::Probe => r"PING\r\n=>+PONG\r\n".to_owned(),
        Kind::LengthField => "4:2:little:-1".to_owned(),
        Kind::Mark => "2:0x40:0x00".to_owned(),
        Kind::Ids => "1:2:little => 4:2:big".to_owned(),
        Kind::Magic => "0:NO, 2:!".to_owned(),
        Kind::Count { .. } if default.is_empty() => "9".to_owned(),
        Kind::Count { .. } => (default.parse::<u64>().unwrap() + 1).to_string(),
        Kind::Bytes { .. } => "3KiB".to_owned(),
        // Below its upper bound, which is another key.
        Kind::Time { .. } if key.path.ends_with("backoff_min") => "1s".to_owned(),
        Kind::Time { .. } => "7s".to_owned(),
        Kind::Switch => (default != "true").to_string(),
        Kind::Choice(words) => (*words
            .iter()
            .find(|word| **word != default && words.len() > 1)?)
        .to_owned(),
        Kind::LogFilter => "warn,millpond::pool=debug".to_owned(),
        Kind::Mode => "0600".to_owned(),
        Kind::ListenAddress | Kind::AddressOrOff => "127.0.0.1:7".to_owned(),
        Kind::Endpoints => "a.test:1, unix:/s".to_owned(),
        Kind::Name | Kind::Token => return None,
    })
}

fn with_variable(key: &Key, path: &str, text: &str) -> Config {
    let variable = format!("MILLPOND__{}", path.replace('.', "__").to_uppercase());
    config::load(&Source::Text(base(key)), variables(&[(&variable, text)]))
        .unwrap_or_else(|errors| panic!("{path} = {text}:\n{errors}"))
        .config
}

fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> + use<> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    pairs.into_iter()
}

fn one_line(listen: &str, upstream: &str, pool_size: Option<u64>) -> Source {
    Source::CommandLine {
        listen: listen.to_owned(),
        upstream: upstream.to_owned(),
        pool_size,
        admin: None,
    }
}
