//! How connections end whose peer vanishes without a word.

use super::matrix::Protocol::{Frames, Http, Tcp};
use super::matrix::{Case, Scene, Stage, end};
use crate::support::client::{self, Client};
use crate::support::proxy::Config;
use crate::support::upstream::Connection;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(Http, "clients vanish in every phase")
            .with(|it| watchful_of_clients(it).pool("size = 2"))
            .service(obedient)
            .client(clients_vanish)
            .kernel_resets(4, 0)
            .session(end("KAO"))
            .session(end("KIO"))
            .session(end("KQO"))
            .session(end("KRO"))
            .session(
                end("KPO")
                    .discard("client_vanished")
                    .together_with("KPS")
                    .unacknowledged(|_, _| 5),
            )
            .connection(
                end("KRS")
                    .sent("abandoned", "request")
                    .discard("client_vanished")
                    .exchange(2)
                    .together_with("KRO"),
            )
            .connection(
                end("KPS")
                    .sent("abandoned", "response")
                    .discard("client_vanished")
                    .together_with("KPO"),
            ),
        Case::new(Tcp, "the client of a tunnel vanishes")
            .with(watchful_of_clients)
            .service(|mut connection, _| {
                connection.exactly(1).unwrap();
                connection.socket.acknowledge();
                connection.count_request();
                connection.until_end();
            })
            .client(|scene| {
                let mut client = scene.client();
                client.send("x");
                scene.service.wait_requests(1);
                scene.network.cut_clients();
                scene.proxy.wait_listener("sessions/terminated", 1);
                client.reset();
            })
            .kernel_resets(1, 0)
            .session(end("KPO"))
            .connection(
                end("KPS")
                    .sent("propagated", "response")
                    .discard("client_vanished")
                    .together_with("KPO"),
            ),
        Case::new(Http, "the service vanishes in every phase")
            .with(watchful_of_services)
            .service(obedient)
            .client(service_vanishes)
            .kernel_resets(0, 3)
            .session(end("DIF"))
            .session(end("KRF"))
            .session(end("KPT").discard("upstream_vanished").together_with("KPO"))
            .connection(end("KIO"))
            .connection(end("KRO"))
            .connection(end("KPO")),
        Case::new(
            Http,
            "the service vanishes inside an answer of unknown length",
        )
        .with(watchful_of_services)
        .service(|mut connection, stage| {
            connection.request();
            connection.write("HTTP/1.0 200 OK\r\n\r\nhello");
            stage.first.pass();
            connection.reset();
        })
        .client(|scene| {
            let mut client = scene.client();
            client.send(client::get("/"));
            client.head().unwrap();
            client.exactly(5).unwrap();
            client.socket.acknowledge();
            scene.network.cut_service();
            client.end();
            leave_the_dead(scene);
        })
        .kernel_resets(0, 1)
        .session(
            end("KPT")
                .sent("propagated", "response")
                .discard("upstream_vanished")
                .together_with("KPO"),
        )
        .connection(end("KPO")),
        Case::new(Frames, "the service vanishes before its reply")
            .with(watchful_of_services)
            .service(|mut connection, stage| {
                connection.exactly(8).unwrap();
                connection.socket.acknowledge();
                connection.count_request();
                stage.first.pass();
                connection.reset();
            })
            .client(|scene| {
                let mut client = scene.client();
                client.send(b"\0\0\0\x04ping");
                scene.service.wait_requests(1);
                scene.network.cut_service();
                client.expect_fin();
                leave_the_dead(scene);
            })
            .kernel_resets(0, 1)
            .session(end("KRF"))
            .connection(end("KRO")),
        Case::new(Tcp, "the service of a tunnel vanishes")
            .with(watchful_of_services)
            .service(|mut connection, stage| {
                connection.exactly(1).unwrap();
                connection.socket.acknowledge();
                connection.count_request();
                stage.first.pass();
                connection.reset();
            })
            .client(|scene| {
                let mut client = scene.client();
                client.send("x");
                scene.service.wait_requests(1);
                scene.network.cut_service();
                client.end();
                leave_the_dead(scene);
            })
            .kernel_resets(0, 1)
            .session(
                end("KPS")
                    .sent("propagated", "response")
                    .discard("upstream_vanished")
                    .together_with("KPO"),
            )
            .connection(end("KPO")),
    ]
}

fn watchful_of_clients(config: Config) -> Config {
    config
        .listener("keepalive = \"1s\"")
        .listener("user_timeout = \"500ms\"")
        .upstream("abandon_bytes = \"1KiB\"")
}

fn watchful_of_services(config: Config) -> Config {
    config
        .upstream("keepalive = \"1s\"")
        .upstream("user_timeout = \"500ms\"")
}

/// Answers at once, or never, or by half.
fn obedient(mut connection: Connection, stage: &Stage) {
    while let Some(request) = connection.request() {
        connection.socket.acknowledge();
        match request.head.target() {
            "/never" => break,
            "/last" => {
                connection.reply("fine");
                break;
            }
            "/half" => {
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhello");
                if stage.noted_or_zero("writes on") > 0 {
                    stage.second.pass();
                    connection.write("world");
                }
                break;
            }
            _ => connection.reply("fine"),
        }
    }
    stage.first.pass();
    connection.reset();
}

fn clients_vanish(scene: &Scene) {
    scene.stage.note("writes on", 1);
    let mut idle = scene.client();
    idle.get("/");
    let silent = scene.client();
    let mut asking = scene.client();
    asking.send(client::get("/never"));
    scene.service.wait_requests(2);
    let mut reading = scene.client();
    reading.send(client::get("/half"));
    reading.head().unwrap();
    reading.exactly(5).unwrap();
    let mut waiting = scene.client();
    waiting.send(client::get("/"));
    scene.proxy.wait_upstream("waiters", 1);
    let all = [idle, silent, asking, reading, waiting];
    all.iter().for_each(|client| client.socket.acknowledge());
    scene.network.cut_clients();
    scene.stage.second.open();
    scene.proxy.wait_listener("sessions/terminated", 5);
    all.into_iter().for_each(Client::reset);
}

fn service_vanishes(scene: &Scene) {
    let mut first = scene.client();
    let mut asking = scene.client();
    let mut reading = scene.client();
    reading.send(client::get("/half"));
    reading.head().unwrap();
    reading.exactly(5).unwrap();
    reading.socket.acknowledge();
    asking.send(client::last_get("/never"));
    scene.service.wait_requests(2);
    first.get("/last");
    scene.proxy.wait_completed(1);
    scene.network.cut_service();
    assert_eq!(asking.read("GET").status(), 502);
    asking.expect_fin();
    reading.expect_fin();
    scene.proxy.wait_upstream("connections/open", 0);
    first.leave();
    leave_the_dead(scene);
}

/// Has the service forget its connections while nothing can be heard of that.
fn leave_the_dead(scene: &Scene) {
    scene.stage.first.open_for_all();
    crate::support::wait::until("the service has forgotten", || {
        (scene.service.open() == 0).then_some(())
    });
}
