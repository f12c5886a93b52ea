//! Commands and what answers them, which is what memcached itself would say.

use crate::client::{Client, storage};
use crate::server::Memcached;
use crate::support::message::pattern;
use crate::{finish, in_front_of};

#[test]
fn storing_and_retrieving() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let mut client = Client::dial(proxy.address());
    assert_eq!(client.set("key", b"value"), "STORED");
    assert_eq!(client.get("key").unwrap(), b"value");
    assert_eq!(client.get("absent"), None);
    client.send(storage("add key 0 0", b"x", ""));
    assert_eq!(client.line(), "NOT_STORED");
    client.send(storage("append key 0 0", b" more", ""));
    assert_eq!(client.line(), "STORED");
    assert_eq!(client.get("key").unwrap(), b"value more");
    client.send(storage("replace absent 0 0", b"x", ""));
    assert_eq!(client.line(), "NOT_STORED");
    assert_eq!(client.set("count", b"41"), "STORED");
    assert_eq!(client.ask("incr count 1"), "42");
    assert_eq!(client.ask("decr count 2"), "40");
    assert_eq!(client.ask("incr absent 1"), "NOT_FOUND");
    assert!(client.ask("incr key 1").starts_with("CLIENT_ERROR"));
    assert_eq!(client.ask("touch count 100"), "TOUCHED");
    assert_eq!(client.ask("delete count"), "DELETED");
    assert_eq!(client.ask("delete count"), "NOT_FOUND");
    assert!(client.ask("version").starts_with("VERSION "));
    assert_eq!(client.ask("nonsense"), "ERROR");
    // Data that looks like replies and commands.
    let sly = b"END\r\nVALUE key 0 1\r\nset a 0 0 1\r\n";
    assert_eq!(client.set("sly", sly), "STORED");
    assert_eq!(client.get("sly").unwrap(), sly);
    assert_eq!(client.set("empty", b""), "STORED");
    assert_eq!(client.get("empty").unwrap(), b"");
    client.send("stats\r\n");
    while client.line() != "END" {}
    client.send("gat 100 key sly\r\n");
    assert_eq!(client.items().unwrap().len(), 2);
    client.send("quit\r\n");
    client.expect_fin();
    finish(proxy, &memcached);
}

#[test]
fn many_keys_at_once() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let mut client = Client::dial(proxy.address());
    for number in 0..500 {
        client.set(&format!("key:{number}"), &pattern(number, 100));
    }
    let keys: Vec<_> = (0..1000).map(|number| format!("key:{number}")).collect();
    for _ in 0..20 {
        client.send(format!("get {}\r\n", keys.join(" ")));
        let items = client.items().unwrap();
        assert_eq!(items.len(), 500);
        for (number, item) in (0..).zip(items) {
            assert_eq!(item.key, format!("key:{number}"));
            assert!(item.data == pattern(number, 100), "a foreign byte");
        }
    }
    client.leave();
    finish(proxy, &memcached);
}

#[test]
fn compare_and_swap_between_clients() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let address = proxy.address();
    Client::dial(address).set("sum", b"0");
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(move || {
                let mut client = Client::dial(address);
                let mut left = 30;
                while left > 0 {
                    client.send("gets sum\r\n");
                    let item = client.items().unwrap().remove(0);
                    let sum: u64 = String::from_utf8(item.data).unwrap().parse().unwrap();
                    let data = (sum + 1).to_string();
                    let cas = format!(" {}", item.cas.unwrap());
                    client.send(storage("cas sum 0 0", data.as_bytes(), &cas));
                    match client.line().as_str() {
                        "STORED" => left -= 1,
                        line => assert_eq!(line, "EXISTS"),
                    }
                }
                client.leave();
            });
        }
    });
    let sum = Client::dial(address).get("sum").unwrap();
    assert_eq!(sum, b"360", "each counts once");
    finish(proxy, &memcached);
}

#[test]
fn what_asks_for_silence_gets_it() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let mut client = Client::dial(proxy.address());
    for turn in 0..100 {
        let value = format!("value {turn}");
        let mut bytes = storage("set quiet 0 0", value.as_bytes(), " noreply");
        bytes.extend(storage("set count 0 0", b"1", " noreply"));
        bytes.extend(
            b"incr count 4 noreply\r\ntouch count 100 noreply\r\ndelete absent noreply\r\n",
        );
        bytes.extend(b"get quiet count\r\n");
        client.send(bytes);
        let items = client.items().unwrap();
        let found: Vec<_> = items.iter().map(|item| item.data.as_slice()).collect();
        assert_eq!(found, [value.as_bytes(), b"5"]);
    }
    client.send("mg absent v q\r\nmg quiet v q k\r\nms other 3 q\r\nabc\r\nms gone 1 q\r\nx\r\nmd gone q\r\nmn\r\n");
    assert_eq!(client.line(), "VA 8 kquiet");
    assert_eq!(client.exactly(10), b"value 99\r\n");
    assert_eq!(client.line(), "MN");
    assert_eq!(client.ask("mg other O123 t"), "HD O123 t-1");
    assert_eq!(client.ask("md other O7"), "HD O7");
    assert_eq!(client.ask("mg other O8 v"), "EN O8");
    client.leave();
    finish(proxy, &memcached);
}

#[test]
fn an_error_is_for_the_client_that_made_it() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let mut witness = Client::dial(proxy.address());
    witness.set("there", b"yes");
    let wrong = [
        "get\r\n".to_owned(),
        "set key 0 0 none\r\n".to_owned(),
        format!("get {}\r\n", "k".repeat(300)),
        "incr there\r\n".to_owned(),
        "nonsense\r\n".to_owned(),
    ];
    for bytes in wrong {
        let mut client = Client::dial(proxy.address());
        client.send(&bytes);
        if let Ok(line) = client.try_line() {
            assert!(crate::client::is_error(&line), "{bytes:?}: {line}");
        }
        assert_eq!(witness.get("there").unwrap(), b"yes", "{bytes:?}");
    }
    // The binary protocol, and another one altogether.
    for bytes in [
        &b"\x80\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x03"[..],
        b"\x16\x03\x01\r\n",
    ] {
        let mut client = Client::dial(proxy.address());
        client.send(bytes);
        drop(client);
        assert_eq!(witness.get("there").unwrap(), b"yes");
    }
    witness.leave();
    finish(proxy, &memcached);
}

#[test]
fn large_items_pass_both_ways_beside_small_ones() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let (mut client, mut other) = (Client::dial(proxy.address()), Client::dial(proxy.address()));
    let data = pattern(5, 20 << 20);
    for _ in 0..2 {
        assert_eq!(client.set("large", &data), "STORED");
        assert!(client.get("large").unwrap() == data, "a foreign byte");
        other.set("small", b"small");
        assert_eq!(other.get("small").unwrap(), b"small");
    }
    // It is answered before it has come whole, and nothing of it is taken for a command.
    let too_large = storage("set huge 0 0", &pattern(6, 40 << 20), "");
    let _ = client.try_send(too_large);
    if let Ok(line) = client.try_line() {
        assert!(line.starts_with("SERVER_ERROR"), "{line}");
    }
    assert_eq!(other.get("small").unwrap(), b"small");
    assert_eq!(other.get("huge"), None);
    drop((client, other));
    finish(proxy, &memcached);
}
