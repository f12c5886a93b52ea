//! How connections end that an operator ends.

use nix::sys::signal::Signal;

use super::matrix::Protocol::{Http, Tcp};
use super::matrix::{Case, Scene, Stage, end};
use crate::support::client;
use crate::support::upstream::Connection;

pub fn cases() -> Vec<Case> {
    vec![
        drained("a client that has said nothing")
            .with(|it| it.listener("head_timeout = \"300ms\""))
            .client(|scene| {
                let mut client = scene.client();
                drain(scene);
                client.expect_fin();
            })
            .session(end("OAF")),
        drained("a client between exchanges")
            .client(|scene| {
                let mut client = scene.client();
                client.get("/");
                drain(scene);
                client.expect_fin();
            })
            .session(end("OIF")),
        drained("an answer under way is the last")
            .client(|scene| {
                let mut client = scene.client();
                client.send(client::get("/wait"));
                scene.service.wait_requests(1);
                drain(scene);
                scene.stage.first.open();
                assert!(client.read("GET").head.says_close());
                client.expect_fin();
            })
            .session(end("OPF")),
        Case::new(Http, "a reload takes the upstream away from who waits")
            .with(|it| it.pool("size = 1"))
            .service(obedient)
            .client(|scene| {
                let mut first = scene.client();
                first.send(client::get("/wait"));
                scene.service.wait_requests(1);
                let mut second = scene.client();
                second.send(client::get("/"));
                scene.proxy.wait_upstream("waiters", 1);
                take_away(scene);
                assert_eq!(second.read("GET").status(), 503);
                second.expect_fin();
                scene.stage.first.open();
                first.read("GET");
                first.expect_fin();
            })
            .session(end("ORX"))
            .session(end("OPF"))
            .connection(end("OIF")),
        Case::new(Http, "idle connections are flushed")
            .service(obedient)
            .client(|scene| {
                let mut client = scene.client();
                client.get("/");
                scene.proxy.wait_completed(1);
                scene.proxy.admin("POST", "/api/v1/upstream/service/flush");
                scene.proxy.wait_upstream("connections/open", 0);
                client.leave();
            })
            .session(end("DIF"))
            .connection(end("OIF")),
        Case::new(Http, "a second signal cuts sessions off")
            .with(|it| it.shutdown("grace = \"20s\"").pool("size = 2"))
            .service(obedient)
            .client(cut_all)
            .session(end("OAS").sent("operator", "accept").exchange(0))
            .session(end("OIS").sent("operator", "idle"))
            .session(end("OQS").sent("operator", "queue"))
            .session(
                end("ORS")
                    .sent("operator", "request")
                    .discard("cancelled")
                    .together_with("ORS"),
            )
            .session(
                end("OPS")
                    .sent("operator", "response")
                    .discard("cancelled")
                    .together_with("OPS"),
            )
            .connection(
                end("ORS")
                    .sent("operator", "request")
                    .discard("cancelled")
                    .exchange(2)
                    .together_with("ORS"),
            )
            .connection(
                end("OPS")
                    .sent("operator", "response")
                    .discard("cancelled")
                    .together_with("OPS"),
            )
            .ends_itself(),
        Case::new(Tcp, "a second signal cuts a tunnel off")
            .with(|it| {
                it.shutdown("grace = \"20s\"")
                    .pool("size = 1")
                    .pool("wait_queue = 1")
            })
            .service(|mut connection, _| {
                if connection.exactly(1).is_err() {
                    // Made for who waited, just before that one was cut off too.
                    return;
                }
                connection.socket.acknowledge();
                connection.count_request();
                connection.until_end();
            })
            .client(|scene| {
                let mut client = scene.client();
                client.send("x");
                scene.service.wait_requests(1);
                scene.keep(client);
                scene.keep(scene.client());
                scene.proxy.wait_upstream("waiters", 1);
                // It is refused, and does not close: millpond waits for it as long as a cut may take.
                let mut lingering = scene.client();
                lingering.expect_fin();
                scene.keep(lingering);
                cut(scene);
            })
            .session(end("OQS").sent("operator", "queue").exchange(0))
            .session(
                end("OPS")
                    .sent("operator", "response")
                    .discard("cancelled")
                    .together_with("OPS"),
            )
            .connection(
                end("OPS")
                    .sent("operator", "response")
                    .discard("cancelled")
                    .together_with("OPS"),
            )
            .ends_itself(),
    ]
}

fn drained(name: &str) -> Case {
    Case::new(Http, &format!("a drain: {name}"))
        .service(obedient)
        .ends_itself()
}

/// Answers, once a gate opens where it is asked to wait for one.
fn obedient(mut connection: Connection, stage: &Stage) {
    while let Some(request) = connection.request() {
        connection.socket.acknowledge();
        match request.head.target() {
            "/wait" => stage.first.pass(),
            "/hold" => stage.second.pass(),
            "/half" => {
                connection.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
                connection.until_end();
                return;
            }
            _ => {}
        }
        connection.reply("fine");
    }
}

/// Begins a drain, which lasts until everything is checked: an exchange is under way until then.
fn drain(scene: &Scene) {
    let before = scene.service.requests();
    let mut holder = scene.client();
    holder.send(client::get("/hold"));
    scene.service.wait_requests(before + 1);
    scene.keep(holder);
    scene.proxy.signal(Signal::SIGTERM);
    scene
        .proxy
        .wait_until("it drains", |now| now.0["draining"] == true);
}

/// Has everything cut off.
fn cut(scene: &Scene) {
    scene.proxy.signal(Signal::SIGTERM);
    scene
        .proxy
        .wait_until("it drains", |now| now.0["draining"] == true);
    scene.proxy.signal(Signal::SIGTERM);
}

fn cut_all(scene: &Scene) {
    let mut idle = scene.client();
    idle.get("/");
    idle.socket.acknowledge();
    let silent = scene.client();
    let mut asking = scene.client();
    asking.send(client::get("/hold"));
    scene.service.wait_requests(2);
    let mut reading = scene.client();
    reading.send(client::get("/half"));
    reading.head().unwrap();
    reading.exactly(5).unwrap();
    reading.socket.acknowledge();
    let mut waiting = scene.client();
    waiting.send(client::get("/"));
    scene.proxy.wait_upstream("waiters", 1);
    // It is refused, and does not close: millpond waits for it as long as a cut may take.
    let mut lingering = scene.client();
    lingering.send("GARBAGE\r\n\r\n");
    lingering.read("GET");
    for client in [idle, silent, asking, reading, waiting, lingering] {
        scene.keep(client);
    }
    cut(scene);
}

/// A configuration without this listener and without its upstream.
fn take_away(scene: &Scene) {
    let admin = scene.proxy.directory().join("admin");
    scene.proxy.rewrite_raw(&format!(
        "workers = 2\n[admin]\nlisten = \"unix:{}\"\n\
         [log]\nformat = \"json\"\nsessions = \"all\"\n\
         [upstream.other]\nprotocol = \"http\"\nendpoints = [\"10.77.2.1:1\"]\n\
         [listener.other]\nlisten = \"10.77.1.2:0\"\nupstream = \"other\"\n",
        admin.display()
    ));
    let (status, said) = scene.proxy.admin("POST", "/api/v1/reload");
    assert_eq!(status, 200, "{said}");
}
