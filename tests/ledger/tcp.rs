//! How connections end of which nothing is known but bytes.

use super::matrix::Protocol::{Promised, Tcp};
use super::matrix::{Case, Scene, end, kernel_acknowledged, stuffed};
use crate::support::message::pattern;
use crate::support::socket::End as Ended;
use crate::support::upstream::Connection;
use crate::support::wait;

pub fn cases() -> Vec<Case> {
    [ends(), losses(), limits(), reuse()]
        .into_iter()
        .flatten()
        .collect()
}

/// A service that answers each byte with one.
fn tcp(name: &str) -> Case {
    Case::new(Tcp, name).service(|mut connection, _| echo(&mut connection))
}

fn echo(connection: &mut Connection) {
    while let Ok(byte) = connection.exactly(1) {
        connection.socket.acknowledge();
        connection.count_request();
        connection.write(byte);
    }
}

/// One byte there and back.
fn ask(scene: &Scene) -> crate::support::client::Client {
    let mut client = scene.client();
    client.send("x");
    client.exactly(1).unwrap();
    client.socket.acknowledge();
    client
}

fn ends() -> Vec<Case> {
    vec![
        tcp("a client closes")
            .client(|scene| ask(scene).leave())
            .session(end("DIF"))
            .connection(end("DPF")),
        tcp("a client resets without a byte")
            .client(|scene| {
                let client = scene.client();
                scene.service.wait_accepted(1);
                scene
                    .proxy
                    .wait_until("it has its connection", |now| now.endpoint("leased") == 1);
                client.reset();
            })
            .session(end("DAR").received("accept")),
        tcp("a client resets")
            .client(|scene| ask(scene).reset())
            .session(
                end("DPR")
                    .received("response")
                    .discard("client_gone")
                    .caused("DPS"),
            )
            .connection(
                end("DPS")
                    .sent("propagated", "response")
                    .discard("client_gone")
                    .caused_by("DPR"),
            ),
        tcp("the service closes")
            .service(|mut connection, _| {
                connection.exactly(1).unwrap();
                connection.write("x");
            })
            .client(|scene| ask(scene).expect_fin())
            .session(end("UPF"))
            .connection(end("UPF")),
        tcp("the service resets")
            .service(|mut connection, _| {
                connection.exactly(1).unwrap();
                connection.socket.acknowledge();
                connection.write("x");
                connection.wait_acknowledged();
                connection.reset();
            })
            .client(|scene| assert_eq!(ask(scene).end(), (Vec::new(), Ended::Reset)))
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
        tcp("nobody listens at the endpoint")
            .client(|scene| {
                scene.service.refuse();
                scene.client().expect_fin();
            })
            .session(end("UQX").exchange(0))
            .connection(end("UCX").received("connect").exchange(0)),
    ]
}

/// Sends until nobody takes any more, and then waits for the end.
fn pour(mut connection: Connection, stage: &super::matrix::Stage) {
    while connection.write(pattern(2, 100_000)) {}
    stage.note(
        "service acknowledged",
        kernel_acknowledged(&connection.socket),
    );
    stage.first.open();
}

fn losses() -> Vec<Case> {
    vec![
        tcp("a client that does not read resets under an answer")
            .service(pour)
            .client(|scene| {
                let client = scene.client_with(|it| it.set_recv_buffer_size(4096).unwrap());
                scene.stage.note("client received", stuffed(&client.socket));
                client.reset();
                scene.stage.first.pass();
            })
            .session(
                end("DPR")
                    .received("response")
                    .discard("client_gone")
                    .caused("DPS")
                    .unacknowledged(|row, facts| {
                        row["written_bytes"].as_u64().unwrap() - facts.noted("client received")
                    }),
            )
            .connection(
                end("DPS")
                    .sent("propagated", "response")
                    .discard("client_gone")
                    .caused_by("DPR")
                    .unread(|_, facts| {
                        facts.noted("service acknowledged")
                            - facts.of("downstream", "written_bytes")
                    }),
            ),
        tcp("a service that does not read resets under a request")
            .service(|connection, stage| {
                stage.first.pass();
                stage.note("service received", stuffed(&connection.socket));
                connection.reset();
                stage.second.open();
            })
            .client(|scene| {
                let mut client = scene.client();
                client
                    .socket
                    .set_patience(std::time::Duration::from_millis(300));
                let sent = fill(&mut client);
                client.socket.set_patience(wait::PATIENCE);
                scene.stage.note("client sent", sent);
                scene.stage.first.open();
                scene.stage.second.pass();
                assert_eq!(client.end(), (Vec::new(), Ended::Reset));
                let acknowledged = kernel_acknowledged(&client.socket) - 1;
                scene.stage.note("client acknowledged", acknowledged);
            })
            .session(
                end("UPS")
                    .sent("propagated", "response")
                    .discard("upstream_reset")
                    .caused_by("UPR")
                    .unread(|_, facts| {
                        facts.noted("client acknowledged") - facts.of("upstream", "written_bytes")
                    }),
            )
            .connection(
                end("UPR")
                    .received("response")
                    .discard("upstream_reset")
                    .caused("UPS")
                    .unacknowledged(|row, facts| {
                        row["written_bytes"].as_u64().unwrap() - facts.noted("service received")
                    }),
            ),
    ]
}

/// Writes until the other side takes nothing more for a while; how much it took.
fn fill(client: &mut crate::support::client::Client) -> u64 {
    use std::io::Write;
    let crate::support::socket::Socket::Tcp(stream) = &mut client.socket else {
        unreachable!("a client over TCP");
    };
    let chunk = pattern(3, 10_000);
    let mut sent = 0;
    while let Ok(count) = stream.write(&chunk) {
        sent += count as u64;
    }
    sent
}

fn limits() -> Vec<Case> {
    vec![
        tcp("a tunnel is idle for too long")
            .with(|it| it.listener("idle_timeout = \"100ms\""))
            .client(|scene| ask(scene).expect_fin())
            .session(end("MIO"))
            .connection(end("MIO")),
        tcp("a tunnel is half-closed for too long")
            .with(|it| it.listener("half_close_timeout = \"100ms\""))
            .service(|mut connection, stage| {
                connection.until_end();
                stage.first.pass();
            })
            .client(|scene| {
                let client = scene.client();
                client.socket.half_close();
                scene.proxy.wait_listener("sessions/terminated", 1);
                scene.stage.first.open();
            })
            .session(end("MLO"))
            .connection(end("MIO")),
        tcp("a client takes nothing for too long")
            .with(|it| it.listener("idle_timeout = \"500ms\""))
            .service(pour)
            .client(|scene| {
                let client = scene.client_with(|it| it.set_recv_buffer_size(4096).unwrap());
                scene.stage.note("client received", stuffed(&client.socket));
                scene.proxy.wait_listener("sessions/terminated", 1);
                scene.stage.first.pass();
            })
            .session(
                end("MPO")
                    .sent("operator", "response")
                    .discard("tunnel_timeout")
                    .together_with("MPS")
                    .unacknowledged(|row, facts| {
                        row["written_bytes"].as_u64().unwrap() - facts.noted("client received")
                    }),
            )
            .connection(
                end("MPS")
                    .sent("operator", "response")
                    .discard("tunnel_timeout")
                    .together_with("MPO")
                    .unread(|_, facts| {
                        facts.noted("service acknowledged")
                            - facts.of("downstream", "written_bytes")
                    }),
            ),
        tcp("the queue is full")
            .with(|it| it.pool("size = 1").pool("wait_queue = 0"))
            .client(|scene| {
                let first = ask(scene);
                scene.client().expect_fin();
                first.leave();
            })
            .session(end("MQL").exchange(0))
            .session(end("DIF"))
            .connection(end("DPF")),
        tcp("no connection comes free in time")
            .with(|it| it.pool("size = 1").pool("wait_timeout = \"100ms\""))
            .client(|scene| {
                let first = ask(scene);
                scene.client().expect_fin();
                first.leave();
            })
            .session(end("MQO").exchange(0))
            .session(end("DIF"))
            .connection(end("DPF")),
        tcp("a client resets while it waits")
            .with(|it| it.pool("size = 1"))
            .client(|scene| {
                let first = ask(scene);
                let second = scene.client();
                scene.proxy.wait_upstream("waiters", 1);
                second.reset();
                scene.proxy.wait_listener("sessions/terminated", 1);
                first.leave();
            })
            .session(end("DQR").received("queue").exchange(0))
            .session(end("DIF"))
            .connection(end("DPF")),
    ]
}

fn reuse() -> Vec<Case> {
    let promised =
        |name: &str| Case::new(Promised, name).service(|mut connection, _| echo(&mut connection));
    vec![
        promised("a connection serves the next client, and nothing ends")
            .client(|scene| {
                ask(scene).leave();
                scene
                    .proxy
                    .wait_until("it is free", |now| now.endpoint("idle") == 1);
                ask(scene).leave();
            })
            .session(end("DIF").times(2)),
        promised("a client resets between its exchanges")
            .client(|scene| ask(scene).reset())
            .session(
                end("DPR")
                    .received("response")
                    .discard("client_gone")
                    .caused("DPS"),
            )
            .connection(
                end("DPS")
                    .sent("propagated", "response")
                    .discard("client_gone")
                    .caused_by("DPR"),
            ),
        promised("a client leaves before its whole answer is acknowledged")
            .service(|mut connection, _| {
                connection.exactly(1).unwrap();
                connection.socket.acknowledge();
                connection.write(pattern(4, 40_000));
                connection.until_end();
            })
            .client(|scene| {
                let mut client = scene.client_with(|it| it.set_recv_buffer_size(4096).unwrap());
                client.send("x");
                stuffed(&client.socket);
                client.socket.half_close();
                scene
                    .proxy
                    .wait_upstream("discards/reuse_unacknowledged", 1);
                client.end();
            })
            .session(end("DIF"))
            .connection(end("MIV")),
    ]
}
