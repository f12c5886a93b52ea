//! libmemcached's programs and pymemcache, which know nothing of millpond.

use std::path::Path;
use std::process::Command;

use crate::client::Client;
use crate::server::Memcached;
use crate::support::message::pattern;
use crate::support::process::{Process, run};
use crate::{SIZE, finish, in_front_of};

#[test]
fn the_programs_of_libmemcached() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let servers = format!("--servers={}", proxy.address());
    run("memcping", &[&servers]);
    let file = proxy.directory().join("copied");
    std::fs::write(&file, pattern(7, 300_000)).unwrap();
    run("memccp", &[&servers, &file.to_string_lossy()]);
    let back = proxy.directory().join("back");
    let to = format!("--file={}", back.display());
    run("memccat", &[&servers, &to, "copied"]);
    assert!(
        std::fs::read(&back).unwrap() == pattern(7, 300_000),
        "a foreign byte"
    );
    run("memcexist", &[&servers, "copied"]);
    run("memctouch", &[&servers, "--expire=100", "copied"]);
    assert!(run("memcstat", &[&servers]).contains("curr_items: 1"));
    run("memcrm", &[&servers, "copied"]);
    assert_eq!(Client::dial(proxy.address()).get("copied"), None);
    finish(proxy, &memcached);
}

/// libmemcached's own list of what a server must be capable of.
#[test]
fn it_is_capable_of_the_text_protocol() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let (host, port) = (
        proxy.address().ip().to_string(),
        proxy.address().port().to_string(),
    );
    let said = run("memccapable", &["-a", "-h", &host, "-p", &port]);
    assert!(
        !said.contains("[FAIL]") && said.contains("[pass]"),
        "{said}"
    );
    finish(proxy, &memcached);
}

#[test]
fn pymemcache_in_many_threads() {
    let memcached = Memcached::start();
    let proxy = in_front_of(&memcached).start();
    let before = memcached.statistic("total_connections");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libraries = root.join("target/memcached/python");
    assert!(
        libraries.join("pymemcache").exists(),
        "{} is missing, which the test needs: tests/run installs it",
        libraries.display()
    );
    let mut command = Command::new("/usr/bin/python3");
    command
        // It must leave nothing beside its source.
        .arg("-B")
        .arg(root.join("tests/memcached/calls.py"))
        .args([
            proxy.address().ip().to_string(),
            proxy.address().port().to_string(),
        ])
        .env("PYTHONPATH", libraries);
    let (status, said) = Process::start(&mut command).outcome();
    assert!(status.success(), "{status}\n{said}");
    let connects = memcached.statistic("total_connections") - before - 1;
    assert!(connects <= SIZE, "{connects} connects");
    proxy.snapshot().expect_no_resets();
    finish(proxy, &memcached);
}
