"""A long cable: what goes in at one end comes out at the other after a while.

    cable.py SECONDS END END

END: the name of a network device, made here.
"""

import collections
import fcntl
import os
import select
import struct
import sys
import time

# if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
FRAME_MAX = 65536


def make_end(name):
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return end


def frames(end):
    """What has gone in since the last look."""
    while True:
        try:
            yield os.read(end, FRAME_MAX)
        except BlockingIOError:
            return


def carry(delay, ends):
    under_way = collections.deque()
    while True:
        patience = max(0, under_way[0][0] - time.monotonic()) if under_way else None
        ready, _, _ = select.select(ends, [], [], patience)
        now = time.monotonic()
        for end in ready:
            other = ends[1] if end == ends[0] else ends[0]
            under_way.extend((now + delay, other, frame) for frame in frames(end))
        while under_way and under_way[0][0] <= now:
            _, end, frame = under_way.popleft()
            try:
                os.write(end, frame)
            except OSError:
                # An end that is not up yet, or no more: the frame is lost.
                pass


carry(float(sys.argv[1]), [make_end(name) for name in sys.argv[2:]])
