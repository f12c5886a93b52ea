//! Upgraded connections: both directions opaque, each with its own end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::io::Write;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use support::client::Client;
use support::message::pattern;
use support::proxy::{Config, Proxy, Snapshot};
use support::socket::{End, Socket};
use support::upstream::{Connection, Service};
use support::wait::{self, Gate, PATIENCE};

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";
const UPGRADED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";

/// How long a limit of 200 ms is seen to take.
const LIMIT: Range<Duration> = Duration::from_millis(150)..Duration::from_secs(5);

/// What a script of a service has to tell the test.
type Seen = (Vec<u8>, End);

/// A service that upgrades every connection and leaves the rest to `script`.
fn upgrading(
    script: impl Fn(Connection, Sender<Seen>) + Send + Sync + 'static,
) -> (Service, Receiver<Seen>) {
    let (sender, receiver) = channel();
    let service = Service::start(move |mut connection| {
        connection.head().unwrap();
        connection.write(UPGRADED);
        script(connection, sender.clone());
    });
    (service, receiver)
}

/// A client whose connection is a tunnel.
fn upgraded(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    client.send(UPGRADE);
    assert_eq!(client.head().unwrap().status(), 101);
    client
}

fn seen(receiver: &Receiver<Seen>) -> Seen {
    receiver
        .recv_timeout(PATIENCE)
        .expect("the service tells what it saw")
}

/// The one session's end, on both of its sides, with nothing lost.
fn ended(proxy: &Proxy, how: [&str; 3]) -> Snapshot {
    proxy.wait_listener("sessions/terminated", 1);
    let now = proxy.wait_upstream("connections/terminated", 1);
    let labels = ["initiator", "phase", "manner"];
    let labels: Vec<String> = std::iter::zip(labels, how)
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    assert_eq!(now.session_ends(&labels), 1, "{how:?}\n{:#}", now.0);
    assert_eq!(
        now.listener("lost_bytes/unacknowledged") + now.listener("lost_bytes/unread"),
        0,
        "{:#}",
        now.0
    );
    now
}

#[test]
fn a_service_goes_on_after_the_clients_fin() {
    let (service, observed) = upgrading(|mut connection, tell| {
        let up = connection.until_end();
        connection.write(pattern(1, 300_000));
        tell.send(up).unwrap();
    });
    let proxy = Config::to(service.address()).start();
    let mut client = upgraded(&proxy);
    client.send(pattern(2, 300_000));
    client.socket.half_close();
    let (down, end) = client.end();
    assert_eq!((down == pattern(1, 300_000), end), (true, End::Fin));
    let (up, end) = seen(&observed);
    assert_eq!((up == pattern(2, 300_000), end), (true, End::Fin));
    drop(client);
    ended(&proxy, ["downstream", "idle", "fin"]).expect_no_resets();
    proxy.finish();
}

#[test]
fn every_byte_of_a_tunnel_is_counted_once() {
    let (service, observed) = upgrading(|mut connection, tell| {
        connection.write(pattern(5, 1000));
        tell.send(connection.until_end()).unwrap();
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    // Some of what goes through the tunnel comes before there is one.
    client.send([UPGRADE.as_bytes(), &pattern(4, 3000)].concat());
    let head = client.through(b"\r\n\r\n").unwrap();
    client.exactly(1000).unwrap();
    client.send(pattern(4, 50_000));
    let up = UPGRADE.len() as u64 + 53_000;
    let down = head.len() as u64 + 1000;
    let mut last = (0, 0);
    wait::until("both directions are counted", || {
        let (_, body) = proxy.admin("GET", "/api/v1/sessions");
        let list = Snapshot(serde_json::from_str(&body).unwrap());
        let row = |key: &str| list.number(&format!("/listeners/front/0/{key}"));
        let now = (row("read_bytes"), row("written_bytes"));
        let is_still = std::mem::replace(&mut last, now) == now;
        (is_still && now.0 >= up && now.1 >= down).then_some(())
    });
    assert_eq!(last, (up, down));
    drop(client);
    assert_eq!(seen(&observed).0.len(), 53_000);
    proxy.finish();
}

#[test]
fn a_client_goes_on_after_the_services_fin() {
    let (service, observed) = upgrading(|mut connection, tell| {
        connection.write(pattern(3, 300_000));
        connection.half_close();
        tell.send(connection.until_end()).unwrap();
    });
    let proxy = Config::to(service.address()).start();
    let mut client = upgraded(&proxy);
    let (down, end) = client.end();
    assert_eq!((down == pattern(3, 300_000), end), (true, End::Fin));
    client.send(pattern(4, 300_000));
    drop(client);
    let (up, end) = seen(&observed);
    assert_eq!((up == pattern(4, 300_000), end), (true, End::Fin));
    ended(&proxy, ["upstream", "response", "fin"]).expect_no_resets();
    proxy.finish();
}

#[test]
fn a_close_in_order_is_no_reset_in_either_order() {
    let (service, observed) = upgrading(|mut connection, tell| {
        let word = connection.exactly(4).unwrap();
        connection.write("word");
        if word == *b"last" {
            return;
        }
        tell.send(connection.until_end()).unwrap();
    });
    for (word, how) in [
        ("more", ["downstream", "idle", "fin"]),
        ("last", ["upstream", "response", "fin"]),
    ] {
        let proxy = Config::to(service.address()).start();
        let mut client = upgraded(&proxy);
        client.send(word);
        assert_eq!(client.exactly(4).unwrap(), b"word");
        if word == "last" {
            client.expect_fin();
        }
        drop(client);
        if word == "more" {
            assert_eq!(seen(&observed), (Vec::new(), End::Fin));
        }
        let now = ended(&proxy, how);
        now.expect_no_resets();
        assert_eq!(now.connection_ends(&["manner=fin"]), 1, "{:#}", now.0);
        assert_eq!(now.upstream("exchanges/pinned"), 1);
        let reason = if word == "last" {
            "service_end"
        } else {
            "tunnel"
        };
        assert_eq!(now.upstream(&format!("discards/{reason}")), 1);
        proxy.finish();
    }
}

#[test]
fn a_service_has_so_long_after_the_clients_fin() {
    let gate = Gate::new();
    let (service, observed) = upgrading({
        let gate = gate.clone();
        move |mut connection, tell| {
            tell.send(connection.until_end()).unwrap();
            gate.pass();
        }
    });
    let proxy = Config::to(service.address())
        .listener("half_close_timeout = \"1s\"")
        .start();
    let mut client = upgraded(&proxy);
    client.send("last");
    client.socket.half_close();
    let begun = wait::now();
    client.expect_fin();
    let waited = begun.elapsed();
    assert!(LIMIT.contains(&waited), "{waited:?}");
    assert_eq!(seen(&observed), (b"last".to_vec(), End::Fin));
    drop(client);
    gate.open();
    ended(&proxy, ["millpond", "close", "timeout"]).expect_no_resets();
    proxy.finish();
}

#[test]
fn a_client_has_so_long_after_the_services_fin() {
    let (service, observed) = upgrading(|mut connection, tell| {
        connection.half_close();
        tell.send(connection.until_end()).unwrap();
    });
    let proxy = Config::to(service.address())
        .listener("half_close_timeout = \"1s\"")
        .listener("linger_time = \"200ms\"")
        .listener("linger_gap = \"200ms\"")
        .start();
    let mut client = upgraded(&proxy);
    client.expect_fin();
    let begun = wait::now();
    let (up, _) = seen(&observed);
    let waited = begun.elapsed();
    assert_eq!(up, b"");
    assert!(LIMIT.contains(&waited), "{waited:?}");
    ended(&proxy, ["millpond", "close", "timeout"]).expect_no_resets();
    drop(client);
    proxy.finish();
}

#[test]
fn a_services_reset_comes_after_every_byte_that_arrived() {
    let (service, _observed) = upgrading(|mut connection, _| {
        connection.write(pattern(5, 200_000));
        connection.wait_acknowledged();
        connection.reset();
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    client.socket.set_receive_buffer(4096);
    client.send(UPGRADE);
    assert_eq!(client.head().unwrap().status(), 101);
    // The reset is there long before the client has taken the bytes.
    service.wait_accepted(1);
    wait::until("the service has reset", || {
        (service.open() == 0).then_some(())
    });
    let mut down = Vec::new();
    while down.len() < 200_000 {
        wait::pace(Duration::from_millis(1));
        down.extend(client.exactly(2000).expect("every byte comes first"));
    }
    assert!(down == pattern(5, 200_000));
    assert_eq!(client.end(), (Vec::new(), End::Reset));
    drop(client);
    let now = ended(&proxy, ["upstream", "response", "reset_sent"]);
    assert_eq!((now.resets_sent(), now.resets_received()), (1, 1));
    proxy.finish();
}

#[test]
fn a_services_reset_that_a_write_meets_first_is_no_end_in_order() {
    // The write takes the error, and the read after it says what a FIN would say.
    let gate = Gate::new();
    let (service, _observed) = upgrading({
        let gate = gate.clone();
        move |mut connection, _| {
            connection.write(pattern(6, 50_000));
            connection.wait_acknowledged();
            gate.pass();
            connection.reset();
        }
    });
    let proxy = Config::to(service.address()).start();
    let mut client = upgraded(&proxy);
    fill(&mut client);
    gate.open();
    let (down, end) = client.end();
    assert_eq!((down == pattern(6, 50_000), end), (true, End::Reset));
    drop(client);
    let how = ["initiator=upstream", "phase=response", "manner=reset_sent"];
    let now = proxy.wait_listener("sessions/terminated", 1);
    assert_eq!(now.session_ends(&how), 1, "{:#}", now.0);
    let now = proxy.wait_upstream("connections/terminated", 1);
    assert_eq!(
        now.connection_ends(&["initiator=upstream", "manner=reset_received"]),
        1,
        "{:#}",
        now.0
    );
    proxy.finish();
}

/// Sends until nobody has taken any more for a while: every buffer up to the service is full.
fn fill(client: &mut Client) {
    client.socket.set_patience(Duration::from_millis(300));
    let Socket::Tcp(stream) = &mut client.socket else {
        panic!("a tunnel's client is a TCP client");
    };
    while stream.write(&[b'x'; 16_384]).is_ok() {}
    client.socket.set_patience(PATIENCE);
}

#[test]
fn a_clients_reset_reaches_the_service() {
    let (service, observed) = upgrading(|mut connection, tell| {
        connection.write("ready");
        tell.send(connection.until_end()).unwrap();
    });
    let proxy = Config::to(service.address()).start();
    let mut client = upgraded(&proxy);
    assert_eq!(client.exactly(5).unwrap(), b"ready");
    client.reset();
    assert_eq!(seen(&observed), (Vec::new(), End::Reset));
    let now = ended(&proxy, ["downstream", "response", "reset_received"]);
    assert_eq!((now.resets_sent(), now.resets_received()), (1, 1));
    proxy.finish();
}

/// Limits short enough to wait for.
fn impatient(service: &Service) -> Proxy {
    Config::to(service.address())
        .listener("half_close_timeout = \"1s\"")
        .listener("idle_timeout = \"1s\"")
        .start()
}

#[test]
fn a_client_that_takes_nothing_until_the_limit_is_told_of_its_loss() {
    // More than all buffers hold, and made before the limit runs.
    let flood = pattern(8, 30_000_000);
    let (service, observed) = upgrading(move |mut connection, tell| {
        connection.write(&flood);
        tell.send(connection.until_end()).unwrap();
    });
    let proxy = impatient(&service);
    let mut client = proxy.client();
    client.socket.set_receive_buffer(4096);
    client.send(UPGRADE);
    let now = proxy.wait_listener("sessions/terminated", 1);
    let how = ["initiator=millpond", "phase=response", "manner=timeout"];
    assert_eq!(now.session_ends(&how), 1, "{:#}", now.0);
    assert!(now.listener("lost_bytes/unacknowledged") > 0);
    assert_eq!(client.end().1, End::Reset);
    // The service's write took the reset, so its read can't tell; the ledger does.
    assert_eq!(seen(&observed).0, b"");
    let now = proxy.wait_upstream("connections/terminated", 1);
    assert_eq!(now.connection_ends(&["manner=reset_sent"]), 1);
    drop(client);
    proxy.finish();
}

#[test]
fn a_service_that_takes_nothing_until_the_limit_is_no_end_in_order() {
    let gate = Gate::new();
    let (service, observed) = upgrading({
        let gate = gate.clone();
        move |mut connection, tell| {
            gate.pass();
            tell.send(connection.until_end()).unwrap();
        }
    });
    let proxy = impatient(&service);
    let mut client = upgraded(&proxy);
    fill(&mut client);
    let now = proxy.wait_listener("sessions/terminated", 1);
    let how = ["initiator=millpond", "phase=response", "manner=timeout"];
    assert_eq!(now.session_ends(&how), 1, "{:#}", now.0);
    gate.open();
    assert_eq!(seen(&observed).1, End::Reset);
    drop(client);
    proxy.finish();
}
