"""An HTTP service that closes idle connections, and says on standard error what it has executed.

    keepalive.py HOST PORT IDLE HANG

IDLE: seconds after which an idle connection is closed; 0: never.
HANG: "executes": the second request of a connection is executed and not answered; "unread": it is not
even read; "never"; "dies": some are executed, and then the connection ends without an answer.
"""

import asyncio
import random
import socket
import struct
import sys


class Service(asyncio.Protocol):
    def __init__(self, idle, hang):
        self.idle = idle
        self.hang = hang
        self.held = b""
        self.requests = 0
        self.timer = None

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        self.stop_timer()

    def data_received(self, data):
        self.held += data
        while request := self.take_request():
            self.stop_timer()
            self.execute(request)

    def take_request(self):
        head, end, rest = self.held.partition(b"\r\n\r\n")
        if not end:
            return None
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) < length:
            return None
        self.held = rest[length:]
        return head.split(b" ")[1].decode()

    def execute(self, target):
        self.requests += 1
        print(target, file=sys.stderr, flush=True)
        if self.hang == "executes" and self.requests == 2:
            return
        if self.hang == "dies" and random.random() < 0.1:
            self.die()
            return
        body = target.encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        if self.hang == "unread":
            self.transport.pause_reading()
        if self.idle:
            self.timer = asyncio.get_running_loop().call_later(self.idle, self.transport.close)

    def die(self):
        """By FIN or by RST."""
        if random.random() < 0.5:
            stream = self.transport.get_extra_info("socket")
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def stop_timer(self):
        if self.timer:
            self.timer.cancel()
            self.timer = None


async def main(host, port, idle, hang):
    loop = asyncio.get_running_loop()
    service = lambda: Service(float(idle), hang)
    server = await loop.create_server(service, host, int(port), backlog=1024)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
