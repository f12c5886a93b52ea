"""What programs over redis-py do, and what they must see.

    calls.py CASE HOST PORT

It ends with 1 at the first thing that is not as it would be straight at Redis.
"""

import asyncio
import sys
import threading
import time

import redis
import redis.asyncio

HOST, PORT = sys.argv[2], int(sys.argv[3])


def client(**options):
    options.setdefault("decode_responses", True)
    return redis.Redis(host=HOST, port=PORT, socket_timeout=20, **options)


def in_threads(count, body):
    """Runs body(number) in so many threads; what one raises is raised here."""
    raised = []

    def run(number):
        try:
            body(number)
        except BaseException as error:  # noqa: BLE001: it is raised again
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def sync():
    own = client()
    assert own.ping()
    assert own.set("text", "näive") and own.get("text") == "näive"
    assert own.get("absent") is None
    assert own.set("text", "other", nx=True) is None
    assert own.incr("count") == 1 and own.incrby("count", 41) == 42
    assert own.rpush("list", "a", "b", "c") == 3 and own.lrange("list", 0, -1) == ["a", "b", "c"]
    assert own.hset("hash", mapping={"a": "1", "b": "2"}) == 2
    assert own.hgetall("hash") == {"a": "1", "b": "2"}
    assert own.sadd("set", "x", "y") == 2 and own.smembers("set") == {"x", "y"}
    assert own.zadd("zset", {"one": 1, "two": 2.5}) == 2
    assert own.zrange("zset", 0, -1, withscores=True) == [("one", 1.0), ("two", 2.5)]
    assert own.mset({"m1": "1", "m2": "2"}) and own.mget("m1", "none", "m2") == ["1", None, "2"]
    assert own.expire("m1", 100) and 0 < own.ttl("m1") <= 100
    assert own.type("zset") == "zset" and own.exists("m1", "none") == 1
    try:
        own.incr("list")
        raise AssertionError("no error")
    except redis.ResponseError as error:
        assert "WRONGTYPE" in str(error), error
    double = own.register_script("return tonumber(ARGV[1]) * 2")
    assert double(args=[21]) == 42 and double(args=[4]) == 8
    assert own.xadd("stream", {"a": "1"}, id="1-1") == "1-1"
    assert own.xrange("stream") == [("1-1", {"a": "1"})]
    raw = client(decode_responses=False)
    every = bytes(range(256)) * 10
    raw.set("bytes", every)
    assert raw.get("bytes") == every
    assert own.info("server")["redis_mode"] == "standalone"
    assert own.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}

    def many(number):
        mine = client()
        for turn in range(100):
            value = f"{number}-{turn}"
            assert mine.set(f"thread:{number}", value)
            assert mine.get(f"thread:{number}") == value
        mine.close()

    in_threads(40, many)


def asynchronous():
    async def one(own, number):
        for turn in range(20):
            value = f"{number}-{turn}"
            await own.set(f"task:{number}", value)
            assert await own.get(f"task:{number}") == value

    async def everything():
        own = redis.asyncio.Redis(host=HOST, port=PORT, decode_responses=True)
        await asyncio.gather(*(one(own, number) for number in range(100)))
        # A call that is cancelled leaves a reply behind that nobody may get.
        for turn in range(50):
            waits = asyncio.create_task(own.blpop("waited", timeout=10))
            await asyncio.sleep(0.002)
            waits.cancel()
            try:
                await waits
            except asyncio.CancelledError:
                pass
            assert await own.echo(f"turn {turn}") == f"turn {turn}"
        async with own.pipeline(transaction=True) as pipe:
            assert await pipe.set("a", "1").get("a").incr("a").execute() == [True, "1", 2]
        pubsub = own.pubsub()
        await pubsub.subscribe("async")
        assert (await pubsub.get_message(timeout=10))["type"] == "subscribe"
        assert await own.publish("async", "news") == 1
        assert (await pubsub.get_message(timeout=10))["data"] == "news"
        await pubsub.aclose()
        await own.aclose()

    asyncio.run(everything())


def publish():
    def next_of(pubsub):
        while True:
            message = pubsub.get_message(timeout=20)
            if message is not None:
                return message["type"], message["channel"], message["data"]

    for protocol in (2, 3):
        own = client(protocol=protocol)
        one, two = own.pubsub(), own.pubsub()
        one.subscribe("news", "weather")
        assert next_of(one) == ("subscribe", "news", 1)
        assert next_of(one) == ("subscribe", "weather", 2)
        two.psubscribe("n*")
        assert next_of(two) == ("psubscribe", "n*", 1)
        assert own.publish("news", "hello") == 2
        assert own.publish("weather", "rain") == 1
        assert own.publish("nobody", "lost") == 1
        assert next_of(one) == ("message", "news", "hello")
        assert next_of(one) == ("message", "weather", "rain")
        assert next_of(two) == ("pmessage", "news", "hello")
        assert next_of(two) == ("pmessage", "nobody", "lost")
        if protocol == 2:
            one.ping("there")
            assert next_of(one)[0::2] == ("pong", "there")
        one.unsubscribe("news")
        assert next_of(one) == ("unsubscribe", "news", 1)
        assert own.publish("news", "again") == 1
        assert next_of(two) == ("pmessage", "news", "again")
        assert sorted(own.pubsub_channels()) == ["weather"]
        one.close()
        two.close()
        assert own.set("after", "all") and own.get("after") == "all"

    def listen(number):
        mine = client()
        pubsub = mine.pubsub()
        pubsub.subscribe(f"own:{number}")
        assert next_of(pubsub)[0] == "subscribe"
        for turn in range(50):
            assert mine.publish(f"own:{number}", f"{number}-{turn}") == 1
            assert next_of(pubsub) == ("message", f"own:{number}", f"{number}-{turn}")
        pubsub.close()

    in_threads(8, listen)


def pipelines():
    def many(number):
        mine = client()
        for turn in range(10):
            pipe = mine.pipeline(transaction=False)
            for step in range(100):
                pipe.set(f"pipe:{number}:{step}", f"{turn}-{step}")
                pipe.get(f"pipe:{number}:{step}")
            expected = [it for step in range(100) for it in (True, f"{turn}-{step}")]
            assert pipe.execute() == expected

    in_threads(20, many)
    own = client()
    own.set("text", "x")
    pipe = own.pipeline(transaction=False).incr("text").get("text").ping()
    result = pipe.execute(raise_on_error=False)
    assert isinstance(result[0], redis.ResponseError) and result[1:] == ["x", True], result


def transactions():
    own = client()
    own.set("balance", "0")

    def deposit(_):
        mine = client()
        for _ in range(25):
            while True:
                with mine.pipeline() as pipe:
                    try:
                        pipe.watch("balance")
                        balance = int(pipe.get("balance"))
                        pipe.multi()
                        pipe.set("balance", balance + 1)
                        pipe.get("balance")
                        assert pipe.execute() == [True, str(balance + 1)]
                        break
                    except redis.WatchError:
                        continue

    in_threads(8, deposit)
    assert own.get("balance") == "200"
    assert own.transaction(lambda pipe: pipe.multi() or pipe.incr("balance"), "balance") == [201]
    with own.pipeline() as pipe:
        pipe.set("a", "1")
        pipe.lpush("a", "wrong")
        pipe.set("b", "2")
        result = pipe.execute(raise_on_error=False)
        assert result[0] is True and result[2] is True, result
        assert "WRONGTYPE" in str(result[1]), result
    with own.pipeline() as pipe:
        pipe.set("a", "2")
        pipe.execute_command("SET", "too few")
        try:
            pipe.execute()
            raise AssertionError("no error")
        except redis.ResponseError as error:
            assert "wrong number" in str(error) or "EXECABORT" in str(error), error
    assert own.get("a") == "1"
    with own.pipeline() as pipe:
        pipe.watch("a")
        own.set("a", "3")
        pipe.unwatch()
        pipe.multi()
        pipe.get("a")
        assert pipe.execute() == ["3"]


def blocking():
    own = client()
    began = time.monotonic()
    assert own.blpop("nothing", timeout=1) is None
    assert 0.9 < time.monotonic() - began < 10

    def wait(number):
        mine = client()
        for turn in range(20):
            assert mine.blpop([f"queue:{number}", "other"], timeout=20) == (
                f"queue:{number}",
                f"{number}-{turn}",
            )
            assert mine.rpush(f"done:{number}", turn) == turn + 1

    def feed(number):
        mine = client()
        for turn in range(20):
            mine.rpush(f"queue:{number}", f"{number}-{turn}")

    in_threads(12, lambda number: (wait if number % 2 else feed)(number // 2))
    assert all(own.llen(f"done:{number}") == 20 for number in range(6))
    own.rpush("from", "x")
    assert own.blmove("from", "to", 5) == "x"
    own.zadd("scores", {"low": 1, "high": 2})
    assert own.bzpopmin("scores", timeout=5) == ("scores", "low", 1.0)
    own.xadd("stream", {"n": "1"}, id="1-1")
    assert own.xread({"stream": "1-1"}, block=100) in ([], {}, None)
    assert own.xread({"stream": "0"}, block=100)
    # No block inside a transaction.
    assert own.pipeline().blpop("nothing", timeout=0).ping().execute() == [None, True]


def resp3():
    own = client(protocol=3)
    assert own.hset("hash", mapping={"a": "1"}) == 1 and own.hgetall("hash") == {"a": "1"}
    assert own.execute_command("CONFIG GET", "maxclients")
    assert own.sadd("set", "x") == 1 and own.smembers("set") == {"x"}
    assert own.zadd("zset", {"one": 1.5}) == 1 and own.zscore("zset", "one") == 1.5
    assert own.get("absent") is None
    old = client(protocol=2)
    assert old.hgetall("hash") == {"a": "1"} and old.zscore("zset", "one") == 1.5
    pipe = own.pipeline().hgetall("hash").smembers("set").get("absent")
    assert pipe.execute() == [{"a": "1"}, {"x"}, None]

    def many(number):
        mine = client(protocol=2 + number % 2)
        for turn in range(50):
            mine.hset(f"h:{number}", "turn", turn)
            assert mine.hgetall(f"h:{number}") == {"turn": str(turn)}

    in_threads(20, many)


def databases():
    def many(number):
        database = number % 5
        mine = client(db=database)
        for turn in range(50):
            assert mine.set(f"key:{number}", f"{database}-{turn}")
            assert mine.get(f"key:{number}") == f"{database}-{turn}"

    in_threads(20, many)
    for database in range(5):
        keys = set(client(db=database).scan_iter("key:*"))
        assert keys == {f"key:{number}" for number in range(20) if number % 5 == database}, keys
    assert client(db=7).dbsize() == 0
    one = client(single_connection_client=True)
    for database in (3, 0, 4):
        assert one.select(database)
        assert one.exists(f"key:{database}") == 1, database
    try:
        one.select(9999)
        raise AssertionError("no error")
    except redis.ResponseError:
        pass
    assert one.exists("key:4") == 1


def names():
    ids = []

    def named(number):
        mine = client(client_name=f"client-{number}", single_connection_client=True)
        for _ in range(20):
            assert mine.client_getname() == f"client-{number}"
        assert mine.client_setname(f"again-{number}")
        assert mine.client_getname() == f"again-{number}"
        own = mine.client_id()
        assert mine.client_id() == own
        ids.append(own)
        barrier.wait(20)

    barrier = threading.Barrier(20)
    in_threads(20, named)
    assert len(set(ids)) == 20, ids
    assert client().client_getname() in (None, "")


def users():
    def check(number, user, more):
        own = client(username=user, password=f"{user}-secret", **more)
        for turn in range(30):
            assert own.acl_whoami() == user
            assert own.set(f"{user}:{number}", turn)
            assert own.get(f"{user}:{number}") == str(turn)
            try:
                own.get("others")
                raise AssertionError("no error")
            except redis.exceptions.NoPermissionError:
                pass
        assert own.pipeline().execute_command("ACL WHOAMI").execute() == [user]

    everybody = [("alice", {}), ("bob", {}), ("alice", {"protocol": 3}), ("bob", {"db": 2})]
    in_threads(16, lambda number: check(number, *everybody[number % 4]))
    assert client().acl_whoami() == "default"
    for user, password in (("alice", "wrong"), ("nobody", "x")):
        try:
            client(username=user, password=password).ping()
            raise AssertionError("no error")
        except redis.AuthenticationError as error:
            assert "invalid" in str(error) or "WRONGPASS" in str(error), error
    assert client(username="alice", password="alice-secret").acl_whoami() == "alice"


def scan():
    own = client()
    pipe = own.pipeline(transaction=False)
    for number in range(5000):
        pipe.set(f"scan:{number}", number)
    pipe.execute()
    assert len(set(own.scan_iter("scan:*", count=100))) == 5000
    own.hset("hash", mapping={str(number): number for number in range(3000)})
    assert len(dict(own.hscan_iter("hash", count=50))) == 3000
    own.sadd("set", *range(3000))
    assert len(set(own.sscan_iter("set", count=50))) == 3000
    assert len(own.keys("scan:*")) == 5000


CASES = {
    case.__name__: case
    for case in (
        sync, asynchronous, publish, pipelines, transactions, blocking, resp3, databases, names,
        users, scan,
    )
}

if __name__ == "__main__":
    CASES[sys.argv[1]]()
