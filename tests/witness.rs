//! The kernel as witness: what it tells of RSTs that are made here, on the real kernel.
//!
//! Other processes of this host make RSTs too, so only those at the tests' own ports are looked at.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millpond::close::Side;
use millpond::witness::{
    Direction, KernelReason, Opened, RecordId, RecordedReset, Testimony, Witness, WitnessError,
    Witnessed,
};
use nix::sys::signal::Signal;
use socket2::{Domain, SockRef, Socket, Type};
use support::proxy::{Config, Proxy};
use support::tracefs::{Mounted, TRACEFS, instances_of, with_tracefs};
use support::upstream::Service;
use support::wait;

/// Notes what is confirmed.
#[derive(Default)]
struct Notes(Mutex<Vec<Witnessed>>);

impl Testimony for Notes {
    fn witnessed(&self, witnessed: Witnessed) {
        self.0.lock().unwrap().push(witnessed);
    }
}

impl Notes {
    fn all(&self) -> Vec<(u64, KernelReason)> {
        let found = self.0.lock().unwrap();
        let mut all: Vec<_> = found
            .iter()
            .map(|one| (one.record.0, one.kernel_reason))
            .collect();
        all.sort_by_key(|(record, _)| *record);
        all
    }
}

/// A witness that was told of one listener, and what it says.
struct Bench {
    witness: Witness,
    notes: Arc<Notes>,
    listener: TcpListener,
}

/// One connection: the end that dialled, and ours.
struct Pair {
    dialled: TcpStream,
    accepted: TcpStream,
    opened: Opened,
}

impl Bench {
    fn on(listener: TcpListener) -> Self {
        let notes = Arc::<Notes>::default();
        let testimony = Arc::clone(&notes) as Arc<dyn Testimony>;
        let witness = Witness::start(testimony).unwrap();
        witness.listens(listener.local_addr().unwrap());
        Self {
            witness,
            notes,
            listener,
        }
    }

    /// Where clients find the listener.
    fn address(&self) -> SocketAddr {
        let mut address = self.listener.local_addr().unwrap();
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        address
    }

    fn connect(&self) -> Pair {
        self.meet(TcpStream::connect(self.address()).unwrap())
    }

    /// Accepts a connection that was dialled.
    fn meet(&self, dialled: TcpStream) -> Pair {
        dialled.set_nodelay(true).unwrap();
        let (accepted, peer) = self.listener.accept().unwrap();
        let opened = Opened::of(Side::Downstream, accepted.as_fd(), peer).unwrap();
        self.witness.opened(&opened);
        Pair {
            dialled,
            accepted,
            opened,
        }
    }

    fn end(&self, opened: &Opened, reset: Option<(u64, Direction)>) {
        self.end_at(Instant::now(), opened, reset);
    }

    fn end_at(&self, at: Instant, opened: &Opened, reset: Option<(u64, Direction)>) {
        let reset = reset.map(|(record, direction)| RecordedReset {
            record: RecordId(record),
            direction,
        });
        self.witness.ended(&opened.ended(at, reset));
    }

    /// Waits for an event that is ours and in no record; why the kernel sent it.
    fn wait_unattributed(&self) -> KernelReason {
        wait::until("an unattributed reset", || {
            let stats = self.witness.stats();
            for direction in Direction::ALL {
                assert!(stats.of(direction).balances(), "{stats:?}");
            }
            let mut rows = stats.every_unattributed();
            rows.find_map(|(_, _, reason, count)| (count > 0).then_some(reason))
        })
    }

    fn wait_notes(&self, expected: &[(u64, KernelReason)]) {
        wait::until(&format!("{expected:?} of {:?}", self.notes.all()), || {
            (self.notes.all() == expected).then_some(())
        });
    }
}

fn reset(socket: TcpStream) {
    SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(socket);
}

fn dual_stack() -> TcpListener {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(false).unwrap();
    let any: SocketAddr = "[::]:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

/// Every way to reset, at one listener.
fn every_reset_is_told(listener: TcpListener) {
    let bench = Bench::on(listener);

    let pair = bench.connect();
    reset(pair.accepted);
    bench.end(&pair.opened, Some((1, Direction::Sent)));

    let mut pair = bench.connect();
    pair.dialled.write_all(b"unread").unwrap();
    assert!(pair.accepted.peek(&mut [0]).unwrap() > 0);
    drop(pair.accepted);
    bench.end(&pair.opened, Some((2, Direction::Sent)));

    let mut pair = bench.connect();
    reset(pair.dialled);
    assert!(pair.accepted.read(&mut [0]).is_err());
    bench.end(&pair.opened, Some((3, Direction::Received)));

    // Told of its end before it happens: the order does not matter.
    let pair = bench.connect();
    bench.end(&pair.opened, Some((4, Direction::Sent)));
    reset(pair.accepted);

    // A connection that ended in order, and bytes that come too late.
    let mut pair = bench.connect();
    drop(pair.accepted);
    bench.end(&pair.opened, None);
    assert_eq!(pair.dialled.read(&mut [0]).unwrap(), 0);
    pair.dialled.write_all(b"late").unwrap();
    // Which it is depends on whether our FIN had been acknowledged yet.
    let late = bench.wait_unattributed();
    assert!(
        [KernelReason::TimewaitSocket, KernelReason::AbortOnData].contains(&late),
        "{late:?}"
    );

    bench.wait_notes(&[
        (1, KernelReason::State),
        (2, KernelReason::AbortOnClose),
        (3, KernelReason::Peer),
        (4, KernelReason::State),
    ]);

    // A client that meets nobody there.
    let address = bench.address();
    drop(bench.listener);
    assert!(TcpStream::connect(address).is_err());
    let stats = wait::until("the refusal", || {
        let stats = bench.witness.stats();
        let count = stats.unattributed(Side::Downstream, Direction::Sent, KernelReason::NoSocket);
        (count == 1).then_some(stats)
    });
    assert!(stats.up);
    assert_eq!((stats.lost_events, stats.unreadable_lines), (0, 0));
    assert_eq!((stats.sent.witnessed, stats.received.witnessed), (3, 1));
    bench.witness.stop();
    assert!(!bench.witness.stats().up);
}

#[test]
fn resets_are_told_with_their_reasons_on_ipv4() {
    with_tracefs(Mounted::Writable, || {
        every_reset_is_told(TcpListener::bind("127.0.0.1:0").unwrap());
    });
}

#[test]
fn resets_are_told_with_their_reasons_on_ipv6() {
    with_tracefs(Mounted::Writable, || {
        every_reset_is_told(TcpListener::bind("[::1]:0").unwrap());
    });
}

#[test]
fn resets_are_told_with_their_reasons_on_a_dual_stack_socket() {
    with_tracefs(Mounted::Writable, || every_reset_is_told(dual_stack()));
}

#[test]
fn connections_between_the_same_addresses_are_told_apart_by_time() {
    with_tracefs(Mounted::Writable, || {
        const COUNT: u64 = 50;
        let bench = Bench::on(TcpListener::bind("127.0.0.1:0").unwrap());
        let local: SocketAddr = "127.0.0.2:0".parse().unwrap();
        let mut local = local.into();
        let mut waiting = Vec::new();
        for record in 0..COUNT {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&local).unwrap();
            local = socket.local_addr().unwrap();
            socket.connect(&bench.address().into()).unwrap();
            let pair = bench.meet(socket.into());
            // Every other one ends in the ledger only after all that follow it have begun.
            reset(pair.accepted);
            if record % 2 == 0 {
                bench.end(&pair.opened, Some((record, Direction::Sent)));
            } else {
                waiting.push((pair.opened, record, Instant::now()));
            }
        }
        for (opened, record, ended_at) in waiting {
            bench.end_at(ended_at, &opened, Some((record, Direction::Sent)));
        }
        let all: Vec<_> = (0..COUNT)
            .map(|record| (record, KernelReason::State))
            .collect();
        bench.wait_notes(&all);
        assert_eq!(bench.witness.stats().sent.repeats, 0);
    });
}

#[test]
fn a_refused_connect_is_told_by_the_cookie_of_its_socket() {
    with_tracefs(Mounted::Writable, || {
        let bench = Bench::on(TcpListener::bind("127.0.0.1:0").unwrap());
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = nobody.local_addr().unwrap();
        drop(nobody);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let opened = Opened::of(Side::Upstream, socket.as_fd(), peer).unwrap();
        assert_eq!(opened.local, None);
        bench.witness.opened(&opened);
        assert!(socket.connect(&peer.into()).is_err());
        bench.end(&opened, Some((5, Direction::Received)));
        bench.wait_notes(&[(5, KernelReason::Peer)]);
    });
}

#[test]
fn a_storm_is_read_without_a_loss() {
    with_tracefs(Mounted::Writable, || {
        const COUNT: u64 = 4_000;
        let bench = Bench::on(TcpListener::bind("127.0.0.1:0").unwrap());
        for record in 0..COUNT {
            let mut pair = bench.connect();
            if record % 2 == 0 {
                reset(pair.accepted);
                bench.end(&pair.opened, Some((record, Direction::Sent)));
            } else {
                reset(pair.dialled);
                assert!(pair.accepted.read(&mut [0]).is_err());
                bench.end(&pair.opened, Some((record, Direction::Received)));
            }
        }
        let stats = wait::until("every reset", || {
            let stats = bench.witness.stats();
            let witnessed = stats.sent.witnessed + stats.received.witnessed;
            (witnessed == COUNT).then_some(stats)
        });
        assert_eq!((stats.lost_events, stats.unreadable_lines), (0, 0));
        wait::until("every note", || {
            (bench.notes.all().len() as u64 == COUNT).then_some(())
        });
    });
}

/// A millpond in front of a service, asked to read the kernel's account.
fn asked(service: &Service) -> Config {
    Config::to(service.address()).more("[ledger]\nwitness = true\n")
}

fn is_up(proxy: &Proxy) -> bool {
    let up = proxy.metrics().lines().find_map(|line| {
        let value = line.strip_prefix("millpond_witness_up ")?;
        Some(value == "1")
    });
    up.expect("it is always told")
}

fn serves(proxy: &Proxy) {
    let response = support::client::once(proxy.address(), "/").unwrap();
    assert_eq!(response.status(), 200);
}

/// The one line about a witness that can't be had.
fn warning(proxy: &Proxy) -> String {
    let said = proxy.process().said();
    let lines: Vec<_> = said
        .iter()
        .filter(|line| line.contains("ledger.witness"))
        .collect();
    assert_eq!(lines.len(), 1, "{said:?}");
    assert!(lines[0].contains("WARN"), "{}", lines[0]);
    lines[0].clone()
}

#[test]
fn millpond_reads_while_it_runs_and_leaves_nothing() {
    with_tracefs(Mounted::Writable, || {
        let service = Service::echoing_targets();
        let proxy = asked(&service).start();
        let pid = proxy.process().pid();
        let instances = instances_of(pid);
        assert_eq!(instances.len(), 1);
        let setting = |name: &str| std::fs::read_to_string(instances[0].join(name)).unwrap();
        assert!(setting("trace_clock").contains("[mono]"));
        // Otherwise it costs the scheduler of the whole host something.
        assert!(setting("trace_options").contains("norecord-cmd\n"));
        let said = proxy.process().said();
        assert!(!said.iter().any(|line| line.contains("WARN")), "{said:?}");
        assert!(is_up(&proxy));
        serves(&proxy);
        let mut client = proxy.client();
        assert_eq!(client.get("/").status(), 200);
        client.reset();
        proxy.wait_until("the client's reset", |now| {
            let count = |name| now.number(&format!("/witness/received/{name}"));
            count("read")
                == ["witnessed", "repeat", "unattributed", "foreign", "pending"]
                    .into_iter()
                    .map(count)
                    .sum::<u64>()
                && count("witnessed") + count("unattributed") + count("pending") > 0
        });
        proxy.finish();
        assert!(instances_of(pid).is_empty());
    });
}

#[test]
fn a_second_signal_leaves_nothing_either() {
    with_tracefs(Mounted::Writable, || {
        let service = Service::echoing_targets();
        let proxy = asked(&service).shutdown("grace = \"60s\"").start();
        let pid = proxy.process().pid();
        proxy.signal(Signal::SIGTERM);
        proxy.wait_until("it drains", |now| now.0["draining"] == true);
        proxy.signal(Signal::SIGTERM);
        proxy.wait();
        assert!(instances_of(pid).is_empty());
    });
}

#[test]
fn what_a_killed_millpond_leaves_goes_at_the_next_start() {
    with_tracefs(Mounted::Writable, || {
        let service = Service::echoing_targets();
        let lives = asked(&service).start();
        let killed = asked(&service).start();
        let pid = killed.process().pid();
        assert_eq!(instances_of(pid).len(), 1);
        // From here on a millpond of another test may be the next.
        killed.signal(Signal::SIGKILL);
        killed.wait();
        // A process with this number lives, but it was not started then.
        let reused =
            Path::new(TRACEFS).join(format!("instances/millpond-{}-1-0", std::process::id()));
        std::fs::create_dir(&reused).unwrap();
        let foreign = Path::new(TRACEFS).join(format!("instances/other-{}", std::process::id()));
        std::fs::create_dir(&foreign).unwrap();

        let next = asked(&service).start();
        let left = (instances_of(pid), reused.exists(), foreign.exists());
        std::fs::remove_dir(&foreign).unwrap();
        assert_eq!(left, (Vec::new(), false, true));
        assert_eq!(instances_of(lives.process().pid()).len(), 1);
        assert!(is_up(&lives) && is_up(&next));
        next.finish();
        lives.finish();
    });
}

#[test]
fn a_millpond_that_can_not_be_seen_keeps_its_instance() {
    with_tracefs(Mounted::Writable, || {
        let service = Service::echoing_targets();
        let lives = asked(&service).start();
        // In a namespace of processes of its own it sees none of the others.
        let alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let blind = asked(&service).through(&alone).start();
        assert!(is_up(&blind) && is_up(&lives));
        assert_eq!(instances_of(lives.process().pid()).len(), 1);
        let said = blind.process().said();
        assert!(!said.iter().any(|line| line.contains("WARN")), "{said:?}");
        assert_eq!(blind.admin("POST", "/api/v1/drain").0, 202);
        blind.wait();
        lives.finish();
    });
}

/// Starts millpond as nobody, from its own directory, with these options of setpriv(1).
fn as_nobody(config: Config, options: &str) -> Config {
    let script = format!(
        "dir=$(dirname \"$4\"); cp \"$1\" \"$dir/millpond\"; chown -R 65534 \"$dir\"; shift; \
         exec setpriv --reuid=65534 --regid=65534 --clear-groups {options} \"$dir/millpond\" \"$@\""
    );
    config.through(&["sh", "-c", &script, "sh"])
}

#[test]
fn without_permission_it_says_so_and_serves() {
    with_tracefs(Mounted::Writable, || {
        let service = Service::echoing_targets();
        let proxy = as_nobody(asked(&service), "").start();
        let warning = warning(&proxy);
        assert!(
            warning.contains("Permission denied") && warning.contains("CAP_DAC_OVERRIDE"),
            "{warning}"
        );
        assert!(!is_up(&proxy));
        assert!(proxy.snapshot().0["witness"].is_null());
        serves(&proxy);
        proxy.finish();
    });
}

#[test]
fn the_capability_that_the_warning_names_is_enough() {
    with_tracefs(Mounted::Writable, || {
        let service = Service::echoing_targets();
        let options = "--inh-caps=+dac_override --ambient-caps=+dac_override";
        let proxy = as_nobody(asked(&service), options).start();
        assert!(is_up(&proxy));
        let pid = proxy.process().pid();
        proxy.finish();
        assert!(instances_of(pid).is_empty());
    });
}

#[test]
fn where_tracing_is_not_mounted_it_says_so_and_serves() {
    for (mounted, hint) in [
        (Mounted::Nowhere, "mount -t tracefs"),
        (Mounted::ReadOnly, "Read-only file system"),
    ] {
        with_tracefs(mounted, || {
            let service = Service::echoing_targets();
            let proxy = asked(&service).start();
            let warning = warning(&proxy);
            assert!(warning.contains(hint), "{warning}");
            assert!(!is_up(&proxy));
            serves(&proxy);
            proxy.finish();
        });
    }
}

#[test]
fn who_does_not_ask_for_it_is_told_that_there_is_none() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).start();
    assert!(!is_up(&proxy));
    assert!(proxy.snapshot().0["witness"].is_null());
    assert!(
        !proxy
            .metrics()
            .contains("millpond_unattributed_resets_total")
    );
    proxy.finish();
}

#[test]
fn the_error_says_which_it_is() {
    with_tracefs(Mounted::Nowhere, || {
        let error = Witness::start(Arc::new(())).unwrap_err();
        assert!(matches!(error, WitnessError::NotMounted), "{error}");
    });
    with_tracefs(Mounted::ReadOnly, || {
        let error = Witness::start(Arc::new(())).unwrap_err();
        assert!(
            matches!(error, WitnessError::NotPermitted { .. }),
            "{error}"
        );
    });
}
