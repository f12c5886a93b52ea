//! HTTP/1.x through millpond, between a raw client and a scripted service.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use support::client::{self, Client};
use support::message::{Head, chunked, pattern};
use support::proxy::Config;
use support::socket::End;
use support::upstream::Service;
use support::wait::{self, Gate};
use tokio_tungstenite::tungstenite::Message as Frame;

/// A service that answers every request with these bytes.
fn answering(bytes: impl AsRef<[u8]>) -> Service {
    let bytes = bytes.as_ref().to_vec();
    Service::start(move |mut connection| {
        while connection.request().is_some() {
            connection.write(&bytes);
        }
    })
}

/// A service that answers every request with the request's own head.
fn reflecting() -> Service {
    Service::replying(|request| {
        let fields = request
            .head
            .fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        format!("{}\r\n{}", request.head.start, fields.collect::<String>()).into_bytes()
    })
}

#[test]
fn requests_of_one_client_reuse_one_upstream_connection() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    for number in 0..20 {
        assert_eq!(
            client.get(&format!("/{number}")).text(),
            format!("/{number}")
        );
    }
    drop(client);
    assert_eq!(service.accepted(), 1);
    proxy.wait_completed(20);
    assert_eq!(proxy.snapshot().upstream("lent"), 20);
    proxy.finish();
}

#[test]
fn clients_one_after_another_share_one_upstream_connection() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).start();
    for number in 0..20 {
        let target = format!("/{number}");
        assert_eq!(
            client::once(proxy.address(), &target).unwrap().text(),
            target
        );
    }
    assert_eq!(
        service.accepted(),
        1,
        "the client's Connection: close is its own affair"
    );
    proxy.finish();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    let requests: Vec<u8> = (0..50)
        .flat_map(|number| match number % 2 {
            0 => client::get(&format!("/{number}")).into_bytes(),
            _ => client::post(&format!("/{number}"), &pattern(number, 300)),
        })
        .collect();
    client.send(requests);
    for number in 0..50 {
        assert_eq!(client.read("GET").text(), format!("/{number}"));
    }
    drop(client);
    proxy.finish();
}

#[test]
fn a_chunked_request_arrives_with_its_trailers() {
    let service = Service::replying(|request| {
        assert_eq!(
            request.trailers,
            [("X-Checksum".to_owned(), "17".to_owned())]
        );
        request.body.clone()
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    let body = pattern(1, 100_000);
    for size in [1, 7, 4096, 100_000] {
        let size = size.max(body.len() / 2000);
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(chunked(&body, size, "X-Checksum: 17\r\n"));
        assert!(client.read("PUT").body == body, "chunks of {size}");
    }
    drop(client);
    proxy.finish();
}

#[test]
fn a_chunked_response_arrives_with_its_trailers() {
    let body = pattern(2, 50_000);
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    bytes.extend(chunked(&body, 777, "X-Checksum: 18\r\n"));
    let service = answering(bytes);
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert!(response.body == body);
        assert_eq!(
            response.trailers,
            [("X-Checksum".to_owned(), "18".to_owned())]
        );
    }
    drop(client);
    assert_eq!(service.accepted(), 1);
    proxy.finish();
}

#[test]
fn responses_without_a_body_leave_the_connection_at_a_boundary() {
    let service = Service::start(|mut connection| {
        while let Some(request) = connection.request() {
            connection.write(match request.head.target() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n",
                "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
                "/head-chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
            });
        }
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    for (method, target, status) in [
        ("GET", "/204", 204),
        ("GET", "/304", 304),
        ("HEAD", "/head", 200),
        ("HEAD", "/head-chunked", 200),
    ] {
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.read(method).status(), status, "{target}");
        assert_eq!(client.get("/").text(), "body", "after {target}");
    }
    drop(client);
    assert_eq!(service.accepted(), 1);
    proxy.finish();
}

#[test]
fn interim_responses_come_before_the_final_one() {
    let service = answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal",
    );
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    client.send(client::get("/"));
    assert_eq!(client.read("GET").head.field("link"), Some("</a>"));
    assert_eq!(client.read("GET").status(), 102);
    assert_eq!(client.read("GET").text(), "final");
    // RFC 9110 15.2: no interim response for an HTTP/1.0 client.
    let mut old = proxy.client();
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.read("GET").text(), "final");
    drop((client, old));
    proxy.finish();
}

#[test]
fn expect_100_continue_goes_through_in_both_directions() {
    let service = Service::start(|mut connection| {
        while let Ok(head) = connection.head() {
            assert_eq!(head.field("expect"), Some("100-continue"));
            connection.write("HTTP/1.1 100 Continue\r\n\r\n");
            let request = connection.request_body(head).unwrap();
            connection.reply(request.body);
        }
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    for _ in 0..2 {
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        );
        assert_eq!(client.read("POST").status(), 100);
        client.send("hello");
        assert_eq!(client.read("POST").text(), "hello");
    }
    drop(client);
    assert_eq!(service.accepted(), 1);
    proxy.finish();
}

#[test]
fn a_final_status_instead_of_100_continue_reaches_the_client() {
    let service = Service::start(|mut connection| {
        if connection.head().is_ok() {
            connection.write("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
            connection.wait_for_end();
        }
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let response = client.read("POST");
    assert_eq!((response.status(), response.text().as_str()), (401, "no"));
    drop(client);
    // The body was never sent: the service's connection is not at a boundary.
    proxy.wait_until("nothing is idle or lent", |now| {
        now.endpoint("idle") + now.endpoint("leased") == 0
    });
    assert_eq!(proxy.snapshot().sum("/upstreams/service/discards"), 1);
    proxy.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_goes_through_and_is_pinned_for_life() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(frame)) = socket.next().await {
            if frame.is_text() || frame.is_binary() {
                socket.send(frame).await.unwrap();
            }
        }
    });
    let proxy = tokio::task::spawn_blocking(move || Config::to(&address).start())
        .await
        .unwrap();
    let url = format!("ws://{}/chat", proxy.address());
    let (mut socket, response) = tokio_tungstenite::connect_async(url).await.unwrap();
    assert_eq!(response.status(), 101);
    for size in [1_u64, 125, 126, 70_000, 1_000_000] {
        let frame = Frame::binary(pattern(size, size as usize));
        socket.send(frame.clone()).await.unwrap();
        assert!(
            socket.next().await.unwrap().unwrap() == frame,
            "{size} bytes"
        );
    }
    assert_eq!(proxy.snapshot().upstream("exchanges/pinned"), 1);
    assert_eq!(proxy.snapshot().endpoint("leased"), 1);
    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
    drop(socket);
    service.await.unwrap();
    tokio::task::spawn_blocking(move || {
        proxy.wait_upstream("discards/service_end", 1);
        proxy.finish();
    })
    .await
    .unwrap();
}

#[test]
fn a_tunnel_carries_a_half_close_in_both_directions() {
    let service = Service::start(|mut connection| {
        connection.head().unwrap();
        connection.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n",
        );
        let (sent, end) = connection.until_end();
        assert_eq!(end, End::Fin, "the client's half-close arrives as a FIN");
        connection.write([b"after the FIN: ", sent.as_slice()].concat());
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\nearly ");
    let head = client.head().unwrap();
    assert_eq!((head.status(), head.field("upgrade")), (101, Some("raw")));
    client.send("bytes");
    client.socket.half_close();
    let (rest, end) = client.end();
    assert_eq!(
        (String::from_utf8(rest).unwrap().as_str(), end),
        ("after the FIN: early bytes", End::Fin)
    );
    drop(client);
    proxy.finish();
}

#[test]
fn an_upgrade_that_is_declined_leaves_an_ordinary_connection() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n");
    assert_eq!(client.read("GET").text(), "/a");
    assert_eq!(client.get("/b").text(), "/b");
    drop(client);
    assert_eq!(service.accepted(), 1);
    assert_eq!(proxy.snapshot().upstream("exchanges/pinned"), 0);
    proxy.finish();
}

#[test]
fn an_http_1_0_client_is_closed_after_its_answer() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).start();
    for _ in 0..3 {
        let mut client = proxy.client();
        client.send("GET /old HTTP/1.0\r\n\r\n");
        assert_eq!(client.read("GET").text(), "/old");
        client.expect_fin();
    }
    assert_eq!(
        service.accepted(),
        1,
        "its connection to the service lives on"
    );
    proxy.finish();
}

#[test]
fn an_http_1_0_client_can_ask_for_keep_alive() {
    let service = Service::echoing_targets();
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    for _ in 0..3 {
        client.send("GET /old HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let response = client.read("GET");
        assert_eq!(response.text(), "/old");
        assert_eq!(
            response
                .head
                .field("connection")
                .map(str::to_ascii_lowercase)
                .as_deref(),
            Some("keep-alive")
        );
    }
    drop(client);
    proxy.finish();
}

#[test]
fn an_http_1_0_client_never_sees_chunks() {
    let body = pattern(3, 9000);
    let expected = body.clone();
    let service = Service::start(move |mut connection| {
        let Some(request) = connection.request() else {
            return;
        };
        if request.head.start.ends_with("HTTP/1.1") {
            connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            connection.write(chunked(&body, 1000, ""));
            connection.wait_for_end();
        } else {
            connection.write("HTTP/1.0 200 OK\r\n\r\n");
            connection.write(&body);
        }
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let response = client.read("GET");
    assert_eq!(response.head.field("transfer-encoding"), None);
    assert!(response.body == expected);
    drop(client);
    proxy.finish();
}

#[test]
fn a_response_that_lasts_until_the_close_is_whole_and_its_connection_is_not_reused() {
    let body = pattern(4, 300_000);
    let expected = body.clone();
    let service = Service::start(move |mut connection| {
        if connection.request().is_some() {
            connection.write("HTTP/1.0 200 OK\r\n\r\n");
            connection.write(&body);
        }
    });
    let proxy = Config::to(service.address()).start();
    for _ in 0..3 {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        assert!(client.read("GET").body == expected);
        let mut client = proxy.client();
        client.send(client::last_get("/"));
        assert!(client.read("GET").body == expected);
    }
    assert_eq!(service.accepted(), 6);
    proxy.wait_upstream("discards/until_close", 6);
    proxy.wait_completed(6);
    proxy.finish();
}

#[test]
fn a_big_upload_is_streamed_and_never_held() {
    let body = pattern(5, 48 << 20);
    let expected = body.clone();
    let service =
        Service::replying(move |request| format!("{}", request.body == expected).into_bytes());
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    assert_eq!(client.get("/warm").text(), "false");
    let before = proxy.process().resident_max_kib();
    assert_eq!(client.post("/", &body).text(), "true");
    let grown = proxy.process().resident_max_kib() - before;
    assert!(
        grown < 4096,
        "millpond grew by {grown} KiB under an upload of 48 MiB"
    );
    drop(client);
    proxy.finish();
}

#[test]
fn a_client_that_does_not_read_stops_the_service_and_not_the_memory() {
    let written = Arc::new(AtomicU64::new(0));
    let total = 256_u64 << 20;
    let piece = pattern(6, 64 << 10);
    let service = Service::start({
        let (written, piece) = (Arc::clone(&written), piece.clone());
        move |mut connection| {
            if connection.request().is_none() {
                return;
            }
            connection.write(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n"
            ));
            while written.load(Ordering::SeqCst) < total && connection.write(&piece) {
                written.fetch_add(piece.len() as u64, Ordering::SeqCst);
            }
            connection.wait_for_end();
        }
    });
    let proxy = Config::to(service.address()).start();
    let before = proxy.process().resident_max_kib();
    let mut client = proxy.client();
    client.send(client::get("/"));
    assert_eq!(client.head().unwrap().status(), 200);
    // The service's writing comes to a halt, far from its end.
    let mut last = 0;
    wait::until("the service is held back", || {
        wait::pace(Duration::from_millis(200));
        let now = written.load(Ordering::SeqCst);
        (std::mem::replace(&mut last, now) == now && now > 0).then_some(())
    });
    assert!(
        last < total / 4,
        "{last} bytes were taken for a client that reads nothing"
    );
    let grown = proxy.process().resident_max_kib() - before;
    assert!(grown < 4096, "millpond grew by {grown} KiB");
    for _ in 0..total / piece.len() as u64 {
        assert!(client.exactly(piece.len()).unwrap() == piece);
    }
    drop(client);
    proxy.finish();
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let service = Service::start(|mut connection| {
        while let Some(request) = connection.request() {
            let names: Vec<&str> = request
                .head
                .fields
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            let body = names.join(",").to_ascii_lowercase();
            connection.write(format!(
                "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Inward\r\nKeep-Alive: timeout=5\r\n\
                 X-Inward: 1\r\nX-Outward: 2\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: keep-alive\r\nX-End: 2\r\nConnection: x-second\r\nX-Second: 3\r\n\r\n",
    );
    let response = client.read("GET");
    let text = response.text();
    let seen: Vec<&str> = text.split(',').collect();
    for name in ["x-hop", "x-second", "keep-alive", "proxy-connection"] {
        assert!(!seen.contains(&name), "{name} reached the service: {text}");
    }
    assert!(seen.contains(&"x-end") && seen.contains(&"host"), "{text}");
    assert_eq!(response.head.field("x-inward"), None);
    assert_eq!(response.head.field("keep-alive"), None);
    assert_eq!(response.head.field("x-outward"), Some("2"));
    drop(client);
    proxy.finish();
}

#[test]
fn forwarded_fields_name_the_client_and_can_be_switched_off() {
    let service = reflecting();
    let ask = |proxy: &support::proxy::Proxy, more: &str| {
        let mut client = proxy.client();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{more}Connection: close\r\n\r\n"
        ));
        Head::parse(&client.read("GET").text())
    };
    let proxy = Config::to(service.address()).start();
    let seen = ask(&proxy, "");
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    let seen = ask(&proxy, "X-Forwarded-For: 192.0.2.7\r\n");
    assert_eq!(
        seen.all("x-forwarded-for").join(", "),
        "192.0.2.7, 127.0.0.1"
    );
    proxy.finish();
    let proxy = Config::to(service.address())
        .http("forwarded = false")
        .start();
    let seen = ask(&proxy, "X-Forwarded-For: 192.0.2.7\r\n");
    assert_eq!(seen.all("x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(seen.field("x-forwarded-proto"), None);
    proxy.finish();
}

#[test]
fn everything_else_in_a_message_is_left_alone() {
    let service = answering(
        "HTTP/1.1 299 Odd But Fine\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: old/1\r\n\
         set-cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty:\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    let response = client.get("/");
    assert_eq!(response.head.start, "HTTP/1.1 299 Odd But Fine");
    assert_eq!(
        response.head.field("date"),
        Some("Thu, 01 Jan 1970 00:00:00 GMT")
    );
    assert_eq!(response.head.field("server"), Some("old/1"));
    assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(response.head.field("x-empty"), Some(""));
    drop(client);
    let reflecting = reflecting();
    let proxy = {
        proxy.finish();
        Config::to(reflecting.address()).start()
    };
    let mut client = proxy.client();
    client.send("PATCH /a?b=%20c&d HTTP/1.1\r\nHost: example.org:81\r\nUser-Agent: x\r\n\r\n");
    let seen = Head::parse(&client.read("PATCH").text());
    assert_eq!(seen.start, "PATCH /a?b=%20c&d HTTP/1.1");
    assert_eq!(seen.field("host"), Some("example.org:81"));
    assert_eq!(seen.field("user-agent"), Some("x"));
    drop(client);
    proxy.finish();
}

#[test]
fn bytes_that_trickle_in_make_the_same_exchange() {
    let service = Service::replying(|request| request.body.clone());
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    bytes.extend(chunked(b"piece by piece", 3, "X-T: 1\r\n"));
    for byte in bytes {
        client.send([byte]);
    }
    assert_eq!(client.read("POST").text(), "piece by piece");
    drop(client);
    proxy.finish();
}

#[test]
fn a_service_that_answers_before_the_request_is_complete_is_heard() {
    let service = Service::start(|mut connection| {
        if connection.head().is_ok() {
            connection.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
            connection.wait_for_end();
        }
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nthe first bytes");
    assert_eq!(client.read("POST").text(), "early");
    drop(client);
    proxy.wait_until("its connection is not reused", |now| {
        now.endpoint("idle") + now.endpoint("leased") == 0
    });
    assert_eq!(proxy.snapshot().sum("/upstreams/service/discards"), 1);
    proxy.finish();
}

#[test]
fn a_service_that_never_reads_is_given_up() {
    let gate = Gate::new();
    let service = Service::start({
        let gate = gate.clone();
        move |_connection| gate.pass()
    });
    let proxy = Config::to(service.address())
        .upstream("response_timeout = \"500ms\"")
        .start();
    let mut client = proxy.client();
    // More than the kernels' buffers take.
    let body = vec![b'x'; 32 << 20];
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut sender = Client::over(client.socket.duplicate());
    let sending = std::thread::spawn(move || {
        let _ = sender.try_send(head);
        let _ = sender.try_send(body);
    });
    assert_eq!(client.read("PUT").status(), 504);
    drop(client);
    let _ = sending.join();
    gate.open_for_all();
    assert_eq!(proxy.snapshot().listener("refusals/response_timeout"), 1);
    proxy.finish();
}
