//! Opaque tcp: one session, one connection, and reuse only on the operator's grounds.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::client::Client;
use support::message::pattern;
use support::process::run;
use support::proxy::{Config, Proxy};
use support::socket::{End, Socket};
use support::upstream::{Connection, Service};
use support::wait::{self, Gate, PATIENCE};

const PROMISED: &[&str] = &["reuse = \"promised\"", "quiet = \"20ms\""];
const PROBED: &[&str] = &[
    "reuse = \"probed\"",
    "quiet = \"20ms\"",
    "probe = { send = 'PING\\n', expect = '+PONG\\n' }",
];

/// What a script of a service has to tell the test.
type Seen = (Vec<u8>, End);

fn config(service: &Service, tcp: &[&str]) -> Config {
    let config = Config::to(service.address()).protocol("tcp");
    tcp.iter().fold(config, |config, line| config.tcp(line))
}

fn started(service: &Service, tcp: &[&str]) -> Proxy {
    config(service, tcp).start()
}

/// A service that answers each line with the line and its own number, and a probe with its answer.
fn lines() -> Service {
    Service::start(|mut connection| {
        while let Ok(line) = connection.through(b"\n") {
            if line == b"PING\n" {
                connection.write("+PONG\n");
                continue;
            }
            connection.count_request();
            let line = String::from_utf8(line).unwrap();
            let answer = format!("{} on {}\n", line.trim_end(), connection.number);
            connection.write(answer);
        }
    })
}

fn scripted(
    script: impl Fn(Connection, Sender<Seen>) + Send + Sync + 'static,
) -> (Service, Receiver<Seen>) {
    let (sender, receiver) = channel();
    let service = Service::start(move |connection| script(connection, sender.clone()));
    (service, receiver)
}

fn seen(receiver: &Receiver<Seen>) -> Seen {
    receiver
        .recv_timeout(PATIENCE)
        .expect("the service tells what it saw")
}

/// One line and its answer.
fn ask(client: &mut Client, line: &str) -> String {
    client.send(format!("{line}\n"));
    String::from_utf8(client.through(b"\n").unwrap()).unwrap()
}

/// One client for one line; it ends with FIN and sees a FIN.
fn ask_once(proxy: &Proxy, line: &str) -> String {
    let mut client = proxy.client();
    let answer = ask(&mut client, line);
    client.leave();
    answer
}

#[test]
fn a_session_has_a_connection_for_itself() {
    let service = lines();
    let proxy = started(&service, &[]);
    for number in 0..3 {
        assert_eq!(ask_once(&proxy, "a"), format!("a on {number}\n"));
    }
    let now = proxy.wait_upstream("connections/terminated", 3);
    assert_eq!(now.upstream("discards/session_end"), 3);
    assert_eq!(now.upstream("exchanges/completed"), 3);
    assert_eq!(now.session_ends(&["initiator=downstream", "manner=fin"]), 3);
    now.expect_no_resets();
    proxy.finish();
}

#[test]
fn a_warm_connection_is_there_before_its_client() {
    let service = lines();
    let proxy = config(&service, &[]).pool("min_idle = 2").start();
    proxy.wait_until("two are warm", |now| now.endpoint("idle") == 2);
    let now = proxy.snapshot();
    assert_eq!(now.upstream("opens/warm"), 2);
    assert_eq!(ask_once(&proxy, "a").split(' ').next(), Some("a"));
    // The next one is warmed for the next client.
    let now = proxy.wait_until("two are warm again", |now| now.endpoint("idle") == 2);
    assert_eq!(now.upstream("opens/demand"), 0);
    assert_eq!(now.upstream("opens/warm"), 3);
    proxy.finish();
}

#[test]
fn a_service_may_speak_first_and_its_greeting_reaches_its_client_whole() {
    let service = Service::start(|mut connection| {
        connection.write("220 hello\n");
        while let Ok(line) = connection.through(b"\n") {
            connection.write(line);
        }
    });
    for min_idle in [0, 2] {
        let proxy = config(&service, &[])
            .pool(&format!("min_idle = {min_idle}"))
            .start();
        if min_idle > 0 {
            proxy.wait_until("spares that have been greeted stay", |now| {
                now.endpoint("idle") == min_idle
            });
        }
        let mut client = proxy.client();
        assert_eq!(client.through(b"\n").unwrap(), b"220 hello\n");
        assert_eq!(ask(&mut client, "a"), "a\n");
        drop(client);
        let now = proxy.wait_listener("sessions/terminated", 1);
        assert_eq!(now.upstream("discards/idle_bytes"), 0, "{:#}", now.0);
        now.expect_no_resets();
        proxy.finish();
    }
}

#[test]
fn a_greeted_spare_that_the_service_closes_is_not_lent() {
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            connection.write("421 busy\n");
            if connection.number == 0 {
                gate.pass();
                return;
            }
            connection.until_end();
        }
    });
    let proxy = config(&service, &[]).pool("min_idle = 1").start();
    service.wait_accepted(1);
    proxy.wait_until("it is idle", |now| now.endpoint("idle") == 1);
    gate.open();
    let now = proxy.wait_upstream("discards/idle_fin", 1);
    assert_eq!(now.upstream("discards/idle_bytes"), 0);
    proxy.finish();
}

#[test]
fn both_sides_may_close_by_halves() {
    let (service, observed) = scripted(|mut connection, tell| {
        let up = connection.until_end();
        connection.write(pattern(1, 300_000));
        tell.send(up).unwrap();
    });
    for tcp in [&[], PROMISED, PROBED] {
        let proxy = started(&service, tcp);
        let mut client = proxy.client();
        client.send(pattern(2, 300_000));
        client.socket.half_close();
        let (down, end) = client.end();
        assert_eq!((down == pattern(1, 300_000), end), (true, End::Fin));
        let (up, end) = seen(&observed);
        assert_eq!((up == pattern(2, 300_000), end), (true, End::Fin));
        drop(client);
        let now = proxy.wait_upstream("connections/terminated", 1);
        // Its FIN came before the reply, so the connection is nobody else's.
        let reason = if tcp.is_empty() {
            "session_end"
        } else {
            "reuse_unanswered"
        };
        assert_eq!(
            now.upstream(&format!("discards/{reason}")),
            1,
            "{:#}",
            now.0
        );
        now.expect_no_resets();
        proxy.finish();
    }
}

#[test]
fn a_services_fin_is_passed_on_and_the_client_may_go_on() {
    let (service, observed) = scripted(|mut connection, tell| {
        connection.write("last");
        connection.half_close();
        tell.send(connection.until_end()).unwrap();
    });
    let proxy = started(&service, &[]);
    let mut client = proxy.client();
    let (down, end) = client.end();
    assert_eq!((down.as_slice(), end), (b"last".as_slice(), End::Fin));
    client.send(pattern(4, 300_000));
    drop(client);
    let (up, end) = seen(&observed);
    assert_eq!((up == pattern(4, 300_000), end), (true, End::Fin));
    let now = proxy.wait_upstream("connections/terminated", 1);
    assert_eq!(now.upstream("discards/service_end"), 1);
    assert_eq!(
        now.connection_ends(&["initiator=upstream", "manner=fin"]),
        1
    );
    now.expect_no_resets();
    proxy.finish();
}

#[test]
fn a_clients_reset_reaches_the_service_after_every_byte_that_arrived() {
    let gate = Gate::new();
    let (service, observed) = scripted({
        let gate = gate.clone();
        move |mut connection, tell| {
            connection.write("ready");
            gate.pass();
            tell.send(connection.until_end()).unwrap();
        }
    });
    let proxy = started(&service, &[]);
    let mut client = proxy.client();
    assert_eq!(client.exactly(5).unwrap(), b"ready");
    client.send(pattern(5, 200_000));
    client.wait_acknowledged();
    proxy.wait_until("all of it has been read", |_| {
        let (status, body) = proxy.admin("GET", "/api/v1/sessions");
        assert_eq!(status, 200);
        body.contains("\"read_bytes\":200000")
    });
    client.reset();
    // The reset is there long before the service has taken the bytes.
    proxy.wait_listener("sessions/terminated", 1);
    gate.open();
    let (up, end) = seen(&observed);
    assert_eq!((up == pattern(5, 200_000), end), (true, End::Reset));
    let now = proxy.wait_upstream("connections/terminated", 1);
    assert_eq!(now.upstream("discards/client_gone"), 1);
    let how = [
        "initiator=downstream",
        "phase=response",
        "manner=reset_received",
    ];
    assert_eq!(now.session_ends(&how), 1, "{:#}", now.0);
    let how = [
        "initiator=downstream",
        "phase=response",
        "manner=reset_sent",
    ];
    assert_eq!(now.connection_ends(&how), 1, "{:#}", now.0);
    let propagated = ["direction=sent", "cause=propagated"];
    assert_eq!(now.rows("/upstreams/service/resets", &propagated), 1);
    assert_eq!(now.upstream("lost_bytes/unacknowledged"), 0);
    proxy.finish();
}

#[test]
fn a_services_reset_reaches_a_slow_client_after_every_byte_that_arrived() {
    let (service, _observed) = scripted(|mut connection, _| {
        connection.write(pattern(6, 200_000));
        connection.wait_acknowledged();
        connection.reset();
    });
    let proxy = started(&service, &[]);
    let mut client = proxy.client();
    client.socket.set_receive_buffer(4096);
    service.wait_accepted(1);
    wait::until("the service has reset", || {
        (service.open() == 0).then_some(())
    });
    let mut down = Vec::new();
    while down.len() < 200_000 {
        wait::pace(Duration::from_millis(1));
        down.extend(client.exactly(2000).expect("every byte comes first"));
    }
    assert!(down == pattern(6, 200_000));
    assert_eq!(client.end(), (Vec::new(), End::Reset));
    drop(client);
    let now = proxy.wait_listener("sessions/terminated", 1);
    let how = ["initiator=upstream", "phase=response", "manner=reset_sent"];
    assert_eq!(now.session_ends(&how), 1, "{:#}", now.0);
    let propagated = ["direction=sent", "cause=propagated"];
    assert_eq!(now.rows("/listeners/front/resets", &propagated), 1);
    assert_eq!(
        now.connection_ends(&["initiator=upstream", "manner=reset_received"]),
        1
    );
    assert_eq!(now.listener("lost_bytes/unacknowledged"), 0);
    proxy.finish();
}

#[test]
fn a_health_check_that_resets_takes_no_connection_with_it() {
    let service = lines();
    let proxy = config(&service, &[]).pool("min_idle = 1").start();
    for round in 1..=5 {
        proxy.client().reset();
        proxy.wait_listener("sessions/terminated", round);
    }
    assert!(ask_once(&proxy, "a").starts_with("a on "));
    let now = proxy.wait_upstream("connections/terminated", 1);
    assert_eq!(now.upstream("discards/session_end"), 1);
    assert_eq!(now.sum("/upstreams/service/discards"), 1);
    // One for the client and one that was warmed meanwhile.
    assert!(service.accepted() <= 3, "{}", service.accepted());
    proxy.finish();
}

#[test]
fn no_connection_free_is_told_as_the_operator_wants_it() {
    for (refuse, end) in [("fin", End::Fin), ("reset", End::Reset)] {
        let service = lines();
        let proxy = config(&service, &[])
            .pool("size = 1")
            .pool("wait_timeout = \"50ms\"")
            .listener(&format!("refuse = \"{refuse}\""))
            .start();
        let mut first = proxy.client();
        assert_eq!(ask(&mut first, "a"), "a on 0\n");
        let mut second = proxy.client();
        second.send("b\n");
        assert_eq!(second.end(), (Vec::new(), end));
        let now = proxy.wait_listener("refusals/wait_timeout", 1);
        assert_eq!(now.upstream("exchanges/refused"), 1);
        drop(second);
        assert_eq!(ask(&mut first, "c"), "c on 0\n");
        drop(first);
        proxy.finish();
    }
}

#[test]
fn a_connection_serves_the_next_client_after_a_clean_end() {
    for tcp in [PROMISED, PROBED] {
        let service = lines();
        let proxy = started(&service, tcp);
        for line in ["a", "b", "c"] {
            assert_eq!(ask_once(&proxy, line), format!("{line} on 0\n"));
            proxy.wait_until("it is back", |now| now.endpoint("idle") == 1);
        }
        let now = proxy.snapshot();
        assert_eq!(now.upstream("connects/established"), 1);
        assert_eq!(now.sum("/upstreams/service/discards"), 0);
        assert_eq!(now.upstream("exchanges/completed"), 3);
        now.expect_no_resets();
        proxy.finish();
    }
}

#[test]
fn a_client_that_goes_on_after_its_answers_is_one_session() {
    let service = lines();
    let proxy = started(&service, PROMISED);
    let mut client = proxy.client();
    for line in ["a", "b", "c"] {
        assert_eq!(ask(&mut client, line), format!("{line} on 0\n"));
        // Longer than `quiet`: silence alone ends nothing.
        assert!(client.socket.stays_silent(Duration::from_millis(40)));
    }
    client.leave();
    proxy.wait_until("it is back", |now| now.endpoint("idle") == 1);
    proxy.finish();
}

#[test]
fn tls_is_recognised_and_its_connection_never_reused() {
    let service = Service::start(|mut connection| {
        while let Ok(record) = connection.exactly(6) {
            connection.write(record);
        }
    });
    for tcp in [PROMISED, PROBED] {
        let proxy = started(&service, tcp);
        let mut client = proxy.client();
        client.send(b"\x16\x03\x01\x00\x01x");
        assert_eq!(client.exactly(6).unwrap(), b"\x16\x03\x01\x00\x01x");
        client.leave();
        let now = proxy.wait_upstream("connections/terminated", 1);
        assert_eq!(now.upstream("discards/reuse_tls"), 1, "{:#}", now.0);
        now.expect_no_resets();
        proxy.finish();
    }
}

#[test]
fn a_service_that_greets_is_recognised_and_its_connection_never_reused() {
    let service = Service::start(|mut connection| {
        connection.write("220 hello\n");
        while let Ok(line) = connection.through(b"\n") {
            connection.write(line);
        }
    });
    for tcp in [PROMISED, PROBED] {
        let proxy = started(&service, tcp);
        let mut client = proxy.client();
        assert_eq!(client.through(b"\n").unwrap(), b"220 hello\n");
        assert_eq!(ask(&mut client, "a"), "a\n");
        client.leave();
        let now = proxy.wait_upstream("connections/terminated", 1);
        assert_eq!(now.upstream("discards/reuse_greeting"), 1, "{:#}", now.0);
        proxy.finish();
    }
}

#[test]
fn a_client_that_resets_leaves_no_connection_for_others() {
    for tcp in [PROMISED, PROBED] {
        let service = lines();
        let proxy = started(&service, tcp);
        let mut client = proxy.client();
        assert_eq!(ask(&mut client, "a"), "a on 0\n");
        client.reset();
        let now = proxy.wait_upstream("connections/terminated", 1);
        assert_eq!(now.upstream("discards/client_gone"), 1, "{:#}", now.0);
        assert_eq!(ask_once(&proxy, "b"), "b on 1\n");
        proxy.finish();
    }
}

#[test]
fn a_client_with_the_last_word_leaves_no_connection_for_others() {
    let service = Service::start(|mut connection| {
        while let Ok(line) = connection.through(b"\n") {
            if line != b"silent\n" {
                connection.write(line);
            }
        }
    });
    for tcp in [PROMISED, PROBED] {
        let proxy = started(&service, tcp);
        let mut client = proxy.client();
        assert_eq!(ask(&mut client, "a"), "a\n");
        client.send("silent\n");
        client.leave();
        let now = proxy.wait_upstream("connections/terminated", 1);
        assert_eq!(now.upstream("discards/reuse_unanswered"), 1, "{:#}", now.0);
        proxy.finish();
    }
}

/// A service whose answer to `twice` comes in two parts, the second when the gate opens.
fn late(gate: &Gate) -> Service {
    let gate = gate.clone();
    Service::start(move |mut connection| {
        while let Ok(line) = connection.through(b"\n") {
            match line.as_slice() {
                b"PING\n" => connection.write("+PONG\n"),
                b"twice\n" => {
                    connection.write("one\n");
                    gate.pass();
                    connection.write("two\n")
                }
                _ => connection.write(line),
            };
        }
    })
}

#[test]
fn a_probe_that_a_late_answer_precedes_is_not_answered() {
    let service = Service::start(|mut connection| {
        while let Ok(line) = connection.through(b"\n") {
            match line.as_slice() {
                b"PING\n" => connection.write("+PONG\n"),
                b"twice\n" => {
                    connection.write("one\n");
                    // What comes next is the probe; it waits behind the first client's request.
                    connection.fill().unwrap();
                    connection.write("two\n")
                }
                _ => connection.write(line),
            };
        }
    });
    let proxy = started(&service, PROBED);
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "twice"), "one\n");
    client.socket.half_close();
    // What the client has is not the whole answer, and does not end as if it were.
    assert_eq!(client.end(), (Vec::new(), End::Reset));
    drop(client);
    let now = proxy.wait_upstream("connections/terminated", 1);
    assert_eq!(now.upstream("discards/reuse_probe_wrong"), 1, "{:#}", now.0);
    assert_eq!(now.upstream("exchanges/truncated"), 1);
    let how = ["initiator=upstream", "phase=response", "manner=truncated"];
    proxy.wait_until("it ended so", |now| now.session_ends(&how) == 1);
    assert_eq!(ask_once(&proxy, "b"), "b\n");
    proxy.finish();
}

#[test]
fn a_request_cut_short_that_the_probe_completes_is_answered_to_nobody() {
    let service = Service::start(|mut connection| {
        while let Ok(line) = connection.through(b"\n") {
            if line == b"PING\n" {
                connection.write("+PONG\n");
                continue;
            }
            connection.write(&line);
            if line == b"a\n" {
                // Part of a request, to which it says something all the same.
                connection.fill().unwrap();
                connection.write("unasked\n");
            }
        }
    });
    let proxy = started(&service, PROBED);
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "a"), "a\n");
    client.send("cut");
    assert_eq!(client.through(b"\n").unwrap(), b"unasked\n");
    client.socket.half_close();
    assert_eq!(client.end(), (Vec::new(), End::Reset));
    drop(client);
    proxy.wait_upstream("discards/reuse_probe_wrong", 1);
    assert_eq!(ask_once(&proxy, "b"), "b\n");
    proxy.finish();
}

#[test]
fn a_probe_that_is_not_answered_in_time_is_no_proof() {
    let gate = Gate::new();
    let service = late(&gate);
    let proxy = config(&service, PROBED)
        .tcp("probe_timeout = \"50ms\"")
        .start();
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "twice"), "one\n");
    client.leave();
    proxy.wait_upstream("discards/reuse_probe_timeout", 1);
    gate.open();
    assert_eq!(ask_once(&proxy, "b"), "b\n");
    proxy.finish();
}

#[test]
fn a_promise_that_is_broken_before_the_next_client_is_found_out() {
    let gate = Gate::new();
    let service = late(&gate);
    let proxy = started(&service, PROMISED);
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "twice"), "one\n");
    client.leave();
    proxy.wait_until("it is back", |now| now.endpoint("idle") == 1);
    gate.open();
    proxy.wait_upstream("discards/idle_bytes", 1);
    assert_eq!(ask_once(&proxy, "b"), "b\n");
    proxy.finish();
}

#[test]
fn a_promise_that_is_broken_after_the_lease_and_before_the_client_speaks_is_found_out() {
    let gate = Gate::new();
    let service = late(&gate);
    let proxy = started(&service, PROMISED);
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "twice"), "one\n");
    client.leave();
    proxy.wait_until("it is back", |now| now.endpoint("idle") == 1);
    let mut next = proxy.client();
    proxy.wait_until("it is lent", |now| now.endpoint("leased") == 1);
    gate.open();
    proxy.wait_upstream("discards/crossed_answer", 1);
    let answer = ask(&mut next, "b");
    assert_eq!(
        answer, "b\n",
        "on another connection, and nothing before it"
    );
    let now = proxy.snapshot();
    assert_eq!(now.upstream("retries/unsent"), 1);
    drop(next);
    proxy.finish();
}

#[test]
fn the_service_that_closes_a_lent_connection_costs_a_silent_client_nothing() {
    let service = lines();
    let proxy = started(&service, PROMISED);
    assert_eq!(ask_once(&proxy, "a"), "a on 0\n");
    proxy.wait_until("it is back", |now| now.endpoint("idle") == 1);
    assert!(service.kill_one(&mut fastrand::Rng::new()));
    proxy.wait_upstream("discards/idle_fin", 1);
    assert_eq!(ask_once(&proxy, "b"), "b on 1\n");
    proxy.finish();
}

#[test]
fn a_stalled_reader_holds_no_more_than_the_buffers() {
    // More than all buffers of the kernel hold.
    let flood = pattern(8, 30_000_000);
    let (service, observed) = scripted(move |mut connection, tell| {
        connection.write(&flood);
        tell.send(connection.until_end()).unwrap();
    });
    let proxy = started(&service, &[]);
    let resident = || proxy.process().resident_kib();
    let before = resident();
    let mut client = proxy.client();
    service.wait_accepted(1);
    wait::throughout(Duration::from_millis(300), "memory stays", || {
        resident() < before + 2 * 1024
    });
    assert!(client.exactly(30_000_000).unwrap() == pattern(8, 30_000_000));
    drop(client);
    assert_eq!(seen(&observed), (Vec::new(), End::Fin));
    proxy.finish();
}

#[test]
fn a_drain_ends_sessions_at_rest_and_waits_for_the_others() {
    let gate = Gate::new();
    let service = late(&gate);
    let proxy = started(&service, PROMISED);
    let (mut at_rest, mut busy) = (proxy.client(), proxy.client());
    assert_eq!(ask(&mut at_rest, "a"), "a\n");
    busy.send("twice\n");
    assert_eq!(busy.through(b"\n").unwrap(), b"one\n");
    busy.send("more");
    proxy.signal(Signal::SIGTERM);
    at_rest.expect_fin();
    drop(at_rest);
    assert!(busy.socket.stays_silent(Duration::from_millis(100)));
    gate.open();
    assert_eq!(busy.through(b"\n").unwrap(), b"two\n");
    busy.send("\n");
    assert_eq!(busy.through(b"\n").unwrap(), b"more\n");
    busy.expect_fin();
    drop(busy);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_session_without_reuse_is_cut_off_at_the_end_of_a_drain() {
    let service = lines();
    let proxy = config(&service, &[])
        .shutdown("drain_timeout = \"300ms\"")
        .start();
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "a"), "a on 0\n");
    proxy.signal(Signal::SIGTERM);
    assert_eq!(client.end(), (Vec::new(), End::Reset));
    drop(client);
    assert_eq!(proxy.wait().code(), Some(1));
}

#[test]
fn a_client_that_sends_more_than_anybody_takes_is_stopped_and_then_served() {
    let gate = Gate::new();
    let (service, observed) = scripted({
        let gate = gate.clone();
        move |mut connection, tell| {
            gate.pass();
            tell.send(connection.until_end()).unwrap();
        }
    });
    let proxy = started(&service, &[]);
    let mut client = proxy.client();
    let sent = fill(&mut client);
    gate.open();
    drop(client);
    let (up, end) = seen(&observed);
    assert_eq!((up.len(), end), (sent, End::Fin));
    proxy.finish();
}

/// Sends until nobody has taken any more for a while: every buffer up to the service is full.
fn fill(client: &mut Client) -> usize {
    client.socket.set_patience(Duration::from_millis(300));
    let Socket::Tcp(stream) = &mut client.socket else {
        panic!("a client over TCP");
    };
    let mut sent = 0;
    while let Ok(count) = stream.write(&[b'x'; 16_384]) {
        sent += count;
    }
    client.socket.set_patience(PATIENCE);
    sent
}

/// A service whose first connection answers one line, and says more when the gate opens.
fn talkative(
    gate: &Gate,
    more: &'static str,
    then: impl Fn(Connection) + Send + Sync + 'static,
) -> Service {
    let gate = gate.clone();
    Service::start(move |mut connection| {
        if connection.number == 0 {
            let line = connection.through(b"\n").unwrap();
            connection.write(line);
            gate.pass();
            connection.write(more);
            return then(connection);
        }
        let request = connection.exactly(60_000).unwrap();
        assert!(request == pattern(1, 60_000), "the whole of it");
        connection.write("whole\n");
        connection.until_end();
    })
}

/// Stops millpond where it is, until SIGCONT.
fn stop(proxy: &Proxy) {
    proxy.signal(Signal::SIGSTOP);
    let tasks = format!("/proc/{}/task", proxy.process().pid());
    wait::until("every thread has stopped", || {
        let mut states = std::fs::read_dir(&tasks).unwrap().map(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            // The state stands behind the name, which is in brackets (proc_pid_stat(5)).
            stat.rsplit(") ").next().unwrap().starts_with('T')
        });
        states.all(|is_stopped| is_stopped).then_some(())
    });
}

/// A client that is lent the service's first connection, which says more at the moment that the
/// client speaks, is served by another, and whole.
fn is_served_by_another(service: &Service, gate: &Gate, how_it_ends: impl Fn()) {
    let proxy = started(service, PROMISED);
    assert_eq!(ask_once(&proxy, "a"), "a\n");
    proxy.wait_until("it is back", |now| now.endpoint("idle") == 1);
    let mut client = proxy.client();
    proxy.wait_until("it is lent", |now| now.endpoint("leased") == 1);
    // What follows is all there at once, the client's more than one read of it.
    stop(&proxy);
    client.send(pattern(1, 60_000));
    gate.open();
    how_it_ends();
    proxy.signal(Signal::SIGCONT);
    assert_eq!(client.through(b"\n").unwrap(), b"whole\n");
    assert_eq!(proxy.snapshot().upstream("retries/unsent"), 1);
    drop(client);
    proxy.finish();
}

#[test]
fn late_bytes_that_are_there_before_the_request_is_written_reach_nobody() {
    let gate = Gate::new();
    let (said, more) = channel();
    let service = talkative(&gate, "late\n", move |mut connection| {
        said.send(()).unwrap();
        connection.until_end();
    });
    is_served_by_another(&service, &gate, || more.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn a_request_goes_whole_to_another_connection_where_its_own_has_been_closed() {
    for more in ["", "late\n"] {
        let gate = Gate::new();
        let service = talkative(&gate, more, drop);
        is_served_by_another(&service, &gate, || {
            let port = format!("dport = :{}", service.socket_address().port());
            wait::until("the service has closed", || {
                let closed = run("ss", &["-tnH", "state", "close-wait", &port]);
                (!closed.is_empty()).then_some(())
            });
        });
    }
}

#[test]
fn a_service_that_closes_a_lent_connection_before_a_word_costs_its_client_nothing() {
    let service = lines();
    let proxy = started(&service, PROMISED);
    assert_eq!(ask_once(&proxy, "a"), "a on 0\n");
    proxy.wait_until("it is back", |now| now.endpoint("idle") == 1);
    let mut client = proxy.client();
    proxy.wait_until("it is lent", |now| now.endpoint("leased") == 1);
    assert!(service.kill_one(&mut fastrand::Rng::new()));
    proxy.wait_upstream("discards/lost_race", 1);
    assert_eq!(ask(&mut client, "b"), "b on 1\n");
    drop(client);
    proxy.finish();
}

/// A service that says something before it has read what its client sent, and answers once it has.
fn interim(gate: &Gate) -> (Service, Receiver<Seen>) {
    let gate = gate.clone();
    scripted(move |mut connection, tell| {
        gate.pass();
        connection.write("interim\n");
        gate.pass();
        tell.send(connection.until_end()).unwrap();
        connection.write("answer\n");
    })
}

/// The client's FIN comes behind `sent` bytes and before their answer, so the service is told of it.
fn is_told_of_the_fin(
    proxy: &Proxy,
    client: &mut Client,
    sent: usize,
    gate: &Gate,
    observed: &Receiver<Seen>,
) {
    wait_read(proxy, sent);
    gate.open();
    assert_eq!(client.through(b"\n").unwrap(), b"interim\n");
    client.socket.half_close();
    assert!(client.socket.stays_silent(Duration::from_millis(100)));
    gate.open();
    let (up, end) = seen(observed);
    assert_eq!((up.len(), end), (sent, End::Fin));
    let (down, end) = client.end();
    assert_eq!((down.as_slice(), end), (b"answer\n".as_slice(), End::Fin));
    proxy.wait_upstream("discards/reuse_unanswered", 1);
}

fn wait_read(proxy: &Proxy, bytes: usize) {
    let read = format!("\"read_bytes\":{bytes},");
    proxy.wait_until(&read, |_| {
        proxy.admin("GET", "/api/v1/sessions").1.contains(&read)
    });
}

#[test]
fn a_word_of_the_service_while_it_is_still_being_told_is_no_answer() {
    let gate = Gate::new();
    let (service, observed) = interim(&gate);
    let proxy = started(&service, PROMISED);
    let mut client = proxy.client();
    // All of it is written, and more than the service's kernel takes unread.
    client.send(pattern(1, 1_000_000));
    is_told_of_the_fin(&proxy, &mut client, 1_000_000, &gate, &observed);
    drop(client);
    proxy.finish();
}

#[test]
fn a_word_of_the_service_before_the_rest_is_written_is_no_answer() {
    let gate = Gate::new();
    let (service, observed) = interim(&gate);
    let proxy = started(&service, PROMISED);
    let mut client = proxy.client();
    let mut sent = 1_000_000;
    client.send(pattern(1, sent));
    wait_read(&proxy, sent);
    // Until millpond holds some of the last piece, which it can't write.
    while is_written(&service, sent) {
        client.send(pattern(1, 16_384));
        sent += 16_384;
        wait_read(&proxy, sent);
    }
    is_told_of_the_fin(&proxy, &mut client, sent, &gate, &observed);
    drop(client);
    proxy.finish();
}

/// Whether so many bytes are written to the service, or soon will be.
fn is_written(service: &Service, bytes: usize) -> bool {
    let end = wait::now() + Duration::from_millis(200);
    while queued(service) != bytes {
        if wait::now() > end {
            return false;
        }
        wait::pace(Duration::from_millis(5));
    }
    true
}

/// Bytes that are written to the service and not read, in the kernel's queues.
fn queued(service: &Service) -> usize {
    let port = service.socket_address().port();
    let filter = format!("( sport = :{port} or dport = :{port} )");
    let listing = run("ss", &["-tnH", "state", "established", &filter]);
    let queues = listing.lines().flat_map(|line| {
        let columns = line.split_whitespace();
        columns.take(2).map(|bytes| bytes.parse::<usize>().unwrap())
    });
    queues.sum()
}

#[test]
fn a_greeting_is_recognised_where_its_client_has_spoken_already() {
    let greeted = Arc::<AtomicU64>::default();
    let greets = Arc::clone(&greeted);
    let service = Service::start(move |mut connection| {
        connection.write("220 hello\n");
        greets.fetch_add(1, Ordering::Relaxed);
        while let Ok(line) = connection.through(b"\n") {
            connection.write(line);
        }
    });
    let proxy = config(&service, PROMISED)
        .pool("min_idle = 1")
        .listener("max_sessions = 1")
        .start();
    let mut first = proxy.client();
    assert_eq!(first.through(b"\n").unwrap(), b"220 hello\n");
    proxy.wait_until("the next spare is there", |now| now.endpoint("idle") == 1);
    // On a busy host its greeting comes long after its connect.
    wait::until("it is greeted", || {
        (greeted.load(Ordering::Relaxed) == 2).then_some(())
    });
    // Its bytes are there before anybody serves it.
    let mut second = proxy.client();
    second.send("a\n");
    drop(first);
    assert_eq!(second.through(b"\n").unwrap(), b"220 hello\n");
    assert_eq!(second.through(b"\n").unwrap(), b"a\n");
    second.leave();
    proxy.wait_upstream("discards/reuse_greeting", 2);
    proxy.finish();
}

#[test]
fn an_answer_that_outlasts_a_half_close_ends_at_its_limit_and_not_as_if_it_were_whole() {
    let service = Service::start(|mut connection| {
        connection.through(b"\n").unwrap();
        while connection.write("tick\n") {
            wait::pace(Duration::from_millis(10));
        }
    });
    for tcp in [&[], &["reuse = \"promised\"", "quiet = \"500ms\""][..]] {
        let proxy = config(&service, tcp)
            .listener("half_close_timeout = \"1s\"")
            .upstream("linger_time = \"200ms\"")
            .start();
        let mut client = proxy.client();
        assert_eq!(ask(&mut client, "a"), "tick\n");
        client.socket.half_close();
        let how = ["initiator=millpond", "phase=close", "manner=timeout"];
        proxy.wait_until("it ended so", |now| now.session_ends(&how) == 1);
        assert_eq!(client.end().1, End::Reset);
        drop(client);
        proxy.finish();
    }
}

#[test]
fn a_connection_that_has_served_is_lent_to_nobody_once_a_reload_has_changed_the_grounds() {
    let service = lines();
    let before = config(&service, PROMISED);
    let proxy = before.clone().pool("size = 1").start();
    assert_eq!(ask_once(&proxy, "a"), "a on 0\n");
    proxy.wait_until("it is back", |now| now.endpoint("idle") == 1);
    let mut during = proxy.client();
    assert_eq!(ask(&mut during, "b"), "b on 0\n");
    // It waits under the old rules, and is lent a connection under the new ones.
    let mut waiting = proxy.client();
    waiting.send("c\n");
    proxy.wait_upstream("waiters", 1);
    proxy.rewrite(&config(&service, &[]).pool("size = 1"));
    let (status, said) = proxy.admin("POST", "/api/v1/reload");
    assert_eq!(status, 200, "{said}");
    during.leave();
    assert_eq!(waiting.through(b"\n").unwrap(), b"c on 1\n");
    waiting.leave();
    let now = proxy.wait_upstream("connections/terminated", 2);
    assert_eq!(now.upstream("discards/flushed"), 2, "{:#}", now.0);
    assert_eq!(ask_once(&proxy, "d"), "d on 2\n");
    proxy.finish();
}

#[test]
fn an_idle_connection_that_has_served_goes_when_a_reload_changes_the_grounds() {
    let service = lines();
    let proxy = started(&service, PROMISED);
    assert_eq!(ask_once(&proxy, "a"), "a on 0\n");
    proxy.wait_until("it is back", |now| now.endpoint("idle") == 1);
    proxy.rewrite(&config(&service, PROBED));
    let (status, said) = proxy.admin("POST", "/api/v1/reload");
    assert_eq!(status, 200, "{said}");
    assert_eq!(ask_once(&proxy, "b"), "b on 1\n");
    let now = proxy.wait_upstream("connections/terminated", 1);
    assert_eq!(now.upstream("discards/flushed"), 1, "{:#}", now.0);
    proxy.finish();
}

#[test]
fn a_service_that_ends_after_its_answer_is_not_counted_as_one_that_did_not_answer() {
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |mut connection| {
            let line = connection.through(b"\n").unwrap();
            connection.write(line);
            gate.pass();
        }
    });
    let proxy = started(&service, &["reuse = \"promised\"", "quiet = \"20s\""]);
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "a"), "a\n");
    client.socket.half_close();
    assert!(client.socket.stays_silent(Duration::from_millis(50)));
    gate.open();
    client.expect_fin();
    drop(client);
    let now = proxy.wait_upstream("connections/terminated", 1);
    assert_eq!(now.upstream("discards/service_end"), 1, "{:#}", now.0);
    assert_eq!(now.session_ends(&["initiator=downstream", "manner=fin"]), 1);
    proxy.finish();
}

#[test]
fn a_session_whose_probe_is_not_answered_is_cut_off_at_the_end_of_a_drain() {
    let service = Service::start(|mut connection| {
        let line = connection.through(b"\n").unwrap();
        connection.write(line);
        connection.exactly(5).unwrap();
        connection.count_request();
        connection.until_end();
    });
    let proxy = config(&service, PROBED)
        .tcp("probe_timeout = \"1h\"")
        .shutdown("drain_timeout = \"300ms\"")
        .start();
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, "a"), "a\n");
    client.socket.half_close();
    service.wait_requests(1);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(client.end(), (Vec::new(), End::Reset));
    drop(client);
    assert_eq!(proxy.wait().code(), Some(1));
}

#[test]
fn a_connection_serves_the_next_client_over_unix_sockets_too() {
    for tcp in [PROMISED, PROBED] {
        let directory = tempfile::tempdir().unwrap();
        let service = Service::start_unix(&directory.path().join("service"), |mut connection| {
            while let Ok(line) = connection.through(b"\n") {
                if line == b"PING\n" {
                    connection.write("+PONG\n");
                    continue;
                }
                let line = String::from_utf8(line).unwrap();
                connection.write(format!("{} on {}\n", line.trim_end(), connection.number));
            }
        });
        let front = directory.path().join("front");
        let proxy = config(&service, tcp)
            .listen(&format!("unix:{}", front.display()))
            .start();
        for line in ["a", "b", "c"] {
            let mut client = Client::over(Socket::dial_unix(&front).unwrap());
            assert_eq!(ask(&mut client, line), format!("{line} on 0\n"));
            client.leave();
            proxy.wait_until("it is back", |now| now.endpoint("idle") == 1);
        }
        let now = proxy.snapshot();
        assert_eq!(now.sum("/upstreams/service/discards"), 0, "{:#}", now.0);
        proxy.finish();
    }
}
