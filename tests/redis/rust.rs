//! redis-rs, as programs use it: connections that wait for each reply, and connections that many tasks share.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, transaction_async};
use redis::{
    AsyncCommands, AsyncConnectionConfig, Client, Commands, Connection, Pipeline, PushKind,
    RedisResult, Value, transaction,
};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::server::Redis;
use crate::short::Hosts;
use crate::support::wait::{self, PATIENCE};
use crate::{SIZE, finish, in_front_of, leases, setting};

/// What follows the address in a client's URL.
const PLAIN: &str = "";
const RESP3: &str = "?protocol=resp3";

fn client(address: SocketAddr, more: &str) -> Client {
    Client::open(format!("redis://{address}/{more}")).unwrap()
}

fn dial(address: SocketAddr, more: &str) -> Connection {
    let connection = client(address, more).get_connection_with_timeout(PATIENCE);
    let connection = connection.unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection
}

fn patient() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
}

async fn share(address: SocketAddr, more: &str) -> MultiplexedConnection {
    let (client, config) = (client(address, more), patient());
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    connection.await.unwrap()
}

/// Runs a future for each number to its end, all at once.
async fn all<F: Future<Output = ()> + Send + 'static>(count: u64, task: impl Fn(u64) -> F) {
    let tasks: JoinSet<()> = (0..count).map(task).collect();
    tasks.join_all().await;
}

/// Sets and gets under keys of `tag`, so many times, and the replies that must come.
fn tagged(pipe: &mut Pipeline, tag: &str, count: u64) -> Vec<Option<String>> {
    let replies = (0..count).map(|step| {
        let (key, value) = (format!("{tag}:{step}"), format!("{tag}-{step}"));
        pipe.set(&key, &value).get(&key).get("absent");
        [Some("OK".to_owned()), Some(value), None]
    });
    replies.flatten().collect()
}

/// A command that is answered by its word.
fn echo(word: &str) -> redis::Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg("return ARGV[1]").arg(0).arg(word);
    command
}

#[test]
fn programs_that_ask_once_and_go_cost_redis_no_connection() {
    let clients = setting("MILLPOND_CLIENTS", 3000) / 2;
    let hosts = Hosts::start();
    let address = hosts.proxy.address();
    hosts.churn(clients, 50, |number| {
        let (key, value) = (format!("key:{number}"), format!("value {number}"));
        let mut own = dial(address, [PLAIN, RESP3, PLAIN, "1"][number as usize % 4]);
        match number % 3 {
            0 => assert_eq!(echo(&value).query(&mut own), Ok(value)),
            1 => assert_eq!(own.get_del(&key), Ok(None::<String>)),
            _ => assert_eq!(own.append(&key, &value), Ok(value.len())),
        }
    });
    hosts.finish(clients);
}

#[test]
fn pipelines_and_whole_transactions_in_many_threads() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let address = proxy.address();
    std::thread::scope(|scope| {
        for number in 0..16 {
            scope.spawn(move || {
                let mut own = dial(address, [PLAIN, RESP3, "1"][number % 3]);
                for turn in 0..15 {
                    let tag = format!("{number}:{turn}");
                    let mut pipe = redis::pipe();
                    let wanted = tagged(&mut pipe, &tag, 40);
                    assert_eq!(pipe.query(&mut own), Ok(wanted), "{tag}");
                    let mut pipe = redis::pipe();
                    let wanted = tagged(pipe.atomic(), &tag, 10);
                    assert_eq!(pipe.query(&mut own), Ok(wanted), "{tag}");
                    // Refused where it is queued, so that nothing of it is done.
                    let mut pipe = redis::pipe();
                    pipe.atomic().set(&tag, "never").cmd("SET").arg("too few");
                    let refused: RedisResult<Value> = pipe.query(&mut own);
                    assert!(refused.is_err(), "{refused:?}");
                    assert_eq!(own.get(&tag), Ok(None::<String>), "{tag}");
                }
            });
        }
    });
    proxy.snapshot().expect_no_resets();
    finish(proxy, &redis);
}

/// Adds one to a sum that others add to meanwhile, so many times.
fn add(address: SocketAddr, times: u64) {
    let mut own = dial(address, PLAIN);
    for _ in 0..times {
        let add_one = |own: &mut Connection, pipe: &mut Pipeline| {
            let sum: Option<u64> = own.get("sum")?;
            let wanted = sum.unwrap_or(0) + 1;
            let came: Option<(u64,)> = pipe.set("sum", wanted).ignore().get("sum").query(own)?;
            assert!(came.is_none_or(|came| came == (wanted,)), "{came:?}");
            Ok(came)
        };
        transaction(&mut own, &["sum"], add_one).unwrap();
    }
}

async fn add_async(address: SocketAddr, times: u64) {
    let own = share(address, PLAIN).await;
    for _ in 0..times {
        let add_one = async |mut own: MultiplexedConnection, mut pipe: Pipeline| {
            let sum: Option<u64> = own.get("sum").await?;
            let wanted = sum.unwrap_or(0) + 1;
            pipe.set("sum", wanted).ignore().get("sum");
            let came: Option<(u64,)> = pipe.query_async(&mut own).await?;
            assert!(came.is_none_or(|came| came == (wanted,)), "{came:?}");
            Ok(came)
        };
        transaction_async(own.clone(), &["sum"], add_one)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_watch_count_each_once() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let address = proxy.address();
    let before = redis.info("total_connections_received");
    let threads = [(); 6].map(|()| std::thread::spawn(move || add(address, 25)));
    all(6, |_| add_async(address, 25)).await;
    for thread in threads {
        thread.join().unwrap();
    }
    let connects = redis.info("total_connections_received") - before - 1;
    assert!(connects <= SIZE, "{connects} connects");
    assert_eq!(dial(address, PLAIN).get("sum"), Ok(Some(12 * 25)));
    assert!(leases(&proxy, "watch") >= 12 * 25, "{}", proxy.metrics());
    finish(proxy, &redis);
}

#[test]
fn a_subscriber_has_what_is_published_and_asks_again_afterwards() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let address = proxy.address();
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let (mut own, mut other) = (dial(address, PLAIN), dial(address, PLAIN));
                let (channel, pattern) = (format!("own:{number}"), format!("o*:{number}"));
                for turn in 0..10 {
                    let text = format!("{number}-{turn}");
                    let mut subscriber = own.as_pubsub();
                    subscriber.subscribe(&channel).unwrap();
                    subscriber.psubscribe(&pattern).unwrap();
                    assert_eq!(other.publish(&channel, &text), Ok(2));
                    for by_pattern in [false, true] {
                        let message = subscriber.get_message().unwrap();
                        assert_eq!(message.from_pattern(), by_pattern);
                        assert_eq!(message.get_channel_name(), channel);
                        assert_eq!(message.get_payload(), Ok(text.clone()));
                    }
                    assert_eq!(
                        subscriber.ping_message(&text),
                        Ok(vec!["pong".to_owned(), text.clone()])
                    );
                    drop(subscriber);
                    assert_eq!(echo(&text).query(&mut own), Ok(text.clone()));
                    assert_eq!(other.publish(&channel, &text), Ok(0));
                }
            });
        }
    });
    // Who has subscribed once keeps its connection.
    assert_eq!(leases(&proxy, "subscribe"), 8, "{}", proxy.metrics());
    finish(proxy, &redis);
}

/// What comes next, which must not take long.
async fn in_time<T>(next: impl Future<Output = Option<T>>) -> T {
    let came = timeout(PATIENCE, next).await;
    came.expect("it comes in time").expect("there is one more")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_come_beside_the_replies_of_many_tasks() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let address = proxy.address();
    let (sender, mut pushes) = unbounded_channel();
    let (news, config) = (client(address, RESP3), patient().set_push_sender(sender));
    let news = news.get_multiplexed_async_connection_with_config(&config);
    let mut news = news.await.unwrap();
    news.subscribe("news").await.unwrap();
    let mut streamed = client(address, PLAIN).get_async_pubsub().await.unwrap();
    streamed.psubscribe("n*").await.unwrap();
    let mut streamed = streamed.into_on_message();
    let asked = news.clone();
    let asking = all(10, |number| ask_tagged(asked.clone(), number));
    let publishing = async {
        for turn in 0..200 {
            let text = format!("news {turn}");
            assert_eq!(news.publish("news", &text).await, Ok(2));
            let message = in_time(streamed.next()).await;
            assert_eq!(message.get_payload(), Ok(text.clone()));
            let message = loop {
                let push = in_time(pushes.recv()).await;
                if push.kind == PushKind::Message {
                    break push.data;
                }
            };
            let wanted = ["news", &text].map(|word| Value::BulkString(word.into()));
            assert_eq!(message, wanted);
        }
    };
    tokio::join!(asking, publishing);
    news.unsubscribe("news").await.unwrap();
    assert_eq!(news.publish("news", "last").await, Ok(1));
    drop((news, asked, streamed));
    finish(proxy, &redis);
}

/// One of many tasks that share a connection: every reply must be its own.
async fn ask_tagged(mut own: MultiplexedConnection, number: u64) {
    for turn in 0..20 {
        let tag = format!("{number}:{turn}");
        assert_eq!(echo(&tag).query_async(&mut own).await, Ok(tag.clone()));
        let mut pipe = redis::pipe();
        if turn % 2 == 0 {
            pipe.atomic();
        }
        let wanted = tagged(&mut pipe, &tag, 3);
        assert_eq!(pipe.query_async(&mut own).await, Ok(wanted), "{tag}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_many_tasks_share_gives_each_its_own_replies() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut connections = Vec::new();
    for more in [PLAIN, RESP3, "1", "2?protocol=resp3"] {
        connections.push(share(proxy.address(), more).await);
    }
    let task = |number| ask_tagged(connections[number as usize % 4].clone(), number);
    all(100, task).await;
    drop(connections);
    proxy.snapshot().expect_no_resets();
    finish(proxy, &redis);
}

/// Waits until so many clients wait at Redis.
fn blocked(redis: &Redis, count: u64) {
    let is_so = || (redis.info("blocked_clients") == count).then_some(());
    wait::until(&format!("{count} wait at Redis"), is_so);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_given_up_takes_nothing_with_it() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let mut other = share(proxy.address(), PLAIN).await;
    for turn in 0..12 {
        let (queue, tag) = (format!("queue:{turn}"), format!("tag {turn}"));
        let mut own = share(proxy.address(), PLAIN).await;
        let waiting = tokio::spawn({
            let (mut own, queue) = (own.clone(), queue.clone());
            async move { own.blpop::<_, Value>(queue, 0.0).await }
        });
        blocked(&redis, 1);
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert_eq!(echo(&tag).query_async(&mut other).await, Ok(tag.clone()));
        if turn % 2 == 0 {
            // Its connection goes as well: what comes later is for others.
            drop(own);
            proxy.wait_listener("sessions/open", 1);
            blocked(&redis, 0);
            assert_eq!(other.rpush(&queue, &tag).await, Ok(1));
            assert_eq!(other.lpop(&queue, None).await, Ok(Some(tag)));
        } else {
            // Its connection stays: the reply that nobody waits for is nobody's.
            let reply = echo(&tag);
            let (came, length) =
                tokio::join!(reply.query_async(&mut own), other.rpush(&queue, &tag));
            assert_eq!((came, length), (Ok(tag), Ok(1)));
        }
    }
    drop(other);
    finish(proxy, &redis);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_amid_their_replies_leave_none_to_others() {
    let redis = Redis::start();
    let proxy = in_front_of(&redis).start();
    let address = proxy.address();
    let staying = share(address, PLAIN).await;
    let leaving = async {
        let mut given_up = 0;
        for number in 0..200 {
            let mut own = share(address, [PLAIN, RESP3][number as usize % 2]).await;
            let (tag, mut pipe) = (format!("leaving {number}"), redis::pipe());
            if number % 4 < 2 {
                pipe.atomic();
            }
            let wanted = tagged(&mut pipe, &tag, 200);
            let limit = Duration::from_micros(number * 10);
            match timeout(limit, pipe.query_async(&mut own)).await {
                Ok(came) => assert_eq!(came, Ok(wanted)),
                Err(_) => given_up += 1,
            }
        }
        given_up
    };
    let asking = all(20, |number| ask_tagged(staying.clone(), number));
    let (given_up, ()) = tokio::join!(leaving, asking);
    drop(staying);
    eprintln!("{given_up} of 200 left amid their replies");
    assert!(given_up > 0);
    finish(proxy, &redis);
}
