//! The demo from a shell's side: what it shows, and how it ends.
//!
//! The figures are the run's own; what is held here is what must be so on every host.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use millpond::sys::socket::set_local_ports;
use support::process::{Process, run};
use support::wait;

const MILLPOND: &str = env!("CARGO_BIN_EXE_millpond");
const MINUTE: Duration = Duration::from_secs(60);

/// Two demos at once would take the cores from each other, and with them the minute.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// One demo, for all tests that look at its tables.
static SHOWN: LazyLock<Shown> = LazyLock::new(|| {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let start = wait::now();
    let output = Command::new(MILLPOND).arg("demo").output().unwrap();
    Shown {
        time: start.elapsed(),
        code: output.status.code(),
        tables: Tables(String::from_utf8(output.stdout).unwrap()),
        err: String::from_utf8(output.stderr).unwrap(),
    }
});

struct Shown {
    time: Duration,
    code: Option<i32>,
    tables: Tables,
    err: String,
}

/// What the demo printed.
struct Tables(String);

/// A row of the table of costs; times in microseconds.
#[derive(Debug)]
struct Cost {
    requests_a_second: u64,
    median: f64,
    p99: f64,
    millpond_cpu: Option<f64>,
}

impl Tables {
    /// What stands behind a row's name.
    fn text_of_row(&self, name: &str) -> &str {
        let mut lines = self.0.lines();
        let row = lines.find_map(|line| {
            line.strip_prefix(' ')?
                .strip_prefix(name)?
                .strip_prefix(' ')
        });
        row.unwrap_or_else(|| panic!("{name}: {}", self.0))
    }

    /// The figures of the table's row of that name.
    fn row<const FIGURES: usize>(&self, name: &str) -> [Option<u64>; FIGURES] {
        let row = self.text_of_row(name);
        let figures = row.split_whitespace().map(|figure| match figure {
            "–" => None,
            figure => Some(figure.replace(',', "").parse().unwrap()),
        });
        figures.collect::<Vec<_>>().try_into().unwrap()
    }

    /// The row of that name in the table of costs.
    fn cost(&self, name: &str) -> Cost {
        let row = self.text_of_row(name);
        let mut figures = row.split_whitespace();
        let requests_a_second = figures.next().unwrap().replace(',', "").parse().unwrap();
        // Microseconds, or that there is no account.
        let mut time = || {
            let figure = figures.next().unwrap().parse::<f64>().ok()?;
            match figures.next().unwrap() {
                "µs" => Some(figure),
                "ms" => Some(figure * 1e3),
                unit => panic!("{unit}: {row}"),
            }
        };
        let [median, p99, _service_cpu, millpond_cpu] = [time(), time(), time(), time()];
        Cost {
            requests_a_second,
            median: median.unwrap(),
            p99: p99.unwrap(),
            millpond_cpu,
        }
    }

    /// The number that stands before `words`.
    fn number_before(&self, words: &str) -> u64 {
        // A line may end anywhere between two words.
        let text = self.0.split_whitespace().collect::<Vec<_>>().join(" ");
        let before = text.split(words).next().unwrap();
        let number = before.split_whitespace().last().unwrap().replace(',', "");
        number.parse().unwrap_or_else(|_| panic!("{words}: {text}"))
    }
}

/// Whether this kernel lets the demo narrow its clients' ports.
fn ports_can_be_narrowed() -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: RangeInclusive<u16> = 60_000..=60_100;
    set_local_ports(socket.as_fd(), &any).is_ok()
}

#[test]
fn the_demo_ends_with_0_within_a_minute() {
    assert_eq!(SHOWN.code, Some(0), "{}{}", SHOWN.tables.0, SHOWN.err);
    assert_eq!(SHOWN.err, "", "no progress bar where there is no terminal");
    assert!(SHOWN.time < MINUTE, "{:?}", SHOWN.time);
}

#[test]
fn clients_that_dial_the_service_run_out_of_ports() {
    let clients = SHOWN.tables.number_before("clients,");
    for way in ["straight", "straight, SO_REUSEADDR and -PORT"] {
        let [failed, time_wait, millpond, _, connects] = SHOWN.tables.row(way);
        let failed = failed.unwrap();
        assert_eq!(
            failed + connects.unwrap(),
            clients,
            "{way}: who connected is a connect at the service"
        );
        assert_eq!(millpond, None);
        if ports_can_be_narrowed() {
            let ports = SHOWN.tables.number_before("ports,");
            assert!(failed > 0, "{way}");
            assert!((1..=ports).contains(&time_wait.unwrap()), "{way}");
        } else {
            assert!(SHOWN.tables.0.contains("no IP_LOCAL_PORT_RANGE"));
            assert!(time_wait.unwrap() > 0, "{way}");
        }
    }
}

#[test]
fn behind_millpond_the_service_sees_no_more_connects_than_the_pool_has_connections() {
    let size = SHOWN.tables.number_before("connections, at most");
    for way in ["through millpond, TCP", "through millpond, Unix socket"] {
        let [_, _, millpond, service, connects] = SHOWN.tables.row(way);
        assert!((1..=size).contains(&connects.unwrap()), "{way}");
        assert_eq!([millpond, service], [Some(0); 2], "{way}: TIME_WAIT");
    }
}

#[test]
fn the_clients_leg_keeps_its_ports_over_tcp_and_has_none_over_unix() {
    let [failed, time_wait, ..] = SHOWN.tables.row::<5>("through millpond, TCP");
    assert!(time_wait.unwrap() > 0);
    assert_eq!(failed.unwrap() > 0, ports_can_be_narrowed());
    let [failed, time_wait, ..] = SHOWN.tables.row::<5>("through millpond, Unix socket");
    assert_eq!([failed, time_wait], [Some(0), None]);
}

#[test]
fn ss_counts_what_the_table_says() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut demo = demo_that_talks_on_stderr("");
    // At once: the kernel forgets TIME_WAIT after a minute.
    let tables = wait::within(MINUTE, "the commands for ss", || {
        let said = demo.said();
        let last = said
            .iter()
            .any(|line| line.contains("# millpond's to the service"));
        last.then(|| Tables(said.join("\n")))
    });
    let commands = tables.0.lines().filter(|line| line.starts_with("  ss "));
    let counted = commands.map(|command| run("sh", &["-c", command]).trim().parse().unwrap());
    let clients = [
        "straight",
        "straight, SO_REUSEADDR and -PORT",
        "through millpond, TCP",
    ]
    .map(|way| tables.row::<5>(way)[1].unwrap());
    let millpond = tables.number_before("in TIME_WAIT there");
    let told: Vec<u64> = clients.into_iter().chain([millpond]).collect();
    assert_eq!(counted.collect::<Vec<u64>>(), told, "{}", tables.0);
    // In order, so that it leaves no directory behind.
    demo.signal(Signal::SIGINT);
    demo.wait();
}

#[test]
fn only_linger_0_resets_cuts_and_loses() {
    for way in ["straight, normal close", "through millpond, normal close"] {
        let [resets, cut, lost, _] = SHOWN.tables.row(way);
        assert_eq!([resets, cut, lost], [Some(0); 3], "{way}");
    }
    let [resets, cut, lost, time_wait] = SHOWN
        .tables
        .row("straight, SO_LINGER 0")
        .map(Option::unwrap);
    assert!(resets > 0 && cut > 0 && lost > 0, "{resets} {cut} {lost}");
    assert_eq!(time_wait, 0);
    let [_, cut, lost, _] = SHOWN
        .tables
        .row("through millpond, SO_LINGER 0")
        .map(Option::unwrap);
    assert!(
        cut > 0 && lost > 0,
        "a truncation is passed on: {cut} {lost}"
    );
}

#[test]
fn the_cost_of_every_way_is_measured() {
    for clients in ["a connect each", "kept open"] {
        let [straight, tcp, unix] = ["straight", "millpond, TCP", "millpond, Unix"]
            .map(|way| SHOWN.tables.cost(&format!("{clients}: {way}")));
        for cost in [&straight, &tcp, &unix] {
            assert!(cost.requests_a_second > 0, "{cost:?}");
            assert!(cost.median > 0.0 && cost.median <= cost.p99, "{cost:?}");
        }
        // The kernel's account of each thread (proc_pid_schedstat) is a build option.
        if Path::new("/proc/self/schedstat").exists() {
            let [idle, tcp, unix] = [straight, tcp, unix].map(|cost| cost.millpond_cpu.unwrap());
            assert!(idle < tcp && idle < unix, "{clients}: {idle} {tcp} {unix}");
        }
    }
}

#[test]
fn keep_leaves_service_and_millpond_running_until_a_signal() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut demo = demo_that_talks_on_stderr("--keep");
    // What stands behind a name in the list of addresses.
    let said = |demo: &Process, name: &str| {
        let lines = demo.said();
        let place = lines
            .iter()
            .find_map(|line| line.strip_prefix("  ")?.strip_prefix(name));
        place.map(|place| place.trim().to_owned())
    };
    let admin = wait::within(MINUTE, "the addresses", || said(&demo, "admin"));
    let service = said(&demo, "service").unwrap();
    let tcp = said(&demo, "millpond, TCP").unwrap();
    let unix = said(&demo, "millpond, Unix").unwrap();
    let unix = Path::new(unix.strip_prefix("unix:").unwrap());

    for url in [&service, &tcp] {
        assert!(
            get(dial(url), "/client/7").contains("the answer to client 7 "),
            "{url}"
        );
    }
    let over_unix = get(UnixStream::connect(unix).unwrap(), "/client/8");
    assert!(over_unix.contains("the answer to client 8 "), "{over_unix}");
    let metrics = get(dial(&admin), "/metrics");
    assert!(
        metrics.contains("millpond_sessions_total{listener=\"unix\"}"),
        "{metrics}"
    );

    demo.signal(Signal::SIGTERM);
    assert_eq!(demo.wait().code(), Some(0));
    assert!(!unix.parent().unwrap().exists(), "its directory is gone");
}

#[test]
fn a_signal_ends_the_demo_early_with_1() {
    let mut demo = demo_that_talks_on_stderr("");
    wait::until("its first line", || demo.said().first().cloned());
    demo.signal(Signal::SIGINT);
    assert_eq!(demo.wait().code(), Some(1));
    assert_eq!(demo.said().last().unwrap(), "millpond demo: interrupted");
}

/// The harness listens there.
fn demo_that_talks_on_stderr(option: &str) -> Process {
    let script = format!("exec \"$0\" demo {option} >&2");
    Process::start(Command::new("sh").args(["-c", &script, MILLPOND]))
}

fn dial(url: &str) -> TcpStream {
    let address = url.strip_prefix("http://").unwrap();
    TcpStream::connect(address.split('/').next().unwrap()).unwrap()
}

/// The whole response.
fn get(mut stream: impl Read + Write, path: &str) -> String {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    response
}
