//! redis-cli and redis-benchmark, which know nothing of millpond.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::client::{Client, Reply, command};
use crate::server::Redis;
use crate::support::process::run;
use crate::{SIZE, finish, in_front_of};

fn cli(address: SocketAddr, words: &[&str]) -> String {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let said = run("redis-cli", &[&["-h", &host, "-p", &port], words].concat());
    said.trim_end().to_owned()
}

fn benchmark(address: SocketAddr, words: &[&str]) -> String {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let to = ["-h", &host, "-p", &port, "-q", "--csv", "-e"];
    let said = run("redis-benchmark", &[&to[..], words].concat());
    assert!(!said.contains("Error"), "{said}");
    said
}

/// Every test that was asked for has a row.
fn expect_rows(said: &str, tests: &[&str]) {
    for test in tests {
        let begin = format!("\"{test}");
        assert!(
            said.lines().any(|line| line.starts_with(&begin)),
            "{test}: {said}"
        );
    }
}

#[test]
fn redis_cli_asks_and_gets_its_answers() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let at = proxy.address();
    assert_eq!(cli(at, &["SET", "greeting", "hello"]), "OK");
    assert_eq!(cli(at, &["GET", "greeting"]), "hello");
    assert_eq!(cli(at, &["PING"]), "PONG");
    assert_eq!(cli(at, &["PING", "again"]), "again");
    assert_eq!(cli(at, &["-3", "GET", "greeting"]), "hello");
    assert_eq!(cli(at, &["-n", "3", "GET", "greeting"]), "");
    assert_eq!(cli(at, &["--scan"]), "greeting");
    assert_eq!(
        cli(at, &["EVAL", "return ARGV[1]", "0", "script"]),
        "script"
    );
    assert!(cli(at, &["INFO", "server"]).contains("redis_version"));
    assert!(cli(at, &["NOSUCH"]).starts_with("ERR unknown command"));
    assert_eq!(
        cli(at, &["-r", "100", "INCR", "count"]).lines().last(),
        Some("100")
    );
    finish(proxy, &redis);
}

#[test]
fn redis_cli_inserts_in_bulk() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut child = Command::new("redis-cli")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &proxy.address().port().to_string(),
            "--pipe",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    for number in 0..50_000 {
        let (key, value) = (format!("bulk:{number}"), number.to_string());
        pipe.write_all(&command(&["SET", &key, &value])).unwrap();
    }
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("errors: 0, replies: 50000"), "{said}");
    assert_eq!(cli(proxy.address(), &["DBSIZE"]), "50000");
    assert_eq!(cli(proxy.address(), &["GET", "bulk:49999"]), "49999");
    finish(proxy, &redis);
}

#[test]
fn a_person_at_telnet_is_understood() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut client = Client::dial(proxy.address());
    // An empty line is answered by nothing.
    client
        .send_bytes("PING\r\n\r\nSET greeting \"hello \\x41\"\r\nGET greeting\nECHO 'one two'\r\n");
    assert_eq!(client.read(), Reply::simple("PONG"));
    assert_eq!(client.read(), Reply::ok());
    assert_eq!(client.read(), Reply::bulk("hello A"));
    assert_eq!(client.read(), Reply::bulk("one two"));
    client.send_bytes("get greeting\r\n*2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\nquit\r\n");
    assert_eq!(client.read(), Reply::bulk("hello A"));
    assert_eq!(client.read(), Reply::bulk("hello A"));
    assert_eq!(client.read(), Reply::ok());
    client.expect_fin();
    finish(proxy, &redis);
}

#[test]
fn redis_benchmark_is_served_over_few_connections() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let before = redis.info("total_connections_received");
    let tests =
        "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset";
    let asked = ["-t", tests, "-n", "5000", "-c", "50", "-r", "1000"];
    let rows = [
        "PING_INLINE",
        "SET",
        "GET",
        "INCR",
        "HSET",
        "ZPOPMIN",
        "LRANGE_100",
        "MSET",
    ];
    expect_rows(&benchmark(proxy.address(), &asked), &rows);
    let pipelined = [&asked[..], &["-P", "16"]].concat();
    expect_rows(&benchmark(proxy.address(), &pipelined), &rows);
    let crowd = ["-t", "set,get", "-n", "20000", "-c", "500", "-d", "1000"];
    expect_rows(&benchmark(proxy.address(), &crowd), &["SET", "GET"]);
    let short = ["-t", "set,get", "-n", "3000", "-c", "50", "-k", "0"];
    expect_rows(&benchmark(proxy.address(), &short), &["SET", "GET"]);
    let connects = redis.info("total_connections_received") - before - 1;
    assert!(connects <= SIZE, "{connects} connects");
    // redis-benchmark itself leaves replies unread when it has seen enough.
    assert_eq!(proxy.snapshot().resets_sent(), 0);
    finish(proxy, &redis);
}
