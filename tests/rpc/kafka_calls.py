"""Kafka's requests and replies in the classes of kafka-python, and its producers.

    kafka_calls.py serve PORT ADVERTISED
    kafka_calls.py ask CLIENTS CONNECTIONS REQUESTS PORT [ACKS]

The service stands in for a broker: it answers the three requests that a producer makes, and tells its
clients that the port ADVERTISED is where it is. The offset of a record is the number that is in it.
ACKS is how many brokers a producer wants to hear of, 1 where it says nothing; 0 is none.
"""

import io
import socketserver
import sys

import storm
from kafka import KafkaProducer
from kafka.protocol.admin import ApiVersionResponse
from kafka.protocol.api import RequestHeader
from kafka.protocol.metadata import MetadataRequest, MetadataResponse
from kafka.protocol.produce import ProduceRequest, ProduceResponse
from kafka.protocol.types import Int32
from kafka.record import MemoryRecords

TOPIC = "numbers"
# What the service knows, by the number of the request: no version of it over this one.
VERSIONS = {0: 3, 3: 4, 18: 0}


class Broker(socketserver.StreamRequestHandler):
    def handle(self):
        while size := self.rfile.read(4):
            body = io.BytesIO(self.rfile.read(Int32.decode(io.BytesIO(size))))
            kind, version, number, _client = RequestHeader.SCHEMA.decode(body)
            answers = {0: produced, 3: self.metadata, 18: known_versions}
            reply = answers[kind](version, body)
            if reply is not None:
                message = Int32.encode(number) + reply.encode()
                self.wfile.write(Int32.encode(len(message)) + message)

    def metadata(self, version, body):
        MetadataRequest[version].decode(body)
        here = (0, "127.0.0.1", self.server.advertised)
        topic, partition = (0, TOPIC), (0, 0, 0, [0], [0])
        return {
            0: lambda: MetadataResponse[0]([here], [(*topic, [partition])]),
            1: lambda: MetadataResponse[1]([(*here, None)], 0, [(*topic, False, [partition])]),
        }[version]()


class Service(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


def known_versions(version, _body):
    return ApiVersionResponse[version](0, [(kind, 0, highest) for kind, highest in VERSIONS.items()])


def produced(version, body):
    request = ProduceRequest[version].decode(body)
    topics = []
    for topic, partitions in request.topics:
        offsets = []
        for partition, records in partitions:
            first = next(iter(MemoryRecords(records).next_batch()))
            offsets.append((partition, 0, int(first.value), -1))
        topics.append((topic, offsets))
    return ProduceResponse[version](topics, 0) if request.required_acks else None


def serve(port, advertised):
    service = Service(("127.0.0.1", int(port)), Broker)
    service.advertised = int(advertised)
    service.serve_forever()


def ask(clients, connections, requests, port, acks="1"):
    def converse(name):
        client, connection = map(int, name.split("-"))
        producer = KafkaProducer(bootstrap_servers=f"127.0.0.1:{port}", acks=int(acks), retries=0)
        for request in range(int(requests)):
            number = (client * 1000 + connection) * 1000 + request
            told = producer.send(TOPIC, str(number).encode()).get(storm.PATIENCE)
            storm.expect(told.offset, number if acks != "0" else -1)
        producer.close()
        return (int(requests), 0) if acks != "0" else (0, int(requests))

    storm.rage(int(clients), int(connections), converse)


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    serve(*arguments) if role == "serve" else ask(*arguments)
