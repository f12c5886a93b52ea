"""What programs over pymemcache do, and what they must see.

    calls.py HOST PORT

It ends with 1 at the first thing that is not as it would be straight at memcached.
"""

import sys
import threading

from pymemcache.client.base import Client, PooledClient

ADDRESS = (sys.argv[1], int(sys.argv[2]))
raised = []


def one(number):
    own = Client(ADDRESS, timeout=20, connect_timeout=20)
    for turn in range(100):
        key, value = f"key:{number}:{turn % 5}", f"{number}-{turn}".encode()
        # Without noreply=False the library asks for no reply.
        own.set(key, value)
        assert own.get(key) == value
        assert own.set(key, value + b"!", noreply=False)
        data, cas = own.gets(key)
        assert data == value + b"!"
        assert own.cas(key, value, cas, noreply=False)
        assert own.cas(key, b"x", cas, noreply=False) is False
    many = {f"many:{number}:{it}": f"{number}:{it}".encode() for it in range(200)}
    assert own.set_many(many, noreply=False) == []
    assert own.get_many(many) == many
    own.set(f"count:{number}", "0")
    assert [own.incr(f"count:{number}", 1) for _ in range(50)] == list(range(1, 51))
    assert own.add(f"count:{number}", "1", noreply=False) is False
    assert own.delete(f"count:{number}", noreply=False)
    assert own.get(f"count:{number}", "gone") == "gone"
    assert own.touch(f"key:{number}:0", 100, noreply=False)
    own.close()


def pooled(number, pool):
    for turn in range(100):
        pool.set(f"pool:{number}", f"{number}-{turn}", noreply=False)
        assert pool.get(f"pool:{number}") == f"{number}-{turn}".encode()


def kept(body, *arguments):
    try:
        body(*arguments)
    except BaseException as error:  # noqa: BLE001: it is raised again
        raised.append(error)


pool = PooledClient(ADDRESS, max_pool_size=8, timeout=20)
threads = [threading.Thread(target=kept, args=(one, number)) for number in range(20)]
threads += [threading.Thread(target=kept, args=(pooled, number, pool)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if raised:
    raise raised[0]
