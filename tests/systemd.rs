//! Under a service manager: sockets that it gives, what it is told, and the units for systemd.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond::config;
use nix::sys::signal::Signal;
use socket2::SockRef;
use support::client::{self, Client};
use support::message::Wire;
use support::process::attempt;
use support::proxy::{Config, Proxy};
use support::service_manager::{Notified, give};
use support::socket::{End, Socket};
use support::upstream::Service;
use support::wait::{self, Flag, Gate};

/// A listener that stands in the configuration beside `front`.
fn also(name: &str, listen: &str) -> String {
    format!("[listener.{name}]\nlisten = \"{listen}\"\nupstream = \"service\"\n")
}

fn tcp(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Drains, and expects the end of a drained millpond.
fn stop(proxy: Proxy) {
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn inherited_sockets_go_to_listeners_by_name_or_else_by_address() {
    let service = Service::echoing_targets();
    let directory = tempfile::tempdir().unwrap();
    let (by_name, by_address) = (
        directory.path().join("by_name"),
        directory.path().join("by_address"),
    );
    let (front, front_address) = tcp("127.0.0.1:0");
    let (second, second_address) = tcp("127.0.0.1:0");
    let (six, six_address) = tcp("[::1]:0");
    let (third, fourth) = (
        UnixListener::bind(&by_name).unwrap(),
        UnixListener::bind(&by_address).unwrap(),
    );
    let more = [
        also("second", &second_address.to_string()),
        also("six", &six_address.to_string()),
        also("third", "unix:elsewhere"),
        also("fourth", &format!("unix:{}", by_address.display())),
        also("bound", "127.0.0.1:0"),
    ];
    let config = Config::to(service.address()).more(&more.concat());
    // What systemd calls a socket without FileDescriptorName=, and a name that is nobody's.
    let proxy = give(
        config,
        &[
            ("millpond.socket", &second),
            ("millpond.socket", &fourth),
            ("front", &front),
            ("third", &third),
            ("nobody", &six),
        ],
    )
    .start();
    assert_eq!(proxy.address(), front_address, "whatever `listen` says");
    for (listener, address) in [("second", second_address), ("six", six_address)] {
        assert_eq!(proxy.address_of(listener), address);
        assert_eq!(client::once(address, "/tcp").unwrap().text(), "/tcp");
    }
    let bound = proxy.address_of("bound");
    assert_eq!(client::once(bound, "/bound").unwrap().text(), "/bound");
    for path in [&by_name, &by_address] {
        let mut client = Client::over(Socket::dial_unix(path).unwrap());
        assert_eq!(client.get("/unix").text(), "/unix");
    }
    for listener in ["second", "six", "third", "fourth", "bound"] {
        let opened = format!("/listeners/{listener}/sessions/opened");
        assert_eq!(proxy.snapshot().number(&opened), 1, "{listener}");
    }
    for place in 3..8 {
        assert!(is_closed_on_exec(proxy.process().pid(), place), "{place}");
    }
    stop(proxy);
    assert!(by_name.exists() && by_address.exists(), "they are not ours");
}

/// `O_CLOEXEC` among the flags of a descriptor (proc_pid_fdinfo(5)).
fn is_closed_on_exec(pid: u32, descriptor: i32) -> bool {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).unwrap();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    u32::from_str_radix(flags.unwrap().trim(), 8).unwrap() & O_CLOEXEC != 0
}

#[test]
fn an_inherited_socket_that_is_for_no_listener_is_named_and_nothing_starts() {
    let config = || Config::to("127.0.0.1:1");
    let (one, address) = tcp("127.0.0.1:0");
    let (two, second) = tcp("127.0.0.1:0");
    let (code, said) = give(config(), &[("front", &one), ("stranger", &two)]).fail();
    assert_eq!(code, 1);
    let error = format!("inherited socket \"stranger\" at {second}: no listener has this name");
    assert!(said.contains(&error), "{said}");

    let (code, said) = give(config(), &[("front", &one), ("front", &two)]).fail();
    assert_eq!(code, 1);
    let error = format!("\"front\" at {second}: listener.front has another already");
    assert!(said.contains(&error), "{said}");

    let at_second = config().listen(&second.to_string());
    let (code, said) = give(at_second, &[("unknown", &two), ("front", &one)]).fail();
    assert_eq!(code, 1);
    let error = format!("\"unknown\" at {second}: listener.front has another already");
    assert!(said.contains(&error), "{said}");
    assert_ne!(address, second);
}

#[test]
fn what_can_not_be_accepted_on_is_refused() {
    let config = || Config::to("127.0.0.1:1");
    let (listener, address) = tcp("127.0.0.1:0");
    let connected = std::net::TcpStream::connect(address).unwrap();
    let datagram = UnixDatagram::unbound().unwrap();
    let file = fs::File::open("Cargo.toml").unwrap();
    let cases: [(&dyn std::os::fd::AsFd, &str); 3] = [
        (&connected, "it is not a stream socket that listens"),
        (&datagram, "it is not a stream socket that listens"),
        (&file, "operation on non-socket"),
    ];
    for (socket, why) in cases {
        let (code, said) = give(config(), &[("front", socket)]).fail();
        assert_eq!(code, 1);
        assert!(said.contains("inherited socket \"front\""), "{said}");
        assert!(said.to_lowercase().contains(why), "{said}");
    }
    drop(listener);
    // Descriptors that nobody opened.
    let script = "LISTEN_PID=$$ LISTEN_FDS=7 exec \"$@\"";
    let (code, said) = config().through(&["sh", "-c", script, "sh"]).fail();
    assert_eq!(code, 1);
    assert!(
        said.contains("the sockets of the service manager"),
        "{said}"
    );
}

#[test]
fn sockets_for_another_process_are_not_taken() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address())
        .variable("LISTEN_PID", "1")
        .variable("LISTEN_FDS", "3")
        .start();
    assert_eq!(client::once(proxy.address(), "/").unwrap().status(), 200);
    proxy.finish();
}

#[test]
fn systemds_own_launcher_is_understood() {
    let service = Service::echoing_targets();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front");
    // It starts the service when the first client has come.
    let first = std::thread::spawn({
        let path = path.clone();
        move || {
            let socket = wait::until("systemd listens", || Socket::dial_unix(&path).ok());
            Client::over(socket).get("/first").text()
        }
    });
    let proxy = Config::to(service.address())
        .through(&[
            "systemd-socket-activate",
            "--fdname=front",
            &format!("--listen={}", path.display()),
        ])
        .start();
    assert_eq!(first.join().unwrap(), "/first");
    stop(proxy);
    assert!(path.exists(), "it is systemd's");
}

#[test]
fn what_sessions_inherit_is_set_on_an_inherited_socket() {
    let (socket, _) = tcp("127.0.0.1:0");
    let options = SockRef::from(&socket);
    assert!(!options.tcp_nodelay().unwrap() && !options.keepalive().unwrap());
    let config = Config::to("127.0.0.1:1")
        .listener("keepalive = \"77s\"")
        .listener("user_timeout = \"9s\"");
    stop(give(config, &[("front", &socket)]).start());
    assert!(options.tcp_nodelay().unwrap() && options.keepalive().unwrap());
    let seconds = |time: Duration| time.as_secs();
    assert_eq!(options.tcp_keepalive_time().map(seconds).unwrap(), 77);
    assert_eq!(options.tcp_keepalive_interval().map(seconds).unwrap(), 77);
    let user_timeout = options.tcp_user_timeout().unwrap();
    assert_eq!(user_timeout, Some(Duration::from_secs(9)));
    // What systemd or another configuration had set goes.
    let config = Config::to("127.0.0.1:1")
        .listener("keepalive = \"0s\"")
        .listener("nodelay = false");
    stop(give(config, &[("front", &socket)]).start());
    assert!(!options.tcp_nodelay().unwrap() && !options.keepalive().unwrap());
    assert_eq!(options.tcp_user_timeout().unwrap(), None);
}

#[test]
fn a_reload_keeps_an_inherited_listener() {
    let service = Service::echoing_targets();
    let (socket, address) = tcp("127.0.0.1:0");
    let config = Config::to(service.address());
    let proxy = give(config.clone(), &[("front", &socket)]).start();
    let mut client = proxy.client();
    assert_eq!(client.get("/before").text(), "/before");
    proxy.rewrite(
        &config
            .clone()
            .pool("size = 3")
            .more(&also("new", "127.0.0.1:0")),
    );
    let (status, body) = proxy.admin("POST", "/api/v1/reload");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("listener.new: added"), "{body}");
    assert_eq!(proxy.address_of("front"), address);
    assert_eq!(client.get("/after").text(), "/after");
    assert_eq!(client::once(address, "/new").unwrap().text(), "/new");
    drop(client);
    // One that goes leaves the socket to its holder, who is not told by anybody else.
    proxy.rewrite(&config.listen("[::1]:0"));
    assert_eq!(proxy.admin("POST", "/api/v1/reload").0, 200);
    let warned = |line: &String| line.contains("stop its .socket unit");
    wait::until("the operator is warned", || {
        proxy.process().said().iter().any(warned).then_some(())
    });
    assert_eq!(
        client::once(proxy.address_of("front"), "/")
            .unwrap()
            .status(),
        200
    );
    stop(proxy);
}

#[test]
fn who_comes_while_an_inherited_listener_drains_is_served_by_the_next_process() {
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            while let Some(request) = connection.request() {
                if request.head.target() == "/gated" {
                    gate.pass();
                }
                connection.reply(request.head.target());
            }
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("second");
    let (front, address) = tcp("127.0.0.1:0");
    let second = UnixListener::bind(&path).unwrap();
    let config = Config::to(service.address())
        .more(&also("second", "unix:elsewhere"))
        .more("[log]\nlevel = \"info,millpond::listener=debug\"\n");
    let config = give(config, &[("front", &front), ("second", &second)]);
    let proxy = config.start();
    let mut under_way = Client::dial(address);
    under_way.send(client::get("/gated"));
    service.wait_requests(1);
    proxy.signal(Signal::SIGTERM);
    wait::until("both listeners are left", || {
        let said = proxy.process().said();
        let left = said
            .iter()
            .filter(|line| line.contains("left to the service manager"));
        (left.count() == 2).then_some(())
    });
    let mut waiting = [
        Client::dial(address),
        Client::over(Socket::dial_unix(&path).unwrap()),
    ];
    for client in &mut waiting {
        client.send(client::last_get("/waited"));
        assert!(client.socket.stays_silent(Duration::from_millis(100)));
    }
    gate.open();
    assert_eq!(under_way.read("GET").text(), "/gated");
    drop(under_way);
    assert_eq!(proxy.wait().code(), Some(0));
    // Nobody runs now.
    let mut between = Client::dial(address);
    between.send(client::last_get("/between"));
    let proxy = config.start();
    for client in &mut waiting {
        assert_eq!(client.read("GET").text(), "/waited");
        client.expect_fin();
    }
    assert_eq!(between.read("GET").text(), "/between");
    drop((waiting, between));
    proxy.finish();
    assert!(path.exists(), "it is not ours");
}

/// What clients saw who came before, during and after restarts.
#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    failures: AtomicU64,
}

/// One client after the other, each for one or more exchanges.
fn churn(dial: impl Fn() -> io::Result<Socket>, seed: u64, seen: &Seen, over: &Flag) {
    let mut random = fastrand::Rng::with_seed(seed);
    while !over.is_raised() {
        let Ok(socket) = dial() else {
            seen.failures.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let mut wire = Wire::new(socket);
        let exchanges = random.u64(1..4);
        for number in 1..=exchanges {
            let target = format!("/{}", random.u64(..));
            let request = if number == exchanges {
                client::last_get(&target)
            } else {
                client::get(&target)
            };
            match wire.send(request).and_then(|()| wire.response("GET")) {
                Ok(response) if response.status() == 200 && response.text() == target => {
                    seen.answers.fetch_add(1, Ordering::Relaxed);
                    if response.head.says_close() {
                        break;
                    }
                }
                // A kept connection may be closed before its next request: that is HTTP.
                Err(End::Fin) if number > 1 => break,
                _ => {
                    seen.failures.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
    }
}

#[test]
fn restarts_over_inherited_sockets_refuse_and_reset_nobody() {
    let restarts = std::env::var("MILLPOND_RESTARTS").map_or(5, |count| count.parse().unwrap());
    let service = Service::echoing_targets();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("second");
    let (front, address) = tcp("127.0.0.1:0");
    let second = UnixListener::bind(&path).unwrap();
    let config = Config::to(service.address()).more(&also("second", "unix:elsewhere"));
    let config = give(config, &[("front", &front), ("second", &second)]);
    let (seen, over) = (Seen::default(), Flag::default());
    std::thread::scope(|scope| {
        let _raise = over.raise_at_end();
        for seed in 0..8 {
            let (seen, over, path) = (&seen, &over, &path);
            scope.spawn(move || churn(|| Socket::try_dial(address), seed, seen, over));
            scope.spawn(move || churn(|| Socket::dial_unix(path), seed + 8, seen, over));
        }
        for round in 0..restarts {
            let proxy = config.start();
            proxy.wait_until("churn", |now| now.upstream("exchanges/completed") > 300);
            stop(proxy);
            let failures = seen.failures.load(Ordering::Relaxed);
            assert_eq!(failures, 0, "round {round}");
        }
        // Those who wait now are served by the last.
        let proxy = config.start();
        over.raise();
        proxy.wait_until("churn", |now| now.upstream("exchanges/completed") > 0);
        stop(proxy);
    });
    assert_eq!(seen.failures.into_inner(), 0);
    assert!(seen.answers.into_inner() > restarts * 300);
}

#[test]
fn ready_is_said_when_clients_are_served_and_not_before() {
    let service = Service::echoing_targets();
    let directory = tempfile::tempdir().unwrap();
    let notify = directory.path().join("notify");
    let path = directory.path().join("front");
    let notified = Notified::at(&notify);
    let config = Config::to(service.address())
        .listen(&format!("unix:{}", path.display()))
        .variable("NOTIFY_SOCKET", notify.to_str().unwrap());
    let heard = std::thread::spawn(move || {
        let message = notified.next();
        // At this moment, not later.
        let client = Socket::dial_unix(&path).map(Client::over);
        (
            message,
            client.map(|mut it| it.get("/now").text()),
            notified,
        )
    });
    let proxy = config.start();
    let (message, answer, notified) = heard.join().unwrap();
    assert_eq!(message, ["READY=1", "STATUS=serving, listeners: 1"]);
    assert_eq!(answer.unwrap(), "/now");
    // One that can't listen does not say so.
    let (code, said) = config.fail();
    assert_eq!(code, 1, "{said}");
    assert!(notified.is_silent());
    proxy.finish();
}

#[test]
fn the_stop_is_said_with_the_time_that_it_may_take() {
    let directory = tempfile::tempdir().unwrap();
    let notify = directory.path().join("notify");
    let notified = Notified::at(&notify);
    let config = Config::to("127.0.0.1:1")
        .shutdown("grace = \"100ms\"")
        .shutdown("drain_timeout = \"100s\"")
        .variable("NOTIFY_SOCKET", notify.to_str().unwrap());
    for ask in [
        |proxy: &Proxy| proxy.signal(Signal::SIGTERM),
        |proxy: &Proxy| assert!(proxy.admin("POST", "/api/v1/drain").0 < 300),
    ] {
        let proxy = config.start();
        assert!(notified.next().contains(&"READY=1".to_owned()));
        ask(&proxy);
        let message = notified.next();
        assert_eq!(message[0], "STOPPING=1");
        assert!(
            message[1].starts_with("STATUS=stopping, within 1"),
            "{message:?}"
        );
        let time = message[2].strip_prefix("EXTEND_TIMEOUT_USEC=").unwrap();
        assert!(time.parse::<u64>().unwrap() > 100_100_000, "{message:?}");
        assert_eq!(proxy.wait().code(), Some(0));
        assert!(notified.is_silent());
    }
}

#[test]
fn a_reload_is_said_at_its_beginning_and_its_end_well_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let notify = directory.path().join("notify");
    let notified = Notified::at(&notify);
    let config = Config::to("127.0.0.1:1").variable("NOTIFY_SOCKET", notify.to_str().unwrap());
    let proxy = config.start();
    notified.next();
    let told = |end: &str| {
        let begin = notified.next();
        assert_eq!((begin[0].as_str(), begin.len()), ("RELOADING=1", 2));
        let time = begin[1].strip_prefix("MONOTONIC_USEC=").unwrap();
        assert!(time.parse::<u64>().unwrap() > 0);
        assert_eq!(notified.next(), ["READY=1", end]);
    };
    proxy.rewrite(&config.clone().pool("size = 3"));
    proxy.signal(Signal::SIGHUP);
    told("STATUS=serving; the last reload changed 1");
    proxy.admin("POST", "/api/v1/reload");
    told("STATUS=serving; the last reload changed 0");
    proxy.rewrite(&config.pool("size = 0"));
    let (_, body) = proxy.admin("POST", "/api/v1/reload");
    assert!(body.contains("upstream.service.pool.size"), "{body}");
    let error = config::parse(
        "[upstream.service]\nprotocol = \"http\"\nendpoints = [\"127.0.0.1:1\"]\npool.size = 0\n\
         [listener.front]\nlisten = \"127.0.0.1:0\"\nupstream = \"service\"\n",
    );
    let error = error.unwrap_err().to_string();
    told(&format!(
        "STATUS=serving; the last reload was refused: {error}"
    ));
    stop(proxy);
}

#[test]
fn the_watchdog_is_fed_where_there_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let notify = directory.path().join("notify");
    let notified = Notified::at(&notify);
    let config = Config::to("127.0.0.1:1").variable("NOTIFY_SOCKET", notify.to_str().unwrap());
    let proxy = config.clone().variable("WATCHDOG_USEC", "60000").start();
    let mut fed = 0;
    while fed < 5 {
        fed += u32::from(notified.next() == ["WATCHDOG=1"]);
    }
    stop(proxy);
    while !notified.is_silent() {}
    // Not where nobody asks, and not in another process's place.
    for (name, value) in [("WATCHDOG_USEC", "0"), ("WATCHDOG_PID", "1")] {
        let config = match name {
            "WATCHDOG_PID" => config.clone().variable("WATCHDOG_USEC", "1000"),
            _ => config.clone(),
        };
        stop(config.variable(name, value).start());
        assert_eq!(notified.next()[0], "READY=1");
        assert_eq!(notified.next()[0], "STOPPING=1");
        assert!(notified.is_silent());
    }
}

/// A copy of the units with this millpond in them: systemd looks for the one that they name.
fn units() -> (tempfile::TempDir, [PathBuf; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["millpond.service", "millpond.socket"].map(|name| {
        let text = fs::read_to_string(Path::new("conf/systemd").join(name)).unwrap();
        let text = text.replace(
            "=millpond ",
            concat!("=", env!("CARGO_BIN_EXE_millpond"), " "),
        );
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    });
    (directory, paths)
}

/// The value of a key that stands in a unit once.
fn setting(unit: &str, key: &str) -> String {
    let text = fs::read_to_string(Path::new("conf/systemd").join(unit)).unwrap();
    let prefix = format!("{key}=");
    let values: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .collect();
    assert_eq!(values.len(), 1, "{key} in {unit}");
    values[0].to_owned()
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let (_directory, [service, socket]) = units();
    let (service, socket) = (service.to_str().unwrap(), socket.to_str().unwrap());
    let output = attempt("systemd-analyze", &["verify", "--man=no", service, socket]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // An unknown key is only a word to it.
    let about_us: Vec<_> = said
        .lines()
        .filter(|line| line.contains("millpond"))
        .collect();
    assert!(output.status.success(), "{said}");
    assert_eq!(about_us, Vec::<&str>::new());
}

#[test]
fn systemd_calls_the_service_well_confined() {
    const EXPOSURE_TENTHS_MAX: &str = "20";
    let (_directory, [service, _]) = units();
    let threshold = format!("--threshold={EXPOSURE_TENTHS_MAX}");
    let output = attempt(
        "systemd-analyze",
        &[
            "security",
            "--offline=true",
            "--no-pager",
            &threshold,
            service.to_str().unwrap(),
        ],
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let score = said
        .lines()
        .find(|line| line.contains("Overall exposure"))
        .unwrap_or(&said);
    assert!(
        output.status.success(),
        "more than {EXPOSURE_TENTHS_MAX} tenths: {score}\n{said}"
    );
}

#[test]
fn the_units_agree_with_the_manual_of_the_configuration() {
    let manual = fs::read_to_string("conf/millpond.toml").unwrap();
    let loaded = config::parse(&manual).unwrap();
    let seconds = |key| setting("millpond.service", key).parse::<u64>().unwrap();
    let stop = loaded.shutdown.drain_timeout + loaded.shutdown.grace;
    assert!(Duration::from_secs(seconds("TimeoutStopSec")) > stop + Duration::from_secs(6));
    assert!(seconds("LimitNOFILE") > config::checked::descriptors_needed(&loaded));
    let listener = &loaded.listeners[&setting("millpond.socket", "FileDescriptorName")];
    assert_eq!(
        listener.listen.to_string(),
        setting("millpond.socket", "ListenStream")
    );
    let backlog = setting("millpond.socket", "Backlog");
    assert_eq!(listener.backlog.to_string(), backlog);
    let keepalive = setting("millpond.socket", "KeepAliveTimeSec")
        .parse()
        .unwrap();
    assert_eq!(listener.keepalive, Some(Duration::from_secs(keepalive)));
    assert!(listener.nodelay && setting("millpond.socket", "NoDelay") == "yes");
}
