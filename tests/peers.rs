//! millpond between programs that people really use.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::process::Command;

use support::message::pattern;
use support::nginx::{Nginx, free_address};
use support::process::{Process, run};
use support::proxy::{Config, Proxy};
use support::socket::Socket;
use support::wait;

/// nginx with files of several sizes, and millpond in front of it.
fn nginx_with_files() -> (Nginx, Proxy) {
    let server = "root ROOT; location = /gone { return 404 'gone'; } location /echo/ { dav_methods PUT DELETE; create_full_put_path on; }";
    let nginx = Nginx::start("127.0.0.1", server);
    for size in [0, 1, 1000, 100_000, 5_000_000] {
        std::fs::write(
            nginx.root().join(size.to_string()),
            pattern(size, size as usize),
        )
        .unwrap();
    }
    let proxy = Config::to(&nginx.address().to_string()).start();
    (nginx, proxy)
}

fn curl(proxy: &Proxy, target: &str, more: &[&str]) -> String {
    let url = format!("http://{}{target}", proxy.address());
    let arguments = [
        &["--silent", "--show-error", "--max-time", "30"],
        more,
        &[&url],
    ]
    .concat();
    run("curl", &arguments)
}

#[test]
fn curl_and_nginx() {
    let (_nginx, proxy) = nginx_with_files();
    for size in [0, 1, 1000, 100_000, 5_000_000] {
        let body = curl(&proxy, &format!("/{size}"), &["--fail"]);
        assert!(
            body.as_bytes() == pattern(size, size as usize),
            "{size} bytes"
        );
        let old = curl(&proxy, &format!("/{size}"), &["--fail", "--http1.0"]);
        assert!(
            old.as_bytes() == pattern(size, size as usize),
            "{size} bytes for HTTP/1.0"
        );
    }
    assert_eq!(
        curl(&proxy, "/gone", &["--write-out", "%{http_code}"]),
        "gone404"
    );
    let head = curl(&proxy, "/1000", &["--head"]);
    assert!(
        head.contains("Content-Length: 1000") && head.contains("Server: nginx"),
        "{head}"
    );
    let range = curl(&proxy, "/1000", &["--range", "10-19"]);
    assert_eq!(range.as_bytes(), &pattern(1000, 1000)[10..20]);
    proxy.finish();
}

#[test]
fn curl_uploads_with_expect_and_chunked() {
    let (nginx, proxy) = nginx_with_files();
    let file = proxy.directory().join("upload");
    std::fs::write(&file, pattern(9, 3_000_000)).unwrap();
    let path = file.to_string_lossy();
    let ways: [&[&str]; 3] = [
        &["--header", "Expect: 100-continue"],
        &["--header", "Transfer-Encoding: chunked"],
        &["--header", "Expect:"],
    ];
    for (number, way) in ways.iter().enumerate() {
        let target = format!("/echo/{number}");
        let more = [&["--fail", "--upload-file", &path], *way].concat();
        curl(&proxy, &target, &more);
        let stored = std::fs::read(nginx.root().join(&target[1..])).unwrap();
        assert!(stored == pattern(9, 3_000_000), "{way:?}");
    }
    proxy.finish();
}

#[test]
fn curl_reuses_its_connection() {
    let (_nginx, proxy) = nginx_with_files();
    let url = format!("http://{}/1000", proxy.address());
    let connects = run(
        "curl",
        &[
            "-s",
            "-w",
            "%{num_connects} ",
            "-o",
            "/dev/null",
            &url,
            "-o",
            "/dev/null",
            &url,
            "-o",
            "/dev/null",
            &url,
        ],
    );
    assert_eq!(connects, "1 0 0 ");
    assert_eq!(
        proxy
            .wait_listener("sessions/terminated", 1)
            .listener("sessions/opened"),
        1
    );
    proxy.finish();
}

#[test]
fn ab_with_and_without_keep_alive() {
    let (_nginx, proxy) = nginx_with_files();
    for way in [["-k"].as_slice(), &[]] {
        let url = format!("http://{}/1000", proxy.address());
        let said = run("ab", &[way, &["-n", "3000", "-c", "20", &url]].concat());
        assert!(said.contains("Complete requests:      3000"), "{said}");
        assert!(said.contains("Failed requests:        0"), "{said}");
        assert!(!said.contains("Non-2xx"), "{said}");
    }
    let now = proxy.snapshot();
    assert_eq!(now.sum("/listeners/front/refusals"), 0);
    assert!(now.upstream("connections/opened") <= 20 + now.upstream("discards/service_close"));
    assert_eq!(now.resets_sent(), 0);
    proxy.finish();
}

#[test]
fn wrk_sees_no_error() {
    let (_nginx, proxy) = nginx_with_files();
    for size in ["1", "100000"] {
        let url = format!("http://{}/{size}", proxy.address());
        let said = run("wrk", &["-t2", "-c32", "-d2s", &url]);
        assert!(said.contains("Requests/sec"), "{said}");
        assert!(
            !said.contains("Socket errors") && !said.contains("Non-2xx"),
            "{said}"
        );
    }
    // wrk leaves in the middle of its last responses.
    assert!(proxy.snapshot().upstream("exchanges/completed") > 1000);
    proxy.finish();
}

#[test]
fn pythons_http_server_and_a_rust_client() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), pattern(3, 70_000)).unwrap();
    let address = free_address("127.0.0.1");
    let port = address.port().to_string();
    let mut command = Command::new("python3");
    command.args([
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--protocol",
        "HTTP/1.1",
        "--directory",
    ]);
    command.arg(directory.path()).arg(&port);
    let _server = Process::start(&mut command);
    wait::until("http.server listens", || Socket::try_dial(address).ok());
    let proxy = Config::to(&address.to_string()).start();
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("http://{}/file", proxy.address());
    for _ in 0..50 {
        let mut response = agent.get(&url).call().unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.body_mut().read_to_vec().unwrap() == pattern(3, 70_000));
    }
    let missing = agent.get(format!("{url}/no")).call();
    assert!(
        matches!(missing, Err(ureq::Error::StatusCode(404))),
        "{missing:?}"
    );
    drop(agent);
    proxy.wait_completed(51);
    proxy.finish();
}

#[test]
fn pythons_http_1_0_server_closes_after_each_answer() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), pattern(3, 70_000)).unwrap();
    let address = free_address("127.0.0.1");
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
    command
        .arg(directory.path())
        .arg(address.port().to_string());
    let _server = Process::start(&mut command);
    wait::until("http.server listens", || Socket::try_dial(address).ok());
    let proxy = Config::to(&address.to_string()).start();
    for _ in 0..20 {
        assert!(curl(&proxy, "/file", &["--fail"]).as_bytes() == pattern(3, 70_000));
    }
    let now = proxy.wait_upstream("connections/open", 0);
    assert_eq!(now.upstream("discards/service_close"), 20);
    proxy.wait_completed(20);
    proxy.finish();
}
