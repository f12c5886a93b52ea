//! redis-py, as programs use it: each test is a case of `calls.py`.

use std::path::Path;
use std::process::Command;

use crate::server::Redis;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::{finish, in_front_of, leases};

/// Runs a case in front of an empty Redis.
fn case(name: &str) {
    with(name, |_| {}, |_| {});
}

fn with(name: &str, prepare: impl FnOnce(&Redis), look: impl FnOnce(&Proxy)) {
    let redis = Redis::start();
    prepare(&redis);
    let proxy = in_front_of(&redis).start();
    let address = proxy.address();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libraries = root.join("target/redis/python");
    assert!(
        libraries.join("redis").exists(),
        "{} is missing, which the test needs: tests/run installs it",
        libraries.display()
    );
    let mut command = Command::new("/usr/bin/python3");
    command
        // It must leave nothing beside its source.
        .arg("-B")
        .arg(root.join("tests/redis/calls.py"))
        .arg(name)
        .args([address.ip().to_string(), address.port().to_string()])
        .env("PYTHONPATH", libraries);
    let (status, said) = Process::start(&mut command).outcome();
    assert!(status.success(), "{name}: {status}\n{said}");
    look(&proxy);
    finish(proxy, &redis);
}

#[test]
fn commands_of_all_kinds() {
    case("sync");
}

#[test]
fn asyncio_with_calls_that_are_cancelled() {
    case("asynchronous");
}

#[test]
fn publish_and_subscribe() {
    with(
        "publish",
        |_| {},
        |proxy| {
            assert!(leases(proxy, "subscribe") > 0, "{}", proxy.metrics());
        },
    );
}

#[test]
fn pipelines() {
    case("pipelines");
}

#[test]
fn transactions_and_watch_loops() {
    with(
        "transactions",
        |_| {},
        |proxy| {
            assert!(leases(proxy, "watch") >= 200, "{}", proxy.metrics());
        },
    );
}

#[test]
fn calls_that_block() {
    with(
        "blocking",
        |_| {},
        |proxy| {
            assert!(leases(proxy, "blocking") > 0, "{}", proxy.metrics());
        },
    );
}

#[test]
fn resp3_beside_resp2() {
    case("resp3");
}

#[test]
fn databases_are_the_clients_own() {
    case("databases");
}

#[test]
fn names_and_ids_are_the_clients_own() {
    case("names");
}

#[test]
fn each_client_is_the_user_that_it_says() {
    let prepare = |redis: &Redis| {
        let mut witness = redis.witness();
        for user in ["alice", "bob"] {
            let (password, keys) = (format!(">{user}-secret"), format!("~{user}:*"));
            let words = [
                "ACL", "SETUSER", user, "on", &password, &keys, "&*", "+@all",
            ];
            witness.ask(&words);
        }
    };
    with("users", prepare, |_| {});
}

#[test]
fn scans() {
    case("scan");
}
