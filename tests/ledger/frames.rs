//! How connections end that carry frames.

use super::matrix::Protocol::Frames;
use super::matrix::{Case, Scene, end};
use crate::support::client::Client;
use crate::support::message::Wire;
use crate::support::socket::End as Ended;
use crate::support::upstream::Connection;

fn frame(payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length, payload].concat()
}

fn read_frame(wire: &mut Wire) -> Result<Vec<u8>, Ended> {
    let length = wire.exactly(4)?;
    let length = u32::from_be_bytes(length.try_into().unwrap());
    wire.exactly(length as usize)
}

/// The next request, and its acknowledgement.
fn heard(connection: &mut Connection) -> bool {
    let is_there = read_frame(connection).is_ok();
    if is_there {
        connection.count_request();
        connection.socket.acknowledge();
    }
    is_there
}

fn frames(name: &str) -> Case {
    Case::new(Frames, name).service(|mut connection, _| {
        while heard(&mut connection) {
            connection.write(frame("fine"));
        }
    })
}

/// One request and its reply.
fn ask(client: &mut Client) {
    client.send(frame("ping"));
    assert_eq!(read_frame(client).unwrap(), b"fine");
    client.socket.acknowledge();
}

pub fn cases() -> Vec<Case> {
    [requests(), replies(), waits(), limits()]
        .into_iter()
        .flatten()
        .collect()
}

fn requests() -> Vec<Case> {
    vec![
        frames("a client comes and goes without a byte")
            .client(|scene| scene.client().leave())
            .session(end("DAF")),
        frames("a client resets without a byte")
            .client(|scene| scene.client().reset())
            .session(end("DAR").received("accept").exchange(0)),
        frames("a client leaves after an exchange")
            .client(|scene| {
                let mut client = scene.client();
                ask(&mut client);
                client.leave();
            })
            .session(end("DIF")),
        frames("a client resets between exchanges")
            .client(|scene| {
                let mut client = scene.client();
                ask(&mut client);
                client.reset();
            })
            .session(end("DIR").received("idle")),
        frames("a client ends inside a frame")
            .client(|scene| {
                let mut client = scene.client();
                client.send(&frame("ping")[..6]);
                client.leave();
            })
            .session(end("DRT").exchange(0)),
        frames("a client resets before its reply")
            .service(|mut connection, _| {
                heard(&mut connection);
                assert_eq!(connection.wait_for_end(), Ended::Reset);
            })
            .client(|scene| {
                let mut client = scene.client();
                client.send(frame("ping"));
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
        frames("a client resets inside its reply, and the rest is read out")
            .service(|mut connection, stage| {
                heard(&mut connection);
                let reply = frame("0123456789");
                connection.write(&reply[..8]);
                stage.first.pass();
                connection.write(&reply[8..]);
                connection.until_end();
            })
            .client(|scene| {
                let mut client = scene.client();
                client.send(frame("ping"));
                client.exactly(8).unwrap();
                client.socket.acknowledge();
                client.reset();
                scene.stage.first.open();
            })
            .session(end("DPR").received("response")),
        frames("a length is impossible")
            .with(|it| it.frames("max = \"1KiB\""))
            .client(|scene| {
                let mut client = scene.client();
                client.send(2000_u32.to_be_bytes());
                client.leave();
            })
            .session(end("MRL").exchange(0).unread(|_, _| 4)),
    ]
}

fn replies() -> Vec<Case> {
    vec![
        frames("the service closes without a reply")
            .service(|mut connection, _| {
                heard(&mut connection);
            })
            .client(ask_in_vain)
            .session(end("URF"))
            .connection(end("URF")),
        frames("the service resets without a reply")
            .service(|mut connection, _| {
                heard(&mut connection);
                connection.reset();
            })
            .client(ask_in_vain)
            .session(end("URF"))
            .connection(
                end("URR")
                    .received("request")
                    .discard("no_answer")
                    .caused("URF"),
            ),
        frames("the service closes inside a reply")
            .service(|mut connection, _| {
                heard(&mut connection);
                connection.write(&frame("0123456789")[..8]);
            })
            .client(ask_for_half)
            .session(end("UPT").discard("upstream_fin").caused_by("UPT"))
            .connection(end("UPT").discard("upstream_fin").caused("UPT")),
        frames("the service resets inside a reply")
            .service(|mut connection, _| {
                heard(&mut connection);
                connection.write(&frame("0123456789")[..8]);
                connection.wait_acknowledged();
                connection.reset();
            })
            .client(ask_for_half)
            .session(end("UPT").discard("upstream_reset").caused_by("UPR"))
            .connection(
                end("UPR")
                    .received("response")
                    .discard("upstream_reset")
                    .caused("UPT"),
            ),
        frames("the length of a reply is impossible")
            .with(|it| it.frames("max = \"1KiB\""))
            .service(|mut connection, _| {
                heard(&mut connection);
                connection.write(2000_u32.to_be_bytes());
                connection.until_end();
            })
            .client(ask_in_vain)
            .session(end("URV"))
            .connection(
                end("UPV")
                    .discard("violation")
                    .caused("URV")
                    .unread(|_, _| 4),
            ),
        frames("bytes come after the end of a reply")
            .service(|mut connection, _| {
                heard(&mut connection);
                connection.write([frame("fine"), b"EXTRA".to_vec()].concat());
                connection.until_end();
            })
            .client(|scene| {
                let mut client = scene.client();
                ask(&mut client);
                client.leave();
            })
            .session(end("DIF"))
            .connection(end("UPV").discard("stray_bytes").unread(|_, _| 5)),
    ]
}

/// One request, which nothing answers.
fn ask_in_vain(scene: &Scene) {
    let mut client = scene.client();
    client.send(frame("ping"));
    client.expect_fin();
}

/// One request, whose reply is cut short after 8 bytes.
fn ask_for_half(scene: &Scene) {
    let mut client = scene.client();
    client.send(frame("ping"));
    assert_eq!(client.end().0.len(), 8);
}

/// A first client keeps the one connection busy while `others` play.
fn while_busy(scene: &Scene, others: impl FnOnce()) {
    let mut first = scene.client();
    first.send(frame("ping"));
    scene.service.wait_requests(1);
    others();
    scene.stage.second.open_for_all();
    read_frame(&mut first).unwrap();
    first.leave();
}

fn crowded(name: &str) -> Case {
    frames(name)
        .with(|it| it.pool("size = 1").pool("wait_queue = 0"))
        .service(|mut connection, stage| {
            while heard(&mut connection) {
                stage.second.pass();
                connection.write(frame("fine"));
            }
        })
}

fn waits() -> Vec<Case> {
    vec![
        crowded("a client resets while its request waits")
            .with(|it| it.pool("size = 1"))
            .client(|scene| {
                while_busy(scene, || {
                    let mut second = scene.client();
                    second.send(frame("ping"));
                    scene.proxy.wait_upstream("waiters", 1);
                    second.reset();
                    scene.proxy.wait_listener("sessions/terminated", 1);
                });
            })
            .session(end("DQR").received("queue"))
            .session(end("DIF")),
        crowded("the queue is full")
            .client(|scene| while_busy(scene, || ask_in_vain(scene)))
            .session(end("MQL"))
            .session(end("DIF")),
        crowded("no connection comes free in time")
            .with(|it| it.pool("size = 1").pool("wait_timeout = \"100ms\""))
            .client(|scene| while_busy(scene, || ask_in_vain(scene)))
            .session(end("MQO"))
            .session(end("DIF")),
        crowded("who is refused is reset, as the operator wants it")
            .with(|it| {
                it.pool("size = 1")
                    .pool("wait_queue = 0")
                    .listener("refuse = \"reset\"")
            })
            .client(|scene| {
                while_busy(scene, || {
                    let mut second = scene.client();
                    second.send(frame("ping"));
                    assert_eq!(second.end(), (Vec::new(), Ended::Reset));
                });
            })
            .session(end("MQL").sent("operator", "queue"))
            .session(end("DIF")),
        frames("nobody listens at the endpoint")
            .client(|scene| {
                scene.service.refuse();
                ask_in_vain(scene);
            })
            .session(end("UQX"))
            .connection(end("UCX").received("connect").exchange(0)),
    ]
}

fn limits() -> Vec<Case> {
    vec![
        frames("a client is silent from the start")
            .with(|it| it.listener("idle_timeout = \"100ms\""))
            .client(|scene| scene.client().expect_fin())
            .session(end("MAO")),
        frames("a client is silent after an exchange")
            .with(|it| it.listener("idle_timeout = \"100ms\""))
            .client(|scene| {
                let mut client = scene.client();
                ask(&mut client);
                client.expect_fin();
            })
            .session(end("MIO")),
        frames("a frame does not come whole in time")
            .with(|it| it.listener("head_timeout = \"100ms\""))
            .client(|scene| {
                let mut client = scene.client();
                client.send(&frame("ping")[..6]);
                client.expect_fin();
            })
            .session(end("MRO")),
        frames("the service does not answer in time")
            .with(|it| it.upstream("response_timeout = \"100ms\""))
            .service(|mut connection, _| {
                heard(&mut connection);
                connection.until_end();
            })
            .client(ask_in_vain)
            .session(end("MRO"))
            .connection(
                end("MRO")
                    .sent("abandoned", "request")
                    .discard("response_timeout")
                    .together_with("MRO"),
            ),
        frames("the service stops inside a reply")
            .with(|it| it.upstream("response_timeout = \"100ms\""))
            .service(|mut connection, _| {
                heard(&mut connection);
                connection.write(&frame("0123456789")[..8]);
                connection.until_end();
            })
            .client(ask_for_half)
            .session(end("MPO"))
            .connection(
                end("MPO")
                    .sent("abandoned", "response")
                    .discard("response_timeout")
                    .together_with("MPO"),
            ),
    ]
}
