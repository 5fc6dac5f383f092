"""ElasticMQ: a queue that is missing, and a server that hangs."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

from benchmarks.nemesis.check import Delivery
from tests.support.brokers.elastic_mq import ElasticMq
from tests.support.brokers.readable_brokers import from_sqs
from tests.support.brokers.sqs_server import client, receive_all

from .place import CARS, Fault, delivery

_QUEUE: Final = "events.fifo"


class SqsPlace:
    """A FIFO queue, which all topics share."""

    def __init__(self, server: ElasticMq) -> None:
        self._server = server
        self._client = client(server.endpoint)
        self._found: list[Delivery] = []
        place = f"region=eu-west-1&endpoint={server.endpoint}"
        self.sink = f"sqs://{_QUEUE}?{place}&timeout=3"

    def prepare(self) -> None:
        self._client.create_queue(QueueName=_QUEUE, Attributes={"FifoQueue": "true"})

    def faults(self) -> Sequence[Fault]:
        return [
            Fault("missing queue", self._missing_queue, CARS),
            Fault("server stopped", self._server.frozen),
        ]

    def delivered(self) -> list[Delivery]:
        received = receive_all(self._server.endpoint, _QUEUE)
        self._found += [delivery(from_sqs(message)) for message in received]
        return self._found

    @contextmanager
    def _missing_queue(self) -> Generator[None]:
        self.delivered()  # the messages of a queue are removed with it
        url = self._client.get_queue_url(QueueName=_QUEUE)["QueueUrl"]
        self._client.delete_queue(QueueUrl=url)
        yield
        self.prepare()
