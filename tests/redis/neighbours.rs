//! Clients and services that do what breaks a proxy: what one of them leaves, cuts short or does not read must
//! never reach another client, nor stop it.

use crate::client::{Client, Reply, command};
use crate::server::Redis;
use crate::support::proxy::{Config, Proxy};
use crate::support::upstream::{Connection, Service};
use crate::support::wait::Gate;
use crate::{finish, in_front_of};

/// The one connection that is lent goes from client to client; nothing of one is seen by the next.
#[test]
fn what_a_client_leaves_on_its_connection_reaches_nobody() {
    let options = [
        "--user root on >pw ~* &* +@all",
        "--user default on nopass ~* &* +@all -acl|setuser",
    ];
    let redis = Redis::start_on("127.0.0.1", &options);
    let config = Config::to(&redis.address().to_string()).protocol("redis");
    let proxy = config.pool("size = 2").pool("shared = 1").start();
    let long: Vec<_> = (0..9000).map(|number| format!("key{number:08}")).collect();
    let large: Vec<&str> = ["WATCH"]
        .into_iter()
        .chain(long.iter().map(String::as_str))
        .collect();
    let leavers: [&[&[&str]]; 10] = [
        &[&["MULTI"], &["DISCARD", "x"]],
        &[&["MULTI"], &["AUTH", "root", "pw"], &["EXEC"]],
        &[&["MULTI"], &["HELLO", "3"], &["EXEC"]],
        &[&["WATCH", "k"], &["HELLO", "3"], &["UNWATCH"]],
        &[&["MULTI"], &["SUBSCRIBE", "channel"], &["EXEC"]],
        &[&["MULTI"], &["CLIENT", "REPLY", "OFF"], &["EXEC"]],
        &[&["WATCH", "k"], &["UNWATCH", "x"]],
        &[&["WATCH", "k"], &["SELECT", "5"], &["UNWATCH"]],
        &[&["CLIENT", "NO-EVICT", "ON"], &["RESET"]],
        &[&large],
    ];
    for leaver in leavers {
        let mut client = Client::dial(proxy.address());
        let said: Vec<_> = leaver
            .iter()
            .map_while(|words| client.try_ask(words).ok())
            .collect();
        drop(client);
        let mut next = Client::dial(proxy.address());
        let shown: Vec<_> = leaver
            .iter()
            .map(|words| &words[..words.len().min(3)])
            .collect();
        assert_eq!(
            next.ask(&["BLPOP", "none", "0.01"]),
            Reply::Null,
            "{shown:?} {said:?}"
        );
        next.ask(&["SET", "k", "changed"]);
        assert_eq!(next.ask(&["MULTI"]), Reply::ok(), "{shown:?}");
        assert_eq!(
            next.ask(&["ACL", "WHOAMI"]),
            Reply::simple("QUEUED"),
            "{shown:?}"
        );
        assert_eq!(next.ask(&["EXEC"]), Reply::bulks(&["default"]), "{shown:?}");
        next.leave();
    }
    proxy.finish();
}

fn front(service: &Service, more: &str) -> Proxy {
    let config = Config::to(service.address()).protocol("redis");
    let config = config.pool("size = 4").pool("shared = 1");
    // One worker: who turns without waiting stops everybody.
    config.variable("MILLPOND__WORKERS", "1").pool(more).start()
}

/// Answers PING as often as it is asked, and everything else by `answer`.
fn replies(mut connection: Connection, answer: &[u8]) {
    let mut asked = [0; 65536];
    while let Ok(count) = connection.socket.receive(&mut asked) {
        let pings = asked[..count].windows(4).filter(|it| it == b"ping").count();
        let reply = match pings {
            0 => answer.to_vec(),
            pings => b"+pong\r\n".repeat(pings),
        };
        if !connection.write(reply) || pings == 0 {
            return;
        }
    }
}

#[test]
fn a_reply_that_is_cut_short_ends_its_client_and_nothing_is_said_inside_it() {
    let service = Service::start(|connection| replies(connection, b"$100\r\nabcdef"));
    let proxy = front(&service, "min_idle = 0");
    let mut client = Client::dial(proxy.address());
    client.send(&["GET", "key"]);
    let mut bytes = Vec::new();
    let mut room = [0; 1024];
    let mut socket = client.socket().duplicate();
    while let Ok(count) = socket.receive(&mut room) {
        bytes.extend_from_slice(&room[..count]);
    }
    assert_eq!(String::from_utf8_lossy(&bytes), "$100\r\nabcdef");
    drop((client, socket));
    proxy.finish();
}

/// It takes bytes into its kernel's buffers, and no more.
#[test]
fn a_service_that_does_not_read_stops_nobody_else() {
    let (over, ended) = std::sync::mpsc::channel::<()>();
    let ended = std::sync::Mutex::new(ended);
    let service = Service::start(move |_connection| {
        // Until the test is over.
        let _ = ended.lock().unwrap().recv();
    });
    let proxy = front(&service, "min_idle = 0");
    let value = vec![b'v'; 40_000];
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let mut client = Client::dial(proxy.address());
            let _ = client.try_send_bytes(command(&[&b"SET"[..], b"key", &value]).repeat(3));
            client
        })
        .collect();
    for _ in 0..5 {
        proxy.wait_listener("sessions/open", 40);
    }
    drop((clients, over));
    proxy.wait_listener("sessions/terminated", 40);
    proxy.finish();
}

#[test]
fn who_finds_no_room_on_a_connection_waits_for_it() {
    let service = Service::start(|mut connection| {
        let mut asked = [0; 65536];
        while connection.socket.receive(&mut asked).is_ok() {}
    });
    let proxy = front(&service, "min_idle = 0");
    let mut many = Client::dial(proxy.address());
    many.send_bytes(command(&["GET", "key"]).repeat(17_000));
    proxy.wait_until("as many are owed as may be", |now| {
        now.listener("sessions/open") == 1
    });
    let mut other = Client::dial(proxy.address());
    other.send(&["GET", "key"]);
    for _ in 0..5 {
        assert_eq!(proxy.snapshot().listener("sessions/terminated"), 0);
    }
    many.reset();
    other.reset();
    proxy.wait_listener("sessions/terminated", 2);
    proxy.finish();
}

#[test]
fn a_connection_that_has_carried_enough_is_followed_by_another() {
    let redis = Redis::start();
    let config = Config::to(&redis.address().to_string()).protocol("redis");
    let config = config.variable("MILLPOND__WORKERS", "1").pool("size = 4");
    let proxy = config.pool("shared = 1").pool("max_exchanges = 3").start();
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let address = proxy.address();
            std::thread::spawn(move || {
                let mut client = Client::dial(address);
                for turn in 0..100 {
                    let word = format!("{number}:{turn}");
                    let echo = ["EVAL", "return ARGV[1]", "0", &word];
                    assert_eq!(client.ask(&echo), Reply::bulk(&word));
                }
                client.leave();
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert!(proxy.snapshot().upstream("discards/max_exchanges") > 5);
    finish(proxy, &redis);
}

#[test]
fn a_subscriber_whose_connection_dies_is_told() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut subscriber = Client::dial(proxy.address());
    subscriber.ask(&["SUBSCRIBE", "channel"]);
    let mut watcher = Client::dial(proxy.address());
    assert_eq!(watcher.ask(&["WATCH", "key"]), Reply::ok());
    redis.kill();
    subscriber.expect_fin();
    watcher.expect_fin();
    redis.run();
    let mut client = Client::dial(proxy.address());
    crate::support::wait::until("Redis answers again", || {
        (client.ask(&["GET", "key"]) == Reply::Null).then_some(())
    });
    client.leave();
    finish(proxy, &redis);
}

/// Its commands are written in lines, and together they fill more than one buffer.
#[test]
fn many_commands_in_lines_are_each_answered() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut client = Client::dial(proxy.address());
    client.send_bytes("PING\r\n".repeat(6000));
    for _ in 0..6000 {
        assert_eq!(client.read(), Reply::simple("PONG"));
    }
    client.leave();
    finish(proxy, &redis);
}

/// MULTI is refused for its argument, so that what follows is executed at once: it must not wait where
/// others are served.
#[test]
fn a_wait_in_a_transaction_that_is_refused_holds_nobody_up() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut waits = Client::dial(proxy.address());
    let all = [
        command(&["MULTI", "x"]),
        command(&["BLPOP", "none", "0"]),
        command(&["EXEC"]),
    ];
    waits.send_bytes(all.concat());
    assert!(waits.read().is_error());
    let mut other = Client::dial(proxy.address());
    for _ in 0..20 {
        assert_eq!(other.ask(&["GET", "key"]), Reply::Null);
    }
    other.leave();
    drop(waits);
    finish(proxy, &redis);
}

#[test]
fn a_command_that_was_not_written_is_not_refused_because_others_have_the_shared_connection() {
    let redis = Redis::start();
    let proxy = Config::to(&redis.address().to_string())
        .protocol("redis")
        .pool("size = 16")
        .pool("max_exchanges = 3")
        .start();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let address = proxy.address();
            scope.spawn(move || {
                let mut client = Client::dial(address);
                if number % 2 == 1 {
                    assert_eq!(client.ask(&["SELECT", "1"]), Reply::ok());
                }
                for round in 0..300 {
                    let reply = client.ask(&["GET", "absent"]);
                    assert_eq!(reply, Reply::Null, "client {number}, round {round}");
                }
                client.leave();
            });
        }
    });
    assert_eq!(proxy.snapshot().sum("/listeners/front/refusals"), 0);
    proxy.finish();
}

#[test]
fn over_a_unix_socket_a_reply_is_not_taken_for_another_because_more_was_asked_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let gate = Gate::new();
    let held = gate.clone();
    let get = |key: &str| command(&["GET", key]);
    let length = get("a").len();
    let service = Service::start_unix(&path, move |mut connection| {
        while let Ok(request) = connection.exactly(length) {
            let is_first = request.ends_with(b"a\r\n");
            connection.count_request();
            if is_first {
                held.pass();
            }
            connection.write(format!(
                "+{}\r\n",
                if is_first { "first" } else { "second" }
            ));
        }
    });
    let proxy = Config::to(service.address())
        .protocol("redis")
        .pool("shared = 1")
        .start();
    for round in 1..=20 {
        let mut first = Client::dial(proxy.address());
        first.send_bytes(get("a"));
        service.wait_requests(2 * round - 1);
        let mut second = Client::dial(proxy.address());
        second.send_bytes(get("b"));
        proxy.wait_until("both are owed a reply", |now| {
            now.number("/upstreams/service/links/0/owed") == 2
        });
        gate.open();
        assert_eq!(first.read(), Reply::simple("first"), "round {round}");
        assert_eq!(second.read(), Reply::simple("second"), "round {round}");
        first.leave();
        second.leave();
    }
    assert_eq!(proxy.snapshot().sum("/upstreams/service/discards"), 0);
    proxy.finish();
}
