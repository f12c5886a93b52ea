"""Peers of the storm that are processes of their own, one for each connection, to be killed in the middle.

    peer.py serve ADDRESS    says "listening PORT", and then of each connection:
                             "accepted PEER", and where nobody killed it "ended PEER COUNT" or,
                             inside an answer, "stopped PEER COUNT"
    peer.py visit ADDRESS PORT    makes a connection for each line "HOW ADDRESS PORT" that it is told

Whoever is where it is to be killed says "ready PID OWN_OR_PEER HOW COUNT", COUNT being the number of the
exchange, and waits for that.
"""

import os
import signal
import socket
import sys

HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
# A child that nobody kills is not to outlive the storm.
PATIENCE_SECONDS = 60


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def wait_to_be_killed(who, how, count):
    signal.alarm(PATIENCE_SECONDS)
    say("ready", os.getpid(), who, how, count)
    while True:
        signal.pause()


def fork(serve, *arguments):
    if os.fork() == 0:
        try:
            serve(*arguments)
        finally:
            os._exit(0)


def name(address):
    return "%s:%d" % address


def serve_one(connection, peer):
    count = 0
    while True:
        seen = connection.recv(65536, socket.MSG_PEEK)
        if not seen:
            break
        count += 1
        how = seen.split(b" ")[1].decode().strip("/")
        length = seen.find(b"\r\n\r\n") + 4
        if how == "unread":
            wait_to_be_killed(peer, how, count)
        connection.recv(length)
        if how in ("half", "half-unread", "slow"):
            if how == "half-unread":
                connection.recv(1, socket.MSG_PEEK)
            connection.sendall(HALF)
            if how == "slow":
                stop(connection)
                say("stopped", peer, count)
                return
            wait_to_be_killed(peer, how, count)
        if how == "unanswered":
            wait_to_be_killed(peer, how, count)
        connection.sendall(GOOD)
    say("ended", peer, count)


def stop(connection):
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass


def lead(connection, peer):
    try:
        serve_one(connection, peer)
    except OSError:
        say("ended", peer, 0)


def serve(address):
    listener = socket.create_server((address, 0), backlog=128)
    say("listening", listener.getsockname()[1])
    while True:
        connection, peer = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        say("accepted", name(peer))
        fork(lead, connection, name(peer))
        connection.close()


def visit_one(address, how, source):
    connection = socket.create_connection(address, source_address=source)
    own = name(connection.getsockname())
    if how == "head":
        connection.sendall(b"GET / HT")
        wait_to_be_killed(own, how, 0)
    target = b"slow" if how.startswith("slow") else b"good"
    connection.sendall(b"GET /" + target + b" HTTP/1.1\r\nHost: service\r\n\r\n")
    end = b"half" if target == b"slow" else b"good"
    if how.endswith("unread"):
        while not connection.recv(65536, socket.MSG_PEEK).endswith(end):
            pass
    else:
        seen = b""
        while not seen.endswith(end):
            seen += connection.recv(65536)
    wait_to_be_killed(own, how, 1)


def visit(address, port):
    for line in sys.stdin:
        how, own, own_port = line.split()
        fork(visit_one, (address, port), how, (own, int(own_port)))


def main():
    # The kernel buries children that nobody waits for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        visit(sys.argv[2], int(sys.argv[3]))


main()
