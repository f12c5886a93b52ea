//! How connects end that fail.

use super::matrix::Protocol::Http;
use super::matrix::{Case, Scene, end};
use crate::support::client;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(Http, "the endpoint does not accept in time")
            .with(|it| it.pool("connect_timeout = \"200ms\""))
            .client(|scene| {
                scene.network.cut_service();
                ask_in_vain(scene);
            })
            .session(end("UQX"))
            .connection(end("MCO")),
        Case::new(Http, "there is no way to the endpoint")
            .with(|it| it.endpoint("10.99.0.1:80"))
            .client(ask_in_vain)
            .session(end("UQX"))
            .connection(end("KCX")),
        Case::new(Http, "no port is left to dial from")
            .with(|it| {
                it.pool("wait_timeout = \"300ms\"")
                    .pool("backoff_min = \"10s\"")
                    .pool("backoff_max = \"10s\"")
            })
            .service(|mut connection, stage| {
                connection.request();
                stage.first.pass();
                connection.reply("fine");
                connection.until_end();
            })
            .client(|scene| {
                scene.network.set_ports("50000 50000");
                let mut first = scene.client();
                first.send(client::get("/"));
                scene.service.wait_requests(1);
                // Somebody else's connection may come free, so it waits.
                let mut second = scene.client();
                second.send(client::last_get("/"));
                assert_eq!(second.read("GET").status(), 503);
                second.expect_fin();
                scene.network.set_ports("32768 60999");
                scene.stage.first.open();
                first.read("GET");
                first.leave();
            })
            .session(end("MQO"))
            .session(end("DIF"))
            .connection(end("MCX")),
    ]
}

fn ask_in_vain(scene: &Scene) {
    let mut client = scene.client();
    client.send(client::last_get("/"));
    assert_eq!(client.read("GET").status(), 502);
    client.expect_fin();
}
