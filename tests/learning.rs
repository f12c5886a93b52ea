//! What millpond learns of a service's idle timeout, and what it does with it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout)]

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::client::Client;
use support::nginx::{Nginx, free_address, target_of};
use support::peer::await_listening;
use support::process::Process;
use support::proxy::{Config, Proxy, Snapshot};
use support::upstream::Service;
use support::wait;

/// Clients that ask at the same moment.
const CLIENTS: usize = 8;

/// A service that closes a connection that was silent for so many milliseconds. It answers when all
/// [`CLIENTS`] have asked, so that each has a connection of its own.
fn closing_after(timeout_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Service {
    let together = Barrier::new(CLIENTS);
    Service::start(move |mut connection| {
        while connection.request().is_some() {
            together.wait();
            connection.reply("whole");
            let timeout = Duration::from_millis(timeout_ms());
            if connection.socket.stays_silent(timeout) {
                return;
            }
        }
    })
}

/// What is learned of the first endpoint, in milliseconds.
fn learned_ms(snapshot: &Snapshot) -> Option<u64> {
    let pointer = "/upstreams/service/endpoints/0/learned_idle_timeout_ms";
    let learned = snapshot.0.pointer(pointer).expect("it is always shown");
    assert!(learned.is_null() || learned.is_u64(), "{learned}");
    learned.as_u64()
}

/// All clients ask, and the connections are idle until they end.
fn wave(proxy: &Proxy, clients: &mut [Client]) {
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| assert_eq!(client.get("/").status(), 200));
        }
    });
    proxy.wait_until("nothing is idle any more", |now| now.endpoint("idle") == 0);
}

fn clients(proxy: &Proxy) -> Vec<Client> {
    (0..CLIENTS).map(|_| proxy.client()).collect()
}

/// The sample of the first endpoint's learned idle timeout.
fn metric(proxy: &Proxy) -> f64 {
    let metrics = proxy.metrics();
    let name = "millpond_learned_idle_timeout_seconds{";
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn an_idle_timeout_is_learned_shown_and_kept_within() {
    let service = closing_after(|| 200);
    let proxy = Config::to(service.address()).start();
    let mut clients = clients(&proxy);
    assert_eq!((learned_ms(&proxy.snapshot()), metric(&proxy)), (None, 0.0));
    while learned_ms(&proxy.snapshot()).is_none() {
        wave(&proxy, &mut clients);
        let closes = proxy.snapshot().upstream("discards/idle_fin");
        assert!(closes <= 120, "{closes} closes have taught nothing");
    }
    let now = proxy.snapshot();
    let learned = learned_ms(&now).unwrap();
    assert!((180..=220).contains(&learned), "{learned} ms");
    assert!((36..=40).contains(&now.endpoint("learned_from_closes")));
    assert_eq!((metric(&proxy) * 1000.0) as u64, learned);
    let (_, page) = proxy.admin("GET", "/");
    assert!(page.contains(&format!("{learned} ms")), "{page}");
    // From now on millpond closes first, all but one that it watches.
    let retired = now.upstream("discards/idle_learned");
    wave(&proxy, &mut clients);
    let now = proxy.snapshot();
    assert!(now.upstream("discards/idle_learned") - retired >= 4);
    let ends = ["initiator=millpond", "phase=idle", "manner=timeout"];
    assert!(now.connection_ends(&ends) >= 4);
    drop(clients);
    proxy.finish();
}

#[test]
fn nothing_is_learned_of_random_closes_nor_where_that_is_off() {
    let random = closing_after(|| fastrand::u64(5..100));
    let fixed = closing_after(|| 50);
    for (service, off) in [(&random, ""), (&fixed, "learn_idle_timeout = false")] {
        let proxy = Config::to(service.address()).upstream(off).start();
        let mut clients = clients(&proxy);
        let mut closes = 0;
        while closes < 150 {
            wave(&proxy, &mut clients);
            let now = proxy.snapshot();
            assert_eq!(learned_ms(&now), None);
            assert_eq!(now.upstream("discards/idle_learned"), 0);
            closes = now.upstream("discards/idle_fin");
        }
        drop(clients);
        proxy.finish();
    }
}

/// A service that keeps its connections, whatever it announces.
fn announcing(seconds: u32) -> Service {
    Service::start(move |mut connection| {
        while connection.request().is_some() {
            connection.write(format!(
                "HTTP/1.1 200 OK\r\nKeep-Alive: timeout={seconds}, max=100\r\nContent-Length: 0\r\n\r\n"
            ));
        }
    })
}

#[test]
fn an_announced_timeout_holds_at_once() {
    for min_idle in [0, 1] {
        let service = announcing(1);
        let proxy = Config::to(service.address())
            .pool(&format!("min_idle = {min_idle}"))
            .start();
        proxy.wait_until("it is warm", |now| now.endpoint("idle") == min_idle);
        let began = wait::now();
        assert_eq!(proxy.client().get("/").status(), 200);
        proxy.wait_upstream("discards/idle_learned", 1);
        let idle = wait::now() - began;
        assert!(idle >= Duration::from_millis(890), "{idle:?}");
        assert!(idle < Duration::from_millis(1800), "{idle:?}");
        proxy.wait_until("it is warm again", |now| now.endpoint("idle") == min_idle);
        assert_eq!(
            learned_ms(&proxy.snapshot()),
            None,
            "it is said, not learned"
        );
        proxy.finish();
    }
}

#[test]
fn an_announced_timeout_holds_for_its_connection_until_another_is_announced() {
    let service = Service::start(|mut connection| {
        for timeout in ["Keep-Alive: timeout=1\r\n", "", "Keep-Alive: timeout=0\r\n"] {
            if connection.request().is_none() {
                return;
            }
            connection.write(format!(
                "HTTP/1.1 200 OK\r\n{timeout}Content-Length: 0\r\n\r\n"
            ));
        }
        connection.wait_for_end();
    });
    let proxy = Config::to(service.address()).start();
    let mut client = proxy.client();
    for _ in 0..2 {
        assert_eq!(client.get("/").status(), 200);
    }
    let what = "what announces nothing is kept";
    wait::throughout(Duration::from_millis(1100), what, || {
        proxy.snapshot().endpoint("idle") == 1
    });
    assert_eq!(client.get("/").status(), 200);
    proxy.wait_upstream("discards/idle_learned", 1);
    drop(client);
    assert_eq!(service.accepted(), 1);
    proxy.finish();
}

/// An event loop that closes a connection 20 ms after its last answer. It remembers the target of each
/// request that it executes, and says them all when it is told to stop. Its close may catch a POST of a
/// storm without learning between its execution and its answer: sent again blindly, that is executed twice.
const EVENT_LOOP: &str = r"
import asyncio, signal, sys

executed = []

class Service(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.timer, self.held = transport, None, b''

    def data_received(self, data):
        closes = False
        if self.timer:
            closes = self.timer.when() < asyncio.get_running_loop().time() + 0.001
            self.timer.cancel()
        self.held += data
        while b'body' in self.held:
            request, _, self.held = self.held.partition(b'body')
            target = request.split(b' ', 2)[1]
            executed.append(target)
            if closes and b'plain' in target:
                self.transport.close()
                return
            self.transport.write(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
            self.timer = asyncio.get_running_loop().call_later(0.02, self.transport.close)

    def connection_lost(self, error):
        if self.timer:
            self.timer.cancel()

async def main():
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    await loop.create_server(Service, '127.0.0.1', int(sys.argv[1]), backlog=1024)
    await stopped.wait()
    sys.stderr.buffer.write(b'\n'.join(executed) + b'\n')

asyncio.run(main())
";

/// A storm of POSTs: what its clients were told, by target, and what millpond counted until fifty closes
/// had taught it what it can learn, and at the end.
struct Storm {
    name: String,
    answered: Vec<String>,
    failed: Vec<String>,
    learned: Snapshot,
    end: Snapshot,
}

/// Why the POSTs failed that may have been executed, for all that is known.
const WITHOUT_PROOF: [&str; 3] = [
    "races_lost/acknowledged",
    "races_lost/not_proven_reset",
    "races_lost/undecided",
];

/// What is told of a storm besides.
const TOLD: [&str; 6] = [
    "exchanges/completed",
    "connections/opened",
    "discards/idle_fin",
    "discards/lost_race",
    "retries/unsent",
    "retries/proven",
];

/// POSTs of a storm after its first fifty closes: `MILLPOND_RACES`.
fn races() -> u64 {
    let asked = std::env::var("MILLPOND_RACES").ok();
    asked.map_or(4000, |it| it.parse().expect("MILLPOND_RACES is a number"))
}

/// Forty clients pause for 16 to 24 ms between POSTs to a service that closes after 20. `name`: what no
/// other storm's targets begin with.
fn storm(endpoint: &str, name: &str, learns: bool) -> Storm {
    let proxy = Config::to(endpoint)
        .upstream(&format!("learn_idle_timeout = {learns}"))
        .start();
    let (address, ended) = (proxy.address(), wait::Flag::default());
    let (learned, told) = std::thread::scope(|scope| {
        let _ends = ended.raise_at_end();
        let ended = &ended;
        let clients: Vec<_> = (0..40)
            .map(|seed| scope.spawn(move || post_until(ended, address, name, seed)))
            .collect();
        let learned = proxy.wait_until("fifty closes", |now| {
            let closes = ["idle_fin", "idle_reset", "lost_race"];
            let closes = closes.map(|it| now.upstream(&format!("discards/{it}")));
            closes.iter().sum::<u64>() >= 50 && (!learns || learned_ms(now).is_some())
        });
        let exchanges = learned.upstream("exchanges/completed") + races();
        let limit = wait::PATIENCE + Duration::from_millis(races());
        proxy.wait_within(limit, "so many exchanges more", |now| {
            now.upstream("exchanges/completed") >= exchanges
        });
        ended.raise();
        let told = clients.into_iter().map(|client| client.join().unwrap());
        (learned, told.collect::<Vec<_>>())
    });
    // A client has its answer a moment before it is counted.
    let end = proxy.wait_until("all clients have left", |now| {
        now.number("/listeners/front/sessions/open") == 0
    });
    if learns {
        let learned = learned_ms(&end).unwrap();
        assert!((15..=24).contains(&learned), "{learned} ms");
    }
    proxy.finish();
    let (answered, failed): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    Storm {
        name: name.to_owned(),
        answered: answered.concat(),
        failed: failed.concat(),
        learned,
        end,
    }
}

/// One client's POSTs: the targets of those that were answered, and of those that failed.
fn post_until(
    ended: &wait::Flag,
    address: SocketAddr,
    name: &str,
    seed: u64,
) -> (Vec<String>, Vec<String>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = Client::dial(address);
    let (mut answered, mut failed) = (Vec::new(), Vec::new());
    for round in 0.. {
        if ended.is_raised() {
            break;
        }
        let target = format!("/{name}-{seed}-{round}");
        match client.post(&target, b"body").status() {
            200 => answered.push(target),
            502 => failed.push(target),
            status => panic!("{status}"),
        }
        wait::pace(Duration::from_micros(random.u64(16_000..24_000)));
    }
    (answered, failed)
}

/// Holds a pool that learns against one that does not. A host that stops for some milliseconds can
/// lose any race, and brings the clients into step just around the timeout: one calm storm is enough.
/// But nothing is ever executed twice. `stop` ends the service: the targets of all that it executed.
fn learning_pays(endpoint: &str, stop: impl FnOnce() -> Vec<String>) {
    // One storm at a time: milliseconds matter.
    static STORM: Mutex<()> = Mutex::new(());
    let _storm = STORM.lock().unwrap_or_else(PoisonError::into_inner);
    let mut storms = Vec::new();
    let is_calm = (0..4).any(|attempt| {
        // At the same time, so that what else the host does is the same for both.
        let [without, with] = std::thread::scope(|scope| {
            let storms = [false, true].map(|learns| {
                let name = if learns { "learning" } else { "plain" };
                scope.spawn(move || storm(endpoint, &format!("{name}-{attempt}"), learns))
            });
            storms.map(|storm| storm.join().unwrap())
        });
        let [races, races_spared] = [&without, &with].map(|it| it.since("discards/lost_race"));
        let [connects, connects_learning] =
            [&without, &with].map(|it| it.since("connections/opened"));
        let lost = WITHOUT_PROOF.iter().map(|path| with.since(path));
        let spares_races = lost.sum::<u64>() == 0 && races_spared <= 1;
        // What its races cost is not held against the pool that does not learn.
        let spares_connects = connects_learning <= (connects + 20 - races) * 3 / 2;
        storms.extend([without, with]);
        spares_races && spares_connects
    });
    let mut executions: HashMap<String, u64> = HashMap::new();
    for target in stop() {
        *executions.entry(target).or_default() += 1;
    }
    for storm in &storms {
        println!("{}", storm.tell(&executions));
    }
    for storm in &storms {
        storm.expect_executed_once(&mut executions);
    }
    assert!(executions.is_empty(), "nobody asked for {executions:?}");
    assert!(is_calm, "no storm was calm");
}

impl Storm {
    /// How much a number of the upstream has grown since it has learned.
    fn since(&self, path: &str) -> u64 {
        self.end.upstream(path) - self.learned.upstream(path)
    }

    fn tell(&self, executions: &HashMap<String, u64>) -> String {
        let told = [("answered", &self.answered), ("failed", &self.failed)];
        let told = told.map(|(name, targets)| {
            let times = targets.iter().filter_map(|target| executions.get(target));
            let twice = times.clone().filter(|times| **times > 1).count();
            let (all, executed) = (targets.len(), times.count());
            format!("{all} {name}, {executed} of them executed, {twice} twice")
        });
        let mut text = format!("{}: {}", self.name, told.join("; "));
        for path in TOLD.iter().chain(&WITHOUT_PROOF) {
            let (until, since) = (self.learned.upstream(path), self.since(path));
            text += &format!("\n  {path:28} {until:6}, since then {since:6}");
        }
        text
    }

    /// Holds what the clients were told against what the service executed, which it takes out, and
    /// against what millpond counted: who was told of a failure has lost a race for want of a proof.
    fn expect_executed_once(&self, executions: &mut HashMap<String, u64>) {
        for target in &self.answered {
            let times = executions.remove(target);
            assert_eq!(times, Some(1), "executions of {target}, which was answered");
        }
        for target in &self.failed {
            let times = executions.remove(target).unwrap_or(0);
            assert!(
                times <= 1,
                "{target}, which failed, was executed {times} times"
            );
        }
        let answered = self.end.upstream("exchanges/completed");
        assert_eq!(answered, self.answered.len() as u64);
        let lost = WITHOUT_PROOF.iter().map(|path| self.end.upstream(path));
        assert_eq!(lost.sum::<u64>(), self.failed.len() as u64);
        let lost = self.end.sum("/upstreams/service/races_lost");
        assert_eq!(lost, self.failed.len() as u64);
    }
}

#[test]
fn learning_spares_the_races_with_nginx_and_few_connections() {
    let server =
        "keepalive_timeout 20ms; keepalive_requests 1000000; location / { return 200 ok; }";
    let nginx = Nginx::start("127.0.0.1", server);
    let address = nginx.address().to_string();
    learning_pays(&address, || {
        nginx.finish().iter().map(|line| target_of(line)).collect()
    });
}

#[test]
fn learning_spares_the_races_with_an_event_loop_and_few_connections() {
    let address = free_address("127.0.0.1");
    let mut command = Command::new("python3");
    command.args(["-c", EVENT_LOOP, &address.port().to_string()]);
    let mut service = Process::start(&mut command);
    await_listening(&mut service, &[address]);
    learning_pays(&address.to_string(), || {
        service.signal(Signal::SIGTERM);
        let (status, executed) = service.outcome();
        assert!(status.success(), "{status}");
        executed.lines().map(str::to_owned).collect()
    });
}

#[test]
fn a_timeout_that_changes_is_learned_anew() {
    let timeout = Arc::new(AtomicU64::new(60));
    let service = closing_after({
        let timeout = Arc::clone(&timeout);
        move || timeout.load(Ordering::SeqCst)
    });
    let proxy = Config::to(service.address()).start();
    let mut clients = clients(&proxy);
    for new in [60, 120, 30] {
        timeout.store(new, Ordering::SeqCst);
        let mut waves = 0;
        let is_learned = |learned: Option<u64>| {
            learned.is_some_and(|it| (new * 9 / 10..=new * 12 / 10).contains(&it))
        };
        while !is_learned(learned_ms(&proxy.snapshot())) {
            wave(&proxy, &mut clients);
            waves += 1;
            assert!(
                waves < 60,
                "{new} ms are not learned: {:?}",
                learned_ms(&proxy.snapshot())
            );
        }
    }
    drop(clients);
    proxy.finish();
}
