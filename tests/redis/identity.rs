//! What a client says about its connection is about its own, though it has none at Redis: database,
//! user, protocol version, name.

use crate::client::{Client, Reply};
use crate::server::Redis;
use crate::{finish, in_front_of};

#[test]
fn clients_in_different_databases_take_turns() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut clients: Vec<_> = (0..8).map(|_| Client::dial(proxy.address())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask(&["SELECT", &number.to_string()]), Reply::ok());
    }
    for turn in 0..20 {
        for (number, client) in clients.iter_mut().enumerate() {
            let value = format!("{number}-{turn}");
            assert_eq!(client.ask(&["SET", "key", &value]), Reply::ok());
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let value = format!("{number}-{turn}");
            assert_eq!(client.ask(&["GET", "key"]), Reply::bulk(value));
        }
    }
    let mut straight = redis.witness();
    for number in 0..8 {
        straight.ask(&["SELECT", &number.to_string()]);
        assert_eq!(straight.ask(&["DBSIZE"]), Reply::Integer(1), "{number}");
    }
    // A pipeline that goes through several: each command is for the one selected before it.
    let mut client = clients.remove(0);
    for number in 0..8 {
        client.send(&["SELECT", &number.to_string()]);
        client.send(&["GET", "key"]);
    }
    for number in 0..8 {
        assert_eq!(client.read(), Reply::ok());
        assert_eq!(client.read(), Reply::bulk(format!("{number}-19")));
    }
    assert!(client.ask(&["SELECT", "none"]).is_error());
    assert!(client.ask(&["SELECT", "16"]).is_error());
    assert_eq!(client.ask(&["GET", "key"]), Reply::bulk("7-19"));
    client.leave();
    drop(clients);
    finish(proxy, &redis);
}

#[test]
fn a_transaction_and_a_wait_are_in_the_clients_database() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut client = Client::dial(proxy.address());
    client.ask(&["SELECT", "5"]);
    for words in [
        &["MULTI"][..],
        &["SET", "key", "five"],
        &["LPUSH", "list", "x"],
    ] {
        client.ask(words);
    }
    assert!(matches!(client.ask(&["EXEC"]), Reply::Array(all) if all.len() == 2));
    let popped = client.ask(&["BLPOP", "list", "5"]);
    assert_eq!(popped, Reply::bulks(&["list", "x"]));
    let mut other = Client::dial(proxy.address());
    assert_eq!(other.ask(&["GET", "key"]), Reply::Null);
    assert_eq!(client.ask(&["GET", "key"]), Reply::bulk("five"));
    // A SELECT inside a transaction holds after it.
    for words in [&["MULTI"][..], &["SELECT", "6"], &["SET", "key", "six"]] {
        client.ask(words);
    }
    if client.ask(&["EXEC"]).is_error() {
        client = Client::dial(proxy.address());
        client.ask(&["SELECT", "6"]);
        client.ask(&["SET", "key", "six"]);
    }
    assert_eq!(client.ask(&["GET", "key"]), Reply::bulk("six"));
    assert_eq!(other.ask(&["GET", "key"]), Reply::Null);
    client.leave();
    other.leave();
    finish(proxy, &redis);
}

#[test]
fn reset_makes_a_client_as_it_was_at_first() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut client = Client::dial(proxy.address());
    client.ask(&["SET", "key", "zero"]);
    client.ask(&["SELECT", "4"]);
    client.ask(&["CLIENT", "SETNAME", "four"]);
    client.ask(&["HELLO", "3"]);
    client.ask(&["WATCH", "key"]);
    client.ask(&["MULTI"]);
    assert_eq!(client.ask(&["RESET"]), Reply::simple("RESET"));
    assert_eq!(client.ask(&["GET", "key"]), Reply::bulk("zero"));
    assert_eq!(client.ask(&["GET", "absent"]), Reply::Null);
    assert!(matches!(
        client.ask(&["CLIENT", "GETNAME"]),
        Reply::Null | Reply::Bulk(_)
    ));
    assert!(client.ask(&["EXEC"]).is_error());
    client.leave();
    finish(proxy, &redis);
}

#[test]
fn each_client_has_the_protocol_version_that_it_asked_for() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let (mut old, mut new) = (Client::dial(proxy.address()), Client::dial(proxy.address()));
    let Reply::Map(hello) = new.ask(&["HELLO", "3", "SETNAME", "new"]) else {
        panic!("HELLO 3 is answered by a map");
    };
    let said = |key: &str| hello.iter().find(|(name, _)| *name == Reply::bulk(key));
    assert_eq!(said("server").unwrap().1, Reply::bulk("redis"));
    assert_eq!(said("proto").unwrap().1, Reply::Integer(3));
    old.ask(&["HSET", "hash", "a", "1"]);
    for _ in 0..20 {
        let pair = (Reply::bulk("a"), Reply::bulk("1"));
        assert_eq!(new.ask(&["HGETALL", "hash"]), Reply::Map(vec![pair]));
        assert_eq!(old.ask(&["HGETALL", "hash"]), Reply::bulks(&["a", "1"]));
    }
    assert_eq!(new.ask(&["CLIENT", "GETNAME"]), Reply::bulk("new"));
    // Clients look at the first word to see what they talk to.
    assert!(new.ask(&["HELLO", "4"]).error().starts_with("NOPROTO"));
    assert!(old.ask(&["HELLO", "x"]).is_error());
    assert!(matches!(new.ask(&["HELLO", "2"]), Reply::Array(_)));
    assert_eq!(new.ask(&["HGETALL", "hash"]), Reply::bulks(&["a", "1"]));
    old.leave();
    new.leave();
    finish(proxy, &redis);
}

/// Redis with two users beside the default one.
fn with_users(options: &[&str]) -> Redis {
    let redis = Redis::start_on("127.0.0.1", options);
    let mut straight = Client::dial(redis.address());
    if options.contains(&"--requirepass") {
        straight.ask(&["AUTH", "secret"]);
    }
    for user in ["alice", "bob"] {
        let (password, keys) = (format!(">{user}-secret"), format!("~{user}:*"));
        let words = [
            "ACL", "SETUSER", user, "on", &password, &keys, "&*", "+@all",
        ];
        assert_eq!(straight.ask(&words), Reply::ok());
    }
    redis
}

#[test]
fn users_take_turns_and_are_never_taken_for_each_other() {
    let redis = with_users(&[]);
    let proxy = in_front_of(&redis).start();
    let users = ["default", "alice", "bob", "alice", "default", "bob"];
    let mut clients = users.map(|user| {
        let mut client = Client::dial(proxy.address());
        if user != "default" {
            let password = format!("{user}-secret");
            assert_eq!(client.ask(&["AUTH", user, &password]), Reply::ok());
        }
        client
    });
    for turn in 0..20 {
        for (client, user) in clients.iter_mut().zip(users) {
            let (key, value) = (format!("{user}:key"), format!("{user}-{turn}"));
            assert_eq!(client.ask(&["ACL", "WHOAMI"]), Reply::bulk(user));
            assert_eq!(client.ask(&["SET", &key, &value]), Reply::ok());
            assert_eq!(client.ask(&["GET", &key]), Reply::bulk(&value));
            if user != "default" {
                let other = client.ask(&["GET", "another:key"]);
                assert!(other.error().starts_with("NOPERM"), "{other:?}");
            }
            client.ask(&["MULTI"]);
            client.ask(&["ACL", "WHOAMI"]);
            assert_eq!(client.ask(&["EXEC"]), Reply::bulks(&[user]));
        }
    }
    // A wrong password changes nothing.
    let [_, alice, ..] = &mut clients;
    let wrong = alice.ask(&["AUTH", "bob", "alice-secret"]);
    assert!(wrong.error().starts_with("WRONGPASS"), "{wrong:?}");
    assert_eq!(alice.ask(&["ACL", "WHOAMI"]), Reply::bulk("alice"));
    drop(clients);
    finish(proxy, &redis);
}

#[test]
fn who_has_not_said_the_password_gets_nothing() {
    let redis = with_users(&["--requirepass", "secret"]);
    let proxy = in_front_of(&redis).start();
    let mut knows = Client::dial(proxy.address());
    assert_eq!(knows.ask(&["AUTH", "secret"]), Reply::ok());
    assert_eq!(knows.ask(&["SET", "key", "value"]), Reply::ok());
    for _ in 0..20 {
        let mut stranger = Client::dial(proxy.address());
        assert!(stranger.ask(&["GET", "key"]).error().starts_with("NOAUTH"));
        assert!(stranger.ask(&["MULTI"]).is_error());
        assert!(stranger.ask(&["BLPOP", "list", "1"]).is_error());
        assert!(
            stranger
                .ask(&["AUTH", "wrong"])
                .error()
                .starts_with("WRONGPASS")
        );
        assert_eq!(knows.ask(&["GET", "key"]), Reply::bulk("value"));
        let mut late = stranger;
        let hello = late.ask(&["HELLO", "3", "AUTH", "default", "secret"]);
        assert!(matches!(hello, Reply::Map(_)), "{hello:?}");
        assert_eq!(late.ask(&["GET", "key"]), Reply::bulk("value"));
        late.leave();
    }
    knows.leave();
    proxy.finish();
}
