"""Text lines: a service that answers each with itself reversed, and clients that ask it.

    lines.py serve PORT/END...
    lines.py ask CLIENTS CONNECTIONS REQUESTS PORT/END
    lines.py srs CLIENTS CONNECTIONS REQUESTS PORT/lf       the same of a postsrsd

END: lf, crlf or nul, what a line ends with.
"""

import socket
import socketserver
import sys
import threading

import storm

ENDS = {"lf": b"\n", "crlf": b"\r\n", "nul": b"\0"}


class Lines(socketserver.BaseRequestHandler):
    def handle(self):
        for line in lines(self.request, self.server.end):
            self.request.sendall(line[::-1] + self.server.end)


class Service(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


def lines(stream, end):
    """The lines that come, without their ends."""
    held = b""
    while chunk := stream.recv(4096):
        *whole, held = (held + chunk).split(end)
        yield from whole


def serve(*listeners):
    for listener in listeners:
        port, end = listener.split("/")
        service = Service(("127.0.0.1", int(port)), Lines)
        service.end = ENDS[end]
        threading.Thread(target=service.serve_forever).start()


def ask(question_and_answer, clients, connections, requests, listener):
    port, end = listener.split("/")
    end = ENDS[end]

    def converse(name):
        with socket.create_connection(("127.0.0.1", int(port)), storm.PATIENCE) as stream:
            replies = lines(stream, end)
            for request in range(int(requests)):
                question, answered = question_and_answer(f"{name}-{request}")
                stream.sendall(question.encode() + end)
                reply = next(replies).decode()
                storm.expect(answered(reply), True)
        return int(requests), 0

    storm.rage(int(clients), int(connections), converse)


def reversal(tag):
    text = f"{tag} " + "x" * (sum(tag.encode()) * 37 % 6000)
    return text, lambda reply: reply == text[::-1]


def rewriting(tag):
    """What a mail server asks (see tcp_table(5) of Postfix): an address for a bounce to come back to."""
    # 200 SRS0=hash=day=domain=local@forwarder
    return f"get {tag}@{tag}.example", lambda reply: (
        reply.startswith("200 SRS0=") and reply.endswith(f"={tag}.example={tag}@pond.example")
    )


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "serve":
        serve(*arguments)
    else:
        ask(rewriting if role == "srs" else reversal, *arguments)
