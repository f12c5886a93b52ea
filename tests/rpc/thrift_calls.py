"""Apache Thrift's own protocols and framed transport on both sides.

    thrift_calls.py GENERATED serve PORT/PROTOCOL
    thrift_calls.py GENERATED ask CLIENTS CONNECTIONS REQUESTS PORT/PROTOCOL
    thrift_calls.py GENERATED unheard PORT/PROTOCOL     one one-way call that the service does not know

GENERATED: what `thrift --gen py calls.thrift` wrote. PROTOCOL: strict, loose (binary without the
version in front of the method's name), compact or header. Loose and header clients make no one-way
calls.
"""

import collections
import sys
import threading

GENERATED, ROLE, *ARGUMENTS = sys.argv[1:]
sys.path.append(GENERATED)

import storm
from calls import Calls
from thrift.protocol.TBinaryProtocol import TBinaryProtocol, TBinaryProtocolFactory
from thrift.protocol.TCompactProtocol import TCompactProtocolFactory
from thrift.protocol.THeaderProtocol import THeaderProtocolFactory
from thrift.Thrift import TMessageType
from thrift.server.TServer import TThreadedServer
from thrift.transport.TSocket import TServerSocket, TSocket
from thrift.transport.TTransport import TBufferedTransportFactory, TFramedTransportFactory



class LooseProtocol(TBinaryProtocol):
    """The library leaves the name of a loose message as bytes, and then does not know the method."""

    def readMessageBegin(self):
        name, kind, number = super().readMessageBegin()
        return name.decode(), kind, number


class LooseProtocolFactory:
    def getProtocol(self, transport):
        return LooseProtocol(transport, strictRead=False, strictWrite=False)


PROTOCOLS = {
    "strict": TBinaryProtocolFactory(strictRead=True, strictWrite=True),
    "loose": LooseProtocolFactory(),
    "compact": TCompactProtocolFactory(),
    "header": THeaderProtocolFactory(),
}


def transports(protocol):
    # The header protocol frames by itself.
    return TBufferedTransportFactory() if protocol == "header" else TFramedTransportFactory()


class Handler:
    def __init__(self):
        self.lock = threading.Lock()
        self.notes = collections.Counter()

    def say(self, text):
        return text[::-1]

    def echo(self, text):
        return text

    def note(self, tag):
        with self.lock:
            self.notes[tag] += 1

    def noted(self, tag):
        with self.lock:
            return self.notes[tag]


def serve(listener):
    port, protocol = listener.split("/")
    TThreadedServer(
        Calls.Processor(Handler()),
        TServerSocket("127.0.0.1", int(port)),
        transports(protocol),
        PROTOCOLS[protocol],
        daemon=True,
    ).serve()


def ask(clients, connections, requests, listener):
    def converse(name):
        protocol = connect(listener)
        with_notes = not listener.endswith(("loose", "header"))
        told = talk(Calls.Client(protocol), name, int(requests), with_notes)
        protocol.trans.close()
        return told

    storm.rage(int(clients), int(connections), converse)


def connect(listener):
    port, protocol = listener.split("/")
    stream = TSocket("127.0.0.1", int(port))
    stream.setTimeout(storm.PATIENCE * 1000)
    transport = transports(protocol).getTransport(stream)
    transport.open()
    return PROTOCOLS[protocol].getProtocol(transport)


def unheard(listener):
    def converse(_name):
        protocol = connect(listener)
        # As the generated client writes it, but for the name.
        protocol.writeMessageBegin("unheard_of", TMessageType.ONEWAY, 0)
        Calls.note_args("tag").write(protocol)
        protocol.writeMessageEnd()
        protocol.trans.flush()
        protocol.trans.close()
        return 0, 1

    storm.rage(1, 1, converse)


def talk(client, name, requests, with_notes):
    replies = oneway = 0
    for request in range(requests):
        text = f"{name}-{request} " + "x" * (request * 173 % 5000)
        if with_notes and request % 3 == 0:
            client.note(name)
            oneway += 1
        storm.expect(client.say(text), text[::-1])
        storm.expect(client.echo(text), text)
        replies += 2
    # A note and the question for it may take different connections, and overtake each other there.
    noted = -1
    while noted < oneway:
        noted = client.noted(name)
        replies += 1
    storm.expect(noted, oneway)
    return replies, oneway


if __name__ == "__main__":
    {"serve": serve, "ask": ask, "unheard": unheard}[ROLE](*ARGUMENTS)
