//! How connections end that carry HTTP.

use super::matrix::Protocol::Http;
use super::matrix::{Case, Scene, end, kernel_acknowledged, kernel_received, stuffed};
use crate::support::client;
use crate::support::message::pattern;
use crate::support::socket::End as Ended;
use crate::support::wait;

const HALF_POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n";
const LARGE_POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n";
const CHUNKED_POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const LAST_POST: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const UPGRADED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const MALFORMED: &str = "GARBAGE\r\n\r\n";

pub fn cases() -> Vec<Case> {
    [
        between_exchanges(),
        while_waiting(),
        inside_a_request(),
        inside_an_answer(),
        services_faults(),
        limits_of_time(),
        of_idle_connections(),
        while_closing(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn http(name: &str) -> Case {
    Case::new(Http, name).service(|mut connection, _| while connection.answer("fine") {})
}

fn between_exchanges() -> Vec<Case> {
    vec![
        http("a client comes and goes without a byte")
            .client(|scene| scene.client().leave())
            .session(end("DAF")),
        http("a client resets without a byte")
            .client(|scene| scene.client().reset())
            .session(end("DAR").received("accept").exchange(0)),
        http("a client leaves after an exchange, or asks that it be the last")
            .client(|scene| {
                let mut client = scene.client();
                client.get("/");
                client.leave();
                let mut client = scene.client();
                client.send(client::last_get("/"));
                client.read("GET");
                client.expect_fin();
            })
            .session(end("DIF").times(2)),
        http("a client resets between exchanges")
            .client(|scene| {
                let mut client = scene.client();
                client.get("/");
                client.get("/");
                client.socket.acknowledge();
                client.reset();
            })
            .session(end("DIR").received("idle").exchange(2)),
        http("a client is silent from the start")
            .with(|it| it.listener("idle_timeout = \"100ms\""))
            .client(|scene| scene.client().expect_fin())
            .session(end("MAO")),
        http("a client is silent after an exchange")
            .with(|it| it.listener("idle_timeout = \"100ms\""))
            .client(|scene| {
                let mut client = scene.client();
                client.get("/");
                client.expect_fin();
            })
            .session(end("MIO")),
    ]
}

/// One connection, which a first client keeps busy until the second gate opens.
fn crowded(name: &str) -> Case {
    http(name)
        .with(|it| it.pool("size = 1").pool("wait_queue = 1"))
        .service(|mut connection, stage| {
            let mut is_first = true;
            while connection.request().is_some() {
                if std::mem::take(&mut is_first) {
                    stage.second.pass();
                }
                connection.reply("fine");
            }
        })
}

/// Plays `others` while a first client has the one connection, which then leaves in order.
fn while_busy(scene: &Scene, others: impl FnOnce()) {
    let mut first = scene.client();
    first.send(client::get("/"));
    scene.service.wait_requests(1);
    others();
    scene.stage.second.open();
    first.read("GET");
    first.leave();
}

fn while_waiting() -> Vec<Case> {
    vec![
        crowded("a client ends inside its request while that waits")
            .client(|scene| {
                while_busy(scene, || {
                    let mut second = scene.client();
                    second.send(HALF_POST);
                    scene.proxy.wait_upstream("waiters", 1);
                    second.leave();
                });
            })
            .session(end("DQF"))
            .session(end("DIF")),
        crowded("a client resets while its request waits")
            .client(|scene| {
                while_busy(scene, || {
                    let mut second = scene.client();
                    second.send(client::get("/"));
                    scene.proxy.wait_upstream("waiters", 1);
                    second.reset();
                    scene.proxy.wait_listener("sessions/terminated", 1);
                });
            })
            .session(end("DQR").received("queue"))
            .session(end("DIF")),
        crowded("the queue is full")
            .client(|scene| {
                while_busy(scene, || {
                    let mut second = scene.client();
                    second.send(client::last_get("/"));
                    scene.proxy.wait_upstream("waiters", 1);
                    let mut third = scene.client();
                    third.send(client::last_get("/"));
                    assert_eq!(third.read("GET").status(), 503);
                    third.expect_fin();
                    scene.stage.second.open();
                    second.read("GET");
                    second.expect_fin();
                });
            })
            .session(end("MQL"))
            .session(end("DIF").times(2)),
        crowded("no connection comes free in time")
            .with(|it| it.pool("size = 1").pool("wait_timeout = \"100ms\""))
            .client(|scene| {
                while_busy(scene, || {
                    let mut second = scene.client();
                    second.send(client::last_get("/"));
                    assert_eq!(second.read("GET").status(), 503);
                    second.expect_fin();
                });
            })
            .session(end("MQO"))
            .session(end("DIF")),
        http("nobody listens at the endpoint")
            .client(|scene| {
                scene.service.refuse();
                let mut client = scene.client();
                client.send(client::last_get("/"));
                assert_eq!(client.read("GET").status(), 502);
                client.expect_fin();
            })
            .session(end("UQX"))
            .connection(end("UCX").received("connect").exchange(0)),
    ]
}

/// A service that reads a request's head and some of its body, and then all that comes.
fn reading(name: &str) -> Case {
    http(name).service(|mut connection, stage| {
        connection.head().unwrap();
        connection.exactly(4).unwrap();
        stage.first.open();
        connection.until_end();
    })
}

fn inside_a_request() -> Vec<Case> {
    vec![
        http("a client ends inside a head")
            .client(|scene| {
                let mut client = scene.client();
                client.send("GET / HTT");
                client.leave();
            })
            .session(end("DRT").exchange(0).unread(|_, _| 9)),
        reading("a client ends inside a body")
            .client(|scene| {
                let mut client = scene.client();
                client.send([HALF_POST, "some"].concat());
                scene.stage.first.pass();
                client.leave();
            })
            .session(end("DRT").discard("client_gone").caused("DRT"))
            .connection(end("DRT").discard("client_gone").caused_by("DRT")),
        http("a client resets before its answer begins")
            .service(|mut connection, _| {
                connection.request();
                connection.socket.acknowledge();
                assert_eq!(connection.wait_for_end(), Ended::Reset);
            })
            .client(|scene| {
                let mut client = scene.client();
                client.send(client::get("/"));
                scene.service.wait_requests(1);
                client.reset();
            })
            .session(
                end("DRR")
                    .received("request")
                    .discard("client_gone")
                    .caused("DRS"),
            )
            .connection(
                end("DRS")
                    .sent("abandoned", "request")
                    .discard("client_gone")
                    .caused_by("DRR"),
            ),
        http("a request is malformed")
            .client(|scene| {
                let mut client = scene.client();
                client.send(MALFORMED);
                assert_eq!(client.read("GET").status(), 400);
                client.leave();
            })
            .session(end("DRV").exchange(0).unread(|_, _| MALFORMED.len() as u64)),
        reading("a chunk is malformed after some of its request was passed on")
            .client(|scene| {
                let mut client = scene.client();
                client.send([CHUNKED_POST, "5\r\nhello\r\n"].concat());
                scene.stage.first.pass();
                client.send("zz\r\n");
                assert_eq!(client.read("POST").status(), 400);
                client.leave();
            })
            .session(
                end("DRV")
                    .discard("request_violation")
                    .caused("DRV")
                    .unread(|_, _| 4),
            )
            .connection(end("DRV")),
        http("a body is announced that is too large")
            .with(|it| it.http("body_max = \"1KiB\""))
            .client(|scene| {
                let mut client = scene.client();
                client.send(LARGE_POST);
                assert_eq!(client.read("POST").status(), 413);
                client.leave();
            })
            .session(
                end("MRL")
                    .exchange(0)
                    .unread(|_, _| LARGE_POST.len() as u64),
            ),
        reading("a body is too large after some of it was passed on")
            .with(|it| it.http("body_max = \"1KiB\""))
            .client(|scene| {
                let mut client = scene.client();
                client.send([CHUNKED_POST, "5\r\nhello\r\n"].concat());
                scene.stage.first.pass();
                client.send("400\r\n");
                assert_eq!(client.read("POST").status(), 413);
                client.leave();
            })
            .session(
                end("MRL")
                    .discard("request_limit")
                    .together_with("MRL")
                    .unread(|_, _| 1),
            )
            .connection(end("MRL")),
    ]
}

/// A client that has read so much of an answer, all of which its kernel has acknowledged.
fn begin_answer(scene: &Scene, request: impl AsRef<[u8]>, body: usize) -> client::Client {
    let mut client = scene.client();
    client.send(request);
    client.head().unwrap();
    client.exactly(body).unwrap();
    client.socket.acknowledge();
    client
}

/// A client that resets behind its request, and then the service may go on.
fn leave_unanswered(scene: &Scene) {
    let mut client = scene.client();
    client.send(client::get("/"));
    scene.service.wait_requests(1);
    let before = scene.network.downstream_resets().received;
    client.reset();
    // Seen before the service does anything: its RST has come, and everything that waits for it has run.
    let has_come = || (scene.network.downstream_resets().received > before).then_some(());
    wait::until("the RST has come", has_come);
    for _ in 0..3 {
        scene.proxy.snapshot();
    }
    scene.stage.first.open();
}

fn inside_an_answer() -> Vec<Case> {
    vec![
        http("a client ends inside its request, when its answer has begun")
            .service(|mut connection, _| {
                connection.head().unwrap();
                connection.exactly(4).unwrap();
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
                connection.until_end();
            })
            .client(|scene| {
                begin_answer(scene, [HALF_POST, "some"].concat(), 5).leave();
            })
            .session(end("DPF"))
            .connection(end("DPT").discard("client_gone").caused_by("DPF")),
        http("a client resets inside its answer, and the rest is read out")
            .service(|mut connection, stage| {
                connection.request();
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
                stage.first.pass();
                connection.write("world");
                connection.until_end();
            })
            .client(|scene| {
                begin_answer(scene, client::get("/"), 5).reset();
                scene.stage.first.open();
            })
            .session(end("DPR").received("response")),
        http("a client is gone, and its service closes without an answer")
            .service(|mut connection, stage| {
                connection.request();
                stage.first.pass();
            })
            .client(leave_unanswered)
            .session(
                end("DRR")
                    .received("request")
                    .discard("no_answer")
                    .together_with("URF"),
            )
            .connection(end("URF").discard("no_answer").together_with("DRR")),
        http("a client is gone, and its service resets without an answer")
            .service(|mut connection, stage| {
                connection.request();
                connection.socket.acknowledge();
                stage.first.pass();
                connection.reset();
            })
            .client(leave_unanswered)
            .session(
                end("DRR")
                    .received("request")
                    .discard("no_answer")
                    .together_with("URR"),
            )
            .connection(
                end("URR")
                    .received("request")
                    .discard("no_answer")
                    .together_with("DRR"),
            ),
        http("a client resets inside an answer that is too long to read out")
            .with(|it| it.upstream("abandon_bytes = \"1KiB\""))
            .service(|mut connection, stage| {
                connection.request();
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhello");
                stage.first.pass();
                connection.write(pattern(1, 50_000));
                // Nothing has come but the RST.
                connection.wait_for_end();
                stage.note(
                    "service acknowledged",
                    kernel_acknowledged(&connection.socket),
                );
            })
            .client(|scene| {
                let client = begin_answer(scene, client::get("/"), 5);
                scene
                    .stage
                    .note("client received", kernel_received(&client.socket));
                client.reset();
                scene.stage.first.open();
            })
            .session(
                end("DPR")
                    .received("response")
                    .discard("client_gone")
                    .caused("DPS"),
            )
            .connection(
                end("DPS")
                    .sent("abandoned", "response")
                    .discard("client_gone")
                    .caused_by("DPR")
                    .unread(|_, facts| {
                        facts.noted("service acknowledged") - facts.noted("client received")
                    }),
            ),
        http("a client half-closes and resets while the service is silent")
            .service(|mut connection, stage| {
                connection.request();
                stage.first.pass();
                connection.reply("too late");
                connection.until_end();
            })
            .client(|scene| {
                let mut client = scene.client();
                client.send(client::get("/"));
                scene.service.wait_requests(1);
                client.socket.half_close();
                client.reset();
                scene.stage.first.open();
            })
            .session(end("DPR").received("response")),
        http("a client takes nothing of its answer")
            .with(|it| it.listener("stall_timeout = \"200ms\""))
            .service(most_of_an_answer)
            .client(|scene| {
                let mut client = scene.client_with(|it| it.set_recv_buffer_size(4096).unwrap());
                client.send(client::get("/"));
                scene.proxy.wait_upstream("connections/terminated", 1);
                scene.stage.note("client received", stuffed(&client.socket));
                client.reset();
            })
            .session(
                end("MPO")
                    .received("close")
                    .discard("client_stalled")
                    .together_with("MPO")
                    .unacknowledged(|row, facts| {
                        row["written_bytes"].as_u64().unwrap() - facts.noted("client received")
                    }),
            )
            .connection(
                end("MPO")
                    .sent("abandoned", "response")
                    .discard("client_stalled")
                    .together_with("MPO")
                    .unread(|_, facts| {
                        facts.noted("service acknowledged")
                            - facts.of("downstream", "written_bytes")
                    }),
            ),
        http("the service answers before the request is complete")
            .service(|mut connection, _| {
                connection.head().unwrap();
                connection.exactly(4).unwrap();
                connection.reply("");
                connection.until_end();
            })
            .client(|scene| {
                let mut client = scene.client();
                client.send([HALF_POST, "some"].concat());
                assert_eq!(client.read("POST").status(), 200);
                client.leave();
            })
            .session(end("MPF"))
            .connection(end("URT").discard("half_request")),
    ]
}

/// Most of an answer, all of which millpond's kernel has before anybody gives up: what is still on its way
/// when a connection goes, nobody can count.
fn most_of_an_answer(
    mut connection: crate::support::upstream::Connection,
    stage: &super::matrix::Stage,
) {
    connection.request();
    connection.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
    connection.write(pattern(2, 140_000));
    connection.until_end();
    stage.note(
        "service acknowledged",
        kernel_acknowledged(&connection.socket),
    );
}

fn services_faults() -> Vec<Case> {
    vec![
        http("the service closes without an answer")
            .service(|mut connection, _| {
                connection.request();
            })
            .client(|scene| refused_last(scene, LAST_POST, 502))
            .session(end("URF"))
            .connection(end("URF")),
        http("the service resets without an answer")
            .service(|mut connection, _| {
                connection.request();
                connection.socket.acknowledge();
                connection.reset();
            })
            .client(|scene| refused_last(scene, LAST_POST, 502))
            .session(end("URF"))
            .connection(
                end("URR")
                    .received("request")
                    .discard("no_answer")
                    .caused("URF"),
            ),
        http("the service answers nonsense")
            .service(|mut connection, _| {
                connection.request();
                connection.write("nonsense\r\n\r\n");
                connection.until_end();
            })
            .client(|scene| refused_last(scene, LAST_POST, 502))
            .session(end("URV"))
            .connection(
                end("UPV")
                    .discard("violation")
                    .caused("URV")
                    .unread(|_, _| 12),
            ),
        http("the answer ends where the service's connection does")
            .service(|mut connection, _| {
                connection.request();
                connection.write("HTTP/1.0 200 OK\r\n\r\nall of it");
            })
            .client(|scene| {
                let mut client = scene.client();
                assert_eq!(client.get("/").text(), "all of it");
            })
            .session(end("UPF"))
            .connection(end("UPF")),
        http("the service closes inside an answer of known length")
            .service(|mut connection, _| {
                connection.request();
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
            })
            .client(|scene| {
                let mut client = begin_answer(scene, client::get("/"), 3);
                client.expect_fin();
            })
            .session(end("UPT").discard("upstream_fin").caused_by("UPT"))
            .connection(end("UPT").discard("upstream_fin").caused("UPT")),
        http("the service resets inside an answer of known length")
            .service(|mut connection, _| {
                connection.request();
                connection.socket.acknowledge();
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
                connection.wait_acknowledged();
                connection.reset();
            })
            .client(|scene| {
                let mut client = begin_answer(scene, client::get("/"), 3);
                client.expect_fin();
            })
            .session(end("UPT").discard("upstream_reset").caused_by("UPR"))
            .connection(
                end("UPR")
                    .received("response")
                    .discard("upstream_reset")
                    .caused("UPT"),
            ),
        http("the service resets inside an answer of unknown length")
            .service(|mut connection, _| {
                connection.request();
                connection.socket.acknowledge();
                connection.write("HTTP/1.0 200 OK\r\n\r\n");
                connection.write(pattern(3, 300_000));
                connection.wait_acknowledged();
                connection.reset();
            })
            .client(|scene| {
                let mut client = scene.client();
                client.send(client::get("/"));
                client.head().unwrap();
                let (body, ended) = client.end();
                assert_eq!((body.len(), ended), (300_000, Ended::Reset));
            })
            .session(
                end("UPT")
                    .sent("propagated", "response")
                    .discard("upstream_reset")
                    .caused_by("UPR"),
            )
            .connection(
                end("UPR")
                    .received("response")
                    .discard("upstream_reset")
                    .caused("UPT"),
            ),
        http("the service resets an upgraded connection")
            .service(|mut connection, stage| {
                connection.head().unwrap();
                connection.socket.acknowledge();
                connection.write(UPGRADED);
                stage.first.pass();
                connection.reset();
            })
            .client(|scene| {
                let mut client = begin_answer(scene, UPGRADE, 0);
                scene.stage.first.open();
                assert_eq!(client.end(), (Vec::new(), Ended::Reset));
            })
            .session(
                end("UPS")
                    .sent("propagated", "response")
                    .discard("upstream_reset")
                    .caused_by("UPR"),
            )
            .connection(
                end("UPR")
                    .received("response")
                    .discard("upstream_reset")
                    .caused("UPS"),
            ),
        http("an answer breaks its chunks after it has begun")
            .service(|mut connection, stage| {
                connection.request();
                connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                connection.write("5\r\nhello\r\n");
                stage.first.pass();
                connection.write("zz\r\n");
                connection.until_end();
            })
            .client(|scene| {
                let mut client = begin_answer(scene, client::get("/"), "5\r\nhello\r\n".len());
                scene.stage.first.open();
                client.expect_fin();
            })
            .session(end("UPV"))
            .connection(
                end("UPV")
                    .discard("violation")
                    .caused("UPV")
                    .unread(|_, _| 4),
            ),
        http("bytes come after the end of an answer")
            .service(|mut connection, _| {
                connection.request();
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokEXTRA");
                connection.until_end();
            })
            .client(|scene| {
                let mut client = scene.client();
                assert_eq!(client.get("/").text(), "ok");
                client.leave();
            })
            .session(end("DIF"))
            .connection(end("UPV").discard("stray_bytes").unread(|_, _| 5)),
        http("a connection before it closes while a session ends with the next")
            .service(|mut connection, stage| {
                connection.request();
                if connection.number == 0 {
                    connection.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokEXTRA");
                    return stage.first.pass();
                }
                connection.socket.acknowledge();
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
                connection.wait_acknowledged();
                connection.reset();
            })
            .client(|scene| {
                let mut client = scene.client();
                assert_eq!(client.get("/").text(), "ok");
                client.send(client::get("/"));
                client.head().unwrap();
                client.exactly(3).unwrap();
                client.expect_fin();
                scene.proxy.wait_upstream("connections/terminated", 1);
                scene.stage.first.open();
                scene.proxy.wait_upstream("connections/terminated", 2);
            })
            .session(
                end("UPT")
                    .discard("upstream_reset")
                    .exchange(2)
                    .caused_by("UPR"),
            )
            .connection(end("UPV").discard("stray_bytes").unread(|_, _| 5))
            .connection(
                end("UPR")
                    .received("response")
                    .discard("upstream_reset")
                    .caused("UPT"),
            ),
        http("the service says that it closes")
            .service(|mut connection, _| {
                connection.request();
                connection
                    .write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
            })
            .client(|scene| {
                let mut client = scene.client();
                assert_eq!(client.get("/").text(), "ok");
                client.leave();
            })
            .session(end("DIF"))
            .connection(end("UPF")),
    ]
}

/// A client's last request, which is refused.
fn refused_last(scene: &Scene, request: &str, status: u16) {
    let mut client = scene.client();
    client.send(request);
    assert_eq!(client.read("POST").status(), status);
    client.leave();
}

fn limits_of_time() -> Vec<Case> {
    vec![
        http("a head does not come whole in time")
            .with(|it| it.listener("head_timeout = \"100ms\""))
            .client(|scene| refused_last(scene, "GET / HTT", 408))
            .session(end("MRO").exchange(0).unread(|_, _| 9)),
        reading("a body does not come whole in time")
            .with(|it| it.listener("stall_timeout = \"100ms\""))
            .client(|scene| refused_last(scene, &[HALF_POST, "some"].concat(), 408))
            .session(end("MRO"))
            .connection(end("MRO")),
        http("the service does not answer in time")
            .with(|it| it.upstream("response_timeout = \"100ms\""))
            .service(|mut connection, _| {
                connection.request();
                connection.socket.acknowledge();
                connection.until_end();
            })
            .client(|scene| refused_last(scene, LAST_POST, 504))
            .session(end("MRO"))
            .connection(
                end("MRO")
                    .sent("abandoned", "request")
                    .discard("response_timeout")
                    .together_with("MRO"),
            ),
        http("the service stops inside an answer of known length")
            .with(|it| it.upstream("response_timeout = \"100ms\""))
            .service(|mut connection, _| {
                connection.request();
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
                connection.until_end();
            })
            .client(|scene| {
                let mut client = begin_answer(scene, client::get("/"), 3);
                client.expect_fin();
            })
            .session(end("MPO"))
            .connection(
                end("MPO")
                    .sent("abandoned", "response")
                    .discard("response_timeout")
                    .together_with("MPO"),
            ),
        http("the service stops inside an answer of unknown length")
            .with(|it| it.upstream("response_timeout = \"100ms\""))
            .service(|mut connection, _| {
                connection.request();
                connection.write("HTTP/1.0 200 OK\r\n\r\nabc");
                connection.until_end();
            })
            .client(|scene| {
                let mut client = begin_answer(scene, client::get("/"), 3);
                assert_eq!(client.end(), (Vec::new(), Ended::Reset));
            })
            .session(
                end("MPO")
                    .sent("propagated", "response")
                    .discard("response_timeout")
                    .together_with("MPO"),
            )
            .connection(
                end("MPO")
                    .sent("abandoned", "response")
                    .discard("response_timeout")
                    .together_with("MPO"),
            ),
    ]
}

/// One exchange; then `then`, once its connection is idle.
fn after_an_exchange(scene: &Scene, then: impl FnOnce()) {
    let mut client = scene.client();
    client.get("/");
    scene.proxy.wait_completed(1);
    then();
    scene.proxy.wait_upstream("connections/open", 0);
    client.leave();
}

fn of_idle_connections() -> Vec<Case> {
    vec![
        http("the service closes an idle connection")
            .service(|mut connection, stage| {
                connection.answer("fine");
                stage.first.pass();
            })
            .client(|scene| after_an_exchange(scene, || scene.stage.first.open()))
            .session(end("DIF"))
            .connection(end("UIF")),
        http("the service resets an idle connection")
            .service(|mut connection, stage| {
                connection.answer("fine");
                stage.first.pass();
                connection.reset();
            })
            .client(|scene| after_an_exchange(scene, || scene.stage.first.open()))
            .session(end("DIF"))
            .connection(end("UIR").received("idle").discard("idle_reset")),
        http("the service speaks unasked over an idle connection")
            .service(|mut connection, stage| {
                connection.answer("fine");
                stage.first.pass();
                connection.write("unasked");
                connection.until_end();
            })
            .client(|scene| after_an_exchange(scene, || scene.stage.first.open()))
            .session(end("DIF"))
            .connection(end("UIV").discard("idle_bytes").unread(|_, _| 7)),
        http("a connection is idle for too long")
            .with(|it| it.pool("idle_timeout = \"100ms\""))
            .client(|scene| after_an_exchange(scene, || {}))
            .session(end("DIF"))
            .connection(end("MIO")),
        http("a connection has carried enough")
            .with(|it| it.pool("max_exchanges = 1"))
            .client(|scene| after_an_exchange(scene, || {}))
            .session(end("DIF"))
            .connection(end("MIL")),
        http("a connection makes room for a request that needs a fresh one")
            .with(|it| it.pool("size = 1").upstream("retry = \"idempotent\""))
            .service(|mut connection, stage| {
                if connection.number > 0 {
                    return while connection.answer("fine") {};
                }
                connection.answer("fine");
                connection.request();
                stage.first.pass();
                connection.socket.acknowledge();
                connection.reset();
            })
            .client(|scene| {
                let mut first = scene.client();
                first.get("/");
                first.send(client::get("/"));
                scene.service.wait_requests(2);
                let mut second = scene.client();
                second.send(client::get("/"));
                scene.proxy.wait_upstream("waiters", 1);
                scene.stage.first.open();
                first.read("GET");
                second.read("GET");
                first.leave();
                second.leave();
            })
            .session(end("DIF").times(2))
            .connection(
                end("URR")
                    .received("request")
                    .discard("lost_race")
                    .exchange(2),
            )
            .connection(end("MIF")),
    ]
}

fn while_closing() -> Vec<Case> {
    vec![
        http("a client resets after our FIN")
            .client(|scene| {
                let mut client = scene.client();
                client.send(MALFORMED);
                assert_eq!(client.read("GET").status(), 400);
                client.expect_fin();
                client.socket.acknowledge();
                client.reset();
            })
            .session(
                end("DRV")
                    .received("close")
                    .exchange(0)
                    .unread(|_, _| MALFORMED.len() as u64),
            ),
        http("a client goes on sending after our FIN")
            .with(|it| it.listener("linger_bytes = \"1KiB\""))
            .client(|scene| {
                let mut client = scene.client();
                client.send(MALFORMED);
                assert_eq!(client.read("GET").status(), 400);
                client.expect_fin();
                client.send([b'x'; 1200]);
                scene.proxy.wait_listener("sessions/terminated", 1);
            })
            .session(
                end("DRV")
                    .sent("linger_bound", "close")
                    .exchange(0)
                    .unread(|_, _| MALFORMED.len() as u64 + 1200),
            ),
        http("a client half-closes and resets with its answer unread")
            .client(|scene| {
                let mut client = scene.client_with(|it| it.set_recv_buffer_size(4096).unwrap());
                client.send(client::last_get("/"));
                client.socket.half_close();
                scene.proxy.wait_completed(1);
                scene.stage.note("client received", stuffed(&client.socket));
                client.reset();
            })
            .service(|mut connection, _| {
                connection.request();
                connection.reply(pattern(4, 40_000));
                connection.until_end();
            })
            .session(end("DIF").received("close").unacknowledged(|row, facts| {
                row["written_bytes"].as_u64().unwrap() - facts.noted("client received")
            })),
        http("the service goes on sending after our FIN")
            .with(|it| it.pool("max_exchanges = 1"))
            .service(|mut connection, stage| {
                connection.answer("fine");
                assert_eq!(connection.until_end(), (Vec::new(), Ended::Fin));
                connection.write(vec![b'x'; 1 << 20]);
                // What is still under way at its end would be answered by the kernel.
                connection.wait_acknowledged();
                connection.write("over");
                stage.first.pass();
            })
            .client(|scene| after_an_exchange(scene, || {}))
            .session(end("DIF"))
            .connection(
                end("MIL")
                    .sent("linger_bound", "close")
                    .discard("max_exchanges")
                    .unread(|_, _| (1 << 20) + 4),
            ),
    ]
}
