"""Many short-lived clients at once, each with a name of its own in all that it asks.

Not here: any protocol.
"""

import os
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

# Seconds until a reply that does not come counts as lost: more than a busy machine needs.
PATIENCE = 15


def rage(clients, connections, converse):
    """Lets `converse(name)`, the life of one connection, run for so many clients at a time and so
    many connections of each, and says how many replies and one-way calls it told in all.
    """

    def live(name):
        try:
            return converse(name)
        except BaseException:
            # The other threads would keep the program alive until they have lost patience too.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    names = [f"{client}-{connection}" for connection in range(connections) for client in range(clients)]
    with ThreadPoolExecutor(max_workers=clients) as pool:
        told = list(pool.map(live, names))
    replies, oneway = (sum(counts) for counts in zip(*told))
    print(f"{replies} replies, {oneway} one-way", file=sys.stderr, flush=True)


def expect(reply, expected):
    """Raises where a reply is not the one that was asked for."""
    if reply != expected:
        raise AssertionError(f"not its own reply: {reply!r} for {expected!r}")
