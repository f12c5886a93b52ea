//! PHP's phpredis, as pages use it: each is a process of its own, which connects and goes. What it does is a
//! case of `calls.php`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::client::Reply;
use crate::server::Redis;
use crate::short::Hosts;
use crate::support::process::Process;
use crate::{finish, in_front_of, leases};

/// Pages of a test, and how many of them side by side.
const PAGES: u64 = 60;
const AT_ONCE: usize = 8;

/// Runs one page to its end, which must be good.
fn page(case: &str, address: SocketAddr, number: u64) {
    let mut command = Command::new("php");
    command
        .args(["-d", "display_errors=stderr"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redis/calls.php"))
        .arg(case)
        .args([address.ip().to_string(), address.port().to_string()])
        .arg(number.to_string());
    let (status, said) = Process::start(&mut command).outcome();
    assert!(status.success(), "{case} {number}: {status}\n{said}");
}

#[test]
fn pages_cost_redis_no_connection_and_no_time_wait() {
    let hosts = Hosts::start();
    let address = hosts.proxy.address();
    hosts.churn(PAGES, AT_ONCE, |number| page("page", address, number));
    let mut straight = hosts.network.service.enter(|| hosts.redis.witness());
    let visits = straight.ask(&["GET", "visits"]);
    assert_eq!(visits, Reply::bulk(PAGES.to_string()));
    drop(straight);
    assert!(leases(&hosts.proxy, "watch") >= PAGES);
    // Each of them connects twice.
    hosts.finish(2 * PAGES);
}

#[test]
fn a_connection_that_php_keeps_is_the_same_client_to_its_end() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    page("persistent", proxy.address(), 7);
    let now = proxy.wait_listener("sessions/terminated", 1);
    assert_eq!(now.listener("sessions/opened"), 1);
    now.expect_no_resets();
    finish(proxy, &redis);
}

#[test]
fn pages_of_one_session_wait_for_each_other() {
    let hosts = Hosts::start();
    let address = hosts.proxy.address();
    hosts.churn(PAGES, AT_ONCE, |number| page("session", address, number));
    let mut straight = hosts.network.service.enter(|| hosts.redis.witness());
    let kept = straight.ask(&["GET", "PHPREDIS_SESSION:visitor"]).text();
    drop(straight);
    // PHP writes an array as its length and its pairs.
    assert!(kept.contains(&format!("a:{PAGES}:")), "{kept}");
    for number in 1..=PAGES {
        let page = format!("s:{}:\"{number}\";", number.to_string().len());
        assert_eq!(kept.matches(&page).count(), 1, "{number}: {kept}");
    }
    hosts.finish(PAGES);
}
